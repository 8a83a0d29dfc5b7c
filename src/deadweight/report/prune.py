"""What left files on this machine, in place or from wheels, for people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace
from rich.console import Console
from rich.text import Text

from deadweight.files.account import LeftFile, PrunedFile
from deadweight.prune import Pruned
from deadweight.report.tables import BOLD, DIM, Line, bytes_table, paragraphs
from deadweight.report.text import plain, valid
from deadweight.sizes import show_share, show_size
from deadweight.wheel import SlimWheel

_NAMED: Final = 4
_STAYS: Final = {
    "gpu code": "GPU code stays",
    "symbols": "symbols stay",
    "file": "everything stays",
    "weights": "weights stay",
    "leftovers": "what patchelf left behind stays",
}
Found = TypeVar("Found", Pruned, SlimWheel)


class WheelReport(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.wheel/1"):
    """The document of `deadweight wheel`."""

    wheels: list[SlimWheel]


def printable(found: Found) -> Found:
    """The same with names that can be encoded, whatever bytes they are made of."""
    files = [
        replace(one, path=valid(one.path), distribution=valid(one.distribution), links=list(map(valid, one.links)))
        for one in found.files
    ]
    left = [replace(one, path=valid(one.path)) for one in found.left]
    found = replace(found, files=files, left=left, notes=list(map(valid, found.notes)))
    if isinstance(found, Pruned):
        return replace(found, directory=valid(found.directory))
    wheel = None if found.wheel is None else valid(found.wheel)
    return replace(found, source=valid(found.source), wheel=wheel)


def print_pruned(console: Console, found: Pruned, top: int) -> None:
    """What left a directory, by package and by library."""
    console.print(Text(plain(found.directory), BOLD))
    console.print(Text(_target(found)))
    _change(console, found.before_bytes, found.after_bytes, found)
    if found.dry_run:
        console.print("a dry run: nothing was changed")
    if found.files:
        bytes_table(console, "Saved, by package", _packages(found), what="package", top=top, total="saved")
        _libraries(console, found.files, top)
    paragraphs(console, "As it was, and why", _left(found.left))
    paragraphs(console, "Notes", found.notes)


def print_wheels(console: Console, report: WheelReport, top: int) -> None:
    """What left each wheel, and where the new one is."""
    for number, found in enumerate(report.wheels):
        if number:
            console.print()
        console.print(Text(plain(found.source), BOLD))
        if found.wheel is None:
            console.print("nothing to drop: no wheel was written")
        else:
            _change(console, found.before_bytes, found.after_bytes, found)
            installed = f"installed: {show_size(found.installed_before_bytes)} -> "
            console.print(Text(f"{installed}{show_size(found.installed_after_bytes)}", DIM))
            console.print(Text(plain(found.wheel)), soft_wrap=True)
            _libraries(console, found.files, top)
        paragraphs(console, "As it was, and why", _left(found.left))
        paragraphs(console, "Notes", found.notes)


def _target(found: Pruned) -> str:
    if found.gpus is None:
        return "no GPU declared: GPU code stays"
    text = f"for {', '.join(found.gpus) or 'machines without a GPU'}"
    if found.gpus:
        text += "; PTX stays, for newer GPUs" if found.keep_ptx else "; PTX leaves: newer GPUs are out"
    return text + ("; raw blobs leave" if found.raw_blobs else "") + ("; recompressed" if found.recompress else "")


def _change(console: Console, before: int, after: int, found: Pruned | SlimWheel) -> None:
    console.print()
    if not found.files:
        console.print("nothing to drop")
        return
    line = Text(f"{show_size(before)} -> {show_size(after)}", BOLD)
    line.append(f"   {show_share(before - after, before)} less: {before - after:,} bytes")
    console.print(line)
    parts = [("GPU code", found.gpu_code_bytes), ("symbols", found.symbols_bytes)]
    others = [("leftovers", found.leftovers_bytes), ("weights", _weights(found))]
    parts += [(what, size) for what, size in others if size]
    console.print(", ".join(f"{what} {size:,} bytes ({show_size(size)})" for what, size in parts))


def _weights(found: Pruned | SlimWheel) -> int:
    return found.weights_bytes if isinstance(found, Pruned) else 0


def _packages(found: Pruned) -> list[Line]:
    """The savings of each distribution, largest first."""
    lines = []
    files = sorted(found.files, key=lambda one: one.distribution)
    for name, group in groupby(files, lambda one: one.distribution):
        members = list(group)
        saved = sum(one.before_bytes - one.after_bytes for one in members)
        lines.append(Line(saved, name or "(no package)", f"{_files(len(members))}: {_parts(members)}"))
    return sorted(lines, key=lambda line: -line.bytes)


def _libraries(console: Console, files: Sequence[PrunedFile], top: int) -> None:
    lines = []
    for one in files:
        change = f"{one.before_bytes:,} -> {one.after_bytes:,} bytes"
        lines.append(Line(one.before_bytes - one.after_bytes, one.path, f"{change}: {_parts([one])}"))
    bytes_table(console, "Saved, by library", lines, what="library", top=top, total="saved")


def _parts(files: Sequence[PrunedFile]) -> str:
    parts = (
        ("GPU code", sum(one.gpu_code_bytes for one in files)),
        ("symbols", sum(one.symbols_bytes for one in files)),
        ("leftovers", sum(one.leftovers_bytes for one in files)),
        ("weights", sum(one.weights_bytes for one in files)),
    )
    return ", ".join(f"{what} {show_size(size)}" for what, size in parts if size)


def _left(left: Sequence[LeftFile]) -> list[str]:
    """What stays, grouped by why, the largest first."""
    groups: dict[tuple[str, str], list[LeftFile]] = {}
    for one in left:
        groups.setdefault((one.what, one.reason), []).append(one)
    texts = []
    for (what, reason), members in sorted(groups.items(), key=lambda item: -sum(one.bytes for one in item[1])):
        names = [one.path for one in sorted(members, key=lambda one: (-one.bytes, one.path))]
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        size = sum(one.bytes for one in members)
        texts.append(
            f"{_STAYS[what]} in {_files(len(members))} of {size:,} bytes ({show_size(size)}): {reason}: "
            f"{', '.join(names[:_NAMED])}{more}"
        )
    return texts


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"
