"""Augmentations of a batch of uint8 images that draw anew for every image.

`kdlib.training` takes any function of such a batch, or of one image, such as a transform of torchvision v2, which
it then calls image by image.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F

from kdlib._checks import boolean, checked, natural_number

Images = UInt8[Tensor, "batch channels height width"]


@checked(padding=natural_number, flip=boolean)
def random_crop_flip(padding: int = 2, flip: bool = True) -> Callable[[Tensor], Tensor]:
    """Shift each image by up to `padding` pixels in both directions (zeros move in) and mirror half of them.

    Random numbers come from PyTorch's global generator of the CPU, which `kdlib.training` seeds.

    Args:
        padding: how far, in pixels.
        flip: whether half of the images are mirrored.

    Returns:
        A function of a batch of images, uint8 (batch, channels, height, width), that returns such a batch.

    Raises:
        TypeError: padding is no integer, or flip neither True nor False.
        ValueError: padding is negative.
    """

    return _RandomCropFlip(padding, flip)


@dataclass(frozen=True)
class _RandomCropFlip:
    """A class and no closure, because processes that decode are sent it where they are not forked."""

    padding: int
    flip: bool

    def __repr__(self) -> str:
        return f"random_crop_flip(padding={self.padding}, flip={self.flip})"

    def __call__(self, images: Images) -> Images:
        batch, _, height, width = images.shape
        top, left = torch.randint(0, 2 * self.padding + 1, (2, batch, 1))
        rows = (top + torch.arange(height))[:, None, :, None]
        columns = left + torch.arange(width)
        if self.flip:
            columns = torch.where(torch.rand(batch, 1) < 0.5, columns.flip(1), columns)
        padded = F.pad(images, (self.padding,) * 4)
        images_index = torch.arange(batch)[:, None, None, None]
        channels_index = torch.arange(images.shape[1])[None, :, None, None]
        return padded[images_index, channels_index, rows, columns[:, None, None, :]]
