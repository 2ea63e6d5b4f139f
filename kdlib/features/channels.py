"""Losses that compare how the channels of a layer are distributed (NST) or flow into the next (FSP).

Conventions of all feature losses are in `kdlib.features`.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kdlib._checks import checked
from kdlib.features._checks import (
    at_least_float32,
    check_map,
    check_match,
    feature_pair,
    full_precision,
    unit_rows,
)

__all__ = ["flow_loss", "flow_matrix", "mmd_loss"]

TwoMaps = tuple[Float[Tensor, "batch _ _ _"], Float[Tensor, "batch _ _ _"]]


_KERNELS = ("polynomial", "linear", "gaussian")


def _known_kernel(name: str, value: Any) -> str:
    if value not in _KERNELS:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, _KERNELS))}, got {value!r}")
    return value


@checked(kernel=_known_kernel)
@feature_pair(
    maps=True,
    same=("height", "width"),
    remedy="pool the larger map, for example with torch.nn.functional.adaptive_avg_pool2d",
)
def mmd_loss(
    student_features: Float[Tensor, "batch student_channels height width"],
    teacher_features: Float[Tensor, "batch teacher_channels height width"],
    *,
    kernel: Literal["polynomial", "linear", "gaussian"] = "polynomial",
) -> Float[Tensor, ""]:
    """Squared maximum mean discrepancy between the channels of two layers.

        L = mean over images of ( mean k(x, x') + mean k(y, y') - 2 mean k(x, y) )

    An image's channels, each a vector over positions divided by its L2 norm, are samples x of the teacher and
    y of the student; each mean is over all pairs of channels.  Zero for equal features, and for permuted
    channels; the means make it comparable across batch and channel sizes.  Of unrelated channels it falls
    with the map's size, as products of unit vectors do.  A zero channel counts as the zero vector.

    The paper and the literature's code (polynomial, weight 50) equal this value.

    Source: Huang and Wang 2017, Neuron Selectivity Transfer, arXiv 1707.01219, of one layer, without its
    lambda / 2.

    Args:
        student_features: maps; the channels may be others than the teacher's, the size may not.
        teacher_features: maps.
        kernel: "polynomial", k = (x . y)^2; "linear", k = x . y, which compares the mean channel only;
            "gaussian", k = exp(-||x - y||^2 / (2 sigma^2)), sigma^2 the image's mean squared distance between
            a teacher's and a student's channel (and part of the gradient).
    """
    student = unit_rows(student_features.flatten(2))
    teacher = unit_rows(teacher_features.flatten(2))
    pairs = ((teacher, teacher), (student, student), (teacher, student))
    products = [one @ other.transpose(1, 2) for one, other in pairs]
    if kernel == "polynomial":
        similarities = [product.square() for product in products]
    elif kernel == "gaussian":
        distances = [
            _squared_distances(*pair, product) for pair, product in zip(pairs, products, strict=True)
        ]
        similarities = _gaussian(distances, bandwidth=distances[-1].mean(dim=(1, 2), keepdim=True))
    else:
        similarities = products
    within_teacher, within_student, between = (similarity.mean() for similarity in similarities)
    return within_teacher + within_student - 2 * between


def _squared_distances(one: Tensor, other: Tensor, products: Tensor) -> Tensor:
    lengths = one.square().sum(dim=2)[:, :, None] + other.square().sum(dim=2)[:, None, :]
    return (lengths - 2 * products).clamp_min(0)


def _gaussian(distances: list[Tensor], bandwidth: Tensor) -> list[Tensor]:
    # Equal single channels leave no distance to take the bandwidth from; any bandwidth then gives the same.
    variance = bandwidth.clamp_min(torch.finfo(bandwidth.dtype).eps)
    return [torch.exp(-distance / (2 * variance)) for distance in distances]


def _same_image(arguments: dict) -> None:
    check_match("first", arguments["first"], "second", arguments["second"], same=("batch",))


@checked(_same_image, first=check_map, second=check_map)
def flow_matrix(
    first: Float[Tensor, "batch first_channels first_height first_width"],
    second: Float[Tensor, "batch second_channels second_height second_width"],
) -> Float[Tensor, "batch first_channels second_channels"]:
    """How two layers go together (the "flow of solution procedure" matrix).

        G[i, j] = mean over positions of first_i * second_j

    Source: Yim, Joo, Bae and Kim, A Gift from Knowledge Distillation, CVPR 2017 (no arXiv version).

    Args:
        first: maps of the earlier layer.
        second: maps of the later layer. Where the two differ in size, both are max-pooled to the smaller
            height and width.
    """
    return _flow_matrix(first, second)


def _flow_matrix(first: Tensor, second: Tensor) -> Tensor:
    size = tuple(min(first.shape[axis], second.shape[axis]) for axis in (2, 3))
    first, second = (
        (maps if maps.shape[2:] == size else F.adaptive_max_pool2d(maps, size)).flatten(2)
        for maps in (first, second)
    )
    return first @ second.transpose(1, 2) / first.shape[2]


# Activations of 1e15 have products of 1e30, whose squares no float32 holds: errors above this count linearly.
_LARGEST_SQUARED = 1e7


def _two_maps(name: str, value: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name} must be two feature maps (first layer, second layer), got {value!r:.80}")
    return tuple(check_map(f"{name}[{position}]", maps) for position, maps in enumerate(value))


def _same_channels(arguments: dict) -> None:
    for position in (0, 1):
        check_match(
            f"student_features[{position}]",
            arguments["student_features"][position],
            f"teacher_features[{position}]",
            arguments["teacher_features"][position],
            same=("batch", "channels"),
            remedy="bring the student's maps to the teacher's channels with kdlib.features.Regressor",
        )


@checked(_same_channels, student_features=_two_maps, teacher_features=_two_maps)
def flow_loss(student_features: TwoMaps, teacher_features: TwoMaps) -> Float[Tensor, ""]:
    """Mean squared error between the flow matrices of student and teacher.

        L = mean over images and entries of (G_s - G_t)^2,  G = flow_matrix(first, second)

    Zero for equal features.  The mean makes it comparable across batch, channel and map sizes; it scales with
    the fourth power of the activations.  So that it is finite for activations of 1e15, an error above 1e7
    counts linearly, as in the Huber loss.

    Common implementations differ: the paper's squared Frobenius norm is first_channels * second_channels
    times this value; the literature's code equals it where the two maps have one size, and pools by the
    average where they do not.

    Source: Yim, Joo, Bae and Kim, A Gift from Knowledge Distillation, CVPR 2017 (no arXiv version).

    Args:
        student_features: the maps of two layers, (first, second).
        teacher_features: likewise, with the student's channels, layer by layer; the maps' sizes may differ.
    """
    tensors = at_least_float32(*student_features, *(maps.detach() for maps in teacher_features))
    with full_precision(tensors[0].device):
        student, teacher = _flow_matrix(*tensors[:2]), _flow_matrix(*tensors[2:])
        # Divided first: the sum of so many of the largest might overflow where their mean does not.
        errors = 2 * F.huber_loss(student, teacher, reduction="none", delta=_LARGEST_SQUARED)
        return (errors / errors.numel()).sum()
