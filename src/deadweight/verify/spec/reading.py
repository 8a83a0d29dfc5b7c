"""Reads deadweight.toml. What is wrong with it is said with its line and key."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from deadweight.decoding import from_values
from deadweight.errors import BadInputError, shown
from deadweight.verify.spec import Probe, Spec, toml_lines
from deadweight.verify.spec.names import named
from deadweight.verify.spec.sense import problems

LIMIT = 1_000_000
BUILTIN = "builtin:"
KINDS: dict[str, type[msgspec.Struct]] = {
    str(kind.__struct_config__.tag): kind for kind in Probe.__args__ if issubclass(kind, msgspec.Struct)
}
"""The kinds of probes, by the word that `kind` has for them."""
_TABLES: dict[str, type[msgspec.Struct]] = {
    field.name: field.type
    for field in msgspec.structs.fields(Spec)
    if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
}
_UNWRITTEN = ("folder", "notes")
_AT = re.compile(r"(.*?)(?: - at `\$(.*)`)?", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|\[(\.\.\.)\]")
_WORDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "date": "a date",
    "datetime": "a date",
    "time": "a time",
    "list": "a list",
    "dict": "a table",
}


def read_spec(source: str | Path) -> Spec:
    """The specification in a TOML file, or the one that comes with deadweight under `builtin:NAME`.

    Every probe of it has a name of its own. Raises BadInputError: `deadweight.toml:12: probe[1].timeout: expected a
    number, got a string`; the first probe is probe[0].
    """
    if isinstance(source, str) and source.startswith(BUILTIN):
        return _builtin(source)
    path = Path(source)
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise BadInputError(f"{shown(str(source))} cannot be read: {error.strerror}") from None
    return _parsed(data, str(source), path.absolute().parent)


def builtin_names() -> list[str]:
    """What comes with deadweight: the NAMEs of `builtin:NAME`."""
    folder = files("deadweight.verify").joinpath("builtin")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _builtin(source: str) -> Spec:
    name = source.removeprefix(BUILTIN)
    if name not in builtin_names():
        raise BadInputError(f"there is no {shown(source)}; there are {', '.join(BUILTIN + n for n in builtin_names())}")
    folder = files("deadweight.verify").joinpath("builtin")
    return _parsed(folder.joinpath(f"{name}.toml").read_bytes(), source, Path(str(folder)))


def _parsed(data: bytes, where: str, folder: Path) -> Spec:
    where = shown(where)[1:-1]
    if len(data) > LIMIT:
        raise BadInputError(f"{where}: more than {LIMIT:,} bytes; a specification is a short file")
    try:
        text = data.decode()
        values = tomllib.loads(text)
        lines = toml_lines.key_lines(text)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadInputError(f"{where}:{line}: not UTF-8, as TOML has to be") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInputError(f"{where}:{_syntax(str(error), text)}") from None
    except RecursionError:
        raise BadInputError(f"{where}: lists nested too deep") from None
    try:
        spec = _sensible(_converted(values), folder)
    except _Wrong as wrong:
        line = toml_lines.line_of(lines, wrong.keys) or 1
        key = f"{dotted(wrong.keys)}: " if wrong.keys else ""
        raise BadInputError(f"{where}:{line}: {key}{wrong.what}") from None
    return msgspec.structs.replace(spec, probe=named(spec.probe))


def dotted(keys: Iterable[str | int]) -> str:
    """Keys as they are written in messages: `probe[1].timeout`."""
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            word = key if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", key) else shown(key, 60)
            text += f".{word}" if text else word
    return text


class _Wrong(Exception):
    def __init__(self, keys: toml_lines.Path, what: str) -> None:
        super().__init__(what)
        self.keys, self.what = keys, what


def _syntax(message: str, text: str) -> str:
    """tomllib's message, its line in front."""
    match = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if match is None:
        return f"1: {shown(message)[1:-1]}"
    what = shown(match[1])[1:-1]
    if match[2] is None:
        return f"{text.rstrip().count(chr(10)) + 1}: {what} (at the end)"
    return f"{match[2]}: {what} (column {match[3]})"


def _sensible(spec: Spec, folder: Path) -> Spec:
    spec = msgspec.structs.replace(spec, folder=str(folder))
    for keys, what in problems(spec):
        raise _Wrong(keys, what)
    return spec


def _converted(values: dict[str, Any]) -> Spec:
    for key in _UNWRITTEN:
        if key in values:
            raise _Wrong((key,), f"there is no such key; {_known(key, Spec)}")
    try:
        return from_values(values, Spec)
    except msgspec.ValidationError as error:
        match = _AT.fullmatch(str(error))
        assert match is not None
        keys = _keys(match[2] or "", values)
        raise _explained(match[1], keys, values) from None


def _keys(path: str, values: Any) -> toml_lines.Path:
    """The keys that msgspec's path names; it leaves out those of tables whose keys are free."""
    keys: list[str | int] = []
    for name, position, _ in _STEP.findall(path):
        # Tables with free keys (`env`, `headers`) have strings as values: it is one that is none.
        free = (key for key, value in values.items() if not isinstance(value, str)) if not name + position else ()
        step: str | int = name or (int(position) if position else next(iter(free)))
        keys.append(step)
        values = values[step]
    return tuple(keys)


def _explained(message: str, keys: toml_lines.Path, values: dict[str, Any]) -> _Wrong:
    """msgspec's message in the words of a TOML file."""
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", message, re.DOTALL):
        return _Wrong((*keys, match[1]), f"there is no such key; {_known(match[1], _struct(keys, values))}")
    if match := re.fullmatch(r"Object missing required field `(.*)`", message):
        more = f": one of {', '.join(KINDS)}" if match[1] == "kind" else ""
        return _Wrong(keys, f"{match[1]} is missing{more}")
    if keys[-1:] == ("kind",) and message.startswith("Invalid value"):
        return _Wrong(keys, f"there is no kind {_quoted(_at(values, keys))}; {_suggested(_at(values, keys), KINDS)}")
    if match := re.fullmatch(r"Expected `(.*?)`(?:, got `(.*?)`)?( .*)?", message):
        wanted = " or ".join(_WORDS.get(word, word) for word in match[1].split(" | ") if word != "null")
        got = f", got {_WORDS.get(match[2], match[2])}" if match[2] else ""
        bound = (match[3] or "").replace(".0", "").replace("of length >= 1", "that is not empty")
        return _Wrong(keys, f"expected {wanted}{bound}{got}")
    if message.startswith("Invalid enum value"):
        words = _choices(_struct(keys[:-1], values), str(keys[-1]))
        return _Wrong(keys, f"expected {' or '.join(words)}, got {_quoted(_at(values, keys))}")
    return _Wrong(keys, message)


def _struct(keys: toml_lines.Path, values: dict[str, Any]) -> type[msgspec.Struct]:
    """What a table of the file is read as."""
    if not keys:
        return Spec
    if keys[0] == "probe" and len(keys) > 1:
        return KINDS[_at(values, keys[:2])["kind"]]
    return _TABLES[str(keys[0])]


def _at(values: Any, keys: toml_lines.Path) -> Any:
    for key in keys:
        values = values[key]
    return values


def _choices(struct: type[msgspec.Struct], name: str) -> list[str]:
    """The words that a field takes."""
    schema = msgspec.json.schema(struct)["$defs"][struct.__name__]["properties"][name]
    return [word for part in schema.get("anyOf", [schema]) for word in part.get("enum", [])]


def _known(key: str, struct: type[msgspec.Struct]) -> str:
    names = [field.encode_name for field in msgspec.structs.fields(struct) if field.encode_name not in _UNWRITTEN]
    tag = struct.__struct_config__.tag_field
    return _suggested(key, ([tag] if tag else []) + names)


def _suggested(word: Any, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(str(word)[:100], known, 1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"


def _quoted(value: Any) -> str:
    return shown(str(value), 60)
