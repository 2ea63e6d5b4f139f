"""The larger pair of lesson 04: ResNet-18 teaches ShuffleNetV2 with features, on full Fashion-MNIST.

Two cores take about an hour.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import data, features, inference, metrics, models, training
from kdlib.data import ImageDataset, ImageSplit
from kdlib.experiments.lesson04_weights import best_weight, searched
from kdlib.features import FeatureTerm
from kdlib.lesson.results import experiment
from kdlib.sweeps import map_cells

TEACHER, STUDENT = "resnet18", "shufflenet_v2_x0_5"
PIXELS = 32  # both networks halve an image five times
TEACHER_EPOCHS, EPOCHS = 8, 3
TUNING_IMAGES, TUNING_EPOCHS = 12000, 5  # about as many steps as one pass over all images
TUNING_SEEDS, SEEDS = range(100, 103), range(5)
WEIGHTS = {"hint": (0.1, 1.0, 10.0), "attention": (0.1, 1.0, 10.0)}
LOSSES = {"hint": features.hint_loss, "attention": features.attention_transfer_loss}


def padded(split: ImageSplit) -> ImageSplit:
    """28 pixels with a black margin, to 32."""
    margin = (PIXELS - split.images.shape[-1]) // 2
    return ImageSplit(F.pad(split.images, (margin,) * 4), split.labels, split.indices, split.mean, split.std)


def images(*, full: bool = True) -> ImageDataset:
    """Fashion-MNIST at 32 pixels: 54,000 images to learn from, or the 9,000 that come with the course."""
    dataset = data.load("fashion-mnist", full=full)
    splits = (dataset.train, dataset.validation, dataset.test)
    return ImageDataset(*map(padded, splits), dataset.classes)


def build(name: str, seed: int) -> nn.Module:
    """The torchvision network for one channel and ten classes."""
    return models.build(name, in_channels=1, image_size=PIXELS, seed=seed)


def answers_of(teacher: nn.Module, split: ImageSplit, layers: Sequence[str]) -> dict[str, Tensor]:
    """What the teacher says of every image: its logits, and its features at these layers."""
    return {
        "logits": inference.predict_logits(teacher, split),
        **features.teacher_features(teacher, split, layers),
    }


def materials(*, full: bool = True, epochs: int = TEACHER_EPOCHS) -> dict[str, Any]:
    """The images, the pairs of layers, and what a trained and an untrained teacher say of the training images."""
    dataset, teacher = images(full=full), build(TEACHER, 0)
    pairs = features.suggest_layers(build(STUDENT, 0), teacher, (1, PIXELS, PIXELS))
    layers = [theirs for _, theirs in pairs]
    untrained = answers_of(build(TEACHER, 1000), dataset.train, layers)
    training.train(teacher, dataset.train, epochs=epochs, batch_size=128, seed=0, progress=False)
    return {
        "dataset": dataset, "pairs": pairs, "trained": answers_of(teacher, dataset.train, layers),
        "untrained": untrained, "teacher_accuracy": metrics.accuracy(teacher, dataset.test),
    }  # fmt: skip


def accuracy(
    method: str, weight: float, seed: int, count: int, epochs: int, split: str, *,
    dataset: ImageDataset, pairs: list, trained: dict, untrained: dict, teacher_accuracy: float,
) -> dict[str, float]:  # fmt: skip
    """A ShuffleNetV2 of soft targets (T = 4, alpha = 0.9) and of a feature loss of this weight, on `count` images.

    "labels only" has alpha 0; "<loss>, untrained" imitates the features of a teacher that learned nothing, beside the
    soft targets of the one that did.
    """
    loss, _, control = method.partition(", ")
    rows = torch.arange(len(dataset.train))
    if count < len(rows):
        rows = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count]
    known = untrained if control else trained
    terms = [
        FeatureTerm(LOSSES[loss], mine, known[theirs][rows], weight, regressor=loss == "hint")
        for mine, theirs in pairs
        if loss in LOSSES and weight > 0
    ]
    student = build(STUDENT, seed)
    training.distill(
        student, trained["logits"][rows], dataset.train.subset(rows), epochs=epochs, batch_size=128, seed=seed,
        alpha=0.0 if method == "labels only" else 0.9, features=terms, progress=False,
    )  # fmt: skip
    return {"accuracy": metrics.accuracy(student, getattr(dataset, split)), "teacher": teacher_accuracy}


def on_validation(
    settings: Sequence[tuple[str, float]], seeds: Sequence[int], shared: dict
) -> pandas.DataFrame:
    """Every setting (method, weight) on 12,000 images, measured on the validation split."""
    cells = [
        {
            "method": method, "weight": weight, "seed": seed, "split": "validation",
            "count": TUNING_IMAGES, "epochs": TUNING_EPOCHS,
        }
        for seed in seeds
        for method, weight in settings
    ]  # fmt: skip
    return map_cells(accuracy, cells, shared=shared)


def compared(
    best: dict[str, float], seeds: Sequence[int], count: int, epochs: int
) -> Iterator[dict[str, Any]]:
    """The cells that are reported: all images, the weights that were chosen, and the controls."""
    settings = [("labels only", 0.0, 1), ("labels only", 0.0, 3), ("distillation", 0.0, 1)]
    settings += [(loss, weight, 1) for loss, weight in best.items()]
    settings += [("hint, untrained", best["hint"], 1)]
    for seed in seeds:
        for method, weight, times in settings:
            yield {
                "method": method, "weight": weight, "seed": seed, "split": "test",
                "count": count, "epochs": times * epochs,
            }  # fmt: skip


@experiment("lesson04-larger")
def larger(seeds: Sequence[int] = SEEDS, tuning_seeds: Sequence[int] = TUNING_SEEDS) -> pandas.DataFrame:
    """First the weights, on validation images with other seeds and 12,000 images; then every method on all of them."""
    shared = materials()
    alone = on_validation([("distillation", 0.0)], tuning_seeds, shared)
    tried = searched(lambda settings: on_validation(settings, tuning_seeds, shared), WEIGHTS)
    best = {loss: best_weight(tried, loss) for loss in WEIGHTS}
    cells = compared(best, seeds, len(shared["dataset"].train), EPOCHS)
    return pandas.concat([alone, tried, map_cells(accuracy, cells, shared=shared)], ignore_index=True)
