"""The teachers of the tasks that ship: their files belong together, and they are as good as their manifests say."""

import dataclasses
import functools
import hashlib
import json
import shutil

import pytest
import torch
from torch.nn import functional as F

from kdlib import data, models
from kdlib.inference import predict_logits
from kdlib.tasks import shelf
from kdlib.tasks.collages import collages
from kdlib.tasks.detection import GridDetector

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = {"canvases": 60}
# How far a measure of so few images may lie from that of 4,000: several times its own deviation.
NEAR = {"collages": 0.06, "canvases": 0.15, "clips": 0.1, "turned": 1.5, "turned, wrong labels": 3.0}
THIRDS = ("third 1", "third 2", "third 3")
NEAR |= dict.fromkeys(THIRDS, 0.07)
LEARNED_FROM = dict.fromkeys(THIRDS, 3000)  # where there are not as many as are asked for


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """The shelf in a folder that may be damaged."""
    folder = tmp_path / "tasks"
    shutil.copytree(shelf.FOLDER, folder)
    monkeypatch.setattr(shelf, "FOLDER", folder)
    return folder


@pytest.fixture(scope="module")
def fashion() -> data.ImageDataset:
    return data.load("fashion-mnist")


def test_there_is_a_teacher_for_every_task_and_nothing_else_on_the_shelf():
    stems = {shelf._stem(name) for name in shelf.TASKS}
    files = {f"{stem}.{ending}" for stem in stems for ending in ("json", "safetensors")}
    assert {path.name for path in shelf.FOLDER.iterdir()} == files
    assert set(NEAR) == set(shelf.TASKS)


def test_manifests_are_those_of_their_files():
    seen = set()
    for name, task in shelf.TASKS.items():
        facts = shelf.manifest(name)
        content = (shelf.FOLDER / f"{shelf._stem(name)}.safetensors").read_bytes()
        assert facts["task"] == name and facts["command"] == f"python -m kdlib.tasks.shelf {name!r}"
        assert facts["bytes"] == len(content) and facts["sha256"] == hashlib.sha256(content).hexdigest(), name
        assert facts["recipe"] == shelf.RECIPE and facts["training_images"] == LEARNED_FROM.get(name, shelf.IMAGES)
        assert facts["seed"] == shelf.SEED and facts["seconds"] > 0 and {"python", "torch"} == set(facts["versions"])
        assert facts["parameters"] == sum(p.numel() for p in task.network().parameters())
        assert task.measured in facts
        seen.add(facts["sha256"])
    assert len(seen) == len(shelf.TASKS), "two teachers are one"


def test_teachers_are_frozen_and_as_good_as_their_manifests_say(fashion):
    """On few images, which are others than those of the manifest."""
    for name, task in shelf.TASKS.items():
        teacher, facts = shelf.load(name), shelf.manifest(name)
        assert not teacher.training and not teacher.train().training
        assert not any(parameter.requires_grad for parameter in teacher.parameters())
        assert all(value.isfinite().all() for value in teacher.state_dict().values())
        judges = task.make(fashion.test, FEW.get(name, 300), seed=77)
        found = task.measure(teacher, judges)
        assert found == pytest.approx(facts[task.measured], abs=NEAR[name]), name


def test_a_teacher_normalises_by_the_images_that_it_learned_from(fashion):
    """Whatever the mean and std of a split are."""
    teacher, facts = shelf.load("collages"), shelf.manifest("collages")
    made = collages(fashion.test, 20)
    other = data.ImageSplit(made.images, made.labels, mean=[0.5], std=[0.9])
    assert torch.equal(predict_logits(teacher, made), predict_logits(teacher, other))
    pixels = (made.images / 255 - facts["mean"][0]) / facts["std"][0]
    with torch.no_grad():
        expected = teacher.network(pixels)
    torch.testing.assert_close(predict_logits(teacher, made), expected, rtol=1e-4, atol=1e-4)


def test_a_teacher_of_wrong_labels_is_worse_than_one_of_right_ones():
    right, wrong = (shelf.manifest(name)["mean error in degrees"] for name in ("turned", "turned, wrong labels"))
    assert right < 0.8 * wrong


def test_no_two_teachers_of_thirds_learned_from_the_same_image(fashion):
    thirds = [shelf.TASKS[name].taught(fashion.train, shelf.IMAGES, seed=shelf.SEED) for name in THIRDS]
    rows = torch.cat([third.indices for third in thirds])
    assert [len(third) for third in thirds] == [3000] * 3 and len(rows.unique()) == 9000
    assert torch.equal(rows.sort().values, fashion.train.indices.sort().values)
    for third, name in zip(thirds, THIRDS, strict=True):
        # Each class about as often as any other: up to five deviations of a random third.
        assert (third.labels.bincount(minlength=10) - 300).abs().max() < 5 * (900 * 2 / 9) ** 0.5
        assert shelf.manifest(name)["mean"] == third.mean.tolist() == fashion.mean.tolist()


def test_teachers_of_thirds_are_alike():
    facts = {name: shelf.manifest(name) for name in THIRDS}
    for key in ("recipe", "parameters", "seed", "mean", "std"):
        assert all(facts[name][key] == facts[THIRDS[0]][key] for name in THIRDS), key
    right = [facts[name]["accuracy"] for name in THIRDS]
    assert max(right) - min(right) < 0.02


def test_damaged_weights_are_refused_by_name(copies):
    for name in shelf.TASKS:
        path = copies / f"{shelf._stem(name)}.safetensors"
        whole = path.read_bytes()
        for damage in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b"", None):
            if damage is None:
                path.unlink()
            else:
                path.write_bytes(damage)
            with pytest.raises(ValueError) as refusal:
                shelf.load(name)
            words = str(refusal.value)
            assert f"teacher {name!r} are damaged: {path.name} has {len(damage or b'')} bytes" in words
            assert f"python -m kdlib.tasks.shelf {name!r}" in words
        path.write_bytes(whole)
        shelf.load(name)


def test_unknown_names_are_refused_with_those_there_are():
    for function in (shelf.load, shelf.manifest, lambda name: shelf.train(name, data.load())):
        with pytest.raises(ValueError, match="name must be one of 'collages', 'canvases', .*, got 'collage'"):
            function("collage")
        with pytest.raises(ValueError, match=r"name must be one of .*, got \['collages'\]"):
            function(["collages"])
    with pytest.raises(SystemExit):
        shelf.main(["collage"])


@pytest.fixture
def small(monkeypatch):
    """Networks of few channels, so that a training takes a moment."""
    classifiers = dict.fromkeys(THIRDS, (10, 1))
    plans = classifiers | {"collages": (10, 1), "clips": (40, 8), "turned": (1, 1), "turned, wrong labels": (1, 1)}
    networks = {name: functools.partial(models.TinyCNN, *plan, (4,)) for name, plan in plans.items()}
    networks["canvases"] = functools.partial(GridDetector, (4, 4, 4))
    tasks = {name: dataclasses.replace(task, network=networks[name]) for name, task in shelf.TASKS.items()}
    monkeypatch.setattr(shelf, "TASKS", tasks)
    return tasks


def test_a_training_writes_two_files_that_load_reads(small, fashion, tmp_path, monkeypatch):
    few = data.ImageDataset(fashion.train.take(40), fashion.validation, fashion.test.take(40), fashion.classes)
    for name, task in small.items():
        facts = shelf.train(name, few, images=40, out=tmp_path, epochs=1, progress=False)
        stem = shelf._stem(name)
        assert facts == json.loads((tmp_path / f"{stem}.json").read_text(encoding="utf-8"))
        monkeypatch.setattr(shelf, "FOLDER", tmp_path)
        teacher = shelf.load(name)
        made = (task.taught or task.make)(few.train, 40, seed=shelf.SEED)
        assert facts["mean"] == made.mean.tolist() and facts["std"] == made.std.tolist()
        assert facts["recipe"] == shelf.RECIPE | {"epochs": 1, "progress": False}
        assert facts["training_images"] == len(made)
        # What is said of its quality is of the rounded weights, and of right labels.
        assert facts[task.measured] == pytest.approx(task.measure(teacher, task.make(few.test, 40, seed=shelf.SEED)))
        for key, value in teacher.network.state_dict().items():
            assert torch.equal(value, value.half().float()) or not value.is_floating_point(), key
        before = (tmp_path / f"{stem}.safetensors").read_bytes()
        assert len(before) == facts["bytes"]
        if name == "collages":  # a seed fixes everything
            again = shelf.train(name, few, images=40, out=tmp_path / "again", epochs=1, progress=False)
            assert again["sha256"] == facts["sha256"]


def test_a_teacher_learns_from_what_its_name_says(small, fashion, monkeypatch, tmp_path):
    """Wrong labels where the name says so, and nowhere else; the task's own loss."""
    seen = {}

    def noted(network, split, *, task_loss, **options):
        seen[task_loss] = split
        raise InterruptedError

    monkeypatch.setattr("kdlib.training.train", noted)
    few, labels = fashion.train.take(30), {}
    whole = data.ImageDataset(few, few, few, fashion.classes)
    for name, task in small.items():
        with pytest.raises(InterruptedError):
            shelf.train(name, whole, images=200, out=tmp_path)
        labels[name] = seen.pop(task.task_loss)
        assert not seen
        if name in THIRDS:
            assert torch.equal(labels[name].images, few.images[THIRDS.index(name) :: 3])
        else:
            assert torch.equal(labels[name].images, task.make(few, 200, seed=shelf.SEED).images)
    right, wrong = labels["turned"].labels, labels["turned, wrong labels"].labels
    assert abs((right != wrong).double().mean() - shelf.WRONG) < 0.15
    assert small["collages"].task_loss is F.binary_cross_entropy_with_logits
    assert not list(tmp_path.iterdir()), "a file of a training that did not end"


def test_the_command_trains_those_that_are_named_or_all(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(shelf, "train", lambda name, dataset: asked.append(name) or {"task": name})
    for arguments, expected in ((["clips", "turned, wrong labels"], None), ([], [*shelf.TASKS])):
        asked.clear()
        shelf.main(arguments)
        assert asked == (expected or arguments)
        assert capsys.readouterr().out.count('"task"') == len(asked)
