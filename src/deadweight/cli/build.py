"""`deadweight build`: a project's image, without an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deadweight.cli.common import cpu_sources, declared_target
from deadweight.cli.options import (
    Documents,
    json_option,
    platform_option,
    target_options,
    variant_options,
    weights_option,
    writing_options,
)
from deadweight.cli.output import check_outputs, deliver
from deadweight.cli.places import destination_of
from deadweight.cli.progress import progress
from deadweight.cli.prune import keep_symbols_option
from deadweight.errors import AnswerIsNo, UsageError, shown

if TYPE_CHECKING:
    from deadweight.build.builder import Settings
    from deadweight.build.recipe import Recipe
    from deadweight.image.reference import Reference


@click.command("build")
@click.argument("project", metavar="[PROJECT]", default=".")
@click.option(
    "-b",
    "--base",
    required=True,
    metavar="IMAGE",
    help="The image to build on, which has a Python: any reference; or debian:SUITE, which mmdebstrap makes with the "
    "Debian packages that the project needs; debian:SUITE-slim is without documentation and translations, "
    "debian:SUITE-minimal also without what installs packages, logs in and boots.",
)
@writing_options
@click.option(
    "--extra", "extras", multiple=True, metavar="NAME", help="An extra to install.  [default: all but developers']"
)
@click.option("--no-extras", is_flag=True, help="Install no extra.")
@click.option(
    "--split",
    "by_extra",
    metavar="NAME",
    help="Build two images, as `deadweight split` does: api-core without this extra, ml-inference with it. They share "
    "their base, and {part} in DEST stands for their names.",
)
@click.option("--package", multiple=True, metavar="NAME", help="A Debian package more, for debian:SUITE.")
@click.option("--no-package", multiple=True, metavar="NAME", help="A Debian package that is not needed after all.")
@target_options
@variant_options
@weights_option
@keep_symbols_option
@click.option(
    "--slim",
    is_flag=True,
    help="Take out what `deadweight slim` does by policy: tests, headers, type stubs and the like of distributions.",
)
@click.option("--cache", metavar="DIR", help="Where layers are kept.  [default: as `deadweight cache dir` prints]")
@click.option("--no-cache", is_flag=True, help="Make every layer anew, and keep none.")
@click.option("--refresh-base", is_flag=True, help="Make debian:SUITE anew, with Debian's packages of today.")
@click.option("--mirror", metavar="URL", help="Debian's archive, or a snapshot of it, for debian:SUITE.")
@json_option
@platform_option
def build_command(
    project: str,
    base: str,
    destination: str | None,
    tag: str | None,
    compression: str,
    force: bool,
    extras: tuple[str, ...],
    no_extras: bool,
    by_extra: str | None,
    package: tuple[str, ...],
    no_package: tuple[str, ...],
    variant: str | None,
    find_links: tuple[str, ...],
    index_url: str | None,
    weights: str | None,
    keep_symbols: bool,
    slim: bool,
    cache: str | None,
    no_cache: bool,
    refresh_base: bool,
    mirror: str | None,
    documents: Documents,
    platform: str | None,
    **target: Any,
) -> None:
    """Build the image of the Python project in PROJECT, without an engine.

    The same image as that of the Dockerfile which `deadweight dockerfile` prints: the base, a user, the locked
    dependencies in /opt/venv, and last the project, so that a change of code changes one small layer. uv resolves and
    installs for the base's Python and machine; GPU code, symbols and what patchelf left behind leave, and models get
    smaller (--weights), as by `deadweight prune`. Tests and headers that distributions bring stay
    without --slim, which looks at the whole image again after each change.

    Nothing of the base is run. Building runs the project's own build backend on this machine, as pip does, and source
    distributions run theirs: those are used only where this machine has the base's Python, else wheels alone.

    The same inputs give the same layers on any machine: a lock that also names the build backend, and for debian:SUITE
    the same state of Debian's archive (--mirror names a snapshot). Times in the image are SOURCE_DATE_EPOCH, or
    1980-01-01. Layers that did not change come from the cache, which holds at most 20 GB, and no layer that was not
    used for 30 days.

    \b
    Examples:
      deadweight build --base debian:bookworm --tag service:latest
      deadweight build --base debian:bookworm --to docker-archive:service.tar
      deadweight build service --base python.tar --to oci:out:ml --gpu h100
      deadweight build --base oci:bases:python3.12 --to oci:out:core --no-extras
      deadweight build --base debian:bookworm --to oci:out:cpu --variant cpu
      deadweight build --base debian:bookworm --to oci:out --split ml --gpu h100
    """
    from deadweight.build.builder import Settings  # noqa: PLC0415
    from deadweight.build.dependencies import Options  # noqa: PLC0415

    if cache is not None and no_cache:
        raise UsageError("--cache and --no-cache exclude each other")
    if extras and no_extras:
        raise UsageError("--extra and --no-extras exclude each other")
    wanted = declared_target(**target)
    settings = Settings(
        Options(wanted, not keep_symbols, cpu_sources(variant, find_links, index_url, target["gpu"]), weights),
        compression,  # type: ignore[arg-type]
        force,
        None if cache is None else Path(cache).absolute(),
        not no_cache,
        platform,
        mirror,
        refresh_base,
        slim,
    )
    folder = Path(project).absolute()

    def chosen(recipe: Recipe) -> Recipe:
        packages = dict.fromkeys([*recipe.packages, *package])
        return replace(recipe, packages=tuple(name for name in packages if name not in no_package))

    if by_extra is not None:
        if no_extras:
            raise UsageError("--split builds one part with an extra: leave out --no-extras")
        if destination is None or tag is not None:
            raise UsageError("--split builds two images: say where they go, as --to docker-daemon:NAME-{part}:TAG")
        _build_split(folder, by_extra, extras, base, destination, settings, chosen, documents)
    else:
        to = destination_of(destination, tag, None, force, platform)
        _build_one(folder, () if no_extras else extras or None, base, to, settings, chosen, documents)


def _build_one(
    folder: Path,
    extras: tuple[str, ...] | None,
    base: str,
    to: Reference,
    settings: Settings,
    chosen: Callable[[Recipe], Recipe],
    documents: Documents,
) -> None:
    from deadweight.build.builder import build_project  # noqa: PLC0415
    from deadweight.build.recipe import read_recipe  # noqa: PLC0415
    from deadweight.report.build import build_report, print_build  # noqa: PLC0415

    check_outputs(documents.values(), [base], to.local)
    with progress(f"reading {folder.name}") as report:
        recipe = chosen(read_recipe(folder, extras=extras))
        built = build_project(recipe, base, to, settings, report)
    found = build_report(recipe, base, to, built)
    deliver(found, documents, lambda console: print_build(console, found))


def _build_split(
    folder: Path,
    extra: str,
    more: tuple[str, ...],
    base: str,
    destination: str,
    settings: Settings,
    chosen: Callable[[Recipe], Recipe],
    documents: Documents,
) -> None:
    from deadweight.build.build_split import build_parts, part_destinations, part_recipes  # noqa: PLC0415
    from deadweight.build.split import check_split, read_split  # noqa: PLC0415
    from deadweight.report.build import print_parts, split_build_report  # noqa: PLC0415

    places = part_destinations(destination)
    for to in places.values():
        check_outputs(documents.values(), [base], to.local)
    with progress(f"reading {folder.name}") as report:
        split = read_split(folder, extra, more=more)
        imports = check_split(split)
        if not imports.proved:
            where = [str(one) for one in imports.wrong] or list(imports.unread)
            raise AnswerIsNo(
                f"the core would not start without the extra {split.extra}: {shown('; '.join(where[:3]), 500)[1:-1]}; "
                "`deadweight split --check` says more"
            )
        recipes = {name: chosen(recipe) for name, recipe in part_recipes(split).items()}
        built = build_parts(recipes, base, places, settings, report)
    found = split_build_report(split.extra, recipes, base, places, built)
    deliver(found, documents, lambda console: print_parts(console, found))
