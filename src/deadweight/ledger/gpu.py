"""What an image's GPU code means to whoever deploys it: which GPUs it is for, and what declaring one would save."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from deadweight.binary.compact import tombstone
from deadweight.binary.elf import ElfError, parse
from deadweight.binary.fatbin import CUBIN, Entry, Fatbin, FatbinError
from deadweight.binary.gpu import Target, products, select, service
from deadweight.binary.shrink import MIN_SAVING, CannotShrink, fatbin_sections, shrink_gpu_code
from deadweight.image.content import Reader
from deadweight.ledger.ledger import Ledger

GENERATIONS: Final = (75, 80, 86, 89, 90, 100, 120)
"""The architectures of GPUs that are in use for inference and training: Turing to Blackwell."""

_TARGETS: Final = tuple(Target((gpu,), keep_ptx) for gpu in GENERATIONS for keep_ptx in (True, False))
_NO_GPU: Final = Target()
_ARCHITECTURE: Final = re.compile(r"[a-z]+_(\d+)[af]?")
_MAKERS: Final = ("NVIDIA ", "GeForce ")


class Saving(msgspec.Struct, frozen=True):
    """What would leave if a GPU were declared. Bytes, exact to a few pages a file."""

    gpu: int | None
    """The compute capability times ten; None: machines without a GPU."""
    ptx_kept: int
    ptx_dropped: int


class _Alike(msgspec.Struct):
    """Fatbins whose entries are for the same GPUs, in the same order."""

    entries: Sequence[Entry]
    """Of one of them."""
    lengths: list[int]
    """Bytes of all their first entries together, of all their second ones, and so on."""
    count: int


def savings(ledger: Ledger) -> tuple[Saving, ...]:
    """What `--gpu` would take out, for each of `GENERATIONS` that files have machine code for, and for no GPU at all.

    Counts the fatbins of files that can be shrunk, as they are now: what other passes remove counts too. Nothing where
    there are none.
    """
    sums: dict[Target, int] = {}
    present: set[int] = set()
    for path, node in ledger.elf_files.items():
        groups = _shrinkable(ledger.reader(path), node.size)
        present.update(entry.sm for group in groups for entry in group.entries if entry.kind == CUBIN)
        for target in (*_TARGETS, _NO_GPU) if groups else ():
            sums[target] = sums.get(target, 0) + _saved(groups, target)
    if not sums:
        return ()
    found = [
        Saving(gpu, sums[Target((gpu,), keep_ptx=True)], sums[Target((gpu,), keep_ptx=False)])
        for gpu in GENERATIONS
        if gpu in present
    ]
    return (*found, Saving(None, sums[_NO_GPU], sums[_NO_GPU]))


def gpu_names(label: str) -> list[str]:
    """The products that GPU code with a label like sm_90a is for, without the maker's name; none for other labels."""
    match = _ARCHITECTURE.fullmatch(label)
    names = [product.title for product in products() if match and product.sm == int(match[1])]
    for maker in _MAKERS:
        names = [name.removeprefix(maker) for name in names]
    return list(dict.fromkeys(names))  # GP100 is two products


def _shrinkable(read: Reader, size: int) -> Sequence[_Alike]:
    """The fatbins of a file, if it can be shrunk."""
    try:
        shrink_gpu_code(read, size, _NO_GPU)
        sections = fatbin_sections(read, parse(read, size))
    except (CannotShrink, ElfError, FatbinError):
        return ()
    return _alike([fatbin for section in sections for fatbin in section.fatbins])


def _alike(fatbins: Sequence[Fatbin]) -> Sequence[_Alike]:
    """A library has thousands of fatbins, and a few dozen kinds of them: so each is judged once."""
    groups: dict[tuple[tuple[int, int, int], ...], _Alike] = {}
    for fatbin in fatbins:
        key = tuple((entry.kind, entry.sm, entry.flags) for entry in fatbin.entries)
        group = groups.setdefault(key, _Alike(fatbin.entries, [0] * len(key), 0))
        group.lengths = [length + entry.length for length, entry in zip(group.lengths, fatbin.entries, strict=True)]
        group.count += 1
    return tuple(groups.values())


def _saved(groups: Sequence[_Alike], target: Target) -> int:
    """Bytes that leave one file for one GPU or none; as shrink.py and compact.py have it."""
    entries = [entry for group in groups for entry in group.entries]
    for gpu in target.gpus:
        if entries and service(entries, gpu) == "nothing" and min(entry.sm for entry in entries) <= gpu:
            return 0  # it stays as it is
    saved = 0
    for group in groups:
        keep = select(group.entries, target)
        dropped = sum(length for i, length in enumerate(group.lengths) if i not in keep)
        if group.entries and not keep:
            dropped -= len(tombstone(group.entries)) * group.count
        saved += max(0, dropped)
    return saved if saved >= MIN_SAVING else 0
