"""Symbol tables and debug sections of programs and libraries: for debuggers and profilers alone."""

from __future__ import annotations

from collections.abc import Iterator

from deadweight.binary.strip import strip_symbols
from deadweight.image.content import Content
from deadweight.passes.base import Context, Pass, Proposal, Rewriting
from deadweight.passes.elf_rewrites import elf_rewrites, machine_of, must_machine

NOTHING = "nothing to strip"


def propose(context: Context) -> Iterator[Proposal]:
    """A rewrite for each ELF file that shrinks, ordered by path."""
    yield from elf_rewrites(
        context,
        PASS,
        "symbol tables and debug sections",
        NOTHING,
        ("its symbols", "their symbols"),
        lambda saved: f"{saved:,} bytes that no segment covers: the loader never reads them",
    )


def rewrite(file: Rewriting) -> Content:
    """The file without its symbols. Raises ValueError where that cannot be done."""
    return strip_symbols(file.read, file.size, must_machine(file.ledger))


PASS = Pass(
    name="symbols",
    risk="policy",
    order=80,
    summary="symbol tables and debug sections of programs and libraries",
    propose=propose,
    rewrite=rewrite,
    recipe=lambda file: machine_of(file.ledger),
)
