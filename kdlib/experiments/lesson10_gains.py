"""Lesson 10: what the mending of each case of the clinic is worth to students, from ten paired seeds.

There is one set of seeds for the clinic, so a verdict here is that of one set, where lessons 07 to 09 ask two.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import pandas

from kdlib.experiments import gains
from kdlib.experiments.gains import Comparison
from kdlib.experiments.lesson10_clinic import FOUND, LABELS, MENDED
from kdlib.lesson import plots, results
from kdlib.metrics import Interval

__all__ = ["effect", "gain", "rows", "shown", "words"]

STANDS, CHANGED, CONSTANT = "as it stands", "after the change that it suggests", "a constant temperature"
OTHER_FOUND, OTHER_MENDED = "found, images of another kind", "mended, images of another kind"
HIGHER_FOUND, HIGHER_MENDED = "found, a higher rate", "mended, a higher rate"
CORRECTED, RANDOM, FINISHED = (
    "found, its alpha corrected",
    "moved at random",
    "the finished teacher, same loss",
)
PAIRS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "reduction": ((MENDED, FOUND), (MENDED, CORRECTED)),
    "weights": ((MENDED, FOUND),),
    "clamp": ((MENDED, FOUND), (HIGHER_MENDED, HIGHER_FOUND)),
    "logarithm": ((MENDED, FOUND),),
    "cache": ((MENDED, FOUND), (MENDED, LABELS)),
    "mode": ((MENDED, FOUND), (OTHER_MENDED, OTHER_FOUND)),
    "best": ((MENDED, FOUND),),
    "adversary": ((MENDED, FOUND), (MENDED, RANDOM)),
    "training on validation": ((MENDED, FOUND),),
    "together": ((MENDED, LABELS), (FINISHED, LABELS)),
    "false alarm": ((CHANGED, STANDS), (STANDS, CONSTANT)),
}
_CLINIC = "lesson10-clinic"
# Case -> the column that holds what its code prints or spoils, beside the accuracy on test, and the words for it.
_BESIDE = {
    "training on validation": ("reported", "the code reports"),
    "best": ("reported", "the code reports"),
    "mode": ("teacher", "the teacher's accuracy afterwards"),
}


def _compared() -> Iterator[Comparison]:
    for case, pairs in PAIRS.items():
        for arm, over in pairs:
            yield Comparison("lesson10", "clinic", arm, over, "accuracy", {"case": case}, case)
    # What stands in the tables of other lessons.
    yield Comparison("lesson08", "collages", "two sides, alone", "one side, alone", "map", {}, "sigmoids")
    yield Comparison("lesson07", "schedules", "T 10 to 1, linear", "T = 5.5", "test", {}, "schedule")


def _read(name: str) -> pandas.DataFrame:
    return results.read(name).rename(columns={"plan": "arm"})


def rows() -> pandas.DataFrame:
    """Every comparison: the case, the arm, what it is compared with, the gain, the verdict and the table."""
    return pandas.DataFrame(_rows())


@functools.cache
def _rows() -> list[dict]:
    made = []
    for one in _compared():
        gain = one.gain("", _read)
        row = {"case": one.of, "arm": one.arm, "over": one.over, "gain": gain}
        made.append(row | {"verdict": gains.verdict(gain), "table": f"{one.lesson}-{one.topic}"})
    return made


def gain(case: str, arm: str = MENDED, over: str = FOUND) -> Interval:
    """The gain of one comparison.

    Raises:
        KeyError: there is no such comparison.
    """
    found = rows().query("case == @case and arm == @arm and over == @over")
    if found.empty:
        raise KeyError(f"there is no comparison of {arm!r} over {over!r} in {case!r}")
    return found.iloc[0]["gain"]


def effect(case: str) -> str:
    """What the mending did to students, in words.

    Raises:
        KeyError: there is no such case.
    """
    of_case = rows().query("case == @case")
    if of_case.empty:
        raise KeyError(f"there is no case {case!r}")
    said = [
        f"{row.arm} over {row.over}: {plots.points(row.gain)}, {row.verdict}" for row in of_case.itertuples()
    ]
    if case in _BESIDE:
        column, name = _BESIDE[case]
        means = results.read(_CLINIC).query("case == @case").groupby("arm", sort=False)[column].mean()
        said += [f"{name} ({arm}): {mean:.1%}" for arm, mean in means.items()]
    return "; ".join(said) + "."


def words(row: Any) -> str:
    """A row of `rows()` in words; what both arms have in common is said once."""
    arm, _, same = row.arm.partition(", ")
    over, _, other = row.over.partition(", ")
    if same and same == other:
        return f"{row.case}, {same}: {arm} over {over}"
    return f"{row.case}: {row.arm} over {row.over}"


def shown(table: pandas.DataFrame) -> pandas.DataFrame:
    """The table with its gains in points, for a notebook."""
    return table.assign(gain=table["gain"].map(plots.points)).set_index("case")
