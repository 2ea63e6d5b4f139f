"""The audit of lesson 10: what four common tutorials claim, what each claim needs, and what is measured of it here.

Tutorials A (a walk-through on CIFAR-10), B (an overview), C (a program for MNIST) and D (ResNet-18 to MobileNetV2)
are each read for single statements. `claims()` lists them, `measure("A1")` decides one by a count, a computation or a
recorded table, `table()` sets all side by side, and `board()` lets a reader choose among them. On the command line:
`kdlib audit`.
"""

from kdlib.audit._board import as_html, board
from kdlib.audit._core import (
    FAILS,
    HOLDS,
    IN_PART,
    TOPICS,
    UNTESTED,
    VERDICTS,
    Claim,
    Finding,
    claims,
    find,
    measure,
)
from kdlib.audit._table import counts, table

__all__ = [
    "FAILS", "HOLDS", "IN_PART", "TOPICS", "UNTESTED", "VERDICTS", "Claim", "Finding", "as_html", "board", "claims",
    "counts", "find", "measure", "table",
]  # fmt: skip
