"""Which of several models to ship: those that no other one beats, and the best within a budget."""

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np
import pandas as pd


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

    larger, smaller: the columns in which more, or less, is better; at least one in all.

    Raises:
        ValueError: a column that is missing, named twice or not finite.
    """
    columns = [*larger, *smaller]
    _check_columns(table, columns)
    signs = np.array([-1.0] * len(larger) + [1.0] * len(smaller))
    costs = table[columns].to_numpy(dtype=float) * signs
    dominated = [((costs <= row).all(axis=1) & (costs < row).any(axis=1)).any() for row in costs]
    return table[~np.array(dominated, dtype=bool)]


def best_within(table: pd.DataFrame, *, larger: str = "accuracy", **budgets: Real) -> pd.Series | None:
    """The row with the largest `larger` among those within all budgets; None where there is none.

        best_within(table, bytes=100_000, milliseconds=2)

    Of rows with the same `larger` the one with less of the first budget's column is taken, then of the second's,
    and so on; then the first. The row's name is its label in `table`.

    budgets: column -> the most that is allowed, that value included; infinity allows everything.

    Raises:
        ValueError: a column that is missing or not finite, a budget that is not a number.
    """
    _check_columns(table, [larger, *budgets])
    for name, most in budgets.items():
        if math.isnan(most):
            raise ValueError(f"{name} must be the most that is allowed, got {most}")
    allowed = np.ones(len(table), dtype=bool)
    for name, most in budgets.items():
        allowed &= (table[name] <= most).to_numpy()
    if not allowed.any():
        return None
    order = [False] + [True] * len(budgets)
    return table[allowed].sort_values([larger, *budgets], ascending=order, kind="stable").iloc[0]


def _check_columns(table: pd.DataFrame, columns: list[str]) -> None:
    missing = [name for name in columns if name not in table]
    if missing:
        raise ValueError(f"the table has no column {missing[0]!r}; it has {list(table)}")
    if not columns or len(set(columns)) != len(columns):
        raise ValueError(f"columns must be named once, and at least one of them, got {columns}")
    for name in columns:
        if not np.isfinite(table[name].to_numpy(dtype=float)).all():
            raise ValueError(f"column {name!r} must be finite, got {table[name].tolist()}")
