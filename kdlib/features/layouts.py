"""Which axis of a layer's output is which, and how it becomes a map or a vector of each image.

A tensor does not say it: (16, 7, 7, 7) may be anything.  What runs before it does: convolutions and batch
norms have the channels on axis 1, a LayerNorm of one axis has them on the last, an attention or a recurrent
layer knows whether the batch comes first.  The images' number, height and width decide where these leave two
readings.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
# Subclasses often turn the tensor inside (torchvision's LayerNorm2d), so only these two themselves count.
_CHANNELS_LAST = (nn.LayerNorm, nn.RMSNorm)

# A class token, a distillation token, registers: so many tokens may stand before those of the image.
_MOST_EXTRA_TOKENS = 8


class Testimony(NamedTuple):
    """What the layers that have run by now say about axes.

    `shape` is that of the last output of a convolution or a norm, () where none has run, and `channels_last`
    tells where it has its channels.  `grid` is the height and width of the last convolution's map.
    `sequence` has the first two lengths of the last attention's or recurrent layer's output, and which of the
    two axes is the batch; `recurrent` tells whether it was a recurrent layer's.
    """

    shape: tuple[int, ...] = ()
    channels_last: bool = False
    grid: tuple[int, int] | None = None
    sequence: tuple[tuple[int, ...], int] | None = None
    recurrent: bool = False

    def after(self, module: nn.Module, output: Any) -> "Testimony":
        """With what this module's output adds."""
        shape = tuple(output.shape) if isinstance(output, Tensor) else ()
        if len(shape) == 3 and isinstance(getattr(module, "batch_first", None), bool):
            return self._replace(
                sequence=(shape[:2], 0 if module.batch_first else 1), recurrent=isinstance(module, nn.RNNBase)
            )
        if len(shape) < 3 or 0 in shape:
            return self
        if isinstance(module, _CHANNELS_FIRST):
            return self._replace(
                shape=shape, channels_last=False, grid=shape[2:] if len(shape) == 4 else self.grid
            )
        if type(module) in _CHANNELS_LAST and module.normalized_shape == shape[-1:]:
            return self._replace(shape=shape, channels_last=True)
        return self

    @property
    def channels(self) -> int:
        return 0 if not self.shape else self.shape[-1 if self.channels_last else 1]

    def has_positions(self, lengths: tuple[int, ...], batch: int) -> bool:
        """Whether a tensor with these lengths beside batch and channels has the positions of that output."""
        if len(self.shape) == len(lengths) + 2 == 4:
            return lengths == (self.shape[1:3] if self.channels_last else self.shape[2:])
        known = math.prod(self.shape) // (self.channels * batch)
        extra = _MOST_EXTRA_TOKENS if len(lengths) == 1 and len(self.shape) == 4 else 0
        return known <= math.prod(lengths) <= known + extra


class Witness:
    """Follows forward passes; `testimony` is what the layers of the pass have said so far."""

    def __init__(self) -> None:
        self.testimony = Testimony()

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """From here on, for every module of `model`."""
        hooks = [
            module.register_forward_hook(self._hear) for module in model.modules() if _may_testify(module)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _hear(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self.testimony = self.testimony.after(module, first_tensor(output))


def _may_testify(module: nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule):
        return False  # it takes no hooks
    return (
        isinstance(module, _CHANNELS_FIRST)
        or type(module) in _CHANNELS_LAST
        or isinstance(getattr(module, "batch_first", None), bool)
    )


def first_tensor(output: Any) -> Any:
    """Of a tuple or list, as (features, attention weights), its first entry."""
    return output[0] if isinstance(output, tuple | list) and len(output) else output


def with_first_tensor(output: Any, tensor: Tensor) -> Any:
    """The output with another tensor in the place of `first_tensor`."""
    if isinstance(output, Tensor):
        return tensor
    if hasattr(output, "_replace"):  # a named tuple
        return output._replace(**{output._fields[0]: tensor})
    return type(output)([tensor, *output[1:]])


class Layout(NamedTuple):
    """How a layer's output is read.

    Args:
        batch_axis: where the images are.
        channels_last: the channels are on the last axis, and not on the first after the batch.
        grid: of three axes: the height and width that the positions have in the image.
        extra: of three axes: so many positions before those of the grid have no place in the image.
        certain: False where the batch may as well be the other one of the first two axes.
    """

    batch_axis: int = 0
    channels_last: bool = False
    grid: tuple[int, int] | None = None
    extra: int = 0
    certain: bool = True

    def read(self, output: Tensor) -> Tensor:
        """The output as (batch, channels, height, width) or (batch, channels); a view."""
        features = self._channels_first(output)
        if output.dim() != 3:
            return features
        extra, grid = self._positions(features.shape[2])
        return features[:, :, extra:].unflatten(2, grid)

    def write(self, features: Tensor, output: Tensor) -> Tensor:
        """The inverse: `output` with these features in it."""
        if output.dim() == 3:
            before = self._channels_first(output)
            extra, _ = self._positions(before.shape[2])
            features = features.flatten(2)
            features = torch.cat([before[:, :, :extra], features], dim=2) if extra else features
        features = features.movedim(1, -1) if self.channels_last else features
        return features.movedim(0, self.batch_axis) if self.batch_axis else features

    def _channels_first(self, output: Tensor) -> Tensor:
        output = output.movedim(self.batch_axis, 0) if self.batch_axis else output
        return output.movedim(-1, 1) if self.channels_last else output

    def _positions(self, count: int) -> tuple[int, tuple[int, int]]:
        if self.grid is not None and count == self.extra + math.prod(self.grid):
            return self.extra, self.grid
        return 0, (count, 1)


def layout_of(
    shape: tuple[int, ...], images: tuple[int, ...], testimony: Testimony, batch_axis: int | None = None
) -> Layout:
    """How a layer's output of this shape is to be read, where the network's input has the shape `images`.

    Args:
        shape: of the output.
        images: of the network's input, whose first axis is the batch.
        testimony: of the layers that have run by then.
        batch_axis: where the lengths of shape leave two readings.

    Raises:
        ValueError: it is neither a map nor tokens nor vectors of these images; the message has no subject.
    """
    batch = images[0]
    found, certain = _batch_axis(shape, images, testimony)
    if not certain and batch_axis is not None:
        found, certain = batch_axis, True
    rest = shape[:found] + shape[found + 1 :]
    if len(rest) == 1:
        return Layout()
    sides = images[2:] if len(images) == 4 else None
    last = _channels_are_last(rest, batch, sides, testimony)
    if last and len(rest) == 3 and sides is not None and not _is_map(rest[:2], sides):
        raise ValueError(
            f"whose axes after the batch are no map of images {_by(sides)} large (windows, for example)"
        )
    grid, extra = None, 0
    if len(rest) == 2 and sides is not None:
        grid, extra = _grid(rest[0] if last else rest[1], sides, testimony)
    return Layout(found, last, grid, extra, certain)


def _batch_axis(shape: tuple[int, ...], images: tuple[int, ...], testimony: Testimony) -> tuple[int, bool]:
    """The axis of the images, and whether there is no other reading."""
    batch = images[0]
    if len(shape) == 3:
        square = shape[0] == shape[1]
        declared = testimony.sequence is not None and testimony.sequence[0] == shape[:2]
        # Of as many images as positions a block may turn what it gives to its attention.
        if declared and (not square or len(images) == 3):
            return testimony.sequence[1], True
        if batch in shape[:2]:
            return shape.index(batch), not square or batch == 1
    elif len(shape) > 1 and shape[0] == batch:
        return 0, True
    raise ValueError(
        f"whose first axis is not the batch of {batch} (windows, heads or positions may be folded into it)"
        if len(shape) > 1
        else "which is neither a map nor a vector of each image"
    )


def _channels_are_last(
    rest: tuple[int, ...], batch: int, sides: tuple[int, ...] | None, testimony: Testimony
) -> bool:
    """Whether the channels are on the last axis of `rest`, the lengths after the batch, or on the first.

    Each mark that fits one of the two readings and not the other is a vote; where they are even, the first
    counts.
    """
    marks: list[Callable[[int, tuple[int, ...]], bool]] = []
    if testimony.shape:
        marks += [
            lambda channels, positions: testimony.has_positions(positions, batch),
            lambda channels, positions: channels == testimony.channels,
        ]
    if len(rest) == 3 and sides is not None:
        marks.append(lambda channels, positions: _is_map(positions, sides))
    readings = (rest[0], rest[1:]), (rest[-1], rest[:-1])
    answers = [tuple(mark(*reading) for reading in readings) for mark in marks]
    votes = [last for first, last in answers if first != last]
    if len(testimony.shape) == len(rest) + 1:
        votes.append(testimony.channels_last)
    if not votes:
        return len(rest) == 2  # by custom: tokens have their channels on the last axis, maps on the first
    return votes[0] if 2 * sum(votes) == len(votes) else 2 * sum(votes) > len(votes)


def _is_map(lengths: tuple[int, ...], sides: tuple[int, ...]) -> bool:
    """Height and width in the proportion of the images, up to what rounding at the borders does."""
    (height, width), (image_height, image_width) = lengths, sides
    return abs(width - height * image_width / image_height) <= (height != image_height)


def _grid(count: int, sides: tuple[int, ...], testimony: Testimony) -> tuple[tuple[int, int] | None, int]:
    """Height and width of so many tokens, and how many stand before them; None for a plain sequence.

    They are the positions of the last convolution's map where these are as many, and else a grid in the
    proportion of the images, with or without a class token.
    """
    if testimony.grid is not None and 0 <= count - math.prod(testimony.grid) <= _MOST_EXTRA_TOKENS:
        return testimony.grid, count - math.prod(testimony.grid)
    image_height, image_width = sides
    for extra in () if testimony.recurrent else (0, 1):
        height = math.isqrt((count - extra) * image_height // image_width)
        width = height * image_width // image_height
        if height * image_width == width * image_height and height * width == count - extra > 0:
            return (height, width), extra
    return None, 0


def _by(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides))
