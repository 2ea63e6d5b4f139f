"""Canvases, the grid detector and its losses: against loops in double precision, and on hand-made canvases."""

import itertools
import math

import numpy as np
import pytest
import torch
from task_items import log_softmax, noise_items, overlap, same, sigmoid

from kdlib import data
from kdlib.data import ImageDataset, ImageSplit
from kdlib.tasks.boxes import true_items
from kdlib.tasks.detection import (
    GridDetector,
    canvases,
    detection_distillation_loss,
    detection_loss,
    grid,
    score_map,
)

pytestmark = pytest.mark.usefixtures("one_thread")

LOSSES = (detection_loss, detection_distillation_loss)


@pytest.fixture(scope="module")
def made() -> ImageSplit:
    """Canvases of Fashion-MNIST."""
    return canvases(data.load().test, 60, seed=3)


def random_logits(n=2, seed=0, dtype=torch.float32, scale=3.0):
    return scale * torch.randn(n, 960, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def extent(image, brightness):
    """Left, upper, right and lower edge of the pixels of at least this brightness."""
    rows, columns = np.nonzero(image.numpy() >= brightness)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


# ------------------------------------------------------------------ canvases


def test_a_seed_repeats_a_canvas_and_another_one_makes_others():
    items = noise_items(size=(20, 20))
    first, again, other = (canvases(items, 5, seed=seed) for seed in (3, 3, 4))
    assert same(first, again) and not torch.equal(first.images, other.images)
    assert first.images.shape == (5, 1, 64, 64) and first.labels.shape == (5, 15 * 8 * 8)
    assert first.labels.dtype == torch.float32


def test_the_box_of_a_lone_item_is_the_smallest_that_holds_its_visible_pixels(made):
    """Pixels are rounded after the box was taken, so one of 25.5 to 26 may be 26 and lie outside it."""
    alone, exact = 0, 0
    for image, items in zip(made.images[:, 0], true_items(made), strict=True):
        if len(items.boxes) == 1:
            box, outer, inner = items.boxes[0].tolist(), extent(image, 26), extent(image, 27)
            assert all(o <= b <= i for o, b, i in zip(outer[:2], box[:2], inner[:2], strict=True)), box
            assert all(i <= b <= o for o, b, i in zip(outer[2:], box[2:], inner[2:], strict=True)), box
            alone, exact = alone + 1, exact + (box == outer)
    assert alone >= 10 and exact >= 0.9 * alone


def test_labels_hold_a_cell_a_class_and_a_box_for_each_item(made):
    parts = grid(made.labels)
    assert made.labels.min() == 0 and made.labels.max() == 1
    assert set(parts.objects.unique().tolist()) == {0, 1} == set(parts.classes.unique().tolist())
    assert torch.equal(parts.classes.sum(dim=1), parts.objects), "one class where an item is, none elsewhere"
    assert not parts.boxes.masked_select(parts.objects[:, None] == 0).any()
    counts = parts.objects.sum(dim=(1, 2))
    assert set(counts.tolist()) == {1, 2, 3}
    for n, items in enumerate(true_items(made)):
        for box, of_class in zip(items.boxes.tolist(), items.classes.tolist(), strict=True):
            column, row = ((box[side] + box[side + 2]) / 2 / 8 for side in (0, 1))
            cell = n, int(row), int(column)
            assert parts.objects[cell] == 1 and parts.classes[n, of_class, cell[1], cell[2]] == 1
            found = parts.boxes[n, :, cell[1], cell[2]].tolist()
            expected = [column % 1, row % 1, (box[2] - box[0]) / 64, (box[3] - box[1]) / 64]
            assert found == pytest.approx(expected, abs=1e-6)
            assert box == [int(edge) for edge in box] and min(box) >= 0 and max(box) <= 64
        assert len(items.boxes) == counts[n] and torch.equal(items.scores, torch.ones(len(items.boxes)))


def test_items_hardly_overlap(made):
    found = [
        overlap(one, other)
        for items in true_items(made)
        for one, other in itertools.combinations(items.boxes.tolist(), 2)
    ]
    assert len(found) > 20 and max(found) < 0.1 and max(found) > 0, "some may, a little"


def test_the_class_is_that_of_the_item_in_the_box_and_nothing_lies_outside_the_boxes():
    """Items are squares whose brightness is their class."""
    classes = torch.arange(10)
    brightness = (60 + 15 * classes).to(torch.uint8)
    squares = ImageSplit(brightness.view(10, 1, 1, 1).expand(10, 1, 28, 28).contiguous(), classes)
    made, sizes = canvases(squares, 60, seed=1), set()
    for image, items in zip(made.images[:, 0], true_items(made), strict=True):
        left = image.clone()
        for (x, y, right, below), of_class in zip(items.boxes.int().tolist(), items.classes.tolist(), strict=True):
            inside = image[y:below, x:right]
            assert inside.flatten().mode().values == brightness[of_class] and inside.min() >= brightness[of_class]
            assert right - x == below - y
            sizes.add(right - x)
            left[y:below, x:right] = 0
        assert not left.any()
    assert min(sizes) == round(0.6 * 28) and max(sizes) == 28 and len(sizes) > 8


def test_an_item_that_cannot_be_seen_has_the_box_of_its_image():
    black = ImageSplit(torch.zeros(1, 1, 10, 20, dtype=torch.uint8), torch.tensor([2]))
    for items in true_items(canvases(black, 10)):
        sides = items.boxes[:, 2:] - items.boxes[:, :2]
        assert len(items.boxes) and (sides[:, 0] > sides[:, 1]).all()
        assert ((sides >= torch.tensor([12, 6])) & (sides <= torch.tensor([20, 10]))).all()


def test_an_item_for_which_there_is_no_room_is_left_out():
    large = ImageSplit(torch.full((1, 1, 64, 64), 200, dtype=torch.uint8), torch.tensor([0]))
    assert {len(items.boxes) for items in true_items(canvases(large, 12))} == {1}


def test_bad_items_of_canvases_are_named():
    items = noise_items()
    cases = [
        (ValueError, "split must hold images of at most 64 pixels, got .8, 65.", (noise_items(size=(8, 65)), 2)),
        (ValueError, "split must hold items of 10 classes, 0 to 9, got the label 10", (noise_items(classes=11), 2)),
        (ValueError, "split must hold images of one class each", (canvases(items, 2), 2)),
        (ValueError, "split must hold grey images of one channel, got 3", (noise_items(channels=3), 2)),
        (ValueError, "n must be at least 1", (items, 0)),
        (TypeError, "split must be one split", (ImageDataset(items, items, items, []), 2)),
    ]
    for error, words, arguments in cases:
        with pytest.raises(error, match=words):
            canvases(*arguments)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        canvases(items, 2, seed=-1)


# ------------------------------------------------------------------ the detector


def test_the_detector_answers_960_numbers_and_has_the_parameters_that_are_stated():
    torch.manual_seed(0)
    detector = GridDetector()
    assert sum(parameter.numel() for parameter in detector.parameters()) == 23_903
    assert detector(torch.zeros(2, 1, 64, 64)).shape == (2, 960)
    neck = []
    detector.stages[3].register_forward_hook(lambda module, given, made: neck.append(made))
    logits = detector(torch.randn(2, 1, 64, 64))
    (maps,) = neck
    assert maps.shape == (2, 32, 8, 8)
    weight, bias = detector.head.weight[:, :, 0, 0], detector.head.bias
    by_hand = torch.einsum("oc,bchw->bohw", weight, maps) + bias[:, None, None]
    assert torch.allclose(logits.view(2, 15, 8, 8), by_hand, atol=1e-5)
    assert GridDetector((8, 8, 8))(torch.zeros(1, 1, 64, 64)).shape == (1, 960)
    with pytest.raises(ValueError, match=r"widths must hold at least three numbers, got \(8, 8\)"):
        GridDetector((8, 8))


def test_a_grid_has_the_parts_in_their_order():
    values = torch.arange(2 * 960.0).view(2, 960)
    parts = grid(values)
    assert parts.objects.shape == (2, 8, 8) and parts.classes.shape == (2, 10, 8, 8)
    for n, row, column in [(0, 0, 0), (1, 2, 7)]:
        at = 960 * n + 8 * row + column
        assert parts.objects[n, row, column] == at
        assert parts.classes[n, :, row, column].tolist() == [at + 64 * k for k in range(1, 11)]
        assert parts.boxes[n, :, row, column].tolist() == [at + 64 * k for k in range(11, 15)]


def test_numbers_that_are_no_grid_are_refused_with_their_shape():
    wanted = r"values must have shape \(batch, 960\), got \(2, 900\)"
    short = torch.zeros(2, 900)
    for call in (grid, score_map, *(lambda z, loss=loss: loss(z, z) for loss in LOSSES)):
        with pytest.raises(ValueError, match=wanted):
            call(short)
    for loss, second in zip(LOSSES, ("labels", "teacher_logits"), strict=True):
        words = rf"student_logits and {second} must have the same shape, got \(2, 960\) and \(3, 960\)"
        with pytest.raises(ValueError, match=words):
            loss(torch.zeros(2, 960), torch.zeros(3, 960))
        with pytest.raises(ValueError, match="student_logits must be finite"):
            loss(torch.full((2, 960), math.inf), torch.zeros(2, 960))
    for call in (grid, score_map):
        with pytest.raises(TypeError, match="(values|logits) must be a torch.Tensor, got ndarray"):
            call(np.zeros((2, 960)))


def test_labels_that_are_no_fractions_are_refused():
    for labels, words in [
        (torch.full((2, 960), math.nan), "labels must be finite, got nan"),
        (torch.full((2, 960), 1.5), r"labels must be in \[0, 1\], got 1.5"),
        (torch.full((2, 960), -0.5), r"labels must be in \[0, 1\], got -0.5"),
        (torch.zeros(2, 960, dtype=torch.int64), "labels must be floating-point numbers .* got torch.int64"),
        (torch.zeros(2), r"labels must be floating-point numbers of the shape \(batch, outputs\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            detection_loss(torch.zeros(2, 960), labels)
    with pytest.raises(TypeError, match="labels must be a torch.Tensor, got ndarray"):
        detection_loss(torch.zeros(2, 960), np.zeros((2, 960)))


# ------------------------------------------------------------------ losses


def cells_of(*tensors):
    """The 15 numbers of each cell of each image, of several tensors side by side, in double precision."""
    for image in zip(*tensors, strict=True):
        yield from zip(*(part.double().numpy().reshape(15, 64).T for part in image), strict=True)


def slow_detection_loss(logits, labels):
    total = 0.0
    for z, y in cells_of(logits, labels):
        q = sigmoid(z[0])
        total -= y[0] * math.log(q) + (1 - y[0]) * math.log(1 - q)
        if y[0]:
            total -= log_softmax(z[1:11])[y[1:11].argmax()]
            total += 5 * sum(abs(sigmoid(z[k]) - y[k]) for k in range(11, 15))
    return total / len(logits)


def slow_distillation_loss(student, teacher):
    total = 0.0
    for s, t in cells_of(student, teacher):
        p, q = sigmoid(t[0]), sigmoid(s[0])
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        log_p, log_q = log_softmax(t[1:11]), log_softmax(s[1:11])
        total += p * (np.exp(log_p) * (log_p - log_q)).sum()
        total += 5 * p * sum(abs(sigmoid(s[k]) - sigmoid(t[k])) for k in range(11, 15))
    return total / len(student)


def test_the_tasks_loss_equals_a_loop(made):
    for n in (1, 5):
        logits, labels = random_logits(n, seed=n), made.labels[:n]
        assert detection_loss(logits, labels).item() == pytest.approx(slow_detection_loss(logits, labels), rel=1e-5)


def test_the_teachers_loss_equals_a_loop():
    for n in (1, 4):
        student, teacher = random_logits(n), random_logits(n, seed=1)
        expected = slow_distillation_loss(student, teacher)
        assert detection_distillation_loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_gradients_are_finite_differences(made):
    student = random_logits(dtype=torch.float64).requires_grad_()
    for loss, other in zip(LOSSES, (made.labels[:2].double(), random_logits(seed=1, dtype=torch.float64)), strict=True):
        assert torch.autograd.gradcheck(lambda z, loss=loss, y=other: loss(z, y), student, fast_mode=True), loss


def test_the_teachers_loss_is_zero_without_a_gradient_at_the_teacher_and_positive_elsewhere():
    for dtype, most in ((torch.float32, 1e-4), (torch.float64, 1e-12)):
        for scale in (0.1, 3.0, 30.0):
            teacher = random_logits(3, dtype=dtype, scale=scale)
            student = teacher.clone().requires_grad_()
            value = detection_distillation_loss(student, teacher)
            value.backward()
            assert abs(value.item()) < most and student.grad.abs().max() < 1e-6
    teacher = random_logits(2, dtype=torch.float64)
    for part in (slice(0, 64), slice(64, 704), slice(704, 960)):  # objects, classes, boxes
        for seed in range(5):
            moved = teacher.clone()
            moved[:, part] += 0.1 * random_logits(2, seed=10 + seed, dtype=torch.float64)[:, part]
            assert detection_distillation_loss(moved, teacher) > 1e-6


def test_the_classes_probabilities_are_what_counts_and_not_their_logits():
    teacher = random_logits(2)
    moved = teacher.clone()
    moved[:, 64:704] += 7  # the same for all ten classes
    assert detection_distillation_loss(moved, teacher).abs() < 1e-3


def test_losses_and_gradients_are_finite_for_large_logits(made):
    for dtype in (torch.float32, torch.bfloat16):
        for signs in ((1, 1), (1, -1), (-1, -1)):
            student, teacher = (100 * sign * random_logits(2).sign().to(dtype) for sign in signs)
            for loss, other in zip(LOSSES, (made.labels[:2].to(dtype), teacher), strict=True):
                own = student.clone().requires_grad_()
                value = loss(own, other)
                value.backward()
                assert value.isfinite() and own.grad.isfinite().all(), (loss, dtype, signs)


def test_logits_of_half_precision_are_compared_in_float32(made):
    student, teacher = random_logits(2).bfloat16(), random_logits(2, seed=1).bfloat16()
    labels = made.labels[:2]
    assert torch.equal(detection_loss(student, labels), detection_loss(student.float(), labels))
    expected = detection_distillation_loss(student.float(), teacher.float())
    assert torch.equal(detection_distillation_loss(student, teacher), expected)
    assert torch.equal(score_map(teacher), score_map(teacher.float()))


def test_no_gradient_reaches_the_teacher():
    student, teacher = random_logits().requires_grad_(), random_logits(seed=1).requires_grad_()
    detection_distillation_loss(student, teacher).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


def test_cells_without_an_item_ask_for_nothing_but_that():
    """Neither their classes nor their boxes get a gradient from labels that name no item there."""
    labels = torch.zeros(1, 960)
    logits = random_logits(1).requires_grad_()
    detection_loss(logits, labels).backward()
    parts = grid(logits.grad)
    assert parts.objects.abs().min() > 0 and not parts.classes.any() and not parts.boxes.any()


def test_a_score_is_the_certainty_of_an_item_times_that_of_its_class():
    logits = random_logits(3)
    expected = [sigmoid(z[0]) * np.exp(log_softmax(z[1:11])).max() for (z,) in cells_of(logits)]
    assert np.allclose(score_map(logits).flatten().numpy(), expected, atol=1e-6)
    assert score_map(logits).shape == (3, 8, 8)
    assert score_map(100 * logits).isfinite().all()
