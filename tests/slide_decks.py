"""Committed notebooks whose figures move as those of a notebook that was executed just now."""

import functools
from typing import Any

import nbformat
import numpy as np
from ipywidgets.embed import dependency_state

from kdlib.lesson import page_views, widgets
from kdlib.site.slides import pieces

STATE = "application/vnd.jupyter.widget-state+json"


def draw(figure):
    (point,) = figure.subplots().plot([0], [0], "o")

    def update(*, shift):
        point.set_data([shift], [0])
        return [point]

    return update


@functools.cache
def model(kind: str) -> dict[str, Any]:
    """What a notebook keeps of a widget: the hero of the loss for two images of three classes, or three frames."""
    if kind == "strip":
        widget = widgets.strip(draw, shift=[-0.02, 0.0, 0.02], caption="three frames")
    else:
        images = np.stack([np.eye(28, dtype=np.uint8) * 255] * 2)
        teacher, student = [[4.0, 1.0, 0.0], [0.0, 3.0, 2.0]], [[1.0, 1.0, 0.0], [2.0, 0.0, 0.0]]
        widget = widgets.temperature_hero(
            images, teacher, [0, 1], ["a", "b", "c"], caption="a hero", student_logits=student, alpha=0.9
        )
    return dependency_state([widget], drop_defaults=False)[widget.model_id]


def lively(path) -> nbformat.NotebookNode:
    """A committed notebook in which every hero is that of the loss and every strip has three frames."""
    notebook = nbformat.read(path, as_version=4)
    models = {}
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            if page_views.is_interactive(output):
                (caption,) = pieces.captions(cell.source)
                kept = model("hero" if "_hero(" in cell.source else "strip")
                models[str(number)] = {**kept, "state": {**kept["state"], "caption": caption}}
                output.data[page_views.VIEW] = {"model_id": str(number)}
    notebook.metadata["widgets"] = {STATE: {"state": models, "version_major": 2, "version_minor": 0}}
    return notebook
