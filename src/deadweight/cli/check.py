"""`deadweight check`: a gate for CI over one image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from deadweight.cli.common import opened, remember, the_cache
from deadweight.cli.options import Documents, cache_option, size, spec_option, verdict_options
from deadweight.cli.output import check_outputs, deliver
from deadweight.cli.progress import progress
from deadweight.cli.verdicts import STATUS, setting_of, spec_of
from deadweight.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deadweight.verify.spec import Probe, Spec


@click.command("check")
@click.argument("image")
@click.option("--max-size", type=size, metavar="SIZE", help="At most so many bytes in layers: 3GB, 2.5GiB.")
@click.option("--no-command", multiple=True, metavar="NAME", help="A command that must not be in PATH.")
@click.option("--no-module", multiple=True, metavar="NAME", help="A module that must not import.")
@click.option("--import", "imports", multiple=True, metavar="NAME", help="A module that must import.")
@spec_option
@click.option(
    "--from-cst", metavar="FILE", multiple=True, help="Run the tests of a container-structure-test YAML file as well."
)
@verdict_options
@cache_option
@click.pass_context
def check_command(
    context: click.Context,
    image: str,
    max_size: int | None,
    no_command: tuple[str, ...],
    no_module: tuple[str, ...],
    imports: tuple[str, ...],
    spec_from: str | None,
    from_cst: tuple[str, ...],
    sandbox: str,
    gpus: bool,
    network: bool,
    memory: int | None,
    timeout: float | None,
    documents: Documents,
    no_cache: bool,
    top: int,
    platform: str | None,
) -> None:
    """Hold one IMAGE to a budget and a specification: a gate for CI.

    Every probe of the specification has to succeed here, as with `must`; only what needs two images is left to
    `deadweight verify`. Programs of the image run in a sandbox, and only where a probe needs them: a size is checked
    without.

    The exit status is 0 when the image is as asked, 1 when it is not, and 4 when an answer could not be had.

    \b
    Examples:
      deadweight check slim.tar --max-size 3GB --no-command gcc --no-module pytest --import torch
      deadweight check slim.tar --spec deadweight.toml --json -
      deadweight check slim.tar --from-cst structure-tests.yaml
    """
    from deadweight.ledger.ledger import Ledger  # noqa: PLC0415
    from deadweight.report.verdict import print_verify, verify_report  # noqa: PLC0415
    from deadweight.verify.verification import asked, check  # noqa: PLC0415

    check_outputs(documents.values(), [image, spec_from, *from_cst])
    more = _probes(max_size, no_command, no_module, imports)
    # What is asked for here is all that is asked for: a deadweight.toml that lies about does not join in.
    spec, where = spec_of(spec_from, memory, timeout, default=not more and not from_cst)
    spec, where = _joined(spec, where, more, from_cst)
    if not asked(spec):
        raise UsageError("nothing to check: say --max-size, --import, --no-command, --spec or --from-cst")
    cache = the_cache(wanted=not no_cache)
    with (
        progress(f"reading {image}") as report,
        opened(image, platform, report, cache, proved_alone=True) as source,
    ):
        ledger = Ledger(source, cache)
        verdict = check(ledger, spec, report, setting=setting_of(sandbox, gpus, network))
        remember(ledger, cache)
        found = verify_report(None, source, where, verdict)
    deliver(found, documents, lambda console: print_verify(console, found, top))
    context.exit(STATUS[verdict.same])


def _probes(
    max_size: int | None, no_command: Sequence[str], no_module: Sequence[str], imports: Sequence[str]
) -> list[Probe]:
    from deadweight.verify.spec import AbsentProbe, ImportProbe, SizeProbe  # noqa: PLC0415

    found: list[Probe] = []
    if max_size is not None:
        found.append(SizeProbe(max=str(max_size)))
    if imports:
        found.append(ImportProbe(modules=list(imports), must=True))
    if no_command or no_module:
        found.append(AbsentProbe(commands=list(no_command), modules=list(no_module)))
    return found


def _joined(spec: Spec, where: str, more: Sequence[Probe], from_cst: Sequence[str]) -> tuple[Spec, str]:
    """The specification with further probes, and where it all came from."""
    import msgspec  # noqa: PLC0415

    from deadweight.verify.spec.container_structure import read_cst  # noqa: PLC0415

    read = [read_cst(path) for path in from_cst]
    probes = [*more, *spec.probe, *(probe for each in read for probe in each.probe)]
    notes = [*spec.notes, *(note for each in read for note in each.notes)]
    return msgspec.structs.replace(spec, probe=probes, notes=notes), ", ".join(filter(None, (where, *from_cst)))
