"""Lesson 09, few images: 1 to 100 a class, with labels, with a soft label each, and with a soft label a view.

Two cores take about forty minutes for the tuning and the two tables.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import pandas
import torch
from torch import nn

from kdlib import metrics, models, teachers, training
from kdlib.data.augment import random_crop_flip
from kdlib.experiments.choosing import (
    AGAIN,
    HIGHER_RATE,
    LOWER_RATE,
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

A_CLASS = (1, 2, 5, 10, 20, 50, 100)
JUDGED_AGAIN = (1, 5, 10, 100)
LOOKS, MOST_EPOCHS, MOST_VIEWS, BATCH_SIZE, TEMPERATURE = 20_000, 300, 4000, 32, 4.0
HARD, HARD_VIEWS, SOFT, SOFT_VIEWS, WRONG_VIEWS = (
    "hard labels", "hard labels, views", "a soft label", "a soft label a view", "a soft label for all views",
)  # fmt: skip
ARMS = (HARD, HARD_VIEWS, SOFT, SOFT_VIEWS, WRONG_VIEWS)
GRIDS = {arm: every(rate=RATES) for arm in ARMS}

BEYOND = {arm: every(rate=(LOWER_RATE, HIGHER_RATE)) for arm in ARMS}
ON_THE_EDGE = (1, 2, 5, 10, 20, 50)


def passes(images: int, looks: int = LOOKS) -> int:
    return max(1, min(MOST_EPOCHS, looks // images))


def views_for(images: int, epochs: int) -> int:
    """As many as are used equally often, but no more than `MOST_VIEWS` of all images."""
    most = max(1, min(epochs, MOST_VIEWS // images))
    return max(views for views in range(1, most + 1) if epochs % views == 0)


def taught(a_class: int, arm: str, rate: float, seed: int, looks: int = LOOKS) -> nn.Module:
    """A student of 10 * a_class images, the same for every arm; views are shifted by up to two pixels, or mirrored."""
    split, student = fashion().train.take(10 * a_class, seed=seed), models.build("tiny-cnn", seed=seed)
    epochs, teacher = passes(len(split), looks), teachers.load("fashion-mnist")
    common = {"batch_size": BATCH_SIZE, "learning_rate": rate, "seed": seed, "progress": False}
    soft = {"alpha": 1, "temperature": TEMPERATURE}
    views = views_for(len(split), epochs)
    seen = {"augment": random_crop_flip(), "views": views}
    if arm == HARD:
        training.train(student, split, epochs=epochs, **common)
    elif arm == HARD_VIEWS:
        training.train(student, split, epochs=epochs, **common, **seen)
    elif arm == SOFT:
        training.distill(student, teachers.cached_logits(teacher, split), split, epochs=epochs, **common, **soft)
    elif arm == SOFT_VIEWS:
        training.distill(student, teacher, split, epochs=epochs, **common, **soft, **seen)
    else:
        of_all = training.augmentation.views_of(split, random_crop_flip(), views, seed)
        logits = teachers.cached_logits(teacher, split).repeat_interleave(views, dim=0)
        # Batches of the size into which the loader of views cuts so many images: as many steps.
        common |= {"batch_size": math.ceil(len(split) / math.ceil(len(split) / BATCH_SIZE))}
        training.distill(student, logits, of_all, epochs=epochs // views, **common, **soft)
    return student


def on_split(a_class: int, arm: str, rate: float, seed: int, split: str, *, looks: int = LOOKS) -> dict[str, float]:
    torch.set_num_threads(1)
    return {"accuracy": metrics.accuracy(taught(a_class, arm, rate, seed, looks), getattr(fashion(), split))}


@experiment("lesson09-few-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm with every number of images at its learning rates, on the validation images."""
    return tried_for_each(functools.partial(on_split, **sizes), GRIDS, seeds, a_class=A_CLASS)


@experiment("lesson09-few-edge-tuning")
def edge_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Beyond both ends of the learning rates."""
    return tried_for_each(functools.partial(on_split, **sizes), BEYOND, seeds, a_class=ON_THE_EDGE)


def cells(seeds: Sequence[int], counts: Sequence[int] = A_CLASS) -> list[dict[str, Any]]:
    """Every arm at its best."""
    chosen = [
        {"a_class": a_class, "arm": arm, **settings}
        for a_class in counts
        for arm, settings in best_of_arms("lesson09-few", ("rate",), by="accuracy", a_class=a_class).items()
    ]
    return on_test(chosen, seeds)


@experiment("lesson09-few")
def compared(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at its own best, on the test images."""
    return measured(functools.partial(on_split, **sizes), cells(seeds))


@experiment("lesson09-few-again")
def again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds, for four numbers of images."""
    return measured(functools.partial(on_split, **sizes), cells(seeds, JUDGED_AGAIN))
