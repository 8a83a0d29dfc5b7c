"""Sending blobs to a registry: what it has is not sent, what another repository has is mounted, the rest is chunked.

OCI distribution specification 1.1, "Pushing blobs". An upload that breaks off is taken up where the server has it; one
that the server has lost begins anew; one that is given up is deleted.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2

from deadweight.errors import DeadweightError, DigestError, EnvironmentFailure, shown
from deadweight.image.bytes import ByteRange
from deadweight.image.transports.registry import Repository
from deadweight.image.transports.registry_client import Content, NoAnswer, Patience, Reply

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_CHUNK_LIMIT = 256 << 20
_NO_CHUNKS = frozenset({400, 405, 411, 415, 501})
"""What a second chunk is answered by servers that take none."""
_BINARY = {"Content-Type": "application/octet-stream"}


class Lost(Exception):
    """The server has lost an upload: it begins anew."""


class NoChunks(Exception):
    """The server takes a blob whole, and not in chunks."""


@dataclass(frozen=True)
class Target:
    """The repository that blobs are sent to."""

    repository: Repository

    @property
    def push(self) -> tuple[str, ...]:
        """The scope that writing takes."""
        return (f"repository:{self.repository.path}:pull,push",)

    def has(self, digest: str, size: int | None = None) -> bool:
        """Whether the repository has the blob. Of another size than said it is not the one."""
        doing = f"look for {digest[:19]} in {self.repository.where}"
        registry = self.repository.registry
        reply = registry.ask("HEAD", f"{self.repository.path}/blobs/{digest}", self.push, doing)
        if reply.status == 404:
            return False
        if reply.status != 200:
            registry.refuse(reply, doing)
        said = reply.headers.get("content-length", "")
        if size is not None and said.isascii() and said.isdigit() and int(said) != size:
            raise DigestError(f"{registry.host} has {digest} with {shown(said)} bytes, and it has {size:,}")
        return True

    def mount(self, digest: str, source: str) -> httpx2.URL | bool:
        """Has a blob of another repository of the registry appear in this one.

        True when that is done; else the upload that the server began instead, or False when it wants none of it.
        """
        registry = self.repository.registry
        url = f"{self.repository.path}/blobs/uploads/?mount={digest}&from={source}"
        scopes = (*self.push, f"repository:{source}:pull")
        try:
            reply = registry.ask("POST", url, scopes, f"mount {digest[:19]} into {self.repository.where}")
        except DeadweightError:
            return False  # a token for both may be refused where one for each is not
        if reply.status == 201:
            return True
        location = reply.headers.get("location")
        return registry.follow(registry.base, location) if reply.status == 202 and location else False

    def put_file(self, blob: ByteRange, digest: str) -> None:
        """Sends a blob whole, in one request; where that breaks off, again from its beginning."""
        self._whole(lambda upload: upload.commit(digest, blob))

    def put(self, data: bytes, digest: str) -> None:
        """Sends a small blob, unless it is there."""

        def send(upload: Upload) -> None:
            upload.write(data)
            upload.commit(digest)

        if not self.has(digest, len(data)):
            self._whole(send)

    def _whole(self, send: Callable[[Upload], None]) -> None:
        beginnings = Beginnings(self, "a blob")
        while True:
            upload = Upload(self)
            try:
                send(upload)
            except Lost:
                upload.abandon()
                beginnings.lost()
            except BaseException:
                upload.abandon()
                raise
            else:
                return

    def put_manifest(self, data: bytes, digest: str, media_type: str, tag: str | None) -> None:
        """Sends a manifest or an index: what it names has to be there. Without a tag it is known by its digest."""
        registry = self.repository.registry
        doing = f"write the manifest of {self.repository.where}"
        url = f"{self.repository.path}/manifests/{tag or digest}"
        reply = registry.ask("PUT", url, self.push, doing, {"Content-Type": media_type}, data)
        if reply.status not in (200, 201, 202):
            registry.refuse(reply, doing)
        _same_digest(reply, digest, doing)


class Beginnings:
    """Counts how often a blob was sent from its beginning. Docker's registry loses an upload whose chunk broke off."""

    def __init__(self, target: Target, what: str) -> None:
        self._host = target.repository.registry.host
        self._patience = Patience(target.repository.registry)
        self._doing = f"send {what} to {target.repository.where}"

    def lost(self) -> None:
        """Waits until it is time to begin anew. Raises EnvironmentFailure when that has been done often enough."""
        self._patience.failed(NoAnswer(f"{self._host} lost the upload"), self._doing)


class Upload(io.RawIOBase):
    """A blob on its way: what is written goes out in chunks, of which one is kept until the server has it."""

    def __init__(self, target: Target, location: httpx2.URL | None = None) -> None:
        super().__init__()
        self._target = target
        self._registry = target.repository.registry
        self._location = location
        self._chunk = self._registry.settings.chunk
        self._buffer = bytearray()
        self._sent = 0
        """Bytes that the server has."""
        self._doing = f"send a layer to {target.repository.where}"

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Takes bytes. Raises Lost when the server has lost what it had."""
        self._buffer += data
        if len(self._buffer) >= self._chunk:
            self._flush()
        return memoryview(data).nbytes

    def commit(self, digest: str, file: ByteRange | None = None) -> None:
        """Ends the blob, which has this digest: then it is there. `file` is all of it where nothing was written.

        Raises Lost.
        """
        whole = self._sent == 0
        if not whole:
            self._flush()
        body: Content = file if file is not None else bytes(self._buffer) if whole else b""
        headers = {**_BINARY, "Content-Length": str(file.size)} if file is not None else _BINARY
        patience = Patience(self._registry)
        while True:
            location = self._begun()
            url = f"{location}{'&' if location.query else '?'}digest={digest}"
            try:
                reply = self._registry.once("PUT", url, self._target.push, self._doing, headers, body)
                break
            except NoAnswer as error:
                patience.failed(error, self._doing)
                if self._target.has(digest):
                    return
                if whole:
                    self.abandon()
                elif self._status() != self._sent:
                    raise Lost from None
        if reply.status == 404:
            raise Lost
        if reply.status not in (201, 204):
            self._registry.refuse(reply, self._doing)
        _same_digest(reply, digest, self._doing)
        self._location = None

    def rehearse(self) -> None:
        """Begins, and gives up: whoever may do that may write."""
        self._begun()
        self.abandon()

    def abandon(self) -> None:
        """Gives the upload up, and says so to the server, as far as it listens."""
        location, self._location = self._location, None
        if location is not None:
            self._registry.give_up(location, self._target.push)

    def _begun(self) -> httpx2.URL:
        """Where the upload goes; it begins where it has not."""
        if self._location is None:
            reply = self._registry.ask(
                "POST", f"{self._target.repository.path}/blobs/uploads/", self._target.push, self._doing
            )
            if reply.status != 202:
                self._registry.refuse(reply, self._doing)
            self._follow(reply)
            least = reply.headers.get("oci-chunk-min-length", "")
            if least.isascii() and least.isdigit():
                self._chunk = min(max(self._chunk, int(least[:18])), _CHUNK_LIMIT)
        assert self._location is not None
        return self._location

    def _follow(self, reply: Reply) -> None:
        location = reply.headers.get("location")
        if location:
            self._location = self._registry.follow(self._location or self._registry.base, location)
        elif self._location is None:
            raise EnvironmentFailure(f"cannot {self._doing}: {self._registry.host} does not say where to")

    def _flush(self) -> None:
        """Sends what is in the buffer."""
        data = bytes(self._buffer)
        self._buffer.clear()
        first = self._sent
        end = first + len(data)
        patience = Patience(self._registry)
        while self._sent < end:
            location = self._begun()
            headers = {**_BINARY, "Content-Range": f"{self._sent}-{end - 1}"}
            rest = data[self._sent - first :] if self._sent > first else data
            try:
                reply = self._registry.once("PATCH", location, self._target.push, self._doing, headers, rest)
            except NoAnswer as error:
                patience.failed(error, self._doing)
                has = self._status()
                if not first <= has <= end:
                    raise Lost from None
                if has > self._sent:
                    patience.made_progress()
                self._sent = has
                continue
            if reply.status in (404, 416):
                raise Lost
            if reply.status in _NO_CHUNKS and self._sent:
                raise NoChunks
            if reply.status not in (201, 202, 204):
                self._registry.refuse(reply, self._doing)
            self._follow(reply)
            has = _range_end(reply, end)
            if not self._sent < has <= end:
                raise EnvironmentFailure(
                    f"cannot {self._doing}: {self._registry.host} says that it has {has:,} bytes of {end:,}"
                )
            self._sent = has

    def _status(self) -> int:
        """How many bytes the server has. Raises Lost when it no longer knows of the upload."""
        if self._location is None:
            return 0
        reply = self._registry.ask("GET", self._location, self._target.push, self._doing)
        if reply.status not in (200, 202, 204):
            raise Lost
        self._follow(reply)
        return _range_end(reply, 0)


def _range_end(reply: Reply, default: int) -> int:
    """How many bytes a Range header says are there. 0-0 means none, as Docker's registry writes it."""
    match = _RANGE.fullmatch(reply.headers.get("range", "").strip()[:40])
    if match is None:
        return default
    end = int(match[1])
    return end + 1 if end else default if default == 1 else 0


def _same_digest(reply: Reply, digest: str, doing: str) -> None:
    stated = reply.headers.get("docker-content-digest", "")
    if stated.startswith("sha256:") and stated != digest:
        raise DigestError(f"cannot {doing}: the registry says it got {shown(stated)}, and {digest} was sent")
