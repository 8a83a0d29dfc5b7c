"""What of a project no stage reads: a .dockerignore."""

from __future__ import annotations

import json

from deadweight.application.files import read_toml, table
from deadweight.build.ignored import ignored_patterns
from deadweight.build.recipe import Recipe

_UNLESS_NAMED = ("bench", "docs", "notebooks", "tests")
"""Folders that no service needs, unless the build is told of them: as the place of the README, say."""
_BACKENDS = ("flit", "hatch", "maturin", "pdm", "poetry", "scikit-build", "setuptools", "uv")


def dockerignore(recipe: Recipe) -> str:
    """The lines of a .dockerignore. A change of what it names makes no stage anew."""
    document = read_toml(recipe.folder, "pyproject.toml")
    told = json.dumps([document.get("project"), *(table(document, "tool", name) for name in _BACKENDS)], default=str)
    parts = ignored_patterns(recipe.folder)
    folders = [
        name
        for name in _UNLESS_NAMED
        if (recipe.folder / name).is_dir() and f"{name}/" not in told and f'"{name}"' not in told
    ]
    if folders:
        parts["What the service does without"] = tuple(folders)
    about = f"# What no stage of the image of {recipe.name} reads. `deadweight dockerfile` wrote this."
    return "\n\n".join([about, *("\n".join([f"# {title}", *lines]) for title, lines in parts.items())]) + "\n"
