"""What lesson 04 measures of layers: what a regressor reads from them, and how far attention maps are apart."""

from collections.abc import Sequence

import pandas
import torch
from torch import Tensor
from torch.nn import functional as F

from kdlib.lesson import results


def share_read(layers: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The share of the variance of `wanted` maps that a linear regressor at each position explains.

    Both hold the maps of one layer for two sets of images: the regressor is fitted, by least squares, on the first set,
    and measured on the second.
    """

    def positions(maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1).flatten(0, 2).double()

    known, new = (positions(maps) for maps in wanted)
    fitted, measured = (F.pad(positions(maps), (0, 1), value=1.0) for maps in layers)  # a one for the bias
    best = torch.linalg.lstsq(fitted, known).solution
    error = (measured @ best - new).square().mean() / (new - known.mean(dim=0)).square().mean()
    return 1 - error.item()


def distances() -> pandas.DataFrame:
    """The recorded mean distances of attention maps to the teacher's, by method and size, and their two floors."""
    recorded = results.read("lesson04-likeness")
    sizes = {"14 x 14": 14, "7 x 7": 7}
    distilled = recorded[recorded["method"] == "distillation"]
    rows = {
        method: {title: own[f"distance {size}"].mean() for title, size in sizes.items()}
        for method, own in recorded.groupby("method", sort=False)
    }
    floors = {"distillation, another image's map": "another", "a map that is the same everywhere": "uniform"}
    for name, column in floors.items():
        rows[name] = {title: distilled[f"{column} {size}"].mean() for title, size in sizes.items()}
    return pandas.DataFrame(rows).T.round(2)
