"""Headers that tarfile reads in another way than engines do (Go's archive/tar), and names that take the memory."""

from __future__ import annotations

import tarfile

import pytest

from deadweight.errors import TarError
from deadweight.image import filesystem, layer
from deadweight.image.filesystem import Filesystem
from support.layers import image_of, member, tar_of

END = bytes(1024)


def header(name: bytes, size: int = 0, kind: bytes = b"0", magic: bytes = b"ustar\x0000", prefix: bytes = b"") -> bytes:
    """One block, by hand."""
    block = bytearray(512)
    block[: len(name)] = name
    for place, number in ((100, 0o644), (108, 0), (116, 0)):
        block[place : place + 8] = b"%07o\0" % number
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"%011o\0" % 0
    block[156:157] = kind
    block[257:265] = magic
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def file(name: bytes, data: bytes = b"") -> bytes:
    return header(name, len(data)) + data + bytes(-len(data) % 512)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """An extended header."""
    body = b""
    for key, value in records:
        length = len(key) + len(value) + 3
        total = next(n for n in range(length, length + 20) if n == length + len(str(n)))
        body += b"%d %s=%s\n" % (total, key, value)
    return header(b"././@PaxHeader", len(body), kind) + body + bytes(-len(body) % 512)


def names(tar: bytes) -> list[str]:
    with image_of([tar + END]) as image:
        return [entry.name for entry in image.layers[0].entries]


@pytest.mark.parametrize(("magic", "expected"), [(b"ustar\x0000", "dir/f"), (b"ustar  \0", "f"), (bytes(8), "f")])
def test_only_posix_headers_have_a_prefix(magic: bytes, expected: str) -> None:
    # GNU tar keeps access times there.
    assert names(header(b"f", 3, magic=magic, prefix=b"dir") + b"abc".ljust(512, b"\0")) == [expected]


def test_global_headers_hold_for_no_entry() -> None:
    inner = file(b"smuggled", b"x")
    records = ((b"path", b"other"), (b"size", b"0"), (b"SCHILY.xattr.user.a", b"1"))
    with image_of([pax(*records, kind=b"g") + file(b"f", inner) + END]) as image:
        (entry,) = image.layers[0].entries
    assert (entry.name, entry.size, entry.xattrs) == ("f", len(inner), ())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"size", b""),
        (b"size", b"abc"),
        (b"size", "٣".encode()),
        (b"size", b"-512"),
        (b"path", b""),
        (b"mtime", b"nan"),
        (b"uid", b"1_0"),
        (b"GNU.sparse.realsize", b"1000000"),
        (b"GNU.sparse.name", b"other"),
        (b"SCHILY.xattr.user.\xff", b"1"),
    ],
)
def test_pax_records_that_cannot_be_meant_are_refused(key: bytes, value: bytes) -> None:
    with pytest.raises(TarError):
        names(pax((key, value)) + file(b"f", file(b"smuggled", b"x")))


@pytest.mark.parametrize("map_", [b"5,3,0,3", b"0,-3", b"0,300", b"-5,3"])
def test_a_sparse_map_must_fit(map_: bytes) -> None:
    with pytest.raises(TarError):
        names(pax((b"GNU.sparse.map", map_), (b"GNU.sparse.size", b"100")) + file(b"f", b"abc"))


@pytest.mark.parametrize("name", ["d/.wh.", "d/.wh..", "d/.wh...", ".wh."])
def test_a_whiteout_of_its_own_directory_is_refused(name: str) -> None:
    with pytest.raises(TarError, match="whiteout"):
        names(tar_of([member(name)])[:-1024])


def test_names_and_attributes_cannot_take_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TarError, match="characters"):
        names(pax((b"path", b"a/" * 100_000 + b"x")) + file(b"f"))
    monkeypatch.setattr(layer, "TEXT_LIMIT", 10_000)
    with pytest.raises(TarError, match="attributes"):
        names(b"".join(pax((b"SCHILY.xattr.user.a", b"x" * 2000)) + file(b"f%d" % i) for i in range(9)))
    monkeypatch.setattr(filesystem, "IMPLIED_LIMIT", 100_000)
    deep = [member(f"{i}/" + "a/" * 300 + "x") for i in range(3)]
    with image_of([tar_of(deep)]) as image, pytest.raises(TarError, match="directories"):
        Filesystem(image)


def test_names_do_not_depend_on_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarfile, "ENCODING", "iso8859-1")
    assert names(header("ü".encode())) == ["ü"]
