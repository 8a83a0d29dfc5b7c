"""What the browser shows of a tree of bytes, as data: rows, and what there is to say of one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

from rich.cells import cell_len

from deadweight.report.hierarchy import Group, Node, grouped
from deadweight.report.terminal import command
from deadweight.report.text import plain
from deadweight.report.tree_model import Tree, full_paths
from deadweight.sizes import show_share, show_size

Order = Literal["size", "leaving", "name"]
Line = tuple[Node, ...]
"""A node with all those above it, the root first."""

GROUPINGS: Final[dict[str, tuple[Group, ...]]] = {
    "owner": ("owner",),
    "layer": ("layer", "owner"),
    "category": ("category", "owner"),
    "directory": (),
}
"""What stands above directories, by the grouping's name."""
ORDERS: Final[tuple[Order, ...]] = ("size", "leaving", "name")
FOUND_LIMIT: Final = 1000
_KEYS: Final[dict[Order, Callable[[Node], tuple[int, str]]]] = {
    "size": lambda node: (-max(node.bytes, node.after), node.name),
    "leaving": lambda node: (node.after - node.bytes, node.name),
    "name": lambda node: (0, node.name),
}
_MOST: Final = 3
"""How many owners, layers and the like are named."""


class View:
    """A tree with a grouping, and what has been worked out of it."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.two = tree.after_bytes is not None
        self._paths = full_paths(tree)
        self._directories = set(tree.paths.parents)
        self._roots: dict[str, Node] = {}

    def root(self, grouping: str) -> Node:
        """The whole image, grouped."""
        if grouping not in self._roots:
            self._roots[grouping] = grouped(self.tree, GROUPINGS[grouping])
        return self._roots[grouping]

    def children(self, node: Node, order: Order) -> list[Node]:
        """What a node is made of, in an order."""
        return sorted(node.children, key=_KEYS[order])

    def label(self, node: Node) -> str:
        """A node's name, harmless: a slash ends what can be gone into and lies in the file system."""
        name = plain(node.name) or "(no name)"
        if node.kind == "layer":
            return f"layer {node.index + 1}: {plain(command(node.name))}"
        if node.kind == "owner":
            owner = self.tree.owners[node.index]
            return plain(f"{owner.name} {owner.version or owner.after_version}".strip())
        return f"{name}/" if node.kind == "directory" else name + self._entries(node)

    def _entries(self, node: Node) -> str:
        """What a file is whose name a directory has as well: entries of it that later layers replaced, or small files
        of it, where the tree has too many to tell them apart."""
        if node.kind != "file" or node.index not in self._directories:
            return ""
        owners = {self.tree.owners[self.tree.leaves.owner[number]].kind for number in _leaves(node)}
        return " (hidden entries)" if owners == {"hidden"} else " (small files)"

    def trail(self, line: Line, width: int) -> str:
        """Where a node is, in a line of at most `width` cells where it can be: of a long way, the end."""
        parts = ["image", *(self.label(node) for node in line[1:])]
        while len(parts) > 2 and cell_len(" > ".join(parts)) > width:
            parts[:2] = ["…"]
        return " > ".join(parts)

    def find(self, root: Node, words: str) -> list[Line]:
        """Nodes below `root` whose name has `words` in it, upper and lower case alike, the largest first.

        At most FOUND_LIMIT, and one more that says that there are more.

        A path matches where the words reach into its own name: what lies below a match is no match for that.
        """
        wanted = words.casefold()
        found: list[Line] = []
        for line in _walk(root):
            node = line[-1]
            text = node.name.casefold()
            if node.kind in ("directory", "file"):
                whole = self._paths[node.index].casefold()
                at = whole.rfind(wanted)
                hit = at >= 0 and at + len(wanted) > len(whole) - len(text)
            else:
                hit = wanted in text
            if hit:
                found.append(line)
        return sorted(found, key=lambda line: _KEYS["size"](line[-1]))[: FOUND_LIMIT + 1]

    def place(self, line: Line) -> str:
        """A node of a search: its whole path, or its name."""
        node = line[-1]
        if node.kind in ("directory", "file"):
            return plain("/" + self._paths[node.index]) + ("/" if node.kind == "directory" else self._entries(node))
        parts = [self.label(each) for each in line[1:]]
        if node.kind in ("category", "code"):
            files = [each for each in line if each.kind == "file"]
            if files:
                return f"{plain('/' + self._paths[files[0].index])}: {parts[-1]}"
        return " > ".join(parts)

    def details(self, node: Node) -> list[tuple[str, str]]:
        """(what, text) of all that is known of a node; texts are harmless."""
        tree, leaves = self.tree, self.tree.leaves
        numbers = _leaves(node)
        said = [("size", self._size(node))]
        if node.kind in ("directory", "file"):
            said.append(("path", plain("/" + self._paths[node.index])))
        if self.two and leaves.cut:
            said += self._leaving(node, numbers)
        owners = _sums(leaves.owner, leaves.bytes, numbers)
        said.append(("owner", self._listed(owners, self._owner)))
        if len(owners) == 1:
            (only,) = owners
            said.append(("why", plain(tree.owners[only].why)))
        if tree.layers:
            layers = _sums(leaves.layer, leaves.bytes, numbers)
            said.append(("layer", self._listed(layers, self._layer if len(layers) == 1 else lambda at: str(at + 1))))
        categories = _sums(leaves.category, leaves.bytes, numbers)
        said.append(("what", self._listed(categories, lambda at: tree.categories[at])))
        code = _sums(leaves.code, leaves.bytes, numbers)
        code.pop(-1, None)
        if code:
            said.append(("GPU code", self._listed(code, lambda at: tree.codes[at])))
        return [(what, text) for what, text in said if text]

    def _size(self, node: Node) -> str:
        size = f"{node.bytes:,} bytes, {show_share(node.bytes, self.tree.bytes)} of the image"
        if self.two:
            size += f"; afterwards {node.after:,}"
        return size

    def _owner(self, at: int) -> str:
        owner = self.tree.owners[at]
        version = owner.version or owner.after_version
        changed = f" -> {owner.after_version}" if self.two and owner.after_version not in ("", version) else ""
        kind = f"{owner.kind} " if version else ""
        return plain(f"{kind}{owner.name} {version}".strip() + changed)

    def _layer(self, at: int) -> str:
        return plain(f"{at + 1} of {len(self.tree.layers)}: {command(self.tree.layers[at].created_by)}")

    def _leaving(self, node: Node, numbers: Sequence[int]) -> Iterator[tuple[str, str]]:
        """What leaves, by pass and risk; where that is one cut's doing, its reason."""
        tree, leaves = self.tree, self.tree.leaves
        saved: Counter[int] = Counter()
        for number in numbers:
            saved[leaves.cut[number]] += leaves.bytes[number] - leaves.after[number]
        by_pass: Counter[str] = Counter()
        for cut, amount in saved.items():
            if amount:
                by_pass[self._pass(cut)] += amount
        if not by_pass:
            yield "leaves", "nothing"
            return
        total = node.bytes - node.after
        parts = [f"{name} {show_size(amount)}" for name, amount in by_pass.most_common(_MOST + 2)]
        yield "leaves", f"{total:,} bytes: {'; '.join(parts)}"
        # Headers and padding leave with content, and have no reason of their own.
        cuts = {leaves.cut[number] for number in numbers if leaves.path[number] and leaves.cut[number] >= 0}
        reasons = {(tree.cuts.why[cut], tree.cuts.evidence[cut]) for cut in cuts}
        if len(reasons) == 1:
            ((why, evidence),) = reasons
            yield "reason", plain("; ".join(filter(None, (tree.texts[why], tree.texts[evidence]))))

    def _pass(self, cut: int) -> str:
        if cut < 0:
            return "follows from other cuts"
        texts, cuts = self.tree.texts, self.tree.cuts
        return plain(f"{texts[cuts.pass_[cut]]} ({texts[cuts.risk[cut]]})")

    def _listed(self, sums: Counter[int], name: Callable[[int], str]) -> str:
        """The largest of several, each with its share where there are several."""
        if len(sums) == 1:
            return name(next(iter(sums)))
        whole = sums.total()
        parts = [f"{name(at)} ({show_share(amount, whole)})" for at, amount in sums.most_common(_MOST)]
        more = len(sums) - len(parts)
        return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def _walk(root: Node) -> Iterator[Line]:
    """Everything below a node, each with what is above it."""
    stack: list[Line] = [(root, child) for child in reversed(root.children)]
    while stack:
        line = stack.pop()
        yield line
        stack.extend((*line, child) for child in reversed(line[-1].children))


def _leaves(node: Node) -> list[int]:
    found: list[int] = []
    stack = [node]
    while stack:
        here = stack.pop()
        found += here.leaves
        stack += here.children
    return found


def _sums(keys: Sequence[int], amounts: Sequence[int], numbers: Sequence[int]) -> Counter[int]:
    sums: Counter[int] = Counter()
    for number in numbers:
        sums[keys[number]] += amounts[number]
    return sums
