"""From proposals to the edit that they ask for: what several passes make of one file is one new content."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from deadweight.binary.gpu import Target
from deadweight.errors import PlanError, shown
from deadweight.image.content import Content
from deadweight.image.edit import Edit
from deadweight.image.filesystem import Key
from deadweight.image.leaving import Subject
from deadweight.image.links import Links, inode_of
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import Pass, Proposal, must_rewrite

Step = tuple[Pass, Proposal]


class Request(msgspec.Struct):
    """The edit that proposals come to, and which of them each subject of its charges stands for."""

    edit: Edit
    by_subject: dict[Subject, list[Step]] = msgspec.field(default_factory=dict)
    """The rewrites of one file together, in the order of the passes, by the path that the first of them names."""


def request(ledger: Ledger, proposals: Iterable[Step], keep_layers: Collection[int], target: Target | None) -> Request:
    """What proposals ask for together. Raises PlanError for a rewrite that cannot be done."""
    remove: list[str] = []
    drop: list[Key] = []
    within: dict[str, str] = {}
    link: dict[str, str] = {}
    rewrites: list[Step] = []
    by_subject: dict[Subject, list[Step]] = {}
    for step in proposals:
        _, proposal = step
        if proposal.action == "rewrite":
            rewrites.append(step)
            continue
        subject: Subject = proposal.path
        if proposal.action == "drop":
            assert proposal.key is not None
            subject = proposal.key
            drop.append(proposal.key)
        elif proposal.action == "remove":
            if proposal.below:
                paths = ledger.fs.paths_below(proposal.path)
                remove += paths
                within.update(dict.fromkeys(paths, proposal.path))
            else:
                remove.append(proposal.path)
        else:
            link[proposal.path] = proposal.to or ""
        by_subject[subject] = [step]
    rewrite: dict[str, Content] = {}
    steps: dict[str, tuple[int, ...]] = {}
    for chain in _chains(Links(ledger.fs, link), ledger, rewrites):
        path = chain[0][1].path
        contents: list[Content] = []
        for one, proposal in chain:
            first = contents[-1] if contents else None
            contents.append(must_rewrite(ledger, one, proposal.path, first, target, proposal.to))
        rewrite[path] = contents[-1]
        steps[path] = tuple(content.size for content in contents[:-1])
        by_subject[path] = chain
    return Request(Edit(remove, rewrite, link, drop, keep_layers, steps, within), by_subject)


def _chains(links: Links, ledger: Ledger, rewrites: Iterable[Step]) -> Iterable[list[Step]]:
    """The rewrites of each file in the order of their passes, whichever of its names they use."""
    chains: dict[Key, dict[str, Step]] = {}
    for one, proposal in sorted(rewrites, key=lambda step: (step[0].order, step[0].name)):
        chain = chains.setdefault(links.root(inode_of(ledger.fs, proposal.path)), {})
        if one.name in chain:
            other = chain[one.name][1].path
            raise PlanError(f"{shown(proposal.path)} and {shown(other)} are one file, and {one.name} rewrites it twice")
        chain[one.name] = (one, proposal)
    return [list(chain.values()) for chain in chains.values()]
