"""duplicates: equal files of one layer become links to the first; nothing else does."""

from __future__ import annotations

from typing import Any

import pytest

from deadweight.image.edit import Edit, edit_image
from deadweight.passes.base import Options
from deadweight.passes.duplicates import PASS
from support.contexts import SITE, context, proposals
from support.images import Member, file, hardlink, xattr

BIG = b"x" * 70_000


def links(*members: Member, **more: Any) -> dict[str, str | None]:
    return {p.path: p.to for p in proposals(PASS, context(members, **more))}


def test_copies_become_links_to_the_first_in_the_layer() -> None:
    at = context([file("usr/z", BIG), file("usr/b", BIG), file("usr/a", BIG), file("usr/c", BIG[:-1] + b"y")])
    assert {p.path: p.to for p in proposals(PASS, at)} == {"usr/a": "usr/z", "usr/b": "usr/z"}
    edited = edit_image(at.ledger.fs, Edit(link={"usr/a": "usr/z", "usr/b": "usr/z"}))
    assert edited.layers[0].size < at.ledger.image.size - 2 * len(BIG)


@pytest.mark.parametrize(
    "other",
    [
        {"mode": 0o755},
        {"uid": 1},
        {"gid": 1},
        {"mtime": 1},
        {"pax": xattr("user.x", b"1")},
    ],
)
def test_metadata_must_be_equal_too(other: dict[str, Any]) -> None:
    assert links(file("usr/a", BIG), file("usr/b", BIG, **other)) == {}
    assert links(file("usr/a", BIG, **other), file("usr/b", BIG, **other)) == {"usr/b": "usr/a"}


@pytest.mark.parametrize("place", ["etc", "var/lib", f"{SITE}/a-1.dist-info", "home/me"])
def test_places_that_are_left_alone(place: str) -> None:
    assert links(file(f"{place}/a", BIG), file(f"{place}/b", BIG)) == {}
    assert links(file("usr/a", BIG), file(f"{place}/b", BIG)) == {}


def test_names_of_one_file_are_no_copies_and_a_copy_of_them_is_linked_once() -> None:
    assert links(file("usr/a", BIG), hardlink("usr/b", "usr/a")) == {}
    assert links(file("usr/a", BIG), hardlink("usr/b", "usr/a"), file("usr/c", BIG), hardlink("usr/d", "usr/c")) == {
        "usr/c": "usr/a"
    }


def test_empty_files_and_other_layers() -> None:
    assert links(file("usr/a"), file("usr/b")) == {}
    assert proposals(PASS, context([file("usr/a", BIG)], [file("usr/b", BIG)])) == []
    assert proposals(PASS, context([file("usr/a", BIG), file("usr/b", BIG)], [hardlink("usr/c", "usr/b")])) == []


def test_only_where_bytes_are_saved() -> None:
    long = "usr/" + "n" * 120
    assert links(file(long, b"x" * 1024), file("usr/z", b"x" * 1024)) == {}
    assert links(file(long, b"x" * 1025), file("usr/z", b"x" * 1025)) == {"usr/z": long}
    assert links(file("usr/a", b"x"), file("usr/z", b"x")) == {"usr/z": "usr/a"}


def test_what_earlier_passes_took_and_what_stays() -> None:
    members = [file("usr/a", BIG), file("usr/b", BIG), file("usr/c", BIG)]
    at = context(members)
    at.gone.add("usr/a")
    assert {p.path: p.to for p in proposals(PASS, at)} == {"usr/c": "usr/b"}
    at = context(members)
    at.linked.add("usr/b")
    assert {p.path: p.to for p in proposals(PASS, at)} == {"usr/c": "usr/a"}
    assert links(*members, options=Options(keep=("usr/c",))) == {"usr/b": "usr/a"}
    assert links(*members, keep_layers=[0]) == {}


def test_a_name_that_left_is_not_linked_to() -> None:
    at = context([file("cache/a", BIG), hardlink("usr/a", "cache/a"), file("usr/b", BIG)])
    at.gone.add("cache/a")
    assert {p.path: p.to for p in proposals(PASS, at)} == {"usr/b": "usr/a"}
