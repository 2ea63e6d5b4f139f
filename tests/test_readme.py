"""The README tells the truth: its links lead somewhere, its example runs, its tables are complete."""

import datetime
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kdlib import cli

CHECKOUT = Path(__file__).parents[1]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


def test_links_lead_to_files_that_are_there():
    targets = re.findall(r"\]\(([^)#]+)", README)
    local = [target for target in targets if "://" not in target]
    assert local and not [target for target in local if not (CHECKOUT / target).exists()]


def test_every_lesson_has_a_row():
    linked = re.findall(r"^\| \[[^]]*\]\((notebooks/[^)]+\.ipynb)\)", README, flags=re.MULTILINE)
    lessons = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
    assert linked == [path.relative_to(CHECKOUT).as_posix() for path in lessons]


def lessons_benchmark():
    spec = importlib.util.spec_from_file_location("lessons", CHECKOUT / "benchmarks" / "lessons.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_lesson_has_its_times_and_below_them_stands_the_command_that_measured_them():
    _, table, below, *_ = re.search(r"## Lessons\n\n(.*?)\n## ", README, re.DOTALL)[0].split("\n\n")
    rows = [line for line in table.splitlines() if "](notebooks/" in line]
    assert len(rows) == len(list((CHECKOUT / "notebooks").glob("*.ipynb")))
    assert [row for row in rows if not re.search(r"\| \d+ \| \d+ \|$", row)] == []
    command = r"`\.venv/bin/python benchmarks/lessons\.py --write`"
    assert re.search(rf"measured on \d{{4}}-\d\d-\d\d on \d+ cores by {command}", below)


def test_measured_times_replace_those_of_their_lesson_and_nothing_else():
    day, times = datetime.date(2031, 2, 3), {"01_principle": [7.4, 1234.6]}
    written = lessons_benchmark().with_times(README, times, day=day, cores=64)
    changed = [
        (new, old) for new, old in zip(written.splitlines(), README.splitlines(), strict=True) if new != old
    ]
    assert len(changed) == 2
    row, note = (new for new, _ in changed)
    assert row.startswith("| [01 ") and row.endswith(" | 7 | 1235 |")
    assert row.count("|") == changed[0][1].count("|")
    assert "measured on 2031-02-03 on 64 cores by" in note


def test_times_of_a_lesson_without_a_row_or_without_a_day_are_refused():
    with_times, moment = lessons_benchmark().with_times, {"day": datetime.date(2031, 2, 3), "cores": 2}
    with pytest.raises(ValueError, match="0 rows for notebooks/99_none.ipynb"):
        with_times(README, {"99_none": [1.0, 2.0]}, **moment)
    with pytest.raises(ValueError, match="says 0 times"):
        with_times(README.replace("measured on", "taken on"), {"01_principle": [1.0, 2.0]}, **moment)


def test_every_command_has_a_row():
    named = re.findall(r"^\| `kdlib ([a-z-]+)", README, flags=re.MULTILINE)
    (commands,) = (action for action in cli._parser()._actions if action.dest == "name")
    assert sorted(named) == sorted(commands.choices)


def test_examples_run_one_after_the_other_and_the_student_has_learned():
    examples = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(examples) == 2
    example = "\n".join([*examples, "print(metrics.accuracy(student, images.test))"])
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    process = subprocess.run(
        [sys.executable, "-c", example], cwd=CHECKOUT, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    accuracies = [float(line) for line in process.stdout.splitlines() if line.startswith("0.")]
    assert len(accuracies) == 2 and all(0.7 < accuracy < 1 for accuracy in accuracies), process.stdout
