"""What an image, or a project, shows of its application: the object that a server loads, its port, its health check.

Nothing is run: ENTRYPOINT, CMD and HEALTHCHECK are read with the shell scripts that they name, and the application's
own Python sources as syntax trees. Every finding carries its evidence, since each can be wrong: [app] of a
deadweight.toml overrides them all.
"""

from __future__ import annotations

import ast
import dataclasses
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from deadweight.application.material import SHELLS, Material, Sources, material_of
from deadweight.application.servers import TOOLS, Served, port_of, served, statements
from deadweight.application.sources import (
    DJANGO,
    FACTORIES,
    FRAMEWORKS,
    AppObject,
    applications,
    constants,
    django_settings,
    health_paths,
    health_rank,
    server_calls,
)
from deadweight.application.table import AppTable
from deadweight.errors import shown
from deadweight.ledger.ledger import Ledger

SOURCE_COUNT = 3000
"""Files that are looked at at most: an application of its own has fewer."""
_MAKES = re.compile(("|".join(sorted({*FRAMEWORKS, *FACTORIES}))).encode())
_CHECKS = re.compile(rb"[\"'/](?:_?health|ready|live|ping|status)")
_URL = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\]|\$\{?\w+\}?)(?::(\d+))?(/[^\s\"'\\|;)#]*)?")
_FASTAPI_FILES = ("main.py", "app.py", "api.py", "app/main.py", "app/app.py", "app/api.py")
_FLASK_FILES = ("wsgi.py", "app.py")


@dataclass(frozen=True)
class Discovery:
    """What was found, each with its evidence in words; an evidence is empty where nothing was found."""

    app: str = ""
    """As `package.module:attribute`; a settings module for Django projects without a wsgi.py or asgi.py."""
    kind: str = "unknown"
    """`asgi`, `wsgi`, `django` or `unknown`."""
    factory: bool = False
    """Whether `app` names a function that makes the application."""
    directory: str = ""
    """Where the application's modules are imported from first, as an absolute path of the image."""
    app_evidence: str = ""
    port: int | None = None
    port_evidence: str = ""
    health: str = "/"
    """A path: `/` where nothing shows another."""
    health_evidence: str = ""
    server: bool = False
    """Whether what the image starts is a server, as far as that shows."""
    server_evidence: str = ""


_FOUND: WeakKeyDictionary[Ledger, Discovery] = WeakKeyDictionary()


def discover(ledger: Ledger, app: AppTable = AppTable()) -> Discovery:  # noqa: B008  (frozen)
    """What an image shows of its application, less what [app] says otherwise; worked out once for a ledger."""
    found = _FOUND.get(ledger)
    if found is None:
        found = _FOUND[ledger] = discover_in(material_of(ledger))
    return told(found, app, str(ledger.image.run_config.get("WorkingDir") or "/"))


def told(found: Discovery, app: AppTable, workdir: str) -> Discovery:
    """A discovery with what [app] says instead."""
    changes: dict[str, Any] = {}
    named = app.asgi or app.wsgi
    if named:
        changes = {"app": named, "kind": "asgi" if app.asgi else "wsgi", "factory": False, "app_evidence": "[app]"}
        changes["factory"] = named == found.app and found.factory
    if app.directory or named:
        changes["directory"] = posixpath.join(workdir, app.directory or "")
    if app.port:
        changes |= {"port": app.port, "port_evidence": "[app]"}
    if app.health:
        changes |= {"health": app.health, "health_evidence": "[app]"}
    if app.port or app.health or named:
        changes |= {"server": True, "server_evidence": found.server_evidence or "[app]"}
    return dataclasses.replace(found, **changes)


def discover_in(material: Material) -> Discovery:
    """What the material shows."""
    where, command = _server(material)
    evidence = f"{where}: {' '.join(_brief(command))}" if command else ""
    served_by = served(command, material.environment) if command else None
    app = _application(material, served_by, evidence) or _scanned(material)
    port, port_evidence = _port(material, served_by, evidence, app)
    health, health_evidence = _health(material)
    server_evidence = evidence if served_by and (served_by.tool != "python" or (app and app.app_evidence)) else ""
    if not server_evidence and material.check:
        server_evidence = "HEALTHCHECK"
    if not server_evidence and material.ports:
        server_evidence = f"EXPOSE {material.ports[0]}"
    found = app or Discovery(directory="/" + material.sources.workdir.strip("/"))
    return dataclasses.replace(
        found,
        port=port,
        port_evidence=port_evidence,
        health=health,
        health_evidence=health_evidence,
        server=bool(server_evidence) and bool(material.argv),
        server_evidence=server_evidence,
    )


def _brief(words: Sequence[str]) -> list[str]:
    return [shown(word, 80)[1:-1] for word in words[:12]]


def _server(material: Material) -> tuple[str, Sequence[str]]:
    """(where it stands, its words) of the command that serves something; the last is empty where none does."""
    todo: list[tuple[str, list[str]]] = [("ENTRYPOINT and CMD", list(material.argv))]
    todo += [("ENTRYPOINT and CMD", words) for words in _shell_code(material)]
    for path, text in material.scripts([word for _, words in todo for word in words]):
        todo += [(f"/{path}", words) for words in statements(text, material.environment)]
    for place, words in todo:
        found = served(words, material.environment)
        if found is not None and (found.target or found.script or found.tool != "python"):
            return place, words
        if found is not None and found.module and material.sources.run_by(found.module):
            return place, words
    for place, words in todo:
        for at, word in enumerate(words):
            if posixpath.basename(word) in material.console and posixpath.basename(word) not in TOOLS:
                return place, ["python", "-m", material.console[posixpath.basename(word)], *words[at + 1 :]]
    return "", []


def _shell_code(material: Material) -> Iterator[list[str]]:
    """The commands of `sh -c CODE`."""
    for before, word, following in zip(material.argv, material.argv[1:], [*material.argv[2:], ""], strict=False):
        if posixpath.basename(before) in SHELLS and word.startswith("-") and word.endswith("c"):
            yield from statements(following, material.environment)


def _application(material: Material, found: Served | None, evidence: str) -> Discovery | None:
    """The application that a server's command line leads to."""
    if found is None:
        return None
    files = material.sources
    base = posixpath.normpath(posixpath.join("/", files.workdir, found.directory))
    if base.strip("/") not in files.roots:
        files.roots = [base.strip("/"), *files.roots]
    if found.kind == "django":
        return _django(files, material.environment, found.script or "manage.py", evidence, base)
    if found.target and ":" in found.target:
        module = found.target.partition(":")[0]
        return _named(files, found.target, found.kind, found.factory, evidence, base, module)
    candidates = [found.script] if found.script else []
    module = found.target or found.module
    if module:
        return _of_module(material, found, module, evidence, base)
    if not candidates and found.tool == "gunicorn":
        config = files.tree(
            (found.options.get("-c") or found.options.get("--config") or "gunicorn.conf.py").removeprefix("file:")
        )
        target = constants(config).get("wsgi_app", "") if config is not None else ""
        if target:
            return _named(
                files, target, found.kind, False, f"{evidence}, its configuration file", base, target.partition(":")[0]
            )
    if not candidates:
        candidates = {"fastapi": list(_FASTAPI_FILES), "flask": list(_FLASK_FILES), "quart": list(_FLASK_FILES)}.get(
            found.tool, []
        )
    for path in candidates:
        tree = files.tree(path)
        if tree is not None:
            full = posixpath.normpath(posixpath.join("/", files.workdir, path))
            folder = posixpath.dirname(full)
            name = posixpath.basename(full).removesuffix(".py")
            if found.tool != "python":  # those import it as what it is below the working directory
                module = files.module(full.strip("/"))
                name, folder = (module, base) if module else (name, folder)
            return _of_tree(material, tree, name, found, f"{evidence}; {shown(full)[1:-1]}", folder)
    return None


def _of_module(material: Material, found: Served, module: str, evidence: str, base: str) -> Discovery | None:
    """The application of a module that is named without an attribute, or run by `python -m`."""
    files = material.sources
    for name in (module, f"{module}.__main__") if found.module else (module,):
        path = files.file(name)
        tree = files.tree(f"/{path}") if path else None
        if tree is not None:
            app = _of_tree(material, tree, name, found, f"{evidence}; /{shown(path)[1:-1]}", base)
            if app is not None:
                return app
    if found.module:
        return None
    attribute = {"gunicorn": "application", "uwsgi": "application"}.get(found.tool, "app")
    return _named(files, f"{module}:{attribute}", found.kind, False, evidence, base, module)


def _of_tree(
    material: Material, tree: ast.Module, name: str, found: Served, evidence: str, folder: str
) -> Discovery | None:
    """The application that a file serves or has: by its own call of a server, else at its top level."""
    imports = {
        alias.asname or alias.name: f"{_absolute(node, name)}:{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    objects = {one.name: one for one in applications(tree)}
    for call in server_calls(tree, dict(material.environment)) if found.tool == "python" else ():
        if call.target:
            return Discovery(call.target, _kind_of(material.sources, call.target), call.factory, folder, evidence)
        if call.name in objects:
            return _of_object(objects[call.name], name, evidence, folder)
        if call.name in imports:
            target = imports[call.name]
            return Discovery(target, _kind_of(material.sources, target), False, folder, evidence)
    wanted = "application" if found.tool in ("gunicorn", "uwsgi") else "app"
    best = sorted(objects.values(), key=lambda one: (one.factory, one.name != wanted))
    if best:
        return _of_object(best[0], name, evidence, folder)
    served_name = next((alias for alias in (wanted, "app", "application") if alias in imports), None)
    if served_name is not None and (found.tool != "python" or served_name in imports):
        return Discovery(
            f"{name}:{served_name}", _kind_of(material.sources, imports[served_name]), False, folder, evidence
        )
    return None


def _absolute(node: ast.ImportFrom, name: str) -> str:
    """The module that `from .x import y` means in the module of this name."""
    if not node.level:
        return node.module or ""
    parent = name.split(".")[: -node.level]
    return ".".join([*parent, *((node.module,) if node.module else ())])


def _of_object(one: AppObject, module: str, evidence: str, folder: str) -> Discovery:
    why = f"{evidence}: {one.name}{'()' if one.factory else ''}, {one.made_by or 'a factory'}"
    return Discovery(f"{module}:{one.name}", one.kind, one.factory, folder, why)


def _named(files: Sources, target: str, kind: str, factory: bool, evidence: str, base: str, module: str) -> Discovery:
    called = target.endswith("()")
    path = files.file(module)
    tree = files.tree(f"/{path}") if path else None
    if tree is not None and any(one.made_by in DJANGO for one in applications(tree)):
        kind = "django"
    return Discovery(target.removesuffix("()"), kind, factory or called, base, evidence)


def _kind_of(files: Sources, target: str) -> str:
    path = files.file(target.partition(":")[0])
    tree = files.tree(f"/{path}") if path else None
    objects = applications(tree) if tree is not None else []
    return next((one.kind for one in objects if one.name == target.partition(":")[2]), "unknown")


def _django(files: Sources, environment: Mapping[str, str], script: str, evidence: str, base: str) -> Discovery | None:
    """Django's own handler: that of wsgi.py or asgi.py beside the settings, else the settings themselves."""
    settings = environment.get("DJANGO_SETTINGS_MODULE", "")
    tree = files.tree(script)
    if not settings and tree is not None:
        settings = django_settings(tree)
    if not settings:
        return None
    package = settings.split(".")[0]
    for name in ("wsgi", "asgi"):
        if files.file(f"{package}.{name}"):
            return Discovery(f"{package}.{name}:application", "django", False, base, f"{evidence}; settings {settings}")
    return Discovery(settings, "django", False, base, f"{evidence}; settings {settings}")


def _scanned(material: Material) -> Discovery | None:
    """The application that the sources have at the top level of some module: the likeliest of them."""
    files = material.sources
    found = []
    for path in files.paths[:SOURCE_COUNT]:
        if not _MAKES.search(files.read(path)):
            continue
        tree, module = files.tree(f"/{path}"), files.module(path)
        for one in applications(tree) if tree is not None and module else ():
            # What a function of the module makes is the application, and not only the function.
            if one.made_by in FRAMEWORKS or (not one.factory and one.kind != "unknown"):
                likely = (one.factory, one.name not in ("app", "application"), module.count("."), len(path), path)
                found.append((likely, module, one, path))
    if not found:
        return None
    _, module, one, path = min(found, key=lambda item: item[0])
    return _of_object(one, module, f"/{shown(path)[1:-1]}", "/" + files.workdir.strip("/"))


def _port(material: Material, found: Served | None, evidence: str, app: Discovery | None) -> tuple[int | None, str]:
    """Where the server listens: what its command says first, what its tool does without being told last."""
    if found is not None and found.port is not None:
        return found.port, evidence
    files = material.sources
    if found is not None and found.tool == "gunicorn":
        name = found.options.get("-c") or found.options.get("--config") or "gunicorn.conf.py"
        config = files.tree(name.removeprefix("file:"))
        port = port_of(constants(config).get("bind", "")) if config is not None else None
        if port is not None:
            return port, f"{shown(name)[1:-1]}: bind"
    if found is not None and found.tool == "python":
        path = found.script or files.run_by(found.module)
        tree = files.tree(path if found.script else f"/{path}") if path else None
        for call in server_calls(tree, dict(material.environment)) if tree is not None else ():
            if call.port is not None:
                return call.port, f"{shown(path)[1:-1]} says so"
    check = _URL.search(" ".join(material.check))
    if check and check[1] and port_of(check[1]):
        return int(check[1]), "HEALTHCHECK"
    if port_of(material.environment.get("PORT", "")):
        return port_of(material.environment["PORT"]), "the variable PORT"
    if material.ports:
        return material.ports[0], f"EXPOSE {material.ports[0]}"
    if found is not None and found.tool in TOOLS:
        return TOOLS[found.tool].port, f"{found.tool} listens there without being told"
    kind = app.kind if app is not None else ""
    return ({"asgi": 8000, "wsgi": 5000, "django": 8000}.get(kind), "as usual" if kind else "")


def _health(material: Material) -> tuple[str, str]:
    """The path of the health check: that of HEALTHCHECK, else a route that is called like one."""
    check = _URL.search(" ".join(material.check))
    if check:
        return check[2] or "/", "HEALTHCHECK"
    found = []
    for path in material.sources.paths[:SOURCE_COUNT]:
        if _CHECKS.search(material.sources.read(path)):
            tree = material.sources.tree(f"/{path}")
            found += [(health_rank(route), path, route) for route in (health_paths(tree) if tree is not None else ())]
    if not found:
        return "/", ""
    _, path, route = min(found)
    return route, f"a route of /{shown(path)[1:-1]}"
