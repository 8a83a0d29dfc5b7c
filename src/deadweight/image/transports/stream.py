"""One layer from its stream into a file: counted, hashed and compressed on the way."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal

import msgspec
from msgspec.structs import replace

from deadweight.errors import DigestError
from deadweight.image.bytes import CHUNK, ByteRange, state_of
from deadweight.image.compression import Compression, compressor
from deadweight.image.model import Layer
from deadweight.image.output import OutputLayer, PredictionError, Progress

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Keep = Literal["keep"]
_QUEUE = 4
_SMALL = 64 << 10
_STEP = 64 << 20
NOT_IN_KERNEL = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF})
"""What copying inside the kernel says where it cannot be done."""


class Stored(msgspec.Struct, frozen=True):
    """A layer as it was stored. Sizes are bytes: of the uncompressed tar, and of the blob."""

    diff_id: str
    digest: str
    size: int
    stored: int
    compression: Compression


class Hasher:
    """sha256 on a thread of its own: hashlib lets go of the interpreter, so hashing and writing overlap."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1, "sha256")
        self._pending: deque[Future[None]] = deque()

    def update(self, data: bytes) -> None:
        """Hashes `data`, soon: it must not change."""
        self._pending.append(self._pool.submit(self._digest.update, data))
        if len(self._pending) > _QUEUE:
            self._pending.popleft().result()

    def digest(self) -> str:
        """As `sha256:<hex>`."""
        while self._pending:
            self._pending.popleft().result()
        return "sha256:" + self._digest.hexdigest()

    def __enter__(self) -> Hasher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class _CountingFile(io.RawIOBase):
    """Passes compressed bytes on to a file, counted and hashed."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.digest = hashlib.sha256()
        self.count = 0

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        written = self._file.write(data)
        self.digest.update(data)
        self.count += written
        return written


def write_layer(
    layer: OutputLayer, file: BinaryIO, compression: Compression | None, where: str, progress: Progress | None
) -> Stored:
    """Writes a layer to `file`, at its position. With `compression` None it is an untouched layer's blob, as it is.

    Raises PredictionError when the stream has not the size that was said, DigestError when an untouched layer is not
    what its digests say, and what `layer.chunks()` raises.
    """
    if compression is None:
        assert layer.source is not None
        return _copy_blob(layer, layer.source, file, progress)
    if compression == "none" and layer.file is not None and layer.diff_id is not None:
        if layer.check is not None:
            layer.check(progress)
        if _copy_file(layer, layer.file, file, where, progress):
            return Stored(layer.diff_id, layer.diff_id, layer.size, layer.size, compression)
    with Hasher() as content:
        pieces = _counted(layer, content, where, progress)
        if compression == "none":
            for piece in pieces:
                file.write(piece)
            diff_id = content.digest()
            stored = Stored(diff_id, diff_id, layer.size, layer.size, compression)
        else:
            counting = _CountingFile(file)
            # The standard library's compressing files accept any raw file; their annotations ask for more.
            with compressor(counting, compression) as packed:  # type: ignore[arg-type]
                for piece in pieces:
                    packed.write(piece)
            digest = "sha256:" + counting.digest.hexdigest()
            stored = Stored(content.digest(), digest, layer.size, counting.count, compression)
    if layer.diff_id_known is not None:
        _same(stored.diff_id, layer.diff_id_known, where if layer.source is None else layer.source.where)
    return stored


def _counted(layer: OutputLayer, content: Hasher, where: str, progress: Progress | None) -> Iterator[bytes]:
    """The stream in larger pieces, hashed, and held against the size that was said."""
    done = 0
    for piece in _gathered(layer.chunks()):
        done += len(piece)
        if done > layer.size:
            raise PredictionError(_mismatch(where, layer.size, f"more than {done - 1:,}"))
        content.update(piece)
        yield piece
        if progress is not None:
            progress(done)
    if done != layer.size:
        raise PredictionError(_mismatch(where, layer.size, f"{done:,}"))


def _mismatch(where: str, predicted: int, built: str) -> str:
    return (
        f"{where}: predicted {predicted:,} bytes, built {built}: this is a defect of deadweight, please report it; "
        "nothing was written"
    )


def _gathered(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Small chunks joined: a layer of 60,000 entries has as many headers. Large ones go through as they are."""
    small: list[bytes] = []
    size = 0
    for chunk in chunks:
        if len(chunk) < _SMALL:
            small.append(chunk)
            size += len(chunk)
            if size < CHUNK:
                continue
            chunk = b""  # noqa: PLW2901
        if small:
            yield b"".join(small)
            small, size = [], 0
        if chunk:
            yield chunk
    if small:
        yield b"".join(small)


def _copy_blob(layer: OutputLayer, source: Layer, file: BinaryIO, progress: Progress | None) -> Stored:
    # A compressed layer's diff-id is checked when it is unpacked; that has happened, if its size is known.
    size = source.size
    done = 0
    with Hasher() as content:
        for chunk in source.blob.chunks():
            file.write(chunk)
            content.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(size * done // source.blob.size)
        digest = content.digest()
    if source.compression == "none":
        _same(digest, source.diff_id, source.where)
        source.proved()
    if source.digest is not None:
        _same(digest, source.digest, source.where)
    if size != layer.size:
        raise PredictionError(_mismatch(source.where, layer.size, f"{size:,}"))
    return Stored(source.diff_id, digest, size, done, source.compression)


def _copy_file(layer: OutputLayer, source: ByteRange, file: BinaryIO, where: str, progress: Progress | None) -> bool:
    """Copies a layer that lies in a file; False, with nothing written, where it is not what it was said to be."""
    if source.size != layer.size:
        raise PredictionError(_mismatch(where, layer.size, f"{source.size:,}"))
    file.flush()
    start = file.tell()
    if layer.file_state is not None and state_of(source) == layer.file_state:
        _copy_range(source, file, start, progress)
        same = state_of(source) == layer.file_state
    else:
        with Hasher() as content:
            for chunk in _counted(replace(layer, chunks=source.chunks), content, where, progress):
                file.write(chunk)
            same = content.digest() == layer.diff_id
    if not same:
        file.seek(start)
        file.truncate()
    return same


def _copy_range(source: ByteRange, file: BinaryIO, start: int, progress: Progress | None) -> None:
    """Copies a range to `start`, inside the kernel where that can be done."""
    done = 0
    while done < source.size:
        count = min(_STEP, source.size - done)
        try:
            count = os.copy_file_range(source.fd, file.fileno(), count, source.start + done, start + done)
        except OSError as error:
            if error.errno not in NOT_IN_KERNEL:
                raise
            count = 0
        if not count:
            break
        done += count
        if progress is not None:
            progress(done)
    file.seek(start + done)
    for chunk in source.chunks(done):
        file.write(chunk)
        done += len(chunk)
        if progress is not None:
            progress(done)


def _same(got: str, stated: str, where: str) -> None:
    if got != stated:
        raise DigestError(f"{where} does not hash to {stated}: the image is damaged, get it again")
