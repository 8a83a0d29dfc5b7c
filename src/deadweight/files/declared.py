"""The file that says for which GPUs a directory was pruned.

What has left cannot come back, so a later run may declare fewer GPUs and never others.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from deadweight.binary.gpu import Target
from deadweight.binary.target_document import (
    LIMIT,
    TargetDocument,
    gpu_names,
    in_words,
    read_document,
    target_document,
    write_document,
)
from deadweight.errors import BadInputError, UsageError, shown
from deadweight.files.replace import add_content, replace_content


def read_declared(path: str) -> TargetDocument:
    """What a directory was pruned for. BadInputError where the file is damaged or of an unknown version."""
    try:
        with Path(path).open("rb") as file:
            return read_document(file.read(LIMIT))
    except (OSError, ValueError) as error:
        raise BadInputError(f"cannot read {shown(path)}: {shown(str(error))}") from None


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
    new = target_document(target)
    if not os.path.lexists(path):
        add_content(path, write_document(new))
        return
    before = read_declared(path)
    new = msgspec.structs.replace(new, raw_blobs=new.raw_blobs or before.raw_blobs)
    if new != msgspec.structs.replace(before, deadweight=new.deadweight):
        replace_content(path, write_document(new))
