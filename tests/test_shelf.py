"""The models of lesson 05: files and manifests belong together, intervals are right, and each can be made again."""

import json
import math
from hashlib import sha256
from statistics import NormalDist

import pytest
import torch
from torch.nn import functional as F

from kdlib import _files, _logit_cache, data, metrics, models, teachers
from kdlib.deploy import compress, shelf, shelf_recipes
from kdlib.inference import predict_logits

NORMAL = NormalDist().inv_cdf(0.975)


# --- what ships


def test_manifests_are_those_of_their_files():
    for name in shelf.names():
        facts, content = shelf.manifest(name), shelf.path(name).read_bytes()
        assert facts["name"] == name and facts["command"] == f"kdlib build-model {name}"
        assert facts["bytes"] == len(content) and facts["sha256"] == sha256(content).hexdigest(), name
        assert facts["test_images"] == 10_000 and facts["seconds"] > 0 and facts["parameters"] > 0, name
        assert facts["wrong"] == sorted(set(facts["wrong"])), name
        assert 0 <= facts["wrong"][0] and facts["wrong"][-1] < 10_000, name
        assert facts["test_accuracy"] == pytest.approx(1 - len(facts["wrong"]) / 10_000), name
        assert {"python", "torch", "onnx", "onnxruntime"} <= set(facts["versions"]), name


def test_files_are_as_good_as_their_manifests_say():
    """On 500 test images. Another processor adds in another order, which may turn an answer that was near a tie."""
    few = data.load().test.take(500, seed=0)
    for name in shelf.names():
        found = compress.onnx_logits(shelf.path(name), few).argmax(dim=1) == few.labels
        turned = (found != shelf.right_answers(name)[few.indices]).sum()
        assert turned <= (5 if name in shelf.QUANTISED else 2), name


def test_the_teacher_on_the_shelf_is_the_teacher():
    few = data.load().test.take(50, seed=1)
    expected = predict_logits(teachers.load(), few)
    torch.testing.assert_close(
        compress.onnx_logits(shelf.path("teacher"), few.normalized()), expected, rtol=1e-3, atol=1e-3
    )


def test_models_in_8_bits_are_made_from_others_and_much_smaller():
    for name, original in shelf.QUANTISED.items():
        assert shelf.manifest(name)["recipe"]["quantised from"] == original
        assert shelf.manifest(name)["bytes"] < 0.5 * shelf.manifest(original)["bytes"]


def test_unknown_name_is_refused_with_the_names_there_are():
    for function in (shelf.path, shelf.manifest, shelf.right_answers, shelf.passes, shelf.effort, shelf.build):
        with pytest.raises(ValueError, match="unknown model 'destilled'; the shelf has teacher, .*distilled"):
            function("destilled")


# --- intervals


def test_accuracy_interval_is_wilsons():
    """The p for which |share - p| = z sqrt(p (1 - p) / n): the roots of a quadratic."""
    for hits, count in ((9405, 10_000), (50, 50), (1, 7)):
        share, squared = hits / count, NORMAL**2
        a, b, c = count + squared, -(2 * hits + squared), hits * share
        root = math.sqrt(b**2 - 4 * a * c)
        found = shelf.accuracy_interval(torch.arange(count) < hits)
        assert found == pytest.approx((share, (-b - root) / (2 * a), (-b + root) / (2 * a)), abs=1e-9), hits


def test_a_smaller_confidence_narrows_an_interval():
    right, other = torch.arange(100) < 80, torch.arange(100) % 4 > 0
    for interval in (shelf.accuracy_interval, lambda one, **o: shelf.paired_difference(one, other, **o)):
        (_, low, high), (_, lower, higher) = interval(right, confidence=0.5), interval(right)
        assert lower < low < high < higher


def test_paired_difference_depends_on_the_images_that_one_model_alone_recognises():
    """With b images for the first alone and c for the second: mean (b - c) / n, the variance from b and c."""
    b, c, n = 40, 25, 1000
    right, other = torch.zeros(2, n, dtype=torch.bool)
    right[:b] = True
    other[b : b + c] = True
    right[500:] = other[500:] = True  # what both recognise changes nothing
    mean = (b - c) / n
    half = NORMAL * math.sqrt(((b + c) / n - mean**2) / (n - 1))
    assert shelf.paired_difference(right, other) == pytest.approx((mean, mean - half, mean + half))
    assert shelf.paired_difference(right, right) == (0, 0, 0)
    with pytest.raises(ValueError, match="1000 and 999"):
        shelf.paired_difference(right, other[1:])


# --- how they are made


def test_views_are_the_image_moved_by_a_pixel_and_mirrored():
    images = torch.randint(1, 256, (3, 1, 5, 6), dtype=torch.uint8)
    split = data.ImageSplit(images, [4, 5, 6], mean=[0.25], std=[0.5])
    ten = shelf_recipes.views(split)
    assert ten.labels.tolist() == 10 * [4, 5, 6] and (ten.mean, ten.std) == (split.mean, split.std)
    expected = []
    for mirrored in (images, images.flip(-1)):
        shifted = [
            mirrored,
            F.pad(mirrored[..., 1:, :], (0, 0, 0, 1)),
            F.pad(mirrored[..., :-1, :], (0, 0, 1, 0)),
            F.pad(mirrored[..., 1:], (0, 1)),
            F.pad(mirrored[..., :-1], (1, 0)),
        ]
        expected += shifted
    assert torch.equal(ten.images, torch.cat(expected))


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """In place of the 60,000 images 40, in place of the user's cache an empty folder, and trainings of a moment."""
    images = data.load()
    few = data.ImageDataset(
        images.train.take(40), images.validation.take(20), images.test.take(30), images.classes
    )
    monkeypatch.setattr(data, "load", lambda name, *, root, full: few)
    monkeypatch.setattr(_files, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(_logit_cache, "_memory", {})
    for recipe in (shelf_recipes.FULL_TRAINING, shelf_recipes.TEN_PASSES, shelf_recipes.FINE_TUNING):
        monkeypatch.setitem(recipe, "epochs", 1)
    return few


def test_every_recipe_gives_a_network_and_says_how(tiny):
    whole = sum(parameter.numel() for parameter in teachers.load().network.parameters())
    for name in shelf_recipes.TRAINED:
        if name in ("teacher", "searched"):
            continue
        network, recipe = shelf_recipes.TRAINED[name](tiny)
        assert metrics.accuracy(network, tiny.test) <= 1, name
        assert predict_logits(network, tiny.test).shape == (30, 10), name
        assert recipe["images"] == 40 and recipe["epochs"] == 1, name
        assert json.loads(json.dumps(recipe)) == recipe, name
        same = whole == sum(parameter.numel() for parameter in network.parameters())
        assert same == (name == "sparse"), name
        if name == "sparse":
            assert compress.zero_share(network) == pytest.approx(0.8, abs=0.001)


def test_passes_and_effort_are_those_of_the_recipe_and_equal_where_models_are_compared():
    brief = {name for name in shelf.names() if shelf.passes(name) == 10}
    assert brief == {"distilled-briefly", "sparse", "pruned", "low-rank", "carved", "searched"}
    assert shelf.passes("distilled") == shelf.passes("labels-only-int8") == 80 and shelf.passes("teacher") == 0
    # pocket-cnn: 2,319,392 multiply-adds an image, 54,000 images, eighty passes, forwards and twice that backwards.
    assert shelf.effort("labels-only") == 3 * 2_319_392 * 54_000 * 80
    # The teacher has answered for ten views of each image, 37,156,608 multiply-adds a view.
    asked = 37_156_608 * 54_000 * 10
    assert shelf.effort("distilled") == shelf.effort("distilled-int8") == shelf.effort("labels-only") + asked
    assert shelf.effort("teacher") == 0


def test_the_table_has_a_row_for_each_model_and_pairs_are_alike_where_their_interval_holds_zero():
    table, alike = shelf.table(), shelf.alike()
    assert list(table.index) == list(alike.index) == list(alike.columns) == shelf.names()
    for name, row in table.iterrows():
        facts = shelf.manifest(name)
        assert row["accuracy"] == pytest.approx(facts["test_accuracy"])
        assert row["bytes"] == shelf.path(name).stat().st_size
        assert row["parameters"] == facts["parameters"] and row["multiply_adds"] == facts["multiply_adds"]
    assert alike.to_numpy().diagonal().all() and (alike == alike.T).all(axis=None)
    # McNemar's counts: of the images that one model alone recognises, b and c; apart where |b - c| > 1.96 sqrt(b + c).
    for a, b in (("distilled", "labels-only"), ("teacher", "pruned"), ("teacher", "sparse")):
        right, other = shelf.right_answers(a), shelf.right_answers(b)
        more, less = int((right & ~other).sum()), int((other & ~right).sum())
        assert alike.loc[a, b] == (abs(more - less) <= 1.96 * (more + less) ** 0.5), (a, b)


def test_a_model_is_built_and_then_quantised(tiny, monkeypatch, tmp_path):
    network = models.build("tiny-cnn", seed=0)
    monkeypatch.setitem(shelf_recipes.TRAINED, "distilled", lambda images: (network, {"made of": "nothing"}))
    monkeypatch.setattr(shelf, "CALIBRATION_IMAGES", 20)
    folder = tmp_path / "shelf"
    with pytest.raises(FileNotFoundError):
        shelf.build("distilled-int8", folder=folder)
    assert shelf.build("distilled", folder=folder) == folder / "distilled.json"
    facts, content = shelf.manifest("distilled", folder=folder), (folder / "distilled.onnx").read_bytes()
    missed = (predict_logits(network, tiny.test).argmax(dim=1) != tiny.test.labels).nonzero().flatten()
    assert facts["wrong"] == missed.tolist() and facts["test_images"] == 30
    assert facts["test_accuracy"] == pytest.approx(1 - len(missed) / 30)
    assert facts["recipe"] == {"made of": "nothing"} and facts["parameters"] == 24_058
    assert facts["sha256"] == sha256(content).hexdigest() and facts["bytes"] == len(content)

    shelf.build("distilled-int8", folder=folder)
    small = shelf.manifest("distilled-int8", folder=folder)
    assert small["recipe"] == {"quantised from": "distilled", "calibration images": 20}
    assert small["parameters"] == 24_058 and small["bytes"] < facts["bytes"]
    assert not [path for path in folder.iterdir() if path.suffix not in (".onnx", ".json")]
