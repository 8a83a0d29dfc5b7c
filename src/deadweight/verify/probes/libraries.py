"""Every ELF file's libraries are found where they were, with all their symbols: as the image's own loader sees it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

import msgspec

from deadweight.binary.dynamic import dynamic, interpreter
from deadweight.binary.elf import ET_DYN, ET_EXEC, ElfError, parse
from deadweight.decoding import from_values
from deadweight.errors import BadInputError, shown
from deadweight.image.filesystem import Node
from deadweight.ledger.ledger import Ledger
from deadweight.verify.model import Observation
from deadweight.verify.probes import Kind
from deadweight.verify.side import Ended, NoAnswer, Side
from deadweight.verify.spec import LibrariesProbe

NOT_FOUND = "not found"
_TOTAL = 0.95  # of the probe's time, as for imports
_ONE = 0.1


class _Resolved(msgspec.Struct, frozen=True):
    """What a loader says of a file."""

    libraries: dict[str, str] = {}
    """Where it finds each, or `not found`."""
    undefined: list[str] = []
    """Symbols that none of them has."""
    errors: list[str] = []
    hung: bool = False
    """Whether the loader was ended before it had said all."""

    @property
    def missing(self) -> list[str]:
        return [name for name, place in self.libraries.items() if place == NOT_FOUND]


class _Answer(msgspec.Struct):
    files: dict[str, _Resolved]
    unfinished: int


def observe(probe: LibrariesProbe, side: Side) -> Observation:
    """Asks the loader about every file."""
    asked, found = _files(probe, side)
    ledgers = [ledger for ledger in (side.ledger, side.original) if ledger is not None]
    if (
        probe.paths
        and side.name != "before"
        and not any(_wanted(probe, path) for each in ledgers for path, _ in elf_paths(each))
    ):
        raise NoAnswer(f"no ELF file matches {', '.join(map(shown, probe.paths))}: patterns are for whole paths")
    seconds = probe.timeout or side.limits.seconds
    arguments = {
        "files": list(asked.items()),
        "jobs": os.cpu_count() or 1,
        "seconds": max(seconds * _ONE, 1.0),
        "total": seconds * _TOTAL,
    }
    if asked:
        try:
            answer = from_values(side.ask("libraries", arguments, probe.timeout), _Answer)
        except msgspec.ValidationError as error:
            raise NoAnswer(f"the image's Python gave no sound answer: {error}") from None
        if answer.unfinished:
            raise Ended(f"out of time after {seconds:g} s, {answer.unfinished:,} files before the end")
        if answer.files.keys() != asked.keys():
            raise NoAnswer("the image's Python gave no sound answer: not that of the files asked for")
        found |= answer.files
    facts = {path: _fact(found[path]) for path in sorted(found)}
    failed = tuple(path for path in facts if found[path].missing or found[path].errors)
    summary = f"{len(facts):,} file{'' if len(facts) == 1 else 's'}" + (
        f", {len(failed):,} with something missing" if failed else ""
    )
    hung = tuple(path for path in facts if found[path].hung)
    return Observation(summary, facts, failed, hung, data={path: found[path] for path in facts})


def _files(probe: LibrariesProbe, side: Side) -> tuple[dict[str, str], dict[str, _Resolved]]:
    """The files to ask about, each with its loader, and those of which it is known without: by path."""
    default, machine = _default(side)
    asked: dict[str, str] = {}
    known: dict[str, _Resolved] = {}
    mine = set()
    for path, node in elf_paths(side.ledger):
        if not _wanted(probe, path):
            continue
        mine.add(path)
        try:
            loader = _loader(side, node, machine)
        except (ElfError, BadInputError) as error:
            known[f"/{path}"] = _Resolved(errors=[f"cannot be loaded: {error}"])
            continue
        if loader is None:
            continue
        loader = loader or default
        if side.fs.resolve(loader) is None:
            known[f"/{path}"] = _Resolved({loader: NOT_FOUND})
        else:
            asked[f"/{path}"] = loader
    if side.original is not None:
        for path, _ in elf_paths(side.original):
            if path not in mine and path in side.fs.nodes and _wanted(probe, path):
                known[f"/{path}"] = _Resolved(errors=["is no ELF file"])
    return asked, known


def _wanted(probe: LibrariesProbe, path: str) -> bool:
    if any(0xD800 <= ord(letter) < 0xE000 for letter in path):
        return False  # no name that could be sent as text
    return not probe.paths or any(fnmatchcase(f"/{path}", f"/{pattern.lstrip('/')}") for pattern in probe.paths)


def elf_paths(ledger: Ledger) -> Iterator[tuple[str, Node]]:
    """Every path of an ELF file: what `$ORIGIN` means is another thing for each name of one file."""
    inodes = {node.inode for node in ledger.elf_files.values()}
    return ((path, node) for path, node in ledger.fs.nodes.items() if node.inode in inodes and node.kind == "file")


def _loader(side: Side, node: Node, machine: int) -> str | None:
    """The loader that a file names, an empty name for the image's own; None where no loader has to do with it.

    Those are files for other machines, static programs, and what the linker or a debugger reads. Raises ElfError.
    """
    read = side.fs.reader(node)
    elf = parse(read, node.size)
    if elf.machine != machine or elf.elf_type not in (ET_EXEC, ET_DYN):
        return None
    needed = dynamic(read, elf).needed
    own = interpreter(read, elf)
    return None if not needed and own is None else own or ""


def _default(side: Side) -> tuple[str, int]:
    """The loader of the image's Python, which loads its extension modules, and the machine. Raises NoAnswer."""
    node = side.fs.resolve(side.python)
    if node is not None and node.kind == "file":
        read = side.fs.reader(node)
        try:
            elf = parse(read, node.size)
            found = interpreter(read, elf)
        except ElfError as error:
            raise NoAnswer(f"{shown(side.python)} is no program with a loader: {error}") from None
        if found is not None:
            return found, elf.machine
    raise NoAnswer(f"{shown(side.python)} is no program with a loader")


def _fact(seen: _Resolved) -> str:
    count = len(seen.libraries)
    parts = [f"{count:,} librar{'y' if count == 1 else 'ies'}"]
    parts += [f"{name} not found" for name in seen.missing[:3]]
    if seen.undefined:
        parts.append(f"{len(seen.undefined):,} undefined symbol{'' if len(seen.undefined) == 1 else 's'}")
    return shown(", ".join([*parts, *seen.errors[:3]]), 400)[1:-1]


def differences(probe: LibrariesProbe, before: Observation, after: Observation) -> list[str]:
    """Which file's libraries, symbols or errors are others. Files that left the image are not missed."""
    found = []
    nothing = _Resolved()
    for path, two in after.data.items():
        one = before.data.get(path)
        if one is None:  # a new file, of which all that is asked is that it loads
            found += [f"{path}: {what}" for what in [*(f"{name}: {NOT_FOUND}" for name in two.missing), *two.errors]]
            continue
        if one == two or one is nothing:
            continue
        found += [f"{path}: {what}" for what in _changes(one, two)]
    return [shown(text, 600)[1:-1] for text in found]


def less_what_left(
    before: Observation, after: Observation, gone: Collection[str], other: Collection[str]
) -> Observation:
    """What the original's loader says, less what a swap of builds declares to leave.

    A file that is of another build now (`other`), or that had a library which left (`gone`; image paths), need not need
    what it needed: what it asks for now has to be there, all the same.
    """
    if before.data is None or after.data is None:  # no answer
        return before
    found = {}
    for path, one in before.data.items():
        two = after.data.get(path)
        left = [name for name, place in one.libraries.items() if place.lstrip("/") in gone]
        if two is not None and (left or path.lstrip("/") in other):
            found[path] = _Resolved(
                {name: one.libraries.get(name, place) for name, place in two.libraries.items() if place != NOT_FOUND}
                | {name: one.libraries.get(name, "not needed") for name in two.missing},
                [symbol for symbol in two.undefined if symbol in one.undefined],
                [error for error in two.errors if error in one.errors],
                one.hung,
            )
    note = f"{len(found):,} files are of a build that was swapped, or load its libraries: they need what they need now"
    notes = (*before.notes, note) if found else before.notes
    return msgspec.structs.replace(before, data={**before.data, **found}, notes=notes)


def _changes(one: _Resolved, two: _Resolved) -> Iterator[str]:
    for name in [*one.libraries, *(name for name in two.libraries if name not in one.libraries)]:
        a, b = (seen.libraries.get(name, "not needed") for seen in (one, two))
        if a != b:
            yield f"{name}: {a} -> {b}"
    yield from (f"undefined symbol: {symbol}" for symbol in two.undefined if symbol not in one.undefined)
    yield from (f"symbol undefined before only: {s}" for s in one.undefined if s not in two.undefined)
    yield from (error for error in two.errors if error not in one.errors)
    yield from (f"before only: {error}" for error in one.errors if error not in two.errors)


KIND = Kind(observe, differences)
