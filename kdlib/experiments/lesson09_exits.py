"""Lesson 09, early exits: of one network, taught by labels or by its last exit.

Two cores take about fifteen minutes for the tuning and the two tables.
"""

import functools
from collections.abc import Sequence
from typing import Any

import pandas
import torch
from torch import Tensor
from torch.nn import functional as F

from kdlib import metrics, peers, training
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

IMAGES, EPOCHS, EXITS = 1000, 20, 3
LAST, LAST_LONGER, DEEP, DEEP_LONGER, TAUGHT = (
    "last exit alone", "last exit alone, three times as long", "labels at every exit",
    "labels at every exit, three times as long", "taught by the last exit",
)  # fmt: skip
TAUGHT_LONGER = "taught by the last exit, three times as long"  # with the settings of the shorter
GRIDS = {
    LAST: every(alpha=(0.0,), temperature=(1.0,), rate=RATES),
    LAST_LONGER: every(alpha=(0.0,), temperature=(1.0,), rate=RATES),
    DEEP: every(alpha=(0.0,), temperature=(1.0,), rate=RATES),
    DEEP_LONGER: every(alpha=(0.0,), temperature=(1.0,), rate=RATES),
    TAUGHT: every(alpha=(0.3, 0.6, 1.0), temperature=(1.0, 4.0), rate=RATES),
}

BEYOND = {TAUGHT: every(alpha=(0.1, 0.2), temperature=(1.0, 2.0), rate=RATES[2:4])}


def last_exit_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(peers.apart(logits, EXITS)[-1], labels)


def on_split(
    arm: str, alpha: float, temperature: float, rate: float, seed: int, split: str, *, images: int = IMAGES,
    epochs: int = EPOCHS,
) -> dict[str, float]:  # fmt: skip
    """The accuracy of each exit; `mean`, by which settings are chosen, is over the exits that were trained."""
    torch.set_num_threads(1)
    loss = functools.partial(peers.exits_loss, exits=EXITS, alpha=alpha, temperature=temperature)
    if arm in (LAST, LAST_LONGER):
        loss = last_exit_loss
    torch.manual_seed(seed)
    network = peers.ExitCNN()
    training.train(
        network, fashion().train.take(images, seed=seed), task_loss=loss, learning_rate=rate, batch_size=BATCH_SIZE,
        epochs=epochs * (3 if arm in (LAST_LONGER, DEEP_LONGER, TAUGHT_LONGER) else 1), seed=seed, progress=False,
    )  # fmt: skip
    of = getattr(fashion(), split)
    found = [metrics.accuracy(own, of) for own in peers.apart(predict_logits(network, of), EXITS)]
    judged = found[-1:] if loss is last_exit_loss else found
    return {f"exit {number}": value for number, value in enumerate(found, 1)} | {"mean": sum(judged) / len(judged)}


@experiment("lesson09-exits-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at each of its settings, on the validation images."""
    return tried(functools.partial(on_split, **sizes), GRIDS, seeds)


@experiment("lesson09-exits-edge-tuning")
def edge_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Beyond the edges on which the best settings lay."""
    return tried(functools.partial(on_split, **sizes), BEYOND, seeds)


def cells(seeds: Sequence[int]) -> list[dict[str, Any]]:
    chosen = best_of_arms("lesson09-exits", ("alpha", "temperature", "rate"), by="mean")
    chosen[TAUGHT_LONGER] = chosen[TAUGHT]
    return on_test([{"arm": arm, **settings} for arm, settings in chosen.items()], seeds)


@experiment("lesson09-exits")
def compared(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at its own best, on the test images."""
    return measured(functools.partial(on_split, **sizes), cells(seeds))


@experiment("lesson09-exits-again")
def again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds."""
    return compared(seeds, **sizes)
