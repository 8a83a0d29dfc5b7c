"""Which Python a project's image gets, where nobody says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from deadweight.application.files import read_inside
from deadweight.build.locks import Locks
from deadweight.build.pyproject import Pyproject
from deadweight.errors import BadInputError

NEWEST = 14
OLDEST = 8
_VERSION = re.compile(r"(?:cpython-)?3\.(\d{1,2})(?:\.\d+)?\s*\Z")


def newest(folder: Path, project: Pyproject, locks: Locks, extras: Sequence[str]) -> tuple[str, list[str]]:
    """(the newest Python, as X.Y, that the project and its lock allow; notes).

    A .python-version decides where it is allowed, and classifiers, where there are any, name what was tried.
    Raises BadInputError where requires-python and the lock allow none.
    """
    stated = [one for one in (project.requires_python, locks.requires_python) if one]
    allowed = [minor for minor in range(NEWEST, OLDEST - 1, -1) if all(holds(one, minor) for one in stated)]
    if not allowed:
        raise BadInputError(
            f"requires-python {' and '.join(stated)} allows no Python from 3.{OLDEST} to 3.{NEWEST}: correct it, or "
            "lock again"
        )
    chosen = next(_chosen(folder), None)
    if chosen in allowed:
        return f"3.{chosen}", []
    tried = [minor for minor in allowed if minor in project.minors] or allowed
    fitting = next((minor for minor in tried if locks.allows(project, extras, minor)), None)
    if fitting is None:
        return f"3.{tried[0]}", [
            f"the lock has no wheels of every distribution for any allowed Python: on 3.{tried[0]} some are compiled"
        ]
    notes = []
    if fitting != tried[0] and locks.whole is not None:
        notes.append(f"Python 3.{fitting}: {locks.whole.path} has no wheels of every distribution for a newer one")
    return f"3.{fitting}", notes


def _chosen(folder: Path) -> Iterator[int]:
    text = (read_inside(folder, ".python-version", 1000) or b"").decode("utf-8", "replace")
    for line in text.splitlines():
        match = _VERSION.match(line.strip())
        if match:
            yield int(match[1])


def holds(specifier: str, minor: int) -> bool:
    """Whether a version specifier allows some release of Python 3.`minor`."""
    try:
        allowed = SpecifierSet(specifier)
    except InvalidSpecifier:
        return True
    return any(allowed.contains(f"3.{minor}.{patch}") for patch in range(40))
