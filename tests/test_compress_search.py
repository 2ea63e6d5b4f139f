"""The search for a student: within its budgets, repeatable, and judged by what it was told to be judged by."""

import re

import optuna
import pytest
import torch

from kdlib import data, metrics, models
from kdlib.deploy import student_search
from kdlib.deploy.compress import onnx_latency, search_student
from kdlib.training import distill
from kdlib.training.loop import History

DIGITS = data.load("digits")
TRAIN, VALIDATION = DIGITS.train.take(40), DIGITS.validation.take(60)
LOGITS = 5 * torch.nn.functional.one_hot(TRAIN.labels, 10).float()
SMALL = {"students": 3, "epochs": 2, "depths": (1, 2), "channels": (4, 8), "multiply_adds": 15_000}


def search(**options):
    return search_student(LOGITS, TRAIN, VALIDATION, **(SMALL | options))


@pytest.fixture(scope="module")
def found():
    return search()


def counted(plan) -> int:
    """Multiply-adds of a plan on one 1x8x8 image."""
    total, inputs, side = 0, 1, 8
    for channels, kernel, stride in plan:
        side = (side - 1) // stride + 1
        total += channels * inputs * kernel**2 * side**2
        inputs = channels
    return total + 10 * inputs


def test_the_table_counts_right_and_only_plans_within_the_budget_are_trained(found):
    trials = found.trials
    assert trials["multiply_adds"].tolist() == [counted(plan) for plan in trials["plan"]]
    within = trials["multiply_adds"] <= 15_000
    assert trials["plan"].is_unique and within.sum() == 3 and not within.all()
    assert (trials["status"] == "trained").tolist() == within.tolist() == trials["accuracy"].notna().tolist()
    assert set(trials["status"][~within]) == {"above 15000 multiply-adds"}
    assert trials["latency"].isna().all()


def test_the_best_plan_is_the_best_of_those_and_its_accuracy_can_be_had_again(found):
    (row,) = [row for row in found.trials.to_dict("records") if row["plan"] == found.plan]
    assert row["accuracy"] == found.trials["accuracy"].max()
    torch.manual_seed(0)
    student = models.PocketCNN(10, 1, found.plan)
    distill(student, LOGITS, TRAIN, epochs=2, progress=False)
    assert metrics.accuracy(student, VALIDATION) == row["accuracy"]
    assert sum(parameter.numel() for parameter in student.parameters()) == row["parameters"]


def test_the_same_seed_finds_the_same_and_leaves_the_callers_random_state(found, capfd):
    torch.manual_seed(7)
    before, verbosity = torch.get_rng_state(), optuna.logging.get_verbosity()
    again = search()
    assert again.plan == found.plan and again.trials.equals(found.trials)
    assert torch.equal(torch.get_rng_state(), before) and optuna.logging.get_verbosity() == verbosity
    assert capfd.readouterr() == ("", "")
    assert not search(seed=1).trials.equals(found.trials)


def test_a_teacher_may_be_a_network():
    teacher = models.build("tiny-cnn", seed=3)
    found = search_student(teacher, TRAIN, VALIDATION, **(SMALL | {"students": 1}))
    assert found.trials["status"].eq("trained").sum() == 1


def test_latency_is_asked_of_plans_within_the_other_budget_and_keeps_slow_ones_from_training():
    asked = []

    def layers(student) -> float:
        assert not student.training
        asked.append(student)
        return float(len(student.stages))

    trials = search(latency=layers, latency_budget=1).trials
    within = trials[trials["multiply_adds"] <= 15_000]
    assert len(asked) == len(within) and within["latency"].tolist() == [len(plan) for plan in within["plan"]]
    assert trials["latency"].notna().sum() == len(within)
    assert within["status"].tolist() == [
        "trained" if len(plan) == 1 else "above 1 latency" for plan in within["plan"]
    ]
    assert within["status"].nunique() == 2


def test_latency_in_onnxruntime_is_a_time_and_leaves_the_network_as_it_was():
    student = models.PocketCNN(10, 1, ((4, 3, 2),))
    assert 0 < onnx_latency((1, 8, 8), repeats=3)(student) < float("inf")
    assert student.training
    with pytest.raises(ValueError, match="cannot process images"):
        onnx_latency((3, 8, 8))(student)


def test_stop_means_the_whole_search(monkeypatch):
    def stopped(*_, **__) -> History:
        return History(interrupted=True)

    monkeypatch.setattr(student_search, "distill", stopped)
    with pytest.raises(KeyboardInterrupt):
        search()


def test_a_budget_that_no_plan_meets_is_refused_with_the_smallest():
    with pytest.raises(
        ValueError, match=re.escape("no plan within the budget among 1: the smallest, ((4, 3, 2),)")
    ):
        search(multiply_adds=10, depths=[1], channels=[4], kernels=[3], strides=[2])


def test_what_cannot_be_searched_is_refused():
    for options, message in (
        ({"channels": []}, "channels must offer"),
        ({"strides": [0, 1]}, "each of strides must be at least 1, got 0"),
        ({"kernels": [3, 4]}, "kernels must be odd"),
        ({"students": 0}, "students must be at least 1"),
        ({"multiply_adds": 0}, "multiply_adds must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"latency_budget": 1}, "given together"),
        ({"latency": lambda student: 1.0}, "given together"),
        ({"latency": lambda student: 1.0, "latency_budget": 0}, "latency_budget must be above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            search(**options)


def test_a_random_search_draws_every_plan_with_the_same_chance():
    """With two widths and two kernels for one convolution there are four plans: each is drawn about as often."""
    few = {"students": 1, "epochs": 1, "depths": (1,), "channels": (2, 3), "kernels": (1, 3), "strides": (2,)}
    first = [search(sampler="random", seed=seed, **few).plan for seed in range(40)]
    assert len(set(first)) == 4 and all(3 < first.count(plan) < 19 for plan in set(first))
    with pytest.raises(ValueError, match="sampler must be one of tpe, random; got 'grid'"):
        search(sampler="grid")
