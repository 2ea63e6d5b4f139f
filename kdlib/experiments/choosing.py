"""What the topics of a lesson share: seeds, learning rates, and how settings are chosen on validation.

A topic such as lesson08-video has a table `lesson08-video-tuning` of what was tried on validation images
(`-edge-tuning` is what lies beyond its edges, where the best settings lay there, `-later-tuning` are arms that a reader
asked for), a table `lesson08-video` of its arms at their own best on the test images, and `lesson08-video-again` with
ten other seeds.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas
import torch
from torch import Tensor

from kdlib import data
from kdlib.data import ImageDataset
from kdlib.lesson import results
from kdlib.sweeps import map_cells

TUNING_SEEDS, SEEDS, AGAIN = range(100, 103), range(10), range(20, 30)
RATES = (0.007, 0.02, 0.06, 0.18, 0.54)
LOWER_RATE, HIGHER_RATE = 0.0023, 1.62  # beyond the edges
ALPHAS = (0.25, 0.5, 0.9, 1.0)
BATCH_SIZE = 32

Grids = Mapping[str, Sequence[Mapping[str, Any]]]  # arm -> the settings that are tried


def fashion() -> ImageDataset:
    return data.load("fashion-mnist")


def as_label(logits: Tensor) -> Tensor:
    """The logits of a teacher that is as sure of its likeliest class as float32 is: its answer as a label."""
    return 60.0 * torch.nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1])


def every(**values: Iterable) -> list[dict[str, Any]]:
    """All combinations of these settings."""
    return [dict(zip(values, one, strict=True)) for one in itertools.product(*values.values())]


def tried(compute, grids: Grids, seeds: Iterable[int], **fixed: Any) -> pandas.DataFrame:
    """Every arm at each of its settings, on validation."""
    cells = [
        {**fixed, "arm": arm, **settings, "seed": seed, "split": "validation"}
        for seed in seeds
        for arm, grid in grids.items()
        for settings in grid
    ]
    return measured(compute, cells)


def tried_for_each(compute, grids: Grids, seeds: Iterable[int], **several: Iterable) -> pandas.DataFrame:
    """`tried` for each value of one more setting, one table below the other."""
    tables = [tried(compute, grids, seeds, **fixed) for fixed in every(**several)]
    return pandas.concat(tables, ignore_index=True)


def on_test(chosen: Iterable[Mapping[str, Any]], seeds: Iterable[int]) -> list[dict[str, Any]]:
    """The cells that are reported: each of the chosen settings with every seed."""
    chosen = list(chosen)
    return [{**settings, "seed": seed, "split": "test"} for seed in seeds for settings in chosen]


def measured(compute, cells: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """A row a cell, to six decimals."""
    return map_cells(compute, cells).round(6)


def best(table: pandas.DataFrame, settings: Sequence[str], *, by: str, lowest: bool = False) -> dict[str, Any]:
    """Those of the settings whose mean over the seeds is the best."""
    means = table.groupby(list(settings))[by].mean()
    chosen = means.idxmin() if lowest else means.idxmax()
    chosen = chosen if isinstance(chosen, tuple) else (chosen,)
    return {name: float(value) for name, value in zip(settings, chosen, strict=True)}


def all_tried(topic: str) -> pandas.DataFrame:
    """What was tried on validation, beyond the edges too."""
    names = [f"{topic}-{kind}tuning" for kind in ("", "edge-", "later-")]
    return pandas.concat([results.read(name) for name in names if name in results.recorded()], ignore_index=True)


def best_of_arms(
    topic: str, settings: Sequence[str], *, by: str, lowest: bool = False, **where: Any
) -> dict[str, dict[str, Any]]:
    """The best settings of each arm on validation, among the rows where columns have the given values."""
    table = all_tried(topic)
    for column, value in where.items():
        table = table[table[column] == value]
    return {str(arm): best(own, settings, by=by, lowest=lowest) for arm, own in table.groupby("arm", sort=False)}
