"""Rewritten programs and libraries: what loaders map is as it was, but for GPU code that a target does without."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

import msgspec

from deadweight.binary.elf import ET_DYN, ET_EXEC, MACHINES, is_elf, parse
from deadweight.binary.fixed import fixed_reason
from deadweight.binary.gpu import Target
from deadweight.binary.leftovers import check_dropped, drop_leftovers
from deadweight.binary.shrink import shrink_gpu_code
from deadweight.binary.shrink_check import check_shrunk
from deadweight.binary.strip import check, strip_symbols
from deadweight.image.content import Content
from deadweight.ledger.ledger import Ledger
from deadweight.models.check import check_converted
from deadweight.models.convert import WEIGHTS as CONVERSIONS
from deadweight.passes.base import rewritten
from deadweight.passes.leftovers import PASS as LEFTOVERS
from deadweight.passes.symbols import NOTHING
from deadweight.passes.symbols import PASS as SYMBOLS
from deadweight.passes.target import GPU_CODE
from deadweight.passes.weights import PASS as WEIGHTS
from deadweight.verify.proof.contents import File, first_difference, plain_file
from deadweight.verify.proof.declarations import Rewrite

_OF_LOADERS: Final = frozenset({GPU_CODE, SYMBOLS.name})
"""Passes whose results can be held to what loaders map, whichever version of deadweight made them."""


def check_declared(
    before: Ledger,
    steps: Sequence[Rewrite],
    new: File,
    target: Target | None,
    same_version: bool,
) -> bytes | None:
    """The sha256 of `new`; ValueError unless it is what these passes make of their file, byte for byte.

    What the pass gpu-code makes is compared with the original when it is made (`check_shrunk`), what symbols, leftovers
    and weights make is here: so none rests on the code that makes it. Where the plan is by another version of
    deadweight, what loaders do not map may differ, and the digest is None then.
    """
    old = plain_file(before.fs, before.fs.nodes[steps[0].path])
    stages = [old]
    content: Content | None = None
    for step in steps:
        content = rewritten(before, step.by, step.path, content, target, step.to)
        stages.append(old.rewritten(content))
    digest = hashlib.sha256()
    where = first_difference(stages[-1], new, digest.update)
    if where is not None:
        last = steps[-1].by.name
        if not {step.by.name for step in steps} <= _OF_LOADERS:
            raise ValueError(f"{last} makes something else of it, from byte {where:,} on")
        _same_for_loaders(stages[-2] if last == SYMBOLS.name else stages[-1], new, _machine(before))
        if same_version:
            raise ValueError(f"what loaders do not map is not what it is to be, from byte {where:,} on")
        return None
    for step, one, two in zip(steps, stages[:-1], stages[1:], strict=True):
        if step.by.name == SYMBOLS.name:
            check(*one, *two)
        elif step.by.name == LEFTOVERS.name:
            check_dropped(*one, *two)
        elif step.by.name == WEIGHTS.name and step.to in CONVERSIONS:
            check_converted(*one, *two, step.to)
    return digest.digest()


def undeclared_rewrite(before: Ledger, old: File, new: File, target: Target | None, names: Collection[str]) -> str:
    """What was done to a program or library, as far as loaders, on that target, cannot tell.

    `names` are all names of the file. ValueError, with the reason, where they can.
    """
    if not is_elf(old.read(0, 64)) or not is_elf(new.read(0, 64)):
        raise ValueError("undeclared")
    exists: Callable[[str], bool] = before.fs.nodes.__contains__
    fixed = next(filter(None, (fixed_reason(name, exists) for name in names)), None)
    if fixed is not None:
        raise ValueError(f"{fixed} changed")
    machine = _machine(before)
    reasons: list[ValueError] = []
    for what, witness in _witnesses(old, target, machine):
        try:
            if what and first_difference(witness, new) is None:
                return what
            _same_for_loaders(witness, new, machine)
        except ValueError as error:
            reasons.append(error)
        else:
            return f"{what}, {SYMBOLS.name}" if what else SYMBOLS.name
    raise reasons[min(1, len(reasons) - 1)]  # of a file with GPU code, rather what differs when that has left


def _witnesses(old: File, target: Target | None, machine: int | None) -> Iterator[tuple[str, File]]:
    """What the file may be for loaders, each compared with the file already: as it is, and as other passes make it."""
    for what, file in _without_gpu_code(old, target):
        yield what, file
        try:
            dropped = file.rewritten(drop_leftovers(*file, machine or 0))
        except ValueError:  # nothing was left behind, or it cannot leave
            continue
        yield ", ".join(filter(None, (what, LEFTOVERS.name))), dropped


def _without_gpu_code(old: File, target: Target | None) -> Iterator[tuple[str, File]]:
    """The file, and what it is without the GPU code that the target does without."""
    yield "", old
    if target is not None:
        for recompress in (False, True):
            wanted = msgspec.structs.replace(target, recompress=recompress)
            try:
                witness = old.rewritten(shrink_gpu_code(*old, wanted))
                check_shrunk(*old, *witness, wanted)
            except ValueError:  # there is nothing to take out, or it cannot be
                return
            yield GPU_CODE, witness


def _same_for_loaders(old: File, new: File, machine: int | None) -> None:
    """ValueError unless both are programs or libraries that only differ in symbols, and in what describes these."""
    if machine is None:
        raise ValueError("the image's architecture is not one that is known here")
    check(*old, *new)
    for file in (old, new):
        elf = parse(*file)
        if elf.elf_type not in (ET_EXEC, ET_DYN) or not elf.loads:
            raise ValueError("neither a program nor a shared library")
        try:
            # Not for the result: it refuses what lies outside all segments and is neither symbols nor zeros.
            strip_symbols(*file, machine)
        except ValueError as error:
            if str(error) != NOTHING:
                raise


def _machine(before: Ledger) -> int | None:
    """The e_machine of the image's own programs."""
    return MACHINES.get(str(before.image.config.get("architecture", "amd64")))
