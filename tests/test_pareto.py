"""The front, the best within a budget and the cheapest like it, against comparisons of pairs and sorting by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from odd import unchecked

from kdlib.deploy import pareto
from kdlib.deploy.pareto import best_within, cheapest_alike, pareto_front


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


# ------------------------------------------------------------------ the cheapest that is alike

MODELS = pd.DataFrame(
    {"accuracy": [0.93, 0.92, 0.91, 0.90], "bytes": [400, 300, 200, 100], "milliseconds": [4.0, 1.0, 3.0, 2.0]},
    index=["large", "middle", "small", "tiny"],
)


def alike_but_for(table: pd.DataFrame, *told_apart: tuple[str, str]) -> pd.DataFrame:
    """Every two rows are alike, but for these."""
    alike = pd.DataFrame(True, index=table.index, columns=table.index)
    for one, other in told_apart:
        alike.loc[one, other] = alike.loc[other, one] = False
    return alike


def test_cheapest_alike_agrees_with_sorting_by_hand():
    for seed, most_bytes, most_milliseconds in itertools.product(range(8), (0, 2, np.inf), (0, 1, 4)):
        table = random_table(seed)
        generator = np.random.default_rng(100 + seed)
        upper = np.triu(generator.random((25, 25)) < 0.5, 1)
        alike = pd.DataFrame(upper | upper.T | np.eye(25, dtype=bool), table.index, table.index)
        fitting = [r for r in table.itertuples() if r.bytes <= most_bytes and r.milliseconds <= most_milliseconds]
        # sorted() keeps the first of equal rows first.
        best = sorted(fitting, key=lambda r: (-r.accuracy, r.bytes, r.milliseconds))[:1]
        like_it = [r for r in fitting if alike.loc[r.Index, best[0].Index]]
        expected = [r.Index for r in sorted(like_it, key=lambda r: (r.milliseconds, -r.accuracy))[:1]]
        shuffled = alike.loc[generator.permutation(table.index), generator.permutation(table.index)]
        for pairs in (alike, shuffled, alike.astype(object)):
            found = cheapest_alike(table, pairs, price="milliseconds", bytes=most_bytes, milliseconds=most_milliseconds)
            assert ([] if found is None else [found.name]) == expected, (seed, most_bytes, most_milliseconds)


def test_cheapest_alike_compares_with_the_best_and_follows_no_chain():
    steps = alike_but_for(MODELS, ("large", "small"), ("large", "tiny"), ("middle", "tiny"))
    assert cheapest_alike(MODELS, steps, price="bytes").name == "middle"
    assert cheapest_alike(MODELS, steps, price="bytes", bytes=300).name == "small"
    assert cheapest_alike(MODELS, steps, price="bytes", bytes=100).name == "tiny"
    assert cheapest_alike(MODELS, steps, price="bytes", bytes=99) is None


def test_cheapest_alike_compares_with_the_best_that_fits_and_not_with_the_best_of_all():
    alike = alike_but_for(MODELS, ("middle", "tiny"))
    assert cheapest_alike(MODELS, alike, price="bytes").name == "tiny"
    assert cheapest_alike(MODELS, alike, price="bytes", milliseconds=3.0).name == "small"
    assert cheapest_alike(MODELS, alike, price="milliseconds", milliseconds=3.0).name == "middle"


def test_of_two_prices_that_are_equal_the_more_accurate_is_taken_and_then_the_first():
    alike, table = alike_but_for(MODELS), MODELS.assign(bytes=[400, 100, 100, 100])
    assert cheapest_alike(table, alike, price="bytes").name == "middle"
    assert cheapest_alike(table[::-1], alike, price="bytes").name == "middle"
    level = table.assign(accuracy=[0.93, 0.9, 0.9, 0.9])
    assert cheapest_alike(level, alike, price="bytes").name == "middle"
    assert cheapest_alike(level[::-1], alike, price="bytes").name == "tiny"


def test_another_column_than_the_accuracy_may_decide_which_model_is_the_best():
    table = MODELS.rename(columns={"accuracy": "share"})
    alike = alike_but_for(table, ("large", "tiny"))
    assert cheapest_alike(table, alike, larger="share", price="bytes").name == "small"
    with pytest.raises(ValueError, match="larger: table must have the column 'accuracy'"):
        cheapest_alike(table, alike, price="bytes")


def test_pairs_that_are_no_answer_for_every_two_rows_are_refused():
    alike = alike_but_for(MODELS)
    lopsided, unlike_itself = alike.copy(), alike.copy()
    lopsided.loc["tiny", "large"] = unlike_itself.loc["small", "small"] = False
    names = list(MODELS.index)
    plain = unchecked(pareto)
    for pairs, error, message in [
        (alike.to_numpy(), TypeError, "alike must be a pandas.DataFrame, got ndarray"),
        (alike.astype(float), TypeError, "alike must hold True and False, got float64 "),
        (alike.map(lambda _: None), TypeError, "alike must hold True and False, got NoneType None"),
        (alike.drop(index="tiny"), ValueError, "the index of alike must be the labels of table, .*'tiny'.*, got"),
        (alike.rename(columns={"tiny": "huge"}), ValueError, "the columns of alike must be the labels .*'huge'"),
        (alike.loc[[*names, "tiny"]], ValueError, "the index of alike must be the labels of table"),
        (lopsided, ValueError, r"the same for \('large', 'tiny'\) and \('tiny', 'large'\)"),
        (unlike_itself, ValueError, "alike must be True for 'small' and itself"),
    ]:
        with pytest.raises(error, match=message):
            plain.cheapest_alike(MODELS, pairs, price="bytes")
        # Nor where nothing fits, and the pairs decide nothing.
        with pytest.raises(error, match=message):
            plain.cheapest_alike(MODELS, pairs, price="bytes", bytes=0)


def test_cheapest_alike_refuses_a_price_and_labels_that_choose_nothing():
    alike = alike_but_for(MODELS)
    for table, price, message in [
        (MODELS, "cost", "price: table must have the column 'cost', once; it has"),
        (MODELS, "accuracy", "larger and price must name each column once"),
        (MODELS.assign(bytes=[1.0, 2.0, np.inf, 3.0]), "bytes", "price: column 'bytes' of table must be finite"),
        (MODELS.rename(index={"tiny": "small"}), "bytes", "table must have each label once, got .*'small', 'small'"),
    ]:
        with pytest.raises(ValueError, match=message):
            cheapest_alike(table, alike, price=price)
    with pytest.raises(ValueError, match="bytes must be the most that is allowed, got nan"):
        cheapest_alike(MODELS, alike, price="milliseconds", bytes=float("nan"))
