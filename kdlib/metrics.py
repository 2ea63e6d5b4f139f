"""What a student is judged by: accuracy, calibration, agreement with its teacher, and paired intervals."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor, nn

from kdlib import _checks
from kdlib._checks import checked
from kdlib.data import ImageSplit
from kdlib.inference import predict_logits

# The underscores leave the sizes to this module's own errors.
ModelOrLogits = nn.Module | Float[Tensor, "_n _classes"]


class Interval(NamedTuple):
    """A mean with the ends of its confidence interval."""

    mean: float
    low: float
    high: float


def _network_or_logits(name: str, value: Any) -> nn.Module | Tensor:
    return value if isinstance(value, nn.Module) else _checks.logits(name, value)


@checked(model=_network_or_logits)
def accuracy(model: ModelOrLogits, split: ImageSplit) -> float:
    """Fraction of the split's images whose largest logit is their label's, in [0, 1].

    model: a network, or its logits on this split, row by row.
    Raises ValueError where the logits have another number of rows or classes, or are not finite.
    """
    logits = _logits_on(model, split, "model")
    _checks.labels_fit(split.labels, tuple(logits.shape))
    return _share(logits.argmax(dim=1) == split.labels)


@checked(model=_network_or_logits, bins=_checks.positive_integer)
def calibration_error(model: ModelOrLogits, split: ImageSplit, *, bins: int = 15) -> float:
    """Expected calibration error: how far confidence is from accuracy, in [0, 1] (Guo et al. 2017).

        ECE = sum over bins of (images in bin / images) * |accuracy in bin - mean confidence in bin|

    Confidence is the largest softmax probability, binned in `bins` intervals of equal width.
    model: a network, or its logits on this split, row by row.  Raises ValueError as `accuracy` does.

    Common implementations differ: torchmetrics takes values that all lie in [0, 1] for probabilities even
    where they are logits, and gives a confidence of exactly 1 a bin of its own; both are avoided here.

    Source: Guo, Pleiss, Sun & Weinberger 2017, arXiv 1706.04599.
    """
    # Imported here because it takes longer than the rest of kdlib together.
    from torchmetrics.functional.classification import multiclass_calibration_error

    logits = _logits_on(model, split, "model")
    _checks.labels_fit(split.labels, tuple(logits.shape))
    just_below_one = 1 - torch.finfo(torch.float32).eps
    probabilities = logits.float().softmax(dim=1).clamp(max=just_below_one)
    return multiclass_calibration_error(
        probabilities, split.labels, num_classes=logits.shape[1], n_bins=bins
    ).item()


@checked(student=_network_or_logits, teacher=_network_or_logits)
def agreement(student: ModelOrLogits, teacher: ModelOrLogits, split: ImageSplit) -> float:
    """Fraction of the split's images on which student and teacher predict the same class, in [0, 1].

    Also called fidelity (top-1 agreement); labels play no part, so two networks can agree on errors.
    student, teacher: networks, or their logits on this split, row by row.
    Raises ValueError where the two have different numbers of classes, and as `accuracy` does.

    Source: Stanton et al. 2021, arXiv 2106.05945.
    """
    student_logits = _logits_on(student, split, "student")
    teacher_logits = _logits_on(teacher, split, "teacher")
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            "student and teacher must have the same number of classes, got logits of shape "
            f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        )
    return _share(student_logits.argmax(dim=1) == teacher_logits.argmax(dim=1))


def _numbers(name: str, values: Any) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        raise ValueError(f"{name} must be a list of numbers, got shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite, got {numbers[~np.isfinite(numbers)][0]}")
    return numbers


@checked(a=_numbers, b=_numbers, confidence=_checks.open_fraction)
def paired_interval(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean of a - b over pairs, with its confidence interval by Student's t.

        mean +- t(n - 1, (1 + confidence) / 2) * s / sqrt(n), s = standard deviation of a - b (n - 1 below)

    a, b: n >= 2 numbers each, in the same order: a[i] and b[i] share what is not compared, such as the seed
    and the images.  The pairing takes what they share out of the interval.  Differences that are all equal
    give an interval of no width.
    Raises ValueError where the lengths differ, n < 2, or a number is NaN or infinite.
    """
    # Imported here to keep `import kdlib.training` light.
    from scipy.special import stdtrit

    n = len(a)
    if n != len(b):
        raise ValueError(f"a and b must have the same length, got {n} and {len(b)}")
    if n < 2:
        raise ValueError(f"a and b must have at least 2 pairs for an interval, got {n}")
    difference = a - b
    mean = difference.mean().item()
    half = (stdtrit(n - 1, (1 + confidence) / 2) * difference.std(ddof=1) / math.sqrt(n)).item()
    return Interval(mean, mean - half, mean + half)


def _logits_on(model: ModelOrLogits, split: ImageSplit, name: str) -> Tensor:
    """Finite logits on the CPU, one row for each image of the split."""
    logits = predict_logits(model, split) if isinstance(model, nn.Module) else model.detach().cpu()
    if len(logits) != len(split):
        raise ValueError(
            f"{name} must give one row of logits for each of the {len(split)} images, "
            f"got {tuple(logits.shape)}"
        )
    _checks.all_finite(f"logits of {name}", logits)
    return logits


def _share(hits: Tensor) -> float:
    return hits.double().mean().item()
