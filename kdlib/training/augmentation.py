"""Views of a batch: an augmentation draws them for each image, a mix makes new images and labels out of several."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from kdlib.data import ImageSplit, StreamSplit
from kdlib.data.streams import StreamedImages

Augment = Callable[[Tensor], Tensor]
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Pixels = UInt8[Tensor, "batch channels height width"] | Float[Tensor, "batch channels height width"]

_VIEWS_AT_A_TIME = 1_000
_VIEWS_IN_FINGERPRINT = 16


def checked_augment(augment: Any, split: ImageSplit) -> Augment:
    """`augment` as a function of a batch in which every image gets a draw of its own, its results checked.

    Args:
        augment: a function of one image (channels, height, width), such as a transform of torchvision v2, or of a
            batch of them, such as `kdlib.data.augment.random_crop_flip`. It is tried on an image first, on a batch
            where it does not take one.
        split: images to try it on.

    Returns:
        A function from a uint8 batch to a batch of the same shape, uint8, or floating-point in [0, 255].

    Raises:
        TypeError: `augment` cannot be called.
        ValueError: it takes neither an image nor a batch, or returns something else than such pixels.
    """
    if not callable(augment):
        raise TypeError(
            f"augment must be a function of uint8 images, got {type(augment).__name__} {augment!r}"
        )
    with torch.random.fork_rng(devices=[]):
        each = _refusal(augment, split.images[0])
        whole = None if each is None else _refusal(augment, split.images[:2])
    if each is None:
        return functools.partial(_of_each, augment)
    if whole is None:
        return functools.partial(_of_all, augment)
    raise ValueError(
        f"augment must take uint8 images, one (channels, height, width) or a batch of them, and return them in the "
        f"same shape; of one image: {each}; of a batch: {whole}"
    )


def _of_each(augment: Augment, pixels: Tensor) -> Pixels:
    return _as_pixels(torch.stack([augment(image) for image in pixels]), pixels)


def _of_all(augment: Augment, pixels: Tensor) -> Pixels:
    return _as_pixels(augment(pixels), pixels)


def _refusal(augment: Augment, pixels: Tensor) -> str | None:
    """Why `augment` does not do for such pixels; None where it does."""
    try:
        _as_pixels(augment(pixels.clone()), pixels)
    except Exception as error:  # whatever a function of the user's own raises
        return f"{type(error).__name__}: {error}"
    return None


def _as_pixels(result: Any, given: Tensor) -> Tensor:
    """Pixels in [0, 255]: uint8 as they are, floating-point in [0, 1] stretched."""
    if not isinstance(result, Tensor):
        raise ValueError(f"augment must return a tensor, got {type(result).__name__}")
    if result.shape != given.shape:
        raise ValueError(
            f"augment must keep the shape of the images, got {tuple(result.shape)} for {tuple(given.shape)}"
        )
    if result.dtype == torch.uint8:
        return result
    if not result.is_floating_point():
        raise ValueError(
            f"augment must return uint8, or floating-point numbers in [0, 1], got {result.dtype}"
        )
    lowest, highest = (bound.item() for bound in result.aminmax())
    if not 0 <= lowest <= highest <= 1:  # NaN fails as well
        raise ValueError(
            "augment must return pixels: uint8, or floating-point numbers in [0, 1], got numbers from "
            f"{lowest:.4g} to {highest:.4g}; leave the normalisation to kdlib"
        )
    return result.float() * 255


def views_of(split: ImageSplit, augment: Augment, views: int, seed: int) -> ImageSplit:
    """`views` views of each image, view v of image i in row i * views + v; the same for the same seed."""
    repeated = torch.arange(len(split)).repeat_interleave(views)
    if isinstance(split, StreamSplit):
        images = StreamedViews(split.images, augment, views, seed)
        _refuse_other_draws(images)
        return StreamSplit(images, split.labels[repeated], split.indices[repeated], split.mean, split.std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        parts = [augment(split.images[rows]) for rows in repeated.split(_VIEWS_AT_A_TIME)]
    pixels = torch.cat([part.round().to(torch.uint8) for part in parts])
    return ImageSplit(pixels, split.labels[repeated], split.indices[repeated], split.mean, split.std)


def _refuse_other_draws(images: "StreamedViews") -> None:
    rows = torch.linspace(0, len(images) - 1, min(len(images), _VIEWS_IN_FINGERPRINT)).long().tolist()
    first = images.decode(rows)
    if not all(torch.equal(first, images.decode(rows)) for _ in range(2)):
        raise ValueError(
            "augment must draw from PyTorch's generator (torch.rand, torch.randint), as the transforms of torchvision "
            "do: it drew another view of the same image from the same seed, and views of a stream are drawn anew each "
            "time they are needed. Draw so, or take the split into memory by split.in_memory()"
        )


class StreamedViews(StreamedImages):
    """Fixed views of images that are decoded when they are needed: drawn anew each time, by a seed of their own.

    They are not the views of the same images in memory, where one generator draws all views in their order.

    Args:
        images: of which the views are.
        augment: of a batch, as `checked_augment` gives it.
        views: of each image; view v of image i stands in row i * views + v.
        seed: of all of them.
        rows: those that are left of them; all where not given.
    """

    def __init__(
        self, images: StreamedImages, augment: Augment, views: int, seed: int, rows: Tensor | None = None
    ):
        self.images, self.augment, self.views, self.seed = images, augment, views, seed
        self.rows = torch.arange(len(images) * views) if rows is None else rows
        self.shape = (len(self.rows), *images.shape[1:])

    def decode(self, rows: Sequence[int]) -> UInt8[Tensor, "k channels height width"]:
        own = [int(self.rows[row]) for row in rows]
        decoded = self.images.decode([row // self.views for row in own])
        with torch.random.fork_rng(devices=[]):
            return torch.cat([self._view(row, image[None]) for row, image in zip(own, decoded, strict=True)])

    def _view(self, row: int, image: Tensor) -> Tensor:
        torch.manual_seed((self.seed * 1_000_003 + row) % 2**63)
        return self.augment(image).round().to(torch.uint8)

    def part(self, rows: Tensor) -> "StreamedViews":
        return StreamedViews(self.images, self.augment, self.views, self.seed, self.rows[rows])

    def fingerprint(self) -> str:
        """Of the images, the rows, and of a few views: a function has no digest of its own."""
        few = torch.linspace(0, len(self) - 1, min(len(self), _VIEWS_IN_FINGERPRINT)).long()
        drawn = self.decode(few.tolist()).numpy().tobytes()
        whole = f"{self.images.fingerprint()} {self.views} {self.seed}".encode()
        return hashlib.sha256(whole + self.rows.numpy().tobytes() + drawn).hexdigest()


def mixed(mix: Mix, pixels: Pixels, labels: Tensor) -> tuple[Tensor, Float[Tensor, "batch classes"]]:
    """New pixels in [0, 255] and soft labels, by a function of images in [0, 1] and their labels.

    Raises:
        ValueError: `mix` returns something else than a pair of such images and float labels (batch, classes).
    """
    result = mix(pixels.float() / 255, labels)
    if not (
        isinstance(result, tuple | list) and len(result) == 2 and all(isinstance(r, Tensor) for r in result)
    ):
        raise ValueError(f"mix must return a pair (images, soft labels), got {type(result).__name__}")
    images, soft = result
    # Mixing rounds: a sum of weights may exceed 1 by a little.
    if images.shape != pixels.shape or not _lies_in_unit_interval(images):
        raise ValueError(
            f"mix must return images of shape {tuple(pixels.shape)} with pixels in [0, 1], got shape "
            f"{tuple(images.shape)} of {images.dtype}" + _range_of(images)
        )
    if soft.ndim != 2 or len(soft) != len(pixels) or not _lies_in_unit_interval(soft):
        raise ValueError(
            f"mix must return soft labels of shape ({len(pixels)}, classes) in [0, 1], got shape "
            f"{tuple(soft.shape)} of {soft.dtype}" + _range_of(soft)
        )
    return images.float() * 255, soft.float()


def _lies_in_unit_interval(values: Tensor) -> bool:
    if not values.is_floating_point():
        return False
    lowest, highest = (bound.item() for bound in values.aminmax())
    return -1e-3 <= lowest <= highest <= 1 + 1e-3


def _range_of(values: Tensor) -> str:
    if not values.numel():
        return ""
    lowest, highest = (bound.item() for bound in values.aminmax())
    return f" from {lowest:.4g} to {highest:.4g}"
