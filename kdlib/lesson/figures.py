"""The look of every figure, and what is shown with it: type sizes, the caption, the data as tables."""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import matplotlib
from cycler import cycler
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from kdlib.lesson import figure_html, figure_tables
from kdlib.lesson.palette import COLOURS, PALETTE
from kdlib.lesson.watching import somebody_watches

__all__ = [
    "COLOURS",
    "INTERACTIVE",
    "PALETTE",
    "STYLE",
    "checked_caption",
    "encoded",
    "picture",
    "png",
    "show",
    "show_caption",
    "show_data",
    "style",
    "use_style",
]

# How the description of an interactive figure begins, which is all that is left of it where no kernel runs.
INTERACTIVE = "Interactive figure: open the notebook in JupyterLab"

_CYCLE = ["blue", "vermillion", "green", "orange", "purple", "sky blue", "black"]

STYLE = {
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=[PALETTE[name] for name in _CYCLE]),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": "#D9D9D9",
    "lines.linewidth": 2.2,
    "lines.markersize": 8,
    "image.cmap": "cividis",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the style of the course inside the `with` block."""
    with matplotlib.rc_context(STYLE):
        yield


def use_style() -> None:
    """Draw in the style of the course from here on (once, in the first cell of a lesson)."""
    matplotlib.rcParams.update(STYLE)


def png(figure: Figure) -> bytes:
    """The figure as PNG, byte for byte the same whenever the drawing is the same."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return encoded(canvas, compress_level=9)


def encoded(canvas: FigureCanvasAgg, *, compress_level: int) -> bytes:
    """What is on the canvas as a PNG without transparency.

    Args:
        canvas: a canvas on which a figure was drawn.
        compress_level: of zlib, from 1 (quick: for pictures that follow a slider) to 9 (small: for kept ones).
    """
    picture = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    file = io.BytesIO()
    picture.save(file, format="png", compress_level=compress_level)
    return file.getvalue()


def show(figure: Figure, caption: str) -> None:
    """Display a finished figure, below it the caption that says what to see in it, and its data, folded.

    The caption is a line of Markdown of its own, because GitHub and nbconvert drop the alternative text of a
    picture; it is the alternative text too, where that survives.

    Raises:
        ValueError: the caption is empty.
    """
    caption = checked_caption(caption)
    data, metadata = picture(figure, caption)
    display(data, metadata=metadata, raw=True)
    show_caption(caption)
    show_data(figure)


def picture(figure: Figure, caption: str) -> tuple[dict, dict]:
    """Data and metadata with which Jupyter displays the figure; see `displayed`."""
    with style():
        return displayed(png(figure), round(figure.get_figwidth() * 100), caption)


def displayed(content: bytes, width: int, caption: str) -> tuple[dict, dict]:
    """Data and metadata with which Jupyter displays a PNG, so many pixels wide.

    JupyterLab drops the alternative text of a PNG, and keeps that of an image in HTML, which GitHub may not show:
    where somebody watches it is the latter, elsewhere (what is committed, pages, papermill) the former.
    """
    words = f"Figure: {caption}"
    if not somebody_watches():
        metadata = {"image/png": {"alt": caption, "width": width}}
        return {"image/png": content, "text/plain": words}, metadata
    address = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    image = (
        f'<img src="{address}" alt="{escape(caption)}" width="{width}" style="max-width: 100%; height: auto">'
    )
    return {"text/html": image, "text/plain": words}, {}


def show_caption(caption: str) -> None:
    """Display the line below a figure."""
    display({"text/markdown": f"*Figure: {caption}*", "text/plain": f"Figure: {caption}"}, raw=True)


def show_data(figure: Figure) -> None:
    """Display the data of a figure that has been drawn as tables, which one click opens; nothing if it has none."""
    show_tables(figure_tables.everything(figure))


def show_tables(found: figure_tables.Tables) -> None:
    """Display tables, (title, table) each, below a line that opens them; nothing if there are none."""
    html, words = figure_html.of_tables(found)
    if html:
        display({"text/html": html, "text/plain": words}, raw=True)


def checked_caption(caption: str) -> str:
    """The caption on one line.

    Raises:
        ValueError: there is no text in it.
    """
    line = " ".join(caption.split())
    if not line:
        raise ValueError(f"caption={caption!r} is empty; say what there is to see in the figure")
    return line
