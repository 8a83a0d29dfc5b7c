"""Requirements files, as pip, pip-tools and uv read and write them.

Reference: https://pip.pypa.io/en/stable/reference/requirements-file-format/.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from deadweight.application.files import read_inside
from deadweight.build.pyproject import read_requirement
from deadweight.errors import shown

FILE_COUNT = 50
"""Of files that include each other."""
_UNIVERSAL = re.compile(r"#.*\buv (?:pip compile\b.* --universal\b|export\b)")
_PYTHON = re.compile(r"#.*(?:--python-version[ =]|-p |\bwith Python )3\.(\d{1,2})\b")


@dataclass(frozen=True)
class RequirementsFile:
    """A requirements file with those that it includes."""

    path: str
    names: frozenset[str]
    """Canonical names of what is required here, conditions aside."""
    files: tuple[str, ...]
    """This file, and those that it includes by -r and -c."""
    pinned: bool
    """Whether each requirement is of one version, or a URL."""
    hashes: bool
    minor: int | None
    """Y of the one Python 3.Y that the file was resolved for, as far as its head says."""
    trouble: str
    """Why it cannot be installed on its own; empty where it can."""


def read_requirements_file(folder: Path, path: str) -> RequirementsFile | None:
    """A requirements file of the project; None where it is none, or requires nothing."""
    names: set[str] = set()
    files: list[str] = []
    pinned = hashes = True
    minor, trouble = None, ""
    todo = [path]
    while todo and len(files) < FILE_COUNT:
        one = todo.pop(0)
        data = read_inside(folder, one)
        if data is None:
            trouble = trouble or f"{shown(path)} includes {shown(one)}, which is not in the project"
            continue
        files.append(one)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return None
        if one == path:
            minor = _minor(text)
        for line in _lines(text):
            option, _, value = line.partition(" ") if line[:2] in ("-r", "-c", "-e") else line.partition("=")
            if option in ("-r", "--requirement") or line.startswith("--requirement "):
                included = posixpath.normpath(posixpath.join(posixpath.dirname(one), line.split(maxsplit=1)[-1]))
                if included not in (*files, *todo):
                    todo.append(included)
            elif option in ("-c", "--constraint") or line.startswith("--constraint "):
                constraint = posixpath.normpath(posixpath.join(posixpath.dirname(one), line.split(maxsplit=1)[-1]))
                if read_inside(folder, constraint) is None:
                    trouble = trouble or f"{shown(path)} is constrained by {shown(constraint)}, which is not there"
                elif constraint not in files:
                    files.append(constraint)
            elif option in ("-e", "--editable") or line.startswith(("./", "../", "/", "file:", ". ", "--editable ")):
                trouble = trouble or (
                    f"{shown(path)} installs {shown(value or line)} from a directory: export it without the project "
                    f"itself (uv export --no-emit-project)"
                )
            elif line == ".":
                trouble = trouble or f"{shown(path)} installs the project itself: leave that line out"
            elif not line.startswith("-"):
                requirement, hashed = _requirement(line)
                if requirement is None:
                    return None
                names.add(str(canonicalize_name(requirement.name)))
                pinned = pinned and _pinned(requirement)
                hashes = hashes and hashed
    if not names:
        return None
    return RequirementsFile(path, frozenset(names), tuple(files), pinned, pinned and hashes, minor, trouble)


def _lines(text: str) -> list[str]:
    joined = re.sub(r"\\\r?\n", " ", text)
    lines = (re.sub(r"(?:^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def _requirement(line: str) -> tuple[Requirement | None, bool]:
    text, _, options = line.partition(" --")
    try:
        return read_requirement(text.strip()), "hash=" in options
    except InvalidRequirement:
        return None, False


def _pinned(requirement: Requirement) -> bool:
    one = list(requirement.specifier)
    return requirement.url is not None or (
        len(one) == 1 and one[0].operator in ("==", "===") and not one[0].version.endswith(".*")
    )


def _minor(text: str) -> int | None:
    head = text[:2000]
    match = _PYTHON.search(head)
    return int(match[1]) if match and not _UNIVERSAL.search(head) else None
