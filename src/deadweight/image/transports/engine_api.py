"""What is asked of an engine: a few calls of Docker's API (docs.docker.com/reference/api/engine), which Podman has too.

Paths are without a version: then an engine answers in its own.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, BinaryIO, TypeVar, cast
from urllib.parse import quote, urlencode

import msgspec

from deadweight.decoding import from_json
from deadweight.errors import EnvironmentFailure, shown
from deadweight.image.bytes import CHUNK
from deadweight.image.transports.engine_http import (
    PATIENCE,
    WORK_PATIENCE,
    Body,
    Connection,
    Refused,
    answer,
    failures,
    nonsense,
)
from deadweight.image.transports.engine_places import Place
from deadweight.image.transports.names import RESULT, own_labels

_DOCUMENT_LIMIT = 64 << 20
_LINE_LIMIT = 1 << 20
_LOADED = re.compile(r"\b(sha256:[0-9a-f]{64})\b")
T = TypeVar("T")
_CONTAINERD = "io.containerd.snapshotter.v1"


class _Document(msgspec.Struct, frozen=True, rename="pascal"):
    pass


class _RunConfig(_Document, frozen=True):
    labels: dict[str, str] | None = None


class _RootFs(_Document, frozen=True):
    layers: list[str] | None = None


class EngineImage(_Document, frozen=True):
    """What an engine says of an image."""

    id: str
    """The configuration's digest; in containerd's image store the manifest's or index's."""
    size: int = 0
    """Bytes of its files, about: engines count in different ways."""
    repo_tags: list[str] | None = None
    repo_digests: list[str] | None = None
    config: _RunConfig | None = None
    root_fs: _RootFs | None = msgspec.field(name="RootFS", default=None)

    @property
    def tags(self) -> list[str]:
        """Its names."""
        return [tag for tag in self.repo_tags or [] if "<none>" not in tag]

    @property
    def digests(self) -> list[str]:
        """NAME@DIGEST of the manifests by which it was pushed or pulled."""
        return [name for name in self.repo_digests or [] if "<none>" not in name]

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return (self.config.labels if self.config is not None else None) or {}

    @property
    def diff_ids(self) -> list[str]:
        """Of its layers, in order."""
        return (self.root_fs.layers if self.root_fs is not None else None) or []


@dataclass(frozen=True)
class Engine:
    """An engine that has answered."""

    place: Place
    podman: bool
    """Whether it is Podman's, by whatever name it was asked for: DOCKER_HOST may lead to one."""

    @property
    def title(self) -> str:
        """For messages."""
        return "Podman" if self.podman else "Docker's engine"


def reach(place: Place) -> Engine:
    """The engine at `place`. Raises EnvironmentFailure, saying what to do, where none answers."""
    with answer(place, "GET", "/_ping") as response:
        if response.status != 200 or response.getheader("Api-Version") is None:
            raise nonsense(place)
        return Engine(place, response.getheader("Libpod-Api-Version") is not None)


def inspect(engine: Engine, name: str) -> EngineImage | None:
    """What the engine says of the image with a name or ID; None where it has none."""
    path = f"/images/{quote(name, safe='/:@')}/json"
    with answer(engine.place, "GET", path) as response:
        if response.status == 404:
            response.read(_DOCUMENT_LIMIT)
            return None
        return _decoded(engine, response, EngineImage)


def labels_of(engine: Engine, image: EngineImage) -> dict[str, str]:
    """The labels of an image that deadweight made; none of another, which may have inherited some."""
    if RESULT not in image.labels:
        return {}

    class Native(_Document, frozen=True):
        history: list[msgspec.Raw] | None = None

    if engine.podman:  # whose Docker-like history fails where an entry has no time
        with answer(engine.place, "GET", f"/v4.0.0/libpod/images/{image.id}/json") as response:
            entries = _decoded(engine, response, Native).history or []
    else:
        with answer(engine.place, "GET", f"/images/{image.id}/history") as response:
            entries = _decoded(engine, response, list[msgspec.Raw])
    return own_labels(image.labels, image.diff_ids, len(entries))


def image_ids(engine: Engine) -> list[str]:
    """The IDs of all its images."""

    class Summary(_Document, frozen=True):
        id: str

    with answer(engine.place, "GET", "/images/json") as response:
        return [one.id for one in _decoded(engine, response, list[Summary])]


def in_containerd(engine: Engine) -> bool:
    """Whether containerd's image store is used: its IDs are no digests of configurations."""

    class Information(_Document, frozen=True):
        driver_status: list[list[str]] | None = None

    if engine.podman:
        return False
    with answer(engine.place, "GET", "/info") as response:
        found = _decoded(engine, response, Information)
    return any(_CONTAINERD in pair for pair in found.driver_status or [])


def tag(engine: Engine, image_id: str, name: str) -> None:
    """Gives an image a name, NAME:TAG; whatever had that loses it."""
    repository, _, word = name.rpartition(":")
    query = urlencode({"repo": repository, "tag": word})
    with answer(engine.place, "POST", f"/images/{image_id}/tag?{query}") as response:
        _succeeded(engine, response, f"did not give the name {shown(name)}")


def remove(engine: Engine, image_id: str) -> None:
    """Removes an image that has no name. Raises EnvironmentFailure where the engine will not."""
    with answer(engine.place, "DELETE", f"/images/{image_id}") as response:
        _succeeded(engine, response, f"did not remove {image_id[:19]}")


def export(engine: Engine, name: str, file: IO[bytes], progress: Callable[[int], None] | None) -> int:
    """Writes what `docker save` gives to `file`; gives its bytes. `progress` is called with those so far."""
    path = f"/images/{quote(name, safe='/:@')}/get"
    buffer = memoryview(bytearray(CHUNK))
    done = 0
    with answer(engine.place, "GET", path, patience=WORK_PATIENCE) as response:
        if response.status != 200:
            _succeeded(engine, response, f"did not give the image {shown(name)}")
        while True:
            with failures(engine.place):
                count = response.readinto(buffer)
            if not count:
                return done
            file.write(buffer[:count])
            done += count
            if progress is not None:
                progress(done)


def load(
    engine: Engine, produce: Callable[[BinaryIO], None], progress: Callable[[int, int], None] | None = None
) -> str | None:
    """Loads the docker-archive that `produce` writes to the file that it is given, as it writes it.

    Gives the ID that the engine says it loaded, where it says one. `progress` is called with the bytes that the engine
    has unpacked of a layer, and with that layer's. When `produce` raises, the engine gets half an archive and drops
    it. Raises EnvironmentFailure.
    """
    connection = Connection(engine.place, PATIENCE)
    try:
        body = Body(connection)
        with failures(engine.place, connection):
            connection.putrequest("POST", "/images/load?quiet=0")
            connection.putheader("Content-Type", "application/x-tar")
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()
        assert connection.sock is not None
        connection.sock.settimeout(WORK_PATIENCE)
        # An engine that refuses early answers and closes; its answer says more than the broken pipe does.
        with suppress(Refused):
            produce(cast(BinaryIO, body))
            body.finish()
        with failures(engine.place, connection), connection.getresponse() as response:
            if response.status != 200:
                _succeeded(engine, response, "did not load the image")
            return _loaded(engine, response, progress)
    finally:
        connection.end()


def _loaded(
    engine: Engine, response: http.client.HTTPResponse, progress: Callable[[int, int], None] | None
) -> str | None:
    """What an engine reports while it loads, a JSON object a line, read to the end."""
    found = None
    while line := response.readline(_LINE_LIMIT):
        try:
            report = json.loads(line)
        except (ValueError, RecursionError):
            if line.strip():
                raise nonsense(engine.place) from None
            continue
        if not isinstance(report, dict):
            raise nonsense(engine.place)
        if "error" in report:
            raise EnvironmentFailure(f"{engine.title} did not load the image: {shown(str(report['error']), 500)}")
        said = _LOADED.search(str(report.get("stream", "")))
        found = said[1] if said else found
        detail = report.get("progressDetail")
        if progress is not None and isinstance(detail, dict):
            current, total = detail.get("current"), detail.get("total")
            if isinstance(current, int) and isinstance(total, int):
                progress(current, total)
    return found


def _decoded(engine: Engine, response: http.client.HTTPResponse, wanted: type[T]) -> T:
    with failures(engine.place):
        data = response.read(_DOCUMENT_LIMIT)
    if response.status != 200:
        raise EnvironmentFailure(f"{engine.title} answers {_reason(response.status, data)}")
    try:
        return from_json(data, wanted)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise nonsense(engine.place) from None


def _succeeded(engine: Engine, response: http.client.HTTPResponse, what: str) -> None:
    with failures(engine.place):
        data = response.read(_DOCUMENT_LIMIT)
    if not 200 <= response.status < 300:
        raise EnvironmentFailure(f"{engine.title} {what}: {_reason(response.status, data)}")


def _reason(status: int, data: bytes) -> str:
    try:
        message = json.loads(data)["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"HTTP {status}"
    return f"{shown(str(message), 500)} (HTTP {status})"
