"""Builds the reference service's image in every shape, for real, and measures it. `make phases` runs it.

A Docker engine (BuildKit on) and a registry of our own are started; images are removed as soon as they are measured,
since each takes up to 30 GB while it is built. What was measured stays in docs/evidence/phases/, so that a run that was
interrupted goes on where it was; --again measures a shape anew. docs/phases.md is written from these at the end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phase_engine import ROOT, busy, engine, make_base
from phase_page import page
from phase_shapes import DEADWEIGHT, Bench, Shape, inspected, shapes

PAGE = ROOT / "docs/phases.md"
RECORDS = ROOT / "docs/evidence/phases"


def timed(work: Callable[[Bench], Any], bench: Bench) -> tuple[float, Any]:
    """Seconds of wall time, and what came of it."""
    start = time.monotonic()
    found = work(bench)
    return round(time.monotonic() - start, 1), found


def checked(reference: str, folder: Path) -> list[dict[str, Any]]:
    """The report's six checks on an image."""
    out = folder / "check.json"
    out.unlink(missing_ok=True)
    command = [str(DEADWEIGHT), "check", reference, "--spec", "builtin:ml-api", "--json", str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if not out.exists():
        raise SystemExit(f"phases: check gave no verdict: {done.stderr}")
    keys = ("name", "outcome", "ok", "after", "details")
    return [{key: probe[key] for key in keys} for probe in json.loads(out.read_text())["verdict"]["probes"]]


def folder_size(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(shape: Shape, bench: Bench) -> dict[str, Any]:
    """Builds a shape with empty caches, then again after a change of code, and says what that comes to."""

    def say(text: str) -> None:
        print(f"phases: {shape.name}: {text}", file=sys.stderr, flush=True)

    bench.fresh_context()
    others = busy()
    say("building, with no cache" + (" (the machine is busy: what it takes will be too much)" if others else ""))
    cold, _ = timed(shape.build, bench)
    reference = shape.archive(bench)
    say(f"{cold:.0f} s; looking at it")
    report = inspected(reference)
    checks = checked(reference, bench.work)
    say("pushing it")
    pushing, _ = timed(lambda bench: bench.push(reference, shape.name), bench)
    blobs = bench.engine.blobs(shape.name)
    found = {
        "name": shape.name,
        "bytes": report["bytes"],
        "compressed": sum(blobs),
        "seconds": cold,
        "busy": others,
        "push_seconds": pushing,
        "layers": [{key: layer[key] for key in ("bytes", "created_by")} for layer in report["layers"]],
        "categories": report["categories"],
        "checks": checks,
        "tests_and_scripts": sum(folder_size(bench.context / name) for name in ("tests", "scripts")),
    }
    if shape.name != "deadweight-slim":  # which follows phase-2's
        before = shape.diff_ids(bench)
        bench.change()
        say("building it again after a change of code")
        found["change_seconds"], _ = timed(shape.build, bench)
        after = shape.diff_ids(bench)
        # A layer that changed is pushed whole, and is about as large as it was.
        found["change_pushed"] = sum(size for size, diff_id in zip(blobs, before, strict=True) if diff_id not in after)
    return found


def prepare(shape: Shape, bench: Bench, every: Mapping[str, Shape]) -> None:
    """Builds what a shape begins with, where that is not there any more."""
    for name in shape.needs:
        if not (bench.work / f"{name}.tar").exists():
            print(f"phases: {shape.name}: building {name} for it", file=sys.stderr, flush=True)
            bench.fresh_context()
            every[name].build(bench)
            every[name].archive(bench)
            every[name].clean(bench)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "build/phases", help="takes up to 40 GB meanwhile")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="only these shapes")
    parser.add_argument("--again", nargs="*", default=[], metavar="NAME", help="measure these anew; `all` of them")
    given = parser.parse_args()
    work = given.work.absolute()
    (work / "tmp").mkdir(parents=True, exist_ok=True)
    RECORDS.mkdir(parents=True, exist_ok=True)
    every = shapes()
    for name in (*(given.only or ()), *given.again):
        if name not in (*every, "all"):
            raise SystemExit(f"phases: there is no shape {name}: {', '.join(every)}")
    records = {name: RECORDS / f"{name}.json" for name in every}
    again = set(every) if "all" in given.again else set(given.again)
    todo = [name for name in every if not given.only or name in given.only]
    todo = [name for name in todo if name in again or not records[name].exists()]
    if todo:
        with engine(work) as running:
            make_base(running, work)
            bench = Bench(running, work, work / "deadweight.log")
            while todo:
                name = todo.pop(0)
                prepare(every[name], bench, every)
                found = measure(every[name], bench)
                records[name].write_text(json.dumps(found, indent=1) + "\n")
                every[name].clean(bench)
                if not any(name in every[later].needs for later in todo):
                    (work / f"{name}.tar").unlink(missing_ok=True)
    for folder in ("docker", "registry", "exec", "context", "wheel"):
        shutil.rmtree(work / folder, ignore_errors=True)
    results = {name: json.loads(path.read_text()) for name, path in records.items() if path.exists()}
    missing = [name for name in every if name not in results]
    if missing:
        print(f"phases: not measured yet, so there is no page: {', '.join(missing)}", file=sys.stderr)
    else:
        PAGE.write_text(page(results))
        print(f"phases: {PAGE} is written", file=sys.stderr)


if __name__ == "__main__":
    main()
