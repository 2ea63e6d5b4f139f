"""Lesson 04: further controls of the search among moved images, which stronger objections asked for; recorded.

The settings are those that suited the contrastive loss towards the trained teacher.
"""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas
import torch
from torch import Tensor, nn

from kdlib import models, training
from kdlib.data import ImageSplit
from kdlib.experiments import lesson04_moved as students
from kdlib.experiments.lesson01 import fashion
from kdlib.experiments.lesson03 import over_groups
from kdlib.experiments.lesson04_worth import PENALTIES, SEEDS, best_setting, tuned, worth
from kdlib.lesson.results import experiment
from kdlib.sweeps.backends import Group

# Name, and how many passes over the pool.
ARMS = (
    ("contrastive, logits", 3),
    ("contrastive, logits", 9),
    ("contrastive, untrained teacher with batch statistics", 3),
    ("contrastive, untrained teacher with batch statistics", 9),
    ("the teacher's labels, then two views", 9),
    ("teacher in 4 x 4", 0),
)


def with_batch_statistics(network: nn.Module, split: ImageSplit) -> nn.Module:
    """A copy with the statistics of these images in its batch norm, so that its features have the usual size."""
    network = copy.deepcopy(network).train()
    with torch.no_grad():
        for rows in torch.arange(len(split)).split(100):
            network(split.normalized(rows))
    return network.eval()


def settings(method: str, seed: int, passes: int) -> dict[str, Any]:
    """The rate and the temperature that suited a method best, with so many passes."""
    best = best_setting(tuned(), method)
    return {
        "learning_rate": best["rate"], "temperature": best["temperature"], "passes": passes, "seed": seed,
        "progress": False,
    }  # fmt: skip


def new_student(seed: int) -> nn.Module:
    """As in the other arms of the seed."""
    return models.build("tiny-cnn", num_classes=students.KNOWN_CLASSES, seed=seed)


def pool_of(seed: int) -> ImageSplit:
    """The moved pool of the seed."""
    return students.moved_pool(seed, students.POOL)


def contrasted(wanted: Tensor, seed: int, passes: int) -> nn.Module:
    """A student of the contrastive loss towards a row of numbers for each image of the moved pool."""
    return students.imitating(
        new_student(seed),
        pool_of(seed),
        "contrastive",
        wanted,
        wanted,
        **settings("contrastive", seed, passes),
    )


def labels_then_views(seed: int, passes: int) -> nn.Module:
    """A student that has all the labels and images of the teacher, and then the pool by two views."""
    student, known = new_student(seed), students.half_of(fashion()[0].train, known=True)
    training.train(
        student, known, epochs=students.TEACHER_EPOCHS, augment=students.move, seed=seed, progress=False
    )
    return students.by_two_views(student, pool_of(seed), **settings("two views, no teacher", seed, passes))


def arm(name: str, seed: int, passes: int) -> nn.Module:
    """The network whose embedding is searched."""
    if name.startswith("the teacher's labels"):
        return labels_then_views(seed, passes)
    if name == "contrastive, logits":
        return contrasted(students.answers("trained", seed, students.POOL)[0], seed, passes)
    untrained = with_batch_statistics(students.teacher_of("untrained", seed), pool_of(seed))
    return contrasted(students.last_map(untrained, pool_of(seed)), seed, passes)


def on_group(group: Group) -> list[dict[str, float]]:
    """All arms of one seed."""
    rows = []
    for cell in group:
        seed = cell["seed"]
        if cell["method"] == "teacher in 4 x 4":
            embedding = partial(students.last_map, students.teacher_of("trained", seed))
        else:
            embedding = partial(students.embed, arm(cell["method"], seed, cell["passes"]))
        rows.append(worth(embedding, cell["split"], seed, PENALTIES))
    return rows


@experiment("lesson04-moved-controls")
def further_controls(seeds: Sequence[int] = SEEDS) -> pandas.DataFrame:
    """Contrast with the logits; an untrained teacher with batch statistics; the teacher's labels and two views; the
    teacher's own map."""
    cells = [
        {"method": method, "passes": passes, "seed": seed, "split": "test"}
        for seed in seeds
        for method, passes in ARMS
    ]
    return over_groups(on_group, cells, ["seed"])
