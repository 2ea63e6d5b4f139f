"""Pictures of evidence that every lesson draws in the same way."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from kdlib.lesson import figures
from kdlib.metrics import Interval, paired_interval


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean of independent runs with its confidence interval by Student's t.

    Raises:
        ValueError: fewer than two values, or one that is not finite.
    """
    return paired_interval(values, np.zeros(len(values)), confidence)


def paired_seeds(
    baseline: ArrayLike,
    treatments: Mapping[str, ArrayLike],
    *,
    baseline_name: str = "labels only",
    ylabel: str = "test accuracy (%)",
) -> Figure:
    """Each seed as a line from the baseline to a treatment, and each treatment's paired gain with its interval.

    Args:
        baseline: a fraction in [0, 1] for each seed; shown in percent.
        treatments: the same, by the name of each, with the seeds in the same order.
        baseline_name: what the baseline is called.
        ylabel: the words beside the left axis.
    """
    with figures.style():
        figure = Figure(figsize=(4.2 + 1.6 * len(treatments) + 3.2, 3.8))
        left, right = figure.subplots(1, 2, width_ratios=[1 + len(treatments), 1.6])
        groups = {baseline_name: baseline, **treatments}
        table = 100 * np.array([list(values) for values in groups.values()])
        left.plot(range(len(groups)), table, color=figures.COLOURS["muted"], linewidth=1, alpha=0.6)
        for position, (name, row) in enumerate(zip(groups, table, strict=True)):
            colour = figures.COLOURS["label" if name == baseline_name else "teacher"]
            left.plot([position] * len(row), row, "o", color=colour, markersize=6)
        left.set_xticks(range(len(groups)), groups)
        left.set(ylabel=ylabel, xlim=(-0.4, len(groups) - 0.6), title="each line is one seed")
        gains = {name: np.subtract(values, baseline) for name, values in treatments.items()}
        differences(right, gains)
        right.set_title(f"gain over {baseline_name}")
    return figure


def differences(axes: Axes, gains: Mapping[str, ArrayLike]) -> None:
    """Paired differences (fractions) as dots, with mean and 95 % interval, around a line at zero."""
    axes.axhline(0, color=figures.COLOURS["muted"], linewidth=1)
    for position, values in enumerate(gains.values()):
        points = 100 * np.asarray(values)
        mean, low, high = mean_interval(points)
        spread = np.linspace(-0.12, 0.12, len(points))
        axes.plot(position + spread, points, "o", color=figures.COLOURS["muted"], markersize=4, alpha=0.7)
        axes.errorbar(
            position + 0.25, mean, yerr=[[mean - low], [high - mean]], fmt="D", markersize=7, capsize=5,
            color=figures.COLOURS["teacher"],
        )  # fmt: skip
    axes.set_xticks(range(len(gains)), gains)
    axes.set(ylabel="percentage points", xlim=(-0.5, len(gains) - 0.5))


def band(axes: Axes, x: ArrayLike, runs: ArrayLike, *, colour: str, label: str) -> None:
    """A curve of means with the band of their 95 % intervals.

    Args:
        axes: where it is drawn.
        x: the positions.
        runs: for each position the values of all seeds, fractions in [0, 1]; shown in percent.
        colour: of curve and band.
        label: the name in a legend.
    """
    intervals = [mean_interval(100 * np.asarray(values)) for values in runs]
    mean, low, high = (np.array(column) for column in zip(*intervals, strict=True))
    axes.plot(x, mean, "o-", color=colour, label=label)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def points(interval: Interval) -> str:
    """An interval of fractions in words: "+4.1 pp [+3.2, +5.0]", in percentage points."""
    mean, low, high = (100 * value for value in interval)
    return f"{mean:+.1f} pp [{low:+.1f}, {high:+.1f}]"


def percent(interval: Interval) -> str:
    """An interval of fractions in words: "81.2 % [80.1, 82.3]"."""
    mean, low, high = (100 * value for value in interval)
    return f"{mean:.1f} % [{low:.1f}, {high:.1f}]"
