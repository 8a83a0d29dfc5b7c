"""Headers put together by hand are tarfile's, to the byte."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadweight.errors import TarError
from deadweight.image import layer
from deadweight.image.bytes import ByteRange
from deadweight.image.changed import HeldRange
from deadweight.image.layer import Entry, change_header, read_entries, read_plain_entry
from deadweight.image.ustar import headers, owners_of

names = st.one_of(
    st.text("ab/é", min_size=1, max_size=6).filter(lambda text: text.strip("/") != ""),
    st.integers(90, 260).map(lambda length: "d/" * (length // 2) + "x" * (length % 2)),
    st.integers(90, 1200).map(lambda length: "n" * length),
)
numbers = st.one_of(st.integers(0, 9), st.integers(8**7 - 2, 8**7 + 2), st.integers(8**11 - 2, 8**11 + 2))
times = st.one_of(numbers, st.just(1.5), st.just(12345.0))
formats = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])


@given(names, names, names, numbers, numbers, times, st.text("ué:", max_size=4), st.integers(0, 0o7777), formats)
def test_as_tarfile_has_them(
    name: str, new: str, target: str, uid: int, size: int, mtime: float, user: str, mode: int, form: Any
) -> None:
    info = tarfile.TarInfo(name.strip("/"))
    info.uid, info.gid, info.mtime, info.uname, info.gname, info.mode = uid, 5, mtime, user, "staff", mode
    data = info.tobuf(form, "utf-8", "surrogateescape") + bytes(1024)
    tar = HeldRange(data)
    (entry,) = read_entries(tar, "x")
    for change in (
        {"name": new.strip("/"), "size": size},
        {"hardlink_to": target.strip("/")},
        {"name": new.strip("/"), "hardlink_to": target.strip("/")},
        {"name": new.strip("/")},
    ):
        found = change_header(tar, entry, **change)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layer, "headers", lambda *_: None)
            assert found == change_header(tar, entry, **change)
        again = tarfile.TarFile(fileobj=io.BytesIO(found + bytes(1024)), encoding="utf-8").next()
        assert again is not None
        assert again.name == change.get("name", entry.name)


def test_most_headers_are_put_together_by_hand() -> None:
    """Else the test above would compare tarfile with itself."""
    plain = owners_of(tarfile.TarInfo("a").tobuf())
    assert plain is not None
    assert headers(plain, "n" * 150, "m" * 101, 0o644, 0, 0, 0, 7) is not None
    long = owners_of(tarfile.TarInfo("a" * 150).tobuf(tarfile.PAX_FORMAT))
    assert long is not None
    assert headers(long, "n", None, 0o644, 1, 1, 8**11 - 1, 7) is not None
    other = tarfile.TarInfo("a")
    other.pax_headers = {"SCHILY.xattr.user.a": "1"}
    assert owners_of(other.tobuf(tarfile.PAX_FORMAT)) is None


small = st.one_of(st.integers(0, 9), st.integers(500, 1100))
kinds = st.sampled_from([tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE])
odd = st.sampled_from(["a", "a/b/", "/a", "../a", "a//./b", ".wh.a", "a\x00b", " ", "n" * 100, "n" * 101, "m" * 1500])


def first(tar: ByteRange) -> Entry | None:
    """The first entry as tarfile reads it; None where it does not."""
    try:
        return next(iter(read_entries(tar, "x")), None)
    except TarError:
        return None


@given(names | odd, names | odd, kinds, small, times, formats, st.text("ué:", max_size=4), st.data())
def test_what_is_read_by_hand_is_what_tarfile_reads(
    name: str, link: str, kind: bytes, size: int, mtime: float, form: Any, user: str, data: st.DataObject
) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mtime, info.uname = kind, link if data.draw(st.booleans()) else "", mtime, user
    info.size = size if kind == tarfile.REGTYPE or data.draw(st.integers(0, 9)) == 0 else 0
    raw = bytearray(info.tobuf(form, "utf-8", "surrogateescape"))
    for _ in range(data.draw(st.integers(0, 2))):  # any header at all, as long as its checksum holds
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.sampled_from(b"\0 017x/.=g\xff"))
    for at in data.draw(st.sampled_from([(), (len(raw) - 512,), (0, len(raw) - 512)])):
        raw[at + 148 : at + 156] = b" " * 8
        raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + 512])
    tar = HeldRange(bytes(raw) + bytes(info.size + -info.size % 512) + bytes(1024))
    found = read_plain_entry(tar, 0, tar.size, 0)
    assert found is None or found == first(tar)


def test_most_headers_are_read_by_hand() -> None:
    """Else the test above would compare nothing."""
    for name, link in (("a", None), ("n" * 150, None), ("a", "b"), ("n" * 150, "m" * 101)):
        header = headers((b"root", b"staff"), name, link, 0o644, 1, 2, 0 if link else 700, 7)
        assert header is not None
        tar = HeldRange(header + bytes(1024 + 1024))
        found = read_plain_entry(tar, 0, tar.size, 3)
        assert found is not None
        assert (found.index, found.name, found.linkname, found.owner) == (3, name, link or "", "root:staff")
        assert read_plain_entry(tar, 0, len(header) - 1, 0) is None
