"""By what a layer that a plan made is known: everything that its bytes follow from."""

from __future__ import annotations

from pathlib import Path

from deadweight.cache.written import written_key
from deadweight.image.edit import LayerEdit
from deadweight.image.pieces import Piece, Span
from deadweight.image.transports import open_image
from support.images import file, make_image, make_tar, write_oci


def test_every_byte_and_every_range_counts(tmp_path: Path) -> None:
    layers = [make_tar(file("a", b"1")), make_tar(file("a", b"2"))]
    with open_image(f"oci:{write_oci(tmp_path / 'in', make_image(*layers))}") as image:
        pieces: list[tuple[Piece, ...]] = [
            (b"head", Span(0, 0, 512)),
            (b"heat", Span(0, 0, 512)),
            (b"head", Span(1, 0, 512)),
            (b"head", Span(0, 1, 512)),
            (b"head", Span(0, 0, 511)),
            (Span(0, 0, 512), b"head"),
            (b"head",),
            (b"he", b"ad"),
            (),
        ]
        keys = [written_key(image, LayerEdit(0, each, 0)) for each in pieces]
        assert None not in keys
        assert len(set(keys)) == len(pieces)
        assert written_key(image, LayerEdit(0, None, 0)) is None
    with open_image(f"oci:{write_oci(tmp_path / 'again', make_image(*layers))}") as image:
        assert [written_key(image, LayerEdit(0, each, 0)) for each in pieces] == keys, "on every machine"
