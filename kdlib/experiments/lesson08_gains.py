"""Lesson 08: what each arm is ahead of its control by; a verdict is that of both sets of seeds (`gains`)."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import pandas

from kdlib.experiments import (
    gains,
    lesson08_collages,
    lesson08_detection,
    lesson08_modalities,
    lesson08_regression,
)
from kdlib.experiments import lesson08_video as video
from kdlib.experiments.gains import shown
from kdlib.metrics import Interval

__all__ = ["gain", "rows", "shown"]

LABELS, LONGER = "labels", "labels, three times as long"


def _compared(topic: str, arm: str, over: str, by: str, where: Mapping[str, Any] | None = None) -> gains.Comparison:
    where = where or {}
    return gains.Comparison("lesson08", topic, arm, over, by, where, _words(topic, by, where))


def _words(topic: str, by: str, where: Mapping[str, Any]) -> str:
    """What else is fixed."""
    if topic == "modalities":
        return f"{where['sensor']}, {where['images']:,} images"
    names = {"frames": "{} frames", "wrong": "{:.0%} wrong labels"}
    said = [names[name].format(value) for name, value in where.items()]
    return ", ".join([*said, by] if topic in ("video", "collages") else said)


def _collages() -> Iterator[gains.Comparison]:
    taught = [arm for arm, settings in lesson08_collages.ARMS.items() if settings.loss is not None]
    for by in ("map", "auc"):
        yield _compared("collages", LONGER, LABELS, by)
        yield from (_compared("collages", arm, LABELS, by) for arm in taught)
        yield from (_compared("collages", arm, LONGER, by) for arm in taught)
        yield from (_compared("collages", arm, LONGER, by) for arm in lesson08_collages.ALONE)
        yield _compared("collages", "KL of sigmoids, one side", "soft cross-entropy", by)


def _detection() -> Iterator[gains.Comparison]:
    arms = [arm for arm in (*lesson08_detection.ARMS, *lesson08_detection.AS_HEAVY) if arm != LABELS]
    yield from (_compared("detection", arm, LABELS, "ap") for arm in arms)
    by_score = lesson08_detection.BY_SCORE
    yield from (_compared("detection", by_score, other, "ap") for other in arms if other not in (LONGER, by_score))


def _video() -> Iterator[gains.Comparison]:
    for frames in video.FRAMES:
        for by in ("both", "item", "direction"):
            where = {"frames": frames}
            for arm in (video.LONGER, video.TEACHER, video.HARD, video.BLIND, video.ITEM_LABELS):
                yield _compared("video", arm, video.LABELS, by, where)
            yield _compared("video", video.BLIND, video.TEACHER, by, where)
            yield _compared("video", video.BLIND, video.ITEM_LABELS, by, where)
            yield _compared("video", video.TEACHER, video.HARD, by, where)


def _modalities() -> Iterator[gains.Comparison]:
    of = lesson08_modalities
    for sensor in of.SENSORS:
        for images in of.JUDGED_AGAIN:
            yield _compared("modalities", of.PAIRS, of.LABELS, "accuracy", {"sensor": sensor, "images": images})
        for other in (of.HARD, of.SHUFFLED):
            yield _compared("modalities", of.PAIRS, other, "accuracy", {"sensor": sensor, "images": of.COUNTS[-1]})


def _regression() -> Iterator[gains.Comparison]:
    squared, absolute = "labels, squared", "labels, absolute"
    for wrong in lesson08_regression.SHARES:
        for arm in lesson08_regression.ARMS:
            yield from (
                _compared("regression", arm, over, "degrees", {"wrong": wrong})
                for over in (squared, absolute)
                if arm != over
            )


@functools.cache
def rows() -> pandas.DataFrame:
    """Every comparison, as `gains.rows` has it."""
    topics = (_collages, _detection, _video, _modalities, _regression)
    return gains.rows(one for topic in topics for one in topic())


def gain(topic: str, arm: str, over: str, of: str = "") -> Interval:
    """The gain of one comparison with the lesson's seeds.

    Raises:
        KeyError: there is no such comparison.
    """
    return gains.found(rows(), topic, arm, over, of)
