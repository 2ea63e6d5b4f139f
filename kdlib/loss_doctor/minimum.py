"""Where a loss has its minimum over the student's logits, found from several starts."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch._dynamo  # the first optimizer of a process loads it: two seconds that would be counted as its loss's
from torch import Tensor

from kdlib.loss_doctor.patient import Patient, Question

_IMAGES = 8
# Adam walks over plateaus and past kinks, L-BFGS then goes down to the last digits.
_ADAM_STEPS, _ADAM_RATE = 120, 0.25
_NEWTON_STEPS = 80
# Ends whose values differ by less than this part of the way down from an ordinary start count as equally low: in a
# value that is quadratic near its minimum, a millionth is a thousandth in the answers.
_LEVEL = 1e-6
# Where the value falls on, from the end to ten times its logits, by more than on the way there, it has no floor.
_FURTHER = 10.0
# No loss needs logits of this size for a minimum; what goes there goes on.
_FARTHEST = 1e6


class _OffTheMap(Exception):
    """A step led to logits that are not finite, or too large."""


@dataclass(frozen=True)
class Descent:
    """The ends of the ways down.

    Args:
        asked: the question with the teacher's logits and labels that were used.
        ends: logits of the student, for each start that ended as low as the lowest.
        worse: how many starts ended higher.
        lowest: the lowest value.
        at_teacher: the value where the student's logits are the teacher's.
        height: from the lowest value up to that of an ordinary start.
        exact: is the value computed in float64?
        floor: does the value have a lower bound, as far as is seen?
        moved: is there a gradient at any start?
    """

    asked: Question
    ends: tuple[Tensor, ...]
    worse: int
    lowest: float
    at_teacher: float
    height: float
    floor: bool
    moved: bool
    exact: bool

    @property
    def teacher_is_lowest(self) -> bool:
        """Does the teacher's own answer have the lowest value, perhaps with others?"""
        return self.at_teacher - self.lowest <= self.level

    @property
    def level(self) -> float:
        """By how much values may differ that count as equal."""
        return max(_LEVEL * self.height, (1e-12 if self.exact else 1e-6) * abs(self.lowest))


def descend(patient: Patient) -> Descent | None:
    """The ways down from the teacher's logits, from zeros, from small and large random ones, and from the teacher's
    with the opposite sign, or given to other classes; None where no start has a finite value and gradient."""
    asked = patient.question(batch=_IMAGES, seed=2)
    z, v, _ = asked
    starts = [v, torch.zeros_like(v), 0.3 * z, 2 * z, -v, v.roll(1, 1)]

    def at(student: Tensor) -> tuple[float, Tensor]:
        reply = patient.reply(asked._replace(student=student))
        return reply.value, reply.pull.expand_as(student)

    ways = [way for start in starts if (way := _way_down(at, start)) is not None]
    if not ways:
        return None
    lowest = min(value for _, value, _ in ways)
    above = sorted(first - lowest for first, _, _ in ways)
    found = Descent(
        asked=asked,
        ends=(),
        worse=0,
        lowest=lowest,
        at_teacher=at(v)[0],
        height=above[len(above) // 2],
        exact=patient.returned(asked).dtype == torch.float64,
        floor=True,
        moved=any(at(start)[1].any() for start in starts),
    )
    ends = tuple(end for _, value, end in ways if value - lowest <= found.level)
    beyond, _ = at(_FURTHER * min(ways, key=lambda way: way[1])[2])
    floor = not beyond < lowest - max(found.height, found.level)
    return replace(found, ends=ends, worse=len(ways) - len(ends), floor=floor)


def _way_down(
    at: Callable[[Tensor], tuple[float, Tensor]], start: Tensor
) -> tuple[float, float, Tensor] | None:
    """The value at the start, the lowest one on the way, and where that was; None where the start is not finite."""
    student = start.clone().requires_grad_()
    first, pull = at(student)
    lowest = [first, start]
    if not _finite(first, pull):
        return None
    if not pull.any():
        return first, first, start

    def look() -> Tensor:
        if not student.detach().abs().max() < _FARTHEST:
            raise _OffTheMap
        value, pull = at(student)
        if _finite(value, pull) and value < lowest[0]:
            lowest[:] = value, student.detach().clone()
        student.grad = pull.clone()
        return torch.tensor(value)

    adam = torch.optim.Adam([student], lr=_ADAM_RATE, betas=(0.8, 0.9))
    for step in range(_ADAM_STEPS):
        adam.param_groups[0]["lr"] = _ADAM_RATE * (1 - step / _ADAM_STEPS)
        if not _finite(look().item(), student.grad):
            break
        adam.step()
    student.data = lowest[1].clone()
    newton = torch.optim.LBFGS(
        [student],
        max_iter=_NEWTON_STEPS,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )
    with contextlib.suppress(_OffTheMap):
        newton.step(look)
    return first, lowest[0], lowest[1]


def _finite(value: float, pull: Tensor) -> bool:
    return torch.isfinite(torch.tensor(value)).item() and bool(pull.isfinite().all())
