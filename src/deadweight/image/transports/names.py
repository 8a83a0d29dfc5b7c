"""Which names of an engine a new image may take. No image but deadweight's own loses its name to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from deadweight.errors import BadInputError, UsageError, shown
from deadweight.image.model import parse_json, sha256
from deadweight.image.transports.manifests import dump

SOURCE = "deadweight.source"
"""The label with the ID of the image that a slim one was made from."""
SOURCE_NAME = "deadweight.source.name"
"""The label with its name, where it had one."""
SOURCE_MANIFEST = "deadweight.source.manifest"
"""The label with the digest of its manifest, where it came from a registry."""
RESULT = "deadweight.result"
"""The label that says which image it was written for (`result_of`): `FROM` gives labels to other images, too."""
NAME_LIMIT = 1000
"""How many names are tried for an image that has to keep one."""
_TAG_LIMIT = 128


class RolledBack(msgspec.Struct, frozen=True):
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


def result_of(diff_ids: Sequence[object], entries: int) -> str:
    """What the label RESULT says of an image with these layers, and so many entries in its history."""
    return sha256(dump([list(diff_ids), entries]))


def own_labels(labels: Mapping[str, object], diff_ids: Sequence[object], entries: int) -> dict[str, str]:
    """The labels of an image that deadweight made. None where it made another, from which these were inherited.

    None too where a version of deadweight without the label RESULT made it: that cannot be told from the former.
    """
    if labels.get(RESULT) != result_of(diff_ids, entries):
        return {}
    return {name: value for name, value in labels.items() if isinstance(value, str)}


def labels_in(config: bytes) -> dict[str, str]:
    """`own_labels` of an image with this configuration. Raises BadInputError where that is none."""
    document = parse_json(config, "the configuration")
    run, rootfs, history = (document.get(key) for key in ("config", "rootfs", "history"))
    labels = run.get("Labels") if isinstance(run, dict) else None
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(labels, dict) or not isinstance(diff_ids, list):
        return {}
    return own_labels(labels, diff_ids, len(history) if isinstance(history, list) else 0)


def name_taken(name: str, original: bool) -> UsageError:
    """That a new image may not take a name, and what to do."""
    what = f"an image that deadweight did not make, or that has no label {RESULT} of its own"
    if original:
        what = "the original, which is never overwritten"
    return UsageError(
        f"{shown(name)} is the name of {what}: choose another, or say --replace, which first gives that image the name "
        f"{shown(with_suffix(name, '-original'))}"
    )


def may_take(labels: Mapping[str, str], image_id: str, source_id: str | None) -> bool:
    """Whether an image that is there may lose its name to a new one, made from `source_id`.

    `labels` are those of its own (`own_labels`).
    """
    return RESULT in labels and image_id != source_id


def free_name(name: str, taken: Callable[[str], bool], suffix: str = "-original") -> str:
    """NAME:TAG with a suffix, and a number where that name is taken too. Raises UsageError when a thousand are."""
    for number in range(1, NAME_LIMIT + 1):
        found = numbered(name, suffix, number)
        if not taken(found):
            return found
    raise UsageError(f"{shown(numbered(name, suffix, 1))} and all names up to {shown(found)} are taken: remove some")


def numbered(name: str, suffix: str, number: int) -> str:
    """The names that an image is given which has to keep one: NAME:TAG-original, NAME:TAG-original-2."""
    return with_suffix(name, suffix if number == 1 else f"{suffix}-{number}")


def with_suffix(name: str, suffix: str) -> str:
    """NAME:TAG with something behind the tag, which is cut where the whole would be too long for a tag."""
    repository, _, tag = name.rpartition(":")
    return f"{repository}:{tag[: _TAG_LIMIT - len(suffix)]}{suffix}"


def no_slim_image(name: str) -> UsageError:
    """That a name cannot be rolled back."""
    return UsageError(
        f"{shown(name)} is no slim image: it has no labels {SOURCE} and {RESULT} that say what this very image was "
        "made from (an image made FROM a slim one is another, and the first versions of deadweight wrote no such label)"
    )


def original_gone(source: str, name: str | None, where: str, client: str) -> BadInputError:
    """That the original of a slim image is not there any more, and what to do. `name` is what it was called."""
    how = "get it again" if name is None else f"get it again ({client} pull {shown(name)[1:-1]})"
    return BadInputError(
        f"the original, {shown(source, 80)}, is no longer in {where}: {how}, and see that it has this ID"
    )
