"""`deadweight split`: one service as two, the core and its inference."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deadweight.cli.common import cpu_sources, declared_target, dockerfile_choices, opened
from deadweight.cli.options import (
    Documents,
    json_option,
    platform_option,
    target_options,
    top_option,
    variant_options,
    weights_option,
)
from deadweight.cli.output import check_outputs, deliver, write_document
from deadweight.cli.progress import progress
from deadweight.errors import AnswerIsNo, UsageError, shown

if TYPE_CHECKING:
    from deadweight.binary.gpu import Target
    from deadweight.build.dockerfile import Choices
    from deadweight.build.split import Split
    from deadweight.files.cpu_wheel import Sources

COMPOSE = "compose.yaml"


@click.command("split")
@click.argument("project", metavar="[PROJECT|IMAGE]", default=".")
@click.option(
    "--by-extra",
    "extra",
    metavar="NAME",
    help="The extra with what only inference needs.  [default: the one that is not for developers]",
)
@click.option(
    "--by",
    multiple=True,
    metavar="DIST,...",
    help="Of an image: distributions that only inference needs.  [default: an extra, or known frameworks]",
)
@click.option("-o", "--output", metavar="DIR", help="Where to write the files.  [default: nothing is written]")
@click.option("--check", is_flag=True, help="Look at the imports alone: write nothing.")
@click.option("--base", metavar="IMAGE", help="What both begin with.  [default: python:X.Y-slim-bookworm]")
@click.option("--extra", "more", multiple=True, metavar="NAME", help="An extra that both parts have.")
@click.option("--package", multiple=True, metavar="NAME", help="A Debian package that both need as well.")
@click.option("--no-package", multiple=True, metavar="NAME", help="A Debian package that they can do without.")
@target_options
@variant_options
@weights_option
@click.option("--entry", metavar="MODULE", help="The module that the core's server imports.  [default: found]")
@click.option(
    "--url-variable",
    metavar="NAME",
    help="The variable by which the core finds the inference service.  [default: found]",
)
@click.option("-f", "--force", is_flag=True, help="Replace files that are there, and write though imports are wrong.")
@json_option
@top_option
@platform_option
def split_command(
    project: str,
    extra: str | None,
    by: tuple[str, ...],
    output: str | None,
    check: bool,
    base: str | None,
    more: tuple[str, ...],
    package: tuple[str, ...],
    no_package: tuple[str, ...],
    variant: str | None,
    find_links: tuple[str, ...],
    index_url: str | None,
    weights: str | None,
    entry: str | None,
    url_variable: str | None,
    force: bool,
    documents: Documents,
    top: int,
    platform: str | None,
    **target: Any,
) -> None:
    """Split the service of the Python project in PROJECT in two: a core without models, and its inference.

    Both are the project: the core without the extra, the other with it. In DIR are written api-core.Dockerfile,
    ml-inference.Dockerfile, a .dockerignore for each, and compose.yaml, which starts both, with health checks.

    Before that the core's imports are followed, from the module that its server imports on: it must not import what
    only the extra brings, except in functions that are called later, or in a `try` that does without. Each such place
    is named. Nothing of the project is run. Exit status 1: the core does import it.

    Of an IMAGE it says which distributions only inference needs, which the core needs and which both, with their bytes,
    what the core would come to, and whether the application in it would start without the others.

    \b
    Examples:
      deadweight split --by-extra ml --check
      deadweight split service --by-extra ml -o service/docker
      deadweight split --by-extra ml -o docker --gpu h100 --force
      deadweight split image.tar --by torch,transformers
    """
    from deadweight.build.split import check_split, read_split  # noqa: PLC0415
    from deadweight.report.split import print_split, split_report  # noqa: PLC0415

    if _is_image(project):
        if output is not None:
            raise UsageError("files are written of a project: for an image leave out --output")
        names = [name.strip() for each in by for name in each.split(",") if name.strip()]
        _split_image(project, names, extra, entry, documents, top, platform)
        return
    if by:
        raise UsageError("--by is for images: of a project say --by-extra")
    check_outputs(documents.values(), [])
    if check and output is not None:
        raise UsageError("--check writes nothing: leave out --output")
    wanted = declared_target(**target)
    sources = cpu_sources(variant, find_links, index_url, target["gpu"])
    folder = Path(project)
    split = read_split(folder, _extra(folder, extra), more=more, entry=entry, variable=url_variable)
    found = check_split(split)
    files: list[str] = []
    notes: list[str] = []
    if output is not None and (found.proved or force):
        choices = _choices(split, wanted, sources, base, package, no_package, weights)
        files = _write(split, Path(output), choices, gpu=wanted is not None and bool(wanted.gpus), force=force)
        if not split.variable:
            notes.append("compose.yaml does not tell the core where the inference service is: see --url-variable")
    report = split_report(split, found, files, notes)
    deliver(report, documents, lambda console: print_split(console, report))
    if not found.proved:
        places = [f"{one.path}:{one.line} ({one.imported})" for one in found.wrong] or list(found.unread)
        written = "" if output is None or force else "; nothing was written"
        raise AnswerIsNo(f"the core imports what only the extra {split.extra} brings: {', '.join(places[:5])}{written}")


def _is_image(text: str) -> bool:
    """Whether it names an image, and no project."""
    folder = Path(text)
    if "\0" in text or not folder.is_dir():
        return True
    return (folder / "oci-layout").exists() or (folder / "index.json").exists()


def _split_image(
    image: str,
    names: list[str],
    extra: str | None,
    entry: str | None,
    documents: Documents,
    top: int,
    platform: str | None,
) -> None:
    from deadweight.application.image_split import split_image  # noqa: PLC0415
    from deadweight.ledger.ledger import Ledger  # noqa: PLC0415
    from deadweight.report.split import image_split_report, print_image_split  # noqa: PLC0415

    if names and extra is not None:
        raise UsageError("--by and --by-extra exclude each other")
    check_outputs(documents.values(), [image])
    with progress(f"reading {image}") as report, opened(image, platform, report) as source:
        if report is not None:
            report("accounting", 0, 0)
        found = split_image(Ledger(source), names, extra, entry)
    document = image_split_report(image, found)
    deliver(document, documents, lambda console: print_image_split(console, document, top))
    if found.check is not None and not found.check.proved:
        places = [f"{one.path}:{one.line} ({one.imported})" for one in found.check.wrong] or list(found.check.unread)
        raise AnswerIsNo(f"the core imports what only inference needs: {shown(', '.join(places[:5]), 500)[1:-1]}")


def _extra(folder: Path, asked: str | None) -> str:
    if asked is not None:
        return asked
    from deadweight.build.recipe import read_recipe  # noqa: PLC0415

    extras = read_recipe(folder).extras
    if len(extras) != 1:
        there = f"; there are: {', '.join(extras)}" if extras else ", and the project has none"
        raise UsageError(f"say by --by-extra which extra only inference needs{there}")
    return extras[0]


def _choices(
    split: Split,
    wanted: Target | None,
    sources: Sources | None,
    base: str | None,
    package: tuple[str, ...],
    no_package: tuple[str, ...],
    weights: str | None,
) -> Choices:
    """What both Dockerfiles have in common."""
    from deadweight.build.dockerfile import check_choices, runs_of  # noqa: PLC0415
    from deadweight.build.dockerfile_cpu import cpu_choice  # noqa: PLC0415

    image = base or f"python:{split.ml.python}-slim-bookworm"
    choices = dockerfile_choices(wanted, weights, image, package, no_package)
    check_choices(choices)
    if sources is not None:
        choices = replace(choices, cpu=cpu_choice(split.ml, sources, runs_of(split.ml, choices)))
    return choices


def _write(split: Split, place: Path, choices: Choices, *, gpu: bool, force: bool) -> list[str]:
    """Writes all files, or none: gives their names."""
    from deadweight.build.compose import compose_file  # noqa: PLC0415
    from deadweight.build.dockerfile import render  # noqa: PLC0415
    from deadweight.build.dockerignore import dockerignore  # noqa: PLC0415
    from deadweight.build.split import CORE, ML  # noqa: PLC0415

    texts: dict[str, str] = {}
    for name, recipe in ((CORE, split.core), (ML, split.ml)):
        file = f"{name}.Dockerfile"
        below = os.path.relpath(os.path.realpath(place / file), os.path.realpath(recipe.folder))
        mine = replace(choices, part=name, file=below)
        if name == CORE:  # it has no models, and nothing that is built for GPUs
            mine = replace(mine, gpu="", cpu=None, weights="", deadweight=f"deadweight=={version('deadweight')}")
        texts[file] = render(recipe, mine)
        texts[f"{file}.dockerignore"] = dockerignore(recipe)
    texts[COMPOSE] = compose_file(split, place, gpu=gpu, file=COMPOSE)
    for name in texts:
        if not force and os.path.lexists(place / name):
            raise UsageError(f"{shown(str(place / name))} is there already: name another folder, or replace by --force")
    place.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_document(str(place / name), text.encode())
    return [str(place / name) for name in texts]
