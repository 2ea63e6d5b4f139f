"""The experiments of lesson 04 on the teacher's own classes: feature losses on top of distillation.

The lesson runs them small; `kdlib record` runs them in full.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import pandas
import torch
from torch import Tensor, nn

from kdlib import features, metrics, models, training
from kdlib.data import ImageSplit
from kdlib.features import FeatureTerm
from kdlib.lesson import results
from kdlib.lesson.experiments.lesson01 import fashion, known_logits
from kdlib.lesson.results import experiment
from kdlib.sweeps import map_cells

IMAGES = 1000
EPOCHS = 20
TUNING_SEEDS = range(100, 105)
SEEDS = range(10)


class Pooled(nn.Module):
    """A map's mean over its positions: the vector before the classifier. Vectors pass."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3)) if maps.dim() == 4 else maps


# The teacher's maps of 14 x 14 and 7 x 7 pixels, and the student's layers of the same size.
TEACHER_LAYERS = ("network.stages.1", "network.stages.2")
STUDENT_LAYERS = ("stages.0", "stages.1")


def _on_maps(loss: Callable, **options: Any) -> Callable:
    """Terms on both pairs of maps of one size."""

    def terms(known: dict[str, Tensor], weight: float) -> list[FeatureTerm]:
        pairs = zip(STUDENT_LAYERS, TEACHER_LAYERS, strict=True)
        return [FeatureTerm(loss, mine, known[theirs], weight, **options) for mine, theirs in pairs]

    return terms


def _on_vectors(loss: Callable) -> Callable:
    """A term on the pooled last maps: relations between images, of features of any two sizes."""

    def terms(known: dict[str, Tensor], weight: float) -> list[FeatureTerm]:
        pooled = Pooled()(known[TEACHER_LAYERS[-1]])
        return [FeatureTerm(loss, "stages.2", pooled, weight, regressor=Pooled())]

    return terms


def _variational(known: dict[str, Tensor], weight: float) -> list[FeatureTerm]:
    loss = features.VariationalInformationLoss(32, known[TEACHER_LAYERS[-1]].shape[1])
    return [FeatureTerm(loss, STUDENT_LAYERS[-1], known[TEACHER_LAYERS[-1]], weight)]


def _contrastive(known: dict[str, Tensor], weight: float) -> list[FeatureTerm]:
    pooled = Pooled()(known[TEACHER_LAYERS[-1]])
    loss = features.ContrastiveLoss(64, pooled.shape[1])
    return [FeatureTerm(loss, "stages.2", pooled, weight, regressor=Pooled())]


METHODS: dict[str, Callable[[dict[str, Tensor], float], list[FeatureTerm]]] = {
    "hint": _on_maps(features.hint_loss, regressor=True),
    "attention": _on_maps(features.attention_transfer_loss),
    "MMD": _on_maps(features.mmd_loss),
    "similarity": _on_vectors(features.similarity_loss),
    "relational": _on_vectors(features.relational_loss),
    "probabilistic": _on_vectors(features.probabilistic_transfer_loss),
    "correlation": _on_vectors(features.correlation_congruence_loss),
    "variational": _variational,
    "contrastive": _contrastive,
}
# Four weights each, around the weight at which the term is as large as the distill term at the start.
WEIGHTS: dict[str, tuple[float, ...]] = {
    "hint": (0.1, 1.0, 10.0, 100.0),
    "attention": (0.1, 1.0, 10.0, 100.0),
    "MMD": (1.0, 10.0, 100.0, 1000.0),
    "similarity": (10.0, 100.0, 1000.0, 10000.0),
    "relational": (0.1, 1.0, 10.0, 100.0),
    "probabilistic": (10.0, 100.0, 1000.0, 10000.0),
    "correlation": (1.0, 10.0, 100.0, 1000.0),
    "variational": (0.01, 0.1, 1.0, 10.0),
    "contrastive": (0.01, 0.1, 1.0, 10.0),
}


CONTROLS = ("hint, shuffled", "relational, shuffled", "relational, no logits")


@functools.lru_cache(maxsize=1)
def known_features(seed: int, images: int) -> tuple[ImageSplit, dict[str, Tensor]]:
    """The transfer set of a seed, and the teacher's features on it."""
    dataset, teacher = fashion()
    transfer_set = dataset.train.take(images, seed=seed)
    return transfer_set, features.teacher_features(teacher, transfer_set, TEACHER_LAYERS)


def feature_student(
    method: str, weight: float, seed: int, images: int = IMAGES, epochs: int = EPOCHS
) -> nn.Module:
    """A student of soft targets (T = 4, alpha = 0.9) and of a feature loss of this weight.

    "<method>, shuffled" hands each image the teacher's features of another one; "<method>, no logits" leaves out
    the soft targets, so that labels and features are all there is.
    """
    teacher = fashion()[1]
    transfer_set, known = known_features(seed, images)
    name, _, variant = method.partition(", ")
    if variant == "shuffled":
        order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
        known = {layer: values[order] for layer, values in known.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # a loss may have parameters
        terms = METHODS[name](known, weight) if name in METHODS else []
    student = models.build("tiny-cnn", seed=seed)
    training.distill(
        student, known_logits(teacher, transfer_set), transfer_set, epochs=epochs, features=terms, seed=seed,
        alpha=0.0 if method == "labels only" or variant == "no logits" else 0.9, progress=False,
    )  # fmt: skip
    return student


def with_features(method: str, weight: float, seed: int, split: str, **budget: int) -> dict[str, float]:
    """The accuracy of a `feature_student`."""
    student = feature_student(method, weight, seed, **budget)
    return {"accuracy": metrics.accuracy(student, getattr(fashion()[0], split))}


def likeness(method: str, weight: float, seed: int, **budget: int) -> dict[str, float]:
    """How alike the layers of a `feature_student` are to the teacher's, on 500 validation images.

    For maps of 14 and 7 pixels: CKA, and the mean L2 distance between attention maps.
    """
    dataset, teacher = fashion()
    images = dataset.validation.take(500, seed=0)
    known = features.teacher_features(teacher, images, TEACHER_LAYERS)
    student = feature_student(method, weight, seed, **budget)
    mine = features.teacher_features(student, images, STUDENT_LAYERS)
    found = {}
    for pixels, layer, theirs in zip((14, 7), STUDENT_LAYERS, TEACHER_LAYERS, strict=True):
        found[f"CKA {pixels}"] = features.centered_kernel_alignment(mine[layer], known[theirs])
        distance = features.attention_transfer_loss(mine[layer], known[theirs])
        found[f"distance {pixels}"] = distance.item()
    return found | {"accuracy": metrics.accuracy(student, dataset.test)}


@experiment("lesson04-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS) -> pandas.DataFrame:
    """Validation accuracy of every method at four weights, with seeds that no reported result uses."""
    settings = [(name, weight) for name in METHODS if name != "contrastive" for weight in WEIGHTS[name]]
    settings += [("relational, no logits", weight) for weight in WEIGHTS["relational"]]
    return _on_validation(settings, seeds)


@experiment("lesson04-contrastive-tuning")
def contrastive_tuning(seeds: Sequence[int] = TUNING_SEEDS) -> pandas.DataFrame:
    """As lesson04-tuning, for the contrastive loss."""
    return _on_validation([("contrastive", weight) for weight in WEIGHTS["contrastive"]], seeds)


def _on_validation(settings: Sequence[tuple[str, float]], seeds: Sequence[int]) -> pandas.DataFrame:
    grid = [{"seed": s, "method": m, "weight": w, "split": "validation"} for s in seeds for m, w in settings]
    return map_cells(with_features, grid)


def known_tuning() -> pandas.DataFrame:
    """Every recorded validation accuracy by method, weight and seed."""
    return pandas.concat(
        [results.read("lesson04-tuning"), results.read("lesson04-contrastive-tuning")], ignore_index=True
    )


def best_weight(method: str) -> float:
    """The weight with the highest mean validation accuracy in the recorded tuning."""
    table = known_tuning()
    means = table[table["method"] == method.removesuffix(", shuffled")].groupby("weight")["accuracy"].mean()
    return float(means.idxmax())


@experiment("lesson04-methods")
def methods(seeds: Sequence[int] = SEEDS) -> pandas.DataFrame:
    """Test accuracy of every method at its best weight, beside distillation alone and a shuffled control."""
    settings = [("labels only", 0.0), ("distillation", 0.0)]
    settings += [(method, best_weight(method)) for method in [*METHODS, *CONTROLS]]
    grid = [{"seed": s, "method": m, "weight": w, "split": "test"} for s in seeds for m, w in settings]
    return map_cells(with_features, grid)


@experiment("lesson04-likeness")
def likenesses(seeds: Sequence[int] = SEEDS) -> pandas.DataFrame:
    """How alike to the teacher's the layers of the students of four methods are."""
    settings = [("labels only", 0.0), ("distillation", 0.0)]
    settings += [(method, best_weight(method)) for method in ("hint", "attention")]
    return map_cells(likeness, [{"method": m, "weight": w, "seed": s} for s in seeds for m, w in settings])
