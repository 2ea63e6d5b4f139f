"""Labels beside the points of a picture, where they cover neither one another nor a point.

All lengths here are in typographic points (1/72 inch), so that a figure of any resolution looks the same.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text

from kdlib._checks import checked, finite_number, positive_number
from kdlib.lesson import figures

_DOT = 3.0  # the radius of a dot, as of a marker of size 6
_MARGIN = 1  # what stays free around a label
_GAPS = (5, 7, 10, 14, 20, 28, 40, 56, 80)  # from the middle of a dot to its label, tried in this order
_NEAR = 8  # a label that is further from its dot has a line to it
_CROWD = 25  # dots that are closer to each other than this compete for the places around them
# What makes a place worse, in points of a larger gap: that it needs a line, and each point that its line crosses.
_LINE = 4
_CROSSING = 4

# From the right in steps of 15 degrees; the four sides and the four corners come first.
_ANGLES = np.deg2rad(sorted(range(0, 360, 15), key=lambda degrees: (degrees % 45 > 0, degrees)))
_DIRECTIONS = np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)])

Boxes = Float[np.ndarray, "_ 4"]  # left, bottom, right, top of each
Dots = Float[np.ndarray, "dots 2"]


def _labelled_points(name: str, value: Any) -> dict[str, tuple[float, float]]:
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{name} must map at least one label to its point (x, y), got {value!r}")
    return {_label(name, label): _point(f"{name}[{label!r}]", point) for label, point in value.items()}


def _label(name: str, label: Any) -> str:
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"each label of {name} must be a text that is not empty, got {label!r}")
    return label


def _point(name: str, point: Any) -> tuple[float, float]:
    try:
        x, y = point
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a pair (x, y), got {point!r}") from error
    return finite_number(f"x of {name}", x), finite_number(f"y of {name}", y)


def _inside_the_axes(arguments: dict) -> None:
    axes = arguments["axes"]
    for label, place in arguments["points"].items():
        for name, value, limits in zip("xy", place, (axes.get_xlim(), axes.get_ylim()), strict=True):
            if not min(limits) <= value <= max(limits):
                raise ValueError(
                    f"points[{label!r}] has {name}={value:g}, outside the limits {limits[0]:g} to {limits[1]:g} "
                    "of the axes: set limits and scales before the labels"
                )


@checked(_inside_the_axes, points=_labelled_points, size=positive_number)
def label_points(
    axes: Axes, points: Mapping[str, tuple[float, float]], *, size: float | int = 10
) -> dict[str, Annotation]:
    """Write a label beside each point, so that it covers no other label and no dot and stays inside the axes.

    A label stands as near to its dot as there is a free place; where it is far from its dot, or nearly as close to
    another one, a thin grey line leads from it to its dot. Where there is no free place at all, it gets the place
    inside the axes where it covers least. The same picture has the same labels every time.

    The places are found when the figure is drawn, and found anew when the layout has moved the axes since: a title
    or a neighbouring panel may still be added afterwards.

    Args:
        axes: where the caller has drawn the points already, as dots of a marker size of at most 6. Its limits and
            scales must be set before this function is called.
        points: from each label to its (x, y) in data coordinates, all points of the axes in one call. Several may
            coincide.
        size: of the letters, in points.

    Returns:
        The annotations by their labels: their colour or transparency may be changed.

    Raises:
        ValueError: no points, a label that is no text or empty, a point that is no pair of finite numbers or lies
            outside the limits of the axes, a size that is not above 0.
        TypeError: a coordinate or a size that is no number.
    """
    return _Crowd(axes, points, size).labels


class _Label(Annotation):
    """An annotation that has all labels of its crowd arranged before it is drawn or measured."""

    def __init__(self, text: str, point: tuple[float, float], size: float | int, crowd: "_Crowd"):
        super().__init__(
            text, point, xytext=(0, 0), textcoords="offset points", ha="center", va="center", fontsize=size,
            # The invisible box is where the line ends; without one, matplotlib ends it far from the letter.
            bbox={"boxstyle": "square,pad=0", "visible": False},
            arrowprops={"arrowstyle": "-", "color": figures.COLOURS["muted"], "linewidth": 0.8,
                        "shrinkA": 0, "shrinkB": _DOT},
        )  # fmt: skip
        self._crowd = crowd
        self.set_in_layout(False)  # it stays inside the axes; and the layout is needed before it has a place

    def update_positions(self, renderer) -> None:
        self._crowd.arrange(renderer)
        super().update_positions(renderer)


class _Crowd:
    """All labels of one axes."""

    def __init__(self, axes: Axes, points: Mapping[str, tuple[float, float]], size: float | int):
        self._axes = axes
        self._points = np.array(list(points.values()))
        self._arranged_for = None
        self.labels = {text: _Label(text, point, size, self) for text, point in points.items()}
        for label in self.labels.values():
            axes.add_artist(label)

    def arrange(self, renderer) -> None:
        """Give each label its place, unless nothing has moved since the last time."""
        dots, frame = self._axes.transData.transform(self._points), self._axes.bbox.extents
        picture = np.concatenate([dots.ravel(), frame])
        if np.array_equal(picture, self._arranged_for):
            return
        self._arranged_for = picture
        pixel = 72 / self._axes.figure.dpi
        # The extent of the text alone: an annotation's own includes its line.
        sizes = np.array([Text.get_window_extent(label, renderer).size for label in self.labels.values()])
        centres, lines = _places(pixel * dots, pixel * sizes, pixel * frame)
        for label, offset, line in zip(self.labels.values(), centres - pixel * dots, lines, strict=True):
            label.set_position(offset)
            label.arrow_patch.set_visible(line)


def _places(
    dots: Dots, sizes: Float[np.ndarray, "dots 2"], frame: Float[np.ndarray, "4"]
) -> tuple[Dots, Bool[np.ndarray, "dots"]]:
    """The middle of each dot's label, and whether a line leads to it.

    The labels are placed one after the other, those in the thickest crowds first. Of all candidates those that leave
    the axes least are kept, of these those that cover least, and of these the one of the lowest cost is taken.

    Args:
        dots: the middle of each.
        sizes: width and height of each label.
        frame: left, bottom, right, top of the axes.
    """
    taken = _boxes(dots, np.full(2, _DOT))
    centres, lines = np.empty_like(dots), np.zeros(len(dots), dtype=bool)
    distances = np.linalg.norm(dots[:, None] - dots, axis=-1)
    for this in np.argsort(-(distances < _CROWD).sum(1), kind="stable"):
        half = sizes[this] / 2
        tried = _candidates(dots[this], half)
        boxes = _boxes(tried, half + _MARGIN)
        # Rounded, so that errors of floating point do not count as covering something.
        outside = (4 * (half + _MARGIN).prod() - _overlap(boxes, frame[None])[:, 0]).round(6)
        covered = _overlap(boxes, taken).sum(1).round(6)
        kept = np.flatnonzero(outside == outside.min())
        kept = kept[covered[kept] == covered[kept].min()]
        needs_line = _needs_line(tried, half, dots, this)
        best, stroke = _cheapest(kept, dots[this], tried, needs_line, taken)
        centres[this], lines[this] = tried[best], needs_line[best]
        taken = np.concatenate([taken, boxes[[best]], stroke])
    return centres, lines


def _cheapest(
    kept: Int[np.ndarray, "_"],
    dot: Float[np.ndarray, "2"],
    tried: Float[np.ndarray, "places 2"],
    needs_line: Bool[np.ndarray, "places"],
    taken: Boxes,
) -> tuple[int | np.integer, Boxes]:
    """Which of the kept places is near and has no line, or one that crosses little; with the boxes of its line."""
    costs = np.repeat(_GAPS, len(_DIRECTIONS)) + _LINE * needs_line
    least, best, best_stroke = np.inf, kept[0], taken[:0]
    for place in kept[np.argsort(costs[kept], kind="stable")]:
        if costs[place] >= least:
            break
        stroke = _stroke(dot, tried[place]) if needs_line[place] else taken[:0]
        cost = costs[place] + _CROSSING * _overlap(stroke, taken).sum()
        if cost < least:
            least, best, best_stroke = cost, place, stroke
    return best, best_stroke


def _candidates(dot: Float[np.ndarray, "2"], half: Float[np.ndarray, "2"]) -> Float[np.ndarray, "places 2"]:
    """Middles of a label around its dot, the nearest first: in each direction its box begins after the gap."""
    touching = half * _DIRECTIONS / np.abs(_DIRECTIONS).max(1, keepdims=True)
    return np.concatenate([dot + touching + gap * _DIRECTIONS for gap in _GAPS])


def _needs_line(
    centres: Float[np.ndarray, "places 2"], half: Float[np.ndarray, "2"], dots: Dots, this: int | np.integer
) -> Bool[np.ndarray, "places"]:
    """Whether a label with this middle is far from its dot, or nearly as close to another that stands elsewhere."""
    distances = np.linalg.norm((np.abs(centres[:, None] - dots) - half).clip(0), axis=-1)
    own = distances[:, this]
    elsewhere = np.linalg.norm(dots - dots[this], axis=-1) > 1
    nearest_other = np.where(elsewhere, distances, np.inf).min(1)
    return (own > _NEAR) | (nearest_other < 1.5 * own)


def _stroke(dot: Float[np.ndarray, "2"], centre: Float[np.ndarray, "2"]) -> Boxes:
    """The line from a label to the rim of its dot, as boxes of one point by one point along it."""
    length = np.linalg.norm(dot - centre)
    along = dot + np.arange(_DOT + 2, length)[:, None] * (centre - dot) / length
    return _boxes(along, np.full(2, 0.5))


def _boxes(centres: Float[np.ndarray, "_ 2"], half: Float[np.ndarray, "2"]) -> Boxes:
    return np.concatenate([centres - half, centres + half], axis=1)


def _overlap(
    boxes: Float[np.ndarray, "boxes 4"], others: Float[np.ndarray, "others 4"]
) -> Float[np.ndarray, "boxes others"]:
    """The area that each box shares with each other box."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    return (high - low).clip(0).prod(axis=-1)
