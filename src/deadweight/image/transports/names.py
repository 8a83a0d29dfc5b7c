"""Which names of an engine a new image may take. No image but deadweight's own loses its name to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deadweight.errors import BadInputError, UsageError, shown
from deadweight.image.model import Image
from deadweight.image.reference import NAMED, docker_name

SOURCE = "deadweight.source"
"""The label with the ID of the image that a slim one was made from."""
SOURCE_NAME = "deadweight.source.name"
"""The label with its name, where it had one."""
_OURS = "deadweight.version"
_TAG_LIMIT = 128


@dataclass(frozen=True)
class RolledBack:
    """What a name leads to, before and afterwards."""

    engine: str
    """Which engine, in words."""
    name: str
    slim_id: str
    original_id: str
    original_name: str | None
    """A name that the original has besides."""
    slim_name: str
    """A name that the slim image keeps, or is given where it would have none."""


def known_as(image: Image) -> str | None:
    """The name by which an engine or a registry has the image; None for one in files, wherever they lie."""
    named = image.reference.partition(":")[0] in NAMED
    return docker_name(image.tag) if named and image.tag is not None else None


def name_taken(name: str, original: bool) -> UsageError:
    """That a new image may not take a name, and what to do."""
    what = "the original, which is never overwritten" if original else "an image that deadweight did not make"
    return UsageError(
        f"{shown(name)} is the name of {what}: choose another, or say --replace, which first gives that image the name "
        f"{shown(with_suffix(name, '-original'))}"
    )


def may_take(labels: Mapping[str, str], image_id: str, source_id: str | None) -> bool:
    """Whether an image that is there may lose its name to a new one, made from `source_id`."""
    return _OURS in labels and image_id != source_id


def free_name(name: str, taken: Callable[[str], bool], suffix: str = "-original") -> str:
    """NAME:TAG with a suffix, and a number where that name is taken too."""
    number = 1
    while True:
        found = with_suffix(name, suffix if number == 1 else f"{suffix}-{number}")
        if not taken(found):
            return found
        number += 1


def with_suffix(name: str, suffix: str) -> str:
    """NAME:TAG with something behind the tag, which is cut where the whole would be too long for a tag."""
    repository, _, tag = name.rpartition(":")
    return f"{repository}:{tag[: _TAG_LIMIT - len(suffix)]}{suffix}"


def no_slim_image(name: str) -> UsageError:
    """That a name cannot be rolled back."""
    return UsageError(f"{shown(name)} is no slim image: it has no label {SOURCE} that says what it was made from")


def original_gone(source: str, name: str | None, where: str, client: str) -> BadInputError:
    """That the original of a slim image is not there any more, and what to do. `name` is what it was called."""
    how = "get it again" if name is None else f"get it again ({client} pull {shown(name)[1:-1]})"
    return BadInputError(
        f"the original, {shown(source, 80)}, is no longer in {where}: {how}, and see that it has this ID"
    )
