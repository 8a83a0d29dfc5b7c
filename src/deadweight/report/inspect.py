"""Makes the report of `deadweight inspect` from a ledger's account."""

from __future__ import annotations

from collections import Counter

from deadweight.image.model import Image
from deadweight.ledger.account import Account, make_account, place_of
from deadweight.ledger.ledger import SYSTEM, Ledger, Owner
from deadweight.report.model import (
    CategoryLine,
    HiddenLine,
    ImageLine,
    InspectReport,
    LayerLine,
    OwnerLine,
    PartLine,
    PlaceLine,
)
from deadweight.report.reasons import owner_reason, package_reasons
from deadweight.report.text import valid

SCHEMA = "deadweight.inspect/1"


def inspect_report(ledger: Ledger, account: Account | None = None) -> InspectReport:
    """The whole account of the ledger's image, largest first. Reads what has to be read."""
    account = make_account(ledger) if account is None else account
    image = ledger.image
    packages = package_reasons(ledger.packages)
    files = Counter(owner for owner, _ in {(row.owner, (row.layer, row.path)) for row in account.rows if row.path})
    hidden = account.hidden_by_layer
    parts = _parts(account)
    return InspectReport(
        schema=SCHEMA,
        image=image_line(image),
        bytes=account.bytes,
        stored_bytes=image.stored_size,
        layers=[
            LayerLine(
                layer=layer.position,
                diff_id=layer.diff_id,
                bytes=account.by_layer.get(layer.position, 0),
                stored_bytes=layer.blob.size,
                created_by=valid(layer.created_by),
                entries=len(layer.entries),
                hidden_bytes=hidden.get(layer.position, 0),
                owners=parts.get(layer.position, []),
            )
            for layer in image.layers
        ],
        owners=[
            OwnerLine(
                name=valid(owner.name),
                kind=owner.kind,
                version=valid(owner.version),
                bytes=size,
                files=files[owner],
                why=valid(owner_reason(ledger, packages, owner)),
            )
            for owner, size in account.by_owner.items()
        ],
        categories=[CategoryLine(name, size) for name, size in account.by_category.items()],
        gpu_code=[],
        hidden_bytes=sum(hidden.values()),
        hidden=_hidden(account),
        unlisted=_unlisted(account),
        unchecked=[layer.diff_id for layer in image.layers if not layer.checked],
        notes=[valid(note) for note in dict.fromkeys([*image.notes, *ledger.notes])],
    )


def _parts(account: Account) -> dict[int, list[PartLine]]:
    """The owners of each layer's bytes."""
    sizes: Counter[tuple[int, Owner]] = Counter()
    for row in account.rows:
        sizes[row.layer, row.owner] += row.bytes
    parts: dict[int, list[PartLine]] = {}
    for (layer, owner), size in sorted(sizes.items(), key=lambda item: (-item[1], item[0][1].name)):
        parts.setdefault(layer, []).append(PartLine(valid(owner.name), owner.kind, size))
    return parts


def image_line(image: Image) -> ImageLine:
    """Which image it is."""
    return ImageLine(
        reference=valid(image.reference),
        digest=image.config_digest,
        platform=valid(image.platform),
        tag=None if image.tag is None else valid(image.tag),
        manifest_digest=image.manifest_digest,
    )


def _hidden(account: Account) -> list[HiddenLine]:
    sums: dict[tuple[int, str], tuple[int, int, int]] = {}
    for each in account.hidden:
        key = (each.layer, place_of(each.path))
        size, entries, overwritten = sums.get(key, (0, 0, 0))
        sums[key] = (size + each.bytes, entries + 1, overwritten + each.overwritten)
    lines = [HiddenLine(layer, valid(path), *line) for (layer, path), line in sums.items()]
    return sorted(lines, key=lambda line: (-line.bytes, line.layer, line.path))


def _unlisted(account: Account) -> list[PlaceLine]:
    sizes: Counter[str] = Counter()
    files: Counter[str] = Counter()
    counted: set[tuple[int, str]] = set()
    for row in account.rows:
        if row.owner == SYSTEM:
            place = place_of(row.path)
            sizes[place] += row.bytes
            if (row.layer, row.path) not in counted:
                counted.add((row.layer, row.path))
                files[place] += 1
    lines = [PlaceLine(valid(place), size, files[place]) for place, size in sizes.items()]
    return sorted(lines, key=lambda line: (-line.bytes, line.path))
