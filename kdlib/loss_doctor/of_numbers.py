"""Two questions about numbers: are value and gradient finite, and is there a pull where there is something to learn?"""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlib.loss_doctor.likeness import gradient_of
from kdlib.loss_doctor.patient import SPREAD, Patient, Question, said
from kdlib.training.diagnosis.answers import Answer

# Sizes of logits. Networks that are trained for long reach a hundred; 1,000 leaves a margin for those that diverge.
_SIZES = (20.0, 100.0, 300.0, 1000.0)
# In float16 probabilities underflow from a gap of 17; squares of larger logits than these overflow in its range.
_HALF_SIZES = (20.0, 40.0)
# How sure a student is that is wrong, as the gap of its logits; from 37 on a sigmoid is 1 in float64, too.
_GAPS = 30
# Between two neighbouring gaps the pull of a smooth loss changes by a factor of e or so; one that falls by this factor
# has met a clamp.
_CLIFF = 100.0
# Below this part of what KL would pull, a student that is sure of a wrong class hardly learns.
_FAINT = 1e-6


def is_it_finite(patient: Patient) -> Answer:
    """Value and gradient at T = 1 with logits of up to 1,000 in float32 and bfloat16, also where the two agree or the
    student says nothing; in float16 with targets that underflow."""
    question = "Are value and gradient finite?"
    wrong: dict[torch.dtype, str] = {}
    refused = []
    small = patient.question()
    large, half = _cases(small, _SIZES), _of_teachers(small, _HALF_SIZES)
    for dtype, cases in ((torch.float32, large), (torch.bfloat16, large), (torch.float16, half)):
        name = str(dtype).removeprefix("torch.")
        try:
            found = _first_fault(patient, dtype, cases)
        except Exception as error:  # a loss may raise anything; it is told
            refused.append(f"in {name} it raises {said(error)}")
        else:
            wrong |= {dtype: f"in {name} {found}"} if found else {}
    if set(wrong) == {torch.float16} and not refused:
        return Answer(
            question, None, f"{wrong[torch.float16]}; it is finite in float32 and bfloat16.",
            "Convert logits to float32 inside the loss: in float16 a number below 6e-8, such as a small epsilon, is 0.",
        )  # fmt: skip
    if wrong:
        return Answer(
            question, False, "; ".join([*wrong.values(), *refused]) + ".",
            "Take log_softmax or logsigmoid of the logits, never the logarithm of a probability, not of a clamped one "
            "either (1 - 1e-8 is 1 in float32); bound a root or a norm away from 0 before it is taken.",
        )  # fmt: skip
    if refused:
        return Answer(question, None, "; ".join(refused) + ".", "Convert logits to float32 inside the loss.")
    return Answer(
        question, True,
        f"up to logits of {_SIZES[-1]:,.0f} in float32 and bfloat16, and of {_HALF_SIZES[-1]:.0f} in float16.",
    )  # fmt: skip


def _first_fault(patient: Patient, dtype: torch.dtype, cases: list[tuple[str, Question]]) -> str | None:
    for name, asked in cases:
        reply = patient.reply(asked.to(dtype), temperature=1.0)
        parts = {"value": torch.tensor(reply.value), "gradient": reply.pull}
        for part, numbers in parts.items():
            if not numbers.isfinite().all():
                kind = "NaN" if numbers.isnan().any() else "infinite"
                return f"the {part} is {kind} {name}"
    return None


def _cases(small: Question, sizes: tuple[float, ...]) -> list[tuple[str, Question]]:
    cases = [
        ("where student and teacher agree", small._replace(student=small.teacher)),
        ("where the student's logits are all equal", small._replace(student=torch.zeros_like(small.student))),
        *_of_teachers(small, sizes),
    ]
    patterns = _patterns(small)
    for size in sizes:
        large, other = size * patterns, size * patterns.roll(1, 0)
        named = f"at logits of {size:,.0f} of the"
        cases += [
            (f"{named} student", small._replace(student=large)),
            (f"{named} student and teacher, who differ", small._replace(student=large, teacher=other)),
            (f"{named} student and teacher, who agree", small._replace(student=large, teacher=large)),
        ]
    return cases


def _of_teachers(small: Question, sizes: tuple[float, ...]) -> list[tuple[str, Question]]:
    patterns = _patterns(small)
    return [
        (f"at logits of {size:,.0f} of the teacher", small._replace(teacher=size * patterns))
        for size in sizes
    ]


def _patterns(asked: Question) -> Tensor:
    """Rows within [-1, 1] that are hard on a loss: one class alone, all alike, the label's against the rest."""
    generator = torch.Generator().manual_seed(3)
    rows = 2 * torch.rand(asked.student.shape, generator=generator, dtype=torch.float64) - 1
    labels = F.one_hot(asked.labels, rows.shape[1]).double()
    rows[0:3], rows[3:6] = labels[0:3], -labels[3:6]
    rows[6:9] = labels[6:9].roll(1, 1)
    rows[9], rows[10] = 1.0, -1.0
    return rows


def does_it_pull(patient: Patient, kind: str) -> Answer:
    """Is there a gradient for a student that is sure and wrong, at T = 1?

    In float64, where it takes that: what a clamp cuts off is told from what fades smoothly below float32's digits.

    Args:
        patient: the loss.
        kind: how a row is read.
    """
    question = "Is there a pull wherever student and teacher differ?"
    notes = []
    for name, asked in _sure_and_wrong(patient):
        reply = patient.reply(asked.to(patient.dtype), temperature=1.0)
        pulls = reply.pull.expand_as(asked.student).double().norm(dim=1)
        usual = gradient_of(kind, asked, 1.0).norm(dim=1)
        differ = usual > 1e-3 * usual.max()
        dead = (pulls == 0) & differ
        cliff = torch.zeros_like(dead)
        cliff[1:] = (pulls[1:] < pulls[:-1] / _CLIFF) & differ[1:]
        if (dead | cliff).any():
            gap = int((dead | cliff).nonzero()[0]) + 1
            how = (
                "is exactly 0"
                if dead[gap - 1]
                else f"falls by a factor of {pulls[gap - 2] / pulls[gap - 1]:.0e}"
            )
            everywhere = ", as everywhere" if not pulls.any() else ""
            return Answer(
                question, False, f"the gradient {how} from a logit of {gap} on for {name}{everywhere}.",
                "Look for a clamp, a detach or an argmax between the student's logits and the value; a logarithm taken "
                "by log_softmax or logsigmoid needs no clamp.",
            )  # fmt: skip
        share = (pulls[-1] / usual[-1]).item()
        if differ[-1] and share < _FAINT:
            notes.append(f"for {name} it fades smoothly, to {share:.0e} of KL's at a logit of {_GAPS}")
    note = "; ".join(["a student that is sure and wrong gets a gradient", *notes])
    return Answer(question, True, f"{note}.")


def _sure_and_wrong(patient: Patient) -> list[tuple[str, Question]]:
    """A row for each gap, of which the teacher is nearly the same."""
    generator = torch.Generator().manual_seed(4)
    row = SPREAD * torch.randn(patient.classes, generator=generator, dtype=torch.float64)
    noise = torch.randn(_GAPS, patient.classes, generator=generator, dtype=torch.float64)
    teacher = row + 0.05 * noise
    gaps = torch.arange(1.0, _GAPS + 1, dtype=torch.float64)[:, None]
    labels = torch.full((_GAPS,), int(row.argmax()))
    one = torch.zeros_like(teacher)
    one[:, row.argmin()] = 1.0
    return [
        ("the class that the teacher thinks least of", Question(gaps * one, teacher, labels)),
        ("all classes", Question(gaps * torch.ones_like(one), teacher, labels)),
        ("all classes, from below", Question(-gaps * torch.ones_like(one), teacher, labels)),
    ]
