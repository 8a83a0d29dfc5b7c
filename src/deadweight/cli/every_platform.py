"""`deadweight slim --all-platforms`: every image of an index, and the index of what they came to."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from deadweight.cli.common import opened, plan_for, remember, swapped_for
from deadweight.cli.output import check_outputs, check_tag, deliver, is_standard
from deadweight.cli.pages import Makers, plan_pages
from deadweight.cli.progress import progress
from deadweight.cli.sbom import original_inventory, slim_sboms
from deadweight.errors import UsageError, shown

if TYPE_CHECKING:
    from rich.console import Console

    from deadweight.binary.gpu import Target
    from deadweight.cache.layers import Cache
    from deadweight.cli.options import Documents
    from deadweight.image.output import Written
    from deadweight.image.reference import Reference
    from deadweight.report.model import PlatformsReport, SlimReport

_OF_ALL: Final = frozenset({"json", "markdown"})
"""Forms of documents that say of all images together; of the others each image has a file of its own."""
_ODD: Final = re.compile(r"[^A-Za-z0-9_.]+")
_LONGEST: Final = 60


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

    Raises UsageError where `image` and `to` are not both in registries, `image` is for one platform, or a document of
    which each image has one is not to be a file.
    """
    for form, name in _of_each(documents).items():
        if not _can_be_many(name):
            option = "html" if form == "html" else f"sbom {form}"
            raise UsageError(f"--{option} with --all-platforms writes a file for each image: name a file, not {name}")
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
    # One image may serve several platforms: it is slimmed once, and its documents are named after the first of them.
    platforms = _names({one.reference: str(one.platform) for one in reversed(many.images)})
    wanted = {
        f"{form} {platform}": _beside(name, platform)
        for platform in platforms.values()
        for form, name in _of_each(documents).items()
    }
    check_outputs([*documents.values(), *wanted.values()], [])
    slimmed = {}
    makers: dict[str, Callable[[], bytes]] = {}
    for reference in dict.fromkeys(one.reference for one in many.images):
        found, done, made = _slim(reference, unnamed, target, compression, force, cache, documents, planning)
        slimmed[reference] = found, done
        makers |= {f"{form} {platforms[reference]}": maker for form, maker in made.items()}
    reports = [found for found, _ in slimmed.values()]
    written = [slimmed[one.reference][1] for one in many.images]
    ids = {report.image.digest for report in reports}
    digest, notes = write_index(to, many, written, ids, force)
    every = [valid(note) for note in (*many.notes, *notes)]
    found_all = PlatformsReport(valid(image), many.digest, valid(str(to)), digest, reports, every)
    of_all = {form: name for form, name in documents.items() if form in _OF_ALL}
    deliver(found_all, {**of_all, **wanted}, lambda console: _print(console, found_all, top), quiet=False, **makers)


def _of_each(documents: Documents) -> dict[str, str]:
    """The documents of which each image has one."""
    return {form: name for form, name in documents.items() if form not in _OF_ALL and name is not None}


def _can_be_many(name: str) -> bool:
    return not is_standard(name) and (Path(name).is_file() or not Path(name).exists())


def _names(platforms: Mapping[Reference, str]) -> dict[Reference, str]:
    """Platforms as parts of files' names, no two of them the same: linux-arm-v7."""
    found: dict[Reference, str] = {}
    for reference, platform in platforms.items():
        name = _ODD.sub("-", platform)[:_LONGEST].strip(".-") or "platform"
        number = 1
        while (name if number == 1 else f"{name}-{number}") in found.values():
            number += 1
        found[reference] = name if number == 1 else f"{name}-{number}"
    return found


def _beside(name: str, platform: str) -> str:
    """The file of one image: page.linux-arm64.html."""
    path = Path(name)
    return str(path.with_name(f"{path.stem}.{platform}{path.suffix}"))


def _slim(
    source: Reference,
    to: Reference,
    target: Target | None,
    compression: str,
    force: bool,
    cache: Cache | None,
    documents: Documents,
    planning: dict[str, Any],
) -> tuple[SlimReport, Written, Makers]:
    """Slims one image; gives its report, what was written, and what makes the documents that are its own."""
    from deadweight.apply import Applied, build  # noqa: PLC0415
    from deadweight.ledger.ledger import Ledger  # noqa: PLC0415
    from deadweight.report.slim import slim_report  # noqa: PLC0415

    gc.collect()  # what passes made of the files of the image before refers to it, and it to that
    with progress(f"reading {source}") as report, opened(str(source), None, report, cache) as image:
        check_tag(image, to, force, image.platform)
        ledger = Ledger(image, cache)
        components = original_inventory(documents, ledger)
        with swapped_for(ledger, report, platform=image.platform, **planning) as swapped:
            worked = plan_for(ledger, report, target, swapped, platform=image.platform, **planning)
            over = ledger if swapped is None else swapped.ledger
            written = build(worked, over.image, to, compression, force, report, cache)  # type: ignore[arg-type]
            remember(ledger, cache)
            applied = Applied(worked, False, written)
            found = slim_report(worked.plan, ledger, applied, to, over=over)
            sboms = slim_sboms(documents, components, ledger, over, applied, to)
            return found, written, {**plan_pages(documents, found, ledger, over, worked), **sboms}


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
