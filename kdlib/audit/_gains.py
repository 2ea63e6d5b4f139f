"""Gains out of the recorded tables, with the seeds of the lesson and, where there are some, with others."""

import functools
from collections.abc import Mapping
from typing import Any

import pandas

from kdlib import metrics
from kdlib.audit._core import read
from kdlib.deploy import shelf
from kdlib.experiments import lesson07_advice
from kdlib.experiments.gains import Comparison
from kdlib.experiments.lesson07_advice import Advice
from kdlib.lesson import results
from kdlib.metrics import Interval


@functools.cache
def _all_advice() -> dict[tuple[str, str], Advice]:
    return {(one.words, one.over): one for one in lesson07_advice.every()}


def advice(words: str, over: str) -> Advice:
    """A piece of advice of lesson 07, by its words and its control.

    Raises:
        KeyError: there is no such advice.
    """
    return _all_advice()[words, over]


def gains(one: Advice) -> tuple[Interval, ...]:
    """What it is ahead of its control by, with each set of seeds."""
    again = [f"{one.table}-again"] if f"{one.table}-again" in results.recorded() else []
    return tuple(lesson07_advice.gain(one, name) for name in (one.table, *again))


def compared(
    lesson: str, topic: str, arm: str, over: str, by: str, where: Mapping[str, Any] | None = None
) -> tuple[Interval, Interval]:
    """The same of two arms of a table of lesson 08 or 09, with both sets of seeds."""
    one = Comparison(lesson, topic, arm, over, by, where or {})
    return one.gain("", read), one.gain("-again", read)


def paired(
    table: pandas.DataFrame, arm: Mapping[str, Any], control: Mapping[str, Any], score: str
) -> Interval:
    """The paired interval of the rows where the columns have the values of `arm`, over those of `control`."""
    return metrics.paired_interval(by_seed(table, arm, score), by_seed(table, control, score))


def on_the_shelf(name: str, over: str) -> Interval:
    """How many more of the test images one model of the shelf recognises than another, a fraction."""
    return Interval(*shelf.paired_difference(shelf.right_answers(name), shelf.right_answers(over)))


def by_seed(table: pandas.DataFrame, where: Mapping[str, Any], score: str) -> pandas.Series:
    """The scores of some rows, in the order of their seeds."""
    for column, value in where.items():
        table = table[table[column] == value]
    return table.set_index("seed").sort_index()[score]
