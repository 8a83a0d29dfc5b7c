"""Images that were damaged after they were made: one more layer over an honest one, and nothing said of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from deadweight.image.output import NewImage, OutputLayer, keep_layer
from deadweight.image.reference import parse_reference
from deadweight.image.transports import open_image, write_image
from support.images import Member, make_tar


def damaged(reference: str, destination: Path, members: Sequence[Member]) -> str:
    """The image at `reference` with a layer of `members` on top, as a docker-archive; gives its reference."""
    data = make_tar(*members)
    with open_image(reference) as image:

        def config(diff_ids: list[str]) -> bytes:
            document = json.loads(image.config_bytes)
            document["rootfs"]["diff_ids"] = diff_ids
            return json.dumps(document).encode()

        layers = (*map(keep_layer, image.layers), OutputLayer(len(data), lambda: iter([data])))
        write_image(NewImage(layers, config, image.tag), parse_reference(f"docker-archive:{destination}"))
    return f"docker-archive:{destination}"


def content(reference: str, path: str) -> bytes:
    """What a file of an image holds."""
    from deadweight.image.filesystem import Filesystem

    with open_image(reference) as image:
        return Filesystem(image).read(path, limit=1 << 30)


def replaced(reference: str, path: str, data: bytes) -> Member:
    """A file with other content and the same metadata, so that nothing but the content can tell."""
    from deadweight.image.filesystem import Filesystem

    with open_image(reference) as image:
        source = Filesystem(image).nodes[path].source
        assert source is not None
        return Member(path, data=data, mode=source.mode, uid=source.uid, gid=source.gid, mtime=int(source.mtime))


def flipped(data: bytes, at: int) -> bytes:
    """The data with one bit of one byte the other way round."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
