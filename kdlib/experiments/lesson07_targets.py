"""Lesson 07, stored targets: how many views, how many classes of each, in how many bits.

Two cores take about twelve minutes.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas
import torch
from torch import Tensor

from kdlib import losses, metrics, models, training
from kdlib.data.augment import random_crop_flip
from kdlib.experiments.lesson01 import fashion, known_logits
from kdlib.inference import predict_logits
from kdlib.lesson.results import experiment
from kdlib.sweeps import map_cells
from kdlib.training.augmentation import views_of

IMAGES, PASSES, BATCH_SIZE = 1000, 40, 32
TEMPERATURE, ALPHA, RATE, CLASSES = 4.0, 0.9, 0.06, 10
SEEDS, AGAIN = range(10), range(20, 30)
IMPOSSIBLE = -1e4  # a logit that no temperature of the lesson makes likely
VIEWS = (0, 1, 2, 4, 8)  # 0: the images as they are
KEPT = (1, 2, 3, 5)
LIVE = "live"


class Stored(NamedTuple):
    """What is kept of a teacher's logits on one view: what a loss may know of them, and how many bytes they take."""

    logits: Callable[[Tensor], Tensor]
    loss: Callable[..., Tensor]
    bytes: int


def eight_bits(logits: Tensor) -> Tensor:
    """Each row in 256 steps from its smallest to its largest logit, which are kept in 16 bits."""
    low, high = (
        bound.half().float() for bound in (logits.amin(dim=1, keepdim=True), logits.amax(dim=1, keepdim=True))
    )
    step = (high - low).clamp(min=1e-6) / 255
    return low + ((logits - low) / step).round().clamp(0, 255) * step


def others_as(value: float, k: int) -> Callable[[Tensor], Tensor]:
    """The k largest logits of a row; the others are all `value`."""

    def kept(logits: Tensor) -> Tensor:
        largest = logits.topk(k, dim=1)
        return torch.full_like(logits, value).scatter(1, largest.indices, largest.values.half().float())

    return kept


def as_they_are(logits: Tensor) -> Tensor:
    return logits


def stored(form: str, k: int) -> Stored:
    """A form of storing: all classes in 32, 16 or 8 bits, or the k largest in 16, each with a byte for its class."""
    usual, few = losses.soft_target_loss, 3 * k
    tail = functools.partial(losses.tail_bucket_loss, k=k or 1)
    forms = {
        "32 bits": Stored(as_they_are, usual, 4 * CLASSES),
        "16 bits": Stored(lambda logits: logits.half().float(), usual, 2 * CLASSES),
        "8 bits": Stored(eight_bits, usual, CLASSES + 4),
        "tail bucket": Stored(as_they_are, tail, few),
        "renormalised": Stored(others_as(IMPOSSIBLE, k or 1), usual, few),
        "zero-filled": Stored(others_as(0.0, k or 1), usual, few),
    }
    return forms[form]


TOP_K = ("tail bucket", "renormalised", "zero-filled")


def arms() -> list[tuple[str, str, int]]:
    """(views, form, k): every number of views in full; then one of the ways to save, without views and with eight."""
    every = [("labels", "nothing", 0), ("8", "nothing", 0), (LIVE, "32 bits", 0)]
    every += [(str(views), "32 bits", 0) for views in VIEWS]
    for views in ("0", "8"):
        every += [(views, form, 0) for form in ("16 bits", "8 bits")]
    every += [("0", form, k) for form in TOP_K for k in KEPT]
    every += [("8", TOP_K[0], k) for k in KEPT[:3]]
    return every


def trained(
    views: str, form: str, k: int, seed: int, images: int = IMAGES, passes: int = PASSES
) -> Mapping[str, float]:
    """One student from such targets, on the test images; `bytes` are those of one image."""
    dataset, teacher = fashion()
    split = dataset.train.take(images, seed=seed)
    student = models.build("tiny-cnn", seed=seed)
    common = {"batch_size": BATCH_SIZE, "learning_rate": RATE, "seed": seed, "progress": False}
    settings = {"temperature": TEMPERATURE, "alpha": ALPHA} | common
    augment, count, size = random_crop_flip(padding=2), 1, 0
    if views == LIVE:
        training.distill(student, teacher, split, epochs=passes, augment=augment, **settings)
    else:
        logits = known_logits(teacher, split)
        if views not in ("labels", "0"):
            count = int(views)
            split = views_of(split, augment, count, seed)
            logits = predict_logits(teacher, split) if form != "nothing" else logits
        epochs = max(1, passes // count)
        if form == "nothing":
            training.train(student, split, epochs=epochs, **common)
        else:
            way = stored(form, k)
            size = count * way.bytes
            training.distill(student, way.logits(logits), split, epochs=epochs, loss=way.loss, **settings)
    return {"accuracy": metrics.accuracy(student, dataset.test), "bytes": size}


def _table(cells: Sequence[tuple[str, str, int]], seeds: Sequence[int], **sizes: int) -> pandas.DataFrame:
    grid = [{"views": views, "form": form, "k": k, "seed": seed} for seed in seeds for views, form, k in cells]
    return map_cells(functools.partial(trained, **sizes), grid)


@experiment("lesson07-targets")
def targets(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every way to store, on the test images."""
    return _table(arms(), seeds, **sizes)


def advised() -> list[tuple[str, str, int]]:
    """The arms that a piece of advice names: every number of views, every number of bits, one and three classes."""
    return [arm for arm in arms() if arm[1] == "32 bits" or (arm[0] == "0" and arm[2] in (0, 1, 3))]


@experiment("lesson07-targets-again")
def targets_again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """Some of them with ten other seeds."""
    return _table(advised(), seeds, **sizes)
