"""Recorded results: what takes too long to compute in a lesson, kept with the command that made it.

An experiment is a function without required arguments that returns a table. It stands in a module of
`kdlib.experiments`, so that a lesson can show it and run it small:

    @experiment("lesson01-gain")
    def gain(seeds=range(10)) -> pandas.DataFrame: ...

`kdlib record lesson01-gain` runs it full-size and writes the table and a manifest beside it; `read` gives the
table to the lesson, and `provenance` the line that says where it comes from.
"""

import functools
import hashlib
import importlib
import inspect
import io
import json
import os
import pkgutil
import platform
import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas
import torch

import kdlib
from kdlib import _files, experiments

Experiment = Callable[[], pandas.DataFrame]

FOLDER = Path(__file__).parents[1] / "assets" / "results"
_registry: dict[str, Experiment] = {}


def experiment(name: str) -> Callable[[Experiment], Experiment]:
    """Decorator: register a function as an experiment; the function itself is handed back unchanged.

    Args:
        name: of small letters, digits and hyphens.

    Raises:
        ValueError: another kind of name, one that another function has already, or a function that needs arguments.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"an experiment's name is small letters, digits and hyphens, got {name!r}")

    def register(function: Experiment) -> Experiment:
        _refuse_required_arguments(name, function)
        known = _registry.get(name)
        if known is not None and _place(known) != _place(function):
            raise ValueError(f"two experiments are called {name!r}: {_place(known)} and {_place(function)}")
        _registry[name] = function
        return function

    return register


def registered() -> dict[str, Experiment]:
    """Every experiment of the lessons by its name, in alphabetical order."""
    for module in pkgutil.iter_modules(experiments.__path__, f"{experiments.__name__}."):
        importlib.import_module(module.name)
    return dict(sorted(_registry.items()))


def recorded() -> list[str]:
    """The names of the results that `read` can give."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def record(names: str | Iterable[str]) -> list[dict[str, Any]]:
    """Run each experiment full-size, and write its table and its manifest.

    A table that is there already is replaced whole, and stays as it is where its experiment fails.

    Args:
        names: of one experiment or of several.

    Returns:
        The manifests, in the order of the names.

    Raises:
        ValueError: an unknown name, before anything runs; a table without rows, or one that does not survive as CSV.
        OSError: the folder of the results cannot be written; nothing has run.
    """
    names = [names] if isinstance(names, str) else list(names)
    known = registered()
    for name in names:
        if name not in known:
            raise ValueError(f"unknown experiment {name!r}; the names are: {', '.join(known)}")
    if names:
        _require_room()
    return [_record(name, known[name]) for name in names]


def read(name: str) -> pandas.DataFrame:
    """The recorded table, exactly as its experiment returned it, with the manifest in `frame.attrs`.

    Raises:
        ValueError: a name without a record, or a table that is not the one its manifest describes.
    """
    description = manifest(name)
    path = FOLDER / f"{name}.csv"
    content = path.read_bytes() if path.exists() else b""
    digest = _digest(content)
    if digest != description["sha256"]:
        raise ValueError(
            f"the recorded result {name!r} is damaged: the table has sha256 {digest}, its manifest says "
            f"{description['sha256']}. Restore the files, or record them again: {description['command']}"
        )
    frame = _parsed_once(content).copy()  # whoever reads it may change it
    frame.attrs = description
    return frame


def manifest(name: str) -> dict[str, Any]:
    """Command, date, versions, machine, seconds, number of rows and sha256 of a recorded result.

    Raises:
        ValueError: a name without a record.
    """
    if name not in recorded():
        raise ValueError(f"there is no recorded result {name!r}; the names are: {', '.join(recorded())}")
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def provenance(name: str) -> str:
    """One line for below a figure: when, by which command, how many rows, how long and on how many cores.

    Raises:
        ValueError: a name without a record.
    """
    facts = manifest(name)
    rows, cores = facts["rows"], facts["machine"]["cores"]
    return (
        f"Recorded on {facts['date']} with `{facts['command']}` ({rows:,} row{'s' * (rows != 1)}, "
        f"{_duration(facts['seconds'])} on {cores} core{'s' * (cores != 1)})"
    )


def overview() -> str:
    """Every experiment, a line each: its name, what it shows, and when it was recorded."""
    known, done = registered(), recorded()
    lines = []
    for name in sorted({*known, *done}):
        purpose = inspect.getdoc(known[name]) if name in known else "(its experiment is gone)"
        when = f"recorded {manifest(name)['date']}" if name in done else "not recorded"
        lines.append(f"{name:32}{when:21}{(purpose or '').partition(chr(10))[0]}".rstrip())
    return "\n".join(lines) or "there are no experiments yet"


def _require_room() -> None:
    """Learn before the computation, not after it, that its result cannot be kept."""
    try:
        _files.writable_folder(FOLDER)
    except OSError as error:
        raise OSError(
            f"nothing was computed: results are kept in {FOLDER}, which cannot be written ({error.strerror}). "
            "Record in a copy of the repository that is yours, or make the folder writable"
        ) from error


def _record(name: str, function: Experiment) -> dict[str, Any]:
    started = time.perf_counter()
    frame = function()
    seconds = time.perf_counter() - started
    if not isinstance(frame, pandas.DataFrame) or frame.empty:
        raise ValueError(
            f"experiment {name!r} must return a table with rows, got {type(frame).__name__}: {frame}"
        )
    content = frame.to_csv(index=False, lineterminator="\n").encode()
    _refuse_loss(name, frame, content)
    description = {
        "name": name,
        "command": f"kdlib record {name}",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": {
            "kdlib": kdlib.__version__,
            "python": platform.python_version(),
            "torch": version("torch"),
        },
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "seconds": round(seconds, 1),
        "rows": len(frame),
        "columns": list(frame.columns),
        "sha256": _digest(content),
    }
    # The manifest comes last: a table without its manifest is refused, never taken for another one.
    _files.write(FOLDER / f"{name}.csv", content)
    _files.write(FOLDER / f"{name}.json", (json.dumps(description, indent=2) + "\n").encode())
    return description


@functools.lru_cache(maxsize=64)
def _parsed_once(content: bytes) -> pandas.DataFrame:
    return _parse(content)


def _parse(content: bytes) -> pandas.DataFrame:
    # The Python engine reads every float exactly, in all versions of pandas. Only an empty field is a missing
    # value: a column of names may say "none".
    return pandas.read_csv(io.BytesIO(content), engine="python", keep_default_na=False, na_values=[""])


def _refuse_loss(name: str, frame: pandas.DataFrame, content: bytes) -> None:
    try:
        pandas.testing.assert_frame_equal(_parse(content), frame, check_dtype=False, check_exact=True)
    except AssertionError as error:
        raise ValueError(
            f"the table of experiment {name!r} does not survive as CSV; return plain columns of numbers or "
            f"strings and a plain index (reset_index): {error}"
        ) from error


def _digest(content: bytes) -> str:
    # git may check text out with the line ends of Windows.
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def _duration(seconds: float | int) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _refuse_required_arguments(name: str, function: Experiment) -> None:
    for parameter in inspect.signature(function).parameters.values():
        optional = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not optional:
            raise ValueError(
                f"experiment {name!r} runs without arguments, but {parameter.name!r} has no default"
            )


def _place(function: Experiment) -> str:
    return f"{function.__module__}.{function.__qualname__}"
