"""Counting: networks built without memory for their weights, so that it takes no time."""

import functools

import torch
from torchvision import models as zoo
from torchvision.models import efficientnet

from kdlib import models
from kdlib.deploy import footprint

CLASSIC = {"num_classes": 10, "in_channels": 3, "image_size": 32}
BYTES = 4  # of a number in float32


@functools.cache
def parameters(name: str, **options: float | int) -> int:
    """Of a network of torchvision, or of the tutorials' classic pair for ten classes of 32 x 32 pixels."""
    with torch.device("meta"):
        if name in ("teacher-net", "student-net"):
            return footprint.parameters(models.build(name, **CLASSIC))
        return footprint.parameters(zoo.get_model(name, weights=None, **options))


@functools.cache
def efficientnet_l2() -> int:
    """EfficientNet-B0 made 4.3 times as wide and 5.3 times as deep, as its authors define L2 (arXiv 1911.04252)."""
    with torch.device("meta"):
        widths, last = efficientnet._efficientnet_conf("efficientnet_b0", width_mult=4.3, depth_mult=5.3)
        return footprint.parameters(efficientnet.EfficientNet(widths, 0.5, last_channel=last))


def small() -> int:
    """MobileNetV2 of 0.35 of the width, for 1,000 classes."""
    return parameters("mobilenet_v2", width_mult=0.35)


def published(weights: str, data: str = "ImageNet-1K") -> float:
    """The accuracy that torchvision publishes with weights, such as "ResNet18_Weights.IMAGENET1K_V1", in percent."""
    return zoo.get_weight(weights).meta["_metrics"][data]["acc@1"]


def work(weights: str) -> float:
    """The multiply-adds of one image (or clip) that torchvision publishes with weights, in thousand millions."""
    return zoo.get_weight(weights).meta["_ops"]


def millions(count: int) -> str:
    """1,186,986 as "1.19 M"."""
    return f"{count / 1e6:.2f} M"


@functools.cache
def small_work() -> float:
    """The multiply-adds of MobileNetV2 x0.35 for an image of 224 pixels, in thousand millions."""
    network = zoo.mobilenet_v2(weights=None, width_mult=0.35).eval()
    return footprint.multiply_adds(network, (3, 224, 224)) / 1e9


def days_a_pass(teacher: float, student: float) -> str:
    """What one pass over ImageNet takes on a core of 50 thousand million multiply-adds a second, in words.

    teacher, student: their multiply-adds for an image, in thousand millions; the student goes forwards and backwards.
    """
    days = IMAGENET_IMAGES * (teacher + 3 * student) / 50 / 86400
    return f"one pass of this pair takes {days:.1f} days of a core that does 50 thousand million multiply-adds a second"


IMAGENET_IMAGES = 1_281_167
