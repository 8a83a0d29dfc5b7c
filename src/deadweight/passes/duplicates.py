"""Files of one layer with the same content and metadata: they become hard links to the first of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from deadweight.image.filesystem import Key
from deadweight.image.layer import Entry, padding
from deadweight.passes.base import Context, Pass, Proposal
from deadweight.passes.inodes import changeable_name

THREADS = 2
PREFIX = 64 << 10
# Services write there, and into what was hard-linked both names would change.
WRITTEN = ("etc/", "var/", "tmp/", "run/", "home/", "root/", "srv/", "mnt/", "data/")
LONG_NAME = 100
LONG_NAME_COST = 1024  # a pax header and its content, when a link's target does not fit into the header

_Meta = tuple[int, int, int, int, int, float, str, tuple[tuple[str, str], ...]]


def propose(context: Context) -> Iterator[Proposal]:
    """Links, ordered by path."""
    found = []
    facts, groups = context.ledger.facts, _groups(context)
    with ThreadPoolExecutor(THREADS) as pool:
        for prefix in (PREFIX, None):  # most files that differ do so at their beginning
            files = [file for group in groups for file in group]
            digest = partial(_digest, context, prefix)
            list(pool.map(digest, [file for file in files if not facts.has(_kind(prefix), file[0], bytes)]))
            groups = _split(groups, map(digest, files))
    for group in groups:
        group.sort()
        target = group[0][1]
        to_cost = LONG_NAME_COST if len(target.encode("utf-8", "surrogateescape")) > LONG_NAME else 0
        for key, path in group[1:]:
            stored = context.ledger.fs.entry(key).stored
            if stored + padding(stored) > to_cost:
                found.append(Proposal("link", path, "a copy of another file", f"the same as /{target}", to=target))
    yield from sorted(found, key=lambda proposal: proposal.path)


_File = tuple[Key, str]
_Group = list[_File]


def _groups(context: Context) -> list[_Group]:
    """Files that could be equal: all but the content is."""
    fs = context.ledger.fs
    by_meta: dict[_Meta, list[Key]] = {}
    names = context.ledger.names
    rewritten, gone = context.rewritten, context.gone
    for key, paths in names.items():
        if paths[0] in gone and gone.issuperset(paths):
            continue
        if key in rewritten:  # its copies may be for somebody who reads the old content
            continue
        entry = fs.entry(key)
        if entry.stored and not entry.sparse and not any(map(_excluded, paths)):
            by_meta.setdefault(_meta(key[0], entry), []).append(key)
    groups = []
    for keys in by_meta.values():
        if len(keys) < 2:
            continue
        group = []
        for key in keys:
            paths = names[key]
            name = changeable_name(context, paths)
            if name is not None and all(fs.nodes[path].layer == key[0] for path in paths):
                group.append((key, name))
        if len(group) > 1:
            groups.append(group)
    return groups


def _excluded(path: str) -> bool:
    # Metadata of distributions is rewritten when files leave: each needs its own.
    return path.startswith(WRITTEN) or ".dist-info/" in path or ".egg-info" in path


def _meta(layer: int, e: Entry) -> _Meta:
    return layer, e.stored, e.mode, e.uid, e.gid, e.mtime, e.owner, e.xattrs


def _digest(context: Context, prefix: int | None, file: _File) -> bytes:
    return context.ledger.facts.of(_kind(prefix), file[0], bytes, lambda: _hashed(context, prefix, file[0]))


def _kind(prefix: int | None) -> str:
    return "sha256" if prefix is None else "beginning"


def _hashed(context: Context, prefix: int | None, key: Key) -> bytes:
    layer, index = key
    tar = context.ledger.image.layers[layer].tar
    entry = context.ledger.image.layers[layer].entries[index]
    if prefix is not None:
        return hashlib.sha256(tar.read_at(entry.data, min(prefix, entry.stored))).digest()
    digest = hashlib.sha256()
    for chunk in tar.chunks(entry.data, entry.stored):
        digest.update(chunk)
    return digest.digest()


def _split(groups: list[_Group], digests: Iterator[bytes]) -> list[_Group]:
    """The groups again, by digest as well; without those of one."""
    found: list[_Group] = []
    for group in groups:
        parts: dict[bytes, _Group] = {}
        for file in group:
            parts.setdefault(next(digests), []).append(file)
        found += [part for part in parts.values() if len(part) > 1]
    return found


PASS = Pass(
    name="duplicates",
    risk="lossless",
    order=70,
    summary="copies of a file in one layer, which become hard links",
    propose=propose,
)
