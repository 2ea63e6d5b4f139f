"""The experiments behind the lessons, run very small: they do what their docstrings say."""

import json
import math

import pandas
import pytest
import torch

from kdlib.experiments import lesson01, lesson01_tuning
from kdlib.lesson import results

pytestmark = pytest.mark.usefixtures("one_thread")


# Of the larger pair three seeds choose the weights and five are reported; five are of the pair of
# lesson 05, and of the strengths of lesson 06.
FEWEST = {
    "lesson01-longest": 6, "lesson04-larger": 8, "lesson04-moved-tuning": 2, "lesson04-moved-edges": 2,
    "lesson05-mobilenet": 5, "lesson06-strengths": 5,
}  # fmt: skip
# A table of times has repeats in place of seeds.
REPEATED = {"lesson10-cost": "repeat"}
# Columns of a setting's name that were measured.
MEASURED = {"lesson10-clinic": {"temperature"}}


def test_every_experiment_is_recorded_with_ten_seeds_or_is_a_tuning():
    # Settings that are no whole numbers.
    numbers = {
        "temperature", "alpha", "smoothing", "wrong", "weight", "rate", "strength", "first", "later_rate", "start",
        "step", "top", "label_rate",
    }  # fmt: skip
    for name in results.registered():
        table = results.read(name)
        fewest = FEWEST.get(name, 3 if name.endswith("tuning") else 10)
        assert table[REPEATED.get(name, "seed")].nunique() >= fewest, name
        chosen = numbers - MEASURED.get(name, set())
        settings = [column for column in table.columns if table[column].dtype != float or column in chosen]
        assert not table.duplicated(subset=settings).any(), name


def test_no_seed_that_lesson_01_reports_was_used_for_tuning():
    tuned = {seed for name in ("lesson01-tuning", "lesson01-hurts-tuning") for seed in results.read(name)["seed"]}
    for name in results.recorded():
        if name.startswith("lesson01") and not name.endswith("tuning"):
            assert tuned.isdisjoint(results.read(name)["seed"]), name


def test_the_tuned_comparison_uses_seeds_of_which_nothing_else_knows():
    fresh = set(results.read("lesson01-gain")["seed"])
    assert len(fresh) >= 10
    for name in results.recorded():
        if name not in ("lesson01-gain", "lesson01-longest", "lesson01-hurts", *REPEATED):
            assert fresh.isdisjoint(results.read(name)["seed"]), name


def test_labels_and_distillation_were_tuned_with_equally_many_settings():
    table = results.read("lesson01-tuning")
    assert table.groupby("family")["setting"].nunique().nunique() == 1
    assert (table.groupby(["family", "setting"])["seed"].nunique() == table["seed"].nunique()).all()
    short = results.read("lesson01-hurts-tuning")
    short["family"] = short["setting"].str.contains("temperature")
    assert short.groupby(["passes", "family"])["setting"].nunique().nunique() == 1


def test_no_winner_of_the_search_lies_on_the_edge_of_what_was_tried():
    """But for edges that nothing can lie beyond: no smoothing, the teacher alone, no augmentation."""
    table = results.read("lesson01-tuning")
    nothing_beyond = {("label_smoothing", 0.0), ("alpha", 1.0)}
    for family, rows in table.groupby("family"):
        tried = pandas.DataFrame([json.loads(text) for text in rows["setting"].unique()])
        for name, value in lesson01_tuning.best_setting(family).items():
            if name != "augment" and (name, value) not in nothing_beyond:
                assert tried[name].min() < value < tried[name].max(), (family, name, value)


def test_the_best_setting_is_the_highest_on_validation_or_a_shorter_training_that_is_as_good():
    table = results.read("lesson01-tuning")
    for family, rows in table.groupby("family"):
        accuracies = {text: own.sort_values("seed")["validation_accuracy"] for text, own in rows.groupby("setting")}
        top = max(accuracies, key=lambda text: accuracies[text].mean())
        chosen = lesson01_tuning.best_setting(family)
        assert json.loads(top) | {"epochs": 0} == chosen | {"epochs": 0}
        assert chosen["epochs"] <= json.loads(top)["epochs"]
        gaps = accuracies[top].to_numpy() - accuracies[json.dumps(chosen, sort_keys=True)].to_numpy()
        assert gaps.mean() <= gaps.std(ddof=1) / len(gaps) ** 0.5


def test_a_search_goes_on_from_the_best_setting_so_far(monkeypatch):
    """Where accuracy is a number that the settings decide, the rounds climb to its top."""

    def invented(setting, seed):
        chosen = json.loads(setting)
        rate, epochs = math.log2(chosen["learning_rate"] / 0.02), math.log(chosen["epochs"] / 60, 3)
        smoothing, decay = chosen.get("label_smoothing", 0.1) - 0.1, math.log10(chosen["weight_decay"] / 0.1)
        height = rate**2 + epochs**2 + smoothing**2 + decay**2 + (chosen["augment"] is not None)
        return {"validation_accuracy": -height}

    monkeypatch.setattr(lesson01_tuning, "on_validation", invented)
    in_turn = lambda cell, cells: pandas.DataFrame([settings | cell(**settings) for settings in cells])  # noqa: E731
    monkeypatch.setattr(lesson01_tuning, "map_cells", in_turn)
    table = lesson01_tuning.tuning(seeds=range(2))
    best = lesson01_tuning.best_of(table[table["family"] == "labels"])
    assert best == {"learning_rate": 0.02, "epochs": 60, "label_smoothing": 0.1, "weight_decay": 0.1, "augment": None}


def test_methods_of_one_seed_share_images_and_weights_but_not_results():
    rows = [lesson01.one_student(method, seed=3, images=100, epochs=1) for method in ("labels only", "distillation")]
    again = lesson01.one_student("distillation", seed=3, images=100, epochs=1)
    assert rows[1] == again
    assert rows[0] != rows[1]


def test_a_student_without_one_class_is_measured_on_that_class():
    row = lesson01.without_one_class("T = 4", seed=0, epochs=1)
    classes = lesson01.fashion()[0].classes
    assert sum(row[name] for name in classes) == pytest.approx(1, abs=1e-5)
    assert row["recall, corrected"] == pytest.approx(row[lesson01.MISSING])
    assert 0 <= row["recall, raw"] <= row["recall, corrected"]
    # Recall and precision share the right ones; a tenth of the images is of the class, and a tenth is called so.
    assert row["precision, by share"] == pytest.approx(row["recall, by share"], rel=0.2)


def test_a_bias_by_share_calls_that_share_of_the_images_so():
    logits = torch.randn(1000, 10, generator=torch.Generator().manual_seed(0))
    for share in (0.1, 0.5):
        moved = logits.clone()
        moved[:, 3] += lesson01.share_bias(logits, 3, share)
        assert (moved.argmax(dim=1) == 3).float().mean() == pytest.approx(share, abs=0.002)


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


def test_settings_of_a_tuning_are_found_by_what_they_hold():
    """False == 0.0, so a setting without smoothing must not count as one with a smoothing of zero."""
    assert "temperature" not in lesson01_tuning.best_for(1, "label_smoothing", 0.0)
    assert lesson01_tuning.best_for(1, "temperature", 2.0)["temperature"] == 2.0
