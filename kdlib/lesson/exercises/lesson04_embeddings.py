"""Exercise of lesson 04 about embeddings: does the nearest image show the same thing?

The function carries no annotations, because its text is the stub that a learner reads: shapes stand in the docstring.
"""

import torch
import torch.nn.functional as F

from kdlib.lesson.exercises._core import exercise


def _clouds(seed, n, width, classes):
    """Classes that overlap, around means of several lengths; the embeddings of one image point where they like."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    means = 0.8 * torch.randn(classes, width, generator=generator)
    lengths = torch.empty(n, 1).uniform_(0.3, 3.0, generator=generator)
    return lengths * (means[labels] + torch.randn(n, width, generator=generator)), labels


def _all_apart():
    """Four images any two of which point away from each other: no cosine between them is above zero."""
    corners = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.1, -1.0], [-1.3, 1.0, -1.0], [-1.0, -1.0, 1.6]])
    return corners, torch.tensor([0, 1, 0, 0])


def _cosines(embeddings):
    rows = F.normalize(embeddings, dim=1)
    return rows @ rows.T


def _nearest(similarity, *, diagonal=-torch.inf):
    similarity = similarity.clone()
    return similarity.fill_diagonal_(diagonal).argmax(dim=1)


def _share(nearest, labels):
    return (labels[nearest] == labels).double().mean()


@exercise(
    cases=lambda: [_clouds(0, 60, 3, 4), _clouds(1, 83, 5, 6), _all_apart()],
    hints=[
        """The cosine of two embeddings is the product of both after each has been divided by its length. Which image
        is the nearest to each one, if you do not take care?""",
        """`rows = F.normalize(embeddings, dim=1)`; `rows @ rows.T` has all cosines. On its diagonal every image meets
        itself: write something there that is below every cosine.""",
        """`cosines.fill_diagonal_(-torch.inf)`, `nearest = cosines.argmax(dim=1)`; then compare `labels[nearest]` with
        `labels`, and take the mean of the answers as floats.""",
    ],
    mistakes={
        "every image finds itself, so it is always 1: the nearest other image is asked for":
            lambda e, y: _share(_cosines(e).argmax(dim=1), y),
        "0 on the diagonal is above every cosine of an image that all others point away from: it finds itself; "
        "write something below -1":
            lambda e, y: _share(_nearest(_cosines(e), diagonal=0), y),
        "the dot product: a long embedding is near to everything; divide each row by its length first":
            lambda e, y: _share(_nearest(e @ e.T), y),
        "the dot product, and 0 on its diagonal: divide each row by its length, and write something below -1 there":
            lambda e, y: _share(_nearest(e @ e.T, diagonal=0), y),
        "the distance between the embeddings as they are; the cosine does not know how long they are":
            lambda e, y: _share(_nearest(-torch.cdist(e, e)), y),
        "the sum of the absolute values is no length: the second argument of F.normalize is p, not dim":
            lambda e, y: _share(_nearest(F.normalize(e, 1) @ F.normalize(e, 1).T), y),
        "each column is divided by its length; each image, a row, has a length":
            lambda e, y: _share(_nearest(F.normalize(e, dim=0) @ F.normalize(e, dim=0).T), y),
        "the farthest image: the greater the cosine, the nearer; take argmax":
            lambda e, y: _share(_cosines(e).argmin(dim=1), y),
        "the number of hits; their share is asked for":
            lambda e, y: _share(_nearest(_cosines(e)), y) * len(y),
        "in percent; a share from 0 to 1 is asked for":
            lambda e, y: _share(_nearest(_cosines(e)), y) * 100,
        "the share of the images that miss":
            lambda e, y: 1 - _share(_nearest(_cosines(e)), y),
        "the number of the nearest image is compared with a label; its own label is labels[nearest]":
            lambda e, y: (_nearest(_cosines(e)) == y).double().mean(),
        "the number of the nearest image is compared with the image's own number; compare their labels":
            lambda e, y: torch.tensor(0.0),
        "the answer for each image; their mean is asked for":
            lambda e, y: (y[_nearest(_cosines(e))] == y).double(),
    },
)  # fmt: skip
def recall_at_one(embeddings, labels):
    """The share of images whose nearest other image, by the cosine of their embeddings, has their own label.

    embeddings: (n, width); labels: (n,), the numbers of the classes. Returns a number from 0 to 1.
    """
    # --- your code
    rows = F.normalize(embeddings, dim=1)
    cosines = rows @ rows.T
    cosines.fill_diagonal_(-torch.inf)
    nearest = cosines.argmax(dim=1)
    return (labels[nearest] == labels).float().mean()
    # --- end
