"""Labels that are wrong on purpose."""

from typing import Any

import torch

from kdlib import _checks
from kdlib._checks import checked, fraction, positive_integer
from kdlib.data.splits import ImageSplit, is_split


def _optional_count(name: str, value: Any) -> int | None:
    return None if value is None else positive_integer(name, value)


@checked(split=is_split, share=fraction, seed=_checks.seed, classes=_optional_count)
def with_wrong_labels(
    split: ImageSplit, share: float | int, seed: int = 0, *, classes: int | None = None
) -> ImageSplit:
    """The split with this share of its labels replaced, each by one of the other classes, all equally likely.

    Args:
        split: images of one class each.
        share: round(share * n) labels are replaced; from 0 to 1.
        seed: chooses the images and their new labels. Give another one than to the training that follows: with
            seed 0 in both, the images with wrong labels would be the first that the student sees.
        classes: how many there are; by default one more than the largest label.

    Raises:
        ValueError: several labels an image, a label that is no class, fewer than two classes.
    """
    if not split.has_classes:
        raise ValueError(
            f"split must hold images of one class each, got labels {tuple(split.labels.shape)}: a number for each class"
        )
    classes = int(split.labels.max()) + 1 if classes is None else classes
    if classes < 2 or int(split.labels.max()) >= classes:
        raise ValueError(
            f"classes must be at least 2 and above every label, got {classes} and the label {int(split.labels.max())}"
        )
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randperm(len(split), generator=generator)[: round(share * len(split))]
    labels = split.labels.clone()
    labels[wrong] = (labels[wrong] + torch.randint(1, classes, (len(wrong),), generator=generator)) % classes
    return ImageSplit(split.images, labels, split.indices, split.mean, split.std)
