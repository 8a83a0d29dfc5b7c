"""Dockerfiles with CPU builds: what they say, and what their shell commands do with wheels that lie here."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from deadweight.build.dockerfile import Choices, render, runs_of
from deadweight.build.dockerfile_cpu import CpuChoice, cpu_choice
from deadweight.build.recipe import Recipe, read_recipe
from deadweight.errors import BadInputError, UsageError
from deadweight.files.cpu_wheel import Sources
from support.linting import found
from support.recipes import FASTAPI, project, pyproject
from support.wheels import distribution

BIN = Path(sys.executable).parent
MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
TAG = f"cp3{MINOR[2:]}-cp3{MINOR[2:]}-manylinux_2_28_x86_64"
BASE = Choices(base=f"python:{MINOR}-slim-bookworm")
MAIN = {"src/service/__init__.py": "", "src/service/main.py": FASTAPI}
PROJECT = MAIN | {"pyproject.toml": pyproject(dependencies="plain", extras={"ml": "torch model", "dev": "pytest"})}
LOCKED = [
    ("torch", "2.9.0", ["nvidia-blas==13.0", "triton==3.5", "plain"], "service"),
    ("nvidia-blas", "13.0", [], "torch"),
    ("nvidia-ml-py", "13.1", [], "model"),
    ("triton", "3.5", [], "torch"),
    ("plain", "1.0", [], "service"),
    ("model", "1.0", ["torch", "nvidia-ml-py"], "service"),
]
UV_LOCK = """version = 1
requires-python = ">=3.11"
[[package]]
name = "service"
version = "1.2"
source = { editable = "." }
dependencies = [{ name = "plain" }]
[package.optional-dependencies]
ml = [{ name = "model" }, { name = "torch" }]
[[package]]
name = "model"
version = "1.0"
dependencies = [{ name = "nvidia-ml-py" }, { name = "torch" }]
[[package]]
name = "torch"
version = "2.9.0"
dependencies = [{ name = "nvidia-blas" }, { name = "plain" }]
[[package]]
name = "nvidia-ml-py"
version = "13.1"
[[package]]
name = "nvidia-blas"
version = "13.0"
[[package]]
name = "plain"
version = "1.0"
"""


@pytest.fixture(autouse=True)
def _pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip with no sources but those of a test."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def locked(folder: Path) -> Recipe:
    """A project with a lock of wheels that lie in `locked`, and a CPU build in `wheels`."""
    lines = [f"--no-index\n--find-links {folder / 'locked'}"]
    for name, version, requires, via in LOCKED:
        data = distribution(folder / "locked", name, version, requires).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        lines.append(f"{name}=={version} \\\n    --hash=sha256:{digest}\n    # via {via}")
    distribution(folder / "wheels", "torch", "2.9.0+cpu", ["plain"], TAG)
    return read_recipe(project(folder, PROJECT | {"requirements/ml.txt": "\n".join(lines) + "\n"}))


def chosen(recipe: Recipe, *links: str, index: str | None = None) -> CpuChoice:
    return cpu_choice(recipe, Sources(links, index), runs_of(recipe, BASE))


def printed(recipe: Recipe) -> str:
    choices = Choices(base=BASE.base, cpu=chosen(recipe, str(recipe.folder / "wheels")), deadweight="deadweight==0.1.0")
    return render(recipe, choices)


def commands(text: str) -> str:
    """The shell commands of the stage that installs."""
    stage = text[text.index("FROM builder AS cpu-stage") :]
    step = stage[stage.index("RUN ") + 4 : stage.index("\nRUN --mount=type=bind,from=pruner")]
    lines = (line.rstrip("\\").rstrip() for line in step.splitlines())
    return " ".join(line for line in lines if "--mount=" not in line)


def installed(folder: Path, text: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Runs the commands in an environment of this Python, which is below `tmp_path`."""
    subprocess.run([BIN / "uv", "venv", "-q", "--python", sys.executable, tmp_path / "venv"], check=True)
    shell = commands(text).replace("/tmp/", f"{shlex.quote(str(tmp_path))}/")
    variables = {"VIRTUAL_ENV": str(tmp_path / "venv"), "PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run(
        ["sh", "-ec", shell], cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )


def test_its_commands_install_the_cpu_build_and_nothing_for_gpus(tmp_path: Path) -> None:
    recipe = locked(tmp_path / "svc")
    done = installed(recipe.folder, printed(recipe), tmp_path)
    assert done.returncode == 0, done.stderr
    there = {path.name for path in (tmp_path / "venv").glob("lib/*/site-packages/*.dist-info")}
    assert {"torch-2.9.0+cpu.dist-info", "plain-1.0.dist-info", "nvidia_ml_py-13.1.dist-info"} <= there
    assert not any(name.startswith(("nvidia_blas", "triton")) for name in there)


def test_a_wheel_that_is_another_than_when_it_was_written(tmp_path: Path) -> None:
    recipe = locked(tmp_path / "svc")
    text = printed(recipe)
    distribution(recipe.folder / "wheels", "torch", "2.9.0+cpu", ["plain", "more"], TAG)
    done = installed(recipe.folder, text, tmp_path)
    assert done.returncode != 0
    assert "hash" in done.stderr.lower()


def test_a_lock_that_has_moved_on(tmp_path: Path) -> None:
    recipe = locked(tmp_path / "svc")
    text = printed(recipe)
    lock = recipe.folder / "requirements/ml.txt"
    lock.write_text(lock.read_text().replace("torch==2.9.0", "torch==2.9.1"))
    done = installed(recipe.folder, text, tmp_path)
    assert (done.returncode, done.stderr.strip()) == (1, "the lock has moved on: write this Dockerfile anew")


@pytest.mark.parametrize("lock", ["requirements", "uv"])
def test_what_it_says(lock: str, tmp_path: Path) -> None:
    recipe = locked(tmp_path)
    if lock == "uv":
        (tmp_path / "uv.lock").write_text(UV_LOCK)
        recipe = read_recipe(tmp_path)
    choice = chosen(recipe, str(tmp_path / "wheels"))
    assert ([pin.version for pin in choice.pins], choice.stay) == (["2.9.0+cpu"], ("nvidia-ml-py",))
    text = printed(recipe)
    assert "\nARG VARIANT=cpu\n" in text
    assert "FROM ${VARIANT}-stage AS dependencies" in text
    assert "--mount=type=bind,source=wheels,target=/src/wheels" in text
    assert ("uv export -q --frozen --no-emit-project --no-default-groups --extra ml" in text) == (lock == "uv")
    (tmp_path / "Dockerfile").write_text(text)
    done = subprocess.run([BIN / "hadolint", tmp_path / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), text
    assert all(len(line) <= 140 for line in text.splitlines())
    assert found(text) == []


def test_sources_that_an_engine_s_build_would_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = locked(tmp_path / "svc")
    elsewhere = distribution(tmp_path / "elsewhere", "torch", "2.9.0+cpu", ["plain"], TAG).parent
    with pytest.raises(UsageError, match="sees the project alone"):
        chosen(recipe, str(elsewhere))
    monkeypatch.setenv("PIP_FIND_LINKS", str(elsewhere))
    with pytest.raises(UsageError, match="an engine's build does not see"):
        chosen(recipe)
    for bad in ("https://me:secret@x.example/simple", "https://x.example/$(id)"):
        with pytest.raises(BadInputError, match="no plain URL"):
            chosen(recipe, index=bad)


def test_no_lock_no_variant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="uv lock"):
        chosen(read_recipe(project(tmp_path, PROJECT)), index="https://x.example/simple")
