"""Checkpoints that survive a kill at any moment: written beside their place, then renamed over it."""

from pathlib import Path
from typing import Any

import torch

from kdlib import _files


def save(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint at `path` in one atomic step; its folder is made where it is missing."""
    _files.write(path, lambda file: torch.save(state, file))


def load(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The state saved at `path`, or None where there is no file.

    Raises:
        ValueError: the file is no checkpoint of kdlib, or belongs to a training with other `settings`
            (the first that differs is named with both values).
    """
    if not path.exists():
        return None
    try:
        # weights_only: a checkpoint is data, and loading it must not run code.
        state = torch.load(path, map_location="cpu", weights_only=True)
        saved = state["settings"]
    except Exception as error:
        raise ValueError(
            f"checkpoint={str(path)!r} is not a readable checkpoint of kdlib; delete it to start afresh ({error})"
        ) from error
    for name, value in settings.items():
        if saved.get(name) != value:
            raise ValueError(
                f"checkpoint={str(path)!r} belongs to another training: it has {name}={saved.get(name)!r}, "
                f"this call has {name}={value!r}; delete the file or name another"
            )
    return state
