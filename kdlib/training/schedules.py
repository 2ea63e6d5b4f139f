"""Temperature and alpha over training.

A schedule is a callable from progress in [0, 1] to a number: 0 at the first step, and at the last one step short of 1,
which is the end of the training. One that has the attribute `listens = True` is called with the validation accuracies
of all epochs so far as well, so its value follows from what a checkpoint records anyway. The schedules here are small
values: they compare, print and pickle, so they can be sent to another process.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, ClassVar

from kdlib._checks import finite_number, fraction, open_fraction, positive_integer, positive_number

Schedule = Callable[..., float]
_POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)
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


@dataclass(frozen=True)
class on_plateau:
    """From `start` towards `stop`, by `step` each time that the validation accuracy stalls.

    It stalls where `patience` epochs in a row do not exceed the best accuracy so far; then counting begins anew.
    Needs `validation=` in the training. `on_plateau(0.5, 0.9, step=0.1, patience=3)` for alpha trusts the teacher
    more once the labels have no more to give.

    Args:
        start, stop: first and last value, in either order.
        step: above 0; the last step ends at `stop`.
        patience: epochs, at least 1.

    Raises:
        ValueError: a number out of its range.
    """

    start: float | int
    stop: float | int
    step: float | int = 0.1
    patience: int = 3

    listens: ClassVar[bool] = True

    def __post_init__(self):
        finite_number("start", self.start)
        finite_number("stop", self.stop)
        positive_number("step", self.step)
        positive_integer("patience", self.patience)

    def __call__(self, progress: float | int, accuracies: Sequence[float] = ()) -> float:
        fraction("progress", progress)
        moved = self.step * self._stalls(accuracies)
        if self.start <= self.stop:
            return float(min(self.stop, self.start + moved))
        return float(max(self.stop, self.start - moved))

    def _stalls(self, accuracies: Sequence[float]) -> int:
        best, waited, stalls = -math.inf, 0, 0
        for accuracy in accuracies:
            waited = 0 if accuracy > best else waited + 1
            best = max(best, accuracy)
            if waited == self.patience:
                stalls, waited = stalls + 1, 0
        return stalls


def as_schedule(value: Any, *, name: str) -> Schedule:
    """A schedule from a number or a schedule, whose every value is in the range of what it is for.

    The range is checked at both ends now, so that a bad schedule fails before training, and again at
    every call.

    Args:
        value: a number, or any callable of progress.
        name: "temperature" (above 0) or "alpha" (in [0, 1]).

    Raises:
        ValueError: a value out of its range; the message names `name`.
        TypeError: a value that is no number.
    """
    if name not in _RANGES:
        raise ValueError(f"name must be one of {sorted(_RANGES)}, got {name!r}")
    if not callable(value):
        return constant(_RANGES[name](name, value))
    schedule = _InRange(value, name)
    try:
        schedule(0.0)
    except TypeError as error:
        raise TypeError(f"{name} must be a number or a function of progress: {error}") from error
    schedule(1.0)
    if isinstance(value, on_plateau):  # its last value may come at any time
        _RANGES[name](f"{name}'s stop", value.stop)
    return schedule


@dataclass(frozen=True)
class _InRange:
    schedule: Schedule
    name: str

    @property
    def listens(self) -> bool:
        return getattr(self.schedule, "listens", False)

    def __call__(self, progress: float | int, accuracies: Sequence[float] = ()) -> float:
        found = self.schedule(progress, accuracies) if self.listens else self.schedule(progress)
        return _RANGES[self.name](f"{self.name} at progress {progress:g}", found)


def value(schedule: Schedule, progress: float | int, accuracies: Sequence[float] = ()) -> float:
    """The schedule's value now: a listening one is told the validation accuracies of the epochs so far."""
    return schedule(progress, accuracies) if listens(schedule) else schedule(progress)


def listens(schedule: Schedule) -> bool:
    """Whether a schedule wants the validation accuracies."""
    return getattr(schedule, "listens", False)


def describe(schedule: Schedule) -> Any:
    """What a checkpoint can compare: a schedule is a function, so its values at a few points; those of a listening
    one after so many epochs of one accuracy, or its settings where it prints them."""
    if not listens(schedule):
        return [float(schedule(point)) for point in _POINTS]
    inner = getattr(schedule, "schedule", schedule)
    if is_dataclass(inner):
        return repr(inner)
    return [float(schedule(point, (0.5,) * epochs)) for point in _POINTS for epochs in (0, 1, 3, 10)]


def _between(start: float | int, end: float | int, share: float) -> float:
    # Not start + (end - start) * share: this form gives `end` exactly at share = 1.
    return start * (1 - share) + end * share
