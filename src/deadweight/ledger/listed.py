"""Where a path that a package's own list names lies in the view.

Lists are written as the installer saw the file system: with `..`, with a leading `/`, and through directories
that are symbolic links by now (Debian's merged /usr: `/bin/x` is `usr/bin/x`).
"""

from __future__ import annotations

from deadweight.image.filesystem import Filesystem, Node


class Finder:
    """Finds listed paths in one view; remembers where each directory led, since lists name many files of one."""

    def __init__(self, fs: Filesystem) -> None:
        self._nodes = fs.nodes
        self._fs = fs
        self._directories: dict[str, str | None] = {}

    def node(self, path: str) -> Node | None:
        """The node that a clean path (no leading `/`, no `..`) means, links in its directory followed."""
        node = self._nodes.get(path)
        if node is not None:
            return node
        directory, _, base = path.rpartition("/")
        if directory not in self._directories:
            found = self._fs.resolve(directory)
            self._directories[directory] = None if found is None or found.kind != "dir" else found.path
        real = self._directories[directory]
        if real is None or real == directory:
            return None
        return self._nodes.get(f"{real}/{base}" if real else base)


def join(directory: str, name: str) -> str | None:
    """`name` as seen from `directory`, as a clean image path; None when it climbs out of the image.

    Normalized as text, as installers made it by os.path.relpath.
    """
    if "/." not in name and "//" not in name and name[:1] not in ("", ".", "/") and not name.endswith("/"):
        return f"{directory}/{name}" if directory else name
    parts = [] if name.startswith("/") or not directory else directory.split("/")
    for part in name.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            return None
    return "/".join(parts)
