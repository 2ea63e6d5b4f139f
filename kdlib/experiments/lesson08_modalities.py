"""Lesson 08, another modality: aligned pairs without labels against labels of the images that the student sees.

The teacher is the course's and sees pixels. Two cores take about half an hour for the tuning and the two tables.
"""

import functools
from collections.abc import Sequence
from typing import Any

import pandas
import torch
from torch import Tensor, nn

from kdlib import metrics, models, teachers, training
from kdlib.data import ImageDataset, ImageSplit
from kdlib.experiments.choosing import (
    AGAIN,
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
    tried,
)
from kdlib.inference import predict_logits
from kdlib.lesson.results import experiment
from kdlib.tasks import modalities
from kdlib.tasks.material import seen_by_sensor

SENSORS = {
    "pixels": modalities.pixels,
    "edges": modalities.edges,
    "thumbnails": modalities.thumbnails,
    "silhouettes": modalities.silhouettes,
}
PAIRS, LABELS, HARD, SHUFFLED = (
    "pairs", "labels", "pairs, the teacher's answer as label", "pairs, of other images",
)  # fmt: skip
COUNTS = (100, 300, 1000, 3000, 9000)
JUDGED_AGAIN = (1000, 9000)
TUNED_ON = "edges"  # learning rates are chosen for this sensor and taken for the others
LOOKS, MOST_EPOCHS, TEMPERATURE, BATCH_SIZE = 54_000, 60, 4.0, 50
GRIDS = {
    PAIRS: every(images=COUNTS, rate=RATES),
    LABELS: every(images=COUNTS, rate=RATES),
    HARD: every(images=(9000,), rate=RATES),
}
BEYOND = {arm: every(images=COUNTS[:3], rate=(HIGHER_RATE,)) for arm in (PAIRS, LABELS)}


@functools.cache
def seen(sensor: str) -> ImageDataset:
    return seen_by_sensor(SENSORS[sensor], fashion())


@functools.cache
def teacher() -> nn.Module:
    return teachers.load("fashion-mnist")


def logits_of_pairs() -> Tensor:
    """What the teacher says of the pixels of every training image."""
    return teachers.cached_logits(teacher(), fashion().train)


def epochs_for(images: int, looks: int = LOOKS) -> int:
    """As many looks at images for every number of images, but at most sixty at each."""
    return max(1, min(MOST_EPOCHS, looks // images))


def taught(sensor: str, arm: str, images: int, rate: float, seed: int, *, looks: int = LOOKS) -> nn.Module:
    """A student that sees what the sensor gives; with labels, or with pairs, whose other half the teacher has seen."""
    train = fashion().train
    rows = train.take(images, seed=seed).indices
    chosen = torch.isin(train.indices, rows)
    split, student = seen(sensor).train.subset(chosen), models.build("tiny-cnn", seed=seed)
    common = {"epochs": epochs_for(images, looks), "learning_rate": rate, "batch_size": BATCH_SIZE}
    common |= {"seed": seed, "progress": False}
    if arm == LABELS:
        training.train(student, split, **common)
        return student
    logits, temperature = logits_of_pairs()[chosen], TEMPERATURE
    if arm == SHUFFLED:
        logits = logits[torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))]
    if arm == HARD:
        logits, temperature = as_label(logits), 1.0
    training.distill(student, logits, split, alpha=1, temperature=temperature, **common)
    return student


def same_mistakes(logits: Tensor, of_teacher: Tensor, split: ImageSplit) -> float:
    """Of the images that the teacher gets wrong, the share to which the student gives the same wrong answer."""
    wrong = of_teacher.argmax(dim=1) != split.labels
    return float((logits.argmax(dim=1) == of_teacher.argmax(dim=1))[wrong].float().mean())


def on_split(
    sensor: str, arm: str, images: int, rate: float, seed: int, split: str, *, looks: int = LOOKS
) -> dict[str, float]:
    torch.set_num_threads(1)
    student = taught(sensor, arm, images, rate, seed, looks=looks)
    of = getattr(seen(sensor), split)
    logits = predict_logits(student, of)
    of_teacher = teachers.cached_logits(teacher(), getattr(fashion(), split))
    return {"accuracy": metrics.accuracy(logits, of), "same mistakes": same_mistakes(logits, of_teacher, of)}


@experiment("lesson08-modalities-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm with every number of images at its learning rates, on the validation images."""
    return tried(functools.partial(on_split, **sizes), GRIDS, seeds, sensor=TUNED_ON)


@experiment("lesson08-modalities-edge-tuning")
def edge_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Beyond the highest learning rate, where few images were best."""
    return tried(functools.partial(on_split, **sizes), BEYOND, seeds, sensor=TUNED_ON)


def cells(seeds: Sequence[int], counts: Sequence[int] = COUNTS) -> list[dict[str, Any]]:
    """Every sensor and arm at the best rate of the arm; the pairs of other images at the rate of the pairs."""
    rates = {
        (arm, images): chosen["rate"]
        for images in COUNTS
        for arm, chosen in best_of_arms(
            "lesson08-modalities", ("rate",), by="accuracy", images=images
        ).items()
    }
    rates[SHUFFLED, COUNTS[-1]] = rates[PAIRS, COUNTS[-1]]
    chosen = [
        {"sensor": sensor, "arm": arm, "images": images, "rate": rate}
        for sensor in SENSORS
        for (arm, images), rate in rates.items()
        if images in counts
    ]
    return on_test(chosen, seeds)


@experiment("lesson08-modalities")
def compared(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every sensor, arm and number of images, on the test images."""
    return measured(functools.partial(on_split, **sizes), cells(seeds))


@experiment("lesson08-modalities-again")
def again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds, for two numbers of images."""
    return measured(functools.partial(on_split, **sizes), cells(seeds, JUDGED_AGAIN))
