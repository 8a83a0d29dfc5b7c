"""What of a project no build reads, whoever builds: the .dockerignore, what is copied, and what the wheel is made of.

The patterns are those of a .dockerignore: one without `**/` is for the top of the project alone.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

_PATTERNS: Final[Mapping[str, tuple[str, ...]]] = {
    "Versions, and what tools keep of their own": (
        *(
            ".git",
            ".github",
            ".gitlab-ci.yml",
            ".idea",
            ".vscode",
            "**/.*_cache",
            "**/.hypothesis",
            "**/.tox",
            "**/.nox",
        ),
        *(
            "**/.venv*",
            "venv",
            "env",
            "**/node_modules",
            "**/__pycache__",
            "**/*.py[cod]",
            "**/.DS_Store",
            ".coverage*",
        ),
    ),
    "What was built, or left by a run": ("build", "dist", "**/*.egg-info", "*.whl", "*.tar", "*.log", "*.db"),
    "Secrets": ("**/.env", "**/.env.*", "**/.netrc", "**/.pypirc", "*.pem", "*.key"),
    "What builds and runs images": (
        *("Dockerfile*", "*.Dockerfile", "docker", ".dockerignore", "compose*.y*ml", "docker-compose*.y*ml"),
    ),
}


def ignored_patterns(folder: Path) -> dict[str, tuple[str, ...]]:
    """The patterns for the project in this folder, with what they are about. Its own packages are none of them."""
    return {
        about: tuple(one for one in patterns if not (folder / one / "__init__.py").is_file())
        for about, patterns in _PATTERNS.items()
    }


def is_ignored(path: str, patterns: Mapping[str, Iterable[str]]) -> bool:
    """Whether a pattern names this path below the project itself; its folders are to be asked about before."""
    name = posixpath.basename(path)
    return any(
        fnmatchcase(name, one.removeprefix("**/")) if one.startswith("**/") else fnmatchcase(path, one) and name == path
        for group in patterns.values()
        for one in group
    )


def is_image(folder: Path) -> bool:
    """Whether a folder is an image as `oci:` writes it: what an earlier build made is no part of the next one."""
    return (folder / "oci-layout").is_file()
