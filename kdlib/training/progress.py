"""What a running training tells its caller.

A reporter is any callable that takes a record: a dict with `epoch`, `step` and `steps` (counted from 1, over the
whole run), `seconds`, and the current `loss`, `task` and `distill`. It is called a few times a second and once
at the last step. `set_default` lets a front end (the notebooks' live curve) put its own in place of the
terminal's.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Reporter = Callable[[dict], None]


def silent(record: dict) -> None:
    """The reporter behind `progress=False`."""


def terminal_reporter() -> Reporter:
    """A progress bar on a terminal; one closing line where the output is a file or a pipe."""
    return _bar() if sys.stdout.isatty() else _closing_line


_default_factory: Callable[[], Reporter] = terminal_reporter


def set_default(factory: Callable[[], Reporter]) -> None:
    """Make `factory()` the reporter of every later training with `progress=True`."""
    global _default_factory
    _default_factory = factory


def progress_rule(name: str, value: Any) -> bool | Callable:
    """A rule for `kdlib._checks.checked`: whether progress is shown, or a function that shows it."""
    if callable(value) and not isinstance(value, type):
        return value
    if value is not None and not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True, False or a function, got {type(value).__name__} {value!r:.80}")
    return bool(value)


def make_reporter(progress: bool | Reporter) -> Reporter:
    """The reporter that the argument `progress` of a training asks for."""
    if callable(progress):
        return progress
    return _default_factory() if progress else silent


def _bar() -> Reporter:
    from tqdm import tqdm

    bar = tqdm(file=sys.stdout, unit="step", dynamic_ncols=True)

    def report(record: dict) -> None:
        bar.total = record["steps"]
        bar.set_description(f"epoch {record['epoch']}", refresh=False)
        bar.set_postfix(loss=f"{record['loss']:.3f}", refresh=False)
        bar.update(record["step"] - bar.n)
        if record["step"] == record["steps"]:
            bar.close()

    return report


def _closing_line(record: dict) -> None:
    if record["step"] == record["steps"]:
        print(f"{record['epoch']} epochs, {record['steps']} steps, last loss {record['loss']:.3f}")
