"""The data of a figure as tables, for readers who do not see it, and for those who want its numbers.

    for title, table in tables(figure):
        ...

They are read from the finished matplotlib figure: what it shows is what they say.
"""

import re
from collections.abc import Iterator

import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text

from kdlib.lesson import figure_images, figure_series
from kdlib.lesson.figure_scales import Scale, plain, significant
from kdlib.lesson.figure_series import Series

MOST_ROWS = 200
_WORD = re.compile(r"[^\W\d_]{2}")
_PICTURES = "Pictures, which are not written out as numbers"

Tables = list[tuple[str, pandas.DataFrame]]


def tables(figure: Figure, *, rows: int = MOST_ROWS) -> Tables:
    """What the figure shows, as (title, table): for each of its axes one or more, in the order of the axes.

    Curves over the same positions share a table; so do bars, dots and intervals at the same names. Columns are called
    what the legend and the axes call them. Numbers are rounded to what is shown, four significant digits.
    A heat map of more than 20 rows or columns is averaged over blocks, and photographs are listed, not written out.

    Args:
        figure: finished: what is moved afterwards is not noticed.
        rows: of a longer table so many are kept, evenly chosen, and its title says so.

    Raises:
        ValueError: rows is smaller than 2.
    """
    if rows < 2:
        raise ValueError(f"rows={rows!r} must be at least 2, the first and the last")
    return thinned(everything(figure), rows)


def thinned(found: Tables, rows: int) -> Tables:
    """The tables with at most so many rows each."""
    return [_thinned(title, table, rows) for title, table in found]


def everything(figure: Figure) -> Tables:
    """As `tables`, with every row."""
    found: Tables = []
    pictures = []
    shown = [axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]
    for number, axes in enumerate(shown, 1):
        title = _title(axes, number if len(shown) > 1 else None)
        photographs = [image for image in figure_images.images(axes) if figure_images.is_photograph(image)]
        pictures += [figure_images.listed(title, image, axes) for image in photographs]
        found += [(f"{title}{words}", table) for words, table in _tables_of(axes, photographs)]
    if pictures:
        found.append((_PICTURES, _without_blanks(pandas.DataFrame(pictures).drop_duplicates())))
    return [(title.removeprefix(": ").strip(), table) for title, table in found]


def _title(axes: Axes, number: int | None) -> str:
    """What stands above the axes and the panel that they are in; else their number, where there are several."""
    above = [axes.figure.get_suptitle(), *(axes.get_title(loc) for loc in ("left", "center", "right"))]
    words = ", ".join(filter(None, map(plain, above)))
    return words or ("" if number is None else f"Panel {number}")


def _thinned(title: str, table: pandas.DataFrame, rows: int) -> tuple[str, pandas.DataFrame]:
    if len(table) <= rows:
        return title, table.reset_index(drop=True)
    kept = np.unique(np.linspace(0, len(table) - 1, rows).round().astype(int))
    words = f"{len(kept)} of {len(table):,} rows, evenly chosen"
    return f"{title} ({words})" if title else words, table.iloc[kept].reset_index(drop=True)


def _tables_of(axes: Axes, photographs: list[AxesImage]) -> Iterator[tuple[str, pandas.DataFrame]]:
    """The tables of one axes, each with what its title says beyond that of the axes."""
    x, y = Scale.of(axes.xaxis), Scale.of(axes.yaxis)
    for image in figure_images.images(axes):
        if not any(image is photograph for photograph in photographs):
            yield figure_images.heat_map(image, x, y)
    words = [text for text in axes.texts if text.get_visible() and text.get_text().strip()]
    grid = _grid_of_words(words, axes, x, y)
    if grid is not None:
        yield "", grid
        words = []
    found = figure_series.series(axes, x, y)
    words = _named_by_words(found, words, axes)
    for group in _joined(found, x, y):
        yield _group_title(group, x, y), _table(group, x, y)
    boxes = [] if grid is not None else figure_series.rectangles(axes)
    if boxes:
        yield ": rectangles", _boxes(boxes, axes, x, y)
    marks = list(figure_series.marks(axes))
    if marks:
        yield ": lines and bands across", _marks(marks, x, y)
    said = _words(words, axes, x, y, alone=not (found or boxes or grid is not None))
    if said is not None:
        yield ": words in the figure", said


# ------------------------------------------------------------------ curves, bars, points, intervals


def _joined(found: list[Series], x: Scale, y: Scale) -> list[list[Series]]:
    """Series that stand side by side in one table: they lie on the same axis, at the same places."""
    groups: dict[tuple, list[Series]] = {}
    for one in _lengthened(found, x, y):
        scale = x if one.along == "x" else y
        names = scale.named(one.keys)
        repeated = names is not None and len(set(names)) < len(names)
        places = ("named",) if names and not repeated else tuple(scale.shown(one.keys))
        groups.setdefault((one.along, places), []).append(one)
    return list(groups.values())


def _lengthened(found: list[Series], x: Scale, y: Scale) -> list[Series]:
    """Series at one place each, drawn one after the other in a loop over the places, as one series."""
    whole: list[Series] = []
    for one in found:
        scale = x if one.along == "x" else y
        alike = [other for other in whole if _continues(one, other, scale)]
        if not alike:
            whole.append(one)
            continue
        (first, *_) = alike
        columns = {name: np.concatenate([first.columns[name], one.columns[name]]) for name in one.columns}
        keys = np.concatenate([first.keys, one.keys])
        colour = first.colour if first.colour == one.colour else ""
        longer = Series(one.name, colour, one.along, keys, columns, one.kind)
        whole = [longer if other is first else other for other in whole]
    return whole


def _continues(one: Series, other: Series, scale: Scale) -> bool:
    """Whether both are alike, without a name, and the second stands at a single place where the first has nothing."""
    alike = (one.name, one.along, one.kind, one.columns.keys()) == (
        other.name, other.along, other.kind, other.columns.keys(),
    )  # fmt: skip
    here, there = set(scale.shown(one.keys)), set(scale.shown(other.keys))
    named = scale.named(one.keys) and scale.named(other.keys)
    return bool(alike and not one.name and len(here) == 1 and not here & there and named)


def _group_title(group: list[Series], x: Scale, y: Scale) -> str:
    values = y if group[0].along == "x" else x
    said = values.label not in ("x", "y") and any(one.name for one in group)
    return f": {values.label}" if said else ""


def _table(group: list[Series], x: Scale, y: Scale) -> pandas.DataFrame:
    keys, values = (x, y) if group[0].along == "x" else (y, x)
    columns = _columns(group, keys, values)
    first = "name" if keys.label in ("x", "y") and keys.categories else keys.label
    by_name = keys.named(group[0].keys)
    if by_name and all(len(set(keys.named(one.keys))) == len(one.keys) for one in group):
        table = pandas.concat(columns, axis=1)
        order = [name for name in keys.categories.values() if name in table.index]
        table = table.loc[list(dict.fromkeys(order))].rename_axis(first).reset_index()
    else:
        table = pandas.concat([column.reset_index(drop=True) for column in columns], axis=1)
        table.insert(0, _free(first, list(table.columns)), keys.shown(group[0].keys))
    return table


def _columns(group: list[Series], keys: Scale, values: Scale) -> list[pandas.Series]:
    """Every column of the series, under a name of its own, by the names of the places where they are names."""
    columns: list[pandas.Series] = []
    colours = {one.colour for one in group}
    named = {one.colour: one.name for one in group if one.name}
    for one in group:
        name = one.name or named.get(one.colour, "")
        if not name and len(group) > 1 and len(colours) > 1:
            name = one.colour_name()
        for part, numbers in one.columns.items():
            words = ", ".join(filter(None, [name, part])) or values.label
            title = _free(words, [column.name for column in columns])
            shown = _shown_part(part, numbers, keys, values)
            columns.append(pandas.Series(shown, index=keys.named(one.keys), name=title, dtype=object))
    return columns


def _shown_part(part: str, numbers: np.ndarray, keys: Scale, values: Scale) -> list:
    if part == "words":
        return list(numbers)
    if part == "colour":
        return [significant(value) for value in numbers]
    return (keys if part in ("until", "to x") else values).shown(numbers)


def _free(name: str, taken: list[str]) -> str:
    """The name, with a number behind it where it is taken."""
    count = 1 + sum(other == name or other.startswith(f"{name} (") for other in map(str, taken))
    return name if count == 1 else f"{name} ({count})"


def _marks(marks: list[figure_series.Mark], x: Scale, y: Scale) -> pandas.DataFrame:
    rows = []
    for mark in marks:
        scale = x if mark.along == "x" else y
        low, high = scale.rounded(np.array([mark.low, mark.high]))
        places = scale.named(np.array([mark.low])) or [low]
        kind = "line" if mark.low == mark.high else "band"
        end = "" if kind == "line" else high
        rows.append({"what": mark.name or kind, "axis": scale.label, "at": places[0], "to": end})
    return pandas.DataFrame(rows).drop_duplicates()


def _boxes(boxes: list, axes: Axes, x: Scale, y: Scale) -> pandas.DataFrame:
    corners = np.array([box.get_bbox().extents for box in boxes])
    names = [str(box.get_label()) for box in boxes]
    table = {} if all(name.startswith("_") or not name for name in names) else {"what": names}
    for words, scale, column in (
        (f"{x.label} from", x, 0),
        ("to", x, 2),
        (f"{y.label} from", y, 1),
        ("to ", y, 3),
    ):
        table[words] = scale.rounded(corners[:, column])
    return pandas.DataFrame(table)


# ------------------------------------------------------------------ words


def _place(text: Text, axes: Axes) -> tuple[float, float] | None:
    """Where in data coordinates a text stands, or points to."""
    if hasattr(text, "xy"):
        return tuple(map(float, text.xy)) if text.xycoords == "data" else None
    return tuple(map(float, text.get_position())) if all(figure_series.in_data(text, axes)) else None


def _grid_of_words(words: list[Text], axes: Axes, x: Scale, y: Scale) -> pandas.DataFrame | None:
    """Words at the crossings of two axes of names, such as the numbers in the squares of a surface, as a table."""
    places = [_place(text, axes) for text in words]
    if len(words) < 4 or None in places or not (x.categories and y.categories):
        return None
    columns, rows = (
        scale.named(np.array(at)) for scale, at in zip((x, y), zip(*places, strict=True), strict=True)
    )
    if not columns or not rows or len(set(zip(columns, rows, strict=True))) < len(words):
        return None
    written = {
        place: plain(text.get_text())
        for place, text in zip(zip(rows, columns, strict=True), words, strict=True)
    }
    across, down = x.categories.values(), y.categories.values()
    table = [[name, *(written.get((name, column), "") for column in across)] for name in down]
    return pandas.DataFrame(table, columns=[f"{y.label} \\ {x.label}", *across])


def _named_by_words(found: list[Series], words: list[Text], axes: Axes) -> list[Text]:
    """Give points the words that stand at them; return the words that are left."""
    places = {id(text): _place(text, axes) for text in words}
    for one in found:
        if one.kind != "points" or "" not in one.columns:
            continue
        at = zip(
            *((one.keys, one.columns[""]) if one.along == "x" else (one.columns[""], one.keys)), strict=True
        )
        beside = [next((text for text in words if places[id(text)] == point), None) for point in at]
        if any(text is not None for text in beside):
            names = [plain(text.get_text()) if text is not None else "" for text in beside]
            one.columns = {"words": np.array(names, dtype=object), **one.columns}
            words = [text for text in words if not any(text is used for used in beside)]
    return words


def _words(words: list[Text], axes: Axes, x: Scale, y: Scale, *, alone: bool) -> pandas.DataFrame | None:
    """What is written in the axes; a mere number beside what is drawn says again what is drawn."""
    said = [text for text in words if alone or _WORD.search(text.get_text())]
    if not said or any(figure_images.images(axes)):
        return None
    rows = []
    for text in said:
        place = _place(text, axes)
        at_x, at_y = (
            ("", "") if place is None else (x.shown(np.array(place[:1]))[0], y.shown(np.array(place[1:]))[0])
        )
        rows.append(
            {"words": plain(text.get_text()), x.label: at_x, y.label if y.label != x.label else "y": at_y}
        )
    return _without_blanks(pandas.DataFrame(rows))


def _without_blanks(table: pandas.DataFrame) -> pandas.DataFrame:
    return table.loc[:, (table != "").any()]
