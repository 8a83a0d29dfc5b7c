"""`deadweight verify`: does one image behave like the other?"""

from __future__ import annotations

import click

from deadweight.cli.common import opened, plan_at, swapped_as_planned
from deadweight.cli.options import (
    Documents,
    max_loss_option,
    source_options,
    spec_option,
    tolerance_option,
    verdict_options,
)
from deadweight.cli.output import check_outputs, deliver
from deadweight.cli.progress import progress
from deadweight.cli.verdicts import STATUS, setting_of, spec_of


@click.command("verify")
@click.argument("before")
@click.argument("after")
@spec_option
@click.option("--plan", "plan_from", metavar="FILE", help="The plan by which AFTER was made: it declares what differs.")
@click.option("--static-only", is_flag=True, help="Run nothing: compare files, libraries' memory and configuration.")
@source_options
@tolerance_option
@max_loss_option
@verdict_options
@click.pass_context
def verify_command(
    context: click.Context,
    before: str,
    after: str,
    spec_from: str | None,
    plan_from: str | None,
    static_only: bool,
    find_links: tuple[str, ...],
    index_url: str | None,
    sandbox: str,
    tolerance: float,
    max_loss: float | None,
    gpus: bool,
    network: bool,
    memory: int | None,
    timeout: float | None,
    documents: Documents,
    top: int,
    platform: str | None,
) -> None:
    """Prove that the image AFTER behaves like BEFORE, of which it is a slim version.

    First both are compared file by file without running anything. With --plan every difference has to be declared
    there; without, what left is listed as undeclared, and what changed must be what slimming changes. Then probes
    run in both, in a sandbox without network, and their results are compared: by default that all modules import,
    libraries resolve, the application has its routes, and the server starts; a deadweight.toml adds to that
    (`deadweight init` writes one). Where the plan swapped builds of distributions, the same wheels are needed again.

    The exit status is 0 when all is the same, 1 when something differs or fails where it must not, and 4 when an
    answer could not be had.

    \b
    Examples:
      deadweight verify image.tar slim.tar
      deadweight verify image.tar slim.tar --plan plan.json --spec deadweight.toml --json verdict.json
      deadweight verify image.tar slim.tar --spec builtin:ml-api
      deadweight verify oci:layout:latest oci:layout:slim --static-only
    """
    from deadweight.ledger.ledger import Ledger  # noqa: PLC0415
    from deadweight.report.verdict import print_verify, verify_report  # noqa: PLC0415
    from deadweight.verify.verification import verify  # noqa: PLC0415

    check_outputs(documents.values(), [before, after, spec_from, plan_from])
    spec, where = spec_of(spec_from, memory, timeout)
    plan = None if plan_from is None else plan_at(plan_from)
    with (
        progress(f"reading {before}") as report,
        opened(before, platform, report) as one,
        opened(after, platform, report) as two,
    ):
        before_ledger = Ledger(one)
        with swapped_as_planned(plan, before_ledger, find_links, index_url, report) as swapped:
            verdict = verify(
                before_ledger,
                Ledger(two),
                spec,
                report,
                plan=plan,
                run=not static_only,
                setting=setting_of(sandbox, gpus, network, tolerance, max_loss),
                swapped=swapped,
            )
        found = verify_report(one, two, where, verdict)
    deliver(found, documents, lambda console: print_verify(console, found, top))
    context.exit(STATUS[verdict.same])
