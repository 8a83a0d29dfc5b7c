"""An image that is another one with an edit done, and is not written anywhere: its layers are pieces of files.

What was changed is read where it lies: in layers of the original, in files kept aside, and headers in memory. So an
image of gigabytes in which some files are others costs the bytes of those alone.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import BinaryIO, cast

import msgspec

from deadweight.errors import EnvironmentFailure
from deadweight.image.bytes import ByteRange, PiecedRange
from deadweight.image.compression import temporary_folder
from deadweight.image.content import Recoded
from deadweight.image.edit import Edited
from deadweight.image.layer import BLOCK, Entry, read_entries, read_plain_entry
from deadweight.image.model import Image, Layer
from deadweight.image.pieces import Made, Piece, Span, length_of


@dataclass(frozen=True)
class ChangedLayer(Layer):
    """A layer with other content than its original.

    Its diff-id is a name by which it is told from others, and not the digest of its content, which is not known before
    all of it is read.
    """

    original: Layer
    edited: Layer
    """What the edit was of: the original, or what an edit before made of it."""
    pieces: Sequence[Piece]

    @cached_property
    def entries(self) -> list[Entry]:
        """What the tar holds, in order. Headers are read where they are new: most entries are others, moved."""
        found: list[Entry] = []
        done = 0
        for start, run in _copied(self.edited, self.pieces):
            self._read(done, start, found)
            move = start - run[0].start
            found += [
                msgspec.structs.replace(e, index=at, start=e.start + move, data=e.data + move, end=e.end + move)
                for at, e in enumerate(run, len(found))
            ]
            done = found[-1].end
        self._read(done, self.size, found)
        return found

    def _read(self, start: int, end: int, found: list[Entry]) -> None:
        """Adds the entries that begin and end in a range of the tar."""
        while (entry := read_plain_entry(self.tar, start, end, len(found))) is not None:
            found.append(entry)
            start = entry.end
        for entry in read_entries(self.tar.window(start, end - start), self.where):
            places = {"start": start + entry.start, "data": start + entry.data, "end": start + entry.end}
            found.append(msgspec.structs.replace(entry, index=len(found), **places))

    @property
    def checked(self) -> bool:
        """Whether the original's diff-id has been compared with its content."""
        return self.original.checked

    def check(self, progress: Callable[[int], None] | None = None) -> None:
        """Holds the original to its diff-id: all that is not new comes from there. Raises DigestError."""
        self.original.check(progress)


def _copied(layer: Layer, pieces: Iterable[Piece]) -> Iterator[tuple[int, Sequence[Entry]]]:
    """Runs of a layer's entries that pieces have whole, one after the other; with where each run begins among them."""
    entries = layer.entries
    starts, ends = [entry.start for entry in entries], [entry.end for entry in entries]
    if starts != [0, *ends][: len(starts)]:
        return  # global headers lie between, which are no entries
    if ends and ends[-1] % BLOCK:
        del starts[-1], ends[-1]  # its padding is missing, and is added when it is copied
    at = 0
    for piece in pieces:
        if isinstance(piece, Span) and piece.layer == layer.position:
            first, end = bisect_left(starts, piece.start), bisect_right(ends, piece.start + piece.length)
            if first < end:
                yield at + starts[first] - piece.start, entries[first:end]
        at += length_of(piece)


class Aside:
    """An unnamed temporary file for what is new; it goes away with `resources`.

    Raises EnvironmentFailure where there is no space.
    """

    def __init__(self, resources: ExitStack) -> None:
        try:
            self._file = cast(
                BinaryIO, resources.enter_context(tempfile.TemporaryFile(dir=temporary_folder(), buffering=0))
            )
        except OSError as error:
            raise _no_space(error) from None
        self._end = 0

    def put(self, chunks: Iterable[bytes]) -> ByteRange:
        """Keeps some bytes; gives where they are."""
        start = self._end
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                try:
                    count = os.pwrite(self._file.fileno(), rest, self._end)
                except OSError as error:
                    raise _no_space(error) from None
                self._end += count
                rest = rest[count:]
        return ByteRange(self._file.fileno(), start, self._end - start)


def _no_space(error: OSError) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"cannot write to {temporary_folder()}: {error.strerror or error}; set TMPDIR to a folder with more space"
    )


class MadeRange(ByteRange):
    """What is made of a range: worked out when it is read. It has no file descriptor of its own (-1)."""

    __slots__ = ("original", "part")

    def __init__(self, original: ByteRange, part: Recoded) -> None:
        super().__init__(-1, 0, part.size)
        self.original = original
        self.part = part

    def read_at(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        return self.part.window(offset, length).read(self.original.read_at) if length > 0 and offset >= 0 else b""

    def window(self, offset: int, length: int) -> ByteRange:
        super().window(offset, length)
        return MadeRange(self.original, self.part.window(offset, length))


class HeldRange(ByteRange):
    """Bytes in memory. They have no file descriptor (-1)."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        super().__init__(-1, 0, len(data))
        self.data = data

    def read_at(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length] if offset >= 0 and length > 0 else b""

    def window(self, offset: int, length: int) -> ByteRange:
        super().window(offset, length)
        return HeldRange(self.data[offset : offset + length])


def changed_image(image: Image, edited: Edited, why: bytes, resources: ExitStack) -> Image:
    """The image with an edit done. It has the original's configuration, and so its image ID.

    `why` is what the edit depends on beside the image, for the changed layers' names; `resources` is closed with the
    new image, which is to be closed before the original.
    """
    layers = []
    for layer, edit in zip(image.layers, edited.layers, strict=True):
        if edit.pieces is None:
            layers.append(layer)
            continue
        tar = PiecedRange(_resolved(image, piece) for piece in edit.pieces)
        name = "sha256:" + hashlib.sha256(b"\0".join((b"changed", layer.diff_id.encode(), why))).hexdigest()
        original = layer.original if isinstance(layer, ChangedLayer) else layer
        layers.append(
            ChangedLayer(
                layer.position, name, tar, None, layer.created_by, resources, original, edited=layer, pieces=edit.pieces
            )
        )
    return replace(image, layers=tuple(layers), resources=resources)


def _resolved(image: Image, piece: Piece) -> ByteRange:
    if isinstance(piece, Span):
        return image.layers[piece.layer].tar.window(piece.start, piece.length)
    if isinstance(piece, Made):
        return MadeRange(image.layers[piece.layer].tar.window(piece.start, piece.length), piece.part)
    return HeldRange(piece) if isinstance(piece, bytes) else piece
