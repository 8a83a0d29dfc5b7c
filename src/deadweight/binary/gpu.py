"""Which GPU code a GPU runs: the rule by which the driver picks from a fatbin, and GPUs by their names.

The rule is NVIDIA's (CUDA Programming Guide, "Application Compatibility"; nvprune's for static libraries): machine code
runs on its own major generation, at its own minor or higher, Jetson excepted; PTX is compiled for any GPU that is not
older. The driver prefers machine code, the nearest first, and never goes back on its choice.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from typing import Final, Literal, NamedTuple

import msgspec

from deadweight.binary.fatbin import CUBIN, LTO_IR, PTX, Entry
from deadweight.errors import UsageError, shown

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
    generation: str
    """Of architectures, as NVIDIA calls it: Hopper."""


def select(entries: Sequence[Entry], target: Target) -> frozenset[int]:
    """The indices of the entries that stay, so that each declared GPU finds what it would have found among all.

    For each GPU: the nearest cubins that it surely runs, with their variants, and nearer ones that it may run; where
    none is sure, also every PTX that is not newer. LTO-IR stays unless it is newer than every GPU, other kinds always.
    """
    if not target.gpus:
        return frozenset(i for i, entry in enumerate(entries) if entry.kind not in (CUBIN, PTX, LTO_IR))
    keep: set[int] = set()
    for i, entry in enumerate(entries):
        if entry.kind == LTO_IR:
            if entry.sm <= max(target.gpus):
                keep.add(i)
        elif not entry.sm or (entry.kind != CUBIN and (entry.kind != PTX or target.keep_ptx)):
            keep.add(i)  # an entry for no architecture is of a kind that is not known here
    for gpu in target.gpus:
        fits = [_fit(entry, gpu) for entry in entries]
        nearest = max((entry.sm for entry, fit in zip(entries, fits, strict=True) if fit == _SURE), default=0)
        # Where the exact architecture is missing, the driver may prefer what is not sure to run.
        least = _SURE if nearest == gpu else _UNSUPPORTED
        for i, entry in enumerate(entries):
            if (fits[i] >= least and entry.sm >= nearest) or (not nearest and _compiles(entry, gpu)):
                keep.add(i)
    return frozenset(keep)


def service(entries: Iterable[Entry], gpu: int) -> Service:
    """What a GPU finds among entries."""
    found: Service = "nothing"
    for entry in entries:
        if _fit(entry, gpu) >= _LIKELY:
            return "cubin"
        if _compiles(entry, gpu):
            found = "ptx"
    return found


def runs_on(code: int, gpu: int) -> bool:
    """Whether a GPU surely runs machine code for an architecture (both as numbers, without a suffix)."""
    return code == gpu or (code // 10 == gpu // 10 and code < gpu and not _TEGRA & {code, gpu})


_TEGRA: Final = frozenset({53, 62, 72, 87, 88, 101, 110})
"""Architectures of Jetson and its like, which NVIDIA excepts from the rule: "Binary compatibility is supported only for
the desktop. It is not supported for Tegra", nor between the two (CUDA C++ Programming Guide, "Binary Compatibility").
PyTorch has the same exceptions (DEVICE_REQUIREMENT in torch/cuda/__init__.py)."""
_RENAMED: Final = frozenset({101, 110})
"""One chip, Jetson Thor's: 101 until CUDA 12, 110 from CUDA 13 on."""
_NEVER, _UNSUPPORTED, _LIKELY, _SURE = range(4)


def _fit(entry: Entry, gpu: int) -> int:
    """How sure it is that a GPU runs an entry as machine code.

    _UNSUPPORTED is for what NVIDIA excepts though the numbers would do; _LIKELY for code of a family (`f`), which need
    not be as wide as the generation, and for an architecture's other number.
    """
    if entry.kind != CUBIN:
        return _NEVER
    if entry.sm == gpu:
        return _SURE
    if {entry.sm, gpu} == _RENAMED:
        return _LIKELY
    if entry.variant == "a" or entry.sm // 10 != gpu // 10 or entry.sm > gpu:
        return _NEVER
    if not runs_on(entry.sm, gpu):
        return _UNSUPPORTED
    return _LIKELY if entry.variant else _SURE


def _compiles(entry: Entry, gpu: int) -> bool:
    """Whether the driver can compile PTX for a GPU."""
    if entry.kind != PTX:
        return False
    if entry.sm == gpu or {entry.sm, gpu} == _RENAMED:
        return True
    if entry.variant:
        return entry.variant == "f" and entry.sm // 10 == gpu // 10 and entry.sm < gpu
    return entry.sm < gpu


_ARCHITECTURE: Final = re.compile(r"(?:sm_?)?(\d{2,3})[af]?|(\d{1,2})\.(\d)[af]?", re.ASCII)
_VIRTUAL: Final = re.compile(r"(?:compute|lto)_?\d+[af]?")
_LEAST, _MOST = 20, 999
"""Compute capabilities times ten that can be meant: CUDA has dropped all below 2.0."""
_WORD: Final = re.compile(r"[a-z0-9]+")
_BESIDE_NAMES: Final = re.compile(
    r"nvidia|tesla|geforce|jetson|gpu|laptop|mobile|nvgpu|generation|blackwell|server|workstation|edition"
    r"|max|q|with|design|pcie|nvl|sxm\d?|hbm\d?e?|\d+gb?"
)
"""Words of the names that drivers report which do not tell architectures apart: maker, form factor, memory."""


@cache
def products() -> tuple[Product, ...]:
    """The GPUs of gpus.toml, in its order: by architecture."""
    text = resources.files(__package__).joinpath("gpus.toml").read_text("utf-8")
    return tuple(
        Product(name, int(architecture.removeprefix("sm_")), title, generation)
        for generation, architectures in tomllib.loads(text).items()
        for architecture, titles in architectures.items()
        for name, title in titles.items()
    )


def parse_gpus(values: Sequence[str]) -> tuple[int, ...]:
    """The compute capabilities (times ten, rising) that the values of --gpu name; () for `none`, machines without GPU.

    A value is one GPU or several with commas between: `sm_90`, `sm90`, `90`, `9.0`, each with the suffix of code for
    exactly that architecture as well (`sm_90a`), or a product as people or drivers write it (`h100`, "RTX 4090",
    "NVIDIA A100-SXM4-80GB"). UsageError for anything else, and where nothing is named at all.
    """
    words = [word.strip() for value in values for word in value.split(",") if word.strip()]
    if not words:
        raise UsageError("no GPU is named: say sm_90, h100, or none for machines without a GPU")
    none = [word for word in words if word.lower() == "none"]
    if none and len(none) < len(words):
        raise UsageError("'none' is for machines without a GPU: it cannot be given together with GPUs")
    return () if none else tuple(sorted({_parse_gpu(word) for word in words}))


def _parse_gpu(word: str) -> int:
    small = word.lower()
    if match := _ARCHITECTURE.fullmatch(small):
        sm = int(match[1] or match[2] + match[3])
        if _LEAST <= sm <= _MOST:
            return sm
    elif _VIRTUAL.fullmatch(small):
        raise UsageError(f"{shown(word)} is a version of intermediate code, not a GPU: name the GPU, as sm_90 or h100")
    else:
        name = "".join(part for part in _WORD.findall(small) if not _BESIDE_NAMES.fullmatch(part))
        known = {product.name: product.sm for product in products()}
        if name in known:
            return known[name]
        close = difflib.get_close_matches(name, known)
        if close:
            raise UsageError(f"{shown(word)} is no GPU known here; close are {', '.join(close)}. {_ELSE}")
    raise UsageError(f"{shown(word)} is no GPU known here. {_ELSE}")


_ELSE: Final = "`deadweight gpus` lists the names; sm_90 or 9.0 names any GPU by its compute capability"
