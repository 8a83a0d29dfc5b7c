"""Makes the tree of every byte of an image, before and after: what treemaps and browsers are drawn from.

Both sides are accounts (`deadweight.ledger.account`) of images that are there or predicted to the byte, and neither is
derived from the other; a plan's cuts say why what left did. What is inside of files whose bytes stay is looked up once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from heapq import nlargest
from typing import Final, NamedTuple, TypeVar

from deadweight.image.changed import changed_image
from deadweight.ledger.account import Account, make_account
from deadweight.ledger.categories import GPU_CODE
from deadweight.ledger.ledger import Ledger, Owner
from deadweight.plan import Cut
from deadweight.planning import Worked
from deadweight.report.identity import image_line
from deadweight.report.reasons import owner_reason, package_reasons
from deadweight.report.text import bounded, valid
from deadweight.report.tree_cuts import Leaf, parts
from deadweight.report.tree_model import Tree, TreeCuts, TreeLayer, TreeLeaves, TreeOwner, TreePaths, check_tree

Thing = TypeVar("Thing")
LIMIT: Final = 250_000
"""How many leaves, and how many cuts, a tree has at most: images can have millions of files, and browsers cannot."""


class Side(NamedTuple):
    """One image with its account."""

    ledger: Ledger
    account: Account


def side(ledger: Ledger, *others: Ledger) -> Side:
    """An image's side of a tree. Reads what has to be read, and `others` (as of `make_account`) do not know."""
    return Side(ledger, make_account(ledger, others))


def inspect_tree(image: Side) -> Tree:
    """The tree of one image."""
    return _tree(image, None, (), layers=True)


def plan_tree(before: Side, over: Ledger, worked: Worked) -> Tree:
    """The tree of an image and of what a plan makes of it.

    `over` is what the plan was worked out over: the ledger of `before`, or of that with builds swapped. The result's
    side is an account of the image as it is predicted, read where its pieces lie; nothing is written for it.
    """
    with ExitStack() as resources:
        image = changed_image(over.image, worked.edited, b"predicted", resources)
        return _tree(before, side(Ledger(image), before.ledger, over), worked.plan.cuts, layers=True)


def compare_tree(before: Side, after: Side) -> Tree:
    """The tree of two images, whatever they have in common. Which layer bytes are in is left out of it.

    The images may be closed, once a report of theirs has been made.
    """
    return _tree(before, after, (), layers=False)


def _tree(before: Side, after: Side | None, cuts: Sequence[Cut], *, layers: bool) -> Tree:
    old = _leaves(before, layers)
    new = _leaves(after, layers) if after is not None else {}
    everything = len(old.keys() | new.keys())
    old, new = _folded(old, new)
    folded = everything - len(old.keys() | new.keys())
    all_cuts, cuts = len(cuts), _largest(cuts)
    leaves = parts(old, new, before.ledger.fs.nodes, cuts)
    paths = _Paths()
    owners = _Numbers[tuple[str, str]]()
    categories, codes, texts = _Numbers[str](), _Numbers[str](), _Numbers[str]()
    two = after is not None
    columns = TreeLeaves(
        path=[paths[part.leaf.path] for part in leaves],
        layer=[part.leaf.layer for part in leaves],
        owner=[owners[part.leaf.kind, part.leaf.owner] for part in leaves],
        category=[categories[part.leaf.category] for part in leaves],
        code=[codes[part.leaf.code] if part.leaf.code else -1 for part in leaves],
        bytes=[part.bytes for part in leaves],
        after=[part.after for part in leaves] if two else [],
        cut=[part.cut for part in leaves] if two else [],
    )
    shown = TreeCuts(
        pass_=[texts[bounded(cut.pass_)] for cut in cuts],
        risk=[texts[cut.risk] for cut in cuts],
        action=[texts[cut.action] for cut in cuts],
        path=[paths[cut.path] for cut in cuts],
        layer=[cut.layer for cut in cuts],
        before=[cut.before_bytes for cut in cuts],
        after=[cut.after_bytes for cut in cuts],
        why=[texts[bounded(cut.why)] for cut in cuts],
        evidence=[texts[bounded(cut.evidence)] for cut in cuts],
        below=[cut.below for cut in cuts],
    )
    tree = Tree(
        image=image_line(before.ledger.image),
        after=image_line(after.ledger.image) if after is not None and not layers else None,
        bytes=before.account.bytes,
        after_bytes=after.account.bytes if after is not None else None,
        layers=_layers(before, after) if layers else [],
        owners=_owners(before, after, list(owners)),
        categories=list(categories),
        codes=list(codes),
        paths=TreePaths(paths.parents, paths.names),
        leaves=columns,
        cuts=shown,
        texts=list(texts),
        folded=folded,
        cuts_left_out=all_cuts - len(cuts),
    )
    check_tree(tree)
    return tree


def _leaves(one: Side, layers: bool) -> dict[Leaf, int]:
    """Bytes by all that is known of them. GPU code is told apart by architecture."""
    found: defaultdict[Leaf, int] = defaultdict(int)
    account = one.account
    for row in account.rows:
        if row.category != GPU_CODE:
            layer = row.layer if layers else 0
            found[Leaf(row.path, layer, row.owner.kind, row.owner.name, row.category, "")] += row.bytes
    for file in account.gpu_code:
        layer = file.layer if layers else 0
        for code in file.code:
            found[Leaf(file.path, layer, file.owner.kind, file.owner.name, GPU_CODE, code.label)] += code.bytes
    return found


_Leaves = dict[Leaf, int]


def _folded(old: _Leaves, new: _Leaves) -> tuple[_Leaves, _Leaves]:
    """The leaves of both sides, where there are too many with the smallest as their directories': the nearest, or one
    of the first three parts, or of the first."""
    for fold in (_parent, lambda path: "/".join(path.split("/")[:3]), lambda path: path.partition("/")[0]):
        every = old.keys() | new.keys()
        if len(every) <= LIMIT:
            break
        large = set(nlargest(LIMIT // 2, every, key=lambda leaf: (max(old.get(leaf, 0), new.get(leaf, 0)), leaf)))
        place = {leaf: leaf if leaf in large else leaf._replace(path=fold(leaf.path)) for leaf in every}
        old, new = _moved(old, place), _moved(new, place)
    return old, new


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or path


def _moved(leaves: _Leaves, place: Mapping[Leaf, Leaf]) -> _Leaves:
    found: defaultdict[Leaf, int] = defaultdict(int)
    for leaf, amount in leaves.items():
        found[place[leaf]] += amount
    return found


def _largest(cuts: Sequence[Cut]) -> Sequence[Cut]:
    """The cuts, where there are too many those that save the most, in the plan's order."""
    if len(cuts) <= LIMIT:
        return cuts
    kept = set(nlargest(LIMIT, range(len(cuts)), key=lambda at: cuts[at].before_bytes - cuts[at].after_bytes))
    return [cut for at, cut in enumerate(cuts) if at in kept]


def _layers(before: Side, after: Side | None) -> list[TreeLayer]:
    sizes: Iterable[int | None] = after.account.sizes if after is not None else [None] * len(before.account.sizes)
    layers = before.ledger.image.layers
    return [
        TreeLayer(layer.diff_id, bounded(layer.created_by), layer.tar.size, size)
        for layer, size in zip(layers, sizes, strict=True)
    ]


def _owners(before: Side, after: Side | None, order: Sequence[tuple[str, str]]) -> list[TreeOwner]:
    """The owners in the order of their numbers."""
    sides = [before] if after is None else [before, after]
    sums: list[dict[tuple[str, str], int]] = []
    versions: list[dict[tuple[str, str], str]] = []
    whys: dict[tuple[str, str], str] = {}
    for each in reversed(sides):
        reasons = package_reasons(each.ledger.packages)
        amounts: dict[tuple[str, str], int] = defaultdict(int)
        names: dict[tuple[str, str], list[str]] = defaultdict(list)
        for owner, amount in each.account.by_owner.items():
            key = owner.kind, owner.name
            amounts[key] += amount
            names[key].append(owner.version)
            whys[key] = owner_reason(each.ledger, reasons, Owner(*key, owner.version))
        sums.insert(0, amounts)
        versions.insert(0, {key: ", ".join(filter(None, found)) for key, found in names.items()})
    return [
        TreeOwner(
            kind=key[0],
            name=bounded(key[1]),
            version=bounded(versions[0].get(key, "")),
            after_version=bounded(versions[-1].get(key, "")),
            why=bounded(whys[key]),
            bytes=sums[0].get(key, 0),
            after_bytes=sums[1].get(key, 0) if after is not None else None,
        )
        for key in order
    ]


class _Numbers(dict[Thing, int]):
    """Numbers things in the order in which they are asked for."""

    def __missing__(self, thing: Thing) -> int:
        number = self[thing] = len(self)
        return number


class _Paths(dict[str, int]):
    """Numbers paths, and the directories that they lie in."""

    def __init__(self) -> None:
        super().__init__({"": 0})
        self.parents = [0]
        self.names = [""]

    def __missing__(self, path: str) -> int:
        unknown = [path]  # a path may have 2,000 parts: too many for a recursion
        while (parent := unknown[-1].rpartition("/")[0]) not in self:
            unknown.append(parent)
        for each in reversed(unknown):
            parent, _, name = each.rpartition("/")
            self.parents.append(self[parent])
            self.names.append(valid(name))
            self[each] = len(self)
        return self[path]
