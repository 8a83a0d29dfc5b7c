"""Which files hold models, by formats.toml: by their names, and by how they begin."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple

from deadweight.image.content import Reader

_HEAD: Final = 256
_ZIP: Final = bytes.fromhex("504b0304")


class Format(NamedTuple):
    """Files of one format."""

    name: str
    files: tuple[str, ...]
    begins: tuple[bytes, ...]
    """How such files begin; empty: in no way of their own."""


class Duplicate(NamedTuple):
    """Files of a model folder that a library passes over where model.safetensors is whole."""

    format: str
    files: tuple[str, ...]
    why: str
    unless: re.Pattern[bytes]
    """What the application says where it wants them."""
    readers: tuple[str, ...]
    """Modules that read the format."""


@cache
def _document() -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("formats.toml").read_text("utf-8"))


@cache
def formats() -> tuple[Format, ...]:
    """All formats, the most specific first."""
    return tuple(
        Format(row["name"], tuple(row["files"]), tuple(map(bytes.fromhex, row.get("begins", ()))))
        for row in _document()["format"]
    )


@cache
def duplicates() -> tuple[Duplicate, ...]:
    """What a model may have twice."""
    return tuple(
        Duplicate(
            row["format"], tuple(row["files"]), row["why"], re.compile(row["unless"].encode()), tuple(row["readers"])
        )
        for row in _document()["duplicate"]
    )


@cache
def library(name: str) -> Any:
    """A value of [libraries]."""
    return _document()["libraries"][name]


def fits(path: str, patterns: Sequence[str]) -> bool:
    """Whether the last part of a path, or its last two parts, match one of the patterns."""
    parts = path.rsplit("/", 2)
    return any(fnmatchcase("/".join(parts[-1 - pattern.count("/") :]), pattern) for pattern in patterns)


@cache
def _endings() -> tuple[str, ...]:
    """How the names of files that could be models end."""
    found = {pattern.rpartition("*")[2].rpartition("]")[2] for row in formats() for pattern in row.files}
    return tuple(sorted(filter(None, found)))


_ONNX_DATA = re.compile(r"\.onnx_data_\d[^/]*\Z")


def may_be_model(path: str) -> bool:
    """Whether a path's name could be that of a model: cheap, and right in one direction only."""
    return path.endswith(_endings()) or (".onnx_data_" in path and _ONNX_DATA.search(path) is not None)


def format_of(path: str, read: Reader) -> str:
    """The format of a file; empty for one that holds no model."""
    head = b""
    for row in formats():
        if not fits(path, row.files):
            continue
        if not row.begins:
            return row.name
        head = head or read(0, _HEAD)
        if head.startswith(row.begins) and (row.name != "torch" or not head.startswith(_ZIP) or b"data.pkl" in head):
            return row.name
    return ""
