"""Lesson 09, several teachers: three that each learned from a third of the labelled images teach one student.

Two cores take about thirty minutes for the teachers, the tuning and the two tables.
"""

import functools
from collections.abc import Sequence
from typing import Any

import pandas
import torch
from torch import Tensor, nn

from kdlib import metrics, models, teachers, training
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
    tried,
)
from kdlib.inference import predict_logits
from kdlib.lesson.results import experiment
from kdlib.tasks import shelf

IMAGES, EPOCHS = 1000, 20
THIRDS = ("third 1", "third 2", "third 3")
LABELS, ONE, PROBABILITIES, LOGITS, LOSSES, IN_TURN = (
    "labels", "one of the three", "mean of probabilities", "mean of logits", "sum of losses", "one at a time",
)  # fmt: skip
# An image of the student is one of those from which one of the three teachers learned: these arms leave that one out.
ONE_OUTSIDE, TWO_OUTSIDE = "one that has not seen the image", "mean of logits, of the two that have not seen the image"
TAUGHT = every(alpha=(0.9, 1.0), temperature=(1.0, 4.0), rate=RATES[1:4])
GRIDS = {LABELS: every(alpha=(0.0,), temperature=(1.0,), rate=RATES)} | {
    arm: TAUGHT for arm in (ONE, PROBABILITIES, LOGITS, LOSSES, IN_TURN)
}
# For all ways of asking teachers alike, since a calibration depends more on these than on the way.
SHARED = {"alpha": 1.0, "temperature": 4.0, "rate": 0.18}


@functools.cache
def known(name: str) -> Tensor:
    """A teacher's logits on all training images."""
    return teachers.cached_logits(shelf.load(name), fashion().train)


def of_several(logits: Sequence[Tensor], arm: str, temperature: float) -> Tensor:
    """The logits of one teacher that stands for several."""
    if arm == PROBABILITIES:
        return teachers.combine(logits)
    if arm == LOGITS:
        return teachers.combine(logits, by="logits")
    # The sum of the losses has the gradient of the mean of the softened probabilities.
    return temperature * teachers.combine([values / temperature for values in logits])


def outside(logits: Sequence[Tensor], owner: Tensor, *, both: bool) -> Tensor:
    """Of each image, the mean of the logits of both teachers that have not seen it, or of one of them the logits."""
    count, rows = len(logits), torch.arange(len(owner))
    stacked = torch.stack(list(logits))
    one, other = (stacked[(owner + further) % count, rows] for further in (1, 2))
    return (one + other) / 2 if both else one


def taught(arm: str, alpha: float, temperature: float, rate: float, seed: int, images: int, epochs: int) -> nn.Module:
    student, split = models.build("tiny-cnn", seed=seed), fashion().train.take(images, seed=seed)
    common = {"learning_rate": rate, "batch_size": BATCH_SIZE, "seed": seed, "progress": False}
    if arm == LABELS:
        training.train(student, split, epochs=epochs, **common)
        return student
    rows = torch.isin(fashion().train.indices, split.indices)
    logits = [known(name)[rows] for name in THIRDS]
    if arm in (ONE_OUTSIDE, TWO_OUTSIDE):
        logits = outside(logits, rows.nonzero().flatten() % len(THIRDS), both=arm == TWO_OUTSIDE)
    elif arm == ONE:
        logits = logits[seed % len(THIRDS)]
    elif arm == IN_TURN:  # each image stands there three times, each time with another teacher's answer
        split = split.subset(torch.arange(len(split)).repeat(len(logits)))
        logits, epochs = torch.cat(logits), max(1, round(epochs / len(THIRDS)))
    else:
        logits = of_several(logits, arm, temperature)
    training.distill(student, logits, split, epochs=epochs, alpha=alpha, temperature=temperature, **common)
    return student


def on_split(
    arm: str, alpha: float, temperature: float, rate: float, seed: int, split: str, *, images: int = IMAGES,
    epochs: int = EPOCHS,
) -> dict[str, float]:  # fmt: skip
    torch.set_num_threads(1)
    of = getattr(fashion(), split)
    logits = predict_logits(taught(arm, alpha, temperature, rate, seed, images, epochs), of)
    return {"accuracy": metrics.accuracy(logits, of), "ece": metrics.calibration_error(logits, of)}


@experiment("lesson09-several-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at each of its settings, on the validation images."""
    return tried(functools.partial(on_split, **sizes), GRIDS, seeds)


def cells(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Labels at their best; all others at one setting, which is within a point of each one's best on validation."""
    labels = best_of_arms("lesson09-several", ("alpha", "temperature", "rate"), by="accuracy")[LABELS]
    arms = (ONE, PROBABILITIES, LOGITS, LOSSES, IN_TURN, ONE_OUTSIDE, TWO_OUTSIDE)
    return on_test([{"arm": LABELS, **labels}, *({"arm": arm, **SHARED} for arm in arms)], seeds)


@experiment("lesson09-several")
def compared(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm, on the test images."""
    return measured(functools.partial(on_split, **sizes), cells(seeds))


@experiment("lesson09-several-again")
def again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds."""
    return compared(seeds, **sizes)
