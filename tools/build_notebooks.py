"""Build the notebooks from the lessons' sources.

    python tools/build_notebooks.py [NAME ...] [--no-execute] [--check]

A lesson is written once, in lessons/NN_name.py (jupytext's percent format). It becomes two notebooks:
notebooks/NN_name.ipynb for the learner, and notebooks/solutions/NN_name.ipynb with the exercises solved. An
empty cell

    # %% exercise="soften"

becomes a stub to fill in (a solution, in the second notebook), which has the tags of that cell too, and a cell that
checks it; both come from kdlib.lesson.exercises. Before the first import of a lesson, a test says how to install the
course where it is not. The tag `projector` stands on the cells that `kdlib lab --demo` runs:
those that show an interactive figure, and those that they need. The tag `figure` stands on cells that only draw:
their code is folded in the notebook, one click shows it. Notebooks are executed in the `lesson` profile and
written only if they ran cleanly.
NAME is a lesson's name or how it begins ("01"); without one, all are built.
"""

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import notebook_reading
import notebook_rules

from kdlib import _files
from kdlib.lesson import exercises

ROOT = Path(__file__).resolve().parents[1]
_IMPORT = re.compile(r"^(import|from) ", re.MULTILINE)
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}


# Stands at the head of the first cell that imports anything: a notebook may be opened where the course, or a part of
# it, is not installed, or with the kernel of another environment.
_INSTALLED = """\
try:
    import kdlib.lesson.surface, kdlib.lesson.widgets
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f'{error}. In the folder of the course: make lab, or pip install -e ".[all]"') from None

"""


class BuildError(Exception):
    """A notebook that must not be written; the message says why."""


def generate(source: Path, *, solved: bool) -> nbformat.NotebookNode:
    """The notebook of a lesson, not yet executed: for the learner, or with the exercises solved."""
    cells = [cell for raw in jupytext.read(source, fmt="py:percent").cells for cell in _expand(raw, solved)]
    first = next((cell for cell in cells if cell.cell_type == "code" and _IMPORT.search(cell.source)), None)
    if first is not None:
        first["source"] = _INSTALLED + first.source
    for position, cell in enumerate(cells):
        cell["id"] = hashlib.sha256(f"{source.stem}:{position}".encode()).hexdigest()[:12]
        cell["metadata"] = _metadata(cell["metadata"].get("tags"))
    return new_notebook(cells=cells, metadata=_METADATA, nbformat_minor=5)


def _metadata(tags: list[str] | None) -> dict:
    """A cell's tags, and that its code is folded where it only draws."""
    folded = {"jupyter": {"source_hidden": True}} if "figure" in (tags or ()) else {}
    return {**folded, "tags": tags} if tags else {}


def _expand(cell: nbformat.NotebookNode, solved: bool) -> Iterator[nbformat.NotebookNode]:
    name = cell.metadata.get("exercise")
    if name is None:
        yield cell
        return
    if cell.source.strip():
        raise BuildError(f'the cell exercise="{name}" has to be empty: kdlib.lesson.exercises has its text')
    exercise = exercises.get(name)
    text = exercise.solution_source() if solved else exercise.stub_source()
    tags = ["solution" if solved else "exercise", *cell.metadata.get("tags", ())]
    yield new_code_cell(text, metadata={"tags": tags})
    offer = "" if solved else f'# display(hint("{name}"))  # take the first "#" away for a hint; again for the next\n'
    yield new_code_cell(f'{offer}check("{name}", {name})', metadata={"tags": ["check"]})


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Run it in `folder`, in the `lesson` profile; leave nothing of this machine in it.

    Raises:
        BuildError: a cell failed, or left what must not be committed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    search_path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "KDLIB_PROFILE": "lesson", "PYTHONPATH": search_path}
    client = NotebookClient(
        notebook, timeout=None, startup_timeout=300, kernel_name="python3", record_timing=False,
        store_widget_state=False, resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    try:
        client.execute(env=environment)
    except (CellExecutionError, DeadKernelError) as error:
        raise BuildError(str(error)) from error
    _clean(notebook)
    broken = [complaint for rule in notebook_rules.CLEAN for complaint in rule(notebook)]
    if broken:
        raise BuildError("\n".join(broken))


def _clean(notebook: nbformat.NotebookNode) -> None:
    notebook["metadata"] = _METADATA
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell["outputs"] = [output for output in cell.outputs if _without_widget_view(output)]


def _without_widget_view(output: nbformat.NotebookNode) -> bool:
    """Take the live view out of an output: without its state it shows an error, and it has a static twin.

    False where what is left says nothing to a reader ("IntSlider(value=0)"), so that the output can go.
    """
    if output.get("data", {}).pop(notebook_reading.WIDGET_VIEW, None) is None:
        return True
    return not re.match(r"\w+\(", output["data"].get("text/plain", "Widget()"))


def differences(source: Path, out: Path) -> list[str]:
    """What sets the written notebooks apart from what the source generates now, outputs aside."""
    found = []
    for target, solved in _targets(source, out):
        if not target.exists():
            found.append(f"{target.relative_to(out.parent)}: missing")
            continue
        written = nbformat.read(target, as_version=4)
        for cell in written.cells:
            if cell.cell_type == "code":
                cell["outputs"], cell["execution_count"] = [], None
        if written != generate(source, solved=solved):
            found.append(f"{target.relative_to(out.parent)}: not what {source.name} generates")
    return found


def orphans(sources: list[Path], out: Path) -> list[str]:
    """Written notebooks that no lesson generates."""
    wanted = {target for source in sources for target, _ in _targets(source, out)}
    strays = {*out.glob("*.ipynb"), *out.glob("solutions/*.ipynb")} - wanted
    return [f"{path.relative_to(out.parent)}: no lesson generates it" for path in sorted(strays)]


def build(source: Path, out: Path, *, run: bool = True) -> list[Path]:
    """Write both notebooks of a lesson, or, where one does not run cleanly, neither."""
    ready = []
    for target, _ in _targets(source, out):  # a lesson runs for minutes: it shall not be lost at their end
        _files.writable_folder(target.parent)
    for target, solved in _targets(source, out):
        notebook = generate(source, solved=solved)
        if run:
            execute(notebook, target.parent)
        ready.append((target, notebook))
    for target, notebook in ready:
        _files.write(target, (nbformat.writes(notebook) + "\n").encode())
    return [target for target, _ in ready]


def _targets(source: Path, out: Path) -> list[tuple[Path, bool]]:
    name = f"{source.stem}.ipynb"
    return [(out / name, False), (out / "solutions" / name, True)]


def _choose(sources: list[Path], names: list[str]) -> list[Path]:
    unknown = [name for name in names if not any(source.stem.startswith(name) for source in sources)]
    if unknown:
        known = ", ".join(source.stem for source in sources) or "none"
        raise BuildError(f"no lesson begins with {', '.join(map(repr, unknown))}; there are: {known}")
    return [source for source in sources if not names or source.stem.startswith(tuple(names))]


def _parser() -> argparse.ArgumentParser:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("names", nargs="*", metavar="NAME", help="how a lesson's name begins; default: all")
    parser.add_argument("--no-execute", action="store_true", help="write a draft: cells without outputs")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a notebook is stale")
    return parser


def main(arguments: list[str] | None = None, *, root: Path = ROOT) -> int:
    options = _parser().parse_args(arguments)
    every, out = sorted((root / "lessons").glob("*.py")), root / "notebooks"
    try:
        sources = _choose(every, options.names)
        if options.check:
            found = [line for source in sources for line in differences(source, out)] + orphans(every, out)
            print("\n".join(found) or f"{len(sources)} lesson(s): notebooks up to date")
            return 1 if found else 0
        for source in sources:
            for target in build(source, out, run=not options.no_execute):
                print(target.relative_to(root))
    except (BuildError, ValueError, OSError) as error:
        print(f"nothing written: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
