"""Adding a file to an edited image: at the end of the last layer that changes anyway.

Everything that an engine could do otherwise there is refused: the file is seen by every container, or not added.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final

from deadweight.errors import shown
from deadweight.image.edit import Charge, Edited, LayerEdit
from deadweight.image.filesystem import Filesystem, Key
from deadweight.image.layer import padding
from deadweight.image.pieces import END

_MOST: Final = 8**11 - 1  # what a header's octal digits hold


class CannotAdd(ValueError):
    """The file is not added; the message is the reason, in one line."""


def last_changed(edited: Edited) -> LayerEdit | None:
    """The last layer that an edit changes."""
    return next((layer for layer in reversed(edited.layers) if layer.pieces is not None), None)


def add_file(fs: Filesystem, edited: Edited, removed: Collection[str], path: str, data: bytes) -> Edited:
    """The edit with a file as well, root's and for all to read, over a file that may be there; `removed` leaves.

    Directories above it that are missing are added with it. Their times are that of the layer's newest entry, in whole
    seconds. Everything is charged to `path`. Raises CannotAdd, also where something else than a file is at `path`.
    """
    layer = last_changed(edited)
    if layer is None or not layer.pieces:
        raise CannotAdd("no layer changes")
    above = _directories_above(path)
    for directory in above:
        node = fs.nodes.get(directory)
        if node is not None and node.kind != "dir":
            raise CannotAdd(f"/{directory} is a {node.kind} and no directory")
    gone = next((each for each in (*above, path) if each in removed), None)
    if gone is not None:
        raise CannotAdd(f"{shown('/' + gone)} is removed")
    if path in edited.charges or (path in fs.nodes and not is_plain(fs, path)):
        raise CannotAdd("something else is there")
    _check_seen(fs, layer.position, path, above)
    newest = max((entry.mtime for entry in fs.image.layers[layer.position].entries), default=0.0)
    mtime = int(min(max(newest, 0.0), float(_MOST)))
    missing = [directory for directory in above if directory not in fs.nodes]
    added = b"".join(_header(directory, tarfile.DIRTYPE, 0o755, 0, mtime) for directory in missing)
    added += _header(path, tarfile.REGTYPE, 0o644, len(data), mtime) + data + bytes(padding(len(data)))
    *pieces, end = layer.pieces
    assert isinstance(end, bytes)
    assert end.endswith(END)
    pieces.append(end[: -len(END)] + added + END)
    new = LayerEdit(layer.position, tuple(pieces), layer.size + len(added))
    layers = tuple(new if each is layer else each for each in edited.layers)
    return replace(edited, layers=layers, charges={**edited.charges, path: Charge(0, len(added))})


def is_plain(fs: Filesystem, path: str) -> bool:
    """Whether there is a regular file at `path` that has no other name, so that nothing else changes with it."""
    node = fs.nodes.get(path)
    if node is None or node.entry is None or node.entry.kind != "file" or node.entry.sparse:
        return False
    key: Key = (node.layer, node.entry.index)
    return key not in fs.link_targets.values()


def _directories_above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def _check_seen(fs: Filesystem, position: int, path: str, above: Iterable[str]) -> None:
    """Raises CannotAdd when what is added at the end of a layer may be hidden there, or by a later layer."""
    names = {"", *above}
    for layer in fs.image.layers:
        later = layer.position > position
        for entry in layer.entries:
            hidden = entry.whiteout
            if hidden is None:  # what is no directory may be one in the view, by a later layer that replaced it
                hides = (later and entry.name == path) or (entry.name in names and entry.kind != "dir")
            elif entry.opaque:
                hides = later and hidden in names
            else:
                # In the layer itself too: where engines unpack a whiteout and a new directory at one place, some
                # let the lower layers' directory show through.
                hides = layer.position >= position and (hidden == path or hidden in names)
            if hides:
                raise CannotAdd(f"layer {layer.position + 1} has {shown(posixpath.join('/', entry.name))}")


def _header(name: str, kind: bytes, mode: int, size: int, mtime: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.mtime = kind, mode, size, mtime
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
