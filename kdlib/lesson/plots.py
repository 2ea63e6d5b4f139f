"""Pictures of evidence that every lesson draws in the same way."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure, FigureBase
from matplotlib.legend import Legend
from matplotlib.transforms import ScaledTranslation
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


Runs = Sequence[ArrayLike | None]


def intervals(
    axes: Axes,
    x: ArrayLike,
    groups: Mapping[str, Runs],
    *,
    styles: Mapping[str, Mapping[str, Any]] | None = None,
    dodge: float | int = 0,
) -> Callable[[Mapping[str, Runs]], list[Artist]]:
    """Means as markers with their 95 % intervals, whose caps stick out beside the marker however short they are.

    Args:
        axes: where they are drawn.
        x: the positions.
        groups: by the name in a legend, for each position the values of all seeds, fractions in [0, 1], shown in
            percent; None where the group has nothing at a position.
        styles: what `Axes.errorbar` takes, for the groups that are to differ from a disc without a line, such as
            {"chosen": {"color": figures.COLOURS["student"], "fmt": "D-"}}.
        dodge: how far neighbouring groups stand apart at the same position, in points.

    Returns:
        `move(groups)`, which shows other values of the same groups and returns the artists that it moved, as the
        `update` of an interactive figure must.

    Raises:
        ValueError: a group without exactly one entry for each position, a style for no group, other groups in
            `move`.
    """
    styles = {} if styles is None else styles
    if unknown := set(styles) - set(groups):
        raise ValueError(f"styles={sorted(unknown)} name no group; the groups are {list(groups)}")
    x = np.asarray(x)
    bars = {}
    for number, (name, runs) in enumerate(groups.items()):
        style = {"fmt": "o", "markersize": 7, "elinewidth": 2.5, "capthick": 2, **styles.get(name, {})}
        mean, low, high = _mean_low_high(name, x, runs)
        bar = axes.errorbar(
            x, mean, yerr=[mean - low, high - mean], label=name, capsize=style["markersize"] / 2 + 4, **style
        )
        aside = ScaledTranslation(
            dodge * (number - (len(groups) - 1) / 2) / 72, 0, axes.figure.dpi_scale_trans
        )
        for artist in bar.get_children():
            artist.set_transform(axes.transData + aside)
        bars[name] = bar
    # A position where nothing stands yet counts too: something may move there.
    axes.update_datalim(np.column_stack([x, x]), updatey=False)
    axes.autoscale_view()

    def move(groups: Mapping[str, Runs]) -> list[Artist]:
        if set(groups) != set(bars):
            raise ValueError(f"groups {list(groups)} are not the groups that were drawn, {list(bars)}")
        return [
            artist
            for name, runs in groups.items()
            for artist in _moved(bars[name], x, *_mean_low_high(name, x, runs))
        ]

    return move


def _mean_low_high(name: str, x: np.ndarray, runs: Runs) -> np.ndarray:
    """Rows of means, low and high ends in percent; NaN, which draws nothing, where there are no runs."""
    if len(runs) != len(x):
        raise ValueError(f"group {name!r} has runs for {len(runs)} positions, but x has {len(x)}")
    nothing = (np.nan, np.nan, np.nan)
    return np.array(
        [nothing if values is None else mean_interval(100 * np.asarray(values)) for values in runs]
    ).T


def _moved(bar: ErrorbarContainer, x: np.ndarray, mean, low, high) -> list[Artist]:
    line, caps, (stems,) = bar.lines
    for artist, heights in zip((line, *caps), (mean, low, high), strict=True):
        artist.set_ydata(heights)
    stems.set_segments([[(at, bottom), (at, top)] for at, bottom, top in zip(x, low, high, strict=True)])
    return [stems, *caps, line]


def legend(figure: FigureBase) -> Legend:
    """One legend for all axes of a figure or a panel, below them, where it covers no curve and no band.

    Each name stands there once. To be called when everything that has a label is drawn.

    Raises:
        ValueError: nothing in the figure has a label.
    """
    named = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    if not named:
        raise ValueError(
            "nothing in the figure has a label: draw with label=... before you ask for the legend"
        )
    for columns in range(len(named), 0, -1):
        drawn = figure.legend(
            named.values(), named.keys(), loc="outside lower center", ncols=columns, columnspacing=1.5
        )
        if columns == 1 or drawn.get_window_extent().width <= figure.bbox.width:
            return drawn
        drawn.remove()


def points(interval: Interval) -> str:
    """An interval of fractions in words: "+4.1 pp [+3.2, +5.0]", in percentage points."""
    mean, low, high = (round(100 * value, 1) + 0.0 for value in interval)  # + 0.0: no "-0.0"
    return f"{mean:+.1f} pp [{low:+.1f}, {high:+.1f}]"


def percent(interval: Interval) -> str:
    """An interval of fractions in words: "81.2 % [80.1, 82.3]"."""
    mean, low, high = (100 * value for value in interval)
    return f"{mean:.1f} % [{low:.1f}, {high:.1f}]"
