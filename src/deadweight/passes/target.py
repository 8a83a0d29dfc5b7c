"""The declared target as data: in plans, and in slimmed images.

An image from which GPU code left says for whom the rest is, in a small file and in labels, so that `deadweight doctor`
can tell why kernels are missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from deadweight.binary import recompress
from deadweight.binary.gpu import Target
from deadweight.binary.target_document import (
    IN_IMAGE,
    LIMIT,
    TargetDocument,
    gpu_names,
    gpu_numbers,
    in_words,
    read_document,
    target_document,
)
from deadweight.decoding import from_values
from deadweight.errors import PlanError, UsageError, shown
from deadweight.image.filesystem import Filesystem

GPU_CODE: Final = "gpu-code"
"""The pass whose cuts make an image one for its target alone."""


class _Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A target as a plan has it."""

    gpus: list[str]
    keep_ptx: bool
    raw_blobs: bool
    recompress: bool
    encoder: str | None = None
    """What recompresses, with its version: another one's output has other sizes."""


def write_target(target: Target | None) -> dict[str, Any]:
    """A target as a plan has it; empty when none was declared."""
    if target is None:
        return {}
    data: dict[str, Any] = {
        "gpus": list(gpu_names(target.gpus)),
        "keep_ptx": target.keep_ptx,
        "raw_blobs": target.raw_blobs,
        "recompress": target.recompress,
    }
    return {**data, "encoder": recompress.encoder()} if target.recompress else data


def read_target(data: Mapping[str, Any]) -> Target | None:
    """The target of a plan. Raises PlanError for what is none, and when the plan is for another encoder than ours."""
    if not data:
        return None
    try:
        found = from_values(data, _Data)
    except msgspec.ValidationError as error:
        raise PlanError(f"the plan's target is none that deadweight knows: {shown(str(error))}") from None
    try:
        gpus = gpu_numbers(found.gpus)
    except ValueError as error:
        raise PlanError(f"the plan's target: {error}") from None
    if found.recompress and found.encoder != recompress.encoder():
        theirs = "none" if found.encoder is None else shown(found.encoder)
        raise PlanError(
            f"the plan's encoder is {theirs}, here it is {shown(recompress.encoder())}, whose output can have another "
            "size: make a new plan"
        )
    return Target(gpus, found.keep_ptx, found.raw_blobs, found.recompress)


def slimmed_for(fs: Filesystem, target: Target) -> tuple[TargetDocument, str | None]:
    """What the image of `fs` is slimmed for after this target, and a note where that is less than was declared.

    What left when it was slimmed before does not come back.
    """
    new = target_document(target)
    old = read_slimmed(fs)
    if old is None:
        return new, None
    both = msgspec.structs.replace(
        new,
        gpus=tuple(name for name in new.gpus if name in old.gpus),
        keep_ptx=new.keep_ptx and old.keep_ptx,
        raw_blobs=new.raw_blobs or old.raw_blobs,
    )
    lost = ", ".join(name for name in new.gpus if name not in old.gpus)
    note = (
        f"the image was slimmed before, for {in_words(old.gpus)}: what left then does not come back, so it is not one "
        f"for {lost}"
    )
    return both, note if lost else None


def check_not_lost(fs: Filesystem, target: Target | None) -> None:
    """Raises UsageError for a target whose GPU code left when the image was slimmed before."""
    old = read_slimmed(fs)
    if target is None or old is None or set(gpu_names(target.gpus)) <= set(old.gpus):
        return
    raise UsageError(
        f"GPU code for {in_words(old.gpus)} alone was kept when this image was slimmed before (/{IN_IMAGE}), and what "
        "has left cannot come back: name GPUs among these, or slim the original image"
    )


def read_slimmed(fs: Filesystem) -> TargetDocument | None:
    """What an image's file says that it was slimmed for; None where there is none that can be believed."""
    node = fs.nodes.get(IN_IMAGE)
    if node is None or node.kind != "file" or node.size > LIMIT:
        return None
    try:
        return read_document(fs.read(IN_IMAGE))
    except ValueError:
        return None
