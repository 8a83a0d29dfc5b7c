"""Where paths of an image lead in its unpacked tree, links followed inside it only.

bwrap makes mount points outside the new root, where an image's link could lead to the host: it gets no path with a
link in it. The tree belongs to this process alone, so nothing changes between the look and the use.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from deadweight.errors import BadInputError, shown
from deadweight.passes.commands import DEFAULT_PATH

_LINKS = 40


class Tree:
    """What a run finds as its root: directories laid over each other, the uppermost first."""

    def __init__(self, layers: Sequence[Path]) -> None:
        self.layers = [os.fspath(layer) for layer in layers]

    def status(self, place: str) -> os.stat_result | None:
        """What is at a path without links; None where there is nothing."""
        for layer in self.layers:
            try:
                return os.lstat(layer + place)
            except OSError:
                continue
        return None

    def resolve(self, path: str) -> str:
        """An absolute path as one without links, `.` and `..`; what is not there stays as it is.

        Raises BadInputError where links go in circles, or lead through what is no directory.
        """
        todo = path.split("/")[::-1]
        here = ""
        links = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                here = here.rpartition("/")[0]
                continue
            place = f"{here}/{part}"
            status = self.status(place)
            if status is not None and stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _LINKS:
                    raise BadInputError(f"{shown(path)}: the image's links lead in circles")
                target = self._target(place)
                here = "" if target.startswith("/") else here
                todo.extend(reversed(target.split("/")))
                continue
            if todo and status is not None and not stat.S_ISDIR(status.st_mode):
                raise BadInputError(f"{shown(path)}: {shown(place)} is no directory in the image")
            here = place
        return here or "/"

    def _target(self, place: str) -> str:
        for layer in self.layers:
            try:
                return os.readlink(layer + place)  # noqa: PTH115
            except OSError:
                continue
        return "/"

    def is_dir(self, place: str) -> bool:
        """Whether a directory is at a path without links."""
        status = self.status(place)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def read(self, path: str, limit: int) -> bytes:
        """The first `limit` bytes of a file, links followed; empty where there is none."""
        try:
            place = self.resolve(path)
        except BadInputError:
            return b""
        for layer in self.layers:
            try:
                fd = os.open(layer + place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                regular = stat.S_ISREG(os.fstat(fd).st_mode)
                return os.pread(fd, limit, 0) if regular else b""
            finally:
                os.close(fd)
        return b""

    def program(self, name: str, environment: Mapping[str, str]) -> str | None:
        """A program by its name in PATH, as a path without links."""
        for folder in environment.get("PATH", DEFAULT_PATH).split(":"):
            try:
                place = self.resolve(f"{folder}/{name}")
            except BadInputError:
                continue
            status = self.status(place) if folder.startswith("/") else None
            if status is not None and stat.S_ISREG(status.st_mode) and status.st_mode & 0o111:
                return f"{folder}/{name}"
        return None
