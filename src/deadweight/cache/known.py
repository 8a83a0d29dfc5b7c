"""What is known of layers and of their files: by a layer's diff-id, and by a file's digest.

    known/VERSION/HEX.entries   the entries of the layer with this diff-id
    known/VERSION/HEX.KIND      what is known of its files, by their index, or of all of it, by 0
    made/VERSION/RECIPE-HEX     what a recipe makes of the file with this digest

VERSION is a digest of deadweight's own code and of what it computes with, so that no version believes another.

Of a layer only that is kept which was read from one whose diff-id was compared with its content, in a file that nobody
touched in between. It is believed of every layer that states the diff-id: the result is then right for that layer, or
the layer turns out not to be it, where its content is copied or rewritten.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from functools import cache as once
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec

from deadweight.cache.layers import Cache
from deadweight.cache.unpacked import recall_unpacked
from deadweight.entries import keep, load
from deadweight.image.bytes import ByteRange
from deadweight.image.changed import ChangedLayer
from deadweight.image.emitted import Emitted, Kept
from deadweight.image.filesystem import Key
from deadweight.image.layer import Entry
from deadweight.image.model import Image, Layer

T = TypeVar("T")
_COMPUTES: Final = ("lz4", "isal", "backports.zstd", "packaging", "msgspec", "numpy")
"""Distributions that what is worked out depends on."""
_MISSING: Final = object()


class _Index(msgspec.Struct, frozen=True, array_like=True):
    size: int
    entries: list[Entry]


class Facts:
    """What is known of the files of an image, each thing worked out once: from the cache, or in this run.

    Without a cache it knows what this run has worked out.
    """

    def __init__(self, image: Image, cache: Cache | None = None) -> None:
        self._image = image
        self._cache = cache
        self._tables: dict[tuple[str, int], dict[int | str, Any]] = {}
        self._loaded: dict[tuple[str, int], int] = {}
        self._recipes: set[str] | None = None
        self._made: list[tuple[int, str, object]] = []
        self._emitted: list[tuple[int, str, Emitted, Kept]] = []
        self.memo: dict[Hashable, Any] = {}
        """What no other run is told: for whoever would work it out again in this one."""

    def table(self, kind: str, position: int, of: type[T]) -> dict[int | str, T]:
        """What is known in this regard of the files of a layer, by the index of their entry; to be added to.

        Where it is of the layer itself it has one key, which is 0.
        """
        found = self._tables.get((kind, position))
        if found is None:
            layer = self._image.layers[position]
            if self._cache is not None and not isinstance(layer, ChangedLayer) and "doubted" not in layer.__dict__:
                found = load(_place(self._cache, layer, kind), dict[int | str, of])  # type: ignore[valid-type]
            found = {} if found is None else found
            self._loaded.setdefault((kind, position), len(found))
            found = self._tables.setdefault((kind, position), found)  # another thread may have been faster
        return found

    def of(self, kind: str, key: Key, of: type[T], work: Callable[[], T], more: str = "") -> T:
        """What is known in this regard of the file that an entry carries, worked out by `work` where it is not.

        It must follow from the file's content and `more` alone. Only what msgspec can write is kept for other runs.
        """
        table = self.table(kind, key[0], of)
        name = f"{key[1]} {more}" if more else key[1]
        found: Any = table.get(name, _MISSING)
        if found is _MISSING:
            found = table[name] = work()
        return cast(T, found)

    def has(self, kind: str, key: Key, of: type[T], more: str = "") -> bool:
        """Whether `of` would have nothing to work out."""
        return (f"{key[1]} {more}" if more else key[1]) in self.table(kind, key[0], of)

    def has_made(self, recipe: str) -> bool:
        """Whether it is known what a recipe makes of any file at all: if not, nothing has to be hashed to ask."""
        if self._recipes is None:
            self._recipes = set()
            if self._cache is not None:
                with suppress(OSError):
                    places = (self._cache.root / "made" / code()).iterdir()
                    self._recipes = {place.name.rpartition("-")[0] for place in places}
        return recipe in self._recipes

    def made(self, recipe: str, digest: bytes, of: type[T]) -> T | None:
        """What a recipe made of a file with this digest."""
        if self._cache is None:
            return None
        found: T | None = load(self._cache.root / "made" / code() / f"{recipe}-{digest.hex()}", of)
        return found

    def note_made(self, recipe: str, digest: bytes, value: object, position: int) -> None:
        """Remembers what a recipe made of a file with this digest, once the layer that has it is proved."""
        if self._cache is not None:
            self._made.append((position, f"{recipe}-{digest.hex()}", value))

    def find_emitted(self, position: int, key: str) -> Emitted | None:
        """What an edit made of the layer at a position."""
        if self._cache is None or self._is_changed(position):
            return None
        found: Emitted | None = load(_place(self._cache, self._image.layers[position], f"edit-{key}"), Emitted)
        return found

    def find_pieces(self, position: int, key: str) -> Kept | None:
        """The pieces of what an edit made of the layer at a position."""
        if self._cache is None:
            return None
        found: Kept | None = load(_place(self._cache, self._image.layers[position], f"pieces-{key}"), Kept)
        return found

    def note_emitted(self, position: int, key: str, emitted: Emitted, pieces: Kept) -> None:
        """Remembers what an edit made of the layer at a position, once it and all below are proved."""
        if self._cache is not None and not self._is_changed(position):
            self._emitted.append((position, key, emitted, pieces))

    def _is_changed(self, position: int) -> bool:
        """Whether the layer at a position or one below it is not as the image has it."""
        return any(isinstance(layer, ChangedLayer) for layer in self._image.layers[: position + 1])

    def learn(self) -> int:
        """Keeps what was worked out of layers that are proved to be what their diff-ids say; gives its bytes.

        Nothing is read for it: whoever writes an image has held all its layers to their diff-ids.
        """
        if self._cache is None:
            return 0
        learnt = 0
        below = True  # whether all layers so far are proved
        for layer in self._image.layers:
            if isinstance(layer, ChangedLayer) or not proved(layer, self._cache):
                below = False
                continue
            for position, key, emitted, pieces in self._emitted if below else ():
                if position == layer.position:
                    learnt += keep(_place(self._cache, layer, f"pieces-{key}"), pieces)
                    learnt += keep(_place(self._cache, layer, f"edit-{key}"), emitted)
            place = _place(self._cache, layer, "entries")
            if "recalled" not in layer.__dict__:
                learnt += keep(place, _Index(layer.size, layer.entries))
            for position, name, value in self._made:
                if position == layer.position:
                    learnt += keep(self._cache.root / "made" / code() / name, value)
            for (kind, position), table in self._tables.items():
                if position == layer.position and len(table) > self._loaded[kind, position]:
                    learnt += keep(_place(self._cache, layer, kind), table)
                    self._loaded[kind, position] = len(table)
        self._made, self._emitted = [], []
        return learnt


def recall(image: Image, cache: Cache, *, proved_alone: bool = False) -> None:
    """Gives the image's layers what is known of them: entries, and what they unpack to.

    With `proved_alone` only those are believed to be what they state which were compared with it.
    """
    for layer in image.layers:
        layer.__dict__["found_as"] = layer.state
        if not (isinstance(layer.blob, ByteRange) and layer.compression == "none") and not recall_unpacked(
            cache, layer
        ):
            continue
        if proved_alone and not proved(layer, cache):
            layer.__dict__["doubted"] = True
            continue
        index = load(_place(cache, layer, "entries"), _Index)
        if index is not None and index.size == layer.size:
            layer.__dict__["entries"] = index.entries
            layer.__dict__["recalled"] = True
        else:  # what is known by the index of an entry is known of those entries
            layer.__dict__["doubted"] = True


def proved(layer: Layer, cache: Cache) -> bool:
    """Whether what was read of the layer is the content of its diff-id."""
    if layer.checked:
        return True
    state = layer.state
    if state is None or state != layer.__dict__.get("found_as"):
        return False
    if layer.sound:
        cache.memory.note_part(layer.diff_id, state)
        return True
    return cache.memory.vouches_part(layer.diff_id, state)


def _place(cache: Cache, layer: Layer, kind: str) -> Path:
    return cache.root / "known" / code() / f"{layer.diff_id[7:]}.{kind}"


@once
def code() -> str:
    """A digest of all that decides what is worked out: deadweight's code, Python, and libraries."""
    found = hashlib.sha256(repr(sys.version_info).encode())
    for name in _COMPUTES:
        with suppress(PackageNotFoundError):
            found.update(f"{name} {version(name)}\0".encode())
    root = str(Path(__file__).parents[1])
    for path in sorted(_sources(root)):
        data = Path(path).read_bytes()
        found.update(f"{path.removeprefix(root)} {len(data)}\0".encode() + data)
    return found.hexdigest()[:32]


def _sources(folder: str) -> Iterator[str]:
    """The files of the code. Not by `Path.rglob`, which takes ten times as long: this is done at every start."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _sources(entry.path)
            elif entry.name.endswith((".py", ".toml")):
                yield entry.path


@once
def name_of(*inputs: Hashable) -> str:
    """A short name for what follows from these inputs alone."""
    return hashlib.sha256(repr(inputs).encode()).hexdigest()[:32]
