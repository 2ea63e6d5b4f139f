"""The experiments of lesson 03, run very small: what their losses weigh, and whose labels are taken away."""

import ast
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from kdlib import losses
from kdlib.experiments import lesson03, lesson03_teachers
from kdlib.inference import predict_logits
from kdlib.lesson import exercises, results

LESSON = Path(__file__).resolve().parents[1] / "lessons" / "03_loss_balancing.py"

LABELS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def logits():
    """Of two students and their teacher, each (batch, members, classes)."""
    return 3 * torch.randn(2, 8, 2, 10, generator=torch.Generator().manual_seed(0))


def of(member, logits):
    return (tensor[:, member] for tensor in logits)


def test_each_student_has_the_loss_of_its_own_settings(logits):
    balanced = lesson03.BalancedLosses([1.0, 4.0], torch.tensor([0.75, 0.1]), torch.tensor([0.25, 0.9]))
    found = balanced(logits[0], LABELS.repeat(2, 1).T, logits[1])
    for member, (temperature, alpha) in enumerate([(1.0, 0.25), (4.0, 0.9)]):
        student, teacher = of(member, logits)
        expected = losses.distillation_loss(student, teacher, LABELS, temperature=temperature, alpha=alpha)
        assert found[member].item() == pytest.approx(expected.total.item(), rel=1e-5)


def test_the_share_is_that_of_the_exercise(logits):
    balanced = lesson03.BalancedLosses([1.0, 4.0], torch.tensor([0.75, 0.1]), torch.tensor([0.25, 0.9]))
    balanced(logits[0], LABELS.repeat(2, 1).T, logits[1])
    solved = exercises.get("distill_share").solve
    for member, (temperature, alpha) in enumerate([(1.0, 0.25), (4.0, 0.9)]):
        expected = solved(*of(member, logits), LABELS, temperature, alpha)
        assert balanced.shares[0][member].item() == pytest.approx(expected.item(), rel=1e-5)


def test_an_image_without_label_has_no_label_term_and_moves_no_share(logits):
    """The label term is the mean over the images that have one; here three of eight."""
    labels = torch.where(torch.arange(8) < 3, LABELS, lesson03.NO_LABEL)
    balanced = lesson03.BalancedLosses([4.0], torch.ones(1), torch.zeros(1), labelled=3 / 8)
    student, teacher = of(0, logits)
    found = balanced(student.unsqueeze(1), labels.unsqueeze(1), teacher.unsqueeze(1))
    known = torch.nn.functional.cross_entropy(student[:3], LABELS[:3])
    assert found.item() == pytest.approx(known.item(), rel=1e-5)
    assert balanced.shares == [torch.zeros(1)]
    both = lesson03.BalancedLosses([4.0], torch.ones(1), torch.ones(1), labelled=3 / 8)
    both(student.unsqueeze(1), labels.unsqueeze(1), teacher.unsqueeze(1))
    z = student.clone().requires_grad_()
    (b,) = torch.autograd.grad(torch.nn.functional.cross_entropy(z[:3], LABELS[:3]), z)
    (a,) = torch.autograd.grad(losses.soft_target_loss(z, teacher, 4.0), z)
    assert both.shares[0].item() == pytest.approx((a.norm() / (a.norm() + b.norm())).item(), rel=1e-5)


def test_the_lines_of_the_lesson_for_images_without_label_are_the_loss_of_the_recorded_students(logits):
    written = [
        node for node in ast.parse(LESSON.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == "few_labels_loss"
    ]  # fmt: skip
    names = {"F": F, "losses": losses, "NO_LABEL": lesson03.NO_LABEL, "LABELLED": 0.1}
    exec(compile(ast.Module(written, type_ignores=[]), str(LESSON), "exec"), names)  # noqa: S102 - our own lesson
    student, teacher = of(0, logits)
    for labelled in (0, 3, 8):  # a batch may have none at all
        labels = torch.where(torch.arange(8) < labelled, LABELS, lesson03.NO_LABEL)
        recorded = lesson03.BalancedLosses([4.0], [0.75], [0.25], labelled=0.1)
        expected = recorded(student.unsqueeze(1), labels.unsqueeze(1), teacher.unsqueeze(1))
        assert names["few_labels_loss"](student, teacher, labels, 4.0, 0.25).item() == pytest.approx(expected.item())


def test_the_hidden_alpha_has_the_same_balance():
    for alpha, factor in [(0.9, 1 / 160), (0.5, 1.0), (1.0, 0.1)]:
        hidden = lesson03.hidden_alpha(alpha, factor)
        scale = alpha * factor + 1 - alpha
        assert scale * hidden == pytest.approx(alpha * factor)
        assert scale * (1 - hidden) == pytest.approx(1 - alpha)


def test_just_the_asked_share_of_labels_is_wrong():
    split = lesson03.fashion()[0].train.take(200, seed=0)
    for share in (0.0, 0.4, 1.0):
        noisy = lesson03.with_wrong_labels(split, share, seed=1)
        assert (noisy.labels != split.labels).sum() == round(200 * share)
        assert torch.equal(noisy.images, split.images) and torch.equal(noisy.indices, split.indices)
        assert noisy.labels.max() <= 9
    wrong = [lesson03.with_wrong_labels(split, 0.4, seed=seed).labels for seed in (1, 1, 2)]
    assert torch.equal(wrong[0], wrong[1]) and not torch.equal(wrong[0], wrong[2])


def test_a_hundred_images_keep_their_label_whatever_the_pool():
    train = lesson03.fashion()[0].train
    label_of = dict(zip(train.indices.tolist(), train.labels.tolist(), strict=True))
    small, large = (lesson03.some_labelled(images, seed=3) for images in (100, 150))
    assert torch.equal(small.indices, large.indices[:100]) and len(large.indices.unique()) == 150
    assert small.labels.tolist() == [label_of[index] for index in small.indices.tolist()]
    assert large.labels[:100].equal(small.labels) and (large.labels[100:] == lesson03.NO_LABEL).all()


def test_students_of_one_seed_differ_by_their_settings_only():
    group = [{"temperature": 4.0, "alpha": alpha, "seed": 0} for alpha in (0.0, 0.9, 0.9)]
    split = lesson03.fashion()[0].train.take(40, seed=0)
    students = lesson03.train_students(split, lesson03.with_alphas(group), seed=0, epochs=1)
    weights = [
        torch.cat([tensor.flatten() for tensor in student.state_dict().values()]) for student in students
    ]
    same, other = ((weights[1] - weights[number]).abs().mean() for number in (2, 0))
    assert same < 1e-5 < 1e-4 < other  # up to rounding, which depends on the place in the group


def test_a_group_shares_its_settings_and_the_table_keeps_the_order():
    seen = []

    def note(group):
        seen.append({cell["seed"] for cell in group})
        return [{"double": 2 * cell["number"]} for cell in group]

    grid = [{"number": number, "seed": number // 10} for number in range(20)]
    # In this process, so that the groups can be looked at.
    table = lesson03.over_groups(note, grid, ["seed"], workers=0)
    assert table["double"].tolist() == [2 * number for number in range(20)]
    assert seen == [{0}, {0}, {1}, {1}]  # ten students are too many for one network


def test_the_students_of_wrong_labels_are_complete():
    table = lesson03.known_noise()
    cells = table.groupby(["wrong", "alpha"])["seed"]
    assert (cells.nunique() == 10).all() and (cells.size() == 10).all()
    assert len(cells) == 4 * 6
    teacher_alone = table[table["alpha"] == 1].pivot(index="seed", columns="wrong", values="test")
    assert (teacher_alone.nunique(axis=1) == 1).all()  # it never looks at a label


def test_recorded_students_of_the_teacher_alone_have_a_share_of_one():
    table = results.read("lesson03-surface")
    assert (table.loc[table["alpha"] == 1, "share 1"] == 1).all()
    assert (table.loc[table["alpha"] == 0, "share 20"] == 0).all()
    folds = table[[f"fold {number}" for number in range(lesson03.FOLDS)]].mean(axis=1)
    assert folds.tolist() == pytest.approx(table["test"].tolist(), abs=1e-4)


# ------------------------------------------------------------------ teachers of every quality


@pytest.fixture
def schooled(monkeypatch):
    """The images and labels that teachers are trained on, which here takes no time."""
    splits = []
    monkeypatch.setattr(lesson03_teachers.training, "train", lambda model, split, **recipe: splits.append(split))
    lesson03_teachers.teacher_of.cache_clear()
    yield splits
    lesson03_teachers.teacher_of.cache_clear()


def test_teachers_learn_from_images_that_no_student_has(schooled):
    train = lesson03.fashion()[0].train
    label_of = dict(zip(train.indices.tolist(), train.labels.tolist(), strict=True))
    for name, schooling in lesson03_teachers.TEACHERS.items():
        _, transfer_set = lesson03_teachers.teacher_of(name, seed=3)
        assert len(transfer_set) == lesson03.IMAGES
        if name == "the course's teacher":
            continue
        lessons = schooled.pop()
        assert len(lessons) == schooling.images and not torch.isin(lessons.indices, transfer_set.indices).any(), name
        right = torch.tensor([label_of[index] for index in lessons.indices.tolist()])
        assert (lessons.labels != right).sum() == round(schooling.wrong * schooling.images), name
    assert not schooled  # the course's teacher is trained already


def test_students_of_one_seed_have_the_same_images_under_every_teacher(schooled):
    images = [lesson03_teachers.teacher_of(name, seed=3)[1].indices for name in lesson03_teachers.TEACHERS]
    assert all(torch.equal(indices, images[0]) for indices in images)
    assert not torch.equal(lesson03_teachers.teacher_of("300 images", seed=4)[1].indices, images[0])


def test_students_learn_from_the_teacher_that_their_row_names(schooled, monkeypatch):
    given = {}

    def train_students(transfer_set, losses, seed, *, logits):
        given.update(logits=logits, alphas=losses.distill_weights.tolist(), temperatures=losses.temperatures.tolist())
        return [lesson03.models.build("tiny-cnn", seed=number) for number in range(len(losses.temperatures))]

    monkeypatch.setattr(lesson03_teachers, "train_students", train_students)
    group = [{"seed": 3, "teacher": "300 images", "alpha": alpha} for alpha in (0.25, 1.0)]
    rows = lesson03_teachers.on_quality(group)
    teacher, transfer_set = lesson03_teachers.teacher_of("300 images", 3)
    assert torch.equal(given["logits"], predict_logits(teacher, transfer_set))
    assert given["alphas"] == [0.25, 1.0] and given["temperatures"] == [4.0, 4.0]
    assert [set(row) for row in rows] == 2 * [{"validation", "test", "teacher_test", "teacher_transfer"}]
    assert rows[0]["teacher_test"] == rows[1]["teacher_test"] and rows[0]["test"] != rows[1]["test"]


def test_the_recorded_students_of_all_teachers_are_complete():
    table = results.read("lesson03-teachers")
    cells = table.groupby(["teacher", "alpha"])["seed"]
    assert set(table["teacher"]) == set(lesson03_teachers.TEACHERS)
    assert len(cells) == len(lesson03_teachers.TEACHERS) * len(lesson03_teachers.ALPHAS)
    assert (cells.nunique() == 10).all() and (cells.size() == 10).all()
    assert (table.groupby(["teacher", "seed"])["teacher_test"].nunique() == 1).all()
    labels_only = table[table["alpha"] == 0].pivot(index="seed", columns="teacher", values="test")
    spread = labels_only.max(axis=1) - labels_only.min(axis=1)
    assert (spread < 0.002).all()  # students of no teacher are the same under each, up to rounding
