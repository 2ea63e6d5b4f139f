"""The experiments behind lesson 04 on the teacher's own classes, run very small: they do what their docstrings say."""

import pandas
import pytest
import torch
from torch import nn

from kdlib import features
from kdlib.experiments import lesson04, lesson04_larger, lesson04_measures, lesson04_weights
from kdlib.lesson import laboratory, results
from kdlib.lesson.exercises import lesson04_open

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"images": 40, "epochs": 1}


def weights(network):
    return nn.utils.parameters_to_vector(network.parameters())


def test_every_method_and_source_trains_another_student_from_the_same_weights():
    settings = [("labels only", 0.0, "trained"), ("distillation", 0.0, "trained")]
    settings += [(method, lesson04.WEIGHTS[method][1], "trained") for method in lesson04.METHODS]
    settings += [("hint", lesson04.WEIGHTS["hint"][1], source) for source in lesson04.SOURCES]
    settings += [("relational, no logits", 1.0, "trained")]
    trained = [weights(lesson04.feature_student(m, w, 1, source, **SMALL)) for m, w, source in settings]
    for number, one in enumerate(trained):
        assert one.isfinite().all(), settings[number]
        assert not any(torch.equal(one, other) for other in trained[:number]), settings[number]


def test_a_student_is_the_same_again_and_without_weight_is_that_of_distillation():
    first, again = (lesson04.feature_student("hint", 1.0, 2, **SMALL) for _ in range(2))
    assert torch.equal(weights(first), weights(again))
    plain, weightless = (
        weights(lesson04.feature_student(m, 0.0, 2, **SMALL)) for m in ("distillation", "attention")
    )
    assert torch.equal(plain, weightless)


def test_without_logits_the_soft_targets_have_no_say(monkeypatch):
    def student():
        return weights(lesson04.feature_student("hint, no logits", 1.0, 4, **SMALL))

    first, known_logits = student(), lesson04.known_logits
    monkeypatch.setattr(lesson04, "known_logits", lambda *arguments: -known_logits(*arguments))
    assert torch.equal(student(), first)


def test_the_sources_say_what_their_names_say():
    known = {source: lesson04.answers(source, 0, 30) for source in ("trained", *lesson04.SOURCES)}
    for layer, values in known["trained"].items():
        order = [
            (known["another image"][layer] == row).flatten(1).all(dim=1).int().argmax() for row in values
        ]
        assert sorted(map(int, order)) == list(range(30)), layer
        one = known["one map"][layer]
        assert torch.allclose(one.mean(dim=0), one[0]) and torch.equal(one[0], one[29]), layer
        assert not torch.allclose(known["untrained"][layer], values), layer
    wide = lesson04.TEACHER_LAYERS[0]
    uniform = known["one map"][wide][0]
    assert torch.equal(uniform, uniform[:, :1, :1].expand_as(uniform))
    assert torch.allclose(uniform[:, 0, 0], known["trained"][wide].mean(dim=(0, 2, 3)), atol=1e-5)
    pictures = lesson04.known_images(0, 30).images / 255
    halves = pictures.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(-1, -2))
    assert torch.allclose(known["pixels"][wide], halves, atol=1e-6)


def test_grad_cam_against_a_known_map_is_the_librarys_loss():
    generator = torch.Generator().manual_seed(0)
    student, teacher, mine, theirs = torch.randn(4, 5, 6, 3, 3, generator=generator)
    by_library = features.gradcam_transfer_loss(student, teacher, mine, theirs)
    known = features.gradcam_map(teacher, theirs)[:, None]
    assert torch.isclose(lesson04.gradcam_distance(student, known, mine), by_library)


def test_the_teachers_grad_cam_is_that_of_each_image_alone():
    maps = lesson04.gradcam_maps(0, 3)
    teacher, layer = lesson04.fashion()[1], lesson04.TEACHER_LAYERS[-1]
    images = lesson04.known_images(0, 3)
    captured = features.capture(teacher, [layer]).eval()
    for row in range(3):
        pixels = images.normalized(torch.tensor([row])).requires_grad_()
        logits, known = captured(pixels)
        (gradient,) = torch.autograd.grad(logits[0, images.labels[row]], known[layer])
        channels = gradient.mean(dim=(2, 3), keepdim=True)
        by_hand = (channels * known[layer]).sum(dim=1).clamp(min=0)
        assert torch.allclose(maps[row], by_hand, rtol=1e-3, atol=1e-5)


def test_likeness_is_within_its_bounds():
    row = lesson04.likeness("distillation", 0.0, seed=0, **SMALL)
    for size in (14, 7):
        assert -0.1 < row[f"CKA {size}"] < 1
        assert all(0 < row[f"{name} {size}"] < 2**0.5 for name in ("distance", "another", "uniform"))


# ------------------------------------------------------------------ weights


def test_the_search_of_weights_follows_a_best_that_lies_on_an_edge():
    def run(settings):
        peak = {"low": 1e-3, "inside": 1.0, "high": 1e3}
        rows = [(m, w, -abs(torch.tensor(w / peak[m]).log10().item())) for m, w in settings]
        return pandas.DataFrame(rows, columns=["method", "weight", "accuracy"])

    tried = lesson04_weights.searched(run, dict.fromkeys(("low", "inside", "high"), (0.1, 1.0, 10.0)))
    assert set(tried.loc[tried["method"] == "inside", "weight"]) == {0.1, 1.0, 10.0}
    assert [lesson04_weights.best_weight(tried, m) for m in ("low", "inside", "high")] == [1e-3, 1.0, 1e3]
    for method in ("low", "inside", "high"):
        assert lesson04_weights.beyond(tried, method) == []
    alone = pandas.DataFrame([("alone", 0.0, -0.5)], columns=["method", "weight", "accuracy"])
    both = pandas.concat([tried[tried["weight"] != 1.0], alone])
    assert lesson04_weights.no_weight_is_best(both, "inside", "alone")
    assert not lesson04_weights.no_weight_is_best(pandas.concat([tried, alone]), "inside", "alone")


def test_a_method_that_wants_ever_more_weight_is_refused():
    def run(settings):
        return pandas.DataFrame([(m, w, w) for m, w in settings], columns=["method", "weight", "accuracy"])

    with pytest.raises(RuntimeError, match="still lie on an edge: .*'greedy'"):
        lesson04_weights.searched(run, {"greedy": (1.0, 2.0, 3.0)})


def test_recorded_weights_reach_zero_and_none_that_was_chosen_lies_on_an_edge():
    tuned, reported = results.read("lesson04-tuning"), results.read("lesson04-methods")
    assert set(tuned["seed"]).isdisjoint(reported["seed"]) and reported["seed"].nunique() >= 10
    assert 0.0 in set(tuned.loc[tuned["method"] == "distillation", "weight"])
    for method in [*lesson04.METHODS, *(f"{loss}{lesson04.NO_LOGITS}" for loss in lesson04.SHOWN)]:
        own = tuned[tuned["method"] == method].groupby("weight")["accuracy"].mean()
        chosen = lesson04.chosen_weight(method)
        assert own[chosen] == own.max() and own.index.min() < chosen < own.index.max(), method
        assert set(reported.loc[reported["method"] == method, "weight"]) == {chosen}, method


# ------------------------------------------------------------------ the larger pair


@pytest.fixture(scope="module")
def small_pair():
    dataset = lesson04_larger.images(full=False)
    few = torch.arange(40)
    splits = [split.subset(few) for split in (dataset.train, dataset.validation, dataset.test)]
    return lesson04_larger.ImageDataset(*splits, dataset.classes)


def test_the_larger_pair_trains_every_method_from_what_its_teachers_say(small_pair, monkeypatch):
    monkeypatch.setattr(lesson04_larger, "images", lambda *, full: small_pair)
    shared = lesson04_larger.materials(epochs=1)
    assert [theirs for _, theirs in shared["pairs"]] == ["layer2", "layer3"]
    for name in ("trained", "untrained"):
        assert shared[name]["logits"].shape == (40, 10) and shared[name]["layer2"].shape == (40, 128, 4, 4)
    assert not torch.equal(shared["trained"]["layer2"], shared["untrained"]["layer2"])
    best = {"hint": 0.1, "attention": 1.0}
    cells = list(lesson04_larger.compared(best, range(1), count=40, epochs=1))
    assert [cell["method"] for cell in cells].count("labels only") == 2, "once as long, once three times"
    for cell in cells:
        row = lesson04_larger.accuracy(**cell, **shared)
        assert 0 <= row["accuracy"] <= 1 and row["teacher"] == shared["teacher_accuracy"], cell


def test_the_margin_is_black_and_the_picture_is_in_the_middle(small_pair):
    images = small_pair.train.images
    assert images.shape[2:] == (32, 32)
    inner = images[:, :, 2:30, 2:30]
    assert inner.any() and int(images.int().sum()) == int(inner.int().sum())


def test_the_laboratory_and_the_experiments_see_the_same_images_of_a_seed(monkeypatch):
    seen = []
    monkeypatch.setitem(lesson04.METHODS, "hint", lambda known, weight: seen.append(known) or [])
    room = laboratory.Laboratory("ci", features=lesson04.for_laboratory())
    room.student(3, method="labels", features="hint", images=400).accuracy("test")
    transfer_set = lesson04.fashion()[0].train.take(40, seed=3)
    wanted = features.teacher_features(lesson04.fashion()[1], transfer_set, lesson04.TEACHER_LAYERS)
    for layer, values in wanted.items():
        assert torch.allclose(seen[0][layer], values, atol=1e-4), layer
    assert tuple(lesson04.for_laboratory()) == lesson04_open.FEATURES


def test_a_regressor_reads_everything_from_a_linear_image_of_the_maps_and_nothing_from_noise():
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(30, 4, 3, 3, generator=generator) for _ in range(2)]
    mix = torch.randn(6, 4, generator=generator)
    mixed = [torch.einsum("oc,bchw->bohw", mix, values) + 3 for values in maps]
    assert lesson04_measures.share_read(mixed, maps) == pytest.approx(1)
    half = lesson04_measures.share_read([values[:, :2] for values in maps], maps)
    assert half == pytest.approx(0.5, abs=0.1)
    noise = [torch.randn(30, 6, 3, 3, generator=generator) for _ in range(2)]
    assert abs(lesson04_measures.share_read(noise, maps)) < 0.1
