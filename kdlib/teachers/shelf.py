"""Trained teachers by the name of their data set: those that ship, and those that the user trained."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdlib import _files, models
from kdlib._checks import checked
from kdlib.teachers.freezing import FrozenTeacher, freeze


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
    return Path(__file__).parents[1] / "assets" / "teachers"


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
