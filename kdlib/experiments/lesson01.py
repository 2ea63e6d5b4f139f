"""The experiments of lesson 01. The lesson runs them small; `kdlib record` runs them in full."""

import functools
from collections.abc import Sequence
from typing import Any

import pandas
import torch
from torch import Tensor

from kdlib import data, inference, metrics, models, teachers, training
from kdlib.data import ImageDataset, ImageSplit
from kdlib.data.augment import random_crop_flip
from kdlib.lesson.results import experiment
from kdlib.sweeps import map_cells

EPOCHS = 20
STEPS = 1500
LABELLED = 100
MISSING = "Ankle boot"
AUGMENTATIONS = {
    None: None,
    "shift and mirror": random_crop_flip(padding=2),
    "shift": random_crop_flip(padding=2, flip=False),
    "shift by one": random_crop_flip(padding=1, flip=False),
    "mirror": random_crop_flip(padding=0),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "labels only": {},
    "label smoothing": {"label_smoothing": 0.1},
    "distillation": {"temperature": 4.0, "alpha": 0.9},
}


@functools.cache
def fashion(full: bool = False) -> tuple[ImageDataset, torch.nn.Module]:
    """Images and teacher, loaded once in each process."""
    return data.load("fashion-mnist", full=full), teachers.load("fashion-mnist")


def one_student(method: str, seed: int, images: int, epochs: int) -> dict[str, float]:
    """One student of one method. Students of one seed share images, initial weights and order."""
    dataset, teacher = fashion()
    transfer_set = dataset.train.take(images, seed=seed)
    student = models.build("tiny-cnn", seed=seed)
    fit(student, teacher, transfer_set, epochs=epochs, seed=seed, **SETTINGS[method])
    logits = inference.predict_logits(student, dataset.test)
    return {
        "accuracy": metrics.accuracy(logits, dataset.test),
        "calibration_error": metrics.calibration_error(logits, dataset.test),
        "agreement": metrics.agreement(logits, teachers.cached_logits(teacher, dataset.test), dataset.test),
    }


def fit(student, teacher, transfer_set, *, augment: str | None = None, **settings) -> None:
    """Train from the teacher where `settings` name a temperature, else from the labels.

    augment: a name of `AUGMENTATIONS`. Labels get a new view in every step; the teacher answers once for each of
    eight fixed views an image, which does what new views do (lesson 07) and costs a fraction.
    """
    settings |= {"progress": False, "augment": AUGMENTATIONS[augment]}
    if "temperature" not in settings:
        training.train(student, transfer_set, **settings)
    elif augment is None:
        training.distill(student, known_logits(teacher, transfer_set), transfer_set, **settings)
    else:
        training.distill(student, teacher, transfer_set, views=8, **settings)


def known_logits(teacher, transfer_set: ImageSplit) -> Tensor:
    """The teacher's logits on some of the training images: computed once for all of them, looked up by index."""
    train = fashion()[0].train
    row_of = {index: row for row, index in enumerate(train.indices.tolist())}
    rows = [row_of[index] for index in transfer_set.indices.tolist()]
    return teachers.cached_logits(teacher, train)[rows]


# ------------------------------------------------------------------ a class that is missing


def without_one_class(method: str, seed: int, epochs: int) -> dict[str, float]:
    """A student whose 2,000 images lack one class: method is a name of `SETTINGS`, or "T = 4", the teacher alone.

    Measured is the missing class on the test split: as the student is ("raw"); after one number, the class's bias,
    was chosen for the best accuracy on the labelled validation split ("corrected"); and after a bias that makes the
    class as frequent as it is, a tenth of the validation images, which needs no label ("by share"). `validation`
    is the corrected accuracy there: what a temperature may be chosen by.
    """
    dataset, teacher = fashion()
    missing = dataset.classes.index(MISSING)
    others = dataset.train.subset((dataset.train.labels != missing).nonzero().flatten())
    if method in SETTINGS:
        settings = SETTINGS[method]
    else:
        settings = {"temperature": float(method.removeprefix("T = ")), "alpha": 1.0}
    student = models.build("tiny-cnn", seed=seed)
    fit(student, teacher, others.take(2000, seed=seed), epochs=epochs, seed=seed, **settings)
    known, fresh = (inference.predict_logits(student, split) for split in (dataset.validation, dataset.test))
    biases = {
        "raw": 0.0,
        "corrected": best_bias(known, dataset.validation, missing),
        "by share": share_bias(known, missing, share=1 / len(dataset.classes)),
    }
    row = {"validation": metrics.accuracy(known + biases["corrected"] * _one_hot(missing), dataset.validation)}
    for name, bias in biases.items():
        called = (fresh + bias * _one_hot(missing)).argmax(dim=1)
        right = (called == missing) & (dataset.test.labels == missing)
        row[f"recall, {name}"] = (right.sum() / (dataset.test.labels == missing).sum()).item()
        row[f"precision, {name}"] = (right.sum() / (called == missing).sum().clamp(min=1)).item()
        row[f"accuracy, {name}"] = (called == dataset.test.labels).double().mean().item()
    boots = fresh[dataset.test.labels == missing] + biases["corrected"] * _one_hot(missing)
    calls = boots.argmax(dim=1).bincount(minlength=len(dataset.classes)) / len(boots)
    return row | {"bias": biases["corrected"]} | dict(zip(dataset.classes, calls.tolist(), strict=True))


def best_bias(logits: Tensor, split: ImageSplit, target: int) -> float:
    """What to add to the logit of `target`, in steps of a quarter, for the best accuracy on `split`."""
    biases = [step / 4 for step in range(121)]
    return max(biases, key=lambda bias: metrics.accuracy(logits + bias * _one_hot(target), split))


def share_bias(logits: Tensor, target: int, share: float) -> float:
    """What to add to the logit of `target` so that this share of the images is called so. It looks at no label."""
    others = logits.masked_fill(_one_hot(target).bool(), -torch.inf).max(dim=1).values
    return (others - logits[:, target]).quantile(share).item()


def _one_hot(target: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(target), 10)


@experiment("lesson01-missing-class")
def missing_class(
    temperatures: Sequence[int] = (1, 2, 3, 4, 6, 8, 12, 16), seeds: Sequence[int] = range(10)
) -> pandas.DataFrame:
    """Recall of the missing class over the temperature, beside the two controls without a teacher."""
    methods = ["labels only", "label smoothing", *(f"T = {temperature}" for temperature in temperatures)]
    return map_cells(
        without_one_class, [{"method": method, "seed": seed, "epochs": EPOCHS} for method in methods for seed in seeds]
    )


# ------------------------------------------------------------------ images without labels


LABELS_ALONE: dict[str, dict[str, Any]] = {
    "labels only": {},
    "labels, moved images": {"augment": "shift and mirror"},
    "labels, smoothed": {"label_smoothing": 0.1},
    "labels, four times the rate": {"learning_rate": 0.04},
}


def with_unlabelled(method: str, unlabelled: int, seed: int, steps: int) -> dict[str, float]:
    """100 labelled images and a pool without labels. Labels alone use the first, the teacher (alpha = 1) both."""
    dataset, teacher = fashion()
    labelled = dataset.train.take(LABELLED, seed=seed)
    is_pool = ~torch.isin(dataset.train.indices, labelled.indices)
    pool = is_pool.nonzero().flatten()
    pool = pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))][:unlabelled]
    rows = torch.cat([(~is_pool).nonzero().flatten(), pool])
    epochs = max(1, round(steps / -(-len(rows) // 32)))  # the same number of steps for every size
    student = models.build("tiny-cnn", seed=seed)
    settings = LABELS_ALONE.get(method, {"temperature": 4.0, "alpha": 1.0})
    fit(student, teacher, dataset.train.subset(rows), epochs=epochs, seed=seed, **settings)
    return {"accuracy": metrics.accuracy(student, dataset.test)}


@experiment("lesson01-unlabelled")
def unlabelled(
    sizes: Sequence[int] = (0, 100, 300, 1000, 3000, 8900), seeds: Sequence[int] = range(10)
) -> pandas.DataFrame:
    """Test accuracy over the number of images without labels."""
    cells = [
        {"method": method, "unlabelled": size, "seed": seed, "steps": STEPS}
        for method, size in [*((name, 0) for name in LABELS_ALONE), *(("distillation", size) for size in sizes)]
        for seed in seeds
    ]
    return map_cells(with_unlabelled, cells)
