"""Compares images: sizes, and what came, went and grew from one to the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from heapq import nsmallest
from itertools import pairwise
from typing import Final, Literal

from packaging.version import InvalidVersion, Version

from deadweight.ledger.account import Account
from deadweight.ledger.debian_version import compare_versions
from deadweight.ledger.ledger import HIDDEN
from deadweight.report.model import (
    BytesChange,
    CompareReport,
    FileChange,
    FileChanges,
    ImageChange,
    InspectReport,
    LayerLine,
    LayerName,
    OwnerChange,
    PhaseLine,
)
from deadweight.report.text import valid

Sizes = Mapping[str, int]
"""Bytes of files, by path."""
_FILES: Final = 1000
"""How many files a report names: from one image to the next tens of thousands may differ."""


def file_sizes(account: Account) -> dict[str, int]:
    """The bytes of each file that a container sees, by path."""
    found: Counter[str] = Counter()
    for row in account.rows:
        if row.path and row.owner != HIDDEN:
            found[row.path] += row.bytes
    return dict(found)


def compare_report(
    images: Sequence[InspectReport], target: int | None = None, files: Sequence[Sizes | None] = ()
) -> CompareReport:
    """What is to be said of at least one image; `target` is the size to reach, in bytes.

    `files` are the images' files, as `file_sizes` gives them; None for an image of which there is a report alone.
    """
    first = images[0].bytes
    lines = [
        PhaseLine(
            reference=here.image.reference,
            digest=here.image.digest,
            platform=here.image.platform,
            bytes=here.bytes,
            stored_bytes=here.stored_bytes,
            difference=here.bytes - before.bytes,
            cumulative=here.bytes - first,
            share=here.bytes / first if first else 1.0,
            gap=None if target is None else here.bytes - target,
        )
        for before, here in zip([images[0], *images], images, strict=False)
    ]
    notes = list(dict.fromkeys(note for each in images for note in each.notes))
    if len({each.image.platform for each in images}) > 1:
        notes.append("the images are for different platforms")
    steps = zip(pairwise(images), pairwise(files or [None] * len(images)), strict=True)
    changes = [_image_change(place, *pair, _file_changes(*sizes)) for place, (pair, sizes) in enumerate(steps)]
    return CompareReport(target, lines, changes, notes)


def _image_change(place: int, before: InspectReport, after: InspectReport, files: FileChanges | None) -> ImageChange:
    """What became of the image at `place`, from 0, in the next one."""
    old, new = _owners(before), _owners(after)
    same = [found for key, found in old.items() if new.get(key) == found]
    owners = [_owner_change(key, old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)]
    gone, added = _missing(before.layers, after.layers), _missing(after.layers, before.layers)
    return ImageChange(
        before=place,
        after=place + 1,
        before_bytes=before.bytes,
        after_bytes=after.bytes,
        owners=sorted(owners, key=lambda one: (-abs(one.after_bytes - one.before_bytes), one.name, one.kind)),
        unchanged=len(same),
        unchanged_bytes=sum(size for _, size in same),
        categories=_changes(
            {one.name: one.bytes for one in before.categories}, {one.name: one.bytes for one in after.categories}
        ),
        gpu_code=_changes(
            {one.arch: one.bytes for one in before.gpu_code}, {one.arch: one.bytes for one in after.gpu_code}
        ),
        shared_bytes=before.bytes - sum(layer.bytes for layer in gone),
        shared_layers=len(before.layers) - len(gone),
        layers_gone=gone,
        layers_new=added,
        files=files,
    )


def _owners(report: InspectReport) -> dict[tuple[str, str], tuple[str, int]]:
    """The versions and bytes of each owner, by kind and name."""
    found: dict[tuple[str, str], tuple[str, int]] = {}
    for one in sorted(report.owners, key=lambda owner: owner.version):
        version, size = found.get((one.kind, one.name), ("", 0))
        found[one.kind, one.name] = (", ".join(filter(None, (version, one.version))), size + one.bytes)
    return found


def _owner_change(key: tuple[str, str], before: tuple[str, int] | None, after: tuple[str, int] | None) -> OwnerChange:
    kind, name = key
    old, old_bytes = before or ("", 0)
    new, new_bytes = after or ("", 0)
    change: Literal["added", "removed", "upgraded", "downgraded", "changed", "grown", "shrunk"]
    if before is None:
        change = "added"
    elif after is None:
        change = "removed"
    elif old != new:
        order = _order(kind, old, new)
        change = "changed" if order == 0 else "upgraded" if order < 0 else "downgraded"
    else:
        change = "grown" if new_bytes > old_bytes else "shrunk"
    return OwnerChange(name, kind, change, old, new, old_bytes, new_bytes)


def _order(kind: str, old: str, new: str) -> int:
    """Below zero where `new` is newer; zero where that cannot be told, or it is another build of the same version."""
    if kind == "debian":
        return compare_versions(old, new)
    try:
        one, two = Version(old), Version(new)
    except InvalidVersion:
        return 0
    return 0 if one.public == two.public else -1 if one < two else 1


def _changes(before: dict[str, int], after: dict[str, int]) -> list[BytesChange]:
    """All kinds of bytes, the largest differences first."""
    lines = [BytesChange(name, before.get(name, 0), after.get(name, 0)) for name in {**before, **after}]
    return sorted(lines, key=lambda one: (-abs(one.after_bytes - one.before_bytes), -one.after_bytes, one.name))


def _file_changes(before: Sizes | None, after: Sizes | None) -> FileChanges | None:
    if before is None or after is None:
        return None
    paths = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    largest = nsmallest(_FILES, paths, key=lambda path: (-abs(after.get(path, 0) - before.get(path, 0)), path))
    return FileChanges(
        count=len(paths),
        before_bytes=sum(before.get(path, 0) for path in paths),
        after_bytes=sum(after.get(path, 0) for path in paths),
        largest=[_file_change(path, before.get(path), after.get(path)) for path in largest],
    )


def _file_change(path: str, before: int | None, after: int | None) -> FileChange:
    change: Literal["added", "removed", "grown", "shrunk"]
    if before is None or after is None:
        change = "added" if before is None else "removed"
    else:
        change = "grown" if after > before else "shrunk"
    return FileChange(valid(f"/{path}"), change, before or 0, after or 0)


def _missing(layers: Sequence[LayerLine], others: Sequence[LayerLine]) -> list[LayerName]:
    """The layers that are not among `others`: an image may have one twice."""
    there = Counter(layer.diff_id for layer in others)
    missing = []
    for layer in layers:
        there[layer.diff_id] -= 1
        if there[layer.diff_id] < 0:
            missing.append(LayerName(layer.layer, layer.diff_id, layer.bytes, layer.created_by))
    return missing
