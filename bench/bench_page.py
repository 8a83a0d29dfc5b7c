"""docs/bench.md: what `make bench` measured, and the ratios that say something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Rows = Mapping[str, Mapping[str, Any]]

TABLES: Sequence[tuple[str, Sequence[str]]] = (
    ("A docker-archive, read and slimmed", ("floor", "inspect", "dive", "syft", "plan", "slim")),
    ("A Docker engine's image, slimmed back into the engine", ("save", "save-load", "engine-slim")),
    ("Again, after a change of code", ("first", "again", "slim-push", "slim-push-again")),
    (
        "Pushed to a registry on the same machine",
        ("push-docker", "push-docker-slim", "push-skopeo", "push-skopeo-slim", "push", "push-slim"),
    ),
)
RATIOS: Sequence[tuple[str, str, str]] = (
    ("inspect", "dive", "inspect, of dive's time"),
    ("inspect", "syft", "inspect, of syft's time"),
    ("slim", "floor", "slim, of the floor: every byte read and hashed"),
    ("slim", "save", "slim of the archive, of `docker save`"),
    ("engine-slim", "save-load", "slim from engine to engine, of `docker save | docker load`"),
    ("again", "first", "slim after a change of code, of the first one"),
    ("slim-push-again", "slim-push", "slim to a registry after a change of code, of the first one"),
    ("push-docker-slim", "push-docker", "`docker push` of the slim image, of the original's"),
    ("push-skopeo-slim", "push-skopeo", "`skopeo copy` of the slim image, of the original's"),
    ("push-slim", "push", "deadweight's push of the slim image, of the original's"),
    ("push", "push-skopeo", "deadweight's push of the original, of skopeo's"),
)
"""(row, beside which, as people read it)."""
_INTRODUCTION = """\
# Speed and memory

`make bench` on {date}: {cores} cores ({processor}), {gigabytes:.0f} GB of memory, Linux {kernel}, Python {python};
the load average was {load:.1f} when it began. The image is the demo's, {image}, a docker-archive of {bytes:,} bytes.

Machines are noisy: compare within this page. Seconds are of wall time, the median of up to three runs (what takes
longer than 15 seconds ran once); memory is the command's own, without that of Docker's engine. deadweight's cache is
empty at the beginning of each row, but for those after a change. The figures are in [evidence/bench](evidence/bench).
"""


def ratios(rows: Rows) -> list[tuple[str, float]]:
    """What can be said of the rows that are there: how often the second's time the first took."""
    return [(text, rows[a]["seconds"] / rows[b]["seconds"]) for a, b, text in RATIOS if a in rows and b in rows]


def page(found: Mapping[str, Any]) -> str:
    """The page, from the document that `make bench` writes."""
    machine, rows = found["machine"], {row["name"]: row for row in found["rows"]}
    lines = [
        *_INTRODUCTION.format(**found, **machine, gigabytes=machine["memory"] / 1e9).splitlines(),
        "",
        "| ratio | |",
        "| --- | ---: |",
        *(f"| {_cell(text)} | {value:.2f} |" for text, value in ratios(rows)),
    ]
    for title, names in TABLES:
        there = [rows[name] for name in names if name in rows]
        if there:
            lines += ["", f"## {title}", "", *_table(there)]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    sent = any(row["sent"] is not None for row in rows)
    lines = ["| command | seconds | resident MB |" + (" bytes sent |" if sent else "")]
    lines.append("| --- | ---: | ---: |" + (" ---: |" if sent else ""))
    for row in rows:
        seconds = f"{row['seconds']:.{1 if row['seconds'] >= 10 else 2}f}"
        line = f"| {_label(row['label'])} | {seconds} | {row['megabytes']:.0f} |"
        lines.append(line + (f" {'' if row['sent'] is None else format(row['sent'], ',')} |" if sent else ""))
    return lines


def _label(text: str) -> str:
    command, colon, rest = text.partition(":") if text.startswith("openssl") else text.partition(",")
    return _cell(f"`{command}`{colon}{rest}")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
