"""What is inside of files: worked out once for each of an image, whoever asks, and for each of images that share it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from deadweight.binary.gpu_code import Breakdown, breakdown
from deadweight.image.bytes import ByteRange
from deadweight.image.filesystem import Key
from deadweight.ledger.ledger import Ledger

Place = tuple[int, int, int]
"""Where a content lies: file descriptor, start, size."""
_KIND: Final = "inside"


def inside(ledger: Ledger, key: Key) -> Breakdown:
    """What the bytes of the ELF file are that an entry carries."""
    content = _content(ledger, key)
    return ledger.facts.of(_KIND, key, Breakdown, lambda: breakdown(content.read_at, content.size))


def share_inside(ledger: Ledger, others: Iterable[Ledger]) -> None:
    """Tells a ledger what others know of files that have the same bytes: of images, all open, made of each other."""
    known: dict[Place, Breakdown] = {}
    for other in others:
        for layer in other.image.layers:
            for index, found in other.facts.table(_KIND, layer.position, Breakdown).items():
                place = _place(_content(other, (layer.position, int(index))))
                if place is not None:
                    known[place] = found
    for node in ledger.elf_files.values():
        if node.inode is not None:
            place = _place(_content(ledger, node.inode))
            if place is not None and place in known:
                position, index = node.inode
                ledger.facts.table(_KIND, position, Breakdown).setdefault(index, known[place])


def _content(ledger: Ledger, key: Key) -> ByteRange:
    entry = ledger.fs.entry(key)
    return ledger.image.layers[key[0]].tar.window(entry.data, entry.stored)


def _place(content: ByteRange) -> Place | None:
    """Where a content lies; None where it is in pieces, or made when it is read."""
    return None if content.fd < 0 else (content.fd, content.start, content.size)
