"""Layers that were unpacked or downloaded: kept as they came out, so that they are neither again."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from deadweight.cache.layers import Cache, Record, key_of
from deadweight.cache.place import limit
from deadweight.errors import EnvironmentFailure
from deadweight.image.bytes import ByteRange
from deadweight.image.model import Layer

_GROWS: Final = 5
"""Layers seldom unpack to more than so many times their size: there has to be room for that."""


def recall_unpacked(cache: Cache, layer: Layer) -> bool:
    """Gives a layer what its blob unpacks to, where that is known; otherwise has it kept once it is unpacked.

    By the digest of the blob and the diff-id together: somebody has compared both. Gives whether it was known.
    """
    if layer.digest is None:
        return False
    found = cache.layer(_key(layer), layer.resources)
    if found is None:
        layer.__dict__["unpacker"] = partial(_unpack, cache)
        return False
    layer.__dict__["tar"] = found.blob
    return True


def _unpack(cache: Cache, layer: Layer, progress: Callable[[int], None] | None) -> ByteRange:
    blobs = cache.root / "blobs"
    partial_file = blobs / f".partial-{secrets.token_hex(8)}"
    try:
        blobs.mkdir(parents=True, exist_ok=True)
        stat = os.statvfs(blobs)
        room = layer.blob.size * _GROWS <= min(limit(), stat.f_bavail * stat.f_frsize)
    except OSError:
        room = False
    if not room:
        return layer.unpack(progress)
    try:
        tar = layer.unpack(progress, partial_file)
    except EnvironmentFailure:  # of this file system: the usual one may have more room
        partial_file.unlink(missing_ok=True)
        return layer.unpack(progress)
    except BaseException:
        partial_file.unlink(missing_ok=True)
        raise
    with suppress(OSError):
        place = blobs / layer.diff_id[7:]
        partial_file.replace(place)
        cache.memory.note(layer.diff_id, os.fstat(tar.fd))
        cache.note_record(_key(layer), Record(layer.diff_id, tar.size))
    return tar


def _key(layer: Layer) -> str:
    return key_of(unpacked=layer.digest, diff_id=layer.diff_id)
