"""Lesson 09, without data: a ladder of images on which the teacher's answers are copied, from noise to real ones.

Two cores take about an hour for the tuning and the two tables.
"""

import functools
from collections.abc import Sequence
from typing import Any

import pandas
import torch
from torch import Tensor, nn

from kdlib import metrics, models, teachers, training
from kdlib.data import ImageSplit
from kdlib.datafree import effective_classes, shelf, substitutes, unlabelled
from kdlib.experiments.choosing import (
    AGAIN,
    HIGHER_RATE,
    RATES,
    SEEDS,
    TUNING_SEEDS,
    Grids,
    best_of_arms,
    every,
    fashion,
    measured,
    on_test,
    tried,
)
from kdlib.inference import predict_logits
from kdlib.lesson.results import experiment

COUNTS = (1000, 9000)
LOOKS, MOST_EPOCHS, BATCH_SIZE = 54_000, 20, 50
NOISE, SHUFFLED, DIGITS, GLYPHS, PHOTOGRAPHS, INVERTED, GENERATED, REAL, LABELS = (
    "noise", "shuffled pixels", "digits", "glyphs", "photographs", "inverted", "generated", "real, unlabelled",
    "real, labels",
)  # fmt: skip
RUNGS = (NOISE, SHUFFLED, DIGITS, GLYPHS, PHOTOGRAPHS, INVERTED, GENERATED, REAL)
MADE = {
    NOISE: substitutes.noise,
    DIGITS: substitutes.digits,
    GLYPHS: substitutes.glyphs,
    PHOTOGRAPHS: substitutes.photographs,
    GENERATED: shelf.generated,
}
TEMPERATURES = (1.0, 4.0)
GRIDS = {arm: every(temperature=TEMPERATURES, rate=RATES) for arm in RUNGS} | {
    LABELS: every(temperature=(1.0,), rate=RATES)
}
ABOVE_CHANCE = (DIGITS, GLYPHS, INVERTED, GENERATED, REAL)
JUDGED = (GLYPHS, INVERTED, GENERATED, REAL)
BEYOND = {
    arm: every(temperature=(16.0,), rate=RATES[2:]) + every(temperature=(4.0,), rate=(HIGHER_RATE,))
    for arm in ABOVE_CHANCE
}
FURTHER = {
    arm: every(temperature=(64.0,), rate=RATES[2:]) + every(temperature=(16.0,), rate=(HIGHER_RATE,))
    for arm in ABOVE_CHANCE
}
FEW_ONLY = (INVERTED,)  # of which a thousand ship


@functools.lru_cache(maxsize=8)
def rung(arm: str, images: int, seed: int) -> ImageSplit:
    """The images of a rung; of real ones and of those made from them, another choice for each seed."""
    if arm in MADE:
        return unlabelled(MADE[arm](images, seed=seed), fashion())
    if arm == INVERTED:
        return unlabelled(shelf.inverted(), fashion())
    real = fashion().train.take(images, seed=seed)
    return unlabelled(substitutes.shuffled_pixels(real, seed=seed), fashion()) if arm == SHUFFLED else real


@functools.cache
def teacher() -> nn.Module:
    return teachers.load("fashion-mnist")


def taught(arm: str, images: int, temperature: float, rate: float, seed: int, looks: int = LOOKS) -> nn.Module:
    split, student = rung(arm, images, seed), models.build("tiny-cnn", seed=seed)
    common = {"epochs": max(1, min(MOST_EPOCHS, looks // images)), "batch_size": BATCH_SIZE, "learning_rate": rate}
    common |= {"seed": seed, "progress": False}
    if arm == LABELS:
        training.train(student, split, **common)
    else:
        logits = teachers.cached_logits(teacher(), split)
        training.distill(student, logits, split, alpha=1, temperature=temperature, **common)
    return student


def on_split(
    images: int, arm: str, temperature: float, rate: float, seed: int, split: str, *, looks: int = LOOKS
) -> dict[str, float]:
    """Accuracy on real images, agreement with the teacher there, and how many classes it finds in the rung."""
    torch.set_num_threads(1)
    student, of = taught(arm, images, temperature, rate, seed, looks), getattr(fashion(), split)
    logits = predict_logits(student, of)
    said: Tensor = teachers.cached_logits(teacher(), rung(arm, images, seed))
    return {
        "accuracy": metrics.accuracy(logits, of),
        "agreement": metrics.agreement(logits, teacher(), of),
        "classes": effective_classes(said),
        "sure": float(said.softmax(dim=1).amax(dim=1).mean()),
    }


@experiment("lesson09-ladder-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every rung at each of its settings, on real validation images with labels."""
    return _tried(GRIDS, seeds, **sizes)


@experiment("lesson09-ladder-edge-tuning")
def edge_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Beyond the edges, of the rungs that are above chance."""
    return _tried(BEYOND, seeds, **sizes)


@experiment("lesson09-ladder-later-tuning")
def later_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Still beyond, where the best settings lay on an edge again."""
    return _tried(FURTHER, seeds, **sizes)


def _tried(grids: Grids, seeds: Sequence[int], **sizes: int) -> pandas.DataFrame:
    compute = functools.partial(on_split, **sizes)
    many = {arm: grid for arm, grid in grids.items() if arm not in FEW_ONLY}
    tables = [tried(compute, some, seeds, images=images) for images, some in zip(COUNTS, (grids, many), strict=True)]
    return pandas.concat(tables, ignore_index=True)


def cells(seeds: Sequence[int], arms: Sequence[str] = (*RUNGS, LABELS)) -> list[dict[str, Any]]:
    """Every rung at its best."""
    chosen = [
        {"images": images, "arm": arm, **settings}
        for images in COUNTS
        for arm, settings in best_of_arms(
            "lesson09-ladder", ("temperature", "rate"), by="accuracy", images=images
        ).items()
        if arm in arms
    ]
    return on_test(chosen, seeds)


@experiment("lesson09-ladder")
def compared(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every rung at its own best, on the test images."""
    return measured(functools.partial(on_split, **sizes), cells(seeds))


@experiment("lesson09-ladder-again")
def again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds, for the rungs that are judged."""
    return measured(functools.partial(on_split, **sizes), cells(seeds, (*JUDGED, LABELS)))
