"""Many students: every temperature and alpha with every seed, on all cores or on a Dask cluster."""

import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import models
from kdlib._checks import all_finite, checked, fraction, positive_integer, positive_number
from kdlib.data import ImageSplit
from kdlib.inference import predict_logits
from kdlib.losses import soft_target_loss
from kdlib.sweeps import arguments, mapping
from kdlib.sweeps.backends import Cell
from kdlib.sweeps.journal import Row, recorded_setting
from kdlib.sweeps.mapping import CellProgress, iterate_cells, map_cells
from kdlib.sweeps.trainer import MOST_TOGETHER, Builder, StudentTrainer, even_groups
from kdlib.teachers import cached_logits
from kdlib.training import LEARNING_RATE, WEIGHT_DECAY, checks
from kdlib.training.augmentation import checked_augment
from kdlib.training.loop import Recipe
from kdlib.training.objectives import DistillationObjective, Loss, TaskLoss
from kdlib.training.progress import progress_rule
from kdlib.training.schedules import constant
from kdlib.training.teacher import Teacher

__all__ = ["iterate", "iterate_cells", "map_cells", "run"]

SETTINGS = ["temperature", "alpha", "seed"]
OPTIONS = ("epochs", "batch_size", "learning_rate", "weight_decay", "augment", "mix", "views", "bfloat16")


@checked(
    student=arguments.name_or_builder, teacher=checks.teacher_rule, split=checks.split_rule, test=checks.split_rule,
    temperatures=arguments.list_of(positive_number), alphas=arguments.list_of(fraction),
    seeds=arguments.list_of(arguments.seed), epochs=positive_integer,
    workers=mapping.workers_rule, results=checks.file_rule,
)  # fmt: skip
def run(
    student: str | Builder,
    teacher: nn.Module | Float[Tensor, "_n _classes"],
    split: ImageSplit,
    test: ImageSplit,
    *,
    temperatures: Iterable[float | int],
    alphas: Iterable[float | int],
    seeds: Iterable[int],
    epochs: int,
    workers: int | None = None,
    client: Any = None,
    results: str | Path | None = None,
    **options: Any,
) -> pandas.DataFrame:
    """Distil one student for every temperature, alpha and seed, and measure each on `test`.

    Students of one seed are paired: they begin with the same weights and see the same images in the same
    order, whatever their temperature and alpha, so compare them by `kdlib.metrics.paired_interval` over the
    seeds. Settings are to be chosen with a validation split as `test`.

    alpha = 0 is the label-only control. It has no temperature: it is trained once a seed, as by
    `kdlib.training.train`, and its row is repeated for every temperature.

    Returns a table with a row for every (temperature, alpha, seed), the seed changing fastest;
    `table.attrs["precision"]` says in which precision the students were computed ("float32" or "bfloat16"):
        temperature, alpha, seed   as asked for
        accuracy, ece              on `test`, fractions (`kdlib.metrics.accuracy` and `calibration_error`)
        agreement                  with the teacher on `test`; NaN where its logits there are unknown
        mean_average_precision, roc_auc   in place of these three, where images have several labels
        seconds                    of computing that its training took, on one core

    A student that fails (its loss is not finite, say) does not stop the others: a warning shows its settings
    and the traceback, and its row has no results but the `error`, a column there only where something failed.

    Args:
        student: a name for `kdlib.models.build`, or a function without arguments that builds a network (it
            may be defined in a notebook). Initial weights are those after torch.manual_seed(seed).
        teacher: a module, or its logits on `split`.
        split, test: the images to train on and to measure on.
        temperatures, alphas, seeds: the grid; T > 0, alpha in [0, 1], no value twice.
        epochs: passes over `split`.
        workers, client, results: as `kdlib.sweeps.mapping.iterate_cells`. Only training runs there: the teacher's
            logits are computed once, in this process.
        options: as `iterate`.

    Raises:
        ValueError: an empty or repeated list, a value out of its range, a student or a teacher that does not
            fit the images; before anything starts. Also as `iterate_cells`.
        RuntimeError: every student failed.
    """
    rows = iterate(
        student, teacher, split, test, temperatures=temperatures, alphas=alphas, seeds=seeds, epochs=epochs,
        workers=workers, client=client, results=results, **options,
    )  # fmt: skip
    grid = itertools.product(temperatures, alphas, seeds)
    table = mapping.table(rows, [dict(zip(SETTINGS, cell, strict=True)) for cell in grid])
    table.attrs["precision"] = rows.precision
    return table


@checked(
    student=arguments.name_or_builder, teacher=checks.teacher_rule, split=checks.split_rule, test=checks.split_rule,
    temperatures=arguments.list_of(positive_number), alphas=arguments.list_of(fraction),
    seeds=arguments.list_of(arguments.seed),
    workers=mapping.workers_rule, results=checks.file_rule, test_logits=arguments.optional_logits,
    progress=progress_rule, **{name: checks.training_rules[name] for name in OPTIONS},
)  # fmt: skip
def iterate(
    student: str | Builder,
    teacher: nn.Module | Float[Tensor, "_n _classes"],
    split: ImageSplit,
    test: ImageSplit,
    *,
    temperatures: Iterable[float | int],
    alphas: Iterable[float | int],
    seeds: Iterable[int],
    epochs: int,
    batch_size: int = 32,
    learning_rate: float | int = LEARNING_RATE,
    weight_decay: float | int = WEIGHT_DECAY,
    loss: Loss = soft_target_loss,
    task_loss: TaskLoss = F.cross_entropy,
    augment: Callable[[Tensor], Tensor] | None = None,
    mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    views: int | None = None,
    bfloat16: bool | None = None,
    test_logits: Float[Tensor, "_n_test _classes"] | None = None,
    workers: int | None = None,
    client: Any = None,
    results: str | Path | None = None,
    progress: bool | CellProgress = True,
    stop: threading.Event | None = None,
) -> "Rows":
    """The rows of `run` one by one, as students finish: for a surface that fills while a class watches.

    Controls (alpha = 0) come first. Closing the iterator, or a KeyboardInterrupt, ends the sweep at once.

    Args:
        batch_size, learning_rate, weight_decay, loss, task_loss, augment, mix, views, bfloat16: as
            `kdlib.training.distill`. With `augment` or `mix` the teacher must be a module, and is asked about every
            view. bfloat16=None chooses by a short measurement (`kdlib.sweeps.precision`); a sweep that goes on from
            `results` keeps its precision.
        test_logits: a teacher's logits on `test`, for the agreement where `teacher` is given by its logits.
        progress: as `kdlib.sweeps.mapping.iterate_cells`; counts students trained.
        stop: an event that ends the sweep once it is set, from another thread than the one that iterates: as
            closing the iterator does, within a second where worker processes compute.
        and all others: as `run`.

    Raises:
        ValueError: as `run`, at the call.
    """
    temperatures = arguments.numbers("temperatures", temperatures, positive_number)
    alphas = arguments.numbers("alphas", alphas, fraction)
    seeds = arguments.numbers("seeds", seeds, arguments.seed)
    recipe = Recipe(
        epochs,
        batch_size,
        learning_rate,
        weight_decay,
        seed=0,
        bfloat16=False,
        augment=augment,
        mix=mix,
        views=views,
    )
    if bfloat16 is None and results is not None:
        bfloat16 = recorded_setting(results, "bfloat16")
    students = _students(student, teacher, split, test, test_logits, recipe, (loss, task_loss), bfloat16)
    grid = _cells(temperatures, alphas, seeds)
    groups = even_groups(grid, mapping.processes(workers, client), MOST_TOGETHER if students.together else 1)
    rows = mapping.iterate_groups(
        students, groups, settings=students.settings() if results is not None else {},
        workers=workers, client=client, results=results, progress=progress, stop=stop,
    )  # fmt: skip
    return Rows(_repeat_controls(rows, temperatures), "bfloat16" if students.recipe.bfloat16 else "float32")


class Rows(Iterator[Row]):
    """The rows of a sweep as they come; `precision` is "float32" or "bfloat16", that of its forward passes."""

    def __init__(self, rows: Iterator[Row], precision: str):
        self._rows, self.precision = rows, precision

    def __next__(self) -> Row:
        return next(self._rows)

    def close(self) -> None:
        """End the sweep: drop what has not finished."""
        self._rows.close()


def _students(
    student: str | Builder,
    teacher: nn.Module | Tensor,
    split: ImageSplit,
    test: ImageSplit,
    test_logits: Tensor | None,
    recipe: Recipe,
    losses: tuple[Loss, TaskLoss],
    bfloat16: bool | None,
) -> StudentTrainer:
    """The student's and the teacher's part of a sweep, checked against the images."""
    if isinstance(teacher, nn.Module):
        if test_logits is not None:
            raise ValueError("test_logits is for a teacher given by its logits; this teacher is a module")
        test_logits = cached_logits(teacher, test, device="cpu")
        logits = cached_logits(teacher, split, device="cpu")
    else:
        logits = teacher
    for name, rows, images in (("teacher", logits, split), ("test_logits", test_logits, test)):
        if rows is not None and (rows.ndim != 2 or len(rows) != len(images)):
            raise ValueError(
                f"{name} must be logits with a row for each of the {len(images)} images, "
                f"got shape {tuple(rows.shape)}"
            )
    if test_logits is not None:
        all_finite("test_logits", test_logits)
        if test_logits.shape[1] != logits.shape[1]:
            raise ValueError(
                f"test_logits must have the teacher's {logits.shape[1]} classes, got shape {tuple(test_logits.shape)}"
            )
    if recipe.mix is None and recipe.augment is None:
        teacher = logits
    builder = _builder(student, split, logits.shape[1])
    students = StudentTrainer(builder, teacher, split, test, test_logits, recipe, *losses)
    network = _checked_student(students, logits.shape[1])
    _check_losses(students, network)
    students = replace(students, together=students.can_be_grouped())
    if bfloat16 is None:
        bfloat16 = students.faster_in_bfloat16()
    return replace(students, recipe=replace(recipe, bfloat16=bfloat16))


def _builder(student: str | Builder, split: ImageSplit, classes: int) -> Builder:
    if isinstance(student, str):
        _, channels, height, _ = split.images.shape
        return functools.partial(
            models.build, student, num_classes=classes, in_channels=channels, image_size=height
        )
    return student


def _checked_student(students: StudentTrainer, classes: int) -> nn.Module:
    """A student, after it has processed two images of each split."""
    with torch.random.fork_rng(devices=[]):
        first, second = students.build(), students.build()
    if not isinstance(first, nn.Module):
        raise ValueError(f"student must build a torch.nn.Module, got {type(first).__name__}")
    if first is second:
        raise ValueError("student must build a new network at each call, got the same one twice")
    if {id(parameter) for parameter in first.parameters()} & {
        id(parameter) for parameter in second.parameters()
    }:
        raise ValueError("student must build new weights at each call, got two networks that share some")
    for name, images in (("split", students.split), ("test", students.test)):
        shape = predict_logits(first, images.subset(slice(2)), device="cpu").shape
        if shape[1] != classes:
            raise ValueError(
                f"student and teacher must have the same classes: student logits have shape "
                f"(batch, {shape[1]}), teacher logits (batch, {classes})"
            )
        if not images.has_classes:
            _refuse_unscored(name, images, classes)
        elif images.labels.max() >= classes:
            raise ValueError(f"{name} has labels up to {images.labels.max()}, the teacher {classes} classes")
    return first


def _refuse_unscored(name: str, images: ImageSplit, classes: int) -> None:
    """Several labels an image are scored class by class, where each is there or is not."""
    if images.labels.shape[1] != classes:
        raise ValueError(
            f"{name} has labels of shape {tuple(images.labels.shape)}, the teacher {classes} classes"
        )
    if name == "test" and not ((images.labels == 0) | (images.labels == 1)).all():
        raise ValueError("test must have labels that are 0 or 1, or class numbers, got soft labels")


def _check_losses(students: StudentTrainer, network: nn.Module) -> None:
    """Try the losses on two images, before workers are started."""
    two, device, recipe = students.split.subset(slice(2)), torch.device("cpu"), students.recipe
    checks.check_task_loss(students.task_loss, students.split)
    if recipe.augment is not None:
        recipe = replace(recipe, augment=checked_augment(recipe.augment, two))
    batches = recipe.batches(two, device)
    source = students.teacher if isinstance(students.teacher, nn.Module) else students.teacher[:2]
    answers = Teacher(source, batches)
    objective = DistillationObjective(
        answers, constant(1.0), constant(0.5), students.loss, students.task_loss
    )
    checks.check_losses(objective, batches, predict_logits(network, two, device=device))


def _cells(temperatures: list[float], alphas: list[float], seeds: list[int]) -> list[Cell]:
    """The students to train: controls first and without temperature; the seeds of a setting side by side."""
    settings = [(None, 0.0)] if 0 in alphas else []
    settings += itertools.product(temperatures, [alpha for alpha in alphas if alpha > 0])
    return [
        {"temperature": temperature, "alpha": alpha, "seed": seed}
        for temperature, alpha in settings
        for seed in seeds
    ]


def _repeat_controls(rows: Iterator[Row], temperatures: list[float]) -> Iterator[Row]:
    for row in rows:
        repeated = temperatures if row["temperature"] is None else [row["temperature"]]
        yield from (row | {"temperature": temperature} for temperature in repeated)
