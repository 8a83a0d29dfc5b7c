"""The tree of bytes, grouped as a reader likes: layers, owners or categories, then directories, files, and parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from deadweight.report.tree_model import Tree, full_paths

Group = Literal["layer", "owner", "category"]
Kind = Literal["image", "layer", "owner", "category", "directory", "file", "framing", "code"]


@dataclass(slots=True)
class Node:
    """Some bytes with a name."""

    kind: Kind
    name: str
    """As in the image, made valid Unicode and not more: whoever shows it makes it harmless (`text.plain`)."""
    index: int
    """Which one: of the tree's layers, owners, categories, paths or codes, by kind; -1 for the others."""
    bytes: int = 0
    after: int = 0
    """Bytes afterwards; 0 as well where the tree has one side."""
    children: list[Node] = field(default_factory=list)
    """The largest first, by what is larger of before and after. They add up to this node."""
    leaves: list[int] = field(default_factory=list)
    """Of a node without children, its leaves: indices of the columns."""


def grouped(tree: Tree, by: Sequence[Group] = ("layer", "owner")) -> Node:
    """The tree with these levels above its directories; none: directories alone.

    Directories that hold nothing but another one are one node with it. Files have parts where they have several
    categories, and GPU code by architecture.
    """
    root = Node("image", tree.image.reference, -1)
    paths = full_paths(tree)
    below: dict[int, dict[tuple[str, int | str], Node]] = {}
    leaves = tree.leaves
    columns = {"layer": leaves.layer, "owner": leaves.owner, "category": leaves.category}
    names = {
        "layer": [layer.created_by or layer.diff_id for layer in tree.layers] or ["all layers"],
        "owner": [owner.name for owner in tree.owners],
        "category": tree.categories,
    }

    def child(parent: Node, kind: Kind, name: str, index: int) -> Node:
        children = below.setdefault(id(parent), {})
        found = children.get((kind, index))
        if found is None:
            found = children[kind, index] = Node(kind, name, index)
            parent.children.append(found)
        return found

    after = leaves.after or [0] * len(leaves.path)
    for number, path in enumerate(leaves.path):
        line = [root]
        for group in by:
            index = columns[group][number]
            line.append(child(line[-1], group, names[group][index], index))
        if path:
            for at in _above(tree.paths.parents, path):
                line.append(child(line[-1], "directory", paths[at].rpartition("/")[2], at))
            line.append(child(line[-1], "file", paths[path].rpartition("/")[2], path))
            category = leaves.category[number]
            line.append(child(line[-1], "category", tree.categories[category], category))
            if leaves.code[number] >= 0:
                code = leaves.code[number]
                line.append(child(line[-1], "code", tree.codes[code], code))
        else:
            line.append(child(line[-1], "framing", tree.categories[leaves.category[number]], -1))
        line[-1].leaves.append(number)
        for node in line:
            node.bytes += leaves.bytes[number]
            node.after += after[number]
    _tidy(root)
    return root


def _above(parents: Sequence[int], path: int) -> list[int]:
    """The directories that a path lies in, the topmost first."""
    found = []
    while parents[path]:
        path = parents[path]
        found.append(path)
    return found[::-1]


def _tidy(node: Node) -> None:
    """Sorts by size, joins directories that hold nothing but another one, and drops parts that are the whole."""
    stack = [node]
    while stack:
        here = stack.pop()
        while here.kind == "directory" and [each.kind for each in here.children] == ["directory"]:
            (only,) = here.children
            here.name, here.index, here.children = f"{here.name}/{only.name}", only.index, only.children
        if here.kind == "file":
            _drop_wholes(here)
        here.children.sort(key=lambda each: (-max(each.bytes, each.after), each.name))
        stack.extend(here.children)


def _drop_wholes(file: Node) -> None:
    for part in file.children:
        if len(part.children) == 1:
            part.leaves, part.children = part.children[0].leaves, []
    if len(file.children) == 1:
        (part,) = file.children
        file.leaves, file.children = part.leaves, part.children
