"""The laboratory adds feature losses to whatever a student learns from, where it is given some."""

import itertools

import pytest
import torch

from kdlib import data, metrics, models, training
from kdlib.features import FeatureTerm, hint_loss, teacher_features
from kdlib.lesson import exercises
from kdlib.lesson.laboratory import Laboratory, Rehearsal, course_teacher

pytestmark = pytest.mark.usefixtures("one_thread")
TAUGHT = {"method": "distillation", "temperature": 2, "alpha": 0.5}
UNTRAINED = models.build("tiny-cnn", seed=77)


def deepest_maps(transfer_set, weight, seed):
    """A hint at the last stage of another network of the student's form."""
    maps = teacher_features(UNTRAINED, transfer_set, ["stages.2"])["stages.2"]
    return [FeatureTerm(hint_loss, "stages.2", maps, weight)]


def accuracies(student):
    return {split: student.accuracy(split) for split in ("validation", "test")}


def test_a_student_with_features_is_the_one_that_kdlib_trains_on_labels_or_on_all():
    lab = Laboratory("lesson", images=200, epochs=2, features={"maps": deepest_maps})
    dataset = data.load("fashion-mnist")
    transfer_set = dataset.train.take(200, seed=3)
    same = {"features": deepest_maps(transfer_set, 5.0, 3), "epochs": 2, "seed": 3, "progress": False}
    by_labels, taught = (models.build("tiny-cnn", seed=3) for _ in range(2))
    training.distill(by_labels, course_teacher(transfer_set), transfer_set, alpha=0, **same)
    training.distill(taught, course_teacher(transfer_set), transfer_set, alpha=0.5, temperature=2, **same)
    for settings, expected in (({}, by_labels), ({"method": "labels"}, by_labels), (TAUGHT, taught)):
        found = accuracies(lab.student(3, features="maps", weight=5, **settings))
        assert found == {split: metrics.accuracy(expected, getattr(dataset, split)) for split in found}, settings
    plain = [accuracies(lab.student(3, **settings)) for settings in ({}, TAUGHT)]
    with_maps = [accuracies(lab.student(3, features="maps", weight=5, **settings)) for settings in ({}, TAUGHT)]
    assert plain[0] != with_maps[0] and plain[1] != with_maps[1]


def test_no_features_and_weight_zero_make_no_other_student_than_the_method_alone():
    asked = []

    def counted(transfer_set, weight, seed):
        asked.append((len(transfer_set), weight, seed))
        return deepest_maps(transfer_set, weight, seed)

    lab = Laboratory("lesson", images=60, epochs=1, features={"maps": counted})
    without = Laboratory("lesson", images=60, epochs=1)
    idle = [{}, {"features": "none"}, {"features": "none", "weight": 7}, {"features": "maps", "weight": 0}]
    for method, settings in itertools.product(({}, TAUGHT), idle):
        found = accuracies(lab.student(1, **method, **settings))
        assert found == accuracies(without.student(1, **method)), (method, settings)
    assert repr(lab).startswith("2 students in the laboratory") and not asked
    for settings in ({"features": "maps"}, {"features": "maps", "weight": 1.0}, {"features": "maps", "weight": 2}):
        lab.student(1, **settings).accuracy("test")
    assert repr(lab).startswith("4 students in") and asked == [(60, 1.0, 1), (60, 2.0, 1)]


def test_features_get_the_images_that_their_student_sees():
    seen = []

    def watched(transfer_set, weight, seed):
        seen.append((seed, weight, transfer_set.indices.tolist()))
        return deepest_maps(transfer_set, weight, seed)

    Laboratory("ci", features={"maps": watched}).student(4, features="maps", images=300).accuracy("test")
    assert seen == [(4, 1.0, data.load("fashion-mnist").train.take(30, seed=4).indices.tolist())]


def test_the_hint_of_the_exercise_is_trained_with_the_student_by_the_laboratory_and_by_a_loop():
    build = exercises.solution("hint_with_regressor")
    hint = build(32, 32)
    first = hint.regressor.weight.detach().clone()

    def hinted(transfer_set, weight, seed):
        maps = teacher_features(UNTRAINED, transfer_set, ["stages.1"])["stages.1"]
        return [FeatureTerm(hint, "stages.1", maps, weight)]

    Laboratory("ci", features={"hint": hinted}).student(0, features="hint").accuracy("test")
    assert not torch.equal(hint.regressor.weight, first)

    student, hint = torch.nn.Conv2d(1, 4, 3), build(4, 6)
    before = [parameter.detach().clone() for parameter in (*student.parameters(), *hint.parameters())]
    parameters = [*student.parameters(), *hint.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=0.1)
    hint(student(torch.randn(2, 1, 8, 8)), torch.randn(2, 6, 6, 6)).backward()
    optimizer.step()
    assert not any(torch.equal(one, other) for one, other in zip(parameters, before, strict=True))


def test_without_features_a_laboratory_has_no_such_settings():
    for lab in (Laboratory("ci"), Rehearsal(), Laboratory("ci", features={}), Rehearsal(features=())):
        assert not {"features", "weight"} & set(lab.settings)
        for name, value in (("features", "none"), ("weight", 1)):
            with pytest.raises(ValueError, match=f"unknown setting '{name}'; this laboratory has method, temperature"):
                lab.student(0, **{name: value})


def test_what_is_not_allowed_of_features_is_refused_with_what_is():
    lab = Laboratory("ci", features={"maps": deepest_maps})
    assert repr(lab.settings["features"]) == "none or maps (where nothing is said: none)"
    assert repr(lab.settings["weight"]) == "0 to 1000 (where nothing is said: 1.0)"
    for settings, error, words in [
        ({"weight": 2}, ValueError, r"weight is for students that learn from features: say features=\.\.\. as well"),
        ({"weight": 2, **TAUGHT}, ValueError, "weight is for students that learn from features"),
        ({"features": "map"}, ValueError, "features must be one of none, maps; got 'map'"),
        ({"features": None}, ValueError, "features must be one of none, maps; got None"),
        ({"features": "maps", "weight": -1}, ValueError, "weight must be from 0 to 1000, got -1"),
        ({"features": "maps", "weight": "much"}, TypeError, "weight must be a number"),
        ({"features": "maps", "alpha": 0.5}, ValueError, 'alpha is for students of a teacher: say method="distill'),
    ]:
        with pytest.raises(error, match=words):
            lab.student(0, **settings)
    for room in (lambda: Laboratory("ci", features={"none": deepest_maps}), lambda: Rehearsal(features=["none"])):
        with pytest.raises(ValueError, match="features must not be called 'none', which stands for no features"):
            room()
    assert not lab.looks


def test_a_rehearsal_has_the_features_by_name_and_the_same_settings_without_effect():
    lab = Rehearsal(features=("hint", "attention"))
    assert lab.settings["features"].allowed == ("none", "hint", "attention")
    plain = accuracies(lab.student(0))
    for settings in ({"features": "none"}, {"features": "none", "weight": 3}, {"features": "hint", "weight": 0}):
        assert accuracies(lab.student(0, **settings)) == plain
    different = [{"features": "hint"}, {"features": "hint", "weight": 2}, {"features": "attention"}]
    different += [{**TAUGHT, "features": "hint"}, TAUGHT, {}]
    assert len({accuracies(lab.student(0, **settings))["test"] for settings in different}) == len(different)
    lines = repr(lab).splitlines()
    assert "  method='labels', features='hint', weight=2.0: seeds 0, measured on validation and test" in lines
