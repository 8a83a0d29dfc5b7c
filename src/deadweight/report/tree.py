"""Every byte of an image as one tree, before and after: what treemaps and browsers are drawn from.

A leaf is the bytes that agree in all that is known of them: path, layer, owner, category and, for GPU code, the
architecture. So bytes add up by each of these, before as well as after, and whoever shows them groups them as they like
(`deadweight.report.hierarchy`). Both sides are accounts (`deadweight.ledger.account`) of images that are there or
predicted to the byte, and neither is derived from the other; a plan's cuts say why what left did.

Leaves, paths and cuts are columns: lists of one length, in which strings that recur are indices. That keeps the
document of 40,000 files small enough for an attachment.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from heapq import nlargest
from typing import Final, NamedTuple, TypeVar

import msgspec

from deadweight.image.changed import Aside, changed_image
from deadweight.image.filesystem import Key
from deadweight.ledger.account import Account, AccountError, make_account
from deadweight.ledger.categories import GPU_CODE, SYMBOLS
from deadweight.ledger.ledger import Ledger, Owner
from deadweight.passes import gpu_code, symbols
from deadweight.plan import Cut
from deadweight.planning import Worked
from deadweight.report.inspect import image_line
from deadweight.report.model import ImageLine
from deadweight.report.reasons import owner_reason, package_reasons
from deadweight.report.text import valid

Thing = TypeVar("Thing")
LIMIT: Final = 250_000
"""How many leaves, and how many cuts, a tree has at most: images can have millions of files, and browsers cannot."""
_CATEGORY: Final = {gpu_code.PASS.name: GPU_CODE, symbols.PASS.name: SYMBOLS}
"""The category that a pass takes bytes from, for passes that rewrite the same files."""


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
    """How many leaves, of the smallest files, are told as those of a directory: there are `LIMIT`, and no more."""
    cuts_left_out: int = 0
    """How many cuts, those that save the least, are left out for the same reason."""


class _Leaf(NamedTuple):
    """What a leaf's bytes agree in."""

    path: str
    layer: int
    kind: str
    owner: str
    category: str
    code: str


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
        image = changed_image(over.image, worked.edited, Aside(resources), b"predicted", resources)
        return _tree(before, side(Ledger(image), before.ledger, over), worked.plan.cuts, layers=True)


def compare_tree(before: Side, after: Side) -> Tree:
    """The tree of two images, whatever they have in common. Which layer bytes are in is left out of it.

    The images may be closed, once a report of theirs has been made.
    """
    return _tree(before, after, (), layers=False)


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


def _tree(before: Side, after: Side | None, cuts: Sequence[Cut], *, layers: bool) -> Tree:
    old = _leaves(before, layers)
    new = _leaves(after, layers) if after is not None else {}
    everything = len(old.keys() | new.keys())
    old, new = _folded(old, new)
    all_cuts, cuts = len(cuts), _largest(cuts)
    leaves = sorted(old.keys() | new.keys(), key=lambda leaf: (leaf.path, leaf[1:]))
    paths = _Paths()
    owners = _Numbers[tuple[str, str]]()
    categories, codes, texts = _Numbers[str](), _Numbers[str](), _Numbers[str]()
    cut_of = _Reasons(before.ledger, cuts)
    two = after is not None
    columns = TreeLeaves(
        path=[paths[leaf.path] for leaf in leaves],
        layer=[leaf.layer for leaf in leaves],
        owner=[owners[leaf.kind, leaf.owner] for leaf in leaves],
        category=[categories[leaf.category] for leaf in leaves],
        code=[codes[leaf.code] if leaf.code else -1 for leaf in leaves],
        bytes=[old.get(leaf, 0) for leaf in leaves],
        after=[new.get(leaf, 0) for leaf in leaves] if two else [],
        cut=[-1 if new.get(leaf, 0) == old.get(leaf, 0) else cut_of(leaf) for leaf in leaves] if two else [],
    )
    shown = TreeCuts(
        pass_=[texts[valid(cut.pass_)] for cut in cuts],
        risk=[texts[cut.risk] for cut in cuts],
        action=[texts[cut.action] for cut in cuts],
        path=[paths[cut.path] for cut in cuts],
        layer=[cut.layer for cut in cuts],
        before=[cut.before_bytes for cut in cuts],
        after=[cut.after_bytes for cut in cuts],
        why=[texts[valid(cut.why)] for cut in cuts],
        evidence=[texts[valid(cut.evidence)] for cut in cuts],
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
        folded=everything - len(leaves),
        cuts_left_out=all_cuts - len(cuts),
    )
    check_tree(tree)
    return tree


def _leaves(one: Side, layers: bool) -> dict[_Leaf, int]:
    """Bytes by all that is known of them. GPU code is told apart by architecture."""
    found: defaultdict[_Leaf, int] = defaultdict(int)
    account = one.account
    for row in account.rows:
        if row.category != GPU_CODE:
            layer = row.layer if layers else 0
            found[_Leaf(row.path, layer, row.owner.kind, row.owner.name, row.category, "")] += row.bytes
    for file in account.gpu_code:
        layer = file.layer if layers else 0
        for code in file.code:
            found[_Leaf(file.path, layer, file.owner.kind, file.owner.name, GPU_CODE, code.label)] += code.bytes
    return found


_Leaves = dict[_Leaf, int]


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


def _moved(leaves: _Leaves, place: Mapping[_Leaf, _Leaf]) -> _Leaves:
    found: defaultdict[_Leaf, int] = defaultdict(int)
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
        TreeLayer(layer.diff_id, valid(layer.created_by), layer.tar.size, size)
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
            name=valid(key[1]),
            version=valid(versions[0].get(key, "")),
            after_version=valid(versions[-1].get(key, "")),
            why=valid(whys[key]),
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


class _Reasons:
    """Finds the cut by which bytes left: that of the file, by any of its names, or of a directory above it."""

    def __init__(self, ledger: Ledger, cuts: Sequence[Cut]) -> None:
        self._nodes = ledger.fs.nodes
        self._cuts = cuts
        self._by_inode: defaultdict[Key, list[int]] = defaultdict(list)
        self._by_place: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
        self._by_path: dict[str, int] = {}
        for number, cut in enumerate(cuts):
            self._by_place[cut.layer, cut.path].append(number)
            if cut.action == "drop":
                continue
            self._by_path.setdefault(cut.path, number)
            node = self._nodes.get(cut.path)
            if node is not None and node.inode is not None:
                self._by_inode[node.inode].append(number)

    def __call__(self, leaf: _Leaf) -> int:
        if not leaf.path:
            return -1
        found = self._by_place.get((leaf.layer, leaf.path), [])
        node = self._nodes.get(leaf.path)
        if not found and node is not None and node.source_layer == leaf.layer and node.inode is not None:
            found = self._by_inode.get(node.inode, [])
        if found:
            return next((n for n in found if _CATEGORY.get(self._cuts[n].pass_) == leaf.category), found[0])
        above = leaf.path
        while above:
            if above in self._by_path:
                return self._by_path[above]
            above = above.rpartition("/")[0]
        return -1


def full_paths(tree: Tree) -> list[str]:
    """The path of each index, without a leading slash."""
    found = [""]
    for parent, name in zip(tree.paths.parents[1:], tree.paths.names[1:], strict=True):
        found.append(f"{found[parent]}/{name}" if parent else name)
    return found
