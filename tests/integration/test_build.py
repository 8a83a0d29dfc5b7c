"""Images built without an engine: they run, are the same wherever they are built, and change little with the code.

The dependencies are small ones from PyPI; the base is this machine's Python and shell.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.projects import DEADWEIGHT, build, diff_ids, lock, project, uv, write_base
from support.records import records

pytestmark = pytest.mark.xdist_group("build")
LIMIT = 300_000


@dataclass(frozen=True)
class Built:
    """A project that was built once."""

    folder: Path
    base: str
    cache: Path
    to: str
    report: dict[str, Any]

    def again(self, *words: str, **more: Any) -> dict[str, Any]:
        return build(self.folder, self.base, self.to, "--cache", str(self.cache), *words, **more)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    work = tmp_path_factory.mktemp("build")
    folder = project(work / "project", setuptools=True)
    lock(folder, "--extra", "more")
    base = write_base(work / "base")
    to = f"oci:{work / 'out'}:svc"
    return Built(folder, base, work / "cache", to, build(folder, base, to, "--cache", str(work / "cache")))


def copy_of(built: Built, folder: Path) -> Path:
    shutil.copytree(built.folder, folder)
    return folder


def test_the_layers_are_the_base_s_and_three_more(built: Built) -> None:
    assert [layer["name"] for layer in built.report["layers"]] == ["base", "base", "user", "dependencies", "project"]
    assert sum(layer["bytes"] for layer in built.report["layers"]) == built.report["bytes"]
    assert built.report["layers"][-1]["bytes"] < LIMIT
    assert built.report["extras"] == ["more"]


def test_it_serves_as_its_user(built: Built, tmp_path: Path) -> None:
    spec = """
[[probe]]
kind = "http"
path = "/health"
status = 200
must = true

[[probe]]
kind = "run"
name = "who"
code = "import os, sys, svc; print(os.getuid(), os.getgid(), os.getcwd(), sys.prefix, svc.__file__)"
output = ["^10001 10001 /app /opt/venv /app/lib/svc/__init__.py$"]
must = true

[[probe]]
kind = "run"
name = "script of the project"
command = ["svc"]
output = ["^said by 10001$"]
must = true

[[probe]]
kind = "run"
name = "script of a dependency"
command = ["uvicorn", "--version"]
must = true

[[probe]]
kind = "import"
modules = ["greenlet", "markupsafe._speedups"]
must = true
"""
    (tmp_path / "spec.toml").write_text(spec)
    done = subprocess.run(
        [DEADWEIGHT, "check", built.to, "--spec", tmp_path / "spec.toml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def configuration(reference: str) -> dict[str, Any]:
    layout, _, tag = reference.removeprefix("oci:").rpartition(":")
    blobs = Path(layout) / "blobs/sha256"
    index = json.loads((Path(layout) / "index.json").read_bytes())
    digest = next(
        one["digest"] for one in index["manifests"] if one["annotations"]["org.opencontainers.image.ref.name"] == tag
    )
    manifest = json.loads((blobs / digest[7:]).read_bytes())
    return dict(json.loads((blobs / manifest["config"]["digest"][7:]).read_bytes()))


def test_the_configuration_says_how_it_runs(built: Built) -> None:
    config = configuration(built.to)
    run = config["config"]
    assert config["created"] == "1980-01-01T00:00:00Z"
    assert run["User"] == "10001:10001"
    assert run["WorkingDir"] == "/app"
    assert run["Cmd"] == ["uvicorn", "svc.main:app", "--host", "0.0.0.0", "--port", "8000"]
    assert "Entrypoint" not in run  # the base has one, for its own command
    assert "PATH=/opt/venv/bin:/app/lib/bin:/usr/local/bin:/usr/bin:/bin" in run["Env"]
    assert {"PYTHONPATH=/app/lib", "HELLO=world", "PYTHONUNBUFFERED=1"} <= set(run["Env"])
    assert run["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    assert run["ExposedPorts"] == {"8000/tcp": {}}
    assert run["Labels"]["org.opencontainers.image.version"] == "0.1.0"
    made = [entry for entry in config["history"] if not entry.get("empty_layer")]
    assert len(made) == len(config["rootfs"]["diff_ids"])
    assert [entry["created_by"] for entry in made[-2:]] == [
        "deadweight build: dependencies in /opt/venv",
        "deadweight build: svc in /app/lib",
    ]


def test_what_lies_where(built: Built, tmp_path: Path) -> None:
    root = tmp_path / "root"
    words = ["--to", f"rootfs:{root}", "--cache", str(built.cache)]
    subprocess.run([DEADWEIGHT, "build", built.folder, "--base", built.base, *words], check=True, capture_output=True)
    wrong, lines = records(root)
    assert not wrong
    assert lines > 200
    assert (root / "opt/venv/bin/uvicorn").read_text().startswith("#!/opt/venv/bin/python\n")
    assert (root / "app/lib/bin/svc").read_text().startswith("#!/opt/venv/bin/python\n")
    assert str((root / "opt/venv/bin/python").readlink()).startswith("/usr/local/bin/python3")
    assert (root / "app/templates/page.html").read_text() == "<p>\n"
    assert list((root / "opt/venv/include/site").glob("python3*/greenlet/greenlet.h"))
    assert "include-system-site-packages = false" in (root / "opt/venv/pyvenv.cfg").read_text()
    passwd = (root / "etc/passwd").read_text().splitlines()
    assert passwd == ["root:x:0:0:root:/root:/bin/sh", "app:x:10001:10001::/app:/usr/sbin/nologin"]
    mine = [path for top in ("opt/venv", "app") for path in (root / top).rglob("*")]
    assert {path.suffix for path in mine} & {".pyc"} == set()
    told = [str(part).encode() for part in (built.folder, built.cache, Path.home() / ".cache")]
    for path in mine:
        status = path.lstat()
        assert status.st_mtime == 315532800
        if os.geteuid() == 0:
            assert (status.st_uid, status.st_gid) == (0, 0)
        if stat.S_ISREG(status.st_mode):
            assert stat.S_IMODE(status.st_mode) in (0o644, 0o755)
            assert not any(place in path.read_bytes() for place in told), path
    if os.geteuid() == 0:
        assert (root / "app").stat().st_uid == 10001
        assert ((root / "etc/shadow").stat().st_mode & 0o777, (root / "etc/shadow").stat().st_gid) == (0o640, 42)


def test_it_is_the_same_from_another_folder_another_cache_and_another_day(built: Built, tmp_path: Path) -> None:
    folder = copy_of(built, tmp_path / "an öther\nfolder")
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(path.stat().st_mode & ~0o077)
    environment = {
        "XDG_CACHE_HOME": str(tmp_path / "xdg"),
        "DEADWEIGHT_CACHE_DIR": "",
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "HOME": str(tmp_path),
    }
    before = os.umask(0o077)
    try:
        report = build(folder, built.base, f"docker-archive:{tmp_path / 'out.tar'}", environment=environment)
    finally:
        os.umask(before)
    assert not any(layer["cached"] for layer in report["layers"][2:])
    assert diff_ids(report) == diff_ids(built.report)
    assert report["image"]["digest"] == built.report["image"]["digest"]
    assert not (folder / "build").exists()  # where setuptools leaves what it made
    assert not list(folder.rglob("*.egg-info"))
    assert (tmp_path / "xdg/deadweight/layers").is_dir()
    assert not list((tmp_path / "xdg/deadweight/work").iterdir())


def test_a_change_of_code_changes_one_small_layer(built: Built) -> None:
    blobs = Path(built.to.removeprefix("oci:").rpartition(":")[0]) / "blobs/sha256"
    before = {path.name: path.stat().st_ino for path in blobs.iterdir()}
    main = built.folder / "src/svc/main.py"
    text = main.read_text()
    main.write_text(text.replace("said by", "said otherwise by"))
    try:
        report = built.again()
    finally:
        main.write_text(text)
    changed = [
        i for i, (one, two) in enumerate(zip(diff_ids(built.report), diff_ids(report), strict=True)) if one != two
    ]
    assert changed == [4]
    assert [layer["cached"] for layer in report["layers"]] == [True, True, True, True, False]
    assert report["layers"][4]["bytes"] < LIMIT
    assert {name: path.stat().st_ino for name in before if (path := blobs / name).exists()} == before
    back = built.again()
    assert all(layer["cached"] for layer in back["layers"])
    assert back["image"] == built.report["image"]


def test_a_module_that_is_gone_is_gone(built: Built, tmp_path: Path) -> None:
    folder = copy_of(built, tmp_path / "project")
    (folder / "src/svc/old.py").write_text("x = 1\n")
    (folder / "build/lib/svc").mkdir(parents=True)
    (folder / "build/lib/svc/older.py").write_text("what an earlier build left\n")
    words = ("--cache", str(built.cache))
    build(folder, built.base, f"oci:{tmp_path / 'out'}:a", *words)
    (folder / "src/svc/old.py").unlink()
    report = build(folder, built.base, f"oci:{tmp_path / 'out'}:a", *words)
    assert diff_ids(report) == diff_ids(built.report)


def test_times_are_source_date_epoch(built: Built, tmp_path: Path) -> None:
    to = f"oci:{tmp_path / 'out'}:a"
    report = build(
        built.folder, built.base, to, "--cache", str(built.cache), environment={"SOURCE_DATE_EPOCH": "1700000000"}
    )
    config = configuration(to)
    assert config["created"] == config["history"][-1]["created"] == "2023-11-14T22:13:20Z"
    for layer in report["layers"][2:]:
        with tarfile.open(tmp_path / "out/blobs/sha256" / layer["diff_id"][7:]) as tar:
            assert {member.mtime for member in tar} == {1700000000}
    assert diff_ids(report)[:2] == diff_ids(built.report)[:2]
    wrong = build(
        built.folder,
        built.base,
        f"oci:{tmp_path / 'b'}",
        environment={"SOURCE_DATE_EPOCH": "yesterday"},
        status=2,
    )
    assert "SOURCE_DATE_EPOCH" in wrong["error"]


def test_without_a_lock_and_extras_and_cache(built: Built, tmp_path: Path) -> None:
    folder = copy_of(built, tmp_path / "project")
    (folder / "requirements.txt").unlink()
    report = build(folder, built.base, f"oci:{tmp_path / 'out'}:core", "--no-extras", "--no-cache")
    assert report["extras"] == []
    assert report["cache_bytes"] == 0
    assert any("there is no lock" in note for note in report["notes"])
    assert report["distributions"] == built.report["distributions"] - 1


@pytest.mark.parametrize("kind", ["uv", "pylock"])
def test_other_locks(built: Built, tmp_path: Path, kind: str) -> None:
    folder = copy_of(built, tmp_path / "project")
    (folder / "requirements.txt").unlink()
    if kind == "uv":
        uv(folder, "lock", "-q")
    else:
        words = ("pip", "compile", "-q", "--universal", "--python-version", "3.11", "pyproject.toml", "--extra", "more")
        uv(folder, *words, "-o", "pylock.toml")
    report = build(folder, built.base, f"oci:{tmp_path / 'out'}:a", "--cache", str(built.cache))
    assert report["distributions"] == built.report["distributions"]
    assert diff_ids(report)[3] == diff_ids(built.report)[3]


BACKEND = """
from hatchling.build import *
from hatchling import build


def get_requires_for_build_wheel(config_settings=None):
    return [*build.get_requires_for_build_wheel(config_settings), "iniconfig"]


def build_wheel(*words, **more):
    import iniconfig

    return build.build_wheel(*words, **more)
"""


def test_a_backend_of_the_project_s_own_that_asks_for_more(built: Built, tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    shutil.copy(built.folder / "requirements.txt", folder)
    (folder / "tools").mkdir()
    (folder / "tools/backend.py").write_text(BACKEND)
    text = (folder / "pyproject.toml").read_text()
    own = 'build-backend = "backend"\nbackend-path = ["tools"]'
    (folder / "pyproject.toml").write_text(text.replace('build-backend = "hatchling.build"', own))
    to = f"oci:{tmp_path / 'out'}:a"
    report = build(folder, built.base, to, "--cache", str(built.cache))
    assert diff_ids(report)[:4] == diff_ids(built.report)[:4]
    (folder / "tools/backend.py").write_text("raise SystemExit('\\x1b[31mwill not')")
    found = build(folder, built.base, to, "--cache", str(built.cache), status=3)
    assert "cannot be built" in found["error"]
    assert "will not" in found["error"]
    assert "\x1b" not in found["error"]


def test_a_project_that_is_not_installed_is_copied(built: Built, tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    (folder / "pages").mkdir(parents=True)
    (folder / "main.py").write_text((built.folder / "src/svc/main.py").read_text())
    (folder / "pages/a.txt").write_text("a")
    (folder / ".env").write_text("SECRET=1")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o700)
    (folder / "requirements.txt").write_text("starlette\nuvicorn>0.1\nmarkupsafe\n")
    report = build(folder, built.base, f"oci:{tmp_path / 'out'}:a", "--cache", str(built.cache))
    assert any("there is no lock" in note for note in report["notes"])
    with tarfile.open(tmp_path / "out/blobs/sha256" / diff_ids(report)[4][7:]) as tar:
        members = {member.name: member.mode for member in tar}
    assert members == {
        "app/main.py": 0o644,
        "app/pages": 0o755,
        "app/pages/a.txt": 0o644,
        "app/run.sh": 0o755,
    }
    run = configuration(f"oci:{tmp_path / 'out'}:a")["config"]
    assert run["Cmd"][:2] == ["uvicorn", "main:app"]
    assert "PYTHONPATH=/app" in run["Env"]


def test_the_base_s_own_name_is_refused(built: Built, tmp_path: Path) -> None:
    found = build(built.folder, f"{built.base}", built.base, "--cache", str(tmp_path / "cache"), status=2)
    assert "choose" in found["error"] or "name the new one" in found["error"]


def test_a_lock_that_leaves_something_out_is_refused(built: Built, tmp_path: Path) -> None:
    folder = copy_of(built, tmp_path / "project")
    text = (folder / "requirements.txt").read_text()
    start = text.index("anyio==")
    end = text.index("\n", text.index("# via", start))
    (folder / "requirements.txt").write_text(text[:start] + text[end:].lstrip())
    found = build(folder, built.base, f"oci:{tmp_path / 'out'}", "--cache", str(built.cache), status=3)
    assert "anyio" in found["error"]
    assert not (tmp_path / "out").exists()


def sdist(folder: Path) -> None:
    """A distribution that has no wheel."""
    source = project(folder / "tiny-1.0", "tiny")
    metadata = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
    text = (source / "pyproject.toml").read_text().replace('"0.1.0"', '"1.0"')
    (source / "pyproject.toml").write_text(text.replace('["starlette", "uvicorn", "markupsafe"]', "[]"))
    (source / "PKG-INFO").write_text(metadata)
    with tarfile.open(folder / "tiny-1.0.tar.gz", "w:gz") as tar:
        tar.add(source, "tiny-1.0")
    shutil.rmtree(source)


def test_source_distributions_are_built_for_the_same_python_alone(built: Built, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    sdist(tmp_path / "links")
    folder = copy_of(built, tmp_path / "project")
    (folder / "requirements.txt").write_text("tiny==1.0\n")
    text = (folder / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(text.replace('["starlette", "uvicorn", "markupsafe"]', '["tiny"]'))
    words = ("--cache", str(built.cache), "--no-extras")
    # uv's own cache knows what was built of the same path, as a run before this may have had it.
    environment = {"UV_FIND_LINKS": str(tmp_path / "links"), "UV_CACHE_DIR": str(tmp_path / "uv")}
    report = build(folder, built.base, f"oci:{tmp_path / 'a'}", *words, environment=environment)
    assert any("tiny" in note and "was built here" in note for note in report["notes"])
    other = write_base(tmp_path / "base", "3.13")
    found = build(folder, other, f"oci:{tmp_path / 'b'}", *words, environment=environment, status=3)
    assert "tiny" in found["error"]
    assert "wheels alone" in found["error"]
    assert not (tmp_path / "b").exists()


def test_a_base_of_another_python_gets_its_wheels(built: Built, tmp_path: Path) -> None:
    other = write_base(tmp_path / "base", "3.13")
    report = build(built.folder, other, f"oci:{tmp_path / 'out'}:a", "--cache", str(built.cache))
    assert report["python"] == "3.13.0"
    with tarfile.open(tmp_path / "out/blobs/sha256" / diff_ids(report)[3][7:]) as tar:
        names = tar.getnames()
    assert [name for name in names if name.endswith("_speedups.cpython-313-x86_64-linux-gnu.so")]
    assert "opt/venv/include/site/python3.13/greenlet/greenlet.h" in names
    assert not [name for name in names if "python3.11" in name or "cpython-311" in name]


def test_a_base_whose_python_the_project_does_not_allow(built: Built, tmp_path: Path) -> None:
    other = write_base(tmp_path / "base", "3.9")
    found = build(built.folder, other, f"oci:{tmp_path / 'out'}", "--cache", str(built.cache), status=3)
    assert "3.9" in found["error"]


def test_what_cannot_be_written_is_refused_before_anything_is_done(built: Built, tmp_path: Path) -> None:
    (tmp_path / "there.tar").touch()
    (tmp_path / "cache").mkdir()
    for to in ("docker-archive:there.tar", "oci:.", "docker-archive:none/x.tar", "rootfs:."):
        transport, _, path = to.partition(":")
        found = build(
            built.folder, built.base, f"{transport}:{tmp_path / path}", "--cache", str(tmp_path / "cache"), status=2
        )
        assert "deadweight: error:" in found["error"]
    assert not list((tmp_path / "cache").iterdir())


@pytest.fixture
def silent_index() -> Iterator[tuple[str, socket.socket]]:
    """A package index that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield f"http://127.0.0.1:{server.getsockname()[1]}/simple", server


def test_a_build_that_is_stopped_leaves_nothing(
    built: Built, tmp_path: Path, silent_index: tuple[str, socket.socket]
) -> None:
    url, server = silent_index
    (tmp_path / "out").mkdir()
    environment = {**os.environ, "UV_DEFAULT_INDEX": url, "UV_CACHE_DIR": str(tmp_path / "uv")}
    words = ["--base", built.base, "--to", f"oci:{tmp_path / 'out'}", "--cache", str(tmp_path / "cache")]
    with subprocess.Popen(
        [DEADWEIGHT, "build", built.folder, *words], env=environment, stderr=subprocess.PIPE, text=True
    ) as running:
        connection, _ = server.accept()
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=60)
        connection.close()
    assert (running.returncode, "stopped by SIGTERM" in said) == (128 + signal.SIGTERM, True)
    assert not list((tmp_path / "out").iterdir())
    assert not list((tmp_path / "cache/work").iterdir())
    assert not [path for path in (tmp_path / "cache/blobs").iterdir() if path.name.startswith(".")]
    report = build(built.folder, built.base, f"oci:{tmp_path / 'out'}", "--cache", str(tmp_path / "cache"))
    assert diff_ids(report) == diff_ids(built.report)


def test_two_builds_at_once_do_not_meet(built: Built, tmp_path: Path) -> None:
    words = ["--base", built.base, "--cache", str(tmp_path / "cache"), "--json", "-"]
    running = [
        subprocess.Popen(
            [DEADWEIGHT, "build", built.folder, *words, "--to", f"oci:{tmp_path / tag}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for tag in ("a", "b")
    ]
    for one in running:
        out, error = one.communicate(timeout=120)
        assert one.returncode == 0, error.decode()[-2000:]
        assert diff_ids(json.loads(out)) == diff_ids(built.report)
