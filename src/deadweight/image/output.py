"""An image to be written: layers as streams whose sizes are known beforehand, and what writing them gave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from deadweight.errors import DeadweightError
from deadweight.image.bytes import ByteRange, State
from deadweight.image.compression import Compression
from deadweight.image.model import Image, Layer, parse_json, sha256

Progress = Callable[[int], None]
"""Called with the uncompressed layer bytes done so far; `NewImage.size` is the total."""


class OutputLayer(msgspec.Struct, frozen=True):
    """One layer to be written: either an untouched one of the source, or a new stream."""

    size: int
    """Bytes of the uncompressed tar, exactly: writing fails loudly when the stream has another length."""
    chunks: Callable[[], Iterator[bytes]]
    """Gives the uncompressed tar, from the beginning, in pieces of any size."""
    source: Layer | None = None
    """The original layer, when this is it, untouched: its blob is then stored as it is where it may be."""
    compression: Compression = "none"
    """What a store that keeps compressions gives a new stream: what the original layer had."""
    diff_id: str | None = None
    """What a new stream has to hash to, where it was written before; an untouched layer's is its source's."""
    file: ByteRange | None = None
    """Where the uncompressed tar lies, said to hash to `diff_id`."""
    file_state: State | None = None
    """That of `file` when it was known to hash so; in another one, and where there is none, it is hashed."""
    check: Callable[[Progress | None], None] | None = None
    """Called where the layer is not made from its chunks: holds what a plan has read of the source to its diff-id."""

    @property
    def diff_id_known(self) -> str | None:
        """The diff-id, where it is known before the layer is written."""
        return self.source.diff_id if self.source is not None else self.diff_id


class NewImage(msgspec.Struct, frozen=True):
    """An image to be written."""

    layers: tuple[OutputLayer, ...]
    make_config: Callable[[list[str]], bytes]
    """From the diff-ids of all layers, in order, the configuration's bytes; they are stored as they are."""
    tag: str | None = None
    """The name it gets where the destination names none."""
    manifest_type: str | None = None
    """The media type of the manifest that it had: kept where the destination is one for it."""

    original: Image | None = None
    """The image that it is made from, if it is made from one: a registry may have its layers."""

    @property
    def size(self) -> int:
        """The sum of the layers' uncompressed tar bytes."""
        return sum(layer.size for layer in self.layers)

    @property
    def known_id(self) -> str | None:
        """The image ID, where it is known before anything is written: that of an image from which nothing leaves."""
        diff_ids = [layer.source.diff_id for layer in self.layers if layer.source is not None]
        return sha256(self.configuration(diff_ids)) if len(diff_ids) == len(self.layers) else None

    def configuration(self, diff_ids: list[str]) -> bytes:
        """The configuration's bytes, which are seen to name the layers."""
        config = self.make_config(diff_ids)
        rootfs = parse_json(config, "the new configuration").get("rootfs")
        if not isinstance(rootfs, dict) or rootfs.get("diff_ids") != diff_ids:
            raise DeadweightError("the new configuration does not name the new layers: this is a defect of deadweight")
        return config


class Written(msgspec.Struct, frozen=True):
    """What was written. Sizes are bytes, by layer."""

    path: Path
    config_digest: str
    """The image ID."""
    manifest_digest: str | None
    """None for a root filesystem, which has no manifest."""
    diff_ids: tuple[str, ...]
    sizes: tuple[int, ...]
    """Of the uncompressed tars."""
    stored_sizes: tuple[int, ...]
    """Of the blobs as they were stored."""
    notes: tuple[str, ...] = ()
    """What the user should know: what could not be kept, say."""


class PredictionError(DeadweightError):
    """A layer's stream is not as long as it was said to be: a defect of deadweight, never of the image."""


def keep_layer(layer: Layer) -> OutputLayer:
    """The layer as it is. A compressed one is unpacked (once) to know its size and to check its diff-id."""
    return OutputLayer(layer.size, partial(_chunks, layer), layer, layer.compression)


def _chunks(layer: Layer) -> Iterator[bytes]:
    yield from layer.tar.chunks()


def keep_image(image: Image) -> NewImage:
    """The image as it is: what an empty plan writes."""
    layers = tuple(map(keep_layer, image.layers))
    return NewImage(layers, lambda _: image.config_bytes, image.tag, image.manifest_type, image)
