"""Lesson 07, schedules: temperature and alpha that change over training, each beside constants.

Two cores take about twenty minutes for the search and the two tables.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas
import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib import metrics, models
from kdlib.experiments.lesson01 import fashion, known_logits
from kdlib.experiments.lesson03 import over_groups
from kdlib.lesson import results
from kdlib.lesson.results import experiment
from kdlib.losses import soft_target_by_image
from kdlib.sweeps.backends import Group
from kdlib.sweeps.grouped import fit_together
from kdlib.training import LEARNING_RATE, WEIGHT_DECAY
from kdlib.training.loop import Recipe
from kdlib.training.schedules import Schedule, constant, cosine, linear

IMAGES, EPOCHS, BATCH_SIZE = 1000, 20, 32
TUNING_SEEDS, SEEDS, AGAIN = range(100, 103), range(10), range(20, 30)
ASCENT = 0.5  # the rate of the learned temperature: 0.05 with momentum 0.9, as its authors have it
SHORTEST = 1e-6


class phases:
    """Constant in each of several phases: `values` over `shares` of the training, which add to 1."""

    def __init__(self, values: Sequence[float | int], shares: Sequence[float]):
        self.values, self.ends = values, [*itertools.accumulate(shares)]

    def __call__(self, progress: float | int) -> float | int:
        return next((v for v, end in zip(self.values, self.ends, strict=True) if progress < end), self.values[-1])


class Plan(NamedTuple):
    """What a student minimises: alpha * [T^2] * KL + (1 - alpha) * CE, with T and alpha over training.

    square: whether T^2 stands before the KL.
    standardised: the logits of both sides are centred and scaled to a spread of 1 first.
    learned: T is none of `temperature`, but a number from 1 to this one that goes up the gradient of the loss.
    """

    temperature: Schedule
    alpha: Schedule
    square: bool = True
    standardised: bool = False
    learned: float = 0.0


def at(temperature: float | int, alpha: float | int = 0.9) -> Plan:
    return Plan(constant(temperature), constant(alpha))


def annealed(temperature: Schedule, alpha: float | int = 0.9, **options) -> Plan:
    return Plan(temperature, constant(alpha), **options)


def hidden(temperature: Schedule, alpha: float | int = 0.9) -> Schedule:
    """The alpha of our loss that has the balance of one without T^2, whose T changes over training."""

    def of(progress: float | int) -> float:
        weight = alpha / temperature(progress) ** 2
        return weight / (weight + 1 - alpha)

    return of


THREE_PHASES = (0.5, 0.3, 0.2)
DOWN, UP, BACK = linear(10, 1), linear(1, 8), linear(8, 1)
STEPS = phases((10, 5.5, 1), (1 / 3, 1 / 3, 1 / 3))
CONSTANTS = {f"T = {t:g}": at(t) for t in (1, 2, 3, 4, 4.5, 4.8, 5.5, 8, 12, 16)}
CONSTANTS |= {f"T = 4, alpha = {a:g}": at(4, a) for a in (0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.95, 1)}
CONSTANTS |= {"T = 4.8, alpha = 0.76": at(4.8, 0.76)}
SCHEDULES = {
    "T 10 to 1, linear": annealed(DOWN),
    "T 10 to 1, cosine": annealed(cosine(10, 1)),
    "T 10 to 1, three steps": annealed(STEPS),
    "T 1 to 8": annealed(UP),
    "T 8 to 1": annealed(BACK),
    "three phases": Plan(phases((8, 2, 1), THREE_PHASES), phases((0.9, 0.7, 0.5), THREE_PHASES)),
    "learned T": Plan(constant(1), constant(0.9), learned=21.0),
    "standardised logits": annealed(constant(2), standardised=True),
    "standardised logits, 9 to 0.1": annealed(constant(2), 90 / 91, standardised=True),
}
WITHOUT_SQUARE = {
    f"{name}, without T^2": annealed(schedule, square=False)
    for name, schedule in {"T 10 to 1": DOWN, "T 1 to 8": UP, "T 8 to 1": BACK}.items()
}
ITS_ALPHA = {
    f"alpha of {name}, without T^2": Plan(constant(mean), hidden(schedule))
    for name, schedule, mean in (("T 10 to 1", DOWN, 5.5), ("T 1 to 8", UP, 4.5), ("T 8 to 1", BACK, 4.5))
}
PLANS = CONSTANTS | SCHEDULES | WITHOUT_SQUARE | ITS_ALPHA
RIVALS = {  # the constant of the same mean temperature (and alpha, where that changes too)
    "T 10 to 1, linear": "T = 5.5",
    "T 10 to 1, cosine": "T = 5.5",
    "T 10 to 1, three steps": "T = 5.5",
    "T 1 to 8": "T = 4.5",
    "T 8 to 1": "T = 4.5",
    "three phases": "T = 4.8, alpha = 0.76",
}

TUNED: dict[str, Callable[[float, float], Plan]] = {  # of an amplitude and an alpha
    "constant": at,
    "linear, down to 1": lambda top, alpha: annealed(linear(top, 1), alpha),
    "cosine, down to 1": lambda top, alpha: annealed(cosine(top, 1), alpha),
    "three steps, down to 1": lambda top, alpha: annealed(
        phases((top, (top + 1) / 2, 1), (1 / 3, 1 / 3, 1 / 3)), alpha
    ),
    "linear, up from 1": lambda top, alpha: annealed(linear(1, top), alpha),
    "three phases": lambda top, alpha: Plan(
        phases((top, max(1, top / 4), 1), THREE_PHASES), phases((alpha, alpha - 0.2, alpha - 0.4), THREE_PHASES)
    ),
    "learned T": lambda top, alpha: Plan(constant(1), constant(alpha), learned=top),
    "standardised logits": lambda top, alpha: annealed(constant(top / 4), alpha, standardised=True),
}
TOPS, ALPHAS, RATES = (2.0, 4.0, 8.0, 16.0), (0.75, 0.9, 1.0), (0.01, 0.02, 0.04, 0.08)
BEYOND = [  # the edges on which most of the best settings lay: amplitude, alpha and rate
    *itertools.product((4.0, 8.0, 16.0, 32.0), (0.5,), (0.08,)),
    *itertools.product((32.0,), ALPHAS, (0.08,)),
    *itertools.product((4.0, 8.0, 16.0, 32.0), (0.5, *ALPHAS), (0.16,)),
    *itertools.product((8.0, 16.0), (0.75, 0.9), (0.32,)),
]
FURTHER = [  # and the edges of that
    *itertools.product((64.0,), (0.9, 1.0), (0.08, 0.16)),
    *itertools.product((4.0, 32.0), (0.75, 0.9), (0.32,)),
    *itertools.product((8.0, 16.0), (0.75, 0.9), (0.64,)),
]


class PlannedLosses:
    """The losses of several students side by side, each by its plan; `steps` is the length of the training.

    Notes for every step and student the temperature, and the teacher's share of the gradient on the logits: a / (a + b)
    with the norms a and b of the two weighted gradients over the batch.
    """

    def __init__(self, plans: Sequence[Plan], steps: int):
        moments = [step / steps for step in range(steps)]
        self.temperatures = torch.tensor([[plan.temperature(m) for plan in plans] for m in moments])
        self.alphas = torch.tensor([[plan.alpha(m) for plan in plans] for m in moments])
        self.square = torch.tensor([plan.square for plan in plans])
        self.standardised = torch.tensor([plan.standardised for plan in plans]).unsqueeze(1)
        self.highest = torch.tensor([plan.learned for plan in plans])
        self.raw = torch.ones(len(plans))  # the learned temperatures before they are brought into their range
        self.steps, self.step = steps, 0
        self.shares: list[Tensor] = []
        self.used: list[Tensor] = []

    def __call__(self, student_logits, labels, teacher_logits):
        task_logits = student_logits
        if self.standardised.any():
            student_logits, teacher_logits = (
                torch.where(self.standardised, _standardised(logits), logits)
                for logits in (student_logits, teacher_logits)
            )  # fmt: skip
        temperature, alpha = self._temperature(student_logits, teacher_logits), self.alphas[self.step]
        task = F.cross_entropy(task_logits.mT, labels, reduction="none").mean(dim=0)
        distill = soft_target_by_image(student_logits, teacher_logits, temperature).mean(dim=0)
        distill = torch.where(self.square, distill, distill / temperature**2)
        self._note(task_logits, alpha * distill, (1 - alpha) * task, temperature)
        self.step += 1
        return alpha * distill + (1 - alpha) * task

    def _temperature(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """That of the plans; a learned one after a step that makes the loss larger."""
        learned = self.highest > 0
        if not learned.any():
            return self.temperatures[self.step]
        with torch.enable_grad():
            raw = self.raw.clone().requires_grad_()
            now = 1 + (self.highest - 1).clamp(min=0) * raw.sigmoid()
            loss = soft_target_by_image(student_logits.detach(), teacher_logits, now).mean(dim=0).sum()
            [slope] = torch.autograd.grad(loss, raw)
        strength = (
            1 - math.cos(math.pi * min(1.0, 24 * self.step / self.steps))
        ) / 2  # full after a 24th, as 10 of 240 epochs
        self.raw += ASCENT * strength * slope * learned
        return torch.where(learned, now.detach(), self.temperatures[self.step])

    def _note(self, logits: Tensor, distill: Tensor, task: Tensor, temperature: Tensor) -> None:
        of_distill, of_task = (
            torch.autograd.grad(term.sum(), logits, retain_graph=True)[0].norm(dim=(0, 2)) for term in (distill, task)
        )
        self.shares.append(of_distill / (of_distill + of_task))
        self.used.append(temperature)


def _standardised(logits: Tensor) -> Tensor:
    """Over the spread with N - 1 below, as the code of Sun et al. 2024 (arXiv 2403.01427) has it."""
    centred = logits - logits.mean(dim=-1, keepdim=True)
    return centred / centred.std(dim=-1, keepdim=True).clamp(min=SHORTEST)


def train_planned(
    plans: Sequence[Plan], seed: int, rate: float, epochs: int = EPOCHS, images: int = IMAGES
) -> tuple[list[torch.nn.Module], PlannedLosses]:
    """Students of one seed, one a plan, side by side, with the same first weights and the same order of the images.

    A single one is trained beside a copy of itself: a group of one would be computed with another rounding.
    """
    together = [*plans] * 2 if len(plans) == 1 else [*plans]
    dataset, teacher = fashion()
    transfer_set = dataset.train.take(images, seed=seed)
    students = [models.build("tiny-cnn", seed=seed) for _ in together]
    recipe = Recipe(epochs, BATCH_SIZE, rate, WEIGHT_DECAY, seed, bfloat16=False, augment=None)
    losses = PlannedLosses(together, epochs * -(-images // BATCH_SIZE))
    logits = known_logits(teacher, transfer_set)
    fit_together(students, logits, transfer_set, losses=losses, seeds=[seed] * len(together), recipe=recipe)
    return students[: len(plans)], losses


def over_epochs(values: Sequence[Tensor], epochs: int) -> Tensor:
    """Means over each epoch, (epochs, students)."""
    return torch.stack([part.mean(dim=0) for part in torch.stack([*values]).tensor_split(epochs)])


def on_plans(group: Group, epochs: int = EPOCHS, images: int = IMAGES) -> list[dict[str, float]]:
    """Students of one seed by the plans of `PLANS`: `share 1` to `share 20` are the teacher's share in each epoch."""
    [(seed, rate)] = {(cell["seed"], cell["rate"]) for cell in group}
    students, losses = train_planned([PLANS[cell["plan"]] for cell in group], seed, rate, epochs, images)
    shares, test = over_epochs(losses.shares, epochs), fashion()[0].test
    temperature = torch.stack(losses.used).mean(dim=0)
    rows = []
    for number, student in enumerate(students):
        row = {"test": metrics.accuracy(student, test), "mean temperature": round(temperature[number].item(), 3)}
        row |= {"mean alpha": round(losses.alphas[:, number].mean().item(), 4)}
        rows.append(row | {f"share {e}": round(s, 3) for e, s in enumerate(shares[:, number].tolist(), start=1)})
    return rows


def on_tuned(group: Group, epochs: int = EPOCHS, images: int = IMAGES) -> list[dict[str, float]]:
    """Students of one seed and learning rate by the families of `TUNED`, measured on the split of the cells."""
    [(seed, rate, split)] = {(cell["seed"], cell["rate"], cell["split"]) for cell in group}
    plans = [TUNED[cell["family"]](cell["top"], cell["alpha"]) for cell in group]
    students, _ = train_planned(plans, seed, rate, epochs, images)
    judges = getattr(fashion()[0], split)
    return [{"accuracy": metrics.accuracy(student, judges)} for student in students]


@experiment("lesson07-schedules")
def planned(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Every schedule and every constant at the course's learning rate, on the test images."""
    grid = [{"plan": name, "rate": LEARNING_RATE, "seed": seed} for seed in seeds for name in PLANS]
    return over_groups(functools.partial(on_plans, **sizes), grid, ["seed"])


@experiment("lesson07-schedules-again")
def planned_again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds, which the lesson does not use: do its verdicts hold?"""
    return planned(seeds, **sizes)


def on_validation(
    settings: Sequence[tuple[float, float, float]], seeds: Sequence[int], **sizes: int
) -> pandas.DataFrame:
    """Every family with each of the settings (amplitude, alpha, rate), sorted so that one rate trains side by side."""
    grid = [
        {"family": family, "top": top, "alpha": alpha, "rate": rate, "seed": seed, "split": "validation"}
        for seed in seeds
        for family in TUNED
        for top, alpha, rate in settings
    ]
    grid = sorted(grid, key=lambda cell: (cell["seed"], cell["rate"]))
    return over_groups(functools.partial(on_tuned, **sizes), grid, ["seed", "rate"])


@experiment("lesson07-schedules-tuning")
def schedule_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """As many settings for every family, on the validation images: amplitude, alpha and learning rate."""
    return on_validation([*itertools.product(TOPS, ALPHAS, RATES)], seeds, **sizes)


@experiment("lesson07-schedules-edge-tuning")
def schedule_edge_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """The same beyond the edges of that grid."""
    return on_validation(BEYOND, seeds, **sizes)


@experiment("lesson07-schedules-further-tuning")
def schedule_further_tuning(seeds: Sequence[int] = TUNING_SEEDS, **sizes: int) -> pandas.DataFrame:
    """And beyond the edges of that."""
    return on_validation(FURTHER, seeds, **sizes)


def tried() -> pandas.DataFrame:
    """All that was tried on validation."""
    names = (f"lesson07-schedules-{kind}tuning" for kind in ("", "edge-", "further-"))
    return pandas.concat(map(results.read, names), ignore_index=True)


def best_settings(family: str) -> dict[str, float]:
    """Those of a family with the highest mean accuracy on validation."""
    own = tried()
    own = own[own["family"] == family]
    top, alpha, rate = own.groupby(["top", "alpha", "rate"])["accuracy"].mean().idxmax()
    return {"top": float(top), "alpha": float(alpha), "rate": float(rate)}


def tuned_grid(seeds: Sequence[int]) -> list[Mapping]:
    """Each family at its best, sorted so that those of one rate are trained side by side."""
    cells = [
        {"family": family, **best_settings(family), "seed": seed, "split": "test"}
        for seed in seeds
        for family in TUNED
    ]
    return sorted(cells, key=lambda cell: (cell["seed"], cell["rate"]))


@experiment("lesson07-schedules-tuned")
def tuned(seeds: Sequence[int] = SEEDS, **sizes: int) -> pandas.DataFrame:
    """Each family at its own best, on the test images."""
    return over_groups(functools.partial(on_tuned, **sizes), tuned_grid(seeds), ["seed", "rate"])


@experiment("lesson07-schedules-tuned-again")
def tuned_again(seeds: Sequence[int] = AGAIN, **sizes: int) -> pandas.DataFrame:
    """The same with ten other seeds."""
    return tuned(seeds, **sizes)
