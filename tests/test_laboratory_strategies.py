"""The laboratory trains on stored views, lets the temperature move and adds a stage of labels, where it may."""

import itertools

import numpy as np
import pytest
import torch
from laboratory_trainings import recorded_trainings
from torchvision.transforms import v2

from kdlib import data, inference, metrics, models, teachers, training
from kdlib.data import ImageSplit, augment
from kdlib.features import FeatureTerm, hint_loss, teacher_features
from kdlib.lesson.laboratory import Laboratory, Rehearsal, course_teacher
from kdlib.lesson.laboratory_training import Trainer
from kdlib.training.augmentation import views_of
from kdlib.training.schedules import linear

pytestmark = pytest.mark.usefixtures("one_thread")
TAUGHT = {"method": "distillation"}
CROP = augment.random_crop_flip()
KNOWN = ["method", "temperature", "alpha", "images", "epochs", "learning_rate", "label_smoothing"]


@pytest.fixture
def calls(monkeypatch):
    """The trainings: by which function, on which images, with which settings."""
    return recorded_trainings(monkeypatch)


def train_set(images, seed):
    return data.load("fashion-mnist").train.take(images, seed=seed)


def accuracies(student):
    return {split: student.accuracy(split) for split in ("validation", "test")}


def measured(network):
    dataset = data.load("fashion-mnist")
    return {split: metrics.accuracy(network, getattr(dataset, split)) for split in ("validation", "test")}


def fresh(seed):
    return models.build("tiny-cnn", seed=seed)


# ------------------------------------------------------------------ which settings there are


def test_unless_they_are_asked_for_there_are_no_settings_of_augmentations_or_schedules():
    for lab in (Laboratory("ci"), Rehearsal(), Laboratory("ci", augmentations={}), Rehearsal(augmentations=())):
        assert list(lab.settings) == KNOWN
        for name, value in (("augment", "none"), ("temperature_end", 1), ("second_stage", 0)):
            with pytest.raises(ValueError, match=f"unknown setting '{name}'; this laboratory has method, temperature"):
                lab.student(0, **TAUGHT, **{name: value})
    for lab in (Laboratory("ci", augmentations={"crop": CROP}), Rehearsal(augmentations=["crop"])):
        assert set(lab.settings) - set(KNOWN) == {"augment"}
    for lab in (Laboratory("ci", schedules=True), Rehearsal(schedules=True)):
        assert set(lab.settings) - set(KNOWN) == {"temperature_end", "second_stage"}


def test_the_settings_say_what_is_allowed_and_what_holds_where_nothing_is_said():
    given = {"crop": CROP, "shift": CROP}
    for lab in (
        Laboratory("ci", augmentations=given, schedules=True),
        Rehearsal(augmentations=given, schedules=True),
    ):
        assert repr(lab.settings["augment"]) == "none or crop or shift (where nothing is said: none)"
        assert repr(lab.settings["temperature_end"]) == "0.1 to 100 (where nothing is said: as at the start)"
        assert repr(lab.settings["second_stage"]) == "0 to 0.9 (where nothing is said: 0.0)"


def test_settings_without_effect_make_no_other_student():
    for lab in (
        Laboratory("ci", augmentations={"crop": CROP}, schedules=True),
        Rehearsal(augmentations=["crop"], schedules=True),
    ):
        labels = lab.student(0).settings
        assert {"temperature_end", "second_stage"}.isdisjoint(dict(labels)) and ("augment", "none") in labels
        for settings in (
            {"augment": "none"},
            {"method": "labels", "temperature_end": 1, "second_stage": 0.5},
            {**TAUGHT, "alpha": 0, "temperature_end": 1, "second_stage": 0.5},
        ):
            assert lab.student(0, **settings).settings == labels, settings
        taught = lab.student(0, **TAUGHT).settings
        assert "temperature_end" not in dict(taught) and ("second_stage", 0.0) in taught
        for settings in (
            {"temperature_end": "as at the start"},
            {"temperature_end": 4},
            {"temperature": 4.0, "temperature_end": 4.0},
            {"second_stage": 0},
        ):
            assert lab.student(0, **TAUGHT, **settings).settings == taught, settings


def test_the_smoothing_of_labels_that_only_a_second_stage_sees_has_an_effect():
    lab = Rehearsal(schedules=True)

    def asked(**settings):
        return lab.student(0, method="distillation", alpha=1, **settings).settings

    assert asked(label_smoothing=0.1) == asked()
    assert asked(label_smoothing=0.1, second_stage=0.5) != asked(second_stage=0.5)


def test_what_is_not_allowed_of_augmentations_and_schedules_is_refused_with_what_is():
    lab = Laboratory("ci", augmentations={"crop": CROP}, schedules=True)
    for settings, error, words in [
        ({"augment": "flip"}, ValueError, "augment must be one of none, crop; got 'flip'"),
        ({"augment": CROP}, ValueError, "augment must be one of none, crop; got random_crop_flip"),
        ({"temperature_end": 1}, ValueError, 'temperature_end is for students of a teacher: say method="distillation"'),
        ({"second_stage": 0.5}, ValueError, 'second_stage is for students of a teacher: say method="distillation" as'),
        ({**TAUGHT, "temperature_end": 0}, ValueError, "temperature_end must be from 0.1 to 100, got 0"),
        ({**TAUGHT, "temperature_end": "cold"}, TypeError, "temperature_end must be a number"),
        ({**TAUGHT, "temperature_end": None}, TypeError, "temperature_end must be a number"),
        ({**TAUGHT, "temperature": "as at the start"}, TypeError, "temperature must be a number"),
        ({**TAUGHT, "second_stage": 1}, ValueError, "second_stage must be from 0 to 0.9, got 1"),
        ({**TAUGHT, "second_stage": -0.1}, ValueError, "second_stage must be from 0 to 0.9, got -0.1"),
    ]:
        with pytest.raises(error, match=words):
            lab.student(0, **settings)
    for room in (lambda: Laboratory("ci", augmentations={"none": CROP}), lambda: Rehearsal(augmentations=["none"])):
        with pytest.raises(ValueError, match="augmentations must not be called 'none', which stands for the images as"):
            room()
    assert not lab.looks


# ------------------------------------------------------------------ views


def by_hand(seed, images, each):
    """Eight views of each image, drawn in the order of the images: pixels by `each`, which takes a batch."""
    split = train_set(images, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pixels = each(split.images.repeat_interleave(8, 0))
    labels, indices = (tensor.repeat_interleave(8) for tensor in (split.labels, split.indices))
    return ImageSplit(pixels, labels, indices, split.mean, split.std)


def test_a_student_with_an_augmentation_is_the_one_that_kdlib_trains_on_eight_views_of_its_images():
    turn = v2.RandomRotation(30)
    lab = Laboratory("lesson", images=60, epochs=16, augmentations={"crop": CROP, "turn": turn})
    seen = {"crop": by_hand(3, 60, CROP), "turn": by_hand(3, 60, lambda batch: torch.stack([*map(turn, batch)]))}
    found = []
    for name, views in seen.items():
        by_labels, taught = fresh(3), fresh(3)
        training.train(by_labels, views, epochs=2, seed=3, progress=False)
        logits = inference.predict_logits(teachers.load("fashion-mnist"), views)
        training.distill(taught, logits, views, epochs=2, seed=3, progress=False)
        for settings, network in (({}, by_labels), (TAUGHT, taught)):
            found.append(accuracies(lab.student(3, augment=name, **settings)))
            assert found[-1] == measured(network), (name, settings)
    found += [accuracies(lab.student(3, **settings)) for settings in ({}, TAUGHT)]
    assert len({one["test"] for one in found}) == 6


def test_a_student_of_views_is_bit_for_bit_the_one_trained_by_hand():
    settings = {"method": "distillation", "temperature": 2.0, "alpha": 0.5, "augment": "crop", "images": 40}
    settings |= {"epochs": 8, "learning_rate": 0.02, "label_smoothing": 0.1}
    trainer = Trainer(
        teachers={"course": course_teacher}, features={}, augmentations={"crop": CROP}, sensors={}, quick=False
    )
    ours, theirs = fresh(1), fresh(1)
    trainer.train(ours, 1, settings)
    views = views_of(train_set(40, 1), CROP, 8, 1)
    smooth = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    training.distill(
        theirs, teachers.load("fashion-mnist"), views, epochs=1, temperature=2, alpha=0.5, learning_rate=0.02,
        task_loss=smooth, seed=1, progress=False,
    )  # fmt: skip
    theirs = theirs.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.state_dict().items())


def test_a_pass_over_the_views_stands_for_eight_epochs(calls):
    lab = Laboratory("lesson", images=20, augmentations={"crop": CROP})
    for epochs, views, passes in [
        (1, 1, 1), (5, 5, 1), (7, 7, 1), (8, 8, 1), (11, 8, 1), (12, 8, 2), (20, 8, 3), (24, 8, 3),
    ]:  # fmt: skip
        lab.student(0, augment="crop", epochs=epochs).accuracy("test")
        _, split, settings = calls[-1]
        assert (len(split), settings["epochs"]) == (20 * views, passes), epochs
    Laboratory("ci", augmentations={"crop": CROP}).student(0, augment="crop", **TAUGHT).accuracy("test")
    assert (len(calls[-1][1]), calls[-1][2]["epochs"]) == (100, 1)


def test_the_teacher_and_the_features_are_asked_about_the_views_that_the_student_sees(calls):
    asked, watched, untrained = [], [], fresh(77)

    def teacher(split):
        asked.append(split.images)
        return torch.zeros(len(split), 10)

    def maps(split, weight, seed):
        watched.append(split.images)
        targets = teacher_features(untrained, split, ["stages.2"])["stages.2"]
        return [FeatureTerm(hint_loss, "stages.2", targets, weight)]

    lab = Laboratory(
        "lesson", images=20, epochs=8, teachers={"silent": teacher}, features={"maps": maps},
        augmentations={"crop": CROP, "shift": augment.random_crop_flip(flip=False)},
    )  # fmt: skip
    for temperature, name in itertools.product((1, 2), ("crop", "none", "shift")):
        lab.student(0, **TAUGHT, temperature=temperature, augment=name).accuracy("test")
    sizes = [len(images) for images in asked]
    assert sizes == [160, 20, 160] and not torch.equal(asked[0], asked[2])  # once for both temperatures
    assert [split.images.shape for _, split, _ in calls[3:]] == [images.shape for images in asked]
    assert all(torch.equal(split.images, images) for (_, split, _), images in zip(calls, asked, strict=False))
    lab.student(0, augment="crop", features="maps").accuracy("test")
    assert torch.equal(watched[0], asked[0])


def test_the_courses_teacher_looks_its_images_up_and_answers_views_by_their_pixels():
    split = train_set(30, 2)
    views = views_of(split, CROP, 8, 2)
    network = teachers.load("fashion-mnist")
    torch.testing.assert_close(course_teacher(split), inference.predict_logits(network, split))
    assert torch.equal(course_teacher(views), inference.predict_logits(network, views))
    assert not torch.allclose(course_teacher(views), course_teacher(split).repeat_interleave(8, 0), atol=0.1)


def test_an_augmentation_that_does_not_give_images_back_is_refused_before_anything_is_trained(calls):
    lab = Laboratory("lesson", images=20, augmentations={"cut": lambda images: images[..., 1:]})
    with pytest.raises(ValueError, match="augment must take uint8 images"):
        lab.student(0, augment="cut").accuracy("test")
    assert not lab.looks and not calls


# ------------------------------------------------------------------ schedules and stages


def test_the_temperature_goes_in_a_line_and_the_labels_alone_come_last():
    lab = Laboratory("lesson", images=60, epochs=4, schedules=True)
    split = train_set(60, 3)
    common = {"seed": 3, "progress": False}
    falling, staged = fresh(3), fresh(3)
    training.distill(falling, course_teacher(split), split, epochs=4, temperature=linear(10, 1), **common)
    training.distill(staged, course_teacher(split), split, epochs=3, temperature=2, learning_rate=0.02, **common)
    training.train(staged, split, epochs=1, learning_rate=0.02 * 0.1, **common)
    found = [
        accuracies(lab.student(3, **TAUGHT, **settings))
        for settings in (
            {"temperature": 10, "temperature_end": 1},
            {"temperature": 2, "learning_rate": 0.02, "second_stage": 0.25},
            {"temperature": 10},
            {"temperature": 2, "learning_rate": 0.02},
        )
    ]
    assert found[:2] == [measured(falling), measured(staged)]
    assert len({one["test"] for one in found}) == 4


def test_both_stages_have_an_epoch_at_least_and_share_the_epochs_where_there_are_enough(calls):
    lab = Laboratory("lesson", images=20, schedules=True, augmentations={"crop": CROP})
    for epochs, share, augmentation, stages in [
        (24, 0.25, "none", (18, 6)),
        (10, 0.9, "none", (1, 9)),
        (3, 0.9, "none", (1, 2)),
        (20, 0.01, "none", (19, 1)),
        (1, 0.25, "none", (1, 1)),
        (24, 0.25, "crop", (2, 1)),
        (40, 0.4, "crop", (3, 2)),
    ]:
        calls.clear()
        lab.student(0, **TAUGHT, epochs=epochs, second_stage=share, augment=augmentation).accuracy("test")
        [(first, seen, one), (second, seen_later, other)] = calls
        assert (first, second) == ("distill", "train") and torch.equal(seen.images, seen_later.images)
        assert (one["epochs"], other["epochs"]) == stages, (epochs, share, augmentation)
        assert other["learning_rate"] == pytest.approx(one["learning_rate"] / 10)


def test_a_rehearsal_tells_the_new_settings_apart_and_writes_them_into_its_record():
    lab = Rehearsal(augmentations=["my own", "crop and flip"], schedules=True, epochs=24)
    different = [
        {},
        {"augment": "my own"},
        {"augment": "crop and flip"},
        {"temperature": 10},
        {"temperature": 10, "temperature_end": 1},
        {"second_stage": 0.25},
    ]
    assert len({lab.student(0, **TAUGHT, **settings).accuracy("test") for settings in different}) == 6
    lines = repr(lab).splitlines()
    for said in ("augment='my own'", "temperature=10.0, temperature_end=1.0", "second_stage=0.25"):
        assert f"  method='distillation', {said}: seeds 0, measured on test" in lines, lines


# ------------------------------------------------------------------ what is refused


def test_what_is_no_function_by_a_name_is_refused_at_once():
    network = fresh(0)
    refused = [
        ({"augmentations": [CROP]}, "augmentations must be a dictionary of functions by name, got list"),
        ({"augmentations": CROP}, "augmentations must be a dictionary of functions by name, got _RandomCropFlip"),
        ({"augmentations": {"flip": "flip"}}, r"augmentations\['flip'\] must be a function, got str"),
        ({"augmentations": {"flip": v2.RandomHorizontalFlip}}, "the class RandomHorizontalFlip: give one of it"),
        ({"augmentations": {1: CROP}}, "augmentations must have names that are strings"),
        ({"teachers": {"mine": network}}, r"teachers\['mine'\] must be a function from a split to its logits, got "),
        ({"networks": {"mine": network}}, r"networks\['mine'\] must be a function from the seed to a network, got "),
        ({"networks": {0: fresh, 1: fresh}}, "networks must have names that are strings"),
        ({"schedules": "yes"}, "schedules must be True or False, got str 'yes'"),
    ]
    for arguments, message in refused:
        [name] = arguments
        # The hook of the tests looks at annotations before the function itself does.
        with pytest.raises(TypeError, match=f"{message}|whilst typechecking parameter '{name}'"):
            Laboratory("ci", **arguments)
    for names in ("crop", [1, 2]):
        with pytest.raises(TypeError, match="augmentations must have names|typechecking parameter 'augmentations'"):
            Rehearsal(augmentations=names)


def test_views_that_the_seed_does_not_repeat_are_refused_for_the_students_of_a_seed_would_not_share_them():
    def by_numpy(image):
        return image.roll(int(np.random.default_rng().integers(-9, 9)), dims=-1)

    lab = Laboratory("ci", augmentations={"by numpy": by_numpy, "flip": v2.RandomHorizontalFlip()})
    with pytest.raises(ValueError, match=r"augmentations\['by numpy'\] .* PyTorch's random numbers, not .* numpy"):
        lab.student(0, augment="by numpy").accuracy("validation")
    assert lab.student(0, augment="flip").accuracy("validation") > 0
