"""Lesson 09, peers: two students that teach each other.

Two cores take about twenty minutes for the tuning and the two tables.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import pandas
import torch
from torch import Tensor, nn

from kdlib import metrics, models, peers, teachers, training
from kdlib.data import ImageSplit
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

IMAGES, EPOCHS, PAIR = 1000, 20, 2
_ANOTHER_STREAM = 500_000  # of the seeds of second peers, none of which meets those of the first

ALONE, LONGER, SMOOTH, MUTUAL, TAUGHT = (
    "alone", "alone, twice as long", "alone, smoothed labels", "mutual", "by a finished peer",
)  # fmt: skip
GRIDS = {
    ALONE: every(weight=(0.0,), temperature=(1.0,), rate=RATES),
    LONGER: every(weight=(0.0,), temperature=(1.0,), rate=RATES),
    SMOOTH: every(weight=(0.1, 0.3, 0.6), temperature=(1.0,), rate=RATES[1:4]),  # weight: of the smoothing
    MUTUAL: every(weight=(0.3, 1.0, 3.0), temperature=(1.0, 4.0), rate=RATES[1:4]),
    TAUGHT: every(weight=(0.5, 1.0), temperature=(1.0, 4.0), rate=RATES[1:4]),
}

BEYOND = {
    SMOOTH: every(weight=(0.1, 0.3, 0.6), temperature=(1.0,), rate=RATES[4:]),
    MUTUAL: every(weight=(0.3, 1.0, 3.0), temperature=(1.0, 4.0, 10.0), rate=RATES[4:])
    + every(weight=(1.0, 3.0), temperature=(10.0,), rate=RATES[2:4]),
    TAUGHT: every(weight=(0.5, 1.0), temperature=(1.0, 4.0, 10.0), rate=RATES[4:])
    + every(weight=(0.3, 0.5), temperature=(10.0,), rate=RATES[2:4])
    + every(weight=(0.3,), temperature=(4.0,), rate=RATES[2:4]),
}
FURTHER = {
    SMOOTH: every(weight=(0.8, 0.9), temperature=(1.0,), rate=RATES[2:]),
    MUTUAL: every(weight=(0.3, 1.0), temperature=(10.0, 30.0), rate=RATES[2:4]),
    TAUGHT: every(weight=(0.5, 1.0), temperature=(30.0,), rate=RATES[2:4]),
}


def pair_of(seed: int) -> peers.SideBySide:
    return peers.SideBySide([models.build("tiny-cnn", seed=own) for own in (seed, seed + _ANOTHER_STREAM)])


def smoothed(logits: Tensor, labels: Tensor, *, smoothing: float) -> Tensor:
    """Each peer's cross-entropy with smoothed labels."""
    each = peers.apart(logits, PAIR)
    return sum(torch.nn.functional.cross_entropy(own, labels, label_smoothing=smoothing) for own in each)


def pair_loss(arm: str, weight: float, temperature: float) -> Callable:
    if arm == SMOOTH:
        return functools.partial(smoothed, smoothing=weight)
    weight = weight if arm == MUTUAL else 0.0
    return functools.partial(peers.mutual_loss, members=PAIR, weight=weight, temperature=temperature)


def trained_pair(
    split: ImageSplit, arm: str, weight: float, temperature: float, rate: float, seed: int, epochs: int
) -> nn.Module:
    """Two students; of the arm TAUGHT the second is finished before the first begins, and teaches it."""
    pair = pair_of(seed)
    common = {"learning_rate": rate, "batch_size": BATCH_SIZE, "seed": seed, "progress": False}
    if arm == TAUGHT:
        first, second = pair.members
        training.train(second, split, epochs=epochs, **common)
        logits = predict_logits(second, split)
        training.distill(first, logits, split, epochs=epochs, alpha=weight, temperature=temperature, **common)
        return pair
    epochs *= 2 if arm == LONGER else 1
    training.train(pair, split, epochs=epochs, task_loss=pair_loss(arm, weight, temperature), **common)
    return pair


def on_split(
    arm: str, weight: float, temperature: float, rate: float, seed: int, split: str, *, images: int = IMAGES,
    epochs: int = EPOCHS,
) -> dict[str, float]:  # fmt: skip
    """The first peer's accuracy and calibration error, that of the mean of both, and how often both agree."""
    torch.set_num_threads(1)
    pair = trained_pair(fashion().train.take(images, seed=seed), arm, weight, temperature, rate, seed, epochs)
    of = getattr(fashion(), split)
    first, second = peers.apart(predict_logits(pair, of), PAIR)
    both = teachers.combine([first, second])
    return {
        "accuracy": metrics.accuracy(first, of),
        "ece": metrics.calibration_error(first, of),
        "both": metrics.accuracy(both, of),
        "agreement": metrics.agreement(first, second, of),
    }


@experiment("lesson09-peers-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at each of its settings, on the validation images."""
    return tried(functools.partial(on_split, **sizes), GRIDS, seeds)


@experiment("lesson09-peers-edge-tuning")
def edge_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Beyond the edges on which the best settings lay."""
    return tried(functools.partial(on_split, **sizes), BEYOND, seeds)


@experiment("lesson09-peers-later-tuning")
def later_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Still beyond, where the best settings lay on an edge again."""
    return tried(functools.partial(on_split, **sizes), FURTHER, seeds)


def cells(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every arm at the settings that are best for the first peer."""
    chosen = best_of_arms("lesson09-peers", ("weight", "temperature", "rate"), by="accuracy")
    return on_test([{"arm": arm, **settings} for arm, settings in chosen.items()], seeds)


@experiment("lesson09-peers")
def compared(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at its own best, on the test images."""
    return measured(functools.partial(on_split, **sizes), cells(seeds))


@experiment("lesson09-peers-again")
def again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds."""
    return compared(seeds, **sizes)
