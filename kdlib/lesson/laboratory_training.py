"""How a laboratory trains a student: on its images or on views of them, under its teacher, in one stage or in two."""

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from kdlib import data, training
from kdlib.data import ImageDataset, ImageSplit
from kdlib.data.noise import with_wrong_labels
from kdlib.features import FeatureTerm
from kdlib.lesson.laboratory_settings import NO_AUGMENTATION, NO_FEATURES, Settings
from kdlib.tasks.material import seen_by_sensor
from kdlib.training.augmentation import Augment, checked_augment, views_of
from kdlib.training.objectives import smoothed
from kdlib.training.schedules import linear

LogitsOf = Callable[[ImageSplit], Tensor]  # a teacher: the logits of a split, a row an image
Sensor = Callable[[ImageSplit], ImageSplit]  # what it makes of the same images, in their order
TermsOf = Callable[[ImageSplit, float, int], list[FeatureTerm]]  # of the student's images, the weight and the seed
VIEWS = 8
REPEATED = 50  # so many images are augmented twice, to see whether the seed repeats their views
OF_WRONG_LABELS = 1000  # so far their seed is from the student's: of seed 0, they would be the first that it sees
ON_LABELS = 0.1  # the learning rate of a second stage, as a share of the first one's


@functools.cache
def dataset() -> ImageDataset:
    return data.load("fashion-mnist")


class Trainer:
    """Trains networks as settings say; it asks a teacher once for the same images.

    Args:
        teachers, features, augmentations, sensors: by name, as `Laboratory` has them.
        quick: whether a student sees a tenth of the images, once.
    """

    def __init__(
        self,
        *,
        teachers: Mapping[str, LogitsOf],
        features: Mapping[str, TermsOf],
        augmentations: Mapping[str, Augment],
        sensors: Mapping[str, Sensor],
        quick: bool,
    ) -> None:
        self._teachers = teachers
        self._features = features
        self._augmentations = augmentations
        self._sensors = sensors
        self._quick = quick
        self._targets: dict[tuple, Tensor] = {}
        self._seen: dict[str, ImageDataset] = {}

    def seen(self, settings: Settings) -> ImageDataset:
        """All images as the student sees them: by its sensor, or their pixels."""
        name = settings.get("sensor")
        if name is None:
            return dataset()
        if name not in self._seen:
            self._seen[name] = seen_by_sensor(_aligned(name, self._sensors[name]), dataset())
        return self._seen[name]

    def train(self, student: nn.Module, seed: int, settings: Settings) -> None:
        """Train `student` in place; `settings` are those with an effect."""
        transfer_set, passes = self._transfer_set(seed, settings)
        recipe = {
            "learning_rate": settings["learning_rate"],
            "seed": seed,
            "task_loss": smoothed(settings.get("label_smoothing", 0.0)),
            "progress": False,
        }
        features = settings.get("features", NO_FEATURES)
        if settings["method"] == "labels" and features == NO_FEATURES:
            training.train(student, transfer_set, epochs=passes, **recipe)
            return
        terms = {}
        if features != NO_FEATURES:
            terms["features"] = self._features[features](transfer_set, settings["weight"], seed)
        first, second = _stages(passes, settings.get("second_stage", 0.0))
        targets = self._targets_of(transfer_set, seed, settings)
        training.distill(student, targets, transfer_set, epochs=first, **_mix(settings), **terms, **recipe)
        if second:
            recipe["learning_rate"] *= ON_LABELS
            training.train(student, transfer_set, epochs=second, **recipe)

    def _transfer_set(self, seed: int, settings: Settings) -> tuple[ImageSplit, int]:
        """The images or their views, and the passes over them."""
        images = settings["images"] // 10 if self._quick else settings["images"]
        epochs = 1 if self._quick else settings["epochs"]
        transfer_set = _labelled(self.seen(settings).train.take(images, seed=seed), seed, settings)
        augment = settings.get("augment", NO_AUGMENTATION)
        if augment == NO_AUGMENTATION:
            return transfer_set, epochs
        draw = checked_augment(self._augmentations[augment], transfer_set)
        _refuse_other_random_numbers(augment, draw, transfer_set.subset(slice(REPEATED)), seed)
        views = min(VIEWS, epochs)
        return views_of(transfer_set, draw, views, seed), (epochs + views // 2) // views

    def _targets_of(self, transfer_set: ImageSplit, seed: int, settings: Settings) -> Tensor:
        name = settings.get("teacher", next(iter(self._teachers)))
        wrong = settings.get("wrong_labels", 0.0)
        key = (name, seed, settings["images"], settings.get("augment"), wrong, len(transfer_set))
        if key not in self._targets:
            if "sensor" in settings:
                transfer_set = _labelled(dataset().train.take(len(transfer_set), seed=seed), seed, settings)
            self._targets[key] = self._teachers[name](transfer_set)
        return self._targets[key]


def _labelled(images: ImageSplit, seed: int, settings: Settings) -> ImageSplit:
    """The images with a share of wrong labels, the same ones for all students of a seed that see them."""
    share = settings.get("wrong_labels", 0.0)
    return with_wrong_labels(images, share, seed=seed + OF_WRONG_LABELS) if share else images


def _aligned(name: str, sensor: Sensor) -> Sensor:
    """The sensor, which is refused where it gives other images than it was given, or their images in another order."""

    def of_the_same_images(split: ImageSplit) -> ImageSplit:
        seen = sensor(split)
        if not isinstance(seen, ImageSplit):
            raise ValueError(f"sensors[{name!r}] must give an ImageSplit, got {type(seen).__name__}")
        for what in ("labels", "indices"):
            if not torch.equal(getattr(seen, what), getattr(split, what)):
                raise ValueError(
                    f"sensors[{name!r}] must give the images of its split in their order, with their labels and "
                    f"indices: its {what} are others"
                )
        return seen

    return of_the_same_images


def _refuse_other_random_numbers(name: str, draw: Augment, images: ImageSplit, seed: int) -> None:
    """Students of one seed share their views, which only numbers that the seed repeats can give."""
    first, second = (views_of(images, draw, 1, seed).images for _ in range(2))
    if not torch.equal(first, second):
        raise ValueError(
            f"augmentations[{name!r}] gives other views of the same images after the same torch.manual_seed: it must "
            "draw by PyTorch's random numbers, not by those of numpy or random"
        )


def _stages(passes: int, share: float) -> tuple[int, int]:
    """The passes under the teacher and those on labels alone, of each at least one where there are two stages."""
    if share == 0:
        return passes, 0
    second = max(1, min(round(share * passes), passes - 1))
    return max(1, passes - second), second


def _mix(settings: Settings) -> dict:
    """The temperature and the weight of the teacher's term, as `training.distill` takes them."""
    if settings["method"] == "labels":
        return {"alpha": 0}  # it is trained for its features
    temperature = settings["temperature"]
    if "temperature_end" in settings:
        temperature = linear(temperature, settings["temperature_end"])
    return {"temperature": temperature, "alpha": settings["alpha"]}
