"""What patchelf leaves in libraries when it moves sections: megabytes in the wheels of numpy and scipy."""

from __future__ import annotations

from collections.abc import Iterator

from deadweight.binary.leftovers import NOTHING, drop_leftovers
from deadweight.image.content import Content
from deadweight.passes.base import Context, Pass, Proposal, Rewriting
from deadweight.passes.elf_rewrites import elf_rewrites, machine_of, must_machine


def propose(context: Context) -> Iterator[Proposal]:
    """A rewrite for each ELF file that shrinks, ordered by path."""
    yield from elf_rewrites(
        context,
        PASS,
        "places of sections that were moved",
        NOTHING,
        ("what patchelf left behind", "what patchelf left behind"),
        lambda saved: f"{saved:,} bytes of its marks (X) in no section; nothing else moves in memory",
    )


def rewrite(file: Rewriting) -> Content:
    """The file without them. Raises ValueError where that cannot be done."""
    return drop_leftovers(file.read, file.size, must_machine(file.ledger))


PASS = Pass(
    name="leftovers",
    risk="lossless",
    order=78,  # before symbols: what is in no section keeps segments from moving up, and symbols from leaving
    summary="what patchelf left behind in programs and libraries, where sections were that it moved",
    propose=propose,
    rewrite=rewrite,
    recipe=lambda file: machine_of(file.ledger),
)
