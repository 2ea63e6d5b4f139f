"""Lesson 07, augmentation: six kinds of views, for labels, and for a teacher that sees the view or only the image.

Of each image eight views are drawn once and stored, and forty passes' worth of steps made over them. Two cores take
about fifteen minutes.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from kdlib import metrics, models, training
from kdlib.data import ImageSplit
from kdlib.data.augment import random_crop_flip
from kdlib.experiments.lesson01 import fashion, known_logits
from kdlib.inference import predict_logits
from kdlib.lesson import results
from kdlib.lesson.results import experiment
from kdlib.sweeps import map_cells
from kdlib.training.augmentation import checked_augment, views_of

IMAGES, VIEWS, PASSES, BATCH_SIZE = 1000, 8, 40, 32
TUNING_SEEDS, SEEDS, AGAIN = range(100, 103), range(10), range(20, 30)
RATES = (0.02, 0.06, 0.18, 0.54)
TARGETS = ("labels", "teacher sees the view", "teacher sees the image")
GROUP = 100  # views whose mean probability is one draw of the spread


class Views(NamedTuple):
    """Views of images, and what may be learned of them.

    split: view v of image i in row i * views + v, with its label, or its soft label where images are mixed.
    blind: the logarithm of the teacher's probabilities on the images as they are, mixed as the images are.
    """

    split: ImageSplit
    blind: Tensor


AUGMENTS: dict[str, Callable | None] = {
    "none": None,
    "crop and flip": random_crop_flip(padding=2),
    "AutoAugment": v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
    "RandomErasing": v2.RandomErasing(p=0.3),
}


def mix_up(images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Each image with a share of another one, drawn from 0.2 to 0.4; returns the views and the shares."""
    share = 0.2 + 0.2 * torch.rand(len(images))
    weight = share.view(-1, 1, 1, 1)
    return (1 - weight) * images + weight * others, share


def cut_mix(images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Each image with a rectangle of another one (Yun et al. 2019, arXiv 1905.04899); returns the views and the shares,
    which are uniform but for the borders that cut them."""
    count, _, height, width = images.shape
    side = torch.rand(count).sqrt()
    middle = torch.rand(2, count)
    inside = [
        (torch.arange(size) - (place * size).view(-1, 1)).abs() < (side * size / 2).view(-1, 1)
        for size, place in zip((height, width), middle, strict=True)
    ]
    mask = (inside[0][:, :, None] & inside[1][:, None, :]).unsqueeze(1)
    return torch.where(mask, others, images), mask.double().mean(dim=(1, 2, 3)).float()


MIXES = {"MixUp": mix_up, "CutMix": cut_mix}
NAMES = (*AUGMENTS, *MIXES)


def draw_views(name: str, split: ImageSplit, logits: Tensor, seed: int, views: int = VIEWS) -> Views:
    """The stored views of one augmentation; `logits` are the teacher's of the images as they are."""
    repeated = torch.arange(len(split)).repeat_interleave(views)
    if name not in MIXES:
        augment = AUGMENTS[name]
        if augment is None:
            return Views(split.subset(repeated), logits.log_softmax(dim=1)[repeated])
        return Views(
            views_of(split, checked_augment(augment, split), views, seed), logits.log_softmax(dim=1)[repeated]
        )
    generator_state = torch.Generator().manual_seed(seed)
    partner = torch.cat([torch.randperm(len(split), generator=generator_state) for _ in range(views)])
    partner = partner.view(views, -1).T.flatten()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pixels, share = MIXES[name](split.images[repeated].float(), split.images[partner].float())
    share = share.unsqueeze(1)
    labels, sure = F.one_hot(split.labels, logits.shape[1]).float(), logits.softmax(dim=1)
    soft, blind = ((1 - share) * of[repeated] + share * of[partner] for of in (labels, sure))
    images = pixels.round().to(torch.uint8)
    return Views(
        ImageSplit(images, soft, split.indices[repeated], split.mean, split.std), blind.clamp(min=1e-30).log()
    )


def spread(probabilities: Tensor, group: int = GROUP) -> float:
    """The standard deviation of the teacher's mean probability (Wang et al. 2022, arXiv 2012.02909): of the means over
    groups of views, for each class; the mean over the classes."""
    groups = len(probabilities) // group
    means = probabilities[: groups * group].unflatten(0, (groups, group)).mean(dim=1)
    return means.std(dim=0).mean().item()


def spread_in_random_order(logits: Tensor, seed: int) -> float:
    """That of a teacher's logits on views, in an order drawn anew: stored views of one image lie side by side."""
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))
    return spread(logits[order].softmax(dim=1))


def trained(
    name: str, target: str, rate: float, seed: int, split: str, images: int = IMAGES, passes: int = PASSES
) -> Mapping[str, float]:
    """One student of one augmentation and target. `spread` is the teacher's on the student's views,
    where it sees them, else 0; `loss` the student's
    cross-entropy with the labels of the split."""
    dataset, teacher = fashion()
    transfer_set = dataset.train.take(images, seed=seed)
    views = draw_views(name, transfer_set, known_logits(teacher, transfer_set), seed)
    student = models.build("tiny-cnn", seed=seed)
    common = {
        "epochs": max(1, passes // VIEWS), "batch_size": BATCH_SIZE, "learning_rate": rate, "seed": seed,
        "progress": False,
    }  # fmt: skip
    width = 0.0
    if target == "labels":
        training.train(student, views.split, **common)
    else:
        logits = views.blind
        if target == "teacher sees the view":
            logits = predict_logits(teacher, views.split)
            width = spread_in_random_order(logits, seed)
        training.distill(student, logits, views.split, temperature=4.0, alpha=0.9, **common)
    judges = getattr(dataset, split)
    found = predict_logits(student, judges)
    return {
        "accuracy": metrics.accuracy(found, judges), "loss": F.cross_entropy(found, judges.labels).item(),
        "spread": width,
    }  # fmt: skip


def arms() -> list[tuple[str, str]]:
    """Every augmentation with every target; without one there is nothing that a teacher could miss."""
    return [(name, target) for name in NAMES for target in TARGETS if name != "none" or target != TARGETS[2]]


@experiment("lesson07-augmentation-tuning")
def augmentation_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """The learning rate, on the validation images."""
    cells = [
        {"name": name, "target": target, "rate": rate, "seed": seed, "split": "validation"}
        for seed in seeds
        for name, target in arms()
        for rate in RATES
    ]
    return map_cells(functools.partial(trained, **sizes), cells)


def best_of(tried: pandas.DataFrame, name: str, target: str) -> float:
    """The rate of one arm with the highest mean accuracy."""
    own = tried[(tried["name"] == name) & (tried["target"] == target)]
    return float(own.groupby("rate")["accuracy"].mean().idxmax())


def beyond() -> list[tuple[str, str, float]]:
    """The arms whose best rate is the lowest or the highest of the grid, with the next one beyond."""
    tried = results.read("lesson07-augmentation-tuning")
    further = {RATES[0]: round(RATES[0] / 3, 4), RATES[-1]: 3 * RATES[-1]}
    best = [(name, target, best_of(tried, name, target)) for name, target in arms()]
    return [(name, target, further[rate]) for name, target, rate in best if rate in further]


@experiment("lesson07-augmentation-edge-tuning")
def augmentation_edge_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """The same beyond the edges of that grid."""
    cells = [
        {"name": name, "target": target, "rate": rate, "seed": seed, "split": "validation"}
        for seed in seeds
        for name, target, rate in beyond()
    ]
    return map_cells(functools.partial(trained, **sizes), cells)


def best_rate(name: str, target: str) -> float:
    """The best on validation."""
    return best_of(
        pandas.concat(map(results.read, ("lesson07-augmentation-tuning", "lesson07-augmentation-edge-tuning"))),
        name,
        target,
    )


@experiment("lesson07-augmentation")
def augmentation(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Each at its best rate, on the test images."""
    cells = [
        {"name": name, "target": target, "rate": best_rate(name, target), "seed": seed, "split": "test"}
        for seed in seeds
        for name, target in arms()
    ]
    return map_cells(functools.partial(trained, **sizes), cells)


@experiment("lesson07-augmentation-again")
def augmentation_again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds."""
    return augmentation(seeds, **sizes)
