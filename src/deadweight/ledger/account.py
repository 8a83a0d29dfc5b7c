"""Where every byte of an image is: each has exactly one owner and one category, and they add up to the layers.

First label wins (bloaty's rule), and the most specific comes first:

1. an entry that no container sees is `hidden` as a whole, with its headers, since as a whole it can leave;
2. headers, padding, whiteouts, gaps and the blocks at the end are `tar framing`;
3. content belongs to whoever put the file there. A hard link has none: the entry that it leads to has, and that
   one's owner is told by the names that a container sees. So the wheels in uv's cache, whose files site-packages
   links to, are the distributions';
4. what no list names belongs to `files of no package`.

GPU code is accounted for once more, by architecture: what the category has, the files in `Account.gpu_code` have.

The account checks itself wherever it is made, not only in tests.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Final, NamedTuple, TypeVar

import msgspec

from deadweight.binary.gpu_code import GpuCode, gpu_file
from deadweight.errors import DeadweightError
from deadweight.image.filesystem import Key
from deadweight.image.layer import Entry
from deadweight.image.model import Layer
from deadweight.ledger.categories import (
    GPU_CODE,
    HIDDEN_CONTENT,
    OF_ELF,
    TAR_FRAMING,
    ending_category,
    place_category,
)
from deadweight.ledger.inside import inside, share_inside
from deadweight.ledger.ledger import FRAMING, HIDDEN, Ledger, Owner

Label = TypeVar("Label")
_THREADS: Final = 4


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


class GpuFile(msgspec.Struct, frozen=True, gc=False):
    """The GPU code of a file that counts as such: none of tests, caches and build tools, or that no container sees."""

    layer: int
    owner: Owner
    path: str
    code: tuple[GpuCode, ...]


class Account(msgspec.Struct, frozen=True, dict=True):
    """All bytes of an image."""

    sizes: tuple[int, ...]
    """Of the layers, uncompressed."""
    rows: list[Row]
    hidden: list[HiddenEntry]
    gpu_code: list[GpuFile]

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


class _Inside(NamedTuple):
    """A file that is looked into."""

    layer: Layer
    entry: Entry
    owner: Owner
    path: str
    elf: bool
    """Otherwise its name says that it is GPU code."""


def make_account(ledger: Ledger, others: Iterable[Ledger] = ()) -> Account:
    """The account of every byte of the ledger's image. Raises AccountError when it does not add up.

    What `others` know, the ledgers of open images that it was made of or that were made of it, is not found out again.
    """
    share_inside(ledger, others)
    seen = _seen_contents(ledger)
    place = place_category(ledger)
    elf = {node.inode for node in ledger.elf_files.values()}
    hidden_keys = set(ledger.fs.hidden)
    rows: list[Row] = []
    hidden: list[HiddenEntry] = []
    opened: list[_Inside] = []
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
                category = label or ending_category(name)
                if label is None and (key in elf or category == GPU_CODE):
                    opened.append(_Inside(layer, entry, owner, name, key in elf))
                else:
                    rows.append(Row(at, owner, category, name, entry.stored))
        framing += layer.size - end
        if framing:
            rows.append(Row(at, FRAMING, TAR_FRAMING, "", framing))
    files: list[GpuFile] = []
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:  # while one reads, another one searches
        for (sums, code), each in zip(pool.map(partial(_look_inside, ledger), opened), opened, strict=True):
            at = each.layer.position
            rows.extend(Row(at, each.owner, category, each.path, size) for category, size in sums.items() if size)
            if code:
                files.append(GpuFile(at, each.owner, each.path, code))
    account = Account(tuple(layer.size for layer in ledger.image.layers), rows, hidden, files)
    check(account)
    return account


def check(account: Account) -> None:
    """Holds that every layer's bytes are accounted for, once, and each file's GPU code. Raises AccountError."""
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
    coded = Counter({(row.layer, row.path): row.bytes for row in account.rows if row.category == GPU_CODE})
    coded.subtract({(file.layer, file.path): sum(code.bytes for code in file.code) for file in account.gpu_code})
    if any(coded.values()) or any(code.bytes <= 0 for file in account.gpu_code for code in file.code):
        raise AccountError("the GPU code of a file does not add up: this is a defect of deadweight")


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


def _look_inside(ledger: Ledger, file: _Inside) -> tuple[dict[str, int], tuple[GpuCode, ...]]:
    """A file's bytes by category, and its GPU code."""
    if not file.elf:
        read = file.layer.tar.window(file.entry.data, file.entry.stored).read_at
        return {GPU_CODE: file.entry.stored}, gpu_file(read, file.entry.stored)
    found = inside(ledger, (file.layer.position, file.entry.index))
    return {OF_ELF[label]: size for label, size in found.bytes.items()}, found.gpu_code


def place_of(path: str, depth: int = 3) -> str:
    """The directory that a path lies in, down to `depth` names; with a leading slash."""
    return "/" + "/".join(path.split("/")[:-1][:depth])


def _sums(pairs: Iterable[tuple[Label, int]]) -> dict[Label, int]:
    sums: defaultdict[Label, int] = defaultdict(int)
    for label, amount in pairs:
        sums[label] += amount
    return dict(sorted(sums.items(), key=lambda item: (-item[1], str(item[0]))))
