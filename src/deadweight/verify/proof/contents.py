"""What files hold, compared and hashed in pieces, two at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Final, Literal, NamedTuple, TypeVar

from deadweight.errors import BadInputError
from deadweight.image.bytes import CHUNK
from deadweight.image.content import Content, Reader
from deadweight.image.filesystem import Filesystem, Key, Node

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
Algorithm = Literal["sha256", "md5"]

_THREADS: Final = 2
_BATCH: Final = 64 << 20


class File(NamedTuple):
    """Some content."""

    read: Reader
    size: int

    def rewritten(self, content: Content) -> File:
        """What a pass makes of it."""
        return File(content.reader(self.read), content.size)

    def chunks(self) -> Iterator[bytes]:
        """All of it, in pieces of at most 1 MiB."""
        for at in range(0, self.size, CHUNK):
            length = min(CHUNK, self.size - at)
            data = self.read(at, length)
            if len(data) != length:
                raise BadInputError(f"the file ended {length - len(data):,} bytes early while it was read")
            yield data


class Pair(NamedTuple):
    """A file of the original, and the one that has its place, by the entries that carry their bytes."""

    before: Key
    after: Key


def plain_file(fs: Filesystem, node: Node) -> File:
    """The content of a file. Raises BadInputError for sparse ones."""
    return File(fs.reader(node), node.size)


def file_of(fs: Filesystem, key: Key) -> File:
    """What is compared of a file: its content; of a sparse one its headers and map as well."""
    entry, tar = fs.entry(key), fs.image.layers[key[0]].tar
    start, size = (entry.start, entry.end - entry.start) if entry.sparse else (entry.data, entry.stored)
    return File(tar.window(start, size).read_at, size)


def first_difference(one: File, two: File, seen: Callable[[bytes], None] | None = None) -> int | None:
    """Where two contents differ first, None if they are equal. `seen` is told what was read of the second."""
    at = 0
    for left, right in zip(one.chunks(), two.chunks(), strict=False):
        if seen is not None:
            seen(right)
        if left != right:
            length = min(len(left), len(right))
            return at + next((i for i in range(length) if left[i] != right[i]), length)
        at += len(left)
    return None if one.size == two.size else min(one.size, two.size)


def compare_pairs(before: Filesystem, after: Filesystem, pairs: Sequence[Pair]) -> list[Pair]:
    """Those that differ; sizes alone tell of most."""
    changed = []
    for pair in pairs:
        one, two = file_of(before, pair.before), file_of(after, pair.after)
        sparse = before.entry(pair.before).sparse != after.entry(pair.after).sparse
        if sparse or one.size != two.size or first_difference(one, two) is not None:
            changed.append(pair)
    return changed


def batches(after: Filesystem, pairs: Sequence[Pair]) -> Iterator[tuple[int, list[Pair]]]:
    """The pairs in the order of the layers, in batches with the bytes that each may take to read."""
    batch: list[Pair] = []
    size = 0
    for pair in sorted(pairs, key=lambda each: each.after):
        batch.append(pair)
        size += 4096 + after.entry(pair.after).stored
        if size >= _BATCH:
            yield size, batch
            batch, size = [], 0
    if batch:
        yield size, batch


def run_all(tasks: Sequence[tuple[int, Callable[[], T]]], say: Callable[[int, int], None]) -> list[T]:
    """The results of tasks, two at a time, the largest first; `say` is told how many bytes of how many are done."""
    total = sum(size for size, _ in tasks)
    pool = ThreadPoolExecutor(_THREADS)
    try:
        order = sorted(range(len(tasks)), key=lambda i: -tasks[i][0])
        running = {pool.submit(tasks[i][1]): i for i in order}
        results: dict[int, T] = {}
        done = 0
        say(0, total)
        for future in as_completed(running):
            results[running[future]] = future.result()
            done += tasks[running[future]][0]
            say(done, total)
    finally:
        pool.shutdown(cancel_futures=True)
    return [results[i] for i in range(len(tasks))]


class Digests:
    """Digests of the files of a view, each worked out once."""

    def __init__(self, fs: Filesystem) -> None:
        self._fs = fs
        self._known: dict[tuple[Key, Algorithm], bytes] = {}

    def know(self, key: Key, algorithm: Algorithm, digest: bytes) -> None:
        """Takes note of a digest that was worked out elsewhere."""
        self._known[key, algorithm] = digest

    def of(self, path: str, algorithm: Algorithm) -> bytes:
        """The digest of the file at `path`; of nothing where there is no plain file."""
        node = self._fs.nodes[path]
        if node.inode is None or node.kind != "file" or (node.source and node.source.sparse):
            return b""
        key = node.inode, algorithm
        if key not in self._known:
            digest = hashlib.new(algorithm, usedforsecurity=False)
            for chunk in plain_file(self._fs, node).chunks():
                digest.update(chunk)
            self._known[key] = digest.digest()
        return self._known[key]
