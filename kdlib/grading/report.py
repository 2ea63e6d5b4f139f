"""What a teacher gets: the table, the summary of the class in words, and pages for the class and for each learner."""

import csv
import io
import itertools
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdlib import _files
from kdlib.grading.grader import Class, Graded, Row
from kdlib.grading.judging import DID_NOT_RUN, STATUSES
from kdlib.lesson import exercises
from kdlib.lesson.exercises._verdict import CORRECT
from kdlib.lesson.plan import QUESTIONS
from kdlib.lesson.predictions import UNDECIDED

COLUMNS = Row._fields
_MOST_MISTAKES = 3  # of an exercise, in the summary
_SIGNS = {CORRECT: "✓", "not yet right": "✗", "not done yet": "○", DID_NOT_RUN: "!"}


def table(rows: Sequence[Row]) -> bytes:
    """The rows as a CSV file, in UTF-8."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_harmless(value) for value in row] for row in rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _harmless(value: str) -> str:
    """A spreadsheet computes what begins so; a file may bear any name."""
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


# ------------------------------------------------------------------ the class


@dataclass(frozen=True)
class Bar:
    """An option of a question: how many chose it, and whether it is right."""

    option: str
    count: int
    right: bool


@dataclass(frozen=True)
class Question:
    question: str
    bars: list[Bar]
    unanswered: int
    measured: str | None

    @property
    def most(self) -> int:
        return max([1, *(bar.count for bar in self.bars)])


@dataclass(frozen=True)
class Asked:
    """An exercise, and how the class did."""

    exercise: str
    counts: dict[str, int]
    mistakes: list[tuple[str, int]]


@dataclass(frozen=True)
class Lesson:
    number: str
    title: str
    learners: int
    asked: list[Asked]
    questions: list[Question]


def lessons(graded: Class) -> list[Lesson]:
    """How the class did in each lesson of which there is a notebook."""
    found = []
    for number in sorted({one.lesson for one in graded.graded if one.lesson}):
        notebooks = [one for one in graded.graded if one.lesson == number]
        title = next((name for name in QUESTIONS if name.startswith(number)), number)
        known = graded.questions.get(number) or _most_frequent(notebooks)
        questions = [_question(question, notebooks) for question in known]
        found.append(Lesson(number, title, len(notebooks), _asked(notebooks), questions))
    return found


def _asked(notebooks: list[Graded]) -> list[Asked]:
    found = []
    for name in dict.fromkeys(row.exercise for one in notebooks for row in one.rows):
        rows = [row for one in notebooks for row in one.rows if row.exercise == name]
        counts = Counter(row.status for row in rows)
        mistakes = Counter(row.mistake for row in rows if row.mistake and row.status != "not done yet")
        counted = {status: counts[status] for status in STATUSES}
        found.append(Asked(name, counted, mistakes.most_common(_MOST_MISTAKES)))
    return found


def _most_frequent(notebooks: list[Graded]) -> list[dict[str, Any]]:
    """The questions as most notebooks ask them, where the course's own notebook is not here."""
    versions = Counter(
        (p["question"], tuple(p["options"]), p["answer"]) for one in notebooks for p in one.predictions
    )
    found: dict[str, dict[str, Any]] = {}
    for (question, options, answer), count in versions.most_common():
        if 2 * count > len(notebooks):
            entry = {"question": question, "options": list(options), "answer": answer, "measured": None}
            found.setdefault(question, entry)
    return list(found.values())


def _question(known: dict[str, Any], notebooks: list[Graded]) -> Question:
    chosen = Counter()
    for one in notebooks:
        mine = {p["question"]: p["chosen"] for p in one.predictions}
        chosen[mine.get(known["question"])] += 1
    bars = [Bar(option, chosen[option], is_right(option, known["answer"])) for option in known["options"]]
    answered = sum(bar.count for bar in bars)
    return Question(known["question"], bars, len(notebooks) - answered, known["measured"])


def is_right(option: str, answer: str | None) -> bool:
    """Whether the printed answer to a question names the option: alone, or as one of several."""
    answer = answer or ""
    return answer.startswith(f"{option} (") or (answer.startswith(UNDECIDED) and f'"{option}"' in answer)


def summary(graded: Class) -> str:
    """The class in words, for a terminal."""
    lines = []
    for lesson in lessons(graded):
        width = max(len(one.exercise) for one in lesson.asked) + 2
        lines += ["", f"{lesson.title}, handed in {lesson.learners} times"]
        lines.append(" " * (width + 2) + "".join(f"{status:>15}" for status in STATUSES))
        for one in lesson.asked:
            lines.append(
                f"  {one.exercise:{width}}" + "".join(f"{one.counts[status]:>15}" for status in STATUSES)
            )
        for one in lesson.asked:
            lines += [f"  {one.exercise}, {count} times: {mistake}" for mistake, count in one.mistakes]
        for question in lesson.questions:
            if any(bar.count for bar in question.bars):
                lines += _histogram(question)
    apart = [row for row in graded.rows if not row.exercise]
    if apart:
        lines += ["", "Not graded:", *(f"  {row.notebook!r}: {row.mistake}" for row in apart)]
    remarks = [f"  {one.notebook!r}: {remark}" for one in graded.graded for remark in one.remarks]
    if remarks:
        lines += ["", "To look at, though no verdict depends on it:", *remarks]
    return "\n".join(lines).lstrip("\n")


def _histogram(question: Question) -> list[str]:
    width = max(len(bar.option) for bar in question.bars)
    lines = [f"  {question.question} ({question.unanswered} without an answer)"]
    for bar in question.bars:
        right = f"   <- measured{f': {question.measured}' if question.measured else ''}" if bar.right else ""
        lines.append(f"    {bar.option:{width}} {'#' * bar.count} {bar.count}{right}")
    return lines


# ------------------------------------------------------------------ pages


def write_pages(graded: Class, folder: Path) -> Path:
    """Write class.html, and a page for each learner in learners/.

    Returns:
        The page of the class.

    Raises:
        OSError: the folder cannot be written.
    """
    templates = _templates()
    pages = _addresses(graded.graded)
    for one, page in zip(graded.graded, pages, strict=True):
        content = templates.get_template("feedback.html").render(
            one=one,
            rows=[_shown(row) for row in one.rows],
            predictions=[p for p in one.predictions if p["answer"]],
        )
        _files.write(folder / page, _bytes(content))
    links = [(one, page.as_posix()) for one, page in zip(graded.graded, pages, strict=True)]
    content = templates.get_template("class.html").render(
        lessons=lessons(graded), statuses=STATUSES, links=links, signs=_SIGNS,
        apart=[row for row in graded.rows if not row.exercise],
    )  # fmt: skip
    return _files.write(folder / "class.html", _bytes(content))


def _templates():
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).with_name("pages"))
    templates = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    templates.filters["code"] = _code
    return templates


def _code(text: str):
    """The text with what stands between backquotes set as code."""
    import markupsafe

    return markupsafe.Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(markupsafe.escape(text))))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _addresses(graded: Sequence[Graded]) -> list[Path]:
    """A page for each notebook, in the folders in which these lie."""
    paths = [Path(os.path.abspath(one.path)) for one in graded]
    parent = Path(os.path.commonpath([path.parent for path in paths]))
    pages: list[Path] = []
    for path in paths:
        inside = path.relative_to(parent)
        # A page may have the name of a folder beside it.
        folders = [f"{_plain(part)}{'_' * part.endswith('.html')}" for part in inside.parts[:-1]]
        place, name = Path("learners", *folders), _plain(inside.stem)
        names = itertools.chain([f"{name}.html"], (f"{name}.{n}.html" for n in itertools.count(1)))
        pages.append(next(place / one for one in names if place / one not in pages))
    return pages


def _plain(name: str) -> str:
    """A name that every file system and every link takes, however a learner's system has written its own."""
    return name.encode("utf-8", "replace")[:120].decode(errors="ignore")


def _shown(row: Row) -> dict[str, Any]:
    helps = row.exercise and row.status not in (CORRECT, DID_NOT_RUN)
    hints = [" ".join(hint.split()) for hint in exercises.get(row.exercise).hints] if helps else []
    return {**row._asdict(), "sign": _SIGNS[row.status], "hints": hints}
