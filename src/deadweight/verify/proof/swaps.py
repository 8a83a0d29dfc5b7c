"""A swapped image held to the original and to the wheels: nothing of what did the swap is believed.

Every path of the swap has what its wheel's RECORD says, or is metadata and true; every other one is the original's
entry, with the very bytes that the original has. What is gone belonged to the build that left.
"""

from __future__ import annotations

import csv
import hashlib
import io
import posixpath
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from deadweight.errors import BadInputError, shown
from deadweight.files.records import encode_hash
from deadweight.image.filesystem import Filesystem, Node
from deadweight.ledger.ledger import Ledger, module_of
from deadweight.ledger.python import Distribution
from deadweight.swap.swapped import Swapped
from deadweight.verify.proof.contents import File, first_difference, plain_file
from deadweight.verify.proof.walk import entry_differences

_OF_INSTALLERS = ("INSTALLER", "REQUESTED")


@dataclass
class SwapFindings:
    """What became of an image's files by its swaps."""

    differences: list[tuple[str, str]] = field(default_factory=list)
    other: set[str] = field(default_factory=set)
    """Paths that are not the original's any more: other contents, and new ones."""
    notes: list[str] = field(default_factory=list)


class _Stated(NamedTuple):
    """What a wheel's RECORD says of a file."""

    sha256: str
    size: int


class _Build(NamedTuple):
    """One swap, as the wheel and the original have it."""

    dist: Distribution
    files: dict[str, _Stated]
    """By image path."""
    info: str
    """The new metadata directory."""


def judge_swaps(swapped: Swapped) -> SwapFindings:
    """Holds every path of the swapped image to the original and the wheels."""
    found = SwapFindings()
    before, after = swapped.original, swapped.ledger
    builds = [_build(one.dist, one.wheel.place) for one in swapped.done]
    for build, swap in zip(builds, swapped.swaps, strict=True):
        counts = _judge_build(before, after, build, found)
        same, other, new = counts
        gone = sum(path not in after.fs.nodes for path in build.dist.files)
        found.notes.append(
            f"{swap.name} {swap.before} -> {swap.after}: {same:,} files are as they were, {other:,} others and {new:,} "
            f"new ones equal the wheel's by its RECORD, {gone:,} left with the old build"
        )
    _judge_rest(before.fs, after.fs, builds, found)
    left = {build.dist.info for build in builds}
    for dist in before.distributions:
        for path in dist.files if dist.info not in left else ():
            if path not in after.fs.nodes:
                found.differences.append((path, f"it is gone, and {shown(dist.display)} lists it as its own"))
    return found


def _build(dist: Distribution, place: Path) -> _Build:
    """What is to be there, read by the standard library alone."""
    with zipfile.ZipFile(place) as archive:
        record = next(
            name for name in archive.namelist() if name.count("/") == 1 and name.endswith(".dist-info/RECORD")
        )
        text = archive.read(record).decode("utf-8", "surrogateescape")
    info = record.rpartition("/")[0]
    data = info.removesuffix(".dist-info") + ".data/"
    own = {f"{info}/{name}" for name in ("RECORD", "RECORD.jws", "RECORD.p7s", *_OF_INSTALLERS)}
    files = {}
    for name, digest, size in _rows(text):
        inside = name.removeprefix(data).partition("/")[2] if name.startswith(data) else name
        if digest and name not in own:
            files[f"{dist.site}/{inside}"] = _Stated(digest.removeprefix("sha256="), int(size))
    return _Build(dist, files, f"{dist.site}/{info}")


def _rows(text: str) -> Iterator[tuple[str, str, str]]:
    """The lines of a RECORD: name, hash and size, of which the last two may be missing, as pip takes them."""
    try:
        for row in csv.reader(io.StringIO(text, newline="")):
            name, digest, size, *_ = *row, "", "", ""
            if name:
                yield name, digest, size
    except csv.Error as error:
        raise BadInputError(f"a RECORD is no CSV: {error}") from None


def _judge_build(before: Ledger, after: Ledger, build: _Build, found: SwapFindings) -> tuple[int, int, int]:
    """Judges the files of a new build; counts those that are as they were, other ones, and new ones."""
    same = other = new = 0
    for path, stated in build.files.items():
        node, old = after.fs.nodes.get(path), before.fs.nodes.get(path)
        if node is None or node.kind != "file":
            found.differences.append((path, "the new build has it, and it is not there"))
            continue
        file = plain_file(after.fs, node)
        if file.size != stated.size or _sha256(file) != stated.sha256:
            found.differences.append((path, "it is not what the wheel's RECORD says of it"))
        if old is None:
            new += 1
            found.other.add(path)
            continue
        if _same_bytes(before.fs, old, after.fs, node):
            same += 1
        else:
            other += 1
            found.other.add(path)
        _judge_header(path, old, node, found)
    _judge_metadata(before, after, build, found)
    return same, other, new


def _judge_header(path: str, old: Node, node: Node, found: SwapFindings) -> None:
    if old.source is not None and node.source is not None and old.kind == node.kind == "file":
        found.differences += [(path, each) for each in entry_differences(old.source, node.source)]


def _judge_metadata(before: Ledger, after: Ledger, build: _Build, found: SwapFindings) -> None:
    """RECORD says what is there, no more and no less; what installers write is as it was."""
    record = f"{build.info}/RECORD"
    listed = dict.fromkeys((*build.files, record))
    for name in _OF_INSTALLERS:
        old, new = f"{build.dist.info}/{name}", f"{build.info}/{name}"
        there = old in before.fs.nodes
        if there != (new in after.fs.nodes) or (there and before.fs.read(old) != after.fs.read(new)):
            found.differences.append((new, "it is not as it was"))
        elif there:
            listed[new] = None
            found.other.add(new)
    found.other.add(record)
    if record not in after.fs.nodes:
        found.differences.append((record, "it is not there"))
        return
    kept = {path for path in build.dist.files if path not in listed and path in after.fs.nodes}
    written = {}
    text = after.fs.read(record).decode("utf-8", "surrogateescape")
    for name, digest, size in _rows(text):
        path = posixpath.normpath(posixpath.join("/", build.dist.site, name)).lstrip("/")
        node = after.fs.resolve(posixpath.dirname(path))
        path = posixpath.join(node.path, posixpath.basename(path)) if node is not None else path
        written[path] = digest, size
    others = {path for dist in after.distributions if dist.info != build.info for path in dist.files}
    listed.update(dict.fromkeys(kept - (others - written.keys())))
    for path in listed.keys() ^ written.keys():
        how = "does not list it" if path in listed else "lists it, and it is none of the distribution's"
        found.differences.append((record, f"it {how.replace('it', shown('/' + path), 1)}"))
    for path, (digest, size) in written.items():
        if digest and path in after.fs.nodes and path not in kept:
            file = plain_file(after.fs, after.fs.nodes[path])
            if (digest, size) != (f"sha256={_sha256(file)}", str(file.size)):
                found.differences.append((record, f"what it says of {shown('/' + path)} is not true"))


def _judge_rest(before: Filesystem, after: Filesystem, builds: list[_Build], found: SwapFindings) -> None:
    """All that no new build has is the original's, or belonged to an old one."""
    mine = {path for build in builds for path in build.files} | found.other
    above = {parent for path in mine for parent in _above(path)}
    old = {path for build in builds for path in build.dist.files}
    for path, node in after.nodes.items():
        if path in mine:
            continue
        was = before.nodes.get(path)
        if was is None:
            if path not in above or node.kind != "dir":
                found.differences.append((path, "it is new, and no build has it"))
            found.other.add(path)
        elif was.kind != node.kind or (was.source is None) != (node.source is None):
            found.differences.append((path, f"it was a {was.kind}, now it is a {node.kind}"))
        elif was.source is not None and node.source is not None:
            found.differences += [(path, each) for each in entry_differences(was.source, node.source)]
            if node.kind == "file" and not _same_bytes(before, was, after, node):
                found.differences.append((path, "its content differs, and it is no file of the build"))
    gone = {path for path in before.nodes if path not in after.nodes}
    for path in gone:
        bytecode = path.endswith(".pyc") and module_of(path) in old
        if path not in old and not bytecode and not (before.nodes[path].kind == "dir" and before.children(path)):
            found.differences.append((path, "it is gone, and did not belong to the build that left"))


def _same_bytes(before: Filesystem, one: Node, after: Filesystem, two: Node) -> bool:
    """Whether two files have the same content: most are the same bytes of the same file of this machine."""
    a, b = (
        fs.image.layers[node.source_layer].tar.window(node.source.data, node.source.stored)
        for fs, node in ((before, one), (after, two))
        if node.source is not None
    )
    if a.fd >= 0 and (a.fd, a.start, a.size) == (b.fd, b.start, b.size):
        return True
    return a.size == b.size and first_difference(File(a.read_at, a.size), File(b.read_at, b.size)) is None


def _sha256(file: File) -> str:
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    return encode_hash(digest.digest())


def _above(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path
