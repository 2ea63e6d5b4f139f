"""The code that a lesson shows, as candidates: functions of what in it may stand for something else.

From every cell, from the code in the prose, and from every source that a cell prints by `inspect.getsource`, come

- each function and each lambda, with its parameters;
- each expression, also those inside of functions, and each function of a library that is named;
- each run of up to RUN statements that follow one another, with the value that the last one gives.

The names that a piece reads and that stand for no function are open: any of them may be renamed to a parameter of an
exercise. In a second reading so may what is read from such a name: `split.labels`, `table["x"]`, `cached[rows]`,
`student(images)`.

Left out: pieces that call what trains, loads, draws or writes (all that is imported from elsewhere than
`shown_names.MATHEMATICS`), numbers that stand where an exercise has a parameter, methods of a class that is defined in
the lesson, and functions of any number of arguments.
"""

import ast
import copy
import functools
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import notebook_reading as reading
from shown_names import (
    COMPREHENSIONS,
    Function,
    Scope,
    blocks,
    free_names,
    imported,
    outside_functions,
    parameters,
    stored_names,
)

RUN = 6
_PASSIVE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
# Expressions that say nothing on their own, or whose parts say it.
_TRIVIAL = (ast.Constant, ast.Name, ast.Starred, ast.JoinedStr, ast.FormattedValue, ast.Slice, ast.Lambda)
_ENOUGH = 3  # of the names that a loop or a condition at the end of a run may have worked for


@dataclass(frozen=True)
class Candidate:
    """A piece of shown code as a function.

    Attributes:
        place: where it stands: "cell 3".
        text: how it is written.
        open: the names that have to stand for parameters.
        settled: names that may stand for one, with the number that they have otherwise.
        make: gives the function, which takes all of these names by keyword.
    """

    place: str
    text: str
    open: tuple[str, ...]
    make: Callable[[], Callable]
    settled: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Where:
    """What is the same for all pieces of a stretch of code: its place, its names, and which of them are local."""

    place: str
    scope: Scope
    local: frozenset[str] = frozenset()

    def inside(self, function: Function) -> "_Where":
        names = {*parameters(function), *stored_names(function)}
        return _Where(self.place, self.scope, self.local | names)

    def is_open(self, name: str) -> bool:
        return name in self.local or self.scope.is_open(name)


def shown(notebook: dict, functions: Mapping[str, Callable]) -> tuple[list[Candidate], list[str]]:
    """Every candidate of a notebook in the order of its cells; and complaints on printed sources that are not found.

    Args:
        notebook: as a dict.
        functions: what the learner writes in the exercises, by name.
    """
    cells = [(place, ast.parse(reading.source(cell)).body) for place, cell in reading.code(notebook)]
    everything = [statement for _, body in cells for statement in body]
    scope = Scope(everything, functions)
    found, complaints = [], []
    for place, body in cells:
        found += _pieces(body, _Where(place, scope))
        for printed in _printed(body):
            try:
                found += _of_source(printed, everything, place)
            except (LookupError, AttributeError, TypeError, OSError):
                complaints.append(
                    f"{place}: the source of {ast.unparse(printed)} is not found; name what is printed"
                )
    for place, body in _in_prose(notebook):
        found += _pieces(body, _Where(place, scope))
    places = {id(statement): place for place, body in cells for statement in body}
    found += _runs(everything, lambda last: _Where(places[id(last)], scope))
    alike = {
        (one.text, one.open): one for one in sorted(found, key=number, reverse=True)
    }  # the first one stays
    return sorted(alike.values(), key=number), complaints


def number(candidate: Candidate) -> int:
    """The number of the cell in which a candidate stands."""
    return int(candidate.place.split()[1])


# ------------------------------------------------------------------ where code is shown


def _in_prose(notebook: dict) -> Iterator[tuple[str, list[ast.stmt]]]:
    """Code in Markdown: blocks, and spans that compute something."""
    block = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    for place, cell in reading.markdown(notebook):
        text = reading.source(cell)
        for piece in (*block.findall(text), *re.findall(r"`([^`\n]+)`", block.sub("", text))):
            try:
                tree = ast.parse(textwrap.dedent(piece).strip())
            except SyntaxError:  # a shell command, a file name, another language
                continue
            if any(
                isinstance(node, ast.Call | ast.BinOp | ast.Lambda | ast.FunctionDef)
                for node in ast.walk(tree)
            ):
                yield place, tree.body


def _printed(body: list[ast.stmt]) -> list[ast.expr]:
    """What a cell hands to `inspect.getsource`."""
    calls = [
        node for tree in body for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) == 1
    ]
    return [call.args[0] for call in calls if ast.unparse(call.func) in ("inspect.getsource", "getsource")]


def _of_source(printed: ast.expr, everything: list[ast.stmt], place: str) -> list[Candidate]:
    """The candidates in a printed source, whose names stand for what they do in the file that it comes from."""
    root, *attributes = ast.unparse(printed).split(".")
    statements = list(outside_functions(everything))
    if any(isinstance(one, ast.FunctionDef | ast.ClassDef) and one.name == root for one in statements):
        return []  # shown by its own cell
    imports = [one for one in statements if isinstance(one, ast.Import | ast.ImportFrom)]
    values = {name: value for one in imports for name, _, value in imported(one)}
    printed_value = functools.reduce(getattr, attributes, values[root]())
    file = ast.parse(inspect.getsource(sys.modules[printed_value.__module__]))
    source = ast.parse(textwrap.dedent(inspect.getsource(printed_value)))
    return list(_pieces(source.body, _Where(place, Scope(file.body))))


# ------------------------------------------------------------------ the pieces of code


def _pieces(body: list[ast.stmt], where: _Where) -> Iterator[Candidate]:
    """All candidates in some statements but for the runs of these statements themselves."""
    for statement in body:
        yield from _inside(statement, where)


def _inside(node: ast.AST, where: _Where) -> Iterator[Candidate]:
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        inner = where.inside(node)
        yield from _function(node, where)
    elif isinstance(node, COMPREHENSIONS):
        inner = _Where(where.place, where.scope, where.local | set(stored_names(node)))
        yield from _expression(node, where)
    else:
        inner = where
        if isinstance(node, ast.expr):
            yield from _expression(node, where)
    for block in blocks(node):
        yield from _runs(block, lambda last: inner)
    for child in ast.iter_child_nodes(node):
        yield from _inside(child, inner)


def _function(node: Function, where: _Where) -> Iterator[Candidate]:
    if node.args.vararg or node.args.kwarg:
        return
    body = node.body if isinstance(node, ast.FunctionDef) else [ast.Return(node.body)]
    plain = [*node.args.posonlyargs, *node.args.args]
    defaults = dict(zip([one.arg for one in reversed(plain)], reversed(node.args.defaults), strict=False))
    defaults |= {
        one.arg: value for one, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    }
    settled = {name: value.value for name, value in defaults.items() if isinstance(value, ast.Constant)}
    inner = _Where(where.place, where.scope, where.local | set(parameters(node)))
    yield from _readings(body, ast.unparse(node), inner, settled)


def _expression(node: ast.expr, where: _Where) -> Iterator[Candidate]:
    if isinstance(getattr(node, "ctx", None), ast.Store | ast.Del):
        return
    if not isinstance(node, _TRIVIAL):
        yield from _readings([ast.Return(node)], ast.unparse(node), where, {})
    if isinstance(node, ast.Name | ast.Attribute):
        yield from _named_function(node, where)


def _named_function(node: ast.Name | ast.Attribute, where: _Where) -> Iterator[Candidate]:
    """A function of a library that is named, called or not: it can be handed in as it is."""
    root, *attributes = ast.unparse(node).split(".")
    usable = root in where.scope.known and root not in where.local and root not in where.scope.written
    if not usable or not where.scope.allows(node):
        return
    value = functools.reduce(lambda one, name: getattr(one, name, None), attributes, where.scope.known[root])
    if inspect.isfunction(value):
        wanted = inspect.signature(value).parameters.values()
        plain = [one for one in wanted if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        needed = tuple(one.name for one in plain if one.default is one.empty)
        settled = {one.name: one.default for one in plain if one.default is not one.empty}
        yield Candidate(where.place, ast.unparse(node), needed, lambda: value, settled)


def _runs(block: list[ast.stmt], where_of: Callable[[ast.stmt], _Where]) -> Iterator[Candidate]:
    """Statements that follow one another, as one function that gives what the last one gives."""
    for start in range(len(block)):
        for end in range(start + 2, min(start + RUN, len(block)) + 1):
            run, where = block[start:end], where_of(block[end - 1])
            if isinstance(run[-1], _PASSIVE) or not where.scope.allows(run[-1]):
                break
            if end == start + 2 and (isinstance(run[0], _PASSIVE) or not where.scope.allows(run[0])):
                break
            text = "\n".join(ast.unparse(statement) for statement in run)
            for result in _results(run):
                ending = "".join(f"\n{ast.unparse(statement)}" for statement in result)
                yield from _readings([*run, *result], text + ending, where, {})


def _results(run: list[ast.stmt]) -> list[list[ast.stmt]]:
    """The return statements that may end a run."""
    last = run[-1]
    if isinstance(last, ast.Return):
        return [[]]
    if isinstance(last, ast.Expr):
        return [[ast.Return(last.value)]]
    assigns = isinstance(last, ast.Assign | ast.AnnAssign | ast.AugAssign)
    names = list(dict.fromkeys(stored_names(*([last] if assigns else run))))
    if isinstance(last, ast.Assign) and len(names) > 1:
        return [[ast.Return(ast.Tuple([ast.Name(name, ast.Load()) for name in names], ast.Load()))]]
    return [[ast.Return(ast.Name(name, ast.Load()))] for name in names[-_ENOUGH:]]


# ------------------------------------------------------------------ a piece as a function


def _readings(
    body: list[ast.stmt], text: str, where: _Where, settled: Mapping[str, Any]
) -> Iterator[Candidate]:
    """The piece with its names open, and with what is read from them open, where that makes a difference."""
    if not where.scope.allows(*body):
        return
    yield _candidate(body, text, where, settled)
    replacing = _Replacing(
        {name for name in free_names(*body) if where.is_open(name)} - set(stored_names(*body))
    )
    replaced = [replacing.visit(copy.deepcopy(statement)) for statement in body]
    if replacing.names:
        inner = _Where(where.place, where.scope, where.local | replacing.names)
        yield _candidate(replaced, text, inner, settled)


def _candidate(body: list[ast.stmt], text: str, where: _Where, settled: Mapping[str, Any]) -> Candidate:
    free, literals = free_names(*body), where.scope.literals
    literal = [
        name for name in free if name not in where.local and isinstance(literals.get(name), int | float)
    ]
    settled = {name: literals[name] for name in literal} | {
        name: settled[name] for name in free if name in settled
    }
    unsettled = tuple(name for name in free if name not in settled and where.is_open(name))
    names = ast.arguments([], [], None, [ast.arg(name) for name in (*unsettled, *settled)], [], None, [])
    names.kw_defaults = [None] * len(names.kwonlyargs)
    tree = ast.FunctionDef("shown", names, body, [], lineno=1, type_params=[])
    return Candidate(where.place, text, unsettled, functools.partial(where.scope.compile, tree), settled)


class _Replacing(ast.NodeTransformer):
    """Puts one name in the place of what is read from an open name: an attribute, an element, the result of a call.

    The name is the text of what it replaces, `table['x']`: in a syntax tree any text may be a name.
    """

    def __init__(self, open_names: set[str]):
        self.open_names = open_names
        self.names: set[str] = set()

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        return self._replace(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        return self._replace(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if self._root(node) in self.open_names:
            return self._replace(node)
        if isinstance(node.func, ast.Attribute):  # a method: what it belongs to may be replaced, it may not
            node.func.value = self.visit(node.func.value)
        node.args = [self.visit(argument) for argument in node.args]
        node.keywords = [self.visit(keyword) for keyword in node.keywords]
        return node

    def _replace(self, node: ast.Attribute | ast.Subscript | ast.Call) -> ast.AST:
        if self._root(node) not in self.open_names or isinstance(
            getattr(node, "ctx", None), ast.Store | ast.Del
        ):
            return self.generic_visit(node)
        self.names.add(ast.unparse(node))
        return ast.Name(ast.unparse(node), ast.Load())

    def _root(self, node: ast.AST) -> str | None:
        while isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            node = node.func
        return node.id if isinstance(node, ast.Name) else None
