"""Speed and memory on the torch image, as a docker-archive, beside a floor and peers. `make bench` runs it.

The floor is `openssl dgst -sha256` of the archive: every byte read once and hashed. Peers: dive and syft (from PyPI),
and `docker save` of the same image (Debian's engine, started here with its own data root). These machines are noisy, so
what is printed are ratios within one run, and each figure is the median of several.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DEADWEIGHT = ROOT / ".venv/bin/deadweight"
PEERS = ROOT / ".venv-bench/bin"


@dataclass(frozen=True)
class Measured:
    """One command: seconds of wall time (median), and its largest resident memory in MB."""

    name: str
    seconds: float
    megabytes: float


def measure(name: str, command: list[str], runs: int, env: dict[str, str] | None = None) -> Measured:
    """Runs a command several times. Raises CalledProcessError, with its output on standard error, when it fails."""
    seconds: list[float] = []
    peak = 0.0
    for _ in range(runs):
        with tempfile.TemporaryFile() as output:
            begin = time.perf_counter()
            process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **(env or {})})
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = status
            seconds.append(time.perf_counter() - begin)
            peak = max(peak, usage.ru_maxrss / 1000)
            if status:
                output.seek(0)
                sys.stderr.write(output.read().decode(errors="replace")[-3000:])
                raise subprocess.CalledProcessError(status, command)
    measured = Measured(name, statistics.median(seconds), peak)
    print(f"{name:<42}{measured.seconds:8.2f} s {measured.megabytes:8.0f} MB", flush=True)
    return measured


@contextmanager
def docker_engine(work: Path) -> Iterator[str]:
    """A Docker engine of our own; gives its DOCKER_HOST."""
    host = f"unix://{work}/docker.sock"
    # --bridge none and no iptables: loading and saving need no network.
    command = ["dockerd", "--data-root", str(work / "data"), "--exec-root", str(work / "exec"), "--host", host]
    command += ["--pidfile", str(work / "pid"), "--bridge", "none", "--iptables=false"]
    with (work / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            for _ in range(120):
                if (work / "docker.sock").exists():
                    break
                time.sleep(0.5)
            yield host
        finally:
            process.terminate()
            process.wait(60)


def docker_save(archive: Path, work: Path) -> Measured:
    """`docker save` of the image in `archive`, to a file."""
    with docker_engine(work) as host:
        env = {"DOCKER_HOST": host}
        loaded = subprocess.run(
            ["docker", "load", "-q", "-i", str(archive)], env={**os.environ, **env}, check=True, capture_output=True
        )
        image = loaded.stdout.decode().split(":", 1)[1].strip()
        return measure("docker save", ["docker", "save", "-o", str(work / "saved.tar"), image], 1, env)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, default=ROOT / "build/demo/factcheck-torch.tar")
    parser.add_argument("--work", type=Path, default=ROOT / "build/bench", help="for results and the engine's data")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--no-docker", action="store_true")
    given = parser.parse_args()
    if not given.image.exists():
        build = [sys.executable, str(ROOT / "examples/demo/build_image.py"), "--variant", "torch"]
        given.image.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([*build, "--work", str(given.work / "image"), "--out", str(given.image)], check=True)
    given.work.mkdir(parents=True, exist_ok=True)
    slim = given.work / "slim.tar"
    source = f"docker-archive:{given.image}"
    print(f"{given.image}: {given.image.stat().st_size:,} bytes, {os.cpu_count()} cores, median of {given.runs} runs")
    subprocess.run(["openssl", "dgst", "-sha256", str(given.image)], check=True, capture_output=True)  # warms the cache
    floor = measure("openssl dgst -sha256 (the floor)", ["openssl", "dgst", "-sha256", str(given.image)], given.runs)
    inspect = measure("deadweight inspect", [str(DEADWEIGHT), "inspect", source], given.runs)
    target = ["--gpu", "h100", "--drop-ptx"]
    planning = [str(DEADWEIGHT), "plan", source, *target, "-o", str(given.work / "plan.json")]
    plan = measure("deadweight plan --gpu h100 --drop-ptx", planning, given.runs)
    command = [str(DEADWEIGHT), "slim", source, *target, "--to", f"docker-archive:{slim}", "--force"]
    slimmed = measure("deadweight slim --gpu h100 --drop-ptx", command, given.runs)
    dive = measure(
        "dive",
        [str(PEERS / "dive"), "--source", "docker-archive", str(given.image), "--json", str(given.work / "d")],
        given.runs,
    )
    syft = measure("syft", [str(PEERS / "syft"), source, "-o", f"json={given.work}/s"], 1)
    results = [floor, inspect, plan, slimmed, dive, syft]
    if not given.no_docker:
        results.append(docker_save(given.image, given.work))
    print()
    print(f"inspect against dive:        {inspect.seconds / dive.seconds:6.2f}  (aim: at most 0.50)")
    print(f"inspect against syft:        {inspect.seconds / syft.seconds:6.2f}")
    print(f"slim against the floor:      {slimmed.seconds / floor.seconds:6.2f}  (aim: at most 4.00)")
    if not given.no_docker:
        print(f"slim against docker save:    {slimmed.seconds / results[-1].seconds:6.2f}")
    peak = max(inspect.megabytes, plan.megabytes, slimmed.megabytes)
    print(f"largest memory of deadweight:{peak:6.0f}  MB (aim: under 400)")
    print(f"image: {given.image.stat().st_size:,} -> {slim.stat().st_size:,} bytes as archives")
    if given.json:
        given.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
    shutil.rmtree(given.work)


if __name__ == "__main__":
    main()
