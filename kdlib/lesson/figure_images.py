"""Images of a figure as tables: maps of numbers are written out, photographs are listed."""

import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from kdlib.lesson.figure_scales import Scale, plain, significant

_LARGEST, _BLOCKS = 20, 10  # a map of more rows or columns than the first is shown as so many blocks


def images(axes: Axes) -> list[AxesImage]:
    """The images that are shown."""
    return [image for image in axes.images if image.get_visible() and image.get_array() is not None]


def is_photograph(image: AxesImage) -> bool:
    """Whether it shows something rather than numbers: in colours of its own, or in grey without a scale."""
    grey = image.get_cmap().name.startswith(("gray", "grey", "Greys", "binary"))
    return np.ndim(image.get_array()) == 3 or (grey and image.colorbar is None)


def listed(title: str, image: AxesImage, axes: Axes) -> dict:
    """A photograph as a row of a table: its title, the words beside it, its size."""
    height, width = np.shape(image.get_array())[:2]
    beside = [axes.get_xlabel(), axes.get_ylabel(), *(text.get_text() for text in axes.texts)]
    return {
        "picture": title,
        "words beside it": ", ".join(filter(None, map(plain, beside))),
        "pixels": f"{width} × {height}",
    }


def heat_map(image: AxesImage, x: Scale, y: Scale) -> tuple[str, pandas.DataFrame]:
    """What a title says about the numbers of an image, and they as a table; many of them as means over blocks."""
    values = np.ma.filled(np.ma.asarray(image.get_array(), dtype=float), np.nan)
    height, width = values.shape
    across, down = _parts(width), _parts(height)
    blocks = [[_mean(values[rows][:, columns]) for columns in across] for rows in down]
    left, right, bottom, top = image.get_extent()
    at_x = [left + (right - left) * (part[0] + part[-1] + 1) / (2 * width) for part in across]
    first, last = (top, bottom) if image.origin == "upper" else (bottom, top)
    at_y = [first + (last - first) * (part[0] + part[-1] + 1) / (2 * height) for part in down]
    bar = image.colorbar
    meaning = plain(bar.ax.get_ylabel() or bar.ax.get_xlabel()) if bar is not None else ""
    table = pandas.DataFrame([[significant(value) for value in row] for row in blocks])
    table.columns = _column_names(x, np.array(at_x))
    corner = f"{y.label} \\ {x.label}" if {x.label, y.label} != {"x", "y"} else "row \\ column"
    table.insert(0, corner, y.shown(np.array(at_y)))
    averaged = (
        "" if (len(across), len(down)) == (width, height) else f" ({width} × {height} values, averaged)"
    )
    return (f": {meaning}" if meaning else "") + averaged, table


def _mean(block: np.ndarray) -> float:
    return float(block[np.isfinite(block)].mean()) if np.isfinite(block).any() else float("nan")


def _parts(count: int) -> list[np.ndarray]:
    return np.array_split(np.arange(count), count if count <= _LARGEST else _BLOCKS)


def _column_names(scale: Scale, places: np.ndarray) -> list[str]:
    return [name if isinstance(name, str) else f"{name:g}" for name in scale.shown(places)]
