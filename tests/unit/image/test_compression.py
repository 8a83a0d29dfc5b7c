"""How new layers are compressed."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

from isal import isal_zlib

import deadweight
from deadweight.image.compression import compressor


def code() -> bytes:
    """Text as images have it."""
    return b"".join(path.read_bytes() for path in sorted(Path(deadweight.__file__).parent.rglob("*.py")))


def test_gzip_is_smaller_than_at_the_fastest_level_and_the_same_each_time() -> None:
    data = code()
    made = []
    for _ in range(2):
        file = io.BytesIO()
        with compressor(file, "gzip") as packed:
            packed.write(data)
        made.append(file.getvalue())
    assert made[0] == made[1]
    assert gzip.decompress(made[0]) == data
    assert len(made[0]) < len(isal_zlib.compress(data, 1)) * 0.99
