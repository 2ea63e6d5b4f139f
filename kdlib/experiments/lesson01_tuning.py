"""The controls of lesson 01 that are tuned as hard as the teacher: on 1,000 images, and for a few passes over 9,000."""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import pandas

from kdlib import metrics, models
from kdlib.experiments.lesson01 import EPOCHS, SETTINGS, fashion, fit
from kdlib.lesson import results
from kdlib.lesson.results import experiment
from kdlib.sweeps import map_cells

IMAGES = 1000
TUNING_SEEDS = range(100, 103)
FRESH_SEEDS = range(200, 210)
Settings = dict[str, Any]


# ------------------------------------------------------------------ 1,000 images: the search

RATES = (0.01, 0.02, 0.04, 0.08)
LENGTHS = (20, 60, 180)
FAMILIES: dict[str, list[Settings]] = {
    "labels": [
        {"label_smoothing": s, "weight_decay": d} for s in (0.0, 0.1, 0.2, 0.3) for d in (0.003, 0.01, 0.03, 0.1, 0.3)
    ],
    "distillation": [{"temperature": t, "alpha": a} for t in (1.0, 2.0, 4.0, 8.0, 16.0) for a in (0.5, 0.75, 0.9, 1.0)],
}
LAST_AXIS: dict[str, list[Settings]] = {
    "labels": [{"augment": name} for name in (None, "shift", "shift by one", "mirror", "shift and mirror")],
    "distillation": [{"weight_decay": d} for d in (0.003, 0.01, 0.03, 0.1, 0.3)],
}
START = {"labels": {"label_smoothing": 0.0}, "distillation": {"temperature": 4.0, "alpha": 0.9}}


def rounds(family: str) -> Iterator[Callable[[Settings], list[Settings]]]:
    """The four rounds of the search: each gives the settings to try, from the best setting so far."""
    speed = product(RATES, LENGTHS, (None, "shift and mirror"))
    names = ("learning_rate", "epochs", "augment")
    yield lambda best: [best | dict(zip(names, values, strict=True)) for values in speed]
    yield lambda best: [best | change for change in FAMILIES[family]]
    yield lambda best: [best | change for change in LAST_AXIS[family]]
    yield lambda best: [
        best | {"learning_rate": best["learning_rate"] * rate, "epochs": round(best["epochs"] * length)}
        for rate, length in product((0.5, 1.0, 2.0), (1 / 3, 1.0, 3.0))
    ]


def on_validation(setting: str, seed: int) -> dict[str, float]:
    """A student of 1,000 images with these settings (as JSON), measured on the validation split."""
    dataset, teacher = fashion()
    student = models.build("tiny-cnn", seed=seed)
    fit(student, teacher, dataset.train.take(IMAGES, seed=seed), seed=seed, **json.loads(setting))
    return {"validation_accuracy": metrics.accuracy(student, dataset.validation)}


def best_of(table: pandas.DataFrame) -> Settings:
    """The setting with the highest mean validation accuracy."""
    return json.loads(table.groupby("setting", sort=False)["validation_accuracy"].mean().idxmax())


@experiment("lesson01-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS) -> pandas.DataFrame:
    """As many settings for the labels as for distillation: rate, epochs and augmentation together; then smoothing and
    decay, or temperature and alpha; then the kind of augmentation, or decay; then rate and epochs once more."""
    tables = []
    for family, start in START.items():
        best: Settings = {"weight_decay": 0.01} | start
        own: list[pandas.DataFrame] = []
        for number, propose in enumerate(rounds(family), start=1):
            tried = set(own and pandas.concat(own)["setting"])
            settings = [text for text in map(_text, propose(best)) if text not in tried]
            cells = [{"setting": text, "seed": seed} for text in settings for seed in seeds]
            own.append(map_cells(on_validation, cells).assign(family=family, round=number))
            best = best_of(pandas.concat(own))
        tables += own
    return pandas.concat(tables, ignore_index=True)


def _text(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True)


def best_setting(family: str) -> Settings:
    """The winner of the recorded search: "labels" or "distillation".

    A longer training has to earn its cost: of settings that differ from the best one in the epochs alone, the shortest
    is taken that is not behind it by more than one standard error of their paired difference.
    """
    table = results.read("lesson01-tuning")
    seeds = table[table["family"] == family].pivot(index="seed", columns="setting", values="validation_accuracy")
    best = _text(best_of(table[table["family"] == family]))
    siblings = [text for text in seeds if _without_epochs(text) == _without_epochs(best)]
    behind = {text: seeds[best] - seeds[text] for text in siblings}
    as_good = [text for text, gap in behind.items() if gap.mean() <= gap.sem()]
    return min(map(json.loads, as_good), key=lambda settings: settings["epochs"])


def _without_epochs(text: str) -> Settings:
    return {name: value for name, value in json.loads(text).items() if name != "epochs"}


# ------------------------------------------------------------------ 1,000 images: the comparison


def contestants() -> dict[str, Settings]:
    """What is compared on fresh seeds: the settings of section 3, both winners, and what a sceptic tries next."""
    labels, taught = best_setting("labels"), best_setting("distillation")
    other = None if labels["augment"] else "shift and mirror"
    plain = {"epochs": EPOCHS}
    return {name: plain | settings for name, settings in SETTINGS.items()} | {
        "labels, tuned": labels,
        "distillation, tuned": taught,
        "labels, tuned, three times the epochs": labels | {"epochs": 3 * labels["epochs"]},
        "labels, tuned, twice the rate": labels | {"learning_rate": 2 * labels["learning_rate"]},
        "labels, tuned, other augmentation": labels | {"augment": other},
        "labels with the settings of the taught": {
            name: value for name, value in taught.items() if name not in ("temperature", "alpha")
        },
    }


def one_contestant(method: str, seed: int) -> dict[str, float]:
    """Test accuracy of a student of 1,000 images. Students of one seed share images, initial weights and order."""
    return trained(contestants()[method], seed)


def trained(settings: Settings, seed: int) -> dict[str, float]:
    """Test accuracy of a student with these settings on 1,000 images that the seed chooses."""
    dataset, teacher = fashion()
    student = models.build("tiny-cnn", seed=seed)
    fit(student, teacher, dataset.train.take(IMAGES, seed=seed), seed=seed, **settings)
    return {"accuracy": metrics.accuracy(student, dataset.test)}


@experiment("lesson01-gain")
def gain(seeds: Sequence[int] = FRESH_SEEDS) -> pandas.DataFrame:
    """Test accuracy of both winners, of the untuned, and of more labels-only students, on seeds never used before."""
    return map_cells(one_contestant, [{"method": m, "seed": seed} for m in contestants() for seed in seeds])


@experiment("lesson01-longest")
def longest(seeds: Sequence[int] = FRESH_SEEDS[:6]) -> pandas.DataFrame:
    """The tuned labels with nine times their epochs: some two minutes a student, so for six of the seeds."""
    return map_cells(nine_times_the_epochs, [{"seed": seed} for seed in seeds])


def nine_times_the_epochs(seed: int) -> dict[str, float]:
    """Test accuracy of a student of the tuned labels that was trained nine times as long."""
    labels = best_setting("labels")
    return trained(labels | {"epochs": 9 * labels["epochs"]}, seed)


# ------------------------------------------------------------------ a few passes over 9,000 images

PASSES = (1, 2, 4)
PASS_RATES = (0.01, 0.02, 0.04, 0.08, 0.16)
ARMS: dict[str, list[Settings]] = {
    "labels": [{"label_smoothing": s} for s in (0.0, 0.1, 0.2)],
    "distillation": [{"temperature": t, "alpha": 0.9} for t in (1.0, 2.0, 4.0)],
}


def few_passes(setting: str, passes: int, seed: int, measured_on: str) -> dict[str, float]:
    """A student that sees 9,000 labelled images so many times, in large batches, with these settings (as JSON).

    measured_on: "validation" or "test".
    """
    dataset, teacher = fashion()
    student = models.build("tiny-cnn", seed=seed)
    fit(student, teacher, dataset.train, epochs=passes, batch_size=128, seed=seed, **json.loads(setting))
    return {"accuracy": metrics.accuracy(student, getattr(dataset, measured_on))}


@experiment("lesson01-hurts-tuning")
def hurts_tuning(passes: Sequence[int] = PASSES, seeds: Sequence[int] = TUNING_SEEDS) -> pandas.DataFrame:
    """Fifteen settings for either side, for each number of passes, on the validation split."""
    settings = [_text({"learning_rate": r} | arm) for arms in ARMS.values() for arm in arms for r in PASS_RATES]
    cells = [{"setting": s, "passes": n, "seed": seed} for s in settings for n in passes for seed in seeds]
    table = map_cells(few_passes, [cell | {"measured_on": "validation"} for cell in cells])
    return table.drop(columns="measured_on").rename(columns={"accuracy": "validation_accuracy"})


def best_for(passes: int, name: str, value: float | None = None) -> Settings:
    """The winner of the recorded tuning for so many passes, among settings that name this one (and give it a value)."""
    table = results.read("lesson01-hurts-tuning")
    rows = table[table["passes"] == passes]
    given = [json.loads(text).get(name) for text in rows["setting"]]
    return best_of(rows[[one is not None and value in (None, one) for one in given]])


def passes_arms(passes: int) -> dict[str, Settings]:
    """The students that are compared after so many passes."""
    return {
        "labels only": {},
        "T = 4": {"temperature": 4.0, "alpha": 0.9},
        "labels, tuned": best_for(passes, "label_smoothing"),
        "distillation, tuned": best_for(passes, "temperature"),
        **{
            f"T = {arm['temperature']:g}, tuned": best_for(passes, "temperature", arm["temperature"])
            for arm in ARMS["distillation"]
        },
    }


@experiment("lesson01-hurts")
def hurts(passes: Sequence[int] = PASSES, seeds: Sequence[int] = FRESH_SEEDS) -> pandas.DataFrame:
    """Test accuracy after a few passes over all images: at one rate for all, and each at its own best."""
    cells = [
        {"method": method, "setting": _text(setting), "passes": n, "seed": seed}
        for n in passes
        for method, setting in passes_arms(n).items()
        for seed in seeds
    ]
    return map_cells(_named, cells)


def _named(method: str, setting: str, passes: int, seed: int) -> dict[str, float]:
    return few_passes(setting, passes, seed, measured_on="test")
