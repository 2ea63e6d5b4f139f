"""Pictures of evidence show the numbers they were given."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from kdlib.lesson import figures, plots
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


def test_intervals_draw_means_and_ends_in_percent_and_move_them():
    axes = Figure().subplots()
    first, second = [0.1, 0.2, 0.3, 0.4, 0.5], [0.3, 0.3]
    move = plots.intervals(axes, [1, 2], {"few": [first, None], "many": [None, second]})
    half = 100 * 2.7764451 * np.sqrt(0.025 / 5)
    (line, (low, high), (stems,)), _ = (container.lines for container in axes.containers)
    np.testing.assert_allclose(line.get_ydata(), [30, np.nan])
    assert axes.get_xlim()[0] < 1 and axes.get_xlim()[1] > 2
    moved = move({"few": [None, first], "many": [second, None]})
    assert {line, low, high, stems} <= set(moved) and len(moved) == 8
    for artist, height in ((line, 30), (low, 30 - half), (high, 30 + half)):
        np.testing.assert_allclose(artist.get_ydata(), [np.nan, height], rtol=1e-6)
    np.testing.assert_allclose(stems.get_segments()[-1], [[2, 30 - half], [2, 30 + half]], rtol=1e-6)


def test_an_interval_of_no_length_is_seen_beside_its_marker():
    with figures.style():
        figure = Figure()
        axes = figure.subplots()
        plots.intervals(axes, [1], {"flat": [[0.3, 0.3]]}, styles={"flat": {"markersize": 12}})
    line, caps, _ = axes.containers[0].lines
    for cap in caps:
        assert cap.get_markersize() >= line.get_markersize() + 6


def test_groups_at_one_position_can_stand_beside_one_another():
    figure = Figure()
    axes = figure.subplots()
    axes.set_xscale("log")
    plots.intervals(axes, [1, 10], {name: [[0.3, 0.4], [0.5, 0.6]] for name in "abc"}, dodge=9)
    pixels = [
        container.lines[0].get_transform().transform([(1, 35), (10, 55)])[:, 0]
        for container in axes.containers
    ]
    np.testing.assert_allclose(np.diff(pixels, axis=0), 9 / 72 * figure.dpi)
    assert axes.get_xlim()[0] < 1 and axes.get_xlim()[1] > 10


def test_intervals_refuse_what_does_not_fit_together():
    axes = Figure().subplots()
    runs = [[0.1, 0.2], [0.3, 0.4]]
    with pytest.raises(ValueError, match="group 'a' has runs for 2 positions, but x has 3"):
        plots.intervals(axes, [1, 2, 3], {"a": runs})
    with pytest.raises(ValueError, match=r"styles=\['b'\] name no group; the groups are \['a'\]"):
        plots.intervals(axes, [1, 2], {"a": runs}, styles={"b": {}})
    move = plots.intervals(axes, [1, 2], {"a": runs})
    with pytest.raises(ValueError, match=r"groups \['b'\] are not the groups that were drawn, \['a'\]"):
        move({"b": runs})


def test_the_legend_names_each_curve_once_and_touches_no_axes():
    long = ["labels only", "a teacher of 3,000 images, 60 % wrong", "T = 4"]
    for names in (long[:1], long):
        with figures.style():
            figure = Figure(figsize=(8, 3))
            for panel in figure.subfigures(1, 2):
                panel.suptitle("a panel")
                for axes in panel.subplots(1, 2):
                    for name in names:
                        plots.band(axes, [1, 2], [[0.1, 0.3], [0.5, 0.5]], colour="black", label=name)
                    axes.set(xlabel="alpha", ylabel="accuracy (%)", title="a title")
                plots.legend(panel)
            figure.draw_without_rendering()
        for panel in figure.subfigs:
            (legend,) = panel.legends
            assert [text.get_text() for text in legend.get_texts()] == names
            box = legend.get_window_extent()
            for axes in panel.axes:
                assert not box.overlaps(axes.get_tightbbox())
            assert panel.bbox.x0 <= box.x0 and box.x1 <= panel.bbox.x1 and box.y0 >= panel.bbox.y0


def test_a_legend_of_nothing_is_refused():
    figure = Figure()
    figure.subplots().plot([1, 2])
    with pytest.raises(ValueError, match="nothing in the figure has a label"):
        plots.legend(figure)


def test_intervals_in_words():
    assert plots.points(Interval(0.041, 0.032, 0.05)) == "+4.1 pp [+3.2, +5.0]"
    assert plots.points(Interval(-0.0004, -0.002, 0.0004)) == "+0.0 pp [-0.2, +0.0]"
    assert plots.percent(Interval(0.812, 0.801, 0.823)) == "81.2 % [80.1, 82.3]"
