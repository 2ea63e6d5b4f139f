"""ResNet-18 teaches MobileNetV2 x0.35: the experiment of lesson 05, run very small."""

import pandas
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlib import training
from kdlib.data import ImageDataset
from kdlib.experiments import lesson05

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small():
    """Some images of the real set: 60 to learn from, 40 to be judged by."""
    dataset = lesson05.data.load("fashion-mnist")
    splits = (dataset.train.take(60), dataset.validation.take(20), dataset.test.take(40))
    return ImageDataset(*map(lesson05.enlarged, splits), dataset.classes)


@pytest.fixture(scope="module")
def taught(small):
    """The materials and the teacher's row, from these images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lesson05, "images", lambda *, full: small)
        return lesson05.materials(epochs=1)


def test_images_are_scaled_to_64_pixels_as_torch_scales_one_of_them(small):
    plain = lesson05.data.load("fashion-mnist").test.take(40)
    assert small.test.images.shape == (40, 1, 64, 64) and torch.equal(small.test.labels, plain.labels)
    alone = F.interpolate(plain.images[7:8].double(), (64, 64), mode="bilinear")[0]
    assert (small.test.images[7] - alone).abs().max() <= 0.5 + 1e-3
    assert torch.equal(small.test.mean, plain.mean)


def test_both_networks_take_one_channel_and_have_the_sizes_that_the_lesson_states():
    for network, parameters in ((lesson05.TEACHER, 11_175_370), (lesson05.STUDENT, 408_650)):
        one, again, other = (lesson05.build(network, seed).eval() for seed in (3, 3, 4))
        assert sum(p.numel() for p in one.parameters()) == parameters, network
        image = torch.rand(2, 1, 64, 64)
        with torch.inference_mode():
            assert one(image).shape == (2, 10)
            assert torch.equal(one(image), again(image)) and not torch.equal(one(image), other(image))


def test_a_seed_leaves_the_global_random_state_as_it_was():
    before = torch.get_rng_state()
    lesson05.build(lesson05.STUDENT, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_table_has_a_row_for_each_method_and_seed_and_for_the_teacher(taught, monkeypatch):
    monkeypatch.setattr(lesson05, "materials", lambda: taught)
    monkeypatch.setattr(lesson05, "both_speeds", lambda train: speeds)
    in_turn = lambda cell, cells, shared: pandas.DataFrame([c | cell(**c, **shared) for c in cells])  # noqa: E731
    monkeypatch.setattr(lesson05, "map_cells", in_turn)
    for name, value in {"IMAGES": 20, "EPOCHS": 1, "LEAKED_IMAGES": 16, "LEAKED_EPOCHS": 1}.items():
        monkeypatch.setattr(lesson05, name, value)
    speeds = pandas.DataFrame(
        [
            {"network": lesson05.TEACHER, "seconds_a_pass": 200.0},
            {"network": lesson05.STUDENT, "seconds_a_pass": 60.0},
        ]
    )
    table = lesson05.mobilenet(seeds=range(2))
    methods = ["teacher", lesson05.LONG, lesson05.ALONE, lesson05.DISTILLED, lesson05.LEAKED]
    assert table["method"].drop_duplicates().tolist() == methods
    assert table["method"].value_counts().to_dict() == {name: 2 for name in methods} | {"teacher": 1}
    assert not table.isna().any().any()
    assert (table["seconds_a_pass"] == table["method"].eq("teacher").map({True: 200.0, False: 60.0})).all()
    assert (table["processor_seconds"] > 0).all()
    honest = table[table["method"] != lesson05.LEAKED]
    assert honest["accuracy"].equals(honest["unseen"]) and set(honest["judged_on"]) == {"test images"}
    leaked = table[table["method"] == lesson05.LEAKED]
    # A share of 16 images that it learned from, and a share of the 24 others.
    assert all(value * 16 % 1 == 0 for value in leaked["accuracy"])
    assert all(abs(value * 24 - round(value * 24)) < 1e-6 for value in leaked["unseen"])


def trainings_of(method, taught, monkeypatch):
    """What one student of this method is trained on, by which answers, and the row that comes of it."""
    seen = []

    def record(student, answers, split, **settings):
        weights = nn.utils.parameters_to_vector(student.parameters()).detach().clone()
        seen.append((weights, answers, split, settings))

    monkeypatch.setattr(training, "distill", record)
    row = lesson05.one_student(method, seed=1, images=16, epochs=3, judged_on="", **taught[0])
    return *seen[0], row


def test_methods_of_one_seed_differ_in_the_teacher_alone(taught, monkeypatch):
    alone, long, distilled = (
        trainings_of(method, taught, monkeypatch)
        for method in (lesson05.ALONE, lesson05.LONG, lesson05.DISTILLED)
    )
    for one in (long, distilled):
        assert torch.equal(one[0], alone[0]) and torch.equal(one[2].indices, alone[2].indices)
    assert (alone[3]["alpha"], long[3]["alpha"], distilled[3]["alpha"]) == (0, 0, 0.7)
    assert alone[3] | {"alpha": 0.7} == distilled[3] and distilled[3]["temperature"] == 5
    cells = lesson05.students(range(1), 100, 6, 50, 10)
    assert [(cell["images"], cell["epochs"]) for cell in cells] == [(100, 12), (100, 6), (100, 6), (50, 10)]


def test_answers_belong_to_the_images_that_the_student_sees(taught, monkeypatch):
    shared = taught[0]
    for method, name in ((lesson05.DISTILLED, "train"), (lesson05.LEAKED, "test")):
        _, answers, split, _, _ = trainings_of(method, taught, monkeypatch)
        whole = shared[name].indices.tolist()
        rows = [whole.index(index) for index in split.indices.tolist()]
        assert len(set(rows)) == 16
        assert torch.equal(answers, shared["answers"][name][rows]), method


def test_only_the_leaking_student_learns_from_images_that_it_is_judged_by(taught, monkeypatch):
    """A judge that knows which images were learned from: accuracy is their share."""
    learned = {}
    distill = training.distill

    def remember(student, answers, split, **settings):
        learned["images"] = {image.numpy().tobytes() for image in split.images}
        distill(student, answers, split, **settings)

    def share(_, split):
        return sum(image.numpy().tobytes() in learned["images"] for image in split.images) / len(split)

    monkeypatch.setattr(training, "distill", remember)
    monkeypatch.setattr(lesson05.metrics, "accuracy", share)
    for method, expected in ((lesson05.DISTILLED, (0, 0)), (lesson05.LEAKED, (1, 0))):
        row = lesson05.one_student(method, seed=0, images=16, epochs=1, judged_on="", **taught[0])
        assert (row["accuracy"], row["unseen"]) == expected, method


def test_a_pass_over_60000_images_is_counted_from_the_images_that_were_timed(small, monkeypatch):
    clock = iter([10.0, 13.0])
    monkeypatch.setattr(lesson05.time, "process_time", lambda: next(clock))
    found = lesson05.seconds_a_pass(lesson05.STUDENT, small.train.subset(slice(32)))
    assert found == {"seconds_a_pass": pytest.approx(3 * 60000 / 32)}
