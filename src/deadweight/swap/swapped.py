"""An image with builds of distributions swapped: what is planned over, what it came from, and what that costs."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec
from packaging.utils import canonicalize_name

from deadweight.errors import BadInputError, UsageError, shown
from deadweight.files.cpu_wheel import Sources
from deadweight.image.addition import CannotAdd, NewFile, add_files
from deadweight.image.changed import Aside, ChangedLayer, changed_image
from deadweight.image.compression import temporary_folder
from deadweight.image.edit import Edit, Edited, edit_image, really_removed
from deadweight.image.layer import Entry
from deadweight.ledger.ledger import Ledger
from deadweight.ledger.python import Distribution, marker_environment
from deadweight.plan import SWAP, Cut, Plan, Swap
from deadweight.planning import Progress
from deadweight.swap.exchange import Exchange, exchange
from deadweight.swap.find import Asked, Found, find, find_again, installed
from deadweight.swap.fit import check_can_leave, check_fits, check_requirements, requirements
from deadweight.swap.lost import lost_inside
from deadweight.swap.wheel import Wheel, open_wheel

_EVIDENCE: Final = {
    "rewrite": "is another file in the new build",
    "remove": "is in the old build alone",
    "add": "is new",
}


class Done(NamedTuple):
    """One swap that was done."""

    dist: Distribution
    """As it was."""
    wheel: Wheel


@dataclass(frozen=True)
class Swapped:
    """An image with swaps done."""

    original: Ledger
    ledger: Ledger
    """Of the image with the swaps done, over which to plan."""
    done: tuple[Done, ...]
    swaps: tuple[Swap, ...]
    cuts: tuple[Cut, ...]
    """What the swaps alone do to the original, to the byte."""
    orphans: tuple[str, ...]
    """Distributions (canonical) that the old builds' requirements led to, and the new ones' do not."""
    notes: tuple[str, ...]
    """What is lost inside of the distributions that were swapped, and what is not made."""

    @property
    def changed(self) -> frozenset[int]:
        """Positions of the layers that the swaps change."""
        layers = self.ledger.image.layers
        return frozenset(layer.position for layer in layers if isinstance(layer, ChangedLayer))


@contextmanager
def swapped_by(
    original: Ledger,
    asked: Sequence[Asked],
    sources: Sources,
    keep_layers: Collection[int] = (),
    progress: Progress | None = None,
) -> Iterator[Swapped]:
    """The image with what is asked for swapped, as long as it is in use; layers in `keep_layers` must not change.

    Raises UsageError for what cannot be meant, BadInputError where no wheel can be had or one does not fit, and
    EnvironmentFailure where there is no space.
    """
    with _folder() as into:
        found = []
        for one in asked:
            _say(progress, f"looking for a build of {one.name}")
            found.append(find(original, one, sources, into))
        with _swapped(original, found, keep_layers, progress) as swapped:
            yield swapped


@contextmanager
def swapped_again(
    original: Ledger, plan: Plan, sources: Sources, progress: Progress | None = None
) -> Iterator[Swapped]:
    """The image with a plan's swaps done again, by the same wheels. Raises PlanError where one cannot be had."""
    with _folder() as into:
        found = []
        for swap in plan.swaps:
            _say(progress, f"looking for {swap.wheel}")
            found.append(find_again(original, swap, sources, into))
        with _swapped(original, found, (), progress) as swapped:
            yield swapped


@contextmanager
def _folder() -> Iterator[Path]:
    """Where wheels are downloaded to."""
    with tempfile.TemporaryDirectory(prefix="deadweight-swap-", dir=temporary_folder()) as folder:
        yield Path(folder)


def _say(progress: Progress | None, doing: str) -> None:
    if progress is not None:
        progress(doing, 0, 0)


@contextmanager
def _swapped(
    original: Ledger, found: Sequence[Found], keep_layers: Collection[int], progress: Progress | None
) -> Iterator[Swapped]:
    with ExitStack() as resources:
        aside = Aside(resources)
        ledger = original
        done: list[Done] = []
        swaps: list[Swap] = []
        notes: list[str] = []
        cuts: dict[tuple[str, int], Cut] = {}
        for one in found:
            _say(progress, f"swapping {one.name}")
            dist = installed(ledger, one.name)
            check_can_leave(ledger, dist)
            wheel = open_wheel(one.path, resources)
            check_fits(ledger, dist, wheel)
            what = exchange(ledger, dist, wheel, aside)
            edited = _edit(ledger, what, dist)
            for cut in _cuts(ledger, what, edited, dist, wheel):
                _add(cuts, cut)
            notes += [*what.notes, *lost_inside(ledger, dist, what)]
            new = changed_image(ledger.image, edited, wheel.sha256.encode(), resources)
            ledger = Ledger(new)
            done.append(Done(dist, wheel))
            swaps.append(_swap(ledger, dist, wheel, one.source))
        check_requirements(original, ledger)
        saved = sum(cut.before_bytes - cut.after_bytes for cut in cuts.values())
        if original.image.size - saved != ledger.image.size:
            raise AssertionError(f"the swap's cuts add up to {saved:,} bytes, the layers do not")
        swapped = Swapped(
            original,
            ledger,
            tuple(done),
            tuple(swaps),
            tuple(sorted(cuts.values(), key=lambda cut: (cut.layer, cut.path))),
            _orphans(original, ledger, [swap.name for swap in swaps]),
            tuple(notes),
        )
        stays = sorted(swapped.changed & set(keep_layers))
        if stays:
            names = ", ".join(swap.name for swap in swaps)
            raise UsageError(
                f"--swap of {names} changes layer {stays[0] + 1}, which is to stay (--keep-layers, --base)"
            )
        yield swapped


def _edit(ledger: Ledger, what: Exchange, dist: Distribution) -> Edited:
    """The exchange as an edit of the image."""
    fs = ledger.fs
    edit = Edit(remove=sorted(what.remove), rewrite=what.rewrite)
    removed = really_removed(fs, edit)
    edited = edit_image(fs, edit)
    like = fs.nodes[what.like].source
    assert like is not None
    files = {}
    for path, (content, program) in what.add.items():
        node = fs.nodes.get(path)
        old = node.source if node is not None and node.kind == "file" else None
        files[path] = NewFile(content, _mode(like, program) if old is None else old.mode & 0o7777, old)
    try:
        return add_files(fs, edited, removed, what.position, files, like)
    except CannotAdd as error:
        raise BadInputError(f"{dist.display} cannot be swapped in layer {what.position + 1}: {error}") from None


def _mode(like: Entry, program: bool) -> int:
    """As the neighbours have it; who may read a program may run it."""
    mode = like.mode & 0o666
    return mode | (mode & 0o444) >> 2 if program else mode


def _cuts(ledger: Ledger, what: Exchange, edited: Edited, dist: Distribution, wheel: Wheel) -> Iterator[Cut]:
    why = f"{dist.display} {dist.version} -> {wheel.version}"
    for subject, charge in edited.charges.items():
        if not isinstance(subject, str):
            yield Cut(SWAP, "", subject[0], "rewrite", charge.before, charge.after, "target", why, "end of the layer")
            continue
        action, layer = _what_is_done(ledger, what, subject)
        evidence = f"{_EVIDENCE[action]}: {shown(wheel.file)[1:-1]}"
        yield Cut(SWAP, subject, layer, action, charge.before, charge.after, "target", why, evidence)


def _what_is_done(ledger: Ledger, what: Exchange, path: str) -> tuple[Literal["add", "rewrite", "remove"], int]:
    """What is done to a path, and in which layer."""
    node = ledger.fs.nodes.get(path)
    if node is None:
        return "add", what.position
    if path in what.add:
        return "rewrite", what.position
    return ("rewrite", node.source_layer) if path in what.rewrite else ("remove", node.layer)


def _add(cuts: dict[tuple[str, int], Cut], cut: Cut) -> None:
    same = cuts.get((cut.path, cut.layer))
    if same is not None:
        before, after = same.before_bytes + cut.before_bytes, same.after_bytes + cut.after_bytes
        cut = msgspec.structs.replace(same, before_bytes=before, after_bytes=after)
    cuts[cut.path, cut.layer] = cut


def _swap(ledger: Ledger, dist: Distribution, wheel: Wheel, source: str) -> Swap:
    environment = {**marker_environment(ledger.fs, dist.site, ledger.interpreters), "extra": ""}
    old, new = (
        {str(canonicalize_name(one.name)): text for one, text in requirements(lines, environment)}
        for lines in (dist.requires, wheel.requires)
    )
    dropped = [old[name] for name in sorted(old.keys() - new.keys())]
    return Swap(dist.name, dist.version, str(wheel.version), wheel.file, wheel.sha256, source, dropped)


def _orphans(before: Ledger, after: Ledger, names: Sequence[str]) -> tuple[str, ...]:
    """What the requirements of `names` led to, and no longer do."""
    return tuple(sorted(_reached(before, names) - _reached(after, names)))


def _reached(ledger: Ledger, names: Sequence[str]) -> set[str]:
    seen = set(names)
    todo = list(names)
    while todo:
        for edge in ledger.graph.edges.get(todo.pop(), ()):
            if edge.kind != "inferred" and edge.target not in seen:
                seen.add(edge.target)
                todo.append(edge.target)
    return seen
