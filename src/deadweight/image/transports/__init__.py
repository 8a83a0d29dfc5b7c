"""Opening and writing images, whatever they are stored as."""

from __future__ import annotations

from contextlib import ExitStack

from deadweight.errors import UsageError
from deadweight.image.model import Image
from deadweight.image.reference import Reference, parse_reference
from deadweight.image.transports.archive import open_archive
from deadweight.image.transports.oci import check_platform, open_directory
from deadweight.image.transports.rootfs import open_rootfs
from deadweight.image.transports.write import CompressionChoice, check_destination, write_image

__all__ = ["CompressionChoice", "check_destination", "open_image", "write_image"]


def open_image(reference: str | Reference, platform: str | None = None) -> Image:
    """The image that `reference` names; close it when done. Layers are read only when something asks for them.

    `platform` (os/architecture[/variant]) picks from an image for several; this machine's is the default.
    Raises UsageError when the reference leaves something open, BadInputError when there is no sound image,
    EnvironmentFailure when it cannot be read.
    """
    if isinstance(reference, str):
        reference = parse_reference(reference)
    platform = platform or None  # a plan for an image that names no platform has an empty one
    if reference.name:
        raise UsageError(f"engines and registries are not reached yet: docker save {reference.name} -o image.tar first")
    resources = ExitStack()
    try:
        if reference.transport == "oci":
            return open_directory(reference, platform, resources)
        if reference.transport == "rootfs":
            return check_platform(open_rootfs(reference, resources), platform)
        return open_archive(reference, platform, resources)
    except BaseException:
        resources.close()
        raise
