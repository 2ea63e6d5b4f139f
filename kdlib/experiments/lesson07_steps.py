"""Lesson 07: what to try first and what each step is worth, each from a recorded table of this lesson or another.

A step is one arm of a table over another one of it, its control. What a step says of settings (temperatures, passes,
views) are those of the arms that are compared; where one of several could be taken, validation chose it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas

from kdlib import metrics
from kdlib.experiments import (
    lesson01,
    lesson01_tuning,
    lesson02,
    lesson04,
    lesson04_moved,
    lesson04_worth,
    lesson07_augmentation,
    lesson07_targets,
)
from kdlib.lesson import results
from kdlib.training import LEARNING_RATE

TABLES = (
    "lesson01-tuning", "lesson01-gain", "lesson01-unlabelled", "lesson01-hurts", "lesson02-temperatures",
    "lesson03-teachers", "lesson04-methods", "lesson04-moved", "lesson04-moved-controls",
    "lesson07-augmentation-tuning", "lesson07-augmentation", "lesson07-targets",
)  # fmt: skip
Key = Mapping[str, object]


class Step(NamedTuple):
    """One thing to try.

    words: what to do; why: its reason, or what it costs.
    over: its control, with which it shares seeds, images and all that is not named.
    gain: the paired 95 % interval of the arm over its control, a fraction; seeds: over how many pairs.
    source: the name of the recorded table; lesson: the number of the lesson that explains it.
    """

    words: str
    why: str
    over: str
    gain: metrics.Interval
    seeds: int
    source: str
    lesson: str


def steps() -> list[Step]:
    """In the order to try them: what the others are measured by, what is worth most, what is free, what costs.

    Raises:
        ValueError: tables that are not recorded, all by name; an arm that is not in its table, or two arms with
            different seeds.
    """
    require(TABLES)
    return [*_teacher(), _pool(), *_temperatures(), *_balances(), _views(), _stored_views(), _features()]


def require(names: Sequence[str]) -> None:
    """Refuse all tables that are missing at once, before the first is read."""
    known = results.recorded()
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(
            f"recorded results are missing that the page needs: record them by kdlib record {' '.join(missing)}"
        )


def compared(source: str, arm: Key, control: Key, score: str = "accuracy") -> tuple[metrics.Interval, int, str]:
    """Gain, number of pairs and source: two arms of a table, each by the values of its columns."""
    found = results.read(source)
    return paired(source, *(arm_of(source, found, key)[score] for key in (arm, control)))


def arm_of(source: str, table: pandas.DataFrame, key: Key) -> pandas.DataFrame:
    """The rows of one arm by their seeds."""
    rows = table
    for column, value in key.items():
        rows = rows[rows[column] == value]
    if rows.empty or rows["seed"].duplicated().any():
        raise ValueError(f"{source} must have one row a seed where {dict(key)}, got {len(rows)} rows")
    return rows.set_index("seed").sort_index()


def paired(source: str, arm: pandas.Series, control: pandas.Series) -> tuple[metrics.Interval, int, str]:
    """Gain, number of pairs and source: two series by their seeds."""
    if list(arm.index) != list(control.index):
        raise ValueError(
            f"both arms of {source} must have the same seeds, got {list(arm.index)} and {list(control.index)}"
        )
    return metrics.paired_interval(arm, control), len(arm), source


def _teacher() -> list[Step]:
    """Labels tuned, the teacher over labels, and the teacher over tuned labels."""
    source = "lesson01-gain"
    means = results.read(source).groupby("method")["accuracy"].mean()
    labels, first, taught = {"method": _strongest_labels(means)}, {"method": "labels only"}, "distillation"
    tried = lesson01_tuning.contestants()
    own, tuned, plain = tried[labels["method"]], tried[f"{taught}, tuned"], lesson01.SETTINGS[taught]
    return [
        Step(
            f"Tune labels alone, on validation images. Here: {_settings(own)}",
            "What a teacher gains over labels that nobody tuned is partly bad tuning",
            f"labels as they come, rate {LEARNING_RATE:g}, {lesson01.EPOCHS} passes",
            *compared(source, labels, first),
            "01",
        ),
        Step(
            f"Add the soft targets of a good teacher (T = {plain['temperature']:g}, alpha = {plain['alpha']:g})",
            "One answer of the teacher an image is all it costs",
            f"labels as they come, {lesson01.EPOCHS} passes for both",
            *compared(source, {"method": taught}, first),
            "01",
        ),
        Step(
            f"Tune this as hard as the labels. Here: {_settings(tuned)}",
            "The honest worth of a teacher where every image has a label",
            f"the tuned labels, which train {own['epochs'] / tuned['epochs']:g} times as long",
            *compared(source, {"method": f"{taught}, tuned"}, labels),
            "01",
        ),
    ]


def _strongest_labels(means: pandas.Series) -> str:
    return means[[not name.startswith("distillation") for name in means.index]].idxmax()


def _settings(settings: Key) -> str:
    """Those of lesson 01 in words."""
    words = [f"{settings['epochs']} passes", f"rate {settings.get('learning_rate', LEARNING_RATE):g}"]
    words += ["moved images"] if settings.get("augment") else []
    words += [
        f"{word}{settings[name]:g}"
        for name, word in (("label_smoothing", "smoothing "), ("temperature", "T = "), ("alpha", "alpha = "))
        if name in settings
    ]
    return ", ".join(words)


def _pool() -> Step:
    source = "lesson01-unlabelled"
    found = results.read(source)
    alone = found[found["method"] != "distillation"].groupby("method")["accuracy"].mean()
    most = found["unlabelled"].max()
    return Step(
        "Let the teacher answer all your images, also those without labels. Here: "
        f"{most:,} of these beside {lesson01.LABELLED} with labels, alpha = 1",
        "Nothing else is worth as much",
        f"the best of {len(alone)} uses of the {lesson01.LABELLED} labels alone ({alone.idxmax()}), as many steps",
        *compared(source, {"method": "distillation", "unlabelled": most}, {"method": alone.idxmax()}),
        "01",
    )


def _temperatures() -> list[Step]:
    source, few = "lesson02-temperatures", "lesson01-hurts"
    low, high = plateau(results.read(source))
    usual, passes = lesson02.TEMPERATURE, lesson01_tuning.PASSES[0]
    at = {"alpha": lesson02.ALPHA}
    return [
        Step(
            f"Few images, many passes: T from {low:g} to {high:g}. Here: T = {usual:g}",
            f"Free; in that range none is told apart from T = {usual:g}",
            "T = 1",
            *compared(source, {"temperature": usual, **at}, {"temperature": 1.0, **at}),
            "02",
        ),
        Step(
            "Many images, few passes: a lower T. Here: T = 2",
            "Free; a high T takes longer to learn",
            f"T = {usual:g}, both at their best rate, {passes} pass over {len(lesson01.fashion()[0].train):,} images",
            *compared(
                few,
                *({"method": f"T = {t}, tuned", "passes": passes} for t in ("2", f"{usual:g}")),
            ),
            "02",
        ),
    ]


def plateau(table: pandas.DataFrame) -> tuple[float, float]:
    """The lowest and the highest temperature around the usual one up to which none is told apart from it."""
    usual = lesson02.TEMPERATURE
    accuracy = table[table["alpha"] == lesson02.ALPHA].pivot(index="seed", columns="temperature", values="accuracy")
    gains = {t: metrics.paired_interval(accuracy[t], accuracy[usual]) for t in accuracy}
    apart = [t for t, gain in gains.items() if gain.low > 0 or gain.high < 0]
    within = [t for t in gains if not any(min(t, usual) <= other <= max(t, usual) for other in apart)]
    return min(within), max(within)


def _balances() -> list[Step]:
    """alpha under the best and under the worst teacher of lesson 03, each over the alpha of the other."""
    source = "lesson03-teachers"
    found = results.read(source)
    accuracy = found.groupby("teacher")["teacher_test"].mean()
    good, weak = accuracy.idxmax(), accuracy.idxmin()
    chosen = {name: _chosen(found[found["teacher"] == name], "alpha", "validation") for name in (good, weak)}

    def one(kind: str, name: str, other: str, why: str) -> Step:
        return Step(
            f"Under a {kind} teacher ({100 * accuracy[name]:.0f} % right): alpha = {chosen[name]:g}",
            why,
            f"alpha = {chosen[other]:g}, the best under the {'weak' if kind == 'good' else 'good'} one",
            *compared(source, *({"teacher": name, "alpha": chosen[of]} for of in (name, other)), score="test"),
            "03",
        )

    free = "Free: choose alpha on validation images"
    return [
        one("good", good, weak, free),
        one("weak", weak, good, "A student that only follows it inherits its errors"),
    ]


def _chosen(table: pandas.DataFrame, setting: str, score: str) -> object:
    """The value of a setting with the highest mean score."""
    return table.groupby(setting, sort=False)[score].mean().idxmax()


SEEN = lesson07_augmentation.TARGETS[1]


def _views() -> Step:
    tried = results.read("lesson07-augmentation-tuning")
    tried = tried[(tried["target"] == SEEN) & (tried["name"] != "none")]
    name, _ = tried.groupby(["name", "rate"], sort=False)["accuracy"].mean().idxmax()
    count = tried["name"].nunique()
    return Step(
        f"Show student and teacher views of each image. Here: {name}, the best of {count} on validation",
        f"The teacher answers {lesson07_augmentation.VIEWS} times an image; the student takes as many steps",
        f"the images as they are, both at their best rate, {lesson07_augmentation.PASSES} passes",
        *compared("lesson07-augmentation", *({"name": of, "target": SEEN} for of in (name, "none"))),
        "07",
    )


def _stored_views() -> Step:
    views, passes = lesson07_targets.VIEWS[-1], lesson07_targets.PASSES
    arms = ({"views": of, "form": "32 bits", "k": 0} for of in (str(views), lesson07_targets.LIVE))
    return Step(
        f"Store {views} views of each image with the teacher's answers",
        f"A saving, not a gain: the teacher answers {views} times an image, not {passes} times",
        f"new views and answers in each of {passes} passes",
        *compared("lesson07-targets", *arms),
        "07",
    )


def _features() -> Step:
    source, arms = "lesson04-moved", lesson04_worth.arms()
    arm = arms["contrastive, 3 x passes"]
    untaught = {name: rows for name, rows in arms.items() if not lesson04_worth.with_trained_teacher(name)}
    rival = lesson04_worth.best_of(untaught, "moved")
    return Step(
        "Where the teacher's classes are not yours, and only there: a contrastive loss on its features. Here: search "
        f"among {10 - lesson04_moved.KNOWN_CLASSES} classes that it does not know, recall at one",
        "Its logits do not name what you look for",
        f"the best without a trained teacher ({rival})",
        *paired(source, arm["moved"], untaught[rival]["moved"]),
        "04",
    )


def earlier() -> pandas.DataFrame:
    """Advice of earlier lessons that is often given, in the layout of `lesson07_advice.rows`."""
    passes = lesson01_tuning.PASSES[0]
    over = f"tuned labels, {passes} pass over {len(lesson01.fashion()[0].train):,} images"
    alike = ({"method": of, "passes": passes} for of in ("distillation, tuned", "labels, tuned"))
    found = [("teacher", "soft targets", over, compared("lesson01-hurts", *alike)[0])]
    for method in lesson04.METHODS:
        arms = ({"method": of, "source": "trained", "epochs": lesson04.EPOCHS} for of in (method, "distillation"))
        over = "soft targets alone, of the same classes"
        found.append(("feature losses", method, over, compared("lesson04-methods", *arms)[0]))
    return pandas.DataFrame(found, columns=["topic", "advice", "over", "gain"])
