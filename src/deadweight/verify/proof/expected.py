"""What may leave an image where no plan says so: what slimming takes, as far as deadweight itself would take it.

Everything else that is gone is a difference, since nobody says that it was meant, and no probe need touch it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from deadweight.ledger.ledger import Ledger
from deadweight.planning import removable


def unexpected(before: Ledger, after: Ledger, gone: Iterable[str]) -> list[str]:
    """Those of the paths `gone` that no pass takes out of the original, and that left alone.

    A distribution or a Debian package that is gone as a whole was taken out on purpose: what needed it is what probes
    and `pip check` are about. A directory goes with the last thing in it.
    """
    paths = set(gone)
    if not paths:
        return []
    fine = removable(before) | set(_whole(before, after))
    left: set[str] = {path for path in paths if path not in fine and before.fs.nodes[path].kind != "dir"}
    for path in paths - left:
        if path not in fine and not any(before.fs.children(path)):  # an empty directory was put there for something
            left.add(path)
    above = {parent for path in left for parent in _above(path)}
    return sorted(left | (paths & above) - fine)


def _above(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path


def _whole(before: Ledger, after: Ledger) -> Iterator[str]:
    """The files of distributions and packages that are gone as a whole."""
    there = after.fs.nodes
    for dist in before.distributions:
        if dist.info not in there and not any(path in there for path in dist.files if path.startswith(dist.site)):
            yield from (*dist.files, dist.info)
    kept = {(package.name, package.architecture) for package in after.packages}
    shared = {path for package in after.packages for path in package.files}
    for package in before.packages:
        gone = (package.name, package.architecture) not in kept
        if gone and not any(path in there and path not in shared for path in package.files):
            yield from (*package.files, *package.listed_directories, *package.info_files)
