"""Layers as tools really write them, and as nobody should."""

from __future__ import annotations

import io
import itertools
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadweight.errors import BadInputError, TarError
from deadweight.image.edit import Edit, edit_image, layer_chunks
from deadweight.image.filesystem import Filesystem
from deadweight.image.layer import read_entries
from support.layers import image_of, member, merged_view, tar_of


def entries(data: bytes) -> list[str]:
    with image_of([data]) as image:
        return [e.name for e in image.layers[0].entries]


def test_every_byte_lies_in_an_entry_or_behind_the_last() -> None:
    data = tar_of([member("a", b"x" * 700), member("d/", kind=tarfile.DIRTYPE), member("n" * 300, b"y")])
    with image_of([data]) as image:
        found = image.layers[0].entries
        assert found[0].start == 0
        assert all(one.end == two.start for one, two in itertools.pairwise(found))
        assert [e.name for e in found] == ["a", "d", "n" * 300]
        assert data[found[2].end :].strip(b"\0") == b""


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a/..", "x\0y"])
def test_names_that_lead_out_are_refused(name: str) -> None:
    info, content = member("placeholder", b"data")
    info.pax_headers = {"path": name}
    with pytest.raises(TarError):
        entries(tar_of([(info, content)]))


@pytest.mark.parametrize("name", [".", "./", "/"])
def test_the_root_directory_may_be_named(name: str) -> None:
    assert entries(tar_of([member(name, kind=tarfile.DIRTYPE), member("./a", b"")])) == ["", "a"]


def test_a_name_below_a_symbolic_link_is_refused() -> None:
    tar = tar_of([member("out", kind=tarfile.SYMTYPE, link="/etc"), member("out/passwd", b"root")])
    with image_of([tar]) as image, pytest.raises(TarError, match="symlink"):
        Filesystem(image)
    lower = tar_of([member("out", kind=tarfile.SYMTYPE, link="../..")])
    with image_of([lower, tar_of([member("out/x", b"")])]) as image, pytest.raises(TarError, match="symlink"):
        Filesystem(image)


def test_a_hard_link_to_nothing_is_refused() -> None:
    tar = tar_of([member("b", kind=tarfile.LNKTYPE, link="a")])
    with image_of([tar]) as image, pytest.raises(TarError, match="hard link"):
        Filesystem(image)


def test_a_header_that_claims_more_than_there_is() -> None:
    data = bytearray(tar_of([member("a", b"x" * 100)]))
    info = tarfile.TarInfo("a")
    info.size = 1 << 40
    data[:512] = info.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(TarError, match="claims"):
        entries(bytes(data))


def test_extension_headers_cannot_take_the_memory() -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 1 << 33
    with pytest.raises(TarError, match="headers"):
        entries(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    loop = io.BytesIO()
    for _ in range(3000):
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 5
        loop.write(info.tobuf(tarfile.GNU_FORMAT) + b"abcd\0".ljust(512, b"\0"))
    with pytest.raises(TarError):
        entries(loop.getvalue())


@pytest.mark.parametrize("cut", [1, 511, 512, 600, 1000])
def test_a_cut_layer_is_refused(cut: int) -> None:
    data = tar_of([member("a", b"x" * 700), member("b", b"y" * 700)])[: 512 + 1024 + cut]
    with pytest.raises(TarError):
        entries(data)


def test_rubbish_between_entries_is_refused() -> None:
    data = tar_of([member("a", b"x")])[:1024] + b"rubbish!" * 64 + bytes(1024)
    with pytest.raises(TarError, match="neither a header nor the end"):
        entries(data)


def test_no_end_of_archive_and_no_last_padding_are_accepted_and_mended_when_rewritten() -> None:
    # umoci insert 0.4.7 writes such layers.
    data = tar_of([member("a", b"x" * 700), member("b", b"0123456789")])[: 512 + 1024 + 512 + 10]
    assert entries(data) == ["a", "b"]
    with image_of([data]) as image:
        edited = edit_image(Filesystem(image), Edit(remove=["a"]))
        built = b"".join(layer_chunks(image, edited.layers[0]))
        assert len(built) == edited.layers[0].size == 512 + 512 + 1024
        assert merged_view([built])["b"].content == b"0123456789"
        assert len(data) - len(built) == sum(c.before - c.after for c in edited.charges.values())


def test_old_gnu_sparse_files_are_read_and_kept() -> None:
    out = io.BytesIO()
    info = tarfile.TarInfo("sparse")
    info.type = tarfile.GNUTYPE_SPARSE
    info.size = 10
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (4096, 10)
    header[483:495] = b"%011o\0" % 8192
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    out.write(bytes(header) + b"0123456789".ljust(512, b"\0"))
    out.write(tar_of([member("b", b"y")]))
    with image_of([out.getvalue()]) as image:
        sparse, _ = image.layers[0].entries
        assert (sparse.sparse, sparse.size, sparse.end) == (True, 8192, 1024)
        edited = edit_image(Filesystem(image), Edit(remove=["b"]))
        assert b"".join(layer_chunks(image, edited.layers[0])) == out.getvalue()[:1024] + bytes(1024)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_layer_gives_entries_or_one_error(data: st.DataObject) -> None:
    sound = tar_of([member("a", b"x" * 20), member("n" * 120, b"y" * 600), member("l", kind=b"1", link="a")])
    damaged = bytearray(sound[: data.draw(st.integers(0, len(sound)))])
    for _ in range(data.draw(st.integers(1, 6))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with image_of([bytes(damaged)]) as image:
        try:
            found = read_entries(image.layers[0].tar, "layer")
            Filesystem(image)
        except BadInputError:
            return
        assert all(0 <= e.start <= e.data <= e.end <= len(damaged) for e in found)
