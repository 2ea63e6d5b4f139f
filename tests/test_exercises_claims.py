"""The solutions of lesson 10 do what other means do: closed forms, all searches that there are, gradients by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlib.lesson import exercises
from kdlib.lesson.exercises import _descent, lesson10_search

pytestmark = pytest.mark.usefixtures("one_thread")

lowest_logits = exercises.solution("lowest_logits")
gain_of_search = exercises.solution("gain_of_search")
repair_co_training = exercises.solution("repair_co_training")

# ------------------------------------------------------------------ lowest_logits


def two_tensors(batch=3, classes=5):
    torch.manual_seed(batch)
    return 2 * torch.randn(batch, classes), torch.randn(batch, classes)


def test_the_lowest_logits_of_a_divergence_soften_to_the_teachers_answer_at_its_temperature():
    teacher, start = two_tensors()

    def divergence(z, v):
        return F.kl_div((z / 4).log_softmax(1), (v / 4).softmax(1), reduction="batchmean")

    found = lowest_logits(divergence, teacher, start)
    assert torch.allclose((found / 4).softmax(1), (teacher / 4).softmax(1), atol=1e-4)
    assert not torch.allclose(found, teacher, atol=0.05)  # a shift of all classes changes nothing


def test_the_lowest_logits_of_squares_are_the_teachers_and_of_another_aim_that_aim():
    teacher, start = two_tensors(4, 3)
    assert torch.allclose(lowest_logits(F.mse_loss, teacher, start), teacher, atol=1e-3)
    aim = torch.arange(12.0).view(4, 3)
    found = lowest_logits(lambda z, v: (z - aim).abs().pow(1.5).sum(), teacher, start)
    assert torch.allclose(found, aim, atol=0.02)


def test_one_sided_divergences_of_sigmoids_drive_everything_up_whatever_the_teacher_says():
    teacher, start = two_tensors(5, 4)

    def one_sided(z, v):
        p = v.sigmoid()
        return (p * (p.log() - F.logsigmoid(z))).sum(1).mean()

    assert lowest_logits(one_sided, teacher, start).min() > start.max() + 3


def test_where_the_slope_is_the_same_everywhere_five_hundred_steps_are_seen_and_where_it_is_0_none():
    teacher, start = two_tensors()
    slopes = torch.tensor([1.0, -7.0, 0.0, 0.0, 0.0])
    found = lowest_logits(lambda z, v: (z @ slopes).sum(), teacher, start)
    assert torch.allclose((found - start)[:, 0], torch.tensor(-50.0), atol=0.01)
    assert torch.allclose((found - start)[:, 1], torch.tensor(50.0), atol=0.01)
    assert torch.equal(found[:, 2:], start[:, 2:])


def test_the_search_leaves_start_and_a_teacher_with_a_graph_alone():
    network = nn.Linear(2, 5)
    teacher, start = network(torch.randn(3, 2)), torch.randn(3, 5)
    copies = teacher.detach().clone(), start.clone()
    found = lowest_logits(lambda z, v: (z * v).sum() + z.square().sum(), teacher, start)
    assert torch.equal(teacher, copies[0]) and torch.equal(start, copies[1])
    assert network.weight.grad is None and not found.requires_grad and not start.requires_grad
    assert torch.allclose(found, -copies[0] / 2, atol=1e-3)


def test_the_search_is_that_of_adam_in_numpy():
    teacher, start = two_tensors(2, 3)
    z, v = start.double().numpy(), teacher.double().numpy()
    mean, square = np.zeros_like(z), np.zeros_like(z)
    for step in range(1, 501):
        slope = 4 * (z - v) ** 3
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        z = z - 0.1 * mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    found = lowest_logits(lambda a, b: ((a - b) ** 4).sum(), teacher.double(), start.double())
    assert np.allclose(found.numpy(), z, rtol=1e-6)


def test_the_known_mistakes_of_the_search_are_told_after_a_few_steps(monkeypatch):
    asked, whole = [], _descent.rows_of_several_kinds
    monkeypatch.setattr(_descent, "rows_of_several_kinds", lambda *given: asked.append(1) or whole(*given))
    exercise = exercises.get("lowest_logits")
    for mistake in exercise.mistakes.values():
        assert exercises.check("lowest_logits", mistake).diagnosis
    checks = len(exercise.mistakes)
    # Of each check at most the mistake itself and all that are tried before it, of few steps each.
    assert len(asked) <= 500 + checks * (checks + 1) * _descent.CLOSELY_WATCHED


# ------------------------------------------------------------------ gain_of_search


def gains_of_all_searches(chosen, judged, size):
    """The gain of each set of so many runs, by a loop."""
    mean = math.fsum(judged) / len(judged)
    return [
        judged[max(drawn, key=chosen.__getitem__)] - mean
        for drawn in itertools.combinations(range(len(chosen)), size)
    ]


def test_the_gain_of_a_search_is_on_average_that_of_all_sets_of_runs():
    luck = np.random.default_rng(0)
    chosen = luck.random(8)
    judged = 0.5 * chosen + luck.random(8)
    for size in range(1, 9):
        gains = gains_of_all_searches(chosen.tolist(), judged.tolist(), size)
        found = [gain_of_search(chosen, judged, size, luck) for _ in range(2000)]
        assert set(np.round(found, 9)) <= set(np.round(gains, 9))
        assert abs(np.mean(found) - np.mean(gains)) <= 5 * np.std(gains) / math.sqrt(2000) + 1e-12


def test_the_gain_of_a_search_of_all_runs_is_the_bests_and_of_one_run_nothing_on_average():
    chosen, judged = np.array([0.2, 0.9, 0.4]), np.array([0.6, 0.3, 0.9])
    assert gain_of_search(chosen, judged, 3, np.random.default_rng(0)) == pytest.approx(0.3 - 0.6)
    assert math.fsum(gains_of_all_searches([0.2, 0.9, 0.4], [0.6, 0.3, 0.9], 1)) == pytest.approx(0)


def test_the_law_of_winners_is_that_of_all_sets_of_runs():
    for runs, size in ((7, 3), (3, 3), (6, 1), (10, 7), (4, 2)):
        winners = [max(drawn) for drawn in itertools.combinations(range(runs), size)]
        shares = np.bincount(winners, minlength=runs) / len(winners)
        assert np.allclose(lesson10_search._law(runs, size), shares)


def test_the_judge_of_searches_knows_the_scores_of_its_cases_apart():
    for chosen, judged, size, _ in exercises.get("gain_of_search").cases():
        chosen, judged = chosen.numpy(), judged.numpy()
        best_by_each = {chosen.argmax(), chosen.argmin(), judged.argmax()}
        assert len(best_by_each) == 3 and chosen.argmax() >= min(size, len(chosen) - 1)
        assert np.diff(np.sort(judged)).min() > 1e-5 and np.diff(np.sort(chosen)).min() > 1e-5


def test_a_right_search_is_right_whatever_it_draws():
    def draws_later(by):
        def search(chosen, judged, size, random):
            random.random(by)
            return gain_of_search(chosen, judged, size, random)

        return search

    for by in range(1, 9):
        for case in exercises.get("gain_of_search").cases():
            assert lesson10_search._who_wins(draws_later(by), *case)


# ------------------------------------------------------------------ repair_co_training


class Linear(nn.Module):
    """Logits that are linear in the mean of each channel, or in the pixels."""

    def __init__(self, outputs, inputs, of_means):
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(outputs, inputs, dtype=torch.float64))
        self.of_means = of_means

    def forward(self, images):
        if self.of_means:
            assert images.shape[1] == 3
            return images.mean((2, 3)) @ self.weight.T
        return images.flatten(1) @ self.weight.T


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_two_steps_of_co_training_are_those_of_gradients_by_hand():
    torch.manual_seed(0)
    teacher, student = Linear(1000, 3, True), Linear(10, 8, False)
    images, labels = torch.randn(5, 1, 2, 4, dtype=torch.float64), torch.tensor([3, 0, 9, 3, 5])
    optimizers = torch.optim.SGD(teacher.parameters(), lr=0.3), torch.optim.SGD(student.parameters(), lr=0.02)
    of_teacher, of_student = (network.weight.detach().numpy().copy() for network in (teacher, student))
    pixels, answers = images.flatten(1).numpy(), np.eye(10)[labels]
    channels = pixels.mean(1, keepdims=True).repeat(3, axis=1)
    for _ in range(2):
        found = repair_co_training(teacher, student, *optimizers, images, labels)
        v, z = channels @ of_teacher[:10].T, pixels @ of_student.T
        losses = [-np.log(softmax(logits)[range(5), labels]).mean() for logits in (v, z)]
        losses[1] += 0.1 * ((z - v) ** 2).sum()
        assert found == pytest.approx(losses) and all(isinstance(loss, float) for loss in found)
        of_teacher[:10] -= 0.3 * (softmax(v) - answers).T @ channels / 5
        of_student -= 0.02 * ((softmax(z) - answers) / 5 + 0.2 * (z - v)).T @ pixels
        assert np.allclose(teacher.weight.detach().numpy(), of_teacher)
        assert np.allclose(student.weight.detach().numpy(), of_student)


def test_the_program_to_repair_stops_for_one_reason_after_the_other():
    as_found = exercises.get("repair_co_training").start

    def step(of_program, *, channels, outputs):
        teacher, student = nn.Sequential(nn.Conv2d(3, outputs, 2), nn.Flatten()), nn.Sequential(nn.Flatten())
        student.append(nn.Linear(channels * 4, 10))
        optimizers = [torch.optim.SGD(network.parameters(), lr=0.1) for network in (teacher, student)]
        return of_program(teacher, student, *optimizers, torch.ones(2, channels, 2, 2), torch.tensor([1, 2]))

    with pytest.raises(RuntimeError, match="3 channels, but got 1"):
        step(as_found, channels=1, outputs=1000)
    with pytest.raises(RuntimeError, match="size of tensor"):
        step(as_found, channels=3, outputs=1000)
    with pytest.raises(RuntimeError, match="second time"):
        step(as_found, channels=3, outputs=10)
    assert len(step(repair_co_training, channels=1, outputs=1000)) == 2
