"""Makes the report of `deadweight inspect` from a ledger's account."""

from __future__ import annotations

import posixpath
from collections import Counter

from deadweight.errors import shown
from deadweight.ledger.account import Account, GpuFile, make_account, place_of
from deadweight.ledger.gpu import gpu_names, savings
from deadweight.ledger.ledger import SYSTEM, Ledger, Owner
from deadweight.models.details import details
from deadweight.models.finding import find_models
from deadweight.passes.weights import View
from deadweight.report.identity import image_line
from deadweight.report.model import (
    CategoryLine,
    GpuLibraryLine,
    GpuLine,
    HiddenLine,
    InspectReport,
    LayerLine,
    ModelLine,
    OutOfReachLine,
    OwnerLine,
    PartLine,
    PlaceLine,
    SavingLine,
)
from deadweight.report.reasons import owner_reason, package_reasons
from deadweight.report.text import valid


def inspect_report(ledger: Ledger, account: Account | None = None) -> InspectReport:
    """The whole account of the ledger's image, largest first. Reads what has to be read."""
    account = make_account(ledger) if account is None else account
    image = ledger.image
    packages = package_reasons(ledger.packages)
    files = Counter(owner for owner, _ in {(row.owner, (row.layer, row.path)) for row in account.rows if row.path})
    hidden = account.hidden_by_layer
    parts = _parts(account)
    return InspectReport(
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
        gpu_code=_gpu_code(account),
        gpu_libraries=_gpu_libraries(account),
        gpu_out_of_reach=_out_of_reach(account),
        gpu_savings=saving_lines(ledger) if account.gpu_code else [],
        hidden_bytes=sum(hidden.values()),
        hidden=_hidden(account),
        unlisted=_unlisted(account),
        models=_models(ledger),
        unchecked=[layer.diff_id for layer in image.layers if not layer.checked],
        notes=[valid(note) for note in dict.fromkeys([*image.notes, *ledger.notes, *_unread(account)])],
    )


def _models(ledger: Ledger) -> list[ModelLine]:
    view = View(ledger)
    lines = []
    for model in find_models(view):
        for name in sorted({file.format for file in model.files}):
            files = [file for file in model.files if file.format == name]
            numbers: Counter[str] = Counter()
            for file in files:
                numbers.update(details(view, file).by_dtype)
            lines.append(
                ModelLine(
                    valid(f"/{model.folder}"),
                    name,
                    sum(file.size for file in files),
                    len(files),
                    numbers.total() if numbers else None,
                    dict(numbers.most_common()),
                    valid(ledger.owner(files[0].real).name),
                )
            )
    return sorted(lines, key=lambda line: (-line.bytes, line.folder, line.format))


def _parts(account: Account) -> dict[int, list[PartLine]]:
    """The owners of each layer's bytes."""
    sizes: Counter[tuple[int, Owner]] = Counter()
    for row in account.rows:
        sizes[row.layer, row.owner] += row.bytes
    parts: dict[int, list[PartLine]] = {}
    for (layer, owner), size in sorted(sizes.items(), key=lambda item: (-item[1], item[0][1].name)):
        parts.setdefault(layer, []).append(PartLine(valid(owner.name), owner.kind, size))
    return parts


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


def saving_lines(ledger: Ledger) -> list[SavingLine]:
    """What declaring a GPU would save, for each generation of GPUs that the image has code for; reads its GPU code."""
    lines = []
    for each in savings(ledger):
        gpu = "none" if each.gpu is None else f"sm_{each.gpu}"
        lines.append(SavingLine(gpu, each.ptx_kept, each.ptx_dropped, gpu_names(gpu)))
    return lines


def _gpu_code(account: Account) -> list[GpuLine]:
    sizes: Counter[str] = Counter()
    entries: Counter[str] = Counter()
    beyond: Counter[str] = Counter()
    for file in account.gpu_code:
        for code in file.code:
            sizes[code.label] += code.bytes
            entries[code.label] += code.entries
            beyond[code.label] += code.bytes if code.out_of_reach else 0
    return [
        GpuLine(label, size, beyond[label], entries[label], gpu_names(label) if label.startswith("sm_") else [])
        for label, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    ]


def _gpu_libraries(account: Account) -> list[GpuLibraryLine]:
    groups: dict[tuple[str, Owner], list[GpuFile]] = {}
    for file in account.gpu_code:
        alone = any(code.where == "file" for code in file.code)
        path = posixpath.dirname(file.path) if alone else file.path
        groups.setdefault((f"/{path}", file.owner), []).append(file)
    lines = []
    for (path, owner), files in groups.items():
        by_arch: Counter[str] = Counter()
        for file in files:
            for code in file.code:
                by_arch[code.label] += code.bytes
        beyond = sum(code.bytes for file in files for code in file.code if code.out_of_reach)
        size = by_arch.total()
        parts = dict(by_arch.most_common())
        lines.append(GpuLibraryLine(valid(path), valid(owner.name), len(files), size, beyond, parts))
    return sorted(lines, key=lambda line: (-line.bytes, line.path))


def _out_of_reach(account: Account) -> list[OutOfReachLine]:
    sizes: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for file in account.gpu_code:
        files.update({code.out_of_reach for code in file.code if code.out_of_reach})
        for code in file.code:
            if code.out_of_reach:
                sizes[code.out_of_reach] += code.bytes
    return [OutOfReachLine(where, files[where], size) for where, size in sizes.most_common()]


def _unread(account: Account) -> list[str]:
    """Why GPU code could not be taken apart, by reason."""
    found: dict[str, list[str]] = {}
    for file in account.gpu_code:
        for code in file.code:
            if code.reason:
                found.setdefault(code.reason, []).append(file.path)
    notes = []
    for reason, paths in found.items():
        more = f" and of {len(paths) - 1:,} more" if len(paths) > 1 else ""
        notes.append(f"the GPU code of {shown(paths[0])}{more} could not be taken apart: {reason}")
    return notes
