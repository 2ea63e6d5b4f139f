"""Lesson 08, several labels an image: a teacher's losses, each at its own best, beside labels for as long and longer.

Two cores take about a quarter of an hour for the tuning and the two tables.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import losses, metrics, models, teachers, training
from kdlib.data import ImageSplit
from kdlib.experiments.choosing import (
    AGAIN,
    ALPHAS,
    BATCH_SIZE,
    RATES,
    SEEDS,
    TUNING_SEEDS,
    best_of_arms,
    every,
    fashion,
    measured,
    on_test,
    tried,
)
from kdlib.inference import predict_logits
from kdlib.lesson.results import experiment
from kdlib.tasks import shelf
from kdlib.tasks.collages import collages
from kdlib.tasks.material import material

IMAGES, EPOCHS, JUDGES = 1000, 20, 4000


def label_loss(student_logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, summed over the classes, as the losses of the teacher are."""
    return F.binary_cross_entropy_with_logits(student_logits, labels, reduction="none").sum(dim=1).mean()


def one_sided(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """`KLDivLoss` of sigmoids, as it is often recommended: the half of the divergence that says 'it is there'."""
    return F.kl_div(F.logsigmoid(student_logits), teacher_logits.sigmoid(), reduction="batchmean")


def soft_cross_entropy(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    return label_loss(student_logits, teacher_logits.sigmoid())


class Arm(NamedTuple):
    """A teacher's loss with its temperature, or none; `passes` times the epochs; `hard`: the teacher's yes or no."""

    loss: Callable | None = None
    temperature: float = 1.0
    passes: int = 1
    hard: bool = False


two_sided = losses.multilabel_distillation_loss
ARMS = {
    "labels": Arm(),
    "labels, three times as long": Arm(passes=3),
    "the teacher's yes or no as labels": Arm(soft_cross_entropy, hard=True),
    "softmax, T = 1": Arm(losses.soft_target_loss, 1.0),
    "softmax, T = 4": Arm(losses.soft_target_loss, 4.0),
    "KL of sigmoids, one side": Arm(one_sided),
    "soft cross-entropy": Arm(soft_cross_entropy),
    "two sides, T = 2": Arm(two_sided, 2.0),
    "two sides, T = 4": Arm(two_sided, 4.0),
}
ALONE = {  # with no word of the labels
    "one side, alone": "KL of sigmoids, one side",
    "two sides, alone": "two sides, T = 4",
    "softmax, alone": "softmax, T = 4",
}
GRIDS = {
    arm: every(alpha=(0.0,), rate=RATES) if settings.loss is None else every(alpha=ALPHAS, rate=RATES)
    for arm, settings in ARMS.items()
}


@functools.lru_cache(maxsize=4)
def material_of(seed: int, images: int = IMAGES, judges: int = JUDGES):
    return material(collages, fashion(), images, seed=seed, judges=judges)


@functools.cache
def teacher() -> nn.Module:
    return shelf.load("collages")


def taught(
    arm: str, alpha: float, rate: float, seed: int, *, split: ImageSplit, epochs: int = EPOCHS
) -> nn.Module:
    """A student of this arm."""
    settings = ARMS[ALONE.get(arm, arm)]
    student = models.build("tiny-cnn", seed=seed)
    common = {"epochs": epochs * settings.passes, "learning_rate": rate, "batch_size": BATCH_SIZE, "seed": seed}
    common |= {"task_loss": label_loss, "progress": False}
    if settings.loss is None:
        training.train(student, split, **common)
        return student
    logits = teachers.cached_logits(teacher(), split)
    if settings.hard:
        logits = torch.where(logits > 0, 30.0, -30.0)  # as sure as float32 is
    training.distill(
        student, logits, split, loss=settings.loss, temperature=settings.temperature, alpha=alpha, **common
    )
    return student


def by_class(measure: Callable, logits: Tensor, split: ImageSplit) -> list[float]:
    """A measure of each class by itself."""
    return [
        measure(logits[:, [c]], ImageSplit(split.images, split.labels[:, [c]], mean=split.mean, std=split.std))
        for c in range(split.labels.shape[1])
    ]


def on_split(
    arm: str, alpha: float, rate: float, seed: int, split: str, *, images: int = IMAGES, judges: int = JUDGES,
    epochs: int = EPOCHS,
) -> dict[str, Any]:  # fmt: skip
    """`map` and `auc` over the classes and of each; `stated` is the mean probability that the student states."""
    torch.set_num_threads(1)
    made = material_of(seed, images, judges)
    student = taught(arm, alpha, rate, seed, split=made.train, epochs=epochs)
    of = getattr(made, split)
    logits = predict_logits(student, of)
    row = {"map": metrics.mean_average_precision(logits, of), "auc": metrics.roc_auc(logits, of)}
    row["stated"] = float(logits.sigmoid().mean())
    if split == "validation":
        return row
    row |= {f"ap {c}": value for c, value in enumerate(by_class(metrics.mean_average_precision, logits, of))}
    return row | {f"auc {c}": value for c, value in enumerate(by_class(metrics.roc_auc, logits, of))}


@experiment("lesson08-collages-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at its alphas and learning rates, on the validation images."""
    return tried(functools.partial(on_split, **sizes), GRIDS, seeds)


def cells(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every arm at its best, and three losses with the labels left out."""
    chosen = best_of_arms("lesson08-collages", ("alpha", "rate"), by="map")
    alone = best_of_arms("lesson08-collages", ("alpha", "rate"), by="map", alpha=1.0)
    chosen |= {arm: alone[of] for arm, of in ALONE.items()}
    return on_test([{"arm": arm, **settings} for arm, settings in chosen.items()], seeds)


@experiment("lesson08-collages")
def compared(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at its own best, on the test images."""
    return measured(functools.partial(on_split, **sizes), cells(seeds))


@experiment("lesson08-collages-again")
def again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds."""
    return compared(seeds, **sizes)
