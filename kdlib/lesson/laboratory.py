"""A laboratory for experiments of the learner's own: it trains students as asked, and keeps a record.

    lab = Laboratory(profile)
    lab.settings                                       # what may be chosen, and what is taken where nothing is said
    student = lab.student(0, method="distillation", temperature=2)
    student.accuracy("validation"), student.accuracy("test")

Students of one seed share the images, the initial weights and the order of the images; a smaller set of images is a
part of the larger one. A student that is asked for again is the one that has been trained. `Rehearsal` is the same
laboratory with invented accuracies, in no time: what an open experiment is tried in before it costs anything.
"""

import copy
import functools
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdlib import _checks, metrics, models, teachers, training
from kdlib._checks import checked
from kdlib.data import ImageSplit
from kdlib.inference import predict_logits
from kdlib.lesson import profiles
from kdlib.lesson.laboratory_networks import quantised as in_few_bits
from kdlib.lesson.laboratory_settings import (
    AS_TRAINED,
    Setting,
    Settings,
    all_settings,
    functions,
    names,
    refuse_half_said,
    with_effect,
)
from kdlib.lesson.laboratory_training import LogitsOf, TermsOf, Trainer, dataset
from kdlib.training.augmentation import Augment

NetworkOf = Callable[[int], nn.Module]  # of the seed: a student before its training
SPLITS = ("validation", "test")
COURSE_TEACHER = "the course's"
STUDENT = "tiny-cnn"
AFTER_TRAINING = ("bits", "scales")  # the settings that change a student when it has been trained
ALWAYS_SAID = ("network", "method")  # in the record; other settings where they are not the default


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

    def __init__(self, known: dict[str, Setting], offered: Iterable[str] | None) -> None:
        offered = list(known) if offered is None else list(offered)
        unknown = [name for name in offered if name not in known]
        if unknown:
            raise ValueError(f"settings={offered!r}: there is no {unknown[0]!r}; there are {', '.join(known)}")
        self._known = known
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
        return Student(self, seed, with_effect(every))

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


class Laboratory(Room):
    """Trains students on Fashion-MNIST, from labels or from a teacher.

    Args:
        profile: in the profile `ci` a student sees a tenth of the images, once: quick, and no evidence of anything.
        images, epochs: what is taken where nothing is said.
        teachers: by name, functions that give the logits of a split, the first being taken where nothing is said;
            by default there is only the course's teacher, and no setting `teacher`.
        features: by name, functions (the student's images, weight, seed) that give the feature losses with their
            weights and with the teacher's features of these images. They are added to the losses of the method, and
            the settings `features` and `weight` choose them; by default there are none, and no such settings.
        networks: by name, functions of the seed that give the network to be trained, of which a copy is taken; the
            setting `network` chooses one, the first being taken where nothing is said. By default every student is a
            tiny-cnn with weights of its seed, and there is no such setting.
        augmentations: by name, functions of a uint8 batch, or of an image, such as a transform of torchvision v2, that
            draw by PyTorch's random numbers, which the seed repeats. The setting `augment` chooses one: the student
            then learns from stored views of its images, eight of each, which its teacher is asked about. A pass over
            them stands for eight epochs; epochs that are no multiple of eight are rounded to the nearest, and for
            fewer than eight there are as many views as epochs, and one pass. By default there are none, and no such
            setting.
        schedules: whether the temperature may go in a straight line to `temperature_end`, and the student may spend
            the share `second_stage` of its epochs, at the end, on labels alone at a tenth of the learning rate (at
            least one epoch in each stage; of views, a pass). By default not, and there are no such settings.
        quantised: whether the trained weights may be rounded to few bits, as the settings `bits` and `scales` say; by
            default they are not, and there are no such settings. Students that differ in these alone are trained once.
        settings: the names of those that may be chosen; by default all.

    Raises:
        ValueError: an unknown profile or setting, no teacher, no network, features or an augmentation called "none",
            or numbers that are not allowed.
        TypeError: something else than functions by name.
    """

    @checked(
        teachers=functions(" from a split to its logits"), networks=functions(" from the seed to a network"),
        features=functions(" from (split, weight, seed) to feature terms"), augmentations=functions(),
        schedules=_checks.boolean, quantised=_checks.boolean,
    )  # fmt: skip
    def __init__(
        self,
        profile: str | profiles.Profile | None = None,
        *,
        images: int = 1000,
        epochs: int = 20,
        teachers: Mapping[str, LogitsOf] | None = None,
        features: Mapping[str, TermsOf] | None = None,
        networks: Mapping[str, NetworkOf] | None = None,
        augmentations: Mapping[str, Augment] | None = None,
        schedules: bool = False,
        quantised: bool = False,
        settings: Iterable[str] | None = None,
    ) -> None:
        teachers = {COURSE_TEACHER: course_teacher} if teachers is None else teachers
        features, augmentations = features or {}, augmentations or {}
        self._networks = {STUDENT: _tiny_cnn} if networks is None else networks
        for name, given in {"teachers": teachers, "networks": self._networks}.items():
            if not given:
                raise ValueError(f"{name}={{}}: there must be one at least")
        known = all_settings(
            images=images, epochs=epochs, teachers=teachers, features=features, networks=self._networks,
            augmentations=augmentations, schedules=schedules, quantised=quantised,
        )  # fmt: skip
        super().__init__(known, settings)
        self._quick = profiles.get(profile).name == "ci"
        self._trainer = Trainer(
            teachers=teachers, features=features, augmentations=augmentations, quick=self._quick
        )
        self._seconds = 0.0
        self._trained: dict[tuple, nn.Module] = {}

    def _accuracies(self, seed: int, settings: Settings) -> dict[str, float]:
        start = time.perf_counter()
        student = self._network(seed, settings)
        measured = {split: metrics.accuracy(student, getattr(dataset(), split)) for split in SPLITS}
        self._seconds += time.perf_counter() - start
        return measured

    def _network(self, seed: int, settings: Settings) -> nn.Module:
        """The student's network, trained where no other student has shared its training, then rounded."""
        of_training = {name: value for name, value in settings.items() if name not in AFTER_TRAINING}
        key = (seed, *of_training.items())
        if key not in self._trained:
            start_of = self._networks[settings.get("network", next(iter(self._networks)))]
            student = copy.deepcopy(start_of(seed))
            self._trainer.train(student, seed, of_training)
            self._trained[key] = student
        bits = settings.get("bits", AS_TRAINED)
        return self._trained[key] if bits == AS_TRAINED else in_few_bits(self._trained[key], bits, settings["scales"])

    def _place(self) -> str:
        quick = " in the profile ci: a tenth of the images, seen once" if self._quick else ""
        return f"the laboratory, {self._seconds:.0f} s of training{quick}"


def _tiny_cnn(seed: int) -> nn.Module:
    return models.build(STUDENT, seed=seed)


def course_teacher(split: ImageSplit) -> Tensor:
    """The logits of the course's teacher on some training images: computed once for all of them, looked up by index.

    Views of an image have its index but other pixels: these are asked about, once for the same views.
    """
    train = dataset().train
    row_of = {index: row for row, index in enumerate(train.indices.tolist())}
    rows = [row_of[index] for index in split.indices.tolist()]
    if not torch.equal(split.images, train.images[rows]):
        return teachers.cached_logits(_course_network(), split)
    return teachers.cached_logits(_course_network(), train)[rows]


@functools.cache
def _course_network() -> nn.Module:
    return teachers.load("fashion-mnist")


def weaker_teacher(images: int, *, epochs: int = 20) -> LogitsOf:
    """A teacher of the student's own form that learns from so many training images, none of them the student's."""

    def logits_of(split: ImageSplit) -> Tensor:
        train = dataset().train
        others = train.subset(~torch.isin(train.indices, split.indices))
        if len(others) < images:
            own, most = len(split.indices.unique()), len(train) - images  # of views, the images behind them
            raise ValueError(f"images={own} leaves the weaker teacher too few of its own; at most {most}")
        teacher = models.build(STUDENT, seed=1000)
        training.train(teacher, others.take(images), epochs=epochs, seed=1000, progress=False)
        return predict_logits(teacher, split)

    return logits_of


class Rehearsal(Room):
    """The laboratory without training: accuracies are invented, the same ones whenever the same is asked.

    The seed has a strong effect (about three points), which the students of one seed share; what is left between
    students of one seed is about a point. So an interval that throws the pairs away is visibly too wide.

    Args:
        images, epochs, schedules, quantised, settings: as those of `Laboratory`.
        teachers, features, networks, augmentations: their names.
    """

    @checked(
        teachers=names, features=names, networks=names, augmentations=names, schedules=_checks.boolean,
        quantised=_checks.boolean,
    )  # fmt: skip
    def __init__(
        self,
        *,
        images: int = 1000,
        epochs: int = 20,
        teachers: Iterable[str] = (COURSE_TEACHER,),
        features: Iterable[str] = (),
        networks: Iterable[str] = (STUDENT,),
        augmentations: Iterable[str] = (),
        schedules: bool = False,
        quantised: bool = False,
        settings: Iterable[str] | None = None,
    ) -> None:
        known = all_settings(
            images=images, epochs=epochs, teachers=teachers, features=features, networks=networks,
            augmentations=augmentations, schedules=schedules, quantised=quantised,
        )  # fmt: skip
        super().__init__(known, settings)

    def _accuracies(self, seed: int, settings: Settings) -> dict[str, float]:
        of_the_seed = random.Random(f"seed {seed}").gauss(0, 0.03)
        of_the_student = random.Random(f"{seed} {as_text(settings.items())}").gauss(0, 0.006)
        base = 0.7 + of_the_seed + of_the_student + _invented_effect(settings)
        return {s: round(base + random.Random(f"{s} {base}").gauss(0, 0.002), 4) for s in SPLITS}

    def _place(self) -> str:
        return "a rehearsal: all accuracies are invented"


def _invented_effect(settings: Settings) -> float:
    """The sum of an effect for each setting, which depends on its value alone and gives nothing away of the world."""
    return sum(random.Random(f"{name} {value!r}").uniform(-0.02, 0.02) for name, value in settings.items())
