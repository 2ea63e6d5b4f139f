"""The experiment of lesson 04 on moved images of unknown classes, run very small: it does what its docstrings say."""

import pytest
import torch
from torch import nn

from kdlib import metrics, models
from kdlib.data import ImageSplit
from kdlib.experiments import lesson04_controls, lesson04_moved, lesson04_worth
from kdlib.lesson import results

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"rate": 0.01, "passes": 1, "temperature": 0.2, "images": 20}


@pytest.fixture(autouse=True)
def _quick_teachers(monkeypatch):
    """Teachers of one pass over few images: what they know is not the question here."""
    dataset, teacher = lesson04_moved.fashion()
    few = [split.take(60, seed=0) for split in (dataset.validation, dataset.test)]
    small = type(dataset)(dataset.train.take(200, seed=0), *few, dataset.classes)
    monkeypatch.setattr(lesson04_moved, "fashion", lambda: (small, teacher))
    monkeypatch.setattr(lesson04_worth, "fashion", lambda: (small, teacher))
    monkeypatch.setattr(lesson04_moved, "TEACHER_EPOCHS", 1)
    monkeypatch.setattr(lesson04_moved, "POOL", 40)
    cached = (
        lesson04_moved.teacher_of,
        lesson04_moved.answers,
        lesson04_moved.moved_pool,
        lesson04_worth.unseen,
    )
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def weights(network):
    return nn.utils.parameters_to_vector(network.parameters())


# ------------------------------------------------------------------ images


def test_moving_by_nothing_changes_nothing_and_a_quarter_turn_is_a_quarter_turn(monkeypatch):
    images = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    assert torch.equal(lesson04_moved.move(images, degrees=0, pixels=0, scale=(1, 1)), images)
    monkeypatch.setattr(
        torch, "rand", lambda *shape: torch.ones(shape)
    )  # the largest turn, the largest shift
    turned = lesson04_moved.move(images, degrees=90, pixels=0, scale=(1, 1))
    assert any(torch.equal(turned, images.rot90(quarter, (2, 3))) for quarter in (1, 3))
    shifted = lesson04_moved.move(images, degrees=0, pixels=4, scale=(1, 1))
    assert torch.equal(shifted[:, :, :24, :24], images[:, :, 4:, 4:]) and not shifted[:, :, 24:].any()
    larger = lesson04_moved.move(
        torch.full((1, 1, 28, 28), 200, dtype=torch.uint8), degrees=0, pixels=0, scale=(0.5, 0.5)
    )
    assert abs(int((larger > 100).sum()) - 14 * 14) <= 28, "half as wide and half as high"


def test_each_image_moves_by_a_draw_of_its_own_that_the_seed_fixes():
    split = lesson04_moved.fashion()[0].train.take(5, seed=0)
    first, again, other = (lesson04_moved.moved(split, seed, views=3) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images) and not torch.equal(first.images, other.images)
    assert len(first.images.unique(dim=0)) == 15
    assert first.labels.tolist() == [label for label in split.labels.tolist() for _ in range(3)]


def test_the_halves_share_no_class_and_count_from_zero():
    split = lesson04_moved.fashion()[0].validation
    known, unknown = (lesson04_moved.half_of(split, known=known) for known in (True, False))
    assert sorted(known.indices.tolist() + unknown.indices.tolist()) == sorted(split.indices.tolist())
    original = dict(zip(split.indices.tolist(), split.labels.tolist(), strict=True))
    for half, first in ((known, 0), (unknown, 5)):
        assert [original[index] - first for index in half.indices.tolist()] == half.labels.tolist()
        assert set(half.labels.tolist()) <= set(range(5))


def test_images_for_choosing_settings_are_in_no_pool_of_their_seed():
    for seed in (0, 1):
        pool, others = lesson04_moved.split_pool(seed, 20)
        assert len(pool) == 20 and set(pool.indices.tolist()).isdisjoint(others.indices.tolist())


# ------------------------------------------------------------------ students


def test_every_method_and_control_trains_another_student_from_the_same_weights():
    methods = [
        *lesson04_moved.METHODS,
        *lesson04_moved.WITHOUT_TEACHER,
        *lesson04_moved.CONTROLS,
        "nothing learned",
    ]
    fresh = weights(models.build("tiny-cnn", num_classes=5, seed=0))
    trained = {}
    for method in methods:
        student = lesson04_moved.student_of(method, 0, **SMALL)
        assert lesson04_moved.embed(student, lesson04_moved.split_pool(0, 8)[0]).shape == (8, 64), method
        trained[method] = weights(student)
        assert torch.equal(trained[method], fresh) == (method == "nothing learned"), method
        assert not any(torch.equal(trained[method], trained[name]) for name in trained if name != method), (
            method
        )


def test_no_label_of_an_unknown_class_reaches_a_student(monkeypatch):
    pool_of = lesson04_moved.split_pool
    for method in ("hint", "contrastive", "logits", "relational, raw pixels", "two views, no teacher"):
        first = weights(lesson04_moved.student_of(method, 0, **SMALL))

        def mislabelled(seed, images=20):
            pool, others = pool_of(seed, images)
            return ImageSplit(pool.images, pool.labels.roll(1), pool.indices, pool.mean, pool.std), others

        monkeypatch.setattr(lesson04_moved, "split_pool", mislabelled)
        lesson04_moved.answers.cache_clear()
        lesson04_moved.moved_pool.cache_clear()
        assert torch.equal(weights(lesson04_moved.student_of(method, 0, **SMALL)), first), method
        monkeypatch.setattr(lesson04_moved, "split_pool", pool_of)


def test_two_views_agree_where_each_is_nearest_to_its_own_image():
    apart, unused = torch.eye(6), torch.zeros(6)
    together = lesson04_moved.agreement(torch.cat([apart, apart], dim=1), unused, temperature=0.1)
    swapped = lesson04_moved.agreement(
        torch.cat([apart, apart.roll(1, dims=0)], dim=1), unused, temperature=0.1
    )
    assert together < 1e-3 < swapped
    even = lesson04_moved.agreement(torch.ones(6, 4), unused, temperature=0.1)
    assert even == pytest.approx(torch.log(torch.tensor(6.0)).item()), "by chance one of six"


def test_pairs_hold_two_views_of_one_image():
    split = lesson04_moved.fashion()[0].train.take(3, seed=0)
    pairs = lesson04_moved.pairs_of(lesson04_moved.moved(split, 0, views=4))
    assert (
        pairs.images.shape == (6, 2, 28, 28)
        and pairs.labels.tolist() == split.labels.repeat_interleave(2).tolist()
    )


# ------------------------------------------------------------------ what is measured


def test_recall_counts_nearest_others_of_the_same_class():
    embedding = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.1, 3.0], [1.0, 0.2]])
    assert lesson04_worth.recall_at_one(embedding, torch.tensor([0, 0, 1, 1, 1])) == pytest.approx(4 / 5)
    assert lesson04_worth.recall_at_one(embedding, torch.tensor([0, 1, 0, 1, 0])) == 0


def test_an_embedding_that_says_the_class_has_a_perfect_search_and_a_perfect_probe(monkeypatch):
    monkeypatch.setattr(lesson04_worth, "LABELS", (1, 2))
    known = {}

    def by_label(split):
        known["rows"] = len(split)
        return torch.nn.functional.one_hot(split.labels, 5).float()

    found = lesson04_worth.worth(by_label, "test", 0, penalties=(1.0,))
    assert set(found) == {"moved", "still", "1 1", "2 1"} and set(found.values()) == {1.0}
    noise = lesson04_worth.worth(lambda split: torch.randn(len(split), 5), "test", 0, penalties=(1.0,))
    assert max(noise.values()) < 0.8


def test_settings_were_chosen_on_seeds_and_images_that_no_result_uses():
    tuned, reported = lesson04_worth.tuned(), results.read("lesson04-moved")
    assert set(tuned["seed"]).isdisjoint(reported["seed"]) and reported["seed"].nunique() >= 10
    assert set(tuned["split"]) == {"validation"} and set(reported["split"]) == {"test"}
    for method in lesson04_worth.TUNED:
        own = tuned[tuned["method"] == method].groupby(lesson04_worth.SETTING)["moved"].mean()
        shortest = reported[reported["method"] == method].sort_values("passes").iloc[0]
        assert tuple(shortest[lesson04_worth.SETTING]) == own.idxmax(), method
        rates, temperatures = (sorted(own.index.unique(name)) for name in ("rate", "temperature"))
        assert rates[0] < shortest["rate"] < rates[-1], method
        assert len(temperatures) == 1 or temperatures[0] < shortest["temperature"] < temperatures[-1], method
    accuracies = [
        metrics.paired_interval(group["moved"], group["still"]).high
        for _, group in reported.groupby("method")
    ]
    assert max(accuracies) < 0, "moved images are the harder ones to search among"


def test_the_arms_hold_each_method_once_with_its_seeds_and_the_longer_ones_by_name():
    recorded = [results.read(name) for name in ("lesson04-moved", "lesson04-moved-controls")]
    arms, known = lesson04_worth.arms(), lesson04_worth.arms(known=True)
    assert sum(map(len, (*arms.values(), *known.values()))) == sum(map(len, recorded))
    assert set(known) == {name for name in lesson04_moved.METHODS if name.endswith("all classes")}
    for method in (*lesson04_worth.LONGER, "contrastive, logits"):
        assert set(arms[f"{method}, 3 x passes"]["passes"]) == {3 * p for p in set(arms[method]["passes"])}
    best = lesson04_worth.best_of(arms, "moved")
    means = lesson04_worth.means(arms, most=3)
    assert len(means) == 3 and means.index[0] == best
    assert means["search"].max() == round(100 * arms[best]["moved"].mean(), 1)
    most = lesson04_worth.at_best_penalty({best: arms[best]}, 10)[best]
    assert most == max(arms[best][f"10 {penalty:g}"].mean() for penalty in lesson04_worth.PENALTIES)


def test_arms_with_a_trained_teacher_are_told_from_their_controls():
    taught = {name for name in lesson04_worth.arms() if lesson04_worth.with_trained_teacher(name)}
    assert taught == {
        "hint", "relational", "contrastive", "contrastive, 3 x passes", "logits", "contrastive, logits",
        "contrastive, logits, 3 x passes", "teacher", "teacher in 4 x 4",
    }  # fmt: skip


# ------------------------------------------------------------------ further controls


def test_batch_statistics_give_an_untrained_teachers_features_the_usual_size():
    pool = lesson04_moved.moved(lesson04_moved.split_pool(0, 40)[0], 0, views=100)
    network = models.build("resnet8", num_classes=5, seed=1)
    before = weights(network)
    small = lesson04_moved.last_map(network.eval(), pool)
    copied = lesson04_controls.with_batch_statistics(network, pool)
    usual = lesson04_moved.last_map(copied, pool)
    assert usual.std() > 2 * small.std() and not copied.training
    assert torch.equal(weights(copied), before), "no weight is trained"
    assert torch.equal(lesson04_moved.last_map(network, pool), small), "the network itself stays as it was"


def test_each_further_control_is_a_student_of_its_own(monkeypatch):
    monkeypatch.setattr(lesson04_moved, "POOL", 20)
    trained = [weights(lesson04_controls.arm(name, 0, 1)) for name, _ in lesson04_controls.ARMS[::2]]
    for number, one in enumerate(trained):
        assert one.isfinite().all() and not any(torch.equal(one, other) for other in trained[:number])
