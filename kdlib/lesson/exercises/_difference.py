"""What to say of an answer that makes no mistake known by name: the first thing that differs, in words."""

import inspect

from kdlib.lesson.exercises._core import Exercise
from kdlib.lesson.exercises._observe import Complaint, Outcome, agree, close


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def describe_difference(
    exercise: Exercise, cases: list[tuple], got: list[Outcome], expected: list[Outcome]
) -> str:
    factor = _common_factor(got, expected, exercise.tolerance)
    if factor is not None:
        return f"It is {factor:.4g} times the right result on every input: a factor is missing or too many."
    first = next(i for i in range(len(cases)) if not agree(got[i], expected[i], exercise.tolerance))
    if isinstance(got[first].error, Complaint) and not cases[first]:
        return sentence(str(got[first].error))  # a value: there is no input for which it was seen
    return _complaint(got[first], expected[first], exercise.tolerance) + _inputs(exercise, cases[first])


def _complaint(got: Outcome, expected: Outcome, tolerance: float) -> str:
    if got.unfinished:
        return "It returns nothing"
    if isinstance(got.error, Complaint):
        return f"{sentence(str(got.error))} That was seen"
    if isinstance(got.error, RecursionError):
        return "It calls itself without end (RecursionError)"
    if got.error is not None:
        return f"It stops with {got.error_text!r}"
    if got.changed_input:
        return "It changes its inputs in place, which spoils the caller's data,"
    if len(got.numbers) != len(expected.numbers):
        return f"It returns {_count(got)} where {_count(expected)} should be"
    for (label, right), mine in zip(expected.numbers.items(), got.numbers.values(), strict=True):
        if mine.shape != right.shape:
            return f"The {label} is {_form(mine)}; it should be {_form(right)},"
        if not close(mine, right, tolerance):
            mine, right = mine.flatten(), right.flatten()
            worst = (mine - right).abs().nan_to_num(nan=float("inf")).argmax()
            missed = f"The {label} contains {mine[worst]:.5g} where {right[worst]:.5g} should be"
            return missed + _how_near(mine[worst].item(), right[worst].item(), tolerance)
    raise AssertionError("asked for the difference of two equal outcomes")


def _how_near(mine: float, right: float, tolerance: float) -> str:
    """Said where an exercise asks for a search and the one in hand is only too coarse."""
    if tolerance < 0.01 or not abs(mine - right) < abs(right) / 5:
        return ""
    return f", which is {100 * abs(mine / right - 1):.1f} % off (allowed: {100 * tolerance:g} %)"


def _count(outcome: Outcome) -> str:
    return "one value" if len(outcome.numbers) == 1 else f"{len(outcome.numbers)} values"


def _form(part) -> str:
    return f"of shape {tuple(part.shape)}" if part.ndim else "a single number"


def _inputs(exercise: Exercise, arguments: tuple) -> str:
    """Which input it was: " for logits of shape (4, 10), temperature 4.0."."""
    names = inspect.signature(exercise.solve).parameters
    parts = [
        f"{name} of shape {tuple(value.shape)}" if hasattr(value, "shape") else f"{name} = {value}"
        for name, value in zip(names, arguments, strict=True)
    ]
    return f" for {', '.join(parts)}." if parts else "."


def _common_factor(got: list[Outcome], expected: list[Outcome], tolerance: float) -> float | None:
    """The one number that all results are too large or too small by, if there is one."""
    if not all(outcome.numbers and outcome.finite and not outcome.changed_input for outcome in got):
        return None
    if [outcome.shapes for outcome in got] != [outcome.shapes for outcome in expected]:
        return None
    mine, right = _all_numbers(got), _all_numbers(expected)
    largest = max(range(len(right)), key=lambda i: abs(right[i]))
    if len(right) < 2 or not right[largest] or not mine[largest]:
        return None
    factor = mine[largest] / right[largest]
    if abs(factor - 1) < 10 * tolerance:
        return None  # no factor, but a result that is not exact enough
    slack = tolerance * abs(mine[largest])
    return factor if all(abs(m - factor * r) <= slack for m, r in zip(mine, right, strict=True)) else None


def _all_numbers(outcomes: list[Outcome]) -> list[float]:
    return [x for outcome in outcomes for part in outcome.numbers.values() for x in part.flatten().tolist()]
