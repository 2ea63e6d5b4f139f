"""Lesson 08: what each arm is ahead of its control by, from the recorded tables of both sets of seeds.

A verdict needs two sets of ten seeds that agree: "helps" where both intervals lie above 0, "hurts" where both lie
below, and "not told apart" else.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas

from kdlib import metrics
from kdlib.experiments import lesson08_collages, lesson08_detection, lesson08_modalities, lesson08_regression
from kdlib.experiments import lesson08_video as video
from kdlib.lesson import results
from kdlib.metrics import Interval

HELPS, HURTS, UNKNOWN = "helps", "hurts", "not told apart"
LABELS, LONGER = "labels", "labels, three times as long"


class Comparison(NamedTuple):
    """Two arms of a recorded table, where other columns have the values of `where`; `by` is what is measured."""

    topic: str
    arm: str
    over: str
    by: str
    where: Mapping[str, Any] = {}

    @property
    def words(self) -> str:
        """What else is fixed."""
        if self.topic == "modalities":
            return f"{self.where['sensor']}, {self.where['images']:,} images"
        names = {"frames": "{} frames", "wrong": "{:.0%} wrong labels"}
        said = [names[name].format(value) for name, value in self.where.items()]
        return ", ".join([*said, self.by] if self.topic in ("video", "collages") else said)

    def gain(self, kind: str = "") -> Interval:
        """How far the arm is ahead, a fraction; of the regression, how many degrees its error is smaller."""
        table = results.read(f"lesson08-{self.topic}{kind}")
        for column, value in self.where.items():
            table = table[table[column] == value]
        arms = table.set_index(["arm", "seed"]).sort_index()[self.by]
        gain = metrics.paired_interval(arms[self.arm], arms[self.over])
        if self.topic != "regression":
            return gain
        return Interval(-gain.mean, -gain.high, -gain.low)


def _collages() -> Iterator[Comparison]:
    taught = [arm for arm, settings in lesson08_collages.ARMS.items() if settings.loss is not None]
    for by in ("map", "auc"):
        yield Comparison("collages", LONGER, LABELS, by)
        yield from (Comparison("collages", arm, LABELS, by) for arm in taught)
        yield from (Comparison("collages", arm, LONGER, by) for arm in taught)
        yield from (Comparison("collages", arm, LONGER, by) for arm in lesson08_collages.ALONE)
        yield Comparison("collages", "KL of sigmoids, one side", "soft cross-entropy", by)


def _detection() -> Iterator[Comparison]:
    arms = [arm for arm in (*lesson08_detection.ARMS, *lesson08_detection.AS_HEAVY) if arm != LABELS]
    yield from (Comparison("detection", arm, LABELS, "ap") for arm in arms)
    by_score = lesson08_detection.BY_SCORE
    yield from (Comparison("detection", by_score, other, "ap") for other in arms if other not in (LONGER, by_score))


def _video() -> Iterator[Comparison]:
    for frames in video.FRAMES:
        for by in ("both", "item", "direction"):
            where = {"frames": frames}
            for arm in (video.LONGER, video.TEACHER, video.HARD, video.BLIND, video.ITEM_LABELS):
                yield Comparison("video", arm, video.LABELS, by, where)
            yield Comparison("video", video.BLIND, video.TEACHER, by, where)
            yield Comparison("video", video.BLIND, video.ITEM_LABELS, by, where)
            yield Comparison("video", video.TEACHER, video.HARD, by, where)


def _modalities() -> Iterator[Comparison]:
    of = lesson08_modalities
    for sensor in of.SENSORS:
        for images in of.JUDGED_AGAIN:
            yield Comparison("modalities", of.PAIRS, of.LABELS, "accuracy", {"sensor": sensor, "images": images})
        for other in (of.HARD, of.SHUFFLED):
            yield Comparison("modalities", of.PAIRS, other, "accuracy", {"sensor": sensor, "images": of.COUNTS[-1]})


def _regression() -> Iterator[Comparison]:
    squared, absolute = "labels, squared", "labels, absolute"
    for wrong in lesson08_regression.SHARES:
        for arm in lesson08_regression.ARMS:
            yield from (
                Comparison("regression", arm, over, "degrees", {"wrong": wrong})
                for over in (squared, absolute)
                if arm != over
            )


def verdict(*gains: Interval) -> str:
    """What both sets of seeds say."""
    if all(gain.low > 0 for gain in gains):
        return HELPS
    return HURTS if all(gain.high < 0 for gain in gains) else UNKNOWN


@functools.cache
def rows() -> pandas.DataFrame:
    """Every comparison: its topic, arm, control, what is fixed, both gains and the verdict."""
    made = []
    for topic in (_collages, _detection, _video, _modalities, _regression):
        for one in topic():
            gains = one.gain(), one.gain("-again")
            row = {"topic": one.topic, "arm": one.arm, "over": one.over, "of": one.words}
            made.append(row | {"gain": gains[0], "gain of other seeds": gains[1], "verdict": verdict(*gains)})
    return pandas.DataFrame(made)


def gain(topic: str, arm: str, over: str, of: str = "") -> Interval:
    """The gain of one comparison with the lesson's seeds.

    Raises:
        KeyError: there is no such comparison.
    """
    found = rows().query("topic == @topic and arm == @arm and over == @over and of == @of")
    if found.empty:
        raise KeyError(f"there is no comparison of {arm!r} over {over!r} in {topic!r} with {of!r}")
    return found.iloc[0]["gain"]


def shown(table: pandas.DataFrame) -> pandas.DataFrame:
    """The table with its gains in points or degrees, for a notebook."""
    written = table.drop(columns="topic").copy()
    for column in ("gain", "gain of other seeds"):
        texts = [_text(value, topic) for value, topic in zip(table[column], table["topic"], strict=True)]
        written[column] = texts
    if not written["of"].any():
        written = written.drop(columns="of")
    return written.set_index("arm")


def _text(value: Interval, topic: str) -> str:
    numbers = value if topic == "regression" else [100 * one for one in value]
    mean, low, high = (round(number, 1) + 0.0 for number in numbers)  # + 0.0: no "-0.0"
    return f"{mean:+.1f}{'°' if topic == 'regression' else ''} [{low:+.1f}, {high:+.1f}]"
