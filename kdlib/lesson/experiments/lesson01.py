"""The experiments of lesson 01. The lesson runs them small; `kdlib record` runs them in full."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import pandas
import torch
from torch import Tensor

from kdlib import data, inference, metrics, models, teachers, training
from kdlib.data import ImageDataset, ImageSplit
from kdlib.data.augment import random_crop_flip
from kdlib.lesson import results
from kdlib.lesson.results import experiment
from kdlib.sweeps import map_cells

EPOCHS = 20
STEPS = 1500
LABELLED = 100
MISSING = "Ankle boot"
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


def fit(student, teacher, transfer_set, *, augment: bool = False, **settings) -> None:
    """Train from the teacher where `settings` name a temperature, else from the labels."""
    settings |= {"progress": False, "augment": random_crop_flip(padding=2) if augment else None}
    if "temperature" in settings:
        source = teacher if augment else known_logits(teacher, transfer_set)
        training.distill(student, source, transfer_set, **settings)
    else:
        training.train(student, transfer_set, **settings)


def known_logits(teacher, transfer_set: ImageSplit) -> Tensor:
    """The teacher's logits on some of the training images: computed once for all of them, looked up by index."""
    train = fashion()[0].train
    row_of = {index: row for row, index in enumerate(train.indices.tolist())}
    rows = [row_of[index] for index in transfer_set.indices.tolist()]
    return teachers.cached_logits(teacher, train)[rows]


# ------------------------------------------------------------------ tuning, and the tuned comparison


def _labels_grid() -> list[dict[str, Any]]:
    plain = itertools.product((6e-3, 1e-2, 2e-2), (0.01, 0.1), (0.0, 0.1, 0.2), (False,))
    augmented = itertools.product((6e-3, 1e-2, 2e-2), (0.01,), (0.0, 0.1), (True,))
    names = ("learning_rate", "weight_decay", "label_smoothing", "augment")
    return [dict(zip(names, values, strict=True)) for values in [*plain, *augmented]]


def _distillation_grid() -> list[dict[str, Any]]:
    mixed = itertools.product((6e-3, 1e-2, 2e-2), (0.01, 0.1), (2.0, 4.0, 8.0), (0.9,))
    teacher_alone = itertools.product((6e-3, 1e-2, 2e-2), (0.01,), (4.0, 8.0), (1.0,))
    names = ("learning_rate", "weight_decay", "temperature", "alpha")
    return [dict(zip(names, values, strict=True)) for values in [*mixed, *teacher_alone]]


GRIDS = {"labels, tuned": _labels_grid(), "distillation, tuned": _distillation_grid()}


def on_validation(family: str, setting: int, seed: int, images: int = 1000, epochs: int = EPOCHS) -> dict[str, float]:
    """A student with the setting of that number in the family's grid, measured on the validation split."""
    dataset, teacher = fashion()
    student = models.build("tiny-cnn", seed=seed)
    transfer_set = dataset.train.take(images, seed=seed)
    fit(student, teacher, transfer_set, epochs=epochs, seed=seed, **GRIDS[family][setting])
    return {"validation_accuracy": metrics.accuracy(student, dataset.validation)}


@experiment("lesson01-tuning")
def tuning(seeds: Sequence[int] = range(100, 105)) -> pandas.DataFrame:
    """As many settings for the labels as for distillation, with seeds that no reported result uses."""
    cells = [
        {"family": family, "setting": setting, "seed": seed}
        for family, grid in GRIDS.items()
        for setting in range(len(grid))
        for seed in seeds
    ]
    return map_cells(on_validation, cells)


def best_setting(family: str) -> dict[str, Any]:
    """The setting with the highest mean validation accuracy in the recorded tuning."""
    table = results.read("lesson01-tuning")
    means = table[table["family"] == family].groupby("setting")["validation_accuracy"].mean()
    return GRIDS[family][int(means.idxmax())]


def one_tuned_student(method: str, seed: int, images: int, epochs: int) -> dict[str, float]:
    """As `one_student`, also for the two winners of the tuning."""
    if method in GRIDS:
        SETTINGS[method] = best_setting(method)
    return one_student(method, seed, images, epochs)


@experiment("lesson01-gain")
def gain(seeds: Sequence[int] = range(10)) -> pandas.DataFrame:
    """Test accuracy of every method, and of the winners of the tuning, on the same images and budget."""
    cells = [
        {"method": method, "seed": seed, "images": 1000, "epochs": EPOCHS}
        for method in [*SETTINGS, *GRIDS]
        for seed in seeds
    ]
    return map_cells(one_tuned_student, cells)


# ------------------------------------------------------------------ a class that is missing


def without_one_class(method: str, seed: int, epochs: int) -> dict[str, float]:
    """A student whose 2,000 images lack one class: method is a name of `SETTINGS`, or "T = 4", the teacher alone.

    `recall` is that of the missing class, `corrected` the recall after one number, the class's bias, has been
    raised by what serves the accuracy on the validation split best.
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
    bias = best_bias(inference.predict_logits(student, dataset.validation), dataset.validation, missing)
    logits = inference.predict_logits(student, dataset.test)[dataset.test.labels == missing]
    before, after = _calls(logits), _calls(logits + bias * _one_hot(missing))
    shares = dict(zip(dataset.classes, after.tolist(), strict=True))
    return {"recall": before[missing].item(), "corrected": after[missing].item(), "bias": bias} | shares


def best_bias(logits: Tensor, split: ImageSplit, target: int) -> float:
    """What to add to the logit of `target`, in steps of a quarter, for the best accuracy on `split`."""
    biases = [step / 4 for step in range(121)]
    return max(biases, key=lambda bias: metrics.accuracy(logits + bias * _one_hot(target), split))


def _one_hot(target: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(target), 10)


def _calls(logits: Tensor) -> Tensor:
    """What the images are called: a share for each class."""
    return logits.argmax(dim=1).bincount(minlength=logits.shape[1]) / len(logits)


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


def with_unlabelled(method: str, unlabelled: int, seed: int, steps: int) -> dict[str, float]:
    """100 labelled images and a pool without labels. Labels only uses the first, the teacher (alpha = 1) both."""
    dataset, teacher = fashion()
    labelled = dataset.train.take(LABELLED, seed=seed)
    is_pool = ~torch.isin(dataset.train.indices, labelled.indices)
    pool = is_pool.nonzero().flatten()
    pool = pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))][:unlabelled]
    rows = torch.cat([(~is_pool).nonzero().flatten(), pool])
    epochs = max(1, round(steps / -(-len(rows) // 32)))  # the same number of steps for every size
    student = models.build("tiny-cnn", seed=seed)
    settings = {"temperature": 4.0, "alpha": 1.0} if method == "distillation" else {}
    fit(student, teacher, dataset.train.subset(rows), epochs=epochs, seed=seed, **settings)
    return {"accuracy": metrics.accuracy(student, dataset.test)}


@experiment("lesson01-unlabelled")
def unlabelled(
    sizes: Sequence[int] = (0, 100, 300, 1000, 3000, 8900), seeds: Sequence[int] = range(10)
) -> pandas.DataFrame:
    """Test accuracy over the number of images without labels."""
    cells = [
        {"method": method, "unlabelled": size, "seed": seed, "steps": STEPS}
        for method, size in [("labels only", 0), *(("distillation", size) for size in sizes)]
        for seed in seeds
    ]
    return map_cells(with_unlabelled, cells)


# ------------------------------------------------------------------ where it hurts


def few_epochs(method: str, epochs: int, seed: int) -> dict[str, float]:
    """9,000 labelled images in large batches, a few times: labels only, or a name such as "T = 4" (alpha 0.9)."""
    dataset, teacher = fashion()
    settings = {} if method == "labels only" else {"temperature": float(method.removeprefix("T = ")), "alpha": 0.9}
    student = models.build("tiny-cnn", seed=seed)
    fit(student, teacher, dataset.train, epochs=epochs, batch_size=128, seed=seed, **settings)
    return {"accuracy": metrics.accuracy(student, dataset.test)}


@experiment("lesson01-hurts")
def hurts(epochs: Sequence[int] = (1, 2, 4, 8), seeds: Sequence[int] = range(10)) -> pandas.DataFrame:
    """Test accuracy over the number of epochs on all images, with and without the teacher."""
    methods = ("labels only", "T = 2", "T = 4")
    cells = [{"method": m, "epochs": e, "seed": seed} for m in methods for e in epochs for seed in seeds]
    return map_cells(few_epochs, cells)
