"""The data of figures as tables: every kind of artist against what is written here by hand."""

import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from kdlib.lesson import figure_html, figures, widgets
from kdlib.lesson.figure_tables import tables


@pytest.fixture
def drawn():
    """A figure in the style of the course and its axes, `drawn(rows, columns)`."""

    def make(*shape, **options):
        with figures.style():
            figure = Figure()
            return figure, figure.subplots(*shape, **options)

    return make


def cells(table: pandas.DataFrame) -> list[list]:
    """Heads and rows; None where there is nothing."""
    rows = table.astype(object).where(table.notna(), None).values.tolist()
    return [list(table.columns), *rows]


def only(figure: Figure) -> tuple[str, list[list]]:
    ((title, table),) = tables(figure)
    return title, cells(table)


# ------------------------------------------------------------------ kinds of artists


def test_lines_over_the_same_places_stand_side_by_side(drawn):
    figure, axes = drawn()
    axes.plot([1, 2, 3], [0.5, 0.25, 0.125], label="teacher $T$")
    axes.plot([1, 2, 3], [0.1, 0.2, 0.3], label="student")
    axes.plot([1.5], [0.4], "o", label="chosen")
    axes.set(xlabel="epoch", ylabel="loss", title="Two  networks")
    both, chosen = tables(figure)
    assert both[0] == chosen[0] == "Two networks: loss"
    assert cells(both[1]) == [
        ["epoch", "teacher T", "student"],
        [1, 0.5, 0.1],
        [2, 0.25, 0.2],
        [3, 0.125, 0.3],
    ]
    assert cells(chosen[1]) == [["epoch", "chosen"], [1.5, 0.4]]


def test_a_line_without_names_is_called_by_its_axes_and_several_by_their_colours(drawn):
    figure, axes = drawn()
    axes.plot([1, 2], [3, 4], color=figures.COLOURS["teacher"])
    assert only(figure) == ("", [["x", "y"], [1, 3], [2, 4]])
    axes.plot([1, 2], [5, 6], color=figures.COLOURS["student"])
    assert only(figure) == ("", [["x", "blue", "vermillion"], [1, 3, 5], [2, 4, 6]])


def test_names_that_only_the_legend_gives(drawn):
    figure, axes = drawn()
    handles = [
        axes.plot([1, 2], [height, height], color=colour)[0] for height, colour in ((3, "red"), (4, "blue"))
    ]
    axes.legend(handles, ["first", "second"])
    assert only(figure) == ("", [["x", "first", "second"], [1, 3, 4], [2, 3, 4]])


def test_error_bars_have_both_ends(drawn):
    figure, axes = drawn()
    axes.errorbar([1, 2], [10, 20], yerr=[[1, 2], [3, 4]], label="mean")
    axes.set(xlabel="seeds", ylabel="accuracy (%)")
    assert only(figure) == (
        "accuracy (%)",
        [["seeds", "mean", "mean, low", "mean, high"], [1, 10, 9, 13], [2, 20, 18, 24]],
    )


def test_error_bars_that_lie_on_their_side_one_by_one(drawn):
    figure, axes = drawn()
    for place, mean in enumerate((1.0, -2.0)):
        axes.errorbar(mean, place, xerr=[[0.5], [0.25]], fmt="D", capsize=5, color="red" if place else "blue")
    axes.set_yticks([0, 1], ["none", "hints"])
    axes.set(xlabel="gain")
    assert only(figure) == (
        "",
        [["name", "gain", "low", "high"], ["none", 1, 0.5, 1.25], ["hints", -2, -2.5, -1.75]],
    )


def test_bars(drawn):
    figure, axes = drawn()
    axes.bar([1, 2, 4], [0.5, 0.25, 1], label="share")
    axes.set(xlabel="T")
    assert only(figure) == ("", [["T", "share"], [1, 0.5], [2, 0.25], [4, 1]])


def test_bars_of_names_side_by_side_with_a_mark_at_one(drawn):
    figure, axes = drawn()
    axes.barh(np.arange(2) - 0.2, [0.75, 0.25], 0.4, label="p")
    axes.barh(np.arange(2) + 0.2, [0.5, 0.5], 0.4, label="q")
    axes.plot([1], [1], "D", label="label")
    axes.set_yticks([0, 1], ["ant", "bee"])
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set(xlabel="softmax")
    assert only(figure) == (
        "softmax (%)",
        [["name", "p", "q", "label"], ["ant", 75, 50, None], ["bee", 25, 50, 100]],
    )


def test_bars_whose_names_are_given_as_words_and_bars_that_begin_above_zero(drawn):
    figure, axes = drawn()
    axes.barh(["cat", "dog"], [3, 4], left=[1, 2])
    axes.set(ylabel="animal")
    assert only(figure) == ("", [["animal", "from", "to"], ["cat", 1, 4], ["dog", 2, 6]])


def test_a_histogram_has_the_edges_of_its_bars(drawn):
    figure, axes = drawn()
    axes.hist([0.5, 1.5, 1.6, 3.5], bins=[0, 1, 2, 4], color="red")
    stairs = [["from", "until", "count"], [0, 1, 1], [1, 2, 2], [2, 4, 1]]
    axes.set(xlabel="from", ylabel="count")
    assert only(figure) == ("", [["from", "until", "count"], *stairs[1:]])
    other, axes = drawn()
    axes.stairs([1, 2, 1], [0, 1, 2, 4])
    axes.set(xlabel="from", ylabel="count")
    assert only(other) == ("", stairs)


def test_a_band_is_named_after_the_line_of_its_colour(drawn):
    figure, axes = drawn()
    axes.plot([1, 2, 3], [10, 20, 30], color="#0072B2", label="mean")
    axes.fill_between([1, 2, 3], [9, 18, 27], [11, 22, 33], color="#0072B2", alpha=0.2)
    assert only(figure) == (
        "",
        [["x", "mean", "mean, low", "mean, high"], [1, 10, 9, 11], [2, 20, 18, 22], [3, 30, 27, 33]],
    )


def test_a_band_that_was_moved_and_one_with_a_gap(drawn):
    figure, axes = drawn()
    band = axes.fill_between([1, 2], 0, 0)
    band.set_data([1, 2], [3, 4], [5, 7])
    assert only(figure) == ("", [["x", "low", "high"], [1, 3, 5], [2, 4, 7]])
    other, axes = drawn()
    axes.fill_between([1, 2, 3, 4, 5], 0, [1, 2, math.nan, 4, 5])
    assert only(other) == ("", [["x", "low", "high"], [1, 0, 1], [2, 0, 2], [4, 0, 4], [5, 0, 5]])


def test_points_with_colours_that_mean_something_and_names_beside_them(drawn):
    figure, axes = drawn()
    axes.scatter([1, 2], [3, 4], c=[0.5, 0.7])
    axes.text(1, 3, "small")
    axes.annotate("large", (2, 4), xytext=(5, 5), textcoords="offset points")
    axes.set(xlabel="size", ylabel="accuracy")
    assert only(figure) == (
        "",
        [["size", "words", "accuracy", "colour"], [1, "small", 3, 0.5], [2, "large", 4, 0.7]],
    )


def test_intervals_drawn_as_lines_share_a_row_with_their_dots(drawn):
    figure, axes = drawn()
    axes.hlines([0, 1], [1, 2], [3, 4], color="red")
    axes.plot([2, 3], [0, 1], "o", color="red")
    axes.set_yticks([0, 1], ["a", "b"])
    axes.set(xlabel="gain")
    assert only(figure) == ("", [["name", "gain", "low", "high"], ["a", 2, 1, 3], ["b", 3, 2, 4]])


def test_lines_and_bands_across_the_axes(drawn):
    figure, axes = drawn()
    axes.axhline(0)
    axes.axvspan(1, 2, label="plateau")
    axes.set(xlabel="T", ylabel="gain")
    assert only(figure) == (
        "lines and bands across",
        [["what", "axis", "at", "to"], ["line", "gain", 0, ""], ["plateau", "T", 1, 2]],
    )


def test_a_heat_map_with_names(drawn):
    figure, axes = drawn()
    image = axes.imshow([[1.0, 0.5], [0.25, 0.123456]])
    figure.colorbar(image, label="similarity")
    axes.set_xticks([0, 1], ["ant", "bee"])
    axes.set_yticks([0, 1], ["cat", "dog"])
    assert only(figure) == (
        "similarity",
        [["row \\ column", "ant", "bee"], ["cat", 1, 0.5], ["dog", 0.25, 0.1235]],
    )


def test_a_large_heat_map_is_averaged_over_blocks(drawn):
    figure, axes = drawn()
    axes.imshow(np.kron(np.arange(100.0).reshape(10, 10), np.ones((3, 3))))
    title, (heads, *rows) = only(figure)
    assert title == "(30 × 30 values, averaged)"
    assert [row[1:] for row in rows] == np.arange(100.0).reshape(10, 10).tolist()
    assert [row[0] for row in rows] == [1.0 + 3 * row for row in range(10)] and heads[1:3] == ["1", "4"]


def test_photographs_are_listed_and_not_written_out(drawn):
    figure, axes = drawn(1, 3)
    axes[0].imshow(np.zeros((28, 30)), cmap="gray")
    axes[0].set(title="a shirt", xlabel="seen")
    axes[1].imshow(np.zeros((8, 8, 3)))
    axes[2].set_visible(False)
    title, rows = only(figure)
    assert title == "Pictures, which are not written out as numbers"
    assert rows == [
        ["picture", "words beside it", "pixels"],
        ["a shirt", "seen", "30 × 28"],
        ["Panel 2", "", "8 × 8"],
    ]


def test_words_at_crossings_of_names_are_a_table(drawn):
    figure, axes = drawn()
    for x, y in ((0, 0), (1, 0), (0, 1), (1, 1)):
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1))
        axes.text(x, y, f"{x}\n±{y}")
    axes.set_xticks([0, 1], ["0.5", "0.9"])
    axes.set_yticks([0, 1], ["T = 1", "T = 4"])
    axes.set(xlabel="alpha", ylabel="T")
    assert only(figure) == (
        "",
        [["T \\ alpha", "0.5", "0.9"], ["T = 1", "0 ±0", "1 ±0"], ["T = 4", "0 ±1", "1 ±1"]],
    )


def test_boxes_and_words(drawn):
    figure, axes = drawn()
    axes.add_patch(Rectangle((1, 2), 3, 4))
    axes.text(0.1, 0.9, "nothing found", transform=axes.transAxes)
    axes.text(5, 6, "12.5 %")
    axes.set(xlim=(0, 10), ylim=(0, 10))
    boxes, words = tables(figure)
    assert boxes[0] == "rectangles" and cells(boxes[1]) == [["x from", "to", "y from", "to "], [1, 4, 2, 6]]
    assert words[0] == "words in the figure" and cells(words[1]) == [["words"], ["nothing found"]]


# ------------------------------------------------------------------ numbers


def test_numbers_are_rounded_to_what_can_be_seen(drawn):
    figure, axes = drawn()
    axes.plot([0, 0.333333, 1], [81.23456, 1e-17, 99.99999])
    assert only(figure)[1][1:] == [[0, 81.23], [0.3333, 0], [1, 100]]
    near, axes = drawn()
    axes.plot([0, 1], [1000.1234, 1000.9876])
    assert only(near)[1][1:] == [[0, 1000.123], [1, 1000.988]]


def test_a_logarithmic_axis_keeps_small_numbers(drawn):
    figure, axes = drawn()
    axes.plot([1, 12345], [0.000123456, 1234567.8])
    axes.set(xscale="log", yscale="log")
    assert only(figure)[1][1:] == [[1, 0.0001235], [12345, 1235000]]


def test_ticks_whose_names_are_their_places_are_numbers(drawn):
    figure, axes = drawn()
    axes.plot([1, 2, 3], [5, 6, 7])
    axes.set_xticks([1, 2, 4], ["1", "2", "4"])
    assert only(figure)[1] == [["x", "y"], [1, 5], [2, 6], [3, 7]]
    other, axes = drawn()
    axes.plot([0, 1, 2], [5, 6, 7])
    axes.set_xticks([0, 1, 2], ["0.5", "1", "4"])
    assert only(other)[1] == [["name", "y"], ["0.5", 5], ["1", 6], ["4", 7]]


def test_ticks_that_are_named_by_numbers(drawn):
    figure, axes = drawn()
    axes.plot([0, 1, 2], [5, 6, 7])
    axes.set_xticks([0, 1, 2], [100, 300, 1000])
    axes.set(xlabel="images", ylabel="errors")
    assert only(figure)[1] == [["images", "errors"], ["100", 5], ["300", 6], ["1000", 7]]


def test_what_is_not_finite_is_a_gap_and_what_is_hidden_is_left_out(drawn):
    figure, axes = drawn()
    axes.plot([1, 2, 3], [4, math.nan, 6])
    axes.plot([1, 2, 3], [7, 8, 9])[0].set_visible(False)
    axes.plot([math.nan], [1], "o")
    assert only(figure) == ("", [["x", "y"], [1, 4], [2, None], [3, 6]])


def test_empty_axes_have_no_table(drawn):
    figure, _ = drawn()
    assert tables(figure) == [] and figure_html.of(figure) == ("", "")


def test_a_hundred_thousand_points_are_thinned_and_that_is_said(drawn):
    figure, axes = drawn()
    axes.plot(np.arange(100_000), np.linspace(0, 1, 100_000))
    axes.set(title="loss")
    ((title, table),) = tables(figure, rows=5)
    assert title == "loss (5 of 100,000 rows, evenly chosen)"
    assert cells(table) == [["x", "y"], [0, 0], [25000, 0.25], [50000, 0.5], [74999, 0.75], [99999, 1]]
    assert len(figure_html.of(figure)[0]) <= figure_html.MOST_BYTES
    with pytest.raises(ValueError, match="rows=1"):
        tables(figure, rows=1)


# ------------------------------------------------------------------ several axes


def test_panels_are_called_by_their_titles_and_share_the_names_of_a_shared_axis(drawn):
    figure, (left, right) = drawn(1, 2, sharey=True)
    left.plot([1, 2], [0, 1], "o")
    left.set_yticks([0, 1], ["a", "b"])
    right.plot([3, 4], [0, 1], "o")
    right.tick_params(labelleft=False)
    right.set(title="other", xlabel="size")
    (one, first), (two, second) = tables(figure)
    assert (one, two) == ("Panel 1", "other")
    assert cells(first) == [["name", "x"], ["a", 1], ["b", 2]]
    assert cells(second) == [["name", "size"], ["a", 3], ["b", 4]]


def test_twin_axes_have_a_table_each(drawn):
    figure, axes = drawn()
    axes.plot([1, 2], [3, 4], label="loss")
    axes.set(ylabel="nats")
    other = axes.twinx()
    other.plot([1, 2], [50, 60], label="right")
    other.set(ylabel="accuracy (%)")
    assert [(title, cells(table)) for title, table in tables(figure)] == [
        ("Panel 1: nats", [["x", "loss"], [1, 3], [2, 4]]),
        ("Panel 2: accuracy (%)", [["x", "right"], [1, 50], [2, 60]]),
    ]


def test_a_twin_of_an_interactive_figure_says_what_each_panel_shows():
    def draw(figure):
        axes = figure.subplots()
        bars = axes.bar(["a", "b"], [0, 0])
        marker = axes.axvline(0)

        def update(*, power):
            for bar, base in zip(bars, (2, 3), strict=True):
                bar.set_height(base**power)
            marker.set_xdata([power - 1] * 2)
            return [*bars, marker]

        return update

    figure = widgets.small_multiples(draw, [{"power": 1}, {"power": 2}], columns=2, size=(3, 3))
    figures.png(figure)
    assert [(title, cells(table)) for title, table in tables(figure)] == [
        ("power = 1", [["name", "y"], ["a", 2], ["b", 3]]),
        ("power = 1: lines and bands across", [["what", "axis", "at", "to"], ["line", "x", "a", ""]]),
        ("power = 2", [["name", "y"], ["a", 4], ["b", 9]]),
        ("power = 2: lines and bands across", [["what", "axis", "at", "to"], ["line", "x", "b", ""]]),
    ]


# ------------------------------------------------------------------ as HTML


class Elements(HTMLParser):
    """What stands in a page: the attributes of each element, by its name, and the texts."""

    def __init__(self, html: str):
        super().__init__()
        self.found, self.texts = {}, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.setdefault(tag, []).append(dict(attrs))

    def handle_data(self, data):
        self.texts.append(data)


def test_the_tables_are_folded_named_and_reached_by_keyboard(drawn):
    figure, axes = drawn()
    axes.plot([1, 2], [3, math.nan], label="<b> & $x$")
    axes.set(title="a < b", ylabel="height")
    html, words = figure_html.of(figure)
    page = Elements(html)
    assert words == "The data of this figure: 1 table" and page.texts[0] == "The data of this figure"
    assert (
        len(page.found["details"]) == len(page.found["caption"]) == 1
        and "open" not in page.found["details"][0]
    )
    (region,) = page.found["div"]
    assert region["tabindex"] == "0" and region["role"] == "group" and region["aria-label"]
    assert [head["scope"] for head in page.found["th"]] == ["col", "col", "row", "row"]
    assert page.texts[1:] == ["a < b: height", "x", "<b> & x", "1", "3", "2"]
    assert not re.search(r"\bNone\b|nan|<script|<b>", html)


def test_the_html_of_a_figure_with_many_panels_keeps_to_its_size(drawn):
    figure, panels = drawn(4, 5)
    for axes in panels.flat:
        axes.plot(np.linspace(0, 1, 300), np.random.default_rng(0).random((300, 3)))
    html, words = figure_html.of(figure)
    assert words == "The data of this figure: 20 tables" and 5_000 < len(html) <= figure_html.MOST_BYTES
