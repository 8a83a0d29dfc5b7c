"""Where commands write: `--to DEST`, or `--tag NAME` in the engine that the image comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadweight.errors import EnvironmentFailure, UsageError, shown

if TYPE_CHECKING:
    from deadweight.image.reference import Reference


def destination_of(
    to: str | None, tag: str | None, source: str | None, force: bool, platform: str | None = None
) -> Reference:
    """The destination that the writing options name, for an image made from `source`, if it is made from one.

    `platform` is the one that the user named. An engine's is asked at once whether it would take the image, before
    any work is done for it. Raises UsageError where it is not said, said twice, or refused, EnvironmentFailure
    where an engine is not reached.
    """
    from deadweight.image.reference import parse_destination  # noqa: PLC0415
    from deadweight.image.transports import check_destination  # noqa: PLC0415

    if to is not None and tag is not None:
        raise UsageError("--tag and --to both say where the image goes: give one of them")
    if to is None and tag is None:
        raise UsageError("say where the image goes: --tag NAME:TAG for an engine, --to DEST for anything else")
    found = parse_destination(to) if to is not None else _tagged(tag or "", source)
    if found.name:
        known = _known(source)
        # Of others it is known when they are opened, which is soon, which image they are (`check_tag`).
        if known is not None or source is None:
            source_id, source_name = known or (None, None)
            check_destination(
                found,
                force=force,
                source_id=source_id,
                source_name=source_name,
                one_platform=platform is not None,
            )
    return found


def _tagged(tag: str, source: str | None) -> Reference:
    """A name in the engine that has `source`, else in the one that answers.

    Raises UsageError where it is no name, EnvironmentFailure where no engine answers.
    """
    from deadweight.image.reference import Reference, docker_name, parse_reference  # noqa: PLC0415
    from deadweight.image.transports.engine import reached  # noqa: PLC0415

    name = docker_name(tag)
    if name is None:
        raise UsageError(f"{shown(tag)} is no name for an image: --tag NAME:TAG, the name in lower case")
    origin = parse_reference(source) if source is not None else None
    if origin is not None and origin.transport == "containers-storage":
        from deadweight.image.transports.storage import local_name  # noqa: PLC0415

        storage = origin.name[: origin.name.find("]") + 1]
        return Reference("containers-storage", name=storage + local_name(name))
    if origin is not None and origin.transport in ("docker-daemon", "podman"):
        return Reference(origin.transport, name=name)
    if origin is not None and origin.transport == "engine":
        return Reference(reached(origin, reading=True)[1].transport, name=name)
    try:
        return reached(Reference("engine", name=name))[1]
    except EnvironmentFailure as error:
        raise EnvironmentFailure(f"--tag names an image in an engine, --to anything else: {error}") from None


def _known(source: str | None) -> tuple[str | None, str] | None:
    """The ID and the name of an image that an engine or a storage has."""
    from deadweight.image.reference import ENGINES, parse_reference  # noqa: PLC0415

    reference = parse_reference(source) if source is not None else None
    if reference is not None and reference.transport == "containers-storage":
        from deadweight.image.transports.storage import stored_id  # noqa: PLC0415

        return stored_id(reference), reference.name.rpartition("]")[2]
    if reference is None or reference.transport not in ENGINES:
        return None
    from deadweight.image.transports.engine import engine_id  # noqa: PLC0415

    return engine_id(reference), reference.name
