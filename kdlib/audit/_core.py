"""How a claim is registered, measured and decided. The claims themselves stand in a file for each topic."""

import difflib
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pandas

from kdlib.experiments import gains
from kdlib.lesson import plots, results
from kdlib.metrics import Interval

HOLDS, IN_PART = "holds", "holds in part"
FAILS, UNTESTED = "does not hold here", "cannot be tested here"
VERDICTS = (HOLDS, IN_PART, FAILS, UNTESTED)

SIZE, ACCURACY, SETTINGS = "size", "accuracy", "temperature and alpha"
SPEED, TRAINING, TASKS, CODE = "speed and memory", "training", "other tasks", "code"
TOPICS = (SIZE, ACCURACY, SETTINGS, SPEED, TRAINING, TASKS, CODE)


class Finding(NamedTuple):
    """One of `VERDICTS`, and what was measured, in words with the numbers that decided."""

    verdict: str
    measured: str


@dataclass(frozen=True)
class Claim:
    """A statement of a tutorial that can be true or false.

    number: the tutorial's letter, and which of its claims. says: the claim, in our words. needs: what has to be true
    or named for it to hold. by: the command or the cell that gives the numbers. measure: counts, computes, or reads
    a recorded table, and lets the numbers decide.
    """

    number: str
    topic: str
    says: str
    needs: str
    by: str
    measure: Callable[[], Finding]


class NotRecorded(Exception):
    """The table that decides is not there; its argument is the name."""


_claims: dict[str, Claim] = {}


def claim(number: str, *, topic: str, says: str, needs: str, by: str = "") -> Callable:
    """Decorator: register the function that measures a claim; the function is handed back unchanged.

    by: as in `Claim`; where it is left out, everything is computed by `kdlib audit NUMBER`.

    Raises:
        ValueError: a number that is taken or no letter and number, an unknown topic, or a text that is missing.
    """
    if not re.fullmatch(r"[A-D][1-9][0-9]?", number) or number in _claims:
        raise ValueError(
            f"number must be a letter of A to D and a number that no claim has yet, got {number!r}"
        )
    if topic not in TOPICS:
        raise ValueError(f"topic must be one of {', '.join(TOPICS)}, got {topic!r}")
    if not says.strip() or not needs.strip():
        raise ValueError(f"claim {number} must say what it claims and what it needs")

    def register(function: Callable[[], Finding]) -> Callable[[], Finding]:
        _claims[number] = Claim(number, topic, says, needs, by or f"kdlib audit {number}", function)
        return function

    return register


def recorded(name: str, lesson: str) -> str:
    """Words for `by`: the command of a recorded table, and the lesson that discusses it."""
    return f"kdlib record {name} ({lesson})"


def claims() -> tuple[Claim, ...]:
    """All claims, in the order of their numbers."""
    return tuple(sorted(_claims.values(), key=lambda one: (one.number[0], int(one.number[1:]))))


def find(number: str) -> Claim:
    """The claim with this number.

    Raises:
        ValueError: there is none; the message names those near it.
    """
    known = [one.number for one in claims()]
    if not isinstance(number, str) or number.upper() not in known:
        near = difflib.get_close_matches(str(number).upper(), known, n=5, cutoff=0.3)
        near = f"; near it: {', '.join(near)}" if near else ""
        raise ValueError(f"number must be one of the audit's, {_spans(known)}, got {number!r}{near}")
    return _claims[number.upper()]


def _spans(known: list[str]) -> str:
    """The first and last number of each tutorial."""
    letters = sorted({number[0] for number in known})
    of_letter = {letter: [number for number in known if number[0] == letter] for letter in letters}
    return ", ".join(f"{numbers[0]} to {numbers[-1]}" for numbers in of_letter.values())


def measure(number: str) -> Finding:
    """What is found of a claim; measured once in a process.

    Raises:
        ValueError: an unknown number; the message names those near it.
    """
    return _measured(find(number).number)


@functools.cache
def _measured(number: str) -> Finding:
    try:
        return _claims[number].measure()
    except NotRecorded as missing:
        return Finding(UNTESTED, f"The table that decides is not recorded yet: kdlib record {missing}.")
    except (
        Exception
    ) as problem:  # one claim that cannot be measured must not take all others with it; it is told
        return Finding(UNTESTED, f"It could not be measured: {type(problem).__name__}: {problem}.")


# ------------------------------------------------------------------ what claims are decided by


def read(name: str) -> pandas.DataFrame:
    """A recorded table.

    Raises:
        NotRecorded: there is none of this name.
        ValueError: it is damaged.
    """
    try:
        return results.read(name)
    except ValueError as error:
        if name not in results.recorded():
            raise NotRecorded(name) from error
        raise


def near(value: float | int, claimed: float | int, tolerance: float = 0.05) -> bool:
    """Whether a number is the claimed one, up to a share of it."""
    return abs(value / claimed - 1) <= tolerance


def of_count(value: float | int, claimed: float | int) -> str:
    """A count holds where it is right to a twentieth."""
    return HOLDS if near(value, claimed) else FAILS


def of_gains(*comparisons: tuple[Interval, ...]) -> str:
    """The verdict on "it helps", of one comparison or of several, each with one set of seeds or with two.

    A comparison helps where every set of seeds says so, as in the lessons. It holds where all help, and in part where
    some do. A gain that cannot be told apart from none is not the gain that was promised: that does not hold.
    """
    helped = [gains.verdict(*sets) == gains.HELPS for sets in comparisons]
    return HOLDS if all(helped) else IN_PART if any(helped) else FAILS


def both(*gains: Interval) -> str:
    """The gains of two sets of seeds in words."""
    return ", and with other seeds ".join(plots.points(gain) for gain in gains)
