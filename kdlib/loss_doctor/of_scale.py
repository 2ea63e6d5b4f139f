"""Three questions about size: with the batch, with the number of classes, with the temperature."""

import math

from torch import Tensor

from kdlib.loss_doctor.likeness import FORWARDS, LOGITS, SIGMOIDS, SQUARES, Likeness, gradient_of
from kdlib.loss_doctor.patient import Patient, Question
from kdlib.training.diagnosis.answers import Answer

# Two sizes that should be equal may differ by this part: sums of many terms are rounded.
_EQUAL = 1e-3
# The number of classes is multiplied by this.
_MORE_CLASSES = 4
# Gradients on other random logits scatter by some percent, exponents over a factor of four by a tenth; what a loss of
# another form does by itself is a square root.
_EXPONENT = 0.75
# Two temperatures at which softened answers are linear in the logits: the gradient of T^2 KL has reached its limit.
_HOT, _HOTTER = 30.0, 120.0
# T^2 is in it where the exponent of the gradient in T is within this of 0.
_NEAR = 0.25
# From this temperature on its square is told from 1 and from itself.
_WARM = 1.5
# A factor is called 1, or 1 / T^2, within this part.
_FACTOR = 0.03


def is_it_a_mean_over_the_batch(patient: Patient) -> Answer:
    """A batch that is given twice leaves a mean as it is."""
    question = "Does it return one number, the mean over the batch?"
    asked = patient.question()
    shape = tuple(patient.returned(asked).shape)
    once, twice = patient.reply(asked), patient.reply(_twice(asked))
    if shape:
        return Answer(
            question, False,
            f"it returns shape {shape} for a batch of {len(asked.student)}; from here on its mean counts.",
            "Return the mean over the batch.",
        )  # fmt: skip
    pull = _ratio(twice.pull.double().norm(), once.pull.double().norm())
    sizes = [_ratio(twice.value, once.value), pull * math.sqrt(2)]
    if all(abs(size - 1) < _EQUAL or math.isnan(size) for size in sizes):
        return Answer(
            question, True, "a batch that is given twice has the same value, and half the gradient an image."
        )
    if abs(sizes[0] - 2) < 2 * _EQUAL:
        advice = (
            'Average over the batch ("batchmean", not "sum"): else the batch size sets the learning rate.'
        )
    else:
        advice = "Look for statistics over the batch, or a division by a fixed batch size."
    return Answer(
        question, False,
        f"a batch that is given twice has {sizes[0]:.3g} times the value and {sizes[1]:.3g} times the gradient.",
        advice,
    )  # fmt: skip


def _twice(asked: Question) -> Question:
    student, teacher = (logits.repeat(2, 1) for logits in asked[:2])
    return Question(student, teacher, asked.labels.repeat(2))


def _ratio(first: Tensor | float, second: Tensor | float) -> float:
    """NaN where both are 0 or one is not finite."""
    first, second = float(first), float(second)
    return first / second if second else math.nan


def does_it_keep_its_size_with_more_classes(patient: Patient, like: Likeness, kind: str) -> Answer:
    """The gradient beside that of T^2 KL, with four times as many classes."""
    question = "Does it keep its size as the number of classes grows?"
    more = patient.with_settings(classes=_MORE_CLASSES * patient.classes)
    kind, temperature, form = (
        (like.kind, like.temperature, like.form)
        if like.close
        else (kind, patient.temperature if "temperature" in patient.takes else 1.0, FORWARDS)
    )
    sizes = [_pull(each, kind, temperature, form) for each in (patient, more)]
    size = f"is that of {like}" if like.close else f"has {sizes[0]:.3g} times the norm of KL's"
    if not all(sizes) or not all(map(math.isfinite, sizes)):
        return Answer(question, None, "there is no gradient to measure, or none that is finite.")
    times = sizes[1] / sizes[0]
    finding = (
        f"its gradient {size}; {more.classes} classes for {patient.classes} multiply that by {times:.3g}"
    )
    growth = math.log(times) / math.log(_MORE_CLASSES)
    if growth > -_EXPONENT:
        note = "summed over the classes" if growth > _EXPONENT else "not divided by their number"
        return Answer(question, True, f"{finding}: it is {note}.")
    if kind == SIGMOIDS or form == SQUARES:
        return Answer(
            question, True,
            f"{finding}: it is averaged over the classes, as {'squares' if form == SQUARES else 'yes or no'} often "
            "are; weigh it beside a labels' term that is averaged likewise.",
        )  # fmt: skip
    return Answer(
        question, False, f"{finding}: it is divided by the number of classes, a hidden alpha.",
        'Sum over the classes and average over the batch: reduction="batchmean", not the default "mean".',
    )  # fmt: skip


def _pull(patient: Patient, kind: str, temperature: float, form: str) -> float:
    """The norm of what the teacher pulls, as a part of the usual loss's."""
    asked = patient.question(batch=32, seed=5)
    usual = gradient_of(kind, asked, temperature, form) - gradient_of(
        kind, _other_teacher(asked), temperature, form
    )
    return _ratio(_of_teacher(patient, asked).norm(), usual.norm())


def _other_teacher(asked: Question) -> Question:
    return asked._replace(teacher=asked.teacher.roll(1, 0))


def _of_teacher(patient: Patient, asked: Question, temperature: float | None = None) -> Tensor:
    """The gradient less that of another teacher: what labels and student add by themselves drops out."""
    first, second = (
        patient.reply(each, temperature=temperature).pull.double() for each in (asked, _other_teacher(asked))
    )
    return first - second


def does_it_keep_its_size_with_temperature(patient: Patient, like: Likeness) -> Answer:
    """Is T^2 in it? The gradient of KL falls as 1 / T^2 for large T, and T^2 makes up for that."""
    question = "Does it keep its size as T grows?"
    if "temperature" not in patient.takes:
        return Answer(question, *_of_a_built_in_temperature(patient, like))
    asked = patient.question(batch=32, seed=6)
    hot, hotter = (_of_teacher(patient, asked, T).norm().item() for T in (_HOT, _HOTTER))
    cool, warm = (_of_teacher(patient, asked, T) for T in (1.0, 2.0))
    if not hot or not hotter or not math.isfinite(hot + hotter):
        return Answer(question, None, "there is no gradient to measure, or none that is finite.")
    if (cool - warm).norm() < _EQUAL * cool.norm():
        return Answer(
            question, False, "it takes a temperature and does not use it.",
            "Divide both logits by T before the softmax.",
        )  # fmt: skip
    exponent = math.log(hotter / hot) / math.log(_HOTTER / _HOT)
    finding = f"from T = {_HOT:g} to {_HOTTER:g} the gradient changes as T to the power of {exponent:+.2f}"
    if abs(exponent) < _NEAR:
        return Answer(question, True, f"{finding}: nothing is missing at large T.")
    missing = round(-exponent)
    if missing <= 0:
        return Answer(
            question, False, f"{finding}: it grows with T.",
            "Look for a factor T^2 too many, or for logits of one side that are not divided by T.",
        )  # fmt: skip
    factor = "T" if missing == 1 else f"T^{missing}"
    return Answer(
        question, False, f"{finding}: the factor {factor} is left out.",
        f"Multiply by {factor}: else alpha means less and less as T grows, and a schedule of T is one of alpha.",
    )  # fmt: skip


def _of_a_built_in_temperature(patient: Patient, like: Likeness) -> tuple[bool | None, str, str]:
    if not like.close or like.kind == LOGITS or not _WARM <= like.temperature < 60:
        return True, "it takes no temperature.", ""
    # A whole loss has weights alpha and 1 - alpha, which add up to 1.
    weight, T = like.weight, like.temperature
    labels = like.label_weight if "labels" in patient.takes else 0.0
    finding = f"its gradient is that of {like}"
    for factor, name in ((T**2, "T^2"), (T, "T")):
        for classes in (1, patient.classes):
            if math.isclose(weight * factor * classes + labels, 1, rel_tol=_FACTOR):
                return (
                    False,
                    f"{finding}: the factor {name} is left out.",
                    f"Multiply by {name} (here {factor:.3g}).",
                )
    if math.isclose(weight + labels, 1, rel_tol=_FACTOR):
        return True, f"{finding}: T^2 is in it.", ""
    return True, f"{finding}; no temperature is taken, so that this factor is all there is to say.", ""
