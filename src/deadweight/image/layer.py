"""The entries of a layer: what its tar headers say, and where each entry's bytes lie.

tarfile reads the headers (POSIX.1-2001 pax, GNU long names and sparse files); contents are never read here.
A layer's bytes are: entries, gaps between them (pax global headers), and what follows the last entry.
"""

from __future__ import annotations

import io
import re
import tarfile
from typing import IO, Any, Literal

import msgspec

from deadweight.errors import TarError, shown
from deadweight.image.bytes import ByteRange
from deadweight.image.ustar import headers, owners_of, read_plain

BLOCK = 512
# What one entry's headers may take: a pax header with several xattrs is a few kB, a sparse map rarely 1 MB.
HEADER_LIMIT = 4 << 20
ENTRY_LIMIT = 10_000_000
PATH_LIMIT = 4096  # Linux's PATH_MAX: no engine unpacks a longer one
# What a layer's names, link targets and pax records may take together: they are kept in memory, and compress well.
TEXT_LIMIT = 256 << 20

Kind = Literal["file", "dir", "symlink", "hardlink", "device", "fifo"]

_KINDS: dict[bytes, Kind] = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.GNUTYPE_SPARSE: "file",
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "fifo",
}
_STORED_IN_PAX = frozenset({"path", "linkpath", "size", "mtime", "atime", "ctime", "hdrcharset"})
_WHOLE = re.compile(r"-?\d+", re.ASCII)
_TIME = re.compile(r"-?\d+(\.\d*)?", re.ASCII)
_NAME = re.compile(r".+", re.DOTALL)
_RECORDS = {"path": _NAME, "linkpath": _NAME, "size": _WHOLE, "uid": _WHOLE, "gid": _WHOLE, "mtime": _TIME}
# A whiteout of these would delete its own directory, or the one above.
_PLAIN = 4 * BLOCK
"""Bytes that plain headers take at most: those of longer names are read as all others are."""
_NO_WHITEOUTS = frozenset({".wh.", ".wh..", ".wh..."})


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One name in a layer. Offsets and sizes are bytes of the layer's uncompressed tar."""

    index: int
    name: str
    """The path without leading `./` or trailing `/`; the root directory is the empty string."""
    kind: Kind
    start: int
    """Where its headers begin, extension headers included."""
    data: int
    """Where its content begins."""
    stored: int
    """Content bytes in the tar; 0 for everything but files."""
    end: int
    """Where its padding ends."""
    size: int
    """The file's size when unpacked: `stored`, but for sparse files."""
    mode: int
    uid: int
    gid: int
    mtime: int | float
    owner: str
    """The user's and group's names, joined by a colon."""
    linkname: str
    """Target of a symbolic link as written; of a hard link as a path like `name`."""
    xattrs: tuple[tuple[str, str], ...]
    device: tuple[bytes, int, int] | None
    sparse: bool

    @property
    def whiteout(self) -> str | None:
        """The path that this entry deletes from lower layers, or None. An opaque marker names its directory."""
        parent, _, base = self.name.rpartition("/")
        if not base.startswith(".wh."):
            return None
        if base == ".wh..wh..opq":
            return parent
        return f"{parent}/{base[4:]}" if parent else base[4:]

    @property
    def opaque(self) -> bool:
        """Whether this entry hides all that lower layers have in its directory."""
        return self.name.rpartition("/")[2] == ".wh..wh..opq"


class _Header(tarfile.TarInfo):
    """A header as engines read it (Go's archive/tar), where tarfile differs."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        info = super().frombuf(buf, encoding, errors)
        if buf[345] and buf[257:263] != b"ustar\0":
            # Only POSIX headers have the name's first part there; GNU tar and star may keep times.
            name = bytes(buf[:100]).partition(b"\0")[0].decode(encoding, errors)
            info.name = name.rstrip("/") if info.isdir() else name
        return info


class _NoGlobals(dict[str, str]):
    """Takes nothing: engines pass over pax global headers, and so their records hold for no entry."""

    def __setitem__(self, key: str, value: str, /) -> None:
        pass


def open_headers(file: IO[bytes]) -> Any:
    """A TarFile that reads headers from `file` the same on every machine, whatever its locale."""
    return tarfile.TarFile(
        fileobj=file,
        mode="r",
        errorlevel=1,
        encoding="utf-8",
        errors="surrogateescape",
        tarinfo=_Header,
        pax_headers=_NoGlobals(),
    )


class _HeaderFile(io.BufferedReader):
    """What tarfile reads headers from: refuses to read more than one entry's headers may take.

    tarfile believes the sizes of extension headers and sparse maps, and some of its loops do not end at the
    end of the file.
    """

    budget = HEADER_LIMIT

    def read(self, size: int | None = -1, /) -> bytes:
        size = -1 if size is None else size
        if size < 0 or size > self.budget:
            raise TarError("an entry's headers claim more bytes than headers can have")
        data = super().read(size)
        self.budget -= len(data) or HEADER_LIMIT // 4
        return data


def read_entries(tar: ByteRange, where: str) -> list[Entry]:
    """All entries of a layer, in order. `where` names the layer in errors.

    Raises TarError when the tar is truncated, contradicts itself, or names a path outside the image.
    """
    entries: list[Entry] = []
    if tar.size == 0:
        return entries
    try:
        _read_into(entries, tar)
    except TarError as error:
        at = f" after entry {shown(entries[-1].name)}" if entries else ""
        raise TarError(f"{where} is no sound tar{at}: {error}") from None
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, UnicodeError, KeyError, IndexError) as error:
        reason = "headers nested too deep" if isinstance(error, RecursionError) else str(error)
        raise TarError(f"{where} is no sound tar: {reason}") from None
    return entries


def _read_into(entries: list[Entry], tar: ByteRange) -> None:
    file = _HeaderFile(tar.raw(), 8192)
    archive = open_headers(file)
    text = 0
    while True:
        file.budget = HEADER_LIMIT
        info = archive.next()
        if info is None:
            break
        archive.members = []  # tarfile keeps every header; 60,000 of them cost more than all our entries
        if len(entries) >= ENTRY_LIMIT:
            raise TarError(f"more than {ENTRY_LIMIT:,} entries")
        end = archive.offset
        if end > tar.size:
            # Some tools (umoci insert) leave out the padding of the last entry, and the end of the archive.
            missing = info.offset_data + (info.size if info.isreg() and info.sparse is None else 0) - tar.size
            if missing > 0 or end - tar.size >= BLOCK:
                raise TarError(f"{shown(info.name)} claims {end - tar.size:,} bytes more than there are")
            entries.append(_entry(len(entries), info, tar.size))
            return
        entry = _entry(len(entries), info, end)
        entries.append(entry)
        text += len(entry.name) + len(entry.linkname) + len(entry.owner) + sum(len(k) + len(v) for k, v in entry.xattrs)
        if text > TEXT_LIMIT:
            raise TarError(f"its names and attributes take more than {TEXT_LIMIT:,} bytes")
        if end == tar.size:
            return
    _check_end(tar, archive.offset)


def _check_end(tar: ByteRange, end: int) -> None:
    """Holds that the entries end where an archive may end: two zero blocks, or the end of the file."""
    blocks = tar.read_at(end, 2 * BLOCK)
    if blocks.strip(b"\0"):
        raise TarError(f"at byte {end:,} there is neither a header nor the end of the archive")
    if 0 < len(blocks) < BLOCK:
        raise TarError(f"it is cut within the block at byte {end:,}")


def _entry(index: int, info: tarfile.TarInfo, end: int) -> Entry:
    kind = _KINDS.get(info.type)
    if kind is None:
        raise TarError(f"{shown(info.name)} has the unknown entry type {info.type!r}")
    name = clean_name(info.name)
    if not name and kind != "dir":
        raise TarError(f"the root directory is a {kind}")
    if name.rpartition("/")[2] in _NO_WHITEOUTS:
        raise TarError(f"the whiteout {shown(name)} names nothing that it could delete")
    if len(info.linkname) > PATH_LIMIT:
        raise TarError(f"{shown(name)} is a link to more than {PATH_LIMIT:,} characters")
    sparse = info.sparse is not None
    _check_records(info, name, sparse)
    if sparse:
        _check_sparse(info, name, kind)
    regular = kind == "file"
    stored = 0
    if regular:
        if info.size < 0:
            raise TarError(f"{shown(info.name)} has a negative size")
        stored = end - info.offset_data if sparse else info.size
    pax = info.pax_headers
    return Entry(
        index=index,
        name=name,
        kind=kind,
        start=info.offset,
        data=info.offset_data,
        stored=stored,
        end=end,
        size=info.size if regular else 0,
        mode=info.mode,
        uid=info.uid,
        gid=info.gid,
        mtime=info.mtime,
        owner=f"{info.uname}:{info.gname}",
        linkname=clean_name(info.linkname) if kind == "hardlink" else info.linkname,
        xattrs=tuple(sorted((k, v) for k, v in pax.items() if k not in _STORED_IN_PAX)) if pax else (),
        device=(info.type, info.devmajor, info.devminor) if kind == "device" else None,
        sparse=sparse,
    )


def read_plain_entry(tar: ByteRange, start: int, end: int, index: int) -> Entry | None:
    """The entry of a file or hard link that begins at `start`, as `read_entries` gives it, where its headers are plain.

    None where they are not, or it does not end by `end`, or anything is odd about it.
    """
    raw = tar.read_at(start, min(BLOCK, end - start)) if start < end else b""
    if raw[156:157] == b"x":  # names that are longer than a block has room for
        raw += tar.read_at(start + BLOCK, min(_PLAIN, end - start) - BLOCK)
    plain = read_plain(raw)
    if plain is None or ".wh." in plain.name:
        return None
    try:
        name, linkname = clean_name(plain.name), clean_name(plain.linkname or "")
    except TarError:
        return None
    data = start + plain.length
    after = data + plain.size + padding(plain.size)
    if not name or after > end:
        return None
    return Entry(
        index=index,
        name=name,
        kind="file" if plain.linkname is None else "hardlink",
        start=start,
        data=data,
        stored=plain.size,
        end=after,
        size=plain.size,
        mode=plain.mode,
        uid=plain.uid,
        gid=plain.gid,
        mtime=plain.mtime,
        owner=plain.owner,
        linkname=linkname,
        xattrs=(),
        device=None,
        sparse=False,
    )


def _check_records(info: tarfile.TarInfo, name: str, sparse: bool) -> None:
    """Refuses pax records that tarfile reads in its own way: what is no number as 0, an empty name as the root."""
    for key, value in info.pax_headers.items():
        if key in _RECORDS and not _RECORDS[key].fullmatch(value):
            raise TarError(f"{shown(name)} has the pax record {key}={shown(value, 40)}, which cannot be meant")
        if not sparse and key.startswith("GNU.sparse."):
            raise TarError(f"{shown(name)} has a sparse file's pax record {shown(key, 40)} and no map")
        if not key.isascii() and any("\udc80" <= c <= "\udcff" for c in key):
            raise TarError(f"{shown(name)} has the pax record {shown(key, 40)}, whose name is no UTF-8")


def _check_sparse(info: Any, name: str, kind: Kind) -> None:
    if kind != "file":
        raise TarError(f"{shown(name)} is a {kind} and has a sparse file's map")
    end = 0
    for offset, length in info.sparse:
        if length == 0:  # unused, or the mark at the end
            continue
        if length < 0 or offset < end:
            raise TarError(f"{shown(name)} has a sparse map out of order")
        end = offset + length
    if not end <= info.size < 1 << 63:
        raise TarError(f"{shown(name)} has a sparse map that does not fit its size")


def clean_name(name: str) -> str:
    """A tar name as a path relative to the image's root. Raises TarError when it leads elsewhere."""
    if len(name) > PATH_LIMIT:
        raise TarError(f"the name {shown(name)} has more than {PATH_LIMIT:,} characters")
    if name.startswith("/") and name.strip("/"):
        raise TarError(f"the absolute name {shown(name)} leads outside the image")
    if "\0" in name:
        raise TarError(f"the name {shown(name)} holds a zero byte")
    if "//" in name or "." in name:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise TarError(f"the name {shown(name)} climbs out of the image")
        return "/".join(parts)
    return name.strip("/")


def change_header(
    tar: ByteRange,
    entry: Entry,
    *,
    name: str | None = None,
    size: int | None = None,
    hardlink_to: str | None = None,
) -> bytes:
    """The entry's headers again, with another name, content size, or as a hard link.

    When only the size changes, and nothing but the last block holds it, all else stays as it is to the byte.
    """
    renamed = name is not None or hardlink_to is not None
    # One block has no room for more than the entry tells: it need not be read, which most headers' time went into.
    owners = _owners(entry) if renamed else None
    raw = b"" if owners is not None else tar.read_at(entry.start, entry.data - entry.start)
    if not renamed and size is not None and size < 8 << 30:
        block = bytearray(raw[-BLOCK:])
        if b" size=" not in raw[:-BLOCK]:
            block[124:136] = b"%011o\0" % size
            block[148:156] = b"        "
            block[148:156] = b"%06o\0 " % sum(block)
            return raw[:-BLOCK] + bytes(block)
    owners = owners or owners_of(raw)
    if owners is not None and (hardlink_to is not None or entry.kind == "file"):
        length = 0 if hardlink_to is not None else entry.stored if size is None else size
        short = headers(
            owners,
            entry.name if name is None else name,
            hardlink_to,
            entry.mode,
            entry.uid,
            entry.gid,
            length,
            entry.mtime,
        )
        if short is not None:
            return short
    raw = raw or tar.read_at(entry.start, entry.data - entry.start)
    info = open_headers(io.BytesIO(raw + bytes(2 * BLOCK))).next()
    info.pax_headers = {
        k: v for k, v in info.pax_headers.items() if k not in ("path", "linkpath", "size", "hdrcharset")
    }
    info.name = entry.name if name is None else name
    info.size = entry.stored if size is None else size
    if hardlink_to is not None:
        info.type, info.linkname, info.size = tarfile.LNKTYPE, hardlink_to, 0
    elif entry.kind == "file":
        info.type, info.linkname = tarfile.REGTYPE, ""
    return bytes(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))


def _owners(entry: Entry) -> tuple[bytes, bytes] | None:
    """The names of an entry's user and group, where its headers are one block and these are all that it holds."""
    user, _, group = entry.owner.partition(":")
    if entry.data - entry.start != BLOCK or ":" in group or not entry.owner.isascii():
        return None
    return user.encode(), group.encode()


def whiteout_header(path: str) -> bytes:
    """The headers of an entry that deletes `path` of lower layers."""
    parent, _, base = path.rpartition("/")
    info = tarfile.TarInfo(f"{parent}/.wh.{base}" if parent else f".wh.{base}")
    info.mode = 0
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> int:
    """The zero bytes that follow `size` bytes of content."""
    return -size % BLOCK
