"""What a project directory shows of its application: pyproject.toml, a Dockerfile, and its Python sources.

Files are read and never run, and none outside the directory.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from deadweight.application.dockerfile import instructions
from deadweight.application.files import read_inside, read_toml, table
from deadweight.application.material import Material, Sources
from deadweight.application.servers import port_of, shlex_split, substitute
from deadweight.errors import BadInputError, shown
from deadweight.passes.application import is_test
from deadweight.passes.commands import SCRIPT_LIMIT

FILE_COUNT = 3000
_DOCKERFILES = ("Dockerfile", "Containerfile", "docker/Dockerfile", "deploy/Dockerfile")
_LEFT_OUT = frozenset({"venv", "node_modules", "build", "dist", "__pycache__", "site-packages"})
_REQUIREMENTS = "requirements.txt"

# Modules of distributions that are called otherwise than their module; all others are taken to be called alike.
MODULES = {
    "attrs": "attr",
    "beautifulsoup4": "bs4",
    "django-cors-headers": "corsheaders",
    "djangorestframework": "rest_framework",
    "faiss-cpu": "faiss",
    "faiss-gpu": "faiss",
    "flask-sqlalchemy": "flask_sqlalchemy",
    "gitpython": "git",
    "google-cloud-storage": "google.cloud.storage",
    "grpcio": "grpc",
    "llama-cpp-python": "llama_cpp",
    "mysqlclient": "MySQLdb",
    "opencv-contrib-python": "cv2",
    "opencv-contrib-python-headless": "cv2",
    "opencv-python": "cv2",
    "opencv-python-headless": "cv2",
    "opentelemetry-api": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry.sdk",
    "pillow": "PIL",
    "protobuf": "google.protobuf",
    "psycopg2-binary": "psycopg2",
    "pycryptodome": "Crypto",
    "pyjwt": "jwt",
    "pymupdf": "fitz",
    "pymysql": "pymysql",
    "pypdf2": "PyPDF2",
    "python-dateutil": "dateutil",
    "python-docx": "docx",
    "python-dotenv": "dotenv",
    "python-jose": "jose",
    "python-json-logger": "pythonjsonlogger",
    "python-magic": "magic",
    "python-multipart": "python_multipart",
    "pyyaml": "yaml",
    "pyzmq": "zmq",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "sentencepiece": "sentencepiece",
    "tensorflow-cpu": "tensorflow",
    "tensorflow-gpu": "tensorflow",
    "torch-geometric": "torch_geometric",
}


@dataclass
class Stage:
    """A Dockerfile's stage, as far as it says how the image runs."""

    entrypoint: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)
    check: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    ports: list[int] = field(default_factory=list)
    workdir: str = "/"


@dataclass(frozen=True)
class Project:
    """A project directory."""

    material: Material
    requirements: dict[str, str]
    """Modules to import, by the requirement that they are guessed from."""
    notes: list[str]
    """What could not be read, or was not there."""
    dockerfile: str = ""


def read_project(folder: Path) -> Project:
    """What a directory shows. Raises BadInputError for a pyproject.toml that is no TOML."""
    notes: list[str] = []
    document = read_toml(folder, "pyproject.toml", SCRIPT_LIMIT)
    name = next((one for one in _DOCKERFILES if _read(folder, one)), "")
    stage = Stage()
    try:
        stage = last_stage(_read(folder, name).decode("utf-8", "replace"))
    except BadInputError as error:
        notes.append(f"{name} was not read: {error}")
    if not name:
        notes.append("there is no Dockerfile")
    requirements = _requirements(folder, document, notes)
    return Project(_material(folder, stage, document), requirements, notes, name)


def _requirements(folder: Path, document: Mapping[str, Any], notes: list[str]) -> dict[str, str]:
    """The modules of what the project requires at run time, without conditions."""
    listed = table(document, "project").get("dependencies")
    lines = [line for line in listed if isinstance(line, str)] if isinstance(listed, list) else []
    lines += [name for name in table(document, "tool", "poetry", "dependencies") if name != "python"]
    if not lines:
        text = _read(folder, _REQUIREMENTS).decode("utf-8", "replace")
        lines = [line.partition(" #")[0].strip() for line in text.splitlines()]
        lines = [line.partition(" --hash")[0].rstrip("\\ ") for line in lines if line and line[0] not in "#-"]
    if not lines:
        notes.append(f"neither pyproject.toml nor {_REQUIREMENTS} says what is required")
    found = {}
    for line in lines:
        try:
            requirement = Requirement(line)
        except (InvalidRequirement, RecursionError):
            notes.append(f"{shown(line)} is no requirement: passed over")
            continue
        if requirement.marker is not None:
            notes.append(f"{shown(line)} is required on a condition: passed over")
            continue
        name = str(canonicalize_name(requirement.name))
        found[MODULES.get(name, name.replace("-", "_"))] = requirement.name
    return found


def _material(folder: Path, stage: Stage, document: Mapping[str, Any]) -> Material:
    workdir = stage.workdir.strip("/")

    def read(path: str) -> bytes:
        # What is copied to the working directory is the project, for nearly all.
        inside = path.removeprefix(f"{workdir}/") if workdir else path
        return _read(folder, inside) or _read(folder, path)

    def scripts(words: Sequence[str]) -> Iterator[tuple[str, str]]:
        for word in words:
            if word.endswith(".sh") or posixpath.basename(word).startswith(
                ("entrypoint", "docker-entrypoint", "start")
            ):
                for place in (word.strip("/"), posixpath.basename(word), f"docker/{posixpath.basename(word)}"):
                    data = read(posixpath.normpath(place))
                    if data:
                        yield place, data.decode("utf-8", "replace")
                        break

    console = {
        name: value.partition(":")[0]
        for name, value in table(document, "project", "scripts").items()
        if isinstance(value, str)
    }
    # src first: the module of src/app/main.py is app.main.
    files = Sources(python_files(folder), read, ["src", ""] if (folder / "src").is_dir() else [""])
    argv = [*stage.entrypoint, *stage.cmd]
    return Material(argv, stage.check, stage.environment, stage.ports, files, scripts, console)


def python_files(folder: Path) -> list[str]:
    """The project's Python files, tests and environments left out, as paths below it; links are not followed."""
    found: list[str] = []
    for place, folders, names in os.walk(folder):
        here = Path(place).relative_to(folder)
        folders[:] = sorted(
            name
            for name in folders
            if name not in _LEFT_OUT and name[0] != "." and not (Path(place, name) / "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            path = (here / name).as_posix()
            if name.endswith(".py") and not is_test(path) and not Path(place, name).is_symlink():
                found.append(path)
        if len(found) >= FILE_COUNT:
            break
    return found[:FILE_COUNT]


def _read(folder: Path, path: str) -> bytes:
    """A file of the project; empty where there is none in it, or too much."""
    return read_inside(folder, path, SCRIPT_LIMIT) or b""


def last_stage(text: str) -> Stage:
    """What a Dockerfile's last stage says, with what it has from the stages that it begins with.

    Raises BadInputError, with the line, for a heredoc that does not end.
    """
    stages: dict[str, Stage] = {}
    stage = Stage()
    for one in instructions(text):
        name, rest = one.name, one.text
        if name == "FROM":
            words = rest.split()
            base = stages.get(words[0].lower(), Stage()) if words else Stage()
            stage = Stage(
                list(base.entrypoint),
                list(base.cmd),
                list(base.check),
                dict(base.environment),
                list(base.ports),
                base.workdir,
            )
            if len(words) >= 3 and words[1].upper() == "AS":
                stages[words[2].lower()] = stage
        elif name == "ENTRYPOINT":
            stage.entrypoint, stage.cmd = _command(rest), []
        elif name == "CMD":
            stage.cmd = _command(rest)
        elif name == "HEALTHCHECK":
            _, found, command = rest.partition("CMD")
            stage.check = [substitute(word, stage.environment) for word in _command(command.strip())] if found else []
        elif name == "ENV":
            stage.environment.update(_env(rest))
        elif name == "EXPOSE":
            stage.ports += [port for word in rest.split() if (port := port_of(word.partition("/")[0])) is not None]
        elif name == "WORKDIR":
            stage.workdir = posixpath.normpath(posixpath.join(stage.workdir, rest.strip().strip("\"'")))
    return stage


def _command(text: str) -> list[str]:
    """The words of the exec form; the shell's own for the shell form."""
    if text.startswith("["):
        try:
            words = json.loads(text)
        except (ValueError, RecursionError):
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
    return ["/bin/sh", "-c", text] if text else []


def _env(text: str) -> dict[str, str]:
    words = shlex_split(text)
    if words and "=" not in words[0]:
        return {words[0]: " ".join(words[1:])}
    return {name: value for name, equals, value in (word.partition("=") for word in words) if equals}
