"""Other tasks than one label an image, on material made from the images of any split.

Each file makes an `ImageSplit` from another one, so that `kdlib.training` trains on it as on any other: the labels
are classes, or numbers in [0, 1], a row an image. What a task needs besides, such as a network, a loss or a measure,
stands beside it.

    collages     several labels an image: two times two items, or fewer
    detection    one to three items on a canvas: which, and where
    video        eight frames: which item, and where it moves
    modalities   edges, a thumbnail or a silhouette in place of the pixels
    regression   how far an item is turned
    material     images to learn from, to choose by and to be judged by, of any of these
    shelf        the teachers of these tasks that ship with the package
"""
