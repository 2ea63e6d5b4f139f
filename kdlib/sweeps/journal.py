"""Rows that are appended to a file as they come, so that what is finished survives whatever ends the process.

The file holds JSON lines: the first says to which sweep the rows belong, each other one is a row.
"""

import hashlib
import inspect
import json
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import Tensor, nn

import kdlib
from kdlib import _files
from kdlib.data import ImageSplit

Row = dict[str, Any]


class Journal:
    """The rows of a sweep in a file, or nowhere where `path` is None.

    `rows` are those that the file had when it was opened. A last line that was torn by a kill is cut off.

    settings: what decides the values in the rows; a file that was begun with other settings is refused.

    Raises ValueError where the file belongs to another sweep (the first setting that differs is named with
    both values) or is no such file.
    """

    def __init__(self, path: str | Path | None, settings: Row):
        self.rows: list[Row] = []
        self._file = None
        if path is None:
            return
        path = Path(path)
        header = _line({"sweep": settings | {"kdlib": kdlib.__version__, "torch": torch.__version__}})
        if path.exists() and path.stat().st_size:
            end = self._read(path, json.loads(header)["sweep"])
        else:
            end = _begin(path, header)
        self._file = open(path, "r+b")
        self._file.truncate(end)
        self._file.seek(end)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, rows: Iterable[Row]) -> None:
        """Write these rows; once this returns, they survive a kill and a power cut."""
        if self._file is None:
            return
        self._file.write(b"".join(_line(row) for row in rows))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self, path: Path, settings: Row) -> int:
        """Take over the rows of the file; returns where its last whole line ends."""
        content = path.read_bytes()
        end = content.rfind(b"\n") + 1
        try:
            header, *self.rows = [json.loads(line) for line in content[:end].splitlines()]
            known = header["sweep"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"results={str(path)!r} is not a file of a sweep, or is damaged; name another ({error})"
            ) from error
        for name in [*settings, *known]:
            if known.get(name) != settings.get(name):
                raise ValueError(
                    f"results={str(path)!r} belongs to another sweep: it has {name}={known.get(name)!r}, "
                    f"this call has {name}={settings.get(name)!r}; delete the file or name another"
                )
        return end


def recorded_setting(path: str | Path, name: str) -> Any:
    """A setting with which the sweep in this file was begun; None where there is no such file, or none in it."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.readline())["sweep"].get(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # `Journal` says what is wrong with a file


def _begin(path: Path, header: bytes) -> int:
    """Make the file with its first line at once, so that a kill leaves no file or a usable one."""
    _files.write(path, header)
    return len(header)


def _line(row: Row) -> bytes:
    return (json.dumps(row) + "\n").encode()


def describe(value: Any) -> Any:
    """What a value is, as plain JSON that is the same in every process: the content of tensors, splits and
    networks by digest, functions by name and source."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [describe(item) for item in value]
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {_digest_of_tensors(value)}"
    if isinstance(value, np.ndarray):
        return describe(torch.from_numpy(value))
    if isinstance(value, ImageSplit):
        return f"{value!r} {value.digest()[:16]} labels {_digest_of_tensors(value.labels)}"
    if isinstance(value, nn.Module):
        structure = _short_digest(repr(value).encode())
        return f"{type(value).__name__} {structure} {_digest_of_tensors(*value.state_dict().values())}"
    if inspect.isroutine(value):
        return _describe_function(value)
    try:
        return f"{type(value).__name__} {_short_digest(cloudpickle.dumps(value))}"
    except (TypeError, pickle.PicklingError):  # a lock, say: no content of it decides a result
        return type(value).__name__


def _describe_function(function: Callable) -> str:
    try:
        source = inspect.getsource(function).encode()
    except (OSError, TypeError):  # typed at a prompt, or built in
        source = getattr(getattr(function, "__code__", None), "co_code", b"")
    return f"{function.__module__}.{function.__qualname__} {_short_digest(source, *_enclosed(function))}"


def _enclosed(function: Callable) -> Iterator[bytes]:
    """What a function brings along besides its source: defaults, and the values of names of the functions around it."""
    # A decorator encloses what differs from process to process, and its source is that of the function inside.
    function = inspect.unwrap(function)
    values = [*(getattr(function, "__defaults__", None) or ())]
    values += (getattr(function, "__kwdefaults__", None) or {}).items()
    values += [
        cell.cell_contents for cell in getattr(function, "__closure__", None) or () if _is_filled(cell)
    ]
    for value in values:
        if value is not function:
            yield json.dumps(describe(value)).encode()


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _digest_of_tensors(*tensors: Tensor) -> str:
    content = (tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy() for tensor in tensors)
    return _short_digest(*content)


def _short_digest(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
