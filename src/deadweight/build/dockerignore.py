"""What of a project no stage reads: a .dockerignore."""

from __future__ import annotations

from deadweight.build.pyproject import read_inside
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
        *("**/.venv", "venv", "env", "**/node_modules", "**/__pycache__", "**/*.py[cod]", "**/.DS_Store", ".coverage*"),
    ),
    "What was built": ("build", "dist", "**/*.egg-info", "**/*.whl", "**/*.tar", "**/*.log"),
    "Secrets": ("**/.env", "**/.env.*", "**/*.pem", "**/*.key", "**/.netrc", "**/.pypirc"),
    "What builds and runs images": (
        *("**/Dockerfile*", "**/*.Dockerfile", "**/*.dockerignore", ".dockerignore", "**/compose*.y*ml"),
        "**/docker-compose*.y*ml",
    ),
}
_UNLESS_NAMED = ("bench", "docs", "notebooks", "tests")
"""Folders that no service needs, unless pyproject.toml names them: as the place of its README, say."""


def dockerignore(recipe: Recipe) -> str:
    """The lines of a .dockerignore. A change of what it names makes no stage anew."""
    named = (read_inside(recipe.folder, "pyproject.toml") or b"").decode("utf-8", "replace")
    parts = dict(_ALWAYS)
    folders = [
        name
        for name in _UNLESS_NAMED
        if (recipe.folder / name).is_dir() and f"{name}/" not in named and f'"{name}"' not in named
    ]
    if folders:
        parts["What the service does without"] = tuple(folders)
    about = f"# What no stage of the image of {recipe.name} reads. `deadweight dockerfile` wrote this."
    return "\n\n".join([about, *("\n".join([f"# {title}", *lines]) for title, lines in parts.items())]) + "\n"
