"""The look of every figure: colours, type sizes, captions.

The palette is that of M. Okabe and K. Ito, "Color Universal Design" (2002): its hues stay apart for readers
with any of the common colour-vision deficiencies. A role (teacher, student, label, ...) keeps its colour
through the whole course, in matplotlib and in the browser alike.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
from cycler import cycler
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

PALETTE = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky blue": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
}

COLOURS = {
    "teacher": PALETTE["blue"],
    "student": PALETTE["vermillion"],
    "label": PALETTE["orange"],
    "mix": PALETTE["green"],
    "other": PALETTE["purple"],
    "muted": "#767676",
}

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
    """Display a finished figure and, below it, the caption that says what to see in it.

    The caption is a line of Markdown of its own, because GitHub and nbconvert drop the alternative text of a
    picture; it is the alternative text too, where that survives.

    Raises:
        ValueError: the caption is empty.
    """
    caption = checked_caption(caption)
    data, metadata = picture(figure, caption)
    display(data, metadata=metadata, raw=True)
    show_caption(caption)


def picture(figure: Figure, caption: str) -> tuple[dict, dict]:
    """Data and metadata with which Jupyter displays the figure."""
    with style():
        data = {"image/png": png(figure), "text/plain": f"Figure: {caption}"}
    return data, {"image/png": {"alt": caption, "width": round(figure.get_figwidth() * 100)}}


def show_caption(caption: str) -> None:
    """Display the line below a figure."""
    display({"text/markdown": f"*Figure: {caption}*", "text/plain": f"Figure: {caption}"}, raw=True)


def checked_caption(caption: str) -> str:
    """The caption on one line.

    Raises:
        ValueError: there is no text in it.
    """
    line = " ".join(caption.split())
    if not line:
        raise ValueError(f"caption={caption!r} is empty; say what there is to see in the figure")
    return line
