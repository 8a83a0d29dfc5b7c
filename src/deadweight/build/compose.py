"""The compose file of a project in two parts. Reference: https://docs.docker.com/reference/compose-file/."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from deadweight.build.recipe import Recipe
from deadweight.build.running import INTERVAL, RETRIES, START_PERIOD, TIMEOUT, health_words
from deadweight.build.split import CORE, ML, Split

PLACE = "/tmp"  # noqa: S108  (in a container of its own)
"""The one folder that the containers can write: in memory, and gone with them."""
_FIRST_INTERVAL = 5
"""Seconds between checks while a service starts: others wait for it."""


def compose_file(split: Split, folder: Path, *, gpu: bool, file: str = "compose.yaml") -> str:
    """The text of the file; `folder` is where it and the Dockerfiles lie, `gpu` whether inference is to have GPUs."""
    context = os.path.relpath(folder.resolve(), split.core.folder.resolve())
    up = os.path.relpath(split.core.folder.resolve(), folder.resolve())
    lines = [
        f"# {split.core.name} as two services. `deadweight split` wrote this; from here on it is yours.",
        "#",
        f"#   docker compose -f {file if context == '.' else f'{context}/{file}'} up --build",
        "#",
        f"# {CORE} serves the API, and is all that others reach; {ML} has the models, and answers {CORE} alone.",
        "",
        f"name: {split.core.name}",
        "",
        "services:",
    ]
    for name, recipe in ((CORE, split.core), (ML, split.ml)):
        lines += [f"  {line}".rstrip() for line in _service(split, name, recipe, up, context, gpu and name == ML)]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _service(split: Split, name: str, recipe: Recipe, up: str, context: str, gpu: bool) -> Iterator[str]:
    yield f"{name}:"
    yield from _indented(_body(split, name, recipe, up, context, gpu))


def _body(split: Split, name: str, recipe: Recipe, up: str, context: str, gpu: bool) -> Iterator[str]:
    port = recipe.port
    dockerfile = f"{name}.Dockerfile" if context == "." else f"{context}/{name}.Dockerfile"
    yield "build:"
    yield from _indented([f"context: {json.dumps(up)}", f"dockerfile: {json.dumps(dockerfile)}"])
    yield f"image: {split.core.name}:{name}"
    environment = dict(_environment(split, name))
    if environment:
        yield "environment:"
        yield from _indented(f"{key}: {value}" for key, value in environment.items())
    if name == CORE and port is not None:
        yield "ports:"
        yield from _indented([f'- "127.0.0.1:{port}:{port}"'])
    if name == CORE:
        yield "depends_on:"
        yield from _indented([f"{ML}:", "  condition: service_healthy"])
    if port is not None and recipe.command:
        yield "healthcheck:"
        test = json.dumps(["CMD", *health_words(recipe, port, curl=False)])
        times = [f"interval: {INTERVAL}s", f"timeout: {TIMEOUT}s", f"retries: {RETRIES}"]
        start = [f"start_period: {START_PERIOD}s", f"start_interval: {_FIRST_INTERVAL}s"]
        yield from _indented([f"test: {test}", *times, *start])
    yield "read_only: true"
    yield f"tmpfs: [{PLACE}]"
    yield "cap_drop: [ALL]"
    yield 'security_opt: ["no-new-privileges:true"]'
    if gpu:
        yield "deploy:"
        devices = ["resources:", "  reservations:", "    devices:", "      - driver: nvidia", "        count: 1"]
        yield from _indented([*devices, "        capabilities: [gpu]"])
    yield "restart: unless-stopped"


def _environment(split: Split, name: str) -> Iterator[tuple[str, str]]:
    if name == CORE and split.variable:
        yield split.variable, f"http://{ML}:{split.ml.port}"
    for one in split.databases:
        kept = f"sqlite:///{PLACE}/{split.core.name}.db"
        if name == CORE:  # for a try: it is gone with the container
            yield one.variable, f"${{{one.variable}:-{kept}}} # gone with the container: name a database to keep it"
        else:
            yield one.variable, f"{kept} # inference stores nothing"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
