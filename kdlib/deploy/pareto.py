"""Which of several models to ship: those that no other one beats, and the best within a budget."""

from collections.abc import Sequence
from numbers import Real

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
    _check_columns(table, larger=(arguments.text("larger", larger),), budgets=tuple(budgets))
    for name, most in budgets.items():
        if isinstance(most, bool) or not isinstance(most, Real):
            raise TypeError(f"{name} must be the most that is allowed, a number, got {most!r}")
        if most != most:
            raise ValueError(f"{name} must be the most that is allowed, got {most}")
    allowed = np.ones(len(table), dtype=bool)
    for name, most in budgets.items():
        allowed &= (table[name] <= most).to_numpy()
    if not allowed.any():
        return None
    order = [False] + [True] * len(budgets)
    return table[allowed].sort_values([larger, *budgets], ascending=order, kind="stable").iloc[0]


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
