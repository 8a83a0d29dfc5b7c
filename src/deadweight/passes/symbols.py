"""Symbol tables and debug sections of programs and libraries: for debuggers and profilers alone."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator

from deadweight.binary.elf import MACHINES
from deadweight.binary.strip import CannotStrip, strip_symbols
from deadweight.image.content import Content
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import Context, Pass, Proposal
from deadweight.passes.inodes import changeable_name, names_by_inode

NOTHING = "nothing to strip"


def propose(context: Context) -> Iterator[Proposal]:
    """A rewrite for each ELF file that shrinks, ordered by path."""
    ledger = context.ledger
    machine = _machine(ledger)
    if machine is None:
        context.notes.append("ELF files keep their symbols: the image's architecture is not one that is known here")
        return
    names = names_by_inode(ledger)
    skipped: Counter[str] = Counter()
    found = []
    for node in ledger.elf_files.values():
        assert node.inode is not None  # it has content
        paths = names[node.inode]
        path = changeable_name(context, paths)
        if path is None:
            continue
        reason = next((reason for name in paths if (reason := _excluded(ledger, name))), None)
        if reason is None:
            try:
                stripped = strip_symbols(ledger.reader(path), node.size, machine)
            except CannotStrip as error:
                reason = str(error)
            else:
                evidence = f"{node.size - stripped.size:,} bytes that no segment covers: the loader never reads them"
                found.append(Proposal("rewrite", path, "symbol tables and debug sections", evidence))
        if reason is not None and reason != NOTHING:
            skipped[reason] += 1
    for reason, count in sorted(skipped.items(), key=lambda item: (-item[1], item[0])):
        files = "1 ELF file keeps its symbols" if count == 1 else f"{count:,} ELF files keep their symbols"
        context.notes.append(f"{files}: {reason}")
    yield from sorted(found, key=lambda proposal: proposal.path)


def rewrite(ledger: Ledger, path: str) -> Content:
    """The file without its symbols. Raises ValueError where that cannot be done."""
    machine = _machine(ledger)
    if machine is None:
        raise ValueError("the image's architecture is not one that is known here")
    return strip_symbols(ledger.reader(path), ledger.fs.nodes[path].size, machine)


def _machine(ledger: Ledger) -> int | None:
    return MACHINES.get(str(ledger.image.config.get("architecture", "amd64")))


def _excluded(ledger: Ledger, path: str) -> str | None:
    """Why a file must stay as it is, by its name and its neighbours'."""
    directory, _, base = path.rpartition("/")
    if base.endswith((".o", ".cubin", ".ko")):
        return "an object file, which its symbols belong to"
    if path.startswith("usr/lib/debug/"):
        return "debug information kept apart from its program"
    if "/lib/modules/" in f"/{path}":
        return "a kernel module"
    if path.endswith("ossl-modules/fips.so"):
        return "a library that checks its own file"
    if _has_checksum(ledger, directory, base):
        return "a file with its checksum beside it"
    return None


def _has_checksum(ledger: Ledger, directory: str, base: str) -> bool:
    """Whether there is `libx.so.1.hmac` or `.libx.so.1.hmac` for libx.so.1.2 (FIPS), or libx.chk for libx.so (NSS)."""
    nodes = ledger.fs.nodes
    stem = base
    while stem:
        for name in (f"{stem}.hmac", f".{stem}.hmac", f"{stem}.chk", f"fipscheck/{stem}.hmac", f"hmaccalc/{stem}.hmac"):
            if posixpath.join(directory, name) in nodes:
                return True
        if stem.endswith(".so") or "." not in stem:
            stem = stem.removesuffix(".so") if stem.endswith(".so") else ""
        else:
            stem = stem.rpartition(".")[0]
    return False


PASS = Pass(
    name="symbols",
    risk="policy",
    order=80,
    summary="symbol tables and debug sections of programs and libraries",
    propose=propose,
    rewrite=rewrite,
)
