"""Dockerfiles for real-looking projects: hadolint finds nothing in them, and BuildKit's parts are where they belong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from deadweight.application.dockerfile import parse_dockerfile
from deadweight.build.dockerfile import Choices, chosen_packages, render
from deadweight.build.dockerignore import dockerignore
from deadweight.build.recipe import read_recipe
from deadweight.cli.lint import lint_command
from deadweight.errors import UsageError
from support.recipes import BUILD_SYSTEM, FASTAPI, FLASK, project, pyproject, requirements

HADOLINT = Path(sys.executable).parent / "hadolint"
CORE = "fastapi uvicorn starlette psycopg"
MAIN = {"src/service/__init__.py": "", "src/service/main.py": FASTAPI}
LOCKED = MAIN | {
    "pyproject.toml": pyproject(extras={"ml": "torch", "dev": "pytest"}),
    "requirements/core.txt": requirements(CORE),
    "requirements/ml.txt": requirements(f"{CORE} torch"),
    "requirements/dev.txt": requirements(f"{CORE} pytest"),
}
DEVELOPERS = '[dependency-groups]\ndev = ["pytest"]\ndocs = ["sphinx"]\n'
PROJECTS: dict[str, dict[str, str]] = {
    "locks for core, ml and developers": LOCKED,
    "uv.lock": MAIN
    | {
        "pyproject.toml": pyproject(extras={"ml": "torch", "gpu": "cupy"}, more=DEVELOPERS),
        "uv.lock": 'version = 1\n[[package]]\nname = "service"\n',
    },
    "pylock.toml": MAIN | {"pyproject.toml": pyproject(), "pylock.toml": 'lock-version = "1.0"\n'},
    "no lock": MAIN | {"pyproject.toml": pyproject(extras={"ml": "torch", "dev": "pytest"}, more=DEVELOPERS)},
    "a lock of the whole alone": MAIN
    | {
        "pyproject.toml": pyproject(extras={"ml": "torch", "dev": "pytest"}),
        "requirements.txt": requirements(f"{CORE} torch"),
    },
    "requirements alone": {
        "app.py": FLASK,
        "my data/x.txt": "",
        "it's/x.txt": "",
        "requirements.txt": "flask==3.0\ngunicorn==22.0\n",
    },
    "a tool": {"src/tool/cli.py": "", "pyproject.toml": pyproject(more='[project.scripts]\ntool = "tool.cli:main"\n')},
    "nothing to run": {"pyproject.toml": pyproject(build="")},
    "setup.py": {"setup.py": "", "main.py": FASTAPI},
    "version from history": MAIN
    | {
        "pyproject.toml": pyproject(build=BUILD_SYSTEM.replace('["hatchling"]', '["hatchling", "hatch-vcs"]')).replace(
            'version = "1.2"', 'dynamic = ["version"]'
        )
    },
    "much of Debian": MAIN
    | {"pyproject.toml": pyproject(dependencies="fastapi uvicorn mysqlclient weasyprint opencv-python psycopg2")},
}
CHOICES = {
    "as it is": Choices(deadweight="deadweight==0.1.0"),
    "all": Choices(
        base="registry.local:5000/team/debian:bookworm@sha256:" + "0" * 64,
        gpu="sm_80,sm_90",
        keep_ptx=False,
        raw_blobs=True,
        recompress=True,
        add=("tini", "jq=1.6-2"),
        drop=("libpq5",),
        file="docker/api.Dockerfile",
    ),
    "another base": Choices(base="example/base:1"),
}


def made(folder: Path, files: dict[str, str], choices: Choices = CHOICES["as it is"]) -> str:
    return render(read_recipe(project(folder, files)), choices)


@pytest.mark.parametrize("choices", CHOICES)
@pytest.mark.parametrize("name", PROJECTS)
def test_hadolint_finds_nothing(name: str, choices: str, tmp_path: Path) -> None:
    text = made(tmp_path, PROJECTS[name], CHOICES[choices])
    (tmp_path / "Dockerfile").write_text(text)
    done = subprocess.run([HADOLINT, tmp_path / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), text
    assert "# syntax=" not in text
    assert "<<" not in text
    assert all(len(line) <= 140 for line in text.splitlines())


@pytest.mark.parametrize("name", PROJECTS)
def test_our_own_lint_finds_nothing(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Dockerfile").write_text(made(tmp_path, PROJECTS[name]))
    lint_command.main([str(tmp_path / "Dockerfile"), "--strict"], "lint", standalone_mode=False)
    assert "nothing found" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("base", "requires", "reason"),
    [
        ("debian:bookworm-slim", ">=3.12", "has Python 3.11, and service requires >=3.12"),
        ("python:3.13-slim-bookworm", "<3.13", "has Python 3.13, and service requires <3.13"),
        ("registry:5000/library/debian:trixie", "==3.12.*", "has Python 3.13"),
        ("python:3.10", ">=3.9", "needs 3.11"),
        ("", "==3.10.*", "python:3.10-slim-bookworm has Python 3.10, and deadweight"),
        ("python:3.12-alpine", ">=3.11", "is no Debian"),
    ],
)
def test_a_base_that_does_not_fit(base: str, requires: str, reason: str, tmp_path: Path) -> None:
    files = LOCKED | {"pyproject.toml": pyproject(requires_python=requires)}
    with pytest.raises(UsageError, match=re.escape(reason)):
        made(tmp_path, files, Choices(base=base))
    made(tmp_path, files | {"pyproject.toml": pyproject()}, Choices(base="debian:bookworm"))


@pytest.mark.parametrize("name", PROJECTS)
def test_the_runtime_comes_from_base_and_gets_copies_alone(name: str, tmp_path: Path) -> None:
    parsed = parse_dockerfile(made(tmp_path, PROJECTS[name]))
    stages = {stage.name: stage for stage in parsed.stages}
    runtime = stages["runtime"]
    assert runtime is parsed.stages[-1]
    kinds = [one.name for one in runtime.instructions]
    assert "RUN" not in kinds
    copies = [one.text for one in runtime.instructions if one.name == "COPY"]
    assert copies[0] == "/opt/venv /opt/venv"
    assert all(one.flag("from") for one in runtime.instructions if one.name == "COPY")
    assert kinds.index("USER") > max(at for at, kind in enumerate(kinds) if kind == "COPY")
    bases = {name: stage.base for name, stage in stages.items()}
    assert bases["runtime"] == "base"
    assert bases["builder"] == "base"
    assert bases["deps-stage"] == bases["pruner"] == "builder"
    installed = "\n".join(one.text for one in stages["base"].instructions)
    assert "gcc" not in installed
    assert "uv" not in installed


def test_locks_are_installed_with_hashes_and_developers_on_demand(tmp_path: Path) -> None:
    text = made(tmp_path, LOCKED)
    condition = 'if [ "$INCLUDE_DEV" = true ]; then set -- -r requirements/dev.txt; fi'
    assert text.count(condition) == 2
    assert 'uv pip install --require-hashes -r requirements/ml.txt "$@"' in text
    assert 'uv pip install --require-hashes -r requirements/core.txt "$@"' in text
    assert "ARG INCLUDE_DEV=false" in text
    assert "ARG VARIANT=deps" in text
    assert "FROM ${VARIANT}-stage AS dependencies" in text


def test_a_lock_without_hashes_is_installed_without(tmp_path: Path) -> None:
    text = made(tmp_path, LOCKED | {"requirements/dev.txt": requirements(f"{CORE} pytest", hashes=False)})
    assert "--require-hashes" not in text


def test_uv_lock_is_synchronised_frozen(tmp_path: Path) -> None:
    text = made(tmp_path, PROJECTS["uv.lock"])
    assert "uv sync --frozen --no-install-project --no-default-groups --extra ml --extra gpu" in text
    assert 'uv sync --frozen --no-install-project --no-default-groups "$@"' in text
    assert "set -- --group dev --group docs" in text


def test_without_a_lock_the_dockerfile_says_so(tmp_path: Path) -> None:
    text = made(tmp_path, PROJECTS["no lock"])
    assert text.count("Nothing pins these versions") == 2
    assert 'uv pip install -r pyproject.toml --extra ml "$@"' in text


def test_the_core_without_a_lock_takes_the_versions_of_the_whole(tmp_path: Path) -> None:
    text = made(tmp_path, PROJECTS["a lock of the whole alone"])
    assert "uv pip install -r pyproject.toml --constraint requirements.txt" in text
    assert "then uv pip install -r pyproject.toml --extra dev --constraint requirements.txt; fi" in text


def test_gpus_are_a_build_argument(tmp_path: Path) -> None:
    plain = made(tmp_path, LOCKED)
    assert "\nARG GPU=\n" in plain
    assert 'deadweight prune /opt/venv ${GPU:+--gpu "$GPU"}\n' in plain
    declared = made(tmp_path, LOCKED, CHOICES["all"])
    assert "\nARG GPU=sm_80,sm_90\n" in declared
    assert '${GPU:+--gpu "$GPU" --drop-ptx --raw-blobs --recompress}' in declared


def test_models_get_smaller_while_building(tmp_path: Path) -> None:
    text = made(tmp_path, LOCKED, Choices(weights="bf16"))
    assert 'deadweight prune /opt/venv ${GPU:+--gpu "$GPU"} --weights bf16\n' in text


def test_the_health_check_asks_by_curl_or_by_python(tmp_path: Path) -> None:
    asked = '"--fail", "http://127.0.0.1:8000/health"]'
    assert asked in made(tmp_path, LOCKED, Choices(add=("curl",)))
    without = made(tmp_path, LOCKED)
    assert "curl" not in without
    assert "urlopen('http://127.0.0.1:8000/health', timeout=4)" in without
    nowhere = FASTAPI.replace("/health", "/claims")
    assert "any HTTP answer will do" in made(tmp_path, LOCKED | {"src/service/main.py": nowhere})


def test_packages_of_debian(tmp_path: Path) -> None:
    recipe = read_recipe(project(tmp_path, LOCKED))
    assert list(chosen_packages(recipe, Choices())) == ["libpq5"]
    chosen = chosen_packages(recipe, Choices(base="debian:trixie", add=("tini",), drop=("ca-certificates",)))
    assert list(chosen) == ["libpq5", "python3", "tini"]
    assert "python3" not in chosen_packages(recipe, Choices(base="not-debian:1"))


@pytest.mark.parametrize(
    "choices",
    [
        Choices(base="x\nRUN id"),
        Choices(base="a b"),
        Choices(base="$(id)"),
        Choices(add=("curl; id",)),
        Choices(add=("Curl",)),
        Choices(add=("-y",)),
        Choices(drop=("a\nb",)),
    ],
)
def test_choices_that_no_dockerfile_can_have(choices: Choices, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        made(tmp_path, LOCKED, choices)


def test_odd_names_of_files_stay_names(tmp_path: Path) -> None:
    files = PROJECTS["requirements alone"] | {"$(id)/x.txt": "", "a;b/x.txt": "", "#c/x.txt": "", "-rf/x.txt": ""}
    line = next(line for line in made(tmp_path, files).splitlines() if "cp --recursive" in line)
    words = "'#c' '$(id)' -rf 'a;b' app.py 'it'\"'\"'s' 'my data' /staged"
    assert line.strip().removesuffix(" \\") == f"&& cp --recursive --parents -- {words}"


def test_a_newline_in_a_name_is_refused(tmp_path: Path) -> None:
    from deadweight.errors import BadInputError

    files = {"requirements.txt": "flask==3.0\n", "app.py": FLASK, "x\nRUN id": ""}
    with pytest.raises(BadInputError, match="rename it"):
        made(tmp_path, files)


def test_a_health_check_that_could_do_more_than_ask_is_none(tmp_path: Path) -> None:
    source = FASTAPI.replace('"/health"', '"/x\'\\"$(id)/health"')
    text = made(tmp_path, LOCKED | {"src/service/main.py": source})
    assert "$(id)" not in text


def test_what_no_stage_reads(tmp_path: Path) -> None:
    files = LOCKED | {"tests/test_x.py": "", "docs/README.md": "", "notebooks/x.ipynb": ""}
    readme = pyproject().replace("[project]", '[project]\nreadme = "docs/README.md"')
    files["pyproject.toml"] = f'{readme}\n[tool.mypy]\nfiles = ["tests"]\n'
    lines = dockerignore(read_recipe(project(tmp_path, files))).splitlines()
    assert {".git", "**/.venv*", "**/.env", "*.Dockerfile", "docker", "tests", "notebooks"} <= set(lines)
    assert "docs" not in lines
    assert not {"src", "requirements", "pyproject.toml", "README.md"} & set(lines)
