"""The laboratory replaces a share of the training labels where it may, and has a teacher that learns from them."""

import functools
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from laboratory_trainings import recorded_trainings

from kdlib import data, inference, metrics, models, training
from kdlib.data import ImageSplit, augment
from kdlib.features import FeatureTerm, hint_loss, teacher_features
from kdlib.lesson.exercises import _core, _design
from kdlib.lesson.laboratory import Laboratory, Rehearsal, course_teacher, own_generation, weaker_teacher
from kdlib.metrics import paired_interval
from kdlib.tasks import modalities

pytestmark = pytest.mark.usefixtures("one_thread")
TAUGHT = {"method": "distillation"}
OWN = "a network like the student"
ITSELF = {**TAUGHT, "teacher": OWN}
KNOWN = ["method", "temperature", "alpha", "images", "epochs", "learning_rate", "label_smoothing"]
SEEDS = range(5)
QUICK = functools.partial(own_generation, epochs=1)


@pytest.fixture
def calls(monkeypatch):
    """The trainings: by which function, on which images, with which settings."""
    return recorded_trainings(monkeypatch)


def laboratory(profile="lesson", *, generation=QUICK, **more):
    """That of lesson 09, with a quicker generation."""
    return Laboratory(profile, teachers={"the course's": course_teacher, OWN: generation}, wrong_labels=True, **more)


def rehearsal(**more):
    return Rehearsal(teachers=["the course's", OWN], wrong_labels=True, **more)


def right_labels(split):
    """Those of the same images in the data set, by their indices."""
    train = data.load("fashion-mnist").train
    label_of = dict(zip(train.indices.tolist(), train.labels.tolist(), strict=True))
    return torch.tensor([label_of[index] for index in split.indices.tolist()])


def wrong_in(split):
    return split.labels != right_labels(split)


# ------------------------------------------------------------------ which settings there are


def test_unless_it_is_asked_for_there_is_no_setting_of_wrong_labels():
    for lab in (Laboratory("ci"), Rehearsal(), Laboratory("ci", wrong_labels=False), Rehearsal(wrong_labels=False)):
        assert list(lab.settings) == KNOWN
        with pytest.raises(ValueError, match="unknown setting 'wrong_labels'; this laboratory has method, temperature"):
            lab.student(0, wrong_labels=0.4)
    for lab in (Laboratory("ci", wrong_labels=True), Rehearsal(wrong_labels=True)):
        assert set(lab.settings) - set(KNOWN) == {"wrong_labels"}
        assert repr(lab.settings["wrong_labels"]) == "0 to 0.8 (where nothing is said: 0.0)"
    assert list(laboratory().settings) == list(rehearsal().settings)
    assert laboratory().settings["teacher"].allowed == ("the course's", OWN)


def test_wrong_labels_make_another_student_where_a_label_is_learned_from_and_none_where_none_is():
    features, alone = {"mine": lambda split, weight, seed: []}, {"only": own_generation}
    for lab, settings, differs in [
        (laboratory(), {}, True),
        (rehearsal(), {}, True),
        (laboratory(), {**TAUGHT, "alpha": 0}, True),
        (laboratory(), TAUGHT, True),
        (laboratory(), {**TAUGHT, "alpha": 1}, False),
        (rehearsal(), {**TAUGHT, "alpha": 1}, False),
        (laboratory(), {**ITSELF, "alpha": 1}, True),
        (rehearsal(), {**ITSELF, "alpha": 1}, True),
        (Laboratory("ci", wrong_labels=True), {**TAUGHT, "alpha": 1}, False),
        (Rehearsal(wrong_labels=True), {**TAUGHT, "alpha": 1}, False),
        (Laboratory("ci", teachers=alone, wrong_labels=True), {**TAUGHT, "alpha": 1}, True),
        (Rehearsal(teachers=alone, wrong_labels=True), {**TAUGHT, "alpha": 1}, True),
        (laboratory(schedules=True), {**TAUGHT, "alpha": 1, "second_stage": 0.5}, True),
        (laboratory(schedules=True), {**TAUGHT, "alpha": 1, "second_stage": 0}, False),
        (laboratory(features=features), {**TAUGHT, "alpha": 1, "features": "mine"}, True),
        (laboratory(features=features), {**TAUGHT, "alpha": 1, "features": "mine", "weight": 0}, False),
    ]:
        right, wrong = (lab.student(0, **settings, **more).settings for more in ({}, {"wrong_labels": 0.4}))
        assert (right != wrong) == differs, settings
        assert right == lab.student(0, **settings, wrong_labels=0).settings


def test_a_share_that_is_not_allowed_is_refused_with_what_is_before_anything_is_trained(calls):
    for lab, (value, error, words) in itertools.product(
        (laboratory("ci"), rehearsal()),
        [
            (0.9, ValueError, "wrong_labels must be from 0 to 0.8, got 0.9"),
            (-0.1, ValueError, "wrong_labels must be from 0 to 0.8, got -0.1"),
            (float("nan"), ValueError, "wrong_labels must be a finite number, got nan"),
            ("many", TypeError, "wrong_labels must be a number, got str 'many'"),
            (True, TypeError, "wrong_labels must be a number, got bool True"),
        ],
    ):
        for settings in ({}, TAUGHT, ITSELF):
            with pytest.raises(error, match=words):
                lab.student(0, **settings, wrong_labels=value)
        assert not lab.looks
    assert not calls
    for room in (Laboratory, Rehearsal):
        # The hook of the tests looks at annotations before the function itself does.
        with pytest.raises(TypeError, match="wrong_labels must be True or False|typechecking parameter 'wrong_labels'"):
            room(wrong_labels=0.4)


# ------------------------------------------------------------------ the labels that the student learns from


def test_the_share_of_the_training_labels_is_wrong_and_nothing_else_of_the_images_is(calls):
    for profile, images in (("lesson", 60), ("ci", 600)):
        lab = laboratory(profile, images=images, epochs=1)
        expected = data.load("fashion-mnist").train.take(60, seed=3)
        for share, settings in itertools.product((0.0, 0.2, 0.4, 0.8), ({}, TAUGHT)):
            calls.clear()
            lab.student(3, **settings, wrong_labels=share).accuracy("test")
            [(_, split, _)] = calls
            assert int(wrong_in(split).sum()) == share * 60, (profile, share, settings)
            assert torch.equal(split.images, expected.images) and torch.equal(split.indices, expected.indices)
            assert torch.equal(split.mean, expected.mean) and set(split.labels.tolist()) <= set(range(10))


def test_all_students_of_a_seed_have_the_same_wrong_labels_and_those_of_another_seed_have_others(calls):
    lab = laboratory(images=60, epochs=1)
    for seed, settings in [(3, {}), (3, TAUGHT), (3, {"learning_rate": 0.02}), (4, {})]:
        lab.student(seed, **settings, wrong_labels=0.4).accuracy("test")
    first, *same, other = [(split, wrong_in(split).tolist()) for _, split, _ in calls]
    assert all(torch.equal(split.labels, first[0].labels) for split, _ in same)
    assert first[1] != other[1]


def test_a_student_is_the_one_that_kdlib_trains_on_these_labels_and_is_judged_by_right_ones(calls):
    lab = laboratory(images=200, epochs=2)
    dataset = data.load("fashion-mnist")
    asked = [lab.student(3, **settings, wrong_labels=0.4) for settings in ({}, {**TAUGHT, "alpha": 0.5})]
    found = [{name: student.accuracy(name) for name in ("validation", "test")} for student in asked]
    seen = calls[0][1]
    pixels = dataset.train.take(200, seed=3)
    by_hand = ImageSplit(pixels.images, seen.labels, pixels.indices, pixels.mean, pixels.std)
    by_labels, taught = (models.build("tiny-cnn", seed=3) for _ in range(2))
    training.train(by_labels, by_hand, epochs=2, seed=3, progress=False)
    training.distill(taught, course_teacher(pixels), by_hand, epochs=2, seed=3, alpha=0.5, progress=False)
    for accuracies, network in zip(found, (by_labels, taught), strict=True):
        assert accuracies == {name: metrics.accuracy(network, getattr(dataset, name)) for name in accuracies}


def test_wrong_labels_do_harm_to_who_learns_from_them_and_none_to_who_asks_the_courses_teacher_alone(calls):
    lab = laboratory(images=200, epochs=5)

    def mean(**settings):
        return np.mean([lab.student(seed, **settings).accuracy("validation") for seed in range(3)])

    right, some, most = (mean(wrong_labels=share) for share in (0.0, 0.4, 0.8))
    assert right > some + 0.05 > most + 0.15
    before = len(calls)
    alone = {mean(**TAUGHT, alpha=1, wrong_labels=share) for share in (0.0, 0.4, 0.8)}
    assert len(alone) == 1 and len(calls) == before + 3


def test_the_wrong_labels_are_not_the_first_ones_that_a_student_sees(calls):
    lab = laboratory(images=200, epochs=1)
    for seed in range(4):
        lab.student(seed, wrong_labels=0.4).accuracy("test")
    for _, split, settings in list(calls):
        in_order = []
        for labels in (split.labels, right_labels(split)):
            seen = []

            def watched(logits, batch, seen=seen):
                seen.append(batch)
                return F.cross_entropy(logits, batch)

            same = ImageSplit(split.images, labels, split.indices, split.mean, split.std)
            network = models.build("tiny-cnn", seed=settings["seed"])
            training.train(network, same, epochs=1, seed=settings["seed"], task_loss=watched, progress=False)
            in_order.append(torch.cat(seen))
        wrong = in_order[0] != in_order[1]
        assert int(wrong.sum()) == 80 and 20 < int(wrong[:100].sum()) < 60, settings["seed"]


def test_all_views_of_an_image_and_what_a_sensor_makes_of_it_have_its_wrong_label(calls):
    asked = []

    def teacher(split):
        asked.append(split)
        return torch.zeros(len(split), 10)

    common = {"images": 50, "epochs": 8, "teachers": {"silent": teacher}, "wrong_labels": True}
    for more, settings in [
        ({"augmentations": {"crop": augment.random_crop_flip()}}, {"augment": "crop"}),
        ({"sensors": {"thumbnails": modalities.thumbnails}}, {"sensor": "thumbnails"}),
    ]:
        calls.clear(), asked.clear()
        Laboratory("lesson", **common, **more).student(2, **settings, **TAUGHT, wrong_labels=0.4).accuracy("test")
        [(_, seen, _)], [shown] = calls, asked
        assert torch.equal(seen.labels, shown.labels) and torch.equal(seen.indices, shown.indices)
        labels_of = {index: {*seen.labels[seen.indices == index].tolist()} for index in seen.indices.tolist()}
        assert len(labels_of) == 50 and all(len(labels) == 1 for labels in labels_of.values())
        assert wrong_in(seen).float().mean().item() == pytest.approx(0.4)
    assert shown.images.shape[2:] == (28, 28) != seen.images.shape[2:]  # the sensor's teacher sees the pixels


def test_features_get_the_labels_that_their_student_learns_from(calls):
    shown = []

    def maps(split, weight, seed):
        shown.append(split)
        targets = teacher_features(models.build("tiny-cnn", seed=77), split, ["stages.2"])["stages.2"]
        return [FeatureTerm(hint_loss, "stages.2", targets, weight)]

    lab = laboratory(images=50, epochs=1, features={"maps": maps})
    lab.student(0, features="maps", wrong_labels=0.4).accuracy("test")
    assert int(wrong_in(shown[0]).sum()) == 20


# ------------------------------------------------------------------ the teachers


def test_a_teacher_is_handed_the_wrong_labels_and_asked_once_for_each_share_of_them(calls):
    asked = []

    def knows_the_labels(split):
        asked.append(split)
        return 9.0 * F.one_hot(split.labels, 10)

    lab = Laboratory("lesson", images=50, epochs=1, teachers={"mine": knows_the_labels}, wrong_labels=True)
    for share, temperature in itertools.product((0.0, 0.4, 0.8), (1, 2)):
        lab.student(0, **TAUGHT, alpha=1, temperature=temperature, wrong_labels=share).accuracy("test")
    assert [int(wrong_in(split).sum()) for split in asked] == [0, 20, 40]
    students = [split for _, split, _ in calls]
    assert all(torch.equal(split.labels, asked[i // 2].labels) for i, split in enumerate(students))


def test_a_network_like_the_student_learns_from_the_very_labels_of_the_student_and_gives_its_logits(calls):
    dataset = data.load("fashion-mnist")
    for share in (0.0, 0.4):
        calls.clear()
        lab = laboratory(images=50, epochs=1, generation=own_generation)
        found = lab.student(3, **ITSELF, alpha=0.5, wrong_labels=share).accuracy("test")
        [(first, lessons, recipe), (second, seen, of_student)] = calls
        assert (first, second) == ("train", "distill") and recipe["epochs"] == 20 and "learning_rate" not in recipe
        assert torch.equal(lessons.images, seen.images) and torch.equal(lessons.labels, seen.labels)
        assert int(wrong_in(lessons).sum()) == share * 50
        assert recipe["seed"] != of_student["seed"] == 3
        teacher, same = models.build("tiny-cnn", seed=recipe["seed"]), models.build("tiny-cnn", seed=3)
        training.train(teacher, lessons, epochs=20, learning_rate=0.01, seed=recipe["seed"], progress=False)
        logits = inference.predict_logits(teacher, seen)
        torch.testing.assert_close(own_generation(seen), logits)
        training.distill(same, logits, seen, epochs=1, alpha=0.5, seed=3, progress=False)
        assert found == metrics.accuracy(same, dataset.test)
        assert (logits.argmax(1) == seen.labels).double().mean() > 0.8  # it has learned what it was told


def test_the_network_like_the_student_is_another_one_for_each_seed_but_not_for_other_labels(calls):
    lab = laboratory(images=40, epochs=1)
    for seed, share in itertools.product(range(4), (0.0, 0.4)):
        lab.student(seed, **ITSELF, alpha=1, wrong_labels=share).accuracy("test")
    seeds = [settings["seed"] for name, _, settings in calls if name == "train"]
    assert seeds[::2] == seeds[1::2] and len(set(seeds)) == 4 and not set(seeds) & set(range(1000))


def test_in_the_profile_ci_the_network_like_the_student_sees_the_few_images_of_the_student(calls):
    lab = laboratory("ci", images=500)
    lab.student(1, **ITSELF, wrong_labels=0.4).accuracy("test")
    assert [(name, len(split), int(wrong_in(split).sum())) for name, split, _ in calls] == [
        ("train", 50, 20), ("distill", 50, 20),
    ]  # fmt: skip


def test_the_other_teachers_look_at_no_wrong_label(calls):
    split = data.load("fashion-mnist").train.take(40, seed=1)
    others = ImageSplit(split.images, split.labels.roll(1), split.indices, split.mean, split.std)
    for teacher in (course_teacher, weaker_teacher(50, epochs=1)):
        assert torch.equal(teacher(split), teacher(others))
    assert len(calls) == 2 and not any(bool(wrong_in(lessons).any()) for _, lessons, _ in calls)
    right, wrong = (own_generation(one, epochs=2) for one in (split, others))
    assert not torch.allclose(right, wrong, atol=0.1)


# ------------------------------------------------------------------ the rehearsal


def test_in_a_rehearsal_more_wrong_labels_cost_accuracy_and_leave_the_effect_of_the_seed_strong():
    lab = rehearsal()
    for settings in ({}, TAUGHT, {**ITSELF, "alpha": 1}):
        by_share = np.array([
            [lab.student(seed, **settings, wrong_labels=share).accuracy("test") for seed in range(20)]
            for share in (0.0, 0.2, 0.4, 0.8)
        ])  # fmt: skip
        assert (np.diff(by_share, axis=0) < 0).all() and by_share.min() > 0
        paired = (by_share[0] - by_share[2]).std(ddof=1)
        assert by_share[0].std(ddof=1) > 2 * paired > 0
    line = f"  method='distillation', teacher={OWN!r}, alpha=1.0, wrong_labels=0.4: seeds 0 to 19, measured on test"
    assert line in repr(lab).splitlines()


def test_designs_with_wrong_labels_are_judged_in_the_rehearsal_that_an_open_experiment_asks_for(monkeypatch):
    monkeypatch.setattr(_core, "REGISTRY", {})

    @_core.open_experiment(hints=["?"], teachers=("the course's", OWN), wrong_labels=True)
    def one_of_lesson_09(lab):
        """Never run: what is looked at is the rehearsal."""

    [(asked_for,)] = _core.REGISTRY["one_of_lesson_09"].cases()
    assert list(asked_for.settings) == list(laboratory().settings)

    def measured(lab, settings):
        return np.array([lab.student(seed, **settings).accuracy("test") for seed in SEEDS])

    wrong = {"wrong_labels": 0.4}
    for arms, status, words in [
        ([{**ITSELF, "alpha": 1, **wrong}, wrong], "correct", "A sound design"),
        ([{**TAUGHT, "alpha": 1, **wrong}, wrong], "correct", "A sound design"),
        ([{**ITSELF, **wrong}, {**TAUGHT, **wrong}], "correct", "A sound design"),
        ([{}, wrong], "correct", "wrong_labels=0.0 against wrong_labels=0.4"),
        ([{**ITSELF, **wrong}, wrong, ITSELF, {}], "correct", "for two values of wrong_labels"),
        ([ITSELF, wrong], "not yet right", "The arms differ in method and wrong_labels"),
        ([{**TAUGHT, "alpha": 1, **wrong}, {**TAUGHT, "alpha": 1}], "not yet right", "Only one arm is measured"),
    ]:
        def design(lab, arms=arms):
            one, *others = (measured(lab, settings) for settings in arms)
            if len(others) == 3:
                return paired_interval(one - others[0], others[1] - others[2])
            return paired_interval(one, *others)

        room = rehearsal()
        verdict = _design.judge_design("one_of_lesson_09", _design.rehearse(design, room), room)
        assert (verdict.status, words in str(verdict)) == (status, True), (arms, verdict)
