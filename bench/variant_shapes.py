"""The variants of the reference service's image, and how each is made: phase-2 by Docker, all others by deadweight."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from phase_engine import SUITE, Engine
from phase_shapes import DEADWEIGHT, GPU, SERVICE

PLAIN = ["--compression", "none", "--force"]
"""One compressor makes all figures of compressed sizes: skopeo, afterwards."""
BASE = ["--base", f"debian:{SUITE}-minimal"]
"""Debian without documentation, translations, apt and dpkg: nothing is installed in these images later."""
TORCH = "2.13"
"""The version whose CPU build can be had as well; examples/truthgraph/variants has its lock."""


@dataclass(frozen=True)
class Workshop:
    """What variants are made with."""

    engine: Engine
    work: Path
    sources: Sequence[str]
    """--find-links and --index-url for the CPU build of torch; empty for what pip is configured to ask."""

    @property
    def context(self) -> Path:
        """The project, with the lock of the variants."""
        return self.work / "context"

    @property
    def log(self) -> Path:
        """What commands say."""
        return self.work / "deadweight.log"

    def fresh_context(self, lock: str) -> None:
        """Makes the project anew, with one of its locks."""
        shutil.rmtree(self.context, ignore_errors=True)
        runpy.run_path(str(SERVICE / "scripts/with_torch.py"))["copy"](lock, self.context)

    def deadweight(self, *words: str) -> None:
        """Runs the tool. Raises SystemExit with the end of what it said."""
        environment = {"UV_CACHE_DIR": str(self.work / "uv-cache"), **os.environ, "TMPDIR": str(self.work / "tmp")}
        with self.log.open("ab") as log:
            done = subprocess.run([str(DEADWEIGHT), *words], check=False, stdout=log, stderr=log, env=environment)
        if done.returncode:
            end = "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])
            raise SystemExit(f"variants: deadweight {' '.join(words)} exits with {done.returncode}:\n{end}")

    def layout(self, variant: str) -> Path:
        """The folder of a variant's images."""
        return self.work / "images" / variant

    def place(self, variant: str, tag: str) -> str:
        """Where deadweight puts an image."""
        return f"oci:{self.layout(variant)}:{tag}"


@dataclass(frozen=True)
class Variant:
    """One or more images that are made at once."""

    name: str
    command: str
    """For people."""
    make: Callable[[Workshop], None]
    images: tuple[str, ...] = ()
    """Names of the images, if they are several; the variant's own otherwise. The first is what clients ask."""

    @property
    def tags(self) -> tuple[str, ...]:
        """Of its images."""
        return self.images or (self.name,)


def original(shop: Workshop) -> str:
    """A reference to phase-2."""
    return f"docker-archive:{shop.work / 'phase-2.tar'}"


def _phase_2(shop: Workshop) -> None:
    tag = "truthgraph:phase-2"
    shop.fresh_context(TORCH)
    dockerfile = shop.context / "docker/phases/phase-2.Dockerfile"
    shop.engine.run("build", "--network", "host", "--file", str(dockerfile), "--tag", tag, str(shop.context))
    partial = shop.work / "phase-2.partial.tar"
    shop.engine.run("save", "--output", str(partial), tag)
    partial.rename(shop.work / "phase-2.tar")
    shop.engine.run("rmi", "--force", tag)
    shop.engine.run("builder", "prune", "--all", "--force")


def _slim(name: str, *words: str, swap: bool = False) -> Variant:
    def make(shop: Workshop) -> None:
        sources = shop.sources if swap else ()
        shop.deadweight("slim", original(shop), "--to", shop.place(name, name), *words, *sources, *PLAIN)

    return Variant(name, f"deadweight slim phase-2 {' '.join(words)}", make)


def _build(name: str, *words: str, images: tuple[str, ...] = (), swap: bool = False, lock: str = TORCH) -> Variant:
    def make(shop: Workshop) -> None:
        shop.fresh_context(lock)
        # The images of a split are tagged by their names.
        to = f"oci:{shop.layout(name)}" if images else shop.place(name, name)
        command = ["build", str(shop.context), *BASE, "--to", to, *words, *PLAIN]
        shop.deadweight(*command, "--cache", str(shop.work / "build-cache"), *(shop.sources if swap else ()))

    return Variant(name, f"deadweight build {' '.join([*BASE, *words])}", make, images)


def variants() -> dict[str, Variant]:
    """All of them, in the order of the page; phase-2 first, since others are made of it and compared with it."""
    found = [
        Variant("phase-2", "docker build -f docker/phases/phase-2.Dockerfile", _phase_2),
        _slim("sm_90", *GPU),
        _slim("cpu-slim", "--swap", "torch=cpu", swap=True),
        _build("cpu-build", "--variant", "cpu", "--slim", swap=True),
        _build("split", "--split", "ml", *GPU, "--raw-blobs", "--slim", images=("api-core", "ml-inference")),
        _slim("fp16", *GPU, "--weights", "fp16"),
        # transformers reads such weights by torchao, which phase-2 does not have.
        _build("int8", *GPU, "--weights", "int8", lock=f"{TORCH}-int8"),
    ]
    return {variant.name: variant for variant in found}
