"""The merged view: which entries it needs, and what lies where."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from deadweight.image.content import Content, known_content
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


def test_threads_that_find_each_others_do_not_wait_for_ever() -> None:
    """What a pass made of a file is found by what the pass before made of it, in as many threads as there are files."""
    both = Barrier(2, timeout=30)

    def content(number: int) -> Content:
        first = known_content(lambda: Content((b"%d" % number, (0, 1))), 2, b"first")

        def find() -> Content:
            both.wait()
            return Content((b"x", *first.parts(0, 2)))

        return known_content(find, 3, b"second")

    with ThreadPoolExecutor(2) as pool:
        parts = [pool.submit(content(number).reader(lambda _, length: b"r" * length), 0, 3) for number in range(2)]
        assert [part.result(timeout=60) for part in parts] == [b"x0r", b"x1r"]
