"""What a student is judged by: accuracy, calibration, ranking, agreement with its teacher, and paired intervals."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from torch import Tensor, nn

from kdlib import _checks
from kdlib._checks import checked
from kdlib.data import ImageSplit
from kdlib.data.items import split_or_items
from kdlib.inference import predict_logits

# The underscores leave the sizes to this module's own errors.
ModelOrLogits = nn.Module | Float[Tensor, "_n _classes"]


class Interval(NamedTuple):
    """A mean with the ends of its confidence interval."""

    mean: float
    low: float
    high: float


def network_or_logits(name: str, value: Any) -> nn.Module | Tensor:
    """A rule for `kdlib._checks.checked`: what a measure is asked about."""
    if isinstance(value, nn.Module):
        return value
    if isinstance(value, Tensor) and value.is_meta:
        raise ValueError(f"{name} must be logits, got a tensor on the device meta, which holds no numbers")
    return _checks.logits(name, value)


@checked(model=network_or_logits, split=split_or_items)
def accuracy(model: ModelOrLogits, split: ImageSplit) -> float:
    """Fraction of the split's images whose largest logit is their label's.

    Args:
        model: a network, or its logits on this split, row by row.
        split: images of one class each.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: the logits have another number of rows or classes, or are not finite; the labels are not
            one class an image.
    """
    _one_class_an_image(split, "accuracy")
    logits = logits_on(model, split, "model")
    _checks.labels_fit(split.labels, tuple(logits.shape))
    return _share(logits.argmax(dim=1) == split.labels)


def _bins(name: str, value: Any) -> int:
    number = _checks.positive_integer(name, value)
    if number > 10**6:
        raise ValueError(f"{name} must be at most 1000000, got {number}")
    return number


@checked(model=network_or_logits, split=split_or_items, bins=_bins)
def calibration_error(model: ModelOrLogits, split: ImageSplit, *, bins: int = 15) -> float:
    """Expected calibration error: how far confidence is from accuracy (Guo et al. 2017).

        ECE = sum over bins of (images in bin / images) * |accuracy in bin - mean confidence in bin|

    Confidence is the largest softmax probability.

    Common implementations differ: torchmetrics takes values that all lie in [0, 1] for probabilities even
    where they are logits, and gives a confidence of exactly 1 a bin of its own; both are avoided here.

    Source: Guo, Pleiss, Sun & Weinberger 2017, arXiv 1706.04599.

    Args:
        model: a network, or its logits on this split, row by row.
        split: images of one class each.
        bins: into how many intervals of equal width the confidences are sorted.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: as `accuracy`.
    """
    # Imported here because it takes longer than the rest of kdlib together.
    from torchmetrics.functional.classification import multiclass_calibration_error

    _one_class_an_image(split, "calibration_error")
    logits = logits_on(model, split, "model")
    _checks.labels_fit(split.labels, tuple(logits.shape))
    just_below_one = 1 - torch.finfo(torch.float32).eps
    probabilities = logits.float().softmax(dim=1).clamp(max=just_below_one)
    return multiclass_calibration_error(
        probabilities, split.labels, num_classes=logits.shape[1], n_bins=bins
    ).item()


@checked(model=network_or_logits, split=split_or_items)
def mean_average_precision(model: ModelOrLogits, split: ImageSplit) -> float:
    """How well each class's images are ranked above the others: average precision, averaged over the classes.

        AP = sum over thresholds of (recall - recall before) * precision;  mAP = mean of AP over classes

    A class that no image has has no average precision and is left out of the mean. Ranked by chance, a class
    has about its share of the images. Where an image may have several labels, images are ranked by the
    class's logit; where it has one class, by the class's softmax probability, against all others.

    Common implementations differ: torchmetrics counts a class without images as 0 (with several labels), and
    applies a sigmoid in float32, above whose logit of 17 all images are tied; detection and PASCAL VOC
    interpolate precision.

    Args:
        model: a network, or its logits on this split, row by row.
        split: images with several labels (labels 0 or 1 of the shape (n, classes)), or of one class each.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: as `accuracy`; soft labels; labels of which no image has any.
    """
    from torchmetrics.functional.classification import binary_average_precision

    scores, has_label = _ranking(model, split)
    return _mean_over_classes(
        binary_average_precision, scores, has_label, has_label.any(dim=0), "an image that has it"
    )


@checked(model=network_or_logits, split=split_or_items)
def roc_auc(model: ModelOrLogits, split: ImageSplit) -> float:
    """Area under the receiver operating characteristic, averaged over the classes.

        AUC = P(an image that has the label scores above one that has not), ties counting one half

    A class that no image has, or every image, has no such pair and is left out of the mean. Ranked by chance,
    a class has 0.5. Scores are those of `mean_average_precision`.

    Common implementations differ: torchmetrics counts a class without pairs as 0, scikit-learn as NaN.

    Args:
        model: a network, or its logits on this split, row by row.
        split: images with several labels (labels 0 or 1 of the shape (n, classes)), or of one class each.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: as `mean_average_precision`; no label that one image has and another has not.
    """
    from torchmetrics.functional.classification import binary_auroc

    scores, has_label = _ranking(model, split)
    comparable = has_label.any(dim=0) & ~has_label.all(dim=0)
    return _mean_over_classes(
        binary_auroc, scores, has_label, comparable, "an image that has it and one that has not"
    )


@checked(student=network_or_logits, teacher=network_or_logits, split=split_or_items)
def agreement(student: ModelOrLogits, teacher: ModelOrLogits, split: ImageSplit) -> float:
    """Fraction of the split's images on which student and teacher have their largest logit at the same class.

    Also called fidelity (top-1 agreement); labels play no part, so two networks can agree on errors.

    Source: Stanton et al. 2021, arXiv 2106.05945.

    Args:
        student: a network, or its logits on this split, row by row.
        teacher: likewise.
        split: images with labels of either kind.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: the logits have another number of rows than the split, different numbers of classes, or
            are not finite.
    """
    student_logits = logits_on(student, split, "student")
    teacher_logits = logits_on(teacher, split, "teacher")
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            "student and teacher must have the same number of classes, got logits of shape "
            f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        )
    return _share(student_logits.argmax(dim=1) == teacher_logits.argmax(dim=1))


def _numbers(name: str, values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values if values.is_complex() else values.double()
    try:
        numbers = np.asarray(values)
        real = numbers.astype(np.float64) if numbers.dtype.kind in "biufO" else None
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be a list of numbers ({error})") from error
    if real is None or real.ndim != 1:
        raise ValueError(f"{name} must be a list of numbers, got shape {numbers.shape} of {numbers.dtype}")
    if not np.isfinite(real).all():
        raise ValueError(f"{name} must be finite, got {real[~np.isfinite(real)][0]}")
    return real


@checked(a=_numbers, b=_numbers, confidence=_checks.open_fraction)
def paired_interval(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean of a - b over pairs, with its confidence interval by Student's t.

        mean +- t(n - 1, (1 + confidence) / 2) * s / sqrt(n), s = standard deviation of a - b (n - 1 below)

    The pairing takes what a pair shares out of the interval. Differences that are all equal give an interval
    of no width.

    Args:
        a: n >= 2 numbers.
        b: as many, in the same order: a[i] and b[i] share what is not compared, such as the seed and the
            images.
        confidence: how often such an interval covers the mean, strictly between 0 and 1.

    Raises:
        ValueError: the lengths differ, n < 2, or a number is NaN, infinite or too large to subtract.
    """
    # Imported here to keep `import kdlib.training` light.
    from scipy.special import stdtrit

    n = len(a)
    if n != len(b):
        raise ValueError(f"a and b must have the same length, got {n} and {len(b)}")
    if n < 2:
        raise ValueError(f"a and b must have at least 2 pairs for an interval, got {n}")
    with np.errstate(over="ignore", invalid="ignore"):
        difference = a - b
        mean = difference.mean().item()
        half = (stdtrit(n - 1, (1 + confidence) / 2) * difference.std(ddof=1) / math.sqrt(n)).item()
    if not math.isfinite(mean) or not math.isfinite(half):
        largest = max(np.abs(a).max(), np.abs(b).max())
        raise ValueError(f"a and b must be small enough to be squared, got numbers of up to {largest}")
    return Interval(mean, mean - half, mean + half)


def logits_on(model: ModelOrLogits, split: ImageSplit, name: str) -> Tensor:
    """Finite logits on the CPU, one row for each image of the split."""
    logits = predict_logits(model, split) if isinstance(model, nn.Module) else model.detach().cpu()
    if len(logits) != len(split):
        raise ValueError(
            f"{name} must give one row of logits for each of the {len(split)} images, "
            f"got {tuple(logits.shape)}"
        )
    _checks.all_finite(f"logits of {name}", logits)
    return logits


def _one_class_an_image(split: ImageSplit, metric: str) -> None:
    if not split.has_classes:
        raise ValueError(
            f"{metric} needs a split whose images have one class each, got labels of shape "
            f"{tuple(split.labels.shape)}: use mean_average_precision or roc_auc where an image may have several, "
            "or give a split with labels.argmax(dim=1) where they are soft"
        )


def _ranking(model: ModelOrLogits, split: ImageSplit) -> tuple[Tensor, Bool[Tensor, "n classes"]]:
    """Scores in [0, 1] in the order of the model's, (n, classes), and which labels each image has."""
    logits = logits_on(model, split, "model").double()
    if split.has_classes:
        _checks.labels_fit(split.labels, tuple(logits.shape))
        has_label = split.labels[:, None] == torch.arange(logits.shape[1])
        logits = logits.log_softmax(dim=1)
    else:
        has_label = _labels_by_class(split.labels, logits)
    # Their rank: torchmetrics would squeeze logits through a sigmoid, which makes the largest equal.
    values, ranks = logits.unique(return_inverse=True)
    return ranks.double() / len(values), has_label


def _labels_by_class(labels: Float[Tensor, "n _classes"], logits: Tensor) -> Bool[Tensor, "n _classes"]:
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels and logits of model must have the same shape, got {tuple(labels.shape)} and {tuple(logits.shape)}"
        )
    soft = (labels != 0) & (labels != 1)
    if soft.any():
        row, column = soft.nonzero()[0].tolist()
        raise ValueError(
            f"labels must be 0 or 1 to rank images by, got {labels[row, column].item()} at position {(row, column)}: "
            "give a split with labels.argmax(dim=1), or with the labels rounded"
        )
    return labels == 1


def _mean_over_classes(
    measure: Callable, scores: Tensor, has_label: Tensor, counted: Tensor, wanted: str
) -> float:
    if not counted.any():
        raise ValueError(f"labels must have a class with {wanted}, got none among {len(counted)}")
    of_class = [
        measure(scores[:, label], has_label[:, label].long()) for label in counted.nonzero()[:, 0].tolist()
    ]
    return torch.stack(of_class).double().mean().item()


def _share(hits: Tensor) -> float:
    return hits.double().mean().item()
