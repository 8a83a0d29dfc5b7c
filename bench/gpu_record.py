"""The record of one check by gpu_check.py: the JSON document, its file, and its summary for people."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu_trees import ROOT, Stack, own_version
from gpu_verdicts import Judged, counted, table

SCHEMA = "deadweight.gpu-check/1"


def told(*line: str) -> str | None:
    """What a program prints; None where there is no such program, or it fails."""
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=30, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def about(given: argparse.Namespace, stack: Stack, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The record's head: what was checked, where, and by what."""
    changes = None if given.commit else told("git", "status", "--porcelain", "--", "src", "bench")
    return {
        "schema": SCHEMA,
        "same": None,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "deadweight": {
            "version": own_version(),
            "commit": given.commit or told("git", "rev-parse", "HEAD"),
            "modified": None if changes is None else bool(changes),
        },
        "machine": {
            **facts,
            "device": given.device,
            "driver": told("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
            "python": stack.version,
            "platform": platform.platform(),
            "cores": len(os.sched_getaffinity(0)),
        },
        "versions": stack.distributions,
        "trees": {"original": asdict(stack.tree)},
        "measures": {},
        "problems": [],
        "not_done": [],
        "errors": [],
        "commands": [" ".join(map(str, sys.argv))],
    }


def summary(record: Mapping[str, Any]) -> list[str]:
    """The record for people, in a few lines."""
    machine, trees = record["machine"], record["trees"]
    gpu = f"{machine['gpu']}, driver {machine['driver']}" if machine["gpu"] else "no GPU"
    lines = [
        f"{gpu}, torch {machine['torch']}, Python {machine['python']}",
        f"{'':<34}{'original':>16}{'pruned':>16}{'ratio':>8}",
    ]

    def row(name: str, before: float, after: float, digits: int) -> None:
        ratio = f"{after / before:8.2f}" if before else ""
        lines.append(f"{name:<34}{before:16,.{digits}f}{after:16,.{digits}f}{ratio}")

    if "pruned" in trees:
        row("bytes", trees["original"]["bytes"], trees["pruned"]["bytes"], 0)
    for setting, found in record["measures"].items():
        for key, before in found.get("original", {}).items():
            row(f"{setting}: {key.replace('_', ' ')}", before, found["pruned"][key], 2 if "seconds" in key else 0)
    sections = {"probes": "probes", "probes_eager": "probes, eager loading"}
    for key, title in sections.items():
        judged = [Judged(each["name"], each["verdict"], each["why"]) for each in record.get(key, ())]
        if judged:
            lines += [f"{title}: {counted(judged)}", *table(judged)]
    if "other_gpu" in record:
        judged = [Judged(**each) for each in record["other_gpu"]["probes"]]
        lines += [f"pruned for {record['other_gpu']['target']} instead: {counted(judged)}"]
        lines += table(judged, quiet=("no kernel image",))
    lines += [f"problem: {text}" for text in record["problems"]]
    lines += [f"not done: {text}" for text in record["not_done"]]
    answer = {True: "the same", False: "DIFFERENT", None: "no answer"}[record["same"]]
    return [*lines, f"verdict: {answer}, after {record['seconds']:.0f} s"]


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Writes the record, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(record, indent=1) + "\n")
    beside.replace(path)


def default_out(record: Mapping[str, Any], target: str, given: argparse.Namespace) -> Path:
    """docs/evidence/gpu-check-<gpu>-<date>.json"""
    gpu = record["machine"]["gpu"] if given.device == "cuda" else f"cpu-{target}"
    slug = re.sub(r"[^a-z0-9]+", "-", gpu.lower().removeprefix("nvidia")).strip("-")
    more = "-raw-blobs" * given.raw_blobs + "-recompress" * given.recompress
    return ROOT / f"docs/evidence/gpu-check-{slug}{more}-{record['date'][:10]}.json"
