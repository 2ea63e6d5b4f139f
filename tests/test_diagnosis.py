"""Why a student is no better than its baseline: each question finds a planted fault and passes what is well."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from kdlib import data, losses, metrics, models, teachers, training
from kdlib.inference import predict_logits
from kdlib.training import diagnosis

T, ALPHA = 4.0, 0.9


@pytest.fixture(scope="module")
def dataset():
    return data.load()


@pytest.fixture(scope="module")
def transfer_set(dataset):
    return dataset.train.take(300)


@pytest.fixture(scope="module")
def held_out(dataset):
    """Few images, since the teacher is asked again and again."""
    return dataset.validation.take(60)


@pytest.fixture(scope="module")
def teacher():
    return teachers.load("fashion-mnist").network


@pytest.fixture(scope="module")
def teacher_logits(teacher, transfer_set):
    return predict_logits(teacher, transfer_set)


@pytest.fixture(scope="module")
def student(teacher_logits, transfer_set):
    student = models.build("tiny-cnn", seed=0)
    training.distill(
        student, teacher_logits, transfer_set, epochs=10, temperature=T, alpha=ALPHA, progress=False
    )
    return student


@pytest.fixture(scope="module")
def baseline(transfer_set):
    baseline = models.build("tiny-cnn", seed=0)
    training.train(baseline, transfer_set, epochs=6, progress=False)
    return baseline


def normalised_by(split, mean, std):
    return data.ImageSplit(split.images, split.labels, split.indices, [mean], [std])


def term(student, teacher, split, **changes):
    settings = {"temperature": T, "alpha": ALPHA} | changes
    return diagnosis.does_the_term_reach_the_student(student, teacher, split, **settings)


def mean_over_classes_without_t_squared(student_logits, teacher_logits, temperature):
    # What reduction="mean" computes, which PyTorch warns of.
    log_q, p = F.log_softmax(student_logits / temperature, 1), F.softmax(teacher_logits / temperature, 1)
    return F.kl_div(log_q, p, reduction="none").mean()


# ------------------------------------------------------------------------------- what the teacher sees


def test_a_teacher_in_eval_mode_with_the_images_it_learned_from_sees_what_it_knows(teacher, held_out):
    answer = diagnosis.does_the_teacher_see_what_it_knows(teacher, held_out, expected=0.93)
    accuracy = metrics.accuracy(teacher, held_out)
    assert answer.good is True and answer.advice == ""
    assert (
        f"{100 * accuracy:.1f} % of 60 images" in answer.finding and "93.0 % was expected" in answer.finding
    )


def test_a_teacher_left_in_training_mode_is_found(teacher, held_out):
    left = copy.deepcopy(teacher).train()
    answer = diagnosis.does_the_teacher_see_what_it_knows(left, held_out)
    assert answer.good is False and "eval()" in answer.advice
    frozen = diagnosis.does_the_teacher_see_what_it_knows(teachers.freeze(left).train(), held_out)
    assert frozen.good is True


def test_dropout_that_ignores_eval_mode_is_found_and_not_blamed_on_the_mode(held_out):
    class AlwaysDropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(784, 10)

        def forward(self, images):
            return self.linear(F.dropout(images.flatten(1)))

    answer = diagnosis.does_the_teacher_see_what_it_knows(AlwaysDropping().eval(), held_out)
    assert answer.good is False and "listen to eval mode" in answer.advice


def test_a_wrong_normalisation_is_found_and_the_advice_mends_it(teacher, held_out):
    raw = normalised_by(held_out, 0.0, 1.0)
    answer = diagnosis.does_the_teacher_see_what_it_knows(teacher, raw)
    assert answer.good is False and metrics.accuracy(teacher, raw) < 0.5
    numbers = answer.advice.split("mean=[")[1].split("])")[0].split("], std=[")
    mended = teachers.freeze(copy.deepcopy(teacher), mean=[float(numbers[0])], std=[float(numbers[1])])
    assert metrics.accuracy(mended, raw) > 0.9
    assert diagnosis.does_the_teacher_see_what_it_knows(mended, raw).good is True


def test_a_teacher_that_normalises_its_images_itself_and_gets_them_normalised_is_told_so(teacher, held_out):
    class Normalising(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = copy.deepcopy(teacher)

        def forward(self, images):
            return self.network((images - held_out.mean) / held_out.std)

    answer = diagnosis.does_the_teacher_see_what_it_knows(Normalising().eval(), held_out)
    assert answer.good is False and "raw pixels in [0, 1]" in answer.advice


def test_a_teacher_that_carries_a_wrong_preprocessing_is_found(teacher, held_out):
    wrong = teachers.freeze(copy.deepcopy(teacher), mean=[0.9], std=[0.1])
    answer = diagnosis.does_the_teacher_see_what_it_knows(wrong, held_out)
    assert answer.good is False and "kdlib.teachers.freeze" in answer.advice


def test_an_accuracy_far_below_the_stated_one_is_found_also_of_logits(teacher_logits, transfer_set):
    halved = teacher_logits.clone()
    halved[::2] = halved[::2].roll(1, dims=1)
    answer = diagnosis.does_the_teacher_see_what_it_knows(halved, transfer_set, expected=0.93)
    assert answer.good is False and "order" in answer.advice
    assert (
        diagnosis.does_the_teacher_see_what_it_knows(teacher_logits, transfer_set, expected=0.93).good is True
    )
    assert diagnosis.does_the_teacher_see_what_it_knows(teacher_logits, transfer_set).good is None


# ------------------------------------------------------------------------------- whether it is ahead


def test_the_lead_is_the_mean_of_the_differences_with_its_normal_interval(teacher, baseline, held_out):
    answer = diagnosis.is_the_teacher_ahead(teacher, baseline, held_out)
    right = [
        (predict_logits(network, held_out).argmax(1) == held_out.labels).double().numpy()
        for network in (teacher, baseline)
    ]
    difference = right[0] - right[1]
    half = 2.001 * difference.std(ddof=1) / math.sqrt(60)
    ends = (difference.mean(), difference.mean() - half, difference.mean() + half)
    mean, low, high = (f"{100 * end:+.1f}" for end in ends)
    assert answer.good is True and f"{mean} points [{low}, {high}]" in answer.finding


def test_a_teacher_that_is_no_better_than_the_baseline_is_found(baseline, held_out):
    weak = models.build("tiny-cnn", seed=1)
    for answer in (
        diagnosis.is_the_teacher_ahead(weak, baseline, held_out),
        diagnosis.is_the_teacher_ahead(baseline, baseline, held_out),
    ):
        assert answer.good is False and "better teacher" in answer.advice


def test_a_lead_that_few_images_show_cannot_be_told(held_out):
    one_hot = F.one_hot(held_out.labels, 10).float()
    behind = one_hot.clone()
    behind[0] = behind[0].roll(1)
    assert diagnosis.is_the_teacher_ahead(one_hot, behind, held_out).good is None
    behind[:20] = one_hot[:20].roll(1, dims=1)
    assert diagnosis.is_the_teacher_ahead(one_hot, behind, held_out).good is True


# ------------------------------------------------------------------------------- stored targets


def test_targets_of_these_images_belong_to_them_in_any_form_that_a_softmax_takes(
    teacher_logits, teacher, transfer_set
):
    few = transfer_set.subset(slice(60))
    for stored in (teacher_logits.half(), teacher_logits.log_softmax(1), teacher_logits.numpy()):
        answer = diagnosis.do_the_targets_belong_to_the_images(stored[:60], few, teacher)
        assert answer.good is True, answer
    answer = diagnosis.do_the_targets_belong_to_the_images(teacher_logits, transfer_set)
    share = (teacher_logits.argmax(1) == transfer_set.labels).double().mean().item()
    assert answer.good is True
    assert f"{100 * share:.1f} % of 300 rows, at random it would be in 10.0 %" in answer.finding


def test_shuffled_rows_and_rows_in_the_order_of_another_epoch_are_found(teacher_logits, transfer_set):
    shuffled = teacher_logits[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    batches = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    by_batch_number = torch.cat([teacher_logits.split(30)[number] for number in batches])
    for logits in (shuffled, by_batch_number):
        answer = diagnosis.do_the_targets_belong_to_the_images(logits, transfer_set)
        assert answer.good is False and "batch number" in answer.advice


def test_rows_moved_by_one_are_found_also_where_the_images_are_sorted_by_class(
    teacher_logits, teacher, transfer_set
):
    order = transfer_set.labels.argsort()
    sorted_split, moved = transfer_set.subset(order), teacher_logits[order].roll(1, dims=0)
    assert (
        diagnosis.do_the_targets_belong_to_the_images(moved, sorted_split).good is True
    )  # labels do not show it
    answer = diagnosis.do_the_targets_belong_to_the_images(moved, sorted_split, teacher)
    assert answer.good is False and "other images or views" in answer.advice


def test_targets_of_another_view_are_found_by_computing_them_anew(teacher, transfer_set):
    flipped = data.ImageSplit(
        transfer_set.images.flip(3), transfer_set.labels, None, transfer_set.mean, transfer_set.std
    )
    logits = predict_logits(teacher, flipped)
    answer = diagnosis.do_the_targets_belong_to_the_images(logits, transfer_set, teacher)
    assert answer.good is False and "views" in answer.advice and "computed anew" in answer.finding


def test_labels_that_belong_to_other_images_are_not_blamed_on_the_targets(
    teacher_logits, teacher, transfer_set
):
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    mixed = data.ImageSplit(
        transfer_set.images, transfer_set.labels[order], None, transfer_set.mean, transfer_set.std
    )
    answer = diagnosis.do_the_targets_belong_to_the_images(teacher_logits, mixed, teacher)
    assert answer.good is False and "nothing to do with the labels" in answer.advice


def test_classes_in_another_order_are_found_and_one_is_named(teacher_logits, transfer_set):
    swapped = teacher_logits.clone()
    swapped[:, [7, 9]] = swapped[:, [9, 7]]
    answer = diagnosis.do_the_targets_belong_to_the_images(swapped, transfer_set)
    assert answer.good is False and "it calls 7 what the labels call 9" in answer.advice


def test_probabilities_in_place_of_logits_are_found(teacher_logits, transfer_set):
    answer = diagnosis.do_the_targets_belong_to_the_images(teacher_logits.softmax(1), transfer_set)
    assert answer.good is False and "logarithm" in answer.advice


def test_one_class_alone_cannot_tell_rows_apart(teacher_logits, transfer_set):
    rows = (transfer_set.labels == 1).nonzero()[:, 0]
    answer = diagnosis.do_the_targets_belong_to_the_images(
        F.one_hot(torch.ones(len(rows), dtype=torch.long), 10) * 9.0, transfer_set.subset(rows)
    )
    assert answer.good is None and answer.advice


# ------------------------------------------------------------------------------- the teacher's term


def test_the_share_is_that_of_the_written_out_gradients(student, teacher_logits, transfer_set):
    answer = term(student, teacher_logits, transfer_set)
    z, onehot = predict_logits(student, transfer_set).double(), F.one_hot(transfer_set.labels, 10)
    q, p = (z / T).softmax(1), (teacher_logits.double() / T).softmax(1)
    a, b = (ALPHA * T * (q - p)).norm().item(), ((1 - ALPHA) * (z.softmax(1) - onehot)).norm().item()
    assert answer.good is True and answer.finding.startswith(f"{100 * a / (a + b):.1f} %")


def test_a_mean_over_classes_without_t_squared_is_found_with_the_alpha_that_it_acts_like(
    student, baseline, teacher_logits, transfer_set
):
    factor = 1 / (10 * T**2)
    hidden = ALPHA * factor / (ALPHA * factor + 1 - ALPHA)
    for network in (student, baseline, models.build("tiny-cnn", seed=3)):
        answer = term(network, teacher_logits, transfer_set, loss=mean_over_classes_without_t_squared)
        assert answer.good is False and "batchmean" in answer.advice
        assert f"alpha = {hidden:.3g}, asked for was 0.9" in answer.finding


def test_the_losses_of_the_library_that_match_logits_reach_the_student(student, teacher_logits, transfer_set):
    for loss in (losses.soft_target_loss, losses.logit_mse_loss, losses.decoupled_loss):
        assert term(student, teacher_logits, transfer_set, loss=loss).good is True, loss


def test_a_term_that_is_cut_off_or_weighed_by_nothing_is_found(student, teacher_logits, transfer_set):
    def detached(student_logits, teacher_logits):
        return F.mse_loss(student_logits.detach(), teacher_logits)

    cut = term(student, teacher_logits, transfer_set, loss=detached)
    assert cut.good is False and "detach" in cut.advice
    weightless = term(student, teacher_logits, transfer_set, alpha=0)
    assert weightless.good is False and "above 0" in weightless.advice
    low = term(student, teacher_logits, transfer_set, alpha=0.001)
    assert low.good is False and "Raise alpha" in low.advice


def test_a_gradient_that_is_not_finite_is_found(student, teacher_logits, transfer_set):
    def divides_by_zero(student_logits, teacher_logits):
        return (student_logits - student_logits).sum().sqrt()

    answer = term(student, teacher_logits, transfer_set, loss=divides_by_zero)
    assert answer.good is False and "log_softmax" in answer.advice


def test_labels_without_a_say_are_noted_and_no_fault(student, teacher_logits, transfer_set):
    answer = term(student, teacher_logits, transfer_set, alpha=0.999)
    assert answer.good is True and "next to no say" in answer.finding and not answer.advice
    assert term(student, teacher_logits, transfer_set, alpha=1).good is True


def test_a_student_that_is_there_already_feels_no_pull(teacher_logits, transfer_set):
    nearly = teacher_logits + 1e-5 * torch.randn(
        teacher_logits.shape, generator=torch.Generator().manual_seed(0)
    )
    assert term(nearly, teacher_logits, transfer_set).good is None


# ------------------------------------------------------------------------------- following


def test_a_student_close_to_its_teacher_follows(teacher, transfer_set, held_out):
    near = copy.deepcopy(teacher)
    generator = torch.Generator().manual_seed(0)
    for parameter in near.parameters():
        parameter.data += (
            0.01 * parameter.std().nan_to_num() * torch.randn(parameter.shape, generator=generator)
        )
    assert diagnosis.does_the_student_follow(near, teacher, transfer_set, held_out).good is True


def test_a_student_of_few_steps_underfits(teacher, teacher_logits, transfer_set, held_out):
    hasty = models.build("tiny-cnn", seed=0)
    training.distill(hasty, teacher_logits, transfer_set, epochs=1, progress=False)
    answer = diagnosis.does_the_student_follow(hasty, teacher, transfer_set, held_out)
    share = metrics.agreement(hasty, teacher_logits, transfer_set)
    assert answer.good is False and "more epochs" in answer.advice
    assert f"{100 * share:.1f} % of the 300 images" in answer.finding


def test_a_student_that_knows_its_own_images_only_needs_more_of_them(
    teacher, teacher_logits, transfer_set, held_out
):
    few, logits = transfer_set.subset(slice(0, 300, 6)), teacher_logits[::6]
    narrow = models.build("tiny-cnn", seed=0)
    training.distill(narrow, logits, few, epochs=30, batch_size=10, progress=False)
    answer = diagnosis.does_the_student_follow(
        narrow, (logits, predict_logits(teacher, held_out)), few, held_out
    )
    assert answer.good is False and "more images" in answer.advice


# ------------------------------------------------------------------------------- noise


def test_gains_of_many_seeds_are_more_than_noise():
    answer = diagnosis.is_it_more_than_noise([0.81, 0.82, 0.815, 0.83, 0.82], [0.78, 0.785, 0.79, 0.79, 0.78])
    assert answer.good is True and "over 5 seeds" in answer.finding and answer.advice == ""


def test_a_gain_inside_the_noise_is_found_and_the_seeds_that_would_tell_are_counted():
    gains = np.array([0.02, -0.01, 0.015, -0.012, 0.009])
    answer = diagnosis.is_it_more_than_noise(0.7 + gains, [0.7] * 5)
    needed = int(answer.advice.split("about ")[1].split(" seeds")[0])
    size = gains.mean() / gains.std(ddof=1)

    def power(n):
        border = stats.t.ppf(0.975, n - 1)
        return stats.nct.sf(border, n - 1, size * math.sqrt(n)) + stats.nct.cdf(
            -border, n - 1, size * math.sqrt(n)
        )

    assert answer.good is False
    assert power(needed) >= 0.799 and power(needed - 2) < 0.8


def test_students_that_are_surely_worse_are_not_called_noise():
    answer = diagnosis.is_it_more_than_noise([0.70, 0.71, 0.70], [0.75, 0.755, 0.75])
    assert answer.good is False and "worse" in answer.advice


def test_seeds_that_change_nothing_are_found():
    answer = diagnosis.is_it_more_than_noise([0.8, 0.8, 0.8], [0.7, 0.7, 0.7])
    assert answer.good is None and "seed" in answer.advice
    assert "Change the method" in diagnosis.is_it_more_than_noise([0.7, 0.8, 0.75], [0.8, 0.7, 0.75]).advice


# ------------------------------------------------------------------------------- all six


def examined(student, teacher, baseline, transfer_set, held_out, **changes):
    settings = {"temperature": T, "alpha": ALPHA} | changes
    return diagnosis.examine(student, teacher, baseline, transfer_set, held_out, **settings)


def test_examine_asks_all_six_and_starts_at_the_planted_fault(student, baseline, transfer_set, held_out):
    # A small teacher, for speed; nothing but the order of the stored rows is wrong before question 5.
    teacher, untrained = baseline, models.build("tiny-cnn", seed=1)
    stored = predict_logits(teacher, transfer_set).roll(1, dims=0)
    seeds = ([0.71, 0.72, 0.72], [0.70, 0.70, 0.705])
    found = examined(student, teacher, untrained, transfer_set, held_out, teacher_logits=stored, seeds=seeds)
    single = (
        diagnosis.does_the_teacher_see_what_it_knows(teacher, held_out),
        diagnosis.is_the_teacher_ahead(teacher, untrained, held_out),
        diagnosis.do_the_targets_belong_to_the_images(stored, transfer_set, teacher),
        term(student, stored, transfer_set),
        diagnosis.does_the_student_follow(student, teacher, transfer_set, held_out),
        diagnosis.is_it_more_than_noise(*seeds),
    )
    assert found.answers == single
    assert found.first == found.answers[2] and "Start with question 3." in repr(found)
    assert f"{100 * metrics.accuracy(student, held_out):.1f} %" in found.standing


def test_examine_takes_the_logits_of_a_teacher_and_says_what_they_leave_open(
    student, teacher, teacher_logits, baseline, transfer_set, held_out
):
    pair = teacher_logits, predict_logits(teacher, held_out)
    by_logits = examined(student, pair, predict_logits(baseline, held_out), transfer_set, held_out)
    assert [answer.good for answer in by_logits.answers[:4]] == [None, True, True, True]
    last = by_logits.answers[5]
    assert last.good is None and "5 seeds" in last.advice


def test_nothing_that_is_examined_is_changed(student, baseline, transfer_set, held_out):
    teacher = nn.Sequential(nn.Dropout(0.1), models.build("tiny-cnn", seed=5)).train()
    norms = [module for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)]
    norms[0].eval()  # a mixture of modes
    student.train()
    frozen = teachers.freeze(models.build("tiny-cnn", seed=6))
    frozen.network.train()  # its forward switches it back, which must not be left so
    networks = (student, teacher, baseline)

    def state():
        weights = [
            value.clone() for network in (*networks, frozen) for value in network.state_dict().values()
        ]
        modes = [module.training for network in (*networks, frozen) for module in network.modules()]
        gradients = [(p.requires_grad, p.grad is None) for network in networks for p in network.parameters()]
        return weights, modes, gradients, torch.get_rng_state()

    before = state()
    try:
        with torch.no_grad():
            examined(*networks, transfer_set, held_out)
            diagnosis.does_the_teacher_see_what_it_knows(frozen, held_out)
        after = state()
    finally:
        student.eval()
    assert before[1:3] == after[1:3] and torch.equal(before[3], after[3])
    assert all(torch.equal(one, other) for one, other in zip(before[0], after[0], strict=True))
    assert len(norms) > 1 and norms[1].training and norms[1].num_batches_tracked == 0


def test_a_difference_that_rounds_to_zero_has_no_minus():
    assert diagnosis.answers.points(metrics.Interval(-0.0004, -0.012, 0.011)) == "+0.0 points [-1.2, +1.1]"


def test_the_first_no_comes_before_what_cannot_be_told_and_text_is_escaped():
    yes, no, untold = (
        diagnosis.Answer("Is a < b?", good, "<b>1</b>", "" if good else "Do & see.")
        for good in (True, False, None)
    )
    assert diagnosis.Diagnosis((yes, untold, no), "x").first is no
    assert diagnosis.Diagnosis((yes, untold), "x").first is untold
    healthy = diagnosis.Diagnosis((yes,), "x < y")
    assert healthy.first is None and "Nothing is wrong" in repr(healthy)
    page = diagnosis.Diagnosis((no,), "x < y")._repr_html_()
    assert (
        "&lt;b&gt;1&lt;/b&gt;" in page
        and "<b>" not in page
        and "x &lt; y" in page
        and "Do &amp; see." in page
    )
    assert repr(no) == "Is a < b? No.\n   Measured: <b>1</b>\n   Do next: Do & see."
    assert "Do next" not in repr(yes) and "Cannot be told" in str(untold)


def test_bad_input_is_refused_by_name(student, teacher, teacher_logits, transfer_set, held_out, dataset):
    several = data.ImageSplit(held_out.images, torch.eye(10).repeat(6, 1))
    sees, ahead = diagnosis.does_the_teacher_see_what_it_knows, diagnosis.is_the_teacher_ahead
    targets, noise = diagnosis.do_the_targets_belong_to_the_images, diagnosis.is_it_more_than_noise
    follow = diagnosis.does_the_student_follow
    refused = [
        (lambda: sees(teacher, several), ValueError, "split must hold .* one class each"),
        (lambda: sees(teacher, held_out.subset([0])), ValueError, "split must hold at least 2 images"),
        (lambda: sees(teacher, dataset), TypeError, "split must be one split"),
        (lambda: sees(teacher, held_out, expected=93), ValueError, r"expected must be in \[0, 1\], got 93"),
        (lambda: sees("resnet", held_out), TypeError, "teacher must be a torch.nn.Module"),
        (
            lambda: ahead(teacher, teacher_logits, held_out),
            ValueError,
            "baseline must give one row .* 60 images",
        ),
        (lambda: targets(teacher, transfer_set), TypeError, "teacher_logits must be logits"),
        (
            lambda: targets(teacher_logits[:7], transfer_set),
            ValueError,
            "teacher_logits must give one row .* 300",
        ),
        (lambda: targets(teacher_logits[:, :5], transfer_set), ValueError, "must be in .*for 5 classes"),
        (
            lambda: targets(teacher_logits * math.nan, transfer_set),
            ValueError,
            "teacher_logits.* must be finite",
        ),
        (
            lambda: term(student, teacher_logits, transfer_set, temperature=0),
            ValueError,
            "temperature must be above 0",
        ),
        (
            lambda: term(student, teacher_logits, transfer_set, alpha=1.5),
            ValueError,
            r"alpha must be in \[0, 1\]",
        ),
        (
            lambda: term(student, teacher_logits, transfer_set, loss="kl"),
            TypeError,
            "loss must be a function",
        ),
        (
            lambda: term(student, F.pad(teacher_logits, (0, 1)), transfer_set),
            ValueError,
            "student and teacher .* same",
        ),
        (lambda: term(student, teacher_logits, transfer_set, loss=lambda z, v: z - v), ValueError, "scalar"),
        (
            lambda: follow(student, teacher_logits, transfer_set, held_out),
            TypeError,
            "teacher must be a network, or",
        ),
        (lambda: noise([0.8, 0.8], [0.7, 0.7]), ValueError, "students must hold .* at least 3 seeds"),
        (lambda: noise([0.8] * 3, [0.7] * 4), ValueError, "same seeds, got 3 and 4"),
        (lambda: noise([81.0, 82, 80], [0.7] * 3), ValueError, r"students\[0\] must be in \[0, 1\], got 81"),
        (lambda: noise(0.8, 0.7), TypeError, "students must be a list of accuracies"),
        (
            lambda: examined(student, teacher, student, transfer_set, held_out, seeds=[0.8, 0.7, 0.9]),
            TypeError,
            "seeds must be the pair",
        ),
    ]
    for call, error, message in refused:
        with pytest.raises(error, match=message):
            call()
