"""Exercises of lesson 10: the search for the logits at which a loss is lowest.

The functions carry no annotations, because their text is the stub that a learner reads: shapes stand in the
docstrings.
"""

import functools

import torch

from kdlib.lesson.exercises import _descent
from kdlib.lesson.exercises._core import exercise
from kdlib.lesson.exercises._inputs import logits

# ------------------------------------------------------------------------------------ the lowest logits


def _losses():
    _descent.load_optimizers()
    return [("several losses side by side", logits(0, 6, 4, scale=2.0), logits(1, 6, 4, scale=1.0))]


def _minimised(function, *given):
    """Probe. What the solution finds is always the same and asked for at every check: it is kept."""
    return _found() if function is lowest_logits else _descent.minimised(function, *given)


@functools.cache
def _found():
    return _descent.minimised(lowest_logits, *_losses()[0])


def _search(
    *,
    begin=lambda teacher, start: start.clone(),
    ask=lambda loss, z, v: loss(z, v.detach()),
    steps=3,
    rate=0.1,
    cleared=True,
    returned=lambda z, start: z.detach(),
):
    """The solution with one mistake. So few steps show it that the check need not wait for five hundred."""

    def search(loss, teacher_logits, start):
        z = begin(teacher_logits, start).requires_grad_()
        optimizer = torch.optim.Adam([z], lr=rate)
        for _ in range(steps):
            if cleared:
                optimizer.zero_grad()
            ask(loss, z, teacher_logits).backward()
            optimizer.step()
        return returned(z, start)

    return search


def _moves_teacher(loss, teacher_logits, start):
    moving = teacher_logits.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([moving], lr=0.1)
    for _ in range(3):
        loss(start, moving).backward()
        optimizer.step()
    return moving.detach()


def _never_steps(loss, teacher_logits, start):
    for _ in range(500):
        loss(start.clone().requires_grad_(), teacher_logits.detach()).backward()
    return start.clone()


@exercise(
    cases=_losses,
    probe=_minimised,
    tolerance=0.01,
    hints=[
        """A training moves weights until the loss is low. Here there is no network: which tensor takes the place of
        the weights, and what must be true of it for a gradient to arrive?""",
        """`logits = start.clone().requires_grad_()` is a leaf of its own, and `torch.optim.Adam([logits], lr=0.1)`
        moves it. Each step has the three lines of every training. What keeps the gradient out of the teacher?""",
        """500 times: `optimizer.zero_grad()`, `loss(logits, teacher_logits.detach()).backward()`, `optimizer.step()`.
        In the end `return logits.detach()`.""",
    ],
    mistakes={
        _descent.EXCHANGED: _search(ask=lambda loss, z, v: loss(v.detach(), z)),
        _descent.FROM_TEACHER: _search(begin=lambda teacher, start: teacher.detach().clone()),
        _descent.PROBABILITIES: _search(ask=lambda loss, z, v: loss(z.softmax(1), v.detach().softmax(1))),
        _descent.ELSEWHERE: _search(begin=lambda teacher, start: torch.zeros_like(start)),
        _descent.NOT_WHOLE: _search(ask=lambda loss, z, v: loss(z[0], v[0].detach())),
        _descent.TEACHER_MOVES: _moves_teacher,
        _descent.TEACHER_GRADIENT: _search(ask=lambda loss, z, v: loss(z, v)),
        _descent.START_MOVES: _search(begin=lambda teacher, start: start),
        _descent.STAYS: _never_steps,
        _descent.UPHILL: _search(ask=lambda loss, z, v: -loss(z, v.detach())),
        _descent.PILED: _search(cleared=False),
        _descent.NO_TENSOR: _search(returned=lambda z, start: z.tolist()),
        _descent.LOSS_COMES_BACK: _search(returned=lambda z, start: z.detach().sum()),
        _descent.ANOTHER_SHAPE: _search(returned=lambda z, start: z.detach().mean(0)),
        _descent.GRAPH: _search(returned=lambda z, start: z),
        _descent.RETURNS_PROBABILITIES: _search(returned=lambda z, start: z.detach().softmax(1)),
        _descent.NOT_ASKED: lambda loss, teacher_logits, start: start.clone(),
        _descent.RETURNS_START: _search(returned=lambda z, start: start.clone()),
        _descent.ONE_STEP: _search(steps=1),
        _descent.OTHER_STEPS: _search(rate=0.01),
    },
)  # fmt: skip
def lowest_logits(loss, teacher_logits, start):
    """What does a loss ask of a student? The student's logits at which it is low, found by going downhill.

    loss(student_logits, teacher_logits): any function of two tensors (batch, classes) that returns one number. It is
    asked as it is, about logits. Begin with student's logits like `start`, (batch, classes), and take 500 steps of
    torch.optim.Adam with a rate of 0.1. Returns the logits after them, (batch, classes), which require no gradient.
    Neither start nor teacher_logits changes, and no gradient flows into teacher_logits, which may require one.
    """
    # --- your code
    logits = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(500):
        optimizer.zero_grad()
        loss(logits, teacher_logits.detach()).backward()
        optimizer.step()
    return logits.detach()
    # --- end
