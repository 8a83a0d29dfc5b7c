"""Which GPU code a GPU runs: the rule by which the driver picks from a fatbin, and GPUs by their names.

The rule is NVIDIA's (CUDA Programming Guide, "Application Compatibility"; nvprune's for static libraries): machine code
runs on its own major generation, at its own minor or higher; PTX is compiled for any GPU that is not older. The driver
prefers machine code, the nearest first, and never goes back on its choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec

from deadweight.binary.fatbin import CUBIN, LTO_IR, PTX, Entry

Service = Literal["cubin", "ptx", "nothing"]
"""How GPU code serves a GPU: machine code that it runs, PTX alone (compiled when it is loaded), or not at all."""


class Target(msgspec.Struct, frozen=True):
    """What GPU code is to run on."""

    gpus: tuple[int, ...] = ()
    """Compute capabilities times ten, rising (90 is 9.0); none at all for machines without a GPU."""
    keep_ptx: bool = True
    """Whether PTX stays that the declared GPUs do not need: newer ones do, and CUDA_FORCE_PTX_JIT."""
    raw_blobs: bool = False
    """Whether GPU code outside fatbin sections leaves too: assumes that host code reads none of another GPU's."""
    recompress: bool = False
    """Whether what stays is compressed harder, in a format that every driver reads."""


class Product(NamedTuple):
    """A GPU as people name it."""

    name: str
    """As the command line takes it: small letters and digits, no spaces."""
    sm: int
    title: str
    """NVIDIA's name for it."""


def select(entries: Sequence[Entry], target: Target) -> frozenset[int]:
    """The indices of the entries that stay, so that each declared GPU finds what it would have found among all.

    For each GPU: the nearest cubins of its generation, with the variants of exactly its architecture or family; where
    there are none, every PTX that is not newer. LTO-IR stays unless it is newer than every GPU, other kinds always.
    """
    if not target.gpus:
        return frozenset(i for i, entry in enumerate(entries) if entry.kind not in (CUBIN, PTX, LTO_IR))
    keep: set[int] = set()
    for i, entry in enumerate(entries):
        if entry.kind == LTO_IR:
            if entry.sm <= max(target.gpus):
                keep.add(i)
        elif entry.kind != CUBIN and (entry.kind != PTX or target.keep_ptx):
            keep.add(i)
    for gpu in target.gpus:
        sure = [i for i, entry in enumerate(entries) if _runs(entry, gpu)]
        nearest = max((entries[i].sm for i in sure), default=None)
        keep.update(i for i in sure if entries[i].sm == nearest)
        keep.update(i for i, entry in enumerate(entries) if _may_run(entry, gpu))
        if not sure:
            keep.update(i for i, entry in enumerate(entries) if _compiles(entry, gpu))
    return frozenset(keep)


def service(entries: Iterable[Entry], gpu: int) -> Service:
    """What a GPU finds among entries."""
    found: Service = "nothing"
    for entry in entries:
        if _runs(entry, gpu) or _may_run(entry, gpu):
            return "cubin"
        if _compiles(entry, gpu):
            found = "ptx"
    return found


def _runs(entry: Entry, gpu: int) -> bool:
    """Whether a GPU certainly runs a cubin."""
    if entry.kind != CUBIN:
        return False
    return entry.sm == gpu or (not entry.variant and entry.sm // 10 == gpu // 10 and entry.sm < gpu)


def _may_run(entry: Entry, gpu: int) -> bool:
    """Whether a cubin is of the GPU's generation by number, though families (`f`) need not be so wide."""
    return entry.kind == CUBIN and entry.variant == "f" and entry.sm // 10 == gpu // 10 and entry.sm < gpu


def _compiles(entry: Entry, gpu: int) -> bool:
    """Whether the driver can compile PTX for a GPU."""
    if entry.kind != PTX:
        return False
    if entry.variant:
        return entry.sm == gpu or (entry.variant == "f" and entry.sm // 10 == gpu // 10 and entry.sm < gpu)
    return entry.sm <= gpu
