"""What one Python module imports, where and when: as it is imported itself, when a function is called, or perhaps.

Found in its syntax tree; nothing is run. What calls what is noted too, as far as names show it, since a function that
is called while a module is imported imports then.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

When = Literal["import", "called", "optional", "typing"]
"""`import`: as the module is imported; `called`: when the function around it is; `optional`: as the module is imported,
where it is installed (in a `try` that catches ImportError, or after find_spec); `typing`: never, for type checkers."""
_CATCHING = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})
_BY_NAME = frozenset({"import_module", "__import__"})
_ENDING = frozenset({"sys.exit", "exit", "quit", "os._exit", "os.abort"})
_SUPER = "super()"


@dataclass(frozen=True)
class Site:
    """An import."""

    line: int
    target: str
    """The module's full name; for `from a import b`, `a`. Empty where a call makes up the name as it goes."""
    names: tuple[str, ...]
    """What is taken from it, which may be modules in it."""
    when: When
    scope: str
    """The function or class around it, as `LocalInference._device`; empty at the top level."""


@dataclass(frozen=True)
class Call:
    """A call of something that has a dotted name, which may begin with `super()`."""

    line: int
    name: str
    scope: str


@dataclass
class Module:
    """What a module does, as far as imports go."""

    sites: list[Site] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    """With an empty scope: made as the module is imported."""
    functions: set[str] = field(default_factory=set)
    """By their names with those around, as `Service.of`."""
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """With the dotted names of what they are made from."""
    stars: list[str] = field(default_factory=list)
    """The modules that `from a import *` takes all from."""
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    """What imports bind: a name here -> (module, name in it; empty for the module itself)."""


def read_module(tree: ast.Module, name: str, package: bool) -> Module:
    """What a module of this full name does; `package` says that it is an __init__.py."""
    found = Module()
    parts = name.split(".")
    _Reader(found, parts if package else parts[:-1]).block(tree.body, "import", "", "")
    return found


class _Reader:
    """Walks a tree. `scope` is the function that code runs in, `owner` the dotted name of what is around it."""

    def __init__(self, found: Module, package: Sequence[str]) -> None:
        self._found = found
        self._package = list(package)

    def block(self, body: Iterable[ast.stmt], when: When, scope: str, owner: str) -> None:
        for statement in body:
            self._statement(statement, when, scope, owner)

    def _statement(self, node: ast.stmt, when: When, scope: str, owner: str) -> None:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self._import(node, when, scope)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._function(node, when, scope, owner)
        elif isinstance(node, ast.ClassDef):
            inside = f"{owner}.{node.name}" if owner else node.name
            self._class(node, when, scope, inside)
            self.block(node.body, when, scope, inside)
        elif isinstance(node, ast.If):
            self._if(node, when, scope, owner)
        elif isinstance(node, (ast.Try, ast.TryStar)):
            optional = any(map(_catches, node.handlers))
            self.block(node.body, _weaker(when, "optional") if optional else when, scope, owner)
            for handler in node.handlers:
                self.block(handler.body, when, scope, owner)
            self.block([*node.orelse, *node.finalbody], when, scope, owner)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            items = [item.context_expr for item in node.items]
            self._expressions(items, when, scope)
            optional = any(map(_suppresses, items))
            self.block(node.body, _weaker(when, "optional") if optional else when, scope, owner)
        elif isinstance(node, ast.Match):
            self._expressions([node.subject], when, scope)
            for case in node.cases:
                self.block(case.body, when, scope, owner)
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.While)):
            self._expressions([node.test if isinstance(node, ast.While) else node.iter], when, scope)
            self.block([*node.body, *node.orelse], when, scope, owner)
        else:
            self._expressions([node], when, scope)

    def _class(self, node: ast.ClassDef, when: When, scope: str, inside: str) -> None:
        bases = tuple(name for base in node.bases if (name := dotted(base)))
        self._found.classes[inside] = bases
        self._expressions([*node.decorator_list, *node.bases, *(one.value for one in node.keywords)], when, scope)
        for decorator in node.decorator_list:
            self._call(decorator, scope, when)
        if when == "typing":
            return
        # To make a class is to call these.
        called = [f"{base}.__init_subclass__" for base in bases]
        called += [dotted(one.value) for one in node.keywords if one.arg == "metaclass"]
        self._found.calls += [Call(node.lineno, name, scope) for name in called if name]

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, when: When, scope: str, owner: str) -> None:
        inside = f"{owner}.{node.name}" if owner else node.name
        self._found.functions.add(inside)
        arguments = node.args
        defaults = [*arguments.defaults, *filter(None, arguments.kw_defaults)]
        self._expressions([*node.decorator_list, *defaults], when, scope)
        for decorator in node.decorator_list:  # is called, with the function
            self._call(decorator, scope, when)
        self.block(node.body, "typing" if when == "typing" else "called", inside, inside)

    def _if(self, node: ast.If, when: When, scope: str, owner: str) -> None:
        self._expressions([node.test], when, scope)
        inside = when
        if _typing(node.test):
            inside = "typing"
        elif _asks(node.test):
            inside = _weaker(when, "optional")
        elif _is_main(node.test) and not scope:
            self.block(node.body, _weaker(when, "called"), "__main__", owner)
            self.block(node.orelse, when, scope, owner)
            return
        self.block(node.body, inside, scope, owner)
        self.block(node.orelse, when, scope, owner)

    def _import(self, node: ast.Import | ast.ImportFrom, when: When, scope: str) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                self._found.sites.append(Site(node.lineno, alias.name, (), when, scope))
                top = alias.name.partition(".")[0]
                self._found.names[alias.asname or top] = (alias.name if alias.asname else top, "")
            return
        target = node.module or ""
        if node.level:
            above = self._package[: len(self._package) - node.level + 1]
            target = ".".join([*above, *([node.module] if node.module else [])])
        if not target:
            return
        names = tuple(alias.name for alias in node.names)
        self._found.sites.append(Site(node.lineno, target, names, when, scope))
        for alias in node.names:
            if alias.name == "*":
                self._found.stars.append(target)
            else:
                self._found.names[alias.asname or alias.name] = (target, alias.name)

    def _expressions(self, nodes: Iterable[ast.AST], when: When, scope: str) -> None:
        todo = list(nodes)
        while todo:
            node = todo.pop(0)
            if isinstance(node, ast.Call):
                self._call(node.func, scope, when)
                self._by_name(node, when, scope)
            if isinstance(node, ast.Lambda):
                continue  # nobody has called it yet
            todo += ast.iter_child_nodes(node)

    def _call(self, function: ast.expr, scope: str, when: When) -> None:
        name = dotted(function) or _of_super(function)
        if name and when != "typing":
            self._found.calls.append(Call(function.lineno, name, scope))

    def _by_name(self, node: ast.Call, when: When, scope: str) -> None:
        if dotted(node.func).rpartition(".")[2] not in _BY_NAME or not (node.args or node.keywords):
            return
        literal = _text(_argument(node, 0, "name"))
        target = self._relative(literal, _argument(node, 1, "package")) if literal.startswith(".") else literal
        self._found.sites.append(Site(node.lineno, target, (), when, scope))

    def _relative(self, name: str, package: ast.expr | None) -> str:
        """What importlib.import_module makes of a name with dots in front; empty where the package is not known."""
        here = self._package if package is not None and dotted(package) == "__package__" else _text(package).split(".")
        rest = name.lstrip(".")
        above = here[: len(here) - (len(name) - len(rest)) + 1]
        return ".".join([*above, *([rest] if rest else [])]) if above and above[0] else ""


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name with attributes; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _of_super(function: ast.expr) -> str:
    """`super().a` of an attribute of what super() gives; empty for anything else."""
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Call):
        return f"{_SUPER}.{function.attr}" if dotted(function.value.func) == "super" else ""
    return ""


def _argument(call: ast.Call, place: int, name: str) -> ast.expr | None:
    """An argument of a call, by its place or its name; None where it is not there or cannot be told."""
    if len(call.args) > place:
        return None if any(isinstance(one, ast.Starred) for one in call.args[: place + 1]) else call.args[place]
    return next((one.value for one in call.keywords if one.arg == name), None)


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _weaker(when: When, other: When) -> When:
    """The weaker of two: what is for type checkers stays so, and what runs when called does too."""
    order: tuple[When, ...] = ("import", "optional", "called", "typing")
    return max(when, other, key=order.index)


def _catches(handler: ast.ExceptHandler) -> bool:
    kinds: list[ast.expr] = []
    if isinstance(handler.type, ast.Tuple):
        kinds = handler.type.elts
    elif handler.type is not None:
        kinds = [handler.type]
    inside = [node for statement in handler.body for node in ast.walk(statement)]
    raises = any(
        isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and dotted(node.func) in _ENDING) for node in inside
    )
    named = any(dotted(kind).rpartition(".")[2] in _CATCHING for kind in kinds)
    return (handler.type is None or named) and not raises


def _suppresses(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and dotted(node.func).rpartition(".")[2] == "suppress"
        and any(dotted(one).rpartition(".")[2] in _CATCHING for one in node.args)
    )


def _typing(test: ast.expr) -> bool:
    return dotted(test).rpartition(".")[2] == "TYPE_CHECKING"


def _asks(test: ast.expr) -> bool:
    """Whether a condition asks for what is installed, and is not true where it is missing."""
    negated = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    missing = isinstance(test, ast.Compare) and any(isinstance(one, ast.Is) for one in test.ops)
    asked = any(dotted(node.func).rpartition(".")[2] == "find_spec" for node in _calls(test))
    return asked and not negated and not missing


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    return (one for one in ast.walk(node) if isinstance(one, ast.Call))


def _is_main(test: ast.expr) -> bool:
    if not isinstance(test, ast.Compare) or [type(one) for one in test.ops] != [ast.Eq]:
        return False
    sides = [test.left, *test.comparators]
    return {dotted(side) or _text(side) for side in sides} == {"__name__", "__main__"}
