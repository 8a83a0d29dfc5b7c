"""Which bytes left by which cut: a pass's leaves lose what its cuts save, headers and padding included."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from deadweight.image.filesystem import Key, Node
from deadweight.ledger.categories import GPU_CODE, SYMBOLS
from deadweight.passes import gpu_code, symbols
from deadweight.plan import Cut, nearest

_CATEGORY: Final = {gpu_code.PASS.name: GPU_CODE, symbols.PASS.name: SYMBOLS}
"""The category that a pass takes bytes from, for passes that rewrite the same files."""


class Leaf(NamedTuple):
    """What a leaf's bytes agree in, but for the cut."""

    path: str
    layer: int
    kind: str
    owner: str
    category: str
    code: str


class Part(NamedTuple):
    """Bytes of a leaf that stayed or left by one cut."""

    leaf: Leaf
    bytes: int
    after: int
    cut: int
    """The number of the cut; -1 where nothing left, or by none."""


def parts(
    old: Mapping[Leaf, int], new: Mapping[Leaf, int], nodes: Mapping[str, Node], cuts: Sequence[Cut]
) -> list[Part]:
    """All leaves in order; those whose bytes left by several cuts as several parts, which add up to them.

    Headers and padding belong to no file, so what cuts save beyond content is told of each layer's framing.
    """
    found: list[Part] = []
    framing: list[Leaf] = []
    chains: defaultdict[tuple[int, ...], list[Leaf]] = defaultdict(list)
    cut_of = _Cuts(nodes, cuts)
    for leaf in sorted(old.keys() | new.keys()):
        before, after = old.get(leaf, 0), new.get(leaf, 0)
        by = cut_of(leaf) if cuts and before != after else ()
        if len(by) > 1:
            chains[by].append(leaf)
        elif before != after and not leaf.path:
            framing.append(leaf)
        else:
            found.append(Part(leaf, before, after, by[0] if by else -1))
    for by, leaves in chains.items():
        found += _chained(leaves, old, new, by, cuts)
    rest = _beyond_content(found, cuts)
    for leaf in framing:
        found += _framing(leaf, old.get(leaf, 0), new.get(leaf, 0), rest.pop(leaf.layer, {}))
    return sorted(found)


def _chained(
    leaves: Sequence[Leaf], old: Mapping[Leaf, int], new: Mapping[Leaf, int], by: Sequence[int], cuts: Sequence[Cut]
) -> list[Part]:
    """A file that several passes rewrote: each takes what its cut saves, of its own category as long as there is any.

    What grew, and what is padding, is the first one's.
    """
    left = {leaf: old.get(leaf, 0) - new.get(leaf, 0) for leaf in leaves}
    wanted = {number: cuts[number].before_bytes - cuts[number].after_bytes for number in by}
    wanted[by[0]] += sum(left.values()) - sum(wanted.values())  # padding
    wanted[by[0]] -= sum(amount for amount in left.values() if amount < 0)
    takes: dict[Leaf, dict[int, int]] = {leaf: {by[0]: amount} if amount < 0 else {} for leaf, amount in left.items()}
    for own in (True, False):
        for number in by:
            category = _CATEGORY.get(cuts[number].pass_)
            others = {_CATEGORY.get(cuts[n].pass_) for n in by} - {None}
            for leaf in sorted(leaves, key=lambda one: (one.category in others, one)):
                amount = min(wanted[number], left[leaf])
                if amount > 0 and (leaf.category == category or not own):
                    takes[leaf][number] = takes[leaf].get(number, 0) + amount
                    wanted[number] -= amount
                    left[leaf] -= amount
    found = []
    for leaf, shares in takes.items():
        # What stays is told with the largest of the parts that left.
        (first, _), *more = sorted(shares.items(), key=lambda share: (-share[1], share[0]))
        found += [Part(leaf, amount, 0, number) for number, amount in more]
        found.append(Part(leaf, old.get(leaf, 0) - sum(amount for _, amount in more), new.get(leaf, 0), first))
    return found


def _beyond_content(found: Sequence[Part], cuts: Sequence[Cut]) -> dict[int, dict[int, int]]:
    """By layer, what the cuts of each pass save beyond content. A pass is told as its largest cut there."""
    sums: Counter[tuple[int, str, str]] = Counter()
    largest: dict[tuple[int, str, str], int] = {}
    for number, cut in enumerate(cuts):
        key = (cut.layer, cut.pass_, str(cut.risk))
        sums[key] += _saved(cut)
        if key not in largest or _saved(cut) > _saved(cuts[largest[key]]):
            largest[key] = number
    for part in found:
        if part.cut >= 0:
            cut = cuts[part.cut]
            key = (part.leaf.layer, cut.pass_, str(cut.risk))
            # What lower layers hid at a path that leaves is part of that path's cut.
            sums[key if key in largest else (cut.layer, *key[1:])] -= part.bytes - part.after
    rest: defaultdict[int, dict[int, int]] = defaultdict(dict)
    for key, amount in sums.items():
        if amount:
            rest[key[0]][largest[key]] = amount
    return rest


def _framing(leaf: Leaf, before: int, after: int, rest: Mapping[int, int]) -> list[Part]:
    """A layer's framing: what left of it by each pass, and what stays."""
    taken = sum(amount for amount in rest.values() if amount > 0)
    added = -sum(amount for amount in rest.values() if amount < 0)
    if taken > before or added > after:  # of folded leaves not every cut is known
        return [Part(leaf, before, after, -1)]
    told = [Part(leaf, max(amount, 0), max(-amount, 0), number) for number, amount in rest.items()]
    return [Part(leaf, before - taken, after - added, -1), *told]


def _saved(cut: Cut) -> int:
    return cut.before_bytes - cut.after_bytes


class _Cuts:
    """Finds the cuts by which bytes left: those of the file, by any of its names, or of a directory above it."""

    def __init__(self, nodes: Mapping[str, Node], cuts: Sequence[Cut]) -> None:
        self._nodes = nodes
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
        whole = {cut.path: number for number, cut in enumerate(cuts) if cut.below}
        for path, node in self._nodes.items() if whole else ():
            found = nearest(whole, path.rpartition("/")[0])
            if found is not None:
                self._by_place[cuts[found].layer, path].append(found)
                if node.inode is not None:
                    self._by_inode[node.inode].append(found)

    def __call__(self, leaf: Leaf) -> tuple[int, ...]:
        if not leaf.path:
            return ()
        found = self._by_place.get((leaf.layer, leaf.path), [])
        node = self._nodes.get(leaf.path)
        if not found and node is not None and node.source_layer == leaf.layer and node.inode is not None:
            found = self._by_inode.get(node.inode, [])
        if found:
            return tuple(found)
        above = nearest(self._by_path, leaf.path)
        return () if above is None else (above,)
