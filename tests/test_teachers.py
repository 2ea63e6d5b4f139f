"""Teachers: what ships is whole and as good as it says; logits are cached for the right images and weights."""

import json
import shutil

import pytest
import torch
from torch import nn

from kdlib import _files, _logit_cache, data, inference, metrics, models, teachers
from kdlib.teachers import shelf
from kdlib.training import teacher_recipe


@pytest.fixture
def own_folders(tmp_path, monkeypatch):
    """The user's cache and data folders, and the cache in memory, empty."""
    monkeypatch.setattr(_files, "cache_folder", lambda: tmp_path / "cache" / "kdlib")
    monkeypatch.setattr(_files, "data_folder", lambda: tmp_path / "data" / "kdlib")
    monkeypatch.setattr(_logit_cache, "_memory", {})
    monkeypatch.setattr(_logit_cache, "_warned", set())
    return tmp_path


@pytest.fixture
def split():
    return data.load().train.take(40)


class Counting(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.images = network, 0

    def forward(self, images):
        self.images += len(images)
        return self.network(images)


# --- the teacher that ships


def test_the_shipped_teacher_is_as_good_as_its_manifest_says():
    torch.set_num_threads(2)
    test = data.load().test
    accuracy = metrics.accuracy(teachers.load(), test)
    manifest = teachers.manifest()
    assert len(test) == manifest["test_images"] == 10_000
    # The teacher was trained with the mean and deviation of all 60,000 images; those of the embedded ones differ
    # in the third digit, and tip a few images.
    assert accuracy == pytest.approx(manifest["test_accuracy"], abs=1e-3)
    assert accuracy >= 0.93


def test_the_shipped_weights_are_small_and_the_manifest_is_complete():
    manifest = teachers.manifest()
    assert manifest["bytes"] <= 1_000_000
    assert manifest["training_images"] == 60_000
    assert {"recipe", "seed", "versions", "command", "sha256", "architecture"} <= set(manifest)
    assert manifest["command"] == "kdlib train-teacher fashion-mnist"


def test_the_shipped_teacher_is_frozen_and_in_eval():
    teacher = teachers.load()
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not any(module.training for module in teacher.modules())


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_damaged_weights_are_refused(own_folders, damage):
    source, folder = shelf._shipped_folder(), own_folders / "copy"
    shutil.copytree(source, folder)
    weights = folder / "fashion-mnist.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(content[: len(content) // 2])
    else:
        content[-1] ^= 1
        weights.write_bytes(content)
    with pytest.raises(
        ValueError, match="fashion-mnist teacher are damaged.*kdlib train-teacher fashion-mnist"
    ):
        teachers.load(folder=folder)


def test_a_damaged_manifest_is_refused(own_folders):
    folder = own_folders / "copy"
    shutil.copytree(shelf._shipped_folder(), folder)
    manifest = folder / "fashion-mnist.json"
    manifest.write_text(manifest.read_text()[:100])
    with pytest.raises(ValueError, match="manifest of the fashion-mnist teacher is damaged"):
        teachers.load(folder=folder)


def test_a_data_set_without_a_teacher_says_how_to_get_one(own_folders):
    with pytest.raises(ValueError, match="'cifar10'; available: fashion-mnist.*kdlib train-teacher cifar10"):
        teachers.load("cifar10")


# --- training one


def test_a_trained_teacher_is_found_by_name_and_scores_what_its_manifest_says(own_folders):
    path = teacher_recipe.train_teacher("digits", epochs=2, progress=False)
    assert not list(path.parent.glob("*.checkpoint"))
    manifest = json.loads(path.read_text())
    test = data.load("digits").test
    assert metrics.accuracy(teachers.load("digits"), test) == pytest.approx(
        manifest["test_accuracy"], abs=1e-6
    )
    assert manifest["command"] == "kdlib train-teacher digits --epochs 2"
    assert manifest["test_accuracy"] > 0.5
    assert teachers.available() == ["digits", "fashion-mnist"]


# --- cached logits


def test_cached_logits_are_the_teachers_row_by_row(own_folders, split):
    teacher = models.build("resnet8", seed=1).eval()
    expected = teacher(split.normalized())
    torch.testing.assert_close(teachers.cached_logits(teacher, split), expected, rtol=1e-4, atol=1e-5)


def test_the_teacher_is_asked_once_in_memory_and_on_disk(own_folders, split, monkeypatch):
    teacher = Counting(models.build("resnet8", seed=1))
    first = teachers.cached_logits(teacher, split)
    assert (
        teacher.images == len(split) + 2
    )  # two once more, to see that its answers do not depend on the batch
    again = teachers.cached_logits(teacher, split)
    monkeypatch.setattr(_logit_cache, "_memory", {})
    from_disk = teachers.cached_logits(teacher, split)
    assert torch.equal(first, again) and torch.equal(first, from_disk)
    assert teacher.images == len(split) + 2 + 2 * 8  # eight images each time, to see that it still answers so


def test_other_weights_and_other_images_have_their_own_logits(own_folders, split):
    teacher = models.build("resnet8", seed=1)
    before = teachers.cached_logits(teacher, split)
    with torch.no_grad():
        teacher.head.bias += 1
    torch.testing.assert_close(teachers.cached_logits(teacher, split), before + 1, rtol=1e-4, atol=1e-4)
    reversed_split = split.subset(torch.arange(len(split)).flip(0))
    torch.testing.assert_close(
        teachers.cached_logits(teacher, reversed_split), (before + 1).flip(0), rtol=1e-4, atol=1e-4
    )


def test_a_changed_forward_with_the_same_weights_is_noticed(own_folders, split):
    class Scaled(nn.Module):
        def __init__(self, network, scale):
            super().__init__()
            self.network, self.scale = network, scale

        def forward(self, images):
            return self.scale * self.network(images)

    network = models.build("resnet8", seed=1)
    once, twice = (teachers.cached_logits(Scaled(network, scale), split) for scale in (1.0, 2.0))
    torch.testing.assert_close(twice, 2 * once)


def test_what_the_caller_does_to_the_logits_stays_with_the_caller(own_folders, split):
    teacher = models.build("resnet8", seed=1)
    teachers.cached_logits(teacher, split).zero_()
    assert teachers.cached_logits(teacher, split).abs().sum() > 0


def test_a_torn_cache_file_is_computed_again(own_folders, split, monkeypatch):
    teacher = models.build("resnet8", seed=1)
    expected = teachers.cached_logits(teacher, split)
    (file,) = (own_folders / "cache" / "kdlib" / "logits").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    monkeypatch.setattr(_logit_cache, "_memory", {})
    assert torch.equal(teachers.cached_logits(teacher, split), expected)


def test_a_folder_that_cannot_be_written_costs_a_warning_only(own_folders, split):
    (own_folders / "cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="not kept on disk"):
        logits = teachers.cached_logits(models.build("resnet8", seed=1), split)
    assert logits.shape == (40, 10)


# --- inference


def test_predict_logits_restores_every_modules_mode(split):
    model = models.build("tiny-cnn", seed=0).train()
    model.stages[0].eval()
    before = [module.training for module in model.modules()]
    inference.predict_logits(model, split)
    assert [module.training for module in model.modules()] == before


def test_predict_logits_does_not_depend_on_the_batch_size(split):
    model = models.build("tiny-cnn", seed=0)
    whole, parts = (inference.predict_logits(model, split, batch_size=size) for size in (500, 7))
    torch.testing.assert_close(whole, parts)


def test_a_model_that_returns_maps_is_refused_with_both_shapes(split):
    with pytest.raises(ValueError, match=r"\(40, classes\).*\(40, 4, 26, 26\)"):
        inference.predict_logits(nn.Conv2d(1, 4, 3), split)
