"""Losses that bound the information a student's features carry about the teacher's: VID and CRD.

Both train a small network beside the student, so each comes as a pure function and as a module that holds
that network.  Give the module's parameters to the student's optimizer; throw it away after training.

Conventions of all feature losses are in `kdlib.features`.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from kdlib._checks import checked, positive_integer, positive_number
from kdlib.features._checks import (
    check_features,
    check_match,
    feature_pair,
    full_precision,
    to_map_advice,
    unit_rows,
)

__all__ = [
    "ContrastiveLoss",
    "VariationalInformationLoss",
    "contrastive_loss",
    "variational_information_loss",
]

_LEAST_VARIANCE = 1e-5


def _one_variance_per_channel(arguments: dict) -> None:
    variance, shape = arguments["variance"], tuple(arguments["teacher_features"].shape)
    if not isinstance(variance, Tensor) or variance.shape != shape[1:2]:
        got = tuple(variance.shape) if isinstance(variance, Tensor) else repr(variance)
        raise ValueError(
            f"variance must be a tensor of shape {shape[1:2]} to match teacher_features of shape {shape}, "
            f"got {got}"
        )
    if variance.device.type == "cpu" and not (variance > 0).all():
        raise ValueError(f"variance must be above 0, got {variance.min().item()}")


@feature_pair(
    same=None, remedy="predict the teacher's features with kdlib.features.VariationalInformationLoss"
)
@checked(_one_variance_per_channel)
def variational_information_loss(
    student_prediction: Float[Tensor, "batch channels *map"],
    teacher_features: Float[Tensor, "batch channels *map"],
    variance: Float[Tensor, " channels"],
) -> Float[Tensor, ""]:
    """Negative log likelihood of the teacher's features, given the student's prediction of them.

        L = mean over images, channels and positions of ( (t - m)^2 / v + log v ) / 2

    The prediction m and the variances v, one a channel, are learned: see `VariationalInformationLoss`.  Not
    zero for m = t, and without lower bound as v falls to 0.  The mean makes it comparable across sizes; the
    unit is nats for one feature.

    Common implementations differ: the paper sums over channels and positions, channels * height * width times
    this value; the literature's code (weight 1) equals it.

    Source: Ahn et al. 2019, arXiv 1904.05835, without the constant log(2 pi) / 2.

    Args:
        student_prediction: m.
        teacher_features: t, of the same shape.
        variance: v, (channels,), above 0.
    """
    variance = variance.to(student_prediction.dtype).view(-1, *[1] * (student_prediction.dim() - 2))
    error = (teacher_features - student_prediction).square()
    return 0.5 * (error / variance + variance.log()).mean()


def _variance(name: str, value: Any) -> float:
    if positive_number(name, value) <= _LEAST_VARIANCE:
        raise ValueError(f"{name} must be above {_LEAST_VARIANCE}, got {value}")
    return float(value)


class VariationalInformationLoss(nn.Module):
    """`variational_information_loss` with the networks it needs; called with (student, teacher) features.

        m = three 1x1 convolutions of the student's features, with ReLU between them
        v = softplus(raw_variance) + 1e-5,  one a channel

    The convolutions are those of the literature's code.    Features are (batch, channels) or (batch,
    channels, height, width), of one map size.

    Common implementations differ: `raw_variance` is a parameter here; one public library keeps it in a plain
    list, which no optimizer reaches.

    Args:
        student_channels: of the student's features.
        teacher_channels: of the teacher's features.
        initial_variance: v at the beginning, above 1e-5.

    Raises:
        TypeError, ValueError: a number that is none, or out of its range. When called: other channels or map
            sizes.
    """

    @checked(student_channels=positive_integer, teacher_channels=positive_integer, initial_variance=_variance)
    def __init__(self, student_channels: int, teacher_channels: int, *, initial_variance: float | int = 5):
        super().__init__()
        self.predict = nn.Sequential(
            nn.Conv2d(student_channels, teacher_channels, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, kernel_size=1),
        )
        above_least = initial_variance - _LEAST_VARIANCE
        raw = above_least + math.log(-math.expm1(-above_least))  # the inverse of softplus
        self.raw_variance = nn.Parameter(torch.full((teacher_channels,), raw))

    @property
    def variance(self) -> Tensor:
        return F.softplus(self.raw_variance) + _LEAST_VARIANCE

    @checked(student_features=check_features, teacher_features=check_features)
    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        channels = self.predict[0].in_channels, self.predict[-1].out_channels
        if (student_features.shape[1], teacher_features.shape[1]) != channels:
            advice = (
                to_map_advice(tuple(features.shape), wanted)
                for features, wanted in zip((student_features, teacher_features), channels, strict=True)
            )
            raise ValueError(
                f"student_features and teacher_features must have {channels[0]} and {channels[1]} channels, "
                f"got shapes {tuple(student_features.shape)} and {tuple(teacher_features.shape)}"
                + next(filter(None, advice), "")
            )
        if teacher_features.dim() not in (2, 4):
            raise ValueError(
                "student_features and teacher_features must be (batch, channels) or (batch, channels, height, "
                f"width), got shapes {tuple(student_features.shape)} and {tuple(teacher_features.shape)}; see "
                "kdlib.features.to_map"
            )
        if student_features.shape[2:] != teacher_features.shape[2:]:
            raise ValueError(
                "student_features and teacher_features must have the same height and width, got shapes "
                f"{tuple(student_features.shape)} and {tuple(teacher_features.shape)}; pool the larger map, "
                "for example with torch.nn.functional.adaptive_avg_pool2d"
            )
        maps = student_features.to(self.raw_variance.dtype)
        maps = maps if maps.dim() == 4 else maps[:, :, None, None]
        prediction = self.predict(maps).reshape(teacher_features.shape)
        return variational_information_loss(prediction, teacher_features, self.variance)


def _optional_count(name: str, value: int | None) -> int | None:
    return None if value is None else positive_integer(name, value)


def _labels_of_the_batch(arguments: dict) -> None:
    labels, student = arguments.get("labels"), arguments["student_embeddings"]
    if labels is not None and (not isinstance(labels, Tensor) or labels.shape != student.shape[:1]):
        got = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise ValueError(
            f"labels must be a tensor of shape {tuple(student.shape[:1])} to match student_embeddings of "
            f"shape {tuple(student.shape)}, got {got}"
        )


@feature_pair(same=None, remedy="project both with kdlib.features.ContrastiveLoss")
@checked(_labels_of_the_batch, temperature=positive_number, dataset_size=_optional_count)
def contrastive_loss(
    student_embeddings: Float[Tensor, "batch dimension"],
    teacher_embeddings: Float[Tensor, "batch dimension"],
    *,
    labels: Int64[Tensor, " batch"] | None = None,
    temperature: float | int = 0.07,
    dataset_size: int | None = None,
) -> Float[Tensor, ""]:
    """Contrastive representation distillation, with negatives from the batch.

        L = mean over images i of ( -log h_ii - sum over the negatives j of i of log(1 - h_ij) )
        h_ij = e_ij / (e_ij + N_i / M),  e_ij = exp(t_i . s_j / temperature) of L2-normalised embeddings

    h_ij is the probability that teacher image i and student image j are the same, against N_i negatives drawn
    from M images.  Zero for a batch of one, which has no negatives; not zero for equal embeddings.  It sums
    over negatives, as the paper does, so it grows with the batch; it does not depend on the embedding's size.

    Common implementations differ: the original draws N = 16384 negatives from a memory bank of running
    averages of all training images' embeddings, divides e by a constant estimated from the first batch, and
    adds the same loss with the student's image as the anchor (weight 0.8).  In the batch every negative is up
    to date and costs no memory, but there are few of them.  Without labels the second term would equal the
    first: a factor of 2.  To the value with a memory bank there is no factor.

    Source: Tian, Krishnan and Isola 2020, arXiv 1910.10699.

    Args:
        student_embeddings: s.
        teacher_embeddings: t, of the same shape; `ContrastiveLoss` projects both.
        labels: int64 (batch,): the negatives of i are the images of other classes. None: all other images.
        temperature: above 0.
        dataset_size: M; None for the number of images in the batch.
    """
    return _noise_contrastive(student_embeddings, teacher_embeddings, labels, temperature, dataset_size)


def _noise_contrastive(
    student: Tensor, teacher: Tensor, labels: Tensor | None, temperature: float, dataset_size: int | None
) -> Tensor:
    cosine = unit_rows(teacher) @ unit_rows(student).T
    images = torch.arange(len(cosine), device=cosine.device) if labels is None else labels
    negative = images[:, None] != images[None, :]
    noise = negative.sum(dim=1, keepdim=True) / (dataset_size or len(cosine))
    log_odds = (
        cosine / temperature - noise.to(cosine.dtype).log()
    )  # of h; infinite where there is no negative
    attraction = -F.logsigmoid(log_odds.diagonal())
    repulsion = torch.where(negative, -F.logsigmoid(-log_odds), 0).sum(dim=1)
    return (attraction + repulsion).mean()


class ContrastiveLoss(nn.Module):
    """`contrastive_loss` of two learned linear projections, called with (student, teacher) features.

        s = W_s * mean over positions of the student's features + b_s,  t likewise

    Both projections are trained, as in the paper: the negatives keep them from collapsing.  The teacher
    itself gets no gradient.

    Args:
        student_channels: of the student's features, (batch, channels, ...).
        teacher_channels: of the teacher's features.
        dimension: of the embeddings.
        temperature: as of `contrastive_loss`.
        dataset_size: as of `contrastive_loss`.

    Raises:
        TypeError, ValueError: a number that is none, or out of its range. When called: other channels, labels
            that do not fit.
    """

    @checked(
        student_channels=positive_integer,
        teacher_channels=positive_integer,
        dimension=positive_integer,
        temperature=positive_number,
        dataset_size=_optional_count,
    )
    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        dimension: int = 128,
        temperature: float | int = 0.07,
        dataset_size: int | None = None,
    ):
        super().__init__()
        self.student_projection = nn.Linear(student_channels, dimension)
        self.teacher_projection = nn.Linear(teacher_channels, dimension)
        self.temperature, self.dataset_size = temperature, dataset_size

    @checked(student_features=check_features, teacher_features=check_features)
    def forward(
        self, student_features: Tensor, teacher_features: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        student = _embed("student_features", student_features, self.student_projection)
        teacher = _embed("teacher_features", teacher_features, self.teacher_projection, detach=True)
        check_match(
            "student_features", student_features, "teacher_features", teacher_features, same=("batch",)
        )
        _labels_of_the_batch({"student_embeddings": student, "labels": labels})
        with full_precision(student.device):
            return _noise_contrastive(student, teacher, labels, self.temperature, self.dataset_size)


def _embed(name: str, features: Tensor, projection: nn.Linear, *, detach: bool = False) -> Tensor:
    if features.shape[1] != projection.in_features:
        raise ValueError(
            f"{name} must have {projection.in_features} channels, got shape {tuple(features.shape)}"
            + to_map_advice(tuple(features.shape), projection.in_features)
        )
    features = features.detach() if detach else features
    with full_precision(features.device):
        positions = features.to(projection.weight.dtype).reshape(*features.shape[:2], -1)
        return projection(positions.mean(dim=2))
