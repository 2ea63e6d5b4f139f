"""Video in small: an item moves over a canvas whose edges are joined, and the class is item x direction.

Because the edges are joined, every position is as likely whatever the direction: no single frame says anything about
where the item moves. Noise of its own in each frame hides the item, so that more frames tell more about it, too.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kdlib import _checks as rules
from kdlib._checks import checked, positive_integer
from kdlib.data import ImageSplit
from kdlib.data.splits import is_split
from kdlib.tasks import _checks

DIRECTIONS = ("left", "right", "up", "down")
_STEPS = torch.tensor([[0, -1], [0, 1], [-1, 0], [1, 0]])  # rows and columns
FRAMES, SPEED, NOISE = 8, 2, 40.0


@checked(split=_checks.halvable_items, n=positive_integer, seed=_checks.seed, items=positive_integer)
def clips(split: ImageSplit, n: int, *, seed: int = 0, items: int = 10) -> ImageSplit:
    """`n` clips of eight frames, each of an item of half its size that moves two pixels a frame.

    Args:
        split: grey images of one class each.
        n: how many.
        seed: chooses items, directions, first places and noise.
        items: how many classes of items there are.

    Returns:
        Images uint8 (n, 8, height, width), a channel a frame; labels int64 (n,): 4 * item + direction, the
        directions being left, right, up and down.

    Raises:
        ValueError: images of several channels or labels, or of one row or column; a label that is not below `items`.
    """
    _checks.labels_below(items, split, "items")
    random = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(split), (n,), generator=random)
    directions = torch.randint(len(DIRECTIONS), (n,), generator=random)
    small = F.avg_pool2d(split.images[rows, 0].float(), 2)
    height, width = split.images.shape[2:]
    canvas = F.pad(small, (0, width - small.shape[2], 0, height - small.shape[1]))
    first = torch.stack([torch.randint(side, (n,), generator=random) for side in (height, width)], dim=1)
    shifts = first[:, None] + SPEED * torch.arange(FRAMES)[:, None] * _STEPS[directions][:, None]
    frames = _rolled(canvas, shifts)
    frames += NOISE * torch.randn(frames.shape, generator=random)
    labels = len(DIRECTIONS) * split.labels[rows] + directions
    return ImageSplit(frames.round_().clamp_(0, 255).to(torch.uint8), labels)


def _rolled(canvas: Tensor, shifts: Tensor) -> Tensor:
    """(n, height, width) moved by (n, frames, 2) rows and columns round the joined edges."""
    n, height, width = canvas.shape
    rows = (torch.arange(height) - shifts[..., :1]) % height
    columns = (torch.arange(width) - shifts[..., 1:]) % width
    images = torch.arange(n)[:, None, None, None]
    return canvas[images, rows[..., None], columns[:, :, None, :]]


def _frames_of_the_clips(arguments: dict) -> None:
    """Relation: `frames` become a list of channels that the split has."""
    frames, channels = arguments["frames"], arguments["split"].images.shape[1]
    chosen = list(frames) if isinstance(frames, Sequence | np.ndarray) else []
    whole = all(isinstance(frame, Integral) and not isinstance(frame, bool) for frame in chosen)
    if not chosen or not whole or not all(0 <= frame < channels for frame in chosen):
        raise ValueError(f"frames must be a list of some of 0 to {channels - 1}, got {frames!r}")
    arguments["frames"] = [int(frame) for frame in chosen]


@checked(_frames_of_the_clips, split=is_split)
def frames_of(split: ImageSplit, frames: Sequence[int]) -> ImageSplit:
    """The same clips with these frames alone, normalised as they were.

    Raises:
        ValueError: no frames, or one that the clips do not have.
    """
    mean, std = split.mean[frames], split.std[frames]
    return ImageSplit(split.images[:, frames].contiguous(), split.labels, split.indices, mean, std)


class Answers(NamedTuple):
    """What the logits of item x direction say of each by itself: probabilities that sum to 1."""

    item: Float[Tensor, "n items"]
    direction: Float[Tensor, "n directions"]


@checked(logits=rules.logits)
def item_and_direction(logits: Float[Tensor, "n classes"]) -> Answers:
    """The probability of each item, whatever the direction, and of each direction, whatever the item.

        p(item) = sum over directions of softmax(logits)[item, direction], and likewise p(direction)

    Raises:
        ValueError: a number of classes that is no multiple of the four directions.
    """
    if logits.shape[1] % len(DIRECTIONS):
        raise ValueError(f"logits must have a multiple of {len(DIRECTIONS)} classes, got {logits.shape[1]}")
    both = logits.softmax(dim=1).unflatten(1, (-1, len(DIRECTIONS)))
    return Answers(both.sum(dim=2), both.sum(dim=1))
