"""The laboratory trains what it is asked for, once, and keeps the record; its rehearsal invents, reproducibly."""

import numpy as np
import pytest
import torch

from kdlib import data, metrics, models, training
from kdlib.lesson.laboratory import Laboratory, Rehearsal, course_teacher, weaker_teacher

pytestmark = pytest.mark.usefixtures("one_thread")
TAUGHT = {"method": "distillation", "temperature": 4, "alpha": 0.9}


@pytest.fixture
def trained(monkeypatch):
    """What training was called with: the number of images, their indices and the settings."""
    calls = []

    def recorded(function):
        def train(student, *rest, **settings):
            calls.append((rest[-1], settings))
            return function(student, *rest, **settings)

        return train

    monkeypatch.setattr(training, "train", recorded(training.train))
    monkeypatch.setattr(training, "distill", recorded(training.distill))
    return calls


def test_a_student_of_the_laboratory_is_the_one_that_kdlib_trains():
    lab = Laboratory("lesson", images=200, epochs=2)
    dataset = data.load("fashion-mnist")
    transfer_set = dataset.train.take(200, seed=3)
    by_labels, taught = (models.build("tiny-cnn", seed=3) for _ in range(2))
    training.train(by_labels, transfer_set, epochs=2, seed=3, learning_rate=0.02, progress=False)
    training.distill(
        taught, course_teacher(transfer_set), transfer_set, epochs=2, seed=3, temperature=2, alpha=0.5, progress=False
    )
    asked = [lab.student(3, learning_rate=0.02), lab.student(3, method="distillation", temperature=2, alpha=0.5)]
    for student, same in zip(asked, (by_labels, taught), strict=True):
        assert student.accuracy("validation") == metrics.accuracy(same, dataset.validation)
        assert student.accuracy("test") == metrics.accuracy(same, dataset.test)


def test_a_student_is_trained_once_and_only_when_its_accuracy_is_asked_for(trained):
    lab = Laboratory("ci")
    students = [lab.student(0, **TAUGHT), lab.student(0, alpha=0.9, method="distillation", temperature=4.0)]
    assert not trained
    assert students[0].accuracy("test") == students[1].accuracy("test") != lab.student(1, **TAUGHT).accuracy("test")
    students[0].accuracy("validation")
    assert len(trained) == 2


def test_settings_without_effect_train_no_other_student(trained):
    lab = Laboratory("ci")
    alike = [
        lab.student(0),
        lab.student(0, method="labels", temperature=2, alpha=0.3),
        lab.student(0, method="distillation", alpha=0),
    ]
    assert len({student.accuracy("test") for student in alike}) == 1 and len(trained) == 1
    for smoothing in (0.0, 0.1):  # of the labels, which have no weight
        lab.student(0, method="distillation", alpha=1, label_smoothing=smoothing).accuracy("test")
    assert len(trained) == 2
    lab.student(0, label_smoothing=0.1).accuracy("test")
    assert len(trained) == 3


def test_students_of_one_seed_share_their_images_and_a_smaller_set_is_part_of_a_larger_one(trained):
    lab = Laboratory("lesson", epochs=1)
    for settings in ({"images": 60}, {"images": 60, **TAUGHT}, {"images": 20}):
        lab.student(5, **settings).accuracy("test")
    by_labels, taught, fewer = (set(split.indices.tolist()) for split, _ in trained)
    assert by_labels == taught and fewer < by_labels and len(fewer) == 20
    assert {settings["seed"] for _, settings in trained} == {5}


def test_in_the_profile_ci_a_student_sees_a_tenth_of_the_images_once(trained):
    lab = Laboratory("ci", images=1000, epochs=20)
    for images in (500, 1000):
        lab.student(0, images=images).accuracy("test")
    assert [len(split) for split, _ in trained] == [50, 100]
    assert {settings["epochs"] for _, settings in trained} == {1}
    assert "profile ci" in repr(lab) and "profile ci" not in repr(Laboratory("lesson"))


def test_teachers_are_chosen_by_name_and_asked_once_for_the_images_of_a_seed(trained):
    asked = []

    def always(answer):
        def logits_of(split):
            asked.append((answer, len(split)))
            return torch.nn.functional.one_hot(torch.full((len(split),), answer), 10) * 9.0

        return logits_of

    lab = Laboratory("lesson", images=40, epochs=20, teachers={"says 1": always(1), "says 7": always(7)})
    assert lab.settings["teacher"].allowed == ("says 1", "says 7")
    dataset = data.load("fashion-mnist")
    share = {answer: (dataset.test.labels == answer).double().mean().item() for answer in (1, 7)}
    for answer, settings in ((7, {"teacher": "says 7"}), (1, {})):
        for temperature in (1, 2):
            student = lab.student(0, method="distillation", alpha=1, temperature=temperature, **settings)
            assert student.accuracy("test") == pytest.approx(share[answer], abs=0.02)
    assert asked == [(7, 40), (1, 40)]


def test_the_weaker_teacher_sees_none_of_the_students_images(trained):
    transfer_set = data.load("fashion-mnist").train.take(50, seed=1)
    logits = weaker_teacher(80, epochs=1)(transfer_set)
    assert logits.shape == (50, 10) and torch.isfinite(logits).all()
    [(lessons, _)] = trained
    assert len(lessons) == 80 and not set(lessons.indices.tolist()) & set(transfer_set.indices.tolist())


def test_a_student_that_leaves_the_weaker_teacher_too_few_images_is_refused(trained):
    lab = Laboratory("lesson", teachers={"weaker": weaker_teacher(2000)})
    with pytest.raises(ValueError, match="images=8000 leaves the weaker teacher too few of its own; at most 7000"):
        lab.student(0, method="distillation", images=8000).accuracy("test")
    assert not trained


def test_the_laboratory_says_what_was_trained_and_what_was_looked_at():
    lab = Rehearsal()
    for seed in range(4):
        lab.student(seed, method="distillation", temperature=2).accuracy("test")
    for seed in (1, 7):
        lab.student(seed).accuracy("validation")
    assert repr(lab).splitlines() == [
        "6 students in a rehearsal: all accuracies are invented",
        "  method='distillation', temperature=2.0: seeds 0 to 3, measured on test",
        "  method='labels': seeds 1, 7, measured on validation",
    ]
    assert repr(Laboratory("lesson")) == "0 students in the laboratory, 0 s of training"


def test_what_is_not_allowed_is_refused_with_its_name_and_what_is_allowed():
    lab = Laboratory("ci", settings=("method", "temperature", "images", "epochs"))
    for settings, error, words in [
        ({"temprature": 2}, ValueError, "unknown setting 'temprature'; this laboratory has method, temperature, im"),
        ({"alpha": 0.5}, ValueError, "unknown setting 'alpha'"),
        ({"temperature": 2}, ValueError, 'temperature is for students of a teacher: say method="distillation"'),
        ({"method": "distill"}, ValueError, "method must be one of labels, distillation; got 'distill'"),
        ({"method": ["labels"]}, ValueError, "method must be one of"),
        ({"images": 10}, ValueError, "images must be from 20 to 9000, got 10"),
        ({"images": 500.5}, TypeError, "images must be an integer"),
        ({"epochs": True}, TypeError, "epochs must be an integer"),
        ({"method": "distillation", "temperature": 0}, ValueError, "temperature must be from 0.1 to 100, got 0"),
        ({"method": "distillation", "temperature": "hot"}, TypeError, "temperature must be a number"),
        ({"method": "distillation", "temperature": float("nan")}, ValueError, "temperature must be a finite number"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"seed": 0.5}, TypeError, "seed must be an integer"),
    ]:
        with pytest.raises(error, match=words):
            lab.student(**{"seed": 0, **settings})
    with pytest.raises(ValueError, match="accuracy is measured on 'validation' or 'test', got 'train'"):
        lab.student(0).accuracy("train")
    assert not lab.looks


def test_a_laboratory_of_nonsense_is_refused():
    for options, words in [
        ({"teachers": {}}, "teachers={}: there must be one at least"),
        ({"settings": ["images", "colour"]}, "there is no 'colour'; there are method, temperature"),
        ({"images": 0}, "images must be at least 1"),
        ({"images": 10_000}, "images must be from 20 to 9000"),
        ({"epochs": 1000}, "epochs must be from 1 to 200"),
        ({"profile": "fast"}, "unknown profile 'fast'"),
    ]:
        with pytest.raises(ValueError, match=words):
            Laboratory(**{"profile": "ci", **options})


def test_settings_say_what_is_allowed_and_what_holds_where_nothing_is_said():
    settings = Laboratory("ci", images=300).settings
    assert repr(settings["temperature"]) == "0.1 to 100 (where nothing is said: 4.0)"
    assert repr(settings["method"]) == "labels or distillation (where nothing is said: labels)"
    assert settings["images"].default == 300 and "teacher" not in settings


def test_a_rehearsal_says_the_same_whenever_it_is_asked_and_trains_nothing(trained):
    one, two = (
        [Rehearsal().student(seed, **TAUGHT).accuracy(split) for seed in range(9) for split in ("validation", "test")]
        for _ in range(2)
    )
    assert one == two and len(set(one)) > 12 and not trained
    assert all(0 < accuracy < 1 and accuracy == round(accuracy, 4) for accuracy in one)


def test_in_a_rehearsal_an_interval_without_the_pairs_is_visibly_too_wide():
    lab = Rehearsal()
    a, b = ([lab.student(s, images=n).accuracy("test") for s in range(20)] for n in (500, 1000))
    paired = np.subtract(a, b).std(ddof=1)
    unpaired = np.hypot(np.std(a, ddof=1), np.std(b, ddof=1))
    assert unpaired > 2 * paired > 0
