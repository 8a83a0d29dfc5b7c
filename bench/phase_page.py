"""docs/phases.md: phases.md beside this file, with what was measured in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

Result = Mapping[str, Any]

WHAT = {
    "original": "compilers in the base, everything copied, tests and pytest in",
    "phase-1": "no tests, scripts and development tools",
    "phase-2": "several stages: no compilers; a strip step that strips nothing",
    "phase-2-as-claimed": "phase-2 with a strip step that runs",
    "deadweight-slim": "`deadweight slim` of phase-2 for sm_90",
    "deadweight-dockerfile": "`deadweight dockerfile` for sm_90, built by Docker",
    "deadweight-build": "`deadweight build` for sm_90, no engine",
}
REPORTED = {"original": "8.03 GB", "phase-1": "7.93 GB", "phase-2": "7.55 GB", "phase-2-as-claimed": "7.55 GB"}
TARGET = 6_200_000_000
TITLES = ("shape", "bytes", "compressed", "the report", "built cold", "after a change", "pushed then", "checks")


def page(results: Mapping[str, Result]) -> str:
    """The page, from the results of all shapes by name."""
    original, one, two, claimed = (results[n] for n in ("original", "phase-1", "phase-2", "phase-2-as-claimed"))
    categories = {each["name"]: each["bytes"] for each in two["categories"]}
    return Template(Path(__file__).with_name("phases.md").read_text()).substitute(
        table=_table(results),
        best=_best(results),
        failures=_failures(results),
        layers=_layers(results),
        strip_layer=f"{sum(e['bytes'] for e in two['layers'] if 'strip --strip' in e['created_by']):,}",
        stripped=size(two["bytes"] - claimed["bytes"]),
        claimed_checks=_passed(claimed),
        build_tools=size(one["bytes"] - two["bytes"]),
        tests_and_scripts=size(original["tests_and_scripts"]),
        first_phase=size(original["bytes"] - one["bytes"]),
        routes=next(check["after"] for check in two["checks"] if "routes" in check["name"]),
        smallest=size(min(found["bytes"] for found in results.values())),
        gpu_code=size(categories["GPU code"]),
        symbols=size(categories["symbols"]),
        phase_push=size(two["change_pushed"]),
        build_push=size(results["deadweight-build"]["change_pushed"]),
    )


def size(count: int) -> str:
    """Bytes as people say them, in decimal units."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if abs(count) >= unit:
            return f"{count / unit:.2f} {name}" if unit == 10**9 else f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def _passed(found: Result) -> str:
    return f"{sum(check['ok'] for check in found['checks'])} of {len(found['checks'])}"


def _table(results: Mapping[str, Result]) -> str:
    lines = [f"| {' | '.join(TITLES)} |", f"| --- |{' ---: |' * (len(TITLES) - 1)}"]
    for name, what in WHAT.items():
        found = results[name]
        cells = [f"**{name}**: {what}", f"{found['bytes']:,}", size(found["compressed"]), REPORTED.get(name, "")]
        busy = " (busy)" if found["busy"] else ""
        cells.append(f"{found['seconds']:.0f} s{busy}")
        cells.append(f"{found['change_seconds']:.1f} s{busy}" if "change_seconds" in found else "")
        cells.append(size(found["change_pushed"]) if "change_pushed" in found else "")
        cells.append(_passed(found))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _best(results: Mapping[str, Result]) -> str:
    sizes = {name: found["bytes"] for name, found in results.items() if all(each["ok"] for each in found["checks"])}
    if not sizes or min(sizes.values()) >= TARGET:
        return "No image with every check passing is below the report's target of 6.2 GB."
    name = min(sizes, key=lambda each: sizes[each])
    less = 100 - 100 * sizes[name] / results["original"]["bytes"]
    return (
        f"With every check passing, {name} has {sizes[name]:,} bytes: {size(TARGET - sizes[name])} below the report's "
        f"target of 6.2 GB, and {less:.0f} % less than the original."
    )


def _failures(results: Mapping[str, Result]) -> str:
    lines = [
        f"- {name}: {check['name']}: {check['outcome']}: {'; '.join(check['details'][:3])}"
        for name in WHAT
        for check in results[name]["checks"]
        if not check["ok"]
    ]
    return "\n".join(lines or ["Every check passes in every image."])


def _layers(results: Mapping[str, Result]) -> str:
    parts = []
    for name in ("phase-2", "deadweight-dockerfile", "deadweight-build"):
        lines = [f"{name}:", "", "| bytes | made by |", "| ---: | --- |"]
        for layer in results[name]["layers"]:
            made = " ".join(layer["created_by"].split()).replace("|", "\\|").replace("`", "'")[:110]
            lines.append(f"| {layer['bytes']:,} | `{made or 'the base'}` |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
