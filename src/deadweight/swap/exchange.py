"""What becomes of every file when one build of a distribution takes the place of another.

A file that both builds have alike keeps its entry, and so its bytecode. A different one gets new content and keeps its
mode, time and owner, and loses its bytecode, which is not written anew: what another machine's Python makes of
it need not be the same bytes, and start-up compiles it. What only the old build has leaves; what only the new one has
is added in the layer of the old metadata, as its neighbours are.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from deadweight.errors import BadInputError, UsageError, shown
from deadweight.files.records import encode_hash
from deadweight.image.addition import is_plain
from deadweight.image.bytes import CHUNK, ByteRange
from deadweight.image.changed import Aside
from deadweight.image.content import Content
from deadweight.image.filesystem import Node
from deadweight.ledger.ledger import Ledger
from deadweight.ledger.listed import Finder, join
from deadweight.ledger.python import RECORD_LIMIT, Distribution, read_record
from deadweight.passes.base import Context
from deadweight.passes.distributions import bytecode
from deadweight.swap.wheel import Wheel, WheelFile

INSTALLER: Final = ("INSTALLER", "REQUESTED")
"""What an installer writes into the metadata directory, and the new build has as the old one had it."""
_SCRIPTS: Final = ("console_scripts", "gui_scripts")


@dataclass
class Exchange:
    """What is to be done to an image's files. Paths are image paths."""

    position: int
    """Of the layer that new files go to: that of the old metadata."""
    like: str
    """The file whose owner and time new ones get."""
    same: set[str] = field(default_factory=set)
    remove: set[str] = field(default_factory=set)
    rewrite: dict[str, Content] = field(default_factory=dict)
    add: dict[str, tuple[ByteRange, bool]] = field(default_factory=dict)
    """New files: where their content is, and whether they are programs."""
    notes: list[str] = field(default_factory=list)


def exchange(ledger: Ledger, dist: Distribution, wheel: Wheel, aside: Aside) -> Exchange:
    """What becomes of the files of `dist` where `wheel` takes its place; new contents are kept `aside`.

    Raises BadInputError for a wheel that is not what its RECORD says, and where it would overwrite what is not the
    distribution's own; UsageError where the image has that very build.
    """
    record = posixpath.join(dist.info, "RECORD")
    found = Exchange(ledger.fs.nodes[record].source_layer, record)
    installers = {f"{wheel.info}/{name}" for name in INSTALLER}  # whoever made a wheel did not install it
    new = {f"{dist.site}/{path}": file for path, file in wheel.files.items() if path not in installers}
    old = set(dist.files)
    shared = {path for other in ledger.distributions if other.info != dist.info for path in other.files}
    for path in new:
        _check_free(ledger, path, old)
    for path, file in new.items():
        node = ledger.fs.nodes.get(path)
        sized = node is not None and node.kind == "file" and node.size == file.size
        if sized and not _is_sparse(node) and _sha256_of(ledger, path) == file.sha256:
            found.same.add(path)
            for _ in wheel.chunks(file):  # held to its RECORD all the same
                pass
        elif path in shared:
            raise BadInputError(
                f"the wheel changes {shown('/' + path)}, which other distributions list as theirs as well"
            )
        else:
            _put(ledger, found, path, aside.put(wheel.chunks(file)), file.executable)
    if len(found.same) == len(new) and dist.version == str(wheel.version):
        raise UsageError(f"the image has this build of {dist.display} already: {shown(wheel.file)}")
    scripts = _scripts(dist, wheel, found)
    keep = {path for path in old if path in new or path in scripts}
    for path in sorted(old - keep):
        if not path.endswith(".pyc") and path not in shared:
            found.remove.add(path)
    _bytecode(ledger, found, old, keep, shared)
    _metadata(ledger, dist, wheel, found, new.values(), scripts, aside)
    found.remove |= {above for path in found.remove for above in _above(path, dist.site)}
    found.remove -= {above for path in found.add for above in _above(path, "")} - found.add.keys()
    return found


def _check_free(ledger: Ledger, path: str, old: Collection[str]) -> None:
    """Raises BadInputError where a file of the wheel would go over or through what is not the distribution's own."""
    node = ledger.fs.nodes.get(path)
    if node is not None and path not in old:
        owner = ledger.owner(path)
        if node.kind == "dir" or owner.kind != "system":
            raise BadInputError(
                f"the wheel has {shown('/' + path)}, which is {owner.name}'s in the image: not overwritten"
            )
    for above in _above(path, ""):
        there = ledger.fs.nodes.get(above)
        if there is None:
            continue
        if there.kind != "dir":
            raise BadInputError(f"the wheel has {shown('/' + path)}, and /{above} is a {there.kind} in the image")


def _above(path: str, top: str) -> Iterator[str]:
    """The directories above a path, as far as they lie below `top`."""
    below = f"{top}/" if top else ""
    while (path := posixpath.dirname(path)) and path.startswith(below):
        yield path


def _put(ledger: Ledger, found: Exchange, path: str, content: ByteRange, executable: bool) -> None:
    node = ledger.fs.nodes.get(path)
    if node is not None and is_plain(ledger.fs, path):
        found.rewrite[path] = Content((content,))
        return
    if node is not None:  # a link, or a file of several names: those others stay what they are
        found.remove.add(path)
    found.add[path] = content, executable


def _scripts(dist: Distribution, wheel: Wheel, found: Exchange) -> set[str]:
    """The old build's commands that the new one has too: the files that installers made for them stay."""
    before, after = (
        {p[1]: p for p in points if p[0] in _SCRIPTS} for points in (dist.entry_points, wheel.entry_points)
    )
    kept = set()
    for path in dist.files:
        name = posixpath.basename(path)
        outside = not path.startswith(f"{dist.site}/")
        if outside and name in before and before[name] == after.get(name):
            kept.add(path)
    missing = sorted(after.keys() - {posixpath.basename(path) for path in kept})
    if missing:
        found.notes.append(
            f"commands of the new build of {dist.display} that are not made: {', '.join(map(shown, missing))}"
        )
    return kept


def _bytecode(
    ledger: Ledger, found: Exchange, old: Collection[str], keep: Collection[str], shared: Collection[str]
) -> None:
    """Bytecode of modules that leave or change leaves too, but for what the new build or other distributions have.

    Raises BadInputError where another distribution lists the bytecode of a module that changes: Python would take it.
    """
    context = Context(ledger)
    stale = 0
    for path in sorted(old):
        if path.endswith(".py") and path not in found.same and path not in shared:
            pyc = [each for each in bytecode(context, path) if each.endswith(".pyc") and each not in keep]
            theirs = next((each for each in pyc if each in shared), None)
            if theirs is not None and path in keep:
                raise BadInputError(
                    f"the wheel changes {shown('/' + path)}, and other distributions list its bytecode as theirs"
                )
            pyc = [each for each in pyc if each not in shared]
            found.remove.update(pyc)
            stale += len(pyc) if path in keep else 0
    for path in old:
        if path.endswith(".pyc") and path not in keep and path not in shared and path not in found.remove:
            parent, _, base = path.rpartition("/")
            place = posixpath.dirname(parent) if parent.endswith("__pycache__") else parent
            module = f"{place}/{base.split('.', 1)[0]}.py"
            if module not in found.same and not (module in old and module in shared):
                found.remove.add(path)
    if stale:
        modules = "1 changed module has" if stale == 1 else f"{stale:,} changed modules have"
        found.notes.append(f"{modules} no bytecode any more: start-up compiles what changed")


def _metadata(
    ledger: Ledger,
    dist: Distribution,
    wheel: Wheel,
    found: Exchange,
    files: Collection[WheelFile],
    scripts: Collection[str],
    aside: Aside,
) -> None:
    """INSTALLER and REQUESTED as they were, and a RECORD of what is there then: of `files`, and what stays."""
    info = f"{dist.site}/{wheel.info}"
    lines = []
    for name in INSTALLER:
        old = f"{dist.info}/{name}"
        if old in ledger.fs.nodes:
            data = ledger.fs.read(old, 1 << 20)
            if f"{info}/{name}" == old:
                found.remove.discard(old)
            else:
                _put(ledger, found, f"{info}/{name}", aside.put([data]), False)
            lines.append(_line(f"{wheel.info}/{name}", encode_hash(hashlib.sha256(data).digest()), len(data)))
    stays = set(scripts) | {path for path in dist.files if path.endswith(".pyc") and path not in found.remove}
    kept = stays - {f"{dist.site}/{file.path}" for file in files}
    finder = Finder(ledger.fs)
    for one in read_record(ledger.fs.read(f"{dist.info}/RECORD", RECORD_LIMIT)):
        path = join(dist.site, one.name) if one.name else None
        there = finder.node(path) if path else None
        if there is not None and there.path in kept:
            lines.append(one.raw if one.raw.endswith(b"\n") else one.raw + b"\n")
    lines += [_line(file.path, file.sha256, file.size) for file in files]
    record = f"{info}/RECORD"
    data = b"".join(lines) + _field(f"{wheel.info}/RECORD") + b",,\n"
    found.remove.discard(record)
    _put(ledger, found, record, aside.put([data]), False)


def _sha256_of(ledger: Ledger, path: str) -> str:
    """A file's hash, as RECORD has it."""
    read, size = ledger.reader(path), ledger.fs.nodes[path].size
    digest = hashlib.sha256()
    for at in range(0, size, CHUNK):
        digest.update(read(at, CHUNK))
    return encode_hash(digest.digest())


def _is_sparse(node: Node | None) -> bool:
    return node is not None and node.source is not None and node.source.sparse


def _line(name: str, sha256: str, size: int) -> bytes:
    return _field(name) + f",sha256={sha256},{size}\n".encode()


def _field(name: str) -> bytes:
    """A name as a field of CSV."""
    quoted = '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\n\r') else name
    return quoted.encode("utf-8", "surrogateescape")
