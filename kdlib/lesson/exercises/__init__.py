"""The exercises of the workbook: `check` an answer, ask for a `hint`, look at the `solution`.

An answer is judged by what it does on several inputs, never by how it is written; an experiment of the learner's own
by what it asks of the laboratory in a rehearsal. An unfinished or wrong answer never raises; the name of an exercise
that does not exist is a ValueError, a slip in the notebook.
"""

import importlib
import pkgutil
from typing import Any

from kdlib.lesson.exercises._core import REGISTRY, Exercise, get
from kdlib.lesson.exercises._judge import judge
from kdlib.lesson.exercises._verdict import Hint, Solution, Verdict

__all__ = ["Exercise", "Hint", "Solution", "Verdict", "check", "get", "hint", "mine", "names", "solution"]

# The exercises of a lesson are registered by importing the file that defines them.
for _file in pkgutil.iter_modules(__path__):
    if _file.name.startswith("lesson"):
        importlib.import_module(f"{__name__}.{_file.name}")

_hints_shown: dict[str, int] = {}


def names() -> list[str]:
    """The exercises of all lessons."""
    return list(REGISTRY)


def check(name: str, answer: Any) -> Verdict:
    """Judge an answer: "not done yet", "not yet right" (with the mistake named, if known) or "correct".

    Args:
        name: the exercise.
        answer: the learner's function, or the value where the exercise asks for one. Whatever it does, nothing is
            raised for it.

    Raises:
        ValueError: there is no such exercise.
    """
    return judge(get(name), answer)


def hint(name: str) -> Hint:
    """The next hint, from a nudge to nearly the solution; after the last one, the last one again.

    Raises:
        ValueError: there is no such exercise.
    """
    hints = get(name).hints
    _hints_shown[name] = min(_hints_shown.get(name, 0) + 1, len(hints))
    number = _hints_shown[name]
    return Hint(name, number, len(hints), hints[number - 1])


def solution(name: str) -> Solution:
    """One way to solve it: displays its source, and can be called.

    Raises:
        ValueError: there is no such exercise.
    """
    exercise = get(name)
    return Solution(exercise.solve, exercise.solution_source())


def mine(name: str, answer: Any) -> Any:
    """The learner's own answer where `check` finds it correct, the solution otherwise; prints a line that says which.

    So the cells below an exercise run for everybody, and with the learner's own function as soon as it is right.

    Args:
        name: the exercise.
        answer: as `check` takes it.

    Returns:
        A function; or a value where the exercise asks for one.

    Raises:
        ValueError: there is no such exercise.
    """
    verdict = check(name, answer)
    if verdict.passed:
        print(f"From here on: your {name}.")
        return answer
    print(f"From here on: the solution's {name}, because yours is {verdict.status}.")
    exercise = get(name)
    return exercise.solve() if exercise.asks_for_a_value else exercise.solve
