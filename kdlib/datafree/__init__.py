"""Images to distil on where the real ones are not to be had.

    substitutes   what lies about: noise, digits, glyphs of fonts, patches of photographs
    inversion     images that are optimised until the teacher is sure of them
    generator     a network that makes such images, trained against the teacher
    shelf         inverted images and a generator that ship with the package, for the teacher of Fashion-MNIST

All are grey uint8 images (n, 1, size, size); `unlabelled` makes a split of them.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from kdlib import _checks
from kdlib._checks import checked
from kdlib.data import ImageDataset, ImageSplit
from kdlib.data._checks import images as pixels
from kdlib.data.splits import is_dataset

__all__ = ["effective_classes", "unlabelled"]


@checked(images=pixels, like=is_dataset)
def unlabelled(images: UInt8[Tensor, "n channels height width"], like: ImageDataset) -> ImageSplit:
    """A split of images that have no labels, normalised as the images that the teacher learned from.

    All labels are 0 and say nothing: distil with `alpha=1`, at which they are not asked for.

    Args:
        images: of the size that the teacher learned from.
        like: whose mean and std are used, two numbers a channel; its images are not looked at.

    Raises:
        ValueError: images of another shape than those of `like`.
    """
    if images.shape[1:] != like.train.images.shape[1:]:
        raise ValueError(
            f"images must have the shape of those of like, {tuple(like.train.images.shape[1:])}, "
            f"got {tuple(images.shape[1:])}"
        )
    return ImageSplit(images, torch.zeros(len(images), dtype=torch.int64), mean=like.mean, std=like.std)


@checked(logits=_checks.logits)
def effective_classes(logits: Float[Tensor, "n classes"]) -> float:
    """How many classes a set of images reaches in the eyes of a teacher.

        exp(-sum over classes of m log m),   m = mean over images of softmax(logits)

    1 where every image is the same class, the number of classes where all occur equally often. An image of which the
    teacher is unsure counts for several: noise that gets the same flat answer for every image has many.
    """
    mean = logits.double().softmax(dim=1).mean(dim=0)
    return float(torch.special.entr(mean).sum().exp())
