"""Several labels an image: collages of two times two items, of which any may be missing.

It stands for what chest X-rays ask: an image has none, one or several findings, and each is a question of its own.
"""

import torch
from torch import Tensor

from kdlib._checks import checked, fraction, positive_integer
from kdlib.data import ImageSplit
from kdlib.tasks import _checks

CELLS = 4


@checked(split=_checks.items, n=positive_integer, seed=_checks.seed, empty=fraction, classes=positive_integer)
def collages(
    split: ImageSplit, n: int, *, seed: int = 0, empty: float | int = 0.5, classes: int = 10
) -> ImageSplit:
    """`n` collages of items drawn from `split`, with replacement.

    Args:
        split: grey images of one class each, (height, width).
        n: how many.
        seed: chooses the items and the places.
        empty: the share of the four places that hold no item, independent of each other.
        classes: how many classes there are.

    Returns:
        Images uint8 (n, 1, 2 * height, 2 * width); labels float32 (n, classes), 1 where at least one of the items
        has this class. A collage may have no label. Normalised by the mean and std of these collages.

    Raises:
        ValueError: images of several channels or labels; a label that is not below `classes`.
    """
    _checks.labels_below(classes, split, "classes")
    random = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(split), (n, CELLS), generator=random)
    present = torch.rand(n, CELLS, generator=random) >= empty
    images = split.images[rows, 0] * present[..., None, None]
    labels = torch.zeros(n, classes).scatter_reduce(1, split.labels[rows], present.float(), "amax")
    return ImageSplit(_two_by_two(images), labels)


def _two_by_two(images: Tensor) -> Tensor:
    """(n, 4, height, width) -> (n, 1, 2 * height, 2 * width)."""
    n, _, height, width = images.shape
    rows = images.view(n, 2, 2, height, width).transpose(2, 3)
    return rows.reshape(n, 1, 2 * height, 2 * width)
