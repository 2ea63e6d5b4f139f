"""Lesson 09: what each arm is ahead of its control by; a verdict is that of both sets of seeds (`gains`)."""

import functools
from collections.abc import Iterator

import pandas

from kdlib.experiments import gains, lesson09_embeddings, lesson09_few, lesson09_ladder, lesson09_two
from kdlib.experiments import lesson09_exits as exits
from kdlib.experiments import lesson09_peers as peers
from kdlib.experiments import lesson09_self as self_taught
from kdlib.experiments import lesson09_several as several
from kdlib.experiments.gains import Comparison, shown
from kdlib.metrics import Interval

__all__ = ["gain", "rows", "shown"]

_compared = functools.partial(Comparison, "lesson09")


def _self() -> Iterator[Comparison]:
    of = self_taught
    for wrong in of.SHARES:
        words, where = f"{wrong:.0%} wrong labels", {"wrong": wrong}
        arms = [*of.ALONE, of.BORN, *of.LATER, of.HARD, of.FROM_SHORTER, of.COURSE]
        yield from (_compared("self", arm, of.LABELS, "accuracy", where, words) for arm in arms if arm != of.LABELS)
        for over in (of.SMOOTH, of.SHORTER, of.SMOOTH_SHORTER, of.LONGER):
            born = (of.BORN, of.LATER[-1], of.FROM_SHORTER)
            yield from (_compared("self", arm, over, "accuracy", where, words) for arm in born)
        yield _compared("self", of.LATER[-1], of.BORN, "accuracy", where, words)


def _exits() -> Iterator[Comparison]:
    for number in range(1, exits.EXITS + 1):
        by = f"exit {number}"
        yield _compared("exits", exits.TAUGHT, exits.DEEP, by, {}, by)
        yield _compared("exits", exits.TAUGHT_LONGER, exits.DEEP_LONGER, by, {}, by)
        yield _compared("exits", exits.DEEP_LONGER, exits.DEEP, by, {}, by)
    last = f"exit {exits.EXITS}"
    others = (exits.DEEP, exits.TAUGHT, exits.LAST_LONGER)
    yield from (_compared("exits", arm, exits.LAST, last, {}, last) for arm in others)


def _peers() -> Iterator[Comparison]:
    others = (peers.ALONE, peers.LONGER, peers.SMOOTH, peers.TAUGHT)
    for by, words in {"accuracy": "one of the two", "both": "both together"}.items():
        yield from (_compared("peers", peers.MUTUAL, over, by, {}, words) for over in others)
        yield _compared("peers", peers.SMOOTH, peers.ALONE, by, {}, words)
        yield _compared("peers", peers.LONGER, peers.ALONE, by, {}, words)
    yield _compared("peers", peers.TAUGHT, peers.ALONE, "accuracy", {}, "one of the two")
    pair = ("peers", "both", {})
    words = "one of the two, over two that learned alone"
    yield _compared("peers", peers.MUTUAL, peers.ALONE, "accuracy", {}, words, pair)


def _several() -> Iterator[Comparison]:
    together = (several.PROBABILITIES, several.LOGITS, several.LOSSES, several.IN_TURN)
    for by, words in {"accuracy": "accuracy", "ece": "calibration"}.items():
        for arm in (several.ONE, *together):
            yield _compared("several", arm, several.LABELS, by, {}, words)
        for arm in together:
            yield _compared("several", arm, several.ONE, by, {}, words)
        for arm in together[1:]:
            yield _compared("several", arm, several.PROBABILITIES, by, {}, words)
        yield _compared("several", several.TWO_OUTSIDE, several.LOGITS, by, {}, words)
        yield _compared("several", several.TWO_OUTSIDE, several.ONE_OUTSIDE, by, {}, words)
        yield _compared("several", several.ONE_OUTSIDE, several.ONE, by, {}, words)


def _embeddings() -> Iterator[Comparison]:
    of = lesson09_embeddings
    for count in of.COUNTS:
        by, words = f"probe {count}", f"{count:,} labels"
        labels = ("few", "accuracy", {"a_class": count // 10})
        for arm in (of.COSINE, of.SQUARED, of.STANDARDISED, of.ANGLES, of.UNTRAINED, of.PIXELS):
            for over in (lesson09_few.HARD, lesson09_few.HARD_VIEWS):
                yield _compared("embeddings", arm, over, by, {}, words, labels)
            if arm != of.PIXELS:
                yield _compared("embeddings", arm, of.PIXELS, by, {}, words)
        copied = ("ladder", "accuracy", {"images": of.POOL})
        yield _compared("embeddings", of.STANDARDISED, lesson09_ladder.REAL, by, {}, words, copied)
        fed = [name for name in of.NORMALISED if name not in of.IN_PASSING]
        for arm in (of.COSINE, of.SQUARED, *fed):
            yield _compared("embeddings", arm, of.STANDARDISED, by, {}, words)
        yield _compared("embeddings", of.ANGLES, of.UNTRAINED, by, {}, words)
        yield _compared("embeddings", of.STANDARDISED, of.UNTRAINED, by, {}, words)


def _two() -> Iterator[Comparison]:
    of = lesson09_two
    for by in ("items met", "angles met", "item", "degrees"):
        yield _compared("two", of.STANDARDISED, of.AS_THEY_ARE, by, {}, by)


def _ladder() -> Iterator[Comparison]:
    of = lesson09_ladder
    for images in of.COUNTS:
        where, words = {"images": images}, f"{images:,} images"
        arms = [arm for arm in of.JUDGED if images == of.COUNTS[0] or arm not in of.FEW_ONLY]
        yield from (_compared("ladder", arm, of.LABELS, "accuracy", where, words) for arm in arms)
        others = [arm for arm in (of.INVERTED, of.GENERATED) if arm in arms]
        yield from (_compared("ladder", arm, of.GLYPHS, "accuracy", where, words) for arm in others)


def _few() -> Iterator[Comparison]:
    of = lesson09_few
    for a_class in of.JUDGED_AGAIN:
        where, words = {"a_class": a_class}, f"{a_class} a class"
        for arm, over in (
            (of.SOFT, of.HARD), (of.HARD_VIEWS, of.HARD), (of.SOFT_VIEWS, of.SOFT), (of.SOFT_VIEWS, of.HARD_VIEWS),
            (of.SOFT_VIEWS, of.WRONG_VIEWS), (of.WRONG_VIEWS, of.HARD_VIEWS), (of.SOFT, of.HARD_VIEWS),
        ):  # fmt: skip
            yield _compared("few", arm, over, "accuracy", where, words)


@functools.cache
def rows() -> pandas.DataFrame:
    """Every comparison, as `gains.rows` has it."""
    topics = (_self, _exits, _peers, _several, _embeddings, _two, _ladder, _few)
    return gains.rows(one for topic in topics for one in topic())


def gain(topic: str, arm: str, over: str, of: str = "") -> Interval:
    """The gain of one comparison with the lesson's seeds.

    Raises:
        KeyError: there is no such comparison.
    """
    return gains.found(rows(), topic, arm, over, of)
