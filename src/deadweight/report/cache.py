"""What the cache holds, as data and as a table."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.text import Text

from deadweight.cache.keeping import KINDS, things
from deadweight.cache.layers import Cache
from deadweight.cache.place import limit
from deadweight.report.tables import Line, bytes_table
from deadweight.report.text import plain, valid


class CacheKind(msgspec.Struct, frozen=True):
    """What the cache holds of one kind."""

    kind: str
    """The name of its folder."""
    what: str
    entries: int
    bytes: int


class CacheReport(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.cache/1"):
    """All that the cache holds."""

    directory: str
    limit_bytes: int
    bytes: int
    kinds: list[CacheKind]


def cache_report(cache: Cache) -> CacheReport:
    """Counts what the cache holds: bytes of layers that several entries share count once."""
    entries, sizes = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    seen: set[str] = set()
    for thing in things(cache):
        entries[thing.kind] += 1
        sizes[thing.kind] += thing.bytes if thing.blob not in seen else 0
        seen.update(filter(None, [thing.blob]))
    kinds = [CacheKind(kind, what, entries[kind], sizes[kind]) for kind, what in KINDS.items()]
    return CacheReport(valid(str(cache.root)), limit(), sum(sizes.values()), kinds)


def print_cache(console: Console, report: CacheReport) -> None:
    """A table of kinds."""
    console.print(Text(f"{plain(report.directory)}, at most {report.limit_bytes:,} bytes"), soft_wrap=True)
    lines = [Line(one.bytes, f"{one.what} ({one.entries:,})") for one in report.kinds]
    bytes_table(console, "What the cache holds", lines, what="what")
