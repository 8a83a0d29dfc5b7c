"""What reports say, as data: one document for each command. Renderers only format.

All integers are bytes unless their name says otherwise. Layers are counted from 0, as positions in the manifest.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from deadweight.decoding import from_json
from deadweight.report.text import printable_json
from deadweight.verify.model import Verdict

_TOO_MUCH: Final = 1 << 63


class ImageLine(msgspec.Struct, frozen=True):
    """Which image it was."""

    reference: str
    digest: str
    """The configuration's digest, which is the image ID."""
    platform: str
    tag: str | None = None
    manifest_digest: str | None = None


class PartLine(msgspec.Struct, frozen=True):
    """Somebody's bytes in one layer."""

    name: str
    kind: str
    bytes: int


class LayerLine(msgspec.Struct, frozen=True):
    """One layer."""

    layer: int
    diff_id: str
    bytes: int
    """Of the uncompressed tar."""
    stored_bytes: int
    """Of the blob, as the source stores it."""
    created_by: str
    entries: int
    """How many, whiteouts included."""
    hidden_bytes: int
    """Of entries that no container sees, headers included."""
    owners: list[PartLine]
    """Who has put what there, largest first; adds up to `bytes`."""


class OwnerLine(msgspec.Struct, frozen=True):
    """Somebody's bytes, and why they are there."""

    name: str
    kind: str
    """`python`, `debian`, `interpreter`, `application`, `system`, `hidden` or `framing`."""
    version: str
    bytes: int
    files: int
    why: str


class CategoryLine(msgspec.Struct, frozen=True):
    """Bytes by what they are for."""

    name: str
    bytes: int


class PlaceLine(msgspec.Struct, frozen=True):
    """Bytes by directory."""

    path: str
    bytes: int
    files: int


class HiddenLine(msgspec.Struct, frozen=True):
    """What a layer holds and no container sees, by directory."""

    layer: int
    path: str
    bytes: int
    entries: int
    overwritten: int
    """How many of the entries were overwritten; the others were deleted."""


class GpuLine(msgspec.Struct, frozen=True):
    """GPU code by architecture."""

    arch: str
    """As NVIDIA names it: sm_90a; compute_80 for PTX; lto_50. Or what is for none: `headers` and `tables` of fatbins,
    `amd`, and `unread` for what does not parse."""
    bytes: int
    out_of_reach: int
    """Of these, what no pass takes out, unless it is asked for raw blobs; as in `gpu_out_of_reach`."""
    entries: int
    """How many pieces of code."""
    products: list[str]
    """The GPUs of this architecture, as people name them; none for PTX and LTO-IR, which are compiled for newer ones
    too."""


class GpuLibraryLine(msgspec.Struct, frozen=True):
    """The GPU code of one file, or of the files in one directory that are GPU code as a whole."""

    path: str
    owner: str
    files: int
    bytes: int
    out_of_reach: int
    by_arch: dict[str, int]
    """Largest first; adds up to `bytes`."""


class OutOfReachLine(msgspec.Struct, frozen=True):
    """GPU code that does not leave where a GPU is declared."""

    where: str
    """`data`: in data of libraries, which raw blobs are; `file`: in files of GPU code alone; `amd`; `unread`."""
    files: int
    bytes: int


class SavingLine(msgspec.Struct, frozen=True):
    """What declaring a GPU would save: about, to a few pages for each file."""

    gpu: str
    """As for --gpu: sm_90, or none."""
    ptx_kept: int
    ptx_dropped: int
    products: list[str]


class ModelLine(msgspec.Struct, frozen=True):
    """A model in one format."""

    folder: str
    format: str
    """As `safetensors`, `torch`, `onnx`, `openvino`, `tensorflow`, `flax`, `gguf`."""
    bytes: int
    files: int
    numbers: int | None
    """How many it has, of whatever kind; null where that is not known."""
    dtypes: dict[str, int]
    """The same by kind, most first: `float32`, `int64`."""
    owner: str


class InspectReport(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.inspect/1"):
    """Where every byte of an image is. `layers`, `owners` and `categories` each add up to `bytes`."""

    image: ImageLine
    bytes: int
    stored_bytes: int
    layers: list[LayerLine]
    owners: list[OwnerLine]
    categories: list[CategoryLine]
    gpu_code: list[GpuLine]
    """Adds up to the category `GPU code`; so do `gpu_libraries`."""
    gpu_libraries: list[GpuLibraryLine]
    gpu_out_of_reach: list[OutOfReachLine]
    gpu_savings: list[SavingLine]
    hidden_bytes: int
    hidden: list[HiddenLine]
    """Adds up to `hidden_bytes`."""
    unlisted: list[PlaceLine]
    """Where the files of no package are; adds up to that owner's bytes."""
    models: list[ModelLine]
    """Files that hold models, by folder and format, largest first."""
    unchecked: list[str]
    """The diff-ids of layers whose content was not read whole, and so not compared with them."""
    notes: list[str]


class CutLine(msgspec.Struct, frozen=True, rename={"pass_": "pass"}):
    """One thing that leaves, as in the plan."""

    pass_: str
    path: str
    layer: int
    action: str
    before_bytes: int
    after_bytes: int
    risk: str
    why: str
    evidence: str
    owner: str
    """Whose it was, as `inspect` names owners."""
    to: str | None = None
    below: int = 0
    """How many paths below it leave with it, where a whole directory does."""


class PassLine(msgspec.Struct, frozen=True, rename={"pass_": "pass"}):
    """What one pass saves."""

    pass_: str
    risk: str
    cuts: int
    bytes: int


class OwnerSaving(msgspec.Struct, frozen=True):
    """What leaves of somebody's bytes, tar framing included."""

    name: str
    kind: str
    cuts: int
    bytes: int


class LayerChange(msgspec.Struct, frozen=True):
    """One layer, before and after."""

    layer: int
    before_bytes: int
    predicted_bytes: int
    after_bytes: int | None
    kept: bool
    """Whether it was to stay as it is."""
    created_by: str
    diff_id: str
    after_diff_id: str | None


class SwapLine(msgspec.Struct, frozen=True):
    """A build of a distribution that took another one's place."""

    name: str
    before: str
    """The versions."""
    after: str
    wheel: str
    sha256: str


class SlimReport(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.report/1"):
    """What a plan comes to. What begins with `after` or `compressed` is null while nothing is built.

    The passes' bytes, the owners', the cuts' differences and the layers' differences each add up to `before_bytes` less
    `predicted_bytes`.
    """

    image: ImageLine
    target: dict[str, Any]
    """What GPU code is to run on, as in the plan; empty: nothing was declared, and it stays as it is."""
    after: ImageLine | None
    before_bytes: int
    predicted_bytes: int
    after_bytes: int | None
    compressed_before_bytes: int | None
    """Of the blobs as the source stores them, which may be uncompressed."""
    compressed_after_bytes: int | None
    edited: bool
    """Whether the plan had been edited by hand, so that it was worked out again."""
    passes: list[PassLine]
    owners: list[OwnerSaving]
    layers: list[LayerChange]
    cuts: list[CutLine]
    verdict: Verdict
    notes: list[str]
    gpu_savings: list[SavingLine] = []
    """Where no GPU was declared."""
    swaps: list[SwapLine] = []
    """What was swapped before anything else; what that saves is the pass `swap`."""


class PlatformsReport(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.platforms/1"):
    """What slimming every image of an index came to."""

    reference: str
    digest: str
    """Of the index."""
    after_reference: str
    after_digest: str
    """Of the new index."""
    platforms: list[SlimReport]
    notes: list[str]
    """What is left out, and why."""


class PhaseLine(msgspec.Struct, frozen=True):
    """One image among several."""

    reference: str
    digest: str
    platform: str
    bytes: int
    stored_bytes: int
    difference: int
    """To the image before it; 0 for the first."""
    cumulative: int
    """To the first image."""
    share: float
    """Of the first image's bytes; 1.0 for the first itself."""
    gap: int | None
    """How far above the target it is, below zero when under it; null without a target."""


class OwnerChange(msgspec.Struct, frozen=True):
    """Somebody's bytes in two images, where they or the version differ."""

    name: str
    kind: str
    change: Literal["added", "removed", "upgraded", "downgraded", "changed", "grown", "shrunk"]
    """`changed` is a version that is neither newer nor older: another build of it, or two of which one cannot tell."""
    before_version: str
    """Several, with commas, where one name is there in several versions."""
    after_version: str
    before_bytes: int
    after_bytes: int


class BytesChange(msgspec.Struct, frozen=True):
    """Bytes of one kind in two images."""

    name: str
    before_bytes: int
    after_bytes: int


class FileChange(msgspec.Struct, frozen=True):
    """A file's bytes in two images, where they differ."""

    path: str
    change: Literal["added", "removed", "grown", "shrunk"]
    before_bytes: int
    after_bytes: int


class FileChanges(msgspec.Struct, frozen=True):
    """The files that a container sees in one image and not in the other, or in another size, by path."""

    count: int
    """How many."""
    before_bytes: int
    """Of all of them: content alone. A file with several names counts by one of them."""
    after_bytes: int
    largest: list[FileChange]
    """At most 1,000, the largest differences first."""


class LayerName(msgspec.Struct, frozen=True):
    """A layer that one image has and another has not."""

    layer: int
    diff_id: str
    bytes: int
    created_by: str


class ImageChange(msgspec.Struct, frozen=True):
    """What a change did to an image. The differences of `owners` and of `categories` each add up to that of `bytes`."""

    before: int
    """Which of the images, from 0."""
    after: int
    before_bytes: int
    after_bytes: int
    owners: list[OwnerChange]
    """All that differ, the largest differences first."""
    unchanged: int
    """How many owners have the same bytes and version in both."""
    unchanged_bytes: int
    categories: list[BytesChange]
    """All that either has, as are those of `gpu_code`."""
    gpu_code: list[BytesChange]
    """By architecture; empty where neither has any."""
    shared_bytes: int
    """Of layers that both have, which a registry stores and a machine pulls once."""
    shared_layers: int
    layers_gone: list[LayerName]
    layers_new: list[LayerName]
    files: FileChanges | None = None
    """Null where a report stood for an image: it has sums alone."""


class CompareReport(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.compare/1"):
    """Images one after the other, as the phases of a diet, or an image before and after a change."""

    target_bytes: int | None
    images: list[PhaseLine]
    changes: list[ImageChange]
    """From each image to the next."""
    notes: list[str]


class VerifyReport(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.verdict/1"):
    """Whether one image behaves like another, or, without `before`, is as it was asked to be."""

    before: ImageLine | None
    after: ImageLine
    spec: str
    """Where the specification came from; empty: the defaults alone."""
    verdict: Verdict


def encode(report: msgspec.Struct) -> bytes:
    """A report as JSON: indented, and with nothing in it that a terminal could obey."""
    text = msgspec.json.format(msgspec.json.encode(report), indent=2).decode()
    return (printable_json(text) + "\n").encode()


def read_inspect(data: bytes) -> InspectReport:
    """A report of `inspect` from its JSON. Raises ValueError, naming the field, when it is none or does not add up."""
    try:
        report = from_json(data, InspectReport)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    for field in ("layers", "owners", "categories", "gpu_code"):
        sizes = [line.bytes for line in getattr(report, field)]
        if any(not 0 <= size < _TOO_MUCH for size in (report.bytes, report.stored_bytes, *sizes)):
            raise ValueError(f"there is a size in it or its `{field}` that no image has: it was changed by hand")
        if field != "gpu_code" and sum(sizes) != report.bytes:
            raise ValueError(f"`{field}` do not add up to `bytes`: it was changed by hand")
    return report
