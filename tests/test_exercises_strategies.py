"""The solutions of lesson 07 compute what other means compute, in float64 where there are numbers to compare."""

import math

import numpy as np
import pytest
import torch

from kdlib import losses
from kdlib.lesson import exercises
from kdlib.training import schedules

pytestmark = pytest.mark.usefixtures("one_thread")
ANNEALINGS = [(10.0, 1.0, 5), (1.0, 8.0, 20), (8.0, 1.0, 2), (4.0, 2.0, 1)]


# ------------------------------------------------------------------ repair_annealing


def test_the_repaired_annealing_is_the_schedule_that_the_training_takes():
    for start, end, epochs in ANNEALINGS:
        line = schedules.linear(start, end)
        expected = [line(epoch / max(epochs - 1, 1)) for epoch in range(epochs)]
        assert exercises.solution("repair_annealing")(start, end, epochs) == pytest.approx(expected)


def test_the_repaired_annealing_begins_and_ends_where_it_is_told_to_and_its_steps_are_equal():
    for start, end, epochs in ANNEALINGS:
        found = exercises.solution("repair_annealing")(start, end, epochs)
        assert len(found) == epochs and found[0] == start and (epochs == 1 or found[-1] == end)
        assert np.ptp(np.diff(found)) < 1e-12 if epochs > 1 else found == [start]


def test_the_annealing_that_is_to_be_repaired_stops_at_its_first_step():
    for annealing in ANNEALINGS:
        with pytest.raises(AttributeError, match="'end'"):
            exercises.get("repair_annealing").start(*annealing)


# ------------------------------------------------------------------ teacher_spread


def spread(probabilities, group):
    """By sums in Python."""
    rows = probabilities.double().tolist()
    groups, classes = len(rows) // group, len(rows[0])
    deviations = []
    for c in range(classes):
        means = [math.fsum(rows[g * group + i][c] for i in range(group)) / group for g in range(groups)]
        centre = math.fsum(means) / groups
        deviations.append(math.sqrt(math.fsum((mean - centre) ** 2 for mean in means) / (groups - 1)))
    return math.fsum(deviations) / classes


def test_teacher_spread_agrees_with_sums_in_python():
    torch.manual_seed(0)
    larger = [(torch.randn(200, 10).softmax(1), 32), (torch.randn(7, 3).softmax(1), 1)]
    for probabilities, group in [*exercises.get("teacher_spread").cases(), *larger]:
        found = float(exercises.solution("teacher_spread")(probabilities, group))
        assert found == pytest.approx(spread(probabilities, group), rel=1e-5)


def test_teacher_spread_is_none_where_all_groups_are_alike():
    torch.manual_seed(0)
    views = torch.randn(6, 4).softmax(1)
    assert float(exercises.solution("teacher_spread")(views.repeat(5, 1), 6)) == pytest.approx(0, abs=1e-7)
    assert float(exercises.solution("teacher_spread")(views.repeat(5, 1), 5)) > 1e-3


# ------------------------------------------------------------------ my_augmentation


def test_my_augmentation_moves_each_image_by_three_pixels_at_most_and_scales_it_by_its_factor():
    torch.manual_seed(0)
    images = torch.zeros(400, 2, 11, 13, dtype=torch.uint8)
    images[:, 0, 5, 6], images[:, 1, 5, 6] = 100, 200
    views = exercises.solution("my_augmentation")(images)
    numbers, rows, columns = views[:, 0].nonzero(as_tuple=True)
    assert numbers.tolist() == list(range(400))  # every dot is there, once
    moves = {*zip((rows - 5).tolist(), (columns - 6).tolist(), strict=True)}
    assert moves == {(down, right) for down in range(-3, 4) for right in range(-3, 4)}
    first, second = (views[numbers, channel, rows, columns].float() for channel in (0, 1))
    assert 59 <= first.min() < 65 and 135 < first.max() <= 140 and len(first.unique()) > 50
    assert (second - (2 * first).clamp(max=255)).abs().max() <= 2  # one factor for all channels; clamped
    assert second.max() == 255


def test_an_augmentation_is_asked_for_a_batch_of_real_images_images_in_colour_and_a_single_one():
    (grey,), (colour,), (single,) = exercises.get("my_augmentation").cases()
    assert [tuple(images.shape) for images in (grey, colour, single)] == [
        (30, 1, 28, 28), (7, 3, 32, 32), (1, 1, 28, 28)]  # fmt: skip
    assert len(grey.flatten(1).unique(dim=0)) == 30
    assert not torch.equal(colour[:, 0], colour[:, 2])


# ------------------------------------------------------------------ stored_target_loss


def stored(teacher_logits, k, temperature):
    kept = (teacher_logits / temperature).log_softmax(1).topk(k)
    return kept.values, kept.indices


def closed_form(student_logits, kept, classes, temperature):
    """Value and gradient by sums of float64 numbers: T^2 KL of k + 1 outcomes, and T (q - p) / batch, where the
    teacher's bucket is shared out over the other classes as the student shares out its own."""
    z = student_logits.double().numpy() / temperature
    by_image, gradients = [], np.zeros_like(z)
    for row, log_p, places, gradient in zip(z, kept.double().tolist(), classes.tolist(), gradients, strict=True):
        others = [place for place in range(len(row)) if place not in places]
        weights = np.exp(row - row.max())
        q = weights / weights.sum()
        log_q = row - row.max() - math.log(weights.sum())
        rest = max(1 - math.fsum(map(math.exp, log_p)), 0.0)
        top = row[others].max()
        log_rest_q = top + math.log(np.exp(row[others] - top).sum()) - row.max() - math.log(weights.sum())
        terms = [math.exp(log) * (log - log_q[place]) for log, place in zip(log_p, places, strict=True)]
        by_image.append(math.fsum(terms) + (rest * (math.log(rest) - log_rest_q) if rest else 0.0))
        target = np.zeros(len(row))
        target[places] = np.exp(log_p)
        target[others] = rest * np.exp(log_q[others] - log_rest_q)
        gradient[:] = temperature * (q - target) / len(z)
    return temperature**2 * float(np.mean(by_image)), torch.from_numpy(gradients)


def value_and_gradient(student_logits, *stored_targets):
    leaf = student_logits.clone().requires_grad_()
    loss = exercises.solution("stored_target_loss")(leaf, *stored_targets)
    loss.backward()
    return loss.item(), leaf.grad


def assert_closed_form(student_logits, *stored_targets, **tolerance):
    loss, gradient = value_and_gradient(student_logits, *stored_targets)
    expected, expected_gradient = closed_form(student_logits, *stored_targets)
    assert loss == pytest.approx(expected, **tolerance)
    assert torch.allclose(gradient.double(), expected_gradient, rtol=1e-3, atol=1e-5)


def test_tail_bucket_loss_and_its_gradient_agree_with_a_closed_form_in_float64():
    torch.manual_seed(0)
    for student_logits, kept, classes, temperature in exercises.get("stored_target_loss").cases():
        assert_closed_form(student_logits, kept, classes, temperature, rel=1e-4)
    for k in range(1, 10):
        student, teacher = 4 * torch.randn(2, 6, 10, dtype=torch.float64)
        assert_closed_form(student, *stored(teacher, k, 4.0), 4.0, rel=1e-10)


def test_tail_bucket_loss_and_its_gradient_are_those_of_the_librarys_loss_with_a_tail_bucket():
    torch.manual_seed(3)
    for k, temperature in ((1, 1.0), (3, 4.0), (9, 2.0)):
        student, teacher = 3 * torch.randn(2, 8, 10)
        loss, gradient = value_and_gradient(student, *stored(teacher, k, temperature), temperature)
        leaf = student.clone().requires_grad_()
        expected = losses.tail_bucket_loss(leaf, teacher, temperature, k)
        expected.backward()
        assert loss == pytest.approx(expected.item(), rel=1e-4)
        assert torch.allclose(gradient, leaf.grad, rtol=1e-3, atol=1e-5)


def test_tail_bucket_loss_of_all_classes_but_one_is_the_soft_target_loss_and_of_fewer_it_is_less():
    torch.manual_seed(1)
    for temperature in (1.0, 4.0):
        student, teacher = 3 * torch.randn(2, 8, 10, dtype=torch.float64)
        full = losses.soft_target_loss(student, teacher, temperature).item()
        of_k = [value_and_gradient(student, *stored(teacher, k, temperature), temperature)[0] for k in range(1, 10)]
        assert of_k[-1] == pytest.approx(full, rel=1e-10)
        assert all(0 < fewer < more for fewer, more in zip(of_k, of_k[1:], strict=False))


def test_tail_bucket_loss_is_none_where_the_student_gives_the_teachers_answer_or_shares_out_the_bucket_otherwise():
    torch.manual_seed(2)
    teacher = 3 * torch.randn(5, 6, dtype=torch.float64)
    targets = stored(teacher, 4, 2.0)
    least = teacher.argsort(dim=1)[:, :2]
    exchanged = teacher.scatter(1, least, teacher.gather(1, least.flip(1)))
    for student in (teacher, teacher + 7, exchanged):
        loss, gradient = value_and_gradient(student, *targets, 2.0)
        assert abs(loss) < 1e-12 and gradient.abs().max() < 1e-12
    assert value_and_gradient(teacher.flip(1), *targets, 2.0)[0] > 0.1


def test_tail_bucket_loss_stays_finite_where_a_bucket_is_empty():
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        sure = torch.tensor([[900.0, 0, 0, 0], [0, 0, 0, 900.0]], dtype=dtype)
        flat = torch.zeros(2, 4, dtype=dtype)
        for student, teacher in ((sure, flat), (flat, sure), (sure, sure), (sure.flip(1), sure)):
            loss, gradient = value_and_gradient(student, *stored(teacher, 2, 2.0), 2.0)
            assert math.isfinite(loss) and gradient.isfinite().all(), (dtype, student, teacher)
