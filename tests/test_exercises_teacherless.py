"""The solutions of lesson 09 compute what other means compute: sums in Python, and the library."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlib import peers
from kdlib.datafree import inversion
from kdlib.lesson import exercises
from kdlib.lesson.exercises import _school
from kdlib.lesson.laboratory import Laboratory, course_teacher, own_generation

pytestmark = pytest.mark.usefixtures("one_thread")


def cases_of(name):
    return exercises.get(name).cases()


# ------------------------------------------------------------------ repair_generations


class SmallSchool:
    """Networks that really learn, from nine points; every network that was built is kept as it was born."""

    def __init__(self):
        self.born = []
        self.inputs = torch.linspace(-1, 1, 9)[:, None]
        self.labels = (self.inputs > 0.2).long().flatten()

    def build(self):
        torch.manual_seed(len(self.born))
        network = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 2))
        self.born.append(copy.deepcopy(network))
        return network

    def train(self, network):
        self._descend(network, lambda logits: F.cross_entropy(logits, self.labels))

    def distill(self, student, teacher):
        said = teacher(self.inputs).detach().log_softmax(1)
        self._descend(
            student, lambda z: F.kl_div(z.log_softmax(1), said, log_target=True, reduction="batchmean")
        )

    def _descend(self, network, loss):
        for _ in range(5):
            slopes = torch.autograd.grad(loss(network(self.inputs)), [*network.parameters()])
            for part, slope in zip(network.parameters(), slopes, strict=True):
                part.data -= 0.5 * slope


def test_the_repaired_generations_are_those_that_are_taught_one_after_the_other_by_hand():
    school = SmallSchool()
    found = exercises.solution("repair_generations")(school.build, school.train, school.distill, 2)
    first, second, third = map(copy.deepcopy, school.born)
    school.train(first)
    school.distill(second, first)
    school.distill(third, second)
    assert len(found) == 3
    for network, expected in zip(found, (first, second, third), strict=True):
        assert _school.weights_of(network) == _school.weights_of(expected)


def test_generation_0_is_all_there_is_where_it_is_the_last():
    school = SmallSchool()
    [network] = exercises.solution("repair_generations")(school.build, school.train, school.distill, 0)
    [expected] = map(copy.deepcopy, school.born)
    school.train(expected)
    assert _school.weights_of(network) == _school.weights_of(expected)


def test_the_generations_to_repair_learn_nothing_from_each_other_and_the_repaired_ones_do():
    exercise = exercises.get("repair_generations")
    for sequence, learns in ((exercise.start, False), (exercise.solve, True)):
        school = SmallSchool()
        first, *students = sequence(school.build, school.train, school.distill, 3)
        apart = [(student(school.inputs) - first(school.inputs)).abs().max().item() for student in students]
        assert all(distance > 0.01 for distance in apart) if learns else max(apart) < 1e-5


def test_the_made_up_school_draws_weights_that_no_two_networks_share_and_knows_where_they_come_from():
    school = _school.School()
    torch.manual_seed(0)
    one = school.build()
    torch.manual_seed(0)
    other = school.build()
    born = [_school.weights_of(network) for network in (one, other)]
    school.train(one)
    school.distill(other, one)
    taught = [_school.weights_of(network) for network in (one, other)]
    assert len({*born, *taught}) == 4 and not school.faults
    assert [school.origin[weights] for weights in born] == [None, None]
    assert [school.origin[weights] for weights in taught] == [(born[0], None), (born[1], taught[0])]


# ------------------------------------------------------------------ mutual_loss


def log_softmax(row):
    log_sum = max(row) + math.log(math.fsum(math.exp(x - max(row)) for x in row))
    return [x - log_sum for x in row]


def of_two_peers(first, second, labels):
    """The value, and of each peer the gradient of its own part, (2 q - 1[label] - p) / batch, by sums in Python."""
    terms, gradients = [], [[], []]
    for z, v, label in zip(first.double().tolist(), second.double().tolist(), labels.tolist(), strict=True):
        logs = [log_softmax(row) for row in (z, v)]
        for number, (log_q, log_p) in enumerate((logs, logs[::-1])):
            terms.append(-log_q[label])
            terms += [math.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True)]
            of_image = [2 * math.exp(b) - math.exp(a) for a, b in zip(log_p, log_q, strict=True)]
            of_image[label] -= 1
            gradients[number].append([slope / len(labels) for slope in of_image])
    return math.fsum(terms) / len(labels), torch.tensor(gradients, dtype=torch.float64)


def test_the_mutual_loss_and_both_gradients_agree_with_sums_in_python_and_with_the_librarys():
    torch.manual_seed(0)
    larger = (*4 * torch.randn(2, 60, 12), torch.randint(12, (60,)))
    for first, second, labels in [*cases_of("mutual_loss"), larger]:
        leaves = [first.clone().requires_grad_(), second.clone().requires_grad_()]
        loss = exercises.solution("mutual_loss")(*leaves, labels)
        gradients = torch.stack(torch.autograd.grad(loss, leaves))
        expected, expected_gradients = of_two_peers(first, second, labels)
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        assert torch.allclose(gradients.double(), expected_gradients, rtol=1e-4, atol=1e-6)
        theirs = peers.mutual_loss(torch.cat(leaves, dim=1), labels, members=2)
        assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)
        assert torch.allclose(gradients, torch.stack(torch.autograd.grad(theirs, leaves)), rtol=1e-4, atol=1e-6)


def test_two_peers_that_agree_learn_from_their_labels_alone():
    torch.manual_seed(1)
    logits, labels = 3 * torch.randn(8, 5, dtype=torch.float64), torch.arange(8) % 5
    leaves = [logits.clone().requires_grad_() for _ in range(3)]
    together = exercises.solution("mutual_loss")(*leaves[:2], labels)
    alone = F.cross_entropy(leaves[2], labels)
    gradients = [*torch.autograd.grad(together, leaves[:2]), *torch.autograd.grad(alone, leaves[2:])]
    assert together.item() == pytest.approx(2 * alone.item(), rel=1e-12)
    assert torch.allclose(gradients[0], gradients[2]) and torch.allclose(gradients[1], gradients[2])


# ------------------------------------------------------------------ nearest_labels


def cosine(one, other):
    return math.fsum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)


def test_the_nearest_labels_agree_with_a_loop_over_all_pairs_and_no_length_changes_them():
    torch.manual_seed(2)
    for embeddings, known, labels in cases_of("nearest_labels"):
        expected = []
        for row in embeddings.double().tolist():
            cosines = [cosine(row, one) for one in known.double().tolist()]
            expected.append(labels[max(range(len(known)), key=cosines.__getitem__)].item())
        found = exercises.solution("nearest_labels")(embeddings, known, labels)
        assert found.tolist() == expected and found.dtype == torch.int64
        longer, shorter = (part * (0.01 + torch.rand(len(part), 1)) for part in (100 * embeddings, known))
        assert exercises.solution("nearest_labels")(longer, shorter, labels).tolist() == expected


def test_the_nearest_label_of_a_known_embedding_is_its_own():
    for _, known, labels in cases_of("nearest_labels"):
        assert torch.equal(exercises.solution("nearest_labels")(known, known, labels), labels)


# ------------------------------------------------------------------ statistics_loss


def test_the_statistics_loss_agrees_with_sums_in_python_and_with_the_librarys():
    for maps, running_mean, running_var in cases_of("statistics_loss"):
        of_means, of_variances = [], []
        for channel, (mean, variance) in enumerate(zip(running_mean.tolist(), running_var.tolist(), strict=True)):
            values = maps[:, channel].double().flatten().tolist()
            middle = math.fsum(values) / len(values)
            of_means.append(middle - mean)
            of_variances.append(math.fsum((x - middle) ** 2 for x in values) / len(values) - variance)
        loss = exercises.solution("statistics_loss")(maps, running_mean, running_var)
        assert loss.item() == pytest.approx(math.hypot(*of_means) + math.hypot(*of_variances), rel=1e-5)
        assert loss.item() == pytest.approx(
            inversion.statistics_loss(maps, running_mean, running_var).item(), rel=1e-6
        )


def test_the_gradient_of_the_statistics_loss_is_that_of_small_steps():
    torch.manual_seed(4)
    loss = exercises.solution("statistics_loss")
    for case in cases_of("statistics_loss"):
        maps, *remembered = (part.double() for part in case)
        leaf = maps.clone().requires_grad_()
        [gradient] = torch.autograd.grad(loss(leaf, *remembered), leaf)
        for _ in range(5):
            step = 1e-5 * torch.randn_like(maps)
            slope = (loss(maps + step, *remembered) - loss(maps - step, *remembered)) / 2
            assert slope.item() == pytest.approx((gradient * step).sum().item(), rel=1e-5, abs=1e-11)


def test_the_statistics_loss_of_the_images_that_a_batch_norm_has_just_seen_is_0():
    torch.manual_seed(3)
    maps = 2 * torch.randn(5, 4, 6, 3, dtype=torch.float64) + 1
    norm = nn.BatchNorm2d(4, momentum=1.0).double()
    norm(maps)
    values = maps.numel() // 4
    loss = exercises.solution("statistics_loss")
    # What it keeps is divided by the number of values less one.
    assert loss(maps, norm.running_mean, norm.running_var * (values - 1) / values) < 1e-12
    assert loss(maps + 0.5, norm.running_mean, norm.running_var * (values - 1) / values) == pytest.approx(1.0)


# ------------------------------------------------------------------ my_teacherless_experiment


def test_the_open_experiment_runs_in_a_laboratory_of_wrong_labels_as_in_its_rehearsal():
    [(rehearsal,)] = cases_of("my_teacherless_experiment")
    teachers = dict(zip(rehearsal.settings["teacher"].allowed, (course_teacher, own_generation), strict=True))
    lab = Laboratory("ci", images=200, teachers=teachers, wrong_labels=True)
    assert list(lab.settings) == list(rehearsal.settings)
    assert {name: repr(setting) for name, setting in lab.settings.items() if name != "images"} == {
        name: repr(setting) for name, setting in rehearsal.settings.items() if name != "images"
    }
    mean, low, high = exercises.solution("my_teacherless_experiment")(lab)
    assert -1 < low < mean < high < 1
    assert {look.seed for look in lab.looks} == set(range(5)) and len(lab.looks) == 10
    assert all(dict(look.settings)["wrong_labels"] == 0.4 for look in lab.looks)
