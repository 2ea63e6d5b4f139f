"""Lesson 07, stages: one training against two, a teacher that is still learning, and alpha that rises on a plateau.

Every student takes forty passes over 1,000 images, in however many stages. Two cores take about fifteen minutes.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import pandas
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib import features, metrics, models, training
from kdlib._loss_parts import LossTerms, weighted_terms
from kdlib.experiments.lesson01 import fashion, known_logits
from kdlib.lesson import results
from kdlib.lesson.results import experiment
from kdlib.sweeps import map_cells
from kdlib.training import LEARNING_RATE, WEIGHT_DECAY
from kdlib.training.loop import Recipe, Step
from kdlib.training.objectives import LabelObjective

IMAGES, PASSES, BATCH_SIZE = 1000, 40, 32
TUNING_SEEDS, SEEDS, AGAIN = range(100, 103), range(10), range(20, 30)
BESIDE = 1 / 11  # alpha of CE + 0.1 * difference, but for a factor of the whole, to which AdamW is blind
RATES = (0.007, 0.02, 0.06, 0.18)
LATER_RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)
FIRST_RATE, HIGHER_RATE = 0.06, 0.54
HALF = {"first": 0.5, "later_rate": 0.01}
HINTED, HINT = "stages.1", "network.stages.2"  # of student and teacher, both with 7 x 7 pixels


@dataclass(frozen=True)
class every_ten:
    """`start`, and `step` more at each tenth pass whose last ten were no better than those before; at most 0.9."""

    start: float
    step: float
    listens: ClassVar[bool] = True

    def __call__(self, progress: float, accuracies: Sequence[float] = ()) -> float:
        blocks = [max(accuracies[n : n + 10]) for n in range(0, len(accuracies) - 9, 10)]
        stalls = sum(now <= max(blocks[:n]) for n, now in enumerate(blocks) if n)
        return max(self.start, min(0.9, self.start + self.step * stalls))


class Pupil:
    """A student of one seed, what it learns from, and how long."""

    def __init__(self, seed: int, images: int = IMAGES, passes: int = PASSES):
        dataset, self.teacher = fashion()
        self.seed, self.passes = seed, passes
        self.split = dataset.train.take(images, seed=seed)
        self.logits = known_logits(self.teacher, self.split)
        self.student = models.build("tiny-cnn", seed=seed)
        self.common = {"batch_size": BATCH_SIZE, "seed": seed, "progress": False}

    def shares(self, first: float) -> tuple[int, int]:
        """The passes of two stages."""
        early = round(first * self.passes)
        return early, self.passes - early

    def labels(self, epochs: int, rate: float) -> None:
        training.train(self.student, self.split, epochs=epochs, learning_rate=rate, **self.common)

    def distil(
        self, epochs: int, rate: float, *, teacher: nn.Module | Tensor | None = None, **settings: Any
    ) -> training.History:
        teacher = self.logits if teacher is None else teacher
        settings = {"temperature": 4.0, "alpha": 0.9} | settings
        return training.distill(
            self.student, teacher, self.split, epochs=epochs, learning_rate=rate, **settings, **self.common
        )


def labels(pupil: Pupil, rate: float) -> None:
    pupil.labels(pupil.passes, rate)


def one_stage(pupil: Pupil, rate: float) -> None:
    pupil.distil(pupil.passes, rate)


def then_head(pupil: Pupil, rate: float, first: float, later_rate: float) -> None:
    """The teacher alone (alpha = 1), then labels for the last layer, everything else frozen."""
    early, late = pupil.shares(first)
    pupil.distil(early, rate, alpha=1.0)
    for name, weight in pupil.student.named_parameters():
        weight.requires_grad_(name.startswith("head"))
    pupil.labels(late, later_rate)


def then_labels(pupil: Pupil, rate: float, first: float, later_rate: float) -> None:
    """Distillation, then labels for the whole network."""
    early, late = pupil.shares(first)
    pupil.distil(early, rate)
    pupil.labels(late, later_rate)


def hint_first(pupil: Pupil, rate: float, first: float, later_rate: float) -> None:
    """The two stages of FitNets: the features of a middle layer through a regressor, then distillation."""
    early, late = pupil.shares(first)
    term = features.FeatureTerm(features.hint_loss, HINTED, HINT, regressor=True)
    training.match_features(
        pupil.student, pupil.teacher, pupil.split, features=[term], epochs=early, learning_rate=rate, **pupil.common
    )
    pupil.distil(late, later_rate)


def squared_difference(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """The sum over batch and classes."""
    return (student_logits - teacher_logits).square().sum()


def young_teacher(seed: int) -> nn.Module:
    """Four times the weights of the student, none of them trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 + seed)
        return models.TinyCNN(widths=(32, 64, 128))


def beside(pupil: Pupil, rate: float) -> None:
    """Both learn in every step: the teacher from the labels, the student from them and from its logits of now."""
    teacher = young_teacher(pupil.seed).to(memory_format=torch.channels_last)
    recipe = Recipe(pupil.passes, BATCH_SIZE, rate, WEIGHT_DECAY, pupil.seed, bfloat16=False)
    batches = recipe.batches(pupil.split, torch.device("cpu"))
    steps = batches.steps * pupil.passes
    with torch.random.fork_rng(devices=[]):
        teach = Step(teacher.train(), LabelObjective(), recipe, batches.device, steps)

        def objective(logits: Tensor, batch: Any) -> LossTerms:
            difference = squared_difference(logits, teach.logits)
            return weighted_terms(difference, F.cross_entropy(logits, batch.labels), BESIDE)

        learn = Step(pupil.student.train(), objective, recipe, batches.device, steps)
        for epoch in range(pupil.passes):
            for batch in batches.epoch(epoch):
                teach(batch)
                learn(batch)
    pupil.student.eval()


def after(pupil: Pupil, rate: float) -> None:
    """The same teacher, finished before the student begins, and the same loss."""
    teacher = young_teacher(pupil.seed)
    training.train(teacher, pupil.split, epochs=pupil.passes, learning_rate=LEARNING_RATE, **pupil.common)
    pupil.distil(pupil.passes, rate, teacher=teacher, loss=squared_difference, alpha=BESIDE)


def course(pupil: Pupil, rate: float) -> None:
    """The course's teacher with that loss."""
    pupil.distil(pupil.passes, rate, loss=squared_difference, alpha=BESIDE)


def constant_alpha(pupil: Pupil, rate: float, alpha: float) -> None:
    pupil.distil(pupil.passes, rate, alpha=alpha)


def on_plateau(pupil: Pupil, rate: float, start: float, step: float) -> float:
    """Returns the mean alpha over the passes."""
    alpha = every_ten(start, step)
    history = pupil.distil(pupil.passes, rate, alpha=alpha, validation=fashion()[0].validation)
    scores = history.validation_scores()
    return sum(alpha(0.0, scores[:epoch]) for epoch in range(len(scores))) / len(scores)


ARMS: dict[str, Callable[..., float | None]] = {
    "labels": labels,
    "one stage": one_stage,
    "teacher alone, then labels on the head": then_head,
    "distil, then labels": then_labels,
    "hint, then distil": hint_first,
    "taught beside a teacher": beside,
    "that teacher, finished first": after,
    "the course's teacher, the same loss": course,
    "constant alpha": constant_alpha,
    "alpha on a plateau": on_plateau,
}
FIRST = {"teacher alone, then labels on the head": (0.5, 0.75, 0.9), "distil, then labels": (0.5, 0.75, 0.9)}
FIRST |= {"hint, then distil": (0.1, 0.25, 0.5)}


def grids() -> Iterator[tuple[str, dict[str, float]]]:
    """Every arm with every setting that is tried."""
    for arm in ("labels", "one stage", "taught beside a teacher", "that teacher, finished first"):
        yield from ((arm, {"rate": rate}) for rate in RATES)
    yield from (("the course's teacher, the same loss", {"rate": rate}) for rate in RATES)
    for arm, firsts in FIRST.items():
        rates = RATES if arm.startswith("hint") else LATER_RATES
        yield from (
            (arm, {"rate": FIRST_RATE, "first": first, "later_rate": rate}) for first, rate in product(firsts, rates)
        )
    for rate, alpha in product(RATES[1:], (0.25, 0.5, 0.75, 0.9, 1.0)):
        yield "constant alpha", {"rate": rate, "alpha": alpha}
    for rate, start, step in product(RATES[1:], (0.25, 0.5, 0.75), (0.1, 0.2)):
        yield "alpha on a plateau", {"rate": rate, "start": start, "step": step}


def beyond() -> Iterator[tuple[str, dict[str, float]]]:
    """What lies beyond the edges of that grid on which the best settings of some arms were."""
    rate = HIGHER_RATE
    for arm in ("labels", "that teacher, finished first", "the course's teacher, the same loss"):
        yield arm, {"rate": rate}
    yield from (("constant alpha", {"rate": rate, "alpha": alpha}) for alpha in (0.75, 0.9, 1.0))
    yield from (("alpha on a plateau", {"rate": rate, "start": start, "step": 0.1}) for start in (0.25, 0.5, 0.75))
    for first, later_rate in ((0.25, rate), (0.5, rate), (0.75, rate), (0.75, RATES[-1])):
        yield "hint, then distil", {"rate": FIRST_RATE, "first": first, "later_rate": later_rate}


SETTINGS = ("rate", "first", "later_rate", "alpha", "start", "step")


def trained(arm: str, seed: int, split: str, images: int = IMAGES, passes: int = PASSES, **settings: float) -> Mapping:
    """One student of one arm; settings that an arm does not have are 0, and so is
    the mean alpha of those that do not change it."""
    pupil = Pupil(seed, images, passes)
    alpha = ARMS[arm](pupil, **{name: value for name, value in settings.items() if value})
    return {"mean alpha": alpha or 0.0, "accuracy": metrics.accuracy(pupil.student, getattr(fashion()[0], split))}


def _cells(arms: Sequence[tuple[str, dict[str, float]]], seeds: Sequence[int], split: str) -> list[dict]:
    nothing = dict.fromkeys(SETTINGS, 0.0)
    return [
        {"arm": arm, **nothing, **settings, "seed": seed, "split": split} for seed in seeds for arm, settings in arms
    ]


@experiment("lesson07-stages-tuning")
def stage_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """Learning rates, the length of the first stage, and alpha, on the validation images."""
    return map_cells(functools.partial(trained, **sizes), _cells([*grids()], seeds, "validation"))


@experiment("lesson07-stages-edge-tuning")
def stage_edge_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """The same beyond the edges of that grid."""
    return map_cells(functools.partial(trained, **sizes), _cells([*beyond()], seeds, "validation"))


def best_settings(arm: str) -> dict[str, float]:
    """Those of an arm with the highest mean accuracy on validation."""
    tried = pandas.concat(map(results.read, ("lesson07-stages-tuning", "lesson07-stages-edge-tuning")))
    means = tried[tried["arm"] == arm].groupby([*SETTINGS])["accuracy"].mean()
    return dict(zip(SETTINGS, map(float, means.idxmax()), strict=True))


def compared() -> list[tuple[str, dict[str, float]]]:
    """Each arm at its best; alpha on a plateau also as a tutorial has it, beside constants at the same rate."""
    arms = [(arm, best_settings(arm)) for arm in ARMS]
    arms += [("alpha on a plateau", {"rate": LEARNING_RATE, "start": 0.5, "step": 0.1})]
    arms += [("constant alpha", {"rate": LEARNING_RATE, "alpha": alpha}) for alpha in (0.5, 0.6, 0.7, 0.8, 0.9)]
    # At three times the rate, too, which is that of the second stage behind a hint.
    hint_rate = best_settings("hint, then distil")["later_rate"]
    arms += [("one stage", {"rate": rate}) for rate in (RATES[-1], FIRST_RATE, hint_rate)]
    with_labels = [arm for arm in FIRST if not arm.startswith("hint")]
    arms += [(arm, best_settings(arm) | {"rate": RATES[-1]}) for arm in with_labels]
    # Validation chose the second stage that does least; here is one that does something.
    arms += [(arm, {"rate": FIRST_RATE, **HALF}) for arm in with_labels]
    unlike = {
        (arm, *({**dict.fromkeys(SETTINGS, 0.0), **settings}).values()): (arm, settings) for arm, settings in arms
    }
    return [*unlike.values()]


@experiment("lesson07-stages")
def stages(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Each arm at its best, on the test images."""
    return map_cells(functools.partial(trained, **sizes), _cells(compared(), seeds, "test"))


@experiment("lesson07-stages-again")
def stages_again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds."""
    return stages(seeds, **sizes)
