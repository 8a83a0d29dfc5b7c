"""Where every byte of an image is: each has exactly one owner and one category, and they add up to the layers.

First label wins (bloaty's rule), and the most specific comes first:

1. an entry that no container sees is `hidden` as a whole, with its headers, since as a whole it can leave;
2. headers, padding, whiteouts, gaps and the blocks at the end are `tar framing`;
3. content belongs to whoever put the file there. A hard link has none: the entry that it leads to has, and that
   one's owner is told by the names that a container sees. So the wheels in uv's cache, whose files site-packages
   links to, are the distributions';
4. what no list names belongs to `files of no package`.

The account checks itself wherever it is made, not only in tests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import TypeVar

import msgspec

from deadweight.binary.elf import ElfError, breakdown
from deadweight.errors import DeadweightError
from deadweight.image.filesystem import Key
from deadweight.image.layer import Entry
from deadweight.image.model import Layer
from deadweight.ledger.categories import DATA, HIDDEN_CONTENT, OF_ELF, TAR_FRAMING, ending_category, place_category
from deadweight.ledger.ledger import FRAMING, HIDDEN, Ledger, Owner

Label = TypeVar("Label")


class AccountError(DeadweightError):
    """Bytes without an owner, or with two: a defect of deadweight, never of the image."""

    exit_status = 70


class Row(msgspec.Struct, frozen=True, gc=False):
    """Some bytes of one layer. A path has several rows where it splits into categories; framing has no path."""

    layer: int
    owner: Owner
    category: str
    path: str
    bytes: int


class HiddenEntry(msgspec.Struct, frozen=True, gc=False):
    """An entry that no container sees."""

    layer: int
    path: str
    bytes: int
    """Of the entry as a whole: headers, content and padding."""
    was: Owner
    """Whose it would be if it were seen, by today's lists."""
    category: str
    """What it would count as, by place and name alone."""
    overwritten: bool
    """Whether a container sees something else at its path; otherwise it was deleted."""


class Account(msgspec.Struct, frozen=True, dict=True):
    """All bytes of an image."""

    sizes: tuple[int, ...]
    """Of the layers, uncompressed."""
    rows: list[Row]
    hidden: list[HiddenEntry]

    @property
    def bytes(self) -> int:
        """The image's size."""
        return sum(self.sizes)

    @cached_property
    def by_owner(self) -> dict[Owner, int]:
        """Bytes by owner, the largest first."""
        return _sums((row.owner, row.bytes) for row in self.rows)

    @cached_property
    def by_category(self) -> dict[str, int]:
        """Bytes by category, the largest first."""
        return _sums((row.category, row.bytes) for row in self.rows)

    @cached_property
    def by_layer(self) -> dict[int, int]:
        """Bytes by layer, for layers that have any."""
        return _sums((row.layer, row.bytes) for row in self.rows)

    @cached_property
    def hidden_by_layer(self) -> dict[int, int]:
        """Bytes of entries that no container sees, by layer."""
        return _sums((each.layer, each.bytes) for each in self.hidden)


def make_account(ledger: Ledger) -> Account:
    """The account of every byte of the ledger's image. Raises AccountError when it does not add up."""
    seen = _seen_contents(ledger)
    place = place_category(ledger)
    elf = {node.inode for node in ledger.elf_files.values()}
    hidden_keys = set(ledger.hidden)
    rows: list[Row] = []
    hidden: list[HiddenEntry] = []
    for layer in ledger.image.layers:
        at = layer.position
        framing = 0
        end = 0
        for entry in layer.entries:
            if entry.start < end or entry.data < entry.start or entry.end < entry.data + entry.stored:
                raise AccountError(f"the entries of {layer.where} overlap: this is a defect of deadweight")
            framing += entry.start - end
            end = entry.end
            key = (at, entry.index)
            if key in hidden_keys:
                path = entry.name
                owner = ledger.owner(path)
                category = place(path, owner) or ending_category(path)
                size = entry.end - entry.start
                rows.append(Row(at, HIDDEN, HIDDEN_CONTENT, path, size))
                hidden.append(HiddenEntry(at, path, size, owner, category, path in ledger.fs.nodes))
                continue
            framing += entry.end - entry.start
            if entry.stored and entry.whiteout is None:
                framing -= entry.stored
                name = seen.get(key)
                if name is None:
                    raise AccountError(f"an entry of {layer.where} has no owner: this is a defect of deadweight")
                owner = ledger.owner(name)
                label = place(name, owner)
                if label is None and key in elf:
                    rows.extend(_elf_rows(layer, entry, owner, name))
                else:
                    rows.append(Row(at, owner, label or ending_category(name), name, entry.stored))
        framing += layer.tar.size - end
        if framing:
            rows.append(Row(at, FRAMING, TAR_FRAMING, "", framing))
    account = Account(tuple(layer.tar.size for layer in ledger.image.layers), rows, hidden)
    check(account)
    return account


def check(account: Account) -> None:
    """Holds that every layer's bytes are accounted for, once. Raises AccountError."""
    wrong = [
        position + 1
        for position, size in enumerate(account.sizes)
        if account.by_layer.get(position, 0) != size or account.hidden_by_layer.get(position, 0) > size
    ]
    for sums in (account.by_owner, account.by_category):
        if sum(sums.values()) != account.bytes or any(amount < 0 for amount in sums.values()):
            wrong.append(0)
    if wrong:
        raise AccountError(f"the bytes of layers {wrong} do not add up: this is a defect of deadweight")


def _seen_contents(ledger: Ledger) -> dict[Key, str]:
    """For each entry with content that a container sees, one of its names: a listed one, where there is one.

    uv's cache carries the bytes of what site-packages links to: the distribution's name tells more than the cache's.
    """
    owners = ledger.owners
    found: dict[Key, str] = {}
    for path, node in ledger.fs.nodes.items():
        source = node.source
        if source is None or source.kind != "file":
            continue
        key = (node.source_layer, source.index)
        if key not in found or (path in owners and found[key] not in owners):
            found[key] = path
    return found


def _elf_rows(layer: Layer, entry: Entry, owner: Owner, path: str) -> Iterable[Row]:
    """An ELF file's bytes by what they are; as data where it cannot be read."""
    try:
        parts = breakdown(layer.tar.window(entry.data, entry.stored).read_at, entry.stored)
    except ElfError:
        parts = {"data": entry.stored}
    return [Row(layer.position, owner, OF_ELF.get(name, DATA), path, size) for name, size in parts.items() if size]


def place_of(path: str, depth: int = 3) -> str:
    """The directory that a path lies in, down to `depth` names; with a leading slash."""
    return "/" + "/".join(path.split("/")[:-1][:depth])


def _sums(pairs: Iterable[tuple[Label, int]]) -> dict[Label, int]:
    sums: defaultdict[Label, int] = defaultdict(int)
    for label, amount in pairs:
        sums[label] += amount
    return dict(sorted(sums.items(), key=lambda item: (-item[1], str(item[0]))))
