"""Recorded pictures that a slider leafs through in the browser."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import anywidget
import traitlets

from kdlib.lesson import browser, figure_html, figures
from kdlib.lesson.canvas import BlittedFigure

_MOST_BYTES, _MOST_BYTES_OF_ALL = 6_000, 80_000  # of the tables of a frame, and of all frames


class FrameStrip(anywidget.AnyWidget):
    """See `widgets.strip`. `frames` holds a PNG for every combination of stops, the last slider fastest, `tables`
    the data of each as HTML."""

    _esm = browser.script("page.js", "strip.js")
    _css = browser.stylesheet()
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    stops = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)
    frames = traitlets.List(traitlets.Bytes()).tag(sync=True)
    pixels = traitlets.Tuple(traitlets.Int(), traitlets.Int()).tag(sync=True)
    indices = traitlets.List(traitlets.Int()).tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)
    tables = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(self, figure: BlittedFigure, stops: Mapping[str, Sequence], caption: str):
        combinations = list(itertools.product(*stops.values()))
        frames, tables = [], []
        for values in combinations:
            frames.append(figure.png(dict(zip(stops, values, strict=True))))
            most = min(_MOST_BYTES, _MOST_BYTES_OF_ALL // len(combinations))
            tables.append(figure_html.of(figure.figure, most_bytes=most, opened=True)[0])
        super().__init__(
            labels=[name.replace("_", " ") for name in stops],
            stops=[[_written(value) for value in values] for values in stops.values()],
            frames=frames,
            tables=tables,
            pixels=figure.pixels,
            indices=[0] * len(stops),
            caption=caption,
        )

    def __repr__(self) -> str:
        return f"{figures.INTERACTIVE} to move {', '.join(self.labels)}."


def _written(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
