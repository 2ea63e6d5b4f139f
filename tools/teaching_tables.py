"""Write docs/mistakes.md: of every exercise, the mistakes that `check` knows by name, and what it says to each.

    python tools/teaching_tables.py [--check]

The tables come from the exercises themselves, so that they say what learners read. With `--check` nothing is written;
the exit status is 1 where the file is not what it would be.
"""

import argparse
import ast
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kdlib import _files
from kdlib.lesson import exercises
from kdlib.lesson.exercises import _design, _intervals
from kdlib.lesson.exercises._difference import sentence

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "mistakes.md"
_INTRODUCTION = """\
# Typical mistakes, and what `check` says to them

Written by `python tools/teaching_tables.py` from the exercises themselves (`kdlib/lesson/exercises/`): do not edit it.
A learner's answer is called one of these where it behaves just so on every input that is tried. Any other wrong answer
is told the first value that differs. The table of `kdlib grade` has the same sentences.

For the class: show the sentence, not the code, and ask which line it can be about. The exercise's hints go from a nudge
to nearly the solution; the number of them stands beside its name.
"""
_OPEN = """\
## Open experiments

Their design is judged, by a rehearsal with invented accuracies, and never the number that comes out. `check` names one
shortcoming at a time. `…` stands for what it found.
"""


def text() -> str:
    """What the file has to be."""
    lessons = defaultdict(list)
    for name in exercises.names():
        exercise = exercises.get(name)
        lessons[exercise.lesson].append(exercise)
    parts = [_INTRODUCTION]
    for lesson in sorted(lessons):
        parts.append(f"## Lesson {lesson}\n")
        parts += [_section(exercise) for exercise in lessons[lesson]]
    rows = _table("design", ((name, said) for name, said in _design_complaints()))
    return "\n".join([*parts, f"{_OPEN}\n{rows}"])


def _section(exercise: exercises.Exercise) -> str:
    asks = " ".join(inspect.getdoc(exercise.solve).split("\n\n")[0].split())
    heading = f"### `{exercise.name}`\n\n{_kind(exercise)}, {len(exercise.hints)} hints. {asks}\n"
    if exercise.is_open:
        return heading
    return f"{heading}\n{_table('no.', enumerate(map(sentence, exercise.mistakes), start=1))}"


def _kind(exercise: exercises.Exercise) -> str:
    if exercise.is_open:
        return "An open experiment"
    if exercise.asks_for_a_value:
        return "To answer with a value"
    return "To repair" if exercise.start else "To write"


def _table(first: str, rows) -> str:
    lines = [f"| {first} | `check` says |", "|:--|:--|"]
    return "\n".join([*lines, *(f"| {name} | {_in_a_cell(said)} |" for name, said in rows)]) + "\n"


def _in_a_cell(said: str) -> str:
    """Markdown shows it letter by letter: what would be a border of the table, emphasis or a formula is escaped."""
    return re.sub(r"([|*_$<\\`])", r"\\\1", said)


def _design_complaints() -> Iterator[tuple[str, str]]:
    """Every complaint about the design of an experiment: its name, and what is said."""
    for module in (_design, _intervals):
        calls = [
            node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call)
        ]
        for call in sorted(calls, key=lambda call: call.lineno):
            if getattr(call.func, "id", "") == "Complaint":
                name, said = map(_as_text, call.args)
                if name != "untried":  # it never leaves the judge
                    yield name, said


def _as_text(node: ast.expr) -> str:
    """A text of the source, with … for what is filled in."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; say whether the file is up to date"
    )
    if parser.parse_args().check:
        current = FILE.is_file() and FILE.read_text(encoding="utf-8") == text()
        print(
            "up to date" if current else f"{FILE.name} is not up to date: run python tools/teaching_tables.py"
        )
        return 0 if current else 1
    print(_files.write(FILE, text().encode()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
