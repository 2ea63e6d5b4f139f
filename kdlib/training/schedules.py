"""Temperature and alpha over training.

A schedule is a callable from progress in [0, 1] (0 at the first step, 1 at the last) to a number.  The
schedules here are small values: they compare, print and pickle, so they can be sent to another process.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kdlib._checks import finite_number, fraction, open_fraction, positive_number

Schedule = Callable[[float], float]
_RANGES = {"temperature": positive_number, "alpha": fraction}


@dataclass(frozen=True)
class constant:
    """The same value throughout.  Raises ValueError for a value that is not finite."""

    value: float | int

    def __post_init__(self):
        finite_number("value", self.value)

    def __call__(self, progress: float | int) -> float:
        fraction("progress", progress)
        return float(self.value)


@dataclass(frozen=True)
class linear:
    """A straight line: start + (end - start) * progress."""

    start: float | int
    end: float | int

    def __post_init__(self):
        finite_number("start", self.start)
        finite_number("end", self.end)

    def __call__(self, progress: float | int) -> float:
        return _between(self.start, self.end, fraction("progress", progress))


@dataclass(frozen=True)
class cosine:
    """Half a cosine wave, flat at both ends: start + (end - start) * (1 - cos(pi * progress)) / 2."""

    start: float | int
    end: float | int

    def __post_init__(self):
        finite_number("start", self.start)
        finite_number("end", self.end)

    def __call__(self, progress: float | int) -> float:
        return _between(self.start, self.end, (1 - math.cos(math.pi * fraction("progress", progress))) / 2)


@dataclass(frozen=True)
class warmup:
    """A straight line from `start` to `end` over the first `share` of training, then `end`.

    With start = 0 this is the warm-up of decoupled distillation, min(epoch / warm-up epochs, 1) * weight
    (Zhao et al. 2022, arXiv 2203.08679).
    """

    end: float | int
    share: float = 0.1
    start: float | int = 0.0

    def __post_init__(self):
        finite_number("end", self.end)
        finite_number("start", self.start)
        open_fraction("share", self.share)

    def __call__(self, progress: float | int) -> float:
        return _between(self.start, self.end, min(fraction("progress", progress) / self.share, 1.0))


def as_schedule(value: Any, *, name: str) -> Schedule:
    """A schedule from a number or a schedule, whose every value is in the range of what it is for.

    value: a number, or any callable of progress.
    name: "temperature" (above 0) or "alpha" (in [0, 1]).

    The range is checked at both ends now, so that a bad schedule fails before training, and again at
    every call.  Raises ValueError, naming `name`, where a value leaves the range, TypeError where it is no
    number.
    """
    if name not in _RANGES:
        raise ValueError(f"name must be one of {sorted(_RANGES)}, got {name!r}")
    if not callable(value):
        return constant(_RANGES[name](name, value))
    schedule = _InRange(value, name)
    schedule(0.0)
    schedule(1.0)
    return schedule


@dataclass(frozen=True)
class _InRange:
    schedule: Schedule
    name: str

    def __call__(self, progress: float | int) -> float:
        return _RANGES[self.name](f"{self.name} at progress {progress:g}", self.schedule(progress))


def _between(start: float | int, end: float | int, share: float) -> float:
    # Not start + (end - start) * share: this form gives `end` exactly at share = 1.
    return start * (1 - share) + end * share
