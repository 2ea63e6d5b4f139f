"""Items for the tests of the tasks, and formulas in plain numbers."""

import math

import numpy as np
import torch

from kdlib.data import ImageSplit


def noise_items(n=40, classes=10, size=(6, 8), seed=0, channels=1):
    """Images no two of which are alike, so that each is known again wherever it is found."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(1, 256, (n, channels, *size), dtype=torch.uint8, generator=random)
    return ImageSplit(images, torch.arange(n) % classes)


def same(one, other):
    """Whether two splits hold the same images, labels and statistics."""
    pairs = zip(vars(one).items(), vars(other).items(), strict=True)
    return all(torch.equal(a, b) for (name, a), (_, b) in pairs if name != "_digest")


def overlap(one, other):
    width = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def log_softmax(values):
    return values - math.log(np.exp(values).sum())
