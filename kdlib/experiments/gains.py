"""What an arm is ahead of its control by, from the recorded tables of two sets of seeds.

A verdict needs two sets of ten seeds that agree: "helps" where both intervals lie above 0, "hurts" where both lie
below, and "not told apart" else.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import pandas

from kdlib import metrics
from kdlib.lesson import results
from kdlib.metrics import Interval

HELPS, HURTS, UNKNOWN = "helps", "hurts", "not told apart"
DEGREES = "degrees"


class Comparison(NamedTuple):
    """Two arms of a recorded table, where other columns have the values of `where`; `by` is what is measured.

    of: the words for what else is fixed. control: the table, the column and the fixed values of the other arm, where
    these are not those of the first.
    """

    lesson: str
    topic: str
    arm: str
    over: str
    by: str
    where: Mapping[str, Any] = {}
    of: str = ""
    control: tuple[str, str, Mapping[str, Any]] | None = None

    def gain(self, kind: str = "", read: Callable[[str], pandas.DataFrame] = results.read) -> Interval:
        """How far the arm is ahead, a fraction; of degrees, and of a calibration error, how much smaller it is.

        kind: "-again" for the other set of seeds. read: gives a table by its name.
        """
        topic, by, where = self.control or (self.topic, self.by, self.where)
        of_arm = _by_seed(read(f"{self.lesson}-{self.topic}{kind}"), self.arm, self.by, self.where)
        of_other = _by_seed(read(f"{self.lesson}-{topic}{kind}"), self.over, by, where)
        gain = metrics.paired_interval(of_arm, of_other)
        if self.by not in (DEGREES, "ece"):
            return gain
        return Interval(-gain.mean, -gain.high, -gain.low)


def _by_seed(table: pandas.DataFrame, arm: str, by: str, where: Mapping[str, Any]) -> pandas.Series:
    for column, value in where.items():
        table = table[table[column] == value]
    return table[table["arm"] == arm].set_index("seed").sort_index()[by]


def verdict(*gains: Interval) -> str:
    """What both sets of seeds say."""
    if all(gain.low > 0 for gain in gains):
        return HELPS
    return HURTS if all(gain.high < 0 for gain in gains) else UNKNOWN


def rows(comparisons: Iterable[Comparison]) -> pandas.DataFrame:
    """Every comparison: its topic, arm, control, what is fixed, the unit, both gains and the verdict."""
    made, read = [], functools.cache(results.read)
    for one in comparisons:
        gains = one.gain("", read), one.gain("-again", read)
        row = {"topic": one.topic, "arm": one.arm, "over": one.over, "of": one.of}
        row |= {"gain": gains[0], "gain of other seeds": gains[1], "verdict": verdict(*gains)}
        made.append(row | {"unit": DEGREES if one.by == DEGREES else "points"})
    return pandas.DataFrame(made)


def found(table: pandas.DataFrame, topic: str, arm: str, over: str, of: str = "") -> Interval:
    """The gain of one comparison with the lesson's seeds.

    Raises:
        KeyError: there is no such comparison.
    """
    rows = table.query("topic == @topic and arm == @arm and over == @over and of == @of")
    if rows.empty:
        raise KeyError(f"there is no comparison of {arm!r} over {over!r} in {topic!r} with {of!r}")
    return rows.iloc[0]["gain"]


def shown(table: pandas.DataFrame) -> pandas.DataFrame:
    """The table with its gains in points or degrees, for a notebook."""
    written = table.drop(columns=["topic", "unit"]).copy()
    for column in ("gain", "gain of other seeds"):
        written[column] = [_text(value, unit) for value, unit in zip(table[column], table["unit"], strict=True)]
    if not written["of"].any():
        written = written.drop(columns="of")
    return written.set_index("arm")


def _text(value: Interval, unit: str) -> str:
    numbers = value if unit == DEGREES else [100 * one for one in value]
    mean, low, high = (round(number, 1) + 0.0 for number in numbers)  # + 0.0: no "-0.0"
    return f"{mean:+.1f}{'°' if unit == DEGREES else ''} [{low:+.1f}, {high:+.1f}]"
