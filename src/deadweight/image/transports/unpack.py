# ruff: noqa: PTH101, PTH102, PTH118, PTH211
# Tens of thousands of paths, and flags that pathlib does not have.
"""Unpacking an image's merged view into a directory.

What is created is the merged view of the written layers, in a fresh directory that nobody else may enter: there no
parent of a path is ever a symbolic link, so no name, link or whiteout of a layer leads anywhere else.
"""

from __future__ import annotations

import errno
import io
import math
import os
import stat
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from deadweight.errors import TarError, shown
from deadweight.image.bytes import CHUNK, ByteRange
from deadweight.image.filesystem import Filesystem, Key
from deadweight.image.layer import Entry
from deadweight.image.model import Image, build_image
from deadweight.image.output import NewImage, Progress, Written
from deadweight.image.transports.destination import need_space, new_folder
from deadweight.image.transports.stream import NOT_IN_KERNEL, write_layer

XATTR = "SCHILY.xattr."
_STEP = 32 << 20


def unpack_image(new: NewImage, path: Path, progress: Progress | None) -> Written:
    """Writes what a container would see to the directory `path`, which must be empty or absent.

    A user who is not root cannot set owners, devices and some extended attributes: the notes say what is missing.
    """
    with new_folder(path, 0o700) as folder, ExitStack() as resources:
        spooled = sum(layer.size for layer in new.layers if layer.source is None)
        need_space(path, spooled)
        image, sizes = _spool(new, folder, resources, progress)
        view = Filesystem(image)
        carriers = {node.inode: node.source.stored for node in view.nodes.values() if node.source is not None}
        need_space(path, sum(carriers.values()))
        notes = unpack_view(view, str(folder))
        diff_ids = tuple(layer.diff_id for layer in image.layers)
        return Written(path, image.config_digest, None, diff_ids, sizes, sizes, notes)


def _spool(
    new: NewImage, folder: Path, resources: ExitStack, progress: Progress | None
) -> tuple[Image, tuple[int, ...]]:
    """The layers as an image: new ones in unnamed temporary files beside the destination, untouched ones checked."""
    blobs: list[ByteRange] = []
    diff_ids: list[str] = []
    done = 0
    for number, layer in enumerate(new.layers, 1):
        base = done

        def report(count: int, base: int = base) -> None:
            if progress is not None:
                progress(base + count)

        if layer.source is not None:
            layer.source.check()
            blobs.append(layer.source.tar)
            diff_ids.append(layer.source.diff_id)
        else:
            file = resources.enter_context(tempfile.TemporaryFile(dir=folder))
            diff_ids.append(write_layer(layer, file, "none", f"layer {number}", report).diff_id)
            file.flush()
            blobs.append(ByteRange(file.fileno(), 0, layer.size))
        done += layer.size
        report(0, done)
    config = new.make_config(diff_ids)
    image = build_image("the new image", config, [(blob, None) for blob in blobs], ExitStack())
    return image, tuple(layer.size for layer in new.layers)


def unpack_view(view: Filesystem, root: str, shared: Mapping[Key, str] | None = None) -> tuple[str, ...]:
    """Creates all that the merged view holds in `root`, an empty directory that nobody else may enter.

    `shared` are places of files that are there already, by the entry that carries their bytes: those become hard links.
    Gives notes of what could not be set.
    """
    missing: Counter[str] = Counter()
    made: dict[Key, str] = dict(shared or {})
    folders: list[tuple[str, Entry | None]] = []
    for path in sorted(view.nodes):  # a directory sorts before what is in it
        node = view.nodes[path]
        place = os.path.join(root, path) if path else root
        source = node.source
        if source is None or source.kind == "dir":
            if path:
                os.mkdir(place, 0o700)
            folders.append((place, source))
            continue
        key = (node.source_layer, source.index)
        if key in made:
            os.link(made[key], place, follow_symlinks=False)
        elif _create(view.image, key, source, place, missing):
            made[key] = place
            _describe(place, source, missing)
    for place, source in reversed(folders):
        if source is None:
            os.chmod(place, 0o755)  # noqa: S103
            os.utime(place, (0, 0))
        else:
            _describe(place, source, missing)
    if not missing:
        return ()
    what = ", ".join(
        f"{what} of {count:,}" if what == "owner" else f"{count:,} {what}" for what, count in missing.items()
    )
    who = "" if os.geteuid() == 0 else "; root can"
    return (f"could not be set here: {what}{who}",)


def _create(image: Image, key: Key, source: Entry, place: str, missing: Counter[str]) -> bool:
    """Creates what is no directory; whether it is there then."""
    if source.kind == "symlink":
        os.symlink(source.linkname, place)
    elif source.kind == "fifo":
        os.mkfifo(place, 0o600)
    elif source.kind == "device":
        return _make_device(source, place, missing)
    else:
        tar = image.layers[key[0]].tar
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            if source.sparse:
                _expand(tar, source, file)
            else:
                _copy(tar.window(source.data, source.stored), file)
    return True


def _copy(content: ByteRange, file: io.BufferedWriter) -> None:
    """Copies a file's content inside the kernel where that can be done.

    What was read of a large file leaves memory: it is not read again soon, and a gigabyte of it would push out what is
    (8 GB of files took 18 s this way, and 30 s without).
    """
    done = 0
    while done < content.size:
        try:
            count = os.copy_file_range(content.fd, file.fileno(), min(_STEP, content.size - done), content.start + done)
        except OSError as error:
            if error.errno not in NOT_IN_KERNEL:
                raise
            count = 0
        if not count:  # not between these file systems; or the file is shorter than it was, which `chunks` says
            for chunk in content.chunks(done):
                file.write(chunk)
            return
        if content.size > CHUNK:
            os.posix_fadvise(content.fd, content.start + done, count, os.POSIX_FADV_DONTNEED)
        done += count


def _make_device(source: Entry, place: str, missing: Counter[str]) -> bool:
    assert source.device is not None
    kind, major, minor = source.device
    try:
        os.mknod(place, 0o600 | (stat.S_IFBLK if kind == tarfile.BLKTYPE else stat.S_IFCHR), os.makedev(major, minor))
    except (PermissionError, OverflowError):
        missing["devices"] += 1
        return False
    return True


def _expand(tar: ByteRange, source: Entry, file: io.BufferedWriter) -> None:
    """A sparse file: its data where the map says, holes elsewhere, so that its size costs nothing."""
    window = tar.window(source.start, source.end - source.start)
    with io.BufferedReader(window.raw()) as raw, tarfile.TarFile(fileobj=raw, mode="r") as archive:
        info = archive.next()
        content = archive.extractfile(info) if info is not None else None
        if info is None or content is None:
            raise TarError(f"{shown(source.name)} is no sound sparse file")
        for offset, size in getattr(info, "sparse", None) or ():
            content.seek(offset)
            file.seek(offset)
            left = size
            while left > 0:
                chunk = content.read(min(CHUNK, left))
                if not chunk:
                    raise TarError(f"{shown(source.name)} is no sound sparse file")
                file.write(chunk)
                left -= len(chunk)
        file.flush()
        file.truncate(source.size)


def _describe(place: str, source: Entry, missing: Counter[str]) -> None:
    """Sets owner, extended attributes, mode and time, in this order: each of them resets one after it."""
    if 0 <= source.uid < 2**32 - 1 and 0 <= source.gid < 2**32 - 1:
        if os.geteuid() == 0 or (source.uid, source.gid) != (os.geteuid(), os.getegid()):
            try:
                os.chown(place, source.uid, source.gid, follow_symlinks=False)
            except PermissionError:
                missing["owner"] += 1
    else:
        missing["owner"] += 1
    for key, value in source.xattrs:
        if not key.startswith(XATTR) or key.startswith(f"{XATTR}trusted.overlay."):
            continue
        try:
            name = key.removeprefix(XATTR).encode("utf-8", "surrogateescape")
            os.setxattr(place, name, value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            missing["extended attributes"] += 1
    if source.kind != "symlink":
        os.chmod(place, source.mode & 0o7777)
    # Times that no file system can hold (or that are no numbers) become the nearest, or zero.
    mtime = source.mtime if math.isfinite(source.mtime) else 0.0
    moment = int(max(-(2.0**33), min(mtime, 2.0**33)) * 1e9)
    os.utime(place, ns=(moment, moment), follow_symlinks=False)
