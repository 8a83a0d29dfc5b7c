"""What `deadweight slim` takes out of an image, taken out while it is built: by policy, of the layers that are new.

The passes look at the whole image, as they do for `slim`: what the application imports of a distribution's tests stays.
So the whole image is looked at again after every change of the code; the layers are written again only where that leads
to other cuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from typing import BinaryIO

import msgspec

from deadweight.build.dependencies import Progress
from deadweight.build.pack import Packed
from deadweight.cache.layers import Cache, Cached, key_of
from deadweight.errors import DeadweightError
from deadweight.image.edit import LayerEdit, layer_chunks
from deadweight.image.model import Image, build_image
from deadweight.image.transports.stream import Hasher
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import Options
from deadweight.plan import Plan, draw_up

INFO = "var/lib/dpkg/info"
_FORMAT = 2
"""Of slim bases: raised where passes take other things out of the same base than before."""
_DONE = ("gpu-code", "symbols", "weights")
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
        key = _key(one, worked.plan, edit)
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
    key = key_of(layer="slim base", format=_FORMAT, deadweight=version("deadweight"), of=key)
    cached = cache.layer(key, resources)
    if cached is None:
        keep = tuple(f"{INFO}/{name}{rest}" for name in requested for rest in (".list", ":*.list"))
        (edit,) = draw_up(Ledger(image), Options(keep=keep), risk="observed", all_layers=True).edited.layers
        cached = cache.make(key, lambda file: _write(image, edit, file), resources)
    return key, cached


def _skipped() -> tuple[str, ...]:
    from deadweight.passes.base import all_passes  # noqa: PLC0415

    return tuple(one.name for one in all_passes() if one.name in _DONE)


def _key(one: Cached, plan: Plan, edit: LayerEdit) -> str:
    cuts = [msgspec.to_builtins(cut) for cut in plan.cuts if cut.layer == edit.position]
    return key_of(layer="slim", deadweight=version("deadweight"), of=one.record.diff_id, cuts=cuts, bytes=edit.size)


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
