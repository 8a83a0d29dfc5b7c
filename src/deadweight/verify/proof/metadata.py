"""Metadata that follows from cuts, held to what is really there: RECORD files, dpkg's database, the target's document.

Nothing here is worked out as the planner does it. A file says nothing new that is not true, and loses nothing but what
is about files that left.
"""

from __future__ import annotations

import base64
import posixpath
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import msgspec

from deadweight.binary.target_document import IN_IMAGE, LIMIT, read_document, write_document
from deadweight.errors import BadInputError, shown
from deadweight.image.filesystem import Node
from deadweight.ledger.debian import Package
from deadweight.ledger.ledger import Ledger
from deadweight.ledger.record import RecordLine, read_record, record_paths
from deadweight.passes.metadata import EXTENDED_STATES, STATUS
from deadweight.passes.target import slimmed_for
from deadweight.verify.proof.contents import Digests
from deadweight.verify.proof.declarations import Declared

_BLANK = re.compile(rb"[ \t]*\n?\Z")
_LINE = re.compile(rb"[^\n]*\n|[^\n]+\Z")


@dataclass(frozen=True)
class Changes:
    """What became of the files of an image."""

    before: Ledger
    after: Ledger
    rewritten: Collection[str]
    """Paths whose content is another one."""
    damaged: Collection[str]
    """Those of them that are not what they should be: what says so of them is right."""
    old: Digests
    new: Digests

    def gone(self, path: str) -> bool:
        """Whether it was there by itself, and is no more."""
        node = self.before.fs.nodes.get(path)
        return node is not None and node.entry is not None and path not in self.after.fs.nodes

    @cached_property
    def packages(self) -> dict[str, Package]:
        """Debian's packages by their files in dpkg's database."""
        return {path: package for package in self.before.packages for path in package.info_files}

    @cached_property
    def leaving(self) -> list[Package]:
        """Packages that dpkg has no list of files for any more."""
        found = []
        for package in self.before.packages:
            lists = [path for path in package.info_files if path.endswith(".list")]
            if lists and all(map(self.gone, lists)):
                found.append(package)
        return found


def is_metadata(path: str) -> bool:
    """Whether a file of this name is one that follows from cuts."""
    if path in (STATUS, EXTENDED_STATES, IN_IMAGE) or path.endswith(".dist-info/RECORD"):
        return True
    return path.startswith("var/lib/dpkg/") and path.endswith((".list", ".md5sums"))


def untrue(path: str, changes: Changes, declared: Declared) -> str | None:
    """What the metadata file at `path` says that does not follow from what became of other files; None if all does."""
    if path == IN_IMAGE:
        return _untrue_target(changes, declared)
    try:
        old, new = changes.before.fs.read(path), changes.after.fs.read(path)
    except BadInputError as error:  # too large to be one
        return str(error)
    if path in (STATUS, EXTENDED_STATES):
        return _untrue_stanzas(old, new, changes)
    if path.endswith(".dist-info/RECORD"):
        return _untrue_record(path, old, new, changes)
    package = changes.packages.get(path)
    if package is None:
        return "no package has this list"
    return (_untrue_list if path.endswith(".list") else _untrue_md5sums)(package, old, new, changes)


def stale(changes: Changes, declared: Declared) -> Iterator[tuple[str, str]]:
    """Metadata files that are as they were, and what they say that is no longer so."""
    nodes, were = changes.after.fs.nodes, changes.before.fs.nodes
    infos = [posixpath.join(dist.info, "RECORD") for dist in changes.before.distributions if dist.has_record]
    lists = [path for path in changes.packages if is_metadata(path)]
    for path in [*infos, *lists, STATUS, EXTENDED_STATES]:
        there = path in nodes and path in were and nodes[path].kind == were[path].kind == "file"
        if there and path not in changes.rewritten and is_metadata(path):
            reason = untrue(path, changes, declared)
            if reason is not None:
                yield path, reason


# --- RECORD --------------------------------------------------------------------------------------------


def _untrue_record(path: str, old: bytes, new: bytes, changes: Changes) -> str | None:
    site = path.rpartition("/")[0].rpartition("/")[0]
    place = {name: where for where, name in record_paths(old, site).items()}
    lines = read_record(new)[::-1]
    for line in read_record(old):
        where = place.get(line.name)
        node = changes.before.fs.nodes.get(where) if where is not None else None
        if where is not None and node is not None and node.kind != "dir" and changes.gone(where):
            if lines and lines[-1].raw == line.raw:
                return f"it lists {shown(line.name)}, which is gone"
            continue
        if not lines:
            return f"the line of {shown(line.name)} is missing"
        found = lines.pop()
        if where is not None and where in changes.rewritten and where != path:
            reason = _untrue_line(line, found, where, changes)
            if reason is not None:
                return reason
        elif found.raw != line.raw:
            return f"the line of {shown(line.name)} is missing, or another one"
    return f"it lists {shown(lines[-1].name)}, which it did not" if lines else None


def _untrue_line(old: RecordLine, new: RecordLine, path: str, changes: Changes) -> str | None:
    """A line about a rewritten file: it is true, or as wrong as it was."""
    after, before = changes.after.fs.nodes[path], changes.before.fs.nodes[path]
    if path in changes.damaged:
        return None if new.name == old.name else f"the line of {shown(old.name)} is missing, or another one"
    if new.raw == old.raw:
        was = old.hash == _base64(changes.old.of(path, "sha256")) and old.size == str(before.size)
        return f"it has the old hash of {shown(old.name)}" if was else None
    head, found, tail = old.raw.partition(f",{old.hash},{old.size}".encode("utf-8", "surrogateescape"))
    true = head + f",{_base64(changes.new.of(path, 'sha256'))},{after.size}".encode() + tail
    return None if found and new.raw == true else f"what it says of {shown(old.name)} is not true"


def _base64(digest: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


# --- dpkg ----------------------------------------------------------------------------------------------


def _untrue_stanzas(old: bytes, new: bytes, changes: Changes) -> str | None:
    """The stanzas of packages that left are gone, and no others."""
    leaving = {(package.name, package.architecture): package for package in changes.leaving}
    found = list(_stanzas(new))[::-1]
    for stanza in _stanzas(old):
        name = _field(stanza, b"package")
        package = leaving.get((name, _field(stanza, b"architecture"))) or leaving.get((name, "all"))
        if name and package is not None:
            if found and found[-1] == stanza:
                return f"it has the package {shown(name)}, which is gone"
            if package.files and all(path in changes.after.fs.nodes for path in package.files):
                return f"it lacks the package {shown(name)}, whose files are all still there"
        elif not found or found.pop() != stanza:
            return f"the stanza of {shown(name)} is missing, or another one"
    return "it has a stanza that it did not have" if found else None


def _stanzas(raw: bytes) -> Iterator[bytes]:
    """Stanzas, each with the blank lines behind it."""
    stanza: list[bytes] = []
    blank = False
    for line in _LINE.findall(raw):
        if blank and not _BLANK.match(line):
            yield b"".join(stanza)
            stanza = []
        blank = _BLANK.match(line) is not None
        stanza.append(line)
    if stanza:
        yield b"".join(stanza)


def _field(stanza: bytes, name: bytes) -> str:
    for line in stanza.split(b"\n"):
        key, colon, value = line.partition(b":")
        if colon and key.lower() == name:
            return value.strip().decode("utf-8", "surrogateescape")
    return ""


def _untrue_list(package: Package, old: bytes, new: bytes, changes: Changes) -> str | None:
    """The lines of files that left are gone, and no others."""
    gone = _gone(package, changes)
    found = _LINE.findall(new)[::-1]
    for line in _LINE.findall(old):
        name = line.rstrip(b"\n").lstrip(b"/").decode("utf-8", "surrogateescape")
        if name and name in gone:
            if found and found[-1] == line:
                return f"it lists {shown('/' + name)}, which is gone"
        elif not found or found.pop() != line:
            return f"the line of {shown('/' + name)} is missing, or another one"
    return "it has a line that it did not have" if found else None


def _untrue_md5sums(package: Package, old: bytes, new: bytes, changes: Changes) -> str | None:
    """As for lists; and the sums of rewritten files are true, or as wrong as they were."""
    gone = _gone(package, changes)
    written = {package.written.get(path, path): path for path in package.files if path in changes.rewritten}
    found = _LINE.findall(new)[::-1]
    for line in _LINE.findall(old):
        digest, _, rest = line.partition(b"  ")
        name = rest.rstrip(b"\n").decode("utf-8", "surrogateescape").removeprefix("./")
        if name and name in gone:
            if found and found[-1] == line:
                return f"it lists {shown('/' + name)}, which is gone"
            continue
        there = found.pop() if found else b""
        path = written.get(name)
        if there == line:
            if (
                path is not None
                and path not in changes.damaged
                and changes.old.of(path, "md5").hex().encode() == digest
            ):
                return f"it has the old sum of {shown('/' + name)}"
        elif path is None or there != changes.new.of(path, "md5").hex().encode() + line[len(digest) :]:
            return f"the line of {shown('/' + name)} is missing, or another one"
    return "it has a line that it did not have" if found else None


def _gone(package: Package, changes: Changes) -> set[str]:
    """What left of a package, as its lists write it."""
    every = (*package.files, *package.listed_directories, *package.info_files)
    return {package.written.get(path, path) for path in every if changes.gone(path)}


# --- the target's document -----------------------------------------------------------------------------


def _untrue_target(changes: Changes, declared: Declared) -> str | None:
    node = changes.after.fs.nodes[IN_IMAGE]
    if node.kind != "file" or node.size > LIMIT:
        return "it is no document"
    data = changes.after.fs.reader(node)(0, node.size)
    try:
        found = read_document(data)
    except ValueError as error:
        return f"it is no document: {error}"
    if declared.target is not None:
        wanted, _ = slimmed_for(changes.before.fs, declared.target)
        if msgspec.structs.replace(wanted, deadweight=found.deadweight) != found:
            return "it says something else than the plan"
    return None if data == write_document(found) else "it is not written as deadweight writes it"


def plain_addition(node: Node) -> bool:
    """Whether something added is root's, and for all to read."""
    source = node.source
    if source is None:
        return node.kind == "dir"
    mode = 0o755 if source.kind == "dir" else 0o644
    known = (source.mode, source.uid, source.gid, source.owner, source.xattrs)
    return source.kind in ("file", "dir") and known == (mode, 0, 0, ":", ())
