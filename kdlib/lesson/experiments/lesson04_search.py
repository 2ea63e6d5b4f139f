"""The experiment of lesson 04 on finding similar images of classes that have no labels: nobody's logits help."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pandas
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import features, inference, losses, models, training
from kdlib.data import ImageSplit
from kdlib.features import FeatureTerm
from kdlib.lesson.experiments.lesson01 import fashion
from kdlib.lesson.experiments.lesson04 import SEEDS, TUNING_SEEDS, Pooled
from kdlib.lesson.experiments.lesson04_new_classes import (
    KNOWN_CLASSES,
    half_of,
    pool_of,
    teacher_of_other_classes,
)
from kdlib.lesson.results import experiment
from kdlib.sweeps import map_cells

IMAGES = 3000
EPOCHS = 6
RATES = (2e-3, 6e-3)
METHODS = ("labels only", "logits", "hint", "relational", "neighbours")
CONTROLS = ("relational, shuffled",)
WIDTH = 64  # of the student's embedding


def recall_at_one(embedding: Float[Tensor, "n width"], labels: Tensor) -> float:
    """The share of images whose nearest other image, by the cosine, is of their own class."""
    rows = F.normalize(embedding.flatten(1), dim=1)
    similarity = (rows @ rows.T).fill_diagonal_(-2)
    return (labels[similarity.argmax(dim=1)] == labels).double().mean().item()


def embed(network: nn.Module, split: ImageSplit) -> Float[Tensor, "n width"]:
    """What a search compares: the last features of the network, averaged over positions."""
    return Pooled()(features.teacher_features(network, split, ["stages.2"])["stages.2"])


def terms(method: str, teacher: nn.Module, pool: ImageSplit) -> list[FeatureTerm]:
    """What the student's embedding imitates, for images without labels."""
    maps = features.teacher_features(teacher, pool, ["stages.2"])["stages.2"]
    if method == "logits":
        soft_targets = partial(losses.soft_target_loss, temperature=4.0)
        head = nn.Sequential(Pooled(), nn.Linear(WIDTH, KNOWN_CLASSES))
        return [
            FeatureTerm(soft_targets, "stages.2", inference.predict_logits(teacher, pool), regressor=head)
        ]
    if method == "hint":
        quarters = F.adaptive_avg_pool2d(maps, 4).flatten(1)
        regressor = nn.Sequential(Pooled(), nn.Linear(WIDTH, quarters.shape[1]))
        return [FeatureTerm(features.hint_loss, "stages.2", quarters, regressor=regressor)]
    # Relations need no regressor: 64 numbers of the student against 3,136 of the teacher's map.
    loss = {"relational": features.relational_loss, "neighbours": features.probabilistic_transfer_loss}[
        method
    ]
    weight = {"relational": 1.0, "neighbours": 1000.0}[method]
    return [FeatureTerm(loss, "stages.2", maps, weight, regressor=Pooled())]


def student_of(
    method: str, seed: int, rate: float, teacher: nn.Module, images: int = IMAGES, epochs: int = EPOCHS
) -> nn.Module:
    """A student for the search.

    "labels only" learns the labels of as many images of the teacher's classes; the others what the teacher makes
    of images of the new classes, without labels. "<method>, shuffled" hands each image that of another one.
    """
    student = models.build("tiny-cnn", num_classes=KNOWN_CLASSES, seed=seed)
    recipe = {"epochs": epochs, "learning_rate": rate, "seed": seed, "progress": False}
    if method == "labels only":
        training.train(student, half_of(fashion()[0].train, known=True).take(images, seed=seed), **recipe)
        return student
    name, _, shuffled = method.partition(", ")
    pool = pool_of(seed, images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        imitated = terms(name, teacher, pool)
    if shuffled:
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))
        imitated = [replace(term, teacher_layer=term.teacher_layer[order]) for term in imitated]
    training.match_features(student, teacher, pool, features=imitated, **recipe)
    return student


def recall(method: str, seed: int, rate: float, split: str, *, teacher: nn.Module) -> dict[str, float]:
    """How often a student's search finds an image of the right class, among the new classes of a split."""
    images = half_of(getattr(fashion()[0], split), known=False)
    return {"recall": recall_at_one(embed(student_of(method, seed, rate, teacher), images), images.labels)}


@experiment("lesson04-search")
def search(seeds: Sequence[int] = SEEDS, tuning_seeds: Sequence[int] = TUNING_SEEDS) -> pandas.DataFrame:
    """Recall at one among classes that the teacher does not know: first the learning rates, on validation images
    with other seeds, then every method at its best one, on test images."""
    shared = {"teacher": teacher_of_other_classes()}
    tried = map_cells(
        recall,
        [
            {"method": m, "seed": s, "rate": r, "split": "validation"}
            for s in tuning_seeds for m in METHODS for r in RATES
        ],
        shared=shared,
    )  # fmt: skip
    best = tried.groupby(["method", "rate"])["recall"].mean().unstack().idxmax(axis=1)
    grid = [
        {"method": m, "seed": s, "rate": float(best[m.partition(", ")[0]]), "split": "test"}
        for s in seeds
        for m in (*METHODS, *CONTROLS)
    ]
    return pandas.concat([tried, map_cells(recall, grid, shared=shared)], ignore_index=True)
