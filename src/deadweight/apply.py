"""From a plan to an image: streams the layers, holds every size to its prediction and every source to its digest."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from deadweight.binary.gpu import Target
from deadweight.cache.known import proved
from deadweight.cache.layers import Cache
from deadweight.cache.written import find_written, note_written
from deadweight.errors import PlanError, shown
from deadweight.image.changed import ChangedLayer
from deadweight.image.edit import LayerEdit, layer_chunks
from deadweight.image.filesystem import Filesystem, Key
from deadweight.image.model import Image, Layer
from deadweight.image.output import NewImage, OutputLayer, PredictionError, Written, keep_layer
from deadweight.image.reference import Reference
from deadweight.image.transports import CompressionChoice, write_image
from deadweight.image.transports.names import RESULT, SOURCE, SOURCE_MANIFEST, SOURCE_NAME, result_of
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import Pass, Proposal, all_passes
from deadweight.passes.target import GPU_CODE, read_target
from deadweight.passes.trees import every_path, whole_trees
from deadweight.plan import METADATA, Cut, Plan, nearest, plan_digest
from deadweight.planning import Progress, Worked, work

if TYPE_CHECKING:
    from deadweight.swap.swapped import Swapped


class Applied(msgspec.Struct, frozen=True):
    """What applying a plan gave."""

    worked: Worked
    """The plan as it was worked out anew, with the edit that it stands for."""
    edited: bool
    """Whether that differs from the plan that was given: it was edited by hand."""
    written: Written

    @property
    def plan(self) -> Plan:
        """The plan as it was worked out anew."""
        return self.worked.plan


def apply_plan(
    plan: Plan,
    ledger: Ledger,
    destination: Reference,
    *,
    compression: CompressionChoice = "keep",
    force: bool = False,
    progress: Progress | None = None,
    announce: Callable[[Plan, bool], None] | None = None,
    swapped: Swapped | None = None,
    cache: Cache | None = None,
) -> Applied:
    """Builds what `plan` says from the image of `ledger`, at `destination`.

    The plan is worked out anew, so one edited by hand is honoured and held to its own, new prediction; `announce` is
    called with that before anything is written. A plan that swaps builds of distributions needs them `swapped` in that
    image. Raises PlanError when the plan is not for this image or names what is not in it, and whatever `write_image`
    raises; nothing is left behind then.
    """
    image = ledger.image if swapped is None else swapped.ledger.image
    worked = reworked(plan, ledger, swapped)
    edited = not _same(plan, worked.plan)
    if announce is not None:
        announce(worked.plan, edited)
    return Applied(worked, edited, build(worked, image, destination, compression, force, progress, cache))


def build(
    worked: Worked,
    image: Image,
    destination: Reference,
    compression: CompressionChoice = "keep",
    force: bool = False,
    progress: Progress | None = None,
    cache: Cache | None = None,
) -> Written:
    """Writes what a worked-out plan over `image` says, and holds it to the predicted size.

    With a `cache` layers that were made before are not made again.
    """
    total = worked.plan.predicted_bytes
    written = write_image(
        new_image(worked, image, cache),
        destination,
        compression=compression,
        force=force,
        progress=None if progress is None else lambda done: progress("writing", done, total),
        memory=None if cache is None else cache.memory,
    )
    if sum(written.sizes) != total:
        raise PredictionError(f"predicted {total:,} bytes, built {sum(written.sizes):,}: a defect of deadweight")
    if cache is not None:
        folder = destination.path if destination.transport == "oci" else None
        note_written(cache, image, worked.edited.layers, written, folder)
    return written


def reworked(plan: Plan, ledger: Ledger, swapped: Swapped | None) -> Worked:
    """Works a plan out anew, with its builds `swapped` where it has any. Raises PlanError when it does not fit."""
    if swapped is None:
        return rework(plan, ledger)
    from deadweight.swap.join import inner, joined  # noqa: PLC0415  (zipfile and pip's tags: few plans swap)

    return joined(rework(inner(plan, swapped), swapped.ledger), swapped)


def rework(plan: Plan, ledger: Ledger) -> Worked:
    """Works a plan out anew over the image it is for. Raises PlanError when it does not fit.

    What a plan swaps has to be swapped before (`deadweight.swap.join.inner`).
    """
    image = ledger.image
    if plan.swaps:
        raise PlanError("the plan swaps builds of distributions, which has to be done first, by the same wheels")
    if plan.image.digest != image.config_digest:
        raise PlanError(
            f"the plan is for the image {plan.image.digest[:19]}, this is {image.config_digest[:19]}: make a new plan"
        )
    if plan.image.diff_ids != [layer.diff_id for layer in image.layers]:
        raise PlanError("the plan's diff-ids are not those of the image: make a new plan")
    bad = [position for position in plan.kept_layers if not 0 <= position < len(image.layers)]
    if bad:
        raise PlanError(f"kept_layers names layer {bad[0]}, the image has {len(image.layers)} (from 0)")
    given = {(cut.pass_, cut.path, cut.layer) for cut in plan.cuts}
    if len(given) < len(plan.cuts):
        raise PlanError("the plan has a cut twice: pass, path and layer are the same")
    seen: dict[str, list[Cut]] = {}
    for cut in plan.cuts:
        if cut.action != "drop" and cut.pass_ != METADATA:
            others = seen.setdefault(cut.path, [])
            if any(cut.pass_ == other.pass_ or {cut.action, other.action} != {"rewrite"} for other in others):
                raise _wrong(cut, "is not the only cut of this path: take out all but one (passes rewrite once each)")
            others.append(cut)
    target = read_target(plan.target)
    passes = {p.name: p for p in all_passes()}
    unseen = _unseen(ledger)
    proposals = [
        pair
        for cut in plan.cuts
        if cut.pass_ != METADATA
        for pair in _proposals(cut, plan.kept_layers, ledger, passes, unseen, target)
    ]
    if any(cut.below for cut in plan.cuts):  # a directory that is named by hand need not be one that leaves as one
        _check_below(plan.cuts)
        proposals = whole_trees(ledger, every_path(ledger, proposals), plan.kept_layers)
    worked = work(ledger, proposals, plan.kept_layers, plan.options, plan.notes, target)
    for path in worked.blocked:
        raise PlanError(
            f"{shown(path)} has to follow from the cuts, and lies in a layer that kept_layers keeps as it is"
        )
    return worked


def _check_below(cuts: Iterable[Cut]) -> None:
    """Raises PlanError for a cut of what leaves with a directory above it."""
    whole = {cut.path: cut.path for cut in cuts if cut.below}
    for cut in cuts:
        if cut.action in ("drop", "add") or cut.pass_ == METADATA:
            continue
        above = nearest(whole, cut.path.rpartition("/")[0])
        if above is not None:
            raise _wrong(cut, f"is of what leaves with {shown(above)}, whose cut has `below`: take out one of the two")


def _proposals(
    cut: Cut,
    keep_layers: Collection[int],
    ledger: Ledger,
    passes: Mapping[str, Pass],
    unseen: Mapping[tuple[int, str], list[Key]],
    target: Target | None,
) -> Iterator[tuple[Pass, Proposal]]:
    one = passes.get(cut.pass_)
    if cut.action == "add":
        raise _wrong(cut, "adds a file, which only follows from other cuts")
    if one is None:
        raise _wrong(cut, f"is by the pass {shown(cut.pass_)}, which is not installed")
    if cut.layer in keep_layers:
        raise _wrong(cut, f"is in layer {cut.layer}, which kept_layers says is to stay as it is")
    if cut.action == "drop":
        keys = unseen.get((cut.layer, cut.path))
        if not keys:
            raise _wrong(cut, f"names an entry of layer {cut.layer}, which has no such entry that no container sees")
        for key in keys:
            yield one, Proposal("drop", cut.path, cut.why, cut.evidence, None, key, cut.risk)
        return
    node = ledger.fs.nodes.get(cut.path)
    if node is None or node.entry is None:
        raise _wrong(cut, "names what is not in the image: no such path")
    if cut.layer not in (node.layer, node.source_layer):
        raise _wrong(cut, f"is said to be in layer {cut.layer}, it is in layer {node.layer}")
    if cut.action != "remove" and node.source_layer in keep_layers:
        raise _wrong(cut, f"changes layer {node.source_layer}, which kept_layers says is to stay as it is")
    if cut.action == "link" and (cut.to in (None, cut.path) or not _equal(ledger, cut.path, cut.to or "")):
        raise _wrong(cut, f"is not equal to {shown(cut.to or '')}, to which it is to be linked")
    if cut.below:
        _check_whole(cut, ledger.fs, keep_layers)
    # Whoever edits the target takes on its risk.
    risk = "observed" if one.name == GPU_CODE and target is not None and target.raw_blobs else cut.risk
    yield one, Proposal(cut.action, cut.path, cut.why, cut.evidence, cut.to, None, risk, cut.below)


def _check_whole(cut: Cut, fs: Filesystem, keep_layers: Collection[int]) -> None:
    """Raises PlanError for a cut that cannot take out a directory with all that is below."""
    if cut.action != "remove" or fs.nodes[cut.path].kind != "dir":
        raise _wrong(cut, "has `below`, and is not the removal of a directory")
    below = sorted(fs.paths_below(cut.path))[1:]
    if len(below) != cut.below:
        raise _wrong(cut, f"says that {cut.below:,} paths are below it, in the image there are {len(below):,}")
    for path in below:
        if fs.nodes[path].layer in keep_layers:
            raise _wrong(cut, f"takes {shown(path)} out, which kept_layers says is to stay as it is")
        if fs.nodes[path].entry is None:
            raise _wrong(cut, f"cannot take {shown(path)} out, which no layer has an entry for: name what is in it")


def _wrong(cut: Cut, reason: str) -> PlanError:
    return PlanError(f"the cut of {shown(cut.path)} {reason}")


def _unseen(ledger: Ledger) -> dict[tuple[int, str], list[Key]]:
    """The entries that no container sees, and whiteouts, by layer and name."""
    keys = ledger.fs.hidden + [
        (layer.position, e.index) for layer in ledger.image.layers for e in layer.entries if e.whiteout is not None
    ]
    found: dict[tuple[int, str], list[Key]] = {}
    for key in sorted(keys):
        found.setdefault((key[0], ledger.fs.entry(key).name), []).append(key)
    return found


def _equal(ledger: Ledger, path: str, other: str) -> bool:
    """Whether two files have the same content and metadata, so that a container cannot tell them apart."""
    one, two = ledger.fs.nodes.get(path), ledger.fs.nodes.get(other)
    if one is None or two is None or one.source is None or two.source is None:
        return False
    a, b = one.source, two.source
    if a.kind != "file" or b.kind != "file" or a.sparse or b.sparse or a.stored != b.stored:
        return False
    if (a.mode, a.uid, a.gid, a.mtime, a.owner, a.xattrs) != (b.mode, b.uid, b.gid, b.mtime, b.owner, b.xattrs):
        return False
    tars = ledger.image.layers[one.source_layer].tar, ledger.image.layers[two.source_layer].tar
    first, second = tars[0].chunks(a.data, a.stored), tars[1].chunks(b.data, b.stored)
    return all(x == y for x, y in zip(first, second, strict=True))


def _same(given: Plan, worked: Plan) -> bool:
    """Whether working a plan out anew changed nothing in it that has consequences."""
    return (given.predicted_bytes, given.before_bytes, given.layers) == (
        worked.predicted_bytes,
        worked.before_bytes,
        worked.layers,
    ) and set(given.cuts) == set(worked.cuts)


def new_image(worked: Worked, image: Image, cache: Cache | None = None) -> NewImage:
    """The result of a plan, ready to be written."""
    layers = tuple(
        replace(keep_layer(layer), check=_check(layer, cache))
        if edit.pieces is None and not isinstance(layer, ChangedLayer)
        else _output(image, edit, cache)
        for layer, edit in zip(image.layers, worked.edited.layers, strict=True)
    )
    return NewImage(layers, lambda diff_ids: _config(image, worked, diff_ids), image.tag, image.manifest_type, image)


def _output(image: Image, edit: LayerEdit, cache: Cache | None) -> OutputLayer:
    source = image.layers[edit.position]
    stored = source.original if isinstance(source, ChangedLayer) else source

    def chunks() -> Iterator[bytes]:
        # The source is read whole beside the copying, so that bytes which are left out are checked too.
        with ThreadPoolExecutor(1) as pool:
            check = pool.submit(source.check)
            yield from layer_chunks(image, edit)
            check.result()

    known = None if cache is None else find_written(cache, image, edit)
    if known is None:
        return OutputLayer(edit.size, chunks, None, stored.compression)
    return OutputLayer(edit.size, chunks, None, stored.compression, *known, check=_check(stored, cache))


def _check(layer: Layer, cache: Cache | None) -> Callable[[Callable[[int], None] | None], None]:
    """Holds a layer to its diff-id, unless that has been done: the plan follows what was read of it."""

    def check(progress: Callable[[int], None] | None) -> None:
        if cache is None or not proved(layer, cache):
            layer.check(progress)

    return check


def _config(image: Image, worked: Worked, diff_ids: list[str]) -> bytes:
    """The configuration of the result: the original's, with its layers, a few labels and a note in the history."""
    if diff_ids == [layer.diff_id for layer in image.layers]:
        return image.config_bytes
    plan = worked.plan
    config: dict[str, Any] = copy.deepcopy(image.config)
    config["rootfs"]["diff_ids"] = diff_ids
    digest = plan_digest(plan)
    if not isinstance(config.get("config"), dict):
        config["config"] = {}
    note: dict[str, Any] = {"created_by": f"deadweight {plan.deadweight}: plan {digest}", "empty_layer": True}
    if isinstance(config.get("created"), str):
        note = {"created": config["created"], **note}
    history = config.get("history")
    config["history"] = [*(history if isinstance(history, list) else []), note]
    labels = config["config"].get("Labels")
    labels = dict(labels) if isinstance(labels, dict) else {}
    for said in (SOURCE_NAME, SOURCE_MANIFEST):
        labels.pop(said, None)  # of another original, whose slim image this one was made from
    config["config"]["Labels"] = {
        **labels,
        SOURCE: image.config_digest,
        **({} if image.name is None else {SOURCE_NAME: image.name}),
        **({SOURCE_MANIFEST: image.manifest_digest} if image.reference.startswith("docker:") else {}),
        "deadweight.plan": digest,
        "deadweight.version": plan.deadweight,
        RESULT: result_of(diff_ids, len(config["history"])),
        **worked.labels,
    }
    return json.dumps(config, separators=(",", ":")).encode()
