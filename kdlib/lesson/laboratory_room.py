"""What a laboratory and its rehearsal share: students by seed and settings, and a record of who was looked at."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kdlib import _checks
from kdlib._checks import checked
from kdlib.lesson.laboratory_settings import Setting, Settings, refuse_half_said, with_effect

SPLITS = ("validation", "test")
ALWAYS_SAID = ("sensor", "network", "method")  # in the record; other settings where they are not the default


@dataclass(frozen=True)
class Look:
    """One entry of the record: a student was asked for its accuracy on a split."""

    seed: int
    settings: tuple[tuple[str, Any], ...]  # those that have an effect, in the laboratory's order
    split: str
    accuracy: float


@dataclass(frozen=True, repr=False)
class Student:
    """A student of a seed and of settings; `accuracy` trains it where that has not been done."""

    laboratory: "Room"
    seed: int
    settings: tuple[tuple[str, Any], ...]

    def accuracy(self, split: str) -> float:
        """The share of right answers on "validation" or on "test", a fraction from 0 to 1.

        Raises:
            ValueError: another split.
        """
        if split not in SPLITS:
            raise ValueError(f"accuracy is measured on {' or '.join(map(repr, SPLITS))}, got {split!r}")
        return self.laboratory.measure(self, split)

    def __repr__(self) -> str:
        return f"student of seed {self.seed}: {as_text(self.settings)}"


def as_text(settings: Iterable[tuple[str, Any]]) -> str:
    """The settings as they are written in a call."""
    return ", ".join(f"{name}={value!r}" for name, value in settings)


class Room:
    """What the laboratory and its rehearsal share: which settings there are, and the record of what was asked."""

    def __init__(self, known: dict[str, Setting], offered: Iterable[str] | None, first_teacher: str) -> None:
        offered = list(known) if offered is None else list(offered)
        unknown = [name for name in offered if name not in known]
        if unknown:
            raise ValueError(f"settings={offered!r}: there is no {unknown[0]!r}; there are {', '.join(known)}")
        self._known = known
        self._first_teacher = first_teacher
        self.settings = {name: setting for name, setting in known.items() if name in offered}
        self.looks: list[Look] = []
        self._measured: dict[tuple, dict[str, float]] = {}

    @checked(seed=_checks.natural_number)
    def student(self, seed: int, **settings: Any) -> Student:
        """The student of that seed and those settings.

        Args:
            seed: chooses the images, the initial weights and the order; a whole number of at least 0.
            settings: those of `settings`; where nothing is said, their defaults hold. Settings that have no effect,
                such as the temperature where method="labels", make no other student.

        Raises:
            ValueError: no such setting, a value that is not allowed, a setting of the teacher where no method is
                given, a weight where no features are, or scales where no bits are.
            TypeError: a number is asked for.
        """
        for name in settings:
            if name not in self.settings:
                raise ValueError(f"unknown setting {name!r}; this laboratory has {', '.join(self.settings)}")
        refuse_half_said(settings)
        chosen = {n: self.settings[n].checked(n, value) for n, value in settings.items()}
        every = {name: chosen.get(name, setting.default) for name, setting in self._known.items()}
        return Student(self, seed, with_effect(every, self._first_teacher))

    def measure(self, student: Student, split: str) -> float:
        """The student's accuracy; it is put on record that somebody looked at it."""
        key = (student.seed, student.settings)
        if key not in self._measured:
            self._measured[key] = self._accuracies(student.seed, dict(student.settings))
        accuracy = self._measured[key][split]
        self.looks.append(Look(student.seed, student.settings, split, accuracy))
        return accuracy

    def _accuracies(self, seed: int, settings: Settings) -> dict[str, float]:
        raise NotImplementedError

    def __repr__(self) -> str:
        """How many students there are, and which: a line for each kind of them."""
        seeds: dict[tuple, list[int]] = {}
        for seed, settings in self._measured:
            seeds.setdefault(settings, []).append(seed)
        lines = [f"{len(self._measured)} students in {self._place()}"]
        for settings, numbers in seeds.items():
            looked = [s for s in SPLITS if any(look.settings == settings and look.split == s for look in self.looks)]
            said = [(n, v) for n, v in settings if n in ALWAYS_SAID or v != self._known[n].default]
            lines.append(f"  {as_text(said)}: seeds {_listed(numbers)}, measured on {' and '.join(looked)}")
        return "\n".join(lines)

    def _place(self) -> str:
        raise NotImplementedError


def _listed(numbers: list[int]) -> str:
    """All of them, or "0 to 4" where there is no gap."""
    low, high = min(numbers), max(numbers)
    if len(numbers) > 2 and sorted(numbers) == [*range(low, high + 1)]:
        return f"{low} to {high}"
    return ", ".join(map(str, sorted(numbers)))
