"""Layers that plans have made: what they came to, and their bytes where that costs no room."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from deadweight.cache.known import proved
from deadweight.cache.layers import Cache, Record
from deadweight.image.bytes import ByteRange, State, file_state
from deadweight.image.changed import ChangedLayer
from deadweight.image.edit import LayerEdit
from deadweight.image.emitted import Recalled, name_of, sources_of
from deadweight.image.model import Image
from deadweight.image.output import Written
from deadweight.image.transports.store import BLOBS


def written_key(image: Image, edit: LayerEdit) -> str | None:
    """By what the result of an edit is known: the layers that it is made from, and every piece.

    None where a piece is more than bytes and ranges of layers, or nothing is changed.
    """
    if "written_key" not in edit.__dict__:  # of pieces by the ten thousand, and asked for twice
        edit.__dict__["written_key"] = _key(image, edit)
    found: str | None = edit.__dict__["written_key"]
    return found


def _key(image: Image, edit: LayerEdit) -> str | None:
    if edit.pieces is None or isinstance(edit.pieces, Recalled):
        return None if edit.pieces is None else edit.pieces.name
    diff_ids = [None if isinstance(layer, ChangedLayer) else layer.diff_id for layer in image.layers]
    return name_of(diff_ids, edit.pieces)


def find_written(cache: Cache, image: Image, edit: LayerEdit) -> tuple[str, ByteRange | None, State | None] | None:
    """The diff-id of what an edit makes of a layer, where that was made before; its bytes where they are here, and the
    state of their file where it is known to be sound in that.

    The file is closed with the image.
    """
    key = written_key(image, edit)
    record = None if key is None else cache.record(key)
    if record is None or record.bytes != edit.size:
        return None
    return record.diff_id, *(cache.blob(record, image.resources) or (None, None))


def note_written(
    cache: Cache, image: Image, edits: tuple[LayerEdit, ...], written: Written, folder: Path | None
) -> None:
    """Remembers what an image's layers came to. `folder` is the OCI layout that has them, where it is one.

    Not where a layer that it was made from has not been compared with its diff-id.
    """
    for edit, diff_id, size in zip(edits, written.diff_ids, written.sizes, strict=True):
        key = written_key(image, edit)
        if key is None or edit.pieces is None:
            continue
        sources = edit.pieces.sources if isinstance(edit.pieces, Recalled) else sources_of(edit.pieces)
        if all(proved(image.layers[position], cache) for position in (edit.position, *sources)):
            cache.note_record(key, Record(diff_id, size))
            if folder is not None:
                blob = folder / BLOBS / diff_id[7:]
                with suppress(OSError):
                    status = blob.lstat()
                    if cache.memory.vouches(diff_id, status):
                        cache.adopt(diff_id, blob, file_state(status))
