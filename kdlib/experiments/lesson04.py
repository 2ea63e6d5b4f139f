"""The experiments of lesson 04 on the teacher's own classes: feature losses beside soft targets, and in their place.

The lesson runs them small; `kdlib record` runs them in full.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import pandas
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import features, inference, metrics, models, teachers, training
from kdlib.data import ImageSplit
from kdlib.experiments.lesson01 import fashion, known_logits
from kdlib.experiments.lesson04_weights import best_weight, no_weight_is_best, searched
from kdlib.features import FeatureTerm
from kdlib.lesson import results
from kdlib.lesson.results import experiment
from kdlib.sweeps import map_cells

IMAGES = 1000
EPOCHS = 20
TUNING_SEEDS = range(100, 103)
SEEDS = range(10)
TEACHER_LAYERS = ("network.stages.1", "network.stages.2")  # 14 x 14 and 7 x 7 pixels
STUDENT_LAYERS = ("stages.0", "stages.1")  # of the same sizes


class Pooled(nn.Module):
    """A map's mean over its positions: the vector before the classifier. Vectors pass."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3)) if maps.dim() == 4 else maps


# ------------------------------------------------------------------ what is imitated


def known_images(seed: int, images: int) -> ImageSplit:
    """The transfer set of a seed."""
    return fashion()[0].train.take(images, seed=seed)


@functools.lru_cache(maxsize=2)
def answers(source: str, seed: int, images: int) -> dict[str, Tensor]:
    """What a source says of each image of the transfer set: the maps of `TEACHER_LAYERS`, and a vector, "pooled".

    "trained" is the course's teacher; "untrained" its network with new weights; "pixels" the image itself, in the
    sizes of the maps. "another image" permutes what the teacher says; "one map" says the same of all images and
    positions: each channel's mean.
    """
    transfer_set = known_images(seed, images)
    if source == "pixels":
        pixels = transfer_set.images / 255
        sizes = zip(TEACHER_LAYERS, (14, 7), strict=True)
        return {layer: F.adaptive_avg_pool2d(pixels, size) for layer, size in sizes} | {
            "pooled": pixels.flatten(1)
        }
    if source in ("another image", "one map"):
        known = answers("trained", seed, images)
        order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
        if source == "another image":
            return {layer: values[order] for layer, values in known.items()}
        return {layer: _everywhere_the_same(values) for layer, values in known.items()}
    teacher = (
        fashion()[1] if source == "trained" else teachers.freeze(models.build("resnet8x2", seed=1000 + seed))
    )
    maps = features.teacher_features(teacher, transfer_set, TEACHER_LAYERS)
    return maps | {"pooled": Pooled()(maps[TEACHER_LAYERS[-1]])}


def _everywhere_the_same(values: Tensor) -> Tensor:
    but_channels = [axis for axis in range(values.dim()) if axis != 1]
    return values.mean(dim=but_channels, keepdim=True).expand_as(values).contiguous()


def gradcam_maps(seed: int, images: int) -> Tensor:
    """The teacher's Grad-CAM of each image's own class, at its last map."""
    teacher, transfer_set, layer = fashion()[1], known_images(seed, images), TEACHER_LAYERS[-1]
    captured, found = features.capture(teacher, [layer]).eval(), []
    for rows in torch.arange(images).split(100):
        with torch.enable_grad():
            pixels = inference.seen_by(teacher, transfer_set, rows).requires_grad_()
            logits, known = captured(pixels)
            gradients = features.class_gradients(logits, known[layer], transfer_set.labels[rows])
        found.append(features.gradcam_map(known[layer].detach(), gradients))
    return torch.cat(found)[:, None]


# ------------------------------------------------------------------ the losses

Known = dict[str, Tensor]


def _on_maps(loss: Callable, regressor: bool = False) -> Callable:
    """Terms on both pairs of maps of one size."""

    def terms(known: Known, weight: float) -> list[FeatureTerm]:
        pairs = zip(STUDENT_LAYERS, TEACHER_LAYERS, strict=True)
        return [FeatureTerm(loss, mine, known[theirs], weight, regressor=regressor) for mine, theirs in pairs]

    return terms


def _on_vectors(loss: Callable) -> Callable:
    """A term on the pooled last maps: relations between images, of features of any two sizes."""

    def terms(known: Known, weight: float) -> list[FeatureTerm]:
        return [FeatureTerm(loss, "stages.2", known["pooled"], weight, regressor=Pooled())]

    return terms


def _contrastive(known: Known, weight: float) -> list[FeatureTerm]:
    loss = features.ContrastiveLoss(64, known["pooled"].shape[1])
    return [FeatureTerm(loss, "stages.2", known["pooled"], weight, regressor=Pooled())]


def _variational(known: Known, weight: float) -> list[FeatureTerm]:
    maps = known[TEACHER_LAYERS[-1]]
    return [
        FeatureTerm(features.VariationalInformationLoss(32, maps.shape[1]), STUDENT_LAYERS[-1], maps, weight)
    ]


def _flow(known: Known, weight: float) -> list[FeatureTerm]:
    # FSP wants equal channels: of these two layers both networks have 32 and 64, at other sizes.
    return [
        FeatureTerm(
            features.flow_loss, ("stages.1", "stages.2"), ("network.stages.0", "network.stages.1"), weight
        )
    ]


def gradcam_distance(student_features: Tensor, teacher_map: Tensor, student_gradients: Tensor) -> Tensor:
    """`features.gradcam_transfer_loss` where the teacher's map is known: distance of maps of length one."""
    own_map = features.gradcam_map(student_features, student_gradients)[:, None]
    return features.attention_transfer_loss(own_map, teacher_map, power=1)


def _gradcam(known: Known, weight: float) -> list[FeatureTerm]:
    return [FeatureTerm(gradcam_distance, STUDENT_LAYERS[-1], known["gradcam"], weight)]


METHODS: dict[str, Callable[[Known, float], list[FeatureTerm]]] = {
    "hint": _on_maps(features.hint_loss, regressor=True),
    "attention": _on_maps(features.attention_transfer_loss),
    "MMD": _on_maps(features.mmd_loss),
    "FSP": _flow,
    "Grad-CAM": _gradcam,
    "relational": _on_vectors(features.relational_loss),
    "contrastive": _contrastive,
    "similarity": _on_vectors(features.similarity_loss),
    "probabilistic": _on_vectors(features.probabilistic_transfer_loss),
    "correlation": _on_vectors(features.correlation_congruence_loss),
    "variational": _variational,
}
SHOWN = (
    "hint",
    "attention",
    "relational",
    "contrastive",
)  # also tried without soft targets, and with every control
SOURCES = ("untrained", "pixels", "another image", "one map")
# Where the search of the weights starts; 0 is distillation alone.
WEIGHTS: dict[str, tuple[float, ...]] = {
    "hint": (0.1, 1.0, 10.0),
    "attention": (0.1, 1.0, 10.0),
    "MMD": (1.0, 10.0, 100.0),
    "FSP": (0.1, 1.0, 10.0),
    "Grad-CAM": (0.1, 1.0, 10.0),
    "relational": (0.1, 1.0, 10.0),
    "contrastive": (0.01, 0.1, 1.0),
    "similarity": (10.0, 100.0, 1000.0),
    "probabilistic": (10.0, 100.0, 1000.0),
    "correlation": (1.0, 10.0, 100.0),
    "variational": (0.01, 0.1, 1.0),
}
NO_LOGITS = ", no logits"


# ------------------------------------------------------------------ students


def feature_student(
    method: str, weight: float, seed: int, source: str = "trained", images: int = IMAGES, epochs: int = EPOCHS
) -> nn.Module:
    """A student of soft targets (T = 4, alpha = 0.9) and of a feature loss of this weight.

    "labels only" and "<loss>, no logits" have alpha 0: labels, and features, are all there is. `source` says whose
    features they are (`answers`).
    """
    loss, teacher, transfer_set = method.removesuffix(NO_LOGITS), fashion()[1], known_images(seed, images)
    known = answers(source, seed, images)
    if loss == "Grad-CAM":
        known = known | {"gradcam": gradcam_maps(seed, images)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # a loss may have parameters
        terms = METHODS[loss](known, weight) if weight > 0 else []
    student = models.build("tiny-cnn", seed=seed)
    training.distill(
        student, teacher if loss == "FSP" else known_logits(teacher, transfer_set), transfer_set, epochs=epochs,
        features=terms, seed=seed, alpha=0.0 if loss == "labels only" or method != loss else 0.9, progress=False,
    )  # fmt: skip
    return student


def with_features(method: str, weight: float, seed: int, split: str, **options: Any) -> dict[str, float]:
    """The accuracy of a `feature_student`."""
    student = feature_student(method, weight, seed, **options)
    return {"accuracy": metrics.accuracy(student, getattr(fashion()[0], split))}


def likeness(method: str, weight: float, seed: int, **options: Any) -> dict[str, float]:
    """How alike the layers of a `feature_student` are to the teacher's, on 500 validation images.

    For maps of 14 and 7 pixels: CKA; the mean L2 distance between attention maps of length one; and two floors of
    that distance, the teacher's map of another image and a map that is the same everywhere.
    """
    dataset, teacher = fashion()
    images = dataset.validation.take(500, seed=0)
    known = features.teacher_features(teacher, images, TEACHER_LAYERS)
    student = feature_student(method, weight, seed, **options)
    mine = features.teacher_features(student, images, STUDENT_LAYERS)
    found = {}
    for pixels, layer, theirs in zip((14, 7), STUDENT_LAYERS, TEACHER_LAYERS, strict=True):
        own, wanted = mine[layer], known[theirs]
        found[f"CKA {pixels}"] = features.centered_kernel_alignment(own, wanted)
        found[f"distance {pixels}"] = features.attention_transfer_loss(own, wanted).item()
        found[f"another {pixels}"] = features.attention_transfer_loss(own, wanted.roll(1, dims=0)).item()
        found[f"uniform {pixels}"] = features.attention_transfer_loss(torch.ones_like(own), wanted).item()
    return found | {"accuracy": metrics.accuracy(student, dataset.test)}


# ------------------------------------------------------------------ the recorded experiments


@experiment("lesson04-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS) -> pandas.DataFrame:
    """Validation accuracy of every method over its weight, with seeds that no reported result uses."""

    def on_validation(settings: Sequence[tuple[str, float]]) -> pandas.DataFrame:
        grid = [
            {"seed": s, "method": m, "weight": w, "split": "validation"} for s in seeds for m, w in settings
        ]
        return map_cells(with_features, grid)

    start = WEIGHTS | {f"{loss}{NO_LOGITS}": WEIGHTS[loss] for loss in SHOWN}
    alone = on_validation([("distillation", 0.0), ("labels only", 0.0)])
    return pandas.concat([alone, searched(on_validation, start)], ignore_index=True)


def chosen_weight(method: str) -> float:
    """The weight above 0 with the highest mean validation accuracy in the recorded tuning."""
    return best_weight(results.read("lesson04-tuning"), method)


def zero_wins(method: str) -> bool:
    """Whether no weight above 0 was better on validation than distillation alone."""
    return no_weight_is_best(results.read("lesson04-tuning"), method, alone="distillation")


@experiment("lesson04-methods")
def methods(seeds: Sequence[int] = SEEDS) -> pandas.DataFrame:
    """Test accuracy of every method at its best weight, beside distillation alone, labels that learn three times as
    long, and the controls: an untrained teacher, and without soft targets also pixels, another image, one map."""
    losses = [*METHODS, *(f"{loss}{NO_LOGITS}" for loss in SHOWN)]
    settings = [(method, chosen_weight(method), "trained", EPOCHS) for method in losses]
    settings += [(method, 0.0, "trained", EPOCHS) for method in ("labels only", "distillation")]
    settings += [("labels only", 0.0, "trained", 3 * EPOCHS)]
    settings += [(loss, chosen_weight(loss), "untrained", EPOCHS) for loss in SHOWN]
    settings += [
        (f"{loss}{NO_LOGITS}", chosen_weight(f"{loss}{NO_LOGITS}"), source, EPOCHS)
        for loss in SHOWN for source in SOURCES
        if source != "one map" or loss in ("hint", "attention")  # one vector for all images has no relations
    ]  # fmt: skip
    grid = [
        {
            "method": method,
            "weight": weight,
            "source": source,
            "epochs": epochs,
            "seed": seed,
            "split": "test",
        }
        for seed in seeds
        for method, weight, source, epochs in settings
    ]
    return map_cells(with_features, grid)


@experiment("lesson04-likeness")
def likenesses(seeds: Sequence[int] = SEEDS) -> pandas.DataFrame:
    """How alike to the teacher's the layers of the students of four methods are."""
    settings = [("labels only", 0.0), ("distillation", 0.0)]
    settings += [(method, chosen_weight(method)) for method in ("hint", "attention")]
    return map_cells(likeness, [{"method": m, "weight": w, "seed": s} for s in seeds for m, w in settings])


# ------------------------------------------------------------------ for the laboratory


def for_laboratory() -> dict[str, Callable[[ImageSplit, float, int], list[FeatureTerm]]]:
    """The feature losses of the open experiment, by the names that it offers."""

    def terms_of(loss: str, source: str) -> Callable[[ImageSplit, float, int], list[FeatureTerm]]:
        # The laboratory takes the same images for a seed as `known_images`.
        return lambda transfer_set, weight, seed: METHODS[loss](
            answers(source, seed, len(transfer_set)), weight
        )

    return {
        "hint": terms_of("hint", "trained"),
        "hint of an untrained teacher": terms_of("hint", "untrained"),
        "attention": terms_of("attention", "trained"),
        "relational": terms_of("relational", "trained"),
    }
