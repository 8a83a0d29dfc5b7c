"""`deadweight init`: a deadweight.toml to begin with."""

from __future__ import annotations

import os
from pathlib import Path

import click

from deadweight.cli.common import opened
from deadweight.cli.options import platform_option
from deadweight.cli.output import becomes_file, check_outputs, message, write_document
from deadweight.cli.progress import progress
from deadweight.errors import UsageError, shown


@click.command("init")
@click.argument("source", metavar="[IMAGE|DIR]", default=".")
@click.option(
    "-o", "--output", default="deadweight.toml", show_default=True, metavar="FILE|-", help="Where to write it."
)
@click.option("-f", "--force", is_flag=True, help="Replace a file that is there.")
@platform_option
def init_command(source: str, output: str, force: bool, platform: str | None) -> None:
    """Write a deadweight.toml for an image, or for the project in a directory.

    It says what can be found out without running anything: the application and its server's port and health check,
    the modules that it needs, the tools that a deployment does without. Comments say what each rests on. Read it, and
    complete it: requests with their answers, a size that is not to be exceeded.

    \b
    Examples:
      deadweight init
      deadweight init image.tar -o deadweight.toml
      deadweight init docker-daemon:app:latest -o -
    """
    from deadweight.ledger.ledger import Ledger  # noqa: PLC0415
    from deadweight.verify.draft import draft_image, draft_project  # noqa: PLC0415

    check_outputs([output], [None if is_project(source) else source])
    named = becomes_file(output)
    if named and not force and os.path.lexists(output):
        raise UsageError(f"{shown(output)} is there already: name another file by -o, or replace it by --force")
    if is_project(source):
        found = draft_project(Path(source))
    else:
        with progress(f"reading {source}") as report, opened(source, platform, report) as image:
            found = draft_image(Ledger(image))
    write_document(output, found.text.encode())
    where = f"{output}: " if named else ""
    said = f"{where}{', '.join(found.found) or 'nothing was found'}"
    message(f"{said}; {'; '.join(found.missing)}" if found.missing else said)


def is_project(source: str) -> bool:
    """Whether a directory is a project rather than an OCI layout."""
    path = Path(source)
    return "\0" not in source and path.is_dir() and not (path / "oci-layout").exists()
