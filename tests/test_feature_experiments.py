"""The experiments behind lesson 04, run very small: they do what their docstrings say."""

import pytest
import torch
from torch import nn

from kdlib import features, models
from kdlib.data import ImageDataset, ImageSplit
from kdlib.lesson import results
from kdlib.lesson.experiments import lesson04, lesson04_larger, lesson04_new_classes, lesson04_search

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def five_class_teacher():
    return models.build("resnet8", num_classes=5, seed=0).eval()


def weights(network):
    return nn.utils.parameters_to_vector(network.parameters())


def test_every_method_trains_another_student_from_the_same_weights():
    settings = [("labels only", 0.0), ("distillation", 0.0)]
    settings += [(method, lesson04.WEIGHTS[method][1]) for method in lesson04.METHODS]
    settings += [("hint, shuffled", 1.0), ("relational, no logits", 1.0)]
    trained = [weights(lesson04.feature_student(m, w, seed=1, images=40, epochs=1)) for m, w in settings]
    for number, one in enumerate(trained):
        assert one.isfinite().all(), settings[number]
        assert not any(torch.equal(one, other) for other in trained[:number]), settings[number]


def test_a_student_is_the_same_again_and_without_weight_is_that_of_distillation():
    first, again = (lesson04.feature_student("hint", 1.0, seed=2, images=40, epochs=1) for _ in range(2))
    assert torch.equal(weights(first), weights(again))
    plain = lesson04.feature_student("distillation", 0.0, seed=2, images=40, epochs=1)
    weightless = lesson04.feature_student("attention", 0.0, seed=2, images=40, epochs=1)
    assert torch.allclose(weights(plain), weights(weightless), atol=1e-5)


def test_likeness_is_within_its_bounds():
    row = lesson04.likeness("distillation", 0.0, seed=0, images=40, epochs=1)
    assert set(row) == {"CKA 14", "CKA 7", "distance 14", "distance 7", "accuracy"}
    for size in (14, 7):
        assert -0.1 < row[f"CKA {size}"] < 1
        assert 0 < row[f"distance {size}"] < 2**0.5


def test_weights_were_tuned_with_seeds_that_no_result_uses():
    tuned, reported = set(lesson04.known_tuning()["seed"]), set(results.read("lesson04-methods")["seed"])
    assert tuned and tuned.isdisjoint(reported)
    assert set(results.read("lesson04-new-classes-tuning")["seed"]).isdisjoint(reported)


def test_the_chosen_weight_has_the_highest_mean_on_validation():
    table = lesson04.known_tuning()
    for method, weights_tried in lesson04.WEIGHTS.items():
        rows = table[table["method"] == method]
        means = {weight: rows.loc[rows["weight"] == weight, "accuracy"].mean() for weight in weights_tried}
        assert lesson04.best_weight(method) == max(means, key=means.get)
        assert lesson04.best_weight(f"{method}, shuffled") == lesson04.best_weight(method)


def test_the_halves_share_no_class():
    split = lesson04.fashion()[0].validation
    known, new = (lesson04_new_classes.half_of(split, known=known) for known in (True, False))
    assert set(split.indices.tolist()) == set(known.indices.tolist()) | set(new.indices.tolist())
    assert len(known) + len(new) == len(split)
    for half in (known, new):
        assert set(half.labels.tolist()) == set(range(5))
    original = dict(zip(split.indices.tolist(), split.labels.tolist(), strict=True))
    assert all(
        original[index] == label + 5 for index, label in zip(new.indices.tolist(), new.labels.tolist(), strict=True)
    )


def test_a_new_head_tells_classes_apart_where_the_features_do(five_class_teacher):
    pool = lesson04_new_classes.pool_of(seed=0, images=300)
    few = lesson04_new_classes.labelled(pool, 10, seed=0)
    logits = lesson04_new_classes.new_head(five_class_teacher, pool, few)
    assert logits.shape == (300, 5)
    assert (logits.argmax(1) == pool.labels).float().mean() > 0.4  # even an untrained network's features help


def test_the_first_stage_sees_no_label_but_those_of_the_new_head(five_class_teacher):
    hidden = lesson04_new_classes.pool_of(seed=0, images=60)
    few = lesson04_new_classes.labelled(hidden, 2, seed=0)
    relabelled = ImageSplit(hidden.images, hidden.labels.roll(1), hidden.indices, hidden.mean, hidden.std)
    for method in lesson04_new_classes.METHODS[1:]:
        first, second = [
            lesson04_new_classes.stage_one(method, five_class_teacher, pool, few)
            for pool in (hidden, relabelled)
        ]
        assert first and len(first) == len(second), method
        for one, other in zip(first, second, strict=True):
            assert torch.equal(one.teacher_layer, other.teacher_layer), method


def test_labels_only_has_no_first_stage(five_class_teacher):
    fresh = models.build("tiny-cnn", num_classes=5, seed=3)
    student = lesson04_new_classes.pretrained("labels only", 3, 2, five_class_teacher, images=60, epochs=1)
    assert torch.equal(weights(student), weights(fresh))
    hinted = lesson04_new_classes.pretrained("hint", 3, 2, five_class_teacher, images=60, epochs=1)
    assert not torch.equal(weights(hinted), weights(fresh))
    before = weights(hinted).clone()
    found = lesson04_new_classes.then_labels(hinted, 3, 2, 3e-3, 1, "validation", images=60)
    assert 0 <= found <= 1 and not torch.equal(weights(hinted), before)


def test_the_larger_pair_runs_every_method_on_colour_images():
    generator = torch.Generator().manual_seed(0)

    def split(count):
        images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
        return ImageSplit(images, torch.arange(count) % 3)

    dataset = ImageDataset(split(12), split(6), split(6), ["a", "b", "c"])
    table = lesson04_larger.larger_pair(dataset, seeds=[0], teacher_epochs=1, epochs=1)
    assert table["method"].tolist() == ["teacher", "labels only", "distillation", "hint", "attention"]
    assert table["accuracy"].between(0, 1).all()


def test_networks_for_small_images_keep_their_resolution():
    for name, layer in ((lesson04_larger.TEACHER, "layer1"), (lesson04_larger.STUDENT, "maxpool")):
        network = lesson04_larger.for_small_images(name, 3, 32, seed=0).eval()
        _, found = features.capture(network, [layer])(torch.zeros(2, 3, 32, 32))
        assert found[layer].shape[2:] == (32, 32)


def test_recall_counts_nearest_others_of_the_same_class():
    embedding = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.1, 3.0], [1.0, 0.2]])
    assert lesson04_search.recall_at_one(embedding, torch.tensor([0, 0, 1, 1, 1])) == pytest.approx(4 / 5)
    assert lesson04_search.recall_at_one(embedding, torch.tensor([0, 1, 0, 1, 0])) == 0


def test_a_search_student_learns_and_embeds_64_numbers(five_class_teacher):
    fresh = weights(models.build("tiny-cnn", num_classes=5, seed=0))
    for method in (*lesson04_search.METHODS, *lesson04_search.CONTROLS):
        student = lesson04_search.student_of(method, 0, 6e-3, five_class_teacher, images=40, epochs=1)
        assert lesson04_search.embed(student, lesson04_new_classes.pool_of(0, 20)).shape == (20, 64), method
        assert not torch.equal(weights(student), fresh), method


def test_the_search_was_tuned_on_other_seeds_and_images():
    table = results.read("lesson04-search")
    tuned, reported = (set(table.loc[table["split"] == split, "seed"]) for split in ("validation", "test"))
    assert len(reported) >= 10 and tuned.isdisjoint(reported)
    means = table[table["split"] == "validation"].groupby(["method", "rate"])["recall"].mean()
    for method, rate in table.loc[table["split"] == "test", ["method", "rate"]].drop_duplicates().to_numpy():
        assert rate == means[method.partition(",")[0]].idxmax()
