"""What is inside of files: worked out once for each of an image, whoever asks, and for each of images that share it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from deadweight.binary.gpu_code import Breakdown, breakdown
from deadweight.image.bytes import ByteRange
from deadweight.image.filesystem import Key
from deadweight.ledger.ledger import Ledger

_Place = tuple[int, int, int]
"""Where a content lies: file descriptor, start, size."""
_KIND: Final = "inside"


def inside(ledger: Ledger, key: Key) -> Breakdown:
    """What the bytes of the ELF file are that an entry carries."""
    content = _content(ledger, key)
    # By its size as well: what is believed of a layer that is not what it states has to add up all the same.
    more = str(content.size)
    return ledger.facts.of(_KIND, key, Breakdown, lambda: breakdown(content.read_at, content.size), more)


def share_inside(ledger: Ledger, others: Iterable[Ledger]) -> None:
    """Tells a ledger what others know of files that have the same bytes: of images, all open, made of each other."""
    known: dict[_Place, Breakdown] = {}
    for other in others:
        for key, content in _elf_files(other):
            found = other.facts.table(_KIND, key[0], Breakdown).get(f"{key[1]} {content.size}")
            if found is not None:
                known[_place(content)] = found
    for key, content in _elf_files(ledger) if known else ():
        found = known.get(_place(content))
        if found is not None:
            ledger.facts.table(_KIND, key[0], Breakdown).setdefault(f"{key[1]} {content.size}", found)


def _elf_files(ledger: Ledger) -> Iterator[tuple[Key, ByteRange]]:
    """Those whose bytes lie at one place, with where that is; not what is in pieces, or made when it is read."""
    for node in ledger.elf_files.values():
        assert node.inode is not None  # it has content
        content = _content(ledger, node.inode)
        if content.fd >= 0:
            yield node.inode, content


def _content(ledger: Ledger, key: Key) -> ByteRange:
    entry = ledger.fs.entry(key)
    return ledger.image.layers[key[0]].tar.window(entry.data, entry.stored)


def _place(content: ByteRange) -> _Place:
    return content.fd, content.start, content.size
