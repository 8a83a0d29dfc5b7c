"""What became of files, for reports."""

from __future__ import annotations

import msgspec

from deadweight.files.smaller import What


class PrunedFile(msgspec.Struct, frozen=True):
    """One file that lost weight. Sizes are bytes; paths are relative to the directory or the wheel."""

    path: str
    distribution: str
    """Whose it is: the distribution whose RECORD lists it, else the directory that it is in."""
    before_bytes: int
    after_bytes: int
    gpu_code_bytes: int
    """Of GPU code that left."""
    symbols_bytes: int
    """Of symbols and debug information that left."""
    links: list[str]
    """Its other names."""
    weights_bytes: int = 0
    """By which a model's numbers got smaller; below zero for a configuration that has to say more."""
    leftovers_bytes: int = 0
    """Of what patchelf left behind, and that left."""


class LeftFile(msgspec.Struct, frozen=True):
    """A file that might have lost more, and why it did not."""

    path: str
    bytes: int
    what: What
    reason: str
