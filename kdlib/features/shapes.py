"""Features brought into another shape: the teacher's, or that of a map."""

import math
import warnings
from collections.abc import Iterable
from numbers import Integral
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kdlib._checks import checked, positive_integer
from kdlib.features._checks import check_features, to_map_advice

__all__ = ["Regressor", "to_map"]


def _optional_height_and_width(name: str, value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    lengths = tuple(value) if isinstance(value, Iterable) else ()
    if len(lengths) != 2 or not all(isinstance(length, Integral) and length > 0 for length in lengths):
        raise ValueError(f"{name} must be (height, width), two integers of at least 1, got {value!r}")
    return tuple(map(int, lengths))


class Regressor(nn.Module):
    """Carries student features to the teacher's shape; trained with the student and thrown away afterwards.

        regressor(s) = W * pooled(s) + b,  a 1x1 convolution of the map averaged (or repeated) to the size

    Vectors (batch, channels) count as maps of one position.

    Source: Romero et al. 2015, FitNets, arXiv 1412.6550.  They use one k x k convolution whose kernel bridges
    the sizes; the 1x1 kernel with pooling has fewer parameters and bridges any two sizes.

    Args:
        student_channels: channels of what comes in.
        teacher_channels: channels of what goes out.
        size: (height, width) of what goes out; None where it is that of what comes in.
        batch_norm: add batch normalisation and a ReLU, as the literature's code does for a teacher's map that
            is taken after a ReLU.

    Raises:
        TypeError, ValueError: a number of channels that is none. When called: features of other channels.
    """

    @checked(
        student_channels=positive_integer, teacher_channels=positive_integer, size=_optional_height_and_width
    )
    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        size: tuple[int, int] | None = None,
        batch_norm: bool = False,
    ):
        super().__init__()
        self.student_channels = student_channels
        self.size = size
        self.project = nn.Conv2d(student_channels, teacher_channels, kernel_size=1, bias=not batch_norm)
        self.activate = nn.Sequential(nn.BatchNorm2d(teacher_channels), nn.ReLU()) if batch_norm else None

    @classmethod
    @checked(student_features=check_features, teacher_features=check_features)
    def between(cls, student_features: Tensor, teacher_features: Tensor, *, batch_norm: bool = False):
        """The regressor that carries features of the first shape to features of the second.

        Args:
            student_features: (batch, channels) or (batch, channels, height, width).
            teacher_features: likewise.
            batch_norm: as of the class.

        Raises:
            ValueError: vectors on one side and maps on the other, or tokens (see `to_map`).
        """
        if student_features.dim() != teacher_features.dim() or student_features.dim() not in (2, 4):
            raise ValueError(
                "student_features and teacher_features must both be (batch, channels) or both "
                f"(batch, channels, height, width), got shapes {tuple(student_features.shape)} and "
                f"{tuple(teacher_features.shape)}; see kdlib.features.to_map"
            )
        size = tuple(teacher_features.shape[2:])
        resize = size if size != tuple(student_features.shape[2:]) else None
        return cls(student_features.shape[1], teacher_features.shape[1], size=resize, batch_norm=batch_norm)

    @checked(student_features=check_features)
    def forward(self, student_features: Tensor) -> Tensor:
        if student_features.dim() not in (2, 4) or student_features.shape[1] != self.student_channels:
            raise ValueError(
                f"student_features must have {self.student_channels} channels, as (batch, channels) or "
                f"(batch, channels, height, width), got shape {tuple(student_features.shape)}"
                + to_map_advice(tuple(student_features.shape), self.student_channels)
            )
        maps = student_features.to(self.project.weight.dtype)
        maps = maps if maps.dim() == 4 else maps[:, :, None, None]
        if self.size is not None:
            maps = F.adaptive_avg_pool2d(maps, self.size)
        maps = self.project(maps)
        if self.activate is not None:
            if self.training and maps[:, 0].numel() == 1:
                raise ValueError(
                    "a Regressor with batch_norm has nothing to normalise by in training mode where there is one "
                    f"image of one position, got student_features of shape {tuple(student_features.shape)}"
                )
            maps = self.activate(maps)
        return maps if student_features.dim() == 4 else maps.flatten(1)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ValueError(f"{name} must be an integer of at least 0, got {value!r}")
    return int(value)


def _tokens_or_channels_last(arguments: dict) -> None:
    """Relation: the shape fits `channels_last` and `extra_tokens`."""
    shape = tuple(arguments["features"].shape)
    channels_last, extra_tokens = arguments.get("channels_last", False), arguments.get("extra_tokens", 1)
    side = math.isqrt(max(shape[1] - extra_tokens, 0))
    is_square_of_tokens = len(shape) == 3 and side > 0 and side * side == shape[1] - extra_tokens
    if not is_square_of_tokens and not (channels_last and len(shape) == 4):
        raise ValueError(
            "features must be tokens (batch, extra_tokens + side^2, channels), or with channels_last maps "
            f"(batch, height, width, channels), got shape {shape}, "
            f"extra_tokens={extra_tokens} and channels_last={channels_last}"
        )
    if len(shape) == 4 and shape[1] > shape[2] == shape[3] > 1:
        warnings.warn(
            f"features of shape {shape} look channels-first already, as kdlib.features.capture returns them; "
            f"with channels_last they are read as {shape[3]} channels of {shape[1]} x {shape[2]} positions",
            stacklevel=3,
        )


@checked(_tokens_or_channels_last, features=check_features, extra_tokens=_count)
def to_map(
    features: Tensor, *, channels_last: bool = False, extra_tokens: int = 1
) -> Float[Tensor, "batch channels height width"]:
    """Transformer features that do not come from `capture`, as maps (batch, channels, height, width).

    Args:
        features: tokens (batch, extra_tokens + side^2, channels), which become a square; or with
            `channels_last` maps (batch, height, width, channels), such as Swin's, which are turned.
        channels_last: what a tensor of four axes is.
        extra_tokens: so many tokens at the beginning have no place in the image (the class token, registers).

    Returns:
        A view of the features.

    Raises:
        ValueError: features of another shape.
    """
    if features.dim() == 4:
        return features.permute(0, 3, 1, 2)
    side = math.isqrt(features.shape[1] - extra_tokens)
    return features[:, extra_tokens:].transpose(1, 2).unflatten(2, (side, side))
