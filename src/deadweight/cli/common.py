"""What commands do in common: opening images, making plans."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

if TYPE_CHECKING:
    from deadweight.binary.gpu import Target
    from deadweight.build.dockerfile import Choices
    from deadweight.cache.layers import Cache
    from deadweight.cli.progress import Report
    from deadweight.files.cpu_wheel import Sources
    from deadweight.image.model import Image
    from deadweight.ledger.ledger import Ledger
    from deadweight.passes.base import Risk
    from deadweight.plan import Plan
    from deadweight.planning import Worked
    from deadweight.report.model import SavingLine
    from deadweight.swap.swapped import Swapped


def the_cache(*, wanted: bool) -> Cache | None:
    """The cache; None where it is not wanted, or not to be trusted, which is said.

    Raises UsageError where its limit is no size.
    """
    if not wanted:
        return None
    from deadweight.cache.place import limit  # noqa: PLC0415
    from deadweight.cli.output import message  # noqa: PLC0415
    from deadweight.errors import EnvironmentFailure  # noqa: PLC0415

    limit()  # one that cannot be meant is better told before the work than behind it
    try:
        return found_cache(make=True)
    except EnvironmentFailure as error:
        message(f"without a cache: {error}")
        return None


def found_cache(*, make: bool = False) -> Cache:
    """The cache, for commands that are about it, or made where it is not there.

    Raises EnvironmentFailure where it is not to be trusted.
    """
    from deadweight.cache.layers import Cache  # noqa: PLC0415
    from deadweight.cache.place import default_folder, distrust, make_folder  # noqa: PLC0415
    from deadweight.errors import EnvironmentFailure  # noqa: PLC0415

    root = default_folder()
    if make or os.path.lexists(root):
        make_folder(root)
    reason = distrust(root)
    if reason is not None:
        raise EnvironmentFailure(reason)
    return Cache(root)


def possible_savings(ledger: Ledger, target: Target | None) -> list[SavingLine]:
    """What a target would save, for whoever named none."""
    if target is not None:
        return []
    from deadweight.report.inspect import saving_lines  # noqa: PLC0415

    return saving_lines(ledger)


_last: list[Ledger] = []
"""The ledger of the last command, until another image is opened: a process ends sooner than it frees all of it."""


def remember(ledger: Ledger, cache: Cache | None) -> None:
    """Keeps what was found out of an image, and holds the cache to its limit. The ledger itself stays for a while."""
    _last[:] = [ledger]
    if cache is not None:
        from deadweight.cache.keeping import trim_when_due  # noqa: PLC0415
        from deadweight.cache.place import limit  # noqa: PLC0415

        trim_when_due(cache, limit(), ledger.facts.learn())


@contextmanager
def opened(
    reference: str,
    platform: str | None,
    report: Report | None = None,
    cache: Cache | None = None,
    *,
    proved_alone: bool = False,
) -> Iterator[Image]:
    """The image, unpacked where it is compressed, with progress; closed at the end.

    What the cache knows of its layers is not read again; with `proved_alone` only of those that were held to their
    diff-ids, for commands after which no layer is.
    """
    from deadweight.image.transports import open_image  # noqa: PLC0415

    _last.clear()
    with open_image(reference, platform, report) as image:
        if cache is not None:
            from deadweight.cache.known import recall  # noqa: PLC0415

            recall(image, cache, proved_alone=proved_alone)
        image.fetch(None if report is None else lambda done, total: report("downloading", done, total))
        count = len(image.layers)
        for layer in image.layers:
            if report is not None:
                doing = "reading" if layer.compression == "none" else "unpacking"
                report(f"{doing} layer {layer.position + 1} of {count}", layer.position, count)
            layer.entries  # noqa: B018  (reads them)
        yield image


@contextmanager
def swapped_for(
    ledger: Ledger,
    report: Report | None,
    *,
    swap: Sequence[str],
    find_links: Sequence[str],
    index_url: str | None,
    risk: Risk,
    keep_layers: int,
    base: str | None,
    platform: str | None,
    **_: Any,
) -> Iterator[Swapped | None]:
    """The image with what the planning options ask for swapped; None where nothing is asked for."""
    from deadweight.errors import UsageError  # noqa: PLC0415
    from deadweight.image.transports import open_image  # noqa: PLC0415
    from deadweight.planning import protected  # noqa: PLC0415

    if not swap:
        if find_links or index_url is not None:
            raise UsageError("--find-links and --index-url say where wheels are: say --swap as well, as torch=cpu")
        yield None
        return
    if risk == "lossless":
        raise UsageError("--swap changes what the image can do: it goes with --risk target, policy or observed")
    from deadweight.files.cpu_wheel import Sources  # noqa: PLC0415
    from deadweight.swap.find import parse_swaps  # noqa: PLC0415
    from deadweight.swap.swapped import swapped_by  # noqa: PLC0415

    asked = parse_swaps(swap)
    if base is None:
        keep = protected(ledger.image, keep_layers, None)
    else:
        with open_image(base, platform) as below:
            keep = protected(ledger.image, keep_layers, below)
    with swapped_by(ledger, asked, Sources(tuple(find_links), index_url), keep, report) as swapped:
        yield swapped


@contextmanager
def swapped_as_planned(
    plan: Plan | None, ledger: Ledger, find_links: Sequence[str], index_url: str | None, report: Report | None
) -> Iterator[Swapped | None]:
    """The image with a plan's swaps done again; None where it has none."""
    if plan is None or not plan.swaps:
        yield None
        return
    from deadweight.files.cpu_wheel import Sources  # noqa: PLC0415
    from deadweight.swap.swapped import swapped_again  # noqa: PLC0415

    with swapped_again(ledger, plan, Sources(tuple(find_links), index_url), report) as swapped:
        yield swapped


def plan_for(
    ledger: Ledger,
    report: Report | None,
    target: Target | None,
    swapped: Swapped | None = None,
    *,
    risk: Risk,
    keep: Collection[str],
    skip: Collection[str],
    remove: Collection[str],
    root: Collection[str],
    keep_compile: bool | None,
    keep_layers: int,
    base: str | None,
    all_layers: bool,
    platform: str | None,
    weights: str | None,
    each_path: bool = False,
    **_: Any,
) -> Worked:
    """The plan that the planning options ask for, worked out; with `swapped`, over the image with those swaps done."""
    from deadweight.cli.output import message  # noqa: PLC0415
    from deadweight.errors import UsageError, shown  # noqa: PLC0415
    from deadweight.image.transports import open_image  # noqa: PLC0415
    from deadweight.passes.base import Options, matches  # noqa: PLC0415
    from deadweight.planning import draw_up  # noqa: PLC0415

    if weights is not None and (risk in ("lossless", "target") or "weights" in skip):
        raise UsageError(
            "--weights changes what models compute: it goes with --risk policy or observed, and the pass weights"
        )
    options = Options(tuple(keep), keep_compile, tuple(root), tuple(remove), target, weights)
    if swapped is not None:
        options = replace(options, orphans=swapped.orphans)
        ledger = swapped.ledger
    settings: dict[str, Any] = {
        "risk": risk,
        "skip": tuple(skip),
        "keep_layers": keep_layers,
        "all_layers": all_layers,
        "each_path": each_path,
        "progress": report,
        "new": swapped.changed if swapped is not None else (),
    }
    for pattern in keep:
        if not any(matches(path, pattern.strip("/")) for path in ledger.fs.nodes):
            message(
                f"--keep {shown(pattern)} matches nothing in the image: patterns are for whole paths, as '*/models'"
            )
    if base is None:
        worked = draw_up(ledger, options, **settings)
    else:
        with open_image(base, platform) as below:
            worked = draw_up(ledger, options, base=below, **settings)
    if swapped is None:
        return worked
    from deadweight.swap.join import joined  # noqa: PLC0415

    return joined(worked, swapped)


def declared_target(gpu: Sequence[str], keep_ptx: bool | None, raw_blobs: bool, recompress: bool) -> Target | None:
    """The target that --gpu and what goes with it declare, or None.

    Raises UsageError for what is no GPU, and for options that mean nothing without one.
    """
    if not gpu:
        given = [("--drop-ptx", keep_ptx is False), ("--raw-blobs", raw_blobs), ("--recompress", recompress)]
        for name, there in given:
            if there:
                from deadweight.errors import UsageError  # noqa: PLC0415

                raise UsageError(f"{name} says what to do about GPU code: say for which GPUs as well, as --gpu h100")
        return None
    from deadweight.binary.gpu import Target, parse_gpus  # noqa: PLC0415

    return Target(parse_gpus(gpu), keep_ptx is not False, raw_blobs, recompress)


def dockerfile_choices(
    wanted: Target | None, weights: str | None, base: str, add: tuple[str, ...], drop: tuple[str, ...]
) -> Choices:
    """What a Dockerfile is to say, of what its commands have in common; `add` and `drop` are Debian packages."""
    from deadweight.binary.target_document import gpu_names  # noqa: PLC0415
    from deadweight.build.dockerfile import Choices  # noqa: PLC0415

    return Choices(
        base=base,
        gpu="" if wanted is None else ",".join(gpu_names(wanted.gpus)) or "none",
        keep_ptx=wanted is None or wanted.keep_ptx,
        raw_blobs=wanted is not None and wanted.raw_blobs,
        recompress=wanted is not None and wanted.recompress,
        add=add,
        drop=drop,
        deadweight=f"deadweight{'[weights]' if weights else ''}=={version('deadweight')}",
        weights=weights or "",
    )


def cpu_sources(
    variant: str | None, find_links: Sequence[str], index_url: str | None, gpu: Sequence[str]
) -> Sources | None:
    """Where CPU builds are to come from, for `--variant cpu`; None without it.

    Raises UsageError for options that mean nothing without it, and for a GPU that it would not run on.
    """
    from deadweight.errors import UsageError  # noqa: PLC0415

    if variant is None:
        for name, given in (("--find-links", bool(find_links)), ("--index-url", index_url is not None)):
            if given:
                raise UsageError(f"{name} says where CPU builds come from: say --variant cpu as well")
        return None
    if any(one.strip().lower() != "none" for each in gpu for one in each.split(",")):
        raise UsageError("--variant cpu runs on no GPU: leave --gpu out, or build without --variant cpu")
    from deadweight.files.cpu_wheel import Sources  # noqa: PLC0415

    return Sources(tuple(find_links), index_url)


def check_passes(skip: Collection[str]) -> None:
    """Refuses to skip what is no pass, before the image is read. Raises UsageError."""
    if not skip:
        return
    from deadweight.errors import UsageError, shown  # noqa: PLC0415
    from deadweight.passes.base import all_passes  # noqa: PLC0415

    names = [one.name for one in all_passes()]
    for name in skip:
        if name not in names:
            raise UsageError(f"there is no pass {shown(name)} to skip; there are: {', '.join(names)}")


def plan_at(name: str) -> Plan:
    """The plan in a file, or on standard input (`-`). Raises BadInputError when it cannot be read, or is none."""
    from deadweight.errors import BadInputError, PlanError, shown  # noqa: PLC0415
    from deadweight.plan import read_plan  # noqa: PLC0415

    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise BadInputError(f"cannot read the plan {shown(name)}: {error.strerror}") from None
    try:
        return read_plan(data)
    except PlanError as error:
        raise PlanError(f"{shown(name)}: {error} (`deadweight plan IMAGE -o FILE` writes one)") from None
