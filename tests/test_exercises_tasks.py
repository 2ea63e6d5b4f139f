"""The solutions of lesson 08 compute what other means compute: sums in Python, and the library."""

import functools
import math

import pytest
import torch

from kdlib import losses
from kdlib.features import hint_loss, score_weighted_loss
from kdlib.lesson import exercises
from kdlib.lesson.laboratory import Laboratory
from kdlib.tasks import modalities, regression, video

pytestmark = pytest.mark.usefixtures("one_thread")


def cases_of(name):
    return exercises.get(name).cases()


def value_and_gradients(function, *given):
    """The value, and the gradient in each tensor, None where it has none."""
    leaves = [part.clone().requires_grad_() if isinstance(part, torch.Tensor) else part for part in given]
    loss = function(*leaves)
    loss.backward()
    return loss.item(), [leaf.grad for leaf in leaves if isinstance(leaf, torch.Tensor)]


# ------------------------------------------------------------------ repair_sigmoid_loss


def of_questions(student_logits, teacher_logits, temperature):
    """Value and gradient, T (q - p) / batch, by sums in Python; log(1 + exp(x)) as max(x, 0) + log1p(exp(-|x|))."""

    def softplus(x):
        return max(x, 0.0) + math.log1p(math.exp(-abs(x)))

    terms, gradients = [], []
    for row, of_teacher in zip(student_logits.double().tolist(), teacher_logits.double().tolist(), strict=True):
        gradients.append([])
        for z, v in zip(row, of_teacher, strict=True):
            z, v = z / temperature, v / temperature
            p, q = (math.exp(-softplus(-x)) for x in (v, z))
            yes, no = softplus(-z) - softplus(-v), softplus(z) - softplus(v)
            terms += [p * yes, math.exp(-softplus(v)) * no]
            gradients[-1].append(temperature * (q - p) / len(student_logits))
    return temperature**2 * math.fsum(terms) / len(student_logits), torch.tensor(gradients, dtype=torch.float64)


def test_the_repaired_loss_of_sigmoids_and_its_gradient_agree_with_sums_in_python():
    torch.manual_seed(0)
    larger = [(*6 * torch.randn(2, 40, 14), temperature) for temperature in (1.0, 3.0, 10.0)]
    for student, teacher, temperature in [*cases_of("repair_sigmoid_loss"), *larger]:
        loss, [gradient, _] = value_and_gradients(
            exercises.solution("repair_sigmoid_loss"), student, teacher, temperature
        )
        expected, expected_gradient = of_questions(student, teacher, temperature)
        assert loss == pytest.approx(expected, rel=1e-4)
        assert torch.allclose(gradient.double(), expected_gradient, rtol=1e-3, atol=1e-6)


def test_the_repaired_loss_of_sigmoids_and_its_gradient_are_the_librarys():
    for student, teacher, temperature in cases_of("repair_sigmoid_loss"):
        ours, theirs = (
            value_and_gradients(loss, student, teacher, temperature)
            for loss in (exercises.solution("repair_sigmoid_loss"), losses.multilabel_distillation_loss)
        )
        assert ours[0] == pytest.approx(theirs[0], rel=1e-4)
        assert torch.allclose(ours[1][0], theirs[1][0], rtol=1e-3, atol=1e-6)


def test_the_repaired_loss_of_sigmoids_is_0_where_both_agree_and_above_elsewhere_which_the_one_to_repair_is_not():
    torch.manual_seed(1)
    teacher = 3 * torch.randn(6, 8, dtype=torch.float64)
    repaired, published = exercises.solution("repair_sigmoid_loss"), exercises.get("repair_sigmoid_loss").start
    others = [teacher + 0.5 * torch.randn(6, 8, dtype=torch.float64) for _ in range(20)]
    others.append(torch.full((6, 8), 30.0, dtype=torch.float64))
    for temperature in (1.0, 4.0):
        loss, [gradient, _] = value_and_gradients(repaired, teacher, teacher, temperature)
        assert abs(loss) < 1e-12 and gradient.abs().max() < 1e-12
        assert all(repaired(other, teacher, temperature) > 1e-3 for other in others)
        assert published(others[-1], teacher, temperature) < published(teacher, teacher, temperature) - 1


def test_the_repaired_loss_of_sigmoids_stays_finite_for_large_logits_of_any_kind():
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        sizes = torch.tensor([-200.0, -20.0, 0.0, 20.0, 200.0], dtype=dtype)
        student, teacher = (part.flatten()[None] for part in torch.meshgrid(sizes, sizes, indexing="ij"))
        for temperature in (1.0, 0.1, 20.0):
            loss, [gradient, _] = value_and_gradients(
                exercises.solution("repair_sigmoid_loss"), student, teacher, temperature
            )
            assert math.isfinite(loss) and gradient.isfinite().all(), (dtype, temperature)


# ------------------------------------------------------------------ weighted_map_loss


def weighed(student, teacher, scores):
    above, below = [], []
    batch, channels, height, width = student.shape
    for n in range(batch):
        for y in range(height):
            for x in range(width):
                apart = (student[n, :, y, x].double() - teacher[n, :, y, x].double()).tolist()
                above.append(scores[n, y, x].item() * math.fsum(d * d for d in apart))
                below.append(channels * scores[n, y, x].item())
    return math.fsum(above) / math.fsum(below) if any(below) else 0.0


def test_weighted_map_loss_agrees_with_sums_in_python_and_with_the_librarys_and_leads_to_the_student_alone():
    for student, teacher, scores in cases_of("weighted_map_loss"):
        loss, gradients = value_and_gradients(exercises.solution("weighted_map_loss"), student, teacher, scores)
        assert loss == pytest.approx(weighed(student, teacher, scores), rel=1e-5)
        assert gradients[1:] == [None, None]
        leaf = student.clone().requires_grad_()
        theirs = score_weighted_loss(
            leaf, teacher, scores.flatten(1), scores=functools.partial(torch.Tensor.view_as, other=scores)
        )
        theirs.backward()
        assert loss == pytest.approx(theirs.item(), rel=1e-5)
        assert torch.allclose(gradients[0], leaf.grad, rtol=1e-4, atol=1e-8)


def test_weighted_map_loss_with_equal_scores_is_the_hint_and_one_position_alone_can_be_all_of_it():
    torch.manual_seed(2)
    student, teacher = torch.randn(2, 3, 4, 5, 6)
    solution = exercises.solution("weighted_map_loss")
    for weight in (1e-6, 1.0, 50.0):
        expected = hint_loss(student, teacher).item()
        assert solution(student, teacher, torch.full((3, 5, 6), weight)).item() == pytest.approx(expected, rel=1e-4)
    one = torch.zeros(3, 5, 6)
    one[2, 4, 0] = 0.3
    expected = (student - teacher)[2, :, 4, 0].square().mean().item()
    assert solution(student, teacher, one).item() == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------ item_and_direction


def test_the_probabilities_of_items_and_directions_agree_with_sums_in_python():
    for logits, directions in cases_of("item_and_direction"):
        items, ways = exercises.solution("item_and_direction")(logits, directions)
        for row, of_items, of_ways in zip(logits.double().tolist(), items.tolist(), ways.tolist(), strict=True):
            weights = [math.exp(z - max(row)) for z in row]
            total = math.fsum(weights)
            numbers = range(len(row) // directions)
            by_item = [math.fsum(weights[i * directions : (i + 1) * directions]) / total for i in numbers]
            by_way = [math.fsum(weights[way::directions]) / total for way in range(directions)]
            assert of_items == pytest.approx(by_item, abs=1e-6) and of_ways == pytest.approx(by_way, abs=1e-6)
            assert math.fsum(of_items) == pytest.approx(1, abs=1e-5) == math.fsum(of_ways)


def test_the_probabilities_of_items_and_directions_are_the_librarys_for_four_directions():
    torch.manual_seed(3)
    logits = 3 * torch.randn(7, 40)
    items, ways = exercises.solution("item_and_direction")(logits, 4)
    expected = video.item_and_direction(logits)
    assert torch.allclose(items, expected.item) and torch.allclose(ways, expected.direction)


# ------------------------------------------------------------------ bounded_loss


def test_bounded_loss_agrees_with_a_loop_over_the_images_and_with_the_librarys():
    torch.manual_seed(4)
    larger = [torch.randn(3, 50, 4), torch.rand(3, 200, 1)]
    for student, teacher, labels in [*cases_of("bounded_loss"), *larger]:
        loss, [gradient, of_teacher, _] = value_and_gradients(
            exercises.solution("bounded_loss"), student, teacher, labels
        )
        counted, expected_gradient = [], torch.zeros_like(student)
        for n, (one, other, label) in enumerate(zip(student, teacher, labels, strict=True)):
            own, bound = (math.dist(outputs.tolist(), label.tolist()) ** 2 for outputs in (one, other))
            if not torch.equal(one, other) and own > bound:
                counted.append(own)
                expected_gradient[n] = 2 * (one - label) / len(student)
        assert loss == pytest.approx(math.fsum(counted) / len(student), rel=1e-5)
        assert torch.allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-7)
        assert of_teacher is None
        assert loss == pytest.approx(regression.bounded_loss(student, teacher, labels).item(), rel=1e-5)


def test_the_images_of_bounded_loss_are_of_all_kinds():
    kinds = set()
    for student, teacher, labels in cases_of("bounded_loss"):
        own, bound = ((x - labels).square().sum(1) for x in (student, teacher))
        kinds |= {(bool(o > b), bool(o == b)) for o, b in zip(own, bound, strict=True)}
    assert kinds == {(True, False), (False, False), (False, True)}
    own, bound = ((x - labels).square().sum(1) for x in (student, teacher))
    assert bool((own <= bound).all())  # in the last one nothing is asked


# ------------------------------------------------------------------ my_task_experiment


def test_the_open_experiment_runs_in_a_laboratory_of_sensors_as_in_its_rehearsal():
    [(rehearsal,)] = cases_of("my_task_experiment")
    sensors = {name: getattr(modalities, name) for name in rehearsal.settings["sensor"].allowed}
    assert len(sensors) == 3
    lab = Laboratory("ci", images=200, sensors=sensors)
    assert list(lab.settings) == list(rehearsal.settings)
    mean, low, high = exercises.solution("my_task_experiment")(lab)
    assert -1 < low < mean < high < 1
    assert {look.seed for look in lab.looks} == set(range(5)) and len(lab.looks) == 10
