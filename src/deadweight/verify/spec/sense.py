"""What can be wrong with a specification beyond the types of its values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from deadweight.errors import UsageError, shown
from deadweight.sizes import parse_size
from deadweight.verify import spec
from deadweight.verify.spec.patterns import compiled
from deadweight.verify.spec.toml_lines import Path as Keys

Problem = tuple[Keys, str]
"""Keys, and what is wrong there."""

_MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_OBJECT = re.compile(_MODULE.pattern + r":[^\W\d]\w*(?:\.[^\W\d]\w*)*(?:\(\))?")
_DISTRIBUTION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VARIABLE = re.compile(r"[^=\0]+")
_METHOD = re.compile(r"[A-Za-z]+")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_PERMISSIONS = re.compile(r"[-bcdlps](?:[r-][w-][xsS-]){2}[r-][w-][xtT-]")
_PORT = re.compile(r"\d{1,5}(?:/(?:tcp|udp|sctp))?")
_FREE = frozenset({"json", "body", "stdin", "sentences"})  # may hold whatever they like


def problems(found: spec.Spec) -> Iterator[Problem]:
    """What is wrong, with the keys that lead to it."""
    yield from _values(found)
    yield from _sizes(found)
    for key in ("asgi", "wsgi"):
        yield from _object(("app", key), getattr(found.app, key))
    yield from _path(("app", "health"), found.app.health)
    yield from _each(("app", "env"), found.app.env, _VARIABLE, "no name of a variable")
    names: dict[str, int] = {}
    for number, probe in enumerate(found.probe):
        keys: Keys = ("probe", number)
        if probe.name and names.setdefault(probe.name, number) != number:
            yield (*keys, "name"), f"probe[{names[probe.name]}] has the same name"
        for inner, what in _OF[type(probe)](probe):
            yield (*keys, *inner), what
        if isinstance(probe, spec.RunProbe | spec.AccuracyProbe) and probe.script is not None:
            yield from _script((*keys, "script"), probe.script, Path(found.folder))
        if isinstance(probe, spec.AccuracyProbe) and probe.sentences_file is not None:
            yield from _script((*keys, "sentences_file"), probe.sentences_file, Path(found.folder))


def _values(found: spec.Spec) -> Iterator[Problem]:
    """What no text and no number may be, wherever it stands."""
    todo: list[tuple[Keys, Any]] = [((), msgspec.to_builtins(found))]
    while todo:
        keys, value = todo.pop()
        if keys and keys[-1] in _FREE:
            continue
        if isinstance(value, dict):
            todo += [((*keys, key), item) for key, item in value.items()]
        elif isinstance(value, list):
            todo += [((*keys, number), item) for number, item in enumerate(value)]
        elif isinstance(value, str) and "\0" in value:
            yield keys, "holds a NUL character, which no program can be given"
        elif isinstance(value, float) and not math.isfinite(value):
            yield keys, "expected a finite number"


def _sizes(found: spec.Spec) -> Iterator[Problem]:
    for keys, text in ((("image", "max_size"), found.image.max_size), (("limits", "memory"), found.limits.memory)):
        yield from _size(keys, text)


def _run(probe: spec.RunProbe) -> Iterator[Problem]:
    given = [key for key in ("command", "script", "code") if getattr(probe, key) is not None]
    if len(given) != 1:
        yield tuple(given[1:2]), f"one of command, script and code has to be given, not {' and '.join(given) or 'none'}"
        return
    if not getattr(probe, given[0]):
        yield (given[0],), "is empty"
    for key in ("setup", "teardown"):
        yield from (((key, number), "is empty") for number, words in enumerate(getattr(probe, key)) if not words)
    for key in ("ignore", "output", "no_output", "error", "no_error"):
        yield from _patterns(key, getattr(probe, key))
    if probe.status is not None and not 0 <= probe.status <= 255:
        yield ("status",), "an exit status is 0 to 255"
    yield from _each(("env",), probe.env, _VARIABLE, "no name of a variable")


def _accuracy(probe: spec.AccuracyProbe) -> Iterator[Problem]:
    for keys in (("script", "code"), ("sentences", "sentences_file")):
        given = [key for key in keys if getattr(probe, key)]
        if len(given) != 1:
            yield tuple(given[1:2]), f"one of {' and '.join(keys)} has to be given, not {'both' if given else 'none'}"
    yield from _each(("env",), probe.env, _VARIABLE, "no name of a variable")


def _models(probe: spec.ModelsProbe) -> Iterator[Problem]:
    for key in ("folders", "converted"):
        for number, folder in enumerate(getattr(probe, key) or ()):
            yield from _path((key, number), folder)


def _script(keys: Keys, script: str, folder: Path) -> Iterator[Problem]:
    try:
        place = (folder / script).resolve()
        there = place.is_file()
    except (OSError, RuntimeError) as error:
        yield keys, f"{shown(script)} cannot be read: {error}"
        return
    if not place.is_relative_to(folder.resolve().parent):
        yield keys, f"{shown(script)} is not beside the specification, in {shown(str(folder))}"
    elif not there:
        yield keys, f"there is no file {shown(script)} in {shown(str(folder))}"


def _http(probe: spec.HttpProbe) -> Iterator[Problem]:
    if probe.json is not None and probe.body is not None:
        yield ("body",), "the request has json already; give one of both"
    yield from _path(("path",), probe.path)
    yield from _status(probe.status)
    if not _METHOD.fullmatch(probe.method):
        yield ("method",), f"{shown(probe.method)} is no method of HTTP"
    for name, value in probe.headers.items():
        if not _HEADER.fullmatch(name) or "\n" in value or "\r" in value:
            yield ("headers", name), "no header of HTTP"
    yield from _patterns("ignore", probe.ignore)


def _start(probe: spec.StartProbe) -> Iterator[Problem]:
    yield from _path(("path",), probe.path)
    yield from _status(probe.status)
    if probe.command == []:
        yield ("command",), "is empty"
    yield from _each(("env",), probe.env, _VARIABLE, "no name of a variable")


def _import(probe: spec.ImportProbe) -> Iterator[Problem]:
    if probe.modules == []:
        yield ("modules",), "names no module; leave it out for all modules of all distributions"
    yield from _each(("modules",), probe.modules or (), _MODULE, "no name of a module")


def _absent(probe: spec.AbsentProbe) -> Iterator[Problem]:
    if not probe.commands and not probe.modules:
        yield (), "names neither commands nor modules"
    yield from _each(("modules",), probe.modules, _MODULE, "no name of a module")


def _tests(probe: spec.TestsProbe) -> Iterator[Problem]:
    if not probe.tests:
        yield ("tests",), "names no distribution"
    yield from _each(("tests",), probe.tests, _DISTRIBUTION, "no name of a distribution")


def _file(probe: spec.FileProbe) -> Iterator[Problem]:
    yield from _path(("path",), probe.path if not probe.expand or probe.path.startswith("/") else None)
    more = [
        *(key for key in ("permissions", "uid", "gid", "executable_by") if getattr(probe, key) is not None),
        *(key for key in ("contents", "no_contents") if getattr(probe, key)),
    ]
    if not probe.exists and more:
        yield (more[0],), "what must not be there can have nothing else"
    if probe.permissions is not None and not _PERMISSIONS.fullmatch(probe.permissions):
        yield ("permissions",), f"{shown(probe.permissions)} is not as `ls -l` writes them: -rw-r--r--"
    for key in ("contents", "no_contents"):
        yield from _patterns(key, getattr(probe, key))


def _config(probe: spec.ConfigProbe) -> Iterator[Problem]:
    if probe == spec.ConfigProbe(name=probe.name, must=probe.must, timeout=probe.timeout, regex=probe.regex):
        yield (), "asks for nothing"
    for key in ("ports", "no_ports"):
        yield from _each((key,), getattr(probe, key), _PORT, "no port: 8000, or 8000/tcp")
    for number, name in enumerate(probe.regex):
        values = [(key, table[name]) for key in ("env", "labels") if name in (table := getattr(probe, key))]
        if not values:
            yield ("regex", number), f"there is no {shown(name)} in env or labels"
        for key, value in values:
            yield from _pattern((key, name), value)


def _routes(probe: spec.RoutesProbe) -> Iterator[Problem]:
    yield from _object(("app",), probe.app)


def _nothing(_: Any) -> Iterator[Problem]:
    yield from ()


def _of_size(probe: spec.SizeProbe) -> Iterator[Problem]:
    yield from _size(("max",), probe.max)


_OF: dict[type[msgspec.Struct], Callable[[Any], Iterator[Problem]]] = {
    spec.ImportProbe: _import,
    spec.RunProbe: _run,
    spec.AccuracyProbe: _accuracy,
    spec.ModelsProbe: _models,
    spec.HttpProbe: _http,
    spec.StartProbe: _start,
    spec.RoutesProbe: _routes,
    spec.AbsentProbe: _absent,
    spec.LibrariesProbe: _nothing,
    spec.SizeProbe: _of_size,
    spec.TestsProbe: _tests,
    spec.FileProbe: _file,
    spec.ConfigProbe: _config,
}


def _size(keys: Keys, text: str | None) -> Iterator[Problem]:
    try:
        if text is not None and not parse_size(text):
            yield keys, "expected a size above 0"
    except UsageError as error:
        yield keys, str(error)


def _path(keys: Keys, path: str | None) -> Iterator[Problem]:
    if path is not None and not path.startswith("/"):
        yield keys, f"{shown(path)} does not begin with /"


def _status(status: int | None) -> Iterator[Problem]:
    if status is not None and not 100 <= status <= 599:
        yield ("status",), "a status of HTTP is 100 to 599"


def _object(keys: Keys, text: str | None) -> Iterator[Problem]:
    if text is not None and not _OBJECT.fullmatch(text):
        yield keys, f"{shown(text)} is not as package.module:attribute"


def _patterns(key: str, texts: Iterable[str]) -> Iterator[Problem]:
    for number, text in enumerate(texts):
        yield from _pattern((key, number), text)


def _pattern(keys: Keys, text: str) -> Iterator[Problem]:
    try:
        compiled(text)
    except ValueError as error:
        yield keys, str(error)


def _each(keys: Keys, texts: Iterable[str], form: re.Pattern[str], what: str) -> Iterator[Problem]:
    for number, text in enumerate(texts):
        if not form.fullmatch(text):
            step: str | int = text if isinstance(texts, dict) else number
            yield (*keys, step), f"{shown(text)} is {what}"
