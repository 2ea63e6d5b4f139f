"""A loss as it is asked: with logits, and with what its signature names of labels, temperature and alpha."""

import copy
import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdlib.losses import LossTerms
from kdlib.training.calls import wanted

# The labels of a row: one class number, or a yes or no for each class.
ONE_LABEL, SEVERAL_LABELS = "one label", "several labels"
# Logits of this spread: at T = 1 the first choice is clear and the last one not yet rounded off, at T = 8 both differ.
SPREAD = 3.0


class Question(NamedTuple):
    """What a loss is asked about; `labels` are class numbers, and become what the loss takes."""

    student: Tensor
    teacher: Tensor
    labels: Tensor

    def to(self, dtype: torch.dtype) -> "Question":
        """The same with logits of another precision."""
        return self._replace(student=self.student.to(dtype), teacher=self.teacher.to(dtype))


class Reply(NamedTuple):
    """The value of a loss and its gradients; a gradient is None where nothing arrives."""

    value: float
    student: Tensor | None
    teacher: Tensor | None
    labels: Tensor | None

    @property
    def pull(self) -> Tensor:
        """The gradient on the student's logits; a single 0 where none arrives."""
        return torch.zeros(()) if self.student is None else self.student


@dataclass(frozen=True)
class Patient:
    """A loss, and how it is called.

    Args:
        loss: the function; of a module a copy, so that nothing that is given is changed.
        takes: which of labels, temperature and alpha it is passed.
        temperature, alpha: with which it is asked, where it takes them.
        classes: with how many.
        labels: one label a row, or several.
        dtype: float64 where it takes that.
    """

    loss: Any
    takes: tuple[str, ...]
    temperature: float
    alpha: float
    classes: int
    labels: str = ONE_LABEL
    dtype: torch.dtype = torch.float64

    def returned(self, asked: Question) -> Any:
        """What the loss returns, whatever it is."""
        return self.called(asked._replace(labels=self.labels_as_taken(asked)))

    def called(self, asked: Question, temperature: float | None = None) -> Any:
        """Likewise, with the labels as they are and nothing copied."""
        offered = {
            "labels": asked.labels,
            "temperature": self.temperature if temperature is None else temperature,
            "alpha": self.alpha,
        }
        given = {name: offered[name] for name in self.takes}
        returned = self.loss(asked.student, asked.teacher, **given)
        return returned.total if isinstance(returned, LossTerms) else returned

    def _value(self, asked: Question, **how: float | None) -> Tensor:
        returned = self.called(asked, **how)
        if not isinstance(returned, Tensor):
            raise TypeError(f"the loss must return a tensor, got {type(returned).__name__} {returned!r:.80}")
        return returned.mean()

    def reply(self, asked: Question, **how: float | None) -> Reply:
        """Value and gradients; all that is asked with is copied first.

        Where a loss returns several numbers, such as one for each image, their mean counts.

        Raises:
            TypeError: the loss returns no tensor.
        """
        student, teacher = (x.detach().clone().requires_grad_() for x in asked[:2])
        labels = self.labels_as_taken(asked)
        if labels.is_floating_point():
            labels.requires_grad_()
        # Copies that are no leaves, as a network's logits are: a loss that writes into them is not stopped by autograd.
        value = self._value(Question(student.clone(), teacher.clone(), labels), **how)
        if not value.requires_grad:
            return Reply(value.item(), None, None, None)
        sources = [student, teacher, *([labels] if labels.requires_grad else [])]
        gradients = torch.autograd.grad(value, sources, allow_unused=True)
        return Reply(value.item(), *gradients, *([None] * (3 - len(gradients))))

    def labels_as_taken(self, asked: Question) -> Tensor:
        """Class numbers, or a row of zeros and ones for each, with a second class beside the first."""
        labels = asked.labels
        if self.labels == ONE_LABEL:
            return labels.clone()
        rows = torch.zeros_like(asked.student.detach())
        return rows.scatter(1, torch.stack([labels, (labels + 1) % self.classes], dim=1), 1.0)

    def with_settings(self, **changed: float | int) -> "Patient":
        """The same, asked with another number of classes, another temperature or alpha."""
        return replace(self, **changed)

    def question(self, batch: int = 16, seed: int = 0) -> Question:
        """Random logits, and labels of which half are the teacher's first choice."""
        generator = torch.Generator().manual_seed(seed)
        student, teacher = SPREAD * torch.randn(
            2, batch, self.classes, generator=generator, dtype=torch.float64
        )
        labels = torch.randint(0, self.classes, (batch,), generator=generator)
        labels[::2] = teacher.argmax(dim=1)[::2]
        return Question(student, teacher, labels).to(self.dtype)


def admitted(loss: Any, *, classes: int, temperature: float, alpha: float) -> Patient:
    """The loss with the kind of labels and the precision that it takes.

    Raises:
        TypeError, ValueError: it is no function of student and teacher, or demands what nothing offers.
        Exception: what it raises itself, when it is asked with any of them.
    """
    offered = ("labels", "temperature")
    try:
        takes = wanted(loss, offered, name="loss")
    except ValueError:  # a whole loss has an alpha; an alpha with a default may be another one, as DKD's is
        takes = wanted(loss, (*offered, "alpha"), name="loss")
    first = None
    for labels in (ONE_LABEL, SEVERAL_LABELS):
        for dtype in (torch.float64, torch.float32):
            patient = Patient(_untouched(loss), takes, temperature, alpha, classes, labels, dtype)
            try:
                patient.reply(patient.question())
            except Exception as error:  # a loss may raise anything; the first error is the one to tell
                first = first or error
            else:
                return patient
        if "labels" not in takes:
            break
    raise Refusal(first)


class Refusal(Exception):
    """A loss raised whatever it was asked with; `cause` is its first error."""

    def __init__(self, cause: Exception):
        super().__init__(said(cause))
        self.cause = cause


def said(error: Exception) -> str:
    """An error in one line of at most 200 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def _untouched(loss: Any) -> Any:
    inner = loss.func if isinstance(loss, functools.partial) else loss
    return copy.deepcopy(loss) if isinstance(inner, nn.Module) else loss
