"""Figures that answer to sliders.

One function draws a figure for every use of it::

    def draw(figure):
        axes = figure.subplots()
        line, = axes.plot(grid, numpy.zeros_like(grid))
        axes.set(xlabel="x", ylabel="y", ylim=(0, 1))

        def update(*, temperature):                  # called with the value of every control, by name
            line.set_ydata(softened(grid, temperature))
            return [line]                            # what moved

        return update

    explorer(draw, caption="...", temperature=slider(1, 20, value=4))     # live, through the kernel
    twin(draw, [{"temperature": 1}, {"temperature": 4}], caption="...")   # static, on paper too
    strip(draw, caption="...", temperature=[1, 2, 4, 8])                  # recorded: no kernel when it moves
"""

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from kdlib.lesson import figures, spoken
from kdlib.lesson.canvas import BlittedFigure, Draw, moving_artists, start_drawing
from kdlib.lesson.hero import gradient_hero, temperature_hero
from kdlib.lesson.strip import FrameStrip

__all__ = [
    "choice",
    "explorer",
    "gradient_hero",
    "slider",
    "strip",
    "temperature_hero",
    "toggle",
    "twin",
]

_WHOLE_LABEL = {"description_width": "initial"}
_SLIDER_STYLE = {**_WHOLE_LABEL, "handle_color": figures.COLOURS["teacher"]}
# Large type; and in a narrow page the track of a slider goes below a long label, not to nothing.
_STYLE = """<style>
.kd-explorer { --jp-widgets-font-size: 16px; }
.kd-explorer .widget-hslider { flex-wrap: wrap; height: auto; }
.kd-explorer .widget-hslider .slider-container { min-width: 8rem; }
</style>"""


def slider(
    minimum: float | int,
    maximum: float | int,
    *,
    value: float | int,
    step: float | int | None = None,
    label: str | None = None,
    log: bool = False,
) -> ipywidgets.Widget:
    """A slider with a number beside it, moved by mouse, finger or arrow keys.

    Whole numbers throughout give a slider of whole numbers.

    Args:
        minimum: its left end.
        maximum: its right end.
        value: where it stands at first.
        step: from one stop to the next. By default there is a stop at every whole number, or else there are 100 or
            a few more, `value` among them. With `log`, the exponent of ten of the factor between two stops.
        label: the words beside it; by default the explorer writes the name of the control.
        log: whether equal moves multiply by equal factors.

    Raises:
        ValueError: an empty range, a value outside it, a step that is not positive, a logarithm of 0 or less.
    """
    if not minimum < maximum:
        raise ValueError(f"minimum={minimum!r} must be smaller than maximum={maximum!r}")
    if not minimum <= value <= maximum:
        raise ValueError(f"value={value!r} lies outside the slider's range from {minimum!r} to {maximum!r}")
    if step is not None and not step > 0:
        raise ValueError(f"step={step!r} must be positive")
    if log and not minimum > 0:
        raise ValueError(f"minimum={minimum!r} must be positive on a logarithmic slider")
    common = {"value": value, "description": label or "", "style": _SLIDER_STYLE}
    if log:
        low, high, start = (math.log10(number) for number in (minimum, maximum, value))
        step = step or _step_through(start - low, high - low)
        return ipywidgets.FloatLogSlider(min=low, max=high, step=step, readout_format=".3g", **common)
    if all(isinstance(number, int) for number in (minimum, maximum, value, step or 1)):
        return ipywidgets.IntSlider(min=minimum, max=maximum, step=step or 1, **common)
    step = step or _round_step(maximum - minimum)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return ipywidgets.FloatSlider(
        min=minimum, max=maximum, step=step, readout_format=f".{decimals}f", **common
    )


def _step_through(offset: float, span: float) -> float:
    """About a hundredth of the span, such that `offset` is a whole number of steps."""
    return offset / max(1, round(100 * offset / span)) if offset else span / 100


def _round_step(span: float | int) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above a hundredth of the span."""
    power = 10.0 ** math.floor(math.log10(span / 100) + 1e-9)
    return max(factor * power for factor in (1, 2, 5) if factor * power <= span / 100 * (1 + 1e-9))


def choice(options: Sequence | Mapping, *, value: Any, label: str | None = None) -> ipywidgets.Widget:
    """A choice among options.

    Args:
        options: values, or a mapping from what is shown to the value it stands for.
        value: what is chosen at first.
        label: as for `slider`.

    Raises:
        ValueError: no options, or a value that is not one of them.
    """
    allowed = list(options.values()) if isinstance(options, Mapping) else list(options)
    if value not in allowed:
        raise ValueError(f"value={value!r} is not one of the options {allowed!r}")
    return ipywidgets.Dropdown(options=options, value=value, description=label or "", style=_WHOLE_LABEL)


def toggle(*, value: bool, label: str | None = None) -> ipywidgets.Widget:
    """A check box."""
    return ipywidgets.Checkbox(value=value, description=label or "", indent=False, style=_WHOLE_LABEL)


def explorer(
    draw: Draw,
    *,
    caption: str,
    size: tuple[float | int, float | int] = (9, 3.6),
    **controls: Any,
) -> "Explorer":
    """A live figure. Set `explorer.controls["temperature"].value` to move it from Python.

    Args:
        draw: `draw(figure)` lays the figure out and returns its `update`, which takes the value of every control by
            name and returns the artists that it moved.
        caption: what there is to see.
        size: in inches of 100 pixels.
        controls: by name, made by `slider`, `choice` or `toggle`.

    Raises:
        ValueError: no control, a control that `update` does not take or one that it lacks, an `update` that
            returns no artist, an empty caption.
    """
    return Explorer(draw, caption=caption, size=size, controls=controls)


class Explorer(ipywidgets.VBox):
    """See `explorer`. `controls` is by name; `image.value` is the picture shown (PNG), `data` its tables."""

    def __init__(
        self,
        draw: Draw,
        *,
        caption: str,
        size: tuple[float | int, float | int],
        controls: Mapping[str, Any],
    ):
        caption = figures.checked_caption(caption)
        _check_controls(controls)
        self.controls = dict(controls)
        self._figure = BlittedFigure(_named_arguments(draw, controls), size=size)
        width, height = self._figure.pixels
        # The pixel size is fixed, so that the output never collapses while one picture replaces another.
        self.image = ipywidgets.Image(
            value=self._figure.png(self.values), format="png", width=str(width), height=str(height)
        )
        self.image.layout = ipywidgets.Layout(
            max_width="100%", height="auto", margin="2px 0", align_self="flex-start"
        )
        self._trouble = ipywidgets.HTML()
        self.data = spoken.Data(self._figure)
        for name, control in self.controls.items():
            control.description = control.description or name.replace("_", " ")
            control.layout.width = (
                f"calc(21rem + {len(control.description)}ch)"  # the label takes none of the track
            )
            control.layout.max_width, control.layout.margin = "100%", "2px 24px 2px 0"
            control.observe(self._on_move, names="value")
        super().__init__(
            [
                ipywidgets.Box(
                    list(self.controls.values()), layout=ipywidgets.Layout(flex_flow="row wrap", width="100%")
                ),
                self.image,
                self._trouble,
                ipywidgets.HTML(f"{_STYLE}<em>{escape(caption)}</em>"),
                self.data,
                spoken.Names(caption),
            ]
        )
        self.add_class("kd-explorer")

    @property
    def values(self) -> dict[str, Any]:
        """The value of every control, by name."""
        return {name: control.value for name, control in self.controls.items()}

    def _on_move(self, change: Any) -> None:
        try:
            self.image.value = self._figure.png(self.values)
        except Exception as error:
            # Jupyter hides what a widget's callback raises in a log: the reader must see it in the page.
            message = f"{type(error).__name__}: {error}"
            self._trouble.value = f'<strong role="alert">{escape(message)}</strong>'
            raise
        if self._trouble.value:
            self._trouble.value = ""
        self.data.refresh()

    def __repr__(self) -> str:
        names = ", ".join(control.description for control in self.controls.values())
        return f"{figures.INTERACTIVE} to move {names}."


def twin(
    draw: Draw,
    settings: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]],
    *,
    caption: str,
    columns: int = 3,
    size: tuple[float | int, float | int] = (4.2, 3.2),
) -> None:
    """Display the static twin of an explorer: one panel per setting, and the caption below.

    Args:
        draw: as for `explorer`.
        settings: a sequence of the values that a panel is drawn for, or a mapping from panel titles to such values.
        caption: what there is to see.
        columns: how many panels stand side by side at most.
        size: of one panel, in inches of 100 pixels.

    Raises:
        ValueError: no settings, fewer than one column, an empty caption, an `update` that returns no artist.
    """
    figures.show(small_multiples(draw, settings, columns=columns, size=size), caption)


def small_multiples(
    draw: Draw,
    settings: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]],
    *,
    columns: int,
    size: tuple[float | int, float | int],
) -> Figure:
    """The figure that `twin` displays."""
    if not settings:
        raise ValueError(f"settings={settings!r} is empty; give the values of at least one panel")
    if columns < 1:
        raise ValueError(f"columns={columns} must be at least 1")
    titled = settings if isinstance(settings, Mapping) else {_title(values): values for values in settings}
    columns = min(columns, len(titled))
    rows = math.ceil(len(titled) / columns)
    with figures.style():
        figure = Figure(figsize=(size[0] * columns, size[1] * rows))
        panels = figure.subfigures(rows, columns, squeeze=False, wspace=0.03, hspace=0.03).flat
        for panel, (title, values) in zip(panels, titled.items(), strict=False):  # the last row may be short
            moving_artists(start_drawing(_named_arguments(draw, values), panel), values)
            if not panel.get_suptitle():
                panel.suptitle(title, fontsize=figures.STYLE["axes.titlesize"], fontweight="bold")
    return figure


def strip(
    draw: Draw,
    *,
    caption: str,
    size: tuple[float | int, float | int] = (9, 3.6),
    **positions: Iterable,
) -> FrameStrip:
    """A figure of recorded results with one or two sliders, every position of which is drawn beforehand.

    The browser swaps ready pictures: the kernel is not asked when a slider moves, and need not even run.

    Args:
        draw: as for `explorer`.
        caption: what there is to see.
        size: in inches of 100 pixels.
        positions: the values at which each slider stops, by the name that `update` takes.

    Raises:
        ValueError: no slider or more than two, a slider with fewer than two positions, and as `explorer`.
    """
    stops = {name: list(values) for name, values in positions.items()}
    if len(stops) not in (1, 2):
        raise ValueError(f"a strip has one or two sliders, not {len(stops)} ({', '.join(stops) or 'none'})")
    for name, values in stops.items():
        if len(values) < 2:
            raise ValueError(f"{name}={values!r}: a slider needs at least two positions")
    figure = BlittedFigure(_named_arguments(draw, stops), size=size)
    return FrameStrip(figure, stops, figures.checked_caption(caption))


def _title(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} = {_written(value)}" for name, value in values.items())


def _written(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _check_controls(controls: Mapping[str, Any]) -> None:
    if not controls:
        raise ValueError("an explorer needs at least one control, such as temperature=slider(1, 20, value=4)")
    for name, control in controls.items():
        if not hasattr(control, "value"):
            raise ValueError(f"{name}={control!r} is not a control; make it with slider, choice or toggle")


def _named_arguments(draw: Draw, names: Iterable[str]) -> Draw:
    """The same `draw`, which checks that its `update` takes just these arguments."""

    def draw_and_check(figure):
        update = start_drawing(draw, figure)
        try:
            inspect.signature(update).bind(**dict.fromkeys(names))
        except TypeError as error:
            given = ", ".join(names)
            raise ValueError(
                f"update{inspect.signature(update)} cannot take the values of ({given}): {error}"
            ) from None
        return update

    return draw_and_check
