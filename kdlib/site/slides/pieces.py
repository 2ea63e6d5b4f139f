"""Pieces of an executed notebook, found by what stays the same when a lesson is built again: how a heading, a question
or a caption begins, the name of an exercise or of a recorded table."""

import ast
import base64
import re
from collections.abc import Callable, Iterator, Mapping
from html import escape

from nbformat import NotebookNode

from kdlib.lesson import page, page_pictures, page_views
from kdlib.site.slides.outline import Pick

_PREDICT = "Predict. "
_PREDICTED = "You predicted:"
_FIGURE = "Figure: "
_RECORDED = re.compile(r"Recorded on .*`kdlib record (?P<name>[\w-]+)`")
_HEADING = re.compile(r"^#{1,6} +(.*)$", re.MULTILINE)
_FORMULA = re.compile(r"\$\$.+?\$\$", re.DOTALL)
_ITEM = re.compile(r"^- .*(?:\n {2}\S.*)*", re.MULTILINE)


def find(notebook: NotebookNode, pick: Pick) -> str:
    """The HTML of a piece.

    Raises:
        ValueError: no such kind, or not exactly one such piece in the notebook, or not all the parts in it.
    """
    if pick.kind not in KINDS:
        raise ValueError(f"{pick.kind!r} is no kind of piece; there are: {', '.join(KINDS)}")
    candidates, show = KINDS[pick.kind]
    found = [piece for name, piece in candidates(notebook) if name.startswith(pick.handle)]
    if len(found) != 1:
        there_are = "; ".join(sorted({name[:40] for name, _ in candidates(notebook)})) or "none"
        number = "no" if not found else f"{len(found)} times a"
        raise ValueError(
            f"the notebook has {number} {pick.kind} that begins with {pick.handle!r}; there are: {there_are}"
        )
    return show(found[0], pick.parts)


def _chosen(lines: list[str], parts: tuple[str, ...]) -> list[str]:
    """The lines that begin with the parts; all of them where there are no parts.

    Raises:
        ValueError: none of the lines begins with one of the parts.
    """
    for part in parts:
        if not any(line.lstrip().startswith(part) for line in lines):
            raise ValueError(f"none of the lines of this piece begins with {part!r}")
    return [line for line in lines if not parts or line.lstrip().startswith(parts)]


# ------------------------------------------------------------------------------ what there is, each with its name


def _texts(notebook: NotebookNode) -> Iterator[str]:
    yield from (cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def _outputs(notebook: NotebookNode) -> Iterator[tuple[NotebookNode, NotebookNode]]:
    for cell in notebook.cells:
        yield from ((cell, output) for output in cell.get("outputs", ()))


def _plain(output: NotebookNode) -> str:
    return output.get("data", {}).get("text/plain", "")


def _lessons(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """The title of the lesson, with the question below it."""
    for text in _texts(notebook):
        yield from re.findall(r"^# (.*)\n\n(\*\*[^*]+\*\*)", text, re.MULTILINE)


def _paragraphs(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    for text in _texts(notebook):
        for paragraph in re.split(r"\n{2,}", text):
            yield paragraph, paragraph


def _formulas(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    for text in _texts(notebook):
        for formula in _FORMULA.findall(text):
            yield formula.strip("$ \n"), formula


def _lists(notebook: NotebookNode) -> Iterator[tuple[str, list[str]]]:
    """By the heading above it: the items of a list."""
    for text in _texts(notebook):
        parts = _HEADING.split(text)
        for heading, below in zip(parts[1::2], parts[2::2], strict=True):
            if items := _ITEM.findall(below):
                yield heading, items


def _predictions(notebook: NotebookNode) -> Iterator[tuple[str, list[str]]]:
    """By the question itself: the question and the options."""
    for _, output in _outputs(notebook):
        question, *options = _plain(output).removeprefix(_PREDICT).splitlines() or [""]
        if _plain(output).startswith(_PREDICT):
            yield question, [question, *(option.strip().removeprefix("( ) ") for option in options)]


def _answers(notebook: NotebookNode) -> Iterator[tuple[str, list[str]]]:
    """By its question: what was measured, and which option that is."""
    asked = dict(_asked(notebook))
    for cell, output in _outputs(notebook):
        compared = re.findall(r"(\w+)\.compare\(", cell.source)
        if _plain(output).startswith(_PREDICTED) and compared and compared[-1] in asked:
            yield asked[compared[-1]], _plain(output).splitlines()[1:3]


def _asked(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """The name of each prediction in the code, and its question."""
    for cell, output in _outputs(notebook):
        if _plain(output).startswith(_PREDICT):
            question = _plain(output).splitlines()[0].removeprefix(_PREDICT)
            yield re.search(r"^(\w+) = predict\(", cell.source, re.MULTILINE)[1], question


def _printed(notebook: NotebookNode) -> Iterator[tuple[str, list[str]]]:
    """By its first line: what a cell prints of itself."""
    for cell in notebook.cells:
        streams = [output.text for output in cell.get("outputs", ()) if output.get("name") == "stdout"]
        lines = [line for line in "".join(streams).splitlines() if not line.startswith("From here on:")]
        if any(line.strip() for line in lines):
            yield next(line for line in lines if line.strip()), lines


def _recorded(notebook: NotebookNode) -> Iterator[tuple[str, list[str]]]:
    """By the name of the recorded table: what the cell prints that reads it."""
    for _, lines in _printed(notebook):
        if named := _RECORDED.search("\n".join(lines)):
            yield named["name"], lines


def _pictures(notebook: NotebookNode) -> Iterator[tuple[str, tuple[str, str]]]:
    for _, output in _outputs(notebook):
        if "image/png" in output.get("data", {}):
            caption = _plain(output).removeprefix(_FIGURE)
            yield caption, (output.data["image/png"], caption)


def _interactive(notebook: NotebookNode) -> Iterator[tuple[str, tuple[NotebookNode, Mapping, str]]]:
    """By its caption: the output that is a figure that moves, and the models of the notebook's widgets."""
    models = page_views.widget_models(notebook)
    for cell, output in _outputs(notebook):
        if page_views.is_interactive(output):
            yield from ((caption, (output, models, caption)) for caption in captions(cell.source))


def captions(source: str) -> list[str]:
    """The captions that stand in the code of a cell."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    given = [word.value for call in calls for word in call.keywords if word.arg == "caption"]
    return [value.value for value in given if isinstance(value, ast.Constant)]


def _exercises(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """By its name: what the function of an exercise is to do."""
    for cell in notebook.cells:
        if "exercise" in cell.metadata.get("tags", ()):
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.FunctionDef):
                    yield node.name, f"{node.name}({ast.unparse(node.args)})\n\n{ast.get_docstring(node)}"


# ------------------------------------------------------------------------------ how it is shown


def _whole(show: Callable) -> Callable:
    """For pieces of which no parts can be chosen."""

    def show_whole(piece, parts: tuple[str, ...]) -> str:
        if parts:
            raise ValueError(f"no parts can be chosen of this kind of piece: {' | '.join(parts)}")
        return show(piece)

    return show_whole


def _items(items: list[str], parts: tuple[str, ...]) -> str:
    bare = [item.removeprefix("- ") for item in items]
    return page.render_markdown("\n".join(f"- {item}" for item in _chosen(bare, parts)))


def _question(lines: list[str]) -> str:
    question, *options = map(escape, lines)
    choices = "".join(f"<li>{option}</li>" for option in options)
    return f"<p class='question'>{question}</p><ul class='options'>{choices}</ul>"


def _output(lines: list[str], parts: tuple[str, ...]) -> str:
    """Printed lines, in letters as large as the longest one allows; where they come from, below and smaller."""
    shown = [line for line in _chosen(lines, parts) if not _RECORDED.search(line)]
    source = "".join(f"<p class='source'>{escape(line)}</p>" for line in lines if _RECORDED.search(line))
    width = max(map(len, shown))
    text = "\n".join(map(escape, shown)).strip("\n")
    return f"<pre style='--characters: {width}; --lines: {len(shown)}'>{text}</pre>{source}"


def _answer(lines: list[str], parts: tuple[str, ...]) -> str:
    named = (line.split(":", 1) for line in _chosen(lines, parts))
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value.strip())}</dd></div>" for name, value in named
    )
    return f"<dl>{rows}</dl>"


def _picture(piece: tuple[str, str]) -> str:
    png, caption = piece
    source = page_pictures.address(page_pictures.smaller(base64.b64decode(png)))
    image = f'<img src="{source}" alt="{escape(caption)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _live(piece: tuple[NotebookNode, Mapping, str]) -> str:
    """The figure itself where its state was kept and it needs no kernel, else where it moves."""
    output, models, caption = piece
    note = page_views.note(f"This figure moves in JupyterLab: {caption}")
    return page_views.live_view(output, models) or note


def _task(text: str) -> str:
    signature, _, docstring = text.partition("\n\n")
    return f"<pre class='task'><b>{escape(signature)}</b>\n\n{escape(docstring)}</pre>"


KINDS = {
    "lesson": (_lessons, _whole(page.render_markdown)),
    "text": (_paragraphs, _whole(page.render_markdown)),
    "formula": (_formulas, _whole(page.render_markdown)),
    "list": (_lists, _items),
    "predict": (_predictions, _whole(_question)),
    "answer": (_answers, _answer),
    "printed": (_printed, _output),
    "recorded": (_recorded, _output),
    "figure": (_pictures, _whole(_picture)),
    "live": (_interactive, _whole(_live)),
    "exercise": (_exercises, _whole(_task)),
}
