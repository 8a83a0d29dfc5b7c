"""shadowed: what no container sees leaves, and nothing that still hides or carries something."""

from __future__ import annotations

import tracemalloc

from deadweight.image.edit import Edit, edit_image
from deadweight.passes.base import Options
from deadweight.passes.shadowed import PASS
from support.contexts import context, paths, proposals
from support.images import directory, file, hardlink, opaque, whiteout

LOWER = (directory("a"), file("a/old", b"1"), file("a/other", b"2"), file("secret", b"3"), directory("d"), file("d/x"))
UPPER = (directory("a"), file("a/old", b"new"), whiteout("secret"), opaque("d"))


def test_what_is_overwritten_or_deleted_leaves_with_its_whiteouts() -> None:
    at = context(LOWER, UPPER)
    found = {(p.path, p.key and p.key[0]): (p.why, p.evidence) for p in proposals(PASS, at)}
    assert found == {
        ("a", 0): ("repeated by a later layer", "layer 2 has it again"),
        ("a/old", 0): ("overwritten by a later layer", "layer 2 has it again"),
        ("secret", 0): ("deleted by a later layer", "layer 2 deletes it"),
        ("d/x", 0): ("deleted by a later layer", "layer 2 deletes /d"),
        (".wh.secret", 1): ("a deletion with nothing left to delete", "no lower layer has it"),
        ("d/.wh..wh..opq", 1): ("a deletion with nothing left to delete", "no lower layer has it"),
    }
    edited = edit_image(at.ledger.fs, Edit(drop=at.dropped))
    assert edited.layers[0].pieces is not None
    assert edited.layers[1].pieces is not None


def test_a_layer_that_stays_keeps_what_it_has_and_the_whiteouts_over_it() -> None:
    assert paths(PASS, context(LOWER, UPPER, keep_layers=[0])) == []
    assert paths(PASS, context(LOWER, UPPER, keep_layers=[1])) == ["a", "a/old", "secret", "d/x"]


def test_a_whiteout_stays_while_a_layer_below_keeps_something_under_it() -> None:
    # The bytes of `d/x` are those of `kept`, which the container sees.
    found = paths(PASS, context([directory("d"), file("d/x", b"1")], [hardlink("kept", "d/x")], [whiteout("d")]))
    assert found == ["d"]
    found = paths(PASS, context([directory("d"), file("d/x", b"1")], [hardlink("kept", "d/x")], [opaque("d")]))
    assert found == []


def test_whiteouts_over_whiteouts_go_from_below() -> None:
    at = context([file("d/a", b"1")], [whiteout("d/a")], [whiteout("d")], [file("d/b")])
    assert paths(PASS, at) == ["d/a", "d/.wh.a", ".wh.d"]
    at = context([file("d/a", b"1")], [whiteout("d/a")], [whiteout("d")], [file("d/b")], keep_layers=[1])
    assert paths(PASS, at) == ["d/a"]


def test_a_marker_at_the_root_and_a_name_that_is_a_whiteout_and_a_directory() -> None:
    at = context([file("a/b", b"1")], [opaque(""), file("c")])
    assert paths(PASS, at) == ["a/b", ".wh..wh..opq"]
    at = context([file("a/b", b"1")], [hardlink("kept", "a/b")], [opaque("")])
    assert paths(PASS, at) == ["a/b", "kept", ".wh..wh..opq"]
    at = context([file("a/b", b"1")], [file("a/.wh.b/c", b"2"), whiteout("a/b")])
    assert paths(PASS, at) == ["a/b", "a/.wh.b"]


def test_a_whiteout_stays_over_what_the_user_keeps() -> None:
    at = context([file("a/b", b"1"), file("a/c", b"2")], [whiteout("a")], options=Options(keep=("a/c",)))
    assert paths(PASS, at) == ["a/b"]


def test_a_file_in_the_way_of_a_directory_and_an_entry_that_its_own_layer_repeats() -> None:
    at = context([file("d/a", b"1"), file("twice", b"1"), file("twice", b"2")], [file("d", b"file")])
    assert {p.path: p.evidence for p in proposals(PASS, at)} == {
        "d/a": "layer 2 has /d again",
        "twice": "layer 1 has it again",
    }


def test_patterns_keep_what_they_match() -> None:
    assert paths(PASS, context(LOWER, UPPER, options=Options(keep=("/secret", "d", "a")))) == []


def test_names_of_many_parts_take_no_more_memory_than_they_have_letters() -> None:
    lower = [file(f"x{number}/" + "a/" * 1000 + "f", b"1") for number in range(20)]
    at = context(lower, [file("between")], [whiteout(f"x{number}") for number in range(20)])
    assert at.ledger.fs.nodes.keys() == {"", "between"}
    tracemalloc.start()
    try:
        assert len(proposals(PASS, at)) == 40
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
