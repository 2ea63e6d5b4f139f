"""Which of several models to ship: those that no other one beats, the best within a budget, the cheapest like it."""

from collections.abc import Sequence
from numbers import Real
from reprlib import repr as short

import numpy as np
import pandas as pd

from kdlib.deploy import arguments


def pareto_front(
    table: pd.DataFrame,
    *,
    larger: Sequence[str] = ("accuracy",),
    smaller: Sequence[str] = ("bytes", "milliseconds"),
) -> pd.DataFrame:
    """The rows of `table` that no other row dominates, in their order.

    A row dominates another if it is at least as good in every column and better in one. Whatever weighs more
    to you, the best choice is among the rows that remain. Of two equal rows both stay. Differences smaller than
    the interval of a measurement decide here as large ones do.

    Args:
        table: a row for each model.
        larger, smaller: the columns in which more, or less, is better; at least one in all.

    Raises:
        ValueError: a column that is missing, named twice or not finite.
        TypeError: no table, no list of columns, or a column that holds no numbers.
    """
    larger, smaller = arguments.texts("larger", larger), arguments.texts("smaller", smaller)
    columns = [*larger, *smaller]
    _check_columns(table, larger=larger, smaller=smaller)
    signs = np.array([-1.0] * len(larger) + [1.0] * len(smaller))
    costs = table[columns].to_numpy(dtype=float) * signs
    dominated = [((costs <= row).all(axis=1) & (costs < row).any(axis=1)).any() for row in costs]
    return table[~np.array(dominated, dtype=bool)]


def best_within(table: pd.DataFrame, *, larger: str = "accuracy", **budgets: Real) -> pd.Series | None:
    """The row with the largest `larger` among those within all budgets; None where there is none.

        best_within(table, bytes=100_000, milliseconds=2)

    Of rows with the same `larger` the one with less of the first budget's column is taken, then of the second's,
    and so on; then the first. The row's name is its label in `table`.

    Args:
        table: a row for each model.
        larger: the column that decides.
        budgets: column -> the most that is allowed, that value included; infinity allows everything.

    Raises:
        ValueError: a column that is missing or not finite, a budget that is not a number.
        TypeError: no table, or a budget or a column of another kind.
    """
    allowed = _within(table, larger, budgets)
    if not allowed.any():
        return None
    order = [False] + [True] * len(budgets)
    return table[allowed].sort_values([larger, *budgets], ascending=order, kind="stable").iloc[0]


def cheapest_alike(
    table: pd.DataFrame, alike: pd.DataFrame, *, price: str, larger: str = "accuracy", **budgets: Real
) -> pd.Series | None:
    """The row with the smallest `price` among those within all budgets that are not told apart from the best of these.

        cheapest_alike(table, alike, price="bytes", bytes=100_000, milliseconds=2)

    The best is the one of `best_within`; where there is none, None. Each row is compared with the best and with no
    other one: "not told apart" is not transitive. Of three models, the first and the second may be alike, the second
    and the third too, and yet the third is measurably worse than the first; a chain of such steps leads as far down as
    there are models to step on. Of rows with the same price the one with the larger `larger` is taken, then the first.
    The row's name is its label in `table`.

    Args:
        table: a row for each model, each under a label of its own.
        alike: whether two models are not told apart (the paired interval of their difference contains 0), a bool for
            each pair of labels of `table`, as rows and as columns, in any order; a model is alike itself.
        price: the column of which less is better; it may be that of a budget.
        larger, budgets: as those of `best_within`.

    Raises:
        ValueError: a column that is missing or not finite, a budget that is not a number, labels that are not unique;
            `alike` without one of them, or not the same for (a, b) and (b, a), or False for a model and itself.
        TypeError: no table, or a budget or a column of another kind; `alike` is no table of bools.
    """
    allowed = _within(table, larger, budgets)
    _check_columns(table, larger=(larger,), price=(arguments.text("price", price),))
    pairs = _pairs(table, alike)
    best = best_within(table, larger=larger, **budgets)
    if best is None:
        return None
    candidates = table[allowed & pairs[table.index.get_loc(best.name)]]
    return candidates.sort_values([price, larger], ascending=[True, False], kind="stable").iloc[0]


def _within(table: pd.DataFrame, larger: str, budgets: dict[str, Real]) -> np.ndarray:
    """Which rows are within all budgets, once the arguments are found right."""
    _check_columns(table, larger=(arguments.text("larger", larger),), budgets=tuple(budgets))
    for name, most in budgets.items():
        if isinstance(most, bool) or not isinstance(most, Real):
            raise TypeError(f"{name} must be the most that is allowed, a number, got {most!r}")
        if most != most:
            raise ValueError(f"{name} must be the most that is allowed, got {most}")
    allowed = np.ones(len(table), dtype=bool)
    for name, most in budgets.items():
        allowed &= (table[name] <= most).to_numpy()
    return allowed


def _pairs(table: pd.DataFrame, alike: pd.DataFrame) -> np.ndarray:
    """The values of `alike` in the order of the rows of `table`."""
    if not isinstance(alike, pd.DataFrame):
        raise TypeError(f"alike must be a pandas.DataFrame, got {type(alike).__name__}")
    labels = table.index
    if not labels.is_unique:
        raise ValueError(f"table must have each label once, got {list(labels)}")
    places = [_places(labels, axis, getattr(alike, axis)) for axis in ("index", "columns")]
    values = alike.to_numpy()[np.ix_(*places)]
    others = [one for one in values.flat if not isinstance(one, bool | np.bool_)]
    if others:
        raise TypeError(f"alike must hold True and False, got {type(others[0]).__name__} {short(others[0])}")
    values = values.astype(bool)
    if not values.diagonal().all():
        raise ValueError(f"alike must be True for {labels[values.diagonal().argmin()]!r} and itself")
    if (values != values.T).any():
        one, other = (labels[place] for place in np.argwhere(values != values.T)[0])
        raise ValueError(f"alike must be the same for ({one!r}, {other!r}) and ({other!r}, {one!r})")
    return values


def _places(labels: pd.Index, axis: str, found: pd.Index) -> np.ndarray:
    """Where each label stands on an axis of `alike`."""
    complete = found.is_unique and len(found) == len(labels)
    places = found.get_indexer(labels) if complete else np.array([-1])
    if (places < 0).any():
        raise ValueError(
            f"the {axis} of alike must be the labels of table, {list(labels)}, got {list(found)}"
        )
    return places


def _check_columns(table: pd.DataFrame, **columns: tuple[str, ...]) -> None:
    """Argument -> the columns that it names."""
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"table must be a pandas.DataFrame, got {type(table).__name__}")
    names = [name for group in columns.values() for name in group]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{' and '.join(columns)} must name each column once, and at least one, got {names}")
    for argument, name in ((argument, name) for argument, group in columns.items() for name in group):
        if list(table).count(name) != 1:
            raise ValueError(f"{argument}: table must have the column {name!r}, once; it has {list(table)}")
        # A transposed table holds numbers as objects.
        if not all(isinstance(one, Real) and not isinstance(one, bool | np.bool_) for one in table[name]):
            raise TypeError(
                f"{argument}: column {name!r} of table must hold numbers, got {table[name].dtype}"
            )
    for argument, name in ((argument, name) for argument, group in columns.items() for name in group):
        if not np.isfinite(table[name].to_numpy(dtype=float)).all():
            raise ValueError(
                f"{argument}: column {name!r} of table must be finite, got {table[name].tolist()}"
            )
