"""Opening and writing images, whatever they are stored as."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from deadweight.image.model import Image
from deadweight.image.reference import ENGINES, Reference, parse_reference
from deadweight.image.transports.archive import open_archive
from deadweight.image.transports.choose import check_platform
from deadweight.image.transports.oci import open_directory
from deadweight.image.transports.rootfs import open_rootfs
from deadweight.image.transports.write import CompressionChoice, check_destination, write_image

__all__ = ["CompressionChoice", "check_destination", "open_image", "write_image"]

Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is; 0 when nobody knows."""


def open_image(reference: str | Reference, platform: str | None = None, report: Report | None = None) -> Image:
    """The image that `reference` names; close it when done. Layers are read only when something asks for them.

    `platform` (os/architecture[/variant]) picks from an image for several; this machine's is the default. `report` is
    called while an engine hands its image over.
    Raises UsageError when the reference leaves something open or an engine has no such image, BadInputError when there
    is no sound image, EnvironmentFailure when it cannot be read.
    """
    if isinstance(reference, str):
        reference = parse_reference(reference)
    platform = platform or None  # a plan for an image that names no platform has an empty one
    resources = ExitStack()
    try:
        if reference.transport in ENGINES:
            from deadweight.image.transports.engine import open_engine  # noqa: PLC0415

            return open_engine(reference, platform, resources, report)
        if reference.transport == "containers-storage":
            from deadweight.image.transports.storage import open_storage  # noqa: PLC0415

            return open_storage(reference, platform, resources, report)
        if reference.transport == "oci":
            return open_directory(reference, platform, resources)
        if reference.transport == "docker":
            from deadweight.image.transports.registry import open_registry  # noqa: PLC0415  (httpx2 takes 0.1 s)

            return open_registry(reference, platform, resources)
        if reference.transport == "rootfs":
            return check_platform(open_rootfs(reference, resources), platform)
        return open_archive(reference, platform, resources)
    except BaseException:
        resources.close()
        raise
