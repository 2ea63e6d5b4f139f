"""What the artists of one axes draw, as series: positions along one axis, values along the other.

Read is what was drawn, not what it was drawn from: an interactive figure is laid out once and moved afterwards.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import same_color, to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle, StepPatch

from kdlib.lesson.figure_scales import Scale, plain
from kdlib.lesson.palette import COLOURS, PALETTE

_COLOUR_NAMES = {to_hex(colour): name for name, colour in PALETTE.items()} | {
    to_hex(COLOURS["muted"]): "grey"
}


@dataclass
class Series:
    """Values that belong together.

    Args:
        name: from the legend; empty where there is none.
        colour: as "#rrggbb".
        along: the axis on which `keys` lie, "x" or "y".
        keys: in data coordinates.
        columns: what stands there, in data coordinates of the other axis, by a word that tells one column from
            another ("low", "high", ""); texts where the word is "words".
        kind: what it looks like.
    """

    name: str
    colour: str
    along: str
    keys: np.ndarray
    columns: dict[str, np.ndarray]
    kind: str

    def colour_name(self) -> str:
        """The word for the colour, where it is one of the course's."""
        return _COLOUR_NAMES.get(self.colour, "")


@dataclass
class Mark:
    """A line or a band across the whole axes, at a place on one axis."""

    name: str
    along: str
    low: float
    high: float


def in_data(artist: Artist, axes: Axes) -> tuple[bool, bool]:
    """Whether the x and the y of an artist are data coordinates, rather than shares of the axes."""
    return artist.get_transform().contains_branch_seperately(axes.transData)


def marks(axes: Axes) -> Iterator[Mark]:
    """What `axhline`, `axvline`, `axhspan` and `axvspan` drew."""
    for artist in _shown([*axes.lines, *axes.patches]):
        across = in_data(artist, axes)
        if sum(across) != 1:
            continue
        along = "x" if across[0] else "y"
        if isinstance(artist, Line2D):
            places = np.asarray(artist.get_data(orig=False)[along == "y"], dtype=float)
        elif isinstance(artist, Rectangle):
            start = artist.get_x() if along == "x" else artist.get_y()
            size = artist.get_width() if along == "x" else artist.get_height()
            places = np.array([start, start + size])
        else:
            continue
        if np.isfinite(places).any():
            yield Mark(_name(artist, axes), along, float(np.nanmin(places)), float(np.nanmax(places)))


def series(axes: Axes, x: Scale, y: Scale) -> list[Series]:
    """What is drawn in data coordinates: error bars, bars, steps, lines, bands, points, segments."""
    found = [*_error_bars(axes), *_bars(axes)]
    taken = {id(part) for container in axes.containers for part in _parts(container)}
    for artist in _shown([*axes.patches, *axes.lines, *axes.collections]):
        if id(artist) in taken or not all(in_data(artist, axes)) and not isinstance(artist, PathCollection):
            continue
        if isinstance(artist, StepPatch):
            found.append(_steps(artist, axes))
        elif isinstance(artist, Line2D):
            along = "y" if y.categories and not x.categories else "x"
            found.append(_line(artist, axes, along))
        elif isinstance(artist, PathCollection):
            found += _scatter(artist, axes, "y" if y.categories and not x.categories else "x")
        elif isinstance(artist, PolyCollection):
            found += _band(artist, axes)
        elif isinstance(artist, LineCollection):
            found += _segments(artist, axes)
    return _without_repeats([one for one in found if len(one.keys)])


def rectangles(axes: Axes) -> list[Rectangle]:
    """Single rectangles in data coordinates, such as boxes around what is detected."""
    bars = {id(part) for container in axes.containers for part in _parts(container)}
    free = [patch for patch in _shown(axes.patches) if isinstance(patch, Rectangle) and id(patch) not in bars]
    return [patch for patch in free if all(in_data(patch, axes))]


def _parts(container: Any) -> Iterator[Artist]:
    for part in container:
        if isinstance(part, Artist):
            yield part
        elif isinstance(part, (tuple, list)):
            yield from _parts(part)


def _shown(artists: Iterable[Artist]) -> Iterator[Artist]:
    return (artist for artist in artists if artist.get_visible())


# ------------------------------------------------------------------ names and colours


def _name(artist: Any, axes: Axes, colour: str | None = None) -> str:
    """The label, or what the legend says about things of this colour that have no label of their own."""
    label = str(artist.get_label() or "")
    if label and not label.startswith("_"):
        return plain(label)
    colour = colour or _colour(artist)
    legend = axes.get_legend()
    handles = [] if legend is None else zip(legend.legend_handles, legend.get_texts(), strict=False)
    said = {plain(text.get_text()) for handle, text in handles if _colour(handle) == colour}
    return said.pop() if len(said) == 1 else ""


def _colour(artist: Any) -> str:
    """The colour that tells this artist from others, as "#rrggbb"."""
    if artist is None:
        return ""
    for ask in ("get_color", "get_facecolor", "get_edgecolor"):
        colour = getattr(artist, ask, lambda: None)()
        if colour is None or (not isinstance(colour, str) and len(colour) == 0):
            continue
        if not isinstance(colour, str) and np.ndim(colour) == 2:
            colour = colour[0]
        if not same_color(colour, "none"):
            return to_hex(colour)
    return ""


# ------------------------------------------------------------------ kinds of artists


def _numbers(values: Any) -> np.ndarray:
    return np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)


def _line(line: Line2D, axes: Axes, along: str) -> Series:
    x, y = (_numbers(values) for values in line.get_data(orig=False))
    keys, values = (x, y) if along == "x" else (y, x)
    kept = np.isfinite(keys) & np.isfinite(values) if len(keys) == 1 else np.isfinite(keys)
    kind = "line" if line.get_linestyle() not in ("None", "", " ") else "points"
    return Series(_name(line, axes), _colour(line), along, keys[kept], {"": values[kept]}, kind)


def _scatter(points: PathCollection, axes: Axes, along: str) -> list[Series]:
    if not points.get_offset_transform().contains_branch(axes.transData):
        return []
    x, y = _numbers(points.get_offsets()).reshape(-1, 2).T
    keys, values = (x, y) if along == "x" else (y, x)
    columns = {"": values}
    if points.get_array() is not None:
        columns["colour"] = _numbers(points.get_array())
    one_colour = len(np.unique(np.atleast_2d(points.get_facecolor()), axis=0)) == 1
    colour = _colour(points) if one_colour else ""
    kept = np.isfinite(x) & np.isfinite(y)
    columns = {name: column[kept] for name, column in columns.items() if len(column) == len(kept)}
    return [Series(_name(points, axes, colour), colour, along, keys[kept], columns, "points")]


def _error_bars(axes: Axes) -> Iterator[Series]:
    for container in axes.containers:
        if not isinstance(container, ErrorbarContainer):
            continue
        line, _, stems = container.lines
        for stem in stems:
            segments = _two_ends(stem)
            along = "y" if container.has_xerr and stem is stems[0] else "x"
            place, value = (0, 1) if along == "x" else (1, 0)
            columns = {"low": segments[:, :, value].min(axis=1), "high": segments[:, :, value].max(axis=1)}
            keys = segments[:, 0, place]
            if line is not None and line.get_visible():
                ends = [_numbers(values) for values in line.get_data(orig=False)]
                if len(ends[0]) == len(keys):
                    keys, columns = ends[place], {"": ends[value], **columns}
            kept = np.isfinite(keys) & np.isfinite(next(iter(columns.values())))
            columns = {name: column[kept] for name, column in columns.items()}
            colour = _colour(line if line is not None else stem)
            yield Series(_name(container, axes, colour), colour, along, keys[kept], columns, "error bars")


def _two_ends(segments: LineCollection) -> np.ndarray:
    """Of each segment both ends: (segments, 2, 2). What is hidden has no length, or NaN in it."""
    ends = [segment for segment in segments.get_segments() if len(segment) == 2]
    return np.array(ends, dtype=float).reshape(-1, 2, 2)


def _bars(axes: Axes) -> Iterator[Series]:
    for container in axes.containers:
        bars = [] if not isinstance(container, BarContainer) else list(_shown(container.patches))
        if not bars:
            continue
        boxes = np.array([[bar.get_x(), bar.get_y(), bar.get_width(), bar.get_height()] for bar in bars])
        along = "y" if container.orientation == "horizontal" else "x"
        place, value = (1, 0) if along == "y" else (0, 1)
        start, thick, base, length = (
            boxes[:, place],
            boxes[:, place + 2],
            boxes[:, value],
            boxes[:, value + 2],
        )
        columns = {"from": base, "to": base + length} if base.any() else {"": length}
        colours = {to_hex(bar.get_facecolor()) for bar in bars}
        colour = colours.pop() if len(colours) == 1 else ""
        name = _name(container, axes, colour)
        touching = len(bars) > 1 and np.allclose(start[1:], (start + thick)[:-1])
        if touching:
            yield Series(name, colour, along, start, {"until": start + thick, **columns}, "histogram")
        else:
            yield Series(name, colour, along, start + thick / 2, columns, "bars")


def _steps(patch: StepPatch, axes: Axes) -> Series:
    values, edges, _ = patch.get_data()
    along = "x" if patch.orientation == "vertical" else "y"
    edges = np.asarray(edges, dtype=float)
    columns = {"until": edges[1:], "": np.asarray(values, dtype=float)}
    return Series(_name(patch, axes), _colour(patch), along, edges[:-1], columns, "histogram")


def _band(polygons: PolyCollection, axes: Axes) -> Iterator[Series]:
    """`fill_between`: a closed polygon for each stretch without a gap, there along one edge, back along the other."""
    stretches = []
    for path in polygons.get_paths():
        corners = path.vertices
        count = (len(corners) - 3) // 2
        if count < 1 or len(corners) != 2 * count + 3:
            continue
        there, back = corners[1 : count + 1], corners[count + 2 : 2 * count + 2][::-1]
        place = 0 if np.array_equal(there[:, 0], back[:, 0]) else 1
        if np.array_equal(there[:, place], back[:, place]):
            stretches.append((place, there[:, place], there[:, 1 - place], back[:, 1 - place]))
    if not stretches:
        return
    along = "xy"[stretches[0][0]]
    keys, one, other = (np.concatenate([stretch[i] for stretch in stretches]) for i in (1, 2, 3))
    columns = {"low": np.minimum(one, other), "high": np.maximum(one, other)}
    yield Series(_name(polygons, axes), _colour(polygons), along, keys, columns, "band")


def _segments(lines: LineCollection, axes: Axes) -> Iterator[Series]:
    """`hlines` and `vlines`; other segments by both of their ends."""
    ends = _two_ends(lines)
    ends = ends[np.isfinite(ends).all(axis=(1, 2))]
    if not len(ends):
        return
    colours = lines.get_color()
    colour = _colour(lines) if len(colours) == 1 else ""
    name = _name(lines, axes, colour)
    for along, place in (("y", 1), ("x", 0)):
        if np.array_equal(ends[:, 0, place], ends[:, 1, place]):
            values = ends[:, :, 1 - place]
            columns = {"low": values.min(axis=1), "high": values.max(axis=1)}
            yield Series(name, colour, along, ends[:, 0, place], columns, "intervals")
            return
    columns = {"": ends[:, 0, 1], "to x": ends[:, 1, 0], "to": ends[:, 1, 1]}
    yield Series(name, colour, "x", ends[:, 0, 0], columns, "segments")


def _without_repeats(found: list[Series]) -> list[Series]:
    """Leave out dots without a name that only mark the corners of lines that are there anyway."""
    drawn = {point for one in found if one.kind == "line" for point in _points(one)}
    return [one for one in found if one.kind != "points" or one.name or not _points(one) <= drawn]


def _points(one: Series) -> set[tuple[float, float]]:
    return set(zip(one.keys.tolist(), one.columns[""].tolist(), strict=True)) if "" in one.columns else set()
