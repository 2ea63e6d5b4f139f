"""The gain over temperature and alpha: a picture that fills while its students are trained.

    rows = functools.partial(sweeps.iterate, "tiny-cnn", logits, split, validation,
                             temperatures=[1, 4], alphas=[0, 0.5, 1], seeds=range(3), epochs=20)
    surface.LiveSurface(rows, caption="...").show()

Where somebody watches, buttons start, stop and resume the sweep, which runs beside the kernel, so that other
cells go on working. Where nobody does, it runs to its end and leaves one still figure.
"""

import functools
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from html import escape
from pathlib import Path

import ipywidgets
import pandas
import torch
from IPython.display import display
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

import kdlib
from kdlib import _files
from kdlib.lesson import figures, live, spoken
from kdlib.lesson.canvas import BlittedFigure, Update
from kdlib.metrics import paired_interval
from kdlib.sweeps.journal import Row, describe

SIZE = (8.2, 5.0)
COLOURS = LinearSegmentedColormap.from_list(
    "gain", [figures.COLOURS["student"], "white", figures.COLOURS["teacher"]]
)
_NO_CACHE = "this user has no cache folder that can be written"
_GRID = ("temperatures", "alphas", "seeds")

Setting = tuple[float, float]


# ------------------------------------------------------------------ the picture


def gains(table: pandas.DataFrame, measured: str = "accuracy") -> dict[Setting, list[float]]:
    """For each (temperature, alpha) the differences to the control (alpha = 0) of the same seed, as fractions.

    A student whose control is not there yet has no gain.

    Args:
        table: the columns temperature, alpha, seed and `measured`. The control's temperature has no effect: one
            control a seed will do.
        measured: the column that is compared.
    """
    table = table.astype({"temperature": float, "alpha": float})
    control = table[table["alpha"] == 0].drop_duplicates("seed").set_index("seed")[measured]
    students = table[(table["alpha"] > 0) & table["seed"].isin(control.index)].sort_values("seed")
    difference = students[measured] - students["seed"].map(control)
    known = students.assign(gain=difference).dropna(subset="gain")
    return {setting: list(rows) for setting, rows in known.groupby(["temperature", "alpha"])["gain"]}


def covers_zero(differences: list[float]) -> bool:
    """Whether the paired 95 % interval has 0 in it, or is unknown for want of a second pair."""
    if len(differences) < 2:
        return True
    _, low, high = paired_interval(differences, [0.0] * len(differences))
    return low <= 0 <= high


def drawing(temperatures: list, alphas: list, limit: float | int) -> Callable[[FigureBase], Update]:
    """A `draw` for `kdlib.lesson.canvas`: its update takes `known`, as `gains` gives it, and `failed` settings.

    The colour is the mean gain, from -limit to limit in percentage points; a hatched cell's interval has zero in
    it. Below the mean stands half the width of the interval.
    """
    settings = [(t, a) for t in temperatures for a in alphas]

    def draw(figure: FigureBase) -> Update:
        axes = figure.subplots()
        axes.set(xlim=(-0.5, len(alphas) - 0.5), ylim=(-0.5, len(temperatures) - 0.5))
        axes.set(xlabel="alpha: the teacher's weight", ylabel="temperature")
        axes.set_title("hatched: the 95 % interval has zero in it", fontsize=11)
        axes.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        axes.set_yticks(range(len(temperatures)), [f"{temperature:g}" for temperature in temperatures])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        colour = ScalarMappable(Normalize(-limit, limit), COLOURS)
        bar = figure.colorbar(colour, ax=axes, extend="both", pad=0.02)
        bar.set_label("gain over labels only (points)")
        squares, words = {}, {}
        for t, a in settings:
            x, y = alphas.index(a), temperatures.index(t)
            square = Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, linewidth=0)
            squares[t, a] = axes.add_patch(square)
            outline = [withStroke(linewidth=3, foreground="white")]
            words[t, a] = axes.text(x, y, "", ha="center", va="center", fontsize=11, path_effects=outline)

        def update(*, known: Mapping[Setting, list[float]], failed: Mapping[Setting, str]) -> list:
            for setting in settings:
                points = [100 * gain for gain in known.get(setting, [])]
                square = squares[setting]
                square.set_facecolor(colour.to_rgba(sum(points) / len(points)) if points else "#EEEEEE")
                square.set_hatch("////" if points and covers_zero(points) else None)
                square.set_edgecolor(figures.COLOURS["muted"])
                words[setting].set_text("failed" if setting in failed else _written(points))
            return [*squares.values(), *words.values()]

        return update

    return draw


def _written(points: list[float]) -> str:
    if len(points) < 2:
        return f"{points[0]:+.1f}\n1 seed" if points else ""
    mean, low, _ = paired_interval(points, [0.0] * len(points))
    return f"{mean:+.1f}\n±{mean - low:.1f}"


def figure(
    tables: Mapping[str, pandas.DataFrame], *, measured: str = "accuracy", limit: float | int = 6
) -> Figure:
    """A still figure: a panel for each table, by its title, all in the same colours."""
    with figures.style():
        whole = Figure(figsize=(SIZE[0] * len(tables), SIZE[1]))
        panels = whole.subfigures(1, len(tables), squeeze=False).flat
        for panel, (title, table) in zip(panels, tables.items(), strict=True):
            students = table[table["alpha"] > 0]
            levels = (sorted(students[name].unique()) for name in ("temperature", "alpha"))
            drawing(*levels, limit)(panel)(known=gains(table, measured), failed={})
            panel.suptitle(title, fontsize=figures.STYLE["axes.titlesize"], fontweight="bold")
    return whole


# ------------------------------------------------------------------ the sweep beside it


class LiveSurface(ipywidgets.VBox):
    """The surface of a sweep that runs in a thread of its own.

    `table()` is what has been measured so far, `image.value` the picture (PNG), `running` says whether students
    are being trained.

    Args:
        rows: `kdlib.sweeps.iterate` with all its arguments but `results`, `stop` and `progress`; alphas with 0.
        caption: what there is to see.
        limit: where the colours end, in percentage points.
        results: the file of finished students, from which a stopped sweep goes on, also in another session. By
            default one in the user's cache folder, if it can be written, by the sweep's content.
        clock: gives seconds.

    Raises:
        ValueError: no alpha of 0, which is the control, or an empty caption.
    """

    def __init__(
        self,
        rows: functools.partial,
        *,
        caption: str,
        limit: float | int = 6,
        results: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.caption = figures.checked_caption(caption)
        temperatures, alphas, seeds = (list(rows.keywords[name]) for name in _GRID)
        if 0 not in alphas:
            raise ValueError(f"alphas={alphas!r} must have 0, the label-only control, in it")
        self.settings = temperatures, [alpha for alpha in alphas if alpha > 0], limit
        self.total = len(seeds) * (1 + len(temperatures) * (len(alphas) - 1))
        self.results = _results_file(rows) if results is None else results
        self.failed: dict[Setting, str] = {}
        self._rows, self._clock = rows, clock
        self._measured: dict[tuple, Row] = {}
        self._canvas: BlittedFigure | None = None
        self._drawing = threading.Lock()
        self._picture_is_due = False
        self._ending = "Press Start." if self.results else f"Press Start. Students are not kept: {_NO_CACHE}."
        self._thread: threading.Thread | None = None
        self.running = False
        self._stop = threading.Event()
        super().__init__()

    # ---------------------------------------------------------------- what is known

    def table(self) -> pandas.DataFrame:
        """The students measured so far: temperature (None for a control), alpha, seed, accuracy."""
        columns = ["temperature", "alpha", "seed", "accuracy"]
        return pandas.DataFrame(
            [[row[name] for name in columns] for row in list(self._measured.values())], columns=columns
        )

    @property
    def complete(self) -> bool:
        """Whether every student has been measured."""
        return len(self._measured) == self.total

    def figure(self) -> Figure:
        """A still figure of what has been measured so far."""
        with figures.style():
            still = Figure(figsize=SIZE)
            drawing(*self.settings)(still)(known=gains(self.table()), failed=self.failed)
        return still

    # ---------------------------------------------------------------- what is shown

    def show(self) -> None:
        """Display it: with buttons where somebody watches; elsewhere train all students first, from scratch."""
        if live.somebody_watches():
            self._lay_out()
            display(self)
            return
        self._take(self._rows(progress=False))
        figures.show(self.figure(), self.caption)
        for (temperature, alpha), error in self.failed.items():
            print(f"T = {temperature:g}, alpha = {alpha:g} failed: {error}")

    def _lay_out(self) -> None:
        place = self.results or self.caption
        previous = _shown.get(place)
        if previous is not None:  # the cell is run again: its picture is gone, and with it the way to stop it
            previous.stop()
        _shown[place] = self
        self._canvas = BlittedFigure(drawing(*self.settings), size=SIZE)
        width, height = self._canvas.pixels
        self.image = ipywidgets.Image(format="png", width=str(width), height=str(height))
        self.image.layout = ipywidgets.Layout(max_width="100%", height="auto", align_self="flex-start")
        self.start_button = ipywidgets.Button(button_style="primary")
        self.stop_button = ipywidgets.Button(description="Stop")
        self.again_button = ipywidgets.Button(description="Start over")
        self.start_button.on_click(lambda _: self.start())
        self.stop_button.on_click(lambda _: self.stop())
        self.again_button.on_click(lambda _: self.start_over())
        self.bar = ipywidgets.IntProgress(max=self.total)
        self.words = ipywidgets.HTML()
        buttons = [self.start_button, self.stop_button, self.again_button, self.bar, self.words]
        box = ipywidgets.Box(buttons, layout=ipywidgets.Layout(flex_flow="row wrap", align_items="center"))
        self.trouble = ipywidgets.HTML()
        self.data, words = spoken.Data(self._canvas), ipywidgets.HTML(f"<em>{escape(self.caption)}</em>")
        self.children = [box, self.image, self.trouble, words, self.data, spoken.Names(self.caption)]
        self.add_class("kd-explorer")
        self._refresh()

    def _refresh_soon(self) -> None:
        """A picture at most a few times a second, however close the rows come, and never without the last row."""
        if self._canvas is not None and not self._picture_is_due:
            self._picture_is_due = True
            threading.Timer(live.SECONDS_BETWEEN_PICTURES, self._refresh).start()

    def _refresh(self) -> None:
        with self._drawing:
            self._picture_is_due = False
            self._draw()

    def _draw(self) -> None:
        self.image.value = self._canvas.png({"known": gains(self.table()), "failed": self.failed})
        done, running = len(self._measured), self.running
        self.data.refresh()
        self.bar.value = done
        self.words.value = f"{done} of {self.total} students" if running else self._ending
        on_file = bool(self._measured) or (self.results is not None and self.results.exists())
        self.start_button.description = "Resume" if on_file and self.results is not None else "Start"
        self.start_button.disabled, self.stop_button.disabled = running or self.complete, not running
        self.again_button.disabled = running or not on_file
        self.trouble.value = "<br>".join(
            f'<strong role="alert">T = {t:g}, alpha = {a:g} failed: {escape(error)}</strong>'
            for (t, a), error in self.failed.items()
        )

    # ---------------------------------------------------------------- what the buttons do

    def start(self) -> None:
        """Train the students that are not on file yet. While it runs, a second start does nothing."""
        if self.running:
            return
        self._stop.clear()
        self.failed.clear()
        try:
            rows = self._rows(results=self.results, stop=self._stop, progress=False)
        except (ValueError, OSError) as error:
            self.trouble.value = f'<strong role="alert">{escape(str(error))}</strong>'
            return
        self.running = True
        self._thread = threading.Thread(target=self._run, args=(rows,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the sweep and its workers; what is finished stays on file. Returns once it has ended."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def start_over(self) -> None:
        """Forget what is on file, and start."""
        self.stop()
        if self.results is not None:
            self.results.unlink(missing_ok=True)
        self._measured.clear()
        self.start()

    def _run(self, rows: Iterator[Row]) -> None:
        """In the thread: take the rows, and say how it ended."""
        started = self._clock()
        self._refresh()
        try:
            self._take(rows)
        except Exception as error:  # nobody else would see what is raised in a thread
            self._ending = f'<strong role="alert">{escape(f"{type(error).__name__}: {error}")}</strong>'
        else:
            count = f"{len(self._measured)} of {self.total} students"
            ended = "stopped" if self._stop.is_set() else "done"
            self._ending = f"{count}, {ended} after {self._clock() - started:.0f} s"
        self.running = False
        self._refresh()

    def _take(self, rows: Iterator[Row]) -> None:
        for row in rows:
            if "error" in row:
                self.failed[row["temperature"], row["alpha"]] = row["error"]
                continue
            temperature = row["temperature"] if row["alpha"] else None
            self._measured[temperature, row["alpha"], row["seed"]] = row | {"temperature": temperature}
            self._refresh_soon()

    def __repr__(self) -> str:
        return f"{figures.INTERACTIVE} and press Start."


_shown: dict[Path | str, LiveSurface] = {}


def _results_file(rows: functools.partial) -> Path | None:
    """A file for this sweep: the same grid may grow or shrink, all else decides the name.

    None where the user has no cache folder that can be written: the sweep then runs, and is not kept.
    """
    settings = {name: value for name, value in rows.keywords.items() if name not in _GRID}
    content = describe([rows.func, *rows.args, settings, kdlib.__version__, torch.__version__])
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    folder = _files.cache_folder()
    try:
        return None if folder is None else _files.writable_folder(folder / "sweeps") / f"{digest}.jsonl"
    except OSError:
        return None
