"""How the models on the shelf were made: for each name a function from the images to a network and its recipe."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from kdlib import models, teachers, training
from kdlib.data import ImageDataset, ImageSplit
from kdlib.deploy import compress

DATASET = "fashion-mnist"
# The views of an image: as it is or mirrored, and moved by one pixel in no direction or in one of four.
MOVES = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
# Epochs over ten views of every image: all but the two students that are trained for longer get ten passes.
FULL_TRAINING = {"epochs": 8, "batch_size": 128, "learning_rate": 6e-3}
TEN_PASSES = {**FULL_TRAINING, "epochs": 1}
FINE_TUNING = {**TEN_PASSES, "learning_rate": 2e-3}
CHANNELS_TAKEN_OUT = 0.75  # leaves the multiply-adds of the pocket-cnn
TEMPERATURE, ALPHA = 2.0, 0.9

Trained = tuple[nn.Module, dict[str, Any]]


def views(split: ImageSplit) -> ImageSplit:
    """Ten views of every image, one block of all images for each view.

    A teacher is asked once for each view, and its answers are kept: augmentation without asking in every step.

    Args:
        split: n images.

    Returns:
        10 n images with their labels and the same normalisation.

    Raises:
        TypeError: `split` is none.
    """
    if not isinstance(split, ImageSplit):
        raise TypeError(f"split must be an ImageSplit, got {type(split).__name__}")
    blocks = []
    for images in (split.images, split.images.flip(-1)):
        padded = F.pad(images, (1, 1, 1, 1))
        height, width = images.shape[-2:]
        blocks += [padded[:, :, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in MOVES]
    return ImageSplit(torch.cat(blocks), split.labels.repeat(len(blocks)), None, split.mean, split.std)


def _teacher(images: ImageDataset) -> Trained:
    return teachers.load(DATASET), {}


def _labels_only(images: ImageDataset) -> Trained:
    return _student(images, alpha=0.0)


def _distilled(images: ImageDataset) -> Trained:
    return _student(images, alpha=ALPHA)


def _distilled_briefly(images: ImageDataset) -> Trained:
    return _student(images, ALPHA, TEN_PASSES)


def _student(images: ImageDataset, alpha: float, schedule: dict = FULL_TRAINING) -> Trained:
    student, recipe = _taught(images, models.build("pocket-cnn", seed=0), alpha, schedule)
    return student, {"network": "pocket-cnn", **recipe}


def _taught(images: ImageDataset, network: nn.Module, alpha: float, schedule: dict) -> Trained:
    pool = views(images.train)
    logits = teachers.cached_logits(teachers.load(DATASET), pool)
    recipe = {"temperature": TEMPERATURE, "alpha": alpha, **schedule, "seed": 0}
    training.distill(network, logits, pool, **recipe)
    return network, {"images": len(images.train), "views": 2 * len(MOVES), **recipe}


def _sparse(images: ImageDataset) -> Trained:
    network, recipe = _taught(images, compress.sparsify(_network(), 0.8), ALPHA, FINE_TUNING)
    return compress.finish(network), {"zeros": 0.8, **recipe}


def _pruned(images: ImageDataset) -> Trained:
    network, recipe = _taught(images, _narrowed(), ALPHA, FINE_TUNING)
    return network, {"channels taken out": CHANNELS_TAKEN_OUT, **recipe}


def _low_rank(images: ImageDataset) -> Trained:
    network, recipe = _taught(images, compress.factorize(_network(), 0.8), ALPHA, FINE_TUNING)
    return network, {"energy kept": 0.8, **recipe}


def _carved(images: ImageDataset) -> Trained:
    network, recipe = _taught(images, compress.carve(_network(), _narrowed(), (1, 28, 28)), ALPHA, FINE_TUNING)
    return network, {"widths": "those of the pruned network", **recipe}


def _narrowed() -> nn.Module:
    return compress.prune_channels(_network(), CHANNELS_TAKEN_OUT, (1, 28, 28))


def _searched(images: ImageDataset) -> Trained:
    """Twelve plans as fast as the pocket-cnn, tried on few images; the best one is trained on all of them."""
    clock = compress.onnx_latency((1, 28, 28))
    allowed = {"multiply_adds": 2_500_000, "latency_budget": 1.2 * clock(models.build("pocket-cnn", seed=0))}
    few, judges = images.train.take(3000, seed=0), images.validation.take(2000, seed=0)
    trial = {"students": 12, "epochs": 4, "temperature": TEMPERATURE, "alpha": ALPHA, "seed": 0}
    found = compress.search_student(
        teachers.cached_logits(teachers.load(DATASET), few), few, judges, latency=clock, **allowed, **trial
    )
    torch.manual_seed(0)
    network, recipe = _taught(images, models.PocketCNN(plan=found.plan), ALPHA, TEN_PASSES)
    return network, {"plan": found.plan, "plans looked at": len(found.trials), "trial": trial, **recipe}


def _network() -> nn.Module:
    return teachers.load(DATASET).network


TRAINED: dict[str, Callable[[ImageDataset], Trained]] = {
    "teacher": _teacher,
    "labels-only": _labels_only,
    "distilled": _distilled,
    "distilled-briefly": _distilled_briefly,
    "sparse": _sparse,
    "pruned": _pruned,
    "low-rank": _low_rank,
    "carved": _carved,
    "searched": _searched,
}
