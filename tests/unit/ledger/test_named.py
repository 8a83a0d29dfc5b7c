"""Paths by what their names say: each layer is looked through once, and what is not seen is not found."""

from __future__ import annotations

from deadweight.ledger.ledger import Ledger
from deadweight.ledger.named import named
from support.images import directory, file, hardlink, make_tar, whiteout
from support.layers import image_of


def test_what_is_seen_is_found_by_layer_and_tried_once() -> None:
    lower = make_tar(file("z.py", b"1"), directory("d.py"), file("a.py", b"2"), file("gone.py"), file("e.txt"))
    upper = make_tar(whiteout("gone.py"), file("a.py", b"3"), hardlink("b.py", "z.py"), file("i.py/x"))
    with image_of([lower, upper]) as image:
        ledger = Ledger(image)
        asked: list[str] = []

        def test(name: str) -> bool:
            asked.append(name)
            return name.endswith(".py")

        expected = ["z.py", "d.py", "a.py", "b.py"]
        assert named(ledger.fs, ledger.facts, "python", test) == expected
        assert sorted(asked) == sorted(entry.name for layer in image.layers for entry in layer.entries)
        asked.clear()
        assert named(ledger.fs, ledger.facts, "python", test) == expected
        assert not asked
        assert named(ledger.fs, None, "python", test) == expected
        assert asked


def test_a_layer_with_fewer_entries_than_are_known_of_it() -> None:
    with image_of([make_tar(file("a"), file("b"))]) as image:
        ledger = Ledger(image)
        ledger.facts.table("named-all", 0, list[int])[0] = [-3, -1, 0, 1, 2, 70_000]
        assert named(ledger.fs, ledger.facts, "all", lambda _: True) == ["a", "b"]
