"""What a tree of bytes says, as data: every byte of an image, before and after.

A leaf is the bytes that agree in all that is known of them: path, layer, owner, category, for GPU code the
architecture, and the cut by which they left. So bytes add up by each of these, before as well as after, and whoever
shows them groups them as they like (`deadweight.report.hierarchy`).

Leaves, paths and cuts are columns: lists of one length, in which strings that recur are indices. That keeps the
document of 40,000 files small enough for an attachment.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from deadweight.ledger.account import AccountError
from deadweight.report.model import ImageLine


class TreeLayer(msgspec.Struct, frozen=True):
    """One layer."""

    diff_id: str
    created_by: str
    bytes: int
    after_bytes: int | None


class TreeOwner(msgspec.Struct, frozen=True):
    """Somebody who put bytes there: as in `deadweight.ledger.ledger.Owner`, but for all versions together."""

    kind: str
    name: str
    version: str
    """Before; empty where there is none."""
    after_version: str
    why: str
    bytes: int
    after_bytes: int | None


class TreePaths(msgspec.Struct, frozen=True):
    """All paths, each as its directory's index and its own name. The first is the root, which is its own parent."""

    parents: list[int]
    names: list[str]


class TreeLeaves(msgspec.Struct, frozen=True):
    """The bytes, as columns. `after` and `cut` are empty where there is one side only."""

    path: list[int]
    """The root for what is no file's: the framing of tars."""
    layer: list[int]
    """The layer's position; 0 for all where `layers` is empty."""
    owner: list[int]
    category: list[int]
    code: list[int]
    """Of GPU code the architecture, an index of `codes`; -1 for all else."""
    bytes: list[int]
    after: list[int]
    cut: list[int]
    """Why there is less afterwards, an index of `cuts`; -1 where nothing left, or it follows from other cuts."""


class TreeCuts(msgspec.Struct, frozen=True, rename={"pass_": "pass"}):
    """A plan's cuts, as columns in the plan's order; all but the numbers are indices of `texts`, paths of `paths`."""

    pass_: list[int]
    risk: list[int]
    action: list[int]
    path: list[int]
    layer: list[int]
    before: list[int]
    after: list[int]
    why: list[int]
    evidence: list[int]
    below: list[int]
    """How many paths below leave by the same cut."""


class Tree(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.tree/1"):
    """Every byte of an image, and what becomes of it."""

    image: ImageLine
    after: ImageLine | None
    """The other image, where two were compared."""
    bytes: int
    after_bytes: int | None
    """Null where there is one side only."""
    layers: list[TreeLayer]
    """Empty where two images were compared: their layers need not correspond."""
    owners: list[TreeOwner]
    categories: list[str]
    codes: list[str]
    """Architectures of GPU code, as in the report of `inspect`."""
    paths: TreePaths
    leaves: TreeLeaves
    cuts: TreeCuts
    texts: list[str]
    folded: int = 0
    """How many leaves, of the smallest files, are told as those of a directory: there are `tree.LIMIT`, and no more."""
    cuts_left_out: int = 0
    """How many cuts, those that save the least, are left out for the same reason."""


def check_tree(tree: Tree) -> None:
    """Holds that leaves add up to the image, to each layer and to each owner, on both sides. Raises AccountError."""
    leaves = tree.leaves
    columns: list[tuple[str, list[int], int | None]] = [("bytes", leaves.bytes, tree.bytes)]
    if tree.after_bytes is not None:
        columns.append(("after_bytes", leaves.after, tree.after_bytes))
    for field, column, total in columns:
        by_owner: Counter[int] = Counter()
        by_layer: Counter[int] = Counter()
        for owner, layer, amount in zip(leaves.owner, leaves.layer, column, strict=True):
            by_owner[owner] += amount
            by_layer[layer] += amount
        wrong = sum(column) != total or any(amount < 0 for amount in column)
        wrong |= any(by_owner[at] != getattr(owner, field) for at, owner in enumerate(tree.owners))
        wrong |= any(by_layer[at] != getattr(layer, field) for at, layer in enumerate(tree.layers))
        if wrong:
            raise AccountError(f"the tree of {tree.image.reference} does not add up: this is a defect of deadweight")


def full_paths(tree: Tree) -> list[str]:
    """The path of each index, without a leading slash."""
    found = [""]
    for parent, name in zip(tree.paths.parents[1:], tree.paths.names[1:], strict=True):
        found.append(f"{found[parent]}/{name}" if parent else name)
    return found
