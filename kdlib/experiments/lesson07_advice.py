"""Lesson 07: every piece of advice as one row, from the recorded tables: its gain over its control, and what it costs.

`rows()` is the table of the lesson and of the printed page (`tools/printed_page.py`).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import pandas

from kdlib import metrics
from kdlib.deploy import footprint
from kdlib.experiments import lesson07_augmentation, lesson07_capacity, lesson07_stages
from kdlib.experiments.lesson01 import fashion
from kdlib.experiments.lesson07_steps import Key, arm_of, paired
from kdlib.lesson import plots, results
from kdlib.training import LEARNING_RATE

SHAPE = (1, 28, 28)


class Advice(NamedTuple):
    """One piece of advice: two arms of a recorded table, by the values of its columns.

    work: multiply-adds of the arm and of its control, the teacher's answers counted in.
    """

    topic: str
    words: str
    over: str
    table: str
    arm: Key
    control: Key
    work: Callable[[], tuple[int, int]]


@functools.cache
def _sizes() -> tuple[int, int, int]:
    """Multiply-adds of an image: the course's student, its teacher, and the teacher of lesson 07's second section."""
    young = lesson07_stages.young_teacher(0)
    networks = (lesson07_capacity.network(16, 0), fashion()[1].network, young)
    return tuple(footprint.multiply_adds(network, SHAPE) for network in networks)


def _work(passes: int, answers: int, *, images: int = 1000, young: int = 0) -> int:
    """A student's training, `answers` of its teacher for each image, and `young` passes of a teacher beside it."""
    student, teacher, beside = _sizes()
    own = footprint.training_multiply_adds(student, images, passes)
    return own + answers * images * teacher + footprint.training_multiply_adds(beside, images, young)


def _as_much(passes: int, answers: int = 1) -> Callable[[], tuple[int, int]]:
    return lambda: (_work(passes, answers), _work(passes, answers))


def _dearer(passes: int, answers: int, control: int) -> Callable[[], tuple[int, int]]:
    """With other numbers of answers of the teacher for each image."""
    return lambda: (_work(passes, answers), _work(passes, control))


def _schedules() -> list[Advice]:
    def one(words: str, plan: str, over: str, control: str) -> Advice:
        return Advice("schedules", words, over, "lesson07-schedules", {"plan": plan}, {"plan": control}, _as_much(20))

    mean = "the constant of its mean T"
    every = [
        one("anneal T from 10 to 1, linearly", "T 10 to 1, linear", mean, "T = 5.5"),
        one("anneal T from 10 to 1, by a cosine", "T 10 to 1, cosine", mean, "T = 5.5"),
        one("anneal T from 10 to 1, in three steps", "T 10 to 1, three steps", mean, "T = 5.5"),
        one("raise T from 1 to 8", "T 1 to 8", mean, "T = 4.5"),
        one("lower T from 8 to 1", "T 8 to 1", mean, "T = 4.5"),
        one(
            "three phases, T 8, 2, 1 and alpha .9, .7, .5", "three phases", "the constants of its means",
            "T = 4.8, alpha = 0.76",
        ),
        one(
            "three phases, T 8, 2, 1 and alpha .9, .7, .5", "three phases", "the constant of its gradient share",
            "T = 4, alpha = 0.6",
        ),
        one("curriculum: let T climb the loss, up to 21", "learned T", "the constant nearest to its mean T", "T = 12"),
        one(
            "standardise the logits, T = 2", "standardised logits", "the constant of its gradient share",
            "T = 4, alpha = 0.5",
        ),
        one(
            "standardise the logits, weights 9 to 0.1", "standardised logits, 9 to 0.1",
            "the constant of its gradient share", "T = 4, alpha = 0.95",
        ),
        one("leave out T^2 and raise T from 1 to 8", "T 1 to 8, without T^2", "the same with T^2", "T 1 to 8"),
    ]  # fmt: skip
    for words, family in {
        "anneal T linearly": "linear, down to 1",
        "anneal T by a cosine": "cosine, down to 1",
        "anneal T in three steps": "three steps, down to 1",
        "raise T": "linear, up from 1",
        "three phases": "three phases",
        "curriculum temperature": "learned T",
        "standardise the logits": "standardised logits",
    }.items():
        every.append(
            Advice(
                "schedules", f"{words}, each tuned", "the tuned constant", "lesson07-schedules-tuned",
                {"family": family}, {"family": "constant"}, _as_much(20),
            )
        )  # fmt: skip
    return every


def _stage(
    words: str,
    arm: str,
    over: str,
    control: str,
    work: Callable | None = None,
    topic: str = "stages",
    **settings: float,
) -> Advice:
    """Two arms at their best, or the control with these settings."""
    own, other = (lesson07_stages.best_settings(name) for name in (arm, control))
    arms = {"arm": arm, **own}, {"arm": control, **other, **settings}
    return Advice(topic, words, over, "lesson07-stages", *arms, work or _as_much(40))


def _otherwise(words: str, arm: str, rate: float, **settings: float) -> Advice:
    """An arm in two stages with other settings than its best, over one stage at the rate of its first."""
    own, other = (lesson07_stages.best_settings(name) for name in (arm, "one stage"))
    arms = {"arm": arm, **own, "rate": rate, **settings}, {"arm": "one stage", **other, "rate": rate}
    return Advice("stages", words, "one stage", "lesson07-stages", *arms, _as_much(40))


def _stages() -> list[Advice]:
    plateau = {**dict.fromkeys(lesson07_stages.SETTINGS, 0.0), "rate": LEARNING_RATE}
    return [
        Advice(
            "schedules", "raise alpha at every tenth epoch that stalls", "the constant nearest to its mean alpha",
            "lesson07-stages", {"arm": "alpha on a plateau", **plateau, "start": 0.5, "step": 0.1},
            {"arm": "constant alpha", **plateau, "alpha": plateau_rival()}, _as_much(40),
        ),
        _stage(
            "raise alpha on a plateau, tuned", "alpha on a plateau", "the tuned constant", "constant alpha",
            topic="schedules",
        ),
        _stage("the teacher alone, then labels on the head", HEAD, "one stage", "one stage"),
        _stage("distil, then labels", "distil, then labels", "one stage", "one stage"),
        _stage(
            "FitNets: a hint, then distil", "hint, then distil", "one stage at its rate", "one stage",
            _dearer(40, 2, 1),
            rate=lesson07_stages.best_settings("hint, then distil")["later_rate"],
        ),  # once for the features, once for the logits
        _stage(
            "teach the teacher beside the student", "taught beside a teacher", "that teacher, finished first",
            "that teacher, finished first", lambda: (_work(40, 0, young=40), _work(40, 0, young=40)),
        ),
        _stage(
            "teach the teacher beside the student", "taught beside a teacher", "labels alone", "labels",
            lambda: (_work(40, 0, young=40), _work(40, 0)),
        ),
        _stage(
            "FitNets, tuned", "hint, then distil", "the tuned constant", "constant alpha", _dearer(40, 2, 1)
        ),
        _stage(
            "CE + 0.1 x squared difference, the course's teacher", "the course's teacher, the same loss",
            "labels alone", "labels", _dearer(40, 1, 0),
        ),
        *(
            _otherwise(f"{words}, three times the rate", arm, lesson07_stages.RATES[-1])
            for words, arm in ON_LABELS.items()
        ),
        *(
            _otherwise(f"{words}, half of the passes", arm, lesson07_stages.FIRST_RATE, **lesson07_stages.HALF)
            for words, arm in ON_LABELS.items()
        ),
    ]  # fmt: skip


def plateau_rival() -> float:
    """The constant alpha nearest to the mean of the one that rises as a tutorial has it."""
    found = results.read("lesson07-stages")
    found = found[found["rate"] == LEARNING_RATE]
    # Not the tuned one, which may have the same rate and start.
    mean = found[(found["start"] == 0.5) & (found["step"] == 0.1)]["mean alpha"].mean()
    return min(found[found["arm"] == "constant alpha"]["alpha"].unique(), key=lambda alpha: abs(alpha - mean))


HEAD = "teacher alone, then labels on the head"
ON_LABELS = {"labels on the head": HEAD, "labels on all weights": "distil, then labels"}
UNKNOWN = "not told apart"
SEEN, BLIND, LABELS = "teacher sees the view", "teacher sees the image", "labels"


def _augmentations() -> list[Advice]:
    def key(name: str, target: str) -> Key:
        return {"name": name, "target": target}

    def one(words: str, over: str, arm: Key, control: Key, answers: tuple[int, int]) -> Advice:
        return Advice("augmentation", words, over, "lesson07-augmentation", arm, control, _dearer(40, *answers))

    names = [name for name in lesson07_augmentation.NAMES if name != "none"]
    every = [
        one(f"{name}, with a teacher", "no augmentation", key(name, SEEN), key("none", SEEN), (8, 1)) for name in names
    ]
    every += [
        one(f"{name}, with labels", "no augmentation", key(name, LABELS), key("none", LABELS), (0, 0))
        for name in names
    ]
    every += [
        one(f"{name}: the teacher sees the view", "it sees the image", key(name, SEEN), key(name, BLIND), (8, 1))
        for name in names
    ]
    return every


def _targets() -> list[Advice]:
    def key(views: str, form: str, k: int = 0) -> Key:
        return {"views": views, "form": form, "k": k}

    def one(words: str, over: str, arm: Key, control: Key, answers: tuple[int, int] = (1, 1)) -> Advice:
        return Advice("stored targets", words, over, "lesson07-targets", arm, control, _dearer(40, *answers))

    full, live = key("0", "32 bits"), key("live", "32 bits")
    every = [
        one(
            f"store {n} view{'s' * (n > 1)} an image", "new views in every step", key(str(n), "32 bits"), live, (n, 40)
        )
        for n in (1, 2, 4, 8)
    ]
    every += [one(f"keep {bits}", "32 bits", key("0", bits), full) for bits in ("16 bits", "8 bits")]
    for form in ("tail bucket", "renormalised", "zero-filled"):
        every += [one(f"keep the top {k}, {form}", "all classes", key("0", form, k), full) for k in (1, 3)]
    return every


def _capacities() -> list[Advice]:
    def key(width: int, source: str, images: int) -> Key:
        return {"width": width, "source": source, "images": images}

    def one(words: str, over: str, images: int, arm: tuple[int, str], control: tuple[int, str]) -> Advice:
        def work() -> tuple[int, int]:
            return tuple(lesson07_capacity.effort(*side, images) for side in (arm, control))

        words = f"{words}, {images:,} images"
        return Advice("capacity", words, over, "lesson07-capacity", key(*arm, images), key(*control, images), work)

    large, middle = (lesson07_capacity.size(width)["parameters"] for width in (72, 16))
    every = []
    for images in lesson07_capacity.PASSES:
        for width in lesson07_capacity.ASSISTED:
            small = lesson07_capacity.size(width)["parameters"]
            times = [f"a teacher {parameters / small:.0f} times as large" for parameters in (large, middle)]
            between = f"an assistant in between, {large / small:.0f} times"
            every.append(one(times[0], "labels", images, (width, "72"), (width, "labels")))
            longer = (width, lesson07_capacity.LONGER)
            every.append(one(times[0], "labels for four times as long", images, (width, "72"), longer))
            every.append(one(times[0], times[1], images, (width, "72"), (width, "16")))
            every.append(one(between, "taught directly", images, (width, "assistant"), (width, "72")))
            every.append(one(between, "the assistant's size, of labels", images, (width, "assistant"), (width, "16")))
            every.append(one(between, "an ensemble of both", images, (width, "assistant"), (width, "ensemble")))
    return every


def _norms() -> list[Advice]:
    def one(words: str, kind: str) -> Advice:
        arms = ({"kind": name} for name in (kind, "own"))
        return Advice("batch norm", words, "own statistics", "lesson07-norms", *arms, _as_much(20))

    return [
        one("the teacher's norms, frozen", "the teacher's, frozen"),
        one("the teacher's norms to begin with", "the teacher's to begin with"),
        one("own norms, frozen before training", "own, frozen"),
    ]


def every() -> list[Advice]:
    """All advice, in the order of the lesson."""
    return [*_schedules(), *_stages(), *_augmentations(), *_targets(), *_capacities(), *_norms()]


def gain(advice: Advice, table: str | None = None) -> metrics.Interval:
    """The paired 95 % interval of the arm over its control, over the seeds of a table, by default the lesson's."""
    source = table or advice.table
    found = results.read(source)
    score = "test" if "test" in found else "accuracy"
    sides = [arm_of(source, found, key)[score] for key in (advice.arm, advice.control)]
    return paired(source, *sides)[0]


def verdict(interval: metrics.Interval) -> str:
    """What an interval of a gain says."""
    if interval.low > 0:
        return "helps"
    return "hurts" if interval.high < 0 else UNKNOWN


def rows() -> pandas.DataFrame:
    """One row a piece of advice: the gain as an interval, a fraction; the work over that of the control; the verdict;
    and the gain and verdict of ten other seeds, where there are some: then both must say the same, or the verdict
    of the row is that nothing can be told apart."""
    found = []
    for advice in every():
        here, again = gain(advice), advice.table + "-again"
        mine, control = advice.work()
        row = {"topic": advice.topic, "advice": advice.words, "over": advice.over, "gain": here}
        row |= {"work": mine / control, "verdict": verdict(here)}
        if again in results.recorded():
            other = gain(advice, again)
            row |= {"gain of other seeds": other, "verdict of other seeds": verdict(other)}
            row["verdict"] = verdict(here) if verdict(here) == verdict(other) else UNKNOWN
        found.append(row)
    return pandas.DataFrame(found)


def shown(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Rows as a notebook shows them: gains in points with their intervals, the work in times that of the control."""
    table = rows[["advice", "over"]].copy()
    table["gain"] = rows["gain"].map(plots.points)
    table["work"] = rows["work"].map("{:.2f}".format)
    table["verdict"] = rows["verdict"]
    others = rows.get("gain of other seeds", pandas.Series(None, rows.index, dtype=object))
    table["ten other seeds"] = [plots.points(gain) if isinstance(gain, metrics.Interval) else "" for gain in others]
    table["their verdict"] = rows.get("verdict of other seeds", pandas.Series("", rows.index)).fillna("")
    return table.set_index("advice")
