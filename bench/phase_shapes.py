"""The shapes of the reference service's image, and how each is built, changed, and pushed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phase_engine import ROOT, SUITE, Engine

from deadweight import open_image

SERVICE = ROOT / "examples/truthgraph"
DEADWEIGHT = Path(sys.executable).parent / "deadweight"
GPU = ["--gpu", "sm_90", "--drop-ptx"]
CHANGED = "src/truthgraph/main.py"


@dataclass
class Bench:
    """What shapes are built with."""

    engine: Engine
    work: Path
    log: Path

    @property
    def context(self) -> Path:
        """The project, as a clone has it."""
        return self.work / "context"

    def fresh_context(self) -> None:
        """The project's files as git knows them, new ones included."""
        shutil.rmtree(self.context, ignore_errors=True)
        words = ["git", "ls-files", "-co", "--exclude-standard", "-z", "."]
        names = subprocess.run(words, cwd=SERVICE, check=True, capture_output=True).stdout.decode().split("\0")
        for name in filter(None, names):
            target = self.context / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(SERVICE / name, target)

    def change(self) -> None:
        """A change of code, as small as they come."""
        with (self.context / CHANGED).open("a") as file:
            file.write(f"# changed {time.time_ns()}\n")

    def deadweight(self, *words: str) -> None:
        """Runs the tool. Raises CalledProcessError; the log has what it said."""
        with self.log.open("ab") as log:
            subprocess.run([str(DEADWEIGHT), *words], check=True, stdout=log, stderr=log, env=_environment(self.work))

    def push(self, reference: str, name: str) -> None:
        """Copies an image into the registry: skopeo compresses by gzip, as docker push does, but by all cores."""
        target = f"docker://{self.engine.registry}/truthgraph:{name}"
        words = ["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", reference, target]
        with self.log.open("ab") as log:
            subprocess.run(words, check=True, stdout=log, stderr=log)


def _environment(work: Path) -> dict[str, str]:
    return {**os.environ, "UV_CACHE_DIR": str(work / "uv-cache"), "TMPDIR": str(work / "tmp")}


@dataclass(frozen=True)
class Shape:
    """One shape of the image."""

    name: str
    build: Callable[[Bench], None]
    """Builds it from `Bench.context`, and again after a change, with what caches there are."""
    diff_ids: Callable[[Bench], list[str]]
    """Of the layers, in order, of what was built last."""
    archive: Callable[[Bench], str]
    """A reference to the image, as deadweight takes them."""
    clean: Callable[[Bench], None]
    """Removes it, and everything that made it."""
    needs: tuple[str, ...] = field(default=())
    """Shapes whose archives it begins with."""


def _docker(name: str, dockerfile: Callable[[Bench], Path], *words: str) -> Shape:
    tag = f"truthgraph:{name}"
    archive = f"{name}.tar"

    def build(bench: Bench) -> None:
        extra = [word.replace("WHEEL", bench.engine.wheel) for word in words]
        command = ["build", "--network", "host", "--file", str(dockerfile(bench)), "--tag", tag, *extra]
        bench.engine.run(*command, str(bench.context))

    def diff_ids(bench: Bench) -> list[str]:
        found: list[str] = json.loads(bench.engine.run("image", "inspect", "--format", "{{json .RootFS.Layers}}", tag))
        return found

    def save(bench: Bench) -> str:
        bench.engine.run("save", "--output", str(bench.work / archive), tag)
        return f"docker-archive:{bench.work / archive}"

    def clean(bench: Bench) -> None:
        bench.engine.run("image", "prune", "--force")
        subprocess.run([*bench.engine.docker, "rmi", "--force", tag], check=False, capture_output=True)
        bench.engine.run("image", "prune", "--force")
        bench.engine.run("builder", "prune", "--all", "--force")

    return Shape(name, build, diff_ids, save, clean)


def _phase(name: str) -> Shape:
    return _docker(name, lambda bench: bench.context / f"docker/phases/{name}.Dockerfile")


def _generated(bench: Bench) -> Path:
    path = bench.work / "generated.Dockerfile"
    for old in (path, path.with_name(f"{path.name}.dockerignore")):
        old.unlink(missing_ok=True)
    bench.deadweight("dockerfile", str(bench.context), "--base", f"debian:{SUITE}", *GPU, "-o", str(path))
    return path


def _slim() -> Shape:
    def build(bench: Bench) -> None:
        source = bench.work / "phase-2.tar"
        to = f"docker-archive:{bench.work / 'slim.tar'}:truthgraph:slim"
        bench.deadweight("slim", f"docker-archive:{source}", "--to", to, *GPU, "--force")

    def clean(bench: Bench) -> None:
        for name in ("slim.tar", "phase-2.tar"):
            (bench.work / name).unlink(missing_ok=True)

    def place(bench: Bench) -> str:
        return f"docker-archive:{bench.work / 'slim.tar'}"

    return Shape("deadweight-slim", build, lambda bench: layers(place(bench)), place, clean, ("phase-2",))


def _built() -> Shape:
    def place(bench: Bench) -> str:
        return f"oci:{bench.work / 'built'}:latest"

    def build(bench: Bench) -> None:
        cache = ["--cache", str(bench.work / "build-cache")]
        bench.deadweight("build", str(bench.context), "--base", f"debian:{SUITE}", "--to", place(bench), *GPU, *cache)

    def clean(bench: Bench) -> None:
        for name in ("built", "build-cache", "uv-cache"):
            shutil.rmtree(bench.work / name, ignore_errors=True)

    return Shape("deadweight-build", build, lambda bench: layers(place(bench)), place, clean)


def shapes() -> dict[str, Shape]:
    """All of them, in the order in which they are built: slim begins with what phase-2 leaves."""
    arguments = ["--build-arg", "DEADWEIGHT=deadweight @ WHEEL"]
    found = [_phase("original"), _phase("phase-2"), _slim(), _phase("phase-2-as-claimed"), _built()]
    found += [_docker("deadweight-dockerfile", _generated, *arguments), _phase("phase-1")]
    return {shape.name: shape for shape in found}


def layers(reference: str) -> list[str]:
    """The diff-ids of an image."""
    with open_image(reference) as image:
        return [layer.diff_id for layer in image.layers]


def inspected(reference: str) -> dict[str, Any]:
    """What `deadweight inspect` says of an image."""
    done = subprocess.run([str(DEADWEIGHT), "inspect", reference, "--json", "-"], check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
