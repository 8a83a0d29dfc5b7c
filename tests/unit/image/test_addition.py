"""Files that are added to an edited image: at the end of the last layer that changes, or refused with a reason."""

from __future__ import annotations

import io
import tarfile

import pytest

from deadweight.image.addition import CannotAdd, add_file, is_plain, last_changed
from deadweight.image.content import Content
from deadweight.image.edit import Edit, Edited, edit_image, layer_chunks, really_removed
from deadweight.image.filesystem import Filesystem
from support.layers import image_of, member, merged_view, tar_of

LINK, SYMLINK, FOLDER = tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE
PATH = "usr/share/x/file"
CHANGE = Edit(rewrite={"a": Content((b"new",))})
"""What all images here have and lose in their first layer."""

Members = list[tuple[tarfile.TarInfo, bytes]]


def added(*layers: Members, edit: Edit = CHANGE) -> tuple[Edited, list[bytes]]:
    """An image with the file `a` at the bottom, edited, and with a file added; and the layers of the result."""
    first, *others = layers or ([],)
    tars = [tar_of([member("a", b"x" * 3000, mtime=99.9), *first]), *map(tar_of, others)]
    with image_of(tars) as image:
        fs = Filesystem(image)
        edited = edit_image(fs, edit)
        after = add_file(fs, edited, really_removed(fs, edit), PATH, b"content")
        return after, [b"".join(layer_chunks(image, layer)) for layer in after.layers]


def entries(tar: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return archive.getmembers()


def test_it_comes_last_with_the_directories_that_are_missing() -> None:
    edited, (tar,) = added([member("usr", kind=FOLDER, mode=0o700)])
    new = entries(tar)[2:]
    assert [e.name for e in new] == ["usr/share", "usr/share/x", PATH]
    assert [(e.mode, e.uid, e.gid, e.mtime, e.uname) for e in new] == [
        (0o755, 0, 0, 99, ""),
        (0o755, 0, 0, 99, ""),
        (0o644, 0, 0, 99, ""),
    ]
    assert merged_view([tar])[PATH].content == b"content"
    charge = edited.charges[PATH]
    assert (charge.before, charge.after) == (0, 3 * 512 + 512)
    assert tar.endswith(b"content" + bytes(505 + 1024))
    assert tar == added([member("usr", kind=FOLDER, mode=0o700)])[1][0]  # every time


def test_it_goes_into_the_last_layer_that_changes_and_never_into_one_that_stays() -> None:
    edited, tars = added([], [member("b", b"y")], [member("c", b"z")], edit=Edit(["b"], CHANGE.rewrite))
    last = last_changed(edited)
    assert last is not None
    assert last.position == 1
    assert [PATH in merged_view([tar]) for tar in tars] == [False, True, False]
    edited, tars = added([], [member("b", b"y")], edit=Edit(rewrite=CHANGE.rewrite, keep_layers=[1]))
    assert [PATH in merged_view([tar]) for tar in tars] == [True, False]


def test_it_takes_the_place_of_a_file() -> None:
    for layers in ([[member(PATH, b"old")]], [[], [member(PATH, b"old"), member("b")]]):
        _, tars = added(*layers, edit=Edit(["b"] if len(layers) > 1 else [], CHANGE.rewrite))
        assert merged_view(tars)[PATH].content == b"content"


def test_an_opaque_directory_hides_what_lies_below_its_layer_alone() -> None:
    upper = [member("usr/share/.wh..wh..opq"), member("usr/share/k", b"k"), member("b")]
    _, tars = added([member("usr/share/x/old")], upper, edit=Edit(["b"]))
    assert {"usr/share/k", PATH} <= merged_view(tars).keys()
    assert "usr/share/x/old" not in merged_view(tars)


@pytest.mark.parametrize(
    ("layers", "edit", "reason"),
    [
        ([[]], Edit(), "no layer changes"),
        ([[]], Edit(rewrite=CHANGE.rewrite, keep_layers=[0]), "no layer changes"),
        ([[member("usr", kind=SYMLINK, link="opt")]], CHANGE, "/usr is a symlink and no directory"),
        ([[member("usr/share", b"text")]], CHANGE, "/usr/share is a file and no directory"),
        ([[member(PATH, kind=FOLDER)]], CHANGE, "something else is there"),
        ([[member(PATH, kind=SYMLINK, link="/a")]], CHANGE, "something else is there"),
        ([[member(PATH, b"old"), member("b", kind=LINK, link=PATH)]], CHANGE, "something else is there"),
        ([[member("b", b"old"), member(PATH, kind=LINK, link="b")]], CHANGE, "something else is there"),
        ([[member(PATH, b"old")], [member("b", kind=LINK, link=PATH)]], CHANGE, "something else is there"),
        ([[member(PATH, b"old")]], Edit([PATH], CHANGE.rewrite), f"'/{PATH}' is removed"),
        ([[member("usr", kind=FOLDER)]], Edit(["usr"], CHANGE.rewrite), "'/usr' is removed"),
        ([[member(PATH, b"x")]], Edit(rewrite={**CHANGE.rewrite, PATH: Content(())}), "something else is there"),
        ([[], [member(PATH, b"old")]], CHANGE, f"layer 2 has '/{PATH}'"),
        ([[member(PATH, b"old")], [member("usr/share/x/.wh.file")]], CHANGE, "layer 2 has '/usr/share/x/.wh.file'"),
        ([[], [member("usr/.wh.share")]], CHANGE, "layer 2 has '/usr/.wh.share'"),
        ([[], [member("usr/share/.wh..wh..opq")]], CHANGE, "layer 2 has '/usr/share/.wh..wh..opq'"),
        ([[], [member(".wh..wh..opq"), member("b")]], Edit(drop=[(0, 0)]), "layer 2 has '/.wh..wh..opq'"),
        ([[member("usr/.wh.share")]], CHANGE, "layer 1 has '/usr/.wh.share'"),
        (
            [[member("usr", b"file")], [member("usr", kind=FOLDER)]],
            CHANGE,
            "layer 1 has '/usr'",
        ),
        (
            [[], [member("usr", kind=SYMLINK, link="opt")], [member(".wh.usr"), member("usr", kind=FOLDER)]],
            CHANGE,
            "layer 2 has '/usr'",
        ),
    ],
)
def test_what_not_every_container_would_see_is_refused(layers: list[Members], edit: Edit, reason: str) -> None:
    with pytest.raises(CannotAdd, match=reason):
        added(*layers, edit=edit)


@pytest.mark.parametrize(
    ("mtime", "expected"), [("-5", 99), (str(8**11 - 1), 8**11 - 1), (str(8**11), 8**11 - 1), ("9" * 400, 8**11 - 1)]
)
def test_times_that_a_header_cannot_hold_become_the_nearest(mtime: str, expected: int) -> None:
    edited, (tar,) = added([member("b", b"", pax_headers={"mtime": mtime})])
    assert edited.charges[PATH].after == 5 * 512
    assert entries(tar)[-1].mtime == expected


def test_files_with_other_names_are_not_plain() -> None:
    tars = [
        tar_of([member("a", b"x"), member("b", kind=LINK, link="a"), member("c", b"y"), member("d", kind=FOLDER)]),
        tar_of([member("d/e", kind=LINK, link="c"), member("d/.wh.e")]),
        tar_of([member("f", b"z"), member("g", kind=SYMLINK, link="f")]),
    ]
    with image_of(tars) as image:
        fs = Filesystem(image)
        assert {path for path in (*fs.nodes, "nothing") if is_plain(fs, path)} == {"f"}
