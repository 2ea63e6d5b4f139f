"""Lesson 09, two teachers of different scale: one names items, one tells angles, and one student learns from both.

Two cores take about ten minutes.
"""

import functools
from collections.abc import Sequence
from typing import Any

import pandas
import torch
from torch import Tensor, nn

from kdlib import losses, teachers, training
from kdlib.data import ImageDataset, ImageSplit
from kdlib.datafree import unlabelled
from kdlib.experiments.choosing import (
    AGAIN,
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
from kdlib.experiments.lesson09_embeddings import BATCH_SIZE, POOL, WIDTH, pooled, probe, standardised
from kdlib.inference import predict_logits
from kdlib.lesson.results import experiment
from kdlib.models import TinyCNN
from kdlib.tasks import shelf
from kdlib.tasks.material import normalised_like
from kdlib.tasks.regression import DEGREES, turned

EPOCHS, LABELS, JUDGES = 6, 1000, 4000
AS_THEY_ARE, STANDARDISED = "as they are", "standardised"
GRIDS = {arm: every(rate=RATES) for arm in (AS_THEY_ARE, STANDARDISED)}


@functools.cache
def turned_items(pool: int = POOL, judges: int = JUDGES) -> ImageDataset:
    """Items turned by up to 60 degrees to either side; their labels are angles, their indices those of the items."""
    whole = fashion()
    train = turned(whole.train, pool, seed=0)
    others = (normalised_like(turned(split, judges, seed=0), train) for split in (whole.validation, whole.test))
    return ImageDataset(train, *others, whole.classes)


def classes_of(split: ImageSplit, items: ImageSplit) -> Tensor:
    """The class of the item in each image."""
    order = items.indices.argsort()
    return items.labels[order[torch.searchsorted(items.indices[order], split.indices)]]


@functools.cache
def targets(pool: int, judges: int, which: str = "train") -> tuple[Tensor, Tensor]:
    """What both teachers say, in the units of their own."""
    split = getattr(turned_items(pool, judges), which)
    return pooled(teachers.load("fashion-mnist"), split), pooled(shelf.load("turned"), split)


def student_of(
    arm: str, rate: float, seed: int, *, pool: int = POOL, judges: int = JUDGES, epochs: int = EPOCHS
) -> nn.Module:
    """A student that gives both teachers' embeddings, one behind the other."""
    items, angles = targets(pool, judges)
    if arm == STANDARDISED:
        items, angles = standardised(items), standardised(angles)
    wanted = torch.cat([items, angles], dim=1)
    dataset = turned_items(pool, judges)
    torch.manual_seed(seed)
    student = TinyCNN(2 * WIDTH)
    training.distill(
        student, wanted, unlabelled(dataset.train.images, dataset), alpha=1, loss=losses.logit_mse_loss,
        epochs=epochs, learning_rate=rate, batch_size=BATCH_SIZE, seed=seed, progress=False,
    )  # fmt: skip
    return student


def explained(said: Tensor, wanted: Tensor) -> float:
    """The share of the variance of what is wanted that is met: 1 less the squared error over the variance."""
    return 1 - float((said - wanted).square().sum() / (wanted - wanted.mean(dim=0)).square().sum())


def on_split(
    arm: str, rate: float, seed: int, split: str, *, pool: int = POOL, judges: int = JUDGES, epochs: int = EPOCHS
) -> dict[str, float]:
    """How much of each teacher is met, and how well a linear probe of a thousand labels reads item and angle."""
    torch.set_num_threads(1)
    dataset = turned_items(pool, judges)
    student = student_of(arm, rate, seed, pool=pool, judges=judges, epochs=epochs)
    of, items = getattr(dataset, split), getattr(fashion(), split)
    asked, wanted = predict_logits(student, of), torch.cat(targets(pool, judges, split), dim=1)
    said = asked
    if arm == STANDARDISED:
        own = torch.cat(targets(pool, judges), dim=1)
        said = asked * own.std(dim=0, unbiased=False) + own.mean(dim=0)
    labelled = dataset.train.subset(torch.arange(min(LABELS, len(dataset.train))))
    known = predict_logits(student, labelled)
    named = probe(known, classes_of(labelled, fashion().train), asked)
    return {
        "items met": explained(said[:, :WIDTH], wanted[:, :WIDTH]),
        "angles met": explained(said[:, WIDTH:], wanted[:, WIDTH:]),
        "item": float((named == classes_of(of, items)).float().mean()),
        "degrees": read_angle(known, labelled.labels, asked, of.labels),
    }


def read_angle(known: Tensor, labels: Tensor, asked: Tensor, right: Tensor) -> float:
    """The mean error in degrees of a ridge regression on the embeddings."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    line = make_pipeline(StandardScaler(), Ridge(alpha=100.0)).fit(known.numpy(), labels.numpy().ravel())
    return float(2 * DEGREES * (torch.from_numpy(line.predict(asked.numpy())) - right.ravel()).abs().mean())


@experiment("lesson09-two-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at its learning rates, on the validation images."""
    return tried(functools.partial(on_split, **sizes), GRIDS, seeds)


def cells(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every arm at the rate at which its probes name the most items."""
    chosen = {arm: best["rate"] for arm, best in best_of_arms("lesson09-two", ("rate",), by="item").items()}
    return on_test([{"arm": arm, "rate": rate} for arm, rate in chosen.items()], seeds)


@experiment("lesson09-two")
def compared(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every arm at its own best, on the test images."""
    return measured(functools.partial(on_split, **sizes), cells(seeds))


@experiment("lesson09-two-again")
def again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds."""
    return compared(seeds, **sizes)
