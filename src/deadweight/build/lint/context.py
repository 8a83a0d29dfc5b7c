"""The build context: what COPY takes from it, less what .dockerignore leaves out. Read, and never followed by links."""

from __future__ import annotations

import fnmatch
import os
import posixpath
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

_FILES = 200_000
_LIMIT = 1 << 20


@dataclass(frozen=True)
class Context:
    """A build context."""

    folder: Path
    dockerfile: str = "Dockerfile"
    """The Dockerfile's name, for an ignore file of its own (`NAME.dockerignore`)."""

    @cached_property
    def files(self) -> dict[str, int]:
        """The files that a build can see, by path below the folder, with their bytes."""
        ignored = self.ignored
        found: dict[str, int] = {}
        for place, folders, names in os.walk(self.folder):
            here = Path(place).relative_to(self.folder).as_posix()
            folders.sort()
            for name in sorted(names):
                path = posixpath.normpath(posixpath.join(here, name))
                if not ignored(path):
                    try:
                        found[path] = os.lstat(Path(place, name)).st_size
                    except OSError:
                        continue
            if len(found) > _FILES:
                break
        return found

    @cached_property
    def ignored(self) -> Ignore:
        """What the ignore file leaves out."""
        for name in (f"{self.dockerfile}.dockerignore", ".dockerignore"):
            text = self.read(name)
            if text is not None:
                return Ignore.of(text.splitlines())
        return Ignore(())

    @cached_property
    def has_ignore_file(self) -> bool:
        """Whether something says what not to copy."""
        return bool(self.ignored.patterns)

    @cached_property
    def pyproject(self) -> dict[str, Any]:
        """The project's pyproject.toml; empty where there is none that can be read."""
        try:
            return tomllib.loads(self.read("pyproject.toml") or "")
        except (ValueError, RecursionError):  # no TOML, or a number of 5,000 digits
            return {}

    def read(self, path: str) -> str | None:
        """A text file of the context; None where there is none in it, or too much."""
        if "\0" in path:
            return None
        real = Path(os.path.realpath(self.folder / path))
        try:
            if real.is_relative_to(os.path.realpath(self.folder)) and real.is_file() and real.stat().st_size <= _LIMIT:
                return real.read_text("utf-8", "replace")
        except OSError:
            return None
        return None

    def copied(self, sources: Sequence[str]) -> dict[str, int]:
        """The files that a COPY of these sources takes, with their bytes."""
        found = {}
        for source in sources:
            clean = posixpath.normpath(source.strip("/") or ".").removeprefix("./")
            pattern = re.compile(fnmatch.translate(clean)) if re.search(r"[*?\[]", clean) else None
            for path, size in self.files.items():
                whole = clean in (".", path) or path.startswith(f"{clean}/")
                if whole or (pattern and any(pattern.match(top) for top in _tops(path, clean.count("/")))):
                    found[path] = size
        return found


def _tops(path: str, depth: int) -> list[str]:
    """The first `depth + 1` parts of a path: what a pattern with so many slashes can match."""
    return ["/".join(path.split("/")[: depth + 1])]


@dataclass(frozen=True)
class Ignore:
    """The patterns of a .dockerignore (moby's patternmatcher): the last that matches counts."""

    patterns: tuple[tuple[bool, re.Pattern[str]], ...]

    @staticmethod
    def of(lines: Sequence[str]) -> Ignore:
        """The patterns of these lines."""
        found = []
        for line in lines:
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            keeps = text.startswith("!")
            clean = posixpath.normpath(text.removeprefix("!").strip()).strip("/")
            if clean not in ("", "."):
                found.append((not keeps, _translated(clean)))
        return Ignore(tuple(found))

    def __call__(self, path: str) -> bool:
        """Whether a path is left out: it, or a directory above it."""
        tops = [path]
        while "/" in tops[-1]:
            tops.append(tops[-1].rpartition("/")[0])
        out = False
        for leaves, pattern in self.patterns:
            if leaves != out and any(pattern.match(top) for top in tops):
                out = leaves
        return out


def _translated(pattern: str) -> re.Pattern[str]:
    found = ""
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            found, at = found + "(?:.*/)?", at + 3
        elif pattern.startswith("**", at):
            found, at = found + ".*", at + 2
        elif pattern[at] == "*":
            found, at = found + "[^/]*", at + 1
        elif pattern[at] == "?":
            found, at = found + "[^/]", at + 1
        elif pattern[at] == "\\" and at + 1 < len(pattern):
            found, at = found + re.escape(pattern[at + 1]), at + 2
        else:
            found, at = found + re.escape(pattern[at]), at + 1
    return re.compile(found + r"\Z", re.DOTALL)
