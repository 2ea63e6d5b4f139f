"""Is this function a loss that distils? Ten questions, each answered by trying.

`examine` asks them of any function of student and teacher logits, before a network is trained with it. What it finds is
a property of the formula: it knows no data. Every threshold is a constant in the file of its question, with its reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from kdlib import _checks
from kdlib._checks import checked, positive_integer
from kdlib.features.terms import written
from kdlib.loss_doctor.likeness import SIGMOIDS, SOFTMAX, Likeness, likeness
from kdlib.loss_doctor.of_minimum import is_its_minimum_the_teacher
from kdlib.loss_doctor.of_numbers import does_it_pull, is_it_finite
from kdlib.loss_doctor.of_scale import (
    does_it_keep_its_size_with_more_classes,
    does_it_keep_its_size_with_temperature,
    is_it_a_mean_over_the_batch,
)
from kdlib.loss_doctor.of_sides import (
    do_the_labels_leave_the_teacher_in_charge,
    do_the_sides_stand_in_their_places,
    does_it_leave_its_inputs_alone,
    is_only_the_student_trained,
)
from kdlib.loss_doctor.patient import Patient, Refusal, admitted, said
from kdlib.training.checks import function_rule, optional_boolean_rule
from kdlib.training.diagnosis.answers import Answer, Diagnosis
from kdlib.training.objectives import Loss

__all__ = ["TOPICS", "Examination", "examine"]

# What each answer of an examination is about, in their order.
TOPICS = (
    "batch", "minimum", "sides", "labels", "finite", "pull", "classes", "temperature", "gradients", "inputs",
)  # fmt: skip

# Where a loss takes an alpha, the teacher's weight; far from 1/2, where two exchanged weights look alike.
_ALPHA = 0.9


@dataclass(frozen=True, repr=False)
class Examination(Diagnosis):
    """The answers to all questions about a loss, in the order of `TOPICS`; `examination["minimum"]` is one of them."""

    def __getitem__(self, topic: str) -> Answer:
        if topic not in TOPICS:
            raise KeyError(f"{topic!r} is no topic of an examination: {', '.join(TOPICS)}")
        return self.answers[TOPICS.index(topic)]

    @property
    def minimum_is_teacher(self) -> bool | None:
        """Is the teacher's answer where the value is lowest, perhaps with others that follow it? None where that cannot
        be told."""
        return self["minimum"].good

    @property
    def complaints(self) -> tuple[str, ...]:
        """The topics whose answer is no."""
        return tuple(topic for topic in TOPICS if self[topic].good is False)


def _enough_classes(name: str, value: Any) -> int:
    value = positive_integer(name, value)
    if not 3 <= value <= 1000:
        raise ValueError(
            f"{name} must be from 3 to 1,000, got {value}: of two classes there is no order to compare"
        )
    return value


@checked(
    loss=function_rule,
    classes=_enough_classes,
    temperature=_checks.temperature,
    several_labels=optional_boolean_rule,
)
def examine(
    loss: Loss, *, classes: int = 10, temperature: float | int = 4.0, several_labels: bool | None = None
) -> Examination:
    """Ask all questions of a loss; what is returned displays itself, and its `.first` says where to start.

    Random numbers of PyTorch, gradient mode and a module's own state are as before afterwards. A loss that raises is
    told from a wrong one: its error is the answer to every question that it made impossible.

    Args:
        loss: any function (student_logits, teacher_logits, [temperature], [labels], [alpha]) -> scalar, or a module;
            what its signature names is passed, alpha only where it has no default. Labels are class numbers, or rows of
            zeros and ones where it takes only those.
        classes: how many the logits have, from 3 to 1,000.
        temperature: with which it is asked, where it takes one.
        several_labels: is a row a yes or no for each class (sigmoids), or one label (softmax)? None: what its gradient
            looks like.

    Raises:
        TypeError, ValueError: `loss` is no function of student and teacher, or demands what nothing offers.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            patient = admitted(loss, classes=classes, temperature=temperature, alpha=_ALPHA)
        except Refusal as refusal:
            return _refused(loss, refusal)
        return _examined(loss, patient, several_labels)


def _examined(loss: Loss, patient: Patient, several_labels: bool | None) -> Examination:
    like = likeness(patient, several_labels)
    again = None
    if "alpha" in patient.takes:
        again = likeness(patient.with_settings(alpha=1 - patient.alpha), several_labels)
    several = several_labels or (several_labels is None and like.close and like.kind == SIGMOIDS)
    kind = SIGMOIDS if several else SOFTMAX
    questions: tuple[Callable[[], Answer], ...] = (
        lambda: is_it_a_mean_over_the_batch(patient),
        lambda: is_its_minimum_the_teacher(patient, like, kind),
        lambda: do_the_sides_stand_in_their_places(patient, like),
        lambda: do_the_labels_leave_the_teacher_in_charge(patient, like, again),
        lambda: is_it_finite(patient),
        lambda: does_it_pull(patient, kind),
        lambda: does_it_keep_its_size_with_more_classes(patient, like, kind),
        lambda: does_it_keep_its_size_with_temperature(patient, like),
        lambda: is_only_the_student_trained(patient),
        lambda: does_it_leave_its_inputs_alone(patient),
    )
    answers = tuple(_asked(topic, ask) for topic, ask in zip(TOPICS, questions, strict=True))
    return Examination(answers, f"{written(loss)}, {_standing(patient, like, kind)}")


def _asked(topic: str, ask: Callable[[], Answer]) -> Answer:
    try:
        return ask()
    except Exception as error:  # a loss may raise anything; it is told
        return Answer(
            f"About {topic}:", None, f"the loss raised {said(error)}.", "Let it take any batch of logits."
        )


def _standing(patient: Patient, like: Likeness, kind: str) -> str:
    rows = "a yes or no for each class" if kind == SIGMOIDS else "one label"
    given = [f"T = {patient.temperature:g}"] if "temperature" in patient.takes else []
    given += [f"alpha = {patient.alpha:g}"] if "alpha" in patient.takes else []
    acts = f"its gradient is that of {like}" if like.close else "its gradient is that of no usual loss"
    return f"asked with {', '.join([f'{patient.classes} classes', *given])} and read as {rows}: {acts}."


def _refused(loss: Loss, refusal: Refusal) -> Examination:
    finding = f"it raises {refusal}."
    answers = tuple(Answer(f"About {topic}:", None, "the loss cannot be called.") for topic in TOPICS[1:])
    first = Answer(
        "Can it be called?", False, finding, "Let it take two tensors of shape (batch, classes) and return a scalar."
    )  # fmt: skip
    return Examination((first, *answers), f"{written(loss)} cannot be examined.")
