"""The experiments of lesson 08, run very small: arms differ in what they say, and the best are those of the tuning."""

import functools
import math

import experiment_tables
import numpy as np
import pandas
import pytest
import torch
from experiment_tables import alike, copied, in_place_of_recorded, in_place_of_trainings, invent
from scipy import stats
from torch.nn import functional as F

from kdlib import data, features, metrics, teachers, training
from kdlib.data import ImageSplit
from kdlib.experiments import (
    choosing,
    gains,
    lesson08_collages,
    lesson08_detection,
    lesson08_gains,
    lesson08_modalities,
    lesson08_regression,
    lesson08_video,
)
from kdlib.inference import predict_logits
from kdlib.lesson import results
from kdlib.sweeps import map_cells
from kdlib.tasks import shelf
from kdlib.tasks.detection import detection_distillation_loss, detection_loss
from kdlib.tasks.regression import bounded_loss
from kdlib.tasks.video import frames_of

pytestmark = pytest.mark.usefixtures("one_thread")

TOPICS = {
    "collages": lesson08_collages,
    "detection": lesson08_detection,
    "modalities": lesson08_modalities,
    "regression": lesson08_regression,
    "video": lesson08_video,
}
# What a cell needs besides arm, rate, seed and split; and how small it can be.
CELLS = {
    "collages": {"alpha": 0.5},
    "detection": {"alpha": 0.5, "weight": 1.0},
    "modalities": {"sensor": "edges", "images": 40},
    "regression": {"wrong": 0.4},
    "video": {"frames": 8, "alpha": 0.5},
}
TINY = {"images": 40, "judges": 30, "epochs": 2}
SIZES = {topic: {"looks": 80} if topic == "modalities" else TINY for topic in TOPICS}
MEASURED = {
    "collages": {"map", "auc", "stated"}, "detection": {"ap"}, "modalities": {"accuracy", "same mistakes"},
    "regression": {"degrees"}, "video": {"both", "item", "direction"},
}  # fmt: skip
BEST_BY = {"collages": "map", "detection": "ap", "modalities": "accuracy", "regression": "degrees", "video": "both"}


def arms_of(topic):
    """The names of all arms that a table has."""
    module = TOPICS[topic]
    tried = [arm for name in ("GRIDS", "BEYOND", "SHORTER", "LATER") for arm in getattr(module, name, ())]
    more = {
        "collages": [*lesson08_collages.ALONE], "modalities": [lesson08_modalities.SHUFFLED],
        "detection": [*lesson08_detection.AS_HEAVY],
    }  # fmt: skip
    return [*dict.fromkeys([*tried, *more.get(topic, [])])]


def cell(topic, arm, seed=0, split="validation", **other):
    return CELLS[topic] | {"arm": arm, "rate": 0.02, "seed": seed, "split": split} | SIZES[topic] | other


@pytest.fixture(scope="module")
def few():
    """Few images for the topic that takes them as they are."""
    whole = data.load("fashion-mnist")
    return data.ImageDataset(
        whole.train.take(120), whole.validation.take(40), whole.test.take(40), whole.classes
    )


@pytest.fixture(autouse=True)
def small(monkeypatch, few):
    monkeypatch.setattr(lesson08_modalities, "fashion", lambda: few)
    lesson08_modalities.seen.cache_clear()
    yield
    lesson08_modalities.seen.cache_clear()


@pytest.fixture
def trainings(monkeypatch):
    """What every training was asked for, none of which trains: student, split, teacher, and options."""
    asked = []

    def train(student, split, **options):
        asked.append({"student": copied(student), "split": split, "teacher": None} | options)

    def distill(student, teacher, split, **options):
        asked.append({"student": copied(student), "split": split, "teacher": teacher} | options)

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(training, "distill", distill)
    return asked


@pytest.fixture
def asked_for(trainings):
    """The training of one cell."""

    def ask(topic, arm, **other):
        trainings.clear()
        TOPICS[topic].on_split(**cell(topic, arm, **other))
        (one,) = trainings
        return one

    return ask


# ------------------------------------------------------------------ every topic


def test_a_cell_of_every_topic_trains_and_is_the_same_again():
    some = {
        "collages": ["labels", "two sides, T = 2"], "detection": ["labels", "features, weighted by score"],
        "modalities": ["labels", "pairs"], "regression": ["bounded"], "video": ["teacher"],
    }  # fmt: skip
    for topic, arms in some.items():
        rows = [TOPICS[topic].on_split(**cell(topic, arm, seed=3)) for arm in (*arms, arms[-1])]
        assert rows[-1] == rows[-2], topic
        for row in rows:
            assert set(row) == MEASURED[topic] and all(math.isfinite(value) for value in row.values()), topic
            assert all(0 <= value <= (60 if name == "degrees" else 1) for name, value in row.items()), topic
        assert len(arms) == 1 or rows[0] != rows[1], topic
        assert "error" not in rows[0], "by that name map_cells says that a cell failed"
    per_class = lesson08_collages.on_split(**cell("collages", "labels", split="test"))
    assert set(per_class) == MEASURED["collages"] | {f"{which} {c}" for which in ("ap", "auc") for c in range(10)}
    assert per_class["map"] == pytest.approx(np.mean([per_class[f"ap {c}"] for c in range(10)]))


def test_arms_of_one_seed_share_images_and_first_weights_and_other_seeds_have_others(asked_for):
    for topic in TOPICS:
        own = [asked_for(topic, arm, seed=5) for arm in arms_of(topic)]
        of_items = [arm == lesson08_video.ITEM_LABELS for arm in arms_of(topic)]
        for one, other_labels in zip(own, of_items, strict=True):
            assert torch.equal(one["split"].images, own[0]["split"].images), topic
            assert other_labels or torch.equal(one["split"].labels, own[0]["split"].labels), topic
            assert alike(one["student"], own[0]["student"]) and one["seed"] == 5, topic
        other = asked_for(topic, arms_of(topic)[0], seed=6)
        assert not alike(other["student"], own[0]["student"]), topic
        assert not torch.equal(other["split"].images, own[0]["split"].images), topic


def test_arms_have_their_rate_and_length_and_a_teacher_where_they_are_not_of_labels(asked_for):
    for topic in TOPICS:
        for arm in arms_of(topic):
            found = asked_for(topic, arm, rate=0.06)
            assert found["learning_rate"] == 0.06, (topic, arm)
            assert found["epochs"] == (6 if "three times" in arm else 1 if "half as long" in arm else 2), (topic, arm)
            assert found["batch_size"] == (50 if topic == "modalities" else 32), (topic, arm)
            assert (found["teacher"] is None) == arm.startswith("labels"), (topic, arm)


# ------------------------------------------------------------------ collages


def multilabel(n=6, seed=0):
    random = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(n, 10, generator=random), torch.rand(n, 10, generator=random)


def slow_cross_entropy(logits, targets):
    """Summed over the classes, averaged over the images."""
    q = 1 / (1 + np.exp(-logits.double().numpy()))
    y = targets.double().numpy()
    return -(y * np.log(q) + (1 - y) * np.log(1 - q)).sum() / len(q)


def test_the_losses_of_collages_equal_loops():
    student, labels = multilabel()
    teacher, _ = multilabel(seed=1)
    p, q = (1 / (1 + np.exp(-logits.double().numpy())) for logits in (teacher, student))
    assert lesson08_collages.label_loss(student, labels).item() == pytest.approx(slow_cross_entropy(student, labels))
    found = lesson08_collages.soft_cross_entropy(student, teacher).item()
    assert found == pytest.approx(slow_cross_entropy(student, teacher.sigmoid()))
    one_sided = (p * np.log(p / q)).sum() / len(p)
    assert lesson08_collages.one_sided(student, teacher).item() == pytest.approx(one_sided, rel=1e-5)
    # The other half is missing: it falls without end as the student says yes to everything.
    assert lesson08_collages.one_sided(teacher + 5, teacher) < lesson08_collages.one_sided(teacher, teacher)


def test_arms_of_collages_differ_in_their_loss_temperature_and_alpha(asked_for):
    for arm, settings in lesson08_collages.ARMS.items():
        found = asked_for("collages", arm, alpha=0.25)
        assert found["task_loss"] is lesson08_collages.label_loss
        if settings.loss is not None:
            assert (found["loss"], found["temperature"], found["alpha"]) == (settings.loss, settings.temperature, 0.25)
            words = arm.rpartition("T = ")[2]
            assert not words.isdigit() or found["temperature"] == int(words)
    for arm, of in lesson08_collages.ALONE.items():
        found, whole = (asked_for("collages", name, alpha=1.0) for name in (arm, of))
        assert found["alpha"] == 1 and all(found[key] == whole[key] for key in ("loss", "temperature"))
    logits = asked_for("collages", "soft cross-entropy")["teacher"]
    hard = asked_for("collages", "the teacher's yes or no as labels")["teacher"]
    assert torch.equal(hard, 60 * (logits > 0).float() - 30)
    made = lesson08_collages.material_of(0, 40, 30)
    assert torch.equal(logits, teachers.cached_logits(lesson08_collages.teacher(), made.train))


def test_a_measure_of_each_class_is_that_of_its_column():
    made = lesson08_collages.material_of(0, 40, 30)
    logits = torch.randn(30, 10, generator=torch.Generator().manual_seed(0))

    def right(z, split):
        assert z.shape == split.labels.shape == (30, 1) and torch.equal(split.mean, made.test.mean)
        return float(((z > 0) == (split.labels > 0)).double().mean())

    expected = ((logits > 0) == (made.test.labels > 0)).double().mean(dim=0)
    assert lesson08_collages.by_class(right, logits, made.test) == pytest.approx(expected.tolist())


# ------------------------------------------------------------------ detection


def test_arms_of_detection_differ_in_what_is_compared_and_with_whose_maps(asked_for):
    split = lesson08_detection.material_of(0, 40, 30).train
    network = lesson08_detection.teacher().network
    true_maps = features.teacher_features(lesson08_detection.teacher(), split, ["network.stages.3"])["network.stages.3"]
    for arm, settings in lesson08_detection.ARMS.items():
        found = asked_for("detection", arm, weight=3.0)
        assert found["task_loss"] is detection_loss
        if settings.answers:
            assert found["loss"] is detection_distillation_loss and found["alpha"] == 0.5 and "features" not in found
            expected = teachers.cached_logits(lesson08_detection.teacher(), split)
            assert torch.equal(found["teacher"], expected)
        elif settings.loss is not None:
            (term,) = found["features"]
            assert found["alpha"] == 0 and found["teacher"].network is network
            assert (term.weight, term.student_layer, term.regressor) == (3.0, "stages.3", True)
            expected = lesson08_detection.weighted if arm.startswith("weighted") else features.hint_loss
            expected = {"features, weighted by score": lesson08_detection.weighted,
                        "weighted by the labels' cells": lesson08_detection.by_labels}.get(arm, expected)
            assert term.loss is expected, arm
            assert torch.equal(term.teacher_layer, true_maps) == (settings.maps == "teacher"), arm
            assert term.teacher_layer.shape == true_maps.shape
    for arm, of in lesson08_detection.AS_HEAVY.items():
        (found,), (whole,) = (asked_for("detection", name, weight=3.0)["features"] for name in (arm, of))
        assert torch.equal(found.teacher_layer, whole.teacher_layer) and found.loss is whole.loss
        assert found.weight == whole.weight == 3


def test_maps_of_other_images_are_the_teachers_in_another_order_and_the_untrained_ones_are_of_its_size():
    split = lesson08_detection.material_of(0, 40, 30).train
    maps = {kind: lesson08_detection.maps_of(kind, split, 0) for kind in ("teacher", "shuffled", "untrained")}
    rows = [int((maps["teacher"] - one).flatten(1).abs().amax(dim=1).argmin()) for one in maps["shuffled"]]
    assert torch.equal(maps["shuffled"], maps["teacher"][rows]) and sorted(rows) == [*range(40)]
    assert sum(row == n for n, row in enumerate(rows)) < 6
    for kind in ("shuffled", "untrained"):
        again, other = (lesson08_detection.maps_of(kind, split, seed) for seed in (0, 1))
        assert torch.equal(again, maps[kind]) and not torch.equal(other, maps[kind])
    torch.manual_seed(1000)
    fresh, seen = shelf.TASKS["canvases"].network().train(), []
    fresh.stages[3].register_forward_hook(lambda module, given, made: seen.append(made))
    with torch.no_grad():
        fresh(split.normalized(slice(None)))  # with the statistics of these images, which are one batch
    assert torch.allclose(maps["untrained"], seen[0], atol=0.02)
    shapes = [value.shape for value in fresh.state_dict().values()]
    assert shapes == [value.shape for value in lesson08_detection.teacher().network.state_dict().values()]


def test_weights_by_labels_compare_the_cells_of_the_items_alone():
    random = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 8, 8, generator=random)
    labels = lesson08_detection.material_of(0, 40, 30).train.labels[:3]
    there = labels.view(3, 15, 8, 8)[:, 0] == 1
    expected = (student - teacher).square().mean(dim=1)[there].mean()
    assert lesson08_detection.by_labels(student, teacher, labels).item() == pytest.approx(expected.item(), rel=1e-5)


# ------------------------------------------------------------------ another modality


def test_arms_of_modalities_differ_in_their_targets_and_pairs_are_aligned(asked_for, few):
    of_all = predict_logits(teachers.load(), few.train)
    for sensor in lesson08_modalities.SENSORS:
        found = {arm: asked_for("modalities", arm, sensor=sensor) for arm in arms_of("modalities")}
        rows = torch.isin(few.train.indices, few.train.take(40, seed=0).indices)
        expected = of_all[rows]
        pairs = found[lesson08_modalities.PAIRS]
        assert torch.allclose(pairs["teacher"], expected, atol=1e-4), "the teacher saw other images, or no pixels"
        assert (pairs["alpha"], pairs["temperature"]) == (1, 4)
        hard = found[lesson08_modalities.HARD]
        assert torch.equal(hard["teacher"].argmax(dim=1), expected.argmax(dim=1)) and hard["temperature"] == 1
        assert torch.allclose(hard["teacher"].softmax(dim=1).amax(dim=1), torch.ones(40)) and hard["alpha"] == 1
        shuffled = found[lesson08_modalities.SHUFFLED]["teacher"]
        assert not torch.equal(shuffled, pairs["teacher"])
        assert torch.equal(shuffled.sort(dim=0).values, pairs["teacher"].sort(dim=0).values)
        for one in found.values():
            split, whole = one["split"], lesson08_modalities.seen(sensor).train
            for name in ("images", "labels", "indices"):
                expected_part = getattr(lesson08_modalities.SENSORS[sensor](few.train), name)[rows]
                assert torch.equal(getattr(split, name), expected_part), name
            assert torch.equal(split.mean, whole.mean) and torch.equal(split.std, whole.std)


def test_every_number_of_images_is_looked_at_as_often_but_none_more_than_sixty_times():
    found = {images: lesson08_modalities.epochs_for(images) for images in lesson08_modalities.COUNTS}
    assert found == {100: 60, 300: 60, 1000: 54, 3000: 18, 9000: 6}
    assert lesson08_modalities.epochs_for(9000, looks=100) == 1


def test_the_same_mistakes_by_hand():
    labels = torch.tensor([0, 1, 2, 3, 4])
    split = ImageSplit(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), labels)
    teacher = F.one_hot(torch.tensor([0, 2, 0, 3, 1]), 5).float()  # wrong of the images 1, 2 and 4
    student = F.one_hot(torch.tensor([4, 2, 1, 3, 1]), 5).float()  # as the teacher for 1 and 4
    assert lesson08_modalities.same_mistakes(student, teacher, split) == pytest.approx(2 / 3)


# ------------------------------------------------------------------ regression


def test_arms_of_regression_differ_in_losses_teacher_and_alpha(asked_for):
    split = lesson08_regression.material_of(0, 40, 30).train
    for arm, settings in lesson08_regression.ARMS.items():
        found = asked_for("regression", arm, wrong=0.2)
        assert found["task_loss"] is (F.l1_loss if arm.startswith("labels, absolute") else F.mse_loss)
        if settings.loss is not None:
            other = lesson08_regression.absolute if "absolute" in arm else lesson08_regression.squared
            assert found["loss"] is (bounded_loss if "bounded" in arm else other), arm
            assert found["alpha"] == (0.5 if "beside labels" in arm else 1), arm
            of = "turned, wrong labels" if "wrong labels" in arm else "turned"
            expected = teachers.cached_logits(lesson08_regression.teacher(of), split)
            assert torch.equal(found["teacher"], expected), arm
    student, teacher = torch.rand(2, 7, 1, generator=torch.Generator().manual_seed(0))
    expected = (student - teacher).square().mean().item()
    assert lesson08_regression.squared(student, teacher).item() == pytest.approx(expected)
    expected = (student - teacher).abs().mean().item()
    assert lesson08_regression.absolute(student, teacher).item() == pytest.approx(expected)


def test_wrong_labels_are_for_learning_alone_and_more_of_them_hold_the_fewer(asked_for):
    made = lesson08_regression.material_of(0, 40, 30)
    given = {wrong: asked_for("regression", "bounded", wrong=wrong)["split"] for wrong in lesson08_regression.SHARES}
    replaced = {wrong: split.labels != made.train.labels for wrong, split in given.items()}
    assert not replaced[0.0].any() and 0 < replaced[0.2].sum() < replaced[0.4].sum() < 30
    assert not (replaced[0.2] & ~replaced[0.4]).any()
    assert all(torch.equal(split.images, made.train.images) for split in given.values())
    # Students that learn next to nothing are judged alike, as the judges' labels are right.
    cells = [cell("regression", "bounded", wrong=wrong, rate=1e-9) for wrong in (0.0, 0.4)]
    rows = [lesson08_regression.on_split(**one) for one in cells]
    assert rows[0] == pytest.approx(rows[1], abs=0.05)


# ------------------------------------------------------------------ video


def test_arms_of_video_differ_in_their_targets_and_their_teacher_sees_all_frames(asked_for):
    split = lesson08_video.material_of(0, 40, 30).train
    logits = teachers.cached_logits(lesson08_video.teacher(), split)
    for frames, chosen in lesson08_video.FRAMES.items():
        assert len(chosen) == frames
        found = {arm: asked_for("video", arm, frames=frames, alpha=0.9) for arm in arms_of("video")}
        expected = frames_of(split, chosen)
        for one in found.values():
            assert torch.equal(one["split"].images, expected.images) and torch.equal(one["split"].mean, expected.mean)
            assert one["student"]["stages.0.0.weight"].shape[1] == frames
        assert torch.equal(found["teacher"]["teacher"], logits) and found["teacher"]["temperature"] == 4
        assert found["teacher"]["alpha"] == 0.9
        hard = found["the teacher's answer as label"]
        assert torch.allclose(hard["teacher"].softmax(dim=1), F.one_hot(logits.argmax(dim=1), 40).float())
        assert hard["temperature"] == 1
        blind = found["teacher of the item alone"]["teacher"]
        assert torch.equal(blind, lesson08_video.without_direction(logits))


def test_without_the_direction_items_are_as_likely_and_all_directions_alike():
    logits = 3 * torch.randn(9, 40, generator=torch.Generator().manual_seed(0))
    p, blind = (z.double().softmax(dim=1).view(9, 10, 4) for z in (logits, lesson08_video.without_direction(logits)))
    assert torch.allclose(blind, (p.sum(dim=2, keepdim=True) / 4).expand(-1, -1, 4), atol=1e-6)


def test_labels_of_the_item_alone_say_nothing_of_the_direction():
    split = lesson08_video.material_of(0, 40, 30).train
    alone = lesson08_video.of_the_item_alone(split)
    expected = torch.zeros(40, 40)
    for n, label in enumerate(split.labels.tolist()):
        expected[n, 4 * (label // 4) : 4 * (label // 4) + 4] = 0.25
    assert torch.equal(alone.labels, expected)
    for name in ("images", "indices", "mean", "std"):
        assert torch.equal(getattr(alone, name), getattr(split, name))


def test_the_shares_of_right_answers_by_hand():
    split = ImageSplit(torch.zeros(3, 8, 2, 2, dtype=torch.uint8), torch.tensor([5, 6, 9]))
    logits = torch.full((3, 12), -9.0)
    logits[0, 5] = 0  # item 1, right: both
    logits[1, 4] = 0  # item 1, left: the item alone
    # Item 1 is likeliest as one answer, item 2 as the sum of several; the direction is right, as it was.
    logits[2, 5], logits[2, 8:12] = math.log(0.3), torch.tensor([0.1, 0.25, 0.2, 0.15]).log()
    assert lesson08_video.shares(logits, split) == pytest.approx({"both": 1 / 3, "item": 1, "direction": 2 / 3})


# ------------------------------------------------------------------ tables


def names(topic):
    """Tunings first: the others ask them for the best."""
    kinds = ("-tuning", "-edge-tuning", "-later-tuning", "", "-again")
    return [name for kind in kinds if (name := f"lesson08-{topic}{kind}") in results.registered()]


def all_tried(topic, tables):
    """What was tried on validation, beyond the edges too."""
    return pandas.concat([tables[name] for name in names(topic) if name.endswith("tuning") and name in tables])


@pytest.fixture
def invented(monkeypatch):
    """A table of every experiment: the cells of its own grid, with invented results."""
    return invent(monkeypatch, TOPICS, MEASURED, names)


CONTEXT = {"regression": ["wrong"], "video": ["frames"], "modalities": ["images"]}
SETTINGS = {"collages": ["alpha", "rate"], "detection": ["alpha", "weight", "rate"], "video": ["alpha", "rate"]}


def judged_by(topic, arm):
    """Arms that are told of items alone have no other answer to be chosen by."""
    return "item" if topic == "video" and arm in lesson08_video.OF_ITEMS else BEST_BY[topic]


def means_of(topic, tuning):
    settings = SETTINGS.get(topic, ["rate"])
    return experiment_tables.means_of(tuning, CONTEXT.get(topic, []), settings, lambda arm: judged_by(topic, arm))


def best_of(topic, tuning):
    choose = min if topic == "regression" else max
    return {key: choose(own, key=own.get) for key, own in means_of(topic, tuning).items()}


def chosen_in(topic, table):
    return experiment_tables.chosen_in(table, CONTEXT.get(topic, []), SETTINGS.get(topic, ["rate"]))


def expected_of(topic, tuning):
    """The best of each arm, and the settings of the arms that are not tuned by themselves."""
    expected = best_of(topic, tuning)
    if topic == "collages":
        with_alone = best_of(topic, tuning[tuning["alpha"] == 1])
        expected |= {(arm,): with_alone[of,] for arm, of in lesson08_collages.ALONE.items()}
    if topic == "detection":
        expected |= {(arm,): expected[lesson08_detection.BY_SCORE,] for arm in lesson08_detection.AS_HEAVY}
    if topic == "modalities":
        expected[9000, lesson08_modalities.SHUFFLED] = expected[9000, lesson08_modalities.PAIRS]
    return expected


def test_the_arms_of_a_table_have_the_settings_that_were_best_on_validation(invented):
    for topic in TOPICS:
        tuning, (table, again) = all_tried(topic, invented), (invented[name] for name in names(topic)[-2:])
        expected = expected_of(topic, tuning)
        assert chosen_in(topic, table) == expected, topic
        counts = lesson08_modalities.JUDGED_AGAIN
        kept = {key: one for key, one in expected.items() if topic != "modalities" or key[0] in counts}
        assert chosen_in(topic, again) == kept, topic
        assert (tuning["split"] == "validation").all() and (table["split"] == "test").all()
        for own in (tuning, table, again):
            settings = own.drop(columns=list(MEASURED[topic]))
            assert not settings.duplicated().any() and own.groupby("seed").size().nunique() == 1, topic
        assert set(table["arm"]) == set(arms_of(topic)), topic


def test_the_best_follows_the_tuning_and_the_mean_over_its_seeds(invented):
    """One setting is made the best in the mean, though another one is the best with one seed."""
    for topic in TOPICS:
        sign = -1 if topic == "regression" else 1
        tuning = invented[names(topic)[0]]
        for number in (0, 7):
            key, settings = [(key, one) for key, own in means_of(topic, tuning).items() for one in own][number]
            where, by = pandas.Series(True, index=tuning.index), judged_by(topic, key[-1])
            for name, value in zip(CONTEXT.get(topic, []) + ["arm"], key, strict=True):
                where &= tuning[name] == value
            of_setting = where.copy()
            for name, value in zip(SETTINGS.get(topic, ["rate"]), settings, strict=True):
                of_setting &= tuning[name] == value
            tuning.loc[of_setting, by] = 5.0 * sign
            tuning.loc[where & ~of_setting & (tuning["seed"] == 100), by] = 7.0 * sign
            invented[names(topic)[0]] = tuning
            cells = pandas.DataFrame(TOPICS[topic].cells(range(2)))
            assert chosen_in(topic, cells)[key] == settings, (topic, key)


def test_every_arm_of_the_first_tuning_is_tuned_at_the_same_rates():
    for topic, module in TOPICS.items():
        for arm, grid in module.GRIDS.items():
            others = {}
            for settings in grid:
                rest = tuple(sorted((name, value) for name, value in settings.items() if name != "rate"))
                others.setdefault(rest, []).append(settings["rate"])
            assert all(rates == list(choosing.RATES) for rates in others.values()), (topic, arm)


def test_every_combination_is_tried_once():
    assert choosing.every(a=(1, 2), b="xy") == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}
    ]  # fmt: skip


def test_seeds_of_tuning_are_disjoint_from_those_that_are_reported(invented):
    for tables in (invented, recorded()):
        tuned = {seed for name, table in tables.items() if name.endswith("tuning") for seed in table["seed"]}
        assert tables is not invented or tuned == {100, 101, 102}
        for name, table in tables.items():
            if not name.endswith("tuning"):
                assert tuned.isdisjoint(table["seed"]) and table["seed"].nunique() == 10, name
            if name.endswith("again"):
                first = tables.get(name.removesuffix("-again"), table.iloc[:0])
                assert set(first["seed"]).isdisjoint(table["seed"]), name


def test_tables_are_made_by_trainings_of_the_cells(monkeypatch):
    """From tuning to the table, with real trainings of two arms of each topic."""
    monkeypatch.setattr(choosing, "map_cells", functools.partial(map_cells, workers=0, progress=False))
    some = {
        "collages": ["labels", *lesson08_collages.ALONE.values()], "detection": ["labels", lesson08_detection.BY_SCORE],
        "modalities": ["labels", "pairs"], "regression": ["labels, absolute", "bounded"],
        "video": ["labels", "teacher"],
    }  # fmt: skip
    tables = {}
    in_place_of_recorded(monkeypatch, tables)
    monkeypatch.setattr(lesson08_modalities, "COUNTS", (100,))
    monkeypatch.setattr(lesson08_modalities, "SENSORS", {"edges": lesson08_modalities.SENSORS["edges"]})
    monkeypatch.setattr(lesson08_video, "FRAMES", {2: (3, 4)})
    monkeypatch.setattr(lesson08_regression, "SHARES", (0.4,))
    for topic, arms in some.items():
        module = TOPICS[topic]
        fixed = {"images": 100} if topic == "modalities" else {}
        grids = {arm: [module.GRIDS[arm][-1] | fixed, module.GRIDS[arm][-2] | fixed] for arm in arms}
        monkeypatch.setattr(module, "GRIDS", grids)
        tables[f"lesson08-{topic}-tuning"] = tuning = module.tuning([100], **SIZES[topic])
        assert len(tuning) == 2 * len(arms) and MEASURED[topic] <= set(tuning), topic
        table = module.compared([0], **SIZES[topic])
        assert MEASURED[topic] <= set(table) and not table.isna().any(axis=None), topic
        assert chosen_in(topic, table).keys() >= best_of(topic, tuning).keys()
        numbers = table[sorted(MEASURED[topic])].to_numpy(dtype=float)
        assert np.array_equal(numbers, numbers.round(6))


# ------------------------------------------------------------------ gains


def test_every_comparison_is_the_paired_t_interval_of_rows_that_the_tables_have(invented):
    rows = lesson08_gains.rows.__wrapped__()
    assert not rows.duplicated(["topic", "arm", "over", "of"]).any() and set(rows["topic"]) == set(TOPICS)
    makers = ("_collages", "_detection", "_video", "_modalities", "_regression")
    comparisons = [one for name in makers for one in getattr(lesson08_gains, name)()]
    assert len(comparisons) == len(rows)
    for one, row in zip(comparisons, rows.to_dict("records"), strict=True):
        for kind, column in (("", "gain"), ("-again", "gain of other seeds")):
            table = invented[f"lesson08-{one.topic}{kind}"]
            for name, value in one.where.items():
                table = table[table[name] == value]
            of = [dict(table[table["arm"] == arm][["seed", one.by]].to_numpy()) for arm in (one.arm, one.over)]
            assert len(of[0]) == 10 and of[0].keys() == of[1].keys() and (table["arm"] == one.arm).sum() == 10
            gaps = np.array([of[0][seed] - of[1][seed] for seed in of[0]])
            gaps = -gaps if one.topic == "regression" else gaps  # fewer degrees are better
            low, high = stats.t.interval(0.95, 9, loc=gaps.mean(), scale=gaps.std(ddof=1) / 10**0.5)
            found = row[column]
            assert (found.mean, found.low, found.high) == pytest.approx((gaps.mean(), low, high)), one


def test_a_verdict_needs_two_sets_of_seeds_that_agree():
    above, below, across = metrics.Interval(2, 1, 3), metrics.Interval(-2, -3, -1), metrics.Interval(1, -1, 3)
    for both, words in [
        ((above, above), "helps"), ((below, below), "hurts"), ((above, below), "not told apart"),
        ((above, across), "not told apart"), ((across, below), "not told apart"), ((across, across), "not told apart"),
    ]:  # fmt: skip
        assert gains.verdict(*both) == words


# ------------------------------------------------------------------ what is recorded


def recorded():
    return experiment_tables.recorded("lesson08")


def test_the_recorded_tables_have_the_cells_of_the_grids_as_they_are_now(monkeypatch):
    """In their order, and with the settings that the recorded tunings choose."""
    in_place_of_trainings(monkeypatch, lambda function, cells: pandas.DataFrame(cells))
    assert recorded()
    for name, table in recorded().items():
        cells = results.registered()[name]()
        pandas.testing.assert_frame_equal(table[list(cells)], cells, check_dtype=False, obj=name)
        assert MEASURED[name.split("-")[1]] <= set(table) and not table.isna().any(axis=None), name
        assert "error" not in table, "a cell failed"


def test_no_chosen_rate_or_weight_lies_on_the_edge_of_what_was_tried_for_its_arm():
    """Rates of what is the same otherwise; but for the lowest weight of controls, of which less is nearer to none."""
    tables, found = recorded(), set()
    for topic in TOPICS:
        for (*context, arm), settings in best_of(topic, tuning := all_tried(topic, tables)).items():
            own = tuning[tuning["arm"] == arm]
            for name, value in zip(CONTEXT.get(topic, []), context, strict=True):
                own = own[own[name] == value]
            chosen = dict(zip(SETTINGS.get(topic, ["rate"]), settings, strict=True))
            control = topic == "detection" and lesson08_detection.ARMS[arm].maps != "teacher"
            if chosen.get("weight"):
                lowest = -math.inf if control else own["weight"].min()
                if not lowest < chosen["weight"] < own["weight"].max():
                    found.add((topic, *context, arm, "weight"))
            for name in chosen.keys() - {"rate"}:
                own = own[own[name] == chosen[name]]
            if not own["rate"].min() < chosen["rate"] < own["rate"].max():
                found.add((topic, *context, arm, "rate"))
    assert not found, "beyond these nothing was tried, and something there may be better"
