"""Slides of a lesson for a lecture, made from its notebook: reveal.js, one file a lesson, nothing is fetched.

What is on them stands in `01.md` and so on, a file a lesson; the pieces come from the executed notebook, so that the
slides say what the lesson says. `reveal` holds the parts of reveal.js that they need, as its authors published them.
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import jinja2
import nbformat
from nbformat import NotebookNode

from kdlib import _files
from kdlib.lesson import page, page_views
from kdlib.site.slides import outline, pieces

_HERE = files("kdlib.site.slides")
_REVEAL = ("reset.css", "reveal.css"), ("reveal.js", "notes.js")


def write(notebooks: Sequence[str | Path], folder: str | Path) -> list[Path]:
    """Write the slides of those lessons that have an outline: `01_principle.html` of `01_principle.ipynb`.

    Args:
        notebooks: paths of executed notebooks; figures that move need the state of their widgets in there.
        folder: where the slides go; made where it is missing.

    Returns:
        The files that were written.

    Raises:
        ValueError: an outline asks for what the notebook of its lesson has not, or not once.
        OSError: a notebook cannot be read, or the folder cannot be written.
    """
    lessons = [path for path in map(Path, notebooks) if _outline(path.stem).is_file()]
    decks = {path.stem: render(nbformat.read(path, as_version=4), path.stem) for path in lessons}
    return [_files.write(Path(folder) / f"{name}.html", deck.encode()) for name, deck in decks.items()]


def render(notebook: NotebookNode, name: str) -> str:
    """The slides of one lesson as a page.

    Args:
        notebook: its executed notebook.
        name: of the lesson, such as "01_principle".

    Raises:
        ValueError: as `write`.
    """
    slides = outline.read(_outline(name).read_text(encoding="utf-8"))
    shown = [_shown(notebook, name, number, slide) for number, slide in enumerate(slides, start=1)]
    template = jinja2.Environment(autoescape=True).from_string(_text("deck.html.j2"))
    styles, scripts = ([_text("reveal", file) for file in kind] for kind in _REVEAL)
    return template.render(
        title=shown[0]["title"],
        slides=shown,
        styles=styles,
        runtime=page_views.runtime(),
        own_style=_text("slides.css"),
        scripts=[*scripts, _text("slides.js")],
    )


def _outline(name: str):
    return _HERE / f"{name.partition('_')[0]}.md"


def _text(*names: str) -> str:
    return _HERE.joinpath(*names).read_text(encoding="utf-8")


def _shown(notebook: NotebookNode, name: str, number: int, slide: outline.Slide) -> dict[str, object]:
    try:
        parts = [{"kind": pick.kind, "html": pieces.find(notebook, pick)} for pick in slide.picks]
    except ValueError as error:
        raise ValueError(f"slide {number} of lesson {name}, {slide.title!r}: {error}") from error
    return {"title": slide.title, "parts": parts, "notes": page.render_markdown(slide.notes)}
