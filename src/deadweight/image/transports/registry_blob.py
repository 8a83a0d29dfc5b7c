"""A layer that a registry has: streamed when it is asked for, and taken up again where a connection broke off."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Generator, Iterator
from typing import IO

import httpx2

from deadweight.errors import BadInputError, EnvironmentFailure
from deadweight.image.bytes import ByteRange
from deadweight.image.compression import need_room, temporary_folder
from deadweight.image.transports.registry_client import NoAnswer, Patience, Registry

_HEAD = 64
_PIECE = 1 << 20
_PROGRESS = 1 << 20
"""Bytes after which a broken connection counts as progress."""
_KEPT = 256 << 20
"""Bytes up to which a blob is kept as it came: a layer that nothing leaves goes on as it is, to another registry, say.
Larger ones are those that change."""
_CRAWL = 1024.0
"""Bytes a second below which a transfer is given up, once it has gone on for long."""
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(?:\d{1,19}|\*)")


class RemoteBlob:
    """A blob of a repository, of the size that a manifest states. Its digest is checked by whoever reads it."""

    def __init__(self, registry: Registry, path: str, digest: str, size: int) -> None:
        self.registry = registry
        self.path = path
        """The repository."""
        self.digest = digest
        self.size = size
        self._head: bytes | None = None
        self._kept: ByteRange | None = None
        self._doing = f"read {digest[:19]} of {registry.host}/{path}"

    def read_at(self, offset: int, length: int, /) -> bytes:
        """Bytes from the beginning, at most 64: they tell how the blob is compressed."""
        if self._head is None:
            stream = self._stream(0, min(self.size, _HEAD))
            data = b""
            for part in stream:
                data += part
                if len(data) >= min(self.size, _HEAD):
                    break
            stream.close()
            self._head = data[:_HEAD]
        assert offset + length <= _HEAD, "only the beginning of a remote blob is read at random"
        return self._head[offset : offset + length]

    def chunks(self) -> Iterator[bytes]:
        """The whole, in pieces of about 1 MiB; a small one comes from the registry once.

        Raises EnvironmentFailure when the registry cannot be read, BadInputError when it has less or more than it says.
        """
        if self._kept is not None:
            yield from self._kept.chunks()
            return
        file = self._room()
        for piece in self._pieces():
            if file is not None and not _put(file, piece):
                file = None
            yield piece
        if file is not None:
            self._kept = ByteRange(file.fileno(), 0, self.size)

    def _room(self) -> IO[bytes] | None:
        """An unnamed temporary file to keep the blob in; None where it is large, or the disk too full."""
        if self.size > _KEPT:
            return None
        try:
            need_room(self.size)
            file = tempfile.TemporaryFile(dir=temporary_folder(), buffering=0)
        except (EnvironmentFailure, OSError):
            return None
        return self.registry.resources.enter_context(file)

    def _pieces(self) -> Iterator[bytes]:
        parts: list[bytes] = []
        size = 0
        for part in self._stream(0, self.size):
            parts.append(part)
            size += len(part)
            if size >= _PIECE:
                yield self._noted(b"".join(parts))
                parts, size = [], 0
        if parts:
            yield self._noted(b"".join(parts))

    def _noted(self, piece: bytes) -> bytes:
        if self._head is None:
            self._head = piece[:_HEAD]
        return piece

    def _stream(self, start: int, end: int) -> Generator[bytes, None, None]:
        """The bytes of a range, over as many connections as it takes."""
        patience = Patience(self.registry)
        at = safe = start
        while at < end:
            try:
                for part in self._try(at, end):
                    yield part
                    at += len(part)
            except NoAnswer as error:
                if at - safe >= _PROGRESS:
                    patience.made_progress()
                    safe = at
                patience.failed(error, self._doing)

    def _try(self, at: int, end: int) -> Iterator[bytes]:
        """One connection's bytes from `at` on. Raises NoAnswer when it breaks off."""
        registry = self.registry
        partial = at > 0 or end < self.size
        headers = {"Range": f"bytes={at}-{end - 1}"} if partial else {}
        url = f"{self.path}/blobs/{self.digest}"
        response = registry.begin("GET", url, (f"repository:{self.path}:pull",), headers)
        try:
            skip = self._skipped(response, at)
            left = end - at
            began, got = time.monotonic(), 0
            for part in response.iter_raw():
                got += len(part)
                if registry.cancelled.is_set():
                    raise NoAnswer("stopped")
                passed = time.monotonic() - began
                if passed > 5 * registry.settings.timeout and got < passed * _CRAWL:
                    raise EnvironmentFailure(
                        f"cannot {self._doing}: {registry.host} sends {got / passed:.0f} bytes a second"
                    )
                data = part
                if skip:
                    data, skip = part[skip:], max(0, skip - len(part))
                if len(data) > left:
                    if end < self.size or partial:
                        yield data[:left]
                        return
                    raise BadInputError(
                        f"cannot {self._doing}: more comes than the {self.size:,} bytes that the manifest states"
                    )
                left -= len(data)
                if data:
                    yield data
            if left:
                raise NoAnswer(f"{registry.host} sends {end - left:,} bytes where {end:,} were said")
        except httpx2.HTTPError as error:
            raise registry.reset(error, self._doing) from None
        finally:
            response.close()

    def _skipped(self, response: httpx2.Response, at: int) -> int:
        """How many of the bytes that come are known already. Raises what an answer without bytes means."""
        if response.status_code == 206:
            match = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
            if match is None or int(match[1]) != at:
                raise EnvironmentFailure(
                    f"cannot {self._doing}: {self.registry.host} sends another part than was asked for"
                )
            return 0
        if response.status_code == 200:
            return at
        raise self.registry.refusal(response, self._doing)


def _put(file: IO[bytes], piece: bytes) -> bool:
    """Whether a piece could be kept: else it comes from the registry again."""
    try:
        return file.write(piece) == len(piece)
    except OSError:
        return False
