"""Shared libraries of Python distributions that nothing in the image names.

A library is loaded since another names it in DT_NEEDED (which is a string in that file), or since code opens it by its
name. So one whose name is in no file but those that are unreferenced themselves cannot be asked for, unless the name
is put together from parts, or a whole directory is loaded: that rests on an assumption, and the risk is `observed`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator

from deadweight.passes.base import Context, Pass, Proposal

MINIMUM = 1_000_000
"""Bytes: what is smaller is not worth the assumption."""
_CHUNK = 4 << 20
_LONGEST = 255  # bytes of a file's name
_NAME = re.compile(rb"[A-Za-z0-9_.+-]+$")
_DIRECTORY = re.compile(r"lib|lib64|.+\.libs")


def propose(context: Context) -> Iterator[Proposal]:
    """The libraries, ordered by path."""
    candidates = dict(_candidates(context))
    if not candidates:
        return
    places = [path for path in _files(context) if path not in candidates]
    found = _reached(_named(context, [*places, *candidates], set(candidates.values())), candidates)
    places += sorted(found)
    for path in found:
        del candidates[path]
    # Code may say the name without `lib` and `.so`, as ctypes.util.find_library takes it.
    bare = {path: name.removeprefix(b"lib") for path, name in candidates.items()}
    said = set(_mentioned(context, places, set(bare.values())))
    first = {path for path, name in bare.items() if name in said}
    kept = _reached(_named(context, candidates, set(candidates.values())), candidates, first)
    searched = sum(context.ledger.fs.nodes[path].size for path in places)
    evidence = f"its name is in none of {len(places):,} other files, {searched:,} bytes, nor is it in any DT_NEEDED"
    for path in sorted(candidates.keys() - kept):
        yield Proposal("remove", path, "a library that nothing names", evidence)


def _candidates(context: Context) -> Iterator[tuple[str, bytes]]:
    """Libraries of distributions that may leave, with their names up to `.so`."""
    for path, node in context.ledger.elf_files.items():
        directory, base = posixpath.split(path)
        if node.size < MINIMUM or not base.startswith("lib") or ".so" not in base:
            continue
        if not _DIRECTORY.fullmatch(posixpath.basename(directory)) or context.ledger.owner(path).kind != "python":
            continue
        if context.may_change(path):
            yield path, base.partition(".so")[0].encode("utf-8", "surrogateescape")


def _files(context: Context) -> Iterator[str]:
    """What may name a library: every file that stays but for metadata, whose lists and licences name all."""
    for path, node in context.ledger.fs.nodes.items():
        source = node.source
        if node.kind != "file" or source is None or source.sparse or not source.stored or path in context.gone:
            continue
        if ".dist-info/" not in path and ".egg-info/" not in path:
            yield path


def _chunks(context: Context, path: str) -> Iterator[bytes]:
    """A file's bytes, each piece with the end of the one before it."""
    read, size, end = context.ledger.reader(path), context.ledger.fs.nodes[path].size, b""
    for offset in range(0, size, _CHUNK):
        chunk = read(offset, _CHUNK)
        yield end + chunk
        end = chunk[-_LONGEST:]


def _named(context: Context, paths: Iterable[str], names: Collection[bytes]) -> dict[bytes, set[str]]:
    """Which of the files have each of the names (up to `.so`), as a word with `.so` behind it."""
    found: dict[bytes, set[str]] = {}
    for path in paths:
        for data in _chunks(context, path):
            at = data.find(b".so")
            while at >= 0:
                word = _NAME.search(data, max(0, at - _LONGEST), at)
                if word is not None:
                    name = word[0]
                    # Without a zero byte between them, what stands before a name looks like a part of it.
                    start = name.rfind(b"lib")
                    for each in (name, name[start:] if start > 0 else b""):
                        if each in names:
                            found.setdefault(each, set()).add(path)
                at = data.find(b".so", at + 3)
    return found


def _mentioned(context: Context, paths: Iterable[str], words: set[bytes]) -> Iterator[bytes]:
    """Those of the words that some file has anywhere."""
    left = set(words)
    for path in paths:
        if not left:
            return
        for data in _chunks(context, path):
            for word in [word for word in left if word in data]:
                left.discard(word)
                yield word


def _reached(named: dict[bytes, set[str]], candidates: dict[str, bytes], start: Collection[str] = ()) -> set[str]:
    """The candidates that files outside name, or candidates that are reached, or those of `start`."""
    reached: set[str] = set(start)
    while True:
        more = {
            path
            for path, name in candidates.items()
            if path not in reached
            and any(by in reached or by not in candidates for by in named.get(name, ()) if by != path)
        }
        if not more:
            return reached
        reached |= more


PASS = Pass(
    name="unreferenced",
    risk="observed",
    order=55,
    summary="shared libraries of Python distributions whose names are in no other file",
    propose=propose,
)
