"""Four questions about who is who: the two sides, the labels, who is trained, and what is done to what is given."""

import torch
from torch import Tensor

from kdlib.loss_doctor.likeness import BACKWARDS, HALF, LOGITS, Likeness
from kdlib.loss_doctor.patient import Patient, Question
from kdlib.training.diagnosis.answers import Answer

# Values that differ by less than this part are the same but for rounding.
_SAME = 1e-6


def do_the_sides_stand_in_their_places(patient: Patient, like: Likeness) -> Answer:
    """Does the value depend on both, is the student the one that learns, and does KL run from the teacher?"""
    question = "Do student and teacher stand in their places?"
    asked = patient.question()
    z, v, _ = asked
    reply = patient.reply(asked)
    deaf = [
        name
        for name, other in (
            ("student", asked._replace(student=v.roll(1, 0))),
            ("teacher", asked._replace(teacher=z.roll(1, 0))),
        )
        if _same(patient.reply(other).value, reply.value)
    ]
    if deaf:
        return Answer(
            question, False, f"the value does not depend on the {' nor on the '.join(deaf)}.",
            "See which logits each part of the formula gets: one side may have been passed twice.",
        )  # fmt: skip
    if not _moved(reply.student) and _moved(reply.teacher):
        return Answer(
            question, False, "the second argument gets a gradient and the first gets none: the sides are exchanged.",
            "Pass the student's logits first and the teacher's second.",
        )  # fmt: skip
    if like.close and like.form == BACKWARDS and like.kind != LOGITS:
        return Answer(
            question, False, f"its gradient is that of {like}: the sides are exchanged.",
            "Give F.kl_div the student's log-probabilities first and the teacher's probabilities second. If reverse KL "
            "is meant: it seeks the teacher's likeliest class and forgives what the student leaves out.",
        )  # fmt: skip
    swapped = patient.reply(Question(v, z, asked.labels)).value
    if _same(swapped, reply.value):
        return Answer(
            question, True, "the value is symmetrical: an exchange goes unnoticed, and changes none."
        )
    return Answer(
        question, True, f"an exchange would be noticed: {swapped:.4g} in place of {reply.value:.4g}."
    )


def _same(first: float, second: float) -> bool:
    return abs(first - second) <= _SAME * max(abs(first), abs(second))


def _moved(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.any())


def do_the_labels_leave_the_teacher_in_charge(
    patient: Patient, like: Likeness, again: Likeness | None
) -> Answer:
    """Which share has the teacher in the gradient, where labels come in?

    Args:
        patient: the loss.
        like: what it acts like.
        again: likewise with 1 - alpha for alpha, where the loss takes an alpha.
    """
    question = "Do the labels leave the teacher in charge?"
    if "labels" not in patient.takes:
        return Answer(question, True, "it takes no labels.")
    asked = patient.question()
    other = asked._replace(labels=(asked.labels + 1) % patient.classes)
    if _same(patient.reply(other).value, patient.reply(asked).value):
        return Answer(question, True, "it takes labels and does not look at them.")
    if not like.close:
        return Answer(
            question, True, "it looks at the labels; whether they change the answer, its minimum says."
        )
    if not like.has_labels:
        return Answer(
            question, False, "the labels change its value and not its gradient: they teach the student nothing.",
            "Look whether the labels' term is given the teacher's logits, or is detached.",
        )  # fmt: skip
    finding = (
        f"its gradient is that of {like} + {like.label_weight:.3g} x cross-entropy: alpha is {like.alpha:.3g}"
    )
    if again is not None:
        asked_for = (
            f" where {patient.alpha:g} is asked for, and {again.alpha:.3g} where {1 - patient.alpha:.3g} is"
        )
        if again.alpha > like.alpha:
            return Answer(
                question, False, f"{finding}{asked_for}: alpha weighs the labels.",
                "Exchange the two weights: alpha * teacher's term + (1 - alpha) * labels' term.",
            )  # fmt: skip
        return Answer(question, True, f"{finding}{asked_for}.")
    if like.alpha < HALF:
        return Answer(
            question, False, f"{finding}: the labels weigh more than the teacher.",
            "Look whether alpha and 1 - alpha are exchanged, and whether the teacher's term is divided by the number "
            "of classes or lacks T^2; if this balance is meant, all is well.",
        )  # fmt: skip
    return Answer(question, True, f"{finding}.")


def is_only_the_student_trained(patient: Patient) -> Answer:
    """Whose logits get a gradient?"""
    question = "Does the student get the gradient, and nobody else?"
    reply = patient.reply(patient.question())
    if reply.labels is not None and reply.labels.any():
        note = "; soft labels would get one, too, if they asked for it"
    else:
        note = ""
    if not _moved(reply.student):
        return Answer(
            question, False,
            f"the student gets none{', but the teacher does' if _moved(reply.teacher) else ''}{note}.",
            "Let the loss compute on the student's logits themselves: no detach, no_grad, argmax or .item() between.",
        )  # fmt: skip
    if _moved(reply.teacher):
        # Whether that trains the teacher is decided outside: most loops ask it under no_grad.
        return Answer(
            question, None, f"the teacher gets one, too, where its logits are not cut off outside{note}.",
            "Detach the teacher's logits inside the loss, or run the teacher under torch.no_grad(); else it is trained "
            "to agree with its student, and both may collapse.",
        )  # fmt: skip
    return Answer(question, True, f"only the student gets one{note}.")


def does_it_leave_its_inputs_alone(patient: Patient) -> Answer:
    """Are logits and labels the same after a call, and is the value the same at the next?"""
    question = "Does it leave what it is given alone, and say the same twice?"
    asked = patient.question()
    kept = asked._replace(labels=patient.labels_as_taken(asked))
    names = ("student's logits", "teacher's logits", "labels")
    with torch.no_grad():
        given = Question(*(each.clone() for each in kept))
        first, second = (patient.called(Question(*(x.clone() for x in kept))) for _ in range(2))
        patient.called(given)
    changed = [
        name for name, before, after in zip(names, kept, given, strict=True) if not torch.equal(before, after)
    ]
    if changed:
        return Answer(
            question, False, f"a call changes the {' and the '.join(changed)} in place.",
            "Take the form without the underscore (div, not div_; z = z / T, not z /= T).",
        )  # fmt: skip
    if not torch.equal(first, second) and not (first.isnan().any() and second.isnan().any()):
        return Answer(
            question, False, "two calls with the same logits have different values.",
            "Look for random numbers, dropout, or statistics that a call updates.",
        )  # fmt: skip
    return Answer(question, True, "nothing is changed, and two calls agree to the last bit.")
