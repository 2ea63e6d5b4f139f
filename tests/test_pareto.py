"""The front and the best within a budget, against a comparison of every pair and sorting by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest

from kdlib.deploy.pareto import best_within, pareto_front


def random_table(seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    columns = {name: generator.integers(0, 5, 25) for name in ("accuracy", "bytes", "milliseconds")}
    return pd.DataFrame(columns, index=[f"model {i}" for i in range(25)])


def test_pareto_front_agrees_with_a_comparison_of_every_pair():
    for seed in range(5):
        table = random_table(seed)
        rows = {row.Index: (-row.accuracy, row.bytes, row.milliseconds) for row in table.itertuples()}
        expected = [
            name
            for name, mine in rows.items()
            if not any(
                other != mine and all(theirs <= ours for theirs, ours in zip(other, mine, strict=True))
                for other in rows.values()
            )
        ]
        assert list(pareto_front(table).index) == expected, seed
        assert list(pareto_front(table.astype(object)).index) == expected, seed


def test_pareto_front_of_other_columns_and_of_nothing():
    table = pd.DataFrame({"speed": [3, 2, 1], "error": [0.3, 0.1, 0.2]}, index=list("abc"))
    assert list(pareto_front(table, larger=["speed"], smaller=["error"]).index) == ["a", "b"]
    assert list(pareto_front(table, larger=[], smaller=["error"]).index) == ["b"]
    assert pareto_front(table[:0], larger=["speed"], smaller=["error"]).empty


def test_best_within_is_on_the_front_and_agrees_with_sorting_by_hand():
    for seed, most_bytes, most_milliseconds in itertools.product(range(5), (0, 2, np.inf), (0, 1, 4)):
        table = random_table(seed)
        fitting = [
            (-row.accuracy, row.bytes, row.milliseconds)
            for row in table.itertuples()
            if row.bytes <= most_bytes and row.milliseconds <= most_milliseconds
        ]
        best = best_within(table, bytes=most_bytes, milliseconds=most_milliseconds)
        found = [] if best is None else [(-best.accuracy, best.bytes, best.milliseconds)]
        assert found == sorted(fitting)[:1], (seed, most_bytes, most_milliseconds)
        assert best is None or best.name in pareto_front(table).index


def test_best_within_no_budget_is_the_best_and_within_too_little_is_none():
    table = pd.DataFrame({"accuracy": [0.8, 0.9], "bytes": [10, 20]}, index=["small", "large"])
    assert best_within(table).name == "large" and best_within(table, bytes=10).name == "small"
    assert best_within(table, bytes=9) is None


def test_tables_without_a_column_or_with_nan_are_refused():
    table = pd.DataFrame({"accuracy": [0.8, float("nan")], "bytes": [10, 20]})
    for columns, message in [
        ({"smaller": ["bytes"]}, "larger: column 'accuracy' of table must be finite"),
        ({}, "smaller: table must have the column 'milliseconds', once; it has"),
        ({"larger": ["bytes"], "smaller": ["bytes"]}, "name each column once"),
        ({"larger": [], "smaller": []}, "at least one"),
    ]:
        with pytest.raises(ValueError, match=message):
            pareto_front(table, **columns)
    with pytest.raises(ValueError, match="larger: column 'accuracy' of table must be finite"):
        best_within(table, bytes=10)
    with pytest.raises(ValueError, match="bytes must be the most that is allowed, got nan"):
        best_within(table[:1], bytes=float("nan"))
