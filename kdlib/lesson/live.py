"""A loss curve that grows while a network trains.

Where somebody watches (a notebook open in a browser), one picture of fixed size is replaced about four times
a second, and a still figure takes its place at the end. Where nobody does (papermill, nbval, a script),
nothing is drawn on the way: a notebook gets the still figure at the end, a terminal one line of text.
"""

import time
from collections.abc import Callable
from math import isfinite
from typing import Any

import ipywidgets
from IPython import get_ipython
from IPython.display import display
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from kdlib.lesson import figures, spoken
from kdlib.lesson.canvas import BlittedFigure, Update
from kdlib.lesson.watching import somebody_watches

SECONDS_BETWEEN_PICTURES = 0.25
MOST_POINTS = 400
SIZE = (7, 2.8)
_COLOURS = {"loss": "black", "task": figures.COLOURS["label"], "distill": figures.COLOURS["teacher"]}


class Curve:
    """Curves over the steps of a training: `update(step, loss=..., ...)` as it runs, `close()` at its end.

    Args:
        total_steps: the step at which the axis ends.
        title: stands above the picture and in its caption.
        watched: whether to draw on the way; by default, whether somebody watches.
        clock: gives seconds.

    Raises:
        ValueError: `total_steps` is not positive.
    """

    def __init__(
        self,
        total_steps: int,
        title: str = "Training",
        *,
        watched: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        if total_steps < 1:
            raise ValueError(f"total_steps={total_steps} must be at least 1")
        self.total_steps = total_steps
        self.title = title
        self.points: dict[str, list[tuple[int, float]]] = {}
        self.closed = False
        self.image: ipywidgets.Image | None = None
        self._place: str | None = None
        self._watched = somebody_watches() if watched is None else watched
        self._clock = clock
        self._last_picture = -float("inf")
        self._canvas: BlittedFigure | None = None

    def update(self, step: int, **values: float) -> None:
        """Add a point to the curve of each name.

        Args:
            step: where it lies, from 0 to `total_steps`.
            values: how high, by the name of the curve.

        Raises:
            ValueError: the curve was closed, or the step lies outside 0 to `total_steps`.
        """
        if self.closed:
            raise ValueError(f"step {step} after close(): make a new Curve for a new training")
        if not 0 <= step <= self.total_steps:
            raise ValueError(f"step={step} lies outside 0 to total_steps={self.total_steps}")
        for name, value in values.items():
            self.points.setdefault(name, []).append((step, float(value)))
        now = self._clock()
        if self._watched and now - self._last_picture >= SECONDS_BETWEEN_PICTURES:
            self._last_picture = now
            self._show()

    def close(self) -> None:
        """Put the still figure in place of the live one. Closing twice does no harm."""
        if self.closed:
            return
        self.closed = True
        if get_ipython() is None:
            print(self.summary())
        elif self.image is None:
            figures.show(self.figure(), self.summary())
        else:
            still = self.figure()
            data, metadata = figures.picture(still, self.summary())
            display(data, metadata=metadata, raw=True, display_id=self._place, update=True)
            figures.show_caption(self.summary())
            figures.show_data(still)

    def summary(self) -> str:
        """The curves in words."""
        spans = [f"{name} {points[0][1]:.3f} to {points[-1][1]:.3f}" for name, points in self.points.items()]
        reached = max((points[-1][0] for points in self.points.values()), default=0)
        return f"{self.title}: {reached} of {self.total_steps} steps, " + (", ".join(spans) or "no points")

    def figure(self) -> Figure:
        """A still figure of the curves."""
        with figures.style():
            figure = Figure(figsize=SIZE)
            self._draw(figure)()
        return figure

    def _show(self) -> None:
        if self._canvas is None:
            self._canvas = BlittedFigure(self._draw, size=SIZE)
        picture = self._canvas.png({})
        if self.image is not None:
            self.image.value = picture
            return
        width, height = self._canvas.pixels
        self.image = ipywidgets.Image(value=picture, format="png", width=str(width), height=str(height))
        self.image.layout.max_width = "100%"
        names = spoken.Names(f"{self.title}: the loss over the steps, as the training goes on")
        box = ipywidgets.VBox([self.image, names])
        box.add_class("kd-explorer")
        self._place = display(box, display_id=True).display_id

    def _draw(self, figure: Any) -> Update:
        axes = figure.subplots()
        axes.set(title=self.title, xlabel="step", ylabel="loss", xlim=(0, self.total_steps), ylim=(0, 1e-9))
        lines = {
            name: axes.plot([], [], color=_COLOURS.get(name), label=name, marker=".", markersize=4)[0]
            for name in self.points
        }
        if lines:
            axes.legend(loc="upper right", ncols=len(lines))

        def update() -> list[Artist]:
            for name, line in lines.items():
                line.set_data(*zip(*_thinned(self.points[name]), strict=True))
            highest = max(
                (value for curve in self.points.values() for _, value in curve if isfinite(value)), default=1
            )
            if highest > axes.get_ylim()[1]:
                axes.set_ylim(0, 1.3 * highest)  # room above, so that the axis and its background last
            return list(lines.values())

        return update


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most about MOST_POINTS points, the last one among them."""
    return [*points[:: 1 + len(points) // MOST_POINTS], points[-1]]


class Progress:
    """A reporter for `kdlib.training`: called with records, it draws them as a live curve.

    A record is a dict with `epoch`, `step` (steps done over the whole run), `steps` (how many there will be)
    and the current `loss`, `task`, `distill` and `features`, all but the first None or absent where not in use. The
    curve closes itself at the last step; after an interrupted training, call `close`.
    """

    def __init__(self, title: str = "Training"):
        self.title = title
        self.curve: Curve | None = None

    def __call__(self, record: dict[str, Any]) -> None:
        if self.curve is None:
            self.curve = Curve(record["steps"], self.title)
        names = ("loss", "task", "distill", "features")
        values = {name: record[name] for name in names if record.get(name) is not None}
        self.curve.update(record["step"], **values)
        if record["step"] == record["steps"]:
            self.close()

    def close(self) -> None:
        """Close the curve; the next record starts a new one."""
        if self.curve is not None:
            self.curve.close()
        self.curve = None


def progress(title: str = "Training") -> Progress:
    """A reporter for the argument `progress` of a training.

    `kdlib.training.progress.set_default(live.progress)` makes it the one of every training that is not told otherwise.
    """
    return Progress(title)
