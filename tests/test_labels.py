"""Labels of points cover neither one another nor a dot, measured on pictures that were really drawn."""

import string
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase
from matplotlib.text import Annotation, Text

from kdlib.deploy import shelf
from kdlib.lesson import figures
from kdlib.lesson.canvas import BlittedFigure
from kdlib.lesson.labels import label_points

DOT = 4  # pixels; a marker of size 6 at 100 dots an inch has a radius of 4.2
LESSON, PANEL = (11, 4.6), (6.8, 3.8)


def panels(figure: FigureBase, points: dict, *, scale: str) -> list[tuple]:
    """Two axes as in lesson 05, each with the points as dots and with their labels."""
    drawn = []
    x, y = np.array(list(points.values())).T
    sides = (0.4 * x.min(), 2.5 * x.max()) if scale == "log" else (x.min() - 0.1, x.max() + 0.1)
    for axes in figure.subplots(1, 2, sharey=True):
        axes.plot(x, y, "o", markersize=6)
        axes.set(
            xscale=scale, xlim=sides, ylim=(y.min() - 0.4, y.max() + 0.4), xlabel="kB", ylabel="accuracy"
        )
        drawn.append((axes, points, label_points(axes, points)))
    return drawn


def random_points(seed: int) -> dict:
    """Fourteen of them, x over three powers of ten."""
    random = np.random.default_rng(seed)
    places = np.column_stack([10 ** random.uniform(0, 3, 14), random.uniform(90, 95, 14)])
    return dict(zip(string.ascii_uppercase, places, strict=False))


def shelf_points() -> dict:
    facts = [shelf.manifest(name) for name in shelf.names()]
    places = [(one["bytes"] / 1000, 100 * one["test_accuracy"]) for one in facts]
    return dict(zip(string.ascii_uppercase, places, strict=False))


def box(label: Annotation):
    """Where the letters stand, in pixels (an annotation's own extent has the line in it)."""
    return Text.get_window_extent(label)


def gap(letters, place) -> float:
    """From a box to a place, in pixels."""
    return np.hypot(*np.maximum(letters.min - place, place - letters.max).clip(0))


def has_line(label: Annotation) -> bool:
    return label.arrow_patch.get_visible()


def draw(figure: Figure) -> None:
    with figures.style():
        FigureCanvasAgg(figure).draw()


def assert_nothing_is_covered(axes, points, labels) -> None:
    assert list(labels) == list(points)
    boxes = {name: box(label) for name, label in labels.items()}
    for (one, first), (other, second) in combinations(boxes.items(), 2):
        assert not first.overlaps(second), (one, other)
    dots = axes.transData.transform(list(points.values()))
    for name, letters in boxes.items():
        assert min(gap(letters, dot) for dot in dots) >= DOT, name
        assert axes.bbox.x0 <= letters.x0 and letters.x1 <= axes.bbox.x1, name
        assert axes.bbox.y0 <= letters.y0 and letters.y1 <= axes.bbox.y1, name


def test_random_points_get_labels_that_cover_nothing_on_log_and_linear_axes():
    for scale in ("log", "linear"):
        for seed in range(6):
            with figures.style():
                figure = Figure(figsize=LESSON)
                # Over three powers of ten, points crowd at the left of a linear axis: x by its logarithm there.
                points = random_points(seed)
                if scale == "linear":
                    points = {name: (np.log10(x), y) for name, (x, y) in points.items()}
                drawn = panels(figure, points, scale=scale)
            draw(figure)
            for one in drawn:
                assert_nothing_is_covered(*one)


def test_the_models_of_the_shelf_get_labels_that_cover_nothing_in_the_figure_and_in_its_twin():
    with figures.style():
        alone = Figure(figsize=LESSON)
        drawn = panels(alone, shelf_points(), scale="log")
        twin = Figure(figsize=(2 * PANEL[0], 2 * PANEL[1]))
        for panel in twin.subfigures(2, 2).flat:
            panel.suptitle("a budget")
            drawn += panels(panel, shelf_points(), scale="log")
    for figure in (alone, twin):
        draw(figure)
    assert len(drawn) == 10
    for one in drawn:
        assert_nothing_is_covered(*one)


def test_labels_follow_when_the_axes_change_after_them():
    with figures.style():
        figure = Figure(figsize=PANEL)
        drawn = panels(figure, random_points(0), scale="log")
        draw(figure)
        before = [label.get_position() for _, _, labels in drawn for label in labels.values()]
        figure.suptitle("a title\nof two lines that was set later")
        figure.legend(handles=drawn[0][0].lines, labels=["models"], loc="outside right center")
        figure.set_figheight(2.6)
    draw(figure)
    assert before != [label.get_position() for _, _, labels in drawn for label in labels.values()]
    for one in drawn:
        assert_nothing_is_covered(*one)


def test_a_label_can_be_measured_before_anything_is_drawn():
    axes = Figure(figsize=PANEL).subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    label = label_points(axes, {"A": (0.5, 0.5)})["A"]
    label.get_window_extent()
    middle = axes.transData.transform((0.5, 0.5))
    assert DOT < gap(box(label), middle) < 10 and not has_line(label)


def test_a_label_keeps_its_place_at_another_resolution():
    offsets = []
    for dpi in (100, 200):
        figure = Figure(figsize=PANEL, dpi=dpi)
        ((_, _, labels), _) = panels(figure, random_points(1), scale="log")
        draw(figure)
        offsets.append([label.get_position() for label in labels.values()])
    assert np.abs(np.subtract(*offsets)).max() < 1  # a point: letters are measured in whole pixels


def test_the_same_points_give_the_same_picture():
    def picture():
        with figures.style():
            figure = Figure(figsize=PANEL)
            panels(figure, random_points(2), scale="log")
        return figures.png(figure)

    assert picture() == picture()


def test_points_that_coincide_get_a_label_each():
    with figures.style():
        figure = Figure(figsize=PANEL)
        drawn = panels(figure, {name: (10, 92) for name in "ABCDE"} | {"F": (12, 92.1)}, scale="log")
    draw(figure)
    for axes, points, labels in drawn:
        assert_nothing_is_covered(axes, points, labels)
        nearest = [gap(box(labels[name]), axes.transData.transform(points[name])) for name in "ABCDE"]
        assert max(nearest) < 15


def test_in_a_crowd_a_line_leads_to_the_dot_exactly_where_a_label_is_far_or_nearly_as_close_to_another():
    lined = plain = 0
    for seed in range(6):
        figure = Figure(figsize=PANEL)
        random = np.random.default_rng(seed)
        places = random.normal((10, 92), (0.6, 0.06), (14, 2))
        crowd = dict(zip(string.ascii_uppercase, places, strict=False))
        drawn = panels(figure, crowd, scale="log")
        draw(figure)
        for axes, points, labels in drawn:
            assert_nothing_is_covered(axes, points, labels)
            dots = axes.transData.transform(list(points.values()))
            for number, label in enumerate(labels.values()):
                own = gap(box(label), dots[number])
                others = [gap(box(label), dot) for dot in dots if np.hypot(*(dot - dots[number])) > 1.4]
                far = own > 8 * 100 / 72
                assert has_line(label) == (far or min(others) < 1.5 * own)
                if has_line(label):
                    start, end = label.arrow_patch.get_path().vertices[[0, -1]]
                    lined += 1
                    # From the label to the rim of its own dot.
                    assert gap(box(label), start) < 1.5
                    assert np.hypot(*(end - dots[number])) == pytest.approx(3 * 100 / 72, abs=1)
                else:
                    plain += 1
    assert lined > 20 and plain > 20


def test_where_nothing_is_free_a_label_covers_as_little_as_it_can():
    figure = Figure(figsize=(2, 2))
    axes = figure.add_axes((0.4, 0.4, 0.3, 0.3))  # 60 x 60 pixels: room for some of the sixteen
    axes.set(xlim=(0, 1), ylim=(0, 1))
    labels = label_points(axes, {name: (0.5, 0.5) for name in string.ascii_uppercase[:16]})
    draw(figure)
    boxes = [box(label) for label in labels.values()]
    overlaps = sum(first.overlaps(second) for first, second in combinations(boxes, 2))
    assert 0 < overlaps < 16  # of 120 pairs
    for letters in boxes:
        assert gap(letters, axes.transData.transform((0.5, 0.5))) >= DOT
        assert all(axes.bbox.contains(*corner) for corner in letters.corners())


def test_labels_can_turn_pale_in_an_interactive_figure_without_moving():
    def explained(figure):
        drawn = panels(figure, shelf_points(), scale="log")

        def update(*, alpha):
            for _, _, labels in drawn:
                for label in labels.values():
                    label.set_alpha(alpha)
            return [label for _, _, labels in drawn for label in labels.values()]

        kept.extend(drawn)
        return update

    kept = []
    figure = BlittedFigure(explained, size=LESSON)
    dark = figure.png({"alpha": 1.0})
    before = [label.get_position() for _, _, labels in kept for label in labels.values()]
    assert figure.png({"alpha": 0.25}) != dark
    assert figure.png({"alpha": 1.0}) == dark
    assert before == [label.get_position() for _, _, labels in kept for label in labels.values()]
    for one in kept:
        assert_nothing_is_covered(*one)


def test_bad_points_are_refused_and_nothing_is_written():
    axes = Figure().subplots()
    axes.set(xscale="log", xlim=(1, 100), ylim=(0, 1))
    good = {"A": (2, 0.5)}
    for points, size, error, message in (
        ({}, 10, ValueError, "points must map at least one label"),
        ([(1, 2)], 10, ValueError, "points must map at least one label"),
        (good | {3: (2, 0.5)}, 10, ValueError, "label of points must be a text that is not empty, got 3"),
        (good | {" ": (2, 0.5)}, 10, ValueError, "must be a text that is not empty, got ' '"),
        (good | {"B": (2, float("nan"))}, 10, ValueError, r"y of points\['B'\] must be a finite"),
        (good | {"B": (float("inf"), 0)}, 10, ValueError, r"x of points\['B'\] must be a finite"),
        (good | {"B": 3}, 10, ValueError, r"points\['B'\] must be a pair \(x, y\), got 3"),
        (good | {"B": (1, 2, 3)}, 10, ValueError, r"points\['B'\] must be a pair \(x, y\)"),
        (good | {"B": ("2", 0.5)}, 10, TypeError, r"x of points\['B'\] must be a number, got str"),
        (good | {"B": (0, 0.5)}, 10, ValueError, r"points\['B'\] has x=0, outside the limits 1 to 100"),
        (good | {"B": (2, 1.5)}, 10, ValueError, r"points\['B'\] has y=1.5, outside the limits 0 to 1"),
        (good, 0, ValueError, "size must be above 0, got 0"),
    ):
        with pytest.raises(error, match=message):
            label_points(axes, points, size=size)
    assert not axes.texts
    assert list(label_points(axes, good)) == ["A"] and len(axes.texts) == 1


def test_an_axis_that_runs_backwards_is_no_error():
    axes = Figure().subplots()
    axes.set(xlim=(1, 0), ylim=(0, 1))
    labels = label_points(axes, {"A": (0.2, 0.5)})
    draw(axes.figure)
    assert_nothing_is_covered(axes, {"A": (0.2, 0.5)}, labels)
