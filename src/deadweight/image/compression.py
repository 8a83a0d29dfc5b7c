"""Layers as they are stored: plain, gzip (RFC 1952) or zstd (RFC 8878)."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Literal, cast

from isal import igzip, isal_zlib

from deadweight.errors import BadInputError, DigestError, EnvironmentFailure
from deadweight.image.bytes import CHUNK, Blob, ByteRange

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Compression = Literal["none", "gzip", "zstd"]
_RESERVE = 512 * CHUNK
_GZIP = 2
"""isal's level, of 0 to 3: 1 takes as long, 3 half as long again for half a percent, zlib's 6 twenty times as long."""
_gzip_file: Any = igzip.GzipFile  # isal's class has no annotations
_gzip_error = cast(type[Exception], isal_zlib.error)


def detect(head: bytes) -> Compression:
    """The compression by its magic number."""
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    # The second is a skippable frame, with which zstd:chunked layers may begin.
    if head[:4] == b"\x28\xb5\x2f\xfd" or (head[1:4] == b"\x2a\x4d\x18" and head[:1] and head[0] & 0xF0 == 0x50):
        return "zstd"
    return "none"


class _HashingReader(io.RawIOBase):
    """A stream as a file that hashes what is read from it, and can read the rest."""

    def __init__(self, chunks: Iterator[bytes], progress: Callable[[int], None] | None) -> None:
        super().__init__()
        self._chunks = chunks
        self._left = memoryview(b"")
        self._progress = progress
        self._done = 0
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._take(chunk)
        count = min(len(buffer), len(self._left))
        memoryview(buffer)[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def _take(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        self._done += len(chunk)
        self._left = memoryview(chunk)
        if self._progress is not None:
            self._progress(self._done)

    def drain(self) -> None:
        """Reads to the end: bytes behind the compressed stream belong to the digest."""
        for chunk in self._chunks:
            self._take(chunk)


def decompressor(file: IO[bytes], compression: Compression) -> IO[bytes]:
    """`file` decompressed, as a readable file."""
    if compression == "gzip":
        return cast(IO[bytes], _gzip_file(fileobj=file, mode="rb"))
    if compression == "zstd":
        return cast(IO[bytes], zstd.ZstdFile(file, "rb"))
    return file


def compressor(file: IO[bytes], compression: Compression) -> IO[bytes]:
    """A writable file whose content arrives compressed in `file`. Deterministic: no name, no time."""
    if compression == "gzip":
        return cast(IO[bytes], _gzip_file(filename="", fileobj=file, mode="wb", compresslevel=_GZIP, mtime=0))
    if compression == "zstd":
        return cast(IO[bytes], zstd.ZstdFile(file, "wb", level=3))
    return file


def temporary_folder() -> Path:
    """Where large temporary files go: TMPDIR, else /var/tmp, since /tmp is often memory."""
    return Path(os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108


def spool(
    blob: Blob,
    compression: Compression | None,
    digest: str | None,
    diff_id: str | None,
    where: str,
    resources: ExitStack,
    progress: Callable[[int], None] | None = None,
    place: Path | None = None,
) -> ByteRange:
    """A blob's content, decompressed, in an unnamed temporary file or a new one at `place`, its digests checked.

    `progress` is called with the blob's bytes that have been read. With `compression` None the first bytes say it.

    Raises BadInputError when it cannot be decompressed, DigestError when it is not what its digest says,
    EnvironmentFailure when there is no space: what a small blob unpacks to is bounded by the disk, with a
    reserve that is left free.
    """
    folder = temporary_folder() if place is None else place.parent
    reader = _HashingReader(blob.chunks(), progress)
    content = hashlib.sha256()
    size = 0
    try:
        file = resources.enter_context(tempfile.TemporaryFile(dir=folder) if place is None else place.open("x+b"))
        with ExitStack() as files:
            raw = files.enter_context(io.BufferedReader(reader, CHUNK))
            if compression is None:
                compression = detect(raw.peek(8)[:8])
            source = files.enter_context(decompressor(raw, compression))
            while chunk := source.read(CHUNK):
                if size % (256 * CHUNK) < len(chunk):
                    _leave_space(folder)
                file.write(chunk)
                content.update(chunk)
                size += len(chunk)
            reader.drain()
        file.flush()
    except (EOFError, zlib.error, zstd.ZstdError, igzip.BadGzipFile, _gzip_error) as error:
        raise BadInputError(f"{where} cannot be decompressed ({compression}): {error}") from None
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot unpack {where} to {folder}: {error.strerror or error}; set TMPDIR to a folder with more space"
        ) from None
    if digest is not None and "sha256:" + reader.digest.hexdigest() != digest:
        raise DigestError(f"{where}: the blob does not hash to {digest}: the image is damaged, get it again")
    if diff_id is not None and "sha256:" + content.hexdigest() != diff_id:
        raise DigestError(f"{where} does not hash to its diff-id {diff_id}: the image is damaged, get it again")
    return ByteRange(file.fileno(), 0, size)


def need_room(packed: int) -> None:
    """Raises EnvironmentFailure where blobs of so many bytes cannot be unpacked: they get no smaller by it."""
    folder = temporary_folder()
    free = _free(folder)
    if free < packed + _RESERVE:
        raise EnvironmentFailure(
            f"no space in {folder}: layers of {packed:,} bytes, packed, are to be unpacked there, {free:,} are free; "
            "set TMPDIR to a folder with more"
        )


def _leave_space(folder: Path) -> None:
    if _free(folder) < _RESERVE:
        raise EnvironmentFailure(f"{folder} is nearly full; set TMPDIR to a folder with more space")


def _free(folder: Path) -> int:
    try:
        stat = os.statvfs(folder)
    except OSError as error:
        raise EnvironmentFailure(f"cannot unpack layers to {folder}: {error.strerror}; set TMPDIR") from None
    return stat.f_bavail * stat.f_frsize
