"""A loss on feature maps in which the teacher's own answers say which positions count.

Conventions of all feature losses are in `kdlib.features`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from kdlib._checks import all_finite, checked, function
from kdlib.features._checks import feature_pair

__all__ = ["score_weighted_loss"]

_REMEDY = "bring the student's features to the teacher's shape with kdlib.features.Regressor"


@checked(scores=function)
@feature_pair(maps=True, same=None, remedy=_REMEDY)
def score_weighted_loss(
    student_features: Float[Tensor, "batch channels height width"],
    teacher_features: Float[Tensor, "batch channels height width"],
    teacher_logits: Float[Tensor, "batch numbers"],
    *,
    scores: Callable[[Tensor], Tensor],
) -> Float[Tensor, ""]:
    """Mean squared error between feature maps, over the positions at which the teacher sees something.

        L = sum over batch and positions of w * |s - t|^2 / (channels * sum over batch and positions of w)

    with w = scores(teacher_logits): the teacher's certainty that an item is there. Most cells of a detector show
    nothing, and in a plain mean they are what counts. With w = 1 everywhere it is `hint_loss`.

    Common implementations differ: Ultralytics (2026), whose recipe this is, takes the largest sigmoid over the
    classes of its two heads' mean logits as w, at three necks, and puts two 1x1 convolutions with a ReLU between
    behind the student's features, where a `Regressor` is one; FGD (Yang et al. 2022, arXiv 2111.11837) weighs by the
    labels' boxes and by the teacher's attention.

    Args:
        student_features: maps; where their shape is not the teacher's, a `Regressor` goes between.
        teacher_features: maps of the same shape.
        teacher_logits: what `scores` is asked about.
        scores: a function from the teacher's logits to weights of at least 0, (batch, height, width), such as
            `kdlib.tasks.detection.score_map`.

    Raises:
        ValueError: weights of another shape than the maps' positions, below 0, or not finite; their values are read on
            the CPU only.
        TypeError: `scores` is no function, or gives no tensor.
    """
    batch, channels, *positions = student_features.shape
    weights = _weights(scores, teacher_logits, (batch, *positions)).to(student_features)
    apart = (student_features - teacher_features).square().sum(dim=1)
    tiny = torch.finfo(weights.dtype).tiny
    return (weights * apart).sum() / (channels * weights.sum()).clamp(min=tiny)


def _weights(
    scores: Callable[[Tensor], Tensor], teacher_logits: Tensor, shape: tuple[int, ...]
) -> Tensor:
    """(batch, height, width) of any kind of number: a mask counts positions, too."""
    weights = scores(teacher_logits)
    if not isinstance(weights, Tensor):
        raise TypeError(f"scores must give a torch.Tensor, got {type(weights).__name__}")
    if weights.shape != shape:
        raise ValueError(
            f"scores must give weights of shape {shape}, as the features have positions, "
            f"got {tuple(weights.shape)}"
        )
    weights = weights.detach()
    all_finite("what scores gives", weights)
    if weights.device.type == "cpu" and (lowest := weights.min().item()) < 0:
        raise ValueError(f"scores must give weights of at least 0, got {lowest:.6g}")
    return weights
