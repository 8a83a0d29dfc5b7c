"""The variant `cpu`: what is locked, with CPU builds, of wheels that lie here."""

from __future__ import annotations

import hashlib
import sys
import tarfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from deadweight.build.base import Base, Python
from deadweight.build.dependencies import Host, Options, dependencies_layer
from deadweight.build.recipe import read_recipe
from deadweight.build.uv import find_uv
from deadweight.build.variant import cpu_requirements, entries_of, pylock_entries, split_requirements
from deadweight.cache.layers import Cache
from deadweight.errors import BadInputError, UsageError
from deadweight.files.cpu_wheel import Sources
from support.recipes import project
from support.wheels import distribution

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
BASE = Base(Python(MINOR, f"{MINOR}.0", f"/usr/bin/python{MINOR}", "x86_64", False, (2, 36)), "/usr/bin", {}, (1,), ())
TAG = f"cp3{MINOR[2:]}-cp3{MINOR[2:]}-manylinux_2_28_x86_64"
LOCKED = {
    "torch": ("2.9.0", ["nvidia-blas==13.0", "triton==3.5", "plain"]),
    "nvidia-blas": ("13.0", []),
    "triton": ("3.5", []),
    "plain": ("1.0", []),
    "model": ("1.0", ["torch"]),
}


@pytest.fixture(autouse=True)
def _pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip with no sources but those of a test."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def built(
    tmp_path: Path, changes: dict[str, tuple[str, list[str]]] | None = None, more: str = "", name: str = "a"
) -> tuple[str, set[str], tuple[str, ...]]:
    """(key, names in site-packages, notes) of the layer; wheels that are locked are in one folder, the CPU's beside."""
    place = tmp_path / name
    lines = [f"--no-index\n--find-links {place / 'wheels'}"]
    for dist, (version, requires) in (LOCKED | (changes or {})).items():
        data = distribution(place / "wheels", dist, version, requires).read_bytes()
        lines.append(f"{dist}=={version} \\\n    --hash=sha256:{hashlib.sha256(data).hexdigest()}\n    # via somebody")
    if not (place / "cpu").exists():
        distribution(place / "cpu", "torch", "2.9.0+cpu", ["plain"], TAG)
    dependencies = f"[project]\nname = 'a'\nversion = '1'\ndependencies = ['model'{more}]\n"
    files = {"pyproject.toml": dependencies, "requirements.txt": "\n".join(lines) + "\n"}
    (place / "work").mkdir()
    with ExitStack() as resources:
        key, cached = dependencies_layer(
            read_recipe(project(place / "project", files)),
            BASE,
            find_uv(),
            lambda: Host(sys.executable, True),
            Options(symbols=False, cpu=Sources((str(place / "cpu"),))),
            Cache(place / "cache"),
            place / "work",
            0,
            resources,
            None,
        )
        blob = place / "cache/blobs" / cached.record.diff_id[7:]
        with tarfile.open(blob) as tar:
            paths = [member.name for member in tar if "/site-packages/" in member.name]
        names = {path.split("/site-packages/")[1].split("/")[0] for path in paths}
        return key, names, cached.record.notes


def test_the_cpu_build_is_installed_and_what_only_gpu_builds_need_is_not(tmp_path: Path) -> None:
    _, names, notes = built(tmp_path)
    assert {"torch-2.9.0+cpu.dist-info", "model", "plain", "torch"} <= names
    assert not {"nvidia_blas", "triton", "torch-2.9.0.dist-info"} & names
    assert any("torch is its CPU build 2.9.0+cpu" in note for note in notes)
    assert "left out, since only GPU builds need them: nvidia-blas, triton" in notes


def test_what_something_else_needs_stays(tmp_path: Path) -> None:
    _, names, notes = built(tmp_path, {"model": ("1.0", ["torch", "nvidia-blas"])}, ", 'triton'")
    assert {"nvidia_blas", "triton"} <= names  # by a distribution's metadata, and by the project's own word
    assert "nvidia-blas stays: something else needs it than GPU builds" in notes


def test_the_key_follows_from_the_wheel_and_not_from_where_it_lies(tmp_path: Path) -> None:
    python, folder = BASE.python, tmp_path / "into"
    locked = list(split_requirements("torch==2.9.0\nplain==1.0\n"))
    places = [distribution(tmp_path / name, "torch", "2.9.0+cpu", [], TAG).parent for name in ("a", "b")]
    first, second = (cpu_requirements(locked, python, Sources((str(one),)), (), folder) for one in places)
    assert (first.inputs, first.text != second.text) == (second.inputs, True)
    other = distribution(tmp_path / "c", "torch", "2.9.0+cpu", ["more"], TAG).parent
    assert cpu_requirements(locked, python, Sources((str(other),)), (), folder).inputs != first.inputs


def test_a_lock_without_torch_has_no_variant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to do"):
        cpu_requirements(list(split_requirements("plain==1.0\n")), BASE.python, Sources(), (), tmp_path)


def test_there_is_no_cpu_build(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"no CPU build of torch 2\.9\.1.*--find-links"):
        built(tmp_path, {"torch": ("2.9.1", ["plain"])})


def test_locks_are_read_entry_by_entry(tmp_path: Path) -> None:
    text = """# a comment
--index-url https://x.example/simple
Torch==2.9.0 ; sys_platform == 'linux' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via
    #   sentence-transformers
    #   a (pyproject.toml)
cuda-toolkit[cublas,nvrtc]==13.0 ; sys_platform == 'win32'
plain==1.0
    # via torch
"""
    found = list(split_requirements(text))
    assert [one.name for one in found] == ["", "torch", "cuda-toolkit", "plain"]
    assert found[1].hashed
    assert found[1].via == {"sentence-transformers", "a"}
    assert found[3].via == {"torch"}
    assert str(found[2].requirement.marker if found[2].requirement else "") == 'sys_platform == "win32"'
    files = {"r/ml.txt": "-r core.txt\n-c other.txt\ntorch==1.0\n", "r/core.txt": "plain==1.0\n"}
    project(tmp_path, files)
    assert [one.name for one in entries_of(tmp_path, "r/ml.txt")] == ["plain", "torch"]


@pytest.mark.parametrize(
    "line",
    [
        *(
            "-r base.txt",
            "-r base.txt  # the base",
            "-rbase.txt",
            "-r\tbase.txt",
            "-r base.txt \\\n",
            "-r \\\n  base.txt",
        ),
        *("--requirement=base.txt", "--requirement base.txt", "  -r base.txt", "-r base.txt\n    # via somebody"),
    ],
)
def test_other_files_are_followed_however_they_are_named(line: str, tmp_path: Path) -> None:
    project(tmp_path, {"r.txt": f"x==1\n-cother.txt\n{line}\ny==2\n", "base.txt": "torch==2.9.0\n"})
    wanted = ["x", "torch"] if line.endswith("\\\n") else ["x", "torch", "y"]
    assert [one.name for one in entries_of(tmp_path, "r.txt")][: len(wanted)] == wanted


@pytest.mark.parametrize(
    "line",
    [
        *("torch==2.9.0\t--hash=sha256:aa", "torch == 2.9.0 --hash=sha256:aa", "torch==2.9.0\\\n\t--hash=sha256:aa"),
        *("torch==2.9.0; sys_platform=='linux' --hash=sha256:aa  # why", "  torch==2.9.0 \\\n--hash=sha256:aa"),
    ],
)
def test_options_behind_a_requirement(line: str) -> None:
    found = list(split_requirements(f"x==1\n{line}\n"))
    assert [(one.name, one.hashed) for one in found] == [("x", False), ("torch", True)]


def test_a_pylock(tmp_path: Path) -> None:
    text = """lock-version = "1.0"
[[packages]]
name = "torch"
version = "2.9.0"
marker = "'ml' in extras"
wheels = [{ url = "https://x.example/torch-2.9.0-py3-none-any.whl", hashes = { sha256 = "ab" } }]
[[packages]]
name = "plain"
version = "1.0"
sdist = { url = "https://x.example/plain-1.0.tar.gz", hashes = { sha256 = "cd" } }
"""
    (tmp_path / "pylock.toml").write_text(text)
    assert [one.text for one in pylock_entries(tmp_path, "pylock.toml", ["ml"], 11)] == [
        "torch==2.9.0 --hash=sha256:ab",
        "plain==1.0 --hash=sha256:cd",
    ]
    assert [one.name for one in pylock_entries(tmp_path, "pylock.toml", [], 11)] == ["plain"]
