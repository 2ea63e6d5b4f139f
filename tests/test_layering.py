"""The house keeps its shape: what may import what, what `import kdlib` costs, how long a file may be."""

import ast
import functools
import importlib.util
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
LINES = 350
ROOMS = 12
NOT_IN_THE_CORE = {
    "IPython", "anywidget", "ipykernel", "ipywidgets", "jupyter_client", "jupyter_core", "jupyterlab",
    "jupytext", "matplotlib", "nbclient", "nbconvert", "nbformat", "papermill", "traitlets",
}  # fmt: skip

ABOVE_THE_CORE = ("cli", "lesson", "deploy", "experiments", "audit", "site", "grading")


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of kdlib."""
    found = {}
    for path in sorted((CHECKOUT / "kdlib").rglob("*.py")):
        parts = path.relative_to(CHECKOUT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(package: str, source: str) -> set[str]:
    """Every module that a file of `package` imports, also inside functions, but not for type checkers."""
    found = set()
    for node in runtime_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            found |= {submodule(origin, alias.name) for alias in node.names}
    return found


def submodule(origin: str, name: str) -> str:
    """`from kdlib import losses` imports kdlib.losses; `from kdlib.data import load` imports kdlib.data."""
    return f"{origin}.{name}" if f"{origin}.{name}" in MODULES else origin


def runtime_nodes(tree: ast.AST):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from runtime_nodes(node)


def layer(name: str) -> str:
    """core or the name of a room above it; the package itself is core."""
    first = name.split(".")[1] if "." in name else ""
    return first if first in ABOVE_THE_CORE else "core"


def package_of(name: str) -> str:
    return name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]


@functools.cache
def all_imports() -> dict[str, set[str]]:
    """Of every module of kdlib; read once, and by these tests alone: not where all tests are collected."""
    return {
        name: imports(package_of(name), path.read_text(encoding="utf-8")) for name, path in MODULES.items()
    }


def test_core_imports_no_lesson_no_deploy_and_no_jupyter():
    core = [name for name in MODULES if layer(name) == "core"]
    assert len(core) > 30
    for name in core:
        upward = {other for other in all_imports()[name] if other.startswith("kdlib.") and layer(other) != "core"}
        notebook = {other for other in all_imports()[name] if other.split(".")[0] in NOT_IN_THE_CORE}
        assert not upward | notebook, name


def test_lesson_and_deploy_do_not_import_each_other_nor_what_stands_above_them():
    for name in ("lesson", "deploy"):
        mine = set().union(*(all_imports()[module] for module in MODULES if layer(module) == name))
        mine = {module for module in mine if module.startswith("kdlib.")}
        above = {module for module in mine if layer(module) in {*ABOVE_THE_CORE} - {name}}
        # The results look into the folder of the experiments, which holds no code itself, to find them.
        assert not above - {"kdlib.experiments"}


def test_the_audit_stands_above_all_but_the_command():
    below = {name for name in MODULES if layer(name) not in ("audit", "cli")}
    assert not {name for name in below if any(layer(other) == "audit" for other in all_imports()[name])}
    assert any(layer(other) == "audit" for other in all_imports()["kdlib.cli"])


def test_site_and_grading_stand_above_lesson_and_deploy_and_only_the_command_uses_them():
    for room in ("site", "grading"):
        mine = set().union(*(all_imports()[name] for name in MODULES if layer(name) == room))
        beside = {name for name in mine if name.startswith("kdlib.")}
        assert {layer(name) for name in beside} <= {room, "core", "lesson", "deploy"}, room
        users = {name for name, found in all_imports().items() if any(layer(other) == room for other in found)}
        assert {name for name in users if layer(name) != room} == {"kdlib.cli"}, room


def test_the_folder_of_the_experiments_imports_nothing_itself():
    assert not all_imports()["kdlib.experiments"]


def test_few_modules_lie_directly_in_the_package():
    assert len(list((CHECKOUT / "kdlib").glob("*.py"))) <= ROOMS


def test_no_import_circle():
    graph = {name: {other for other in found if other in MODULES} for name, found in all_imports().items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_imports_are_read_wherever_they_stand():
    source = """
from . import losses
from .data import load
from kdlib.lesson import figures as drawn
import numpy as np, torch.nn
def later():
    from matplotlib import pyplot
if TYPE_CHECKING:
    import traitlets
"""
    expected = {"kdlib.losses", "kdlib.data", "kdlib.lesson.figures", "numpy", "torch.nn", "matplotlib"}
    assert imports("kdlib", source) == expected


def test_import_of_kdlib_imports_nothing_heavy():
    code = "import sys\nbefore = set(sys.modules)\nimport kdlib\n"
    code += (
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert process.stdout.split() == ["kdlib"]


def test_every_public_submodule_is_reached_from_the_package():
    import kdlib

    for name in kdlib._SUBMODULES:
        assert getattr(kdlib, name).__name__ == f"kdlib.{name}"
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        getattr(kdlib, "absent")  # noqa: B009 - the attribute is asked for, not used


def code_files() -> list[Path]:
    folders = ("kdlib", "tools", "benchmarks", "examples")
    return [path for folder in folders for path in sorted((CHECKOUT / folder).rglob("*.py"))]


def test_every_file_is_short_enough_to_read():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in code_files()}
    assert not {path.name: length for path, length in lengths.items() if length > LINES}
