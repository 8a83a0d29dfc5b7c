"""From an image to its plan: runs the passes, and works what they propose out to the byte."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise
from operator import attrgetter
from typing import Any

import msgspec
from packaging.utils import canonicalize_name

from deadweight.binary.gpu import Target
from deadweight.errors import UsageError, shown
from deadweight.image.addition import CannotAdd, add_file, last_changed
from deadweight.image.edit import Edited, edit_image, really_removed
from deadweight.image.emitted import Charge
from deadweight.image.filesystem import Filesystem
from deadweight.image.leaving import Subject
from deadweight.image.model import Image
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import RISKS, Context, Options, Pass, Proposal, Risk, all_passes
from deadweight.passes.chain import Step, request
from deadweight.passes.metadata import Derived, derive, derive_target
from deadweight.passes.target import GPU_CODE, check_not_lost, write_target
from deadweight.passes.trees import every_path, whole_trees
from deadweight.plan import METADATA, SCHEMA, Cut, LayerSize, Plan, PlanImage

# A new digest costs the sharing with every other image on that layer: this much must be won for it.
SMALL_SHARE = 0.01
SMALL_BYTES = 5_000_000

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


class Worked(msgspec.Struct, frozen=True):
    """A plan with the edit that it stands for."""

    plan: Plan
    edited: Edited
    blocked: dict[str, set[str]]
    """Metadata files that had to change and lie in layers that stay, with the paths whose cuts ask for it."""
    labels: dict[str, str]
    """What the configuration is to say of the target."""


def make_plan(ledger: Ledger, options: Options = Options(), **settings: Any) -> Plan:  # noqa: B008  (frozen)
    """The plan for an image: that of `draw_up`, which says what the settings are."""
    return draw_up(ledger, options, **settings).plan


def draw_up(
    ledger: Ledger,
    options: Options = Options(),  # noqa: B008  (frozen)
    *,
    risk: Risk = "policy",
    skip: Collection[str] = (),
    keep_layers: int = 0,
    base: Image | None = None,
    all_layers: bool = False,
    new: Collection[int] = (),
    each_path: bool = False,
    progress: Progress | None = None,
) -> Worked:
    """The plan for an image, worked out: the proposals of all passes up to `risk`, less those of `skip`.

    The first `keep_layers` layers stay as they are, and those that `base` shares; so does, unless `all_layers` or it is
    one of those that are `new` anyway, every layer in which under 1 % and under 5 MB would be saved. A directory that
    leaves whole is one cut; with `each_path` every path of it has its own. Raises UsageError for a pass that does not
    exist, and for GPUs whose code left when the image was slimmed before.
    """
    check_not_lost(ledger.fs, options.target)
    anyway = range(len(ledger.image.layers)) if all_layers else new
    planner = _Planner(ledger, options, risk, skip, progress, each_path)
    return planner.plan(protected(ledger.image, keep_layers, base), anyway)


def removable(ledger: Ledger) -> frozenset[str]:
    """Paths that some pass would remove from an image, at any risk, where the user protects nothing."""
    context = Context(ledger, Options(keep_compile=False))
    for one in all_passes():
        if one.rewrite is None:
            for proposal in one.propose(context):
                context.accept(one, proposal)
    return frozenset(context.gone)


def protected(image: Image, count: int, base: Image | None) -> frozenset[int]:
    """Positions of the layers that are to stay: the first `count`, and those of `base`.

    Raises UsageError where the image is not built on it.
    """
    kept = set(range(min(count, len(image.layers))))
    if base is not None:
        for mine, theirs in zip(image.layers, base.layers, strict=False):
            if mine.diff_id != theirs.diff_id:
                break
            kept.add(mine.position)
        if len(kept) < len(base.layers):
            raise UsageError(f"the image is not built on {shown(base.reference)}: they share {len(kept)} layers")
    return frozenset(kept)


class _Planner:
    """Runs the passes until the layers that are worth touching are settled."""

    def __init__(
        self,
        ledger: Ledger,
        options: Options,
        risk: Risk,
        skip: Collection[str],
        progress: Progress | None,
        each_path: bool,
    ) -> None:
        known = [p.name for p in all_passes()]
        unknown = sorted(set(skip) - set(known))
        if unknown:
            raise UsageError(f"there is no pass {shown(unknown[0])} to skip; there are: {', '.join(known)}")
        installed = {dist.name for dist in ledger.distributions}
        options = msgspec.structs.replace(options, roots=tuple(canonicalize_name(name) for name in options.roots))
        for name in options.roots:
            if name not in installed:
                raise UsageError(f"--root {shown(name)}: no such distribution is installed in the image")
        limit = RISKS.index(risk)
        self.passes = [p for p in all_passes() if RISKS.index(p.risk) <= limit and p.name not in skip]
        self.ledger, self.options = ledger, options
        self.progress, self.each_path = progress, each_path
        settings = msgspec.json.decode(msgspec.json.encode(options))
        del settings["target"]  # the plan has a field of its own for it
        if not options.orphans:
            del settings["orphans"]
        self.settings: dict[str, Any] = {"risk": risk, "skip": sorted(skip), **settings}

    def plan(self, protected: frozenset[int], anyway: Collection[int]) -> Worked:
        small: set[int] = set()  # layers left alone since little would be saved there
        needed: set[int] = set()  # layers whose metadata follows from cuts elsewhere
        blocked: set[str] = set()  # paths whose metadata lies in a protected layer
        while True:
            keep = protected | (small - needed)
            context = Context(self.ledger, self.options, keep, frozenset(blocked))
            steps = self._run(context)
            proposals = every_path(self.ledger, steps) if self.each_path else whole_trees(self.ledger, steps, keep)
            worked = work(self.ledger, proposals, sorted(keep), self.settings, context.notes, self.options.target)
            if worked.blocked:
                for path, causes in worked.blocked.items():
                    position = self.ledger.fs.nodes[path].source_layer
                    if position in protected:
                        blocked |= causes
                    else:
                        needed.add(position)
                continue
            little = set(_little(worked.plan)) - keep - needed - set(anyway)
            if not little:
                plan = self._with_notes(worked.plan, small - needed, context)
                return msgspec.structs.replace(worked, plan=plan)
            small |= little

    def _run(self, context: Context) -> list[tuple[Pass, Proposal]]:
        proposals: list[tuple[Pass, Proposal]] = []
        for number, one in enumerate(self.passes):
            if self.progress is not None:
                self.progress(f"planning: {one.name}", number, len(self.passes))
            proposals += [(one, p) for p in one.propose(context) if context.accept(one, p)]
        return proposals

    def _with_notes(self, plan: Plan, small: set[int], context: Context) -> Plan:
        notes = list(plan.notes)
        for position in sorted(small):
            notes.append(
                f"layer {position + 1} stays as it is, and shared with other images: under 1 % and under 5 MB would be "
                "saved there (--all-layers changes it all the same)"
            )
        if self.options.target is not None and GPU_CODE not in [one.name for one in self.passes]:
            notes.append(f"GPU code stays as it is: the pass {GPU_CODE} was left out (--risk, --skip)")
        return msgspec.structs.replace(plan, notes=notes + [n for n in context.ledger.notes if n not in notes])


def _little(plan: Plan) -> Iterable[int]:
    for size in plan.layers:
        saved = size.before_bytes - size.predicted_bytes
        touched = any(cut.layer == size.layer for cut in plan.cuts)
        if touched and saved < SMALL_BYTES and saved < SMALL_SHARE * size.before_bytes:
            yield size.layer


def work(
    ledger: Ledger,
    proposals: Iterable[tuple[Pass, Proposal]],
    keep_layers: Collection[int],
    settings: Mapping[str, Any],
    notes: Iterable[str],
    target: Target | None = None,
) -> Worked:
    """Works proposals out to the byte: what they come to, and what follows from them.

    Raises PlanError for what cannot be done.
    """
    fs = ledger.fs
    asked = request(ledger, proposals, keep_layers, target)
    edit = asked.edit
    removed = really_removed(fs, edit)
    derived = derive(ledger, edit, removed)
    shrunk = {p.path for steps in asked.by_subject.values() for one, p in steps if one.name == GPU_CODE}
    if target is not None and shrunk:
        derive_target(ledger, edit, removed, target, shrunk, derived)
    edited = edit_image(
        fs, msgspec.structs.replace(edit, rewrite={**edit.rewrite, **derived.contents}), removed, ledger.facts
    )
    for path, data in derived.additions.items():
        try:
            edited = add_file(fs, edited, removed, path, data)
        except CannotAdd as error:
            derived.notes.append(f"/{path}, which {derived.reasons[path]}, is not added: {error}")
    by_subject = {subject: steps for subject, steps in asked.by_subject.items() if subject not in derived.causes}
    cuts = _cuts(fs, edited, by_subject, derived)
    blocked = {p: derived.causes[p] for p in derived.contents if fs.nodes[p].source_layer in keep_layers}
    notes = dict.fromkeys((*notes, *derived.notes))
    return Worked(
        _assemble(ledger, edited, cuts, keep_layers, settings, notes, target), edited, blocked, derived.labels
    )


def _cuts(
    fs: Filesystem,
    edited: Edited,
    by_subject: Mapping[Subject, Sequence[Step]],
    derived: Derived,
) -> list[Cut]:
    """One cut for each thing that bytes were charged to, in the order of passes and paths."""
    found: list[Cut] = []
    for subject, charge in edited.charges.items():
        steps = by_subject.get(subject)
        if steps is None:
            found.append(_derived_cut(fs, edited, subject, charge, derived))
        elif len(steps) == 1:
            found.append(_cut(fs, subject, steps[0], charge.before, charge.after))
        else:
            bounds = (charge.before, *charge.between, charge.after)
            found += [_cut(fs, subject, step, *sizes) for step, sizes in zip(steps, pairwise(bounds), strict=True)]
    # One key after the other: there are tens of thousands, and each sort finds them nearly in order.
    order = {p.name: p.order for p in all_passes()}
    found.sort(key=attrgetter("path"))
    found.sort(key=attrgetter("layer"))
    found.sort(key=lambda cut: (order.get(cut.pass_, 1000), cut.pass_))
    merged: list[Cut] = []
    for cut in found:
        if merged and _same_place(merged[-1], cut):  # an entry that a layer has twice
            merged[-1] = _sum(merged[-1], cut)
        else:
            merged.append(cut)
    return merged


def _same_place(one: Cut, two: Cut) -> bool:
    return one.path == two.path and one.layer == two.layer and one.pass_ == two.pass_


def _sum(one: Cut, two: Cut) -> Cut:
    before, after = one.before_bytes + two.before_bytes, one.after_bytes + two.after_bytes
    return msgspec.structs.replace(one, before_bytes=before, after_bytes=after)


def _cut(fs: Filesystem, subject: Subject, step: Step, before: int, after: int) -> Cut:
    one, proposal = step
    if isinstance(subject, str):
        node = fs.nodes[proposal.path]
        layer = node.layer if proposal.action == "remove" else node.source_layer
    else:
        layer = subject[0]
    return Cut(
        one.name,
        proposal.path,
        layer,
        proposal.action,
        before,
        after,
        proposal.risk or one.risk,
        proposal.why,
        proposal.evidence,
        proposal.to,
        proposal.below,
    )


def _derived_cut(fs: Filesystem, edited: Edited, subject: Subject, charge: Charge, derived: Derived) -> Cut:
    if isinstance(subject, str):
        causes = derived.causes[subject]
        changed = last_changed(edited)
        added = changed is not None and subject in derived.additions
        return Cut(
            METADATA,
            subject,
            changed.position if changed is not None and added else fs.nodes[subject].source_layer,
            "add" if added else "rewrite",
            charge.before,
            charge.after,
            "lossless",
            derived.reasons[subject],
            f"{len(causes):,} changed, such as /{min(causes)}",
        )
    why, evidence = "a rewritten layer ends in two zero blocks", "as POSIX has it for tar; what was there was padding"
    return Cut(METADATA, "", subject[0], "rewrite", charge.before, charge.after, "lossless", why, evidence)


def _assemble(
    ledger: Ledger,
    edited: Edited,
    cuts: list[Cut],
    keep_layers: Collection[int],
    settings: Mapping[str, Any],
    notes: Iterable[str],
    target: Target | None,
) -> Plan:
    image = ledger.image
    layers = [
        LayerSize(layer.position, layer.diff_id, layer.size, new.size)
        for layer, new in zip(image.layers, edited.layers, strict=True)
    ]
    before, predicted = image.size, sum(size.predicted_bytes for size in layers)
    saved = sum(cut.before_bytes - cut.after_bytes for cut in cuts)
    if before - saved != predicted:
        raise AssertionError(f"the cuts add up to {saved:,} bytes, the layers to {before - predicted:,}")
    return Plan(
        schema=SCHEMA,
        deadweight=version("deadweight"),
        image=PlanImage(
            image.reference, image.config_digest, [layer.diff_id for layer in image.layers], image.platform
        ),
        target=write_target(target),
        options=dict(settings),
        kept_layers=list(keep_layers),
        before_bytes=before,
        predicted_bytes=predicted,
        layers=layers,
        cuts=cuts,
        notes=list(notes),
    )
