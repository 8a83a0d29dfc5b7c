"""`deadweight split`: two Dockerfiles and a compose file, where the core does without what the extra brings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deadweight.cli import main
from support.recipes import FASTAPI, project, pyproject, requirements

HADOLINT = Path(sys.executable).parent / "hadolint"
CORE = "fastapi uvicorn pydantic-settings starlette"
SETTINGS = """from pydantic_settings import BaseSettings, SettingsConfigDict

class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SVC_")
    ml_url: str | None = None
    metrics_url: str = ""
    database_url: str = "sqlite:///svc.db"
"""
MODEL = "def load():\n    import torch\n    return torch\n"
FILES = {
    "src/service/__init__.py": "",
    "src/service/main.py": FASTAPI + "from service import model, settings\n",
    "src/service/model.py": MODEL,
    "src/service/settings.py": SETTINGS,
    "pyproject.toml": pyproject(
        dependencies="fastapi uvicorn pydantic-settings", extras={"ml": "torch", "dev": "pytest"}
    ),
    "requirements/core.txt": requirements(CORE),
    "requirements/ml.txt": requirements(f"{CORE} torch nvidia-nccl-cu13"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return project(tmp_path / "svc", FILES)


def split(capfd: pytest.CaptureFixture[str], *words: str | Path, status: int = 0) -> dict[str, Any]:
    """The report; what was said on standard error is `error` of it."""
    code = main(["split", *map(str, words), "--json", "-"])
    said = capfd.readouterr()
    assert code == status, said.err
    return {**(json.loads(said.out) if said.out else {}), "error": said.err}


def test_the_parts(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = split(capfd, folder, "--by-extra", "ml")
    assert report["core"] == sorted(CORE.split())
    assert report["ml"] == ["nvidia-nccl-cu13", "torch"]
    assert (report["url_variable"], report["url_evidence"]) == ("SVC_ML_URL", "src/service/settings.py:5")
    assert report["imports"]["proved"]
    assert [one["text"] for one in report["imports"]["allowed"]] == [
        "src/service/model.py:2 imports torch when load is called: not on import"
    ]
    assert report["files"] == []


def test_the_files(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    to = folder / "docker"
    report = split(capfd, folder, "-o", to, "--gpu", "h100", "--drop-ptx")
    assert [Path(name).name for name in report["files"]] == [
        *("api-core.Dockerfile", "api-core.Dockerfile.dockerignore", "ml-inference.Dockerfile"),
        *("ml-inference.Dockerfile.dockerignore", "compose.yaml"),
    ]
    core, ml = ((to / f"{name}.Dockerfile").read_text() for name in ("api-core", "ml-inference"))
    assert "requirements/core.txt" in core
    assert "ml.txt" not in core
    assert "-r requirements/ml.txt" in ml
    assert "core-stage" not in ml
    assert ("ARG GPU=\n" in core, "ARG GPU=sm_90\n" in ml) == (True, True)
    for name in ("api-core", "ml-inference"):
        done = subprocess.run([HADOLINT, to / f"{name}.Dockerfile"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")
    services = yaml.safe_load((to / "compose.yaml").read_text())["services"]
    assert services["api-core"]["environment"]["SVC_ML_URL"] == "http://ml-inference:8000"
    assert services["api-core"]["depends_on"] == {"ml-inference": {"condition": "service_healthy"}}
    assert "ports" not in services["ml-inference"]
    for service in services.values():
        build = service["build"]
        assert ((to / build["context"]).resolve() / build["dockerfile"]).is_file()
        assert service["healthcheck"]["test"][:3] == ["CMD", "python", "-c"]
        assert (service["read_only"], service["tmpfs"]) == (True, ["/tmp"])
        assert "sqlite:////tmp/service.db" in service["environment"]["SVC_DATABASE_URL"]
    assert services["ml-inference"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    said = split(capfd, folder, "-o", to, status=2)["error"]
    assert "is there already" in said
    split(capfd, folder, "-o", to, "--force")
    assert "ARG GPU=\n" in (to / "ml-inference.Dockerfile").read_text()
    assert "deploy" not in yaml.safe_load((to / "compose.yaml").read_text())["services"]["ml-inference"]


def test_a_core_that_imports_it_gets_no_files(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "src/service/model.py").write_text("import fastapi\n\n\nfrom torch import nn\n")
    report = split(capfd, folder, "-o", folder / "docker", status=1)
    assert "src/service/model.py:4 (torch)" in report["error"]
    assert "nothing was written" in report["error"]
    assert not (folder / "docker").exists()
    wrong = report["imports"]["wrong"]
    assert [(one["path"], one["line"], one["distribution"]) for one in wrong] == [("src/service/model.py", 4, "torch")]
    assert wrong[0]["chain"] == ["service.main:6 imports service.model"]
    split(capfd, folder, "--check", status=1)
    split(capfd, folder, "-o", folder / "docker", "--force", status=1)
    assert (folder / "docker/compose.yaml").is_file()


def test_the_core_s_distributions_by_the_comments_of_one_lock(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "requirements/core.txt").unlink()
    text = requirements(CORE + " torch nvidia-nccl-cu13").replace("    # via service\n", "")
    assert "the core too" in _with_lock(folder, capfd, text, 3)["error"]
    via = {"starlette": "fastapi", "nvidia-nccl-cu13": "torch"}
    lines = []
    for line in text.splitlines():
        lines.append(line)
        name = (lines[-2] if line.startswith("    --hash") else "").partition("==")[0]
        if name:
            lines.append(f"    # via {via.get(name, 'service')}")
    report = _with_lock(folder, capfd, "\n".join(lines) + "\n", 0)
    assert report["core"] == sorted(CORE.split())
    assert report["ml"] == ["nvidia-nccl-cu13", "torch"]


def _with_lock(folder: Path, capfd: pytest.CaptureFixture[str], text: str, status: int) -> dict[str, Any]:
    (folder / "requirements/ml.txt").write_text(text)
    return split(capfd, folder, status=status)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--by-extra", "nothing"], 3, "no extra 'nothing'"),
        (["--check", "-o", "x"], 2, "--check writes nothing"),
        (["--entry", "service.nowhere"], 2, "no module 'service.nowhere'"),
        (["--url-variable", "a b"], 2, "no name of a variable"),
        (["-o", "x", "--base", "a b"], 2, "no image"),
        (["--drop-ptx"], 2, "--drop-ptx"),
    ],
)
def test_what_is_refused(
    words: list[str], status: int, said: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert said in split(capfd, folder, *words, status=status)["error"]
    assert not Path("x").exists()


def test_help_has_examples(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["split", "--help"]) == 0
    text = capfd.readouterr().out
    assert "Examples:\n" in text
    assert max(map(len, text.splitlines())) <= 80


def test_people_are_told(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["split", str(folder)]) == 0
    out = capfd.readouterr().out
    assert "api-core imports nothing that only ml-inference has" in out
    assert "api-core finds ml-inference by SVC_ML_URL" in out
