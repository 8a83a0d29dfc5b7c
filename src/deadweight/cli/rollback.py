"""`deadweight rollback`: the name of a slim image goes back to the original."""

from __future__ import annotations

import click

from deadweight.cli.options import Documents, json_option, registry_options
from deadweight.cli.output import check_outputs, deliver


@click.command("rollback")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@json_option
@registry_options
def rollback_command(name: str, dry_run: bool, documents: Documents) -> None:
    """Point NAME, a slim image in an engine or registry, back at the image that it was made from.

    The original is found by the slim image's own label. The slim image stays: where it has no other name it gets
    NAME:TAG-slim. NAME is docker-daemon:NAME:TAG, podman:NAME:TAG, containers-storage:NAME:TAG,
    docker://HOST/NAME:TAG, or a bare name for the engine that answers.

    \b
    Examples:
      deadweight rollback truthgraph-api:latest --dry-run
      deadweight rollback podman:truthgraph-api:latest --json -
      deadweight rollback docker://registry.example/team/api:1.4
    """
    from deadweight.errors import UsageError, shown  # noqa: PLC0415
    from deadweight.image.reference import ENGINES, parse_name  # noqa: PLC0415
    from deadweight.image.transports.rollback import roll_back  # noqa: PLC0415
    from deadweight.report.rollback import print_rollback, rollback_report  # noqa: PLC0415

    check_outputs(documents.values(), [])
    reference = parse_name(name)
    if reference.transport not in ENGINES and reference.transport not in ("containers-storage", "docker"):
        raise UsageError(
            f"{shown(name)} is not in an engine or registry, where names move: say docker-daemon:NAME:TAG or "
            "podman:NAME:TAG"
        )
    found = rollback_report(roll_back(reference, dry_run=dry_run), dry_run)
    deliver(found, documents, lambda console: print_rollback(console, found))
