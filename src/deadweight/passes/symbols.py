"""Symbol tables and debug sections of programs and libraries: for debuggers and profilers alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from deadweight.binary.elf import MACHINES
from deadweight.binary.fixed import fixed_reason
from deadweight.binary.strip import strip_symbols
from deadweight.image.content import Content
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import Context, Pass, Proposal, Rewriting
from deadweight.passes.inodes import changeable_name, names_by_inode

NOTHING = "nothing to strip"


def propose(context: Context) -> Iterator[Proposal]:
    """A rewrite for each ELF file that shrinks, ordered by path."""
    ledger = context.ledger
    if _machine(ledger) is None:
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
        reason = next((reason for name in paths if (reason := fixed_reason(name, ledger.fs.nodes.__contains__))), None)
        if reason is None:
            try:
                stripped = context.rewrite(PASS, path)
            except ValueError as error:
                reason = str(error)
            else:
                saved = context.content(path)[1] - stripped.size
                evidence = f"{saved:,} bytes that no segment covers: the loader never reads them"
                found.append(Proposal("rewrite", path, "symbol tables and debug sections", evidence))
        if reason is not None and reason != NOTHING:
            skipped[reason] += 1
    for reason, count in sorted(skipped.items(), key=lambda item: (-item[1], item[0])):
        files = "1 ELF file keeps its symbols" if count == 1 else f"{count:,} ELF files keep their symbols"
        context.notes.append(f"{files}: {reason}")
    yield from sorted(found, key=lambda proposal: proposal.path)


def rewrite(file: Rewriting) -> Content:
    """The file without its symbols. Raises ValueError where that cannot be done."""
    machine = _machine(file.ledger)
    if machine is None:
        raise ValueError("the image's architecture is not one that is known here")
    return strip_symbols(file.read, file.size, machine)


def _machine(ledger: Ledger) -> int | None:
    return MACHINES.get(str(ledger.image.config.get("architecture", "amd64")))


PASS = Pass(
    name="symbols",
    risk="policy",
    order=80,
    summary="symbol tables and debug sections of programs and libraries",
    propose=propose,
    rewrite=rewrite,
)
