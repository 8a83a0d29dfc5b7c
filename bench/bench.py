"""Speed and memory on the demo's image, beside a floor and peers. `make bench` runs it on the torch image.

The floor is `openssl dgst -sha256` of the archive: every byte read once and hashed. Peers: dive and syft (from PyPI),
Debian's Docker engine and registry (started here, with folders of their own), and skopeo. Machines are noisy, so what
is printed at the end are ratios within one run. `--image small --only NAME` tries a row out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bench_kit import ROOT, Bench
from bench_page import page, ratios
from bench_rows import GROUPS

TARGETS = {"torch": ["--gpu", "h100", "--drop-ptx"], "small": []}


def demo_image(variant: str, work: Path) -> Path:
    """The demo's image, built where it is not there."""
    image = ROOT / f"build/demo/factcheck-{variant}.tar"
    if not image.exists():
        image.parent.mkdir(parents=True, exist_ok=True)
        build = [sys.executable, str(ROOT / "examples/demo/build_image.py"), "--variant", variant]
        subprocess.run([*build, "--work", str(work / "image"), "--out", str(image)], check=True)
    return image


def machine() -> dict[str, object]:
    """What this ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    load = os.getloadavg()[0]
    return {
        # Which one matters: builds without optimizations take a fifth longer for what is Python's own work.
        "python": f"{platform.python_version()} ({Path(sys.executable).resolve()})",
        "cores": os.cpu_count(),
        "processor": processor,
        "memory": memory,
        "kernel": platform.release(),
        "load": load,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="torch", help="torch, small, or the path of an archive of either")
    parser.add_argument("--work", type=Path, default=ROOT / "build/bench", help="where the rows work: 35 GB for torch")
    parser.add_argument("--runs", type=int, default=3, help="at most, of what takes under 15 seconds")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a row; the JSON has their names")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--markdown", type=Path, help="where to write the page")
    given = parser.parse_args()
    work = given.work.absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    image = demo_image(given.image, work) if given.image in TARGETS else Path(given.image).absolute()
    variant = given.image if given.image in TARGETS else ("torch" if "torch" in image.name else "small")
    found: dict[str, object] = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine()}
    bench = Bench(image, work, TARGETS[variant], given.runs, given.only)
    print(f"{image}: {image.stat().st_size:,} bytes, {os.cpu_count()} cores", flush=True)
    try:
        for group in GROUPS:
            group(bench)
    finally:
        shutil.rmtree(work)
    rows = {name: asdict(row) for name, row in bench.rows.items()}
    if not rows:
        parser.error(f"there is no row of the name {' or '.join(given.only)}")
    print()
    for text, value in ratios(rows):
        print(f"{text:<72}{value:8.2f}")
    found |= {"image": variant, "bytes": image.stat().st_size, "rows": list(rows.values())}
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    if given.markdown:
        given.markdown.write_text(page(found))


if __name__ == "__main__":
    main()
