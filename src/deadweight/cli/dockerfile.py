"""`deadweight dockerfile`: a project's Dockerfile."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from deadweight.cli.common import cpu_sources, declared_target, dockerfile_choices
from deadweight.cli.options import target_options, together, variant_options, weights_option
from deadweight.cli.output import STANDARD, becomes_file, check_outputs, message, write_document
from deadweight.errors import UsageError, shown

ASK = "ask"
project_options = together(
    click.option("--base", metavar="IMAGE", help="What it begins with.  [default: python:X.Y-slim-bookworm]"),
    click.option(
        "--extra", "extras", multiple=True, metavar="NAME", help="An extra to install.  [default: all but developers']"
    ),
    click.option("--no-extras", is_flag=True, help="Install no extra."),
    click.option("--package", multiple=True, metavar="NAME", help="A Debian package that the service needs as well."),
    click.option("--no-package", multiple=True, metavar="NAME", help="A Debian package that it can do without."),
)


@click.command("dockerfile")
@click.argument("project", metavar="[PROJECT]", default=".")
@click.option(
    "-o", "--output", default=STANDARD, metavar="FILE|-", help="Where to write it.  [default: standard output]"
)
@click.option(
    "--dockerignore",
    "ignore_to",
    metavar="FILE|-",
    help="Where to write the .dockerignore.  [default: beside the Dockerfile that -o names, as BuildKit looks for it]",
)
@project_options
@target_options
@weights_option
@variant_options
@click.option(
    "--pin",
    is_flag=False,
    flag_value=ASK,
    metavar="[DIGEST]",
    help="Pin the base by its digest: one given as --pin=sha256:..., or what its registry (else docker) says.",
)
@click.option("-f", "--force", is_flag=True, help="Replace files that are there.")
def dockerfile_command(
    project: str,
    output: str,
    ignore_to: str | None,
    base: str | None,
    extras: tuple[str, ...],
    no_extras: bool,
    package: tuple[str, ...],
    no_package: tuple[str, ...],
    weights: str | None,
    variant: str | None,
    find_links: tuple[str, ...],
    index_url: str | None,
    pin: str | None,
    force: bool,
    **target: Any,
) -> None:
    """Print a Dockerfile for the Python project in a directory.

    From its pyproject.toml and lock (uv.lock, pylock.toml, or requirements files) come the stages base, builder,
    deps-stage, core-stage and runtime. The image has the dependencies in /opt/venv, pruned before they are copied, and
    last the application in /app: a change of code is one small layer. Nothing of the project is run.

    The Dockerfile takes INCLUDE_DEV, GPU and, where the project has extras, VARIANT=core as build arguments; with
    --variant cpu also VARIANT=cpu, which is then what is built where nobody says otherwise. It is a template: own it,
    and change it.

    \b
    Examples:
      deadweight dockerfile > Dockerfile
      deadweight dockerfile -o docker/api.Dockerfile --gpu h100 --pin
      deadweight dockerfile services/api --extra ml --package curl
      deadweight dockerfile --variant cpu --find-links wheels > Dockerfile
    """
    from deadweight.build.dockerfile import base_of, check_choices, render, runs_of  # noqa: PLC0415
    from deadweight.build.dockerfile_cpu import cpu_choice  # noqa: PLC0415
    from deadweight.build.dockerignore import dockerignore  # noqa: PLC0415
    from deadweight.build.pin import pinned  # noqa: PLC0415
    from deadweight.build.recipe import read_recipe  # noqa: PLC0415

    if extras and no_extras:
        raise UsageError("--extra and --no-extras exclude each other")
    for name in (output, ignore_to):
        if name is not None and becomes_file(name) and not force and os.path.lexists(name):
            raise UsageError(f"{shown(name)} is there already: name another file, or replace it by --force")
    named = becomes_file(output)
    if ignore_to is None and named:
        ignore_to = f"{output}.dockerignore"
        if not force and os.path.lexists(ignore_to):
            message(f"{ignore_to} is there already and stays")
            ignore_to = None
    check_outputs([output, ignore_to], [])
    wanted = declared_target(**target)
    recipe = read_recipe(Path(project), extras=() if no_extras else extras or None)
    common = dockerfile_choices(wanted, weights, base or "", package, no_package)
    choices = dataclasses.replace(common, file=_below(project, output) if named else "")
    check_choices(choices)
    sources = cpu_sources(variant, find_links, index_url, target["gpu"])
    if sources is not None:
        choices = dataclasses.replace(choices, cpu=cpu_choice(recipe, sources, runs_of(recipe, choices)))
    if pin is not None:
        image = pinned(base_of(recipe, choices), None if pin == ASK else pin)
        choices = dataclasses.replace(choices, base=image)
    text = render(recipe, choices)
    if ignore_to is not None:
        write_document(ignore_to, dockerignore(recipe).encode())
    write_document(output, text.encode())
    for note in recipe.notes:
        message(note)
    if not named and ignore_to is None and not (Path(project) / ".dockerignore").exists():
        message("there is no .dockerignore: --dockerignore FILE writes one")


def _below(project: str, output: str) -> str:
    """The name of the Dockerfile as `docker build -f` takes it in the project; empty where it lies elsewhere."""
    from deadweight.build.locks import SAFE_PATH  # noqa: PLC0415

    path = os.path.relpath(os.path.realpath(output), os.path.realpath(project))
    return path if SAFE_PATH.match(path) else ""
