"""Lesson 09, self-distillation: generations of one network, with right and with wrong labels.

Two cores take about half an hour for the tuning and the two tables.
"""

import functools
from collections.abc import Sequence
from typing import Any

import pandas
import torch
from torch import Tensor, nn

from kdlib import metrics, models, teachers, training
from kdlib.data import ImageSplit
from kdlib.data.noise import with_wrong_labels
from kdlib.experiments.choosing import (
    AGAIN,
    BATCH_SIZE,
    HIGHER_RATE,
    LOWER_RATE,
    RATES,
    SEEDS,
    TUNING_SEEDS,
    Grids,
    as_label,
    best_of_arms,
    every,
    fashion,
    measured,
    on_test,
    tried_for_each,
)
from kdlib.inference import predict_logits
from kdlib.lesson.results import experiment

IMAGES, EPOCHS, GENERATIONS = 1000, 20, 3
SHARES = (0.0, 0.4)
BETWEEN = (0.1, 0.3)  # rates between those of the grid, where four in ten labels are wrong and the rate decides
SHORTER_RATE = 0.06  # with it, labels a third as long are best where four in ten are wrong, and nearly where none is
LABELS, LONGER, SHORTER = "labels", "labels, as long as all generations", "labels, a third as long"
SMOOTH, COURSE = "labels, smoothed", "the course's teacher"
BORN, HARD = "generation 1", "generation 1, hard answers"
SHORTEST, SMOOTH_SHORTER = "labels, a tenth as long", "labels, smoothed, a third as long"
FROM_SHORTER = "generation 1 of labels a third as long"
LATER = tuple(f"generation {number}" for number in range(2, GENERATIONS + 1))
ALONE = (LABELS, LONGER, SHORTER, SHORTEST, SMOOTH, SMOOTH_SHORTER)
PASSES = {LONGER: 1 + GENERATIONS, SHORTER: 1 / 3, SHORTEST: 1 / 10, SMOOTH_SHORTER: 1 / 3}  # over those of labels
GRIDS = {
    LABELS: every(alpha=(0.0,), temperature=(1.0,), rate=RATES),
    LONGER: every(alpha=(0.0,), temperature=(1.0,), rate=RATES),
    SHORTER: every(alpha=(0.0,), temperature=(1.0,), rate=RATES),
    SMOOTH: every(alpha=(0.1, 0.3, 0.6), temperature=(1.0,), rate=RATES[1:4]),  # alpha: of the smoothing
    BORN: every(alpha=(0.5, 1.0), temperature=(1.0, 4.0), rate=RATES),
    HARD: every(alpha=(1.0,), temperature=(1.0,), rate=RATES),
    COURSE: every(alpha=(0.5, 1.0), temperature=(1.0, 4.0), rate=RATES[1:4]),
}
BEYOND = {
    SMOOTH: every(alpha=(0.3, 0.6, 0.8), temperature=(1.0,), rate=RATES[4:])
    + every(alpha=(0.8,), temperature=(1.0,), rate=RATES[2:4]),
    BORN: every(alpha=(0.5, 1.0), temperature=(1.0, 4.0), rate=(LOWER_RATE, HIGHER_RATE))
    + every(alpha=(0.5, 1.0), temperature=(10.0,), rate=RATES[2:]),
    HARD: every(alpha=(1.0,), temperature=(1.0,), rate=(HIGHER_RATE,)),
    COURSE: every(alpha=(0.5, 1.0), temperature=(4.0, 10.0), rate=RATES[4:]),
    FROM_SHORTER: every(alpha=(0.5, 1.0), temperature=(1.0, 4.0), rate=RATES),
    SHORTEST: every(alpha=(0.0,), temperature=(1.0,), rate=RATES),
}
FURTHER = {
    SMOOTH: every(alpha=(0.9,), temperature=(1.0,), rate=RATES[2:]),
    LABELS: every(alpha=(0.0,), temperature=(1.0,), rate=BETWEEN),
    SHORTER: every(alpha=(0.0,), temperature=(1.0,), rate=BETWEEN),
    SHORTEST: every(alpha=(0.0,), temperature=(1.0,), rate=(LOWER_RATE,)),
    SMOOTH_SHORTER: every(alpha=(0.3, 0.6, 0.9), temperature=(1.0,), rate=RATES[1:4]),
}
# Added to the seeds of wrong labels and, so many times, to those of generations. The order of the images has a stream
# of its own (`kdlib.training`), so that no seed of it meets that of the wrong labels.
_ANOTHER_STREAM = 500_000


def images_of(seed: int, wrong: float, images: int = IMAGES) -> ImageSplit:
    return with_wrong_labels(fashion().train.take(images, seed=seed), wrong, _ANOTHER_STREAM + seed)


def from_labels(
    split: ImageSplit, rate: float, seed: int, *, epochs: float | int, smoothing: float | int = 0.0
) -> nn.Module:
    student = models.build("tiny-cnn", seed=seed)
    training.train(
        student, split, epochs=max(1, round(epochs)), learning_rate=rate, batch_size=BATCH_SIZE, seed=seed,
        label_smoothing=smoothing, progress=False,
    )  # fmt: skip
    return student


@functools.lru_cache(maxsize=16)
def generation(
    number: int, wrong: float, seed: int, rates: tuple[float, float], alpha: float, temperature: float,
    images: int = IMAGES, epochs: int = EPOCHS,
) -> nn.Module:  # fmt: skip
    """Generation 0 learns from labels at the first rate; each other, at the second, from the one before it."""
    split, own_seed = images_of(seed, wrong, images), seed + number * _ANOTHER_STREAM
    if number == 0:
        return from_labels(split, rates[0], own_seed, epochs=epochs)
    before = generation(number - 1, wrong, seed, rates, alpha, temperature, images, epochs)
    return taught_by(predict_logits(before, split), split, alpha, temperature, rates[1], own_seed, epochs)


def taught_by(
    logits: Tensor, split: ImageSplit, alpha: float, temperature: float, rate: float, seed: int, epochs: int
) -> nn.Module:
    student = models.build("tiny-cnn", seed=seed)
    training.distill(
        student, logits, split, epochs=epochs, alpha=alpha, temperature=temperature, learning_rate=rate,
        batch_size=BATCH_SIZE, seed=seed, progress=False,
    )  # fmt: skip
    return student


def taught(
    wrong: float, arm: str, alpha: float, temperature: float, rate: float, seed: int, label_rate: float,
    images: int, epochs: int,
) -> nn.Module:  # fmt: skip
    """A student of this arm; generation 0 learned at `label_rate`."""
    split = images_of(seed, wrong, images)
    if arm in ALONE:
        smoothing = alpha if arm in (SMOOTH, SMOOTH_SHORTER) else 0.0
        return from_labels(split, rate, seed, epochs=epochs * PASSES.get(arm, 1), smoothing=smoothing)
    settings = alpha, temperature
    if arm in (BORN, *LATER):
        number = int(arm.split()[-1])
        return generation(number, wrong, seed, (label_rate, rate), *settings, images, epochs)
    if arm == HARD:
        logits = as_label(predict_logits(
            generation(0, wrong, seed, (label_rate, 0.0), 0.0, 0.0, images, epochs), split))  # fmt: skip
    elif arm == FROM_SHORTER:
        logits = predict_logits(from_labels(split, SHORTER_RATE, seed, epochs=epochs / 3), split)
    else:
        logits = teachers.cached_logits(teachers.load("fashion-mnist"), split)
    return taught_by(logits, split, *settings, rate, seed + _ANOTHER_STREAM, epochs)


def on_split(
    wrong: float, arm: str, alpha: float, temperature: float, rate: float, seed: int, split: str, label_rate: float,
    *, images: int = IMAGES, epochs: int = EPOCHS,
) -> dict[str, float]:  # fmt: skip
    """Judged on images with right labels; `believed`: of the wrong labels, the share that the student repeats."""
    torch.set_num_threads(1)
    student = taught(wrong, arm, alpha, temperature, rate, seed, label_rate, images, epochs)
    found = {"accuracy": metrics.accuracy(student, getattr(fashion(), split)), "believed": -1.0}
    if wrong:
        given, right = images_of(seed, wrong, images), fashion().train.take(images, seed=seed)
        was_wrong = given.labels != right.labels
        found["believed"] = metrics.accuracy(student, given.subset(was_wrong))
    return found


@experiment("lesson09-self-labels-tuning")
def label_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """The learning rate of labels, from which generation 0 learns, on validation images with right labels."""
    grids = {LABELS: GRIDS[LABELS]}
    return tried_for_each(functools.partial(on_split, **sizes), grids, seeds, wrong=SHARES, label_rate=(0.0,))


@functools.cache
def label_rate(wrong: float) -> float:
    return best_of_arms("lesson09-self-labels", ("rate",), by="accuracy", wrong=wrong)[LABELS]["rate"]


@experiment("lesson09-self-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at each of its settings, on validation images with right labels."""
    return _tried(GRIDS, seeds, **sizes)


def _tried(grids: Grids, seeds: Sequence[int], **sizes: int) -> pandas.DataFrame:
    tables = [
        tried_for_each(
            functools.partial(on_split, **sizes), grids, seeds, wrong=(wrong,), label_rate=(label_rate(wrong),)
        )
        for wrong in SHARES
    ]
    return pandas.concat(tables, ignore_index=True)


@experiment("lesson09-self-edge-tuning")
def edge_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Beyond the edges on which the best settings lay, and two arms that these asked for."""
    return _tried(BEYOND, seeds, **sizes)


@experiment("lesson09-self-later-tuning")
def later_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Still beyond, where the best settings lay on an edge again."""
    return _tried(FURTHER, seeds, **sizes)


def cells(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every arm at its best; generations 2 and 3 with the settings of generation 1."""
    chosen = []
    for wrong in SHARES:
        best = best_of_arms("lesson09-self", ("alpha", "temperature", "rate"), by="accuracy", wrong=wrong)
        best |= {later: best[BORN] for later in LATER}
        fixed = {"wrong": wrong, "label_rate": label_rate(wrong)}
        chosen += [{**fixed, "arm": arm, **settings} for arm, settings in best.items()]
    return on_test(chosen, seeds)


@experiment("lesson09-self")
def compared(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at its own best, on the test images."""
    return measured(functools.partial(on_split, **sizes), cells(seeds))


@experiment("lesson09-self-again")
def again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds."""
    return compared(seeds, **sizes)
