"""A project's version from its history: which tool makes it, and what of git it follows from.

git is asked alone, and writes nothing: not even its index, which is the user's.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

NO_LOCKS: Final = {"GIT_OPTIONAL_LOCKS": "0"}
"""For whatever runs git: it then leaves the index as it is."""
_TOOLS: Final = {
    "setuptools-scm": "SETUPTOOLS_SCM_PRETEND_VERSION",
    "hatch-vcs": "SETUPTOOLS_SCM_PRETEND_VERSION",
    "flit-scm": "SETUPTOOLS_SCM_PRETEND_VERSION",
    "uv-dynamic-versioning": "UV_DYNAMIC_VERSIONING_BYPASS",
    "pbr": "PBR_VERSION",
    "versioningit": "",
    "versioneer": "",
    "setuptools-git-versioning": "",
    "dunamai": "",
}
"""What building needs where the version comes from history, and the variable that says the version instead."""
_POETRY: Final = "poetry-dynamic-versioning"
_POETRY_VARIABLE: Final = "POETRY_DYNAMIC_VERSIONING_BYPASS"
_PDM_VARIABLE: Final = "PDM_BUILD_SCM_VERSION"


def version_tool(tools: Mapping[str, Any], requires: Collection[str], *, stated: bool, bundled: bool) -> str | None:
    """The variable that says the version in place of history, empty where there is none; None without such a tool.

    `tools` is pyproject.toml's table of tools, `requires` what building needs; `stated` whether a version is there,
    and `bundled` whether versioneer is part of the project.
    """
    poetry, pdm = tools.get(_POETRY), tools.get("pdm")
    if _POETRY in requires and isinstance(poetry, dict) and poetry.get("enable") is True:
        return _POETRY_VARIABLE  # the version that is stated is a placeholder
    if stated:
        return None
    version = pdm.get("version") if isinstance(pdm, dict) else None
    if isinstance(version, dict) and version.get("source") == "scm":
        return _PDM_VARIABLE
    found = next((variable for name, variable in _TOOLS.items() if name in requires), None)
    return "" if found is None and bundled else found


def state(folder: Path) -> str | None:
    """The commit and all tags; None where git does not tell."""
    head = _git(folder, "rev-parse", "HEAD")
    tags = _git(folder, "for-each-ref", "--format=%(objectname) %(refname)", "refs/tags")
    return None if head is None or tags is None else (head + tags).decode("utf-8", "backslashreplace")


def tracked(folder: Path) -> frozenset[str]:
    """The files that git tracks, and their folders, as paths below the project."""
    found = set[str]()
    for path in os.fsdecode(_git(folder, "ls-files", "-z") or b"").split("\0"):
        while path and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]  # noqa: PLW2901  (upwards, until it is known)
    return frozenset(found)


def _git(folder: Path, *words: str) -> bytes | None:
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **NO_LOCKS},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
