"""What an image can no longer do once a build was swapped: told from what left, in words that `known.toml` has."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from deadweight.binary.elf import is_elf
from deadweight.binary.gpu_code import breakdown
from deadweight.image.bytes import ByteRange
from deadweight.image.content import Reader
from deadweight.ledger.known import known_pairs
from deadweight.ledger.ledger import Ledger
from deadweight.ledger.python import Distribution
from deadweight.plan import SWAP, Cut, taken_out
from deadweight.sizes import show_size
from deadweight.swap.exchange import Exchange

_NAMED: Final = 6
_NOT_CODE: Final = frozenset({"headers", "tables", "unread"})


def lost_inside(ledger: Ledger, dist: Distribution, what: Exchange) -> Iterator[str]:
    """What the distribution itself loses: libraries, and GPU code, by the GPUs that it is for."""
    before = Counter[str]()
    for path in dist.files:
        if path in ledger.elf_files and (path in what.remove or path in what.rewrite):
            before.update(_gpu_code(ledger.reader(path), ledger.fs.nodes[path].size))
    after = Counter[str]()
    new = [piece for content in what.rewrite.values() for piece in content.pieces] + [
        one for one, _ in what.add.values()
    ]
    for piece in new:
        if isinstance(piece, ByteRange) and is_elf(piece.read_at(0, 64)):
            after.update(_gpu_code(piece.read_at, piece.size))
    labels = sorted(label for label in before if not after[label] and label not in _NOT_CODE)
    if labels:
        size = show_size(before.total() - after.total())
        yield f"lost with {dist.display} {dist.version}: its GPU code, for {', '.join(labels)} ({size})"
    libraries = sorted(
        posixpath.basename(path)
        for path in what.remove
        if path in ledger.elf_files and ".so" in posixpath.basename(path)
    )
    if libraries:
        yield f"libraries that only the old build of {dist.display} has: {_some(libraries)}"


def _gpu_code(read: Reader, size: int) -> Counter[str]:
    sums = Counter[str]()
    for code in breakdown(read, size).gpu_code:
        sums[code.label] += code.bytes
    return sums


def lost_with(ledger: Ledger, orphans: Iterable[str], cuts: Iterable[Cut]) -> Iterator[str]:
    """What leaves with the distributions that only the old build needed, as far as cuts take them out."""
    leaves = taken_out(cut for cut in cuts if cut.pass_ != SWAP)
    words = known_pairs("swap", "serves")
    leaving: dict[str, list[str]] = {}
    for name in orphans:
        for dist in ledger.graph.distributions.get(name, ()):
            if leaves(f"{dist.info}/METADATA"):
                what = next((text for matches, text in words if matches(name)), "")
                leaving.setdefault(what, []).append(f"{dist.display} {dist.version}")
    for what, names in sorted(leaving.items(), key=lambda item: (not item[0], item[0])):
        listed = _some(names) if what else ", ".join(names)
        yield f"lost: {what} ({listed})" if what else f"leaves as well, since nothing else needs it: {listed}"


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
