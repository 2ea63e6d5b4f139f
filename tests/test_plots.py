"""Pictures of evidence show the numbers they were given."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from kdlib.lesson import plots
from kdlib.metrics import Interval


def test_mean_interval_is_the_textbook_one():
    # mean 3, standard deviation sqrt(2.5), t(4, 0.975) = 2.7764451
    mean, low, high = plots.mean_interval([1, 2, 3, 4, 5])
    assert (mean, high - mean) == (pytest.approx(3), pytest.approx(2.7764451 * np.sqrt(2.5 / 5)))
    assert mean - low == pytest.approx(high - mean)


def test_paired_seeds_draws_a_line_a_seed_and_the_gain():
    figure = plots.paired_seeds([0.7, 0.72, 0.71], {"teacher": [0.75, 0.76, 0.74]})
    left, right = figure.axes
    lines = [line.get_ydata() for line in left.lines[:3]]
    assert np.allclose(lines, [[70, 75], [72, 76], [71, 74]])
    assert np.allclose(right.lines[1].get_ydata(), [5, 4, 3])
    assert [text.get_text() for text in left.get_xticklabels()] == ["labels only", "teacher"]


def test_band_draws_the_means_in_percent():
    axes = Figure().subplots()
    plots.band(axes, [1, 2], [[0.1, 0.3], [0.5, 0.5]], colour="black", label="runs")
    assert np.allclose(axes.lines[0].get_ydata(), [20, 50])


def test_intervals_in_words():
    assert plots.points(Interval(0.041, 0.032, 0.05)) == "+4.1 pp [+3.2, +5.0]"
    assert plots.percent(Interval(0.812, 0.801, 0.823)) == "81.2 % [80.1, 82.3]"
