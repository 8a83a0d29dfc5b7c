"""Python projects from a few words, for recipes and Dockerfiles."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

FASTAPI = """from fastapi import FastAPI
app = FastAPI()

@app.get("/health")
def health(): return {}
"""
FLASK = """from flask import Flask
app = Flask(__name__)

@app.route("/healthz")
def health(): return "ok"
"""
BUILD_SYSTEM = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'


def project(folder: Path, files: Mapping[str, str]) -> Path:
    """The folder, with these files in it."""
    for path, text in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return folder


def pyproject(
    name: str = "service",
    dependencies: str = "fastapi uvicorn",
    *,
    extras: Mapping[str, str] | None = None,
    more: str = "",
    build: str = BUILD_SYSTEM,
    requires_python: str = ">=3.11",
) -> str:
    """A pyproject.toml; requirements are words with spaces between."""
    lines = [f'{build}[project]\nname = "{name}"\nversion = "1.2"\nrequires-python = "{requires_python}"']
    lines.append(f"dependencies = {dependencies.split()!r}")
    if extras:
        lines.append("[project.optional-dependencies]")
        lines += [f"{extra} = {words.split()!r}" for extra, words in extras.items()]
    return "\n".join(lines) + f"\n{more}"


def requirements(names: str, *, hashes: bool = True, head: str = "") -> str:
    """A requirements file as `uv pip compile` writes it; names are words with spaces between."""
    lines = [head] if head else []
    for name in names.split():
        digest = hashlib.sha256(name.encode()).hexdigest()
        lines.append(f"{name}==1.0 \\\n    --hash=sha256:{digest}" if hashes else f"{name}==1.0")
        lines.append("    # via service")
    return "\n".join(lines) + "\n"
