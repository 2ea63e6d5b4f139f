"""The text of an exercise, cut from the source of its tested solution: a notebook's stub and solution.

What the learner writes stands between two marker comments:

    def soften(logits, temperature):
        \"\"\"What the learner has to write.\"\"\"
        # --- your code
        return torch.softmax(logits / temperature, dim=-1)
        # --- end

The stub keeps everything else: a region may stand within a loop or a class that is given, and there may be several of
them. An exercise of no arguments asks for a value: it becomes an assignment under its question.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable

BEGIN, END = "# --- your code", "# --- end"
_TODO = "...  # your code here"


def stub(function: Callable, start: Callable | None = None) -> str:
    """The cell a learner starts from: to be written from nothing, or `start`, a function to be repaired."""
    if asks_for_a_value(function):
        text = f"{_question(function)}\n{function.__name__} = ...  # your answer"
    else:
        text = _filled(function, _todo if start is None else lambda body: _bodies(start)[0])
    return _with_imports(text, function, start or function)


def solution(function: Callable) -> str:
    """The same cell, solved."""
    if asks_for_a_value(function):
        answer = textwrap.dedent(_bodies(function)[0]).replace("return ", f"{function.__name__} = ")
        text = f"{_question(function)}\n{answer}"
    else:
        text = _filled(function, lambda body: body)
    return _with_imports(text, function, function)


def asks_for_a_value(function: Callable) -> bool:
    return not inspect.signature(function).parameters


def _question(function: Callable) -> str:
    return textwrap.indent(inspect.getdoc(function), "# ", predicate=lambda line: True)


def _todo(body: str) -> str:
    """What stands in the stub in place of a region: it returns where the region does."""
    margin = body[: len(body) - len(body.lstrip())]
    returns = any(line.startswith(f"{margin}return ") for line in body.splitlines())
    return f"{margin}{'return ' if returns else ''}{_TODO}"


def _filled(function: Callable, fill: Callable[[str], str]) -> str:
    """The function without markers; in place of each region stands what `fill` makes of it."""
    parts = _parts(function)
    parts[1::2] = [f"{fill(body)}\n" for body in parts[1::2]]
    return "".join(parts).rstrip()


def _bodies(function: Callable) -> list[str]:
    return _parts(function)[1::2]


def _parts(function: Callable) -> list[str]:
    """In turn, lines that are given and the body of a region between the markers."""
    parts = re.split(rf"^ *{BEGIN}\n(.*?)\n *{END}(?:\n|$)", _definition(function), flags=re.MULTILINE | re.DOTALL)
    if len(parts) == 1 or any(mark in part for part in parts for mark in (BEGIN, END)):
        raise ValueError(f"{function.__name__}: there must be a region from {BEGIN!r} to {END!r}, or several")
    return parts


def _definition(function: Callable) -> str:
    """The source from `def` on: without decorators."""
    text = textwrap.dedent(inspect.getsource(function))
    return "\n".join(text.splitlines()[ast.parse(text).body[0].lineno - 1 :])


def _with_imports(text: str, *used_by: Callable) -> str:
    """The text after the imports that the functions rely on, so that the cell runs on its own."""
    used = set().union(*map(_global_names, used_by))
    module = ast.parse(inspect.getsource(inspect.getmodule(used_by[0])))
    needed = []
    for statement in module.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            names = [alias for alias in statement.names if (alias.asname or alias.name) in used]
            if names:
                statement.names = names
                needed.append(ast.unparse(statement))
    return "\n".join([*needed, "", "", text] if needed and text.startswith("def ") else [*needed, text])


def _global_names(function: Callable) -> set[str]:
    """Names that the function reads but neither takes as parameters nor assigns."""
    nodes = [*ast.walk(ast.parse(_definition(function)))]
    names = [node for node in nodes if isinstance(node, ast.Name)]
    assigned = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    parameters = {node.arg for node in nodes if isinstance(node, ast.arg)}
    return {node.id for node in names} - assigned - parameters
