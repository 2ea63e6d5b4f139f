"""Standardised logits and stored top-k targets against closed forms by hand, outcomes and limits."""

import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import nn

from kdlib import data, losses, training

torch.set_num_threads(1)


def logits(batch=6, classes=5, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, batch, classes, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher


def gradient(loss, student):
    return torch.autograd.grad(loss, student)[0]


# ---- standardised logits


def by_hand_standardised(z, v, temperature):
    """One row, in plain floats."""

    def probabilities(row):
        mean = math.fsum(row) / len(row)
        deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in row) / len(row))
        weights = [math.exp((x - mean) / deviation / temperature) for x in row]
        return [weight / math.fsum(weights) for weight in weights]

    p, q = probabilities(v), probabilities(z)
    return temperature**2 * math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_standardised_loss_follows_the_papers_definition():
    for temperature, classes in ((0.7, 3), (2.0, 10), (2.0, 100)):
        student, teacher = logits(classes=classes)
        rows = zip(student.tolist(), teacher.tolist(), strict=True)
        expected = np.mean([by_hand_standardised(z, v, temperature) for z, v in rows])
        value = losses.standardised_loss(student, teacher, temperature)
        assert value.item() == pytest.approx(expected, rel=1e-9), (temperature, classes)
    assert losses.standardised_loss(student, teacher) == losses.standardised_loss(student, teacher, 2)


def test_standardised_loss_gives_the_students_of_the_papers_figure_their_order():
    """A student close to the teacher with the wrong first class, and a faint one with the right relations."""
    teacher = torch.tensor([[1.0, 4.0, 3.0, 0.0]])
    close, faint = torch.tensor([[1.0, 3.0, 3.5, 0.0]]), torch.tensor([[0.1, 0.4, 0.3, 0.0]])
    assert losses.soft_target_loss(close, teacher, 1) < losses.soft_target_loss(faint, teacher, 1)
    assert losses.standardised_loss(close, teacher, 1) > 0.01
    assert losses.standardised_loss(faint, teacher, 1).item() == pytest.approx(0, abs=1e-6)


def test_affine_maps_of_either_side_change_nothing():
    student, teacher = logits()
    expected = losses.standardised_loss(student, teacher)
    slopes = torch.tensor([1e-2, 0.1, 1, 3, 50, 1e6], dtype=torch.float64)[:, None]
    shift = torch.linspace(-40, 40, 6, dtype=torch.float64)[:, None]
    mapped = losses.standardised_loss(slopes * student + shift, slopes.flip(0) * teacher - shift)
    torch.testing.assert_close(mapped, expected)
    at_minimum = losses.standardised_loss(slopes * teacher + shift, teacher)
    assert at_minimum.item() == pytest.approx(0, abs=1e-12)
    assert losses.standardised_loss(-teacher, teacher) > 0.5  # a falling map is not let pass


def test_standardised_loss_says_nothing_about_confidence():
    """The gradient has no part along the centred row, nor along a constant."""
    student, teacher = logits()
    slope = gradient(losses.standardised_loss(student, teacher), student)
    centred = student - student.mean(dim=1, keepdim=True)
    zeros = torch.zeros(6, dtype=torch.float64)
    torch.testing.assert_close((slope * centred).sum(dim=1), zeros, atol=1e-12, rtol=0)
    torch.testing.assert_close(slope.sum(dim=1), zeros, atol=1e-12, rtol=0)


def test_the_reference_codes_deviation_is_a_larger_temperature_in_the_softmax():
    """Its std divides by N - 1; its T^2 before the KL stays what it was."""
    student, teacher = logits(classes=10)
    q, p = (
        softmax((x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, ddof=1, keepdims=True) / 2, axis=1)
        for x in (student.detach().numpy(), teacher.numpy())
    )
    larger = 2 * math.sqrt(10 / 9)
    ours = losses.standardised_loss(student, teacher, larger).item() * (2 / larger) ** 2
    assert ours == pytest.approx(4 * rel_entr(p, q).sum(axis=1).mean())


def test_a_confident_student_gets_the_smaller_gradient():
    student, teacher = logits()
    slope = gradient(losses.standardised_loss(student, teacher), student)
    for factor in (0.1, 10):
        stretched = (factor * student).detach().requires_grad_()
        found = gradient(losses.standardised_loss(stretched, teacher), stretched)
        torch.testing.assert_close(found, slope / factor)


def test_two_classes_which_standardise_to_the_same_two_numbers_are_refused_and_not_trained_on_rounding():
    binary = data.ImageSplit(torch.randint(0, 256, (8, 1, 4, 4), dtype=torch.uint8), torch.arange(8) % 2)
    student = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    before = student[1].weight.detach().clone()
    with pytest.raises(
        ValueError,
        match=r"student_logits must have at least 3 classes, got shape \(2, 2\): .* trains nothing",
    ):
        training.distill(
            student,
            torch.randn(8, 2),
            binary,
            epochs=1,
            alpha=1,
            loss=losses.standardised_loss,
            progress=False,
        )
    assert torch.equal(student[1].weight, before)


def test_equal_logits_stand_for_a_uniform_guess_and_still_learn():
    """Their gradient is that of a row with a standard deviation of 1e-3: T (q - p) / batch / 1e-3, centred."""
    _, teacher = logits(batch=1)
    v = teacher.numpy()
    p = softmax((v - v.mean()) / v.std() / 2, axis=1)
    expected = 4 * rel_entr(p, np.full((1, 5), 0.2)).sum()
    for dtype, level in (
        (torch.float64, 0),
        (torch.float32, 0),
        (torch.float32, 12345.67),
        (torch.float32, 1e15),
    ):
        student = torch.full((1, 5), level, dtype=dtype, requires_grad=True)
        value = losses.standardised_loss(student, teacher.to(dtype))
        assert value.item() == pytest.approx(expected, rel=1e-5), (dtype, level)
        np.testing.assert_allclose(gradient(value, student), 2 * (0.2 - p) / 1e-3, rtol=1e-4)
    for value in (
        losses.standardised_loss(teacher, 0 * teacher),
        losses.standardised_loss(0 * teacher, 0 * teacher),
    ):
        assert value.isfinite()


def test_descent_from_equal_logits_arrives_at_the_teachers_relations():
    _, teacher = logits(batch=1)
    student = torch.zeros_like(teacher, requires_grad=True)
    optimizer = torch.optim.AdamW([student], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        losses.standardised_loss(student, teacher).backward()
        optimizer.step()
    assert np.corrcoef(student.detach().numpy(), teacher.numpy())[0, 1] > 0.999


# ---- stored top-k targets


def by_outcomes(z, v, temperature, k):
    """One row: probabilities of the k classes, and what is missing to 1, summed one by one."""
    q, p = softmax(z / temperature), softmax(v / temperature)
    kept = sorted(range(len(v)), key=lambda c: -v[c])[:k]
    rest = [c for c in range(len(v)) if c not in kept]
    p_outcomes, q_outcomes = ([*x[kept], math.fsum(x[rest])] for x in (p, q))
    return temperature**2 * math.fsum(
        a * math.log(a / b) for a, b in zip(p_outcomes, q_outcomes, strict=True)
    )


def test_tail_bucket_loss_is_kl_over_the_kept_classes_and_one_bucket():
    for temperature, classes, k in ((4.0, 10, 3), (1.0, 10, 1), (0.5, 3, 1), (2.0, 100, 7)):
        student, teacher = logits(classes=classes)
        rows = zip(student.detach().numpy(), teacher.numpy(), strict=True)
        expected = np.mean([by_outcomes(z, v, temperature, k) for z, v in rows])
        value = losses.tail_bucket_loss(student, teacher, temperature, k)
        assert value.item() == pytest.approx(expected, rel=1e-9), (temperature, classes, k)
    assert losses.tail_bucket_loss(student, teacher) == losses.tail_bucket_loss(student, teacher, 4, k=3)


def test_all_classes_but_one_are_the_soft_target_loss():
    for classes in (2, 3, 10):
        student, teacher = logits(classes=classes)
        expected = losses.soft_target_loss(student, teacher, 3)
        slope = gradient(expected, student)
        for k in (classes - 1, classes, 10**30):
            value = losses.tail_bucket_loss(student, teacher, 3, k)
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
            torch.testing.assert_close(gradient(value, student), slope, rtol=1e-9, atol=1e-14)


def test_one_kept_class_is_the_label_term_of_decoupled_loss():
    student, teacher = logits()
    first = teacher.argmax(dim=1)
    expected = losses.decoupled_loss(student, teacher, first, temperature=3, alpha=1, beta=0)
    torch.testing.assert_close(losses.tail_bucket_loss(student, teacher, 3, k=1), expected)


def test_every_class_that_is_kept_adds_to_what_is_seen():
    student, teacher = logits(classes=10)
    values = [losses.tail_bucket_loss(student, teacher, 4, k).item() for k in range(1, 10)]
    assert values == sorted(values) and values[0] < 0.9 * values[-1]


def test_the_gradient_shares_the_buckets_error_by_the_students_own_probabilities():
    student, teacher = logits(batch=1, classes=6)
    q, p = (softmax(x.detach().numpy()[0] / 2) for x in (student, teacher))
    order = np.argsort(-teacher.numpy()[0])
    kept, rest = order[:2], order[2:]
    expected = np.empty(6)
    expected[kept] = 2 * (q[kept] - p[kept])
    expected[rest] = 2 * (q[rest].sum() - p[rest].sum()) * q[rest] / q[rest].sum()
    found = gradient(losses.tail_bucket_loss(student, teacher, 2, k=2), student)
    np.testing.assert_allclose(found[0], expected, atol=1e-13)


def test_what_is_in_the_bucket_is_the_students_own_choice():
    """Shuffled among themselves, the classes outside the k change neither value nor the minimum."""
    _, teacher = logits(classes=8)
    order = teacher.argsort(dim=1, descending=True)
    shuffled = teacher.clone()
    shuffled.scatter_(1, order[:, 3:], teacher.gather(1, order[:, 3:].flip(1)))
    assert losses.soft_target_loss(shuffled, teacher, 4) > 0.1
    assert losses.tail_bucket_loss(shuffled, teacher, 4, k=3).item() == pytest.approx(0, abs=1e-12)


def test_of_equal_teacher_logits_the_lower_classes_are_kept():
    student, _ = logits(batch=1)
    z = student.detach().numpy()[0]
    q = softmax(z / 4)
    expected = 16 * rel_entr([0.2, 0.2, 0.6], [q[0], q[1], q[2:].sum()]).sum()
    value = losses.tail_bucket_loss(student, torch.zeros(1, 5, dtype=torch.float64), 4, k=2)
    assert value.item() == pytest.approx(expected)


def test_an_empty_bucket_has_the_right_value_and_gradient():
    """Far below the smallest float32, on either side: the bucket stays a logarithm."""
    for dtype, gap in ((torch.float32, 300.0), (torch.float32, 1e4), (torch.bfloat16, 1e4)):
        kept, flat = torch.tensor([[gap, gap, 0, 0]], dtype=dtype), torch.zeros(1, 4, dtype=dtype)
        gap = kept[0, 0].item()  # as bfloat16 has it
        student = kept.clone().requires_grad_()
        value = losses.tail_bucket_loss(student, flat, 1, k=2)
        # p = 1/4, 1/4, 1/2; log q = -log 2, -log 2, -gap
        assert value.item() == pytest.approx(0.5 * gap + math.log(0.5), rel=1e-5), (dtype, gap)
        torch.testing.assert_close(
            gradient(value, student).float(), torch.tensor([[0.25, 0.25, -0.25, -0.25]])
        )

        student = flat.clone().requires_grad_()
        value = losses.tail_bucket_loss(student, kept, 1, k=2)
        assert value.item() == pytest.approx(math.log(2), rel=1e-6), (dtype, gap)
        torch.testing.assert_close(
            gradient(value, student).float(), torch.tensor([[-0.25, -0.25, 0.25, 0.25]])
        )
