"""Writes a deadweight.toml for an image or a project, with all that can be found out without running anything.

Comments say what each thing rests on. Whatever names an image has, the result is TOML that reads back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from deadweight.application.discover import Discovery, discover, discover_in
from deadweight.application.project import read_project
from deadweight.application.servers import TARGET
from deadweight.errors import shown
from deadweight.ledger.known import known, matcher
from deadweight.ledger.ledger import Ledger
from deadweight.passes.application import needed
from deadweight.passes.base import Context
from deadweight.passes.commands import locate
from deadweight.passes.compiling import compiles, installed
from deadweight.sizes import show_size
from deadweight.verify.defaults import BY_MISTAKE, HOOKS, MEMORY_RATIO, TIME_RATIO

MODULE_LIMIT = 200
_BUILD_COMMANDS = ("gcc", "g++", "cc", "make")
_MORE_COMMANDS = ("clang", "cmake", "ninja", "ld", "gdb", "uv", "poetry", "pdm")
_DEVELOPER_MODULES = ("pytest", "mypy")
_MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*\Z")
_WIDTH = 160


@dataclass(frozen=True)
class Draft:
    """A deadweight.toml, and what to tell whoever asked for it."""

    text: str
    found: list[str]
    missing: list[str]


@dataclass
class _Facts:
    title: str
    app: Discovery
    modules: dict[str, str]
    """Modules that must import, each with the reason."""
    commands: list[str]
    """Commands that have no place in a deployment."""
    developer_modules: list[str]
    workdir: str = ""
    size: int | None = None
    compiles: str | None = None
    """Why compilers may be needed."""
    missing: list[str] = field(default_factory=list)


def draft_image(ledger: Ledger) -> Draft:
    """A specification for an image."""
    context = Context(ledger)
    tool = matcher(known("dev_tools", "distributions"))
    reasons = needed(context)
    modules: dict[str, str] = {}
    developers = dict.fromkeys(_DEVELOPER_MODULES)
    for dist in ledger.distributions:
        names = [name for name in dist.top_level if name not in BY_MISTAKE | HOOKS and not name.startswith("_")]
        if dist.name in reasons and not tool(dist.name):
            for name in names[:3]:
                modules.setdefault(name, f"{dist.display}: {reasons[dist.name]}")
        elif tool(dist.name) and dist.name not in reasons:
            developers |= dict.fromkeys(names)
    compilers = installed(context, "compilers")
    found = _Facts(
        f"the image {shown(ledger.image.reference)}",
        discover(ledger),
        modules,
        [*_BUILD_COMMANDS, *(name for name in _MORE_COMMANDS if any(True for _ in locate(ledger.fs, name)))],
        [name for name in developers if name not in modules],
        str(ledger.image.run_config.get("WorkingDir") or "/"),
        ledger.image.size,
        compiles(context) or (f"{compilers[0]} compiles while it runs" if compilers else None),
    )
    return _draft(found)


def draft_project(folder: Path) -> Draft:
    """A specification for the image of a project. Raises BadInputError for a pyproject.toml that is no TOML."""
    project = read_project(folder)
    found = _Facts(
        f"the project {shown(folder.resolve().name or '/')}",
        discover_in(project.material),
        {module: f"guessed from the requirement {name}" for module, name in project.requirements.items()},
        list(_BUILD_COMMANDS),
        list(_DEVELOPER_MODULES),
        missing=project.notes,
    )
    return _draft(found)


def _draft(facts: _Facts) -> Draft:
    app = facts.app
    named = app.app if TARGET.match(app.app) and ":" in app.app and len(app.app) < MODULE_LIMIT else ""
    health = app.health if app.health_evidence and len(app.health) < MODULE_LIMIT else ""
    modules = {name: why for name, why in facts.modules.items() if _MODULE.match(name) and len(name) < MODULE_LIMIT}
    parts = [_head(facts), _image(facts), _app(facts, named, health), _imports(facts, modules, named)]
    parts += [_routes(named), _server(app, health), _absent(facts)]
    found, missing = [], list(facts.missing)
    for what, value in (
        ("application", named),
        ("port", str(app.port) if app.port and app.server else ""),
        ("health check", health),
        ("modules to import:", str(len(modules)) if modules else ""),
    ):
        if value:
            found.append(f"{what} {value}")
        else:
            missing.append(f"no {what.rstrip(':')} found")
    return Draft("\n\n".join(parts) + "\n", found, missing)


def _head(facts: _Facts) -> str:
    return "\n".join(
        [
            _comment(
                f"Drafted by `deadweight init` from {facts.title}. Nothing was run for it: read it, and complete it."
            ),
            "#   deadweight verify BEFORE AFTER --spec deadweight.toml    whether two images do the same",
            "#   deadweight check IMAGE --spec deadweight.toml            whether one image is as this says",
            "# The default probes run as well, but for those that this file has itself.",
        ]
    )


def _image(facts: _Facts) -> str:
    now = f"; now: {facts.size:,} bytes" if facts.size is not None else ""
    size = show_size(facts.size).split(" (")[0].replace(" ", "") if facts.size is not None else "3GB"
    return f"[image]\n# What all layers may have together, uncompressed{now}.\n# max_size = {quoted(size)}"


def _app(facts: _Facts, named: str, health: str) -> str:
    app = facts.app
    lines = ["[app]"]
    if named:
        key = "asgi" if app.kind == "asgi" else "wsgi"
        target = f"{named}()" if app.factory else named
        lines += [_comment(app.app_evidence), f"{key} = {quoted(target)}"]
        if facts.workdir and app.directory.rstrip("/") != facts.workdir.rstrip("/"):
            lines += ["# Where its modules are imported from.", f"directory = {quoted(app.directory)}"]
    else:
        lines += ["# The application was not found.", '# asgi = "package.module:app"']
    if app.port and app.port_evidence and app.server:
        why = [] if app.port_evidence == app.app_evidence else [_comment(app.port_evidence)]
        lines += [*why, f"port = {app.port}"]
    else:
        lines += ["# port = 8000"]
    if health:
        lines += [_comment(app.health_evidence), f"health = {quoted(health)}"]
    else:
        lines += [
            "# What says that the server is up; without, any answer below 500 to GET / does.",
            '# health = "/health"',
        ]
    lines += ["", "# What the application needs to start and the image does not set."]
    lines += ["# [app.env]", '# DATABASE_URL = "sqlite:////tmp/test.db"']
    return "\n".join(lines)


def _imports(facts: _Facts, modules: dict[str, str], named: str) -> str:
    lines = []
    if modules:
        lines += ["# What the application needs.", "[[probe]]", 'kind = "import"', 'name = "needed modules import"']
        lines += ["must = true", "modules = ["]
        lines += [f"    {quoted(name)}, {_comment(why)}" for name, why in list(modules.items())[:MODULE_LIMIT]]
        lines += ["]", ""]
    lines += ["# Every top-level module of every distribution, in both images or in neither.", "[[probe]]"]
    lines += ['kind = "import"', 'name = "modules import"']
    module = named.partition(":")[0]
    if module and (not facts.workdir or facts.app.directory.rstrip("/") == facts.workdir.rstrip("/")):
        lines += ["", "# How much longer the application may take to import, and how much more memory.", "[[probe]]"]
        lines += ['kind = "import"', 'name = "application imports: time, memory"', f"modules = [{quoted(module)}]"]
        lines += [f"time_ratio = {TIME_RATIO}", f"memory_ratio = {MEMORY_RATIO}"]
    return "\n".join(lines)


def _routes(named: str) -> str:
    lines = ["[[probe]]", 'kind = "routes"', 'name = "application loads"', "must = true"]
    lines += ["# How many it must have: the verdict's table says how many there are.", "# count = 9"]
    return "\n".join(lines if named else ["# " + line.removeprefix("# ") for line in lines])


def _server(app: Discovery, health: str) -> str:
    """The start, and the health check as a request of its own."""
    start = ["[[probe]]", 'kind = "start"', 'name = "server starts"']
    if not app.server:
        start = ["# " + line for line in start]
    start.insert(0, _comment(app.server_evidence) if app.server else "# Nothing shows that the image starts a server.")
    request = ["[[probe]]", 'kind = "http"', f"path = {quoted(health or '/health')}", "status = 200"]
    request = request if health and app.server else ["# " + line for line in request]
    more = ["# Requests with their answers compared; keys whose values vary are left out.", "# [[probe]]"]
    more += ['# kind = "http"', '# path = "/predict"', '# method = "POST"', '# json = { text = "hello" }']
    more += ['# ignore = ["request_id"]', "# tolerance = 1e-6"]
    return "\n".join([*start, "", *request, "", *more])


def _absent(facts: _Facts) -> str:
    commands = [f"commands = {_list(facts.commands)}"]
    if facts.compiles:
        commands = [_comment(f"Compilers may be needed: {facts.compiles}"), f"# {commands[0]}"]
    modules = [name for name in facts.developer_modules if _MODULE.match(name) and len(name) < MODULE_LIMIT]
    lines = ["# What a deployment has no use for; as asked of the slim image.", "[[probe]]", 'kind = "absent"']
    return "\n".join([*lines, *commands, f"modules = {_list(modules)}"])


def _list(names: Iterable[str]) -> str:
    return "[" + ", ".join(quoted(name) for name in names) + "]"


def quoted(text: str) -> str:
    """A TOML basic string; what cannot stand in one, or would not show, is escaped. Lone surrogates are replaced."""
    parts = []
    for c in text:
        if c in '"\\':
            parts.append(f"\\{c}")
        elif "\ud800" <= c <= "\udfff":
            parts.append("\\uFFFD")
        elif c.isprintable():
            parts.append(c)
        else:
            parts.append(f"\\u{ord(c):04X}" if ord(c) < 0x10000 else f"\\U{ord(c):08X}")
    return '"' + "".join(parts) + '"'


def _comment(text: str) -> str:
    """A comment of one line, without what would end it or not show."""
    safe = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return f"# {safe[:_WIDTH]}{'...' if len(safe) > _WIDTH else ''}"
