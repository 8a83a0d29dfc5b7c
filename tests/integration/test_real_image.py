"""The small demo image, a real one: slimmed, judged by skopeo, umoci, dpkg, pip and podman, and run.

The image is the one of `make demo-small`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.demo import NEEDED, ROOT, demo_image
from support.records import records

DEADWEIGHT = Path(sys.executable).parent / "deadweight"
SLIM_LIMIT = 560_000_000

pytestmark = [pytest.mark.xdist_group("real image"), NEEDED]


def run(*command: str | Path, check: bool = True) -> str:
    """A command's output."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the original and the slim image, as archives and unpacked by umoci, and the report."""
    image = demo_image()
    with tempfile.TemporaryDirectory(prefix="deadweight-real-", dir="/var/tmp") as folder:
        work = Path(folder)
        slim = f"docker-archive:{work / 'slim.tar'}:factcheck:slim"
        (work / "report.json").write_text(
            run(
                DEADWEIGHT,
                "slim",
                f"docker-archive:{image}",
                "--to",
                slim,
                "--json",
                "-",
                "--plan-out",
                work / "plan.json",
                "--sbom",
                f"cyclonedx={work / 'after.cdx.json'}",
                "--sbom",
                f"spdx={work / 'after.spdx.json'}",
            )
        )
        for name, source in (("before", image), ("after", work / "slim.tar")):
            run("skopeo", "copy", "-q", "--insecure-policy", f"docker-archive:{source}", f"oci:{work / 'oci'}:{name}")
            run("umoci", "unpack", "--image", f"{work / 'oci'}:{name}", work / name)
        shutil.rmtree(work / "oci")
        yield work


def tree(root: Path) -> dict[str, tuple[Any, ...]]:
    """What is at each path: type, mode, owner, size and content's digest; directories without times."""
    found: dict[str, tuple[Any, ...]] = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder) / name
            status = path.lstat()
            more: tuple[Any, ...] = ()
            if stat.S_ISLNK(status.st_mode):
                more = (str(path.readlink()),)
            elif stat.S_ISREG(status.st_mode):
                more = (status.st_size, int(status.st_mtime), hashlib.sha256(path.read_bytes()).hexdigest())
            found[str(path.relative_to(root))] = (status.st_mode, status.st_uid, status.st_gid, *more)
    return found


def test_only_what_the_plan_says_differs(work: Path) -> None:
    before, after = tree(work / "before/rootfs"), tree(work / "after/rootfs")
    plan = json.loads((work / "plan.json").read_text())
    removed: set[str] = set()
    for cut in plan["cuts"]:
        if cut["action"] == "remove":
            below = {path for path in before if path.startswith(f"{cut['path']}/")} if "below" in cut else set()
            assert len(below) == cut.get("below", 0)
            removed |= {cut["path"], *below}
    assert any("below" in cut for cut in plan["cuts"])
    rewritten = {cut["path"] for cut in plan["cuts"] if cut["action"] == "rewrite"}
    assert set(after) == set(before) - removed
    differ = {path for path in after if after[path] != before[path]}
    # Other names of a rewritten file differ with it.
    inodes = {(work / "before/rootfs" / path).stat().st_ino for path in rewritten if path in before}
    linked = {cut["path"]: cut["to"] for cut in plan["cuts"] if cut["action"] == "link"}
    for path in differ - rewritten:
        same = (work / "before/rootfs" / linked.get(path, path)).stat().st_ino
        assert same in inodes, path
    assert len(rewritten) > 10


def test_every_record_line_matches_where_it_did(work: Path) -> None:
    before, many = records(work / "before/rootfs")
    after, fewer = records(work / "after/rootfs")
    assert after <= before
    assert many > fewer > 1000


def test_dpkg_finds_nothing_new(work: Path) -> None:
    reports = {}
    for name in ("before", "after"):
        root = work / name / "rootfs"
        verify = run("dpkg", f"--root={root}", "--verify", check=False).splitlines()
        listed = run("dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Package} ${db:Status-Abbrev}\n")
        audit = run("dpkg", f"--root={root}", "--audit", check=False)
        reports[name] = (set(verify), set(listed.splitlines()), audit)
    assert reports["after"][0] <= reports["before"][0]
    assert reports["after"][1] < reports["before"][1]
    assert reports["after"][2] == reports["before"][2]
    assert not any(line.startswith(("gcc ", "g++ ", "make ")) for line in reports["after"][1])
    assert any(line.startswith("curl ii") for line in reports["after"][1])  # the health check's


def test_the_report_is_true(work: Path) -> None:
    report = json.loads((work / "report.json").read_text())
    assert report["schema"] == "deadweight.report/1"
    inspected = json.loads(run("skopeo", "inspect", f"docker-archive:{work / 'slim.tar'}"))
    manifest = json.loads(run("skopeo", "inspect", "--raw", f"docker-archive:{work / 'slim.tar'}"))
    sizes = [layer["size"] for layer in manifest["layers"]]
    assert sum(sizes) == report["after_bytes"] == report["predicted_bytes"]
    cuts = sum(cut["before_bytes"] - cut["after_bytes"] for cut in report["cuts"])
    assert report["before_bytes"] - cuts == report["after_bytes"] < SLIM_LIMIT
    labels = inspected["Labels"]
    assert labels["org.opencontainers.image.title"] == "factcheck-demo"
    assert labels["deadweight.source"].startswith("sha256:")


def test_slimming_again_gives_the_same_layers(work: Path) -> None:
    image = f"docker-archive:{ROOT / 'build/demo/factcheck-small.tar'}"
    run(DEADWEIGHT, "apply", work / "plan.json", "--from", image, "--to", f"docker-archive:{work / 'again.tar'}")
    one, two = (json.loads(run("skopeo", "inspect", f"docker-archive:{work / n}.tar")) for n in ("slim", "again"))
    assert one["Layers"] == two["Layers"]
    (work / "again.tar").unlink()


def syft(*arguments: str | Path) -> list[dict[str, Any]]:
    """All packages that syft reads."""
    program = ROOT / ".venv-oracles/bin/syft"
    assert program.exists(), "no syft in .venv-oracles: run scripts/setup.sh test"
    found = json.loads(run("env", "SYFT_CHECK_FOR_APP_UPDATE=false", program, *arguments, "-o", "json", "-q"))
    return list(found["artifacts"])


def test_bills_of_materials_are_what_syft_reads_of_the_same_image(work: Path) -> None:
    original = ROOT / "build/demo/factcheck-small.tar"
    run(DEADWEIGHT, "inspect", original, "--sbom", f"cyclonedx={work / 'before.cdx.json'}")
    seen = {}
    others = {}
    kinds = ("pkg:pypi/", "pkg:deb/")
    for name, image in (("before", original), ("after", work / "slim.tar")):
        found = syft(f"docker-archive:{image}")
        seen[name] = {one["purl"] for one in found if one["purl"].startswith(kinds)}
        others[name] = {one["locations"][0]["path"] for one in found if not one["purl"].startswith(kinds)}
        listed = json.loads((work / f"{name}.cdx.json").read_text())["components"]
        assert {one["purl"] for one in listed if one.get("purl", "").startswith(kinds)} == seen[name]
    # What docs/sbom.md says is not listed: the crates that programs were built of.
    assert others == {"before": {"/usr/local/bin/uv", "/usr/local/bin/uvx"}, "after": set()}
    assert len(seen["before"]) > len(seen["after"]) > 100
    # And what it reads of ours: what left is not taken for what is there.
    for document in ("after.cdx.json", "after.spdx.json"):
        converted = {one["purl"] for one in syft("convert", work / document)}
        assert {one for one in converted if one.startswith(kinds)} == seen["after"]


@pytest.fixture(scope="module")
def podman(work: Path) -> Iterator[list[str]]:
    """A podman with storage of its own, in which the slim image is."""
    with tempfile.TemporaryDirectory(prefix="deadweight-podman-", dir="/var/tmp") as folder:
        command = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        command += ["--runtime", "runc", "--cgroup-manager", "cgroupfs"]
        try:
            run(*command, "load", "-q", "-i", work / "slim.tar")
            yield command
        finally:
            subprocess.run([*command, "rm", "--all", "--force"], check=False, capture_output=True)
            subprocess.run([*command, "rmi", "--all", "--force"], check=False, capture_output=True)


LIMITS = ("--ulimit", "nofile=20000:20000", "--ulimit", "nproc=4096:4096", "--network", "none")


def test_the_container_works(podman: list[str]) -> None:
    def inside(script: str, check: bool = True) -> str:
        return run(*podman, "run", "--rm", *LIMITS, "factcheck:slim", "sh", "-c", script, check=check)

    assert "No broken requirements" in inside("pip check")
    assert inside("for c in gcc g++ cc make uv pytest mypy; do command -v $c; done; true") == ""
    assert inside("python3 -c 'import pytest'", check=False) == ""
    modules = "numpy, fastapi, sqlalchemy, psycopg, uvicorn, numpy.testing"
    assert inside(f"python3 -c 'import {modules}; print(numpy.linalg.svd(numpy.eye(9))[1].sum())'") == "9.0\n"
    serve = "uvicorn factcheck_demo.main:app --port 8000 >/tmp/log 2>&1 & "
    wait = "for i in $(seq 100); do curl -fsS http://127.0.0.1:8000/health 2>/dev/null && break; sleep 0.2; done"
    assert "ok" in inside(serve + wait)
