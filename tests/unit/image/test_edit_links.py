"""Hard links and layers' ends, where edits went wrong once."""

from __future__ import annotations

import tarfile
import time

import pytest

from deadweight.image.content import Content
from deadweight.image.edit import Edit, edit_image, layer_chunks
from deadweight.image.filesystem import Filesystem
from support.layers import Seen, image_of, member, merged_view, tar_of, without_inodes

LINK, SYMLINK, FIFO, FOLDER = tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE


def edited(tars: list[bytes], edit: Edit) -> dict[str, Seen]:
    """The view of the result, its sizes and charges checked."""
    with image_of(tars) as image:
        result = edit_image(Filesystem(image), edit)
        built = [b"".join(layer_chunks(image, layer)) for layer in result.layers]
        assert [layer.size for layer in result.layers] == [len(tar) for tar in built]
        assert sum(map(len, tars)) - sum(map(len, built)) == sum(c.before - c.after for c in result.charges.values())
    return without_inodes(merged_view([tar + bytes(-len(tar) % 512 + 1024) for tar in built]))


@pytest.mark.parametrize("kind", [SYMLINK, FIFO])
def test_a_link_to_what_is_no_file_takes_it_over_as_it_is(kind: bytes) -> None:
    first = member("a", kind=kind, link="/target" * 20 if kind == SYMLINK else "")
    links = [member("b", kind=LINK, link="a"), member("c", kind=LINK, link="b")]
    for tars in ([tar_of([first, *links])], [tar_of([first]), tar_of(links)]):
        before = without_inodes(merged_view(tars))
        for leaving in ("a", "b"):
            expected = {path: seen for path, seen in before.items() if path != leaving}
            assert edited(tars, Edit(remove=[leaving])) == expected


@pytest.mark.parametrize("kind", [SYMLINK, FIFO])
def test_names_of_what_is_no_file_stay_one_when_the_name_between_them_leaves(kind: bytes) -> None:
    entries = [member("a", kind=kind, link="x" if kind == SYMLINK else "")]
    entries += [member("b", kind=LINK, link="a"), member("c", kind=LINK, link="b")]
    with image_of([tar_of(entries)]) as image:
        (layer,) = edit_image(Filesystem(image), Edit(remove=["b"])).layers
        built = b"".join(layer_chunks(image, layer))
    view = merged_view([built])
    assert view["a"].inode == view["c"].inode


@pytest.mark.parametrize("kind", [SYMLINK, FIFO, tarfile.REGTYPE])
def test_names_stay_one_where_the_first_was_taken_again(kind: bytes) -> None:
    first = member("s", b"data" if kind == tarfile.REGTYPE else b"", kind=kind, link="x" if kind == SYMLINK else "")
    entries = [first, member("a", kind=LINK, link="s"), member("s", b"a file now")]
    entries += [member(name, kind=LINK, link="a") for name in "bcd"]
    with image_of([tar_of(entries)]) as image:
        (layer,) = edit_image(Filesystem(image), Edit(remove=["a"])).layers
        view = merged_view([b"".join(layer_chunks(image, layer))])
    assert view["b"].inode == view["c"].inode == view["d"].inode != view["s"].inode


def test_no_link_is_made_to_a_name_whose_directory_was_replaced() -> None:
    entries = [
        member("x", b"data"),
        member("a/b", kind=LINK, link="x"),
        member("a", b"a file now"),
        member("c", kind=LINK, link="x"),
    ]
    view = edited([tar_of(entries)], Edit(remove=["x"]))
    assert (view["a"].content, view["c"].content) == (b"a file now", b"data")


@pytest.mark.parametrize(
    "edit",
    [
        Edit(remove=["q"]),
        Edit(remove=["a"]),
        Edit(remove=["b"]),
        Edit(rewrite={"b": Content((b"new",))}),
        Edit(link={"b": "a"}),
        Edit(link={"a": "b"}),
    ],
)
def test_the_last_padding_may_be_missing_whatever_is_cut(edit: Edit) -> None:
    # As umoci insert 0.4.7 leaves it.
    cut = tar_of([member("a", b"0123456789"), member("b", b"0123456789")])[: 512 + 512 + 512 + 10]
    view = edited([bytes(cut), tar_of([member("q", b"q")])], edit)
    assert set(view) == {"a", "b", "q"} - set(edit.remove)


def test_large_layers_with_a_name_twice_take_no_time() -> None:
    count = 8000
    twice = [member("s", kind=FOLDER), member("s", kind=FOLDER)]
    files = [member(f"s/{i}", b"x") for i in range(2 * count)]
    lower, upper = tar_of(files), tar_of([member(f"s/.wh.{i}") for i in range(count)])
    begin = time.process_time()
    with image_of([tar_of(twice + files)]) as image:
        edit_image(Filesystem(image), Edit(link={f"s/{i}": f"s/{i - count}" for i in range(count, 2 * count)}))
    with image_of([lower, upper]) as image:
        edit_image(Filesystem(image), Edit(drop=[(1, i) for i in range(count)]))
    assert time.process_time() - begin < 15  # it was a minute


def test_what_a_layer_that_stays_has_in_a_removed_directory_stays_hidden() -> None:
    lower, middle = tar_of([member("d", kind=FOLDER), member("x")]), tar_of([member("d/a", b"stays below")])
    upper = tar_of([member("d/.wh.a"), member("y")])
    view = edited([lower, middle, upper], Edit(remove=["d"], keep_layers=[1]))
    assert set(view) == {"x", "y"}


def test_two_names_of_one_file_become_links_to_two_others() -> None:
    entries = [member("a", b"same"), member("a2", kind=LINK, link="a"), member("b", b"same"), member("c", b"same")]
    edit = Edit(link={"a": "b", "a2": "c"})
    with image_of([tar_of(entries)]) as image:
        charges = edit_image(Filesystem(image), edit).charges
    assert [(charges[path].before, charges[path].after) for path in edit.link] == [(1024, 512), (1024, 512)]
    view = edited([tar_of(entries)], edit)
    assert {path: seen.content for path, seen in view.items()} == dict.fromkeys(("a", "a2", "b", "c"), b"same")
