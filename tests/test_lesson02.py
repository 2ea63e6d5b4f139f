"""The experiments of lesson 02, run very small: their targets, alphas and measures are what they say."""

import math

import pytest
import torch
import torch.nn.functional as F

from kdlib import losses
from kdlib.experiments import lesson02

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def soft():
    return torch.randn(60, 10, generator=torch.Generator().manual_seed(0)).mul(3).softmax(dim=1)


LABELS = torch.arange(60) % 10
OWN_CONFIDENCE = "class pattern, own confidence"
KINDS = [kind for kind in lesson02.TARGETS if kind != "label smoothing"]


def test_targets_are_probabilities_and_any_of_them_can_stand_in_for_a_teacher(soft):
    for kind in KINDS:
        targets = lesson02.reshaped(kind, soft, LABELS)
        assert torch.allclose(targets.sum(dim=1), torch.ones(60), atol=1e-6) and (targets >= 0).all(), kind
        stand_in = lesson02.as_logits(targets, 4.0)
        assert torch.allclose((stand_in / 4.0).softmax(dim=1), targets, atol=1e-6), kind


def test_confidence_in_each_image_is_kept(soft):
    rows = torch.arange(60)
    for kind in ("non-targets averaged", "non-targets shuffled", "full soft target", OWN_CONFIDENCE):
        assert torch.equal(lesson02.reshaped(kind, soft, LABELS)[rows, LABELS], soft[rows, LABELS]), kind


def test_what_becomes_of_the_other_classes(soft):
    others = ~F.one_hot(LABELS, 10).bool()
    averaged = lesson02.reshaped("non-targets averaged", soft, LABELS)[others].view(60, 9)
    assert torch.allclose(
        averaged, soft[others].view(60, 9).mean(dim=1, keepdim=True).expand(60, 9), atol=1e-6
    )
    shuffled = lesson02.reshaped("non-targets shuffled", soft, LABELS)[others].view(60, 9)
    assert torch.equal(shuffled.sort(dim=1).values, soft[others].view(60, 9).sort(dim=1).values)
    assert not torch.equal(shuffled, soft[others].view(60, 9))
    assert torch.equal(lesson02.reshaped("full soft target", soft, LABELS), soft)


def test_targets_without_anything_of_the_single_image(soft):
    same = lesson02.reshaped("same for all images", soft, LABELS)
    assert len(same.unique(dim=0)) == 10
    assert same[0, 0] == pytest.approx(soft[torch.arange(60), LABELS].mean().item())
    means = lesson02.reshaped("class means", soft, LABELS)
    assert torch.allclose(means[3], soft[3::10].mean(dim=0)) and len(means.unique(dim=0)) == 10


def test_the_pattern_of_a_class_is_scaled_to_what_the_image_leaves_for_it(soft):
    targets = lesson02.reshaped(OWN_CONFIDENCE, soft, LABELS)
    for row, label in enumerate(LABELS.tolist()):
        pattern = soft[LABELS == label].mean(dim=0)
        others = [k for k in range(10) if k != label]
        factor = (1 - soft[row, label]) / pattern[others].sum()
        assert torch.allclose(targets[row, others], factor * pattern[others], atol=1e-6), row


def test_a_class_table_has_the_mean_soft_target_of_each_class_in_its_row(soft):
    table = lesson02.class_table(soft, LABELS)
    assert table.shape == (10, 10)
    assert all(torch.allclose(table[label], soft[label::10].mean(dim=0)) for label in range(10))


def test_a_tree_joins_the_classes_that_give_each_other_most():
    rows = [[0.8, 0.1, 0.05, 0.05], [0.1, 0.8, 0.04, 0.06], [0.01, 0.01, 0.9, 0.08], [0.02, 0.02, 0.06, 0.9]]
    table = torch.tensor(rows)
    tree = lesson02.class_tree(table)
    assert lesson02.families(tree) == {frozenset({0, 1}), frozenset({2, 3})}
    assert sorted(tree[:, 2])[:2] == pytest.approx([-math.log(0.1), -math.log(0.07)])
    between = [(0.05 + 0.01) / 2, (0.05 + 0.02) / 2, (0.04 + 0.01) / 2, (0.06 + 0.02) / 2]
    assert tree[-1, 2] == pytest.approx(sum(-math.log(given) for given in between) / 4)


def test_a_loss_without_square_pulls_as_one_of_smaller_alpha(soft):
    student = torch.randn(60, 10, generator=torch.Generator().manual_seed(1)).requires_grad_()
    teacher, labels = soft.log(), LABELS
    for temperature in (1.0, 4.0, 20.0):
        forgotten = losses.soft_target_loss(student, teacher, temperature) / temperature**2
        task = F.cross_entropy(student, labels)
        (without,) = torch.autograd.grad(0.9 * forgotten + 0.1 * task, student)
        alpha = lesson02.alpha_without_square(temperature, alpha=0.9)
        honest = losses.distillation_loss(student, teacher, labels, temperature=temperature, alpha=alpha)
        (with_square,) = torch.autograd.grad(honest.total, student)
        assert F.cosine_similarity(without.flatten(), with_square.flatten(), dim=0) > 1 - 1e-5, temperature


def test_beyond_class_is_the_mean_divergence_from_the_class_mean(soft):
    same = lesson02.as_logits(lesson02.reshaped("class means", soft, LABELS), 1.0)
    assert lesson02.beyond_class(same, LABELS, 1.0) == pytest.approx(0, abs=1e-6)
    means = lesson02.reshaped("class means", soft, LABELS)
    by_hand = (soft * (soft / means).log()).sum(dim=1).mean().item()
    assert lesson02.beyond_class(soft.log(), LABELS, 1.0) == pytest.approx(by_hand, rel=1e-4)


def test_students_of_one_seed_repeat_and_differ_by_their_target():
    first, again, other = (
        lesson02.one_target(target, seed=3, epochs=1)
        for target in ("class means", "class means", "full soft target")
    )
    assert first == again != other


def test_a_smoothed_teacher_teaches_on_images_that_it_has_seen():
    _, transfer_set = lesson02.smoothed_teacher(0.4, seed=0, images=100, epochs=1)
    assert set(transfer_set.indices.tolist()) <= set(lesson02.fashion()[0].train.indices.tolist())
    row = lesson02.students_of_smoothed(0.4, seed=0, images=100, epochs=1)
    assert {f"T = {T:g}" for T in lesson02.STUDENT_TEMPERATURES} <= row.keys()
    assert all(0 <= row[name] <= 1 for name in row if name.startswith("T = ") or name == "teacher")


def test_temperatures_are_swept_over_images_of_each_seed(monkeypatch):
    seen = []

    def run(student, teacher, split, test, *, seeds, **options):
        seen.append((seeds, split.digest, len(teacher), options["alphas"]))
        return lesson02.pandas.DataFrame([{"seed": seeds[0], "seconds": 0.0}])

    monkeypatch.setattr(lesson02.sweeps, "run", run)
    table = lesson02.temperatures(temperatures=(1, 4), seeds=(5, 6))
    assert table["seed"].tolist() == [5, 6] and "seconds" not in table
    assert seen[0][1] != seen[1][1] and all(
        rows == 1000 and alphas == (0.0, 0.9) for _, _, rows, alphas in seen
    )
