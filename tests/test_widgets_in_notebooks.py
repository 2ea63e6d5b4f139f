"""A notebook with our widgets, as it is committed: executed, without widget views, compared by strict nbval.

Slow (over five seconds), because two kernels must start.
"""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "kdlib" / "assets" / "models" / "distilled-int8.onnx"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
DRAWING = """# NBVAL_CHECK_OUTPUT
import numpy as np
from kdlib.deploy.webapp import background
from kdlib.lesson import live, served_page, widgets

def draw(figure):
    axes = figure.subplots()
    axes.set(xlim=(0, 9), ylim=(0, 1))
    (marker,) = axes.plot([], [], "o")

    def update(*, place):
        marker.set_data([place], [0.5])
        return [marker]

    return update

images, logits = np.zeros((1, 8, 8), dtype=np.uint8), [[1.0, 2.0]]
"""
SHOWN = [
    "widgets.twin(draw, [{'place': 1}, {'place': 5}], caption='A marker moves.')",
    "widgets.explorer(draw, caption='A marker.', place=widgets.slider(0, 9, value=3))",
    "widgets.strip(draw, caption='A marker.', place=[1, 5])",
    "widgets.temperature_hero(images, logits, [1], ['ant', 'bee'], caption='Drag T.')",
    f"served_page.show(background.serve([{str(MODEL)!r}]))",
    "served_page.picture()",
]
TRAINING = "# NBVAL_CHECK_OUTPUT\ncurve = live.Curve(2)\ncurve.update(1, loss=2.0)\ncurve.close()"


@pytest.fixture(scope="module", autouse=True)
def kernels_find_kdlib():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def executed():
    sources = [DRAWING, *(f"# NBVAL_CHECK_OUTPUT\n{source}" for source in SHOWN), TRAINING]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, kernel_name="python3", store_widget_state=False).execute()
    for cell in cells:
        for output in cell.outputs:
            output.data.pop(WIDGET_VIEW, None)
    return notebook


def test_what_is_left_without_a_browser_is_figures_and_words(executed):
    shown = [[sorted(output.data) for output in cell.outputs] for cell in executed.cells]
    figure = [["image/png", "text/plain"], ["text/markdown", "text/plain"], ["text/html", "text/plain"]]
    assert shown == [[], figure, *4 * [[["text/plain"]]], figure, figure]


def test_strict_nbval_finds_no_difference(executed, tmp_path):
    nbformat.write(executed, tmp_path / "widgets.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "-p", "no:cacheprovider", "widgets.ipynb"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
