"""What of a project becomes its layer, and when a layer is made anew."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from deadweight.build import project as module
from deadweight.build.base import Base, Python
from deadweight.build.dependencies import Host
from deadweight.build.dockerfile import render
from deadweight.build.project import project_layer
from deadweight.build.recipe import read_recipe
from deadweight.build.uv import Uv, find_uv, run_uv
from deadweight.cache.layers import Cache, Cached
from deadweight.errors import BadInputError
from support.recipes import project
from support.wheels import make_wheel

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
PYTHON = Python(MINOR, f"{MINOR}.0", f"/usr/bin/python{MINOR}", "x86_64", False, (2, 36))
BASE = Base(PYTHON, "/usr/bin", {}, (1,), ("opt",))
FLASK = "from flask import Flask\napp = Flask(__name__)\n"
LOOSE = {"requirements.txt": "flask==3.0\n", "app.py": FLASK, "data/x.txt": "x"}
INSTALLABLE = {
    "pyproject.toml": "[project]\nname = 'a'\nversion = '1'\n[build-system]\nrequires = ['setuptools']\n",
    "pkg/__init__.py": "",
}
LEFT = dict.fromkeys(
    (
        *("out/oci-layout", "out/index.json", "data/old/oci-layout", "data/old/blobs/x", "service.tar"),
        *("server.pem", "server.key", "vendor.whl", "docker/compose.yaml", ".env", "build/lib/x.py"),
        *("venv2/pyvenv.cfg", "__pycache__/x.pyc", "data/y.pyc"),
    ),
    "x",
)


def made(folder: Path, cache: Path, to: str = "elsewhere", *, builds: bool = True) -> tuple[str, Cached]:
    """The key of the layer, and the layer."""
    work = cache / "work"
    with ExitStack() as resources:
        work.mkdir(parents=True)
        resources.callback(shutil.rmtree, work)
        return project_layer(
            read_recipe(folder),
            BASE,
            find_uv(),
            lambda: Host(sys.executable, builds),
            Cache(cache),
            work,
            0,
            resources,
            None,
            folder / to,
        )


def layer(folder: Path, cache: Path, to: str = "elsewhere") -> tuple[str, bool]:
    """The key of the layer, and whether it was made now."""
    key, cached = made(folder, cache, to)
    return key, cached.fresh


def copied(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, to: str = "elsewhere") -> set[str]:
    """The files that an installable project is built from."""
    found = set[str]()

    def build_wheel(copy: Path, *_: Any) -> None:
        found.update(path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())
        raise BadInputError("enough")

    monkeypatch.setattr(module, "build_wheel", build_wheel)
    with pytest.raises(BadInputError, match="enough"):
        layer(folder, cache, to)
    return found


def test_what_was_built_before_and_secrets_are_no_part_of_the_next_layer(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", LOOSE)
    first = layer(folder, tmp_path / "cache")
    assert first[1]
    project(folder, LEFT)
    assert layer(folder, tmp_path / "cache") == (first[0], False)
    recipe = read_recipe(folder)
    assert recipe.copied == ("app.py", "data")
    assert "server.pem" not in render(recipe)


@pytest.mark.parametrize("to", ["image.bin", "data/image.bin", "tree/root"])
def test_the_destination_is_no_part_of_the_next_layer(tmp_path: Path, to: str) -> None:
    folder = project(tmp_path / "project", LOOSE)
    first = layer(folder, tmp_path / "cache", to)
    project(folder, {to: "x"})
    assert layer(folder, tmp_path / "cache", to) == (first[0], False)


def test_what_a_wheel_is_built_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"data/x.txt": "", "pkg/cert.pem": "", "pkg/build/x.py": ""}
    folder = project(tmp_path / "project", INSTALLABLE | own | LEFT | {"image.bin": "x"})
    assert copied(folder, tmp_path / "cache", monkeypatch, "image.bin") == {*INSTALLABLE, *own}


def test_a_package_stays_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: Mapping[str, str] = INSTALLABLE | {"docker/__init__.py": "", "env/__init__.py": ""}
    assert copied(project(tmp_path / "project", files), tmp_path / "cache", monkeypatch) == set(files)


@pytest.mark.parametrize("tag", ["py3-none-any", "py3-none-linux_x86_64"])
def test_compiled_code_is_for_bases_that_it_runs_on(tmp_path: Path, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(tmp_path, {"pkg/__init__.py": b""}, name=f"gpu_thing-2.9.0-{tag}.whl")
    monkeypatch.setattr(module, "build_wheel", lambda *_: (wheel, ["said"]))
    folder = project(tmp_path / "project", INSTALLABLE)
    notes = made(folder, tmp_path / "fits")[1].record.notes
    if tag == "py3-none-any":
        assert notes == ("said",)
        assert made(folder, tmp_path / "other", builds=False)[1].fresh
        return
    assert any("another machine's result may differ" in note for note in notes)
    with pytest.raises(BadInputError, match="compiled code"):
        made(folder, tmp_path / "other", builds=False)


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *who, *words], check=True, capture_output=True)


def repository(folder: Path, requires: str) -> Path:
    pyproject = f"[project]\nname = 'a'\ndynamic = ['version']\n[build-system]\nrequires = ['{requires}']\n"
    project(folder, {"pyproject.toml": pyproject, "pkg/__init__.py": "", "Dockerfile": "FROM x\n", ".env": "secret"})
    git(folder, "init", "-q")
    git(folder, "add", "pyproject.toml", "pkg", "Dockerfile")
    git(folder, "commit", "-qm", "one")
    return folder


def test_a_version_that_may_be_of_history_is_not_the_one_of_another_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(tmp_path, {"pkg/__init__.py": b""}, name="gpu_thing-2.9.0-py3-none-any.whl")
    monkeypatch.setattr(module, "build_wheel", lambda *_: (wheel, []))
    folder = repository(tmp_path / "project", "some-backend")
    fresh = []
    for words in ([], [], ["tag", "v1"], ["commit", "--allow-empty", "-qm", "two"], []):
        if words:
            git(folder, *words)
        fresh.append(layer(folder, tmp_path / "cache")[1])
    assert fresh == [True, False, True, True, False]
    (folder / ".git/HEAD").write_text("nothing that git reads")
    assert [layer(folder, tmp_path / "cache")[1] for _ in range(2)] == [True, True]


def test_git_finds_the_copy_clean_and_its_index_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = repository(tmp_path / "project", "setuptools-scm")
    index = (folder / ".git/index").read_bytes()
    said = []

    def build_wheel(copy: Path, _to: Path, *_: object) -> None:
        status = Uv("git", "")  # as a backend of uv's would: in uv's environment
        said.append(run_uv(status, ["-C", str(copy), "status", "--porcelain", "-uno"], copy, 0, said=False))
        said.append(str((copy / ".env").exists()))
        raise BadInputError("enough")

    monkeypatch.setattr(module, "build_wheel", build_wheel)
    with pytest.raises(BadInputError, match="enough"):
        layer(folder, tmp_path / "cache")
    assert said == ["", "False"]
    assert (folder / ".git/index").read_bytes() == index
