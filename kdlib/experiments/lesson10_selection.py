"""Lesson 10, selection: a published search, 20 weights x 6 temperatures x 3 seeds, replayed.

Weights, temperatures and seeds are those of the public code of Mirzadeh et al. (2019, arXiv 1902.03393), where the seed
is part of the search and the best of all is reported. That code also takes the best epoch on the test images and
divides its KL by the number of classes, which is not replayed. Beside the grid stand as many students of labels alone,
which differ by their seeds and in nothing else: whatever a search gains there, it gains from nothing. The test images
are cut in two halves, one that a search may look at, and one that has no say. Two cores take about half an hour.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas
import torch
from jaxtyping import Float

from kdlib import metrics, models, teachers, training
from kdlib._checks import positive_integer
from kdlib.data import ImageSplit
from kdlib.experiments.choosing import fashion, measured
from kdlib.inference import predict_logits
from kdlib.lesson.results import experiment

ALPHAS = tuple(round(0.05 * number, 2) for number in range(1, 21))
TEMPERATURES = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0)
SEEDS = (20, 31, 55)
DISTILLED, LABELS = "distilled", "labels"
RUNS = len(ALPHAS) * len(TEMPERATURES) * len(SEEDS)
FIRST_SEED = 5000  # of the students of labels
IMAGES, EPOCHS, RATE = 1000, 20, 0.02


@functools.cache
def _halves() -> dict[str, ImageSplit]:
    """Validation, and two halves of the test images, all chosen by class."""
    test = fashion().test
    looked_at = test.take(len(test) // 2, seed=1)
    return {"validation": fashion().validation, "test": looked_at, "fresh": _rest(test, looked_at)}


def _rest(split: ImageSplit, taken: ImageSplit) -> ImageSplit:
    """The images that are not among those taken; an image that occurs twice is kept as often as it was left."""
    left = torch.ones(len(split), dtype=torch.bool)
    left[_positions(split, taken)] = False
    return split.subset(left.nonzero().squeeze(1))


def _positions(split: ImageSplit, taken: ImageSplit) -> list[int]:
    places: dict[bytes, list[int]] = {}
    for place, image in enumerate(split.images.flatten(1).numpy()):
        places.setdefault(image.tobytes(), []).append(place)
    return [places[image.tobytes()].pop(0) for image in taken.images.flatten(1).numpy()]


@functools.cache
def _answers(images: int) -> torch.Tensor:
    return predict_logits(teachers.load("fashion-mnist"), _transfer(images))


def _transfer(images: int) -> ImageSplit:
    """The same for all: a seed chooses weights and order alone."""
    return fashion().train.take(images, seed=0)


def on_splits(
    arm: str, temperature: float, alpha: float, seed: int, *, images: int = IMAGES, epochs: int = EPOCHS
) -> dict[str, float]:
    torch.set_num_threads(1)
    student, split = models.build("tiny-cnn", seed=seed), _transfer(images)
    settings = {"epochs": epochs, "learning_rate": RATE, "seed": seed, "progress": False}
    if arm == LABELS:
        training.train(student, split, **settings)
    else:
        training.distill(student, _answers(images), split, temperature=temperature, alpha=alpha, **settings)
    return {name: metrics.accuracy(student, judged) for name, judged in _halves().items()}


def cells(seeds: Sequence[int], runs: int) -> list[dict[str, Any]]:
    grid = [
        {"arm": DISTILLED, "temperature": temperature, "alpha": alpha, "seed": seed}
        for temperature in TEMPERATURES
        for alpha in ALPHAS
        for seed in seeds
    ]
    alone = [
        {"arm": LABELS, "temperature": 1.0, "alpha": 0.0, "seed": FIRST_SEED + number}
        for number in range(runs)
    ]
    return [*grid, *alone]


@experiment("lesson10-selection")
def replayed(seeds: Sequence[int] = SEEDS, runs: int = RUNS, **sizes: int) -> pandas.DataFrame:
    """The grid of a published search, and as many students of labels that differ by their seeds alone."""
    return measured(functools.partial(on_splits, **sizes), cells(seeds, runs))


def expected_gain(
    chosen_by: Float[np.ndarray, " runs"], judged_by: Float[np.ndarray, " runs"], size: int
) -> float:
    """What a search of `size` of these runs gains: the winner's score over the mean of all runs, on average over all
    sets of so many runs.

    The run with k - 1 runs below it wins in C(k - 1, size - 1) of the C(runs, size) sets; of equal runs the later one.

    Raises:
        ValueError: scores that are not finite or not as many, or a size that is not from 1 to the number of runs.
        TypeError: a size that is no integer.
    """
    chosen_by, judged_by = np.asarray(chosen_by, dtype=float), np.asarray(judged_by, dtype=float)
    runs = len(chosen_by)
    if chosen_by.shape != (runs,) or judged_by.shape != (runs,):
        raise ValueError(
            f"chosen_by and judged_by must be one score a run, got shapes {chosen_by.shape} and {judged_by.shape}"
        )
    if not (np.isfinite(chosen_by).all() and np.isfinite(judged_by).all()):
        raise ValueError("chosen_by and judged_by must be finite, got NaN or infinity among them")
    if positive_integer("size", size) > runs:
        raise ValueError(f"size must be from 1 to {runs}, the number of runs, got {size}")
    order, sets = np.argsort(chosen_by, kind="stable"), math.comb(runs, size)
    chances = np.array([math.comb(below, size - 1) / sets for below in range(runs)])
    return float(chances @ judged_by[order] - judged_by.mean())
