"""The experiments of lesson 04 on classes that the teacher does not know: features where no logits help.

The lesson runs them small; `kdlib record` runs them in full.
"""

import copy
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from kdlib import features, inference, losses, metrics, models, training
from kdlib.data import ImageSplit
from kdlib.data.augment import random_crop_flip
from kdlib.features import FeatureTerm
from kdlib.lesson.experiments.lesson01 import fashion
from kdlib.lesson.experiments.lesson04 import TUNING_SEEDS, Pooled
from kdlib.lesson.results import experiment
from kdlib.sweeps import map_cells

KNOWN_CLASSES = 5  # the teacher knows the first five classes, the student learns the other five
PER_CLASS = (2, 10)  # labelled images of each class that the student gets
POOL = 4000  # images without labels
STAGE = 6  # epochs over the pool
METHODS = ("labels only", "logits", "new head", "hint", "relational")


def half_of(split: ImageSplit, *, known: bool) -> ImageSplit:
    """The images of the teacher's classes, or those of the student's, whose labels then count from 0."""
    rows = (split.labels < KNOWN_CLASSES) == known
    half = split.subset(rows)
    labels = half.labels if known else half.labels - KNOWN_CLASSES
    return ImageSplit(half.images, labels, half.indices, split.mean, split.std)


def teacher_of_other_classes(epochs: int = 12, seed: int = 0) -> nn.Module:
    """A ResNet-8 that has only ever seen the first five classes."""
    teacher = models.build("resnet8", num_classes=KNOWN_CLASSES, seed=seed)
    images = half_of(fashion()[0].train, known=True)
    training.train(teacher, images, epochs=epochs, seed=seed, progress=False)
    return teacher


def pool_of(seed: int, images: int = POOL) -> ImageSplit:
    """Images of the classes that the teacher does not know. Their labels are used only where it says so."""
    return half_of(fashion()[0].train, known=False).take(images, seed=seed)


def labelled(pool: ImageSplit, per_class: int, seed: int) -> ImageSplit:
    """The images of the pool that the student gets with their labels."""
    return pool.take(per_class * KNOWN_CLASSES, seed=seed)


def new_head(teacher: nn.Module, pool: ImageSplit, few: ImageSplit) -> Tensor:
    """Logits for the student's classes: a linear classifier on the teacher's features, from a few labels.

    Logistic regression on standardised features, pooled over positions.
    """
    both = [Pooled()(features.teacher_features(teacher, s, ["stages.2"])["stages.2"]) for s in (few, pool)]
    scaler = StandardScaler().fit(both[0])
    head = LogisticRegression(C=0.1, max_iter=2000).fit(scaler.transform(both[0]), few.labels)
    return torch.from_numpy(head.decision_function(scaler.transform(both[1]))).float()


def stage_one(method: str, teacher: nn.Module, pool: ImageSplit, few: ImageSplit) -> list[FeatureTerm]:
    """What the student imitates on the pool, before it sees a label."""
    layers = features.teacher_features(teacher, pool, ["stages.1", "stages.2"])
    soft_targets = partial(losses.soft_target_loss, temperature=4.0)
    # The student gets a head for these logits, which is thrown away: they are not of its classes, or not its own.
    head = nn.Sequential(Pooled(), nn.Linear(64, KNOWN_CLASSES))
    if method == "logits":
        return [
            FeatureTerm(soft_targets, "stages.2", inference.predict_logits(teacher, pool), regressor=head)
        ]
    if method == "new head":
        return [FeatureTerm(soft_targets, "stages.2", new_head(teacher, pool, few), regressor=head)]
    if method == "hint":
        pairs = (("stages.0", "stages.1"), ("stages.1", "stages.2"))
        return [
            FeatureTerm(features.hint_loss, mine, layers[theirs], regressor=True) for mine, theirs in pairs
        ]
    pooled = Pooled()(layers["stages.2"])
    return [FeatureTerm(features.relational_loss, "stages.2", pooled, regressor=Pooled())]


def pretrained(
    method: str, seed: int, per_class: int, teacher: nn.Module, images: int = POOL, epochs: int = STAGE
) -> nn.Module:
    """A student after the first stage, on images without labels; the control has no first stage."""
    pool = pool_of(seed, images)
    student = models.build("tiny-cnn", num_classes=KNOWN_CLASSES, seed=seed)
    if method == "labels only":
        return student
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        terms = stage_one(method, teacher, pool, labelled(pool, per_class, seed))
    training.match_features(student, teacher, pool, features=terms, epochs=epochs, seed=seed, progress=False)
    return student


def then_labels(
    student: nn.Module, seed: int, per_class: int, rate: float, epochs: int, split: str, images: int = POOL
) -> float:
    """The accuracy of a student after the second stage: a few images of the pool, with their labels."""
    training.train(
        student, labelled(pool_of(seed, images), per_class, seed), epochs=epochs, learning_rate=rate, seed=seed,
        batch_size=min(32, per_class * KNOWN_CLASSES), augment=random_crop_flip(padding=2), progress=False,
    )  # fmt: skip
    return metrics.accuracy(student, half_of(getattr(fashion()[0], split), known=False))


# Of the second stage: learning rate and epochs.
SETTINGS = tuple(itertools.product((3e-3, 1e-2), (100, 400)))


def first_stages(method: str, seed: int, teacher: nn.Module) -> dict[int, nn.Module]:
    """The student after the first stage for each number of labels; all but the new head do without labels."""
    if method.startswith("new head"):
        return {count: pretrained(method, seed, count, teacher) for count in PER_CLASS}
    return dict.fromkeys(PER_CLASS, pretrained(method, seed, PER_CLASS[0], teacher))


def tuned(method: str, seed: int, *, teacher: nn.Module) -> dict[str, float]:
    """Validation accuracy of every setting of the second stage, by "labels of a class, rate, epochs"."""
    return {
        f"{count} {rate} {epochs}": then_labels(
            copy.deepcopy(student), seed, count, rate, epochs, "validation"
        )
        for count, student in first_stages(method, seed, teacher).items()
        for rate, epochs in SETTINGS
    }


@experiment("lesson04-new-classes-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS) -> pandas.DataFrame:
    """Validation accuracy of every method over learning rate and epochs of the labelled stage."""
    wide = map_cells(tuned, _grid(METHODS, seeds), shared={"teacher": teacher_of_other_classes()})
    rows = [
        _settings(row)
        | {"per_class": count, "rate": rate, "epochs": epochs, "accuracy": row[f"{count} {rate} {epochs}"]}
        for row in wide.to_dict("records")
        for count, (rate, epochs) in itertools.product(PER_CLASS, SETTINGS)
    ]
    return pandas.DataFrame(rows)


def _grid(methods: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    return [{"method": method, "seed": seed} for seed in seeds for method in methods]


def _settings(row: dict[str, Any]) -> dict[str, Any]:
    return {"method": row["method"], "seed": row["seed"]}
