"""Which cells of a notebook a figure needs: a backward slice over the names that they bind and read.

A cell is needed when it binds, or changes in place, an object that a needed cell after it reads. The rest (what
only prints, what only trains something else) can be left out. Read from the code, without running it:

- A name read inside a function is read when the function is called. It may therefore be bound after the
  function is defined, but before the figure.
- An object is changed by an assignment to a part of it (`table["a"] = 1`), by a method that is called as a
  statement (`rows.append(1)`), by a function of the notebook that it is passed to, and by `kdlib.training`.
  What another library does to its arguments is not seen.
"""

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

_TRAINERS = "training"  # the module whose functions change the network that they are given
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
# Statements after which a name may still have the value that an earlier cell gave it.
_PERHAPS = ast.If | ast.For | ast.While | ast.Try | ast.Match | ast.AugAssign


@dataclass
class Names:
    """What a cell does with the names of the notebook."""

    reads: set[str] = field(default_factory=set)  # at once
    reads_later: set[str] = field(default_factory=set)  # inside functions
    binds: set[str] = field(default_factory=set)
    rebinds: set[str] = field(default_factory=set)  # of these, the ones for which earlier cells do not matter
    changes: set[str] = field(default_factory=set)


def needed(cells: Sequence[str], figure: int) -> list[int]:
    """The positions of the cells that the cell at position `figure` needs, itself the last of them.

    Raises:
        ValueError: a cell that is not plain Python (a magic, a syntax error).
    """
    trees = [_parsed(source, position) for position, source in enumerate(cells[: figure + 1])]
    imported = {name for tree in trees for name in _imported(tree)}
    functions = {node.name for tree in trees for node in tree.body if isinstance(node, _FUNCTIONS)}
    names = [_names(tree, functions, imported) for tree in trees]
    later = names[-1].reads_later
    while True:
        kept = _backward(names, later)
        found = later.union(*(names[position].reads_later for position in kept))
        if found == later:
            return kept
        later = found


def _backward(names: list[Names], later: set[str]) -> list[int]:
    """One pass from the last cell to the first; `later` are the names that the functions read."""
    wanted, kept = names[-1].reads, [len(names) - 1]
    for position in reversed(range(len(names) - 1)):
        cell = names[position]
        if (cell.binds | cell.changes) & (wanted | later):
            kept.insert(0, position)
            wanted = wanted - cell.rebinds | cell.reads
    return kept


def _parsed(source: str, position: int) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"code cell {position} is not plain Python: {error}") from None


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)


def _names(tree: ast.Module, functions: set[str], imported: set[str]) -> Names:
    names = Names()
    for statement in tree.body:
        reader = _Reader()
        reader.visit(statement)
        names.reads |= reader.reads - names.rebinds
        names.reads_later |= reader.reads_later
        names.binds |= reader.binds
        if not isinstance(statement, _PERHAPS):
            names.rebinds |= reader.binds - names.reads
    names.changes = {root for node in ast.walk(tree) for root in _changed(node, functions)} - imported
    return names


class _Reader(ast.NodeVisitor):
    """Collects the names of the notebook that a statement reads and binds; names local to a scope are none."""

    def __init__(self):
        self.reads: set[str] = set()
        self.reads_later: set[str] = set()
        self.binds: set[str] = set()
        self._scopes: list[set[str]] = []
        self._functions = 0

    def _bind(self, *names: str) -> None:
        self.binds |= {name for name in names if not self._is_local(name)}

    def _is_local(self, name: str) -> bool:
        return any(name in scope for scope in self._scopes)

    def _visit_scope(self, local: set[str], nodes: Iterable[ast.AST], *, later: bool) -> None:
        self._scopes.append(local)
        self._functions += later
        for node in nodes:
            self.visit(node)
        self._functions -= later
        self._scopes.pop()

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store | ast.Del):
            self._bind(node.id)
        elif not self._is_local(node.id):
            (self.reads_later if self._functions else self.reads).add(node.id)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.generic_visit(node)
        if isinstance(node.target, ast.Name):
            self.visit_Name(ast.Name(node.target.id, ast.Load()))

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self._bind(*_imported(node))

    visit_ImportFrom = visit_Import

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        body = node.body if isinstance(node.body, list) else [node.body]
        self.visit(node.args)  # defaults and annotations are evaluated at once, outside
        if not isinstance(node, ast.Lambda):
            for outside in filter(None, (*node.decorator_list, node.returns)):
                self.visit(outside)
            self._bind(node.name)
        parameters = {part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)}
        self._visit_scope(parameters | _bound_in(body), body, later=True)

    visit_AsyncFunctionDef = visit_FunctionDef
    visit_Lambda = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for outside in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(outside)
        self._bind(node.name)
        self._visit_scope(_bound_in(node.body), node.body, later=False)

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        targets = [generator.target for generator in node.generators]
        self._visit_scope(_bound_in(targets), ast.iter_child_nodes(node), later=False)

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp


def _bound_in(nodes: Iterable[ast.AST]) -> set[str]:
    """The names that are local to a scope with these statements."""
    parts = [part for node in nodes for part in ast.walk(node)]
    stored = {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    defined = {part.name for part in parts if isinstance(part, _FUNCTIONS | ast.ClassDef | ast.ExceptHandler)}
    shared = {name for part in parts if isinstance(part, ast.Global) for name in part.names}
    return (stored | defined | {name for node in nodes for name in _imported(node)}) - shared


def _changed(node: ast.AST, functions: set[str]) -> Iterator[str]:
    """The names of the objects that this part of the code changes in place."""
    if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
        yield from _root(node)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        if isinstance(node.value.func, ast.Attribute):
            yield from _root(node.value.func)
    elif isinstance(node, ast.Call) and functions.union([_TRAINERS]).intersection(_root(node.func)):
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            yield from _root(argument)


def _root(node: ast.AST) -> Iterator[str]:
    """`a` of `a.b[c].d`; nothing where there is no name at the root."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id
