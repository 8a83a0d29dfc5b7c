"""Paths by what their names say: looked through once for a layer, whose names are the same in every image."""

from __future__ import annotations

from collections.abc import Callable

from deadweight.cache.known import Facts
from deadweight.image.filesystem import Filesystem


def named(fs: Filesystem, facts: Facts | None, kind: str, test: Callable[[str], bool]) -> list[str]:
    """The paths of the view whose names meet a test, by layer and in its order; no directories that are only implied.

    The test must go by the name alone, be one of deadweight's own, and have a `kind` of its own: what `facts` have of
    that is not tried again.
    """
    found: list[str] = []
    for layer in fs.image.layers:
        table = {} if facts is None else facts.table(f"named-{kind}", layer.position, list[int])
        entries, indices = layer.entries, table.get(0)
        if indices is None:
            indices = table[0] = [entry.index for entry in entries if test(entry.name)]
        for index in indices:
            if 0 <= index < len(entries):  # what is read from a cache may be anything
                entry = entries[index]
                node = fs.nodes.get(entry.name)
                if node is not None and node.entry is entry:
                    found.append(entry.name)
    return found
