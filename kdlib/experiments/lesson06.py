"""The experiments of lesson 06: networks cut from the teacher and others of their size, with equal passes for each.

All learn from the 9,000 training images of the course, in one order a seed. Two cores take about fifty minutes.
"""

import functools
from collections.abc import Callable, Iterable, Sequence

import pandas
import torch
from torch import nn

from kdlib import data, inference, metrics, models, teachers, training
from kdlib.data import ImageDataset, ImageSplit
from kdlib.deploy import compress, footprint
from kdlib.lesson import results
from kdlib.lesson.laboratory_networks import with_fresh_weights
from kdlib.lesson.results import experiment
from kdlib.sweeps import map_cells

SHAPE = (1, 28, 28)
TEMPERATURE = 2.0
ALPHA = {"teacher": 0.9, "labels": 0.0}
BATCH_SIZE = 64
PASSES, TUNING_PASSES, STRENGTH_PASSES = 10, 4, 2
ZEROS, TAKEN_OUT, ENERGY = 0.8, 0.75, 0.8  # three quarters of the channels leave the multiply-adds of the pocket-cnn
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
HIGHER_RATE = 1e-1  # for the pocket-cnn, whose best lay on the edge of the others
TUNING_SEEDS, SEEDS, FEWER_SEEDS = range(100, 103), range(10), range(5)
EQUAL = ("pruned", "carved", "random start", "pocket-cnn")  # with equal multiply-adds
LARGER = ("sparse", "low-rank")  # and with those of the teacher, or half of them
STRENGTHS = {
    "sparse": (0.5, 0.7, 0.8, 0.9, 0.95),
    "pruned": (0.25, 0.5, 0.625, 0.75, 0.875),
    "low-rank": (0.9, 0.8, 0.7, 0.6, 0.5),
}


@functools.cache
def fashion() -> tuple[ImageDataset, nn.Module]:
    """The images, and the network of the teacher; loaded once in each process."""
    return data.load("fashion-mnist"), teachers.load("fashion-mnist").network


@functools.cache
def answers(images: int) -> tuple[ImageSplit, torch.Tensor]:
    """So many training images, and the teacher's logits of them."""
    dataset, _ = fashion()
    split = dataset.train.subset(torch.arange(min(images, len(dataset.train))))
    return split, teachers.cached_logits(teachers.load("fashion-mnist"), split)


@functools.cache
def pruned(share: float = TAKEN_OUT) -> nn.Module:
    return compress.prune_channels(fashion()[1], share, SHAPE)


BUILD: dict[str, Callable[..., nn.Module]] = {
    "sparse": lambda seed, strength=ZEROS: compress.sparsify(fashion()[1], strength),
    "low-rank": lambda seed, strength=ENERGY: compress.factorize(fashion()[1], strength),
    "pruned": lambda seed, strength=TAKEN_OUT: compress.finish(pruned(strength)),
    "carved": lambda seed: compress.carve(fashion()[1], pruned(), SHAPE),
    "random start": lambda seed: with_fresh_weights(pruned(), seed),
    "pocket-cnn": lambda seed: models.build("pocket-cnn", seed=seed),
}


def network(method: str, seed: int = 0, **strength: float) -> nn.Module:
    """What a method begins with. Those that inherit the teacher's weights are the same for every seed.

    Args:
        method: a name of `BUILD`.
        seed: of the weights, where they are drawn.
        strength: one of `STRENGTHS`, where there is another than the usual one.
    """
    return BUILD[method](seed, **strength)


def fitted(network: nn.Module, *, target: str, passes: int, rate: float, seed: int, images: int = 9000) -> nn.Module:
    """The network after so many passes, with soft targets of the teacher (T = 2, alpha = 0.9) or labels alone."""
    split, logits = answers(images)
    training.distill(
        network, logits, split, epochs=passes, batch_size=BATCH_SIZE, learning_rate=rate, seed=seed,
        temperature=TEMPERATURE, alpha=ALPHA[target], progress=False,
    )  # fmt: skip
    return network.eval()


def counted(network: nn.Module) -> dict[str, int]:
    """Its parameters, and the multiply-adds of one image."""
    return {"parameters": footprint.parameters(network), "multiply_adds": footprint.multiply_adds(network, SHAPE)}


def accuracy(
    method: str, target: str, passes: int, rate: float, seed: int, split: str, images: int = 9000, **strength: float
) -> dict[str, float | int]:
    """One network of one method: what it takes, and its accuracy after its last pass."""
    student = network(method, seed, **strength)
    size = counted(student)
    work = footprint.training_multiply_adds(size["multiply_adds"], images, passes)
    fitted(student, target=target, passes=passes, rate=rate, seed=seed, images=images)
    judges = getattr(fashion()[0], split)
    right = metrics.accuracy(inference.predict_logits(compress.finish(student), judges), judges)
    return {**size, "training_multiply_adds": work, "accuracy": right}


@experiment("lesson06-tuning")
def tuning(
    seeds: Iterable[int] = TUNING_SEEDS, passes: int = TUNING_PASSES, images: int = 9000
) -> pandas.DataFrame:
    """The learning rate of each method and target, on validation images, with seeds and passes of its own."""
    cells = [
        {"method": method, "target": target, "passes": passes, "rate": rate, "seed": seed, "split": "validation"}
        for seed in seeds
        for method in EQUAL
        for target in ALPHA
        for rate in RATES
    ]
    return map_cells(functools.partial(accuracy, images=images), cells)


@experiment("lesson06-edge-tuning")
def edge_tuning(
    seeds: Iterable[int] = TUNING_SEEDS, passes: int = TUNING_PASSES, images: int = 9000
) -> pandas.DataFrame:
    """The same with a higher rate for the one method whose best was the highest that had been tried."""
    cells = [
        {
            "method": "pocket-cnn", "target": target, "passes": passes, "rate": HIGHER_RATE, "seed": seed,
            "split": "validation",
        }
        for seed in seeds
        for target in ALPHA
    ]  # fmt: skip
    return map_cells(functools.partial(accuracy, images=images), cells)


def tuned() -> pandas.DataFrame:
    """All that was tried on validation."""
    return pandas.concat(map(results.read, ("lesson06-tuning", "lesson06-edge-tuning")), ignore_index=True)


def chosen_rate(method: str, target: str) -> float:
    """The best rate on validation. The two large networks take that of the pruned one, which inherits as they do."""
    tried = tuned()
    tried = tried[tried["method"] == ("pruned" if method in LARGER else method)]
    return float(tried[tried["target"] == target].groupby("rate")["accuracy"].mean().idxmax())


def compared(seeds: Sequence[int], fewer_seeds: Sequence[int], passes: int) -> list[dict]:
    """Every method with equal passes; those of equal size also with more and fewer; labels with three times as many."""
    settings = [(method, target, passes, seeds) for method in EQUAL for target in ALPHA]
    settings += [(method, "teacher", passes, fewer_seeds) for method in LARGER]
    settings += [(method, "teacher", few, seeds) for method in EQUAL for few in (1, 3)]
    settings += [(method, "teacher", 3 * passes, fewer_seeds) for method in EQUAL]
    settings += [(method, "labels", 3 * passes, fewer_seeds) for method in ("pruned", "pocket-cnn")]
    return [
        {
            "method": method, "target": target, "passes": count, "rate": chosen_rate(method, target), "seed": seed,
            "split": "test",
        }
        for method, target, count, own in settings
        for seed in own
    ]  # fmt: skip


@experiment("lesson06-methods")
def methods(
    seeds: Sequence[int] = SEEDS, fewer_seeds: Sequence[int] = FEWER_SEEDS, passes: int = PASSES, images: int = 9000
) -> pandas.DataFrame:
    """The table of the lesson: accuracy on the test images, for each method, target, number of passes and seed."""
    return map_cells(functools.partial(accuracy, images=images), compared(seeds, fewer_seeds, passes))


@experiment("lesson06-strengths")
def strengths(
    seeds: Sequence[int] = FEWER_SEEDS, passes: int = STRENGTH_PASSES, images: int = 9000
) -> pandas.DataFrame:
    """The methods that have a strength, at five strengths, after few passes towards the teacher."""
    cells = [
        {
            "method": method, "strength": strength, "target": "teacher", "passes": passes,
            "rate": chosen_rate(method, "teacher"), "seed": seed, "split": "test",
        }
        for seed in seeds
        for method, several in STRENGTHS.items()
        for strength in several
    ]  # fmt: skip
    return map_cells(functools.partial(accuracy, images=images), cells)
