"""The experiments of lesson 06, run very small: sizes and efforts are equal where they are said to be."""

import pandas
import pytest
import torch

from kdlib import data, models
from kdlib.deploy import compress, footprint
from kdlib.experiments import lesson06, lesson06_search
from kdlib.lesson import results

pytestmark = pytest.mark.usefixtures("one_thread")
SOME = torch.linspace(-1, 1, 2 * 28 * 28).view(2, 1, 28, 28)


@pytest.fixture
def small(monkeypatch):
    """Few images to learn from and to be judged by, every cell in this process, and one rate for all."""
    images, network = lesson06.fashion()
    few = data.ImageDataset(images.train.take(70), images.validation.take(30), images.test.take(40), images.classes)

    def in_this_process(function, cells):
        return pandas.DataFrame([{**cell, **function(**cell)} for cell in cells])

    monkeypatch.setattr(lesson06, "fashion", lambda: (few, network))
    monkeypatch.setattr(lesson06, "chosen_rate", lambda method, target: 1e-3)
    monkeypatch.setattr(lesson06_search, "JUDGES", 30)
    for module in (lesson06, lesson06_search):
        monkeypatch.setattr(module, "map_cells", in_this_process)
    lesson06.answers.cache_clear()
    yield
    lesson06.answers.cache_clear()


def test_the_networks_that_are_compared_at_equal_size_have_equal_multiply_adds():
    counts = {method: footprint.multiply_adds(lesson06.network(method), (1, 28, 28)) for method in lesson06.EQUAL}
    assert max(counts.values()) < 1.03 * min(counts.values()), counts
    assert max(counts.values()) <= lesson06_search.BUDGET


def test_a_random_start_has_the_form_of_the_pruned_network_and_weights_of_its_seed():
    pruned, first, same, other = lesson06.network("pruned"), *(lesson06.network("random start", s) for s in (0, 0, 1))
    shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in (pruned, first)]
    assert shapes[0] == shapes[1]
    for name, value in first.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name
    assert not torch.equal(first.stem[0].weight, other.stem[0].weight)
    assert not torch.equal(first.stem[0].weight, pruned.stem[0].weight)
    norm = first.stem[1]
    assert norm.running_mean.abs().max() == 0 and (norm.running_var == 1).all() and (norm.weight == 1).all()
    # A convolution's first weights are uniform within 1 / sqrt(fan in).
    assert first.stem[0].weight.abs().max() <= 1 / 3


def test_what_inherits_begins_with_the_teachers_weights_and_is_not_changed_by_a_training_before(small):
    teacher = lesson06.fashion()[1]
    before = lesson06.network("pruned")
    lesson06.accuracy("pruned", "teacher", 1, 1e-2, 0, "validation", images=70)
    again = lesson06.network("pruned")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in before.state_dict().items())
    kept = teacher.stem[0].weight.flatten(1)
    for method in ("pruned", "carved"):
        rows = lesson06.network(method).stem[0].weight.flatten(1)
        assert all(any(torch.equal(row, other) for other in kept) for row in rows), method


def test_the_effort_is_three_forward_passes_of_every_image(small):
    assert footprint.training_multiply_adds(2_319_392, images=11, passes=7) == 3 * 2_319_392 * 7 * 11
    row = lesson06.accuracy("pocket-cnn", "labels", 2, 1e-2, 0, "validation", images=60)
    assert row["training_multiply_adds"] == 3 * 2_319_392 * 2 * 60 and row["parameters"] == 46_162


def test_every_method_gets_equal_passes_and_the_seeds_of_the_others(small):
    cells = pandas.DataFrame(lesson06.compared(range(4), range(2), passes=10))
    assert not cells.duplicated().any()
    equal = cells[(cells["passes"] == 10) & (cells["target"] == "teacher")]
    seeds = equal.groupby("method")["seed"].apply(list).to_dict()
    assert seeds == {**{method: [0, 1, 2, 3] for method in lesson06.EQUAL}, **{m: [0, 1] for m in lesson06.LARGER}}
    labels = cells[cells["target"] == "labels"]
    assert set(labels["passes"]) == {10, 30}
    assert set(labels.loc[labels["passes"] == 10, "method"]) == set(lesson06.EQUAL)


def test_the_rates_were_chosen_by_validation_with_other_seeds_and_none_lies_on_the_edge_of_what_was_tried():
    tuned = lesson06.tuned()
    assert set(tuned["split"]) == {"validation"}
    for (method, target), rows in tuned.groupby(["method", "target"]):
        means = rows.groupby("rate")["accuracy"].mean()
        assert lesson06.chosen_rate(method, target) == means.idxmax()
        assert means.index.min() < means.idxmax() < means.index.max(), (method, target)
    for name in ("lesson06-methods", "lesson06-strengths", "lesson06-search"):
        assert set(tuned["seed"]).isdisjoint(results.read(name)["seed"])
    used = results.read("lesson06-methods")[["method", "target", "rate"]].drop_duplicates()
    assert all(row.rate == lesson06.chosen_rate(row.method, row.target) for row in used.itertuples())


def test_a_table_has_a_row_for_each_cell_and_an_accuracy_of_its_own(small):
    table = lesson06.methods(seeds=[0], fewer_seeds=[0], passes=2, images=70)
    assert len(table) == len(lesson06.compared([0], [0], 2)) and table["accuracy"].between(0, 1).all()
    assert "error" not in table
    ladder = lesson06.strengths(seeds=[0], passes=1, images=70)
    sizes = ladder.groupby("method")["parameters"].nunique()
    assert sizes["pruned"] == sizes["low-rank"] == 5 and sizes["sparse"] == 1, "zeros are stored"


def test_a_plan_at_random_is_within_the_budget_and_near_it():
    plans = [lesson06_search.random_plan(seed) for seed in range(5)]
    assert len(set(plans)) == 5 and plans[0] == lesson06_search.random_plan(0)
    for plan in plans:
        count = footprint.multiply_adds(models.PocketCNN(plan=plan), (1, 28, 28))
        assert 0.8 * lesson06_search.BUDGET <= count <= lesson06_search.BUDGET


def test_each_arm_of_the_search_is_trained_alike_and_pays_for_its_trials(small):
    table = lesson06_search.searched(seeds=[0], passes=1, plans=2, images=64).set_index("arm")
    for arm in ("search", "random, the best"):
        assert 0 <= table.loc[arm, "after 1"] <= table.loc[arm, "after 2"] <= 1
        own = 3 * table.loc[arm, "multiply_adds"] * 64
        assert table.loc[arm, "training_multiply_adds"] > own
    for arm in ("random, one", "by hand"):
        assert table.loc[arm, "training_multiply_adds"] == 3 * table.loc[arm, "multiply_adds"] * 64
    assert table.loc["by hand", "plan"] == "pocket-cnn"


def test_a_plan_is_built_with_the_weights_of_its_seed():
    plan = ((8, 3, 2), (16, 3, 2))
    first, second = lesson06_search.of_plan(plan, 3), lesson06_search.of_plan(plan, 3)
    assert torch.equal(first(SOME), second(SOME))
    assert not torch.equal(first.eval()(SOME), lesson06_search.of_plan(plan, 4).eval()(SOME))
    assert isinstance(compress.finish(first), models.PocketCNN)
