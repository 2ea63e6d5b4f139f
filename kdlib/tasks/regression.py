"""Regression: by which angle an item was turned. The label is a number, and some labels may be wrong."""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kdlib import _checks as rules
from kdlib._checks import (
    checked,
    fraction,
    natural_number,
    non_negative_number,
    positive_integer,
    same_shape,
)
from kdlib.data import ImageSplit
from kdlib.data.splits import is_split
from kdlib.metrics import ModelOrLogits, logits_on, network_or_logits
from kdlib.tasks import _checks

DEGREES = 60  # items are turned by up to so much to either side


@checked(split=_checks.grey, n=positive_integer, seed=_checks.seed)
def turned(split: ImageSplit, n: int, *, seed: int = 0) -> ImageSplit:
    """`n` items drawn from `split`, each turned round its centre by an angle from -60 to 60 degrees.

    Args:
        split: grey images.
        n: how many, with replacement.
        seed: chooses items and angles.

    Returns:
        Images uint8 (n, 1, height, width), black behind the corners; labels float32 (n, 1): (angle + 60) / 120, in
        [0, 1]. A positive angle turns counter-clockwise. The indices are those of the items.

    Raises:
        ValueError: images of several channels.
    """
    random = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(split), (n,), generator=random)
    labels = torch.rand(n, 1, generator=random)
    angles = ((2 * labels - 1) * math.radians(DEGREES)).squeeze(1)
    cosines, sines, zeros = angles.cos(), angles.sin(), torch.zeros(n)
    # affine_grid asks where a pixel of the turned image was before, in halves of the height and of the width.
    height, width = split.images.shape[2:]
    across, down = -sines * (height / width), sines * (width / height)
    turns = torch.stack([cosines, across, zeros, down, cosines, zeros], dim=1).view(n, 2, 3)
    images = split.images[rows].float()
    grid = F.affine_grid(turns, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, align_corners=False)
    return ImageSplit(moved.round().clamp(0, 255).to(torch.uint8), labels, split.indices[rows])


@checked(split=is_split, wrong=fraction, seed=natural_number)
def with_wrong_labels(split: ImageSplit, wrong: float | int, *, seed: int = 0) -> ImageSplit:
    """The same images; of the labels a share `wrong` is replaced by numbers drawn evenly from [0, 1].

    Raises:
        ValueError: labels that are classes.
    """
    if split.has_classes:
        raise ValueError("split must have numbers in [0, 1] as labels, got one class an image")
    # Numbers of another kind than those of `turned`: with the same seed these would be the angles once more.
    random = np.random.default_rng(seed)
    replaced = torch.from_numpy(random.random((len(split), 1)) < wrong)
    others = torch.from_numpy(random.random(tuple(split.labels.shape), dtype=np.float32))
    labels = torch.where(replaced, others, split.labels)
    return ImageSplit(split.images, labels, split.indices, split.mean, split.std)


@checked(
    same_shape("student_logits", "teacher_logits"),
    same_shape("student_logits", "labels"),
    student_logits=rules.logits,
    teacher_logits=rules.logits,
    labels=_checks.numbers,
    margin=non_negative_number,
)
def bounded_loss(
    student_logits: Float[Tensor, "batch outputs"],
    teacher_logits: Float[Tensor, "batch outputs"],
    labels: Float[Tensor, "batch outputs"],
    *,
    margin: float | int = 0.0,
) -> Float[Tensor, ""]:
    """The teacher bounds what is asked of the student: the squared error counts only where it is larger.

        L = mean over batch of e_s * [e_s + margin > e_t],   e = sum over outputs of (output - label)^2

    The gradient leads to the label, never to the teacher: where the student is better than its teacher by more than
    the margin, nothing is asked of it. So the loss is 0 at many places, and is no distance to the teacher.

    Common implementations differ: in the paper the term, times 0.5, stands beside a smooth L1 loss of the labels
    that is never bounded; some compare with the teacher's output in place of the label.

    Source: Chen, Choi, Yu, Han & Chandraker 2017, "Learning efficient object detection models with knowledge
    distillation", NeurIPS.

    Args:
        margin: m, at least 0, in the unit of the squared error.

    Raises:
        ValueError: shapes that differ, numbers that are not finite, a negative margin.
    """
    labels = labels.to(torch.promote_types(labels.dtype, torch.float32))  # so are the differences
    of_student = (student_logits - labels).square().sum(dim=1)
    of_teacher = (teacher_logits - labels).square().sum(dim=1)
    asked = (of_student.detach() + margin) > of_teacher
    return (of_student * asked).mean()


def _of_one_number(name: str, value: Any) -> ImageSplit:
    """A rule for `kdlib._checks.checked`: images of `turned`, or such as have a number in [0, 1] each, too."""
    split = is_split(name, value)
    if tuple(split.labels.shape[1:]) != (1,):
        raise ValueError(f"{name} must have labels of the shape (n, 1), got {tuple(split.labels.shape)}")
    return split


@checked(model=network_or_logits, split=_of_one_number)
def mean_error(model: ModelOrLogits, split: ImageSplit) -> float:
    """The mean absolute error of the angle, in degrees.

    Args:
        model: a network, or its outputs on this split, row by row.
        split: images of `turned`, with right labels.

    Raises:
        ValueError: labels of another shape than (n, 1); outputs of another shape, or that are not finite.
    """
    outputs = logits_on(model, split, "model")
    if outputs.shape != split.labels.shape:
        raise ValueError(
            f"model must give outputs of the labels' shape {tuple(split.labels.shape)}, got {tuple(outputs.shape)}"
        )
    return float(2 * DEGREES * (outputs.detach().float() - split.labels).abs().mean())
