"""Lesson 06: a search for the student's layers, against plans drawn at random within the same budget."""

import functools
import itertools
import random
from collections.abc import Sequence

import pandas
import torch
from torch import nn

from kdlib import metrics, models
from kdlib.deploy import compress, footprint
from kdlib.deploy.footprint import training_multiply_adds
from kdlib.experiments import lesson06
from kdlib.lesson.results import experiment
from kdlib.sweeps import map_cells

BUDGET = 2_400_000  # multiply-adds: the pocket-cnn has a little less
PLANS, TRIAL_IMAGES, TRIAL_EPOCHS, JUDGES = 16, 3000, 4, 1000
DEPTHS, CHANNELS, KERNELS, STRIDES = (2, 3, 4), (8, 16, 24, 32, 48, 64), (3, 5), (1, 2)
ARMS = ("search", "random, the best", "random, one", "by hand")
SAMPLERS = {"search": "tpe", "random, the best": "random"}

Plan = tuple[tuple[int, int, int], ...]


def search(
    sampler: str, seed: int, plans: int = PLANS, images: int = TRIAL_IMAGES, epochs: int = TRIAL_EPOCHS
) -> compress.StudentSearch:
    """So many plans within the budget, each tried for a few passes on a few images and judged on validation images."""
    few, logits = lesson06.answers(images)
    judges = lesson06.fashion()[0].validation.take(JUDGES, seed=0)
    return compress.search_student(
        logits, few, judges, multiply_adds=BUDGET, students=plans, epochs=epochs, sampler=sampler, seed=seed,
        temperature=lesson06.TEMPERATURE, alpha=lesson06.ALPHA["teacher"],
        depths=DEPTHS, channels=CHANNELS, kernels=KERNELS, strides=STRIDES,
    )  # fmt: skip


def tried(found: compress.StudentSearch) -> pandas.DataFrame:
    """The plans that were trained, in their order."""
    return found.trials[found.trials["status"] == "trained"].reset_index(drop=True)


def of_plan(plan: Plan | None, seed: int) -> nn.Module:
    """The network of a plan; the pocket-cnn as it is where there is none."""
    if plan is None:
        return models.build("pocket-cnn", seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return models.PocketCNN(plan=plan)


def random_plan(seed: int, least: float = 0.8) -> Plan:
    """One plan at random, of at least this share of the budget: nobody has tried it."""
    draw = random.Random(f"plan {seed}")
    while True:
        depth = draw.choice(DEPTHS)
        plan = tuple((draw.choice(CHANNELS), draw.choice(KERNELS), draw.choice(STRIDES)) for _ in range(depth))
        if least * BUDGET <= footprint.multiply_adds(models.PocketCNN(plan=plan), lesson06.SHAPE) <= BUDGET:
            return plan


def student(
    arm: str, seed: int, passes: int, rate: float, plans: int = PLANS, images: int = 9000
) -> dict[str, float | int | str]:
    """A plan by one of `ARMS`, trained as the other networks of lesson 06 are; and what the search for it took.

    `after k`: the best validation accuracy among the first k plans that were tried.
    """
    best, work, plan = {}, 0, None
    if arm in SAMPLERS:
        few = min(images, TRIAL_IMAGES)
        found = search(SAMPLERS[arm], seed, plans, few)
        trials = tried(found)
        plan, work = found.plan, training_multiply_adds(int(trials["multiply_adds"].sum()), few, TRIAL_EPOCHS)
        so_far = itertools.accumulate(trials["accuracy"], max)
        best = {f"after {count}": float(value) for count, value in enumerate(so_far, 1)}
    elif arm == "random, one":
        plan = random_plan(seed)
    network = of_plan(plan, seed)
    counted = lesson06.counted(network)
    work += training_multiply_adds(counted["multiply_adds"], images, passes)
    lesson06.fitted(network, target="teacher", passes=passes, rate=rate, seed=seed, images=images)
    right = metrics.accuracy(network, lesson06.fashion()[0].test)
    return {"plan": str(plan or "pocket-cnn"), **counted, "training_multiply_adds": work, "accuracy": right, **best}


@experiment("lesson06-search")
def searched(
    seeds: Sequence[int] = lesson06.SEEDS, passes: int = lesson06.PASSES, plans: int = PLANS, images: int = 9000
) -> pandas.DataFrame:
    """Each arm with a search, a plan and a training of its own for every seed; accuracy on the test images."""
    rate = lesson06.chosen_rate("pocket-cnn", "teacher")
    cells = [{"arm": arm, "seed": seed, "passes": passes, "rate": rate} for seed in seeds for arm in ARMS]
    return map_cells(functools.partial(student, plans=plans, images=images), cells)
