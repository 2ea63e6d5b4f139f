"""The experiments behind the lessons, run very small: they do what their docstrings say."""

import pytest
import torch

from kdlib.lesson import results
from kdlib.lesson.experiments import lesson01

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_experiment_is_recorded_with_ten_seeds_or_is_a_tuning():
    # Settings that are no whole numbers.
    numbers = {"temperature", "alpha", "smoothing", "wrong", "weight", "rate"}
    for name in results.registered():
        table = results.read(name)
        assert table["seed"].nunique() >= (5 if name.endswith("tuning") else 10), name
        settings = [column for column in table.columns if table[column].dtype != float or column in numbers]
        assert not table.duplicated(subset=settings).any(), name


def test_no_reported_seed_was_used_for_tuning():
    tuned = set(results.read("lesson01-tuning")["seed"])
    for name in results.recorded():
        if name.startswith("lesson01") and name != "lesson01-tuning":
            assert tuned.isdisjoint(results.read(name)["seed"]), name


def test_both_families_were_tuned_with_equal_effort():
    table = results.read("lesson01-tuning")
    effort = table.groupby("family").size()
    assert effort.nunique() == 1
    for family, grid in lesson01.GRIDS.items():
        assert set(table.loc[table["family"] == family, "setting"]) == set(range(len(grid)))


def test_the_best_setting_has_the_highest_mean_on_validation():
    table = results.read("lesson01-tuning")
    for family, grid in lesson01.GRIDS.items():
        rows = table[table["family"] == family]
        means = [rows.loc[rows["setting"] == n, "validation_accuracy"].mean() for n in range(len(grid))]
        assert lesson01.best_setting(family) == grid[means.index(max(means))]


def test_methods_of_one_seed_share_images_and_weights_but_not_results():
    rows = [lesson01.one_student(method, seed=3, images=100, epochs=1) for method in ("labels only", "distillation")]
    again = lesson01.one_student("distillation", seed=3, images=100, epochs=1)
    assert rows[1] == again
    assert rows[0] != rows[1]


def test_a_student_without_one_class_is_measured_on_that_class():
    row = lesson01.without_one_class("T = 4", seed=0, epochs=1)
    classes = lesson01.fashion()[0].classes
    assert sum(row[name] for name in classes) == pytest.approx(1, abs=1e-5)
    assert row["corrected"] == row[lesson01.MISSING]
    assert 0 <= row["recall"] <= row["corrected"]


def test_a_bias_is_chosen_where_it_serves_accuracy():
    split = lesson01.fashion()[0].validation
    logits = 4.0 * torch.nn.functional.one_hot(split.labels, 10)
    logits[split.labels == 9] = torch.tensor([4.0, 0, 0, 0, 0, 0, 0, 0, 0, 3.0])  # class 9 is always ranked second
    assert 1 < lesson01.best_bias(logits, split, 9) < 4


def test_labels_only_never_sees_the_pool(monkeypatch):
    seen = []

    def record(student, teacher, transfer_set, **settings):
        seen.append((len(transfer_set), settings.get("alpha"), settings["epochs"]))

    monkeypatch.setattr(lesson01, "fit", record)
    lesson01.with_unlabelled("labels only", unlabelled=0, seed=0, steps=64)
    lesson01.with_unlabelled("distillation", unlabelled=300, seed=0, steps=64)
    assert seen == [(100, None, 16), (400, 1.0, 5)]
