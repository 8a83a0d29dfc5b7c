"""Reads the tests of container-structure-test (schemaVersion 2.0.0), so that they run as probes.

https://github.com/GoogleContainerTools/container-structure-test: its README has the fields, pkg/types/v2 what they
mean. All of them have to succeed. What means something else here: symbolic links are followed inside the image only
(its tar driver follows absolute ones on the machine that it runs on), and uid and gid are checked for every image.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deadweight.errors import BadInputError, shown
from deadweight.verify.spec import ConfigProbe, FileProbe, Probe, RunProbe, Spec
from deadweight.verify.spec.go_regex import python_regex
from deadweight.verify.spec.names import named
from deadweight.verify.spec.patterns import compiled
from deadweight.verify.spec.variables import filled_in
from deadweight.verify.spec.yaml_nodes import Place, read_yaml

LIMIT = 1_000_000
VERSION = "2.0.0"
_FIELDS = frozenset(
    {
        "schemaVersion",
        "globalEnvVars",
        "commandTests",
        "fileExistenceTests",
        "fileContentTests",
        "metadataTest",
        "licenseTests",
        "containerRunOptions",
    }
)
_COMMAND = frozenset(
    {
        "name",
        "setup",
        "teardown",
        "envVars",
        "exitCode",
        "command",
        "args",
        "expectedOutput",
        "excludedOutput",
        "expectedError",
        "excludedError",
    }
)
_EXISTENCE = frozenset({"name", "path", "shouldExist", "permissions", "uid", "gid", "isExecutableBy"})
_CONTENT = frozenset({"name", "path", "expectedContents", "excludedContents"})
_METADATA = frozenset(
    {
        "envVars",
        "unboundEnvVars",
        "exposedPorts",
        "unexposedPorts",
        "entrypoint",
        "cmd",
        "workdir",
        "volumes",
        "unmountedVolumes",
        "labels",
        "user",
    }
)
_PAIR = frozenset({"key", "value", "isRegex"})
_OPTIONS = frozenset({"user", "privileged", "allocateTty", "envFile", "envVars", "capabilities", "bindMounts"})
_EXECUTABLE = ("any", "owner", "group", "other")
_PASSED_OVER = {"licenseTests": "licenses are not judged here", "containerRunOptions": "the sandbox has none of them"}
# Go writes a mode as letters for its type and flags, then nine of permissions: https://pkg.go.dev/io/fs#FileMode
_GO_MODE = re.compile(r"(-|[dLDcpSugt]+)([r-][w-][x-][r-][w-][x-][r-][w-][x-])")
_GO_TYPES = {"d": stat.S_IFDIR, "L": stat.S_IFLNK, "p": stat.S_IFIFO, "S": stat.S_IFSOCK, "c": stat.S_IFCHR}
_GO_FLAGS = {"u": stat.S_ISUID, "g": stat.S_ISGID, "t": stat.S_ISVTX}


def read_cst(path: str | Path) -> Spec:
    """The tests of a YAML or JSON file, as probes.

    License tests and options of the container are passed over, which the notes say. Raises BadInputError, with the
    line for YAML.
    """
    fields = _document(Path(path)).table(_FIELDS)
    version = fields["schemaVersion"].text() if "schemaVersion" in fields else ""
    if version != VERSION:
        said = f"is {shown(version)}" if version else "is missing"
        raise BadInputError(f"{shown(str(path))[1:-1]}: schemaVersion {said}; {VERSION} is what is read here")
    globally = _variables(fields.get("globalEnvVars"))
    probes: list[Probe] = []
    probes += [_command(item, globally) for item in _items(fields, "commandTests")]
    probes += [_existence(item, globally) for item in _items(fields, "fileExistenceTests")]
    probes += [_content(item) for item in _items(fields, "fileContentTests")]
    if "metadataTest" in fields:
        probes += _metadata(fields["metadataTest"])
    notes = [
        f"{shown(str(path))[1:-1]}: {key}: passed over, {why}" for key, why in _PASSED_OVER.items() if key in fields
    ]
    if "containerRunOptions" in fields:
        fields["containerRunOptions"].table(_OPTIONS)
    return Spec(defaults=False, probe=named(probes), notes=notes)


def _document(path: Path) -> Place:
    where = shown(str(path))[1:-1]
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise BadInputError(f"{where} cannot be read: {error.strerror}") from None
    if len(data) > LIMIT:
        raise BadInputError(f"{where}: more than {LIMIT:,} bytes; a file of tests is short")
    try:
        text = data.decode("utf-8-sig")
        if path.suffix != ".json":
            return read_yaml(text, where)
        # JSON with tabs or without blanks is no YAML to every reader.
        return read_yaml(json.dumps(json.loads(text), ensure_ascii=False), where, lines=False)
    except json.JSONDecodeError as error:
        raise BadInputError(f"{where}:{error.lineno}: {error.msg} (column {error.colno})") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadInputError(f"{where}:{line}: not UTF-8") from None
    except RecursionError:
        raise BadInputError(f"{where}: nested too deep") from None


def _items(fields: dict[str, Place], name: str) -> list[Place]:
    return fields[name].items() if name in fields else []


def _texts(fields: dict[str, Place], name: str) -> list[str]:
    return fields[name].texts() if name in fields else []


def _text(place: Place, fields: dict[str, Place], name: str) -> str:
    """A field that has to be there."""
    text = fields[name].text() if name in fields else ""
    if not text:
        raise place.wrong(f"{name} is missing")
    return text


def _patterns(fields: dict[str, Place], name: str) -> list[str]:
    return [_pattern(item) for item in _items(fields, name)]


def _pattern(place: Place) -> str:
    try:
        pattern = python_regex(place.text())
        compiled(pattern)
    except ValueError as error:
        raise place.wrong(f"{shown(place.text())}: {error}") from None
    except RecursionError:
        raise place.wrong("nested too deep") from None
    return pattern


def _variables(place: Place | None) -> dict[str, str]:
    found = {}
    for item in place.items() if place is not None else ():
        fields = item.table(_PAIR)
        key = _text(item, fields, "key")
        if "=" in key:
            raise item.wrong(f"{shown(key)} is no name of a variable")
        found[key] = fields["value"].text() if "value" in fields else ""
    return found


def _command(place: Place, globally: dict[str, str]) -> RunProbe:
    fields = place.table(_COMMAND)
    own = _variables(fields.get("envVars"))
    setup, teardown = _commands(fields, "setup"), _commands(fields, "teardown")
    # The words see the variables that the container has had committed: those of the file, and with a setup its own.
    known = {**globally, **own} if setup else globally
    words = [_text(place, fields, "command"), *_texts(fields, "args")]
    return RunProbe(
        name=_text(place, fields, "name"),
        must=True,
        command=[filled_in(word, known) for word in words],
        env={**globally, **{key: filled_in(value, globally) for key, value in own.items()}},
        status=fields["exitCode"].whole() if "exitCode" in fields else 0,
        output=_patterns(fields, "expectedOutput"),
        no_output=_patterns(fields, "excludedOutput"),
        error=_patterns(fields, "expectedError"),
        no_error=_patterns(fields, "excludedError"),
        setup=setup,
        teardown=teardown,
        expand=True,
    )


def _commands(fields: dict[str, Place], name: str) -> list[list[str]]:
    found = []
    for item in _items(fields, name):
        words = item.texts()
        if not words:
            raise item.wrong("is empty")
        found.append(words)
    return found


def _existence(place: Place, globally: dict[str, str]) -> FileProbe:
    fields = place.table(_EXISTENCE)
    name, path = _text(place, fields, "name"), _text(place, fields, "path")
    more: dict[str, Any] = {"name": name, "must": True, "path": _rooted(filled_in(path, globally)), "expand": True}
    more["follow"] = False  # it looks at a link itself
    if "shouldExist" in fields and not fields["shouldExist"].flag():
        return FileProbe(**more, exists=False)
    for key in ("uid", "gid"):
        if key in fields and (number := fields[key].whole()) != -1:
            more[key] = number
    if "permissions" in fields and (text := fields["permissions"].text()):
        more["permissions"] = _permissions(text)
    if "isExecutableBy" in fields and (word := fields["isExecutableBy"].text()):
        if word not in _EXECUTABLE:
            raise fields["isExecutableBy"].wrong(f"expected {', '.join(_EXECUTABLE)}, got {shown(word)}")
        more["executable_by"] = word
    return FileProbe(**more)


def _permissions(text: str) -> str:
    """What Go writes as `dtrwxrwxrwx`, as `ls -l` does: `drwxrwxrwt`. Anything else stays, and never matches."""
    match = _GO_MODE.fullmatch(text)
    if match is None:
        return text
    mode = sum(bit for bit, char in zip(reversed([1 << n for n in range(9)]), match[2], strict=True) if char != "-")
    letters = set(match[1])
    kind = next((_GO_TYPES[char] for char in "dLpSc" if char in letters), stat.S_IFREG)
    if "D" in letters and "c" not in letters:
        kind = stat.S_IFBLK
    return stat.filemode(kind | mode | sum(bit for char, bit in _GO_FLAGS.items() if char in letters))


def _content(place: Place) -> FileProbe:
    fields = place.table(_CONTENT)
    return FileProbe(
        name=_text(place, fields, "name"),
        must=True,
        path=_rooted(_text(place, fields, "path")),
        contents=_patterns(fields, "expectedContents") or [""],  # which any file has, but no directory
        no_contents=_patterns(fields, "excludedContents"),
    )


def _rooted(path: str) -> str:
    return path if path.startswith(("/", "$")) else f"/{path}"


def _metadata(place: Place) -> Iterator[ConfigProbe]:
    """One probe, and further ones for variables and labels that are asked for more than once."""
    fields = place.table(_METADATA)
    tables = [_rounds(fields.get("envVars")), _rounds(fields.get("labels"))]
    number = max(1, *map(len, tables))
    for turn in range(number):
        env, labels = (table[turn] if turn < len(table) else {} for table in tables)
        regex = [key for key in {**env, **labels} if any(key in t and t[key][1] for t in (env, labels))]
        common: dict[str, Any] = {"name": "Metadata Test", "must": True}
        common |= {"env": _said(env, regex), "labels": _said(labels, regex), "regex": regex}
        if turn:
            yield ConfigProbe(**common)
            continue
        yield ConfigProbe(
            **common,
            no_env=[_text(item, item.table(_PAIR), "key") for item in _items(fields, "unboundEnvVars")],
            cmd=fields["cmd"].texts() if "cmd" in fields else None,
            entrypoint=fields["entrypoint"].texts() if "entrypoint" in fields else None,
            ports=_texts(fields, "exposedPorts"),
            no_ports=_texts(fields, "unexposedPorts"),
            volumes=_texts(fields, "volumes"),
            no_volumes=_texts(fields, "unmountedVolumes"),
            workdir=(fields["workdir"].text() or None) if "workdir" in fields else None,
            user=(fields["user"].text() or None) if "user" in fields else None,
        )


_Pairs = dict[str, tuple[str, bool]]
"""Values, and whether they are regular expressions."""


def _rounds(place: Place | None) -> list[_Pairs]:
    """Pairs in as many tables as a key is there at most."""
    rounds: list[_Pairs] = []
    for item in place.items() if place is not None else ():
        fields = item.table(_PAIR)
        key = _text(item, fields, "key")
        regex = "isRegex" in fields and fields["isRegex"].flag()
        value = "" if "value" not in fields else _pattern(fields["value"]) if regex else fields["value"].text()
        table = next((table for table in rounds if key not in table), None)
        if table is None:
            rounds.append(table := {})
        table[key] = (value, regex)
    return rounds


def _said(pairs: _Pairs, regex: list[str]) -> dict[str, str]:
    """Values by key; all of a key in `regex` are regular expressions."""
    exact = {key: rf"\A{re.escape(value)}\Z" for key, (value, own) in pairs.items() if not own and key in regex}
    return {key: exact.get(key, value) for key, (value, _) in pairs.items()}
