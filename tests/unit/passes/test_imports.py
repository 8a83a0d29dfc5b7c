"""Static imports: read from bytes, whatever those are."""

from __future__ import annotations

import pytest

from deadweight.passes.imports import mentions


@pytest.mark.parametrize(
    "data", [b'"""\nimport os, caf\xe9\n"""', b"from \xff import tests\n", b'find_library("p\xe9")']
)
def test_a_file_need_not_be_utf8(data: bytes) -> None:
    mentions(data)
