# ruff: noqa: PTH115, PTH116, PTH118, PTH208
# Tens of thousands of paths, and flags that pathlib does not have.
"""A directory as an image of one layer: a root filesystem becomes a deterministic tar, once, in a temporary file.

Entries are sorted, owners are numbers, times are whole seconds (as in the layers that Docker writes), extended
attributes are `SCHILY.xattr.` records. Symbolic links are packed, never followed; other mounted file systems
(/proc, say) are passed over, as by `tar --one-file-system`.
"""

from __future__ import annotations

import json
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

import msgspec

from deadweight.errors import BadInputError, EnvironmentFailure, shown
from deadweight.image.bytes import CHUNK, ByteRange
from deadweight.image.compression import temporary_folder
from deadweight.image.layer import BLOCK, padding
from deadweight.image.model import Image, build_image
from deadweight.image.reference import Reference
from deadweight.image.transports.destination import writing
from deadweight.image.transports.manifests import this_platform
from deadweight.image.transports.stream import Hasher

_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


class _Packer(msgspec.Struct):
    """A tar in the making."""

    file: BinaryIO
    digest: Hasher
    device: int
    size: int = 0
    links: dict[tuple[int, int], str] = msgspec.field(default_factory=dict)
    notes: list[str] = msgspec.field(default_factory=list)

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)


def open_rootfs(reference: Reference, resources: ExitStack) -> Image:
    """The directory of a `rootfs:` reference as an image for this machine's platform.

    Raises BadInputError when it is no directory, EnvironmentFailure when something in it may not be read.
    """
    root = reference.path
    if not root.is_dir():
        raise BadInputError(f"{shown(str(root))} is no directory")
    folder = temporary_folder()
    with writing(folder / "a temporary file"):
        file = resources.enter_context(tempfile.TemporaryFile(dir=folder))
        with Hasher() as digest:
            packer = _Packer(file, digest, root.stat().st_dev)
            for relative in _walk(str(root), packer):
                _add(packer, str(root), relative)
            packer.write(bytes(2 * BLOCK))
            diff_id = digest.digest()
        file.flush()
    platform = this_platform()
    config = {
        "architecture": platform.architecture,
        **({"variant": platform.variant} if platform.variant else {}),
        "os": platform.os,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "a root filesystem, packed by deadweight"}],
    }
    return build_image(
        str(reference),
        json.dumps(config, separators=(",", ":")).encode(),
        [(ByteRange(file.fileno(), 0, packer.size), None)],
        resources,
        notes=tuple(packer.notes),
    )


def _walk(root: str, packer: _Packer) -> Iterator[str]:
    """Paths relative to `root`, the root as the empty string, directories before what is in them, sorted."""
    stack = [""]
    while stack:
        here = stack.pop()
        yield here
        path = os.path.join(root, here)
        status = os.lstat(path) if here else os.stat(path)
        if not stat.S_ISDIR(status.st_mode):
            continue
        if status.st_dev != packer.device:
            packer.notes.append(f"what is mounted on {shown(here)} was passed over")
            continue
        with _readable(here):
            names = sorted(os.listdir(path), key=os.fsencode, reverse=True)
        for name in names:
            if name.startswith(".wh."):
                packer.notes.append(f"{shown(f'{here}/{name}')} was passed over: in a layer the name means a deletion")
            else:
                stack.append(f"{here}/{name}" if here else name)


def _add(packer: _Packer, root: str, relative: str) -> None:
    path = os.path.join(root, relative)
    status = os.lstat(path) if relative else os.stat(path)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        packer.notes.append(f"the socket {shown(relative)} was passed over")
        return
    info = tarfile.TarInfo(relative + "/" if stat.S_ISDIR(status.st_mode) else relative)
    info.name = info.name if relative else "./"
    info.type, info.mode = kind, stat.S_IMODE(status.st_mode)
    info.uid, info.gid, info.mtime = status.st_uid, status.st_gid, status.st_mtime_ns // 1_000_000_000
    inode = (status.st_dev, status.st_ino)
    if kind != tarfile.DIRTYPE and inode in packer.links:
        info.type, info.linkname = tarfile.LNKTYPE, packer.links[inode]
        packer.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        return
    if kind != tarfile.DIRTYPE and status.st_nlink > 1:
        packer.links[inode] = relative
    with _readable(relative):
        info.pax_headers = _xattrs(path)
        if kind == tarfile.SYMTYPE:
            info.linkname = os.readlink(path)
        elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    if kind != tarfile.REGTYPE:
        packer.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        return
    info.size = status.st_size
    packer.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    _copy(packer, path, relative, status)


def _copy(packer: _Packer, path: str, relative: str, status: os.stat_result) -> None:
    """A file's content. It must be the file that was looked at, as long as it was."""
    with _readable(relative):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        now = os.fstat(fd)
        left = status.st_size
        if (now.st_dev, now.st_ino) != (status.st_dev, status.st_ino):
            left = -1
        while left > 0:
            data = os.read(fd, min(CHUNK, left))
            if not data:
                break
            packer.write(data)
            left -= len(data)
        if left or os.read(fd, 1):
            raise EnvironmentFailure(f"{shown(relative)} changed while it was read; stop what writes there, then again")
    finally:
        os.close(fd)
    packer.write(bytes(padding(status.st_size)))


def _xattrs(path: str) -> dict[str, str]:
    """Extended attributes as pax records; values are bytes, kept through surrogate escapes."""
    found = {}
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        # The kernel's own bookkeeping, and the label of this machine's policy, are no part of an image.
        if not name.startswith(("system.", "trusted.overlay.", "user.overlay.", "security.selinux")):
            value = os.getxattr(path, name, follow_symlinks=False)
            found[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    return found


@contextmanager
def _readable(relative: str) -> Iterator[None]:
    """Turns a refusal to read into an EnvironmentFailure that names the path."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot read {shown(relative)} of the root filesystem: {error.strerror}; run as its owner or as root"
        ) from None
