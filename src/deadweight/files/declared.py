"""The file that says for which GPUs a directory was pruned.

What has left cannot come back, so a later run may declare fewer GPUs and never others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from deadweight.binary.gpu import Target
from deadweight.errors import BadInputError, UsageError, shown
from deadweight.files.replace import add_content, replace_content

FILE_NAME: Final = "deadweight-target.json"
SCHEMA: Final = "deadweight.target/1"
_SIZE_LIMIT: Final = 1 << 20
_GPU: Final = re.compile(r"sm_(\d{2,4})", re.ASCII)


class Declared(msgspec.Struct, frozen=True):
    """The document."""

    schema: str
    gpus: tuple[str, ...]
    """As sm_90; none at all for machines without a GPU."""
    keep_ptx: bool
    raw_blobs: bool
    deadweight: str
    """The version that wrote it."""


def gpu_names(gpus: Sequence[int]) -> tuple[str, ...]:
    """GPUs as NVIDIA's tools name them: sm_90."""
    return tuple(f"sm_{gpu}" for gpu in gpus)


def in_words(gpus: Sequence[str]) -> str:
    """GPUs for a sentence."""
    return ", ".join(gpus) or "machines without a GPU"


def read_declared(path: str) -> Declared:
    """What a directory was pruned for. BadInputError where the file is damaged or of an unknown version."""
    try:
        with Path(path).open("rb") as file:
            declared = msgspec.json.decode(file.read(_SIZE_LIMIT), type=Declared)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"cannot read {shown(path)}: {error}") from None
    if declared.schema != SCHEMA or not all(map(_GPU.fullmatch, declared.gpus)):
        raise BadInputError(f"{shown(path)} is of a version that is not known here: use the deadweight that wrote it")
    return declared


def check_covered(path: str, target: Target) -> None:
    """Raises UsageError unless what the file at `path` says was kept is enough for the target."""
    declared = read_declared(path)
    if not set(gpu_names(target.gpus)) <= set(declared.gpus):
        lost, say = f"GPU code for {in_words(declared.gpus)} alone was kept", "name GPUs among these"
    elif target.gpus and target.keep_ptx and not declared.keep_ptx:
        lost, say = "PTX was dropped", "say --drop-ptx"
    else:
        return
    raise UsageError(
        f"{lost} when this was pruned before ({shown(path)}), and what has left cannot come back: {say}, or reinstall "
        "the packages and remove that file"
    )


def declare(path: str, target: Target) -> None:
    """Writes the file, or brings it up to date; one that says the same already stays as it is, version and all.

    EnvironmentFailure where it cannot be written.
    """
    new = Declared(SCHEMA, gpu_names(target.gpus), target.keep_ptx, target.raw_blobs, version("deadweight"))
    if not os.path.lexists(path):
        add_content(path, _encode(new))
        return
    before = read_declared(path)
    new = msgspec.structs.replace(new, raw_blobs=new.raw_blobs or before.raw_blobs)
    if new != msgspec.structs.replace(before, deadweight=new.deadweight):
        replace_content(path, _encode(new))


def _encode(declared: Declared) -> bytes:
    return msgspec.json.encode(declared) + b"\n"
