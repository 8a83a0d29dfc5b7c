"""Where every byte of an image is, as Markdown."""

from __future__ import annotations

from deadweight.report.gpu_code import runs_on
from deadweight.report.markdown.text import Row, bytes_table, code, listed, prose
from deadweight.report.model import ImageLine, InspectReport
from deadweight.report.terminal import command
from deadweight.report.text import plain
from deadweight.sizes import show_size

_OWNERS = 8
_CATEGORIES = 7
_LAYERS = 4
_COMMAND = 90
_GPU = 4
_NOTES = 2


def inspect_lines(report: InspectReport) -> list[str]:
    """Owners, categories, layers, GPU code; each table adds up."""
    owners = [
        Row(one.bytes, (code(f"{one.name} {one.version}".strip()), one.kind, _why(one.why))) for one in report.owners
    ]
    layers = sorted(report.layers, key=lambda layer: (-layer.bytes, layer.layer))
    made = [Row(one.bytes, (f"{one.layer + 1}", code(plain(command(one.created_by), _COMMAND)))) for one in layers]
    lines = [
        f"### {show_size(report.bytes)}: {code(report.image.reference)}",
        "",
        f"{report.bytes:,} bytes in {len(report.layers):,} layers, uncompressed; {image_name(report.image)}",
        *bytes_table("Owners", ("owner", "kind", "why it is there"), owners, _OWNERS),
        *bytes_table(
            "Categories", ("what it is",), [Row(one.bytes, (one.name,)) for one in report.categories], _CATEGORIES
        ),
        *bytes_table("Layers", ("layer", "what made it"), made, _LAYERS),
    ]
    if report.gpu_code:
        architectures = [Row(one.bytes, (code(one.arch), prose(runs_on(one)))) for one in report.gpu_code]
        lines += bytes_table("GPU code", ("architecture", "GPUs that have it"), architectures, _GPU)
    if report.gpu_savings:
        savings = ", ".join(f"{code(one.gpu)} {show_size(one.ptx_kept)}" for one in report.gpu_savings)
        lines += ["", f"What declaring a GPU would save, about: {savings}"]
    return lines + listed(report.notes, _NOTES)


def _why(why: str) -> str:
    return code(why) if "->" in why else prose(why)


def image_name(image: ImageLine) -> str:
    """Which image it is, in a few words."""
    tag = [code(image.tag)] if image.tag else []
    return ", ".join([*tag, code(image.platform), code(image.digest[:19])])
