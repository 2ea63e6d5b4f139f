"""How an interval was computed, told from its three numbers: by the paired formula, or by which wrong one."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

CLOSE = 6e-5  # so that an interval which is rounded to hundredths of a point counts
MANY = 10**9  # degrees of freedom at which Student's t is the normal distribution

Columns = list[np.ndarray]  # for each arm its accuracies with the arm's sign, in the order of the seeds
Three = tuple[float, float, float]


class Complaint(NamedTuple):
    """What is missing, in a few words, and in a sentence that says why it matters."""

    diagnosis: str
    sentence: str


UNPAIRED = Complaint(
    "unpaired",
    "The interval treats the arms as unrelated. Students of one seed share images, weights and order, and that luck "
    "cancels in their difference: take the differences seed by seed first, then the interval of these.",
)
NORMAL = Complaint(
    "normal instead of Student's t",
    "The interval is by the normal distribution (1.96), which is for many runs. From a few, the spread itself is "
    "uncertain, and the interval too narrow: take Student's t with n - 1 degrees of freedom.",
)
POPULATION = Complaint(
    "population's standard deviation",
    "The standard deviation divides by n; that of a sample divides by n - 1 (ddof=1), or the interval is too narrow.",
)
NO_ROOT = Complaint(
    "no standard error",
    "The interval is that of a single run: the standard deviation is not divided by the root of n. How sure the mean "
    "is grows with the number of seeds.",
)
DEGREES = Complaint(
    "degrees of freedom", "Student's t has n - 1 degrees of freedom here, n being the number of seeds."
)
LEVEL = Complaint(
    "not 95 %",
    "This is no 95 % interval: that leaves 2.5 % on each side, so the quantile of Student's t is that of 0.975.",
)
PERCENT = Complaint(
    "percent",
    "The interval is in percent. Accuracies are fractions everywhere here: return their differences as they are, and "
    "multiply where you print.",
)
ORDER = Complaint("order", "The three numbers are right, but in another order: (mean, low, high).")


def paired(columns: Columns, *, degrees: int = 0, quantile: float = 0.975, ddof: int = 1, root: bool = True) -> Three:
    """The paired 95 % interval, (mean, low, high), or one that goes wrong in a part of it."""
    differences = sum(columns)
    n = len(differences)
    error = differences.std(ddof=ddof) / (math.sqrt(n) if root else 1)
    return _around(differences.mean(), stats.t.ppf(quantile, degrees or n - 1) * error)


def unpaired(columns: Columns, quantile: Callable[[Columns], float]) -> Three:
    """The interval of arms that are treated as unrelated; `quantile` is `pooled`, `welch` or another."""
    error = math.sqrt(sum(column.var(ddof=1) / len(column) for column in columns))
    return _around(sum(column.mean() for column in columns), quantile(columns) * error)


def pooled(columns: Columns) -> float:
    """Student's t with the degrees of freedom of arms of one variance."""
    return stats.t.ppf(0.975, sum(len(column) - 1 for column in columns))


def welch(columns: Columns) -> float:
    """Student's t with the degrees of freedom of Welch and Satterthwaite."""
    shares = [column.var(ddof=1) / len(column) for column in columns]
    below = sum(share**2 / (len(column) - 1) for share, column in zip(shares, columns, strict=True))
    return stats.t.ppf(0.975, sum(shares) ** 2 / below)


def _around(mean: float, half: float) -> Three:
    return mean, mean - half, mean + half


def reordered(columns: Columns, *places: int) -> Three:
    """The three right numbers, at other places."""
    right = paired(columns)
    return tuple(right[place] for place in places)


_FORMULAS: list[tuple[Complaint | None, Callable[[Columns], Three]]] = [
    (None, paired),
    (ORDER, lambda columns: reordered(columns, 1, 0, 2)),
    (ORDER, lambda columns: reordered(columns, 1, 2, 0)),
    (UNPAIRED, lambda columns: unpaired(columns, pooled)),
    (UNPAIRED, lambda columns: unpaired(columns, welch)),
    (UNPAIRED, lambda columns: unpaired(columns, lambda _: stats.norm.ppf(0.975))),
    (NORMAL, lambda columns: paired(columns, degrees=MANY)),
    (POPULATION, lambda columns: paired(columns, ddof=0)),
    (POPULATION, lambda columns: paired(columns, ddof=0, degrees=MANY)),
    (NO_ROOT, lambda columns: paired(columns, root=False)),
    (NO_ROOT, lambda columns: paired(columns, root=False, degrees=MANY)),
    (DEGREES, lambda columns: paired(columns, degrees=len(columns[0]))),
    (LEVEL, lambda columns: paired(columns, quantile=0.95)),
    (LEVEL, lambda columns: paired(columns, quantile=0.995)),
]


class Reading(NamedTuple):
    """What three numbers are: `complaint` is None for a right interval; the smaller `rank` is the likelier reading."""

    rank: int
    complaint: Complaint | None


def read(returned: list[float], columns: Columns) -> Reading | None:
    """By which formula the numbers come from the columns, as fractions or in percent; None where by none."""
    if len({len(column) for column in columns}) > 1 or len(columns[0]) < 2:
        return None
    mean = sum(column.mean() for column in columns)
    if not any(abs(mine - scale * mean) <= scale * CLOSE for mine in returned for scale in (1, 100)):
        return None  # every formula has this mean: spare their work
    for scale in (1, 100):
        for rank, (complaint, formula) in enumerate(_FORMULAS):
            three = formula(columns)
            if all(abs(mine - scale * x) <= scale * CLOSE for mine, x in zip(returned, three, strict=True)):
                return Reading(rank + (scale > 1), complaint or (PERCENT if scale > 1 else None))
    return None
