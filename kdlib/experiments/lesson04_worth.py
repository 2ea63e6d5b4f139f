"""Lesson 04: what the embeddings of moved images are worth, in a search and under a linear probe; recorded."""

import functools
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import pandas
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kdlib.data import ImageSplit
from kdlib.experiments.lesson01 import fashion
from kdlib.experiments.lesson03 import over_groups
from kdlib.experiments.lesson04_moved import (
    CONTROLS,
    KNOWN_CLASSES,
    METHODS,
    WITHOUT_STUDENT,
    WITHOUT_TEACHER,
    embed,
    half_of,
    moved,
    split_pool,
    student_of,
    teacher_of,
)  # fmt: skip
from kdlib.lesson import results
from kdlib.lesson.results import experiment
from kdlib.sweeps.backends import Group

# ------------------------------------------------------------------ what an embedding is worth

LABELS = (1, 10, 100)  # of each class, for the linear probe
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)  # inverse strengths C of the probe


class Unseen(NamedTuple):
    """Images of the unknown classes to measure an embedding on, as they are and moved, and those for the probe."""

    still: ImageSplit
    moved: ImageSplit
    labelled: dict[int, ImageSplit]


@functools.lru_cache(maxsize=1)
def unseen(split: str, seed: int) -> Unseen:
    """Of the test images, or ("validation") of the training images that are in no student's pool of this seed."""
    pool, others = split_pool(seed)
    still = half_of(fashion()[0].test, known=False) if split == "test" else others
    few = {count: moved(pool.take(count * KNOWN_CLASSES, seed=seed), seed + 1) for count in LABELS}
    return Unseen(still, moved(still, seed + 2), few)


def probe(fitted_on: Tensor, labels: Tensor, measured_on: Tensor, truth: Tensor, penalty: float) -> float:
    """The accuracy of a logistic regression on standardised embeddings; `penalty` is the inverse strength C."""
    # Imported here, as lessons 07 and 10 read this experiment's table and need no scikit-learn.
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(fitted_on)
    linear = LogisticRegression(C=penalty, max_iter=500).fit(scaler.transform(fitted_on), labels)
    return float(linear.score(scaler.transform(measured_on), truth))


Embedding = Callable[[ImageSplit], Tensor]  # a row for each image


def recall_at_one(embedding: Float[Tensor, "n *width"], labels: Tensor) -> float:
    """The share of images whose nearest other image, by the cosine, is of their own class."""
    rows = F.normalize(embedding.flatten(1), dim=1)
    similarity = (rows @ rows.T).fill_diagonal_(-2)
    return (labels[similarity.argmax(dim=1)] == labels).double().mean().item()


def worth(
    embedding: Embedding, split: str, seed: int, penalties: Sequence[float] = PENALTIES
) -> dict[str, float]:
    """Recall at one among images as they are and moved; accuracy of the probe by labels a class and penalty, moved."""
    images = unseen(split, seed)
    splits = [images.moved, images.still, *images.labelled.values()]
    rows = embedding(joined(splits)).flatten(1).split([len(part) for part in splits])
    found = {
        "moved": recall_at_one(rows[0], images.moved.labels),
        "still": recall_at_one(rows[1], images.still.labels),
    }
    for known, (count, few) in zip(rows[2:], images.labelled.items(), strict=True):
        for penalty in penalties:
            found[f"{count} {penalty:g}"] = probe(known, few.labels, rows[0], images.moved.labels, penalty)
    return found


def joined(splits: Sequence[ImageSplit]) -> ImageSplit:
    """One split of all their images, so that a network is run once."""
    pixels, labels = (torch.cat([getattr(part, name) for part in splits]) for name in ("images", "labels"))
    return ImageSplit(pixels, labels, None, splits[0].mean, splits[0].std)


def without_student(name: str, seed: int) -> Embedding:
    """What can be searched without any student."""
    if name.startswith("pixels"):
        cells = 7 if name.endswith("7 x 7") else 28
        return lambda split: F.adaptive_avg_pool2d(split.normalized(slice(None)), cells).flatten(1)
    return partial(embed, teacher_of("untrained" if name.startswith("untrained") else "trained", seed))


# ------------------------------------------------------------------ the recorded experiments

TUNING_SEEDS, SEEDS = range(100, 102), range(10)
RATES, PASSES = (3e-3, 1e-2, 3e-2), (1, 3)
# A temperature is tried where the loss has one.
TEMPERATURES = {"logits": (4.0, 16.0), "contrastive": (0.07, 0.2), "two views": (0.1, 0.3)}
NONE = 0.2  # stands in the table where the loss has no temperature
SETTING = ["rate", "passes", "temperature"]
TUNED = [*(method for method in METHODS if not method.endswith("all classes")), *WITHOUT_TEACHER]
# Also reported after three times as many passes: the contrastive student, and the strongest without a trained teacher.
LONGER = ("contrastive", "contrastive, untrained teacher", *WITHOUT_TEACHER)
ROUNDS = 3


def on_group(group: Group, penalties: Sequence[float]) -> list[dict[str, float]]:
    """Cells of one seed and one source: their students one after another, so that a teacher is trained once."""
    rows = []
    for cell in group:
        method, seed = cell["method"], cell["seed"]
        if method in WITHOUT_STUDENT:
            embedding = without_student(method, seed)
        else:
            embedding = partial(embed, student_of(method, seed, **{name: cell[name] for name in SETTING}))
        rows.append(worth(embedding, cell["split"], seed, penalties))
    return rows


def source_of(method: str) -> str:
    """What has to be trained or computed before students of a method can be."""
    if method in METHODS:
        return METHODS[method][0]
    return "trained" if method in (*CONTROLS, "teacher") else "none"


def run(
    settings: Sequence[dict], seeds: Sequence[int], split: str, penalties: Sequence[float] = PENALTIES
) -> pandas.DataFrame:
    """Every setting with every seed, those of one source together."""
    settings = sorted(settings, key=lambda setting: source_of(setting["method"]))
    cells = [
        {"source": source_of(setting["method"]), **setting, "seed": seed, "split": split}
        for seed in seeds
        for setting in settings
    ]
    return over_groups(partial(on_group, penalties=penalties), cells, ["seed", "source"])


def settings_of(method: str) -> list[dict]:
    """Every rate, length and temperature that is tried for a method."""
    temperatures = TEMPERATURES.get(method.partition(", ")[0], (NONE,))
    grid = itertools.product(RATES, PASSES, temperatures)
    return [{"method": method, **dict(zip(SETTING, values, strict=True))} for values in grid]


def best_setting(tried: pandas.DataFrame, method: str) -> dict:
    """The setting with the highest mean recall among moved images."""
    means = tried[tried["method"] == method].groupby(SETTING)["moved"].mean()
    rate, passes, temperature = means.idxmax()
    return {"method": method, "rate": float(rate), "passes": int(passes), "temperature": float(temperature)}


@experiment("lesson04-moved-tuning")
def tuning(seeds: Sequence[int] = TUNING_SEEDS) -> pandas.DataFrame:
    """Every method, and every control that is trained by itself, at every setting, on training images that no student
    of that seed has seen."""
    return run([setting for method in TUNED for setting in settings_of(method)], seeds, "validation", (0.1,))


def beyond(tried: pandas.DataFrame, method: str) -> list[dict]:
    """What to try next where the best rate or temperature is the highest that was tried: three times as much."""
    own, best = tried[tried["method"] == method], best_setting(tried, method)
    names = ("rate", "temperature") if method.partition(", ")[0] in TEMPERATURES else ("rate",)
    steps = [[best[n], float(f"{3 * best[n]:.6g}")] if best[n] == own[n].max() else [best[n]] for n in names]
    proposals = [best | dict(zip(names, values, strict=True)) for values in itertools.product(*steps)]
    known = [tuple(row) for row in own[SETTING].to_numpy()]
    return [setting for setting in proposals if tuple(setting[name] for name in SETTING) not in known]


@experiment("lesson04-moved-edges")
def edges(seeds: Sequence[int] = TUNING_SEEDS) -> pandas.DataFrame:
    """The tuning goes on where a best rate or temperature lies on an edge of lesson04-moved-tuning, for up to three
    rounds, with the same number of passes."""
    tried, added = results.read("lesson04-moved-tuning"), []
    for _ in range(ROUNDS):
        wanted = [setting for method in TUNED for setting in beyond(tried, method)]
        if not wanted:
            break
        added.append(run(wanted, seeds, "validation", (0.1,)))
        tried = pandas.concat([tried, added[-1]], ignore_index=True)
    return pandas.concat(added, ignore_index=True)


def tuned() -> pandas.DataFrame:
    """Everything that was tried for choosing."""
    names = ("lesson04-moved-tuning", "lesson04-moved-edges")
    return pandas.concat([results.read(name) for name in names], ignore_index=True)


@experiment("lesson04-moved")
def searched_and_probed(seeds: Sequence[int] = SEEDS) -> pandas.DataFrame:
    """Every method at its best setting on the test images; controls, and teachers of all classes, at the setting of
    the loss that they belong to; some once more after three times as many passes."""
    best = {method: best_setting(tuned(), method) for method in TUNED}
    settings = list(best.values())
    borrowed = [method for method in (*METHODS, *CONTROLS) if method not in best]
    settings += [best[method.partition(", ")[0]] | {"method": method} for method in borrowed]
    idle = ("nothing learned", *WITHOUT_STUDENT)
    settings += [{"method": method, "rate": 0.0, "passes": 0, "temperature": NONE} for method in idle]
    settings += [best[method] | {"passes": 3 * best[method]["passes"]} for method in LONGER]
    return run(settings, seeds, "test")


# ------------------------------------------------------------------ for the lesson

COLUMNS = {
    "search": "moved",
    **{f"probe, {count} label{'s' * (count > 1)} a class": f"{count} 0.1" for count in LABELS},
    "search, still images": "still",
}
KNOWS_THEM = "all classes"  # how the methods end whose teacher knows the searched classes
_LONGER = ", 3 x passes"
_TAUGHT = {
    "hint",
    "relational",
    "contrastive",
    "logits",
    "contrastive, logits",
    "teacher",
    "teacher in 4 x 4",
}


def with_trained_teacher(name: str) -> bool:
    """Whether a teacher that learned something speaks to this arm, or is it; its labels do not count."""
    return name.removesuffix(_LONGER) in _TAUGHT


def arms(*, known: bool = False) -> dict[str, pandas.DataFrame]:
    """The recorded results by name, a row a seed; "<method>, 3 x passes" is the same method trained for longer.

    known: those of teachers that know the searched classes, in place of all others.
    """
    names = ("lesson04-moved", "lesson04-moved-controls")
    recorded = pandas.concat([results.read(name) for name in names]).set_index("seed").sort_index()
    named = {}
    for (method, passes), rows in recorded.groupby(["method", "passes"], sort=False):
        longer = passes > recorded.loc[recorded["method"] == method, "passes"].min()
        if method.endswith(KNOWS_THEM) == known:
            name = method.replace(" with batch statistics", ", normalised")
            named[f"{name}{_LONGER if longer else ''}"] = rows
    return named


def best_of(named: dict[str, pandas.DataFrame], column: str) -> str:
    """The name of the arm with the highest mean."""
    return max(named, key=lambda name: named[name][column].mean())


def means(named: dict[str, pandas.DataFrame], most: int | None = None) -> pandas.DataFrame:
    """The mean of every arm in percent, the best search first; only the best ones, where `most` says how many."""
    rows = {
        name: {title: 100 * arm[column].mean() for title, column in COLUMNS.items()}
        for name, arm in named.items()
    }
    return pandas.DataFrame(rows).T.sort_values("search", ascending=False).round(1).head(most)


def at_best_penalty(named: dict[str, pandas.DataFrame], count: int) -> dict[str, float]:
    """The mean accuracy of each arm's probe at the penalty that suits it best on the very images that are measured."""
    columns = [f"{count} {penalty:g}" for penalty in PENALTIES]
    return {name: float(arm[columns].mean().max()) for name, arm in named.items()}
