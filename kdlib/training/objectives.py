"""What a training minimises on logits: the labels' term, and the teacher's."""

import functools
import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib.features.terms import written
from kdlib.losses import LossTerms, soft_target_loss, weighted_terms
from kdlib.training import schedules
from kdlib.training.batches import Batch
from kdlib.training.calls import chosen, partial_modules, wanted
from kdlib.training.schedules import Schedule
from kdlib.training.teacher import Teacher

Loss = Callable[..., Tensor]
TaskLoss = Callable[[Tensor, Tensor], Tensor]


@runtime_checkable
class Objective(Protocol):
    """What is minimised. Modules it owns (regressors) give their parameters to the optimiser."""

    def __call__(self, student_logits: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """A named tuple of scalars, such as `LossTerms`: first the total, then the terms to be recorded."""

    def describe(self) -> dict[str, Any]:
        """The settings that a checkpoint must agree with."""

    def soft_targets(self, progress: float) -> Tensor | None:
        """Soft targets to draw a histogram of, where there are any."""


class LabelObjective(nn.Module):
    """The labels alone."""

    def __init__(self, task_loss: TaskLoss = F.cross_entropy):
        super().__init__()
        self.task_loss, self.inner = task_loss, partial_modules([task_loss])

    def forward(self, student_logits: Tensor, batch: Batch) -> LossTerms:
        loss = self.task_loss(student_logits, batch.labels)
        return LossTerms(total=loss, task=loss, distill=torch.zeros_like(loss))

    def describe(self) -> dict[str, Any]:
        return {"objective": "labels", "task_loss": written(self.task_loss)}

    def soft_targets(self, progress: float) -> None:
        return None


class DistillationObjective(nn.Module):
    """alpha * loss(student, teacher) + (1 - alpha) * task_loss(student, labels).

    Args:
        teacher: whose logits are matched.
        temperature, alpha: schedules.
        loss: the teacher's term; what its signature names of temperature and labels is passed.
        task_loss: the labels' term; None where the labels say nothing and alpha is 1.
    """

    def __init__(
        self,
        teacher: Teacher,
        temperature: Schedule,
        alpha: Schedule,
        loss: Loss = soft_target_loss,
        task_loss: TaskLoss | None = F.cross_entropy,
    ):
        super().__init__()
        self.teacher, self.temperature, self.alpha = teacher, temperature, alpha
        self.loss, self.task_loss = loss, task_loss
        self.inner = partial_modules([loss, task_loss])
        self._wanted = wanted(loss, ("temperature", "labels"), name="loss")

    def forward(self, student_logits: Tensor, batch: Batch) -> LossTerms:
        alpha = schedules.value(self.alpha, batch.progress, batch.accuracies)
        distill = self.teacher_term(student_logits, self.teacher.logits(batch), batch)
        if self.task_loss is None:
            task = torch.full_like(distill, math.nan)
        else:
            task = self.task_loss(student_logits, batch.labels)
        return weighted_terms(distill, task, alpha)

    def teacher_term(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Any:
        """What `loss` returns, given what it wants to know; `kdlib.training.checks` tries whether it is a loss."""
        offered = {
            "temperature": lambda: schedules.value(self.temperature, batch.progress, batch.accuracies),
            "labels": lambda: batch.labels,
        }
        return self.loss(student_logits, teacher_logits, **chosen(self._wanted, offered))

    def describe(self) -> dict[str, Any]:
        return {
            "objective": "distillation",
            "teacher": self.teacher.describe(),
            "temperature": schedules.describe(self.temperature),
            "alpha": schedules.describe(self.alpha),
            "loss": written(self.loss),
            "task_loss": written(self.task_loss),
        }

    def soft_targets(self, progress: float) -> Tensor | None:
        logits = self.teacher.recent_logits()
        return (
            None if logits is None else (logits / schedules.value(self.temperature, progress)).softmax(dim=1)
        )


def smoothed(label_smoothing: float | int) -> TaskLoss:
    """Cross-entropy with labels that are smoothed, or as they are."""
    if not label_smoothing:
        return F.cross_entropy
    return functools.partial(F.cross_entropy, label_smoothing=float(label_smoothing))
