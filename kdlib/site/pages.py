"""The pages of the site: the front, a lesson, its solutions."""

import re
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from kdlib.lesson import page, plan
from kdlib.site import search

COURSE = "The Distillation Workbook"
_STATIC = files("kdlib.site") / "static"
_MINUTES = re.compile(r"\*\*Time\.\*\* About (\d+) minutes")
# A link to a lesson beside this one.
_TO_NOTEBOOK = re.compile(r'href="([\w-]+)\.ipynb(?=["#])')


@dataclass(frozen=True)
class Lesson:
    """An executed lesson: its file name without ending, title, question and minutes, and what its page shows.

    `solutions` shows its exercises solved; None where the solutions are not here. `slides`: whether it has some.
    """

    name: str
    title: str
    question: str
    minutes: int | None
    body: page.Body
    solutions: page.Body | None
    slides: bool

    @classmethod
    def read(cls, executed: Path, solved: Path, slides: bool) -> "Lesson":
        """A lesson from its executed notebook and, where it exists, the one in which its exercises are solved."""
        notebook = nbformat.read(executed, as_version=4)
        opening = next((cell.source for cell in notebook.cells if cell.cell_type == "markdown"), "")
        title = re.search(r"^# (.+)", opening, re.MULTILINE)
        minutes = _MINUTES.search(opening)
        return cls(
            name=executed.stem,
            title=title[1] if title else executed.stem,
            question=plan.QUESTIONS.get(executed.stem, ""),
            minutes=int(minutes[1]) if minutes else None,
            body=page.body(notebook),
            solutions=page.body(_solutions(nbformat.read(solved, as_version=4)))
            if solved.is_file()
            else None,
            slides=slides,
        )


def _solutions(notebook: NotebookNode) -> NotebookNode:
    """Of a solved notebook the exercises: what is asked, and the cell that solves it."""
    cells = []
    for index, cell in enumerate(notebook.cells):
        if "check" in cell.metadata.get("tags", ()):
            asked = next(one for one in reversed(notebook.cells[:index]) if one.cell_type == "markdown")
            cells += [asked, notebook.cells[index - 1]]
    return NotebookNode(notebook, cells=cells)


def front(lessons: list[Lesson]) -> str:
    """The first page: what the course asks, and where the answers are."""
    rows = "\n".join(_row(lesson) for lesson in lessons)
    main = (
        f"<h1>{COURSE}</h1>\n"
        "<p>Train small neural networks to imitate large ones, predict what happens, and measure it. Figures with "
        "sliders move in these pages; to write and run code, open the notebooks.</p>\n"
        f'<h2 id="lessons">Lessons</h2>\n<ol class="kd-lessons">\n{rows}\n</ol>\n'
        '<h2 id="laboratory">Laboratory</h2>\n'
        '<p><a href="laboratory/index.html">Ask the teacher and its students</a> about a garment that you draw or '
        "bring along: your browser runs them.</p>"
    )
    return _page(COURSE, page.Body(main))


def _row(lesson: Lesson) -> str:
    links = [f"{lesson.minutes} minutes"] if lesson.minutes else []
    if lesson.slides:
        links.append(f'<a href="slides/{lesson.name}.html">Slides of {_short(lesson)}</a>')
    return (
        f'<li><a class="kd-title" href="{lesson.name}.html">{escape(lesson.title)}</a>'
        f"<p>{escape(lesson.question)}</p><p>{' · '.join(links)}</p></li>"
    )


def _short(lesson: Lesson) -> str:
    return f"lesson {lesson.name.partition('_')[0]}"


def lesson(lessons: list[Lesson], number: int) -> str:
    """The page of a lesson."""
    shown = lessons[number]
    more = ['<a href="index.html">All lessons</a>']
    if shown.solutions:
        more.append(f'<a href="solutions/{shown.name}.html">Solutions of its exercises (spoilers)</a>')
    if shown.slides:
        more.append(f'<a href="slides/{shown.name}.html">Slides</a>')
    beside = f'<nav aria-label="Course">{"".join(f"<p>{link}</p>" for link in more)}</nav>'
    turns = [("previous", number - 1), ("next", number + 1)]
    links = [
        f'<a href="{lessons[place].name}.html" rel="{word[:4]}">{word.capitalize()}: {escape(lessons[place].title)}</a>'
        for word, place in turns
        if 0 <= place < len(lessons)
    ]
    below = (
        f'<nav class="kd-turn" aria-label="Previous and next lesson">{"".join(links)}</nav>' if links else ""
    )
    return _page(f"{shown.title} – {COURSE}", shown.body, beside=beside, below=below)


def solutions(lesson: Lesson) -> str:
    """The page with the solutions of a lesson's exercises."""
    back = f'<a href="../{lesson.name}.html">{escape(lesson.title)}</a>'
    head = f"<h1>Solutions</h1>\n<p>Of the exercises in {back}. Try them yourself first.</p>"
    main = f"{head}\n<h2>In their order</h2>\n{lesson.solutions.html}"
    title = f"Solutions: {lesson.title} – {COURSE}"
    return _page(title, page.Body(main, lesson.solutions.headings), root="../")


def _page(title: str, body: page.Body, *, root: str = "", **around: str) -> str:
    html = _TO_NOTEBOOK.sub(rf'href="{root}\1.html', body.html)
    return page.whole(
        page.Body(html, body.headings),
        title,
        bar=f'<a class="kd-home" href="{root}index.html">{COURSE}</a>\n{search.field(root)}',
        style=_STATIC.joinpath("site.css").read_text(encoding="utf-8"),
        end=f"<script>\n{search.script()}\n</script>",
        **around,
    )
