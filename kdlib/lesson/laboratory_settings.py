"""What may be chosen in a laboratory, what is allowed, and which choices have an effect beside the others."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from kdlib import _checks, training

Settings = dict[str, Any]  # by name, what is chosen
COURSE_TEACHER = "the course's"  # its answers do not depend on the labels of the student
NO_FEATURES = "none"
NO_AUGMENTATION = "none"
CONSTANT = "as at the start"  # the last temperature of a training, where nothing else is said
RANDOM_START = "random start"  # the network of fresh weights: the control of one in the same form that inherits its own
AS_TRAINED = 32  # bits of a weight that is not rounded
BITS = (2, 3, 4, 5, 6, 7, 8, AS_TRAINED)
A_CHANNEL, A_LAYER = "a channel", "a layer"  # what has a scale of its own for its rounded weights
# Without effect on a student that learns from labels alone.
OF_THE_TEACHER = ("teacher", "temperature", "temperature_end", "alpha", "second_stage")


@dataclass(frozen=True, repr=False)
class Setting:
    """What may be chosen: one of `allowed`, or where these are two numbers, any from the first to the second.

    The default of a range may be a word, which may be said as well.
    """

    default: Any
    allowed: tuple

    @property
    def is_range(self) -> bool:
        return len(self.allowed) == 2 and not isinstance(self.allowed[0], str)

    def checked(self, name: str, value: Any) -> Any:
        """The value: a word, a whole number (where the default is one) or any number.

        Raises:
            ValueError: it is not allowed.
            TypeError: it is no number where one is asked for.
        """
        if isinstance(value, str) and value == self.default:
            return value
        chosen = value
        if self.is_range or not isinstance(self.default, str):
            rule = _checks.positive_integer if isinstance(self.default, int) else _checks.finite_number
            chosen = rule(name, value)
        if not self.is_range:
            if chosen not in self.allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(str, self.allowed))}; got {value!r}")
            return chosen
        low, high = self.allowed
        if not low <= chosen <= high:
            raise ValueError(f"{name} must be from {low:g} to {high:g}, got {value}")
        return chosen

    def __repr__(self) -> str:
        allowed = "{:g} to {:g}".format(*self.allowed) if self.is_range else " or ".join(map(str, self.allowed))
        return f"{allowed} (where nothing is said: {self.default})"


def all_settings(
    *,
    images: int = 1000,
    epochs: int = 20,
    teachers: Iterable[str],
    features: Iterable[str] = (),
    networks: Iterable[str] = (),
    augmentations: Iterable[str] = (),
    sensors: Iterable[str] = (),
    schedules: bool = False,
    quantised: bool = False,
    wrong_labels: bool = False,
) -> dict[str, Setting]:
    """The settings of a laboratory, in the order in which they are told; teachers, features and the like by name.

    Raises:
        ValueError: features or augmentations are called as the word for none of them is, or stand beside sensors, or
            `images` or `epochs` is not allowed.
    """
    teachers, features, networks, augmentations = map(tuple, (teachers, features, networks, augmentations))
    sensors = tuple(sensors)
    for name, given in {"augmentations": augmentations, "features": features}.items():
        if given and sensors:
            raise ValueError(
                f"a laboratory with sensors, whose students see other images than their teacher, takes no {name}; "
                f"got {name} {', '.join(given)} and sensors {', '.join(sensors)}"
            )
    if NO_FEATURES in features:
        raise ValueError(f"features must not be called {NO_FEATURES!r}, which stands for no features; got {features}")
    if NO_AUGMENTATION in augmentations:
        raise ValueError(
            f"augmentations must not be called {NO_AUGMENTATION!r}, which stands for the images as they are; "
            f"got {augmentations}"
        )
    settings = {
        "method": Setting("labels", ("labels", "distillation")),
        "teacher": Setting(teachers[0], teachers),
        "temperature": Setting(4.0, (0.1, 100.0)),
        "temperature_end": Setting(CONSTANT, (0.1, 100.0)),
        "alpha": Setting(0.9, (0.0, 1.0)),
        "second_stage": Setting(0.0, (0.0, 0.9)),
        "features": Setting(NO_FEATURES, (NO_FEATURES, *features)),
        "weight": Setting(1.0, (0.0, 1000.0)),
        "augment": Setting(NO_AUGMENTATION, (NO_AUGMENTATION, *augmentations)),
        "images": Setting(images, (20, 9000)),
        "wrong_labels": Setting(0.0, (0.0, 0.8)),
        "epochs": Setting(epochs, (1, 200)),
        "learning_rate": Setting(training.LEARNING_RATE, (1e-5, 1.0)),
        "label_smoothing": Setting(0.0, (0.0, 0.9)),
        "bits": Setting(AS_TRAINED, BITS),
        "scales": Setting(A_CHANNEL, (A_CHANNEL, A_LAYER)),
    }
    if len(networks) > 1:
        settings = {"network": Setting(networks[0], networks), **settings}
    if sensors:
        settings = {"sensor": Setting(sensors[0], sensors), **settings}
    if len(teachers) == 1:
        del settings["teacher"]
    if not features:
        del settings["features"], settings["weight"]
    if not augmentations:
        del settings["augment"]
    if not schedules:
        del settings["temperature_end"], settings["second_stage"]
    if not quantised:
        del settings["bits"], settings["scales"]
    if not wrong_labels:
        del settings["wrong_labels"]
    for name, value in {"images": images, "epochs": epochs}.items():
        settings[name].checked(name, value)
    return settings


def names(name: str, value: Any) -> tuple[str, ...]:
    """A rule: names, of which a setting chooses one; two numbers would be taken for a range."""
    found = () if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    if not all(isinstance(one, str) for one in found) or (value and not found):
        raise TypeError(f"{name} must have names that are strings, such as 'my own', got {value!r:.80}")
    return found


def functions(takes: str = "") -> Callable[[str, Any], dict[str, Callable] | None]:
    """A rule: a dictionary of functions by name, or None.

    Args:
        takes: what each function takes and gives, where a network is none of them although it can be called.
    """

    def rule(name: str, value: Any) -> dict[str, Callable] | None:
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise TypeError(f"{name} must be a dictionary of functions by name, got {type(value).__name__}")
        names(name, value)
        for key, function in value.items():
            is_class = isinstance(function, type) and issubclass(function, nn.Module)
            if is_class or not callable(function) or (takes and isinstance(function, nn.Module)):
                got = f"the class {function.__name__}: give one of it" if is_class else type(function).__name__
                raise TypeError(f"{name}[{key!r}] must be a function{takes}, got {got}")
        return dict(value)

    return rule


def refuse_half_said(chosen: Mapping[str, Any]) -> None:
    """Refuse what says how to do a thing, but not to do it.

    Raises:
        ValueError: a setting of the teacher without a method, a weight without features, or scales without bits.
    """
    for name in OF_THE_TEACHER:
        if name in chosen and "method" not in chosen:
            raise ValueError(f'{name} is for students of a teacher: say method="distillation" as well')
    if "weight" in chosen and "features" not in chosen:
        raise ValueError("weight is for students that learn from features: say features=... as well")
    if "scales" in chosen and "bits" not in chosen:
        raise ValueError("scales is for students whose weights are rounded: say bits=... as well")


def with_effect(every: dict[str, Any], first_teacher: str) -> tuple[tuple[str, Any], ...]:
    """Of a value for each setting, those that make a difference to the student.

    Args:
        every: by name, the values.
        first_teacher: the one that is asked where there is no setting `teacher`.
    """
    every = dict(every)
    teacher = every.get("teacher", first_teacher)
    if every["method"] == "labels" or every["alpha"] == 0:
        every["method"] = "labels"
        for name in OF_THE_TEACHER:
            every.pop(name, None)
    else:
        if every.get("temperature_end") in (CONSTANT, every["temperature"]):
            del every["temperature_end"]
    without_labels = every.get("alpha") == 1 and not every.get("second_stage")
    if "features" in every and (every["features"] == NO_FEATURES or every["weight"] == 0):
        every["features"] = NO_FEATURES
        del every["weight"]
    if without_labels:
        del every["label_smoothing"]  # of a term that has no weight
        if teacher == COURSE_TEACHER and every.get("features", NO_FEATURES) == NO_FEATURES:
            every.pop("wrong_labels", None)  # other teachers, and features, are handed the labels and may use them
    if every.get("bits") == AS_TRAINED:
        del every["scales"]
    return tuple(every.items())
