"""Projects to build images of, and a base to build them on."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.images import FixtureImage, directory, file, make_image, make_tar, write_oci
from support.mini import ENV, base_layer
from support.schemas import checked

DEADWEIGHT = Path(sys.executable).parent / "deadweight"
UV = Path(sys.executable).parent / "uv"
CACHE = Path(__file__).parents[2] / "build/test-build"
"""What builds of real bases share, from one run of the tests to the next."""

PYPROJECT = """\
[build-system]
requires = ["{backend}"]
build-backend = "{module}"

[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["starlette", "uvicorn", "markupsafe"]

[project.optional-dependencies]
more = ["greenlet"]
dev = ["iniconfig"]

[project.scripts]
{name} = "{name}.main:say"
"""
MAIN = """\
import os

import markupsafe._speedups
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


def health(request):
    return JSONResponse({"status": "ok", "uid": os.getuid(), "folder": os.getcwd()})


def say():
    print("said by", os.getuid())


app = Starlette(routes=[Route("/health", health)])
"""


def project(folder: Path, name: str = "svc", *, setuptools: bool = False) -> Path:
    """A small service with a compiled dependency, an extra with headers, and files that it reads when it runs."""
    backend, module = ("setuptools", "setuptools.build_meta") if setuptools else ("hatchling", "hatchling.build")
    (folder / "src" / name).mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT.format(name=name, backend=backend, module=module))
    (folder / "src" / name / "__init__.py").touch()
    (folder / "src" / name / "main.py").write_text(MAIN)
    (folder / "templates").mkdir()
    (folder / "templates" / "page.html").write_text("<p>\n")
    return folder


def lock(folder: Path, *words: str) -> None:
    """Locks the project: `requirements.txt` with hashes."""
    command = ["pip", "compile", "-q", "--universal", "--generate-hashes", "--no-emit-index-url", "--python-version"]
    uv(folder, *command, "3.11", "pyproject.toml", *words, "-o", "requirements.txt")


def uv(folder: Path, *words: str) -> None:
    """Runs uv in a folder."""
    subprocess.run([UV, *words], cwd=folder, check=True, capture_output=True)


def base(version: str = "") -> FixtureImage:
    """This machine's Python and shell; with a `version`, one that cannot run and says to be of that."""
    users = make_tar(
        file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        file("etc/group", b"root:x:0:\n"),
        file("etc/shadow", b"root:*:19000:0:99999:7:::\n", mode=0o640, gid=42),
        directory("opt"),
    )
    if not version:
        return make_image(base_layer(), users, run={"Env": ENV, "Entrypoint": ["/bin/sh"]})
    python = make_tar(
        file("usr/bin/python3", b"\x7fELF", mode=0o755),
        file(f"usr/bin/python{version}", b"\x7fELF", mode=0o755),
        file(f"usr/lib/python{version}/os.py"),
        file("lib64/libc.so.6", b"GNU C Library (x) stable release version 2.31."),
    )
    return make_image(python, users)


def write_base(folder: Path, version: str = "") -> str:
    """The reference of a base as an OCI layout."""
    return f"oci:{write_oci(folder, base(version))}"


def build(
    folder: Path, base: str, to: str, *words: str, environment: Mapping[str, str] | None = None, status: int = 0
) -> dict[str, Any]:
    """Builds; gives the report, or the message as `error`."""
    command = [DEADWEIGHT, "build", folder, "--base", base, "--to", to, "--json", "-", *words]
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=variables)
    assert done.returncode == status, done.stderr[-3000:]
    return {"error": done.stderr} if status else checked(json.loads(done.stdout))


def diff_ids(report: Mapping[str, Any]) -> list[str]:
    """Of all layers, in order."""
    return [layer["diff_id"] for layer in report["layers"]]


@contextmanager
def shared_cache() -> Iterator[Path]:
    """The cache that builds of real bases share, for one of them at a time: whoever waits finds the base made."""
    CACHE.parent.mkdir(exist_ok=True)
    # Beside it: a cache takes no folder in which something else lies.
    with CACHE.with_suffix(".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield CACHE
