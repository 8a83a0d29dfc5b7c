"""What does not fit: shortened in the middle, broken between words, never wider than there is room."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from deadweight.report.markdown.text import code
from deadweight.report.shorten import fit, shorten

TORCH = "/usr/local/lib/python3.11/dist-packages/torch/lib/libtorch_cuda.so"


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        (TORCH, 100, TORCH),
        (TORCH, 60, "/usr/…/python3.11/dist-packages/torch/lib/libtorch_cuda.so"),
        (TORCH, 40, "/usr/…/torch/lib/libtorch_cuda.so"),
        (TORCH, 20, "…/libtorch_cuda.so"),
        (TORCH, 12, "/us…_cuda.so"),
        (f"'{TORCH}',", 43, "'/usr/…/torch/lib/libtorch_cuda.so',"),
        (f"'{TORCH}',", 22, "'…/libtorch_cuda.so',"),
        (f"({TORCH})", 22, "(…/libtorch_cuda.so)"),
        ('"factcheck/image:1.4"', 15, '"…/image:1.4"'),
        ("registry.example/team/app:1.4", 15, "…/team/app:1.4"),
        ("abcdefghijklmnop", 10, "abc…klmnop"),
        ("日本語のとても長い名前", 11, "日…長い名前"),
        ("x", 0, "…"),
    ],
)
def test_shorten(text: str, width: int, shown: str) -> None:
    assert shorten(text, width) == shown


def test_fit_breaks_between_words_and_says_that_something_is_left_out() -> None:
    assert fit("a bb ccc dddd", 6) == ["a bb", "ccc", "dddd"]
    assert fit("a bb ccc dddd", 6, 2) == ["a bb", "ccc…"]
    assert fit("a  b", 10) == ["a  b"]
    assert fit(f"see {TORCH}", 40) == ["see", "/usr/…/torch/lib/libtorch_cuda.so"]
    assert fit("", 5) == [""]


def test_no_name_takes_long_or_has_characters_without_end() -> None:
    started = time.process_time()
    assert shorten("a/" * 500_000, 60) == "…" + "/a" * 29 + "/"
    assert shorten("/" * 1_000_000, 60) == "//…" + "/" * 57
    assert time.process_time() - started < 2
    marked = "a" + "\u0301" * 1_000_000
    for text in (marked, f"/{marked}/x", f"x/{marked}", marked + "b" * 100):
        assert len(shorten(text, 90)) <= 8 * 90
        assert all(len(line) <= 8 * 90 for line in fit(f"{text} {text} b", 90))
    assert len(code(marked)) <= 8 * 90


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs", "Mn", "Me", "Cf"]), max_size=60), st.integers(2, 30))
def test_nothing_is_wider_than_there_is_room(text: str, width: int) -> None:
    assert cell_len(shorten(text, width)) <= width
    assert all(cell_len(line) <= width for line in fit(text, width))
    assert len(fit(text, width, 2)) <= 2
    assert all(cell_len(line) <= width for line in fit(text, width, 2))
    if cell_len(text) <= width:
        assert shorten(text, width) == text
