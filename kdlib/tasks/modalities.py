"""Another modality: what a sensor that sees less leaves of an image. Images keep their order, so pairs are aligned."""

import torch
from torch.nn import functional as F

from kdlib._checks import checked
from kdlib.data import ImageSplit
from kdlib.tasks import _checks

BRIGHT = 26  # of 255: what counts as part of the item in its silhouette


def pixels(split: ImageSplit) -> ImageSplit:
    """The images as they are."""
    return split


@checked(split=_checks.grey)
def edges(split: ImageSplit) -> ImageSplit:
    """The strength of the edges: the length of Sobel's two derivatives, 0 to 255, cut at 255.

    A region of one brightness is black whatever the brightness is. The borders are continued by their own pixels.
    """
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    kernels = torch.stack([across, across.T])[:, None] / 4
    padded = F.pad(split.images.float(), (1, 1, 1, 1), mode="replicate")
    return _like(split, F.conv2d(padded, kernels).square().sum(dim=1, keepdim=True).sqrt())


@checked(split=_checks.halvable)
def thumbnails(split: ImageSplit) -> ImageSplit:
    """Half the height and half the width: the means of two times two pixels; an odd last row or column is left out."""
    return _like(split, F.avg_pool2d(split.images.float(), 2))


@checked(split=_checks.grey)
def silhouettes(split: ImageSplit) -> ImageSplit:
    """255 where a pixel is at least a tenth of full brightness, 0 elsewhere."""
    return _like(split, 255.0 * (split.images >= BRIGHT))


def _like(split: ImageSplit, images: torch.Tensor) -> ImageSplit:
    """These images with the labels and indices of `split`, normalised by their own mean and std."""
    return ImageSplit(images.round().clamp(0, 255).to(torch.uint8), split.labels, split.indices)
