"""The declared target as data: in plans, and in slimmed images.

An image from which GPU code left says for whom the rest is, in a small file and in labels, so that `deadweight doctor`
can tell why kernels are missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

import msgspec

from deadweight.binary.gpu import Target
from deadweight.errors import PlanError, shown
from deadweight.image.filesystem import Filesystem

GPU_CODE: Final = "gpu-code"
"""The pass whose cuts make an image one for its target alone."""
TARGET_FILE: Final = "usr/share/deadweight/target.json"
"""Where an image says what it was slimmed for."""
FILE_SCHEMA: Final = "deadweight.target/1"
_FILE_LIMIT: Final = 1 << 20
_GPU: Final = re.compile(r"sm_([1-9][0-9]{1,2})", re.ASCII)


class _Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A target as a plan has it."""

    gpus: list[str]
    keep_ptx: bool
    raw_blobs: bool
    recompress: bool
    encoder: str | None = None
    """What recompresses, with its version: another one's output has other sizes."""


class Slimmed(msgspec.Struct, frozen=True):
    """What an image was slimmed for, as its file says it."""

    schema: str
    deadweight: str
    """The version that wrote it."""
    gpus: list[str]
    """In NVIDIA's words, sm_90, rising; none at all for machines without a GPU."""
    keep_ptx: bool
    raw_blobs: bool


def write_target(target: Target | None) -> dict[str, Any]:
    """A target as a plan has it; empty when none was declared."""
    if target is None:
        return {}
    data: dict[str, Any] = {
        "gpus": [f"sm_{gpu}" for gpu in target.gpus],
        "keep_ptx": target.keep_ptx,
        "raw_blobs": target.raw_blobs,
        "recompress": target.recompress,
    }
    return {**data, "encoder": _encoder()} if target.recompress else data


def read_target(data: Mapping[str, Any]) -> Target | None:
    """The target of a plan. Raises PlanError for what is none, and when the plan is for another encoder than ours."""
    if not data:
        return None
    try:
        found = msgspec.convert(data, _Data)
    except msgspec.ValidationError as error:
        raise PlanError(f"the plan's target is none that deadweight knows: {shown(str(error))}") from None
    gpus: set[int] = set()
    for name in found.gpus:
        match = _GPU.fullmatch(name)
        if match is None:
            raise PlanError(f"the plan's target names {shown(name)}, which is no GPU: it takes names as sm_90")
        gpus.add(int(match[1]))
    if found.recompress and found.encoder != _encoder():
        theirs = "none" if found.encoder is None else shown(found.encoder)
        raise PlanError(
            f"the plan's encoder is {theirs}, here it is {shown(_encoder())}, whose output can have another size: make "
            "a new plan"
        )
    return Target(tuple(sorted(gpus)), found.keep_ptx, found.raw_blobs, found.recompress)


def slimmed_for(fs: Filesystem, target: Target) -> tuple[Slimmed, str | None]:
    """What the image of `fs` is slimmed for after this target, and a note where that is less than was declared.

    What left when it was slimmed before does not come back.
    """
    names = [f"sm_{gpu}" for gpu in target.gpus]
    new = Slimmed(FILE_SCHEMA, version("deadweight"), names, target.keep_ptx and bool(names), target.raw_blobs)
    old = read_slimmed(fs)
    if old is None:
        return new, None
    both = msgspec.structs.replace(
        new,
        gpus=[name for name in names if name in old.gpus],
        keep_ptx=new.keep_ptx and old.keep_ptx,
        raw_blobs=new.raw_blobs or old.raw_blobs,
    )
    lost = ", ".join(name for name in names if name not in old.gpus)
    was = ", ".join(old.gpus) or "machines without a GPU"
    note = f"the image was slimmed before, for {was}: what left then does not come back, so it is not one for {lost}"
    return both, note if lost else None


def read_slimmed(fs: Filesystem) -> Slimmed | None:
    """What an image's file says that it was slimmed for; None where there is none that can be believed."""
    node = fs.nodes.get(TARGET_FILE)
    if node is None or node.kind != "file" or node.size > _FILE_LIMIT:
        return None
    try:
        found = msgspec.json.decode(fs.read(TARGET_FILE), type=Slimmed)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return found if found.schema == FILE_SCHEMA and all(map(_GPU.fullmatch, found.gpus)) else None


def slimmed_bytes(slimmed: Slimmed) -> bytes:
    """The file's content."""
    return msgspec.json.encode(slimmed) + b"\n"


def slimmed_labels(slimmed: Slimmed) -> dict[str, str]:
    """The same in short, as labels of the image."""
    return {
        "deadweight.gpus": ",".join(slimmed.gpus) or "none",
        "deadweight.ptx": "kept" if slimmed.keep_ptx else "dropped",
    }


def _encoder() -> str:
    from deadweight.binary.recompress import encoder  # noqa: PLC0415  (only who recompresses needs it)

    return encoder()
