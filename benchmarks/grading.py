"""Does `kdlib grade` give each of forty notebooks its right rows, ten hostile ones among them, and in which time?

Thirty are lessons of the course with answers in them: of each lesson one with right answers, written otherwise than the
solutions, one with typical mistakes, and of six of them one that is half done. Ten are hostile. All are graded with the
limits that `kdlib grade` has by default, two at a time. Printed are the rows that differ from what was expected, the
seconds, and what is still running.

    python benchmarks/grading.py
"""

import importlib
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

import handed_in as made  # noqa: E402
from answers import designs  # noqa: E402

from kdlib.grading import grader, report  # noqa: E402
from kdlib.lesson import exercises  # noqa: E402

LESSONS = [f"{number:02}" for number in range(12)]
HALF_DONE = LESSONS[:6]
UNCHANGED = ("still does what it did", "find the bug")  # said of a repair that is not done yet
Expected = dict[str, tuple[str, str]]  # exercise -> status and words of the mistake


def answers_of(lesson: str) -> dict[str, tuple[str, str, str]]:
    """For each exercise a right answer, a wrong one, and words that belong to the latter."""
    known = importlib.import_module(f"answers.lesson{lesson}").ANSWERS
    found = {}
    for name in exercises.names():
        if exercises.get(name).lesson == lesson and exercises.get(name).is_open:
            found[name] = (
                "DESIGNS['right'][0]",
                "list(DESIGNS['wrong'].values())[0]",
                next(iter(designs.WRONG)),
            )
        elif exercises.get(name).lesson == lesson:
            words = next(words for words in known[name].wrong if not any(one in words for one in UNCHANGED))
            found[name] = f"ANSWERS[{name!r}].right[0]", f"ANSWERS[{name!r}].wrong[{words!r}]", words
    return found


def honest() -> dict[str, tuple[str, Expected]]:
    """By file name, the notebook and what is expected of it."""
    found = {}
    for lesson in LESSONS:
        module, answers = made.module_of_answers(lesson), answers_of(lesson)
        cells = {kind: {n: f"{module}\n\n{n} = {one[kind]}" for n, one in answers.items()} for kind in (0, 1)}
        right = {name: ("correct", "") for name in answers}
        found[f"{lesson}_right.ipynb"] = made.answered(lesson, cells[0]), right
        wrong = {name: ("not yet right", words) for name, (_, _, words) in answers.items()}
        found[f"{lesson}_wrong.ipynb"] = made.answered(lesson, cells[1]), wrong
        if lesson in HALF_DONE:
            done = list(answers)[::2]
            expected = {name: right[name] if name in done else ("not done yet", "") for name in answers}
            found[f"{lesson}_half.ipynb"] = (
                made.answered(lesson, {name: cells[0][name] for name in done}),
                expected,
            )
    return found


def hostile(neighbour: Path) -> dict[str, tuple[str, Expected]]:
    """Ten, each with one answer to lesson 00 that does something else."""
    inside, outside, note = made.inside, made.outside, made.notebook
    not_run, wrong = "did not run", "not yet right"
    spy = inside(f"import pathlib\nraise ValueError(pathlib.Path({str(neighbour)!r}).read_text())")
    answers = {
        "fork_bomb": (outside(made.FORK_BOMB), not_run, "processes"),
        "memory": (inside(made.MEMORY), wrong, "MemoryError"),
        "loop": (outside(made.LOOP), not_run, "stopped after"),
        "network": (inside(made.NETWORK), wrong, "unreachable"),
        "deleted_check": (made.RIGHT, "correct", ""),
        "faked_verdict": (made.FAKED_CHECK + made.PATCHED_JUDGE + made.WRONG, wrong, ""),
        "neighbour": (spy, wrong, "FileNotFoundError"),
        "output": (outside(made.OUTPUT_WITHOUT_END), not_run, "stopped after"),
    }
    left = ("not done yet", "")
    others = [
        name for name in exercises.names() if exercises.get(name).lesson == "00" and name != "share_correct"
    ]
    found = {
        f"{name}.ipynb": (note(answer), {"share_correct": (status, words), **dict.fromkeys(others, left)})
        for name, (answer, status, words) in answers.items()
    }
    found["not_json.ipynb"] = "{'cells': []", {"": (not_run, "not JSON")}
    found["another_kernel.ipynb"] = note("x <- 1", language="R"), {"": (not_run, "for R")}
    return found


def differences(rows: list[grader.Row], expected: Expected) -> list[str]:
    got = {row.exercise: row for row in rows}
    if len(rows) != len(got) or got.keys() != expected.keys():
        return [f"rows for {[row.exercise for row in rows]}"]
    return [
        f"{name}: expected {status!r} with {words!r}, got {got[name].status!r} with {got[name].mistake!r}"
        for name, (status, words) in expected.items()
        if got[name].status != status or words.lower() not in got[name].mistake.lower()
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        neighbour = made.write(Path(folder) / "neighbour" / "notes.txt", "secret")
        notebooks = {**honest(), **hostile(neighbour)}
        for name, (content, _) in notebooks.items():
            made.write(Path(folder) / "class" / name, content)
        start = time.monotonic()
        graded = grader.grade([Path(folder) / "class"], jobs=2)
        seconds = time.monotonic() - start
    wrong = 0
    print(f"\n{'notebook':24}{'rows':>5}{'seconds':>9}  differences from what was expected")
    for one in graded.graded:
        found = differences(one.rows, notebooks[Path(one.notebook).name][1])
        wrong += bool(found)
        print(
            f"{Path(one.notebook).name:24}{len(one.rows):>5}{one.seconds:>9.1f}  {'; '.join(found) or 'none'}"
        )
    left = made.left_running()
    print(
        f"\n{len(graded.graded)} notebooks, {len(graded.rows)} rows, {wrong} notebooks with other rows than expected"
    )
    print(
        f"{seconds:.0f} seconds, {len(left)} processes left running, {len(report.table(graded.rows))} bytes of CSV"
    )


if __name__ == "__main__":
    main()
