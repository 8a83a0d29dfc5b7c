"""What a plan does to an image's components: the slim image's inventory, with what was removed or modified marked.

The slim image's components are read from its merged view, which is there without its being written or read again; so
what a scanner finds in the image is what is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import msgspec
from packaging.utils import canonicalize_name

from deadweight.apply import Applied
from deadweight.image.changed import changed_image
from deadweight.image.reference import Reference
from deadweight.ledger.ledger import Ledger
from deadweight.models.finding import find_models
from deadweight.passes.weights import View
from deadweight.plan import METADATA, SWAP, Cut, Plan, plan_digest
from deadweight.planning import Worked
from deadweight.sbom.inventory import inventory, model_component, subject_of
from deadweight.sbom.model import Component, Inventory, Modified, Removed, Swapped, text

Key = tuple[str, str, str]
"""An owner: kind, name, and version or, of a model, place."""


def slim_inventory(before: Inventory, original: Ledger, over: Ledger, applied: Applied, to: Reference) -> Inventory:
    """The inventory of the image that a plan made at `to`.

    `before` is the inventory of `original`, which was read before the image was written: no limit is left to be
    reached. `over` is the ledger that the plan was worked out over: `original` itself, or that with builds swapped.
    """
    worked, plan, written = applied.worked, applied.plan, applied.written
    with _result(over, worked) as result:
        after = inventory(result, to.name or to.tag or original.image.tag or to.path.name, limit=None)
    kept = {_identity(one) for one in after.components}
    cuts = {cut.path: cut for cut in plan.cuts if cut.action == "remove"}
    marks = _marks(original, over, plan)
    swaps = {swap.name: Swapped(text(swap.before), text(swap.wheel), swap.sha256) for swap in plan.swaps}
    components = [
        msgspec.structs.replace(
            one,
            modified=marks.get(_key(one.kind, one.name, one.path if one.kind == "model" else one.version)),
            swapped=swaps.get(str(canonicalize_name(one.name))) if one.kind == "python" and one.installed else None,
        )
        for one in after.components
    ]
    labels = {
        **after.subject.labels,
        **worked.labels,
        "deadweight.source": original.image.config_digest,
        "deadweight.plan": plan_digest(plan),
    }
    return msgspec.structs.replace(
        after,
        subject=msgspec.structs.replace(
            after.subject, digest=written.config_digest, manifest_digest=written.manifest_digest, labels=labels
        ),
        components=tuple(components),
        original=subject_of(original.image),
        removed=tuple(_removed(one, cuts) for one in before.components if _identity(one) not in kept),
    )


@contextmanager
def _result(over: Ledger, worked: Worked) -> Iterator[Ledger]:
    """The image that a plan makes, as pieces of the files of the one that it is made from."""
    with ExitStack() as resources:
        yield Ledger(changed_image(over.image, worked.edited, b"", resources))


def _identity(one: Component) -> tuple[str, str, str, str]:
    return one.kind, one.name, one.version, one.path


def _removed(one: Component, cuts: Mapping[str, Cut]) -> Removed:
    """Why a component left: by the cut that takes its metadata."""
    path = one.path.lstrip("/")
    while path and path not in cuts:
        path = path.rpartition("/")[0]
    return Removed(one, text(cuts[path].pass_), text(cuts[path].why)) if path else Removed(one, "", "")


def _marks(original: Ledger, over: Ledger, plan: Plan) -> dict[Key, Modified]:
    """What the cuts do to the files of each owner."""
    models = {file.real: model_component(model.folder) for model in find_models(View(over)) for file in model.files}
    passes: dict[Key, set[str]] = {}
    removed: dict[Key, set[str]] = {}
    rewritten: dict[Key, set[str]] = {}
    for cut in plan.cuts:
        # What no container sees is nobody's; what follows from other cuts is no change of its own.
        if cut.action in ("drop", "add") or cut.pass_ == METADATA or not cut.path:
            continue
        ledger = original if cut.pass_ == SWAP else over
        for path in _files(ledger, cut):
            owner = ledger.owner(path)
            keys = [_key(owner.kind, text(owner.name), text(owner.version))]
            if path in models:
                keys.append(_key("model", models[path].name, models[path].path))
            for key in keys:
                passes.setdefault(key, set()).add(text(cut.pass_))
                (removed if cut.action == "remove" else rewritten).setdefault(key, set()).add(path)
    return {
        key: Modified(tuple(sorted(names)), len(removed.get(key, ())), len(rewritten.get(key, ())))
        for key, names in passes.items()
    }


def _key(kind: str, name: str, version: str) -> Key:
    return kind, name, "" if kind == "interpreter" else version  # which may be known by halves


def _files(ledger: Ledger, cut: Cut) -> Iterable[str]:
    """The files that a cut is about; those of a directory have cuts of their own as well."""
    if cut.action != "remove":
        return (cut.path,)
    return (node.path for node in ledger.fs.walk(cut.path) if node.kind != "dir")
