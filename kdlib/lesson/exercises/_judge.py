"""The judge: compares an answer with the solution on every case, and names the mistake where it is known."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kdlib.lesson.exercises._core import Exercise
from kdlib.lesson.exercises._design import judge_design, rehearse
from kdlib.lesson.exercises._difference import describe_difference, sentence
from kdlib.lesson.exercises._limits import EndlessLoop
from kdlib.lesson.exercises._observe import SECONDS, Outcome, agree, is_unfinished, observe
from kdlib.lesson.exercises._verdict import CORRECT, UNFINISHED, WRONG, Verdict


@dataclass(frozen=True)
class Behaviour:
    """What an answer did on the cases of its exercise; or, where it was not called to its end, what is to be said."""

    outcomes: list[Outcome] = field(default_factory=list)
    objection: tuple[str, str] | None = None  # a status and a message


def judge(exercise: Exercise, answer: Any) -> Verdict:
    cases = exercise.cases()
    return conclude(exercise, cases, watch(exercise, answer, cases))


def watch(exercise: Exercise, answer: Any, cases: list[tuple]) -> Behaviour:
    """Call the answer on every case: the one half of a judgement, which runs what the learner wrote.

    An open experiment leaves its record in the laboratory of its case.
    """
    if not callable(answer):
        if is_unfinished(answer):
            return Behaviour(objection=(UNFINISHED, "Replace the ... by your answer."))
        if not exercise.asks_for_a_value:
            call = f'check("{exercise.name}", {exercise.name})'
            return Behaviour(objection=(WRONG, f"Hand over the function itself, not its result: {call}."))
    function = answer if callable(answer) else lambda: answer
    complaint = _wrong_arity(exercise, function, cases[0])
    if complaint:
        return Behaviour(objection=(WRONG, complaint))
    try:
        if exercise.is_open:
            return Behaviour([rehearse(function, *cases[0])])
        return Behaviour([observe(exercise.probe, function, case) for case in cases])
    except EndlessLoop:
        return Behaviour(objection=(WRONG, f"It had come to no end after {SECONDS} seconds of computing."))


def conclude(exercise: Exercise, cases: list[tuple], seen: Behaviour) -> Verdict:
    """Compare what was seen with the solution: the other half, which runs nothing that a learner wrote."""
    if seen.objection:
        return Verdict(exercise.name, *seen.objection)
    if exercise.is_open:
        return judge_design(exercise.name, *seen.outcomes, *cases[0])
    return _judge_behaviour(exercise, cases, seen.outcomes)


def _judge_behaviour(exercise: Exercise, cases: list[tuple], got: list[Outcome]) -> Verdict:
    def behaviour(candidate: Callable) -> list[Outcome]:
        return [observe(exercise.probe, candidate, case) for case in cases]

    def alike(these: list[Outcome], those: list[Outcome]) -> bool:
        return all(agree(one, other, exercise.tolerance) for one, other in zip(these, those, strict=True))

    expected = behaviour(exercise.solve)
    if all(outcome.unfinished for outcome in got):
        message = "Nothing comes back yet: is there still a ... to fill in, or is the `return` missing?"
        return Verdict(exercise.name, UNFINISHED, message)
    if alike(got, expected):
        return Verdict(exercise.name, CORRECT, _praise(len(cases)))
    if exercise.start is not None and alike(got, behaviour(exercise.start)):
        return Verdict(exercise.name, UNFINISHED, "It still does what it did when you got it: find the bug.")
    for diagnosis, mistaken in exercise.mistakes.items():
        if alike(got, behaviour(mistaken)):
            return Verdict(exercise.name, WRONG, sentence(diagnosis), diagnosis)
    return Verdict(exercise.name, WRONG, describe_difference(exercise, cases, got, expected))


def _praise(cases: int) -> str:
    return "Right." if cases == 1 else f"Right on all {cases} inputs."


def _wrong_arity(exercise: Exercise, function: Callable, arguments: tuple) -> str | None:
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # built-ins have none: calling them will tell
        return None
    try:
        signature.bind(*arguments)
    except TypeError:
        wanted = ", ".join(inspect.signature(exercise.solve).parameters)
        return f"It is called as {exercise.name}({wanted}), but yours takes {signature}."
    return None
