"""What passes make of files: the same content, in the same pieces, when it is worked out and when it is recalled."""

from __future__ import annotations

from deadweight.image.bytes import ByteRange
from deadweight.image.content import Content
from deadweight.passes.outcomes import outcome
from support.contexts import context
from support.images import file


def test_a_content_is_in_the_same_pieces_each_time() -> None:
    ledger = context([file("a", b"0123456789")]).ledger
    asked: list[int] = []

    def work() -> Content:
        asked.append(1)
        return Content((b"new", bytes(600), bytes(70_000), b"", (2, 5)))

    first = outcome(ledger, (0, 0), "recipe", None, work, slow=False)
    again = outcome(ledger, (0, 0), "recipe", None, work, slow=False)
    for found in (first, again):
        assert isinstance(found, Content)
        assert found.size == work().size
        assert found.digest == Content(tuple(found.pieces)).digest
        whole = found.reader(lambda offset, length: b"0123456789"[offset : offset + length])(0, found.size)
        assert whole == b"new" + bytes(70_600) + b"23456"
    assert first == again
    assert len(asked) == 3  # twice here


def test_a_reason_is_recalled_and_what_has_no_digest_is_not() -> None:
    ledger = context([file("a", b"1"), file("b", b"2")]).ledger
    asked: list[str] = []

    def refuse() -> Content:
        asked.append("a")
        raise ValueError("nothing to do")

    kept_aside = ByteRange(0, 0, 3)

    def aside() -> Content:
        asked.append("b")
        return Content((kept_aside,))

    for _ in range(2):
        assert outcome(ledger, (0, 0), "recipe", None, refuse, slow=False) == "nothing to do"
        assert outcome(ledger, (0, 1), "recipe", None, aside, slow=False) == Content((kept_aside,))
    assert asked == ["a", "b", "b"]
