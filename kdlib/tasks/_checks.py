"""What the tasks ask of the splits that they are made from."""

from typing import Any

from kdlib.data import ImageSplit
from kdlib.data.splits import is_split


def items(name: str, value: Any) -> ImageSplit:
    """A rule for `kdlib._checks.checked`: grey images of one class each."""
    split = is_split(name, value)
    if not split.has_classes:
        raise ValueError(f"{name} must hold images of one class each, got labels {tuple(split.labels.shape)}")
    return grey(name, split)


def grey(name: str, value: Any) -> ImageSplit:
    """A rule for `kdlib._checks.checked`: images of one channel."""
    split = is_split(name, value)
    if split.images.shape[1] != 1:
        raise ValueError(f"{name} must hold grey images of one channel, got {split.images.shape[1]} channels")
    return split


def classes_of(split: ImageSplit, classes: int) -> None:
    """
    Raises:
        ValueError: an image has a class that is not below `classes`.
    """
    if (largest := int(split.labels.max())) >= classes:
        raise ValueError(f"classes={classes} must be above every label of the images, got the label {largest}")
