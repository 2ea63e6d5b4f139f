"""The statements of a notebook, and which of them an answer needs: found by the names they bind and read.

Only what an answer needs is run, so that a training of half a minute in another cell costs nothing, and one cell that
fails does not take the answers of the others with it.
"""

import ast
import re
import symtable
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Cell magics around code that runs as it stands; the cells of all others hold something else than Python.
_TRANSPARENT = ("time", "timeit", "capture", "prun")
_SHOWING = ("check", "hint", "solution", "display", "print")
# What binds or runs what nobody can see from outside; whatever needs anything may need this.
_OPAQUE = {"exec", "eval", "globals", "locals", "vars", "__import__", "get_ipython"}


@dataclass(frozen=True)
class Statement:
    """A statement at the outermost level of a cell, or several on one line.

    Attributes:
        cell: its number among the code cells, from 1.
        binds: the names that it binds; `always` says whether it binds them whatever happens.
        uses: the names that it reads when it runs.
        uses_later: the names that functions in it read when they are called.
        changes: names of what may be another than before, though nothing is bound.
        is_opaque: nobody can see from outside what it binds.
    """

    cell: int
    line: int
    code: str
    nodes: list[ast.stmt]
    binds: frozenset[str]
    always: bool
    uses: frozenset[str]
    uses_later: frozenset[str]
    changes: frozenset[str]
    is_opaque: bool


def read(cell: int, source: str) -> list[Statement]:
    """The statements of a cell.

    Raises:
        SyntaxError: it is not Python.
    """
    source = _without_magics(source)
    lines = source.split("\n")
    statements = []
    for group in _by_line(ast.parse(source).body):
        first = min([group[0].lineno, *(one.lineno for one in getattr(group[0], "decorator_list", ()))])
        code = "\n".join(lines[first - 1 : group[-1].end_lineno])
        statements.append(_statement(cell, first, code, group))
    return statements


def needed(statements: Sequence[Statement], names: Iterable[str]) -> list[Statement]:
    """Those that the names need, which are read after all of the statements.

    Not seen is what a call changes whose result gets a name: `losses = train(student)` changes the student, too.
    """
    effects = [_effect(one, statements) for one in statements]
    end = len(statements)
    wanted = [(name, end) for name in names]
    wanted += [(name, place) for place, one in enumerate(statements) if one.is_opaque for name in one.uses]
    chosen = {place for place, one in enumerate(statements) if one.is_opaque}
    seen = set(wanted)
    while wanted:
        name, when = wanted.pop()
        for place in reversed(range(when)):
            one = statements[place]
            if name not in effects[place]:
                continue
            chosen.add(place)
            # What a function reads is what it finds when it is called: at the latest, when its name is wanted.
            more = {(other, place) for other in one.uses | one.uses_later} | {
                (other, when) for other in one.uses_later
            }
            wanted += more - seen
            seen |= more
            if one.always and name in one.binds:
                break
    return [statements[place] for place in sorted(chosen)]


def _effect(one: Statement, statements: Sequence[Statement]) -> set[str]:
    """The names that mean something else after the statement: bound by it, or changed by it or by what it calls."""
    if not any(isinstance(node, ast.Expr) or hasattr(node, "body") for node in one.nodes):
        return {*one.binds, *one.changes}
    bound = {name for other in statements if not _imports(other) for name in other.binds}
    called = [other.uses_later for other in statements if other.binds & one.changes]
    return {*one.binds, *(one.changes.union(*called) & bound)}  # neither built-ins nor modules


def _imports(one: Statement) -> bool:
    return all(isinstance(node, ast.Import | ast.ImportFrom) for node in one.nodes)


def names_in(expression: str) -> set[str]:
    """The names that an expression reads."""
    _, uses, uses_later = _scopes(expression)
    return uses | uses_later


def _without_magics(source: str) -> str:
    first, _, rest = source.lstrip().partition("\n")
    if first.startswith("%%"):
        return "\n" + rest if first[2:].split(" ")[0].strip() in _TRANSPARENT else ""
    if re.search(r"^\s*[%!?]|[?]\s*$|=\s*[%!]", source, re.MULTILINE):
        from IPython.core.inputtransformer2 import TransformerManager

        return TransformerManager().transform_cell(source)
    return source


def _by_line(body: list[ast.stmt]) -> list[list[ast.stmt]]:
    """Statements that share a line stay together."""
    groups: list[list[ast.stmt]] = []
    for node in body:
        if groups and node.lineno <= groups[-1][-1].end_lineno:
            groups[-1].append(node)
        else:
            groups.append([node])
    return groups


def _statement(cell: int, line: int, code: str, group: list[ast.stmt]) -> Statement:
    binds, uses, uses_later = _scopes(code)
    star = any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in group)
    changes = set().union(*map(_changed, group))
    outermost = {
        node.id for statement in group for node in _outside_functions(statement) if isinstance(node, ast.Name)
    }
    return Statement(
        cell, line, code, group, frozenset(binds), all(map(_binds_always, group)), frozenset(uses),
        frozenset(uses_later), frozenset(changes), star or bool(outermost & _OPAQUE),
    )  # fmt: skip


def _binds_always(node: ast.stmt) -> bool:
    kinds = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign
    return isinstance(node, kinds)


def _scopes(code: str) -> tuple[set[str], set[str], set[str]]:
    """The names that code binds at its outermost level, that it reads there, and that functions in it read."""
    top = symtable.symtable(code, "cell", "exec")
    binds = {one.get_name() for one in top.get_symbols() if one.is_assigned() or one.is_imported()}
    uses = {one.get_name() for one in top.get_symbols() if one.is_referenced()}
    later: set[str] = set()
    inner = list(top.get_children())
    while inner:
        table = inner.pop()
        inner += table.get_children()
        later |= {one.get_name() for one in table.get_symbols() if one.is_global()}
        binds |= {
            one.get_name() for one in table.get_symbols() if one.is_declared_global() and one.is_assigned()
        }
    return binds, uses, later


def _outside_functions(node: ast.AST) -> Iterable[ast.AST]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _outside_functions(child)


def _changed(statement: ast.stmt) -> set[str]:
    """Names of what is assigned into, and of what a call that stands alone is made on or with."""
    found = set()
    for node in _outside_functions(statement):
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            found.add(_base(node))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            call = node.value
            if not (isinstance(call.func, ast.Name) and call.func.id in _SHOWING):
                found |= {_base(call.func)} | {one.id for one in ast.walk(call) if isinstance(one, ast.Name)}
    return found - {""}


def _base(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""
