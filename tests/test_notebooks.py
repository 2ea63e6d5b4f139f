"""Every notebook runs: the solved ones by papermill, as `kdlib run` does it, with every cell run twice in a row; the
lessons, with their exercises unsolved, by nbval.

New lessons are found by their place; there is no list to keep.
"""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from kdlib.lesson import runner

CHECKOUT = Path(__file__).parents[1]
LESSONS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((CHECKOUT / "notebooks" / "solutions").glob("*.ipynb"))


def name_of(path: Path) -> str:
    return path.relative_to(CHECKOUT / "notebooks").with_suffix("").as_posix()


def run(path: Path, out: Path) -> runner.Result:
    (result,) = runner.run([path], out=out, profile="ci", report=lambda line: None)
    return result


def test_the_course_has_its_first_notebooks_and_each_has_its_solutions():
    names = [path.name for path in LESSONS]
    assert names[:2] == ["00_start_here.ipynb", "01_principle.ipynb"]
    assert [path.name for path in SOLUTIONS] == names


@pytest.mark.parametrize("path", SOLUTIONS, ids=name_of)
def test_notebook_runs_from_top_to_bottom_and_every_cell_may_be_run_twice(path, tmp_path):
    doubled = tmp_path / path.name
    nbformat.write(twice(nbformat.read(path, as_version=4)), doubled)
    result = run(doubled, tmp_path / "out")
    assert result.status == "passed", result.error


def twice(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Each code cell followed by itself; papermill puts parameters behind the first cell tagged for them."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "code":
            tags = [tag for tag in cell.metadata.get("tags", ()) if tag != "parameters"]
            cells.append(nbformat.v4.new_code_cell(cell.source, metadata={"tags": tags}))
    notebook.cells = cells
    return notebook


@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_unsolved_notebook_runs_and_checked_outputs_are_what_is_committed(path):
    """nbval fails on any error, and compares the cells marked NBVAL_CHECK_OUTPUT with what the ci profile gives."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    search = os.pathsep.join(filter(None, [str(CHECKOUT), environment.get("PYTHONPATH")]))
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--nbval-lax",
            "--nbval-current-env",
            "-p",
            "no:cacheprovider",
            path,
        ],
        cwd=CHECKOUT,
        env=environment | {"KDLIB_PROFILE": "ci", "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout
