"""Widgets of an executed notebook as pieces of a page that has no Python: heroes, strips, questions.

An executed notebook keeps the state of its widgets. A hero or a strip needs nothing else: `static/page_runtime.js`
gives it that state and lets it draw itself. A question becomes buttons that any browser has. Of all else that asks the
kernel, a page says where it moves, and shows the static twin that stands beside it.
"""

import base64
import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any

from nbformat import NotebookNode

from kdlib.lesson import browser, figures, page_pictures

VIEW = "application/vnd.jupyter.widget-view+json"
_STATE = "application/vnd.jupyter.widget-state+json"
# By the class of a widget: its file in `static`, and what that file calls.
_SHARED = ("maths.js", "page.js", "hero.js")
SCRIPTS = {
    "TemperatureHero": "temperature.js",
    "LossHero": "loss.js",
    "GradientHero": "gradient.js",
    "FrameStrip": "strip.js",
}
_EXPORT = re.compile(r"^export (default \{ render \};)?", re.MULTILINE)
_PREDICT, _OPTION = "Predict. ", "  ( ) "  # as predictions.Prediction writes itself


def runtime() -> str:
    """The style sheet and the script of the widgets, for each page once, wherever it stands in it."""
    style = browser.stylesheet() + browser.script("page_widgets.css")
    return f"<style>\n{style}\n</style>\n<script>\n{_script()}\n</script>"


def widget_models(notebook: NotebookNode) -> Mapping[str, Any]:
    """The models of the notebook's widgets by their numbers; none where it was not executed or keeps no state."""
    return notebook.metadata.get("widgets", {}).get(_STATE, {}).get("state", {})


def live_view(output: Mapping[str, Any], models: Mapping[str, Any]) -> str | None:
    """The hero or strip that an output shows as HTML; None where it shows something else."""
    data = output.get("data", {})
    model = models.get(data.get(VIEW, {}).get("model_id"))
    kind = model["state"].get("_anywidget_id", "").rpartition(".")[2] if model else None
    if kind not in SCRIPTS:
        return None
    state = {name: value for name, value in model["state"].items() if not name.startswith("_")}
    if kind == "FrameStrip":
        state |= _frames(model.get("buffers", ()))
    # A closing tag inside the text would end the element.
    written = json.dumps(state, separators=(",", ":"), sort_keys=True).replace("<", "\\u003c")
    return (
        f'<div class="kd-live" data-kd-widget="{kind}"><script type="application/json">{written}</script>'
        f"{note(data.get('text/plain', ''))}</div>"
    )


def is_interactive(output: Mapping[str, Any]) -> bool:
    """Whether an output is a figure that moves, though not in this page."""
    return output.get("data", {}).get("text/plain", "").startswith(figures.INTERACTIVE)


def note(words: str) -> str:
    """Words that stand in the place of a figure that moves."""
    return f'<p class="kd-note">{escape(words)}</p>'


def question(output: Mapping[str, Any], name: str) -> str | None:
    """The question of a `predict` with its options as HTML; None where the output is something else.

    Args:
        output: of a cell.
        name: what its buttons are called, once in a page.
    """
    asked, *options = output.get("data", {}).get("text/plain", "").split("\n" + _OPTION)
    if not options or not asked.startswith(_PREDICT):
        return None
    buttons = [f'<label><input type="radio" name="{name}"> {escape(option)}</label>' for option in options]
    legend = f"<legend><strong>Predict.</strong> {escape(asked.removeprefix(_PREDICT))}</legend>"
    return f'<fieldset class="kd-predict">{legend}{"".join(buttons)}</fieldset>'


def _frames(buffers: Any) -> dict[str, Any]:
    """The frames of a strip, each picture once: the ground, the pictures laid over it, and which frame shows which."""
    pngs = {buffer["path"][1]: base64.b64decode(buffer["data"]) for buffer in buffers}
    ground, patches = page_pictures.frames_on_ground([pngs[place] for place in sorted(pngs)])
    pictures = list(dict.fromkeys(patches))
    written = [base64.b64encode(picture).decode() for picture in pictures]
    order = [pictures.index(patch) for patch in patches]
    return {"frames": order, "pictures": written, "ground": base64.b64encode(ground).decode()}


def _script() -> str:
    """One classic script: a page opened as a file may load no module. Each widget keeps its names to itself."""
    shared = _EXPORT.sub("", browser.script(*_SHARED))
    own = [f"drawn.{kind} = (() => {{\n{_function(file)}\n}})();" for kind, file in SCRIPTS.items()]
    body = "\n".join([shared, "const drawn = {};", *own, browser.script("page_runtime.js")])
    return f'(() => {{\n"use strict";\n{body}\n}})();'


def _function(file: str) -> str:
    return _EXPORT.sub(lambda match: "return render;" if match[1] else "", browser.script(file))
