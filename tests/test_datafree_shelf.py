"""The inverted images and the generator that ship: their files belong together and are what their manifests say."""

import hashlib
import json
import shutil

import pytest
import torch

from kdlib import data, teachers
from kdlib.datafree import effective_classes, shelf, unlabelled
from kdlib.datafree import generator as generators
from kdlib.inference import predict_logits

pytestmark = pytest.mark.usefixtures("one_thread")

FILES = {shelf.INVERTED: "inverted.npz", shelf.GENERATOR: "generator.safetensors"}
READERS = {shelf.INVERTED: shelf.inverted, shelf.GENERATOR: shelf.generator}
SETTINGS = {
    shelf.INVERTED: shelf.INVERSION | {"batches": shelf.BATCHES, "batch": shelf.BATCH},
    shelf.GENERATOR: shelf.RECIPE | shelf.LOSS | {"noise": shelf.NOISE},
}


@pytest.fixture
def forgotten():
    """Nothing that was read before, and nothing left for other tests."""
    for function in (shelf.inverted, shelf._shipped):
        function.cache_clear()
    yield
    for function in (shelf.inverted, shelf._shipped):
        function.cache_clear()


@pytest.fixture
def copies(tmp_path, monkeypatch, forgotten):
    """The shelf in a folder that may be damaged."""
    folder = tmp_path / "datafree"
    shutil.copytree(shelf.FOLDER, folder)
    monkeypatch.setattr(shelf, "FOLDER", folder)
    return folder


@pytest.fixture(scope="module")
def fashion():
    return data.load("fashion-mnist")


# ------------------------------------------------------------------ what ships


def test_manifests_are_those_of_their_files_and_of_the_teacher_that_ships():
    assert {path.name for path in shelf.FOLDER.iterdir()} == {*FILES.values(), "inverted.json", "generator.json"}
    for name, file in FILES.items():
        facts, content = shelf.manifest(name), (shelf.FOLDER / file).read_bytes()
        assert facts["bytes"] == len(content) and facts["sha256"] == hashlib.sha256(content).hexdigest()
        assert facts["teacher"] == teachers.manifest("fashion-mnist")["sha256"]
        assert facts["settings"] == SETTINGS[name] and facts["seed"] == shelf.SEED
        assert facts["command"] == f"python -m kdlib.datafree.shelf {name}"
        assert facts["device"] in ("cpu", "cuda") and facts["seconds"] > 0
        assert {"python", "torch"} == set(facts["versions"])


def test_images_are_what_their_manifests_say_of_them(fashion):
    made = {shelf.INVERTED: shelf.inverted(), shelf.GENERATOR: shelf.generated(1000, seed=0)}
    teacher = teachers.load("fashion-mnist")
    for name, images in made.items():
        facts = shelf.manifest(name)
        assert images.shape == (1000, 1, 28, 28) and images.dtype == torch.uint8
        assert len(images.flatten(1).unique(dim=0)) == 1000, "two images are one"
        logits = predict_logits(teacher, unlabelled(images, fashion))
        assert effective_classes(logits) == pytest.approx(facts["effective_classes"], abs=0.02)
        sure = logits.softmax(dim=1).amax(dim=1).mean().item()
        assert sure == pytest.approx(facts["mean_largest_probability"], abs=0.005)
        if name == shelf.INVERTED:
            meant = torch.arange(1000) % 10
            probabilities = logits.softmax(dim=1)
            # Whatever the class, its images are given a larger share of it than all the others are.
            for label in range(10):
                own, others = (probabilities[meant == label, label], probabilities[meant != label, label])
                assert own.mean() > 2 * others.mean(), label


def test_the_generator_that_ships_is_in_eval_mode_and_finite(fashion):
    network = shelf.generator()
    assert not network.training and network is not shelf.generator()
    assert all(values.isfinite().all() for values in network.state_dict().values())
    # It was made for the images of the teacher; float16 keeps three digits.
    assert network.mean.item() == pytest.approx(fashion.mean.item(), rel=1e-3)
    assert network.std.item() == pytest.approx(fashion.std.item(), rel=1e-3)


def test_a_seed_repeats_generated_images_and_another_one_makes_others():
    first, again, other = (shelf.generated(3, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first, generators.generated(shelf.generator(), 3, seed=5))


# ------------------------------------------------------------------ damage, and what is not there


def test_damaged_files_are_refused_by_name(copies):
    for name, file in FILES.items():
        path, read = copies / file, READERS[name]
        whole = path.read_bytes()
        for damage in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b"", None):
            if damage is None:
                path.unlink()
            else:
                path.write_bytes(damage)
            with pytest.raises(ValueError) as refusal:
                read()
            words = str(refusal.value)
            assert f"are damaged: {file} has {len(damage or b'')} bytes" in words
            assert f"python -m kdlib.datafree.shelf {name}" in words
        path.write_bytes(whole)
        read()


def test_unknown_names_are_refused_with_those_there_are():
    for name in ("inverse", "", None, ["inverted"]):
        with pytest.raises(ValueError, match="name must be 'inverted' or 'generator', got"):
            shelf.manifest(name)
    with pytest.raises(SystemExit):
        shelf.main(["inverse"])


# ------------------------------------------------------------------ making them again


@pytest.fixture
def small(monkeypatch, own_cache, forgotten):
    """Few steps and a small generator."""
    monkeypatch.setattr(shelf, "BATCHES", 2)
    monkeypatch.setattr(shelf, "BATCH", 10)
    monkeypatch.setitem(shelf.INVERSION, "steps", 2)
    monkeypatch.setattr(shelf, "NOISE", 40)
    monkeypatch.setitem(shelf.RECIPE, "batch_size", 20)

    class Small(generators.Generator):
        def __init__(self, mean=0.0, std=1.0):
            super().__init__(mean, std, channels=(2, 3, 2))

    monkeypatch.setattr(generators, "Generator", Small)


MAKERS = {shelf.INVERTED: shelf.make_inverted, shelf.GENERATOR: shelf.make_generator}


def test_what_is_made_is_two_files_that_are_read_and_say_how_they_were_made(small, fashion, tmp_path, monkeypatch):
    for name, make in MAKERS.items():
        facts = make(fashion, device="cpu", out=tmp_path / "made")
        assert facts == json.loads((tmp_path / "made" / f"{name}.json").read_text(encoding="utf-8"))
        assert set(facts) == set(shelf.manifest(name)) and facts["device"] == "cpu"
    again = shelf.make_inverted(fashion, device="cpu", out=tmp_path / "again")
    assert sorted(path.suffix for path in (tmp_path / "made").iterdir()) == [".json", ".json", ".npz", ".safetensors"]
    monkeypatch.setattr(shelf, "FOLDER", tmp_path / "made")
    assert again["sha256"] == shelf.manifest(shelf.INVERTED)["sha256"], "a seed does not fix it"
    assert shelf.inverted().shape == (20, 1, 28, 28)
    weights = shelf.generator().state_dict()
    assert all(torch.equal(values, values.half().float()) for values in weights.values() if values.is_floating_point())
    # What is said of it is said of the rounded weights.
    logits = predict_logits(teachers.load("fashion-mnist"), unlabelled(shelf.generated(1000, seed=0), fashion))
    said = shelf.manifest(shelf.GENERATOR)["effective_classes"]
    assert effective_classes(logits) == pytest.approx(said, abs=0.002)


def test_a_folder_that_cannot_be_written_is_known_before_anything_is_computed(small, fashion, tmp_path, monkeypatch):
    def too_late(*arguments, **settings):
        raise AssertionError("computed before the folder was tried")

    monkeypatch.setattr(shelf, "invert", too_late)
    monkeypatch.setattr("kdlib.training.train", too_late)
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    for make in MAKERS.values():
        with pytest.raises(OSError):
            make(fashion, device="cpu", out=tmp_path / "file")


def test_the_command_makes_those_that_are_named_or_both(monkeypatch, capsys):
    asked = []
    for name in MAKERS:
        monkeypatch.setattr(shelf, f"make_{name}", lambda dataset, name=name: asked.append(name) or {"made": name})
    for arguments, expected in ((["generator"], ["generator"]), ([], ["inverted", "generator"])):
        asked.clear()
        shelf.main(arguments)
        assert asked == expected and capsys.readouterr().out.count('"made"') == len(expected)
