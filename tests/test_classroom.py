"""The classroom's notebook: the tagged cells of a lesson, their figures, and nothing else on the page."""

import builtins
import os
import signal
import subprocess
import symtable
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from kdlib import cli
from kdlib.lesson import classroom, course

CHECKOUT = Path(__file__).parents[1]
LESSONS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
VIEW = "application/vnd.jupyter.widget-view+json"
DRAW = """
from kdlib.lesson import canvas, widgets
dots_per_inch = canvas.DPI

def draw(figure):
    (line,) = figure.subplots().plot([0, 1], [0, 1])
    return lambda *, slope: line.set_ydata([0, slope]) or line

print("printed")
"""
FIGURE = """
print("printed")
display({"text/plain": "displayed"}, raw=True)
figure = widgets.explorer(draw, caption="A line.", slope=widgets.slider(0, 9, value=1))
figure
"""


def interactive() -> list:
    text = {"text/plain": "Interactive figure: open the notebook in JupyterLab to move slope."}
    return [nbformat.v4.new_output("execute_result", data=text, execution_count=1)]


def tagged(source: str, outputs: list | None = None) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, metadata={"tags": ["projector"]}, outputs=outputs or [])


def lesson(folder: Path, name: str = "02_lines", figures: int = 2) -> Path:
    """A lesson with a text, a cell that must not run, and figures in the second and third section."""
    new_code, new_markdown = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    cells = [new_markdown("# 02 · Lines\n\n**Why?**"), tagged(DRAW), new_markdown("## 1. Nothing to move")]
    cells += [new_code("raise RuntimeError('no figure needs this')", outputs=interactive())]
    for number in range(2, 2 + figures):
        cells += [
            new_markdown(f"Text.\n\n## {number}. How *steep* is $x^{number}$?\n\n### Aside"),
            tagged(FIGURE, interactive()),
        ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    path = folder / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    lesson(tmp_path)
    lesson(tmp_path, "10_other")
    lesson(tmp_path, "11_still", figures=0)
    (tmp_path / "kdlib").mkdir()
    (tmp_path / "kdlib" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_lesson_is_found_by_its_number_its_name_or_how_the_name_begins(repository):
    for name in ("02", "2", "lines", "02_lines", "02_lines.ipynb", "lin", "02_l"):
        assert course.find(name, course.lessons(repository)).stem == "02_lines", name


def test_an_unknown_lesson_is_refused_and_the_known_ones_are_named(repository):
    for name in ("3", "lines2", "ines", "", "1", "0", "02.ipynb"):
        with pytest.raises(ValueError, match=f"no lesson '{name}'; there are: 02_lines, 10_other, 11_still"):
            course.find(name, course.lessons(repository))


def test_a_name_with_which_several_lessons_begin_is_refused_and_they_are_named(repository):
    lesson(repository, "12_stay")
    with pytest.raises(ValueError, match="'st' begins several lessons: 11_still, 12_stay"):
        course.find("st", course.lessons(repository))
    lesson(repository, "13_st")
    assert course.find("st", course.lessons(repository)).stem == "13_st"


def test_the_notebook_holds_the_tagged_cells_and_the_headings_of_their_figures(tmp_path):
    cells = classroom.build(lesson(tmp_path)).cells
    assert [cell.cell_type for cell in cells] == ["code", "code", "markdown", "code", "markdown", "code"]
    sources = "\n".join(cell.source for cell in cells)
    assert (
        "no figure needs this" not in sources
        and sources.count(repr(FIGURE)) == 2
        and sources.count(repr(DRAW)) == 1
    )
    first, second = cells[2].source, cells[4].source
    assert "2. How <em>steep</em> is <math" in first and "3. How" in second
    assert "1 of 2" in first and '<a href="#figure-2">next</a>' in first and "previous" not in first
    assert 'id="figure-2"' in second and '<a href="#figure-1">previous</a>' in second and "next" not in second


def test_run_it_shows_the_figures_alone_larger_and_in_the_lesson_s_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    path = lesson(tmp_path)
    notebook = classroom.build(path)
    told = (
        "import os\nfrom kdlib.lesson import live\nprint(dots_per_inch, live.somebody_watches(), os.getcwd())"
    )
    notebook.cells.append(nbformat.v4.new_code_cell(told))
    NotebookClient(notebook, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    *shown, told = outputs
    assert len(shown) == 2 and all(VIEW in output.data for output in shown)
    assert told.text == f"140 True {path.parent}\n"


def test_a_live_surface_counts_though_the_committed_notebook_shows_its_last_picture(tmp_path):
    path = lesson(tmp_path, figures=0)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(tagged("live = surface.LiveSurface(rows, caption='')\nlive.show()"))
    nbformat.write(notebook, path)
    assert "live.show()" in classroom.build(path).cells[-1].source


def test_the_tagged_cells_of_each_lesson_bind_every_name_that_they_read():
    for path in LESSONS:
        read, bound = set(), {*dir(builtins), "display", "get_ipython"}
        for _, source, _ in classroom._tagged(path):
            for scope in scopes(symtable.symtable(source, path.stem, "exec")):
                names = [
                    name for name in scope.get_symbols() if name.is_global() or scope.get_type() == "module"
                ]
                read.update(name.get_name() for name in names if name.is_referenced())
                bound.update(name.get_name() for name in names if name.is_assigned() or name.is_imported())
        assert read <= bound, f"{path.stem}: no cell tagged `projector` binds {sorted(read - bound)}"


def scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    """A module, and every class, function and comprehension in it."""
    yield table
    for inner in table.get_children():
        yield from scopes(inner)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_tagged_cells_of_a_lesson_run_without_the_others_and_show_its_figures(path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    monkeypatch.setenv("KDLIB_PROFILE", "ci")
    notebook = classroom.build(path)
    NotebookClient(notebook, kernel_name="python3").execute()
    expecting, shown = False, 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            expecting = True
        else:
            kinds = [
                VIEW if VIEW in output.get("data", {}) else output.output_type for output in cell.outputs
            ]
            assert kinds == [VIEW] * expecting, cell.source
            shown, expecting = shown + len(kinds), False
    assert shown == sum(cell.cell_type == "markdown" for cell in notebook.cells) > 0


def test_what_a_needed_cell_raises_is_shown_in_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    path = lesson(tmp_path)
    path.write_text(path.read_text().replace("dots_per_inch = canvas.DPI", "raise ArithmeticError(3)"))
    notebook = classroom.build(path)
    NotebookClient(notebook, kernel_name="python3").execute()
    (error,) = notebook.cells[1].outputs
    assert (error.ename, error.evalue) == ("ArithmeticError", "3")


def test_a_demonstration_that_cannot_begin_says_why(repository, capsys):
    for arguments, complaint in (
        (["99"], "no lesson '99'; there are: 02_lines"),
        (["11"], "11_still has no interactive figure"),
        (["02", "--", "--port=1"], "--port=1"),
    ):
        assert cli.main(["lab", "--demo", *arguments]) == 2
        assert complaint in capsys.readouterr().err


def test_voila_that_does_not_start_is_reported_with_its_reason(repository, monkeypatch, capsys):
    monkeypatch.setattr(classroom, "_options", lambda port: ["--Voila.port=none"])
    assert cli.main(["lab", "--demo", "02"]) == 2
    complaint = capsys.readouterr().err
    assert "Voila ended by itself" in complaint and "none" in complaint.split("status", 1)[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["ctrl-c", "terminal closed"])
def test_a_signal_ends_it_and_leaves_neither_process_nor_file(repository, tmp_path, number):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = dict(os.environ, BROWSER="true", TMPDIR=str(temporary), PYTHONPATH=str(CHECKOUT))
    command = [sys.executable, "-m", "kdlib.cli", "lab", "--demo", "lines"]
    folder = repository / "notebooks"
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert "02_lines for the classroom: http://127.0.0.1:" in process.stdout.readline()
        voila = children(process.pid)
        assert voila
        process.send_signal(number)
        process.communicate()
    assert process.returncode == 0
    assert list(temporary.iterdir()) == []
    for child in voila:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def children(parent: int) -> list[int]:
    """The processes that a process has started and that still run (Linux)."""
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
