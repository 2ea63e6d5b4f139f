"""What a training is asked to do, checked once, before anything is trained."""

import os
import warnings
from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from kdlib import _checks, metrics
from kdlib.data import ImageDataset, ImageSplit
from kdlib.data.items import as_split
from kdlib.inference import (
    device_rule,
    evaluating,
    network_rule,
    optional_count_rule,
    precision_of,
    predict_logits,
    switch,
)
from kdlib.training import schedules
from kdlib.training.batches import Batch, Batches
from kdlib.training.calls import wanted
from kdlib.training.objectives import DistillationObjective, TaskLoss
from kdlib.training.progress import progress_rule

_EPSILON = 1e-3  # by which the labels of an image may miss a sum of 1


def split_rule(name: str, value: Any) -> ImageSplit:
    """A rule for `kdlib._checks.checked`: images with labels, or a torch data set of such."""
    if isinstance(value, ImageDataset):
        raise ValueError(
            f"{name} must be an ImageSplit, got an ImageDataset: take its .train, .validation or .test"
        )
    if isinstance(value, Dataset):
        return as_split(value)
    if not isinstance(value, ImageSplit):
        raise TypeError(f"{name} must be an ImageSplit or a torch Dataset, got {type(value).__name__}")
    return value


def optional_split_rule(name: str, value: Any) -> ImageSplit | None:
    """Likewise, or None."""
    return None if value is None else split_rule(name, value)


def function_rule(name: str, value: Any) -> Callable:
    """A rule: a function, such as a loss."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {type(value).__name__} {value!r:.80}")
    return value


def optional_function_rule(name: str, value: Any) -> Callable | None:
    """Likewise, or None."""
    return None if value is None else function_rule(name, value)


def seed_rule(name: str, value: Any) -> int:
    """A rule: a whole number of either sign."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {type(value).__name__} {value!r}")
    return int(value)


def file_rule(name: str, value: Any) -> Path | None:
    """A rule: a file that can be written once an epoch is done, or None."""
    path = _path(name, value)
    if path is None:
        return None
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{name} must be a file, got {str(path)!r}, which is something else: name another")
    if path.is_dir():
        raise ValueError(f"{name} must be a file, got the folder {str(path)!r}: name a file in it")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"{name}={str(path)!r} cannot be written: {str(folder)!r} is no folder of yours")
    return path


def folder_rule(name: str, value: Any) -> Path | None:
    """A rule: a folder, which need not exist, or None."""
    path = _path(name, value)
    if path is not None and path.exists() and not path.is_dir():
        raise ValueError(f"{name} must be a folder, got the file {str(path)!r}")
    return path


def _path(name: str, value: Any) -> Path | None:
    if value is not None and not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {type(value).__name__} {value!r:.80}")
    return None if value is None else Path(value)


def schedule_rule(name: str, value: Any) -> float | schedules.Schedule:
    """A rule: a number in its range, or a schedule of such numbers."""
    schedule = schedules.as_schedule(value, name=name)
    return value if callable(value) else schedule(0.0)


def optional_boolean_rule(name: str, value: Any) -> bool | None:
    """A rule: True, False, or None."""
    return None if value is None else _checks.boolean(name, value)


# NumPy's numbers become Python's: a checkpoint holds these, and they do not overflow.
training_rules = {
    "epochs": _checks.positive_integer,
    "batch_size": _checks.positive_integer,
    "learning_rate": _checks.positive_number,
    "weight_decay": _checks.non_negative_number,
    "seed": seed_rule,
    "views": optional_count_rule,
    "augment": optional_function_rule,
    "mix": optional_function_rule,
    "checkpoint": file_rule,
    "log_dir": folder_rule,
    "progress": progress_rule,
    "bfloat16": optional_boolean_rule,
    "device": device_rule,
}


def teacher_rule(name: str, value: Any) -> nn.Module | Tensor:
    """A rule: a network, or its logits as a tensor or NumPy array."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        # A copy: torch cannot share numbers that are read-only or have their bytes swapped.
        value = torch.from_numpy(value.astype(np.float32))
    if isinstance(value, Tensor | np.ndarray):
        if value.ndim != 2 or isinstance(value, np.ndarray) or not value.is_floating_point():
            raise ValueError(
                f"{name} must be a module, or floating-point logits (n, classes), got {value.dtype} of shape "
                f"{tuple(value.shape)}"
            )
        if value.is_meta or value.layout != torch.strided:
            raise ValueError(
                f"{name} must be dense logits with numbers, got {value.layout} on {value.device}"
            )
        _checks.all_finite(f"{name} logits", value)
        return value
    if isinstance(value, nn.Module | type | torch.export.ExportedProgram):
        return network_rule(name, value)
    hint = "; make one of several by kdlib.teachers.combine" if isinstance(value, list | tuple) else ""
    raise TypeError(f"{name} must be a torch.nn.Module or its logits, got {type(value).__name__}{hint}")


def refuse_same(student: nn.Module, teacher: nn.Module | Tensor) -> None:
    """A network cannot teach itself while it changes, nor while parts of it change."""
    if student is teacher:
        raise ValueError(
            "student and teacher are the same object; a network cannot teach itself while it changes"
        )
    if isinstance(teacher, nn.Module):
        trained = {id(parameter) for parameter in student.parameters() if parameter.requires_grad}
        if any(id(parameter) in trained for parameter in teacher.parameters()):
            raise ValueError(
                "student and teacher share weights that would be trained: copy.deepcopy the teacher, or freeze them"
            )
        taught = {id(module) for module in teacher.modules()}
        norms = [m for m in student.modules() if isinstance(m, _BatchNorm) and (m.training or not m.affine)]
        if any(id(norm) in taught for norm in norms):
            raise ValueError(
                "student and teacher share batch norm whose statistics would move: copy.deepcopy the teacher, or "
                "call .eval() on what they share"
            )


def check_student(student: nn.Module, split: ImageSplit, device: torch.device) -> Tensor:
    """The student's logits of two images, (2, classes)."""
    if not torch.is_grad_enabled():
        raise ValueError(
            "training needs gradients: call it outside torch.no_grad() and torch.inference_mode()"
        )
    if len(split) < 2:
        raise ValueError(f"split must hold at least 2 images to train on, got {len(split)}")
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise ValueError("the model has no weights that take a gradient: nothing would be trained")
    if (precision := precision_of(student)) != torch.float32:
        raise ValueError(
            f"the model's weights are {precision}: train them in float32, by model.float(); bfloat16=True computes the "
            "forward pass in less"
        )
    if any(parameter.is_inference() for parameter in student.parameters()):
        raise ValueError(
            "the model was made under torch.inference_mode(), and such weights cannot be trained: build it outside"
        )
    with evaluating(student):
        switch(student, training=True)  # refused of what has no training mode
    logits = predict_logits(student, split.subset(torch.arange(2)), device=device)
    if not logits.isfinite().all():
        raise ValueError(
            "the model's logits are not finite before training: its weights are not, or overflow"
        )
    classes = logits.shape[1]
    if not split.has_classes:
        if split.labels.shape[1] != classes:
            raise ValueError(
                f"the model's logits have shape (batch, {classes}), but split has labels of shape "
                f"{tuple(split.labels.shape)}"
            )
    elif (highest := int(split.labels.max())) >= classes:
        raise ValueError(
            f"the model's logits have shape (batch, {classes}), but split has labels up to {highest}: "
            f"it needs at least {highest + 1} classes"
        )
    return logits


def check_task_loss(task_loss: TaskLoss, split: ImageSplit) -> None:
    """Cross-entropy wants one label an image, or probabilities that sum to 1."""
    wanted(task_loss, (), name="task_loss", takes="the student's logits and the labels")
    inner = getattr(task_loss, "func", task_loss)
    is_cross_entropy = inner is F.cross_entropy or isinstance(inner, nn.CrossEntropyLoss)
    if not is_cross_entropy or split.has_classes:
        return
    sums = split.labels.sum(dim=1)
    if ((sums - 1).abs() > _EPSILON).any():
        raise ValueError(
            f"task_loss=cross_entropy needs labels that sum to 1 in every image, got sums from {sums.min():.4g} to "
            f"{sums.max():.4g}; for several labels an image give "
            "task_loss=torch.nn.functional.binary_cross_entropy_with_logits"
        )


def check_terms_on(name: str, term: Callable[[Tensor], Tensor], logits: Tensor) -> None:
    """A loss is a finite scalar that depends on the student's logits.

    Raises:
        ValueError: it is not; the message names `name`.
    """
    logits = logits.detach().clone().requires_grad_()
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        check_scalar(name, term(logits))


def refuse_no_scalar(name: str, value: Any) -> None:
    """The value of a loss is one real number.

    Raises:
        ValueError: it is not; the message names `name`.
    """
    if not isinstance(value, Tensor) or value.ndim != 0 or value.is_complex():
        got = (
            f"{value.dtype} of shape {tuple(value.shape)}"
            if isinstance(value, Tensor)
            else type(value).__name__
        )
        raise ValueError(f"{name} must return a scalar tensor, such as a mean over the batch, got {got}")


def check_scalar(name: str, value: Any) -> None:
    """The value of a loss is a finite number with a gradient.

    Raises:
        ValueError: it is not; the message names `name`.
    """
    refuse_no_scalar(name, value)
    if not value.requires_grad:
        raise ValueError(f"{name} must depend on what the student computes: its value carries no gradient")
    if not value.isfinite():
        raise ValueError(f"{name} must return a finite number, got {value.item()} for the untrained student")


def check_task(task_loss: TaskLoss, batches: Batches, student_logits: Tensor) -> None:
    """Try the labels' term on two images."""
    batch, student_logits = _tried(batches, student_logits)
    check_terms_on("task_loss", lambda z: task_loss(z, batch.labels), student_logits)


def _tried(batches: Batches, student_logits: Tensor) -> tuple[Batch, Tensor]:
    """Two images as a step sees them, and their logits where they are wanted."""
    with torch.random.fork_rng(devices=[]):
        batch = batches.batch(torch.arange(2) * batches.views, 0.0)
    if batch.labels.ndim == 2 and batch.labels.shape[1] != student_logits.shape[1]:
        raise ValueError(
            f"mix must return soft labels for the model's classes: its logits have shape (batch, "
            f"{student_logits.shape[1]}), the labels (batch, {batch.labels.shape[1]})"
        )
    return batch, student_logits.to(batches.device)


def check_losses(objective: DistillationObjective, batches: Batches, student_logits: Tensor) -> None:
    """Try both terms on two images."""
    batch, student_logits = _tried(batches, student_logits)
    teacher_logits = objective.teacher.logits(batch)
    if teacher_logits.shape[1] != student_logits.shape[1]:
        raise ValueError(
            f"student and teacher must have the same classes: student logits have shape "
            f"(batch, {student_logits.shape[1]}), teacher logits (batch, {teacher_logits.shape[1]})"
        )
    _warn_of_probabilities(teacher_logits)
    check_terms_on("loss", lambda z: objective.teacher_term(z, teacher_logits, batch), student_logits)
    if objective.task_loss is not None:
        check_terms_on("task_loss", lambda z: objective.task_loss(z, batch.labels), student_logits)


def check_validation(model: nn.Module, validation: ImageSplit | None, device: torch.device) -> None:
    """Whether the model can be scored by this split: it is looked at after an epoch of training only.

    Raises:
        ValueError: its images do not fit the model, or its labels have no score.
    """
    if validation is None:
        return
    try:
        two = validation.subset(slice(2))
        classes = predict_logits(model, two, device=device).shape[1]
        score = metrics.accuracy if validation.has_classes else metrics.mean_average_precision
        score(torch.zeros(len(validation), classes), validation)
    except ValueError as error:
        raise ValueError(f"validation cannot be scored: {error}") from error


def _warn_of_probabilities(teacher_logits: Tensor) -> None:
    """A softmax of probabilities is nearly uniform: a teacher that ends in one would teach next to nothing."""
    sums = teacher_logits.sum(dim=1)
    if teacher_logits.shape[1] > 1 and (teacher_logits >= 0).all() and ((sums - 1).abs() < _EPSILON).all():
        warnings.warn(
            "the teacher's logits look like probabilities: they are at least 0 and sum to 1. Take the softmax off its "
            "end, or give their logarithm",
            stacklevel=4,
        )


def check_listening(validation: ImageSplit | None, **scheduled: schedules.Schedule) -> None:
    """A schedule that listens needs something to hear."""
    for name, schedule in scheduled.items():
        if schedules.listens(schedule) and validation is None:
            raise ValueError(f"{name} listens to the validation accuracy: give validation as well")
