"""What the tasks ask of the splits that they are made from."""

from typing import Any

import torch
from torch import Tensor

from kdlib import _checks as rules
from kdlib._checks import seed as seed
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


def halvable(name: str, value: Any) -> ImageSplit:
    """A rule for `kdlib._checks.checked`: grey images of at least two times two pixels."""
    split = grey(name, value)
    if min(size := tuple(split.images.shape[2:])) < 2:
        raise ValueError(f"{name} must hold images of at least 2 x 2 pixels, got {size}")
    return split


def halvable_items(name: str, value: Any) -> ImageSplit:
    """A rule for `kdlib._checks.checked`: such images of one class each."""
    return halvable(name, items(name, value))


def numbers(name: str, value: Any) -> Tensor:
    """A rule for `kdlib._checks.checked`: finite labels, a row of floating-point numbers for each image."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.dim() != 2 or 0 in value.shape or not value.is_floating_point():
        raise ValueError(
            f"{name} must be floating-point numbers of the shape (batch, outputs), neither of them 0, got "
            f"{value.dtype} of the shape {tuple(value.shape)}"
        )
    rules.all_finite(name, value)
    return value


def fractions(name: str, value: Any) -> Tensor:
    """A rule for `kdlib._checks.checked`: such labels in [0, 1]; values are read on the CPU only."""
    if numbers(name, value).device.type == "cpu":
        lowest, highest = (bound.item() for bound in torch.aminmax(value.detach()))
        if lowest < 0 or highest > 1:
            raise ValueError(f"{name} must be in [0, 1], got {lowest if lowest < 0 else highest:.6g}")
    return value


def labels_below(classes: int, split: ImageSplit, name: str) -> None:
    """
    Args:
        name: of the argument that holds the number of classes.

    Raises:
        ValueError: an image has a class that is not below `classes`.
    """
    if (largest := int(split.labels.max())) >= classes:
        raise ValueError(f"{name} must be above every label of the images, got {classes} and the label {largest}")
