"""The text of an exercise, cut from the source of its tested solution: a notebook's stub and solution.

The solution's body stands between two marker comments that run to the end of the function:

    def soften(logits, temperature):
        \"\"\"What the learner has to write.\"\"\"
        # --- your code
        return torch.softmax(logits / temperature, dim=-1)
        # --- end

The stub keeps everything before the first marker, which may stand within a loop. An exercise of no arguments asks for
a value: it becomes an assignment under its question.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable

BEGIN, END = "# --- your code", "# --- end"
_TODO = "return ...  # your code here"


def stub(function: Callable, start: Callable | None = None) -> str:
    """The cell a learner starts from: to be written from nothing, or `start`, a function to be repaired."""
    head, body = _parts(function)
    if asks_for_a_value(function):
        text = f"{_question(function)}\n{function.__name__} = ...  # your answer"
    elif start is None:
        margin = body[: len(body) - len(body.lstrip())]  # the body may stand within a loop that is given
        todo = _TODO if len(margin) == 4 else _TODO.removeprefix("return ")  # a loop goes on
        text = f"{head}\n{margin}{todo}"
    else:
        text = f"{head}\n{_parts(start)[1]}"
    return _with_imports(text, function, start or function)


def solution(function: Callable) -> str:
    """The same cell, solved."""
    head, body = _parts(function)
    if asks_for_a_value(function):
        answer = textwrap.dedent(body).replace("return ", f"{function.__name__} = ")
        text = f"{_question(function)}\n{answer}"
    else:
        text = f"{head}\n{body}"
    return _with_imports(text, function, function)


def asks_for_a_value(function: Callable) -> bool:
    return not inspect.signature(function).parameters


def _question(function: Callable) -> str:
    return textwrap.indent(inspect.getdoc(function), "# ", predicate=lambda line: True)


def _parts(function: Callable) -> tuple[str, str]:
    """Signature with docstring and given lines; and the body between the markers."""
    lines = _definition(function).splitlines()
    marks = [next((i for i, line in enumerate(lines) if line.strip() == mark), None) for mark in (BEGIN, END)]
    if None in marks or marks[1] != len(lines) - 1:
        region = f"a region from {BEGIN!r} to {END!r}"
        raise ValueError(f"{function.__name__}: the function must end with {region}")
    return "\n".join(lines[: marks[0]]), "\n".join(lines[marks[0] + 1 : marks[1]])


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
