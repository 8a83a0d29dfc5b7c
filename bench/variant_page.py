"""docs/variants.md: variants.md beside this file, with what was measured in it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from phase_page import size

Result = Mapping[str, Any]

WHAT = {
    "phase-2": "the image as the report left it",
    "sm_90": "for one GPU",
    "cpu-slim": "the CPU build of torch in place of the CUDA build",
    "cpu-build": "the same, built from the project",
    "api-core": "split: the core, asked through it",
    "ml-inference": "split: the inference service, for one GPU",
    "fp16": "for one GPU, weights in half precision",
    "int8": "for one GPU, weights in 8 bits",
}
TITLES = (
    *("variant", "bytes", "gzip", "zstd", "start-up", "first answer", "embed", "verify", "memory"),
    *("cosine", "largest difference", "judgements", "verdicts"),
)
NOISE = 1.5
"""A ratio of two latencies that says nothing: on a busy machine the same code has differed from itself by as much."""


def page(results: Mapping[str, Result]) -> str:
    """The page, from the results of all images by name."""
    return Template(Path(__file__).with_name("variants.md").read_text()).substitute(
        table=_table(results),
        commands="\n".join(f"| {name} | `{results[name]['command']}` |" for name in WHAT),
        owners=_owners(results),
        sentences=results["sm_90"]["accuracy"]["sentences"],
        judgements=results["sm_90"]["accuracy"]["judgements"],
        verdicts=results["sm_90"]["accuracy"]["verdicts"],
        right=results["phase-2"]["accuracy"]["judgements_right"],
        starts=len(results["phase-2"]["start_seconds"]),
        embeds=results["phase-2"]["latency"]["embed"]["count"],
        verifies=results["phase-2"]["latency"]["verify"]["count"],
        goals=_goals(results),
        added=_added(results),
        together=_together(results),
        **_figures(results),
    )


def _table(results: Mapping[str, Result]) -> str:
    lines = [f"| {' | '.join(TITLES)} |", f"| --- |{' ---: |' * (len(TITLES) - 1)}"]
    for name, what in WHAT.items():
        found = results[name]
        exact = found["accuracy"]
        busy = " (busy)" if found["busy"] else ""
        cells = [f"**{name}**: {what}", f"{found['bytes']:,}"]
        cells += [size(found["compressed"][kind]) for kind in ("gzip", "zstd")]
        cells += [f"{_start(found):.2f} s{busy}", f"{found['first_answer_seconds']:.1f} s{busy}"]
        cells += [f"{_milliseconds(found['latency'][kind])}{busy}" for kind in ("embed", "verify")]
        cells += [size(found["peak_bytes"]), f"{exact['least_cosine']:.6f}", _small(exact["largest_difference"])]
        cells += [f"{exact[f'{kind}_agree']} of {exact[kind]}" for kind in ("judgements", "verdicts")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _start(found: Result) -> float:
    return float(statistics.median(found["start_seconds"]))


def _small(number: float) -> str:
    return f"{number:.1e}" if number else "0"


def _milliseconds(found: Result) -> str:
    return f"{found['p50_ms']:.1f} / {found['p95_ms']:.1f} ms"


def _owners(results: Mapping[str, Result]) -> str:
    lines = []
    for name in WHAT:
        largest = ", ".join(f"{owner['name']} {size(owner['bytes'])}" for owner in results[name]["owners"][:5])
        lines.append(f"| {name} | {largest} |")
    return "\n".join(lines)


def _goals(results: Mapping[str, Result]) -> str:
    goals = (("cpu-slim", 900_000_000), ("cpu-build", 900_000_000), ("api-core", 200_000_000))
    lines = []
    for name, goal in (*goals, ("ml-inference", 3_000_000_000)):
        found = results[name]["bytes"]
        said = "met" if found <= goal else f"missed by {size(found - goal)}"
        lines.append(f"- {name} at most {size(goal)}: {size(found)}, {said}.")
    return "\n".join(lines)


def _figures(results: Mapping[str, Result]) -> dict[str, str]:
    """What the text says of each image, by NAME_WHAT."""
    gpu = results["sm_90"]
    found: dict[str, str] = {}
    for name, result in results.items():
        said = {
            "size": size(result["bytes"]),
            "pull": size(result["compressed"]["gzip"]),
            "start": f"{_start(result):.1f} s",
            "memory": size(result["peak_bytes"]),
            "less": _less(result, results["phase-2"]),
            "less_than_gpu": _less(result, gpu),
            "model": size(result["model_bytes"]),
            "speed": _speed(result, gpu),
            "accuracy": _accuracy(result),
            "worth": _worth(result, gpu),
        }
        found |= {f"{name.replace('-', '_')}_{key}": value for key, value in said.items()}
    return found


def _added(results: Mapping[str, Result]) -> str:
    """Milliseconds that a question takes longer through two processes."""
    core, inference = (results[name]["latency"]["embed"]["p50_ms"] for name in ("api-core", "ml-inference"))
    return f"{core - inference:.1f} ms"


def _less(found: Result, than: Result) -> str:
    return f"{100 - 100 * found['bytes'] / than['bytes']:.0f} % smaller"


def _speed(found: Result, than: Result) -> str:
    ratio = found["latency"]["embed"]["p50_ms"] / than["latency"]["embed"]["p50_ms"]
    if 1 / NOISE < ratio < NOISE:
        return "as fast"
    return f"{1 / ratio:.1f} times as fast" if ratio < 1 else f"{ratio:.1f} times as slow"


def _accuracy(found: Result) -> str:
    exact = found["accuracy"]
    if exact["largest_difference"] == 0 and exact["largest_probability_difference"] == 0:
        return "its answers are phase-2's to the last bit"
    return (
        f"its vectors differ from phase-2's by {_small(exact['largest_difference'])} at most, and "
        f"{exact['judgements_agree']} of {exact['judgements']} judgements and {exact['verdicts_agree']} of "
        f"{exact['verdicts']} verdicts are the same"
    )


def _worth(found: Result, gpu: Result) -> str:
    share = (gpu["model_bytes"] - found["model_bytes"]) / gpu["bytes"]
    if share < 0.05:
        return f"With a model as small as this one that is {share:.1%} of the image: it pays where models are large"
    return f"That is {share:.0%} of the image"


def _together(results: Mapping[str, Result]) -> str:
    more = results["api-core"]["bytes"] + results["ml-inference"]["bytes"] - results["sm_90"]["bytes"]
    return f"{size(abs(more))} {'larger' if more > 0 else 'smaller'}"
