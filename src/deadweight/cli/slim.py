"""`deadweight slim`: plan, apply and report in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from deadweight.cli.common import (
    check_passes,
    declared_target,
    opened,
    plan_for,
    possible_savings,
    remember,
    swapped_for,
    the_cache,
)
from deadweight.cli.every_platform import slim_every_platform
from deadweight.cli.options import (
    Documents,
    cache_option,
    image_argument,
    max_loss_option,
    page_options,
    planning_options,
    sandbox_option,
    tolerance_option,
    top_option,
    writing_options,
)
from deadweight.cli.output import check_outputs, check_tag, deliver, is_standard, write_document
from deadweight.cli.pages import plan_pages
from deadweight.cli.places import destination_of
from deadweight.cli.progress import progress
from deadweight.cli.sbom import original_inventory, sbom_option, slim_sboms
from deadweight.cli.verdicts import STATUS, setting_of, spec_of
from deadweight.errors import UsageError

if TYPE_CHECKING:
    from deadweight.image.reference import Reference
    from deadweight.verify.spec import Spec


@click.command("slim")
@image_argument
@writing_options
@planning_options
@click.option(
    "--all-platforms",
    is_flag=True,
    help="Slim the image of every platform, and write their index back (docker:// to docker://). Attestations and "
    "signatures, which speak of the original, are left out and named. --html and --sbom write a file for each image, "
    "named after its platform: page.linux-arm64.html.",
)
@click.option("--plan-out", metavar="FILE", help="Write the plan as well.")
@click.option(
    "--verify",
    "verify_with",
    metavar="[SPEC]",
    is_flag=False,
    flag_value="",
    help="Prove that the result behaves like IMAGE, as `deadweight verify` does with SPEC: a deadweight.toml or "
    "builtin:ml-api. The exit status is then that of the verdict.",
)
@sandbox_option
@tolerance_option
@max_loss_option
@page_options
@sbom_option
@cache_option
@top_option
@click.pass_context
def slim_command(
    context: click.Context,
    /,
    image: str,
    destination: str | None,
    tag: str | None,
    compression: str,
    force: bool,
    all_platforms: bool,
    plan_out: str | None,
    verify_with: str | None,
    sandbox: str,
    tolerance: float,
    max_loss: float | None,
    documents: Documents,
    no_cache: bool,
    top: int,
    platform: str | None,
    gpu: tuple[str, ...],
    keep_ptx: bool | None,
    raw_blobs: bool,
    recompress: bool,
    **planning: Any,
) -> None:
    """Make a smaller image of IMAGE, and report what left and why.

    The same as `deadweight plan` and `deadweight apply`. IMAGE itself is never changed.

    \b
    Examples:
      deadweight slim service:latest --tag service:slim --gpu h100
      deadweight slim image.tar --to docker-archive:slim.tar --gpu h100
      deadweight slim docker://host/app:1 --to docker://host/app:slim -g h100
      deadweight slim oci:layout:latest --to oci:layout:slim -c zstd --json r.json
      deadweight slim image.tar --to oci:slim --root psycopg2 --keep /app/tests
      deadweight slim image.tar --to oci:slim --gpu h100 --verify --html r.html
      deadweight slim a.tar --to oci:b --weights fp16 --verify spec.toml
      deadweight slim image.tar --to oci:cpu --swap torch=cpu --verify
      deadweight slim image.tar --to oci:slim --sbom cyclonedx=slim.cdx.json
    """
    from deadweight.apply import Applied, build  # noqa: PLC0415
    from deadweight.ledger.ledger import Ledger  # noqa: PLC0415
    from deadweight.plan import write_plan  # noqa: PLC0415
    from deadweight.report.slim import slim_report  # noqa: PLC0415
    from deadweight.report.terminal import print_slim  # noqa: PLC0415
    from deadweight.verify.model import Verdict  # noqa: PLC0415

    to = destination_of(destination, tag, image, force, platform)
    check_outputs([*documents.values(), plan_out], [image, planning["base"], verify_with or None], to.local)
    check_passes(planning["skip"])
    spec = _spec(verify_with, to, max_loss)
    target = declared_target(gpu, keep_ptx, raw_blobs, recompress)
    cache = the_cache(wanted=not no_cache)
    if all_platforms:
        if platform is not None or plan_out is not None or spec is not None:
            raise UsageError("--all-platforms goes with none of --platform, --plan-out, --verify: those are for one")
        slim_every_platform(
            image,
            to,
            target,
            compression=compression,
            force=force,
            cache=cache,
            documents=documents,
            top=top,
            **planning,
        )
        return
    with progress(f"reading {image}") as report, opened(image, platform, report, cache) as source:
        check_tag(source, to, force, platform)
        ledger = Ledger(source, cache)
        components = original_inventory(documents, ledger)
        with swapped_for(ledger, report, platform=platform, **planning) as swapped:
            worked = plan_for(ledger, report, target, swapped, platform=platform, **planning)
            if plan_out is not None:
                write_document(plan_out, write_plan(worked.plan))
            over = ledger if swapped is None else swapped.ledger
            savings = possible_savings(over, target)
            written = build(worked, over.image, to, compression, force, report, cache)  # type: ignore[arg-type]
            remember(ledger, cache)
            verdict = Verdict()
            if spec is not None:
                from deadweight.verify.verification import verify  # noqa: PLC0415

                with opened(str(to), None, report) as slim:
                    verdict = verify(
                        ledger,
                        Ledger(slim),
                        spec,
                        report,
                        plan=worked.plan,
                        setting=setting_of(sandbox, False, False, tolerance, max_loss),
                        swapped=swapped,
                    )
            applied = Applied(worked, False, written)
            found = slim_report(worked.plan, ledger, applied, to, savings, verdict, over)
            makers = slim_sboms(documents, components, ledger, over, applied, to)
            pages = plan_pages(documents, found, ledger, over, worked)
    quiet = is_standard(plan_out)
    deliver(found, documents, lambda console: print_slim(console, found, top), quiet=quiet, **pages, **makers)
    if spec is not None:
        context.exit(STATUS[verdict.same])


def _spec(verify_with: str | None, to: Reference, max_loss: float | None) -> Spec | None:
    """The specification to verify by; None where that was not asked for. Raises UsageError where it cannot be done."""
    if verify_with is None:
        if max_loss is not None:
            raise UsageError("--max-accuracy-loss is what --verify holds the result to: say that as well")
        return None
    if to.transport == "rootfs":
        raise UsageError("--verify needs an image with its configuration: write to docker-archive: or oci:")
    return spec_of(verify_with or None)[0]
