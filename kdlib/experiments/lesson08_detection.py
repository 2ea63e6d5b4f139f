"""Lesson 08, detection: a small grid detector without a teacher, and with its features or its answers.

Two cores take about twenty minutes for the tuning and the two tables.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas
import torch
from torch import Tensor, nn

from kdlib import features, teachers, training
from kdlib.data import ImageDataset, ImageSplit
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
from kdlib.features import FeatureTerm
from kdlib.lesson.results import experiment
from kdlib.tasks import shelf
from kdlib.tasks.boxes import box_average_precision
from kdlib.tasks.detection import (
    GridDetector,
    canvases,
    detection_distillation_loss,
    detection_loss,
    grid,
    score_map,
)
from kdlib.tasks.material import material

IMAGES, EPOCHS, JUDGES = 600, 15, 2000
NECK = "stages.3"


class Arm(NamedTuple):
    """What is compared at the neck, and with whose maps; `answers`: the teacher's soft answers."""

    loss: Callable | None = None
    maps: str = "teacher"
    answers: bool = False
    passes: float = 1


def by_labels(student_features: Tensor, teacher_features: Tensor, labels: Tensor) -> Tensor:
    """The loss weighted by score with the cells of the labels' items in place of the teacher's scores."""
    return features.score_weighted_loss(
        student_features, teacher_features, labels, scores=lambda values: grid(values).objects
    )


weighted = functools.partial(features.score_weighted_loss, scores=score_map)
ARMS = {
    "labels": Arm(),
    "labels, three times as long": Arm(passes=3),
    "features, all cells": Arm(features.hint_loss),
    "features, weighted by score": Arm(weighted),
    "weighted, maps of other images": Arm(weighted, maps="shuffled"),
    "weighted, untrained teacher": Arm(weighted, maps="untrained"),
    "soft answers": Arm(answers=True),
    "labels, half as long": Arm(passes=0.5),
    "weighted by the labels' cells": Arm(by_labels),
}
LATER = {
    "labels, half as long": every(weight=(0.0,), alpha=(0.0,), rate=(0.007, 0.02, 0.06)),
    "weighted by the labels' cells": every(weight=(3.0, 10.0, 30.0, 100.0), alpha=(0.0,), rate=RATES[:4]),
}
WEIGHTS = (0.3, 1.0, 3.0, 10.0)


def _grid(arm: Arm) -> list[dict[str, Any]]:
    if arm.loss is not None:
        return every(weight=WEIGHTS, alpha=(0.0,), rate=RATES)
    return every(weight=(0.0,), alpha=ALPHAS if arm.answers else (0.0,), rate=RATES)


GRIDS = {name: _grid(arm) for name, arm in ARMS.items() if name not in LATER}
ALL_CELLS, BY_SCORE = "features, all cells", "features, weighted by score"
BEYOND = {arm: every(weight=(30.0, 100.0), alpha=(0.0,), rate=RATES[:4]) for arm in (ALL_CELLS, BY_SCORE)}
BEYOND |= {"labels, three times as long": every(weight=(0.0,), alpha=(0.0,), rate=(0.0002, 0.0007, 0.002))}
AS_HEAVY = {  # controls with the weight and the rate of the maps that they replace
    "weighted, maps of other images, same weight": "weighted, maps of other images",
    "weighted, untrained teacher, same weight": "weighted, untrained teacher",
}


@functools.lru_cache(maxsize=4)
def material_of(seed: int, images: int = IMAGES, judges: int = JUDGES) -> ImageDataset:
    return material(canvases, fashion(), images, seed=seed, judges=judges)


@functools.cache
def teacher() -> nn.Module:
    return shelf.load("canvases")


def _with_running_statistics(network: nn.Module, split: ImageSplit) -> nn.Module:
    """Batch norm as after a training: without it the maps of random weights would be close to 0."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # the mean over all batches
    with torch.no_grad():
        for rows in torch.arange(len(split)).split(100):
            network.train()(split.normalized(rows))
    return network.eval()


def maps_of(kind: str, split: ImageSplit, seed: int) -> torch.Tensor:
    """The maps at the neck that a student is compared with, a row an image."""
    if kind == "untrained":
        torch.manual_seed(1000 + seed)
        untrained = _with_running_statistics(shelf.TASKS["canvases"].network(), split)
        return features.teacher_features(untrained, split, [NECK])[NECK]
    layer = f"network.{NECK}"
    maps = features.teacher_features(teacher(), split, [layer])[layer]
    if kind == "shuffled":
        return maps[torch.randperm(len(maps), generator=torch.Generator().manual_seed(seed))]
    return maps


def taught(
    arm: str, alpha: float, weight: float, rate: float, seed: int, *, split: ImageSplit, epochs: int = EPOCHS
) -> nn.Module:
    """A detector of this arm."""
    settings = ARMS[AS_HEAVY.get(arm, arm)]
    torch.manual_seed(seed)
    student = GridDetector()
    epochs = max(1, round(epochs * settings.passes))
    common = {"epochs": epochs, "learning_rate": rate, "batch_size": BATCH_SIZE, "seed": seed}
    common |= {"task_loss": detection_loss, "progress": False}
    if settings.answers:
        logits = teachers.cached_logits(teacher(), split)
        training.distill(student, logits, split, loss=detection_distillation_loss, alpha=alpha, **common)
    elif settings.loss is not None:
        maps = maps_of(settings.maps, split, seed)
        term = FeatureTerm(settings.loss, NECK, maps, weight=weight, regressor=True)
        training.distill(student, teacher(), split, alpha=0, features=[term], **common)
    else:
        training.train(student, split, **common)
    return student


def on_split(
    arm: str, alpha: float, weight: float, rate: float, seed: int, split: str, *, images: int = IMAGES,
    judges: int = JUDGES, epochs: int = EPOCHS,
) -> dict[str, float]:  # fmt: skip
    """`ap`: average precision at an overlap of a half."""
    torch.set_num_threads(1)
    made = material_of(seed, images, judges)
    student = taught(arm, alpha, weight, rate, seed, split=made.train, epochs=epochs)
    return {"ap": box_average_precision(student, getattr(made, split))}


@experiment("lesson08-detection-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at its weights or alphas and at its learning rates, on the validation images."""
    return tried(functools.partial(on_split, **sizes), GRIDS, seeds)


@experiment("lesson08-detection-edge-tuning")
def edge_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Beyond the largest weight and, for labels for longer, the lowest rate: there the best settings lay."""
    return tried(functools.partial(on_split, **sizes), BEYOND, seeds)


@experiment("lesson08-detection-later-tuning")
def later_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Labels for half as long, and weights by the labels."""
    return tried(functools.partial(on_split, **sizes), LATER, seeds)


def cells(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every arm at its best."""
    chosen = best_of_arms("lesson08-detection", ("alpha", "weight", "rate"), by="ap")
    chosen |= dict.fromkeys(AS_HEAVY, chosen[BY_SCORE])
    return on_test([{"arm": arm, **settings} for arm, settings in chosen.items()], seeds)


@experiment("lesson08-detection")
def compared(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at its own best, on the test images."""
    return measured(functools.partial(on_split, **sizes), cells(seeds))


@experiment("lesson08-detection-again")
def again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds."""
    return compared(seeds, **sizes)
