"""Teachers and students by name; any other `nn.Module` works with the rest of kdlib as well."""

import operator
import re
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib._checks import checked, natural_number, positive_integer
from kdlib.models.zoo import MOBILENET_WIDTHS as MOBILENET_WIDTHS
from kdlib.models.zoo import TOO_LARGE, from_torchvision, too_large

RESNET_DEPTHS = (8, 14, 20, 32, 44, 56, 110)
_RESNET = re.compile(r"resnet(\d{1,9})(?:x(\d{1,9}))?")


def names() -> list[str]:
    """The networks that kdlib defines itself.

    `build` also takes the name of every classification model of torchvision
    (`torchvision.models.list_models(module=torchvision.models)`), and "mobilenet_v2_x0_35" and the like
    (`MOBILENET_WIDTHS`).
    """
    resnets = [f"resnet{depth}" for depth in RESNET_DEPTHS]
    return [
        "tiny-cnn",
        "pocket-cnn",
        "student-net",
        "teacher-net",
        *resnets,
        "resnet8x2",
        "resnet8x4",
        "resnet32x4",
    ]


def _size(name: str, value: Any) -> int:
    """A rule for arguments: an integer of at least 1, of Python, of NumPy, or in a tensor of one."""
    try:
        number = (
            value if getattr(value, "dtype", type(value)) in (bool, torch.bool) else operator.index(value)
        )
    except TypeError:
        number = value  # the rule says what it is
    if positive_integer(name, number) > 2**31:
        raise ValueError(f"{name} must be at most 2**31, got {value}")
    return int(number)


def _seed(name: str, value: Any) -> int | None:
    """A rule for arguments: what `torch.manual_seed` takes, or None."""
    if value is not None and natural_number(name, value) >= 2**64:
        raise ValueError(f"{name} must be below 2**64, got {value}")
    return None if value is None else int(value)


def _name(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be the name of a network, got {type(value).__name__} {value!r}")
    return value


@checked(name=_name, num_classes=_size, in_channels=_size, image_size=_size, seed=_seed)
def build(
    name: str,
    *,
    num_classes: int = 10,
    in_channels: int = 1,
    image_size: int = 28,
    seed: int | None = None,
) -> nn.Module:
    """A freshly initialised network that maps (batch, in_channels, image_size, image_size) to logits.

    Args:
        name: one of `names()`, a ResNet of the CIFAR family such as "resnet26x2" (depth 6n + 2, then the
            width multiplier), the name of a torchvision classification model, or that of a MobileNetV2 of another
            width, such as "mobilenet_v2_x0_35".
        num_classes: length of the logit vector.
        in_channels: 1 for grey, 3 for colour images. A torchvision model gets a new first convolution
            where this is not 3.
        image_size: height and width in pixels.
        seed: fixes the initial weights and leaves the global random state as it was;
            without it the global state is used, as in plain PyTorch.

    Returns:
        The network, in training mode, on the CPU.

    Raises:
        ValueError: unknown name, a size below one or too large for the memory, or images of a size that the
            network does not take; the message says which it does.
        TypeError: a size that is no integer.
    """
    sizes = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    if seed is None:
        return _construct(name, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _construct(name, **sizes)


def is_own(name: str) -> bool:
    """Whether a network of this name is one that kdlib defines itself, and not torchvision's."""
    return name in names() or _resnet(name) is not None


def _resnet(name: str) -> re.Match | None:
    """A ResNet of the CIFAR family: "resnet18" is torchvision's, "resnet26x2" is none of its names."""
    match = _RESNET.fullmatch(name)
    return match if match and (match[2] or int(match[1]) in RESNET_DEPTHS) else None


def _construct(name: str, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    match = _resnet(name)
    if not is_own(name):
        return from_torchvision(name, num_classes, in_channels, image_size, known=names())
    try:
        if match:
            return CifarResNet(int(match[1]), int(match[2] or 1), num_classes, in_channels)
        if name == "tiny-cnn":
            return TinyCNN(num_classes, in_channels)
        if name == "pocket-cnn":
            return PocketCNN(num_classes, in_channels)
        channels, hidden = ((32, 64), 128) if name == "student-net" else ((64, 128), 512)
        return ClassicCNN(num_classes, in_channels, image_size, channels, hidden)
    except ValueError as error:
        raise ValueError(f"name={name!r} with image_size={image_size}: {error}") from error
    except TOO_LARGE as error:
        raise ValueError(too_large(name, num_classes, in_channels, image_size, error)) from error


class PocketCNN(nn.Module):
    """A student for small devices: convolutions with batch norm and ReLU, none beside another, so that a runtime
    can fold each into one step.

    Args:
        num_classes: length of the logit vector.
        in_channels: 1 for grey, 3 for colour images.
        plan: (channels, kernel size, stride) of each convolution. The standard plan has 46,162 parameters and
            2.3 million multiply-adds for ten classes of grey 28x28 images.
    """

    PLAN = ((24, 5, 2), (48, 3, 2), (48, 3, 1), (32, 3, 1))

    def __init__(
        self, num_classes: int = 10, in_channels: int = 1, plan: Sequence[tuple[int, int, int]] = PLAN
    ):
        super().__init__()
        self.stages = nn.ModuleList()
        for channels, kernel_size, stride in plan:
            self.stages.append(_conv_norm_relu(in_channels, channels, stride, kernel_size))
            in_channels = channels
        self.head = nn.Linear(in_channels, num_classes)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        features = images
        for stage in self.stages:
            features = stage(features)
        return self.head(features.mean(dim=(2, 3)))


class TinyCNN(PocketCNN):
    """The lessons' student: three strided 3x3 convolutions, each with batch norm and ReLU; 24,058 parameters
    for ten classes of grey images."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1, widths: tuple[int, ...] = (16, 32, 64)):
        super().__init__(num_classes, in_channels, [(width, 3, 2) for width in widths])


class ClassicCNN(nn.Module):
    """The teacher and student of the common CIFAR-10 tutorials: two convolutions with max-pooling, then two
    linear layers. On 3x32x32 images the pair has 4,275,594 and 545,098 parameters."""

    def __init__(
        self, num_classes: int, in_channels: int, image_size: int, channels: tuple[int, int], hidden: int
    ):
        super().__init__()
        if image_size < 4:
            raise ValueError(f"image_size must be at least 4 for two max-pooling layers, got {image_size}")
        first, second = channels
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, first, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(second * (image_size // 4) ** 2, hidden), nn.ReLU(),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        return self.classifier(self.features(images))


class CifarResNet(nn.Module):
    """ResNet for small images: depth = 6n + 2 in three stages (He et al. 2015, arXiv 1512.03385, section 4.2).

    The paper pads a shortcut that changes shape with zeros; here, as in most public code, it is a 1x1
    convolution with batch norm. A multiplied width k gives stages of 16k, 32k and 64k channels behind a
    stem of 32, the convention of the distillation literature ("resnet8x4").
    """

    def __init__(self, depth: int, width: int = 1, num_classes: int = 10, in_channels: int = 1):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth must be 6n + 2 with n >= 1 (8, 14, 20, ...), got {depth}")
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        stem = 16 if width == 1 else 32
        self.stem = _conv_norm_relu(in_channels, stem, stride=1)
        self.stages = nn.ModuleList()
        channels = stem
        for stage, stage_width in enumerate((16 * width, 32 * width, 64 * width)):
            blocks = []
            for block in range((depth - 2) // 6):
                blocks.append(ResidualBlock(channels, stage_width, stride=2 if stage and not block else 1))
                channels = stage_width
            self.stages.append(nn.Sequential(*blocks))
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        features = self.stem(images)
        for stage in self.stages:
            features = stage(features)
        return self.head(features.mean(dim=(2, 3)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut; ReLU after the sum."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.first = _conv_norm_relu(in_channels, out_channels, stride)
        self.second = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)
        )
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, features: Float[Tensor, "batch in_c h w"]) -> Float[Tensor, "batch out_c out_h out_w"]:
        return F.relu(self.second(self.first(features)) + self.shortcut(features))


def _conv_norm_relu(in_channels: int, out_channels: int, stride: int, kernel_size: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())
