"""What of a project its image runs and reads: the server's command, and files beside the package."""

from __future__ import annotations

import configparser
import posixpath
import re
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from deadweight.application.discover import Discovery
from deadweight.application.files import read_inside
from deadweight.application.servers import TARGET
from deadweight.build.ignored import ignored_patterns, is_ignored, is_image
from deadweight.build.places import APP, APP_LIB
from deadweight.build.pyproject import Pyproject
from deadweight.errors import BadInputError, shown

HEALTH = re.compile(r"/[A-Za-z0-9._~/-]*\Z")
"""Paths of health checks that need no quoting."""
DEFAULT_PORT = 8000
ANYWHERE = "0.0.0.0"  # noqa: S104  (in a container: what is published, an engine decides)
LEFT_OUT = (
    *(".*", "site-packages", "test", "tests", "testing", "conftest.py", "noxfile.py", "tox.ini", "pytest.ini"),
    *("setup.cfg", "setup.py", "doc", "docs", "README*", "LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "CHANGELOG*"),
    *("CHANGES*", "*.md", "CONTRIBUTING*", "*.rst", "Makefile", "*.mk", "Containerfile*", "pyproject.toml", "*.lock"),
    *("pylock*.toml", "requirements", "requirements*.txt", "requirements*.in", "*-requirements.txt"),
    *("constraints*.txt", "notebooks", "*.ipynb", "*.sqlite3", "htmlcov", "deploy", "deadweight.toml", "uv.toml"),
    *("mypy.ini", "ruff.toml", "bench", "benchmarks"),
)
"""Top-level names of a project that its image does without, beside what no build reads: what hides, tests,
documentation, what builds it."""
BESIDE = (
    *("alembic.ini", "alembic", "migrations", "gunicorn.conf.py", "gunicorn_conf.py", "logging.*", "log_config.*"),
    *("templates", "static", "config", "configs"),
)
"""Top-level names that a service reads when it runs, beside its package."""
ELSEWHERE = frozenset({"bench", "benchmarks", "demo", "demos", "docs", "example", "examples", "scripts", "tools"})
"""Folders with applications that are not the project's own."""
_ASGI = ("uvicorn", "hypercorn", "granian", "daphne")
_WSGI = ("gunicorn", "waitress", "granian")
_NO_NAME = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and bytes that are no UTF-8, which no Dockerfile can have."""


@dataclass(frozen=True)
class Service:
    """What the container runs."""

    command: tuple[str, ...] = ()
    port: int | None = None
    health: str = ""
    file: str = ""
    """Where the application is, below the project; empty where that is not known."""
    notes: tuple[str, ...] = ()


def serving(
    folder: Path, project: Pyproject, found: Discovery, names: Collection[str], extras: Collection[str]
) -> Service:
    """The command that serves the application that was found, by a server that the project requires."""
    health = found.health if found.health_evidence and HEALTH.match(found.health) and len(found.health) < 200 else ""
    beside = found.app.split(".")[0] in ELSEWHERE
    if ":" not in found.app or not TARGET.match(found.app) or beside:
        if len(project.scripts) == 1:
            return Service(
                (project.scripts[0],), notes=(f"no web application was found: it runs {project.scripts[0]}",)
            )
        return Service(notes=("no application was found: say in CMD what the container runs",))
    standard = any(
        one.name.lower() in ("fastapi", "fastapi-slim") and one.extras & {"standard", "all"}
        for one in project.required(extras)
    )
    servers = {*names, *(("uvicorn",) if standard else ())}
    asgi = found.kind == "asgi" or (found.kind == "django" and ".asgi" in found.app)
    candidates = _ASGI if asgi else (*_WSGI, *(_ASGI if found.kind == "unknown" else ()))
    server = next((one for one in candidates if one in servers), None)
    file = _file(folder, found.app.partition(":")[0])
    if server is None:
        what = "uvicorn" if asgi else "gunicorn"
        return Service(
            file=file,
            notes=(f"{found.app} was found ({found.app_evidence}), and no server among the requirements: add {what}",),
        )
    port = found.port if found.port is not None else DEFAULT_PORT
    notes = [f"the application is {found.app}: {found.app_evidence}"]
    if not health:
        notes.append("no route for a health check was found: any HTTP answer counts")
    return Service(_command(server, found, port, asgi), port, health, file, tuple(notes))


def _command(server: str, found: Discovery, port: int, asgi: bool) -> tuple[str, ...]:
    target = found.app
    bind = f"{ANYWHERE}:{port}"
    if server == "uvicorn":
        factory = ("--factory",) if found.factory else ()
        return ("uvicorn", target, *factory, "--host", ANYWHERE, "--port", str(port))
    if server == "granian":
        factory = ("--factory",) if found.factory else ()
        interface = "asgi" if asgi else "wsgi"
        return ("granian", "--interface", interface, *factory, "--host", ANYWHERE, "--port", str(port), target)
    if server == "hypercorn":
        return ("hypercorn", f"{target}()" if found.factory else target, "--bind", bind)
    if server == "daphne":
        return ("daphne", "--bind", ANYWHERE, "--port", str(port), target)
    if server == "waitress":
        factory = ("--call",) if found.factory else ()
        return ("waitress-serve", f"--listen={bind}", *factory, target)
    return ("gunicorn", f"{target}()" if found.factory else target, "--bind", bind)


def _file(folder: Path, module: str) -> str:
    place = module.replace(".", "/")
    for path in (f"src/{place}.py", f"src/{place}/__init__.py", f"{place}.py", f"{place}/__init__.py"):
        if read_inside(folder, path) is not None:
            return path
    return ""


def copied_parts(folder: Path, project: Pyproject, app: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(what is copied to `APP`; PYTHONPATH).

    Raises BadInputError for names that no Dockerfile can have.
    """
    ignored = ignored_patterns(folder)
    there = sorted(
        path.name
        for path in folder.iterdir()
        if (path.is_file() or path.is_dir()) and not is_ignored(path.name, ignored) and not is_image(path)
    )
    if not project.installable:
        found = [name for name in there if not any(fnmatch(name, one) for one in LEFT_OUT)]
        found = [name for name in found if not (folder / name / "pyvenv.cfg").exists()]
        places = (posixpath.join(APP, "src"), APP) if "src" in found else (APP,)
    else:
        found = [name for name in there if any(fnmatch(name, one) for one in BESIDE) and name != app.partition("/")[0]]
        found = [
            name for name in found if name not in ("alembic", "migrations") or (folder / name / "env.py").is_file()
        ]
        script = _alembic(folder)
        if script and script not in found and not script.startswith("src/"):
            found.append(script)
        places = (APP_LIB,)
        if app and "/" not in app:  # a module beside the package, which installing leaves out
            found.append(app)
            places = (APP_LIB, APP)
    for name in found:
        if _NO_NAME.search(name):
            raise BadInputError(f"{shown(str(folder / name))} cannot be named in a Dockerfile: rename it")
    return tuple(dict.fromkeys(found)), places


def _alembic(folder: Path) -> str:
    """Where the migrations are that alembic.ini names, below the project; empty where that is no folder of it."""
    data = read_inside(folder, "alembic.ini", 1 << 20)
    if data is None:
        return ""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(data.decode("utf-8", "replace"))
        value = parser.get("alembic", "script_location", fallback="")
    except configparser.Error:
        return ""
    path = posixpath.normpath(value.replace("%(here)s", ".").strip())
    inside = not path.startswith(("..", "/")) and ":" not in path and path != "."
    return path if inside and (folder / path).is_dir() else ""
