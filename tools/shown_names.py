"""What the names in shown code stand for, found without running a lesson: only imports of mathematics and definitions
of functions that call nothing else are run."""

import ast
import builtins
import copy
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

MATHEMATICS = (
    "torch", "numpy", "math", "statistics", "itertools", "functools", "collections", "pandas", "typing",
    "kdlib.losses", "kdlib.features", "kdlib.metrics",
)  # fmt: skip
_NOT_CALLED = {"open", "exec", "eval", "compile", "input", "breakpoint", "exit", "quit", "__import__", "help"}
_WRITES = re.compile(r"(to_(csv|json|pickle|parquet|excel)|save\w*|load\w*|write\w*|unlink|mkdir|show|hub)")
_ODD = (ast.Import, ast.ImportFrom, ast.Yield, ast.YieldFrom, ast.Await, ast.Global, ast.Nonlocal)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)
Function = ast.FunctionDef | ast.Lambda


class Scope:
    """What names stand for after some statements: known functions and modules, literals, or what is off limits.

    Args:
        statements: where the names come from.
        functions: known ones, by name: what the learner writes.
    """

    def __init__(self, statements: list[ast.stmt], functions: Mapping[str, Callable] | None = None):
        self.written = dict(functions or {})
        self.known: dict[str, Any] = {}
        self.literals: dict[str, Any] = {}
        self.off_limits = set(_NOT_CALLED)
        definitions = {}
        for statement in outside_functions(statements):
            if isinstance(statement, ast.Import | ast.ImportFrom):
                self._import(statement)
            elif isinstance(statement, ast.FunctionDef):
                definitions[statement.name] = statement
            elif isinstance(statement, ast.ClassDef):
                self.off_limits.add(statement.name)
            elif isinstance(statement, ast.Assign):
                self._assign(statement)
        self.known.update(self.written)
        self._define({name: tree for name, tree in definitions.items() if name not in self.known})

    def is_open(self, name: str) -> bool:
        """Whether a name stands for a value that only a run of the lesson would give."""
        return not (
            name in self.known or name in self.off_limits or name in self.literals or hasattr(builtins, name)
        )

    def allows(self, *trees: ast.AST) -> bool:
        """Whether code may be run: it calls nothing that is off limits, and writes and loads nothing."""
        for node in (node for tree in trees for node in ast.walk(tree)):
            if isinstance(node, _ODD) or (isinstance(node, ast.Attribute) and _WRITES.fullmatch(node.attr)):
                return False
            if isinstance(node, ast.Name) and node.id in self.off_limits:
                return False
        return True

    def _import(self, statement: ast.Import | ast.ImportFrom) -> None:
        for name, address, value in imported(statement):
            if any(f"{address}.".startswith(f"{allowed}.") for allowed in MATHEMATICS):
                self.known[name] = value()
            else:
                self.off_limits.add(name)

    def _assign(self, statement: ast.Assign) -> None:
        target = statement.targets[0]
        try:
            value = ast.literal_eval(statement.value)
        except (ValueError, TypeError):
            for name in stored_names(*statement.targets):
                self.literals.pop(name, None)
            return
        if isinstance(target, ast.Name):
            self.literals[target.id] = value

    def _define(self, definitions: dict[str, ast.FunctionDef]) -> None:
        """Define the functions that read nothing but what is known, until no further one can be."""
        while ready := [name for name, tree in definitions.items() if self._is_whole(tree)]:
            for name in ready:
                tree = copy.deepcopy(definitions.pop(name))
                tree.decorator_list = []
                self.known[name] = self.compile(tree)
        self.off_limits |= set(definitions)

    def _is_whole(self, tree: ast.FunctionDef) -> bool:
        return self.allows(tree) and not any(self.is_open(name) for name in free_names(tree))

    def compile(self, tree: ast.FunctionDef) -> Callable:
        """The function that a definition defines in this scope."""
        namespace = {**self.literals, **self.known}
        module = ast.fix_missing_locations(ast.Module([tree], type_ignores=[]))
        exec(compile(module, "shown", "exec"), namespace)
        return namespace[tree.name]


def imported(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """For each name that a statement imports: the name, the address of what it stands for, and what imports that."""
    for alias in statement.names:
        if isinstance(statement, ast.ImportFrom):
            address, name = f"{statement.module}.{alias.name}", alias.asname or alias.name
            yield name, address, lambda address=address: _at(address)
        else:
            name = alias.asname or alias.name.partition(".")[0]
            yield (
                name,
                alias.name,
                lambda alias=alias, name=name: _module(alias.name, whole=name == alias.asname),
            )


def _module(address: str, *, whole: bool) -> Any:
    module = importlib.import_module(address)
    return module if whole else importlib.import_module(address.partition(".")[0])


def _at(address: str) -> Any:
    """A module, or what a module holds."""
    home, _, name = address.rpartition(".")
    module = importlib.import_module(home)
    return getattr(module, name) if hasattr(module, name) else importlib.import_module(address)


def outside_functions(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements, those inside of conditions and loops too, but not those inside of functions and classes."""
    for statement in statements:
        yield statement
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for block in blocks(statement):
                yield from outside_functions(block)


def blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """The lists of statements directly inside of a node."""
    for part in ("body", "orelse", "finalbody"):
        block = getattr(node, part, None)
        if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
            yield block
    for handler in getattr(node, "handlers", []):
        yield handler.body


def stored_names(*trees: ast.AST) -> list[str]:
    """The names that are assigned anywhere in them, in order."""
    nodes = (node for tree in trees for node in ast.walk(tree))
    return [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def parameters(function: Function) -> list[str]:
    """The names of all parameters."""
    arguments = function.args
    plain = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [one.arg for one in (*plain, *filter(None, (arguments.vararg, arguments.kwarg)))]


def free_names(*trees: ast.AST) -> list[str]:
    """The names that are read before anything in the trees has given them a value, in order."""
    reader = _Reader(set())
    for tree in trees:
        reader.visit(tree)
    return list(dict.fromkeys(reader.free))


class _Reader(ast.NodeVisitor):
    """Walks in the order in which code runs, and tells the names that are read from those that are bound by then."""

    def __init__(self, bound: set[str]):
        self.bound = set(bound)
        self.free: list[str] = []

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.free += [node.id] * (node.id not in self.bound)
        else:
            self.bound.add(node.id)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._visit(node.value, *node.targets)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._visit(node.value, node.target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        target = node.target
        if isinstance(target, ast.Name) and target.id not in self.bound:
            self.free.append(target.id)
        self._visit(node.value, target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._visit(node.value, node.target)

    def visit_For(self, node: ast.For) -> None:
        self._visit(node.iter, node.target, *node.body, *node.orelse)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit(*node.args.defaults, *node.args.kw_defaults)
        self.bound.add(node.name)
        # A function reads its surroundings when it is called: what they bind later counts, too.
        self._inside(self.bound | set(parameters(node)), *node.body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit(*node.args.defaults, *node.args.kw_defaults)
        self._inside(self.bound | set(parameters(node)), node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit(*node.bases)
        self._inside(self.bound, *node.body)
        self.bound.add(node.name)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self.bound |= {node.name} - {None}
        self._visit(node.type, *node.body)

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            self.bound |= {name for name, _, _ in imported(node)}
        elif isinstance(node, COMPREHENSIONS):
            result = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
            loops = [part for loop in node.generators for part in (loop.iter, loop.target, *loop.ifs)]
            self._inside(self.bound, *loops, *result)
        else:
            super().generic_visit(node)

    def _inside(self, bound: set[str], *nodes: ast.AST) -> None:
        inner = _Reader(bound)
        inner._visit(*nodes)
        self.free += inner.free

    def _visit(self, *nodes: ast.AST | None) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)
