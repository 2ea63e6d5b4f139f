"""Lesson 08, regression: the angle of an item under wrong labels, and a teacher that bounds what is asked.

Two cores take about ten minutes for the tuning and the two tables.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import teachers, training
from kdlib.data import ImageDataset, ImageSplit
from kdlib.experiments.choosing import (
    AGAIN,
    BATCH_SIZE,
    RATES,
    SEEDS,
    TUNING_SEEDS,
    best_of_arms,
    every,
    fashion,
    measured,
    on_test,
    tried_for_each,
)
from kdlib.lesson.results import experiment
from kdlib.models import TinyCNN
from kdlib.tasks import shelf
from kdlib.tasks.material import material
from kdlib.tasks.regression import bounded_loss, mean_error, turned, with_wrong_labels

IMAGES, EPOCHS, JUDGES = 1000, 20, 4000
SHARES = (0.0, 0.2, 0.4)
CLEAN, WRONG = "turned", "turned, wrong labels"


def squared(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    return F.mse_loss(student_logits, teacher_logits)


def absolute(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    return F.l1_loss(student_logits, teacher_logits)


class Arm(NamedTuple):
    """The labels' loss, the teacher's with its weight, and which teacher."""

    task_loss: Callable = F.mse_loss
    loss: Callable | None = None
    alpha: float = 0.0
    teacher: str = CLEAN
    passes: float = 1


ARMS = {
    "labels, squared": Arm(),
    "labels, squared, three times as long": Arm(passes=3),
    "labels, absolute": Arm(F.l1_loss),
    "bounded": Arm(loss=bounded_loss, alpha=1.0),
    "bounded, beside labels": Arm(loss=bounded_loss, alpha=0.5),
    "teacher, squared": Arm(loss=squared, alpha=1.0),
    "teacher, squared, beside labels": Arm(loss=squared, alpha=0.5),
    "bounded by a teacher of wrong labels": Arm(loss=bounded_loss, alpha=1.0, teacher=WRONG),
    "teacher of wrong labels, squared": Arm(loss=squared, alpha=1.0, teacher=WRONG),
    "teacher, absolute": Arm(loss=absolute, alpha=1.0),
    "labels, squared, half as long": Arm(passes=0.5),
    "labels, absolute, half as long": Arm(F.l1_loss, passes=0.5),
}
LATER = ("labels, squared, half as long", "labels, absolute, half as long")
BESIDE = ("teacher, absolute",)  # thought of when the others were tuned
GRIDS = {arm: every(rate=RATES) for arm in ARMS if arm not in (*LATER, *BESIDE)}
BEYOND = {arm: every(rate=RATES) for arm in BESIDE}
SHORTER = {arm: every(rate=RATES) for arm in LATER}


@functools.lru_cache(maxsize=4)
def material_of(seed: int, images: int = IMAGES, judges: int = JUDGES) -> ImageDataset:
    return material(turned, fashion(), images, seed=seed, judges=judges)


@functools.cache
def teacher(name: str) -> nn.Module:
    return shelf.load(name)


def taught(arm: str, rate: float, seed: int, *, split: ImageSplit, epochs: int = EPOCHS) -> nn.Module:
    """A student of this arm; the split holds the labels as they are given, wrong ones too."""
    settings = ARMS[arm]
    torch.manual_seed(seed)
    student = TinyCNN(1)
    epochs = max(1, round(epochs * settings.passes))
    common = {"epochs": epochs, "learning_rate": rate, "batch_size": BATCH_SIZE, "seed": seed}
    common |= {"task_loss": settings.task_loss, "progress": False}
    if settings.loss is None:
        training.train(student, split, **common)
    else:
        logits = teachers.cached_logits(teacher(settings.teacher), split)
        training.distill(student, logits, split, loss=settings.loss, alpha=settings.alpha, **common)
    return student


def on_split(
    wrong: float, arm: str, rate: float, seed: int, split: str, *, images: int = IMAGES, judges: int = JUDGES,
    epochs: int = EPOCHS,
) -> dict[str, float]:  # fmt: skip
    """`degrees`: the mean error, on images with right labels."""
    torch.set_num_threads(1)
    made = material_of(seed, images, judges)
    given = with_wrong_labels(made.train, wrong, seed=seed)
    student = taught(arm, rate, seed, split=given, epochs=epochs)
    return {"degrees": mean_error(student, getattr(made, split))}


@experiment("lesson08-regression-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm with every share of wrong labels at its learning rates, on validation images with right labels."""
    return tried_for_each(functools.partial(on_split, **sizes), GRIDS, seeds, wrong=SHARES)


@experiment("lesson08-regression-edge-tuning")
def edge_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """The arm that was thought of later."""
    return tried_for_each(functools.partial(on_split, **sizes), BEYOND, seeds, wrong=SHARES)


@experiment("lesson08-regression-later-tuning")
def later_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Labels for half as long."""
    return tried_for_each(functools.partial(on_split, **sizes), SHORTER, seeds, wrong=SHARES)


def cells(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every arm at its best."""
    chosen = [
        {"wrong": wrong, "arm": arm, **settings}
        for wrong in SHARES
        for arm, settings in best_of_arms(
            "lesson08-regression", ("rate",), by="degrees", lowest=True, wrong=wrong
        ).items()
    ]
    return on_test(chosen, seeds)


@experiment("lesson08-regression")
def compared(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at its own best, on the test images, whose labels are right."""
    return measured(functools.partial(on_split, **sizes), cells(seeds))


@experiment("lesson08-regression-again")
def again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds."""
    return compared(seeds, **sizes)
