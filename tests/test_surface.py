"""The live surface: what it draws, and that stop, resume and a second start do what their names say."""

import functools
import threading

import numpy as np
import pandas
import pytest
import torch

from kdlib import data, sweeps
from kdlib.lesson import live, surface
from kdlib.metrics import paired_interval

GRID = {"temperatures": [2.0, 8.0], "alphas": [0, 0.5, 1.0], "seeds": [0, 1, 2]}


@pytest.fixture(autouse=True)
def outputs(monkeypatch):
    """What is displayed."""
    shown = []
    for module in (surface, surface.figures):
        monkeypatch.setattr(module, "display", lambda data, **rest: shown.append(data))
    return shown


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(live, "somebody_watches", lambda: True)


@pytest.fixture(scope="module")
def students():
    """The arguments of a real sweep, over in a second."""
    dataset = data.load()
    split, test = dataset.train.take(60), dataset.test.take(100)
    logits = 8.0 * torch.nn.functional.one_hot(split.labels, 10).float()
    return functools.partial(
        sweeps.iterate, "tiny-cnn", logits, split, test, epochs=1, workers=0, batch_size=20, **GRID
    )


@pytest.fixture(scope="module")
def expected(students):
    rows = pandas.DataFrame(students(progress=False))
    rows.loc[rows["alpha"] == 0, "temperature"] = np.nan
    return ordered(rows.drop_duplicates(["temperature", "alpha", "seed"]))


def ordered(table):
    names = ["temperature", "alpha", "seed"]
    return table[[*names, "accuracy"]].sort_values(names, ignore_index=True)


def same(table, other):
    pandas.testing.assert_frame_equal(ordered(table), other, check_dtype=False, check_exact=True)


def made_up(accuracy, *, results=None, stop=None, progress=True, temperatures, alphas, seeds):
    """Rows of a sweep whose accuracies are a function of the setting; an exception becomes an error."""
    for temperature in temperatures:
        for alpha in alphas:
            for seed in seeds:
                row = {"temperature": temperature, "alpha": alpha, "seed": seed}
                try:
                    yield row | {"accuracy": accuracy(temperature, alpha, seed)}
                except ArithmeticError as error:
                    yield row | {"error": str(error)}


def invented(accuracy):
    return surface.LiveSurface(functools.partial(made_up, accuracy, **GRID), caption="A surface.")


# --- the picture


def drawn(live_surface):
    """Hatch and words of each cell."""
    axes = live_surface.figure().axes[0]
    return {
        text.get_position(): (square.get_hatch(), text.get_text())
        for square, text in zip(axes.patches, axes.texts, strict=True)
    }


def test_a_gain_is_the_difference_to_the_control_of_its_seed():
    table = pandas.DataFrame(
        [[1.0, 0.0, 0, 0.5], [1.0, 0.0, 1, 0.7], [4.0, 0.5, 1, 0.75], [4.0, 0.5, 0, 0.6], [4.0, 1.0, 9, 0.9]],
        columns=["temperature", "alpha", "seed", "accuracy"],
    )
    assert surface.gains(table) == {(4.0, 0.5): pytest.approx([0.1, 0.05])}  # seed 9 has no control
    assert surface.gains(table.iloc[:0]) == {}


@pytest.mark.parametrize(
    ("differences", "covered"),
    [([], True), ([0.1], True), ([0.1, 0.11, 0.12], False), ([-0.1, -0.11], False), ([-0.1, 0.1, 0.0], True)],
)
def test_an_interval_covers_zero_or_does_not(differences, covered):
    assert surface.covers_zero(differences) is covered


def test_cells_whose_interval_covers_zero_are_hatched(capsys):
    def accuracy(temperature, alpha, seed):
        scatter = 0.01 * (seed - 1)  # -0.01, 0, 0.01
        return 0.7 + (alpha > 0) * (scatter + (0.05 if temperature == 8 else 0.002))

    live_surface = invented(accuracy)
    live_surface.show()
    cells = drawn(live_surface)
    half = paired_interval([-1.0, 0.0, 1.0], [0.0] * 3).high
    assert cells == {
        (0, 0): ("////", f"+0.2\n±{half:.1f}"), (1, 0): ("////", f"+0.2\n±{half:.1f}"),
        (0, 1): (None, f"+5.0\n±{half:.1f}"), (1, 1): (None, f"+5.0\n±{half:.1f}"),
    }  # fmt: skip


def test_a_cell_that_fails_is_shown_and_spares_the_rest(capsys):
    def accuracy(temperature, alpha, seed):
        if (temperature, alpha) == (8, 0.5):
            raise ArithmeticError("the loss is nan")
        return 0.7 + 0.1 * alpha

    live_surface = invented(accuracy)
    live_surface.show()
    assert drawn(live_surface)[0, 1] == (None, "failed")
    assert drawn(live_surface)[1, 1] == (None, "+10.0\n±0.0")
    assert "T = 8, alpha = 0.5 failed: the loss is nan" in capsys.readouterr().out
    assert not live_surface.complete


def test_a_still_figure_has_a_panel_for_each_table(expected):
    both = surface.figure({"here": expected, "recorded": expected})
    assert [panel.get_suptitle() for panel in both.subfigs] == ["here", "recorded"]


def test_a_sweep_without_a_control_is_refused():
    rows = functools.partial(made_up, None, temperatures=[1], alphas=[0.5], seeds=[0])
    with pytest.raises(ValueError, match=r"alphas=\[0.5\] must have 0, the label-only control"):
        surface.LiveSurface(rows, caption="A surface.")


# --- where nobody watches


def test_it_fills_to_the_end_and_leaves_one_figure(students, expected, outputs, tmp_path):
    live_surface = surface.LiveSurface(students, caption="A surface.", results=tmp_path / "rows.jsonl")
    live_surface.show()
    same(live_surface.table(), expected)
    assert live_surface.complete and live_surface.total == 15
    picture, caption, data = outputs
    assert "image/png" in picture and caption["text/markdown"] == "*Figure: A surface.*"
    assert "<table" in data["text/html"]
    assert not live_surface.results.exists()  # what is shown was trained here and now


# --- where somebody watches


def stopping_after(count, students):
    """The sweep, with somebody who presses Stop after so many rows."""

    def rows(*arguments, stop, temperatures, alphas, seeds, **options):
        grid = {"temperatures": temperatures, "alphas": alphas, "seeds": seeds}
        for number, row in enumerate(sweeps.iterate(*arguments, stop=stop, **grid, **options), start=1):
            yield row
            if number == count:
                stop.set()

    return functools.partial(rows, *students.args, **students.keywords)


def finish(live_surface):
    live_surface._thread.join()


def test_stop_and_resume_end_with_the_same_table(students, expected, watched, outputs, tmp_path):
    results = tmp_path / "rows.jsonl"
    first = surface.LiveSurface(stopping_after(5, students), caption="A surface.", results=results)
    first.show()
    assert outputs == [first]
    assert first.start_button.description == "Start" and first.stop_button.disabled
    first.start_button.click()
    finish(first)
    stopped = len(first.table())
    assert 0 < stopped < 15 and "stopped" in first.words.value and first.bar.value == stopped
    empty = surface.LiveSurface(students, caption="A surface.", results=results)  # the cell is run again
    empty.show()
    assert empty.start_button.description == "Resume" and len(empty.table()) == 0
    empty.start_button.click()
    finish(empty)
    same(empty.table(), expected)
    assert "done" in empty.words.value and empty.start_button.disabled
    empty.again_button.click()
    finish(empty)
    same(empty.table(), expected)


class Held:
    """A sweep of made-up rows that waits, after three rows, until it is stopped."""

    def __init__(self):
        self.begun, self.starts = threading.Event(), 0

    def __call__(self, *, results, stop, progress, **grid):
        self.starts += 1
        for seed in range(3):
            yield {"temperature": 2.0, "alpha": 0.0, "seed": seed, "accuracy": 0.7}
        self.begun.set()
        stop.wait()


def held(tmp_path):
    sweep = Held()
    live_surface = surface.LiveSurface(
        functools.partial(sweep, **GRID), caption="A surface.", results=tmp_path / "rows.jsonl"
    )
    live_surface.show()
    live_surface.start_button.click()
    sweep.begun.wait()
    return sweep, live_surface


def test_a_second_start_does_nothing_while_it_runs(watched, tmp_path):
    sweep, live_surface = held(tmp_path)
    assert live_surface.start_button.disabled and not live_surface.stop_button.disabled
    live_surface.start()
    assert sweep.starts == 1
    live_surface.stop_button.click()
    assert not live_surface.running and len(live_surface.table()) == 3


def test_running_the_cell_again_stops_the_sweep_before(watched, tmp_path):
    _, live_surface = held(tmp_path)
    again = surface.LiveSurface(
        functools.partial(Held(), **GRID), caption="A surface.", results=tmp_path / "rows.jsonl"
    )
    again.show()
    assert not live_surface.running and not again.running


def test_what_goes_wrong_is_said_in_the_page(watched, students, tmp_path):
    results = tmp_path / "rows.jsonl"
    results.write_text("something else\n")
    live_surface = surface.LiveSurface(students, caption="A surface.", results=results)
    live_surface.show()
    live_surface.start_button.click()
    assert "is not a file of a sweep" in live_surface.trouble.value
    live_surface.again_button.click()  # which takes the file away
    finish(live_surface)
    assert live_surface.complete


def test_an_exception_in_the_thread_is_said_in_the_page(watched, tmp_path):
    def broken(*, results, stop, progress, **grid):
        yield {"temperature": 2.0, "alpha": 0.0, "seed": 0, "accuracy": 0.7}
        raise OSError("the disk is <full>")

    live_surface = surface.LiveSurface(
        functools.partial(broken, **GRID), caption="A surface.", results=tmp_path / "rows.jsonl"
    )
    live_surface.show()
    live_surface.start()
    finish(live_surface)
    assert "OSError: the disk is &lt;full&gt;" in live_surface.words.value
    assert not live_surface.running and not live_surface.start_button.disabled


def test_the_last_row_is_drawn_while_the_sweep_goes_on(watched, tmp_path):
    live_surface = surface.LiveSurface(
        functools.partial(Held(), **GRID), caption="A surface.", results=tmp_path / "rows.jsonl"
    )
    live_surface.show()
    drawn_three = threading.Event()
    live_surface.bar.observe(lambda change: drawn_three.set() if change.new == 3 else None, names="value")
    live_surface.start()
    drawn_three.wait()
    assert live_surface.running and live_surface.words.value == "3 of 15 students"
    live_surface.stop()


def test_rows_that_come_together_are_one_picture(watched, tmp_path, monkeypatch):
    timers = []

    class Timer:
        def __init__(self, seconds, function):
            timers.append(seconds)

        def start(self):
            """The time does not pass in this test."""

    monkeypatch.setattr(surface.threading, "Timer", Timer)
    live_surface = surface.LiveSurface(
        functools.partial(made_up, lambda *setting: 0.7, **GRID), caption="A surface.",
        results=tmp_path / "rows.jsonl",
    )  # fmt: skip
    live_surface.show()
    live_surface.start()
    finish(live_surface)
    assert timers == [live.SECONDS_BETWEEN_PICTURES] and live_surface.bar.value == 15


def test_each_sweep_has_a_file_of_its_own_and_a_larger_grid_the_same(students):
    def file_of(**changes):
        return surface.LiveSurface(functools.partial(students, **changes), caption="A surface.").results

    assert file_of() == file_of(seeds=range(5), temperatures=[1.0])
    assert file_of() != file_of(epochs=2)
    assert not file_of().exists()
