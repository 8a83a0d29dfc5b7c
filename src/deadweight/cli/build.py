"""`deadweight build`: a project's image, without an engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from deadweight.cli.common import cpu_sources, declared_target
from deadweight.cli.options import json_option, platform_option, target_options, variant_options, writing_options
from deadweight.cli.output import check_outputs, deliver
from deadweight.cli.progress import progress
from deadweight.cli.prune import keep_symbols_option
from deadweight.errors import UsageError


@click.command("build")
@click.argument("project", metavar="[PROJECT]", default=".")
@click.option(
    "-b",
    "--base",
    required=True,
    metavar="IMAGE",
    help="The image to build on, which has a Python: any reference; or debian:SUITE, which mmdebstrap makes with the "
    "Debian packages that the project needs; debian:SUITE-slim is without documentation and translations, "
    "debian:SUITE-minimal without apt too.",
)
@writing_options
@click.option(
    "--extra", "extras", multiple=True, metavar="NAME", help="An extra to install.  [default: all but developers']"
)
@click.option("--no-extras", is_flag=True, help="Install no extra.")
@click.option("--package", multiple=True, metavar="NAME", help="A Debian package more, for debian:SUITE.")
@click.option("--no-package", multiple=True, metavar="NAME", help="A Debian package that is not needed after all.")
@target_options
@variant_options
@keep_symbols_option
@click.option("--cache", metavar="DIR", help="Where layers are kept.  [default: ~/.cache/deadweight/build]")
@click.option("--no-cache", is_flag=True, help="Make every layer anew, and keep none.")
@click.option("--refresh-base", is_flag=True, help="Make debian:SUITE anew, with Debian's packages of today.")
@click.option("--mirror", metavar="URL", help="Debian's archive, or a snapshot of it, for debian:SUITE.")
@json_option
@platform_option
def build_command(
    project: str,
    base: str,
    destination: str,
    compression: str,
    force: bool,
    extras: tuple[str, ...],
    no_extras: bool,
    package: tuple[str, ...],
    no_package: tuple[str, ...],
    variant: str | None,
    find_links: tuple[str, ...],
    index_url: str | None,
    keep_symbols: bool,
    cache: str | None,
    no_cache: bool,
    refresh_base: bool,
    mirror: str | None,
    json_to: str | None,
    platform: str | None,
    **target: Any,
) -> None:
    """Build the image of the Python project in PROJECT, without an engine.

    The same image as that of the Dockerfile which `deadweight dockerfile` prints: the base, a user, the locked
    dependencies in /opt/venv, and last the project, so that a change of code changes one small layer. uv resolves and
    installs for the base's Python and machine; GPU code and symbols leave as by `deadweight prune`. Tests and headers
    that distributions bring stay: `deadweight slim` takes them out of the result.

    Nothing of the base is run. Building runs the project's own build backend on this machine, as pip does, and source
    distributions run theirs: those are used only where this machine has the base's Python, else wheels alone.

    The same inputs give the same layers on any machine: a lock that also names the build backend, and for debian:SUITE
    the same state of Debian's archive (--mirror names a snapshot). Times in the image are SOURCE_DATE_EPOCH, or
    1980-01-01. Layers that did not change come from the cache, which holds at most 20 GB, and no layer that was not
    used for 30 days.

    \b
    Examples:
      deadweight build --base debian:bookworm --to docker-archive:service.tar
      deadweight build service --base python.tar --to oci:out:ml --gpu h100
      deadweight build --base oci:bases:python3.12 --to oci:out:core --no-extras
      deadweight build --base debian:bookworm --to oci:out:cpu --variant cpu
    """
    from deadweight.build.builder import Settings, build_project  # noqa: PLC0415
    from deadweight.build.dependencies import Options  # noqa: PLC0415
    from deadweight.build.recipe import read_recipe  # noqa: PLC0415
    from deadweight.image.reference import parse_destination  # noqa: PLC0415
    from deadweight.report.build import build_report, print_build  # noqa: PLC0415

    to = parse_destination(destination)
    check_outputs([json_to], [base], to.local)
    if cache is not None and no_cache:
        raise UsageError("--cache and --no-cache exclude each other")
    if extras and no_extras:
        raise UsageError("--extra and --no-extras exclude each other")
    wanted = declared_target(**target)
    settings = Settings(
        Options(wanted, not keep_symbols, cpu_sources(variant, find_links, index_url, target["gpu"])),
        compression,  # type: ignore[arg-type]
        force,
        None if cache is None else Path(cache).absolute(),
        not no_cache,
        platform,
        mirror,
        refresh_base,
    )
    with progress(f"reading {project}") as report:
        recipe = read_recipe(Path(project).absolute(), extras=() if no_extras else extras or None)
        packages = dict.fromkeys([*recipe.packages, *package])
        recipe = replace(recipe, packages=tuple(name for name in packages if name not in no_package))
        built = build_project(recipe, base, to, settings, report)
    found = build_report(recipe, base, to, built)
    deliver(found, json_to, lambda console: print_build(console, found))
