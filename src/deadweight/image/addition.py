"""Adding files to an edited image: at the end of a layer that changes anyway.

Everything that an engine could do otherwise there is refused: the file is seen by every container, or not added.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from deadweight.errors import shown
from deadweight.image.bytes import ByteRange
from deadweight.image.edit import Edited, LayerEdit
from deadweight.image.emitted import Charge
from deadweight.image.filesystem import Filesystem, Key
from deadweight.image.layer import Entry, padding
from deadweight.image.pieces import END, Piece

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


class NewFile(NamedTuple):
    """A file to be added."""

    content: ByteRange
    mode: int
    like: Entry | None = None
    """The entry whose place it takes: owner, time and extended attributes are its; None for what is new there."""


def add_files(
    fs: Filesystem,
    edited: Edited,
    removed: Collection[str],
    position: int,
    files: Mapping[str, NewFile],
    like: Entry,
) -> Edited:
    """The edit with `files` as well, by path, at the end of the layer at `position`, which it changes.

    Owner and time are those of the entry `like`, where a file has no other; directories above them that are missing are
    added with them. A file may take the place of one in `removed`. Each path is charged for itself. Raises CannotAdd
    where engines could see something else at one of the places.
    """
    layer = edited.layers[position]
    above = dict.fromkeys(each for path in sorted(files) for each in _directories_above(path))
    _check_all_seen(fs, position, files.keys(), above.keys(), removed)
    missing = [path for path in above if path not in fs.nodes]
    assert layer.pieces is not None
    *pieces, end = layer.pieces
    assert isinstance(end, bytes)
    assert end.endswith(END)
    added: list[Piece] = [end[: -len(END)]]
    charges = dict(edited.charges)
    size = layer.size
    for path in sorted((*missing, *files)):
        new = files.get(path)
        if new is None:
            entry: tuple[bytes | ByteRange, ...] = (_header_like(path, tarfile.DIRTYPE, 0o755, 0, like),)
        else:
            header = _header_like(
                path,
                tarfile.REGTYPE,
                new.mode,
                new.content.size,
                new.like or like,
                () if new.like is None else new.like.xattrs,
            )
            entry = (header, new.content, bytes(padding(new.content.size)))
        length = sum(map(_length, entry))
        old = charges.get(path, Charge())
        charges[path] = Charge(old.before, old.after + length)
        added += entry
        size += length
    merged: list[Piece] = []
    for piece in (*added, END):
        if isinstance(piece, bytes) and merged and isinstance(merged[-1], bytes):
            merged[-1] += piece
        elif not isinstance(piece, bytes) or piece:
            merged.append(piece)
    new_layer = LayerEdit(position, (*pieces, *merged), size)
    layers = tuple(new_layer if each is layer else each for each in edited.layers)
    return replace(edited, layers=layers, charges=charges)


def _length(piece: bytes | ByteRange) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.size


def _check_all_seen(
    fs: Filesystem, position: int, paths: Collection[str], above: Collection[str], removed: Collection[str]
) -> None:
    """As `_check_seen`, for many paths at once; `removed` are those that leave before."""
    for path in (*above, *paths):
        node = fs.nodes.get(path)
        if node is None:
            continue
        if path in above and (node.kind != "dir" or path in removed):
            raise CannotAdd(f"{shown('/' + path)} is no directory, or leaves")
        if path in paths and path not in removed:
            raise CannotAdd(f"{shown('/' + path)} is there already")
    names = {"", *above}
    for layer in fs.image.layers:
        at = layer.position
        for entry in layer.entries:
            hidden = entry.whiteout if ".wh." in entry.name else None
            if hidden is None:
                hides = entry.name in names and entry.kind != "dir"
                if entry.name in paths:
                    # What lies below needs a whiteout, beside which not every engine sees a new file in one layer.
                    hides = hides or at > position or (at < position and entry.name in removed)
            elif entry.opaque:
                hides = at > position and hidden in names
            else:
                hides = at >= position and (hidden in paths or hidden in names)
            if hides:
                raise CannotAdd(f"layer {at + 1} has {shown(posixpath.join('/', entry.name))}")


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
            hidden = entry.whiteout if ".wh." in entry.name else None
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


def _header_like(
    name: str, kind: bytes, mode: int, size: int, like: Entry, xattrs: Iterable[tuple[str, str]] = ()
) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.uid, info.gid = kind, mode, size, like.uid, like.gid
    info.mtime = like.mtime if like.mtime != int(like.mtime) else int(like.mtime)
    info.uname, _, info.gname = like.owner.partition(":")
    info.pax_headers = dict(xattrs)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _header(name: str, kind: bytes, mode: int, size: int, mtime: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.mtime = kind, mode, size, mtime
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
