"""`deadweight doctor`: why GPU code is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deadweight.cli.common import opened
from deadweight.cli.options import Documents, json_option, platform_option
from deadweight.cli.output import check_outputs, deliver
from deadweight.cli.progress import progress
from deadweight.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from deadweight.doctor import Diagnosis

_STATUS = {"fits": 0, "ptx": 0, "removed": 1}
_NO_ANSWER = 4


@click.command("doctor")
@click.argument("image", required=False)
@click.option("-g", "--gpu", multiple=True, metavar="GPU", help="Compare with this GPU instead of this machine's.")
@click.option("--root", type=click.Path(file_okay=False, exists=True), help="Look below this directory.  [default: /]")
@json_option
@platform_option
@click.pass_context
def doctor_command(
    context: click.Context,
    image: str | None,
    gpu: tuple[str, ...],
    root: str | None,
    documents: Documents,
    platform: str | None,
) -> None:
    """Say what an image was slimmed for, and whether a GPU finds its code there.

    Without IMAGE this is about where deadweight runs: a container, whose machine's GPUs are asked for, or an
    environment that was pruned. "no kernel image is available for execution on the device" is what programs say when
    code is missing.

    The exit status is 0 when the GPUs find code, 1 when it was removed, and 4 when there is nothing to compare.

    \b
    Examples:
      deadweight doctor
      deadweight doctor slim.tar --gpu t4
      deadweight doctor --root .venv/lib/python3.12/site-packages --json -
    """
    from deadweight.binary.gpu import parse_gpus  # noqa: PLC0415
    from deadweight.doctor import diagnose, slimmed_here, slimmed_image  # noqa: PLC0415
    from deadweight.doctor.machine import Gpu, Machine, look  # noqa: PLC0415

    if image is not None and root is not None:
        raise UsageError("an image and --root cannot be looked at together: leave one out")
    check_outputs(documents.values(), [image])
    machine = Machine(tuple(Gpu("", sm) for sm in parse_gpus(gpu))) if gpu else look()
    if image is None:
        slimmed = slimmed_here(Path(root or "/"))
    else:
        with progress(f"reading {image}") as report, opened(image, platform, report) as source:
            slimmed = slimmed_image(source)
    found = diagnose(slimmed, machine)
    deliver(found, documents, lambda console: _print(console, found))
    if found.verdict is not None:
        context.exit(_STATUS[found.verdict])
    context.exit(0 if image is not None and slimmed else _NO_ANSWER)


def _print(console: Console, found: Diagnosis) -> None:
    from rich.text import Text  # noqa: PLC0415

    from deadweight.report.text import plain  # noqa: PLC0415

    for line in (*(finding.says for finding in found.findings), *found.notes):
        console.print(Text(plain(line)), soft_wrap=True)  # a line each, wherever it goes
