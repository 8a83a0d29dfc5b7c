"""The document by which a slimmed image, or a pruned directory, says for which GPUs its GPU code is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import Final

import msgspec

from deadweight.binary.gpu import Target
from deadweight.decoding import from_json

IN_IMAGE: Final = "usr/share/deadweight/target.json"
"""Where an image has it."""
IN_DIRECTORY: Final = "deadweight-target.json"
"""Where a pruned directory has it."""
LABEL_GPUS: Final = "deadweight.gpus"
LABEL_PTX: Final = "deadweight.ptx"
"""Labels of an image that say the same in short."""
SCHEMA: Final = "deadweight.target/1"
LIMIT: Final = 1 << 20
"""Bytes: a larger document is none."""
_GPU: Final = re.compile(r"sm_([1-9][0-9]{1,2})", re.ASCII)


class TargetDocument(msgspec.Struct, frozen=True):
    """The document."""

    schema: str
    gpus: tuple[str, ...]
    """In NVIDIA's words, sm_90, rising; none at all for machines without a GPU."""
    keep_ptx: bool
    raw_blobs: bool
    deadweight: str
    """The version that wrote it."""


def target_document(target: Target) -> TargetDocument:
    """What to say of something from which the GPU code left that this target does not need."""
    keep_ptx = target.keep_ptx and bool(target.gpus)
    return TargetDocument(SCHEMA, gpu_names(target.gpus), keep_ptx, target.raw_blobs, version("deadweight"))


def write_document(document: TargetDocument) -> bytes:
    """The document as JSON."""
    return msgspec.json.encode(document) + b"\n"


def read_document(data: bytes) -> TargetDocument:
    """A document from its JSON. Raises ValueError, with the reason, for what is none."""
    try:
        found = from_json(data, TargetDocument)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
    if found.schema != SCHEMA:
        raise ValueError(f"the schema {found.schema} is not known here: use the deadweight that wrote it")
    gpu_numbers(found.gpus)
    return found


def labels(document: TargetDocument) -> dict[str, str]:
    """The labels of an image that says so."""
    return {
        LABEL_GPUS: ",".join(document.gpus) or "none",
        LABEL_PTX: "kept" if document.keep_ptx else "dropped",
    }


def gpu_names(gpus: Iterable[int]) -> tuple[str, ...]:
    """GPUs as NVIDIA's tools name them: sm_90."""
    return tuple(f"sm_{gpu}" for gpu in gpus)


def gpu_numbers(names: Iterable[str]) -> tuple[int, ...]:
    """Compute capabilities times ten, rising, of GPUs so named. Raises ValueError for what is no such name."""
    found = set()
    for name in names:
        match = _GPU.fullmatch(name)
        if match is None:
            raise ValueError(f"{name!a} is no GPU: names are as sm_90")
        found.add(int(match[1]))
    return tuple(sorted(found))


def in_words(names: Iterable[str]) -> str:
    """GPUs for a sentence."""
    return ", ".join(names) or "machines without a GPU"
