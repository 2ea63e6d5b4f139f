"""Answers that learners might give, with what `check` has to say of them: a file a lesson.

A lesson's ANSWERS has an entry for each of its exercises: at least five wrong answers, each under words that its
verdict must contain, and at least two right ones that are written differently from each other and from the solution.
They are written without the helpers of the exercises, so that a slip there shows here.
"""

from collections.abc import Callable
from typing import NamedTuple


class Answers(NamedTuple):
    """The answers to one exercise."""

    wrong: dict[str, Callable]
    right: list[Callable]
