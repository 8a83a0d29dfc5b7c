"""The merged view: which entries it needs, and what lies where."""

from __future__ import annotations

from deadweight.image.deferred import Deferred
from deadweight.image.filesystem import Filesystem
from support.images import directory, file, hardlink, make_tar, symlink, whiteout
from support.layers import image_of


def test_entries_that_are_not_seen_and_those_that_are_only_needed() -> None:
    lower = make_tar(directory("d"), file("d/x", b"1"), file("d/y", b"2"), file("z", b"3"))
    upper = make_tar(hardlink("kept", "d/x"), whiteout("d"), file("z", b"4"), symlink("l", "kept"))
    with image_of([lower, upper]) as image:
        fs = Filesystem(image)
        assert fs.hidden == [(0, 0), (0, 2), (0, 3)]
        assert fs.nameless == [(0, 1)]
        assert [[entry.name for entry in own] for own in fs.whiteouts] == [[], [".wh.d"]]


def test_directories_are_those_that_have_something() -> None:
    with image_of([make_tar(file("a/b/c"), directory("empty"), file("top"))]) as image:
        fs = Filesystem(image)
        assert set(fs.directories) == {"", "a", "a/b"}
        assert set(fs.paths_below("a")) == {"a", "a/b", "a/b/c"}
        assert set(fs.paths_below("a/b")) == {"a/b", "a/b/c"}
        assert set(fs.paths_below("a")) == {"a", "a/b", "a/b/c"}
        assert list(fs.paths_below("top")) == ["top"]


def test_what_is_deferred_is_found_once_and_equal_to_what_it_is() -> None:
    asked: list[int] = []

    def find() -> list[int]:
        asked.append(1)
        return [1, 2, 3]

    found = Deferred(find)
    assert not asked
    assert (found[1], found[1:], len(found), list(found), 2 in found) == (2, (2, 3), 3, [1, 2, 3], True)
    assert found == (1, 2, 3) == found
    assert found == Deferred(lambda: (1, 2, 3))
    assert found not in ((1, 2), [1, 2, 3])
    assert hash(found) == hash((1, 2, 3))
    assert len(asked) == 1
