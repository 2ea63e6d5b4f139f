"""The clinic: each defect of public code shows itself, and the mended code agrees with a reference of its own.

What the mending does to students: tests/test_claims_experiments.py.
"""

import dataclasses
import html
import inspect
import math
import re
import sys

import numpy as np
import pytest
import torch
from experiment_tables import alike, copied
from scipy import special
from torch import nn
from torch.nn import functional as F

from kdlib import clinic, losses
from kdlib.clinic import loops, schedules
from kdlib.clinic import losses as found_losses
from kdlib.clinic.cases import BY_DOCTOR, BY_HAND
from kdlib.loss_doctor import examine

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = [case.name for case in clinic.cases()]
COMPLAINTS = {
    "reduction": {"classes": "divided by the number of classes"},
    "weights": {"minimum": "between the teacher and the label", "labels": "alpha weighs the labels"},
    "sigmoids": {"minimum": "all sigmoids saturate at 1"},
    "clamp": {"finite": "infinite at logits of 20 of the student", "pull": "exactly 0"},
    "logarithm": {"finite": "NaN at logits of 20 of the teacher"},
}


def random(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch():
    """Student's and teacher's logits and labels: 16 images of 10 classes, float64."""
    student, teacher = 3 * torch.randn(2, 16, 10, generator=random(), dtype=torch.float64)
    return student, teacher, torch.randint(0, 10, (16,), generator=random(1))


def slope(loss, student, *given):
    student = student.clone().requires_grad_()
    return torch.autograd.grad(loss(student, *given), student)[0]


# ------------------------------------------------------------------ losses


def test_the_mended_reduction_is_the_librarys_and_the_one_found_is_divided_by_the_classes(batch):
    student, teacher, _ = batch
    for temperature in (1, 4.0):
        for classes in (10, 4):
            z, v = student[:, :classes], teacher[:, :classes]
            right = losses.soft_target_loss(z, v, temperature)
            torch.testing.assert_close(found_losses.reduction_mended(z, v, temperature), right)
            torch.testing.assert_close(classes * found_losses.reduction_as_found(z, v, temperature), right)


def test_alpha_weighs_the_teacher_and_weighed_the_labels_which_a_half_hides(batch):
    for alpha in (0.0, 0.2, 0.5, 0.9, 1):
        own = losses.distillation_loss(*batch, temperature=4.0, alpha=alpha).total
        exchanged = losses.distillation_loss(*batch, temperature=4.0, alpha=1 - alpha).total
        torch.testing.assert_close(found_losses.weights_mended(*batch, 4.0, alpha=alpha), own)
        torch.testing.assert_close(found_losses.weights_as_found(*batch, 4.0, alpha=alpha), exchanged)
        assert math.isclose(own, exchanged) == (alpha == 0.5)


def test_mended_sigmoids_are_asked_for_yes_and_no_and_found_ones_are_lowest_where_all_is_there(batch):
    student, teacher, _ = batch
    right = losses.multilabel_distillation_loss(student, teacher, 1.0)
    torch.testing.assert_close(found_losses.sigmoids_mended(student, teacher), right)
    everything = torch.full_like(teacher, 30.0)
    assert found_losses.sigmoids_as_found(everything, teacher) < found_losses.sigmoids_as_found(
        teacher, teacher
    )
    assert (slope(found_losses.sigmoids_as_found, student, teacher) < 0).all(), "every logit is to grow"
    torch.testing.assert_close(
        slope(found_losses.sigmoids_mended, student, teacher), (student.sigmoid() - teacher.sigmoid()) / 16
    )


def test_the_mended_cross_entropy_is_finite_and_pulls_where_the_clamped_one_does_neither(batch):
    student, teacher, _ = batch
    for size in (1, 1000):
        z, p = size * student, teacher.sigmoid()
        by_hand = np.mean(np.sum(np.logaddexp(0, z.numpy()) - p.numpy() * z.numpy(), axis=1))
        assert found_losses.clamp_mended(z, teacher).item() == pytest.approx(by_hand)
        by_torch = F.binary_cross_entropy_with_logits(z, p, reduction="none").sum(dim=1).mean()
        assert found_losses.clamp_mended(z, teacher).item() == pytest.approx(by_torch.item())
    assert found_losses.clamp_as_found(student, teacher).item() == pytest.approx(
        found_losses.clamp_mended(student, teacher).item(), abs=1e-6
    )
    undecided = torch.zeros(1, 1)
    high, low = torch.full((1, 1), 20.0), torch.full((1, 1), -25.0)
    assert found_losses.clamp_as_found(high, undecided).isposinf()
    assert slope(found_losses.clamp_as_found, low, undecided).item() == 0
    assert found_losses.clamp_mended(high, undecided).item() == pytest.approx(10)
    assert slope(found_losses.clamp_mended, low, undecided).item() == pytest.approx(-0.5)


def test_the_mended_logarithm_is_kl_of_the_stored_probabilities_and_the_one_found_is_no_number(batch):
    student, teacher, _ = batch
    stored = teacher.half().softmax(dim=1).float()
    right = F.kl_div(student.log_softmax(dim=1), stored.double(), reduction="batchmean")
    for loss in (found_losses.logarithm_as_found, found_losses.logarithm_mended):
        torch.testing.assert_close(loss(student, teacher), right, check_dtype=False)
    sure, start = torch.tensor([[20.0, 0.0, 1.0]]), torch.zeros(1, 3)
    assert found_losses.logarithm_as_found(start, sure).isnan()
    assert found_losses.logarithm_mended(start, sure).item() == pytest.approx(math.log(3))
    expected = torch.tensor([[1 / 3 - 1, 1 / 3, 1 / 3]])
    torch.testing.assert_close(slope(found_losses.logarithm_mended, start, sure), expected)


def test_the_doctor_names_the_defect_of_each_loss_and_finds_nothing_in_the_mended_one():
    told = {case.name: case for case in clinic.cases() if case.by == BY_DOCTOR}
    assert told.keys() == COMPLAINTS.keys()
    for name, case in told.items():
        examination = examine(case.found)
        assert set(examination.complaints) == set(COMPLAINTS[name]), f"{name}: {examination}"
        for topic, words in COMPLAINTS[name].items():
            assert words in examination[topic].finding, name
        assert not examine(case.mended).complaints, name


# ------------------------------------------------------------------ loops: batches, cache, mode, best


class Scale(nn.Module):
    """Its logits are its images times one weight, at first 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.weight * images.flatten(1)


def standing(network):
    """An optimizer that does not move it."""
    return torch.optim.SGD(network.parameters(), 0.0)


def test_batches_go_through_all_images_in_another_order_each_epoch():
    made = [*loops.batches(70, 3, seed=4, batch_size=32)]
    assert [(epoch, number, len(positions)) for epoch, number, positions in made] == [
        (epoch, number, size) for epoch in range(3) for number, size in enumerate((32, 32, 6))
    ]
    orders = [torch.cat([one for of, _, one in made if of == epoch]).tolist() for epoch in range(3)]
    assert all(sorted(order) == [*range(70)] for order in orders)
    assert len({tuple(order) for order in orders}) == 3

    def first(seed):
        return next(loops.batches(70, 1, seed=seed))[2]

    assert torch.equal(first(4), made[0][2]) and not torch.equal(first(5), made[0][2])


def shares_that_belong(loop):
    """Of each epoch: how many of the answers are those of the images beside them. Images answer with themselves."""
    met, images, student = [], torch.arange(64.0).view(64, 1, 1, 1), Scale()

    def loss(student_logits, answers):
        met.append((student_logits == answers).float().mean().item())
        return student_logits.mean()

    loop(student, lambda seen: seen.flatten(1), images, loss, standing(student), loops.batches(64, 3, 0))
    return [sum(met[2 * epoch : 2 * epoch + 2]) / 2 for epoch in range(3)]


def test_stored_answers_belong_to_their_images_and_by_batch_only_in_the_first_epoch():
    assert shares_that_belong(loops.cache_mended) == [1, 1, 1]
    first, *later = shares_that_belong(loops.cache_as_found)
    assert first == 1 and max(later) < 0.25


def test_a_cache_asks_the_teacher_once_for_each_image_and_sends_it_no_gradient():
    for loop in (loops.cache_as_found, loops.cache_mended):
        teacher, student = Scale(), Scale()
        images, asked = torch.randn(64, 1, 2, 2, generator=random()), []
        teacher.register_forward_hook(lambda network, seen, logits, asked=asked: asked.append(len(seen[0])))
        loop(student, teacher, images, F.mse_loss, standing(student), loops.batches(64, 3, 0))
        assert sum(asked) == 64 and teacher.weight.grad is None, loop.__name__


def normalising():
    """A network with batch norm, the same each time."""
    torch.manual_seed(3)
    return nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 3))


def after_mode(loop):
    """The teacher, the images, the batches, and the answers that the student was given for each."""
    teacher, student, answers = normalising(), normalising().eval(), []
    images = 5 + torch.randn(80, 1, 2, 2, generator=random())
    made = [*loops.batches(80, 2, seed=0)]

    def loss(student_logits, teacher_logits):
        answers.append(teacher_logits)
        return F.mse_loss(student_logits, 1 + teacher_logits)

    loop(student, teacher, images, loss, torch.optim.SGD(student.parameters(), 0.1), iter(made))
    assert student.training and not alike(copied(student), copied(normalising())), loop.__name__
    return teacher, images, [positions for _, _, positions in made], answers


def test_a_teacher_in_train_mode_follows_the_images_and_one_in_eval_mode_does_not():
    teacher, images, made, _ = after_mode(loops.mode_as_found)
    mean, variance = torch.zeros(1), torch.ones(1)
    for positions in made:
        mean = 0.9 * mean + 0.1 * images[positions].mean()
        variance = 0.9 * variance + 0.1 * images[positions].var(correction=1)
    torch.testing.assert_close(teacher[0].running_mean, mean)
    torch.testing.assert_close(teacher[0].running_var, variance)
    before = copied(normalising())
    moved = {name for name, value in copied(teacher).items() if not torch.equal(value, before[name])}
    assert moved == {"0.running_mean", "0.running_var", "0.num_batches_tracked"}, "and no weight"
    assert alike(copied(after_mode(loops.mode_mended)[0]), before)


def test_the_mended_teacher_answers_by_its_running_statistics_and_the_one_found_by_the_batch():
    for loop, trains in ((loops.mode_as_found, True), (loops.mode_mended, False)):
        _, images, made, answers = after_mode(loop)
        for positions, given in zip(made, answers, strict=True):
            with torch.no_grad():
                torch.testing.assert_close(given, normalising().train(trains)(images[positions]))


def test_the_best_weights_are_kept_and_a_state_dict_alone_keeps_the_last_ones():
    for loop, kept in ((loops.best_as_found, 4.0), (loops.best_mended, 2.0)):
        student, seen = nn.Linear(1, 1, bias=False), []

        def one_epoch(network, epoch, seen=seen):
            seen.append(epoch)
            nn.init.constant_(network.weight, epoch + 1.0)

        scores = dict(zip((1.0, 2.0, 3.0, 4.0), (0.3, 0.9, 0.9, 0.5), strict=True))
        reported = loop(student, one_epoch, lambda network, scores=scores: scores[network.weight.item()], 4)
        assert reported == 0.9 and seen == [0, 1, 2, 3], loop.__name__
        assert student.weight.item() == kept, loop.__name__


# ------------------------------------------------------------------ loops: adversary, report, temperature


@pytest.fixture
def pair():
    """A linear student and teacher; no one looks at the last pixel."""
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2)]
    for network in networks:
        with torch.no_grad():
            network[1].weight[:, 3] = 0.7
    return networks


def seen_by_the_student(loop, student, teacher, images, size):
    """The images of the step, and their answers."""
    met = []

    def loss(student_logits, answers):
        met.append(answers)
        return F.mse_loss(student_logits, answers)

    seen = []
    handle = student.register_forward_hook(lambda network, given, logits: seen.append(given[0].detach()))
    rows = torch.arange(len(images))
    loop(student, teacher, images, loss, standing(student), iter([(0, 0, rows)]), size)
    handle.remove()
    assert not met[0].requires_grad
    torch.testing.assert_close(met[0], teacher(seen[-1]).detach())
    return seen[-1]


def disagreement(student, teacher, images):
    return (student(images) - teacher(images)).abs().mean().item()


def test_images_move_to_where_both_disagree_and_stay_where_the_teacher_is_compared_with_itself(pair):
    student, teacher = pair
    images = torch.randn(20, 1, 2, 2, generator=random(2))
    assert torch.equal(seen_by_the_student(loops.adversary_as_found, *pair, images, 0.1), images)
    moved = seen_by_the_student(loops.adversary_mended, *pair, images, 0.1) - images

    weights = (student[1].weight - teacher[1].weight).detach().double().numpy()
    apart = (student(images) - teacher(images)).detach().double().numpy()
    gradient = np.sign(apart) @ weights  # of |W x + b|, but for a positive factor
    expected = 0.1 * np.sign(np.where(np.abs(gradient) < 1e-6, 0, gradient))
    np.testing.assert_allclose(moved.flatten(1).numpy(), expected, atol=1e-6)
    assert (expected[:, 3] == 0).all() and (np.abs(expected[:, :3]) == 0.1).all()

    before = disagreement(student, teacher, images)
    for size in (0.001, 0.1):
        after = disagreement(*pair, seen_by_the_student(loops.adversary_mended, *pair, images, size))
        assert after > before, size


def test_a_look_for_harder_images_leaves_the_batch_norm_of_the_student_alone():
    torch.manual_seed(0)
    student, teacher = (nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 3)) for _ in range(2))
    images, teacher = torch.randn(20, 1, 2, 2, generator=random(2)), teacher.eval()
    for loop in (loops.adversary_as_found, loops.adversary_mended):
        before = student[0].num_batches_tracked.item()
        loop(student, teacher, images, F.mse_loss, standing(student), loops.batches(20, 2, 0, 10), 0.1)
        assert student[0].num_batches_tracked.item() == before + 4 and student.training, loop.__name__
        assert not teacher[0].num_batches_tracked and not teacher.training, loop.__name__


def test_the_adversary_trains_the_student_and_leaves_the_teacher(pair):
    student, teacher = pair
    images, before = torch.randn(20, 1, 2, 2, generator=random(2)), [copied(network) for network in pair]
    optimizer = torch.optim.SGD(student.parameters(), 0.1)
    loops.adversary_mended(student, teacher, images, F.mse_loss, optimizer, loops.batches(20, 2, 0, 10), 0.1)
    assert not alike(copied(student), before[0]) and alike(copied(teacher), before[1])
    assert all(weight.grad is None for weight in teacher.parameters())


def test_a_report_is_of_images_that_were_not_learned_and_the_one_found_of_those_that_were():
    asked = []

    def accuracy(student, split):
        asked.append((student, split))
        return 0.75

    for report, learned in ((loops.report_as_found, "B"), (loops.report_mended, "A")):
        reported = report(lambda split: f"learned {split}", accuracy, {"train": "A", "validation": "B"})
        assert reported == 0.75 and asked.pop() == (f"learned {learned}", "B") and not asked


def test_a_learned_temperature_moves_against_the_student_by_the_weight_of_the_epoch():
    images, logits = torch.randn(32, 1, 1, 3, generator=random(5)), torch.randn(32, 3, generator=random(6))
    teacher = lambda seen: 6 * logits  # noqa: E731

    def after(decay, epochs=1, rate=0.0):
        student = Scale()
        optimizer = torch.optim.SGD(student.parameters(), rate)
        made = [(epoch, 0, torch.arange(32)) for epoch in range(epochs)]
        return loops.learned_temperature(
            student, teacher, images, optimizer, iter(made), decay
        ), student.weight.item()

    def loss(raw):
        temperature = 1 + 20 * special.expit(raw)
        p, q = (
            special.softmax(x / temperature, axis=1) for x in (6 * logits.numpy(), images.flatten(1).numpy())
        )
        return temperature**2 * np.mean(np.sum(p * np.log(p / q), axis=1))

    def expected(decay):
        uphill = (loss(1e-4) - loss(-1e-4)) / 2e-4
        return 1 + 20 * special.expit(-0.05 * decay * uphill)

    assert after(lambda epoch: 0.0, epochs=4)[0] == pytest.approx(11)
    for decay in (-1.0, 1.0, -0.5):
        assert after(lambda epoch, decay=decay: decay)[0] == pytest.approx(expected(decay), rel=1e-3), decay
    assert loss(special.logit((after(lambda epoch: -1.0)[0] - 1) / 20)) > loss(0.0)
    asked = []
    after(lambda epoch: asked.append(epoch) or 0.0, epochs=3)
    assert asked == [0, 1, 2]
    assert after(lambda epoch: 0.0, rate=0.01)[1] != 1, "the student learns"


# ------------------------------------------------------------------ loops: two networks at once


@pytest.fixture
def together():
    """Linear networks: a teacher for colours and 12 classes, a student for grey and 10; images, labels, optimizers."""

    def made():
        torch.manual_seed(1)
        teacher = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.Flatten(), nn.Linear(12, 12))
        with torch.no_grad():
            teacher[0].weight.copy_(torch.eye(3)[:, :, None, None])  # each colour as it is
        student = nn.Sequential(nn.Flatten(), nn.Linear(4, 10))
        images, labels = torch.randn(20, 1, 2, 2, generator=random()), torch.arange(20) % 10
        networks = {"student": student, "teacher": teacher}
        optimizers = {name: torch.optim.SGD(one.parameters(), 0.05) for name, one in networks.items()}
        return student, teacher, images, labels, optimizers

    return made


def test_two_networks_learn_by_one_step_each_as_computed_by_hand(together):
    student, teacher, images, labels, optimizers = together()
    weights = {name: value.double().numpy() for name, value in copied(student).items()}
    of_teacher = {name: value.double().numpy() for name, value in copied(teacher).items()}
    x, one_hot = images.flatten(1).double().numpy(), np.eye(10)[labels.numpy()]
    coloured = np.tile(x, (1, 3))
    z = x @ weights["1.weight"].T + weights["1.bias"]
    v = coloured @ of_teacher["2.weight"].T + of_teacher["2.bias"]
    # of cross-entropy over the labels' classes, averaged, and of the sum of squares for the student alone
    at_teacher = np.hstack([(special.softmax(v[:, :10], axis=1) - one_hot) / 20, np.zeros((20, 2))])
    at_student = (special.softmax(z, axis=1) - one_hot) / 20 + 0.2 * (z - v[:, :10])

    loops.together_mended(student, teacher, images, labels, optimizers, iter([(0, 0, torch.arange(20))]))
    for layer, before, gradient, seen in (
        (student[1], (weights["1.weight"], weights["1.bias"]), at_student, x),
        (teacher[2], (of_teacher["2.weight"], of_teacher["2.bias"]), at_teacher, coloured),
    ):
        expected = before[0] - 0.05 * gradient.T @ seen, before[1] - 0.05 * gradient.sum(axis=0)
        np.testing.assert_allclose(layer.weight.detach().numpy(), expected[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(layer.bias.detach().numpy(), expected[1], rtol=1e-4, atol=1e-6)
    # Nothing came to the teacher behind its own step.
    np.testing.assert_allclose(teacher[2].bias.grad.numpy(), at_teacher.sum(axis=0), rtol=1e-4, atol=1e-6)


def part_mended(made, *, channels=False, outputs=False, kept=False, detached=False):
    """The program as it was found, with some of its reasons to stop mended; its student."""
    student, teacher, images, labels, optimizers = made
    of_student = student(images)
    of_teacher = teacher(images.expand(-1, 3, -1, -1) if channels else images)
    of_teacher = of_teacher[:, :10] if outputs else of_teacher
    optimizers["teacher"].zero_grad()
    F.cross_entropy(of_teacher, labels).backward(retain_graph=kept)
    optimizers["teacher"].step()
    apart = ((of_student - (of_teacher.detach() if detached else of_teacher)) ** 2).sum()
    loops.step(optimizers["student"], F.cross_entropy(of_student, labels) + 0.1 * apart)
    return student


def test_the_program_as_it_was_found_stops_for_four_reasons_one_behind_the_other(together):
    """Were the graph kept, the student's loss would go back through weights that the teacher's step has changed."""
    reasons = [
        "to have 3 channels, but got 1",
        "must match the size of tensor b",
        "backward through the graph a second",
    ]
    for number, words in enumerate([*reasons, "modified by an inplace operation"]):
        mended = dict.fromkeys(("channels", "outputs", "kept")[:number], True)
        with pytest.raises(RuntimeError, match=words):
            part_mended(together(), **mended)
    with pytest.raises(RuntimeError, match=reasons[0]):
        loops.together_as_found(*together(), iter([(0, 0, torch.arange(20))]))

    by_parts = part_mended(together(), channels=True, outputs=True, detached=True)
    student, *others = together()
    loops.together_mended(student, *others, iter([(0, 0, torch.arange(20))]))
    assert alike(copied(student), copied(by_parts)), "a detached teacher mends the last two at once"


def test_without_a_detach_the_students_loss_would_train_its_teacher(together):
    student, teacher, images, *_ = together()
    of_teacher = teacher(images.expand(-1, 3, -1, -1))[:, :10]
    for logits, reached in ((of_teacher, True), (of_teacher.detach(), False)):
        loss = ((student(images) - logits) ** 2).sum()
        found = torch.autograd.grad(loss, [*teacher.parameters()], allow_unused=True, retain_graph=True)
        assert all((one is not None) == reached for one in found)


# ------------------------------------------------------------------ schedules


def test_the_end_that_is_never_stored_stops_at_the_first_step_and_the_mended_one_falls_in_a_line():
    as_found = schedules.FallingAsFound(10.0, 1.0, 100)
    with pytest.raises(AttributeError, match="'end'"):
        as_found(0)
    mended = schedules.FallingMended(10.0, 1.0, 100)
    assert [mended(epoch) for epoch in (0, 25, 50, 100)] == pytest.approx([10, 7.75, 5.5, 1])


def test_the_cosine_goes_from_0_to_minus_1_and_the_other_way_only_with_exchanged_arguments():
    table = {0: 0.0, 2: -0.0954915, 5: -0.5, 8: -0.9045085, 10: -1.0, 15: -1.0}
    right, other = schedules.CosineDecay(), schedules.CosineDecay(-1.0, 0.0)
    for epoch, value in table.items():
        assert right(epoch) == pytest.approx(value, abs=1e-6), epoch
        assert other(epoch) == pytest.approx(-1 - value, abs=1e-6), epoch
    assert schedules.CosineDecay(2.0, 0.0, epochs=4)(2) == pytest.approx(1)


# ------------------------------------------------------------------ the sheets


def test_there_are_ten_cases_and_more_of_different_names_and_one_is_a_false_alarm():
    assert len(NAMES) == len(set(NAMES)) >= 10
    alarms = [case.name for case in clinic.cases() if case.found is case.mended]
    assert alarms == ["false alarm"] and NAMES[-1] != "false alarm"  # its place would give it away
    for case in clinic.cases():
        assert clinic.case(case.name) is case and case.source and case.finding.endswith(".")
        assert case.by in (BY_DOCTOR, BY_HAND)


def test_an_unknown_case_is_told_the_names_of_all():
    with pytest.raises(ValueError) as caught:
        clinic.case("x")
    assert "name must be one of" in str(caught.value) and "'x'" in str(caught.value)
    assert all(name in str(caught.value) for name in NAMES)


def test_the_symptom_is_gone_afterwards_but_for_the_false_alarm():
    for case in clinic.cases():
        assert (case.symptom == case.afterwards) == (case.name == "false alarm"), case.name
        assert case.symptom.endswith(".") or case.name == "together", case.name


def test_symptoms_are_the_same_each_time_and_leave_random_numbers_alone():
    for case in clinic.cases():
        torch.manual_seed(11)
        first, expected = case.symptom, torch.random.get_rng_state()
        torch.manual_seed(12)
        assert case.symptom == first, case.name
        torch.manual_seed(11)
        assert torch.equal(torch.random.get_rng_state(), expected), case.name


def test_symptoms_say_the_numbers_that_can_be_known_without_them():
    said = {case.name: (case.symptom, case.afterwards) for case in clinic.cases()}
    expected = {
        "clamp": ("loss inf; logit -25: gradient 0.0", "loss 10.0; logit -25: gradient -0.5"),
        "logarithm": ("loss nan", "loss 1.10"),
        "cache": ("100%, ", "100%, 100%, 100%"),
        "mode": ("", "mean is 0.00, its answers moved by up to 0.00"),
        "best": ("those of epoch 5", "those of epoch 1"),
        "adversary": ("they move by 0.00", "they move by 0.10"),
        "training on validation": ("reported 100%", "reported 10%"),
        "schedule": ("AttributeError: 'Falling' object has no attribute 'end'", "10, 5.5, 1"),
        "together": ("to have 3 channels", "the student's weights are finite"),
        "false alarm": ("0.00, -0.50, -1.00", "0.00, -0.50, -1.00"),
    }
    assert set(said) - set(expected) == {"reduction", "weights", "sigmoids"}
    for name, (found, mended) in expected.items():
        assert found in said[name][0] and mended in said[name][1], said[name]
    entropy, loss = map(
        float, re.search(r"cross-entropy (.*), loss at alpha = 0.9 (.*)\.", said["weights"][0]).groups()
    )
    assert loss == pytest.approx(0.9 * entropy, abs=0.01)
    moved = float(re.search(r"running mean is (.*),", said["mode"][0]).group(1))
    assert moved == pytest.approx(5 * (1 - 0.9**10), abs=0.1)
    teacher, student = said["sigmoids"][1].split("teacher ")[1].rstrip(".").split(", student ")
    assert teacher == student == " / ".join(f"{special.expit(x):.2f}" for x in (2.0, -1.0, 0.5))


def test_the_code_of_a_sheet_is_that_which_runs_under_a_name_that_says_nothing():
    for case in clinic.cases():
        code = case.code()
        for telling in ("_as_found", "_mended", "AsFound", "Mended"):
            assert telling not in code and telling not in case.symptom, case.name
        lines = inspect.getsource(case.found).strip().splitlines()
        assert len(code.splitlines()) == len(lines) and code.splitlines()[-1] == lines[-1], case.name


def test_the_changes_lead_from_the_code_as_found_to_the_mended_code():
    for case in clinic.cases():
        changes = case.changes()
        assert bool(changes) == (case.name != "false alarm"), case.name
        left = [line[2:] for line in changes if line.startswith("- ")]
        came = [line[2:] for line in changes if line.startswith("+ ")]
        assert len(left) + len(came) == len(changes), case.name
        assert not set(came) & set(case.code().splitlines()) and set(left) <= set(case.code().splitlines())
        assert not any("_mended" in line or "as_found" in line for line in changes), case.name
        assert not any(line[2:].lstrip().startswith(("def ", "class ")) for line in changes), case.name


def secrets(case):
    """What a sheet must not give away at first."""
    came = [line[2:] for line in case.changes() if line.startswith("+ ")]
    came = [
        line.strip() for line in came if line.strip() not in case.code()
    ]  # "with torch.no_grad():" is moved
    return [case.finding, case.source, case.by, *came]


def test_a_sheet_keeps_the_mending_folded_and_the_text_for_the_terminal_leaves_it_out():
    for case in clinic.cases():
        sheet = case.sheet()
        text, page = repr(sheet), sheet._repr_html_()
        assert case.symptom in text and case.code() in text, case.name
        before, inside = page.split("<details>")
        assert inside.count("</details>") == 1 and inside.split("</details>")[1] == "</div>", case.name
        assert html.escape(case.symptom) in before and html.escape(case.code()) in before, case.name
        for secret in secrets(case):
            assert secret not in text and html.escape(secret) not in before, (case.name, secret)
            assert html.escape(secret) in inside, (case.name, secret)
        assert html.escape(case.afterwards) in inside, case.name
    assert "(nothing)" in clinic.case("false alarm").sheet()._repr_html_()


def test_a_sheet_is_headed_by_a_number_and_not_by_its_name():
    for number, case in enumerate(clinic.cases(), 1):
        assert case.sheet()._repr_html_().count(f"<h4>Case {number}</h4>") == 1
        assert repr(case.sheet()).startswith(f"Case {number}. ")
    alarm = clinic.case("false alarm").sheet()
    assert "alarm" not in repr(alarm).lower()
    assert "alarm" not in alarm._repr_html_().split("<details>")[0].lower()


def test_what_a_sheet_shows_is_escaped(monkeypatch):
    page = clinic.case("best").sheet()._repr_html_()
    assert "if accuracy &gt; highest" in page and "accuracy > highest" not in page
    odd = dataclasses.replace(
        clinic.case("best"), look=lambda code: "<i>", source="<s>", finding="<u>", name="<q>"
    )
    monkeypatch.setattr(sys.modules["kdlib.clinic.cases"], "_CASES", (odd,))
    page = odd.sheet()._repr_html_()
    for given in ("<i>", "<s>", "<u>", "<q>"):
        assert html.escape(given) in page and given not in page, given


def test_the_code_of_a_sheet_calls_no_case():
    """Its reader has met the case's code as the faulty one."""
    for case in clinic.cases():
        others = [name for name in NAMES if name.isalpha() and name != case.name]
        assert not any(f" {name}(" in case.code() or f"={name}(" in case.code() for name in others), case.name
