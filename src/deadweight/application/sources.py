"""What Python sources show of a web application: the application object, its settings, ports and health checks.

Nothing is run: everything is found in syntax trees, so it is a guess where code makes things up as it goes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

FRAMEWORKS = {
    **dict.fromkeys(
        ("FastAPI", "Starlette", "Litestar", "Quart", "Sanic", "BlackSheep", "get_asgi_application", "APIFlask"), "asgi"
    ),
    **dict.fromkeys(("Flask", "Bottle", "Pyramid", "get_wsgi_application"), "wsgi"),
}
FRAMEWORKS["APIFlask"] = "wsgi"
DJANGO = frozenset({"get_asgi_application", "get_wsgi_application"})
FACTORIES = ("create_app", "make_app", "get_app", "build_app", "get_application", "create_application")
HEALTH = (
    "health",
    "healthz",
    "ready",
    "readyz",
    "livez",
    "live",
    "ping",
    "_health",
    "health_check",
    "healthcheck",
    "status",
)
"""Paths that are health checks, the surest first."""
_DECORATORS = frozenset({"get", "route", "api_route", "head"})
_REGISTERS = frozenset({"Route", "path", "re_path", "url", "add_url_rule", "add_api_route", "add_route"})
_SERVERS = frozenset({"run", "serve", "run_simple", "Config", "make_server", "run_app"})


@dataclass(frozen=True)
class AppObject:
    """An application that a module has, or makes."""

    name: str
    kind: str
    """`asgi`, `wsgi` or `django`."""
    factory: bool
    made_by: str
    """What is called to make it: `FastAPI`."""


def applications(tree: ast.Module) -> list[AppObject]:
    """The application objects at a module's top level, then the functions that make one."""
    makers = dict(_makers(tree))
    found = []
    for statement in _top_level(tree.body):
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        made = _made_by(statement.value)
        name = next((target.id for target in targets if isinstance(target, ast.Name)), "")
        if name and made in FRAMEWORKS:
            found.append(AppObject(name, _kind(made), False, made))
        elif name and (made in makers or made in FACTORIES):
            found.append(AppObject(name, _kind(makers.get(made, "")), False, f"{made}()"))
    found += [AppObject(name, _kind(made), True, made) for name, made in makers.items()]
    return found


def _kind(made: str) -> str:
    return "django" if made in DJANGO else FRAMEWORKS.get(made, "unknown")


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported, those in `if`, `try` and `with` among them."""
    todo = list(body)
    while todo:
        statement = todo.pop(0)
        yield statement
        if isinstance(statement, ast.If):
            if not _is_main(statement.test):
                todo = [*statement.body, *statement.orelse, *todo]
        elif isinstance(statement, (ast.Try, ast.With)):
            todo = [*statement.body, *todo]


def _is_main(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def _made_by(value: ast.expr | None) -> str:
    """The name of what an expression calls."""
    return _name(value.func) if isinstance(value, ast.Call) else ""


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _makers(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Functions that make an application, by the names that such functions have."""
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef) and statement.name in FACTORIES:
            made = [_name(node.func) for node in ast.walk(statement) if isinstance(node, ast.Call)]
            yield statement.name, next((name for name in made if name in FRAMEWORKS), "")


@dataclass(frozen=True)
class ServerCall:
    """A call that serves an application: `uvicorn.run("main:app", port=8000)`."""

    target: str = ""
    """What a string names as the application."""
    name: str = ""
    """The variable that is the application."""
    port: int | None = None
    factory: bool = False


def server_calls(tree: ast.Module, environment: dict[str, str]) -> list[ServerCall]:
    """The calls of a script that serve an application."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or _name(node.func) not in _SERVERS:
            continue
        keywords = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        first = node.args[0] if node.args else keywords.get("app")
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        target = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
        target = target if ":" in target else ""
        name = first.id if isinstance(first, ast.Name) else ""
        module = owner.id if isinstance(owner, ast.Name) else ""
        if not target and not name and module:
            name = module  # app.run(port=5000)
        if not (target or "port" in keywords or module in ("uvicorn", "hypercorn", "waitress", "granian", "web")):
            continue
        factory = keywords.get("factory")
        found.append(
            ServerCall(
                target,
                name,
                _integer(keywords.get("port"), environment),
                isinstance(factory, ast.Constant) and factory.value is True,
            )
        )
    return found


def _integer(value: ast.expr | None, environment: dict[str, str]) -> int | None:
    """The port that an expression comes to: 8000, int(os.environ.get("PORT", 8000))."""
    if isinstance(value, ast.Call) and _name(value.func) == "int" and value.args:
        return _integer(value.args[0], environment)
    if isinstance(value, ast.Call) and _name(value.func) in ("get", "getenv") and value.args:
        first = value.args[0]
        known = (
            environment.get(first.value) if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
        )
        if known and known.isdigit():
            return _port(int(known[:6]))
        return _integer(value.args[1], environment) if len(value.args) > 1 else None
    if isinstance(value, ast.Constant) and isinstance(value.value, (int, str)) and not isinstance(value.value, bool):
        text = str(value.value)
        return _port(int(text[:6])) if text.isascii() and text.isdigit() else None
    return None


def _port(number: int) -> int | None:
    return number if 0 < number < 65536 else None


def health_paths(tree: ast.Module) -> list[str]:
    """Paths of routes that are health checks, the surest first; a router's own prefix is put before them."""
    prefixes = _prefixes(tree)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            calls = [call for call in node.decorator_list if isinstance(call, ast.Call)]
            names = _DECORATORS
        elif isinstance(node, ast.Call):
            calls, names = [node], _REGISTERS
        else:
            continue
        for call in calls:
            path = _first_text(call) if _name(call.func) in names else None
            if path is not None and path.strip("^/$").removeprefix("api/").removeprefix("v1/") in HEALTH:
                owner = call.func.value if isinstance(call.func, ast.Attribute) else None
                prefix = prefixes.get(owner.id, "") if isinstance(owner, ast.Name) else ""
                path = path.strip("^$")
                found.add(prefix + (path if path.startswith("/") else f"/{path}"))
    return sorted(found, key=health_rank)


def health_rank(path: str) -> tuple[int, str]:
    """How sure a path is to be that of a health check: lower is surer."""
    last = path.strip("/").rpartition("/")[2]
    return (HEALTH.index(last) if last in HEALTH else len(HEALTH), path)


def _first_text(call: ast.Call) -> str | None:
    values = [*call.args[:1], *(keyword.value for keyword in call.keywords if keyword.arg in ("path", "rule"))]
    return next((v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)), None)


def _prefixes(tree: ast.Module) -> dict[str, str]:
    """Routers and blueprints of the module with the prefix that they say themselves."""
    found = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
            for keyword in statement.value.keywords:
                text = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if keyword.arg in ("prefix", "url_prefix") and isinstance(text, str):
                    found.update({target.id: text for target in statement.targets if isinstance(target, ast.Name)})
    return found


def constants(tree: ast.Module) -> dict[str, str]:
    """Strings that a module's top level sets: `bind` and `wsgi_app` of gunicorn.conf.py, say."""
    return {
        target.id: statement.value.value
        for statement in tree.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name) and isinstance(statement.value.value, str)
    }


def django_settings(tree: ast.Module) -> str:
    """The settings that `os.environ.setdefault("DJANGO_SETTINGS_MODULE", ...)` names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) == "setdefault" and len(node.args) == 2:
            key, value = node.args
            if isinstance(key, ast.Constant) and key.value == "DJANGO_SETTINGS_MODULE":
                return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""
    return ""
