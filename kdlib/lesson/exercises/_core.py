"""An exercise: a tested solution, the cases it is judged on, its hints, and the mistakes known by name."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kdlib.lesson.exercises import _source
from kdlib.lesson.laboratory import Rehearsal


def call(function: Callable, *arguments: Any) -> Any:
    """What the function returns."""
    return function(*arguments)


@dataclass(frozen=True)
class Exercise:
    """`solve` is right by definition; an answer is right when it behaves like `solve` on every case.

    Args:
        solve: the solution, in a function whose name and docstring are those of the exercise.
        cases: gives the arguments of each call that is compared.
        hints: from a nudge to nearly the solution.
        mistakes: by diagnosis, an implementation that makes just that mistake.
        probe: `probe(function, *arguments)` gives what is compared; by default, what the function returns. One that
            looks for properties raises a `Complaint` about the first that is missing.
        start: code to be repaired, where the exercise is a repair: what the learner begins with.
        tolerance: relative, and, a tenth of it, absolute.
        is_open: an experiment of the learner's own, judged by its design: `cases` gives the laboratory of a rehearsal.
    """

    solve: Callable
    cases: Callable[[], list[tuple]]
    hints: list[str]
    mistakes: dict[str, Callable]
    probe: Callable = call
    start: Callable | None = None
    tolerance: float = 1e-4
    is_open: bool = False

    @property
    def name(self) -> str:
        """The name of the exercise, which the learner's function bears."""
        return self.solve.__name__

    @property
    def lesson(self) -> str:
        """The number of the lesson that asks for it, from the module that defines it: "01"."""
        return re.search(r"lesson(\d\d)", self.solve.__module__).group(1)

    @property
    def asks_for_a_value(self) -> bool:
        """Whether the answer is a value rather than a function."""
        return _source.asks_for_a_value(self.solve)

    def stub_source(self) -> str:
        """The cell that the learner fills in or repairs."""
        return _source.stub(self.solve, self.start)

    def solution_source(self) -> str:
        """The same cell with the solution."""
        return _source.solution(self.solve)


REGISTRY: dict[str, Exercise] = {}


def exercise(
    *,
    cases: Callable[[], list[tuple]],
    hints: list[str],
    mistakes: dict[str, Callable],
    probe: Callable = call,
    start: Callable | None = None,
    tolerance: float = 1e-4,
) -> Callable[[Callable], Callable]:
    """Register the decorated function as the solution of the exercise that bears its name; arguments as `Exercise`."""

    def register(solve: Callable) -> Callable:
        REGISTRY[solve.__name__] = Exercise(solve, cases, hints, mistakes, probe, start, tolerance)
        return solve

    return register


def open_experiment(*, hints: list[str], **laboratory: Any) -> Callable[[Callable], Callable]:
    """Register the decorated function of a laboratory as a solution of the open experiment that bears its name.

    Its docstring offers the questions to choose from.

    Args:
        hints: as `Exercise`.
        laboratory: what `Rehearsal` takes, as the `Laboratory` has it in which the lesson then runs the learner's
            function.
    """

    def register(solve: Callable) -> Callable:
        def cases() -> list[tuple]:
            return [(Rehearsal(**laboratory),)]

        REGISTRY[solve.__name__] = Exercise(solve, cases, hints, mistakes={}, is_open=True)
        return solve

    return register


def get(name: str) -> Exercise:
    """The exercise of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in REGISTRY:
        raise ValueError(f"unknown exercise {name!r}; there are: {', '.join(sorted(REGISTRY))}")
    return REGISTRY[name]
