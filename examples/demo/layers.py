"""Layers from a directory tree that changes, and the archive that they go into, written front to back once."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

NO_CONTENTS = {"dev", "proc", "sys"}
NOT_IN_IMAGE = {"etc/resolv.conf", "etc/hostname", "etc/apt/apt.conf.d/00mmdebstrap"}
Tree = dict[str, os.stat_result]


class BuildError(Exception):
    """Something the caller can put right; the message says what and how."""


# ---- Layers: what changed in a directory tree, as a tar -----------------------------------------------------------


def scan(root: Path) -> Tree:
    """Every path under `root` that belongs in an image, relative, with what lstat says of it."""
    found: Tree = {}
    todo = [""]
    while todo:
        folder = todo.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if path in NOT_IN_IMAGE or path.startswith("tmp/mmdebstrap."):
                    continue
                found[path] = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False) and path not in NO_CONTENTS:
                    todo.append(path)
    return found


def differs(old: os.stat_result | None, new: os.stat_result) -> bool:
    """Whether a layer must carry the path. A directory also gets an entry when something in it does."""
    if old is None or (old.st_mode, old.st_uid, old.st_gid) != (new.st_mode, new.st_uid, new.st_gid):
        return True
    if stat.S_ISDIR(new.st_mode):
        return False
    # A change of metadata copies the whole file into an overlay's upper layer, as ctime tells.
    return (old.st_ino, old.st_size, old.st_mtime_ns, old.st_ctime_ns) != (
        new.st_ino,
        new.st_size,
        new.st_mtime_ns,
        new.st_ctime_ns,
    )


def parents(path: str) -> Iterator[str]:
    """The folders that hold a path, without the root."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def changes(before: Tree, after: Tree) -> tuple[set[str], set[str]]:
    """The paths whose entries a layer carries, and the deleted ones that it hides."""
    changed = {path for path, new in after.items() if differs(before.get(path), new)}
    # Where the parent is gone too, or is no directory any more, that alone hides what was below.
    gone = {
        path
        for path in before.keys() - after.keys()
        if "/" not in path
        or (path.rpartition("/")[0] in after and stat.S_ISDIR(after[path.rpartition("/")[0]].st_mode))
    }
    changed.update(folder for path in changed | gone for folder in parents(path))
    return changed, gone


def entry(root: Path, path: str, info: os.stat_result) -> tarfile.TarInfo:
    """The header of one path, as Docker writes it: whole seconds, numeric owners."""
    made = tarfile.TarInfo(path)
    made.mode, made.uid, made.gid = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid
    made.mtime = int(info.st_mtime)
    if path in NO_CONTENTS:
        made.mode, made.uid, made.gid = 0o755, 0, 0  # a mount of the build hides the folder itself
    if stat.S_ISDIR(info.st_mode):
        made.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(info.st_mode):
        made.type, made.linkname = tarfile.SYMTYPE, str((root / path).readlink())
    elif stat.S_ISREG(info.st_mode):
        made.size = info.st_size
        with contextlib.suppress(OSError):  # most files have no capabilities
            value = os.getxattr(root / path, "security.capability", follow_symlinks=False)
            made.pax_headers = {"SCHILY.xattr.security.capability": value.decode("utf-8", "surrogateescape")}
    elif stat.S_ISFIFO(info.st_mode):
        made.type = tarfile.FIFOTYPE
    else:
        raise BuildError(f"/{path} is a device or a socket, which no layer carries: remove it in the Dockerfile")
    return made


def write_layer(root: Path, before: Tree, after: Tree, out: BlobWriter) -> int:
    """Write what changed as a tar, sorted; the number of entries comes back, 0 when nothing was written."""
    changed, gone = changes(before, after)
    if not changed and not gone:
        return 0
    first_name: dict[tuple[int, int], str] = {}
    with tarfile.TarFile(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, copybufsize=1 << 20) as tar:
        for path in sorted(changed | gone, key=lambda p: p.split("/")):
            if path in gone:
                folder, slash, name = path.rpartition("/")
                tar.addfile(tarfile.TarInfo(f"{folder}{slash}.wh.{name}"))
                continue
            info = after[path]
            header = entry(root, path, info)
            if not stat.S_ISREG(info.st_mode):
                tar.addfile(header)
                continue
            target = first_name.setdefault((info.st_dev, info.st_ino), path)
            if target != path:
                header.type, header.linkname, header.size, header.pax_headers = tarfile.LNKTYPE, target, 0, {}
                tar.addfile(header)
                continue
            with (root / path).open("rb") as content:
                tar.addfile(header, content)
    return len(changed) + len(gone)


# ---- The archive: an OCI layout with docker's manifest.json beside it, as docker 25 and later save it ---------------


class BlobWriter(io.RawIOBase):
    """Bytes of one blob on their way into the archive, counted and hashed."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: Buffer) -> int:
        """Append to the blob."""
        self._sha256.update(data)
        written = self._file.write(data)
        self.size += written
        return written

    def tell(self) -> int:
        """Where in the blob we are; tarfile asks."""
        return self.size

    @property
    def digest(self) -> str:
        """The digest of what was written so far."""
        return "sha256:" + self._sha256.hexdigest()


class Archive:
    """A tar written front to back. A blob's name is its digest, so its header is filled in once the bytes are there."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @contextlib.contextmanager
    def blob(self) -> Iterator[BlobWriter]:
        """A blob of a size not known yet; one that stays empty leaves no trace."""
        start = self._file.tell()
        self._file.write(bytes(tarfile.BLOCKSIZE))
        writer = BlobWriter(self._file)
        yield writer
        if not writer.size:
            self._file.seek(start)
            return
        self._file.write(bytes(-writer.size % tarfile.BLOCKSIZE))
        end = self._file.tell()
        self._file.seek(start)
        self._header("blobs/" + writer.digest.replace(":", "/"), writer.size)
        self._file.seek(end)

    def add_blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        """A blob we have; its descriptor comes back."""
        with self.blob() as writer:
            writer.write(data)
        return {"mediaType": media_type, "digest": writer.digest, "size": writer.size}

    def add(self, name: str, data: bytes) -> None:
        """A file beside the blobs."""
        self._header(name, len(data))
        self._file.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))

    def close(self) -> None:
        """The end of the tar."""
        self._file.write(bytes(2 * tarfile.BLOCKSIZE))
        self._file.truncate()
        self._file.flush()

    def _header(self, name: str, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size = size
        self._file.write(info.tobuf(tarfile.GNU_FORMAT))  # one block, whatever the size
