"""Lesson 03: where the best alpha lies depends on the teacher. Teachers from poor to excellent, and their students."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import pandas
import torch

from kdlib import inference, metrics, models, training
from kdlib.data import ImageSplit
from kdlib.experiments.lesson01 import fashion
from kdlib.experiments.lesson03 import (
    IMAGES,
    SEEDS,
    over_groups,
    train_students,
    with_alphas,
    with_wrong_labels,
)
from kdlib.lesson.results import experiment
from kdlib.sweeps.backends import Group

ALPHAS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


class Schooling(NamedTuple):
    """What a teacher learned from: so many images, of which a share has a wrong label."""

    images: int
    wrong: float = 0.0


TEACHERS = {
    "300 images": Schooling(300),
    "1,000 images": Schooling(1000),
    "3,000 images, 60 % wrong labels": Schooling(3000, wrong=0.6),
    "3,000 images": Schooling(3000),
    "8,000 images": Schooling(8000),
    "the course's teacher": Schooling(60000),
}


@functools.lru_cache(maxsize=2)
def teacher_of(name: str, seed: int) -> tuple[torch.nn.Module, ImageSplit]:
    """A teacher of that schooling, of the student's own form, and the student's images, of which it saw none.

    The course's teacher is the exception: it was trained on all of them.
    """
    dataset, best = fashion()
    order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(seed))
    transfer_set = dataset.train.subset(order[:IMAGES])
    images, wrong = TEACHERS[name]
    if images == 60000:
        return best, transfer_set
    lessons = with_wrong_labels(dataset.train.subset(order[IMAGES : IMAGES + images]), wrong, seed)
    teacher = models.build("tiny-cnn", seed=1000 + seed)
    training.train(teacher, lessons, epochs=20, seed=1000 + seed, progress=False)
    return teacher, transfer_set


def on_quality(group: Group) -> list[dict[str, float]]:
    """Students of one seed and teacher, one an alpha, at T = 4: their accuracies, and their teacher's."""
    [(seed, name)] = {(cell["seed"], cell["teacher"]) for cell in group}
    dataset, _ = fashion()
    teacher, transfer_set = teacher_of(name, seed)
    logits = inference.predict_logits(teacher, transfer_set)
    students = train_students(transfer_set, with_alphas([c | {"temperature": 4.0} for c in group]), seed, logits=logits)
    measured = {"validation": dataset.validation, "test": dataset.test}
    own = {
        "teacher_test": metrics.accuracy(teacher, dataset.test),
        "teacher_transfer": metrics.accuracy(logits, transfer_set),
    }
    return [{n: metrics.accuracy(student, split) for n, split in measured.items()} | own for student in students]


@experiment("lesson03-teachers")
def teachers_of_all_kinds(seeds: Sequence[int] = SEEDS) -> pandas.DataFrame:
    """Accuracy over alpha at T = 4 under teachers from worse than the student to far better."""
    grid = [{"teacher": name, "seed": seed, "alpha": a} for name in TEACHERS for seed in seeds for a in ALPHAS]
    return over_groups(on_quality, grid, ["teacher", "seed"])
