"""`deadweight cache`: what is kept so that it need not be worked out again."""

from __future__ import annotations

import click

from deadweight.cli.options import Documents, json_option, size
from deadweight.cli.output import check_outputs, deliver


@click.group("cache")
def cache_command() -> None:
    """Look at the cache, and clear it.

    What was found out of layers and files, and the layers that were made, are kept in ~/.cache/deadweight
    (XDG_CACHE_HOME; DEADWEIGHT_CACHE_DIR names another place), at most 20 GB of them (DEADWEIGHT_CACHE_LIMIT), and
    nothing that was not used for 30 days. All of it can go at any time: it is worked out again, with the same result.

    \b
    Examples:
      deadweight cache info
      deadweight cache prune --max-size 5GB
      du -sh "$(deadweight cache dir)"
    """


@cache_command.command("info")
@json_option
def info_command(documents: Documents) -> None:
    """Show what the cache holds, by kind."""
    from deadweight.cli.common import found_cache  # noqa: PLC0415
    from deadweight.report.cache import cache_report, print_cache  # noqa: PLC0415

    check_outputs(documents.values(), [])
    found = cache_report(found_cache())
    deliver(found, documents, lambda console: print_cache(console, found))


@cache_command.command("prune")
@click.option("--all", "everything", is_flag=True, help="Everything, but for what is being made at this moment.")
@click.option("--max-size", type=size, metavar="SIZE", help="What may stay: what was used last.  [default: the limit]")
def prune_command(everything: bool, max_size: int | None) -> None:
    """Drop what was not used for 30 days, and what is beyond the limit.

    \b
    Examples:
      deadweight cache prune
      deadweight cache prune --max-size 2GB
      deadweight cache prune --all
    """
    from deadweight.cache.keeping import trim  # noqa: PLC0415
    from deadweight.cache.place import limit  # noqa: PLC0415
    from deadweight.cli.common import found_cache  # noqa: PLC0415
    from deadweight.cli.output import message  # noqa: PLC0415
    from deadweight.errors import UsageError  # noqa: PLC0415
    from deadweight.report.cache import cache_report  # noqa: PLC0415
    from deadweight.sizes import show_size  # noqa: PLC0415

    if everything and max_size is not None:
        raise UsageError("--all and --max-size exclude each other")
    cache = found_cache()
    before = cache_report(cache).bytes
    stays = trim(cache, 0 if everything else limit() if max_size is None else max_size)
    message(f"{show_size(max(0, before - stays))} left the cache, {show_size(stays)} stay")


@cache_command.command("dir")
def dir_command() -> None:
    """Print where the cache is."""
    from deadweight.cache.place import default_folder  # noqa: PLC0415

    click.echo(str(default_folder()))
