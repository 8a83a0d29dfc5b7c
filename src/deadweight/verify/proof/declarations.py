"""What a plan declares of an image, as lookups: what leaves, what is rewritten by which passes, what is new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from deadweight.binary.gpu import Target
from deadweight.errors import PlanError, shown
from deadweight.image.filesystem import Filesystem, Key
from deadweight.image.links import Links, inode_of
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import Pass, all_passes
from deadweight.passes.target import GPU_CODE, read_target
from deadweight.plan import METADATA, Cut, Plan


class Rewrite(NamedTuple):
    """A cut that rewrites a file."""

    by: Pass
    path: str
    to: str | None = None
    """What the cut says that it becomes."""


@dataclass(frozen=True)
class Declared:
    """What a plan declares; without a plan nothing.

    Metadata that follows is no part of it: of a plan that was edited by hand, it is worked out when that is applied.
    """

    plan: Plan | None = None
    target: Target | None = None
    removed: frozenset[str] = frozenset()
    document: Literal["none", "new", "perhaps new"] = "none"
    """Whether the target's document is new: it follows from rewrites of GPU code, but cannot be added everywhere."""
    rewrites: Mapping[Key, tuple[Rewrite, ...]] = field(default_factory=dict)
    """By the entry that carries a file's bytes: what rewrites it, in the order of the passes."""


def declared(before: Ledger, plan: Plan | None) -> Declared:
    """What `plan` declares. Raises PlanError when it is not for this image."""
    if plan is None:
        return Declared()
    image = before.image
    if plan.image.digest != image.config_digest:
        raise PlanError(
            f"the plan is for the image {plan.image.digest[:19]}, the original is {image.config_digest[:19]}: "
            "give the plan that the slim image was built by"
        )
    if plan.image.diff_ids != [layer.diff_id for layer in image.layers]:
        raise PlanError("the plan's diff-ids are not those of the original")
    mine = [cut for cut in plan.cuts if cut.pass_ != METADATA]
    document: Literal["none", "new", "perhaps new"] = "none"
    if any(cut.pass_ == GPU_CODE for cut in mine):
        document = "new" if any(cut.action == "add" for cut in plan.cuts) else "perhaps new"
    return Declared(
        plan,
        read_target(plan.target),
        frozenset(_removed(before.fs, mine)),
        document,
        _rewrites(before.fs, mine),
    )


def _removed(fs: Filesystem, cuts: list[Cut]) -> Iterator[str]:
    for cut in cuts:
        if cut.action != "remove":
            continue
        paths = fs.paths_below(cut.path) if cut.below else [cut.path]
        if len(paths) != cut.below + 1:
            raise PlanError(
                f"the cut of {shown(cut.path)} says that {cut.below:,} paths are below it, in the original there are "
                f"{len(paths) - 1:,}"
            )
        yield from paths


def _rewrites(fs: Filesystem, cuts: list[Cut]) -> dict[Key, tuple[Rewrite, ...]]:
    """Names of one file are one thing, and so are files that cuts make one: `link` is to an equal file."""
    links = Links(fs, {cut.path: cut.to or "" for cut in cuts if cut.action == "link"})
    passes = {one.name: one for one in all_passes()}
    chains: dict[Key, list[Rewrite]] = {}
    for cut in cuts:
        if cut.action == "rewrite":
            if cut.pass_ not in passes:
                raise PlanError(f"the cut of {shown(cut.path)} is by the pass {shown(cut.pass_)}, not installed here")
            chain = chains.setdefault(links.root(inode_of(fs, cut.path)), [])
            chain.append(Rewrite(passes[cut.pass_], cut.path, cut.to))
    found: dict[Key, tuple[Rewrite, ...]] = {}
    for node in fs.nodes.values() if chains else ():
        if node.kind == "file" and node.inode is not None and links.root(node.inode) in chains:
            chain = chains[links.root(node.inode)]
            found[node.inode] = tuple(sorted(chain, key=lambda each: (each.by.order, each.by.name)))
    return found
