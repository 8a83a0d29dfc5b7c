"""Layers made from a few words, and an oracle that reads layers in its own, naive way."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from deadweight.image.bytes import ByteRange
from deadweight.image.model import Image, build_image


class Tar(bytes):
    """A tar that shows its entries when a test fails, rather than its bytes."""

    def __repr__(self) -> str:
        with tarfile.open(fileobj=io.BytesIO(self), mode="r:") as archive:
            return repr([(m.name, m.type.decode(), m.linkname, m.size) for m in archive.getmembers()])


def tar_of(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """An uncompressed tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return Tar(out.getvalue())


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", **meta: object
) -> tuple[tarfile.TarInfo, bytes]:
    """One entry; `meta` sets attributes of its TarInfo."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in meta.items():
        setattr(info, key, value)
    return info, data


def image_of(tars: list[bytes], config: dict[str, object] | None = None) -> Image:
    """An image over uncompressed layers, in a temporary file of its own."""
    resources = ExitStack()
    blobs: list[tuple[ByteRange, str | None]] = []
    for data in tars:
        file = resources.enter_context(tempfile.TemporaryFile())
        file.write(data)
        file.flush()
        blobs.append((ByteRange(file.fileno(), 0, len(data)), None))
    full: dict[str, object] = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "history": [{"created_by": f"RUN step {i}"} for i in range(len(tars))],
        **(config or {}),
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(t).hexdigest() for t in tars]},
    }
    return build_image("test", json.dumps(full).encode(), blobs, resources)


@dataclass(frozen=True)
class Seen:
    """What the oracle sees at a path."""

    kind: str
    mode: int
    mtime: float
    uid: int
    content: bytes
    linkname: str
    xattrs: tuple[tuple[str, str], ...]
    inode: int


def merged_view(tars: list[bytes]) -> dict[str, Seen]:
    """The merged view by brute force: a dictionary, edited entry by entry. Implied directories are left out."""
    view: dict[str, Seen] = {}
    counter = 0
    for data in tars:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            members = archive.getmembers()
            contents = {m.offset: (f.read() if (f := archive.extractfile(m)) else b"") for m in members if m.isreg()}
        lower = dict(view)
        for info in members:
            parent, _, base = info.name.rpartition("/")
            if base == ".wh..wh..opq":
                view = {p: s for p, s in view.items() if parent and not p.startswith(parent + "/")}
            elif base.startswith(".wh."):
                gone = f"{parent}/{base[4:]}".strip("/")
                view = {p: s for p, s in view.items() if p != gone and not p.startswith(gone + "/")}
        for info in members:
            if Path(info.name).name.startswith(".wh."):
                continue
            counter += 1
            if info.islnk():
                seen = view.get(info.linkname) or lower[info.linkname]
            else:
                pax = {k: v for k, v in info.pax_headers.items() if k.startswith("SCHILY")}
                seen = Seen(
                    {b"0": "file", b"\0": "file", b"S": "file", b"5": "dir", b"2": "symlink"}.get(info.type, "other"),
                    info.mode,
                    info.mtime,
                    info.uid,
                    contents.get(info.offset, b""),
                    info.linkname,
                    tuple(sorted(pax.items())),
                    counter,
                )
            if seen.kind != "dir" or (info.name in view and view[info.name].kind != "dir"):
                view = {p: s for p, s in view.items() if not p.startswith(info.name + "/")}
            view[info.name] = seen
    return view


def without_inodes(view: dict[str, Seen]) -> dict[str, Seen]:
    """The view with what is not compared across images left out."""
    return {path: replace(seen, inode=0) for path, seen in view.items()}


def roots_of(path: str) -> list[str]:
    """The directories above a path."""
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]
