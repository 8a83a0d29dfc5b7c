"""Which image a report is of."""

from __future__ import annotations

from deadweight.image.model import Image
from deadweight.report.model import ImageLine
from deadweight.report.text import valid


def image_line(image: Image) -> ImageLine:
    """Which image it is."""
    return ImageLine(
        reference=valid(image.reference),
        digest=image.config_digest,
        platform=valid(image.platform),
        tag=None if image.tag is None else valid(image.tag),
        manifest_digest=image.manifest_digest,
    )
