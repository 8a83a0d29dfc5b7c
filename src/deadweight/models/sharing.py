"""Files that several models share: new content is for all who open them, so all have to take it.

In Hugging Face's cache the snapshots of a model share what did not change between them; hard links make copies of one
file. A configuration that comes to speak of int8 is wrong for a model that stays, and int8 is no model for what else
opens the file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple


class Shared(NamedTuple):
    """The files of one model that would get new content."""

    files: tuple[str, ...]
    """Where they lie."""
    names: frozenset[str]
    """The paths by which the model's library opens them."""


def disagreeing(
    changes: Mapping[str, Shared], paths_of: Callable[[str], Iterable[str]], leaving: Collection[str] = ()
) -> dict[str, str]:
    """The models that cannot change, by name, since something else opens their files: with the path by which it does.

    `paths_of` tells all paths that lead to a file; `leaving` are those that are about to leave.
    """
    good = dict(changes)
    stays: dict[str, str] = {}
    while True:
        known = frozenset(leaving).union(*(change.names for change in good.values()))
        others = {name: other for name, each in good.items() if (other := _other(each, paths_of, known)) is not None}
        if not others:
            return stays
        stays |= others
        good = {name: change for name, change in good.items() if name not in others}


def why_not(other: str) -> str:
    """Why a model stays, where a path is of something else."""
    return f"{other} is a file of it, too, and would not do with the new one"


def _other(change: Shared, paths_of: Callable[[str], Iterable[str]], known: Collection[str]) -> str | None:
    """A path that leads to what a model changes, and is of no model that changes along."""
    for file in change.files:
        names = list(paths_of(file))
        folders = tuple(folder for name in names if (folder := blobs(name)) is not None)
        for name in names:
            if name not in known and not name.startswith(folders):
                return name
    return None


def blobs(link: str) -> str | None:
    """The folder where the blobs of a snapshot of Hugging Face's cache lie; None of what is in no snapshot."""
    above, snapshots, _ = link.rpartition("/snapshots/")
    return f"{above}/blobs/" if snapshots else None
