"""Sweeps: what a table says, that workers change nothing, and that no stop loses more than what was running."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pandas
import pytest
import torch
from torch import nn

from kdlib import data, metrics, models, sweeps, training
from kdlib.data.augment import random_crop_flip
from kdlib.inference import predict_logits
from kdlib.sweeps import mapping
from kdlib.sweeps.trainer import StudentTrainer, even_groups

CHECKOUT = Path(__file__).parents[1]
GRID = {"temperatures": [2.0, 4.0], "alphas": [0.0, 0.9], "seeds": [0, 1, 2]}


@pytest.fixture(scope="module")
def split() -> data.ImageSplit:
    return data.load().train.take(60)


@pytest.fixture(scope="module")
def test() -> data.ImageSplit:
    return data.load().test.take(50)


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    return models.build("resnet8", seed=0)


@pytest.fixture
def logits():
    return torch.randn(60, 10, generator=torch.Generator().manual_seed(0))


def square(number, scale=1):
    """A cell to be computed in tests."""
    if number == 13:
        raise ValueError("thirteen is out")
    return {"square": scale * number**2}


def vanish(number):
    """A cell that takes its process with it, as a crash in compiled code does."""
    if number == 2:
        os._exit(7)
    return {"same": number}


def same(table: pandas.DataFrame, other: pandas.DataFrame) -> None:
    """Equal in everything but the time that it took."""
    pandas.testing.assert_frame_equal(
        table.drop(columns="seconds"), other.drop(columns="seconds"), check_exact=True
    )


# --- cells


def numbers(*values):
    return [{"number": value} for value in values]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_table_has_the_cells_in_order_with_their_results(workers):
    table = sweeps.map_cells(square, numbers(3, 1, 2), shared={"scale": 10}, workers=workers, progress=False)
    assert table.to_dict("list") == {"number": [3, 1, 2], "square": [90, 10, 40]}


def test_functions_of_a_notebook_or_prompt_reach_the_workers():
    offset = 5
    table = sweeps.map_cells(
        lambda number: {"sum": number + offset}, numbers(1, 2), workers=2, progress=False
    )
    assert list(table["sum"]) == [6, 7]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failing_cell_reports_its_settings_and_spares_the_rest(workers):
    with pytest.warns(RuntimeWarning, match=r"\{'number': 13\} failed(?s:.*)Traceback(?s:.*)thirteen is out"):
        table = sweeps.map_cells(square, numbers(13, 1, 2), workers=workers, progress=False)
    assert list(table.columns) == ["number", "square", "error"]
    assert math.isnan(table["square"][0]) and list(table["square"][1:]) == [1, 4]
    assert table["error"][0] == "ValueError: thirteen is out"


def test_a_cell_that_kills_its_process_fails_alone():
    with pytest.warns(RuntimeWarning, match=r"\{'number': 2\} failed"):
        table = sweeps.map_cells(vanish, numbers(1, 2, 3, 4, 5), workers=2, progress=False)
    assert table["same"].isna().tolist() == [False, True, False, False, False]


def test_where_every_cell_fails_the_error_is_raised():
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(RuntimeError, match="all 1 cells failed.*thirteen is out"),
    ):
        sweeps.map_cells(square, numbers(13), workers=0, progress=False)


def test_closing_the_iterator_leaves_out_what_has_not_started():
    started = []

    def note(number):
        started.append(number)
        return {}

    rows = sweeps.iterate_cells(note, numbers(*range(9)), workers=0, progress=False)
    assert [next(rows), next(rows)] == numbers(0, 1)
    rows.close()
    assert started == [0, 1]


def test_closing_the_iterator_ends_the_workers_in_the_middle_of_a_cell(tmp_path):
    """The second cell would take an hour."""

    def linger(number):
        (tmp_path / str(os.getpid())).touch()
        time.sleep(3600 * (number > 0))
        return {}

    rows = sweeps.iterate_cells(linger, numbers(0, 1, 2), workers=2, progress=False)
    assert next(rows) == {"number": 0}
    rows.close()
    for path in tmp_path.iterdir():
        assert not alive(int(path.name))


def test_an_event_ends_the_sweep_in_the_middle_of_a_cell(tmp_path):
    """The second cell would take an hour."""

    def linger(group):
        (tmp_path / str(os.getpid())).touch()
        time.sleep(3600 * (group[0]["number"] > 0))
        return [{}]

    stop = threading.Event()
    groups = [[cell] for cell in numbers(0, 1, 2)]
    options = {"workers": 2, "client": None, "results": None, "progress": False}
    rows = mapping.iterate_groups(linger, groups, settings={}, stop=stop, **options)
    assert next(rows) == {"number": 0}
    stop.set()
    assert list(rows) == []
    for path in tmp_path.iterdir():
        assert not alive(int(path.name))


def test_what_has_finished_is_not_lost_when_the_sweep_is_stopped(split, teacher, test):
    stop = threading.Event()
    rows = sweeps.iterate(
        "tiny-cnn", teacher, split, test, epochs=1, workers=0, progress=False, stop=stop, **GRID
    )
    first = next(rows)
    stop.set()
    assert len([first, *rows]) == 7  # a group of four, of which three controls stand for two temperatures


def test_progress_counts_cells(capsys):
    seen = []
    sweeps.map_cells(
        square, numbers(1, 2), workers=0, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 2), (2, 2)]
    sweeps.map_cells(square, numbers(1, 2), workers=0)
    assert capsys.readouterr().out == "2 cells done\n"


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        ([], {}, "cells must not be empty"),
        (numbers(1, 1.0), {}, r"cells must differ, got \{'number': 1.0\} twice"),
        ([{"number": 1}, {"other": 1}], {}, "cells must have the same settings"),
        (numbers([1]), {}, r"plain values by name, got number=\[1\] of type list"),
        (numbers(1), {"workers": -1}, "workers must be a whole number of at least 0, got -1"),
        (numbers(1), {"workers": 2, "client": object()}, "workers=2 has no meaning with a client"),
    ],
)
def test_bad_cells_are_refused_before_anything_runs(cells, options, message):
    with pytest.raises(ValueError, match=message):
        sweeps.iterate_cells(square, cells, **options)


@pytest.mark.parametrize(
    ("result", "message"),
    [(3, "must return a dict"), ({"a": [1]}, "plain values"), ({"number": 2}, "names of settings")],
)
def test_what_a_cell_may_not_return(result, message):
    with pytest.warns(RuntimeWarning, match=message), pytest.raises(RuntimeError, match=message):
        sweeps.map_cells(lambda number: result, numbers(1), workers=0, progress=False)


def test_scalars_of_numpy_and_torch_are_plain():
    def scalars(number):
        return {"numpy": pandas.Series([1.5]).mean(), "torch": torch.tensor(2)}

    table = sweeps.map_cells(scalars, [{"number": torch.tensor(1)}], workers=0, progress=False)
    assert table.to_dict("records") == [{"number": 1, "numpy": 1.5, "torch": 2}]


# --- the file of results


def counted(path, function=square):
    """`function`, noting every call in a file."""

    def call(number):
        with open(path, "a") as file:
            file.write(f"{number}\n")
        return function(number)

    return call


def test_rows_on_file_are_not_computed_again(tmp_path):
    file, calls = tmp_path / "rows.jsonl", tmp_path / "calls"
    call = counted(calls)
    first = sweeps.map_cells(call, numbers(1, 2), workers=0, results=file, progress=False)
    more = sweeps.map_cells(call, numbers(3, 2, 1), workers=0, results=file, progress=False)
    assert calls.read_text() == "1\n2\n3\n"
    assert first.to_dict("list") == {"number": [1, 2], "square": [1, 4]}
    assert more.to_dict("list") == {"number": [3, 2, 1], "square": [9, 4, 1]}


def test_a_failed_cell_is_tried_again(tmp_path):
    file, broken = tmp_path / "rows.jsonl", tmp_path / "broken"
    broken.touch()

    def moody(number):
        if broken.exists() and number == 1:
            raise OSError("no luck")
        return {"ok": True}

    with pytest.warns(RuntimeWarning, match="no luck"):
        sweeps.map_cells(moody, numbers(1, 2), workers=0, results=file, progress=False)
    broken.unlink()
    table = sweeps.map_cells(moody, numbers(1, 2), workers=0, results=file, progress=False)
    assert table.to_dict("list") == {"number": [1, 2], "ok": [True, True]}


@pytest.mark.parametrize("torn", [b'{"number": 2, "squ', b'{"number": 2, "square": 4}', b"\x00\x00"])
def test_a_torn_last_line_is_computed_again(tmp_path, torn):
    file, calls = tmp_path / "rows.jsonl", tmp_path / "calls"
    call = counted(calls)
    expected = sweeps.map_cells(call, numbers(1), workers=0, results=file, progress=False)
    whole = file.read_bytes()
    file.write_bytes(whole + torn)
    sweeps.map_cells(call, numbers(1, 2), workers=0, results=file, progress=False)
    assert calls.read_text() == "1\n2\n"
    assert [json.loads(line) for line in file.read_bytes().removeprefix(whole).splitlines()] == [
        {"number": 2, "square": 4}
    ]
    assert len(expected) == 1


def test_the_file_of_another_sweep_is_refused_and_kept(tmp_path):
    file = tmp_path / "rows.jsonl"
    sweeps.map_cells(square, numbers(1), shared={"scale": 1}, workers=0, results=file, progress=False)
    content = file.read_bytes()
    with pytest.raises(ValueError, match=r"another sweep: it has shared=\{'scale': 1\}, this call"):
        sweeps.map_cells(square, numbers(1), shared={"scale": 2}, workers=0, results=file, progress=False)
    with pytest.raises(ValueError, match="another sweep: it has function='test_sweeps.square"):
        sweeps.map_cells(vanish, numbers(1), shared={"scale": 1}, workers=0, results=file, progress=False)
    assert file.read_bytes() == content


@pytest.mark.parametrize("content", [b"number,square\n1,1\n", b"[]\n", b'{"sweep": {}}\n{"torn\n{"a": 1}\n'])
def test_a_file_of_something_else_is_refused_and_kept(tmp_path, content):
    file = tmp_path / "rows.csv"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is not a file of a sweep, or is damaged"):
        sweeps.map_cells(square, numbers(1), workers=0, results=file, progress=False)
    assert file.read_bytes() == content


# --- a grid of students


@pytest.fixture(scope="module")
def table(split, teacher, test):
    return sweeps.run("tiny-cnn", teacher, split, test, epochs=2, workers=2, progress=False, **GRID)


def test_every_setting_asked_for_has_a_row(table):
    expected = [(t, a, s) for t in GRID["temperatures"] for a in GRID["alphas"] for s in GRID["seeds"]]
    assert list(table[["temperature", "alpha", "seed"]].itertuples(index=False, name=None)) == expected
    names = ["temperature", "alpha", "seed", "accuracy", "ece", "agreement", "seconds"]
    assert list(table.columns) == names
    for name in names[3:6]:
        assert table[name].between(0, 1).all()
    assert (table["seconds"] > 0).all()


def test_the_precision_is_measured_and_recorded(table, split, teacher, test, tmp_path, monkeypatch):
    assert table.attrs["precision"] in ("float32", "bfloat16")
    for faster, chosen in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("kdlib.sweeps.trainer.bfloat16_is_faster", lambda *_, answer=faster: answer)
        options = {"epochs": 1, "workers": 0, "progress": False, "results": tmp_path / chosen}
        grid = {"temperatures": [2.0], "alphas": [0.9], "seeds": [0]}
        first = sweeps.run("tiny-cnn", teacher, split, test, **grid, **options)
        monkeypatch.setattr("kdlib.sweeps.trainer.bfloat16_is_faster", lambda *_, answer=not faster: answer)
        again = sweeps.run("tiny-cnn", teacher, split, test, **grid, **options)  # goes on from the file
        asked = sweeps.run("tiny-cnn", teacher, split, test, bfloat16=faster, **grid, **options)
        assert first.attrs["precision"] == again.attrs["precision"] == asked.attrs["precision"] == chosen


def test_the_control_is_trained_once_a_seed(table):
    control = table[table.alpha == 0].drop(columns="temperature")
    first, second = control[:3].reset_index(drop=True), control[3:].reset_index(drop=True)
    pandas.testing.assert_frame_equal(first, second, check_exact=True)  # the time included
    assert first["accuracy"].nunique() > 1


def test_workers_change_nothing(table, split, teacher, test):
    alone = sweeps.run("tiny-cnn", teacher, split, test, epochs=2, workers=0, progress=False, **GRID)
    same(alone, table)


def test_a_cell_does_not_depend_on_the_grid_around_it(table, split, teacher, test):
    one = sweeps.run(
        "tiny-cnn", teacher, split, test, epochs=2, workers=0, progress=False,
        temperatures=[4], alphas=[0.9], seeds=[1],
    )  # fmt: skip
    expected = table[(table.temperature == 4) & (table.alpha == 0.9) & (table.seed == 1)]
    same(one, expected.reset_index(drop=True))


def lone_student(build, teacher_logits, split, test, test_logits, *, temperature, alpha, seed):
    """What a row should say, without any of the machinery of a sweep."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    student = build()
    training.distill(
        student, teacher_logits, split, temperature=temperature, alpha=alpha, seed=seed, epochs=2,
        progress=False, device="cpu",
    )  # fmt: skip
    logits = predict_logits(student, test, device="cpu")
    torch.set_num_threads(threads)
    return {
        "accuracy": metrics.accuracy(logits, test),
        "ece": metrics.calibration_error(logits, test),
        "agreement": metrics.agreement(logits, test_logits, test),
    }


class WithDropout(nn.Sequential):
    """Cannot be grouped, because every student draws its own random numbers."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 10))


def test_students_that_cannot_be_grouped_are_trained_alone(split, teacher, test):
    table = sweeps.run(WithDropout, teacher, split, test, epochs=2, workers=2, progress=False, **GRID)
    logits, test_logits = (predict_logits(teacher, images, device="cpu") for images in (split, test))
    for row in table.to_dict("records"):
        settings = {name: row[name] for name in ("temperature", "alpha", "seed")}
        expected = lone_student(WithDropout, logits, split, test, test_logits, **settings)
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_the_control_is_training_on_labels(split, teacher, test):
    [accuracy] = sweeps.run(
        WithDropout, teacher, split, test, epochs=2, workers=0, progress=False,
        temperatures=[4.0], alphas=[0], seeds=[3],
    )["accuracy"]  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(3)
    student = WithDropout()
    training.train(student, split, epochs=2, seed=3, progress=False, device="cpu")
    torch.set_num_threads(threads)
    assert accuracy == metrics.accuracy(predict_logits(student, test, device="cpu"), test)


@pytest.mark.parametrize(
    ("name", "augment", "together"),
    [("tiny-cnn", None, True), ("resnet56", None, False), ("tiny-cnn", random_crop_flip(), False)],
)
def test_small_plain_students_are_trained_together(name, augment, together, split, test, logits):
    from kdlib.training.loop import Recipe

    recipe = Recipe(2, 32, 6e-3, 1e-2, seed=0, bfloat16=False, augment=augment)
    students = StudentTrainer(lambda: models.build(name), logits, split, test, None, recipe)
    assert students.can_be_grouped() is together


@pytest.mark.parametrize(
    ("cells", "processes", "sizes"),
    [(78, 2, [7, 8, 8, 8, 8, 7, 8, 8, 8, 8]), (6, 2, [3, 3]), (1, 2, [1]), (9, 1, [4, 5]), (3, 4, [1, 1, 1])],
)
def test_groups_are_even_and_busy_every_process(cells, processes, sizes):
    groups = even_groups(numbers(*range(cells)), processes, most=8)
    assert [len(group) for group in groups] == sizes
    assert [cell for group in groups for cell in group] == numbers(*range(cells))


def test_augmented_students_have_a_live_teacher(split, teacher, test):
    options = {"temperatures": [4.0], "alphas": [0.9], "seeds": [0], "epochs": 2, "workers": 0}
    plain = sweeps.run("tiny-cnn", teacher, split, test, progress=False, **options)
    moved = sweeps.run(
        "tiny-cnn", teacher, split, test, augment=random_crop_flip(), progress=False, **options
    )
    assert moved["ece"][0] != plain["ece"][0]


def test_a_teacher_of_logits_agrees_where_its_test_logits_are_known(split, test, logits):
    options = {"temperatures": [4.0], "alphas": [1.0], "seeds": [0], "epochs": 1, "workers": 0}
    unknown = sweeps.run("tiny-cnn", logits, split, test, progress=False, **options)
    known = sweeps.run(
        "tiny-cnn", logits, split, test, test_logits=torch.eye(10)[test.labels], progress=False, **options
    )
    assert unknown["agreement"].isna().all()
    assert known["agreement"][0] == known["accuracy"][0] == unknown["accuracy"][0]


def test_rows_come_as_students_finish_and_controls_first(split, teacher, test):
    rows = sweeps.iterate("tiny-cnn", teacher, split, test, epochs=1, workers=0, progress=False, **GRID)
    first = [next(rows) for _ in range(6)]
    assert [(row["temperature"], row["alpha"]) for row in first] == [(2.0, 0.0), (4.0, 0.0)] * 3
    rows.close()


def test_a_student_that_diverges_spares_its_companions(split, teacher, test):
    with pytest.warns(RuntimeWarning, match="'temperature': 1e.20.*failed"):
        table = sweeps.run(
            "tiny-cnn", teacher, split, test, epochs=1, workers=0, progress=False,
            temperatures=[4.0, 1e20], alphas=[1.0], seeds=[0, 1],
        )  # fmt: skip
    assert table["accuracy"].isna().tolist() == [False, False, True, True]
    assert table["error"][2].startswith("FloatingPointError: the loss is")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperatures": []}, "temperatures must not be empty"),
        ({"temperatures": [0]}, r"temperatures\[0\] must be above 0, got 0"),
        ({"alphas": [0.5, 1.5]}, r"alphas\[1\] must be in \[0, 1\], got 1.5"),
        ({"seeds": [1, 1]}, "seeds must not hold a value twice"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"student": "tiny-cn"}, "unknown model 'tiny-cn'"),
        ({"student": lambda: 3}, "student must build a torch.nn.Module, got int"),
        ({"student": lambda: models.build("tiny-cnn", num_classes=7)}, r"\(batch, 7\), teacher logits"),
        ({"teacher": torch.zeros(59, 10)}, r"each of the 60 images, got shape \(59, 10\)"),
        ({"teacher": torch.zeros(60, 10), "test_logits": torch.zeros(5, 10)}, "each of the 50 images"),
        ({"test_logits": torch.zeros(50, 10)}, "this teacher is a module"),
        ({"teacher": torch.zeros(60, 10), "augment": random_crop_flip()}, "augment needs the teacher module"),
        ({"workers": -1}, "workers must be"),
    ],
)
def test_bad_arguments_are_refused_before_anything_starts(change, message, split, teacher, test):
    arguments = {"student": "tiny-cnn", "teacher": teacher, "split": split, "test": test, "epochs": 1}
    with pytest.raises(ValueError, match=message):
        sweeps.iterate(**arguments | GRID | change)


def test_a_network_is_no_builder(split, teacher, test):
    network = models.build("tiny-cnn")
    with pytest.raises(ValueError, match="student must build a new network at each call"):
        sweeps.iterate(lambda: network, teacher, split, test, epochs=1, **GRID)
    with pytest.raises(ValueError, match="student must be a name or a function that builds a network"):
        sweeps.iterate(network, teacher, split, test, epochs=1, **GRID)


# --- stops


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_for(condition, process=None, seconds=600):
    """Until the condition holds, or the process that is to bring it about has ended without doing so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


SWEEP = """
    import sys
    import torch
    from kdlib import data, sweeps
    torch.manual_seed(0)
    dataset = data.load()
    table = sweeps.run(
        "tiny-cnn", torch.randn(60, 10), dataset.train.take(60), dataset.test.take(50),
        temperatures=[1, 2, 4, 8], alphas=[0, .5, 1], seeds=range(4), epochs=2, workers=2, progress=False,
        results=sys.argv[1],
    )
    table.drop(columns="seconds").to_csv(sys.argv[2])
"""


def start(script, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=CHECKOUT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


def members_of(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(path.name)) == session and alive(int(path.name)):
                found.append(int(path.name))
        except (ProcessLookupError, FileNotFoundError):
            continue  # ended while we looked
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
def test_a_sweep_killed_three_times_ends_as_an_uninterrupted_one(tmp_path, monkeypatch):
    """Killed once before the first row and twice between rows; no worker outlives its parent for long.

    It takes as long as it takes to import PyTorch in eight processes.
    """
    whole, resumed, rows = tmp_path / "whole.csv", tmp_path / "resumed.csv", tmp_path / "rows.jsonl"
    monkeypatch.setattr(sys, "argv", ["", tmp_path / "whole.jsonl", whole])
    exec(textwrap.dedent(SWEEP), {})
    for lines in (1, 2, 20):
        process = start(SWEEP, rows, resumed)
        wait_for(lambda enough=lines: rows.exists() and rows.read_bytes().count(b"\n") >= enough, process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        wait_for(lambda session=process.pid: not members_of(session))
    finish(start(SWEEP, rows, resumed))
    assert resumed.read_text() == whole.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
def test_an_interrupt_ends_the_sweep_at_once_and_leaves_the_rows(tmp_path):
    script = """
        import sys, time
        from kdlib import sweeps
        def linger(number):
            time.sleep(3600 * (number > 1))
            return {}
        cells = [{"number": number} for number in range(9)]
        sweeps.map_cells(linger, cells, workers=2, results=sys.argv[1], progress=False)
    """
    rows = tmp_path / "rows.jsonl"
    process = start(script, rows)
    wait_for(lambda: rows.exists() and rows.read_bytes().count(b"\n") == 3)
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C and a notebook's stop button send
    _, errors = process.communicate(timeout=600)
    assert errors.rstrip().endswith("KeyboardInterrupt") and errors.count("Traceback") == 1
    wait_for(lambda: not members_of(process.pid))
    assert sorted(json.loads(line)["number"] for line in rows.read_text().splitlines()[1:]) == [0, 1]


def test_a_script_without_a_main_guard_runs_once(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(
        "from kdlib import sweeps\n"
        "print('begins')\n"
        "def double(number):\n"
        "    return {'double': 2 * number}\n"
        "print(sweeps.map_cells(double, [{'number': 4}], workers=1, progress=False)['double'].tolist())\n"
    )
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    process = subprocess.run(
        [sys.executable, path], env=environment, capture_output=True, text=True, check=True, timeout=600
    )
    assert process.stdout == "begins\n[8]\n"
