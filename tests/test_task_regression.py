"""Turned items, wrong labels and the bounded loss: against Pillow's rotation, loops and plain counting."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from task_items import noise_items
from torch import nn
from torch.nn import functional

from kdlib import data
from kdlib.data import ImageSplit
from kdlib.tasks.collages import collages
from kdlib.tasks.regression import DEGREES, bounded_loss, mean_error, turned, with_wrong_labels

pytestmark = pytest.mark.usefixtures("one_thread")


def alone(image):
    """A split of one item."""
    return ImageSplit(image[None, None].to(torch.uint8), torch.tensor([0]))


def angles_of(split):
    """What the labels say, in degrees."""
    return (120 * split.labels[:, 0].double() - 60).tolist()


# ------------------------------------------------------------------ turned items


def test_an_item_is_turned_as_pillow_turns_it_counter_clockwise_by_the_angle_of_the_label():
    # On a black rim, as the two fade out beyond the border in different ways.
    fashion = functional.pad(data.load().test.images[[3, 17, 40], 0], (2, 2, 2, 2))
    wide = torch.zeros(20, 44, dtype=torch.uint8)
    wide[6:14, 12:32] = torch.randint(256, (8, 20), generator=torch.Generator().manual_seed(0))
    for image in (*fashion, wide, wide.T.contiguous()):
        made, original = turned(alone(image), 12, seed=1), Image.fromarray(image.numpy())
        for found, angle in zip(made.images[:, 0].double().numpy(), angles_of(made), strict=True):
            expected, other = (
                np.asarray(original.rotate(side * angle, Image.Resampling.BILINEAR), dtype=float) for side in (1, -1)
            )
            assert abs(found - expected).max() <= 2, angle
            assert abs(angle) < 5 or abs(found - other).mean() > 2, "a turn to the other side would pass"


def test_a_point_goes_counter_clockwise_on_a_circle_round_the_centre():
    for height, width in ((28, 28), (21, 35)):
        image = torch.zeros(height, width)
        image[height // 2 - 1 : height // 2 + 2, width // 2 + 7 : width // 2 + 10] = 255
        right, down = width // 2 + 8 - (width - 1) / 2, height // 2 - (height - 1) / 2
        made = turned(alone(image), 20, seed=2)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        for found, degrees in zip(made.images[:, 0].double(), angles_of(made), strict=True):
            angle = math.radians(degrees)
            x = (found * columns).sum() / found.sum() - (width - 1) / 2
            y = (found * rows).sum() / found.sum() - (height - 1) / 2
            expected = (
                right * math.cos(angle) + down * math.sin(angle), down * math.cos(angle) - right * math.sin(angle),
            )  # fmt: skip
            assert (x, y) == pytest.approx(expected, abs=0.1), degrees


def test_angles_are_drawn_evenly_and_whatever_the_item_is():
    made = turned(noise_items(size=(3, 3)), 4000, seed=1)
    assert made.labels.shape == (4000, 1) and made.labels.dtype == torch.float32
    assert stats.kstest(made.labels[:, 0].numpy(), "uniform").pvalue > 0.001
    assert min(angles_of(made)) < -59 and max(angles_of(made)) > 59 and DEGREES == 60
    dark_and_bright = ImageSplit(torch.tensor([20, 200], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 5, 5), [0, 1])
    of_both = turned(dark_and_bright, 4000, seed=2)
    bright = of_both.images[:, 0, 2, 2] == 200
    assert abs(bright.double().mean() - 0.5) < 0.04
    assert stats.ks_2samp(of_both.labels[bright, 0].numpy(), of_both.labels[~bright, 0].numpy()).pvalue > 0.001


def test_items_with_numbers_as_labels_may_be_turned_too():
    several = ImageSplit(torch.full((3, 1, 9, 9), 255, dtype=torch.uint8), torch.zeros(3, 4))
    made = turned(several, 50)
    assert made.images[:, 0, 4, 4].min() == 255
    assert made.images[:, 0, 0, 0].min() == 0, "black behind the corners"


# ------------------------------------------------------------------ wrong labels


def test_the_share_that_is_asked_of_the_labels_is_replaced_by_even_draws():
    made = turned(noise_items(size=(3, 3)), 5000, seed=9)
    for wrong in (0.0, 0.2, 0.4, 1.0):
        given = with_wrong_labels(made, wrong, seed=3)
        replaced = given.labels != made.labels
        assert abs(replaced.double().mean() - wrong) <= 4 * math.sqrt(wrong * (1 - wrong) / 5000), wrong
        if wrong:
            assert stats.kstest(given.labels[replaced].numpy(), "uniform").pvalue > 0.001
        for name in ("images", "indices", "mean", "std"):
            assert torch.equal(getattr(given, name), getattr(made, name))


def test_what_replaces_a_label_has_nothing_to_do_with_the_angle_also_with_the_same_seed():
    """Of one generator with one seed the angles came once more, and no label was wrong."""
    for seed in (0, 1, 7, 100):
        made = turned(noise_items(size=(3, 3)), 4000, seed=seed)
        given = with_wrong_labels(made, 0.4, seed=seed)
        replaced = (given.labels != made.labels)[:, 0]
        assert abs(replaced.double().mean() - 0.4) < 0.04
        before, after = made.labels[replaced, 0].numpy(), given.labels[replaced, 0].numpy()
        assert abs(stats.pearsonr(before, after).statistic) < 0.1
        assert stats.kstest(before, "uniform").pvalue > 0.001, "which are replaced depends on the angle"


def test_a_seed_repeats_the_wrong_labels_and_another_one_has_others():
    made = turned(noise_items(size=(3, 3)), 200)
    first, again, other = (with_wrong_labels(made, 0.5, seed=seed).labels for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(with_wrong_labels(made, 0.5).labels, with_wrong_labels(made, 0.5, seed=0).labels)


def test_all_numbers_of_an_image_are_wrong_together():
    several = ImageSplit(torch.zeros(300, 1, 2, 2, dtype=torch.uint8), torch.full((300, 3), 0.5))
    replaced = with_wrong_labels(several, 0.3).labels != several.labels
    assert torch.equal(replaced.any(dim=1), replaced.all(dim=1)) and 0.2 < replaced.double().mean() < 0.4


def test_bad_arguments_of_wrong_labels_are_named():
    made = turned(noise_items(), 5)
    for split, wrong, words in [
        (noise_items(), 0.1, r"split must have numbers in \[0, 1\] as labels, got one class an image"),
        (made, 1.2, r"wrong must be in \[0, 1\], got 1.2"),
        (made, -0.1, r"wrong must be in \[0, 1\], got -0.1"),
    ]:
        with pytest.raises(ValueError, match=words):
            with_wrong_labels(split, wrong)
    with pytest.raises(TypeError, match="split must be a kdlib.data.ImageSplit"):
        with_wrong_labels(made.labels, 0.1)


# ------------------------------------------------------------------ the bounded loss


def outputs(n=50, width=2, seed=0):
    """Answers of student and teacher, and labels."""
    random = torch.Generator().manual_seed(seed)
    return [torch.rand(n, width, dtype=torch.float64, generator=random) for _ in range(3)]


def test_the_bounded_loss_and_its_gradient_equal_a_loop():
    for width, margin in ((1, 0.0), (2, 0.0), (3, 0.2), (2, 5.0)):
        student, teacher, labels = outputs(width=width)
        student.requires_grad_()
        total, gradient, asked = 0.0, torch.zeros_like(student), 0
        for n in range(50):
            error = sum((student[n, k].item() - labels[n, k].item()) ** 2 for k in range(width))
            bound = sum((teacher[n, k].item() - labels[n, k].item()) ** 2 for k in range(width))
            if error + margin > bound:
                total, asked = total + error / 50, asked + 1
                gradient[n] = 2 * (student[n].detach() - labels[n]) / 50
        value = bounded_loss(student, teacher, labels, margin=margin)
        value.backward()
        assert value.item() == pytest.approx(total) and torch.allclose(student.grad, gradient)
        assert asked == 50 if margin == 5 else 10 < asked < 50, "some are bounded"


def test_nothing_is_asked_where_the_student_is_as_good_as_its_teacher():
    labels = torch.full((3, 1), 0.5)
    teacher = torch.tensor([[0.7], [0.7], [0.7]])
    student = torch.tensor([[0.4], [0.7], [0.3]], requires_grad=True)  # better, the same, as far on the other side
    value = bounded_loss(student, teacher, torch.full((3, 1), 0.5))
    value.backward()
    far = (student.detach() - labels).square() > (teacher - labels).square()
    assert far.sum() <= 1 and student.grad[:2].tolist() == [[0], [0]]  # 0.3 is a rounding further away, or not
    assert bounded_loss(labels, teacher, labels) == 0
    with_margin = bounded_loss(student, teacher, labels, margin=1)
    assert with_margin.item() == pytest.approx((0.01 + 0.04 + 0.04) / 3)


def test_the_gradient_leads_to_the_label_and_none_reaches_the_teacher():
    student, teacher, labels = (tensor.requires_grad_() for tensor in outputs(width=1))
    labels = labels.detach()
    bounded_loss(student, teacher, labels).backward()
    assert teacher.grad is None
    moved = student.grad != 0
    assert (torch.sign(student.grad) == torch.sign(student.detach() - labels))[moved].all() and moved.any()


def test_bad_arguments_of_the_bounded_loss_are_named():
    z = torch.zeros(4, 1)
    for arguments, options, words in [
        ((z, z, z[:3]), {}, r"student_logits and labels must have the same shape, got \(4, 1\) and \(3, 1\)"),
        ((z, torch.zeros(4, 2), z), {}, r"student_logits and teacher_logits .* got \(4, 1\) and \(4, 2\)"),
        ((z * math.nan, z, z), {}, "student_logits must be finite"),
        ((z, z, z / 0), {}, "labels must be finite"),
        ((z, z, z.long()), {}, "labels must be floating-point"),
        ((z, z, z), {"margin": -0.1}, "margin must be at least 0, got -0.1"),
    ]:
        with pytest.raises(ValueError, match=words):
            bounded_loss(*arguments, **options)


# ------------------------------------------------------------------ the error in degrees


class Constant(nn.Module):
    """Says one number of every image."""

    def __init__(self, number):
        super().__init__()
        self.number = nn.Parameter(torch.tensor(number))

    def forward(self, images):
        return self.number.expand(len(images), 1)


def test_the_error_is_the_mean_distance_of_the_angles_in_degrees():
    made = turned(noise_items(), 30)
    expected = np.mean([abs(angle - 12) for angle in angles_of(made)])
    answers = torch.full((30, 1), (12 + 60) / 120)
    assert mean_error(answers, made) == pytest.approx(expected, rel=1e-5)
    assert mean_error(Constant((12 + 60) / 120), made) == pytest.approx(expected, rel=1e-5)
    assert mean_error(made.labels, made) == 0
    assert mean_error(made.labels.bfloat16(), made) < 0.5


def test_answers_of_another_shape_are_refused():
    made = turned(noise_items(), 30)
    for wrong, words in [
        (torch.zeros(29, 1), r"model must give one row of logits for each of the 30 images, got \(29, 1\)"),
        (torch.zeros(30, 2), r"model must give outputs of the labels' shape \(30, 1\), got \(30, 2\)"),
        (torch.full((30, 1), math.nan), "model must be finite, got nan"),
    ]:
        with pytest.raises(ValueError, match=words):
            mean_error(wrong, made)
    with pytest.raises(ValueError, match=r"split must have labels of the shape \(n, 1\), got \(40, 10\)"):
        mean_error(torch.zeros(40, 10), collages(noise_items(), 40))
    with pytest.raises(TypeError, match="split must be a kdlib.data.ImageSplit"):
        mean_error(torch.zeros(30, 1), made.images)
