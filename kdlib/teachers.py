"""Trained teachers that ship with the package, and the logits of any teacher, computed once."""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kdlib import _files, _logit_cache, models
from kdlib._checks import checked
from kdlib._checks import logits as logits_rule
from kdlib.data import ImageSplit
from kdlib.data.splits import is_split
from kdlib.inference import (
    Preprocessing,
    device_rule,
    logits_of,
    network_rule,
    optional_count_rule,
    preprocessing_of,
    statistic_rule,
    switch,
)


class FrozenTeacher(nn.Module):
    """A network that stays in eval mode and takes no gradient, whatever is done to what surrounds it.

    `train()` on a wrapper would otherwise switch a teacher inside it to training mode, where its batch
    norm drifts with every batch.

    Args:
        network: any network; its parameters are set to take no gradient.
        preprocessing: how it wants its images, where that is not how the student's are normalised.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing | None = None):
        super().__init__()
        self.network = network.requires_grad_(False)
        self.preprocessing = preprocessing_of(network) if preprocessing is None else preprocessing
        self.eval()

    def train(self, mode: bool = True) -> "FrozenTeacher":
        """Stay in eval mode, for either value of `mode`."""
        self.training = False
        switch(self.network, training=False)
        return self

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Any:
        # Somebody may hold the network itself and have switched it.
        switch(self.network, training=False)
        return self.network(images)


@checked(network=network_rule, mean=statistic_rule, std=statistic_rule, size=optional_count_rule)
def freeze(
    network: nn.Module,
    *,
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
    size: int | None = None,
) -> FrozenTeacher:
    """A network as a teacher, with the preprocessing that it was trained with.

    Whatever the student's images are normalised by, and whatever their size: in `distill`, `cached_logits`, the
    metrics and a sweep this teacher gets (pixels / 255 - mean) / std, scaled to `size`. Without mean, std and size
    it gets what the student gets, which is right only where it was trained on such images.

    Args:
        network: any network; one that is frozen already is returned as it is where nothing else is given.
        mean, std: a number for each channel, in units of pixels in [0, 1]; torchvision's weights for ImageNet
            want [0.485, 0.456, 0.406] and [0.229, 0.224, 0.225]. Grey images are repeated for three channels.
        size: height and width of the images that it wants.

    Returns:
        A `FrozenTeacher`: eval mode, no gradients.

    Raises:
        ValueError: only one of mean and std, other lengths, numbers out of their range.
    """
    inner = network.network if isinstance(network, FrozenTeacher) else network
    if mean is None and std is None and size is None:
        return network if isinstance(network, FrozenTeacher) else FrozenTeacher(network)
    return FrozenTeacher(inner, _preprocessing(mean, std, size))


def _preprocessing(mean: Tensor | None, std: Tensor | None, size: int | None) -> Preprocessing:
    if mean is None or std is None:
        raise ValueError(f"mean and std must both be given, got mean={mean!r} and std={std!r}")
    if len(mean) != len(std):
        raise ValueError(
            f"mean and std must have one number for each channel, got {len(mean)} and {len(std)}"
        )
    if not (std > 0).all():
        raise ValueError(f"std must be above 0, got {std.tolist()}")
    return Preprocessing(mean, std, size)


COMBINATIONS = ("probabilities", "logits")


class CombinedTeacher(nn.Module):
    """Several teachers as one: `combine` makes it."""

    def __init__(self, members: Sequence[nn.Module], by: str):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.by = by
        own = [preprocessing_of(member) is not None for member in self.members]
        if any(own) and not all(own):
            raise ValueError(
                "teachers must all carry a preprocessing of their own, or none of them: give it to the others by "
                "kdlib.teachers.freeze(network, mean=..., std=...)"
            )
        # Members that want their images differently get plain pixels here, and each prepares its own.
        channels = min(len(preprocessing_of(member).mean) for member in self.members) if any(own) else 0
        self.preprocessing = Preprocessing(torch.zeros(channels), torch.ones(channels)) if any(own) else None

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        return combined_logits(
            [logits_of(member(self._for(member, images))) for member in self.members], self.by
        )

    def extra_repr(self) -> str:
        """What is computed here besides the members' weights: caches of answers tell combinations apart by it."""
        own = [preprocessing_of(member) for member in self.members]
        return f"by={self.by!r}, preprocessing={[one and one.describe() for one in own]}"

    def _for(self, member: nn.Module, images: Tensor) -> Tensor:
        own = preprocessing_of(member)
        return images if own is None else own(images * 255)


def _listed(name: str, value: Any) -> list:
    if isinstance(value, nn.Module | Tensor | str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of networks or of logits, got {type(value).__name__}")
    listed = list(value)
    _refuse_others(listed, nn.Module | Tensor)
    return listed


def _refuse_others(teachers: Sequence[Any], kinds: Any) -> None:
    for number, teacher in enumerate(teachers):
        if not isinstance(teacher, kinds):
            raise ValueError(
                f"teachers must all be networks, or all be logits, got {type(teacher).__name__} at position {number}"
            )


def _combination(name: str, value: Any) -> str:
    if value not in COMBINATIONS:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, COMBINATIONS))}, got {value!r}")
    return value


@checked(teachers=_listed, by=_combination)
def combine(
    teachers: Sequence[nn.Module | Tensor], *, by: str = "probabilities"
) -> nn.Module | Float[Tensor, "n classes"]:
    """Several teachers as one, which every function that takes a teacher takes.

        by="probabilities": log of the mean of softmax(v_k), at T = 1; the temperature then softens that mean
        by="logits":        the mean of v_k

    The mean of probabilities is the usual ensemble (Hinton, Vinyals & Dean 2015, arXiv 1503.02531, name both the
    arithmetic and the geometric mean; the latter is the mean of logits). The sum of several distillation losses has
    the gradient of the mean of the softened probabilities, where all weights are equal.

    Args:
        teachers: at least one network each, or the logits (n, classes) of each on the same images.
        by: "probabilities" or "logits".

    Returns:
        A network, or logits where logits were given. Its members are the networks themselves, in the mode in which
        they are; layers of the k-th are "members.k.LAYER".

    Raises:
        ValueError: no teachers, networks mixed with logits, other numbers of classes, an unknown `by`.
    """
    if not teachers:
        raise ValueError("teachers must hold at least one teacher")
    if all(isinstance(teacher, Tensor) for teacher in teachers):
        for number, values in enumerate(teachers):
            logits_rule(f"teachers[{number}]", values)
        return combined_logits(teachers, by)
    _refuse_others(teachers, nn.Module)
    return CombinedTeacher(teachers, by)


def combined_logits(logits: Sequence[Tensor], by: str) -> Float[Tensor, "n classes"]:
    """The logits of several teachers as one: see `combine`."""
    shapes = {tuple(values.shape) for values in logits}
    if len(shapes) > 1:
        raise ValueError(f"teachers must have logits of one shape, got {sorted(shapes)}")
    if any(len(shape) != 2 for shape in shapes):
        raise ValueError(f"teachers must have logits of shape (n, classes), got {sorted(shapes)}")
    stacked = torch.stack([values.float() for values in logits])
    if by == "logits":
        return stacked.mean(dim=0)
    return stacked.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(stacked))


def available() -> list[str]:
    """The data sets that have a trained teacher: those of the package, and what `kdlib train-teacher` added."""
    return sorted({description["dataset"] for folder in _folders() for description, _ in _manifests(folder)})


def manifest(dataset: str = "fashion-mnist") -> dict[str, Any]:
    """How the teacher of `dataset` was made: architecture, recipe, seed, versions, accuracy, sha256, command.

    Args:
        dataset: a name of `kdlib.data.load`.

    Raises:
        ValueError: there is no teacher for this data set.
    """
    return _found(dataset, _folders())[0]


def _name(name: str, value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError(f"{name} must be a name of kdlib.data.load, got {type(value).__name__} {value!r:.80}")
    return str(value)


def _folder(name: str, value: Any) -> Path | None:
    if not isinstance(value, str | os.PathLike | None):
        raise TypeError(f"{name} must be a path, got {type(value).__name__} {value!r:.80}")
    if value is not None and not (os.fspath(value) and Path(value).is_dir()):
        raise FileNotFoundError(f"{name}={str(value)!r} is no folder that is there")
    return value and Path(value)


@checked(dataset=_name, folder=_folder)
def load(dataset: str = "fashion-mnist", *, folder: str | Path | None = None) -> FrozenTeacher:
    """The trained teacher of `dataset`: on the CPU, in eval mode, frozen.

    It is looked up by the name that its manifest records, never by the name of a file.

    Args:
        dataset: a name of `kdlib.data.load`.
        folder: where `kdlib train-teacher --out` put it; by default the teacher that ships with the package, or
            else one in the user's data folder.

    Returns:
        The network. Where its manifest records a mean and a std, it carries them as its own preprocessing.

    Raises:
        ValueError: there is no such teacher, or its weights are not those that its manifest names
            (truncated or changed).
    """
    from safetensors.torch import load as load_tensors

    description, path = _found(dataset, _folders() if folder is None else [Path(folder)])
    weights = _files.read_weights(path.with_suffix(".safetensors"), description, f"the {dataset} teacher")
    network = models.build(**description["architecture"])
    network.load_state_dict(load_tensors(weights))  # float16 on disk, float32 in the network
    return freeze(network, mean=description.get("mean"), std=description.get("std"))


def user_folder() -> Path | None:
    """Where teachers that the user trained are kept; None for a user without a home folder."""
    folder = _files.data_folder()
    return None if folder is None else folder / "teachers"


def recorded_name(dataset: str) -> str:
    """The name by which a teacher is recorded: that of the data set, of a folder its whole path."""
    kind, colon, path = dataset.partition(":")
    return f"{kind}:{Path(path).expanduser().resolve()}" if colon else dataset


def file_name(dataset: str) -> str:
    """The stem of a data set's files: letters, digits, ".", "_" and "-" of its name, and, where something else is
    in it, a digest, so that two names have two files."""
    name = recorded_name(dataset)
    plain = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)
    return plain if plain == name else f"{plain[-60:]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _folders() -> list[Path]:
    return [folder for folder in (_shipped_folder(), user_folder()) if folder is not None]


def _shipped_folder() -> Path:
    return Path(__file__).parent / "assets" / "teachers"


def _manifests(folder: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """Every readable manifest in a folder."""
    for path in sorted(folder.glob("*.json")):
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # `_found` says so where it is the one that is wanted
        if isinstance(description, dict) and "dataset" in description:
            yield description, path


def _found(dataset: str, folders: list[Path]) -> tuple[dict[str, Any], Path]:
    """The manifest of a data set's teacher, and where it lies."""
    for folder in folders:
        for description, path in _manifests(folder):
            if recorded_name(dataset) in (description["dataset"], recorded_name(description["dataset"])):
                return description, path
        if (folder / f"{file_name(dataset)}.json").exists():
            raise ValueError(
                f"the manifest of the {dataset} teacher is damaged: {file_name(dataset)}.json in {folder}; "
                "restore it, or train the teacher again"
            )
    raise ValueError(
        f"there is no teacher for dataset={dataset!r}; available: {', '.join(available())}. "
        f"Train one with: kdlib train-teacher {dataset}"
    )


@checked(teacher=network_rule, split=is_split, device=device_rule)
def cached_logits(
    teacher: nn.Module, split: ImageSplit, *, device: str | torch.device | None = None
) -> Float[Tensor, "n classes"]:
    """The teacher's logits on `split`, float32, row i for image i; computed once for the same weights and images.

    Kept in memory, and on disk below the user's cache folder, under a digest of the teacher's weights and of
    the images. They hold for the images as they are: an augmented view has other logits. Common
    implementations that cache by batch number hand out the logits of other images after a reshuffle.

    Args:
        teacher: any network; one that carries a preprocessing of its own gets it.
        split: the images.
        device: where to compute; by default CUDA, MPS or the CPU, in this order.

    Raises:
        ValueError: as `kdlib.inference.predict_logits`.
    """
    return _logit_cache.known_or_computed(teacher, split, device)
