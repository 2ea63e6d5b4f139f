"""The diagnosis with networks, images and losses that somebody else would bring: answered, or refused with a reason."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlib import losses
from kdlib.data import ImageSplit
from kdlib.inference import predict_logits
from kdlib.training import diagnosis
from kdlib.training.diagnosis import of_student

SEES, AHEAD, FOLLOWS = (
    diagnosis.does_the_teacher_see_what_it_knows,
    diagnosis.is_the_teacher_ahead,
    diagnosis.does_the_student_follow,
)
TARGETS, NOISE = diagnosis.do_the_targets_belong_to_the_images, diagnosis.is_it_more_than_noise


def split(images=60, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % classes
    pixels = torch.randint(0, 30, (images, 1, 4, 4), generator=generator)
    pixels.view(images, 16)[torch.arange(images), labels] = 220
    return ImageSplit(pixels.to(torch.uint8), labels)


class Knowing(nn.Module):
    """Right about every image of `split`; `other` is what it does in training mode."""

    def __init__(self, classes=5, other=None):
        super().__init__()
        self.linear, self.other = nn.Linear(16, classes), other
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(classes, 16))
            self.linear.bias.zero_()

    def forward(self, images):
        logits = self.linear(images.flatten(1))
        return self.other(logits) if self.training and self.other else logits


def guessing(classes=5):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, classes)).eval()


def term(student, loss, *, temperature=4.0, alpha=0.9, images=None):
    return diagnosis.does_the_term_reach_the_student(
        student, Knowing().eval(), images or split(), temperature=temperature, alpha=alpha, loss=loss
    )


# ------------------------------------------------------------------------------- the teacher


def test_an_accuracy_that_the_commonest_label_alone_gives_shows_nothing_of_how_a_teacher_sees():
    black = ImageSplit(torch.zeros(40, 1, 4, 4, dtype=torch.uint8), torch.arange(40) % 5)
    one_label = split().subset(split().labels == 2)
    for answer in (SEES(Knowing().eval(), black), SEES(Knowing().eval(), one_label)):
        assert answer.good is None and "expected of it" in answer.advice
    assert SEES(Knowing().eval(), one_label, expected=1.0).good is True
    assert SEES(Knowing().eval(), split()).good is True


def test_a_teacher_that_fails_in_the_training_mode_in_which_it_was_left_is_told_to_leave_it():
    def raises(logits):
        raise RuntimeError("no")

    for other in (lambda z: (z, z), lambda z: z * math.nan, raises):
        answer = SEES(Knowing(other=other).train(), split())
        assert answer.good is False and "teacher.eval()" in answer.advice
        assert "returns no finite logits" in answer.finding


def test_a_teacher_for_batches_of_one_size_is_refused_with_that_reason():
    class OfOneSize(Knowing):
        def forward(self, images):
            assert len(images) > 2, "Guard failed"
            return super().forward(images)

    with pytest.raises(
        ValueError, match="teacher must answer about batches of any size, got .* Guard failed"
    ):
        SEES(OfOneSize().eval(), split())


def test_a_network_of_one_class_or_of_too_few_is_named():
    with pytest.raises(
        ValueError, match=r"teacher must have at least 2 classes, got logits of shape \(12, 1\)"
    ):
        SEES(Knowing(1).eval(), split(12, 1))
    with pytest.raises(
        ValueError, match=r"images that teacher is asked about must be in \[0, 2\] for 3 classes"
    ):
        SEES(Knowing(3).eval(), split())
    with pytest.raises(ValueError, match="teacher and baseline must have the same classes"):
        AHEAD(Knowing(7).eval(), guessing(), split())


def test_few_images_do_not_tell_whether_a_teacher_is_ahead_nor_does_an_interval_that_holds_a_lead():
    few = split(3)
    assert AHEAD(Knowing().eval(), Knowing().eval(), few).good is None
    one_hot = F.one_hot(split().labels, 5).float()
    behind, ahead = one_hot.clone(), one_hot.clone()
    ahead[:6], behind[6:11] = ahead[:6].roll(1, dims=1), behind[6:11].roll(1, dims=1)
    answer = AHEAD(ahead, behind, split())  # a lead of -1.7 points, between -13 and +9
    assert answer.good is None and "more images" in answer.advice


# ------------------------------------------------------------------------------- the targets


def test_targets_that_were_divided_by_a_temperature_are_told_so():
    teacher = Knowing().eval()
    stored = predict_logits(teacher, split())
    answer = TARGETS(stored / 4, split(), teacher)
    assert answer.good is False and "0.25 times" in answer.advice
    turned = TARGETS(-stored, split(), teacher)
    assert turned.good is False and "times" not in turned.advice


def test_a_list_in_place_of_logits_is_refused_without_talk_of_modules():
    with pytest.raises(
        TypeError, match=r"teacher_logits must be logits \(n, classes\), a tensor or NumPy .* got list"
    ):
        TARGETS([[0.0, 1.0]] * 60, split())


# ------------------------------------------------------------------------------- the term


def test_each_loss_of_the_library_leads_towards_the_teacher_and_its_negative_away():
    student, images = guessing(), split()
    for loss in (
        losses.soft_target_loss, losses.standardised_loss, losses.tail_bucket_loss, losses.logit_mse_loss,
        losses.cosine_logit_loss, losses.correlation_loss, losses.decoupled_loss, losses.multilabel_distillation_loss,
    ):  # fmt: skip
        assert term(student, loss, images=images).good is True, loss
    negative = term(student, lambda z, v, temperature: -losses.soft_target_loss(z, v, temperature))
    assert negative.good is False and "minus" in negative.advice and "cosine -1.00" in negative.finding


def test_a_loss_that_writes_into_the_logits_of_the_teacher_spoils_nothing():
    def spoiling(z, v):
        return F.mse_loss(z, v.mul_(2.0))

    def sparing(z, v):
        return F.mse_loss(z, 2.0 * v)

    assert term(guessing(), spoiling) == term(guessing(), sparing)


def test_a_gradient_of_rounding_alone_is_none():
    answer = term(guessing(), lambda z, v: 1e-9 * losses.soft_target_loss(z, v, 4.0))
    assert answer.good is False and "no gradient" in answer.finding


def test_a_low_temperature_is_not_taken_for_a_student_that_is_there():
    assert term(guessing(), losses.soft_target_loss, temperature=1e-4).good is not None
    near = predict_logits(Knowing().eval(), split()) + 1e-6
    assert term(near, losses.soft_target_loss).good is None


def test_a_complex_number_is_no_loss_and_two_classes_no_place_for_standardised_logits():
    with pytest.raises(ValueError, match="loss must return a scalar tensor, .* got torch.complex64"):
        term(guessing(), lambda z, v: F.mse_loss(z, v) * 1j)
    with pytest.raises(ValueError, match="at least 3 classes"):
        diagnosis.does_the_term_reach_the_student(
            guessing(2),
            Knowing(2).eval(),
            split(40, 2),
            temperature=2,
            alpha=0.9,
            loss=losses.standardised_loss,
        )
    assert of_student.OPPOSED < 0


# ------------------------------------------------------------------------------- following and noise


def test_images_that_were_learned_from_are_not_taken_for_held_out_ones():
    learned, teacher = split(), Knowing().eval()
    mixture = ImageSplit(torch.cat([split(40, seed=1).images, learned.images[:20]]), torch.arange(60) % 5)
    for held_out, again in ((learned, 60), (learned.subset(slice(30)), 30), (mixture, 20)):
        with pytest.raises(
            ValueError, match=f"held_out must hold images .* got {again} of {len(held_out)} that are in"
        ):
            FOLLOWS(teacher, teacher, learned, held_out)
        with pytest.raises(ValueError, match="held_out must hold images that the student did not learn from"):
            diagnosis.examine(guessing(), teacher, guessing(), learned, held_out, temperature=4, alpha=0.9)
    assert FOLLOWS(copy.deepcopy(teacher), teacher, learned, split(seed=1)).good is True


def test_few_images_do_not_tell_whether_a_student_follows():
    answer = FOLLOWS(guessing(), Knowing().eval(), split(3), split(3, seed=1))
    assert answer.good is None and "20 images" in answer.advice


def test_accuracies_without_an_order_of_the_seeds_are_refused():
    for wrong in ({0.8, 0.81, 0.82}, {0: 0.8, 1: 0.81, 2: 0.82}, torch.tensor(0.8), (0.8 for _ in range(3))):
        with pytest.raises(TypeError, match="students must be a list of accuracies, one for each seed"):
            NOISE(wrong, [0.7, 0.71, 0.72])
    tiny = NOISE([0.8, 0.80001, 0.8], [0.8] * 3)
    assert "+0.00033 points" in tiny.advice
