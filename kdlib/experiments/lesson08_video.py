"""Lesson 08, video: students of eight frames, of two and of one, under a teacher of eight.

Two cores take about a quarter of an hour for the tuning and the two tables.
"""

import functools
from collections.abc import Sequence
from typing import Any

import pandas
import torch
from torch import Tensor, nn

from kdlib import metrics, teachers, training
from kdlib.data import ImageDataset, ImageSplit
from kdlib.experiments.choosing import (
    AGAIN,
    ALPHAS,
    BATCH_SIZE,
    HIGHER_RATE,
    RATES,
    SEEDS,
    TUNING_SEEDS,
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
from kdlib.models import TinyCNN
from kdlib.tasks import shelf
from kdlib.tasks.material import material
from kdlib.tasks.video import DIRECTIONS, clips, frames_of, item_and_direction

IMAGES, EPOCHS, JUDGES, CLASSES = 1000, 20, 4000, 10 * len(DIRECTIONS)
# Two are neighbours: from the first frame to the last it is half a turn, the same to the left and to the right.
FRAMES = {8: range(8), 2: (3, 4), 1: (3,)}
TEMPERATURE = 4.0
LABELS, LONGER, TEACHER, BLIND, HARD, ITEM_LABELS = (
    "labels", "labels, three times as long", "teacher", "teacher of the item alone", "the teacher's answer as label",
    "labels of the item alone",
)  # fmt: skip
GRIDS = {
    LABELS: every(alpha=(0.0,), rate=RATES),
    LONGER: every(alpha=(0.0,), rate=RATES),
    HARD: every(alpha=(1.0,), rate=RATES),
    TEACHER: every(alpha=ALPHAS, rate=RATES),
    BLIND: every(alpha=(1.0,), rate=RATES),
}
BEYOND = {
    LABELS: every(alpha=(0.0,), rate=(HIGHER_RATE,)),
    LONGER: every(alpha=(0.0,), rate=(HIGHER_RATE,)),
    HARD: every(alpha=(1.0,), rate=(HIGHER_RATE,)),
    TEACHER: every(alpha=(0.5, 0.9), rate=(HIGHER_RATE,)),
    ITEM_LABELS: every(alpha=(0.0,), rate=RATES),
}
OF_ITEMS = (BLIND, ITEM_LABELS)
LATER = {BLIND: every(alpha=(1.0,), rate=(HIGHER_RATE,)), ITEM_LABELS: every(alpha=(0.0,), rate=(HIGHER_RATE,))}


@functools.lru_cache(maxsize=4)
def material_of(seed: int, images: int = IMAGES, judges: int = JUDGES) -> ImageDataset:
    return material(clips, fashion(), images, seed=seed, judges=judges)


@functools.cache
def teacher() -> nn.Module:
    return shelf.load("clips")


def without_direction(logits: Tensor) -> Tensor:
    """The logarithms of the teacher's probabilities with each item's shared evenly by the directions."""
    items = logits.log_softmax(dim=1).unflatten(1, (-1, len(DIRECTIONS))).logsumexp(dim=2, keepdim=True)
    return items.expand(-1, -1, len(DIRECTIONS)).flatten(1).contiguous()


def of_the_item_alone(split: ImageSplit) -> ImageSplit:
    """Each label shared evenly by the four directions of its item."""
    items = torch.nn.functional.one_hot(split.labels // len(DIRECTIONS), CLASSES // len(DIRECTIONS))
    labels = items.repeat_interleave(len(DIRECTIONS), dim=1) / len(DIRECTIONS)
    return ImageSplit(split.images, labels, split.indices, split.mean, split.std)


def taught(
    frames: int, arm: str, alpha: float, rate: float, seed: int, *, split: ImageSplit, epochs: int = EPOCHS
) -> nn.Module:
    """A student that sees some of the frames; its teacher has seen all eight."""
    torch.manual_seed(seed)
    student = TinyCNN(CLASSES, frames)
    seen = frames_of(split, FRAMES[frames])
    common = {"learning_rate": rate, "batch_size": BATCH_SIZE, "seed": seed, "progress": False}
    if arm in (LABELS, LONGER, ITEM_LABELS):
        seen = of_the_item_alone(seen) if arm == ITEM_LABELS else seen
        training.train(student, seen, epochs=epochs * (3 if arm == LONGER else 1), **common)
        return student
    logits = teachers.cached_logits(teacher(), split)
    if arm == BLIND:
        logits = without_direction(logits)
    if arm == HARD:
        logits = as_label(logits)
    temperature = 1.0 if arm == HARD else TEMPERATURE
    training.distill(student, logits, seen, epochs=epochs, temperature=temperature, alpha=alpha, **common)
    return student


def shares(logits: Tensor, split: ImageSplit) -> dict[str, float]:
    """The share of right answers: to both questions at once, to the item alone, and to the direction alone."""
    answers = item_and_direction(logits)
    items, directions = split.labels // len(DIRECTIONS), split.labels % len(DIRECTIONS)
    return {
        "both": metrics.accuracy(logits, split),
        "item": float((answers.item.argmax(dim=1) == items).float().mean()),
        "direction": float((answers.direction.argmax(dim=1) == directions).float().mean()),
    }


def on_split(
    frames: int, arm: str, alpha: float, rate: float, seed: int, split: str, *, images: int = IMAGES,
    judges: int = JUDGES, epochs: int = EPOCHS,
) -> dict[str, float]:  # fmt: skip
    torch.set_num_threads(1)
    made = material_of(seed, images, judges)
    student = taught(frames, arm, alpha, rate, seed, split=made.train, epochs=epochs)
    of = frames_of(getattr(made, split), FRAMES[frames])
    return shares(predict_logits(student, of), of)


@experiment("lesson08-video-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm with every number of frames, at its alphas and learning rates, on the validation images."""
    return tried_for_each(functools.partial(on_split, **sizes), GRIDS, seeds, frames=FRAMES)


@experiment("lesson08-video-edge-tuning")
def edge_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Beyond the highest learning rate, where some arms were best; and an arm that was thought of later."""
    return tried_for_each(functools.partial(on_split, **sizes), BEYOND, seeds, frames=FRAMES)


@experiment("lesson08-video-later-tuning")
def later_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Beyond the highest learning rate for the arms that are told of items alone."""
    return tried_for_each(functools.partial(on_split, **sizes), LATER, seeds, frames=FRAMES)


def cells(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every arm at its best by both answers together; those that are told of items alone by the item."""
    chosen = [
        {"frames": frames, "arm": arm, **settings}
        for frames in FRAMES
        for by in ("both", "item")
        for arm, settings in best_of_arms("lesson08-video", ("alpha", "rate"), by=by, frames=frames).items()
        if (by == "item") == (arm in OF_ITEMS)
    ]
    return on_test(chosen, seeds)


@experiment("lesson08-video")
def compared(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at its own best, on the test images."""
    return measured(functools.partial(on_split, **sizes), cells(seeds))


@experiment("lesson08-video-again")
def again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds."""
    return compared(seeds, **sizes)
