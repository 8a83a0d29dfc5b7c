"""Makes the phase table: images one after the other, each against the one before, the first, and a target."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from deadweight.image.model import Image
from deadweight.report.inspect import image_line
from deadweight.report.model import CompareReport, ImageLine, PhaseLine
from deadweight.report.text import valid


class Phase(msgspec.Struct, frozen=True):
    """What is compared of an image."""

    image: ImageLine
    bytes: int
    stored_bytes: int
    notes: list[str]


def phase(image: Image) -> Phase:
    """An image's sizes; unpacks compressed layers to know them."""
    return Phase(image_line(image), image.size, image.stored_size, [valid(note) for note in image.notes])


def compare_report(phases: Sequence[Phase], target: int | None = None) -> CompareReport:
    """The phase table of at least one image; `target` is the size to reach, in bytes."""
    first = phases[0].bytes
    lines = [
        PhaseLine(
            reference=here.image.reference,
            digest=here.image.digest,
            platform=here.image.platform,
            bytes=here.bytes,
            stored_bytes=here.stored_bytes,
            difference=here.bytes - before.bytes,
            cumulative=here.bytes - first,
            share=here.bytes / first if first else 1.0,
            gap=None if target is None else here.bytes - target,
        )
        for before, here in zip([phases[0], *phases], phases, strict=False)
    ]
    notes = list(dict.fromkeys(note for each in phases for note in each.notes))
    if len({each.image.platform for each in phases}) > 1:
        notes.append("the images are for different platforms")
    return CompareReport(target, lines, notes)
