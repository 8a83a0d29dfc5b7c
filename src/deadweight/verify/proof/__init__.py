"""The static proof that a slim image is the original without what was cut: both views are walked, nothing is run.

Every path is the same in content and metadata, or a declared cut, or a declared rewrite that loaders cannot tell from
the original, or metadata that follows from cuts. Without a plan nothing is declared: what is gone is said, programs and
libraries may differ in what loaders do not map, and metadata may follow; all else that differs is a difference.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from deadweight.errors import PlanError, shown
from deadweight.image.filesystem import Key
from deadweight.image.model import Layer
from deadweight.ledger.ledger import Ledger
from deadweight.passes.weights import PASS
from deadweight.plan import Plan
from deadweight.swap.join import inner
from deadweight.swap.swapped import Swapped
from deadweight.verify.model import ProbeResult
from deadweight.verify.proof.config import config_differences
from deadweight.verify.proof.contents import Pair, Progress, batches, compare_pairs, run_all
from deadweight.verify.proof.declarations import declared
from deadweight.verify.proof.findings import Findings, Views, find
from deadweight.verify.proof.swaps import SwapFindings, judge_swaps
from deadweight.verify.proof.walk import Walk, walk

WEIGHTS: Final = PASS.name
_MOST: Final = 100
"""Differences that are named; the rest is counted."""


@dataclass(frozen=True)
class Proof:
    """What walking two views gave."""

    equal: Mapping[Key, str]
    """By the entry that carries a file's bytes in the slim view: the path of a file in the original's that is equal in
    content and in all that unpacking sets."""
    results: tuple[ProbeResult, ...]
    """For the verdict: one for all paths, one for the configuration."""
    removed: frozenset[str]
    """Paths of the original that are gone."""
    declared: frozenset[str]
    """Those of them that the plan declares, and directories that are there only as long as something is in them."""
    other: frozenset[str] = frozenset()
    """Paths whose files are of a build that was swapped in, and not the original's."""


def prove(
    before: Ledger,
    after: Ledger,
    plan: Plan | None = None,
    progress: Progress | None = None,
    swapped: Swapped | None = None,
) -> Proof:
    """Walks the views of the original and of its slim image, which `plan` made of it.

    Both images' layers are read whole and held to their diff-ids. Where the plan swaps builds of distributions, the
    image with those `swapped` stands between the two, and is held to the original and to the wheels. Raises DigestError
    where diff-ids do not match, and PlanError for a plan that is for another image.
    """
    start = time.monotonic()
    say = progress or _silent
    if plan is None or not plan.swaps:
        middle, part, swaps = before, plan, SwapFindings()
    elif swapped is None:
        raise PlanError("the plan swaps builds of distributions, which needs the same wheels to be proved")
    else:
        middle, part = swapped.ledger, inner(plan, swapped)
        say("proving: what was swapped", 0, 0)
        swaps = judge_swaps(swapped)
    what = declared(middle, part)
    seen = walk(middle.fs, after.fs)
    changed, equal = _compare(middle, after, seen, say)
    views = Views(middle, after, what, seen, changed)
    found = find(views, partial(say, "proving: what was rewritten"))
    found.differences = sorted({*found.differences, *swaps.differences})
    found.notes = [*swaps.notes, *found.notes]
    gone = frozenset(path for path in before.fs.nodes if path not in after.fs.nodes)
    files = _files(views, found, time.monotonic() - start, before)
    config = _config(before, after, plan)
    covered = (p for p in gone if p in what.removed or before.fs.nodes[p].entry is None or p not in middle.fs.nodes)
    equal = {key: path for key, path in equal.items() if path not in swaps.other}
    return Proof(equal, (files, config), gone, frozenset(covered if plan is not None else ()), frozenset(swaps.other))


def _silent(doing: str, done: int, total: int) -> None:
    """Nobody asked for progress."""


def _compare(before: Ledger, after: Ledger, seen: Walk, say: Progress) -> tuple[list[Pair], dict[Key, str]]:
    """The files whose contents differ; and those that are equal in all, each with a path of the original."""
    layers: dict[tuple[str, int, int, int], Layer] = {}
    for layer in (*before.image.layers, *after.image.layers):
        # An archive can name one blob twice; under each diff-id it has to be looked at.
        layers.setdefault((layer.diff_id, layer.tar.fd, layer.tar.start, layer.tar.size), layer)
    changed: list[Pair] = []

    def compare(batch: list[Pair]) -> None:
        changed.extend(compare_pairs(before.fs, after.fs, batch))

    tasks = [(layer.tar.size, layer.check) for layer in layers.values()]
    tasks += [(size, partial(compare, batch)) for size, batch in batches(after.fs, list(seen.pairs))]
    run_all(tasks, partial(say, "proving: comparing all files"))
    differ = set(changed)
    equal: dict[Key, str] = {}
    for pair, paths in (*seen.same.items(), *seen.pairs.items()):
        path = next((path for path in paths if path not in seen.described), None)
        if pair not in differ and path is not None:
            equal.setdefault(pair.after, path)
    return sorted(changed), equal


def _files(views: Views, found: Findings, seconds: float, before: Ledger) -> ProbeResult:
    other = {path for path, _ in found.differences}
    gone = sum(path not in other for path in views.walk.gone)
    rewritten = sum(map(len, found.rewritten.values()))
    same = len(views.after.fs.nodes.keys() - set(views.walk.added) - other)
    notes = [
        f"{same - rewritten - found.follows:,} paths are the same in content and metadata",
        *(
            f"{len(files):,} {'files are' if len(files) > 1 else 'file is'} rewritten, {_how(what)} ({what})"
            for what, files in sorted(found.rewritten.items())
        ),
    ]
    if gone:
        declared = ", as declared" if views.declared.plan is not None else ""
        notes.insert(1, f"{gone:,} {'is' if gone == 1 else 'are'} gone{declared}")
    if found.follows:
        notes.append(f"{found.follows:,} metadata files follow from that, and are true")
    details = [f"{shown('/' + path)}: {how}" for path, how in found.differences[:_MOST]]
    if len(found.differences) > _MOST:
        details.append(f"and {len(found.differences) - _MOST:,} more differences")
    result = _result("every path", "files", details, notes + found.notes, seconds, _paths(before), _paths(views.after))
    if views.declared.plan is None and not details and (gone or rewritten):
        return msgspec.structs.replace(result, outcome="undeclared")
    return result


def _how(what: str) -> str:
    """What rewritten files are held to."""
    return "weights to the nearest number" if what == WEIGHTS else "and loaders cannot tell"


def _paths(ledger: Ledger) -> str:
    return f"{len(ledger.fs.nodes):,} paths"


def _config(before: Ledger, after: Ledger, plan: Plan | None) -> ProbeResult:
    details = config_differences(before.image, after.image, plan)
    counts = [len(ledger.image.run_config) for ledger in (before, after)]
    keys = [f"{count:,} {'key' if count == 1 else 'keys'}" for count in counts]
    return _result("configuration", "config", details, [], 0.0, *keys)


def _result(
    name: str, kind: str, details: list[str], notes: list[str], seconds: float, before: str, after: str
) -> ProbeResult:
    return ProbeResult(
        name=name,
        kind=kind,
        outcome="differs" if details else "same",
        ok=not details,
        must=False,
        before=before,
        after=after,
        before_seconds=None,
        after_seconds=seconds,
        details=details,
        notes=notes,
    )
