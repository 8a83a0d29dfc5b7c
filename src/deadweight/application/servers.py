"""Command lines of Python's web servers: which application they serve, and on which port.

What is known here is each tool's own documentation: uvicorn, gunicorn, hypercorn, granian, daphne, waitress, uWSGI,
`flask run`, `fastapi run`, `quart run`, Django's manage.py, and scripts that Python runs.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

TARGET = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*(?::[^\W\d]\w*(?:\.[^\W\d]\w*)*(?:\(\))?)?\Z")
"""`package.module:attribute`, `package.module`, or `package.module:factory()`."""
_PYTHON = re.compile(r"(?:python|pypy)(?:\d+(?:\.\d+)*)?\Z")
_ASSIGNMENT = re.compile(r"\s*(?:export\s+|:\s*)?[\"']?(?:\$\{)?([A-Za-z_]\w*)(?::?=)(.*)\Z")
_DEFAULT = re.compile(r"\$\{([A-Za-z_]\w*)(?::?[-=]([^{}]*))?\}|\$([A-Za-z_]\w*)")
_OPERATOR = re.compile(r"[;&|()<>]+\Z")
_ADDRESS = re.compile(r"(?:.*[:\]])?(\d{1,5})/?\Z")
LINE_LIMIT = 20_000

_ENV_PREFIX = re.compile(r"([A-Za-z_]\w*)=(.*)\Z", re.DOTALL)


@dataclass(frozen=True)
class Tool:
    """A program that serves an application."""

    kind: str
    """`asgi`, `wsgi` or `django`, as far as the tool says."""
    port: int
    """Where it listens without being told."""
    port_options: tuple[str, ...] = ("--port",)
    bind_options: tuple[str, ...] = ()
    """Options that take HOST:PORT."""
    app_options: tuple[str, ...] = ()
    """Options that name the application, for tools that do not take it as a word."""
    directories: tuple[str, ...] = ()
    """Options that say where modules are imported from."""
    port_variables: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()
    """Options without a value."""
    subcommand: str = ""
    """The word that must follow."""


_COMMON = frozenset({"--reload", "--debug", "--factory", "--preload", "--daemon", "--verbose", "--no-access-log"})
_UVICORN = frozenset({"--proxy-headers", "--no-proxy-headers", "--server-header", "--no-server-header", "--use-colors"})
TOOLS: dict[str, Tool] = {
    "uvicorn": Tool(
        *("asgi", 8000, ("--port",)),
        directories=("--app-dir",),
        port_variables=("UVICORN_PORT",),
        flags=_COMMON | _UVICORN | {"--no-use-colors", "--date-header", "--no-date-header", "--access-log"},
    ),
    "gunicorn": Tool(
        *("wsgi", 8000, ()),
        bind_options=("-b", "--bind"),
        directories=("--chdir", "--pythonpath"),
        port_variables=("PORT",),
        flags=_COMMON | {"--reuse-port", "--capture-output", "--check-config", "-R", "-D", "--no-sendfile"},
    ),
    "hypercorn": Tool("asgi", 8000, (), ("-b", "--bind"), flags=_COMMON),
    "granian": Tool(
        *("asgi", 8000, ("--port",)),
        directories=("--working-dir",),
        port_variables=("GRANIAN_PORT",),
        flags=_COMMON | {"--access-log", "--ws", "--no-ws", "--http2"},
    ),
    "daphne": Tool("asgi", 8000, ("-p", "--port"), flags=_COMMON | {"--proxy-headers"}),
    "waitress-serve": Tool("wsgi", 8080, ("--port",), ("--listen",), ("--app",), flags=frozenset({"--call"})),
    "uwsgi": Tool(
        *("wsgi", 8080, ()),
        bind_options=("--http", "--http-socket", "--http11-socket"),
        app_options=("-w", "--module", "--wsgi"),
        directories=("--chdir", "--pythonpath"),
        flags=frozenset({"--master", "--die-on-term", "--enable-threads", "--lazy-apps", "--need-app", "-M"}),
    ),
    "flask": Tool(
        *("wsgi", 5000, ("-p", "--port")),
        app_options=("-A", "--app"),
        port_variables=("FLASK_RUN_PORT",),
        flags=_COMMON,
    ),
    "quart": Tool("asgi", 5000, ("-p", "--port"), app_options=("-A", "--app"), flags=_COMMON),
    "fastapi": Tool("asgi", 8000, ("--port",), app_options=("-e", "--entrypoint"), flags=_COMMON | _UVICORN),
    "manage.py": Tool("django", 8000, (), flags=_COMMON | {"--noreload", "--insecure"}, subcommand="runserver"),
    "django-admin": Tool("django", 8000, (), flags=_COMMON, subcommand="runserver"),
}


@dataclass(frozen=True)
class Served:
    """What a command line says of the application that it serves."""

    tool: str
    """The program, `python` for scripts and modules that Python runs."""
    kind: str
    target: str = ""
    """The application as `module:attribute`, empty where the command does not name it."""
    script: str = ""
    """A Python file that is run, or that the tool takes the application from."""
    module: str = ""
    """A module that is run, by `python -m`."""
    factory: bool = False
    port: int | None = None
    """What it says itself, not what the tool does without being told."""
    directory: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that are set on the command's own line."""


def statements(text: str, environment: Mapping[str, str]) -> list[list[str]]:
    """The simple commands of shell code, each as its words; its own assignments and `${PORT:-8000}` are put in."""
    variables = dict(environment)
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        line = line[:LINE_LIMIT]  # noqa: PLW2901
        if line.lstrip().startswith("#"):
            continue
        words = _words(substitute(line, variables))
        assignment = _ASSIGNMENT.match(line)
        if assignment and len(words[0] if words else []) <= 2:
            value = substitute(assignment[2].rstrip("}\"'"), variables).strip("\"'")
            if assignment[1] not in environment or not line.lstrip().startswith(":"):
                variables[assignment[1]] = value[:4096]
        found += words
    return [words for words in found if words]


def _words(line: str) -> list[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    try:
        for word in lexer:
            if _OPERATOR.match(word):
                found.append([])
            else:
                found[-1].append(word)
    except ValueError:  # a quote that is open at the line's end
        return [line.replace('"', " ").replace("'", " ").split()]
    return found


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """Shell code with variables in place, defaults where they are unset; others stay as they are."""

    def value(match: re.Match[str]) -> str:
        known = variables.get(match[1] or match[3])
        return (known or match[2] or match[0])[:4096]

    return _DEFAULT.sub(value, text)


def served(words: Sequence[str], environment: Mapping[str, str]) -> Served | None:
    """What a simple command serves, as far as its words and the environment say; None where it is no server.

    Wrappers are passed over: `exec`, `env X=y`, `tini --`, `poetry run`, `python -m` and others.
    """
    own: dict[str, str] = {}
    for place, word in enumerate(words):
        name = posixpath.basename(word)
        if name in TOOLS:
            found = _tool(name, TOOLS[name], list(words[place + 1 :]), {**environment, **own}, word)
            if found is not None:
                return _with(found, own)
        elif _PYTHON.match(name):
            found = _python(list(words[place + 1 :]))
            if found is not None:
                return _with(found, own)
        elif word.endswith(".py") and place == 0:
            return _with(Served("python", "unknown", script=word), own)
        elif match := _ENV_PREFIX.match(word):
            own[match[1]] = match[2]
    return None


def _with(found: Served, own: dict[str, str]) -> Served:
    return Served(**{**vars(found), "environment": own}) if own else found


def _tool(name: str, tool: Tool, words: list[str], environment: Mapping[str, str], program: str) -> Served | None:
    if name == "gunicorn":
        words = shlex_split(environment.get("GUNICORN_CMD_ARGS", "")) + words
    options, rest = parse(words, tool.flags)
    if tool.subcommand and tool.subcommand not in rest:
        return None
    port = _port(tool, options, environment)
    if tool.kind == "django":
        at = rest.index(tool.subcommand) + 1
        if port is None and at < len(rest):
            port = port_of(rest[at])
        script = program if name == "manage.py" else ""
        return Served(name, "django", script=script, port=port, options=options)
    kind = tool.kind
    worker = options.get("-k") or options.get("--worker-class") or options.get("--interface") or ""
    if "uvicorn" in worker or "asgi" in worker:
        kind = "asgi"
    elif "wsgi" in worker:
        kind = "wsgi"
    directory = next((options[o] for o in tool.directories if options.get(o)), "")
    factory = "--factory" in options or "--call" in options
    target = next((options[o] for o in tool.app_options if options.get(o)), "")
    script = ""
    if name in ("flask", "quart"):
        if "run" not in rest:
            return None
        target = target or environment.get("FLASK_APP" if name == "flask" else "QUART_APP", "")
    elif name == "fastapi":
        if not {"run", "dev"} & set(rest):
            return None
        script = next((word for word in rest if word.endswith(".py")), "")
    elif not target:
        target = next((word for word in rest if TARGET.match(word) and (":" in word or "." in word)), "")
        target = target or next((word for word in rest if TARGET.match(word)), "")
        if not target and name not in ("gunicorn", "uwsgi"):
            return None
    if target.endswith(".py") or "/" in target:
        path, _, attribute = target.partition(":")
        script, target = path if path.endswith(".py") else f"{path}.py", ""
        if attribute and TARGET.match(attribute):
            directory = directory or posixpath.dirname(script)
            target = f"{posixpath.basename(script)[:-3]}:{attribute}"
    if target and not TARGET.match(target):
        target = ""
    return Served(name, kind, target, script, "", factory, port, directory, options)


def _python(words: list[str]) -> Served | None:
    """What `python [options] SCRIPT` or `python -m MODULE` runs. Tools run by -m are found by their own names."""
    while words:
        word = words.pop(0)
        if word == "-m":
            return Served("python", "unknown", module=words[0]) if words and words[0] not in TOOLS else None
        if word in ("-W", "-X", "-c"):
            if word == "-c":
                return None
            del words[:1]
        elif not word.startswith("-"):
            if posixpath.basename(word) in TOOLS:
                return None
            return Served("python", "unknown", script=word) if word.endswith(".py") else None
    return None


def parse(words: Sequence[str], flags: frozenset[str]) -> tuple[dict[str, str], list[str]]:
    """Options with their values, and the other words. An option that is not known takes a value where one follows."""
    options: dict[str, str] = {}
    rest = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if not word.startswith("-") or word in ("-", "--"):
            rest.append(word)
        elif "=" in word:
            name, _, value = word.partition("=")
            options[name] = value
        elif len(word) > 2 and word[1] != "-" and not word[1:].isalpha():  # -w4, -b0.0.0.0:80
            options[word[:2]] = word[2:]
        elif word in flags or at >= len(words) or words[at].startswith("-"):
            options[word] = ""
        else:
            options[word] = words[at]
            at += 1
            # A flag that is not known here may stand before the application.
            if ":" in words[at - 1] and TARGET.match(words[at - 1]):
                rest.append(words[at - 1])
    return options, rest


def shlex_split(text: str) -> list[str]:
    """Words of a line; without its quotes where they do not close."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _port(tool: Tool, options: Mapping[str, str], environment: Mapping[str, str]) -> int | None:
    for option in (*tool.port_options, *tool.bind_options):
        port = port_of(options.get(option, ""))
        if port is not None:
            return port
    return next((port for name in tool.port_variables if (port := port_of(environment.get(name, "")))), None)


def port_of(text: str) -> int | None:
    """The port of `8000`, `0.0.0.0:8000`, `:8000` or `[::]:8000`."""
    match = _ADDRESS.match(text.strip())
    port = int(match[1]) if match else 0
    return port if 0 < port < 65536 else None
