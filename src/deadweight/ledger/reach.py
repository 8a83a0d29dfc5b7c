"""What declaring GPUs does not change: GPU code where no pass goes, and GPUs that find nothing in a library.

Neither is an error, and neither shows in what was saved: so both are said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from deadweight.binary.elf import ElfError, parse
from deadweight.binary.fatbin import Entry, FatbinError
from deadweight.binary.gpu import Target, service
from deadweight.binary.gpu_code import Breakdown, breakdown
from deadweight.binary.shrink import fatbin_sections
from deadweight.binary.target_document import gpu_names, in_words
from deadweight.image.content import Reader

_NAMED: Final = 3
_LEAST: Final = 4096
"""Bytes of fatbins: the few of a stub, as cuFFT's libraries have one for sm_52, serve nobody anyway."""
_WHERE: Final = {
    "data": "in data of libraries, where only --raw-blobs goes",
    "file": "in files of GPU code alone",
    "amd": "for AMD's GPUs",
}
"""By `GpuCode.out_of_reach`. What could not be taken apart is not here: that is said with its reason."""


class Reach(NamedTuple):
    """What there is to say of one file."""

    beyond: dict[str, int]
    """Bytes of GPU code that no pass takes out, by `GpuCode.out_of_reach`."""
    unserved: tuple[int, ...]
    """The declared GPUs that find nothing in it, though it has code for others."""


def reach(read: Reader, size: int, target: Target, found: Breakdown | None = None) -> Reach:
    """What declaring `target` does not change in an ELF file of `size` bytes; nothing in a damaged one.

    `found` is its breakdown, where that is known.
    """
    sums: Counter[str] = Counter()
    for code in (breakdown(read, size) if found is None else found).gpu_code:
        if code.out_of_reach in _WHERE and not (target.raw_blobs and code.out_of_reach == "data"):
            sums[code.out_of_reach] += code.bytes
    entries = () if sums else _entries(read, size)  # those out of reach may serve them
    unserved = tuple(gpu for gpu in target.gpus if entries and service(entries, gpu) == "nothing")
    return Reach(dict(sums), unserved)


def _entries(read: Reader, size: int) -> tuple[Entry, ...]:
    try:
        sections = fatbin_sections(read, parse(read, size))
    except (ElfError, FatbinError):
        return ()
    if sum(section.size for section in sections) < _LEAST:
        return ()
    return tuple(entry for section in sections for fatbin in section.fatbins for entry in fatbin.entries)


def reach_notes(found: Mapping[str, Reach]) -> Iterator[str]:
    """Sentences about files, by their names: what is out of reach, counted, and what serves a declared GPU nothing."""
    for where, words in _WHERE.items():
        sizes = Counter({name: each.beyond[where] for name, each in found.items() if each.beyond.get(where)})
        if sizes:
            largest = sorted(sizes, key=lambda name: (-sizes[name], name))
            names = _some(f"{name} ({sizes[name]:,})" for name in largest)
            yield f"{sizes.total():,} bytes of GPU code {words}, stay: {names}"
    unserved: dict[tuple[int, ...], list[str]] = {}
    for name, each in sorted(found.items()):
        if each.unserved:
            unserved.setdefault(each.unserved, []).append(name)
    for gpus, names_of in sorted(unserved.items()):
        yield f"nothing in it for {in_words(gpu_names(gpus))}, before or after: {_some(names_of)}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
