"""A figure that redraws only what moves.

An explorer redraws its picture at every move of a slider. Axes, ticks and still text take most of that time
and do not change, so they are drawn once, kept as a background, and only the moving artists are drawn over a
copy of it ("blitting").
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase

from kdlib.lesson import figures

Update = Callable[..., Any]
Draw = Callable[[FigureBase], Update]

DPI = 100


def start_drawing(draw: Draw, figure: FigureBase) -> Update:
    """Let `draw` lay out the figure; return its `update`.

    Raises:
        TypeError: `draw` returned something that cannot be called.
    """
    update = draw(figure)
    if not callable(update):
        raise TypeError(f"draw(figure) returned {update!r}; it must return its update(**values) function")
    return update


def moving_artists(update: Update, values: Mapping[str, Any]) -> list[Artist]:
    """Call `update` with the values of the controls; return the artists that it moved, in a flat list.

    Raises:
        ValueError: `update` returned no artist, or something that is not one.
    """
    moving = list(_flatten(update(**values)))
    if not moving:
        raise ValueError(
            f"update{tuple(values)} returned no artist; it must return the artists that it moves"
        )
    return moving


def _flatten(returned: Any) -> Iterator[Artist]:
    if isinstance(returned, Artist):
        yield returned
    elif isinstance(returned, (list, tuple)):  # BarContainer and its like are tuples of artists
        for part in returned:
            yield from _flatten(part)
    elif returned is not None:
        raise ValueError(f"update returned {returned!r}; it must return the matplotlib artists that it moves")


class BlittedFigure:
    """A matplotlib figure of fixed pixel size, drawn by `draw`, that yields a PNG for any values.

    The picture is right whatever `update` does: a change of something that it did not return (a title, the
    limits of an axis) is noticed, and then the whole figure is redrawn, which is only slower.
    """

    def __init__(self, draw: Draw, *, size: tuple[float | int, float | int]):
        with figures.style():
            self.figure = Figure(figsize=size, dpi=DPI)
            self._canvas = FigureCanvasAgg(self.figure)
            self._update = start_drawing(draw, self.figure)
        self._moving: list[Artist] = []
        self._background = None

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height of the picture."""
        return self._canvas.get_width_height()

    def png(self, values: Mapping[str, Any]) -> bytes:
        """The picture for these values."""
        fresh = [artist for artist in moving_artists(self._update, values) if artist not in self._moving]
        if self._background is None:
            self._fix_layout()
        if fresh or self.figure.stale:
            self._redraw_background(fresh)
        self._canvas.restore_region(self._background)
        renderer = self._canvas.get_renderer()
        for artist in sorted(self._moving, key=Artist.get_zorder):
            artist.draw(renderer)
        return figures.encoded(self._canvas, compress_level=1)

    def _fix_layout(self) -> None:
        """Lay out once, with the moving artists counted in: from here on nothing jumps about."""
        with figures.style():
            self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")

    def _redraw_background(self, fresh: list[Artist]) -> None:
        self._moving = [artist for artist in [*self._moving, *fresh] if artist.get_figure() is not None]
        for artist in self._moving:
            artist.set_animated(True)  # matplotlib leaves animated artists out of an ordinary draw
        with figures.style():
            self._canvas.draw()
        self._background = self._canvas.copy_from_bbox(self.figure.bbox)
