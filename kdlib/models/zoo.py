"""Classification models of torchvision by name, for any number of classes and channels and any size that they take."""

import difflib
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import nn

# Of images, as they are usual: named where another one does not do.
SIZES = (32, 64, 96, 128, 192, 224, 256, 299)
TOO_LARGE = (RuntimeError, MemoryError, TypeError)  # torch's own, where a product of sizes has no 64 bits
# The widths that the authors published beside 1 (Sandler et al. 2018, arXiv 1801.04381), spelled as torchvision spells
# those of ShuffleNetV2.
MOBILENET_WIDTHS = {
    "mobilenet_v2_x0_35": 0.35, "mobilenet_v2_x0_5": 0.5, "mobilenet_v2_x0_75": 0.75, "mobilenet_v2_x1_3": 1.3,
    "mobilenet_v2_x1_4": 1.4,
}  # fmt: skip


def too_large(name: str, num_classes: int, in_channels: int, image_size: int, error: Exception) -> str:
    """What to say of a network that does not fit into the memory."""
    return (
        f"{name} is too large for this machine with num_classes={num_classes}, in_channels={in_channels} and "
        f"image_size={image_size} ({error})"
    )


def from_torchvision(
    name: str, num_classes: int, in_channels: int, image_size: int, *, known: Sequence[str] = ()
) -> nn.Module:
    """A freshly initialised network, after it has run on one blank image.

    Args:
        known: other names that a reader may have meant.

    Raises:
        ValueError: as `kdlib.models.build`.
    """
    from torchvision import models as zoo

    if name not in MOBILENET_WIDTHS and name not in zoo.list_models(module=zoo):
        raise ValueError(_unknown(name, zoo, known))
    try:
        model = _torchvision_model(name, num_classes, in_channels, image_size)
        _run_on_one_image(model, in_channels, image_size)
    except (AssertionError, ValueError, *TOO_LARGE) as error:
        if _runs_at(name, image_size):
            raise ValueError(too_large(name, num_classes, in_channels, image_size, error)) from error
        fitting = [size for size in SIZES if _runs_at(name, size)]
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{name} cannot process images of image_size={image_size} ({reason}). Of the usual sizes it takes "
            f"{', '.join(map(str, fitting)) or 'none'}"
        ) from error
    return model


def _unknown(name: str, zoo: ModuleType, others: Sequence[str]) -> str:
    """What to say of a name that no classification model has."""
    own = [*others, *MOBILENET_WIDTHS]
    known = [*own, *zoo.list_models(module=zoo)]
    if name.lower() in set(zoo.list_models()) - set(known):
        plain = name.lower().removeprefix("quantized_")
        remedy = (
            f"build {plain!r} and quantise the exported file"
            if plain in known
            else "take one for classification"
        )
        return f"name={name!r} is none of torchvision's models for classification in floating-point numbers; {remedy}"
    spelled = {re.sub(r"[^a-z0-9]", "", one.lower()): one for one in known}
    close = difflib.get_close_matches(re.sub(r"[^a-z0-9]", "", name.lower()), spelled, n=3)
    suggestion = f" Did you mean {' or '.join(repr(spelled[one]) for one in close)}?" if close else ""
    return (
        f"unknown model {name!r}: no network has this name.{suggestion} Allowed: {', '.join(own)}, "
        f"or one of torchvision's {len(known) - len(own)} classification models"
    )


def _torchvision_model(name: str, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    from torchvision import models as zoo

    extra: dict[str, Any] = {}
    if name.startswith("vit_"):
        extra["image_size"] = image_size
    if name.startswith("maxvit_"):
        extra["input_size"] = (image_size, image_size)
    if name in ("googlenet", "inception_v3"):
        # The auxiliary classifiers need 75 pixels and more, and their own initialisation takes a minute.
        extra |= {"aux_logits": False, "init_weights": False}
    if name in MOBILENET_WIDTHS:
        name, extra["width_mult"] = "mobilenet_v2", MOBILENET_WIDTHS[name]
    model = zoo.get_model(name, weights=None, num_classes=num_classes, **extra)
    if in_channels != 3:
        _replace_first_convolution(model, in_channels)
    return model


def _replace_first_convolution(model: nn.Module, in_channels: int) -> None:
    path, old = next((path, m) for path, m in model.named_modules() if isinstance(m, nn.Conv2d))
    new = nn.Conv2d(
        in_channels, old.out_channels, old.kernel_size, old.stride, old.padding,
        old.dilation, bias=old.bias is not None,
    )  # fmt: skip
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def _run_on_one_image(model: nn.Module, in_channels: int, image_size: int) -> None:
    """A model meant for 224 pixels may shrink a small image to nothing, or demand a multiple of its patches."""
    model.eval()
    try:
        with torch.inference_mode():
            model(torch.zeros(1, in_channels, image_size, image_size))
    finally:
        model.train()


def _runs_at(name: str, image_size: int) -> bool:
    """Whether a torchvision model takes images of this size, found out on shapes alone."""
    try:
        with torch.device("meta"):
            _run_on_one_image(_torchvision_model(name, 2, 3, image_size), 3, image_size)
    except NotImplementedError:
        return True  # a RegNet computes with numbers while it is built; it takes images of any size
    except (AssertionError, ValueError, *TOO_LARGE):
        return False
    return True
