"""An executed notebook as one HTML page that fetches nothing: no script, no font, no formula engine.

nbconvert's own page asks other hosts for scripts before it shows anything, and leaves formulas as TeX where
it cannot reach them. Here formulas become MathML, which browsers draw themselves, and live widgets are left
out: a slider without a kernel moves nothing, and the static figure beside it shows what it does. Code that a
notebook folds is folded here, too.
"""

import jinja2
import latex2mathml.converter
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

_MATHML = "http://www.w3.org/1998/Math/MathML"
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

_TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block input -%}
{%- if cell.metadata.get("jupyter", {}).get("source_hidden") -%}
<details><summary>The code of this figure</summary>{{ super() }}</details>
{%- else -%}
{{ super() }}
{%- endif -%}
{%- endblock -%}
"""


class _Markdown(IPythonRenderer):
    """Markdown whose formulas are MathML."""

    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return _mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")


def _mathml(formula: str, display: str) -> str:
    # nbconvert parses headings as XML and would give elements of a named namespace a prefix that HTML has not.
    return latex2mathml.converter.convert(formula, display=display).replace(f' xmlns="{_MATHML}"', "")


def render_markdown(source: str, attachments: dict | None = None) -> str:
    """The HTML of a text in Markdown, with formulas as MathML."""
    return MarkdownWithMath(renderer=_Markdown(escape=False, attachments=attachments or {})).render(source)


class _PageExporter(HTMLExporter):
    """nbconvert's JupyterLab page without what it would fetch."""

    raw_template = _TEMPLATE

    @jinja2.pass_context
    def markdown2html(self, context, source: str) -> str:
        return render_markdown(source, context.get("cell", {}).get("attachments", {}))


def _without_widgets(notebook: NotebookNode) -> NotebookNode:
    page = NotebookNode(notebook)
    page.metadata = NotebookNode({key: value for key, value in notebook.metadata.items() if key != "widgets"})
    page.cells = [_without_views(cell) if cell.cell_type == "code" else cell for cell in notebook.cells]
    return page


def _without_views(cell: NotebookNode) -> NotebookNode:
    kept = [output for output in cell.outputs if _WIDGET_VIEW not in output.get("data", {})]
    return NotebookNode(cell, outputs=kept)


def render(notebook: NotebookNode, title: str) -> str:
    """The HTML of an executed notebook, with its captions, figures and formulas but without widgets."""
    html, _ = _PageExporter().from_notebook_node(
        _without_widgets(notebook), resources={"metadata": {"name": title}}
    )
    return html
