"""What the rows of `make bench` are measured with: commands by the clock, an OCI layout, and a change of its code."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DEADWEIGHT = str(ROOT / ".venv/bin/deadweight")
PEERS = ROOT / ".venv-bench/bin"
ENOUGH = 15.0
"""Seconds: what takes longer is not run again."""
LARGEST_CODE = 5_000_000
"""Bytes of a layer that a change of code makes anew; a larger one has the dependencies."""


@dataclass(frozen=True)
class Measured:
    """One command."""

    name: str
    label: str
    """As people read it."""
    seconds: float
    """Of wall time: the median of its runs."""
    megabytes: float
    """Its largest resident memory, in 10^6 bytes; without the engine's or the registry's."""
    runs: int
    sent: int | None = None
    """Bytes of blobs that a registry got by it."""


@dataclass
class Bench:
    """What all rows share."""

    image: Path
    """A docker-archive that is an OCI layout too."""
    work: Path
    target: Sequence[str]
    """Options for `deadweight slim`."""
    runs: int
    only: Sequence[str] = ()
    rows: dict[str, Measured] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        """The XDG_CACHE_HOME of what is measured."""
        return self.work / "cache"

    def wants(self, *names: str) -> bool:
        """Whether any of these rows is asked for."""
        return not self.only or any(name in self.only for name in names)

    def run(
        self,
        name: str,
        label: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        runs: int | None = None,
        warm: bool = False,
        registry: Path | None = None,
        likewise: Sequence[Sequence[str]] = (),
    ) -> None:
        """Measures a command as the row `name`, where that is asked for; runs it all the same, since others follow.

        The commands `likewise` are further runs, for what can be done only once. The cache is empty each time, but for
        `warm`. `registry` is the folder whose growth says what was sent.
        Raises CalledProcessError, with the output on standard error.
        """
        # Installed programs have their bytecode beside them; this one writes it at its first start.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment = {**inherited, "XDG_CACHE_HOME": str(self.cache), "TMPDIR": str(self.work), **(env or {})}
        before = 0 if registry is None else stored(registry)
        seconds: list[float] = []
        peak = 0.0
        wanted = (len(likewise) + 1 if likewise else runs or self.runs) if self.wants(name) else 1
        while len(seconds) < wanted and sum(seconds) < (ENOUGH if seconds else 1.0):
            if not warm:
                shutil.rmtree(self.cache, ignore_errors=True)
            os.sync()  # what other commands wrote is not to be written to the disk while this one runs
            took, megabytes = timed([command, *likewise][len(seconds) % (len(likewise) + 1)], environment)
            seconds.append(took)
            peak = max(peak, megabytes)
        if self.wants(name):
            sent = None if registry is None else stored(registry) - before
            row = Measured(name, label, statistics.median(seconds), peak, len(seconds), sent)
            self.rows[name] = row
            more = "" if sent is None else f"  {sent:15,} bytes sent"
            print(f"{label:<64}{row.seconds:9.2f} s {row.megabytes:7.0f} MB{more}", flush=True)


def timed(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Seconds, and the largest resident memory in MB. Raises CalledProcessError, with the output on standard error."""
    with tempfile.TemporaryFile() as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - begin
        process.returncode = status
        if status:
            output.seek(0)
            sys.stderr.write(output.read().decode(errors="replace")[-3000:])
            raise subprocess.CalledProcessError(status, command)
        return took, usage.ru_maxrss * 1024 / 1e6


def stored(registry: Path) -> int:
    """The bytes of the blobs in a registry's folder."""
    return sum(path.stat().st_size for path in registry.glob("docker/registry/v2/blobs/sha256/*/*/data"))


# ---- An OCI layout, and a change of code in it --------------------------------------------------------------------


def unpack_layout(archive: Path, folder: Path) -> None:
    """The OCI layout that is in the demo's archive, its image by the tag `original`."""
    folder.mkdir()
    subprocess.run(["tar", "-C", str(folder), "-xf", str(archive)], check=True)
    index = json.loads((folder / "index.json").read_text())
    _write_index(folder, [{**index["manifests"][0], "annotations": {"org.opencontainers.image.ref.name": "original"}}])


def change_code(folder: Path, tag: str, line: str) -> int:
    """Adds to the layout's `original` what it is after a change of code, as `tag`; gives the bytes of new layers.

    `line` is appended to the application's main.py in every layer that has it after the dependencies: those are what
    a build would make anew.
    """
    index = json.loads((folder / "index.json").read_text())
    first = index["manifests"][0]
    manifest = _json(folder, first["digest"])
    config = _json(folder, manifest["config"]["digest"])
    sizes = [layer["size"] for layer in manifest["layers"]]
    after = max(range(len(sizes)), key=sizes.__getitem__) + 1
    new = 0
    for position in range(after, len(sizes)):
        if sizes[position] > LARGEST_CODE:
            continue
        data = _changed(_blob(folder, manifest["layers"][position]["digest"]).read_bytes(), line.encode())
        if data is not None:
            digest = _add(folder, data)
            manifest["layers"][position] |= {"digest": digest, "size": len(data)}
            config["rootfs"]["diff_ids"][position] = digest
            new += len(data)
    if not new:
        raise SystemExit(f"{folder}: no layer after the dependencies has the application's code")
    encoded = json.dumps(config).encode()
    manifest["config"] |= {"digest": _add(folder, encoded), "size": len(encoded)}
    encoded = json.dumps(manifest).encode()
    described = {**first, "digest": _add(folder, encoded), "size": len(encoded)}
    described["annotations"] = {"org.opencontainers.image.ref.name": tag}
    _write_index(folder, [*index["manifests"], described])
    return new


def _changed(data: bytes, line: bytes) -> bytes | None:
    """The tar of a layer with the line at the end of main.py; None where it has none."""
    out = io.BytesIO()
    found = False
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for entry in old:
            content = old.extractfile(entry).read() if entry.isreg() else b""  # type: ignore[union-attr]
            if entry.isreg() and entry.name.endswith("src/factcheck_demo/main.py"):
                content += line
                entry.size = len(content)
                found = True
            new.addfile(entry, io.BytesIO(content))
    return out.getvalue() if found else None


def _blob(folder: Path, digest: str) -> Path:
    return folder / "blobs" / digest.replace(":", "/")


def _json(folder: Path, digest: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_blob(folder, digest).read_text())
    return found


def _add(folder: Path, data: bytes) -> str:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    _blob(folder, digest).write_bytes(data)
    return digest


def _write_index(folder: Path, manifests: Sequence[Mapping[str, Any]]) -> None:
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
