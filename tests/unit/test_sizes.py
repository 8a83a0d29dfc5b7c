"""Sizes: read as people write them, shown as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadweight.errors import UsageError
from deadweight.sizes import parse_size, show_share, show_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("3GB", 3_000_000_000),
        ("2.5GiB", 2_684_354_560),
        ("1000000", 1_000_000),
        ("1_000_000", 1_000_000),
        ("1,000 B", 1000),
        ("40k", 40_000),
        ("40 KB", 40_000),
        ("1kib", 1024),
        ("0.5 MiB", 524_288),
        ("1 tb", 10**12),
        ("0", 0),
        (" 7 bytes ", 7),
    ],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "3XB", "-3GB", "3GB4", "1e9", "٣GB", "3.GB", "0x10", "inf", "9" * 99])
def test_what_is_no_size_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (10_240, "10.2 kB"),
        (9_994, "9.99 kB"),
        (9_995, "10.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (8_263_424_000, "8.26 GB"),
        (-293_813_248, "-294 MB"),
        (10**22, "10,000 EB"),
    ],
)
def test_sizes_in_three_digits(size: int, text: str) -> None:
    assert show_size(size) == text


@given(st.integers(-(10**20), 10**20))
def test_what_is_shown_reads_back_to_three_digits(size: int) -> None:
    sign = -1 if size < 0 else 1
    assert abs(sign * parse_size(show_size(size).lstrip("-")) - size) <= abs(size) * 0.00501


def test_shares() -> None:
    assert [show_share(1, 3), show_share(0, 3), show_share(3, 3)] == ["33.3%", "0.0%", "100.0%"]
    assert [show_share(1, 10_000), show_share(5, 0)] == ["<0.1%", "-"]
