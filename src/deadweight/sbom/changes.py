"""What a plan does to an image's components: the slim image's inventory, with what was removed or modified marked.

The slim image's components are read from its merged view, which is there without its being written or read again; so
what a scanner finds in the image is what is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import msgspec
from packaging.utils import canonicalize_name

from deadweight.apply import Applied
from deadweight.image.changed import changed_image
from deadweight.image.reference import Reference
from deadweight.ledger.ledger import Ledger
from deadweight.models.finding import find_models
from deadweight.passes.weights import View
from deadweight.plan import METADATA, SWAP, Cut, Plan, nearest, plan_digest
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
        removed=tuple(_removed(original, plan, [one for one in before.components if _identity(one) not in kept])),
    )


@contextmanager
def _result(over: Ledger, worked: Worked) -> Iterator[Ledger]:
    """The image that a plan makes, as pieces of the files of the one that it is made from."""
    with ExitStack() as resources:
        yield Ledger(changed_image(over.image, worked.edited, b"", resources))


def _identity(one: Component) -> tuple[str, str, str, str]:
    return one.kind, one.name, one.version, one.path


def _removed(original: Ledger, plan: Plan, gone: Iterable[Component]) -> Iterator[Removed]:
    """Why components left: by the cut that takes the metadata of each, or most of a model's files."""
    cuts = {text(f"/{cut.path}"): cut for cut in plan.cuts if cut.action == "remove"}
    files: dict[str, list[str]] = {}
    for path, models in _models(original).items():
        for model in models:
            files.setdefault(model.path, []).append(text(f"/{path}"))
    for one in gone:
        places = files.get(one.path, []) if one.kind == "model" else [one.path]
        found = [cut for cut in (nearest(cuts, place) for place in places) if cut is not None]
        cut = max(found, key=lambda each: each.before_bytes - each.after_bytes, default=None)
        yield Removed(one, "", "") if cut is None else Removed(one, text(cut.pass_), text(cut.why))


def _models(ledger: Ledger) -> dict[str, list[Component]]:
    """The models that a file is a part of, by where the file really lies: revisions of one model share files."""
    found: dict[str, list[Component]] = {}
    for model in find_models(View(ledger)):
        component = model_component(model.folder)
        for file in model.files:
            found.setdefault(file.real, []).append(component)
    return found


def _marks(original: Ledger, over: Ledger, plan: Plan) -> dict[Key, Modified]:
    """What the cuts do to the files of each owner."""
    models = _models(over)
    passes: dict[Key, set[str]] = {}
    removed: dict[Key, set[str]] = {}
    rewritten: dict[Key, set[str]] = {}
    for cut in plan.cuts:
        # What no container sees is nobody's; a link leads to the same content and metadata; what follows from other
        # cuts is no change of its own.
        if cut.action in ("drop", "add", "link") or cut.pass_ == METADATA or not cut.path:
            continue
        ledger = original if cut.pass_ == SWAP else over
        for path in _files(ledger, cut):
            owner = ledger.owner(path)
            keys = [_key(owner.kind, text(owner.name), text(owner.version))]
            keys += [_key("model", model.name, model.path) for model in models.get(path, ())]
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
    """The files that a cut is about; those of a directory may have cuts of their own as well."""
    if cut.action != "remove":
        return (cut.path,)
    return (node.path for node in ledger.fs.walk(cut.path) if node.kind != "dir")
