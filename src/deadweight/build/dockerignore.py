"""What of a project no stage reads: a .dockerignore."""

from __future__ import annotations

import json

from deadweight.build.pyproject import read_toml, table
from deadweight.build.recipe import Recipe

_ALWAYS = {
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
_UNLESS_NAMED = ("bench", "docs", "notebooks", "tests")
"""Folders that no service needs, unless the build is told of them: as the place of the README, say."""
_BACKENDS = ("flit", "hatch", "maturin", "pdm", "poetry", "scikit-build", "setuptools", "uv")


def dockerignore(recipe: Recipe) -> str:
    """The lines of a .dockerignore. A change of what it names makes no stage anew."""
    document = read_toml(recipe.folder, "pyproject.toml")
    told = json.dumps([document.get("project"), *(table(document, "tool", name) for name in _BACKENDS)], default=str)
    parts = dict(_ALWAYS)
    folders = [
        name
        for name in _UNLESS_NAMED
        if (recipe.folder / name).is_dir() and f"{name}/" not in told and f'"{name}"' not in told
    ]
    if folders:
        parts["What the service does without"] = tuple(folders)
    about = f"# What no stage of the image of {recipe.name} reads. `deadweight dockerfile` wrote this."
    return "\n\n".join([about, *("\n".join([f"# {title}", *lines]) for title, lines in parts.items())]) + "\n"
