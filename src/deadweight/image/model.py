"""An image: its configuration and its layers, lazy and immutable (OCI image specification 1.1).

A transport hands over the configuration's bytes and one blob a layer; everything else is derived here. Layers
are addressed by position, never by diff-id: two can be equal.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from deadweight.errors import BadInputError, DigestError, shown
from deadweight.image.bytes import Blob, ByteRange, State, state_of
from deadweight.image.compression import Compression, detect, need_room, spool
from deadweight.image.layer import Entry, read_entries
from deadweight.image.parallel import Sum, in_parallel

Json = dict[str, Any]
_AT_ONCE = 4
"""How many layers are downloaded at a time."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MANIFEST_LIMIT = 32 << 20


def sha256(data: bytes) -> str:
    """The digest of `data`, as `sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


Unpacker = Callable[["Layer", Callable[[int], None] | None], ByteRange]
"""Unpacks a layer in the way of whoever keeps unpacked ones: as `Layer.unpack`, which it may call."""


@dataclass(frozen=True)
class Layer:
    """One layer: the blob as the source stores it, and the tar inside."""

    position: int
    diff_id: str
    blob: Blob
    digest: str | None
    """The blob's digest, where the source states one (a docker-archive need not)."""
    created_by: str
    resources: ExitStack = field(repr=False)

    @cached_property
    def compression(self) -> Compression:
        """By the blob's first bytes: media types are often wrong, and Docker archives have none."""
        return detect(self.blob.read_at(0, 8))

    @cached_property
    def tar(self) -> ByteRange:
        """The uncompressed tar. A blob that is compressed or not on this machine is unpacked to an unnamed temporary
        file once, and its digest and diff-id are checked on the way; any other is used where it is, unchecked (see
        `check`).
        """
        return self._unpacked(None)

    def _unpacked(self, progress: Callable[[int], None] | None) -> ByteRange:
        if isinstance(self.blob, ByteRange) and self.compression == "none":
            return self.blob
        by: Unpacker = self.__dict__.get("unpacker", Layer.unpack)
        return by(self, progress)

    def unpack(self, progress: Callable[[int], None] | None, place: Path | None = None) -> ByteRange:
        """The tar, unpacked to a new file at `place`, or else to an unnamed one. Raises what `spool` does."""
        # What would have to be asked for comes along with the rest.
        known = self.compression if isinstance(self.blob, ByteRange) else None
        return spool(self.blob, known, self.digest, self.diff_id, self.where, self.resources, progress, place)

    def fetch(self, progress: Callable[[int], None] | None = None) -> None:
        """Has `tar` at hand. Not by reading the property, which lets one layer at a time through in Python 3.11.

        `progress` is called with the blob's bytes that have been read.
        """
        if "tar" not in self.__dict__:
            self.__dict__["tar"] = self._unpacked(progress)

    @cached_property
    def entries(self) -> list[Entry]:
        """What the tar holds, in order. Raises TarError."""
        return read_entries(self.tar, self.where)

    @property
    def where(self) -> str:
        """The layer in words, for messages: positions count from 1."""
        return f"layer {self.position + 1} ({self.diff_id[7:19]})"

    @cached_property
    def size(self) -> int:
        """Bytes of the uncompressed tar."""
        return self.tar.size

    @property
    def checked(self) -> bool:
        """Whether the diff-id was compared with the content when it was unpacked."""
        return "tar" in self.__dict__ and self.tar is not self.blob

    @property
    def sound(self) -> bool:
        """Whether the diff-id has been compared with the content, at whatever time."""
        return self.checked or "sound_since" in self.__dict__

    def proved(self) -> None:
        """To be called by whoever has read the layer whole, and found it to hash to its diff-id."""
        self.__dict__["sound_since"] = True

    @property
    def state(self) -> State | None:
        """Where the blob lies, and the file as it is now; None where it is not part of one file."""
        return state_of(self.blob) if isinstance(self.blob, ByteRange) else None

    def check(self, progress: Callable[[int], None] | None = None) -> None:
        """Reads the layer whole and compares it with its diff-id. Raises DigestError.

        `progress` is called with the bytes that have been read.
        """
        if self.checked:
            return
        digest = hashlib.sha256()
        done = 0
        for chunk in self.tar.chunks():
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done)
        if "sha256:" + digest.hexdigest() != self.diff_id:
            raise DigestError(
                f"{self.where} does not hash to its diff-id {self.diff_id}: the image is damaged, get it again"
            )
        self.proved()


@dataclass(frozen=True)
class Image:
    """A container image. Close it, or use it in a `with`, to let go of its files."""

    reference: str
    config_bytes: bytes
    layers: tuple[Layer, ...]
    manifest_digest: str | None = None
    manifest_type: str | None = None
    """The manifest's media type, where there is a manifest."""
    tag: str | None = None
    name: str | None = None
    """By which an engine, a storage or a registry gives it out: NAME:TAG, or NAME@DIGEST. None for one in files."""
    notes: tuple[str, ...] = ()
    """What the user should know of how it was opened: the platform picked, say."""
    resources: ExitStack = field(default_factory=ExitStack, repr=False)
    in_registries: tuple[str, ...] = ()
    """HOST/NAME@DIGEST of manifests by which an engine pushed or pulled it."""

    @cached_property
    def config(self) -> Json:
        """The configuration, parsed. Treat it as read-only."""
        return parse_json(self.config_bytes, "the image's configuration")

    @cached_property
    def config_digest(self) -> str:
        """The image ID."""
        return sha256(self.config_bytes)

    @property
    def platform(self) -> str:
        """As `os/architecture[/variant]`; empty where the configuration does not say both."""
        parts = map(self.config.get, ("os", "architecture", "variant"))
        os, architecture, variant = (part if isinstance(part, str) else "" for part in parts)
        return "/".join(filter(None, (os, architecture, variant))) if os and architecture else ""

    @property
    def run_config(self) -> Json:
        """The part of the configuration that says how a container runs (`Env`, `Cmd`, ...)."""
        value = self.config.get("config")
        return value if isinstance(value, dict) else {}

    @cached_property
    def environment(self) -> dict[str, str]:
        """The container's environment variables."""
        pairs = self.run_config.get("Env")
        pairs = pairs if isinstance(pairs, list) else []
        return dict(p.split("=", 1) for p in pairs if isinstance(p, str) and "=" in p)

    @property
    def size(self) -> int:
        """The sum of the layers' uncompressed tar bytes."""
        return sum(layer.size for layer in self.layers)

    @property
    def stored_size(self) -> int:
        """The sum of the layers' blobs as the source stores them."""
        return sum(layer.blob.size for layer in self.layers)

    def fetch(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Downloads and unpacks the layers that are not on this machine, several at a time.

        `progress` is called with the bytes of their blobs that have come, and that are to come. When it fails, the
        image is closed. Raises what `Layer.tar` does.
        """
        missing = [layer for layer in self.layers if not isinstance(layer.blob, ByteRange) and not layer.checked]
        if not missing:
            return
        once = {(layer.diff_id, layer.digest): layer for layer in missing}
        total = sum(layer.blob.size for layer in once.values())
        need_room(total)
        done = Sum(lambda bytes_: progress(bytes_, total) if progress is not None else None)
        jobs = [
            lambda layer=layer, number=number: layer.fetch(done.part(number))
            for number, layer in enumerate(once.values())
        ]
        in_parallel(jobs, _AT_ONCE, self.resources.close)
        for layer in missing:  # one that is there twice came once
            layer.__dict__["tar"] = once[layer.diff_id, layer.digest].tar

    def close(self) -> None:
        """Closes files and lets temporary ones vanish."""
        self.resources.close()

    def __enter__(self) -> Image:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self.close()
        return False


def build_image(
    reference: str,
    config_bytes: bytes,
    blobs: Sequence[tuple[Blob, str | None]],
    resources: ExitStack,
    *,
    manifest_digest: str | None = None,
    manifest_type: str | None = None,
    tag: str | None = None,
    notes: tuple[str, ...] = (),
) -> Image:
    """An Image from what a transport read: the configuration and each layer's (blob, digest).

    Raises BadInputError when configuration and layers do not belong together.
    """
    config = parse_json(config_bytes, "the image's configuration")
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(isinstance(d, str) and DIGEST.fullmatch(d) for d in diff_ids):
        raise BadInputError(f"{shown(reference)}: the configuration has no list of sha256 diff-ids in rootfs")
    if len(diff_ids) != len(blobs):
        raise BadInputError(
            f"{shown(reference)}: the configuration names {len(diff_ids)} layers, the manifest {len(blobs)}"
        )
    commands = list(layer_commands(config, len(blobs)))
    layers = tuple(
        Layer(i, diff_id, blob, digest, commands[i], resources)
        for i, (diff_id, (blob, digest)) in enumerate(zip(diff_ids, blobs, strict=True))
    )
    return Image(reference, config_bytes, layers, manifest_digest, manifest_type, tag, notes=notes, resources=resources)


def layer_commands(config: Json, layers: int) -> Iterator[str]:
    """The command that made each layer, by the history; empty where it does not say."""
    history = config.get("history")
    history = history if isinstance(history, list) else []
    made = [h for h in history if isinstance(h, dict) and not h.get("empty_layer")]
    for i in range(layers):
        command = made[i].get("created_by") if i < len(made) else ""
        yield command if isinstance(command, str) else ""


def parse_json(data: bytes, what: str) -> Json:
    """A JSON object. Raises BadInputError, naming `what`."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{what} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadInputError(f"{what} is no JSON object")
    return value
