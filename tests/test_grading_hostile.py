"""`kdlib grade` on notebooks that mean no good: each gets its row, nothing is left running, no neighbour is harmed."""

import os
import re
import sys

import handed_in as made
import pytest

from kdlib.grading import grader, protection

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="notebooks are graded where processes can be forked"
)
# Where nothing holds them back they would end, or delete, what belongs to whoever runs the tests.
DANGEROUS = ("kill_parent.ipynb", "kill_all.ipynb", "files.ipynb")
SECRET = "what a neighbour has written"
EXERCISES = 4  # of lesson 00


def notebooks() -> dict[str, str | bytes]:
    """By file name, what is handed in. All but the last answer of lesson 00 are left out, which costs no time."""
    note, inside, outside = made.notebook, made.inside, made.outside
    found = {
        "honest.ipynb": note(made.RIGHT),
        "mistaken.ipynb": note(made.WRONG),
        "fork_bomb.ipynb": note(outside(made.FORK_BOMB)),
        "loop.ipynb": note(outside("import time\n" + made.LOOP)),
        "loop_elsewhere.ipynb": note("import torch\n" + made.LOOP, made.RIGHT),
        "loop_when_called.ipynb": note(inside(made.LOOP)),
        "loop_that_holds_on.ipynb": note(inside(made.LOOP_THAT_HOLDS_ON)),
        "sleep.ipynb": note(inside("import time\ntime.sleep(3600)")),
        "memory.ipynb": note(inside(made.MEMORY)),
        "memory_in_small_parts.ipynb": note(inside(made.MEMORY_IN_SMALL_PARTS)),
        "memory_of_many.ipynb": note(inside(made.MEMORY_OF_MANY)),
        "network.ipynb": note(inside(made.NETWORK)),
        "neighbour.ipynb": note(
            inside("import pathlib\nraise ValueError(pathlib.Path({path!r}).read_text())")
        ),
        "output.ipynb": note(outside(made.OUTPUT)),
        "output_without_end.ipynb": note(outside(made.OUTPUT_WITHOUT_END)),
        "files.ipynb": note(outside(made.FILES)),
        "a_child_that_stays.ipynb": note(outside(made.A_CHILD_THAT_STAYS)),
        "exit.ipynb": note("import sys\nsys.exit()\n" + made.RIGHT, "raise SystemExit(3)"),
        "exit_at_once.ipynb": note(inside("import os\nos._exit(0)")),
        "kill_parent.ipynb": note(inside("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)")),
        "kill_all.ipynb": note(inside("import os, signal\nos.kill(-1, signal.SIGKILL)")),
        "crash.ipynb": note(inside("import ctypes\nctypes.string_at(0)")),
        "recursion.ipynb": note(inside("return share_correct(logits, labels)")),
        "recursion_without_limit.ipynb": note(
            inside("import sys\nsys.setrecursionlimit(10**9)\nreturn [share_correct(logits, labels)]")
        ),
        "other_folder.ipynb": note('import os\nos.chdir("/")', outside('os.chdir("..")')),
        "faked_check.ipynb": note(made.FAKED_CHECK, made.WRONG, 'check("share_correct", share_correct)'),
        "patched_outside.ipynb": note(outside(made.PATCHED_JUDGE)),
        "patched_inside.ipynb": note(inside(made.PATCHED_JUDGE)),
        "patched_exercise.ipynb": note(inside(made.PATCHED_EXERCISE)),
        "forged_report.ipynb": note(inside(made.FORGED_REPORT)),
        "forged_files.ipynb": note(inside(made.FORGED_FILES)),
        "copied.ipynb": note(made.COPIED),
        "copied_in_check.ipynb": note(
            "from kdlib.lesson.exercises import check, solution",
            made.WRONG,
            'check("share_correct", solution("share_correct"))',
        ),
        "deleted_check.ipynb": note("answers = {}", made.RIGHT),
        "somebody_elses.ipynb": note(made.RIGHT, 'check("fizzbuzz", print)', 'ok.grade("q1")'),
        "wave 👋 ünïcödé 名前.ipynb": note(made.RIGHT),
        "=cmd|' '!A1.ipynb": note(made.RIGHT),
        "one/same.ipynb": note(made.RIGHT),
        "two/same.ipynb": note(made.WRONG),
        "not_json.ipynb": "{'cells': []",
        "deep.ipynb": "[" * 200_000,
        "list.ipynb": "[1, 2]",
        "empty.ipynb": b"",
        "r.ipynb": note("x <- 1", language="R"),
        "julia.ipynb": note("x = 1", language="julia"),
        "essay.ipynb": note("x = 1", title="# My essay"),
        "bytes.ipynb": bytes(range(256)) * 10,
    }
    walls = protection.find()
    held = walls.namespaces or walls.other_user
    return {name: content for name, content in found.items() if held or name not in DANGEROUS}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """All of them, graded once with small limits: rows by file name."""
    folder = tmp_path_factory.mktemp("class")
    neighbour = made.write(folder.with_name("neighbour.txt"), SECRET)
    for name, content in notebooks().items():
        if isinstance(content, str):
            content = content.replace("{path!r}", repr(str(neighbour)))
        made.write(folder / name, content)
    with open(folder / "large.ipynb", "wb") as file:
        file.truncate(100 << 20)
    (folder / "link.ipynb").symlink_to(folder / "honest.ipynb")
    os.mkfifo(folder / "pipe.ipynb")
    said = []
    result = grader.grade([folder], jobs=2, seconds=3, memory=600, report=said.append)
    left = made.left_running()
    rows = {}
    for row in result.rows:
        rows.setdefault(os.path.relpath(row.notebook, folder), []).append(row)
    return rows, left, said, neighbour


def first(graded, name: str) -> grader.Row:
    if f"{name}.ipynb" in DANGEROUS and f"{name}.ipynb" not in graded[0]:
        pytest.skip("no walls here: it would harm whoever runs the tests")
    rows = graded[0][f"{name}.ipynb"]
    assert rows[0].exercise == "share_correct" and len(rows) == EXERCISES, rows
    assert {row.status for row in rows[1:]} == {"not done yet"}
    return rows[0]


def test_each_has_its_rows(graded):
    rows, _, _, _ = graded
    assert set(rows) == {*notebooks(), "large.ipynb", "link.ipynb", "pipe.ipynb"}
    assert {len(found) for found in rows.values()} == {1, EXERCISES}


def test_nothing_is_left_running(graded):
    assert not graded[1]


@pytest.mark.parametrize(
    "name",
    ["honest", "deleted_check", "somebody_elses", "exit", "output", "loop_elsewhere", "other_folder",
     "a_child_that_stays", "files", "wave 👋 ünïcödé 名前", "=cmd|' '!A1", "one/same"],
)  # fmt: skip
def test_who_answers_rightly_is_correct_whatever_else_is_in_the_notebook(graded, name):
    row = first(graded, name)
    assert (row.status, row.mistake) == ("correct", "")


@pytest.mark.parametrize(
    "name, status, words",
    [
        ("mistaken", "not yet right", "these are percent"),
        ("two/same", "not yet right", "these are percent"),
        ("faked_check", "not yet right", "these are percent"),
        ("fork_bomb", "did not run", "more than 16 processes"),
        ("loop", "did not run", "stopped after"),
        ("loop_when_called", "not yet right|did not run", "no end|stopped after"),
        ("loop_that_holds_on", "did not run", "stopped after"),
        ("sleep", "did not run", "stopped after"),
        ("memory", "not yet right", "MemoryError"),
        ("memory_in_small_parts", "not yet right|did not run", "MemoryError|more than 600 MB"),
        ("memory_of_many", "did not run", "more than 600 MB|stopped after"),
        ("output_without_end", "did not run", "stopped after"),
        ("exit_at_once", "did not run", "ended the process"),
        ("crash", "did not run", "ended the process in which it ran .signal 11"),
        ("recursion", "not yet right", "calls itself without end"),
        ("recursion_without_limit", "not yet right|did not run", "ended|calls itself|MemoryError|stopped"),
        ("patched_outside", "not yet right", "The checks were altered: it changes torch.allclose"),
        ("patched_inside", "not yet right", "The checks were altered: it changes torch.allclose"),
        ("patched_exercise", "not yet right", "The checks were altered: it changes share_correct.solve"),
        ("forged_report", "not yet right", "The checks were altered"),
        ("forged_files", "not yet right", "The label is compared"),
        ("copied", "not yet right", "own solution"),
        ("copied_in_check", "not yet right", "own solution"),
    ],
)  # fmt: skip
def test_who_does_not_is_told_why(graded, name, status, words):
    row = first(graded, name)
    assert row.status in status.split("|") and re.search(words, row.mistake, re.IGNORECASE), row


@pytest.mark.parametrize(
    "name, words",
    [
        ("not_json", "not JSON"),
        ("deep", "not JSON"),
        ("list", "no list of cells"),
        ("empty", "empty"),
        ("r", "for R, not for Python"),
        ("julia", "for julia"),
        ("essay", "no lesson of this course"),
        ("bytes", "not JSON"),
        ("large", "larger than 32 MB (100 MB)"),
        ("link", "link"),
        ("pipe", "not a file"),
    ],
)
def test_what_is_no_notebook_of_the_course_has_one_row_that_says_so(graded, name, words):
    (row,) = graded[0][f"{name}.ipynb"]
    assert (row.exercise, row.status) == ("", "did not run") and words in row.mistake, row


def test_the_walls_that_are_in_force_are_said_and_hold(graded):
    _, _, said, neighbour = graded
    walls = protection.find()
    assert sum(words.startswith("in force:") for words in said) >= 1
    assert neighbour.read_text() == SECRET
    if not walls.namespaces:
        assert any(words.startswith("NOT in force: no network") for words in said)
        return
    mistakes = {
        name: first(graded, name).mistake for name in ("network", "neighbour", "kill_parent", "kill_all")
    }
    assert sys.platform == "linux" and not any(words.startswith("NOT") for words in said)
    assert "Network is unreachable" in mistakes["network"]
    assert "FileNotFoundError" in mistakes["neighbour"] and SECRET not in str(graded[0])
    assert re.search("PermissionError|The label is compared", mistakes["kill_parent"])
    assert re.search("ProcessLookupError|The label is compared", mistakes["kill_all"])
