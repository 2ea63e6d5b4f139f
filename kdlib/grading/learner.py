"""What is done behind the walls: a notebook is examined, or one of its answers is run. Nothing is judged here."""

import linecache
import sys
import types
from collections.abc import Callable
from typing import Any

import torch

from kdlib.grading import wire
from kdlib.grading.handed_in import NotALesson, examine
from kdlib.lesson import exercises
from kdlib.lesson.exercises import _judge, _observe
from kdlib.lesson.exercises._limits import EndlessLoop

_OF_THE_JUDGE = ("kdlib.lesson.exercises", "kdlib.lesson.laboratory")


def plan(content: bytes, name: str, lessons: dict[str, list[str]]) -> dict[str, Any]:
    """What the notebook holds, or why it is none that can be judged."""
    try:
        return examine(content, name, lessons)
    except NotALesson as error:
        return {"problem": str(error)}


def answer(exercise: str, expression: str, pieces: list[tuple[int, int, str]]) -> dict[str, Any]:
    """Run the statements that an answer needs, then call it on the cases of its exercise.

    A statement that fails is left behind, as by a learner who goes on with the next cell.

    Returns:
        What was observed, for a judge in a process that runs nothing of the learner's.
    """
    torch.set_num_threads(1)
    asked = exercises.get(exercise)
    cases, watch = asked.cases(), _judge.watch  # before anything could replace them
    before = _seal()
    namespace = _notebook_module()
    report: dict[str, Any] = {"troubles": []}
    for cell, line, code in pieces:
        try:
            _run(cell, line, code, namespace)
        except BaseException as error:  # noqa: BLE001 - a learner's cell may raise anything, SystemExit too
            report["troubles"].append([cell, _said(error)])
    try:
        value = eval(compile(expression, "the answer", "eval"), namespace)
    except BaseException as error:  # noqa: BLE001
        return report | {"failed": _said(error)}
    report["copied"] = _is_of_the_course(asked, value)
    report["altered"] = _altered(before)
    if report["copied"] or report["altered"]:
        return report
    seen = watch(asked, value, cases)
    report["altered"] = _altered(before)
    report["objection"] = seen.objection
    report["outcomes"] = [wire.pack(outcome) for outcome in seen.outcomes]
    if asked.is_open:
        looks = cases[0][0].looks
        report["looks"] = [[one.seed, list(one.settings), one.split, one.accuracy] for one in looks[:5000]]
    return report


def _notebook_module() -> dict[str, Any]:
    """The names of a notebook before its first cell."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    module.__dict__.update(display=lambda *shown, **how: None, get_ipython=_shell)
    return module.__dict__


def _shell() -> Any:
    """IPython, for a cell that uses one of its magics."""
    from IPython.core.history import HistoryManager
    from IPython.core.interactiveshell import InteractiveShell

    HistoryManager.enabled = False
    shell = InteractiveShell.instance()
    shell.user_ns = sys.modules["__main__"].__dict__
    return shell


def _run(cell: int, line: int, code: str, namespace: dict[str, Any]) -> None:
    file = f"code cell {cell}, from line {line}"
    linecache.cache[file] = len(code), None, code.splitlines(keepends=True), file  # for inspect.getsource
    exec(compile(code, file, "exec"), namespace)


def _said(error: BaseException) -> str:
    if isinstance(error, EndlessLoop):
        return "it comes to no end"
    return wire.shortened(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def _is_of_the_course(asked: exercises.Exercise, value: Any) -> bool:
    """Whether the answer is the workbook's own solution, handed back."""
    while isinstance(value, types.MethodType) or hasattr(value, "__wrapped__"):
        value = getattr(value, "__wrapped__", None) or value.__func__
    if isinstance(value, exercises.Solution):
        return True
    code = getattr(value, "__code__", None)
    return value is asked.solve or code is not None and code is asked.solve.__code__


# ------------------------------------------------------------------ the seal on the judge


def _seal() -> dict[str, Any]:
    """What the judge's code consists of."""
    seal: dict[str, Any] = {
        f"torch.{name}": getattr(torch, name)
        for name in ("allclose", "equal", "isfinite", "isclose", "tensor")
    }
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith(_OF_THE_JUDGE):
            for name, value in vars(module).items():
                seal[f"{module_name}.{name}"] = value
                if isinstance(value, types.FunctionType):
                    seal[f"{module_name}.{name}()"] = value.__code__
                elif isinstance(value, type):
                    seal |= {f"{module_name}.{name}.{part}": one for part, one in vars(value).items()}
    for name, one in exercises._core.REGISTRY.items():
        seal |= {f"the exercise {name}": one} | {f"{name}.{part}": value for part, value in vars(one).items()}
    seal["the exercises"] = len(exercises._core.REGISTRY)
    seal["the time limit"] = _observe.SECONDS
    return seal


def _altered(before: dict[str, Any], seal: Callable[[], dict[str, Any]] = _seal) -> str | None:
    """The first thing about the judge that is another than before."""
    now = seal()
    missing = object()
    return next((name for name, value in before.items() if now.get(name, missing) is not value), None)
