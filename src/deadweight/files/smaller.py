"""One program or library made smaller: without the GPU code that no declared GPU runs, and without symbols.

First the GPU code goes, then the symbols of what is left. Either may be refused, with its reason, and the other done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from deadweight.binary.elf import GPU_MACHINES, MACHINES
from deadweight.binary.gpu import Target
from deadweight.binary.shrink import NOTHING, CannotShrink, shrink_gpu_code
from deadweight.binary.shrink_check import check_shrunk
from deadweight.binary.strip import CannotStrip, check, strip_symbols
from deadweight.image.content import Content, Reader
from deadweight.ledger.reach import Reach, reach

NOTHING_TO_STRIP: Final = "nothing to strip"
_MACHINES: Final = frozenset(MACHINES.values())

What = Literal["gpu code", "symbols", "file", "weights"]
"""What stays that might have left: a file's GPU code, its symbols, the file as a whole, or the size of a model's
numbers."""


class Kept(msgspec.Struct, frozen=True):
    """Something that stays as it is, and why."""

    what: What
    reason: str


@dataclass(frozen=True)
class Smaller:
    """What becomes of one file. Sizes are bytes."""

    before: int
    shrunk: Content | None = None
    """The file without the GPU code that leaves; None if none does."""
    stripped: Content | None = None
    """The file without symbols as well, in terms of the original; None if none leave."""
    kept: tuple[Kept, ...] = ()
    reach: Reach | None = None
    """What declaring GPUs does not change in it; None without a target."""

    @property
    def content(self) -> Content | None:
        """The new content; None if the file stays as it is."""
        return self.stripped if self.stripped is not None else self.shrunk

    @property
    def gpu_code(self) -> int:
        """Bytes of GPU code that leave."""
        return 0 if self.shrunk is None else self.before - self.shrunk.size

    @property
    def symbols(self) -> int:
        """Bytes of symbols and debug information that leave."""
        return 0 if self.stripped is None else self.before - self.gpu_code - self.stripped.size


class CheckFailed(ValueError):
    """A rewritten file is not what it should be; the message says how, in one line."""


def make_smaller(read: Reader, size: int, target: Target | None, *, symbols: bool) -> Smaller:
    """Works out what an ELF file of `size` bytes loses; without a target its GPU code stays. Reads, never writes."""
    machine = int.from_bytes(read(18, 2), "little")  # e_machine
    if machine in GPU_MACHINES:
        return Smaller(size, kept=(Kept("file", "GPU code as a whole, not a library that holds some"),))
    kept: list[Kept] = []
    shrunk = stripped = found = None
    if target is not None:
        found = reach(read, size, target)
        try:
            shrunk = shrink_gpu_code(read, size, target)
        except CannotShrink as error:
            if str(error) != NOTHING:
                kept.append(Kept("gpu code", str(error)))
                found = found._replace(unserved=())  # said already, if that is why
    if symbols:
        try:
            stripped = _strip(read, size, machine, shrunk)
        except CannotStrip as error:
            if str(error) != NOTHING_TO_STRIP:
                kept.append(Kept("symbols", str(error)))
    if len(kept) == 2 and kept[0].reason == kept[1].reason:
        kept = [Kept("file", kept[0].reason)]
    return Smaller(size, shrunk, stripped, tuple(kept), found)


def _strip(read: Reader, size: int, machine: int, shrunk: Content | None) -> Content:
    """The file without its symbols, whichever machine it is for: that of the tree is unknown."""
    if machine not in _MACHINES:
        raise CannotStrip("built for a machine that is not known here")
    if shrunk is None:
        return strip_symbols(read, size, machine)
    return strip_symbols(shrunk.reader(read), shrunk.size, machine).after(shrunk)


def check_rewritten(read_old: Reader, smaller: Smaller, read_new: Reader, new_size: int, target: Target | None) -> None:
    """Compares what was written with the original, content and all. CheckFailed says how it is not what it should be.

    Each step is held to the one before it, so every byte of the new file is accounted for.
    """
    middle, size = read_old, smaller.before
    try:
        if smaller.shrunk is not None:
            assert target is not None  # without one no GPU code leaves
            if smaller.stripped is None:
                check_shrunk(read_old, smaller.before, read_new, new_size, target)
            else:
                middle, size = smaller.shrunk.reader(read_old), smaller.shrunk.size
                check_shrunk(read_old, smaller.before, middle, size, target)
        if smaller.stripped is not None:
            check(middle, size, read_new, new_size)
    except ValueError as error:  # of whichever reader: CannotShrink, CannotStrip, ElfError, FatbinError
        raise CheckFailed(f"the rewritten file did not pass its check: {error}") from error
