"""The first question: is the minimum over the student's logits the teacher's answer?"""

from kdlib.loss_doctor.likeness import HALF, SIGMOIDS, SOFTMAX, Likeness
from kdlib.loss_doctor.minimum import Descent, descend
from kdlib.loss_doctor.patient import Patient
from kdlib.loss_doctor.recognition import Reading
from kdlib.training.diagnosis.answers import Answer

# A value at the minimum below this part of the way down to it counts as 0.
_NOTHING = 1e-4

_WRONG = (
    "Train nothing with it: the student that learns it best gives this answer. KL from the teacher to the student has "
    "its minimum at the teacher (kdlib.losses.soft_target_loss; multilabel_distillation_loss where each class is a yes "
    "or no)."
)


def is_its_minimum_the_teacher(patient: Patient, like: Likeness, kind: str) -> Answer:
    """Where does the value stop falling?

    Args:
        patient: the loss.
        like: what it acts like.
        kind: how a row is read, softmax or sigmoids.
    """
    question = "Is its minimum over the student's logits the teacher's answer?"
    asked = patient.question()
    if len({patient.reply(asked).value for _ in range(3)}) == 3:  # NaN is another number each time
        return Answer(
            question, None, "the value is another at every call, or NaN, and has no minimum to look for.",
            "Ask again without random numbers, dropout or statistics that a call updates.",
        )  # fmt: skip
    found = descend(patient)
    if found is None:
        return Answer(
            question, None, "value or gradient are not finite wherever a search could start.",
            "Make it finite for ordinary logits first.",
        )  # fmt: skip
    return Answer(question, *_judged(found, patient, like, kind))


def _judged(found: Descent, patient: Patient, like: Likeness, kind: str) -> tuple[bool | None, str, str]:
    if not found.floor:
        return False, "there is none: the value falls without a bound that was met.", (
            "Look for a wrong sign, or for a distance that is maximised."
        )  # fmt: skip
    if not found.moved or found.height <= found.level:
        return False, "no start is led anywhere: the value is level, or no gradient reaches the student.", (
            "See whether the formula gets the student's logits, and not the teacher's twice, and whether its gradient "
            "is cut off."
        )  # fmt: skip
    temperature = patient.temperature if "temperature" in patient.takes else 1.0
    reading = Reading(found.asked, patient, kind, temperature)
    others = [end for end in found.ends if not reading.is_teacher(end)]
    stuck = f"; {found.worse} of {found.worse + len(found.ends)} starts ended higher" if found.worse else ""
    if not others:
        return True, f"{_says(reading, found, kind)}{_height(found)}{stuck}.", ""
    alike = {reading.alike(end) for end in others} if found.teacher_is_lowest else {None}
    if None not in alike:
        return (
            True,
            f"the teacher's answer has the lowest value, but not alone: {'; '.join(sorted(alike))}{stuck}.",
            "",
        )
    if found.teacher_is_lowest:
        other = next(end for end in others if reading.alike(end) is None)
        return False, f"as low as the teacher's answer lies {reading.other(other)}{stuck}.", (
            "A loss that is as content with another answer does not teach this one; add a term that tells them apart."
        )  # fmt: skip
    values = f"(value {found.lowest:.4g}; at the teacher's answer {found.at_teacher:.4g}{stuck})"
    if like.close and like.has_labels:
        good = None if like.alpha >= HALF else False
        finding = f"at the minimum the student says something between the teacher and the label {values}."
        return good, finding, "Ask about the teacher's term by itself: labels have a minimum of their own."
    return False, f"at the minimum the student says {reading.other(others[0])} {values}.", _WRONG


def _says(reading: Reading, found: Descent, kind: str) -> str:
    divided = " / T" if "temperature" in reading.patient.takes else ""
    names = {SOFTMAX: "softmax", SIGMOIDS: "sigmoid"}
    logits_agree = Reading(found.asked, reading.patient, SIGMOIDS, reading.temperature).is_teacher
    if kind == SOFTMAX and all(map(logits_agree, found.ends)):
        return "at the minimum the student's logits are the teacher's, in every class"
    return f"at the minimum {names[kind]}(z{divided}) is {names[kind]}(v{divided})"


def _height(found: Descent) -> str:
    if abs(found.lowest) <= _NOTHING * found.height:
        return ""
    return f"; the value there is {found.lowest:.4g} and not 0, which is no fault"
