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

import torch
from torch import Tensor, nn

from kdlib import _checks, metrics, models, teachers, training
from kdlib._checks import checked
from kdlib.data import ImageSplit
from kdlib.inference import predict_logits
from kdlib.lesson import profiles
from kdlib.lesson.laboratory_networks import quantised as in_few_bits
from kdlib.lesson.laboratory_room import SPLITS, Room, as_text
from kdlib.lesson.laboratory_settings import (
    AS_TRAINED,
    COURSE_TEACHER,
    Settings,
    all_settings,
    functions,
    names,
)
from kdlib.lesson.laboratory_training import LogitsOf, Sensor, TermsOf, Trainer, dataset
from kdlib.training.augmentation import Augment

NetworkOf = Callable[[int], nn.Module]  # of the seed: a student before its training
STUDENT = "tiny-cnn"
AFTER_TRAINING = ("bits", "scales")  # the settings that change a student when it has been trained


class Laboratory(Room):
    """Trains students on Fashion-MNIST, from labels or from a teacher.

    Args:
        profile: in the profile `ci` a student sees a tenth of the images, once, and is judged by a tenth of the others:
            quick, and no evidence of anything.
        images, epochs: what is taken where nothing is said.
        teachers: by name, functions that give the logits of a split, the first being taken where nothing is said;
            by default there is only the course's teacher, and no setting `teacher`. They get the labels that the
            student learns from; the one that bears the name "the course's" must not look at them.
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
        sensors: by name, functions of a split that give what a sensor makes of its images, in their order, such as
            those of `kdlib.tasks.modalities`. The setting `sensor` chooses one, the first being taken where nothing is
            said: the student learns from what it gives, and is judged on that, while its teacher is asked about the
            pixels of the same images. By default students see the pixels, and there is no such setting.
        schedules: whether the temperature may go in a straight line to `temperature_end`, and the student may spend
            the share `second_stage` of its epochs, at the end, on labels alone at a tenth of the learning rate (at
            least one epoch in each stage; of views, a pass). By default not, and there are no such settings.
        quantised: whether the trained weights may be rounded to few bits, as the settings `bits` and `scales` say; by
            default they are not, and there are no such settings. Students that differ in these alone are trained once.
        wrong_labels: whether the setting of this name may replace a share of the training labels by other classes, the
            same for all students of a seed and as many images; validation and test keep theirs. By default not.
        settings: the names of those that may be chosen; by default all.

    Raises:
        ValueError: an unknown profile or setting, no teacher, no network, features or an augmentation called "none",
            features or augmentations beside sensors, or numbers that are not allowed.
        TypeError: something else than functions by name.
    """

    @checked(
        teachers=functions(" from a split to its logits"), networks=functions(" from the seed to a network"),
        features=functions(" from (split, weight, seed) to feature terms"), augmentations=functions(),
        sensors=functions(" from a split to the one that is seen"),
        schedules=_checks.boolean, quantised=_checks.boolean, wrong_labels=_checks.boolean,
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
        sensors: Mapping[str, Sensor] | None = None,
        schedules: bool = False,
        quantised: bool = False,
        wrong_labels: bool = False,
        settings: Iterable[str] | None = None,
    ) -> None:
        teachers = {COURSE_TEACHER: course_teacher} if teachers is None else teachers
        features, augmentations, sensors = features or {}, augmentations or {}, sensors or {}
        self._networks = {STUDENT: _tiny_cnn} if networks is None else networks
        for name, given in {"teachers": teachers, "networks": self._networks}.items():
            if not given:
                raise ValueError(f"{name}={{}}: there must be one at least")
        known = all_settings(
            images=images, epochs=epochs, teachers=teachers, features=features, networks=self._networks,
            augmentations=augmentations, sensors=sensors, schedules=schedules, quantised=quantised,
            wrong_labels=wrong_labels,
        )  # fmt: skip
        super().__init__(known, settings, next(iter(teachers)))
        self._quick = profiles.get(profile).name == "ci"
        self._trainer = Trainer(
            teachers=teachers, features=features, augmentations=augmentations, sensors=sensors, quick=self._quick
        )
        self._seconds = 0.0
        self._trained: dict[tuple, nn.Module] = {}

    def _accuracies(self, seed: int, settings: Settings) -> dict[str, float]:
        start = time.perf_counter()
        student = self._network(seed, settings)
        seen = self._trainer.seen(settings)
        measured = {split: metrics.accuracy(student, self._judging(getattr(seen, split))) for split in SPLITS}
        self._seconds += time.perf_counter() - start
        return measured

    def _judging(self, split: ImageSplit) -> ImageSplit:
        return split.take(len(split) // 10, seed=0) if self._quick else split

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
        quick = " in the profile ci: a tenth of all images, seen once" if self._quick else ""
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


def own_generation(split: ImageSplit, *, epochs: int = 20) -> Tensor:
    """The logits of a network of the student's own form that learned from the labels of these very images.

    It is generation 0 of a sequence that is born again. Its weights and its order of the images are another student's:
    their seed follows from the pixels, so wrong labels change nothing but the labels.
    """
    seed = int(split.digest()[:8], 16)
    teacher = models.build(STUDENT, seed=seed)
    training.train(teacher, split, epochs=epochs, seed=seed, progress=False)
    return predict_logits(teacher, split)


class Rehearsal(Room):
    """The laboratory without training: accuracies are invented, the same ones whenever the same is asked.

    The seed has a strong effect (about three points), which the students of one seed share; what is left between
    students of one seed is about a point. So an interval that throws the pairs away is visibly too wide.

    Args:
        images, epochs, schedules, quantised, wrong_labels, settings: as those of `Laboratory`.
        teachers, features, networks, augmentations, sensors: their names.
    """

    @checked(
        teachers=names, features=names, networks=names, augmentations=names, sensors=names,
        schedules=_checks.boolean, quantised=_checks.boolean, wrong_labels=_checks.boolean,
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
        sensors: Iterable[str] = (),
        schedules: bool = False,
        quantised: bool = False,
        wrong_labels: bool = False,
        settings: Iterable[str] | None = None,
    ) -> None:
        known = all_settings(
            images=images, epochs=epochs, teachers=teachers, features=features, networks=networks,
            augmentations=augmentations, sensors=sensors, schedules=schedules, quantised=quantised,
            wrong_labels=wrong_labels,
        )  # fmt: skip
        super().__init__(known, settings, next(iter(teachers)))

    def _accuracies(self, seed: int, settings: Settings) -> dict[str, float]:
        of_the_seed = random.Random(f"seed {seed}").gauss(0, 0.03)
        of_the_student = random.Random(f"{seed} {as_text(settings.items())}").gauss(0, 0.006)
        base = 0.7 + of_the_seed + of_the_student + _invented_effect(settings)
        return {s: round(base + random.Random(f"{s} {base}").gauss(0, 0.002), 4) for s in SPLITS}

    def _place(self) -> str:
        return "a rehearsal: all accuracies are invented"


def _invented_effect(settings: Settings) -> float:
    """The sum of an effect for each setting, which depends on its value alone and gives nothing away of the world.

    Only that wrong labels do harm is no secret.
    """
    others = [(name, value) for name, value in settings.items() if name != "wrong_labels"]
    chance = sum(random.Random(f"{name} {value!r}").uniform(-0.02, 0.02) for name, value in others)
    return chance - 0.25 * settings.get("wrong_labels", 0.0)
