"""Odd arguments of what chooses among models: a right answer, or an error that names them.

As `test_odd_arguments_deploy.py`, for `kdlib.deploy.pareto`.
"""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd import few, itself, text, texts, tried, unchecked

from kdlib.deploy import pareto

pareto = unchecked(pareto)
pytestmark = pytest.mark.filterwarnings("ignore")

TABLE = pd.DataFrame({"accuracy": [0.8, 0.9, 0.7], "bytes": [10, 20, 5], "milliseconds": [1.0, 3.0, 2.0]})
TABLE["name"] = list("abc")
TABLES = [
    TABLE, TABLE[:0], TABLE.to_dict(), TABLE.to_numpy(), TABLE.assign(bytes=[1, math.nan, 2]), TABLE["bytes"],
    TABLE.assign(bytes=list("123")), TABLE.drop(columns="bytes"), TABLE.assign(bytes=[True, False, True]),
    pd.concat([TABLE, TABLE], axis=1), TABLE.assign(bytes=[None, 1, 2]), TABLE.rename(columns={"bytes": 1}),
    TABLE.astype(object), TABLE.assign(bytes=["1", 2, 3]), TABLE.assign(bytes=[1j, 2, 3]),
]  # fmt: skip


@settings(few, max_examples=120)
@given(draws=st.data())
def test_pareto(draws):
    lists = [
        ["bytes"],
        ("milliseconds",),
        ["name"],
        ["bytes", "bytes"],
        "bytes",
        ["absent"],
        [],
        [1],
        ["accuracy"],
    ]
    if draws.draw(st.booleans()):
        plain = {"table": TABLE, "larger": ["accuracy"], "smaller": ["milliseconds"]}
        odd = {"larger": (lists, texts), "smaller": (lists, texts), "table": (TABLES, itself)}
        tried(draws.draw, lambda **options: list(pareto.pareto_front(**options).index), plain, odd)
    else:
        plain = {"table": TABLE, "bytes": 10, "larger": "accuracy"}
        odd = {
            "bytes": ([], itself),
            "larger": (["bytes", "name", "absent"], text),
            "table": (TABLES, itself),
        }
        tried(draws.draw, lambda **options: str(pareto.best_within(**options)), plain, odd)


ALIKE = pd.DataFrame(True, TABLE.index, TABLE.index)
ALIKES = [
    ALIKE, ALIKE.to_numpy(), ALIKE.to_dict(), ALIKE[0], ALIKE[:0], ALIKE.drop(columns=1), ALIKE[[2, 0, 1]],
    ALIKE.astype(object), ALIKE.astype(int), ALIKE.astype(str), ~ALIKE, ALIKE[[0, 1, 2, 2]], ALIKE.map(lambda _: None),
    ALIKE.set_axis(list("abc")), ALIKE.mask(np.eye(3) > 0, False), ALIKE.mask(np.arange(9).reshape(3, 3) == 2, False),
]  # fmt: skip


@settings(few, max_examples=120)
@given(draws=st.data())
def test_cheapest_alike(draws):
    plain = {"table": TABLE, "alike": ALIKE, "price": "milliseconds", "bytes": 10, "larger": "accuracy"}
    odd = {
        "alike": (ALIKES, itself),
        "price": (["bytes", "accuracy", "name", "absent"], text),
        "bytes": ([], itself),
        "larger": (["bytes", "milliseconds", "name", "absent"], text),
        "table": (TABLES, itself),
    }
    tried(draws.draw, lambda **options: str(pareto.cheapest_alike(**options)), plain, odd)
