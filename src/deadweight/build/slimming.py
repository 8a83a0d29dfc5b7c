"""What `deadweight slim` takes out of an image, taken out while it is built: by policy, of the layers that are new.

The passes look at the whole image, as they do for `slim`: what the application imports of a distribution's tests stays.
So the whole image is looked at again after every change of the code; the layers are written again only where that leads
to other cuts.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from typing import BinaryIO

from deadweight.build.dependencies import Progress
from deadweight.build.pack import Packed
from deadweight.cache.known import code
from deadweight.cache.layers import Cache, Cached, key_of
from deadweight.cache.written import written_key
from deadweight.errors import DeadweightError
from deadweight.image.edit import LayerEdit, layer_chunks
from deadweight.image.model import Image, build_image
from deadweight.image.transports.stream import Hasher
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import Options, all_passes, own_passes
from deadweight.planning import draw_up

INFO = "var/lib/dpkg/info"
_DONE = ("gpu-code", "symbols", "leftovers", "weights")
"""Passes whose work was done before, on the files."""


def slim_layers(
    base: Image,
    config: bytes,
    made: Sequence[Cached],
    kept: int,
    cache: Cache,
    resources: ExitStack,
    progress: Progress | None,
) -> list[tuple[str, Cached]]:
    """The new layers, slimmed, each with its key; the first `kept` of them stay as they are.

    `config` is that of the image with these layers as they are.
    """
    blobs = [(layer.blob, layer.digest) for layer in base.layers]
    whole = build_image(base.reference, config, [*blobs, *((one.blob, None) for one in made)], resources)
    first = len(base.layers)
    worked = draw_up(Ledger(whole), skip=_skipped(), keep_layers=first + kept, progress=progress)
    found = []
    for one, edit in zip(made, worked.edited.layers[first:], strict=True):
        key = _key(whole, edit, one.record.diff_id)
        if edit.pieces is None:
            found.append((key, one))
            continue
        cached = cache.layer(key, resources)
        if cached is None:
            if progress is not None:
                progress("leaving out", 0, 0)
            about = {**one.record.about, "slimmed_bytes": one.record.bytes - edit.size}
            left_out = f"{one.record.bytes - edit.size:,} bytes of tests, headers, type stubs and the like are left out"
            notes = (*one.record.notes, left_out)
            cached = cache.make(
                key,
                lambda file, edit=edit: _write(whole, edit, file),  # type: ignore[misc]
                resources,
                lambda notes=notes, about=about: (notes, about),  # type: ignore[misc]
            )
        found.append((key, cached))
    return found


def slim_base(
    image: Image, requested: Sequence[str], key: str, cache: Cache, resources: ExitStack
) -> tuple[str, Cached]:
    """The one layer of a base made of Debian packages, with its key, without what no service needs that is built on it.

    That rests on an assumption: nothing is installed in the container, and nobody logs in. `requested` packages stay.
    """
    keep = tuple(f"{INFO}/{name}{rest}" for name in requested for rest in (".list", ":*.list"))
    edit: LayerEdit | None = None
    key = key_of(layer="slim base", code=code(), of=key)
    if not own_passes().issuperset(all_passes()):  # what others take out is not known before it is worked out
        edit = _edit_base(image, keep)
        key = _key(image, edit, key)
    cached = cache.layer(key, resources)
    if cached is None:
        found = edit or _edit_base(image, keep)
        cached = cache.make(key, lambda file: _write(image, found, file), resources)
    return key, cached


def _edit_base(image: Image, keep: tuple[str, ...]) -> LayerEdit:
    (edit,) = draw_up(Ledger(image), Options(keep=keep), risk="observed", all_layers=True).edited.layers
    return edit


def _skipped() -> tuple[str, ...]:
    return tuple(one.name for one in all_passes() if one.name in _DONE)


def _key(image: Image, edit: LayerEdit, of: str) -> str:
    """By every byte and every range that the layer is made of; where that cannot be said, one that nobody finds."""
    return key_of(layer="slim", of=of, pieces=written_key(image, edit) or secrets.token_hex(32))


def _write(image: Image, edit: LayerEdit, file: BinaryIO) -> Packed:
    size = 0
    with Hasher() as hasher:
        for chunk in layer_chunks(image, edit):
            file.write(chunk)
            hasher.update(chunk)
            size += len(chunk)
        if size != edit.size:
            raise DeadweightError(f"predicted {edit.size:,} bytes, made {size:,}: a defect of deadweight")
        return Packed(hasher.digest(), size)
