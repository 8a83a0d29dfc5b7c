"""Images with their slim versions, single changes to these, and what the static proof says of them."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from deadweight import Image, Ledger, Options, Plan, apply_plan, make_plan, open_image
from deadweight.image.bytes import ByteRange
from deadweight.image.model import build_image
from deadweight.image.reference import parse_destination
from deadweight.verify.proof import Proof, prove
from support.images import FixtureImage, Json, Member, digest, make_tar, write_docker_archive
from support.layers import image_of, merged_view


class Slim(NamedTuple):
    """An image, its plan, and what the plan makes of it."""

    before: FixtureImage
    plan: Plan
    after: FixtureImage


def slimmed(
    folder: Path,
    image: FixtureImage,
    options: Options | None = None,
    edit: Callable[[Plan], Plan] | None = None,
    *,
    each_path: bool = False,
) -> Slim:
    """The image slimmed by all passes, or by what `edit` leaves of their plan."""
    one, two = folder / "before.tar", folder / "after.tar"
    two.unlink(missing_ok=True)
    write_docker_archive(one, image, "proof:1", style="25")
    with open_image(f"docker-archive:{one}") as source:
        plan = make_plan(Ledger(source), options or Options(), all_layers=True, each_path=each_path)
        if edit is not None:
            plan = edit(plan)
        apply_plan(plan, Ledger(source), parse_destination(f"docker-archive:{two}"))
    with open_image(f"docker-archive:{two}") as result:
        layers = tuple(b"".join(layer.tar.chunks()) for layer in result.layers)
        return Slim(image, plan, FixtureImage(layers, result.config))


def opened(image: FixtureImage) -> Image:
    """The image from temporary files, whether its layers are those of its configuration or not."""
    tars = image_of(list(image.layers))
    blobs: list[tuple[ByteRange, str | None]] = [(layer.tar, None) for layer in tars.layers]
    return build_image("test", image.config_bytes, blobs, tars.resources)


def proved(before: FixtureImage, after: FixtureImage, plan: Plan | None = None) -> Proof:
    """The proof for two images."""
    with opened(before) as one, opened(after) as two:
        return prove(Ledger(one), Ledger(two), plan)


def differences(proof: Proof) -> list[str]:
    """All that a proof says is other than it should be, the configuration's last."""
    assert all(
        result.ok == (result.outcome in ("same", "undeclared")) == (not result.details) for result in proof.results
    )
    return [line for result in proof.results for line in result.details]


def notes(proof: Proof) -> list[str]:
    return [line for result in proof.results for line in result.notes]


Change = Callable[[Member], Member | None]
"""What is made of an entry; None: it is left out."""


def changed(image: FixtureImage, path: str, change: Change) -> FixtureImage:
    """The image with another entry at `path`, in the last layer that has one; all other entries stay to the byte."""
    for position in reversed(range(len(image.layers))):
        new = _changed_layer(image.layers[position], path, change)
        if new is not None:
            return with_layer(image, position, new)
    raise AssertionError(f"there is no {path}")


def _changed_layer(layer: bytes, path: str, change: Change) -> bytes | None:
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        infos = archive.getmembers()
        ends = [info.offset for info in infos[1:]] + [archive.offset]
        for info, end in zip(infos, ends, strict=True):
            if info.name != path:
                continue
            content = archive.extractfile(info) if info.isreg() else None
            data = content.read() if content else b""
            pax = {k: v for k, v in info.pax_headers.items() if k not in ("path", "linkpath", "size")}
            device = info.devmajor, info.devminor
            member = Member(
                path, info.type, data, info.linkname, info.mode, info.uid, info.gid, int(info.mtime), device, pax
            )
            new = change(member)
            made = b"" if new is None else make_tar(new)[:-1024]
            return layer[: info.offset] + made + layer[end:]
    return None


def with_layer(image: FixtureImage, position: int, layer: bytes) -> FixtureImage:
    """The image with another layer, and a configuration that says so."""
    layers = list(image.layers)
    layers[position] = layer
    return with_config(FixtureImage(tuple(layers), image.config))


def with_config(image: FixtureImage, **more: Any) -> FixtureImage:
    """The image with other keys at the top of its configuration."""
    rootfs = {**image.config["rootfs"], "diff_ids": [digest(layer) for layer in image.layers]}
    config: Json = {**image.config, "rootfs": rootfs, **more}
    return dataclasses.replace(image, config=config)


def with_run(image: FixtureImage, **more: Any) -> FixtureImage:
    """The image with other settings for containers."""
    return with_config(image, config={**image.config["config"], **more})


def added(image: FixtureImage, *members: Member) -> FixtureImage:
    """The image with more entries at the end of its last layer."""
    return with_layer(image, len(image.layers) - 1, image.layers[-1][:-1024] + make_tar(*members))


def replaced(**fields: Any) -> Change:
    """Sets fields of an entry."""
    return lambda member: dataclasses.replace(member, **fields)


def flipped(at: int) -> Change:
    """Changes one byte of a file."""

    def change(member: Member) -> Member:
        data = bytearray(member.data)
        data[at] ^= 0x10
        return dataclasses.replace(member, data=bytes(data))

    return change


def edited(old: bytes, new: bytes) -> Change:
    """Replaces a part of a file."""

    def change(member: Member) -> Member:
        assert old in member.data
        return dataclasses.replace(member, data=member.data.replace(old, new, 1))

    return change


def content(image: FixtureImage, path: str) -> bytes:
    """The file at `path`, as a container sees it."""
    return merged_view(list(image.layers))[path].content
