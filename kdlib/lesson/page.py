"""An executed notebook as one HTML page that fetches nothing, opened from a folder or by any server.

nbconvert's own page asks other hosts for scripts before it shows anything, and leaves formulas as TeX where
it cannot reach them. Here formulas become MathML, which browsers draw themselves, and what moves without a kernel
moves in the page (`page_views`): heroes, strips, the questions of `predict`. Of an explorer the page says where it
moves; the static figure beside it shows what it does. Code that a notebook folds is folded here, too.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import jinja2
import latex2mathml.converter
from mistune.plugins.table import render_table
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from nbformat.v4 import new_output

from kdlib.lesson import browser, page_pictures, page_views
from kdlib.lesson.page_views import runtime

__all__ = ["Body", "Heading", "body", "render", "render_markdown", "runtime", "shell", "whole"]

_MATHML = "http://www.w3.org/1998/Math/MathML"

_TEMPLATE = """
{%- extends 'lab/base.html.j2' -%}
{%- block input -%}
{%- if cell.metadata.get("jupyter", {}).get("source_hidden") -%}
<details><summary>The code of this figure</summary>{{ cell.source | highlight_code(metadata=cell.metadata) }}</details>
{%- else -%}
{{ cell.source | highlight_code(metadata=cell.metadata) }}
{%- endif -%}
{%- endblock -%}
"""


@dataclass(frozen=True)
class Heading:
    """A heading of a page: its level, its `id`, and its words as HTML."""

    level: int
    anchor: str
    words: str


@dataclass
class Body:
    """What stands in a page: HTML without the page around it, and its headings in order."""

    html: str = ""
    headings: list[Heading] = field(default_factory=list)

    def enter(self, words: str, level: int) -> Heading:
        """A heading of this page, with a name that no other has."""
        letters = re.sub(r"<[^>]*>|&\w+;", " ", words)
        name = "-".join(re.findall(r"\w+", letters.lower())) or "section"
        taken = {heading.anchor for heading in self.headings}
        anchor, count = name, 1
        while anchor in taken:
            count += 1
            anchor = f"{name}-{count}"
        self.headings.append(Heading(level, anchor, words))
        return self.headings[-1]


class _Markdown(IPythonRenderer):
    """Markdown whose formulas are MathML."""

    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return _mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")


class _PageMarkdown(_Markdown):
    """Markdown in a page with contents, whose tables and formulas scroll where they are too wide."""

    page: Body

    def heading(self, text: str, level: int, **attributes: Any) -> str:
        anchor = self.page.enter(text, level).anchor
        return f'<h{level} id="{anchor}">{text}</h{level}>\n'

    def block_math(self, body: str) -> str:
        # A span, because a formula may stand inside a paragraph.
        return f'<span class="kd-formula kd-scroll">{super().block_math(body)}</span>'

    def table(self, text: str) -> str:
        return f'<div class="kd-scroll">{render_table(self, text)}</div>'


def _mathml(formula: str, display: str) -> str:
    # nbconvert parses headings as XML and would give elements of a named namespace a prefix that HTML has not.
    return latex2mathml.converter.convert(formula, display=display).replace(f' xmlns="{_MATHML}"', "")


def render_markdown(source: str, attachments: dict | None = None) -> str:
    """The HTML of a text in Markdown, with formulas as MathML."""
    return MarkdownWithMath(renderer=_Markdown(escape=False, attachments=attachments or {})).render(source)


class _PageExporter(HTMLExporter):
    """The cells of a notebook alone, with the classes that JupyterLab gives them."""

    raw_template = _TEMPLATE

    def __init__(self, page: Body):
        super().__init__(exclude_input_prompt=True, exclude_output_prompt=True)
        self._page = page

    @jinja2.pass_context
    def markdown2html(self, context, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _PageMarkdown(escape=False, attachments=attachments)
        renderer.page = self._page
        return MarkdownWithMath(renderer=renderer).render(source)


def body(notebook: NotebookNode) -> Body:
    """What an executed notebook shows, as HTML, with the headings of its texts."""
    result = Body()
    pieces: list[str] = []
    models = page_views.widget_models(notebook)
    cells = [_cell(cell, number, models, pieces) for number, cell in enumerate(notebook.cells)]
    bare = NotebookNode(notebook, cells=cells, metadata=NotebookNode(notebook.metadata))
    bare.metadata.pop("widgets", None)
    html, _ = _PageExporter(result).from_notebook_node(bare)
    result.html = re.sub(r"<!--kd-piece (\d+)-->", lambda match: pieces[int(match[1])], html)
    return result


def _cell(cell: NotebookNode, number: int, models: Mapping[str, Any], pieces: list[str]) -> NotebookNode:
    """The cell with its outputs as they stand in the page."""
    if cell.cell_type != "code":
        return cell
    outputs = []
    for place, output in enumerate(cell.outputs):
        html = _html(output, f"kd-question-{number}-{place}", models)
        if html is not None:
            # nbconvert would take all HTML apart, and megabytes of it take their time.
            pieces.append(html)
            output = new_output("display_data", data={"text/html": f"<!--kd-piece {len(pieces) - 1}-->"})
        if html != "":
            outputs.append(output)
    return NotebookNode(cell, outputs=outputs)


def _html(output: NotebookNode, name: str, models: Mapping[str, Any]) -> str | None:
    """An output as it stands in the page: none of it where it is empty, and as nbconvert writes it where it is None."""
    data = output.get("data", {})
    lives = page_views.live_view(output, models) or page_views.question(output, name)
    if lives:
        return lives
    words = data.get("text/plain", "")
    if page_views.is_interactive(output):
        return page_views.note(words)
    if page_views.VIEW in data:
        return ""
    if "text/html" in data:
        return data["text/html"]
    return (
        _picture(data["image/png"], output.metadata.get("image/png", {}), words)
        if "image/png" in data
        else None
    )


def _picture(png: str, metadata: Mapping[str, Any], words: str) -> str:
    size = "".join(f' {name}="{metadata[name]}"' for name in ("width", "height") if name in metadata)
    source = page_pictures.address(page_pictures.smaller(base64.b64decode(png)))
    return f'<img src="{source}"{size} alt="{escape(metadata.get("alt", words))}">'


def render(notebook: NotebookNode, title: str, **around: str) -> str:
    """The page of an executed notebook, with its captions, figures, formulas, and what moves without a kernel.

    Args:
        notebook: executed; where it keeps the state of its widgets, heroes and strips move.
        title: of the page.
        around: as for `shell`.
    """
    return whole(body(notebook), title, **around)


def whole(shown: Body, title: str, *, beside: str = "", end: str = "", **around: str) -> str:
    """The page around what a notebook shows: as `render`."""
    live = runtime() if "kd-live" in shown.html else ""
    return shell(title, shown.html, beside=_contents(shown.headings) + beside, end=live + end, **around)


def _contents(headings: list[Heading]) -> str:
    """Links to the sections and what is below them."""
    lines = []
    for heading in headings:
        if heading.level in (2, 3):
            words = re.sub(r"</?a\b[^>]*>", "", heading.words)
            lines.append(f'<li class="kd-level-{heading.level}"><a href="#{heading.anchor}">{words}</a></li>')
    if not lines:
        return ""
    listed = "\n".join(lines)
    return (
        f'<nav class="kd-contents" aria-label="Sections"><details open><summary>On this page</summary>'
        f"<ul>\n{listed}\n</ul></details></nav>"
    )


def shell(
    title: str, main: str, *, beside: str = "", bar: str = "", below: str = "", end: str = "", style: str = ""
) -> str:
    """A whole page around what it says.

    Args:
        title: in words, without HTML.
        main: what it says, as HTML.
        beside: stands at its side: contents.
        bar: at its top, before the switch between light and dark.
        below: after what it says.
        end: what is not seen: scripts.
        style: a style sheet besides that of every page.
    """
    beside = f'<div class="kd-beside">{beside}</div>' if beside else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{browser.script("page_shell.css", "page_code.css")}{style}
</style>
<script>
{browser.script("page_theme.js")}
</script>
</head>
<body>
<a class="kd-skip" href="#main">Skip to the text</a>
<header class="kd-bar">{bar}<button type="button" class="kd-switch" hidden>Dark</button></header>
<div class="kd-layout">
{beside}
<main id="main" tabindex="-1">
{main}
</main>
</div>
{below}
<script>
{browser.script("page_shell.js")}
</script>
{end}
</body>
</html>
"""
