"""One program or library made smaller: without GPU code that no declared GPU runs, symbols, and leftovers.

First the GPU code goes, then what patchelf left behind, then the symbols of what is left, as in images. Each may be
refused, with its reason, and the others done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal

import msgspec

from deadweight.binary.elf import GPU_MACHINES, MACHINES
from deadweight.binary.gpu import Target
from deadweight.binary.leftovers import NOTHING as NOTHING_LEFT
from deadweight.binary.leftovers import CannotCut, check_dropped, drop_leftovers
from deadweight.binary.shrink import NOTHING, CannotShrink, shrink_gpu_code
from deadweight.binary.shrink_check import check_shrunk
from deadweight.binary.strip import CannotStrip, check, strip_symbols
from deadweight.image.content import Content, Reader
from deadweight.ledger.reach import Reach, reach

NOTHING_TO_STRIP: Final = "nothing to strip"
_MACHINES: Final = frozenset(MACHINES.values())

What = Literal["gpu code", "symbols", "file", "weights", "leftovers"]
"""What stays that might have left: a file's GPU code, its symbols, the file as a whole, the size of a model's numbers,
or what patchelf left behind."""


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
    dropped: Content | None = None
    """The file without what patchelf left behind as well, in terms of the original; None if nothing was."""
    stripped: Content | None = None
    """The file without symbols as well, in terms of the original; None if none leave."""
    kept: tuple[Kept, ...] = ()
    reach: Reach | None = None
    """What declaring GPUs does not change in it; None without a target."""

    @property
    def content(self) -> Content | None:
        """The new content; None if the file stays as it is."""
        return next((each for each in (self.stripped, self.dropped, self.shrunk) if each is not None), None)

    @property
    def gpu_code(self) -> int:
        """Bytes of GPU code that leave."""
        return 0 if self.shrunk is None else self.before - self.shrunk.size

    @property
    def symbols(self) -> int:
        """Bytes of symbols and debug information that leave."""
        return 0 if self.stripped is None else self.before - self.gpu_code - self.leftovers - self.stripped.size

    @property
    def leftovers(self) -> int:
        """Bytes that patchelf left behind, and that leave."""
        return 0 if self.dropped is None else self.before - self.gpu_code - self.dropped.size


class CheckFailed(ValueError):
    """A rewritten file is not what it should be; the message says how, in one line."""


def make_smaller(read: Reader, size: int, target: Target | None, *, symbols: bool) -> Smaller:
    """Works out what an ELF file of `size` bytes loses; without a target its GPU code stays. Reads, never writes."""
    machine = int.from_bytes(read(18, 2), "little")  # e_machine
    if machine in GPU_MACHINES:
        return Smaller(size, kept=(Kept("file", "GPU code as a whole, not a library that holds some"),))
    kept: list[Kept] = []
    shrunk = stripped = dropped = found = None
    if target is not None:
        found = reach(read, size, target)
        try:
            shrunk = shrink_gpu_code(read, size, target)
        except CannotShrink as error:
            if str(error) != NOTHING:
                kept.append(Kept("gpu code", str(error)))
                found = found._replace(unserved=())  # said already, if that is why
    if machine in _MACHINES:
        try:
            dropped = _next(read, size, shrunk, partial(drop_leftovers, machine=machine))
        except CannotCut as error:
            if str(error) != NOTHING_LEFT:
                kept.append(Kept("leftovers", str(error)))
    if symbols:
        first = shrunk if dropped is None else dropped
        try:
            stripped = _next(read, size, first, partial(_strip, machine=machine))
        except CannotStrip as error:
            if str(error) != NOTHING_TO_STRIP:
                kept.append(Kept("symbols", str(error)))
    smaller = Smaller(size, shrunk, dropped, stripped, tuple(kept), found)
    if smaller.content is None and len(kept) > 1 and len({each.reason for each in kept}) == 1:
        return replace(smaller, kept=(Kept("file", kept[0].reason),))
    return smaller


def _next(read: Reader, size: int, first: Content | None, work: Callable[[Reader, int], Content]) -> Content:
    """What a step makes of the file where those before it made `first`, in terms of the original."""
    return work(read, size) if first is None else work(first.reader(read), first.size).after(first)


def _strip(read: Reader, size: int, machine: int) -> Content:
    """The file without its symbols, whichever machine it is for: that of the tree is unknown."""
    if machine not in _MACHINES:
        raise CannotStrip("built for a machine that is not known here")
    return strip_symbols(read, size, machine)


def check_rewritten(read_old: Reader, smaller: Smaller, read_new: Reader, new_size: int, target: Target | None) -> None:
    """Compares what was written with the original, content and all. CheckFailed says how it is not what it should be.

    Each step is held to the one before it, so every byte of the new file is accounted for.
    """

    def check_gpu_code(read_old: Reader, old_size: int, read_new: Reader, new_size: int) -> None:
        assert target is not None  # without one no GPU code leaves
        check_shrunk(read_old, old_size, read_new, new_size, target)

    steps = [(smaller.shrunk, check_gpu_code), (smaller.dropped, check_dropped), (smaller.stripped, check)]
    before = read_old, smaller.before
    try:
        for content, step in steps:
            if content is None:
                continue
            is_last = content is smaller.content
            after = (read_new, new_size) if is_last else (content.reader(read_old), content.size)
            step(*before, *after)
            before = after
    except ValueError as error:  # of whichever reader: CannotShrink, CannotStrip, CannotCut, ElfError, FatbinError
        raise CheckFailed(f"the rewritten file did not pass its check: {error}") from error
