"""`deadweight slim --all-platforms`: every image of an index, and the index of what they came to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deadweight.cli.common import opened, plan_for, remember, swapped_for
from deadweight.cli.output import check_tag, deliver
from deadweight.cli.progress import progress
from deadweight.errors import UsageError, shown

if TYPE_CHECKING:
    from rich.console import Console

    from deadweight.binary.gpu import Target
    from deadweight.cache.layers import Cache
    from deadweight.cli.options import Documents
    from deadweight.image.output import Written
    from deadweight.image.reference import Reference
    from deadweight.report.model import PlatformsReport, SlimReport


def slim_every_platform(
    image: str,
    to: Reference,
    target: Target | None,
    *,
    compression: str,
    force: bool,
    cache: Cache | None,
    documents: Documents,
    top: int,
    **planning: Any,
) -> None:
    """Slims the image of each platform, and gives the index of the results the destination's tag.

    Raises UsageError where `image` and `to` are not both in registries, or `image` is for one platform.
    """
    from deadweight.image.reference import Reference, parse_reference  # noqa: PLC0415

    source = parse_reference(image)
    if source.transport != "docker" or to.transport != "docker":
        raise UsageError(
            "--all-platforms goes from registry to registry (docker://): copy the image to one with all its "
            "platforms first, as skopeo copy --all does"
        )
    from deadweight.image.transports.registry_index import read_index, write_index  # noqa: PLC0415
    from deadweight.report.model import PlatformsReport  # noqa: PLC0415
    from deadweight.report.text import valid  # noqa: PLC0415

    with progress(f"reading {image}"):
        many = read_index(source)
    unnamed = Reference("docker", name=to.name.rpartition(":")[0])
    # One image may serve several platforms: it is slimmed once.
    slimmed = {
        reference: _slim(reference, unnamed, target, compression, force, cache, planning)
        for reference in dict.fromkeys(one.reference for one in many.images)
    }
    reports = [found for found, _ in slimmed.values()]
    written = [slimmed[one.reference][1] for one in many.images]
    ids = {report.image.digest for report in reports}
    digest, notes = write_index(to, many, written, ids, force)
    every = [valid(note) for note in (*many.notes, *notes)]
    found_all = PlatformsReport(valid(image), many.digest, valid(str(to)), digest, reports, every)
    deliver(found_all, documents, lambda console: _print(console, found_all, top))


def _slim(
    source: Reference,
    to: Reference,
    target: Target | None,
    compression: str,
    force: bool,
    cache: Cache | None,
    planning: dict[str, Any],
) -> tuple[SlimReport, Written]:
    from deadweight.apply import Applied, build  # noqa: PLC0415
    from deadweight.ledger.ledger import Ledger  # noqa: PLC0415
    from deadweight.report.slim import slim_report  # noqa: PLC0415

    with progress(f"reading {source}") as report, opened(str(source), None, report, cache) as image:
        check_tag(image, to, force, image.platform)
        ledger = Ledger(image, cache)
        with swapped_for(ledger, report, platform=image.platform, **planning) as swapped:
            worked = plan_for(ledger, report, target, swapped, platform=image.platform, **planning)
            over = ledger if swapped is None else swapped.ledger
            written = build(worked, over.image, to, compression, force, report, cache)  # type: ignore[arg-type]
            remember(ledger, cache)
            return slim_report(worked.plan, ledger, Applied(worked, False, written), to, over=over), written


def _print(console: Console, report: PlatformsReport, top: int) -> None:
    from rich.text import Text  # noqa: PLC0415

    from deadweight.report.tables import paragraphs  # noqa: PLC0415
    from deadweight.report.terminal import print_slim  # noqa: PLC0415

    for one in report.platforms:
        console.rule(Text(one.image.platform))
        print_slim(console, one, top)
    console.rule()
    console.print(Text(f"{shown(report.after_reference)} is the index of {len(report.platforms)} images now:"))
    console.print(Text(report.after_digest))
    paragraphs(console, "Of the index", report.notes)
