"""Text from images does nothing to a terminal, and nothing to a document."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from deadweight.report.text import plain, printable_json, valid

HOSTILE = "a\x1b[31mred\x07\r\n\u202etxt.exe\u2066\u200b\x9b2J\udce9[bold]é"


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert plain(HOSTILE) == r"a\x1b[31mred\x07\r\n\u202etxt.exe\u2066\u200b\x9b2J\udce9[bold]é"


def test_a_limit_leaves_an_ellipsis() -> None:
    assert plain("abcdef", 6) == "abcdef"
    assert plain("abcdefg", 6) == "abcde…"


@given(st.text(st.characters(exclude_categories=())))
def test_plain_text_is_one_printable_line(text: str) -> None:
    assert plain(text).isprintable()
    assert valid(text).encode().decode() == valid(text)


@given(st.text())
def test_json_means_the_same_when_it_is_printable(text: str) -> None:
    document = json.dumps({"a": text}, ensure_ascii=False, indent=2)
    safe = printable_json(document)
    assert json.loads(safe) == {"a": text}
    assert all(line.isprintable() for line in safe.split("\n"))
