"""Trained teachers that ship with the package, and the logits of any teacher, computed once."""

import hashlib
import json
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from platformdirs import user_cache_path, user_data_path
from torch import Tensor, nn

from kdlib import _files, models
from kdlib.data import ImageSplit
from kdlib.inference import predict_logits


class FrozenTeacher(nn.Module):
    """A network that stays in eval mode and takes no gradient, whatever is done to what surrounds it.

    `train()` on a wrapper would otherwise switch a teacher inside it to training mode, where its batch
    norm drifts with every batch.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "FrozenTeacher":
        """Stay in eval mode, for either value of `mode`."""
        return super().train(False)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Any:
        # Somebody may hold the network itself and have switched it.
        self.network.eval()
        return self.network(images)


def freeze(teacher: nn.Module) -> nn.Module:
    """`teacher` as a `FrozenTeacher`; one that is frozen already is returned as it is."""
    return teacher if isinstance(teacher, FrozenTeacher) else FrozenTeacher(teacher)


def available() -> list[str]:
    """The data sets that have a trained teacher: those of the package, and what `kdlib train-teacher` added."""
    manifests = [*_shipped_folder().glob("*.json"), *user_folder().glob("*.json")]
    return sorted({json.loads(path.read_text(encoding="utf-8"))["dataset"] for path in manifests})


def manifest(dataset: str = "fashion-mnist") -> dict[str, Any]:
    """How the teacher of `dataset` was made: architecture, recipe, seed, versions, accuracy, sha256, command.

    Raises:
        ValueError: there is no teacher for this data set.
    """
    return _read_manifest(_folder_of(dataset), dataset)


def load(dataset: str = "fashion-mnist", *, folder: str | Path | None = None) -> FrozenTeacher:
    """The trained teacher of `dataset`: on the CPU, in eval mode, frozen.

    folder: where `kdlib train-teacher --out` put it; by default the teacher that ships with the package, or
    else one in the user's data folder.

    Raises:
        ValueError: there is no such teacher, or its weights are not those that its manifest names
            (truncated or changed).
    """
    from safetensors.torch import load as load_tensors

    folder = Path(folder) if folder is not None else _folder_of(dataset)
    description = _read_manifest(folder, dataset)
    path = folder / f"{file_name(dataset)}.safetensors"
    weights = path.read_bytes() if path.exists() else b""
    digest = hashlib.sha256(weights).hexdigest()
    if digest != description["sha256"]:
        raise ValueError(
            f"the weights of the {dataset} teacher are damaged: {path.name} has {len(weights)} bytes and sha256 "
            f"{digest}, its manifest says {description['bytes']} bytes and {description['sha256']}. Restore the "
            f"file, or train it again: {description['command']}"
        )
    network = models.build(**description["architecture"])
    network.load_state_dict(load_tensors(weights))  # float16 on disk, float32 in the network
    return FrozenTeacher(network)


def user_folder() -> Path:
    """Where teachers that the user trained are kept."""
    return user_data_path("kdlib") / "teachers"


def file_name(dataset: str) -> str:
    """The stem of a data set's files: `dataset` with everything else than letters, digits, ".", "_", "-" replaced."""
    return re.sub(r"[^\w.-]+", "-", dataset)


def _shipped_folder() -> Path:
    return Path(__file__).parent / "assets" / "teachers"


def _folder_of(dataset: str) -> Path:
    for folder in (_shipped_folder(), user_folder()):
        if (folder / f"{file_name(dataset)}.json").exists():
            return folder
    raise ValueError(
        f"there is no teacher for dataset={dataset!r}; available: {', '.join(available())}. "
        f"Train one with: kdlib train-teacher {dataset}"
    )


def _read_manifest(folder: Path, dataset: str) -> dict[str, Any]:
    path = folder / f"{file_name(dataset)}.json"
    if not path.exists():
        raise ValueError(f"there is no teacher for dataset={dataset!r} in this folder: {path.name} is missing")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"the manifest of the {dataset} teacher is damaged: {path.name}: {error}") from error


def cached_logits(
    teacher: nn.Module, split: ImageSplit, *, device: str | torch.device | None = None
) -> Float[Tensor, "n classes"]:
    """The teacher's logits on `split`, float32, row i for image i; computed once for the same weights and images.

    Kept in memory, and on disk below the user's cache folder, under a digest of the teacher's weights and of
    the images. They hold for the images as they are: an augmented view has other logits. Common
    implementations that cache by batch number hand out the logits of other images after a reshuffle.

    Raises:
        ValueError: as `kdlib.inference.predict_logits`.
    """
    key = hashlib.sha256(f"{_digest(teacher)} {split.digest()}".encode()).hexdigest()
    path = user_cache_path("kdlib") / "logits" / f"{key}.safetensors"
    logits = _memory[key] if key in _memory else _read(path)
    if logits is None or not _agrees(logits, teacher, split, device):
        logits = predict_logits(teacher, split, device=device)
        _write(path, logits)
    _memory[key] = logits
    return logits.clone()


_memory: dict[str, Tensor] = {}


def _agrees(logits: Tensor, teacher: nn.Module, split: ImageSplit, device: str | torch.device | None) -> bool:
    """Ask the teacher about a few images: a digest of weights does not see a change in the code of `forward`."""
    few = torch.linspace(0, len(split) - 1, min(8, len(split))).long()
    asked = predict_logits(teacher, split.subset(few), device=device)
    return asked.shape[1:] == logits.shape[1:] and torch.allclose(asked, logits[few], rtol=1e-3, atol=1e-3)


def _read(path: Path) -> Tensor | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)["logits"]
    except (OSError, SafetensorError, KeyError):
        return None  # absent or unreadable: computing them again is the remedy for both


def _write(path: Path, logits: Tensor) -> None:
    from safetensors.torch import save

    try:
        _files.write(path, save({"logits": logits}))
    except OSError as error:
        # A read-only home is no reason to fail: the copy in memory serves this session.
        warnings.warn(f"teacher logits are not kept on disk: {error}", stacklevel=3)


def _digest(module: nn.Module) -> str:
    """A digest of what a module computes: its structure as printed, and every parameter and buffer."""
    network = module.network if isinstance(module, FrozenTeacher) else module
    digest = hashlib.sha256(repr(network).encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
