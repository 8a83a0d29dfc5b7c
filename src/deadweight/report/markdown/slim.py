"""What a plan comes to, built or not, as Markdown."""

from __future__ import annotations

from deadweight.report.markdown.text import Row, bytes_table, code, listed, prose, table
from deadweight.report.markdown.verdict import verdict_lines
from deadweight.report.model import PlatformsReport, SlimReport
from deadweight.report.terminal import target_line
from deadweight.sizes import show_share, show_size

_PASSES = 8
_OWNERS = 5
_NOTES = 2


def slim_lines(report: SlimReport) -> list[str]:
    """The verdict where there is one, sizes before and after, what leaves by pass and by owner."""
    saved = report.before_bytes - report.predicted_bytes
    share = show_share(saved, report.before_bytes)
    title = f"{show_size(report.before_bytes)} → {show_size(report.predicted_bytes)}"
    title += f": {share} less" if report.before_bytes else ""
    passes = [Row(one.bytes, (code(one.pass_), one.risk, f"{one.cuts:,}")) for one in report.passes]
    owners = [Row(one.bytes, (code(one.name), one.kind)) for one in report.owners]
    lines = [f"### {title}", ""]
    if report.verdict.probes:
        lines += [*verdict_lines(report.verdict), ""]
    lines += [_outcome(report), *_sizes(report)]
    if report.passes:
        lines += bytes_table("Saved, by pass", ("pass", "risk", "cuts"), passes, _PASSES, "saved")
        lines += bytes_table("Saved, by owner", ("owner", "kind"), owners, _OWNERS, "saved")
    return lines + listed(report.notes, _NOTES)


def platforms_lines(report: PlatformsReport) -> list[str]:
    """One table for all platforms."""
    rows = []
    for one in report.platforms:
        saved = one.before_bytes - one.predicted_bytes
        sizes = [f"{size:,}" for size in (one.before_bytes, one.predicted_bytes, saved)]
        rows.append((*sizes, show_share(saved, one.before_bytes), code(one.image.platform)))
    return [
        f"### {code(report.after_reference)}",
        "",
        f"The index of {len(report.platforms):,} images slimmed from {code(report.reference)}: "
        + code(report.after_digest[:19]),
        *table(("before", "after", "saved", "share", "platform"), rows, 4),
        *listed(report.notes, _NOTES),
    ]


def _outcome(report: SlimReport) -> str:
    target = f" For {prose(target_line(report.target))}." if report.target else ""
    if report.after is None or report.after_bytes is None:
        return f"{code(report.image.reference)}: predicted, not built.{target}"
    same = "as predicted, to the byte" if report.after_bytes == report.predicted_bytes else "NOT as predicted"
    return f"{code(report.image.reference)} → {code(report.after.reference)}, built {same}.{target}"


def _sizes(report: SlimReport) -> list[str]:
    """Before, predicted and built; stored sizes where they are other ones."""
    lines = [
        ("before", report.before_bytes, report.compressed_before_bytes),
        ("predicted", report.predicted_bytes, None),
    ]
    if report.after_bytes is not None:
        lines.append(("built", report.after_bytes, report.compressed_after_bytes))
    stored = any(size is not None and size != whole for _, whole, size in lines)
    rows = [
        (f"{whole:,}", show_size(whole), *((f"{size:,}" if size is not None else "",) if stored else ()), name)
        for name, whole, size in lines
    ]
    saved = report.before_bytes - lines[-1][1]
    last = (f"**{saved:,}**", f"**{show_size(saved)}**", *(("",) if stored else ()), "**saved**")
    return table(("bytes", "size", *(("stored",) if stored else ()), ""), (*rows, last), 3 if stored else 2)
