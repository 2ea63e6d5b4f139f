"""What may be chosen in a laboratory, what is allowed, and which choices have an effect beside the others."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kdlib import _checks, training

NO_FEATURES = "none"
OF_THE_TEACHER = ("teacher", "temperature", "alpha")  # without effect on a student that learns from labels alone


@dataclass(frozen=True, repr=False)
class Setting:
    """What may be chosen: one of the words in `allowed`, or a number from the first to the second of `allowed`."""

    default: Any
    allowed: tuple

    @property
    def is_word(self) -> bool:
        return isinstance(self.default, str)

    def checked(self, name: str, value: Any) -> Any:
        """The value, as a word, a whole number (where the default is one) or any number.

        Raises:
            ValueError: it is not allowed.
            TypeError: it is no number where one is asked for.
        """
        if self.is_word:
            if value not in self.allowed:
                raise ValueError(f"{name} must be one of {', '.join(self.allowed)}; got {value!r}")
            return value
        rule = _checks.positive_integer if isinstance(self.default, int) else _checks.finite_number
        number, (low, high) = rule(name, value), self.allowed
        if not low <= number <= high:
            raise ValueError(f"{name} must be from {low:g} to {high:g}, got {value}")
        return number

    def __repr__(self) -> str:
        allowed = " or ".join(self.allowed) if self.is_word else "{:g} to {:g}".format(*self.allowed)
        return f"{allowed} (where nothing is said: {self.default})"


def all_settings(
    images: int, epochs: int, teacher_names: Iterable[str], feature_names: Iterable[str]
) -> dict[str, Setting]:
    """The settings of a laboratory with these teachers and features, in the order in which they are told.

    Raises:
        ValueError: features are called as the word for none of them is.
    """
    teachers, features = tuple(teacher_names), tuple(feature_names)
    if NO_FEATURES in features:
        raise ValueError(f"features must not be called {NO_FEATURES!r}, which stands for no features; got {features}")
    settings = {
        "method": Setting("labels", ("labels", "distillation")),
        "teacher": Setting(teachers[0], teachers),
        "temperature": Setting(4.0, (0.1, 100.0)),
        "alpha": Setting(0.9, (0.0, 1.0)),
        "features": Setting(NO_FEATURES, (NO_FEATURES, *features)),
        "weight": Setting(1.0, (0.0, 1000.0)),
        "images": Setting(images, (20, 9000)),
        "epochs": Setting(epochs, (1, 200)),
        "learning_rate": Setting(training.LEARNING_RATE, (1e-5, 1.0)),
        "label_smoothing": Setting(0.0, (0.0, 0.9)),
    }
    if len(teachers) == 1:
        del settings["teacher"]
    if not features:
        del settings["features"], settings["weight"]
    return settings


def refuse_half_said(chosen: Mapping[str, Any]) -> None:
    """Refuse what says how to do a thing, but not to do it.

    Raises:
        ValueError: a setting of the teacher without a method, or a weight without features.
    """
    for name in OF_THE_TEACHER:
        if name in chosen and "method" not in chosen:
            raise ValueError(f'{name} is for students of a teacher: say method="distillation" as well')
    if "weight" in chosen and "features" not in chosen:
        raise ValueError("weight is for students that learn from features: say features=... as well")


def with_effect(every: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Of a value for each setting, those that make a difference to the student."""
    every = dict(every)
    if every["method"] == "labels" or every["alpha"] == 0:
        every["method"] = "labels"
        for name in OF_THE_TEACHER:
            every.pop(name, None)
    elif every["alpha"] == 1:
        del every["label_smoothing"]  # of a term that has no weight
    if "features" in every and (every["features"] == NO_FEATURES or every["weight"] == 0):
        every["features"] = NO_FEATURES
        del every["weight"]
    return tuple(every.items())
