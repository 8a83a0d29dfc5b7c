"""A base that mmdebstrap makes: a service of Debian's Python, run by podman; made twice, it is the same.

The first base takes half a minute and stays in build/, for the next run of these tests.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.engines import needs
from support.projects import build, diff_ids, lock, project, shared_cache
from support.records import records

ASK = 'import urllib.request as r; print(r.urlopen("http://127.0.0.1:8000/health").read().decode())'
LIMITS = ("--ulimit", "nofile=20000:20000", "--ulimit", "nproc=4096:4096", "--network", "none")

pytestmark = [pytest.mark.xdist_group("build debian"), needs("mmdebstrap", "umoci", "podman")]


@dataclass(frozen=True)
class Service:
    """A project, and its image."""

    folder: Path
    work: Path
    report: dict[str, Any]

    @property
    def layers(self) -> dict[str, Path]:
        """The layers' blobs, by name."""
        blobs = self.work / "out/blobs/sha256"
        return {layer["name"]: blobs / layer["diff_id"][7:] for layer in self.report["layers"]}


def command(*words: str | Path) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    # podman takes the path for a name, in which tempfile's underscores may stand where they must not.
    work = Path(f"/var/tmp/deadweight-build-{secrets.token_hex(8)}")
    work.mkdir(mode=0o700)
    try:
        folder = project(work / "svc")
        lock(folder, "--extra", "more")
        with shared_cache() as cache:
            report = build(folder, "debian:bookworm-slim", f"oci:{work / 'out'}:svc", "--cache", str(cache))
        yield Service(folder, work, report)
    finally:
        shutil.rmtree(work)


def test_nothing_of_this_machine_is_in_the_base(service: Service) -> None:
    with tarfile.open(service.layers["base"]) as tar:
        members = {member.name.removeprefix("./"): member for member in tar}
    times = {member.mtime for member in members.values()}
    assert max(times) == 315532800
    assert not {"etc/hostname", "etc/resolv.conf", "etc/machine-id"} & set(members)
    held = ("var/lib/apt/lists/", "var/cache/apt/", "var/log/", "tmp/", "root/.", "dev/")
    files = [name for name, member in members.items() if member.size and name.startswith(held)]
    assert [name for name in files if name not in ("root/.bashrc", "root/.profile")] == []
    assert not [name for name in members if name.startswith("usr/share/man/man")]
    assert "dev" not in members
    # The health check asks by Python, and /usr is merged without Perl's library.
    assert not {"usr/bin/curl", "usr/share/perl/5.36.0/strict.pm"} & set(members)
    assert service.report["layers"][0]["bytes"] < 125_000_000


def test_the_service_runs_in_podman(service: Service) -> None:
    with tempfile.TemporaryDirectory(prefix="deadweight-podman-", dir="/var/tmp") as folder:
        podman = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        podman += ["--runtime", "runc", "--cgroup-manager", "cgroupfs"]
        try:
            command(*podman, "pull", "-q", f"oci:{service.work / 'out'}:svc")
            image = command(*podman, "images", "-q").split()[0]
            assert service.report["image"]["digest"].removeprefix("sha256:").startswith(image)
            script = "uvicorn svc.main:app --port 8000 >/tmp/log 2>&1 & for i in $(seq 100); do "
            script += f"python -c '{ASK}' 2>/dev/null && break; sleep 0.2; done; echo; svc; id -un; "
            script += "python -c 'import greenlet, sys; print(sys.prefix, sys.version_info[:2])'"
            said = command(*podman, "run", "--rm", *LIMITS, image, "sh", "-c", script)
            assert '"status":"ok","uid":10001,"folder":"/app"' in said
            assert said.splitlines()[-3:] == ["said by 10001", "app", "/opt/venv (3, 11)"]
        finally:
            for words in (("rm", "--all", "--force"), ("rmi", "--all", "--force")):
                subprocess.run([*podman, *words], check=False, capture_output=True)


def test_records_are_true_and_dpkg_finds_nothing(service: Service) -> None:
    with tempfile.TemporaryDirectory(prefix="deadweight-unpack-", dir="/var/tmp") as folder:
        command("umoci", "unpack", "--image", f"{service.work / 'out'}:svc", f"{folder}/bundle")
        root = Path(folder) / "bundle/rootfs"
        wrong, lines = records(root)
        assert (wrong, lines > 200) == (set(), True)
        said = subprocess.run(
            ["dpkg", f"--root={root}", "--verify"], capture_output=True, text=True, check=False
        ).stdout
        changed = [line.split()[-1] for line in said.splitlines()]
        # What the slim variant does without.
        assert [path for path in changed if not path.startswith("/usr/share/")] == []


@pytest.mark.slow
def test_another_base_from_the_same_archive_is_the_same(service: Service) -> None:
    archives = command("apt-get", "indextargets", "--format", "$(REPO_URI)").split()
    mirror = next(each for each in archives if each.endswith("/debian/"))  # whichever this machine has
    words = ("--no-cache", "--mirror", mirror)
    runs = [
        build(service.folder, "debian:bookworm-slim", f"oci:{service.work / name}", *words, environment={"TZ": zone})
        for name, zone in (("one", "UTC"), ("two", "Asia/Tokyo"))
    ]
    assert diff_ids(runs[0]) == diff_ids(runs[1])
    assert runs[0]["image"]["digest"] == runs[1]["image"]["digest"]
