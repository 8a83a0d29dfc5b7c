"""The rows of `make bench`, in four groups: an archive, a change of code, a registry, an engine.

Each group leaves nothing behind, so that the disk holds one at a time.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench_kit import DEADWEIGHT, PEERS, Bench, change_code, unpack_layout
from phase_engine import dockerd, registry

NAME: Final = "factcheck-demo"
GZIP: Final = ("--compression", "gzip")
"""As skopeo and Docker's engine compress what they push."""


def archive(bench: Bench) -> None:
    """Reading and slimming a docker-archive, beside every byte read once and hashed, and beside who else reads it."""
    if not bench.wants("floor", "inspect", "dive", "syft", "plan", "slim"):
        return
    source = f"docker-archive:{bench.image}"
    slim = bench.work / "slim.tar"
    floor = ["openssl", "dgst", "-sha256", str(bench.image)]
    subprocess.run(floor, check=True, capture_output=True)  # what can be in memory is
    rows: list[tuple[str, str, list[str]]] = [
        ("floor", "openssl dgst -sha256: every byte read and hashed", floor),
        ("inspect", "deadweight inspect", [DEADWEIGHT, "inspect", source]),
        ("dive", "dive", _dive(bench)),
        ("syft", "syft", [str(PEERS / "syft"), source, "-o", f"json={bench.work}/syft"]),
        (
            "plan",
            f"deadweight plan {' '.join(bench.target)}".rstrip(),
            [DEADWEIGHT, "plan", source, *bench.target, "-o", str(bench.work / "plan.json")],
        ),
        (
            "slim",
            f"deadweight slim {' '.join(bench.target)}".rstrip(),
            [DEADWEIGHT, "slim", source, *bench.target, "--to", f"docker-archive:{slim}", "--force"],
        ),
    ]
    for name, label, command in rows:
        if bench.wants(name):
            bench.run(name, label, command)
    slim.unlink(missing_ok=True)


def _dive(bench: Bench) -> list[str]:
    return [str(PEERS / "dive"), "--source", "docker-archive", str(bench.image), "--json", str(bench.work / "dive")]


def layouts(bench: Bench) -> None:
    """From one OCI layout to another, and again after a change of code; then to a registry, beside skopeo."""
    pushes = ("push-skopeo", "push-skopeo-slim", "push", "push-slim", "slim-push", "slim-push-again")
    if not bench.wants("first", "again", *pushes):
        return
    with _folder(bench.work / "layouts") as folder:
        source, slim = folder / "source", folder / "slim"
        unpack_layout(bench.image, source)
        changed = [f"changed-{number}" for number in range(3)]
        for tag in changed:
            change_code(source, tag, f"\n# A change of code, {tag}.\n")
        change_code(source, "changed-again", "\n# Another one.\n")
        slims = [DEADWEIGHT, "slim", *bench.target]
        first = [*slims, f"oci:{source}:original", "--to", f"oci:{slim}:original"]
        again = [[*slims, f"oci:{source}:{tag}", "--to", f"oci:{slim}:{tag}"] for tag in changed]
        bench.run("first", "deadweight slim, from oci: to oci:", first, runs=1)
        label = "deadweight slim, again after a change of code"
        bench.run("again", label, again[0], warm=True, likewise=again[1:])
        if bench.wants(*pushes):
            _pushes(bench, folder, source, slim)


def _pushes(bench: Bench, folder: Path, source: Path, slim: Path) -> None:
    """Pushes into an empty registry each, but for the last, which is a push after a change."""
    for name, what, layout in (("", "the original", source), ("-slim", "the slim image", slim)):
        reference = f"oci:{layout}:original"
        if bench.wants(f"push-skopeo{name}"):
            with _registry(folder) as (host, data):
                copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", reference, f"docker://{host}/{NAME}:1"]
                bench.run(f"push-skopeo{name}", f"skopeo copy, {what} to a registry", copy, registry=data, runs=1)
        if bench.wants(f"push{name}"):
            plan = str(_empty_plan(bench, reference))
            with _registry(folder) as (host, data):
                copy = [DEADWEIGHT, "apply", plan, "--from", reference, "--to", f"docker://{host}/{NAME}:1", *GZIP]
                label = f"deadweight apply, {what} as it is to a registry"
                bench.run(f"push{name}", label, copy, registry=data, runs=1)
    if not bench.wants("slim-push", "slim-push-again"):
        return
    with _registry(folder) as (host, data):
        to = ["--to", f"docker://{host}/{NAME}:1", *GZIP]
        command = [DEADWEIGHT, "slim", *bench.target, f"oci:{source}:original", *to]
        bench.run("slim-push", "deadweight slim, from oci: to a registry", command, registry=data, runs=1)
        to[1] += "-changed"
        command = [DEADWEIGHT, "slim", *bench.target, f"oci:{source}:changed-again", *to]
        label = "deadweight slim, to the registry again after a change of code"
        bench.run("slim-push-again", label, command, registry=data, runs=1, warm=True)


def _empty_plan(bench: Bench, reference: str) -> Path:
    """A plan by which nothing leaves, so that applying it moves an image as it is."""
    path = bench.work / "nothing.json"
    command = [DEADWEIGHT, "plan", reference, "--risk", "lossless", "-o", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    plan = json.loads(path.read_text())
    path.write_text(json.dumps({**plan, "cuts": []}))
    return path


def engine(bench: Bench) -> None:
    """From an engine into the same engine, beside its own save and load; and its own pushes."""
    names = ("save", "save-load", "engine-slim", "push-docker", "push-docker-slim")
    if not bench.wants(*names):
        return
    with _folder(bench.work / "engine") as folder, dockerd(folder) as client:
        docker = list(client)
        env = {"DOCKER_HOST": docker[-1], "DOCKER_CONFIG": str(folder)}
        loaded = subprocess.run([*docker, "load", "-i", str(bench.image)], check=True, capture_output=True, text=True)
        image = loaded.stdout.strip().splitlines()[-1].rpartition(": ")[2]
        saved = folder / "saved.tar"
        bench.run("save", "docker save", [*docker, "save", "-o", str(saved), image], env=env, runs=1)
        saved.unlink()
        pipe = f"set -o pipefail; {shlex.join([*docker, 'save', image])} | {shlex.join([*docker, 'load', '-q'])}"
        bench.run("save-load", "docker save | docker load", ["bash", "-c", pipe], env=env, runs=1)
        command = [DEADWEIGHT, "slim", image, *bench.target, "--tag", f"{NAME}:slim"]
        bench.run("engine-slim", "deadweight slim, from the engine and back into it", command, env=env, runs=1)
        if bench.wants("push-docker", "push-docker-slim"):
            for name, what, one in (("", "the original", image), ("-slim", "the slim image", f"{NAME}:slim")):
                with _registry(folder) as (host, data):
                    subprocess.run([*docker, "tag", one, f"{host}/{NAME}:1"], check=True)
                    push = [*docker, "push", "-q", f"{host}/{NAME}:1"]
                    label = f"docker push, {what} to a registry"
                    bench.run(f"push-docker{name}", label, push, env=env, registry=data, runs=1)


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """A new folder, which is gone afterwards."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def _registry(folder: Path) -> Iterator[tuple[str, Path]]:
    """An empty registry: its HOST:PORT, and where its blobs are."""
    with _folder(folder / "registry") as place, registry(place) as host:
        yield host, place / "registry"


GROUPS: Final[tuple[Callable[[Bench], None], ...]] = (archive, layouts, engine)
