"""Metadata stays true: what RECORD files and dpkg's database must say once an edit is done.

A file that was changed after its wheel or package was installed is left as found: its line did not match before, and
is not made to match.
"""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import msgspec

from deadweight.binary.gpu import Target
from deadweight.binary.target_document import IN_IMAGE, labels, write_document
from deadweight.image.addition import is_plain
from deadweight.image.content import Content
from deadweight.image.edit import Edit
from deadweight.image.filesystem import Key
from deadweight.image.links import Links, inode_of
from deadweight.ledger.debian import Package, drop_list_lines, drop_stanzas, rewrite_md5sums, written_as
from deadweight.ledger.ledger import Ledger
from deadweight.ledger.python import Distribution, names_in_record
from deadweight.ledger.record import paths_of, record_hash, rewrite_record
from deadweight.passes.outcomes import Digests, are_known, digests
from deadweight.passes.target import read_slimmed, slimmed_for

STATUS = "var/lib/dpkg/status"
EXTENDED_STATES = "var/lib/apt/extended_states"
WORKERS = 2


class Derived(msgspec.Struct):
    """New contents of metadata files, with the changed paths that each follows from, and what else there is to say."""

    contents: dict[str, Content] = msgspec.field(default_factory=dict)
    causes: dict[str, set[str]] = msgspec.field(default_factory=dict)
    reasons: dict[str, str] = msgspec.field(default_factory=dict)
    additions: dict[str, bytes] = msgspec.field(default_factory=dict)
    """Contents of new files, or of ones that take the place of files in layers that stay."""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    """Labels that the image gets."""
    notes: list[str] = msgspec.field(default_factory=list)

    def add(self, path: str, data: bytes, causes: set[str], reason: str) -> None:
        self.contents[path] = Content((data,))
        self.causes[path] = causes
        self.reasons[path] = reason


def derive(ledger: Ledger, edit: Edit, removed: frozenset[str]) -> Derived:
    """What follows from an edit that really removes `removed`."""
    names = _names(ledger, edit)
    changed = {path: key for key, paths in names.items() for path in paths if path not in removed}
    before, after = _all_digests(ledger, edit)
    pairs = {path: (before[key], after[key]) for path, key in changed.items()}
    derived = Derived()
    for dist in ledger.distributions:
        _record(ledger, dist, removed, pairs, derived)
    _dpkg(ledger, removed, pairs, derived)
    return derived


def derive_target(
    ledger: Ledger, edit: Edit, removed: frozenset[str], target: Target, causes: set[str], derived: Derived
) -> None:
    """What follows once GPU code that is not for the target left: the image says so, in labels and in a file.

    The file is new, or gets new content, unless it says so already.
    """
    slimmed, note = slimmed_for(ledger.fs, target)
    derived.labels = labels(slimmed)
    if note is not None:
        derived.notes.append(note)
    old = read_slimmed(ledger.fs)
    if old is not None and msgspec.structs.replace(old, deadweight=slimmed.deadweight) == slimmed:
        return
    derived.causes[IN_IMAGE], derived.reasons[IN_IMAGE] = causes, "says for which GPUs the image's GPU code is"
    data, node = write_document(slimmed), ledger.fs.nodes.get(IN_IMAGE)
    untouched = IN_IMAGE not in removed.union(edit.link.keys(), edit.link.values())
    if node is not None and node.layer not in edit.keep_layers and untouched and is_plain(ledger.fs, IN_IMAGE):
        derived.contents[IN_IMAGE] = Content((data,))
    else:
        derived.additions[IN_IMAGE] = data


def _names(ledger: Ledger, edit: Edit) -> dict[Key, list[str]]:
    """For each file that is rewritten, all its names: hard links, and the files that become some."""
    links = Links(ledger.fs, edit.link)
    carriers = {path: inode_of(ledger.fs, path) for path in edit.rewrite}
    wanted = {links.root(key): key for key in carriers.values()}
    names: dict[Key, list[str]] = {}
    by_inode = ledger.names
    for inode in dict.fromkeys((*wanted, *links.merged)):
        key = wanted.get(links.root(inode))
        if key is not None:
            names.setdefault(key, []).extend(by_inode.get(inode, ()))
    return names


Pair = tuple[Digests, Digests]


def _all_digests(ledger: Ledger, edit: Edit) -> tuple[dict[Key, Digests], dict[Key, Digests]]:
    """The digests of each rewritten file, before and after."""
    tasks: list[tuple[str, Content | None]] = []
    for path, content in edit.rewrite.items():
        tasks += [(path, None), (path, content)]
    unknown = [(path, new) for path, new in tasks if not _is_known(ledger, path, new)]
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda task: _digests(ledger, *task), unknown))
    results = [_digests(ledger, *task) for task in tasks]
    before: dict[Key, Digests] = {}
    after: dict[Key, Digests] = {}
    for (path, new), found in zip(tasks, results, strict=True):
        (before if new is None else after)[_inode(ledger, path)] = found
    return before, after


def _digests(ledger: Ledger, path: str, content: Content | None) -> Digests:
    return digests(ledger, _inode(ledger, path), content, md5=_by_md5(ledger, path))


def _is_known(ledger: Ledger, path: str, content: Content | None) -> bool:
    return are_known(ledger, _inode(ledger, path), content, md5=_by_md5(ledger, path))


def _inode(ledger: Ledger, path: str) -> Key:
    key = ledger.fs.nodes[path].inode
    assert key is not None  # it has content
    return key


def _by_md5(ledger: Ledger, path: str) -> bool:
    """Whether a list has the file's MD5, as dpkg's have."""
    return ledger.owner(path).kind == "debian"


def _record(
    ledger: Ledger, dist: Distribution, removed: frozenset[str], changed: Mapping[str, Pair], derived: Derived
) -> None:
    path = posixpath.join(dist.info, "RECORD")
    node = ledger.fs.nodes.get(path)
    if not dist.has_record or path in removed or node is None:
        return
    touched = {p for p in dist.files if p in removed or p in changed}
    if not touched:
        return
    raw = ledger.fs.read(path)
    names = paths_of(names_in_record(ledger.fs, ledger.facts, path), dist.site)
    new: dict[str, tuple[str, int]] = {}
    rewritten = touched & names.keys() & changed.keys()
    hashes = record_hash(raw, [names[place] for place in rewritten]) if rewritten else {}
    for place in rewritten:
        before, after = changed[place]
        name = names[place]
        if hashes.get(name) == ("sha256", _base64(before.sha256), before.size):
            new[name] = (_base64(after.sha256), after.size)
    data = rewrite_record(raw, {names[p] for p in touched & removed & names.keys()}, new)
    if data != raw:
        derived.add(path, data, touched, "follows from cuts of its files")


def _base64(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _dpkg(ledger: Ledger, removed: frozenset[str], changed: Mapping[str, Pair], derived: Derived) -> None:
    leaving: set[tuple[str, str]] = set()
    causes: set[str] = set()
    changed = {path: pair for path, pair in changed.items() if path in ledger.owners}
    for package in ledger.packages:
        lists = [path for path in package.info_files if path.endswith(".list")]
        if lists and all(path in removed for path in lists):
            leaving.add((package.name, package.architecture))
            causes.update(lists)
        gone = {p for p in (*package.files, *package.listed_directories, *package.info_files) if p in removed}
        new = {p: changed[p] for p in package.files if p in changed}
        if new or gone.difference(package.info_files):
            _package(ledger, package, gone, new, derived)
    for path in (STATUS, EXTENDED_STATES):
        node = ledger.fs.nodes.get(path)
        if leaving and node is not None and node.kind == "file" and path not in removed:
            raw = ledger.fs.read(path)
            data = drop_stanzas(raw, leaving)
            if data != raw:
                derived.add(path, data, causes, "follows from the removal of packages")


def _package(ledger: Ledger, package: Package, gone: set[str], new: Mapping[str, Pair], derived: Derived) -> None:
    """A package's .list and .md5sums, as far as they stay, without the files that left."""
    written = {path: next(iter(written_as(package, [path]))) for path in gone | new.keys()}
    for path in package.info_files:
        if path in gone or path in derived.contents or path.rpartition(".")[2] not in ("list", "md5sums"):
            continue
        raw = ledger.fs.read(path)
        lost = {written[p] for p in gone}
        if path.endswith(".list"):
            data = drop_list_lines(raw, lost)
        else:
            sums = {
                written[p]: after.md5.hex() for p, (before, after) in new.items() if _stated(raw, written[p], before)
            }
            data = rewrite_md5sums(raw, lost, sums)
        if data != raw:
            derived.add(path, data, gone | new.keys(), f"follows from cuts of files of {package.name}")


def _stated(md5sums: bytes, name: str, before: Digests) -> bool:
    line = before.md5.hex().encode() + b"  " + name.encode("utf-8", "surrogateescape")
    return line in md5sums.split(b"\n")
