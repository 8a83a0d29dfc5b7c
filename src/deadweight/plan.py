"""The plan: what is to leave an image, why, and the size of what remains, as data that people read and edit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from deadweight.decoding import from_values
from deadweight.errors import PlanError
from deadweight.image.model import sha256
from deadweight.passes.base import Action, Risk

T = TypeVar("T")

SCHEMA: Literal["deadweight.plan/1"] = "deadweight.plan/1"
SWAP = "swap"
"""The pass that cuts belong to by which a build takes another one's place: they follow from a plan's `swaps`."""
METADATA = "metadata"
"""The pass that cuts belong to which follow from other cuts; they are worked out anew whenever a plan is applied."""
_quoted = json.encoder.encode_basestring_ascii


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing that leaves. Bytes count content, padding and framing."""

    pass_: str = msgspec.field(name="pass")
    path: str
    layer: int
    """The layer's position, from 0."""
    action: Action | Literal["add"]
    """`add` is a file that follows from other cuts."""
    before_bytes: int
    after_bytes: int
    risk: Risk
    why: str
    evidence: str = ""
    to: str | None = None
    """For a link: the equal file. For a rewrite with a choice, what the file becomes."""
    below: Annotated[int, msgspec.Meta(ge=0)] = 0
    """For the removal of a whole directory: how many paths of the view below it leave with it, by this cut."""


class LayerSize(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A layer's uncompressed bytes before and after."""

    layer: int
    diff_id: str
    before_bytes: int
    predicted_bytes: int


class PlanImage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The image that a plan is for; `digest` is that of the configuration, the image ID."""

    reference: str
    digest: str
    diff_ids: list[str]
    platform: str


class Swap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A build of a distribution that takes the place of another one, before anything else is done."""

    name: str
    """Canonical."""
    before: str
    """The version that leaves."""
    after: str
    wheel: str
    """The file's name."""
    sha256: str
    """Of the wheel, in hex: applying the plan takes no other one."""
    source: str
    """Where it was: a path or a URL."""
    dropped: list[str]
    """Requirements of the old build that the new one has not."""


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to leave an image, and what will remain."""

    schema: Literal["deadweight.plan/1"]
    deadweight: str
    image: PlanImage
    target: dict[str, Any]
    """What was declared of the deployment, as `read_target` takes it; empty: nothing was."""
    options: dict[str, Any]
    kept_layers: list[int]
    before_bytes: int
    predicted_bytes: int
    layers: list[LayerSize]
    cuts: list[Cut]
    notes: list[str]
    swaps: list[Swap] = []
    """What the cuts of the pass `swap` come from; those of all other passes are over the image with the swaps done."""


def taken_out(cuts: Iterable[Cut]) -> Callable[[str], bool]:
    """Tells whether cuts take a path out of the view: one of its own, or of a directory above it that leaves whole."""
    removals = {cut.path: cut.below for cut in cuts if cut.action == "remove"}
    whole = {path: below for path, below in removals.items() if below}
    return lambda path: path in removals or nearest(whole, path) is not None


def nearest(places: Mapping[str, T], path: str) -> T | None:
    """What stands for a path, or for the nearest directory above it; never what stands for the root."""
    while path and path not in places:
        path = path.rpartition("/")[0]
    return places[path] if path else None


def read_plan(data: bytes) -> Plan:
    """A plan from its JSON. Raises PlanError, naming the field, when it is none."""
    try:
        # Not msgspec's own reader: names in images need not be UTF-8, and it takes no lone surrogates.
        return from_values(json.loads(data), Plan)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise PlanError(f"this is no plan of deadweight: {error}") from None


def write_plan(plan: Plan) -> bytes:
    """A plan as JSON, one cut a line so that it can be read, searched and compared."""
    said: dict[tuple[str, ...], str] = {}  # most cuts of a pass say the same of themselves
    cuts = ",\n    ".join([_line(cut, said) for cut in plan.cuts])
    data = {**msgspec.to_builtins(plan), "cuts": None}
    if not plan.swaps:  # most plans have none, and are then as they were before there were any
        del data["swaps"]
    rest = json.dumps(data, indent=2)
    body = f'"cuts": [\n    {cuts}\n  ]' if cuts else '"cuts": []'
    return (rest.replace('"cuts": null', body, 1) + "\n").encode()


def _line(cut: Cut, said: dict[tuple[str, ...], str]) -> str:
    """As json.dumps has it: a plan has tens of thousands. `said` remembers how lines end."""
    key = (cut.risk, cut.why, cut.evidence)
    end = said.get(key)
    if end is None:
        evidence = f', "evidence": {_quoted(cut.evidence)}' if cut.evidence else ""
        end = said[key] = f'"risk": "{cut.risk}", "why": {_quoted(cut.why)}{evidence}'
    to = f', "to": {_quoted(cut.to)}' if cut.to is not None else ""
    below = f', "below": {cut.below}' if cut.below else ""
    return (
        f'{{"pass": {_quoted(cut.pass_)}, "path": {_quoted(cut.path)}, "layer": {cut.layer}, "action": "{cut.action}", '
        f'"before_bytes": {cut.before_bytes}, "after_bytes": {cut.after_bytes}, {end}{to}{below}}}'
    )


def plan_digest(plan: Plan) -> str:
    """The digest by which an image names the plan that made it.

    Where the original lay when it was planned is not part of what was done to it.
    """
    place = msgspec.structs.replace(plan.image, reference="")
    swaps = [msgspec.structs.replace(swap, source="") for swap in plan.swaps]
    plan = msgspec.structs.replace(plan, image=place, swaps=swaps)
    try:
        return sha256(msgspec.json.encode(plan))
    except UnicodeEncodeError:  # a name that is no UTF-8
        return sha256(write_plan(plan))
