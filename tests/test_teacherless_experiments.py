"""The experiments of lesson 09, run very small: what each arm is, by references of its own.

Their tables and what is read from them: tests/test_teacherless_tables.py.
"""

import math

import numpy as np
import pytest
import torch
from experiment_tables import alike, copied
from scipy import special
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

from kdlib import data, losses, metrics, models, peers, teachers, training
from kdlib.data import ImageSplit
from kdlib.datafree import unlabelled
from kdlib.experiments import (
    choosing,
    lesson09_embeddings,
    lesson09_exits,
    lesson09_few,
    lesson09_ladder,
    lesson09_peers,
    lesson09_self,
    lesson09_several,
    lesson09_two,
)
from kdlib.inference import predict_logits
from kdlib.tasks import shelf
from kdlib.tasks.regression import turned

pytestmark = pytest.mark.usefixtures("one_thread")

TOPICS = {
    "self": lesson09_self, "exits": lesson09_exits, "peers": lesson09_peers, "several": lesson09_several,
    "embeddings": lesson09_embeddings, "two": lesson09_two, "ladder": lesson09_ladder, "few": lesson09_few,
}  # fmt: skip
# What a cell needs besides arm, rate, seed and split; and how small it can be.
CELLS = {
    "self": {"wrong": 0.4, "alpha": 0.5, "temperature": 2.0, "label_rate": 0.02},
    "exits": {"alpha": 0.5, "temperature": 2.0}, "peers": {"weight": 0.5, "temperature": 2.0},
    "several": {"alpha": 0.5, "temperature": 2.0}, "embeddings": {}, "two": {},
    "ladder": {"images": 40, "temperature": 2.0}, "few": {"a_class": 4},
}  # fmt: skip
SIZES = {topic: {"images": 40, "epochs": 1} for topic in ("self", "exits", "peers", "several")} | {
    "embeddings": {"pool": 100, "epochs": 1}, "two": {"pool": 60, "judges": 30, "epochs": 1}, "ladder": {"looks": 40},
    "few": {"looks": 40},
}  # fmt: skip
COUNTS = (40, 80)  # of labels, in place of up to a thousand
MEASURED = {
    "self": {"accuracy", "believed"}, "exits": {"exit 1", "exit 2", "exit 3", "mean"},
    "peers": {"accuracy", "ece", "both", "agreement"}, "several": {"accuracy", "ece"},
    "embeddings": {"probe", *(f"{name} {count}" for name in ("probe", "nearest") for count in COUNTS)},
    "two": {"items met", "angles met", "item", "degrees"}, "ladder": {"accuracy", "agreement", "classes", "sure"},
    "few": {"accuracy"},
}  # fmt: skip
CACHES = (
    lesson09_self.generation, lesson09_several.known, lesson09_embeddings.untrained_teacher,
    lesson09_embeddings.teacher_of, lesson09_embeddings.targets, lesson09_two.turned_items, lesson09_two.targets,
    lesson09_ladder.rung,
)  # fmt: skip


def arms_of(topic):
    """The names of all arms that a table has."""
    module = TOPICS[topic]
    tried = [arm for name in ("GRIDS", "BEYOND", "FURTHER") for arm in getattr(module, name, ())]
    more = {
        "self": lesson09_self.LATER, "exits": [lesson09_exits.TAUGHT_LONGER],
        "several": [lesson09_several.ONE_OUTSIDE, lesson09_several.TWO_OUTSIDE],
        "embeddings": [*lesson09_embeddings.NORMALISED, *UNTRAINED_STUDENTS],
    }  # fmt: skip
    return [*dict.fromkeys([*tried, *more.get(topic, [])])]


UNTRAINED_STUDENTS = (lesson09_embeddings.NOTHING, lesson09_embeddings.PIXELS, lesson09_embeddings.TEACHER)


def cell(topic, arm, seed=0, split="validation", **other):
    return CELLS[topic] | {"arm": arm, "rate": 0.02, "seed": seed, "split": split} | SIZES[topic] | other


@pytest.fixture(scope="module")
def whole():
    return data.load("fashion-mnist")


@pytest.fixture(scope="module")
def few(whole):
    """The first images, so that each keeps its place, by which teachers share the images."""
    train = whole.train.subset(slice(0, 300))
    return data.ImageDataset(train, whole.validation.take(40), whole.test.take(40), whole.classes)


@pytest.fixture(autouse=True)
def small(monkeypatch, few):
    for module in TOPICS.values():
        monkeypatch.setattr(module, "fashion", lambda: few)
    monkeypatch.setattr(lesson09_embeddings, "COUNTS", COUNTS)
    forget()
    yield
    forget()


def forget():
    for cache in CACHES:
        cache.cache_clear()


@pytest.fixture
def trainings(monkeypatch):
    """What every training was asked for, none of which trains: student, split, teacher, and options."""
    asked = []

    def train(student, split, **options):
        asked.append({"student": student, "split": split, "teacher": None} | options)

    def distill(student, teacher, split, **options):
        asked.append({"student": student, "split": split, "teacher": teacher} | options)

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(training, "distill", distill)
    return asked


@pytest.fixture
def asked_for(trainings):
    """The row of one cell, and the trainings that it asked for."""

    def ask(topic, arm, **other):
        trainings.clear()
        row = TOPICS[topic].on_split(**cell(topic, arm, **other))
        return row, [*trainings]

    return ask


@pytest.fixture
def trained(monkeypatch):
    """Every real training: as `trainings`, with the weights before it."""
    done = []
    train, distill = training.train, training.distill

    def note(student, split, teacher, options):
        done.append({"student": student, "first": copied(student), "split": split, "teacher": teacher} | options)

    def noted_train(student, split, **options):
        note(student, split, None, options)
        return train(student, split, **options)

    def noted_distill(student, teacher, split, **options):
        note(student, split, teacher, options)
        return distill(student, teacher, split, **options)

    monkeypatch.setattr(training, "train", noted_train)
    monkeypatch.setattr(training, "distill", noted_distill)
    return done


def softmax(logits, temperature=1.0):
    return special.softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1)


def share_right(logits, labels):
    return float(np.mean(np.asarray(logits).argmax(axis=1) == np.asarray(labels)))


def cross_entropy(logits, targets):
    return float(-(targets * np.log(softmax(logits))).sum(axis=1).mean())


def divergence(teacher, student, temperature):
    """T^2 * KL(p_teacher || p_student), averaged over the images."""
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return float(temperature**2 * (p * np.log(p / q)).sum(axis=1).mean())


def one_hot(labels, classes=10):
    return np.eye(classes)[np.asarray(labels)]


# ------------------------------------------------------------------ every topic


def test_every_arm_of_every_topic_trains_and_gives_finite_numbers_of_its_names():
    for topic, module in TOPICS.items():
        for arm in arms_of(topic):
            row = module.on_split(**cell(topic, arm, seed=3))
            assert set(row) == MEASURED[topic], (topic, arm)
            assert all(type(value) is float and math.isfinite(value) for value in row.values()), (topic, arm)
            shares = {
                name for name in row if name not in ("degrees", "items met", "angles met", "classes", "believed")
            }
            assert all(0 <= row[name] <= 1 for name in shares), (topic, arm)
            assert topic != "two" or max(row["items met"], row["angles met"]) <= 1 and 0 <= row["degrees"], arm
            assert topic != "ladder" or 1 <= row["classes"] <= 10, arm
            assert topic != "self" or 0 <= row["believed"] <= 1, arm
        assert module.on_split(**cell(topic, arm, seed=3)) == row, "the last arm again"


def test_arms_of_one_seed_begin_alike_and_see_the_same_images_and_other_seeds_do_not(asked_for):
    """But for later generations, which begin each on its own, and rungs, which are other images."""
    for topic in ("self", "exits", "peers", "several", "ladder", "few"):
        own = {arm: asked_for(topic, arm, seed=5)[1][-1] for arm in arms_of(topic)}
        if topic != "self":
            # Of a pair of which one teaches the other, the first of both learns in the end.
            weights = [copied(one["student"]) for arm, one in own.items() if arm != lesson09_peers.TAUGHT]
            assert all(alike(one, weights[0]) for one in weights), topic
            assert all(one["seed"] == 5 for one in own.values()), topic
        if topic != "ladder":
            images = [one["split"].indices.unique() for one in own.values()]
            assert all(torch.equal(one, images[0]) for one in images), topic
        first = own[arms_of(topic)[0]]
        other = asked_for(topic, arms_of(topic)[0], seed=6)[1][-1]
        assert not alike(copied(other["student"]), copied(first["student"])), topic
        assert topic == "ladder" or not torch.equal(other["split"].indices, first["split"].indices), topic


def test_arms_learn_at_their_rate():
    """Of self-distillation, generation 0 learns at another one."""
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", lambda *given, **options: asked.append(options["learning_rate"]))
        patch.setattr(training, "distill", lambda *given, **options: asked.append(options["learning_rate"]))
        for topic, module in TOPICS.items():
            for arm in arms_of(topic):
                asked.clear()
                forget()
                module.on_split(**cell(topic, arm, rate=0.07))
                assert arm in UNTRAINED_STUDENTS or asked[-1] == 0.07, (topic, arm)
                earlier = {lesson09_self.FROM_SHORTER: [0.06], lesson09_self.HARD: [0.02], lesson09_self.BORN: [0.02]}
                earlier |= {f"generation {n}": [0.02] + [0.07] * (n - 1) for n in (2, 3)}
                earlier[lesson09_peers.TAUGHT] = [0.07]
                assert asked[:-1] == earlier.get(arm, []), (topic, arm)


def test_an_answer_as_label_is_as_sure_as_a_float_can_be():
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.1, 0.0, -5.0]])
    said = choosing.as_label(logits).softmax(dim=1)
    assert said.argmax(dim=1).tolist() == [1, 0]
    assert said.amax(dim=1).tolist() == [1.0, 1.0] and said.amin(dim=1).max() < 1e-20


# ------------------------------------------------------------------ self-distillation


def test_generation_k_is_taught_by_generation_k_minus_1(trained, few):
    row = lesson09_self.on_split(**cell("self", "generation 3", seed=2))
    assert [one["teacher"] is None for one in trained] == [True, False, False, False]
    for number, (before, one) in enumerate(zip(trained, trained[1:], strict=False), 1):
        expected = predict_logits(before["student"], few.train.take(40, seed=2))
        assert torch.equal(one["teacher"], expected), number
        assert (one["alpha"], one["temperature"]) == (0.5, 2.0)
    assert not any(alike(one["first"], other["first"]) for one in trained for other in trained if one is not other)
    assert len({one["teacher"].sum().item() for one in trained[1:]}) == 3
    own = copied(models.build("tiny-cnn", seed=2))
    assert alike(trained[0]["first"], own), "generation 0 begins as students of the other lessons"
    assert row["accuracy"] == pytest.approx(
        share_right(predict_logits(trained[-1]["student"], few.validation), few.validation.labels)
    )
    for number in (1, 2):
        trained.clear()
        forget()
        lesson09_self.on_split(**cell("self", f"generation {number}", seed=2))
        assert len(trained) == 1 + number


def test_wrong_labels_are_for_learning_alone(asked_for, few, monkeypatch):
    """And `believed` is the share of them that the student repeats."""
    right, judged = few.train.take(40, seed=4), []
    accuracy = metrics.accuracy
    monkeypatch.setattr(metrics, "accuracy", lambda model, split: judged.append(split) or accuracy(model, split))
    for arm in arms_of("self"):
        judged.clear()
        forget()
        row, found = asked_for("self", arm, seed=4, split="test")
        for one in found:
            wrong = one["split"].labels != right.labels
            assert wrong.sum() == 16 and torch.equal(one["split"].images, right.images), arm
        assert torch.equal(judged[0].labels, few.test.labels) and torch.equal(judged[0].images, few.test.images), arm
        said = predict_logits(found[-1]["student"], right)[wrong]
        assert row["believed"] == pytest.approx(share_right(said, found[-1]["split"].labels[wrong])), arm
        assert torch.equal(judged[1].labels, found[-1]["split"].labels[wrong]), arm
        row, found = asked_for("self", arm, seed=4, wrong=0.0)
        assert row["believed"] == -1 and all(torch.equal(one["split"].labels, right.labels) for one in found), arm


def test_arms_of_self_distillation_differ_in_their_length_smoothing_and_teacher(asked_for, few):
    lengths = {
        "labels": 30, "labels, as long as all generations": 120, "labels, a third as long": 10,
        "labels, a tenth as long": 3, "labels, smoothed": 30, "labels, smoothed, a third as long": 10,
    }  # fmt: skip
    assert set(lengths) == set(lesson09_self.ALONE)
    for arm, epochs in lengths.items():
        _, (one,) = asked_for("self", arm, epochs=30)
        assert one["epochs"] == epochs and one["teacher"] is None, arm
        assert one["label_smoothing"] == (0.5 if "smoothed" in arm else 0), arm
    split = few.train.take(40, seed=0)
    _, (first, second) = asked_for("self", lesson09_self.HARD, epochs=30)
    said = predict_logits(first["student"], split)
    assert torch.equal(second["teacher"].argmax(dim=1), said.argmax(dim=1))
    assert torch.allclose(second["teacher"].softmax(dim=1).amax(dim=1), torch.ones(40))
    assert {(one["alpha"], one["temperature"]) for one in lesson09_self.GRIDS[lesson09_self.HARD]} == {(1.0, 1.0)}
    _, (first, second) = asked_for("self", lesson09_self.FROM_SHORTER, epochs=30)
    assert (first["epochs"], second["epochs"], first["teacher"]) == (10, 30, None)
    assert torch.equal(second["teacher"], predict_logits(first["student"], split))
    assert not alike(copied(first["student"]), copied(second["student"]))
    _, (one,) = asked_for("self", lesson09_self.COURSE, epochs=30)
    assert torch.allclose(one["teacher"], predict_logits(teachers.load("fashion-mnist"), split), atol=1e-4)


# ------------------------------------------------------------------ early exits


def exits_by_hand(network, split):
    """The logits of each exit, layer by layer."""
    network.eval()
    with torch.no_grad():
        maps, found = split.normalized(), []
        for number, stage in enumerate(network.stages):
            maps = stage(maps)
            head = network.head if number == 2 else network.exits[number]
            found.append(maps.mean(dim=(2, 3)) @ head.weight.T + head.bias)
    return found


def test_the_loss_of_the_last_exit_alone_leaves_the_earlier_heads_untouched(trained):
    """But for the decay of all weights, which keeps their direction."""
    torch.manual_seed(0)
    network, images = peers.ExitCNN(), torch.randn(8, 1, 28, 28)
    lesson09_exits.last_exit_loss(network(images), torch.arange(8)).backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {name for name, _ in network.named_parameters() if not name.startswith("exits.")}
    for arm in arms_of("exits"):
        trained.clear()
        lesson09_exits.on_split(**cell("exits", arm, rate=0.1, epochs=3))
        ((first, last),) = [(one["first"], copied(one["student"])) for one in trained]
        for name in (name for name in first if name.startswith("exits.")):
            like = F.cosine_similarity(first[name].flatten(), last[name].flatten(), dim=0)
            assert (like > 1 - 1e-5) == arm.startswith("last exit alone"), (arm, name)
        assert F.cosine_similarity(first["head.weight"].flatten(), last["head.weight"].flatten(), dim=0) < 0.999


def test_arms_of_exits_differ_in_their_loss_and_length(asked_for, few):
    random = torch.Generator().manual_seed(0)
    logits, labels = 2 * torch.randn(6, 30, generator=random), torch.arange(6)
    *early, last = np.split(logits.numpy(), 3, axis=1)
    by_labels = [cross_entropy(own, one_hot(labels)) for own in (*early, last)]
    by_last = sum(divergence(last, own, 2.0) for own in early)
    expected = {"last": by_labels[2], "labels": sum(by_labels)}
    expected["taught"] = by_labels[2] + 0.7 * sum(by_labels[:2]) + 0.3 * by_last
    for arm in arms_of("exits"):
        alpha = 0.3 if arm.startswith("taught") else 0.0
        row, (one,) = asked_for("exits", arm, alpha=alpha, epochs=2)
        assert one["task_loss"](logits, labels).item() == pytest.approx(expected[arm.split()[0]], rel=1e-5), arm
        assert one["epochs"] == (6 if "three times as long" in arm else 2), arm
        shares = [share_right(own, few.validation.labels) for own in exits_by_hand(one["student"], few.validation)]
        assert [row[f"exit {number}"] for number in (1, 2, 3)] == pytest.approx(shares), arm
        assert row["mean"] == pytest.approx(shares[2] if arm.startswith("last") else np.mean(shares)), arm


# ------------------------------------------------------------------ peers


def test_peers_who_hear_nothing_of_each_other_are_students_trained_alone(trained, few):
    seeds = 5, 5 + 500_000
    alone = [models.build("tiny-cnn", seed=seed) for seed in seeds]
    for student in alone:
        training.train(
            student, few.train.take(40, seed=5), epochs=2, learning_rate=0.02, batch_size=32, seed=5, progress=False
        )
    for arm, weight in ((lesson09_peers.ALONE, 0.5), (lesson09_peers.MUTUAL, 0.0)):
        trained.clear()
        row = lesson09_peers.on_split(**cell("peers", arm, seed=5, weight=weight, epochs=2))
        (one,) = trained
        for own, expected in zip(one["student"].members, alone, strict=True):
            for name, weights in copied(expected).items():
                assert torch.allclose(own.state_dict()[name], weights, rtol=1e-3, atol=1e-4), (arm, name)
        right = share_right(predict_logits(alone[0], few.validation), few.validation.labels)
        assert row["accuracy"] == pytest.approx(right), arm
    trained.clear()
    lesson09_peers.on_split(**cell("peers", lesson09_peers.MUTUAL, seed=5, weight=1.0, epochs=2))
    assert not torch.allclose(trained[0]["student"].members[0].head.weight, alone[0].head.weight, atol=1e-4)


def test_arms_of_peers_differ_in_their_loss_length_and_teacher(asked_for, few):
    random = torch.Generator().manual_seed(0)
    logits, labels = 2 * torch.randn(6, 20, generator=random), torch.arange(6)
    both = np.split(logits.numpy(), 2, axis=1)
    by_labels = sum(cross_entropy(own, one_hot(labels)) for own in both)
    smooth = sum(cross_entropy(own, 0.5 * one_hot(labels) + 0.05) for own in both)
    mutual = by_labels + 0.5 * (divergence(both[0], both[1], 2.0) + divergence(both[1], both[0], 2.0))
    expected = {
        lesson09_peers.ALONE: by_labels, lesson09_peers.LONGER: by_labels, lesson09_peers.SMOOTH: smooth,
        lesson09_peers.MUTUAL: mutual,
    }  # fmt: skip
    for arm, value in expected.items():
        _, (one,) = asked_for("peers", arm, epochs=3)
        assert one["task_loss"](logits, labels).item() == pytest.approx(value, rel=1e-5), arm
        assert one["epochs"] == (6 if arm == lesson09_peers.LONGER else 3), arm
    _, (second, first) = asked_for("peers", lesson09_peers.TAUGHT, epochs=3)
    assert (first["alpha"], first["temperature"], second["epochs"], first["epochs"]) == (0.5, 2.0, 3, 3)
    assert torch.equal(first["teacher"], predict_logits(second["student"], few.train.take(40, seed=0)))
    _, (one,) = asked_for("peers", lesson09_peers.ALONE)
    pair = [copied(member) for member in one["student"].members]
    assert alike(copied(first["student"]), pair[0]) and alike(copied(second["student"]), pair[1])


def test_a_pair_is_judged_by_its_first_by_both_and_by_how_often_they_agree(asked_for, few):
    row, (one,) = asked_for("peers", lesson09_peers.MUTUAL, seed=1)
    labels = few.validation.labels
    first, second = (predict_logits(member, few.validation) for member in one["student"].members)
    assert row["accuracy"] == pytest.approx(share_right(first, labels))
    assert row["both"] == pytest.approx(share_right(softmax(first) + softmax(second), labels))
    assert row["agreement"] == pytest.approx(share_right(first, second.argmax(dim=1)))
    assert row["ece"] == pytest.approx(metrics.calibration_error(first, few.validation))


# ------------------------------------------------------------------ several teachers


def test_several_teachers_are_the_closed_forms_of_one():
    random = torch.Generator().manual_seed(0)
    logits = [3 * torch.randn(7, 10, generator=random) for _ in range(3)]
    mean = lambda temperature: np.mean([softmax(own, temperature) for own in logits], axis=0)  # noqa: E731
    found = lesson09_several.of_several(logits, lesson09_several.PROBABILITIES, 4.0)
    assert np.allclose(softmax(found), mean(1.0), atol=1e-6)
    found = lesson09_several.of_several(logits, lesson09_several.LOGITS, 4.0)
    assert np.allclose(found, np.mean([own.numpy() for own in logits], axis=0), atol=1e-6)
    one = lesson09_several.of_several(logits, lesson09_several.LOSSES, 4.0)
    assert np.allclose(softmax(one, 4.0), mean(4.0), atol=1e-6)
    # The losses of all three, added up, have three times the gradient of the loss with the one.
    student = torch.randn(7, 10, generator=random, requires_grad=True)
    added = sum(losses.soft_target_loss(student, own, 4.0) for own in logits)
    (of_all,) = torch.autograd.grad(added, student)
    (of_one,) = torch.autograd.grad(losses.soft_target_loss(student, one, 4.0), student)
    assert torch.allclose(of_all, 3 * of_one, atol=1e-6) and of_all.abs().max() > 0.01


def test_arms_of_several_teachers_differ_in_whom_they_ask(asked_for, few):
    split = few.train.take(40, seed=4)
    each = [predict_logits(shelf.load(name), split) for name in lesson09_several.THIRDS]
    for arm in (lesson09_several.PROBABILITIES, lesson09_several.LOGITS, lesson09_several.LOSSES):
        _, (one,) = asked_for("several", arm, seed=4)
        expected = lesson09_several.of_several(each, arm, 2.0)
        assert torch.allclose(one["teacher"], expected, atol=1e-4) and torch.equal(one["split"].images, split.images)
    for seed in (4, 5, 6):
        _, (one,) = asked_for("several", lesson09_several.ONE, seed=seed)
        own = predict_logits(shelf.load(lesson09_several.THIRDS[seed % 3]), few.train.take(40, seed=seed))
        assert torch.allclose(one["teacher"], own, atol=1e-4), "each third is asked for a third of the seeds"
    _, (one,) = asked_for("several", lesson09_several.IN_TURN, seed=4, epochs=9)
    assert one["epochs"] == 3 and len(one["split"]) == 120, "as many looks at images"
    for number, expected in enumerate(each):
        rows = slice(40 * number, 40 * (number + 1))
        assert torch.equal(one["split"].images[rows], split.images)
        assert torch.equal(one["split"].labels[rows], split.labels)
        assert torch.allclose(one["teacher"][rows], expected, atol=1e-4)
    _, (one,) = asked_for("several", lesson09_several.LABELS, seed=4, epochs=9)
    assert one["teacher"] is None and one["epochs"] == 9


def test_the_teacher_that_learned_from_an_image_is_the_one_that_is_left_out(asked_for, few, whole):
    split = few.train.take(40, seed=4)
    each = torch.stack([predict_logits(shelf.load(name), split) for name in lesson09_several.THIRDS])
    learned = [
        {*shelf.TASKS[name].taught(whole.train, shelf.IMAGES, seed=shelf.SEED).indices.tolist()}
        for name in lesson09_several.THIRDS
    ]
    owners = [[index in own for own in learned].index(True) for index in split.indices.tolist()]
    assert set(owners) == {0, 1, 2}
    _, (both,) = asked_for("several", lesson09_several.TWO_OUTSIDE, seed=4)
    _, (single,) = asked_for("several", lesson09_several.ONE_OUTSIDE, seed=4)
    asked = set()
    for row, owner in enumerate(owners):
        others = [number for number in range(3) if number != owner]
        assert torch.allclose(both["teacher"][row], each[others, row].mean(dim=0), atol=1e-4), row
        (who,) = [n for n in range(3) if torch.allclose(single["teacher"][row], each[n, row], atol=1e-4)]
        assert who != owner, row
        asked.add((owner, who))
    assert {who for _, who in asked} == {0, 1, 2} and len(asked) == 3, "each teacher is asked for one third"


# ------------------------------------------------------------------ embeddings


def by_hand(network, pixels):
    """The mean over positions of the last maps of a network that gets these numbers."""
    maps = []
    handle = network.stages[2].register_forward_hook(lambda module, given, made: maps.append(made))
    with torch.no_grad():
        network.eval()(pixels)
    handle.remove()
    return maps[0].mean(dim=(2, 3))


def seen_by(images, description):
    """The images as a teacher of a task wants them, by its manifest."""
    mean, std = (torch.tensor(description[name]).view(-1, 1, 1) for name in ("mean", "std"))
    return (images.float() / 255 - mean) / std


def test_embeddings_that_are_standardised_have_mean_0_and_deviation_1():
    values = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 9.0, 0.01, 0.0]) + 3
    found, one = lesson09_embeddings.standardised(values), values.numpy()
    expected = (one[:, :3] - one[:, :3].mean(axis=0)) / one[:, :3].std(axis=0)
    assert np.allclose(found[:, :3], expected, atol=1e-3) and found[:, 3].abs().max() == 0


def test_another_normalisation_reaches_the_teacher(few):
    network, split = teachers.load("fashion-mnist").network, few.validation
    pixels = split.images.float() / 255
    of = lesson09_embeddings
    own = by_hand(network, (pixels - few.mean.view(-1, 1, 1)) / few.std.view(-1, 1, 1))
    assert torch.allclose(of.pooled(of.teacher_of(of.STANDARDISED), split), own, atol=1e-3)
    expected = {
        "pixels from 0 to 1": pixels, "pixels from -1 to 1": 2 * pixels - 1, "ImageNet's": (pixels - 0.449) / 0.226,
        "pixels from 0 to 255": split.images.float(),
    }  # fmt: skip
    assert set(expected) == set(of.NORMALISED)
    for arm, given in expected.items():
        found, wanted = of.pooled(of.teacher_of(arm), split), by_hand(network, given)
        assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-3), arm
        assert (found - own).abs().max() > 0.05, arm


def test_the_untrained_teacher_is_the_courses_before_its_first_step_with_statistics_of_images(few):
    found, fresh = lesson09_embeddings.untrained_teacher().network, models.build("resnet8x2", seed=0)
    weights = dict(fresh.named_parameters())
    assert all(torch.equal(value, weights[name]) for name, value in found.named_parameters())
    given = []
    norms = [module for module in found.modules() if isinstance(module, nn.BatchNorm2d)]
    handle = norms[0].register_forward_hook(lambda module, inputs, made: given.append(inputs[0]))
    with torch.no_grad():
        found(few.train.normalized())
    handle.remove()
    assert torch.allclose(norms[0].running_mean, given[0].mean(dim=(0, 2, 3)), atol=1e-4)
    assert torch.allclose(norms[0].running_var, given[0].var(dim=(0, 2, 3)), rtol=1e-2)
    assert not found.training and all((norm.running_mean != 0).any() for norm in norms)


def test_students_of_embeddings_get_their_teachers_features_and_no_label(asked_for, few):
    of, split = lesson09_embeddings, few.train.take(100, seed=4)
    rows = [few.train.indices.tolist().index(index) for index in split.indices.tolist()]
    course = by_hand(teachers.load("fashion-mnist").network, few.train.normalized())
    expected = {of.COSINE: course, of.SQUARED: course, of.STANDARDISED: course}
    turned_pixels = seen_by(few.train.images, shelf.manifest("turned"))
    expected[of.ANGLES] = by_hand(shelf.load("turned").network, turned_pixels)
    expected[of.UNTRAINED] = by_hand(of.untrained_teacher().network, few.train.normalized())
    for arm, values in expected.items():
        _, (one,) = asked_for("embeddings", arm, seed=4)
        wanted = values.numpy()
        if arm not in (of.COSINE, of.SQUARED):
            wanted = (wanted - wanted.mean(axis=0)) / wanted.std(axis=0).clip(min=1e-6)
        assert np.allclose(one["teacher"], wanted[rows], rtol=1e-2, atol=1e-2), arm
        assert one["loss"] is (losses.cosine_logit_loss if arm == of.COSINE else losses.logit_mse_loss), arm
        assert one["alpha"] == 1 and torch.equal(one["split"].images, split.images), arm
    for arm in UNTRAINED_STUDENTS:
        assert not asked_for("embeddings", arm)[1], arm


def test_the_nearest_is_that_of_the_smallest_angle():
    known = torch.tensor([[1.0, 0.0], [0.0, 9.0], [-2.0, -2.0]])
    labels = torch.tensor([7, 3, 5])
    # The second is nearer to the first known one by distance, and to the second by angle.
    asked = torch.tensor([[5.0, 0.1], [0.4, 0.5], [-0.1, -0.12], [0.0, 0.01]])
    assert lesson09_embeddings.nearest(known, labels, asked).tolist() == [7, 3, 5, 3]
    assert lesson09_embeddings.nearest(100 * known, labels, asked / 100).tolist() == [7, 3, 5, 3]


def test_a_probe_tells_what_a_line_can_tell_and_not_what_it_cannot():
    random = torch.Generator().manual_seed(0)
    points = torch.randn(400, 2, generator=random)
    for labels, low, high in (
        ((points[:, 0] > 0).long() * 4, 0.9, 1.0),
        ((points[:, 0] * points[:, 1] > 0).long(), 0.3, 0.7),  # opposite quarters
    ):
        found = lesson09_embeddings.probe(points[:200] * 1000, labels[:200], points[200:] * 1000)
        assert low <= (found == labels[200:]).float().mean() <= high
        assert set(found.tolist()) <= set(labels.tolist())


def test_embeddings_are_judged_by_both_classifiers_with_each_number_of_labels(monkeypatch, few):
    of = lesson09_embeddings
    monkeypatch.setattr(of, "embedding_of", lambda *given, **sizes: lambda split: F.one_hot(split.labels, 10).float())
    row = of.on_split(**cell("embeddings", of.COSINE))
    assert row["nearest 40"] == row["nearest 80"] == 1 and 0.5 < row["probe 40"] < row["probe 80"]
    assert row["probe"] == pytest.approx((row["probe 40"] + row["probe 80"]) / 2)
    asked = []
    monkeypatch.setattr(of, "probe", lambda known, labels, wanted: asked.append(len(known)) or torch.zeros(40))
    row = of.on_split(**cell("embeddings", of.COSINE))
    zeros = float((few.validation.labels == 0).float().mean())
    assert asked == [*COUNTS] and row["probe 40"] == row["probe"] == pytest.approx(zeros) and row["nearest 40"] == 1


# ------------------------------------------------------------------ two teachers of different scale


def test_the_share_that_is_explained_by_hand():
    random = np.random.default_rng(0)
    wanted = random.normal(size=(30, 4)) * [1, 5, 0.1, 2] + [3, 0, -9, 1]
    said = wanted + random.normal(size=wanted.shape)
    expected = 1 - ((said - wanted) ** 2).sum() / ((wanted - wanted.mean(axis=0)) ** 2).sum()
    tensors = torch.from_numpy(said), torch.from_numpy(wanted)
    assert lesson09_two.explained(*tensors) == pytest.approx(expected)
    assert lesson09_two.explained(tensors[1], tensors[1]) == 1
    mean = tensors[1].mean(dim=0).expand_as(tensors[1])
    assert lesson09_two.explained(mean, tensors[1]) == pytest.approx(0)
    assert lesson09_two.explained(-mean, tensors[1]) < 0


def test_the_class_of_a_turned_item_is_that_of_the_item(few):
    shuffled = few.train.subset(torch.randperm(300, generator=torch.Generator().manual_seed(0)))
    classes = dict(zip(few.train.indices.tolist(), few.train.labels.tolist(), strict=True))
    for split in (turned(few.train, 50, seed=3), turned(shuffled, 50, seed=4)):
        expected = [classes[index] for index in split.indices.tolist()]
        assert len(set(expected)) > 5
        for items in (few.train, shuffled):
            assert lesson09_two.classes_of(split, items).tolist() == expected


def test_students_of_two_teachers_get_both_embeddings_and_no_label(asked_for, few):
    split = turned(few.train, 60, seed=0)
    wanted = np.concatenate([
        by_hand(teachers.load("fashion-mnist").network, split.normalized()),
        by_hand(shelf.load("turned").network, seen_by(split.images, shelf.manifest("turned"))),
    ], axis=1)  # fmt: skip
    for arm in arms_of("two"):
        _, (one,) = asked_for("two", arm)
        if arm == lesson09_two.STANDARDISED:
            wanted = (wanted - wanted.mean(axis=0)) / wanted.std(axis=0).clip(min=1e-6)
        assert np.allclose(one["teacher"], wanted, rtol=1e-2, atol=1e-2), arm
        assert one["alpha"] == 1 and one["loss"] is losses.logit_mse_loss and not one["split"].labels.any(), arm
        assert torch.equal(one["split"].images, split.images), arm


def test_a_student_that_says_what_both_teachers_say_meets_all_of_them(monkeypatch, trainings):
    """Also where it says it standardised: it is judged in the units of the teachers."""
    of = lesson09_two
    own = torch.cat(of.targets(60, 30, "train"), dim=1)
    mean, deviation = own.mean(dim=0), own.std(dim=0, unbiased=False)
    for arm in arms_of("two"):

        def said(student, split, arm=arm):
            which = "train" if len(split) == 60 else "validation"
            values = torch.cat(of.targets(60, 30, which), dim=1)
            return (values - mean) / deviation.clamp(min=1e-6) if arm == of.STANDARDISED else values

        monkeypatch.setattr(of, "predict_logits", said)
        row = of.on_split(**cell("two", arm))
        assert row["items met"] == pytest.approx(1, abs=1e-3) and row["angles met"] == pytest.approx(1, abs=1e-3), arm
        assert row["item"] > 0.3 and row["degrees"] < 30, f"{arm}: that is chance"


def test_an_angle_is_read_in_degrees():
    """From rows that say nothing the mean angle is read; from rows that say all, the angle."""
    random = torch.Generator().manual_seed(0)
    known, right = torch.rand(3000, 1, generator=random), torch.rand(40, 1, generator=random)
    nothing = lesson09_two.read_angle(torch.zeros(3000, 2), known, torch.zeros(40, 2), right)
    assert nothing == pytest.approx(120 * float((right - known.mean()).abs().mean()), rel=1e-4)
    assert lesson09_two.read_angle(known.repeat(1, 2), known, right.repeat(1, 2), right) < 2


# ------------------------------------------------------------------ without data


def test_rungs_have_as_many_images_as_are_asked_for_and_only_real_ones_have_labels(few):
    real, every = few.train.take(60, seed=4), {}
    known = {image.tobytes() for image in real.images.numpy()}
    for arm in arms_of("ladder"):
        images = 1000 if arm == lesson09_ladder.INVERTED else 60
        split = every[arm] = lesson09_ladder.rung(arm, images, 4)
        assert len(split) == images and split.images.shape[1:] == (1, 28, 28), arm
        assert torch.equal(split.mean, few.mean) and torch.equal(split.std, few.std), arm
        of_real = arm in (lesson09_ladder.REAL, lesson09_ladder.LABELS)
        assert torch.equal(split.labels, real.labels) if of_real else not split.labels.any(), arm
        shared = {image.tobytes() for image in split.images.numpy()} & known
        assert torch.equal(split.images, real.images) if of_real else not shared, arm
    means = {float(split.images.double().mean()) for split in every.values()}
    assert len(means) == len(every) - 2, "two more rungs have the real pixels"
    flat = [every[arm].images.flatten(1).sort(dim=1).values for arm in (lesson09_ladder.SHUFFLED, lesson09_ladder.REAL)]
    assert torch.equal(*flat)
    assert set(arms_of("ladder")) == {*lesson09_ladder.RUNGS, lesson09_ladder.LABELS}


def test_rungs_are_copied_with_the_teachers_answers_alone(asked_for, few):
    teacher = teachers.load("fashion-mnist")
    for arm in arms_of("ladder"):
        row, (one,) = asked_for("ladder", arm, looks=120)
        answers = predict_logits(teacher, one["split"])
        if arm == lesson09_ladder.LABELS:
            assert one["teacher"] is None and "alpha" not in one
        else:
            assert one["alpha"] == 1 and one["temperature"] == 2, arm
            assert torch.allclose(one["teacher"], answers, atol=1e-3), arm
        assert one["epochs"] == 3, arm
        of = few.validation
        logits = predict_logits(one["student"], of)
        assert row["accuracy"] == pytest.approx(share_right(logits, of.labels)), arm
        assert row["agreement"] == pytest.approx(share_right(logits, predict_logits(teacher, of).argmax(dim=1))), arm
        shares = softmax(answers).mean(axis=0)
        assert row["classes"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-3), arm
        assert row["sure"] == pytest.approx(softmax(answers).max(axis=1).mean(), rel=1e-3), arm


def test_both_numbers_of_images_get_as_long_a_training_up_to_the_most_epochs(asked_for):
    for looks, epochs in ((40, 1), (39, 1), (400, 10), (54_000, 20)):
        assert asked_for("ladder", lesson09_ladder.NOISE, looks=looks)[1][0]["epochs"] == epochs


# ------------------------------------------------------------------ few images


def test_views_divide_the_epochs_and_are_as_many_as_may_be():
    for images, epochs in ((10, 300), (20, 300), (50, 300), (100, 200), (200, 100), (500, 40), (1000, 20), (4000, 7)):
        views = lesson09_few.views_for(images, epochs)
        assert epochs % views == 0 and images * views <= 4000
        more = [other for other in range(views + 1, epochs + 1) if epochs % other == 0 and images * other <= 4000]
        assert not more, (images, epochs)
    assert [lesson09_few.passes(10 * a_class) for a_class in lesson09_few.A_CLASS] == [300, 300, 300, 200, 100, 40, 20]


def test_all_arms_of_a_count_see_the_same_images(asked_for, few):
    for a_class in (1, 3):
        split = few.train.take(10 * a_class, seed=4)
        for arm in arms_of("few"):
            _, (one,) = asked_for("few", arm, a_class=a_class, seed=4, looks=60 * a_class)
            assert torch.equal(one["split"].indices.unique(), split.indices.sort().values), arm
            if arm != lesson09_few.WRONG_VIEWS:
                assert torch.equal(one["split"].images, split.images) and one["epochs"] == 6, arm


def test_arms_of_few_images_differ_in_labels_and_views(asked_for, few):
    split, teacher = few.train.take(40, seed=4), teachers.load("fashion-mnist")
    answers = predict_logits(teacher, split)
    found = {arm: asked_for("few", arm, seed=4, looks=240)[1][0] for arm in arms_of("few")}
    for arm, one in found.items():
        assert (one["teacher"] is None) == arm.startswith("hard"), arm
        assert arm.startswith("hard") or (one["alpha"], one["temperature"]) == (1, 4.0), arm
        of_views = arm in (lesson09_few.HARD_VIEWS, lesson09_few.SOFT_VIEWS)
        assert one.get("views") == (6 if of_views else None) and (one.get("augment") is not None) == of_views, arm
    assert torch.allclose(found[lesson09_few.SOFT]["teacher"], answers, atol=1e-4)
    asked = found[lesson09_few.SOFT_VIEWS]["teacher"]
    assert isinstance(asked, nn.Module) and torch.allclose(predict_logits(asked, split), answers, atol=1e-4)
    wrong = found[lesson09_few.WRONG_VIEWS]
    assert torch.allclose(wrong["teacher"], answers[torch.arange(240) // 6], atol=1e-4)
    assert torch.equal(wrong["split"].indices, split.indices[torch.arange(240) // 6])
    same = (wrong["split"].images == split.images[torch.arange(240) // 6]).flatten(1).all(dim=1)
    assert same.float().mean() < 0.2, "its views are views"


def test_every_arm_of_a_count_takes_as_many_steps():
    for a_class in (1, 4, 7):
        counted = {}
        for arm in arms_of("few"):
            steps = []
            handle = register_optimizer_step_post_hook(lambda *given, steps=steps: steps.append(1))
            try:
                lesson09_few.on_split(**cell("few", arm, a_class=a_class, looks=60 * a_class))
            finally:
                handle.remove()
            counted[arm] = len(steps)
        assert set(counted.values()) == {6 * math.ceil(10 * a_class / 32)}, (a_class, counted)


def test_each_view_of_an_image_has_the_teachers_answer_to_that_view(monkeypatch, own_cache, few):
    """What a soft label a view is, against the one label for all views."""
    seen = []
    whole_teacher = teachers.load("fashion-mnist")

    class Noted(nn.Module):
        def forward(self, images):
            seen.append(images)
            return whole_teacher.network(images)

    monkeypatch.setattr(teachers, "load", lambda name: Noted())
    own = {row.numpy().tobytes() for row in few.train.take(10, seed=0).normalized()}
    asked = {}
    for arm in (lesson09_few.SOFT_VIEWS, lesson09_few.WRONG_VIEWS):
        seen.clear()
        lesson09_few.on_split(**cell("few", arm, a_class=1, looks=60))
        asked[arm] = {row.numpy().tobytes() for row in torch.cat(seen)}
    assert len(asked[lesson09_few.SOFT_VIEWS] - own) > 30, "six views of ten images"
    assert asked[lesson09_few.WRONG_VIEWS] == own, "the images themselves"


def test_an_image_split_of_no_labels_keeps_everything_else(few):
    found = unlabelled(few.train.images, few)
    assert isinstance(found, ImageSplit) and not found.labels.any()
    for name in ("images", "mean", "std"):
        assert torch.equal(getattr(found, name), getattr(few.train, name))
