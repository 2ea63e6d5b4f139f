"""The study of lesson 10: as it was published, and with all its faults mended. One core takes about two minutes."""

from collections.abc import Sequence
from typing import Any

import pandas
import torch

from kdlib.clinic import study
from kdlib.experiments.choosing import SEEDS, fashion
from kdlib.lesson.results import experiment

REPAIRED = "repaired"


@experiment("lesson10-study")
def published_and_repaired(seeds: Sequence[int] = SEEDS, **sizes: Any) -> pandas.DataFrame:
    """Both arms as the study reports them, and the same two arms with every fault mended, on paired seeds.

    A row a student. `reported` and `half` are what the program says of its arm and of the interval.
    seeds: of the repaired arms; the study keeps its own. sizes: as `kdlib.clinic.study.study` takes them.
    """
    torch.set_num_threads(1)
    found = study.study(fashion(), **sizes)
    mended = study.program(study.FAULTS)(fashion(), seeds=seeds, **sizes)
    rows = [*found.rows(study.AS_PUBLISHED), *mended.rows(REPAIRED)]
    return pandas.DataFrame(rows).round(6)
