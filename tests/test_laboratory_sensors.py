"""The laboratory lets students see what a sensor makes of the images, while their teacher sees the pixels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdlib import data, inference, metrics, models, teachers, training
from kdlib.data import ImageSplit, augment
from kdlib.features import FeatureTerm
from kdlib.lesson.laboratory import Laboratory, Rehearsal, course_teacher, weaker_teacher
from kdlib.tasks import modalities

pytestmark = pytest.mark.usefixtures("one_thread")
TAUGHT = {"method": "distillation"}
KNOWN = ["method", "temperature", "alpha", "images", "epochs", "learning_rate", "label_smoothing"]
SENSORS = {"edges": modalities.edges, "thumbnails": modalities.thumbnails, "silhouettes": modalities.silhouettes}


@pytest.fixture
def calls(monkeypatch):
    """The trainings: by which function, on which images."""
    made = []

    def recorded(name):
        function = getattr(training, name)

        def train(student, *rest, **settings):
            made.append((name, rest[-1]))
            return function(student, *rest, **settings)

        monkeypatch.setattr(training, name, train)

    recorded("train")
    recorded("distill")
    return made


def negatives(split):
    return ImageSplit(255 - split.images, split.labels, split.indices)


def backwards(split):
    return split.subset(torch.arange(len(split)).flip(0))


def fresh(seed):
    return models.build("tiny-cnn", seed=seed)


def seen_by_hand(seen, split):
    """With the mean and std of all training images as the sensor gives them."""
    pixels = seen(data.load("fashion-mnist").train).double() / 255
    mean, std = pixels.mean((0, 2, 3)).float(), pixels.std((0, 2, 3), correction=0).float()
    return ImageSplit(seen(split), split.labels, split.indices, mean, std)


def small_pixels(split):
    """Thumbnails, by numpy: half the sum of neighbours is rounded to the even number, as torch does."""
    n, channels, height, width = split.images.shape
    blocks = split.images.numpy().reshape(n, channels, height // 2, 2, width // 2, 2).astype(np.float64)
    return torch.from_numpy(np.rint(blocks.mean(axis=(3, 5))).astype(np.uint8))


def bright_pixels(split):
    return torch.where(split.images > 25, 255, 0).to(torch.uint8)


# ------------------------------------------------------------------ which settings there are


def test_unless_they_are_asked_for_there_is_no_setting_of_sensors():
    for lab in (Laboratory("ci"), Rehearsal(), Laboratory("ci", sensors={}), Rehearsal(sensors=())):
        assert list(lab.settings) == KNOWN
        with pytest.raises(ValueError, match="unknown setting 'sensor'; this laboratory has method, temperature"):
            lab.student(0, sensor="edges")
    for lab in (Laboratory("ci", sensors=SENSORS), Rehearsal(sensors=SENSORS)):
        assert list(lab.settings) == ["sensor", *KNOWN]
        expected = "edges or thumbnails or silhouettes (where nothing is said: edges)"
        assert repr(lab.settings["sensor"]) == expected
    assert list(Laboratory("ci", sensors={"edges": modalities.edges}).settings) == ["sensor", *KNOWN]


def test_a_sensor_makes_another_student_with_and_without_a_teacher_and_the_first_one_is_the_default():
    for lab in (Laboratory("ci", sensors=SENSORS), Rehearsal(sensors=SENSORS)):
        for settings in ({}, TAUGHT):
            students = {lab.student(0, sensor=name, **settings).settings for name in SENSORS}
            assert len(students) == 3 and lab.student(0, **settings).settings in students
            assert ("sensor", "edges") in lab.student(0, **settings).settings
        with pytest.raises(ValueError, match="sensor must be one of edges, thumbnails, silhouettes; got 'pixels'"):
            lab.student(0, sensor="pixels")


# ------------------------------------------------------------------ what the student sees, and what its teacher sees


def test_a_student_with_a_sensor_is_the_one_that_kdlib_trains_and_judges_on_what_the_sensor_gives():
    lab = Laboratory("lesson", images=60, epochs=2, sensors=SENSORS)
    dataset = data.load("fashion-mnist")
    pixels = dataset.train.take(60, seed=3)
    logits = inference.predict_logits(teachers.load("fashion-mnist"), pixels)
    found = []
    for name, seen in {"thumbnails": small_pixels, "silhouettes": bright_pixels}.items():
        by_labels, taught = fresh(3), fresh(3)
        transfer_set = seen_by_hand(seen, pixels)
        training.train(by_labels, transfer_set, epochs=2, seed=3, progress=False)
        training.distill(taught, logits, transfer_set, epochs=2, alpha=1, seed=3, progress=False)
        for settings, network in (({}, by_labels), ({**TAUGHT, "alpha": 1}, taught)):
            student = lab.student(3, sensor=name, **settings)
            for split in ("validation", "test"):
                expected = metrics.accuracy(network, seen_by_hand(seen, getattr(dataset, split)))
                found.append(student.accuracy(split))
                assert found[-1] == pytest.approx(expected, abs=2e-4), (name, settings, split)
    assert len({*found[1::2]}) == 4


def test_a_student_that_sees_the_pixels_by_a_sensor_is_the_one_of_a_laboratory_without_sensors():
    plain, with_sensor = (
        Laboratory("ci", images=400, **more) for more in ({}, {"sensors": {"pixels": modalities.pixels}})
    )
    for settings in ({}, TAUGHT):
        same = [lab.student(2, **settings).accuracy("test") for lab in (plain, with_sensor)]
        assert same[0] == same[1], settings


def test_students_of_one_seed_see_the_same_images_by_different_sensors_and_fewer_are_part_of_more(calls):
    lab = Laboratory("lesson", epochs=1, sensors=SENSORS)
    for name, images in (("edges", 60), ("thumbnails", 60), ("edges", 40)):
        lab.student(1, sensor=name, images=images).accuracy("validation")
    (_, edges), (_, small), (_, fewer) = calls
    pixels = data.load("fashion-mnist").train.take(60, seed=1)
    for split in (edges, small):
        assert torch.equal(split.indices, pixels.indices) and torch.equal(split.labels, pixels.labels)
    assert edges.images.shape[2:] == (28, 28) and small.images.shape[2:] == (14, 14)
    rows = torch.isin(edges.indices, fewer.indices)
    assert int(rows.sum()) == 40 and torch.equal(edges.images[rows], fewer.images)


def test_the_teacher_is_asked_once_about_the_pixels_whatever_the_student_sees(calls):
    asked = []

    def teacher(split):
        asked.append(split)
        return 5.0 * F.one_hot(split.labels, 10)

    lab = Laboratory("lesson", images=40, epochs=1, teachers={"mine": teacher}, sensors=SENSORS)
    for name in SENSORS:
        for temperature in (1, 2):
            lab.student(0, sensor=name, temperature=temperature, **TAUGHT).accuracy("test")
    [pixels] = asked
    expected = data.load("fashion-mnist").train.take(40, seed=0)
    assert torch.equal(pixels.images, expected.images) and torch.equal(pixels.mean, expected.mean)
    assert [name for name, _ in calls] == ["distill"] * 6
    assert not any(split.images.shape == pixels.images.shape and torch.equal(split.images, pixels.images)
                   for _, split in calls)  # fmt: skip


def test_the_courses_teacher_and_a_weaker_one_answer_for_students_of_a_sensor(calls):
    given = {"course": course_teacher, "weaker": weaker_teacher(50, epochs=1)}
    lab = Laboratory("ci", images=400, teachers=given, sensors={"negatives": negatives})
    found = {name: lab.student(0, teacher=name, **TAUGHT).accuracy("test") for name in given}
    assert found["course"] != found["weaker"]
    [(_, of_weaker)] = [call for call in calls if call[0] == "train"]
    students = calls[0][1]
    assert not torch.isin(of_weaker.indices, students.indices).any()
    own = data.load("fashion-mnist").train
    rows = torch.isin(own.indices, of_weaker.indices)
    assert torch.equal(own.images[rows], of_weaker.images)  # it learns from pixels


def test_a_sensor_sees_each_split_once_for_all_students_of_a_laboratory():
    seen = []

    def counting(split):
        seen.append(len(split))
        return negatives(split)

    lab = Laboratory("ci", sensors={"edges": modalities.edges, "counting": counting})
    lab.student(0).accuracy("test")
    assert not seen
    for seed in range(2):
        for settings in ({}, TAUGHT):
            lab.student(seed, sensor="counting", **settings).accuracy("test")
    dataset = data.load("fashion-mnist")
    assert seen == [len(split) for split in (dataset.train, dataset.validation, dataset.test)]


def test_a_rehearsal_tells_sensors_apart_and_the_record_always_says_which_one():
    lab = Rehearsal(sensors=SENSORS)
    assert len({lab.student(0, sensor=name).accuracy("test") for name in SENSORS}) == 3
    assert "  sensor='edges', method='labels': seeds 0, measured on test" in repr(lab).splitlines()


# ------------------------------------------------------------------ what is refused


def test_a_sensor_that_changes_the_order_or_gives_no_images_is_refused_before_anything_is_trained(calls):
    def of_other_labels(split):
        return ImageSplit(split.images, split.labels.roll(1), split.indices)

    def fewer(split):
        return split.subset(slice(10))

    for sensor, words in [
        (lambda split: split.images, "an ImageSplit, got Tensor"),
        (backwards, "its labels are others"),
        (of_other_labels, "its labels are others"),
        (fewer, "its labels are others"),
        (lambda split: ImageSplit(split.images, split.labels), "its indices are others"),
    ]:
        lab = Laboratory("ci", sensors={"mine": sensor})
        for settings in ({}, TAUGHT):
            with pytest.raises(ValueError, match=rf"sensors\['mine'\] must give .*{words}"):
                lab.student(0, **settings).accuracy("test")
        assert not lab.looks and not calls


def test_neither_augmentations_nor_features_stand_beside_sensors():
    def no_terms(split, weight, seed) -> list[FeatureTerm]:
        return []

    crop = augment.random_crop_flip()
    words = "a laboratory with sensors, whose students see other images than their teacher, takes no "
    for more, names, message in [
        ({"augmentations": {"crop": crop}}, {"augmentations": ["crop"]}, "augmentations; got augmentations crop and"),
        ({"features": {"mine": no_terms}}, {"features": ["mine"]}, "features; got features mine and sensors edges, th"),
    ]:
        with pytest.raises(ValueError, match=words + message):
            Laboratory("ci", sensors=SENSORS, **more)
        with pytest.raises(ValueError, match=words + message):
            Rehearsal(sensors=SENSORS, **names)


def test_what_is_no_sensor_by_a_name_is_refused_at_once():
    for sensors, message in [
        ([modalities.edges], "sensors must be a dictionary of functions by name, got list"),
        (modalities.edges, "sensors must be a dictionary of functions by name, got function"),
        ({"edges": "edges"}, r"sensors\['edges'\] must be a function from a split to the one that is seen, got str"),
        ({"edges": fresh(0)}, r"sensors\['edges'\] must be a function from a split to the one that is seen, got Tiny"),
        ({1: modalities.edges}, "sensors must have names that are strings"),
    ]:
        # The hook of the tests looks at annotations before the function itself does.
        with pytest.raises(TypeError, match=f"{message}|whilst typechecking parameter 'sensors'"):
            Laboratory("ci", sensors=sensors)
    for names in ("edges", [1, 2]):
        with pytest.raises(TypeError, match="sensors must have names|typechecking parameter 'sensors'"):
            Rehearsal(sensors=names)
