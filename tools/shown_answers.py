"""Does code that stands above an exercise solve it? Every candidate of `shown_code` is tried under every renaming.

Every parameter of the exercise has to stand somewhere in the candidate. Of an exercise with more than five parameters
not every order of the names is tried, but those first in which names of the exercise stay what they are.
"""

import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import notebook_reading as reading
from shown_code import Candidate, number, shown

from kdlib.lesson import exercises
from kdlib.lesson.exercises._limits import EndlessLoop
from kdlib.lesson.exercises._observe import Outcome, agree, observe

_RENAMINGS = 120  # of one candidate: five names in every order
_PARTS = 100  # at most, of a result that is a list: no answer has more


def answers_above(notebook: dict) -> list[str]:
    """Each piece of code above an exercise that passes its `check`, in words; of one cell only the first."""
    wanted = list(asked(notebook))
    written = {name: exercises.get(name).solve for _, name in wanted}
    candidates, complaints = shown(notebook, written)
    for position, name in wanted:
        trial, cells = _Trial(exercises.get(name)), set()
        for candidate in candidates:
            if number(candidate) >= position or candidate.place in cells:
                continue
            renamed = trial.passed_by(candidate)
            if renamed is not None:
                cells.add(candidate.place)
                complaints.append(
                    f"{candidate.place}: `{_short(candidate.text)}` passes check({name!r}){renamed}"
                )
    return complaints


def _short(text: str) -> str:
    """The first and the last line of some code."""
    first, *more = text.splitlines()
    return f"{first} ... {more[-1].strip()}" if more else first


def asked(notebook: dict) -> Iterator[tuple[int, str]]:
    """The number of each cell that a learner fills in, and the name of its exercise."""
    cells = list(reading.code(notebook))
    for (place, cell), (_, following) in zip(cells, cells[1:], strict=False):
        if "exercise" in reading.tags(cell):
            yield int(place.split()[1]), re.search(r'check\("(\w+)"', reading.source(following))[1]


class _Trial:
    """Candidates before one exercise: a quick look at its cases one by one, then its own `check`."""

    def __init__(self, exercise: exercises.Exercise):
        self.exercise = exercise
        self.cases = exercise.cases()
        self.parameters = list(inspect.signature(exercise.solve).parameters)
        self.expected: dict[int, Outcome] = {}  # by the number of a case, once anybody gets that far

    def passed_by(self, candidate: Candidate) -> str | None:
        """How a candidate has to be renamed so that `check` finds it correct; None where no renaming does."""
        function = None
        for names in itertools.islice(_orders(candidate, self.parameters), _RENAMINGS):
            function = function or candidate.make()
            renamed = _renamed(function, candidate, names)
            try:
                passed = self._looks_right(renamed) and exercises.check(self.exercise.name, renamed).passed
            except EndlessLoop:
                return None
            if passed:
                return f" with {', '.join(names)} for its parameters" if names else ""
        return None

    def _looks_right(self, function: Callable) -> bool:
        return self.exercise.is_open or all(self._agrees(function, case) for case in range(len(self.cases)))

    def _agrees(self, function: Callable, case: int) -> bool:
        probe, arguments = self.exercise.probe, self.cases[case]
        got = observe(probe, function, arguments)
        if got.error is not None or got.unfinished or got.changed_input:
            return False
        if case not in self.expected:
            self.expected[case] = observe(probe, self.exercise.solve, arguments)
        return agree(got, self.expected[case], self.exercise.tolerance)


def _orders(candidate: Candidate, parameters: list[str]) -> Iterator[tuple[str, ...]]:
    """Which of its names stand for the first parameter of the exercise, for the second, and so on; all of them do."""
    for chosen in itertools.combinations(candidate.settled, max(0, len(parameters) - len(candidate.open))):
        names = (*candidate.open, *chosen)
        if len(names) == len(parameters):
            others = [name for name in names if name not in parameters]
            for order in itertools.permutations(others):
                rest = iter(order)
                yield tuple(name if name in names else next(rest) for name in parameters)
            yield from itertools.permutations(names)


def _renamed(function: Callable, candidate: Candidate, names: tuple[str, ...]) -> Callable:
    def answer(*arguments: Any) -> Any:
        result = function(**{**candidate.settled, **dict(zip(names, arguments, strict=True))})
        if isinstance(result, list | tuple | dict) and len(result) > _PARTS:
            raise ValueError(
                f"a list of {len(result)} is no answer"
            )  # a list times a number grows without end
        return result

    return answer
