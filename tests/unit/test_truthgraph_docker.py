"""examples/truthgraph/docker: what `deadweight dockerfile` says of the service, and a compose file that fits it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deadweight.cli.dockerfile import dockerfile_command
from deadweight.cli.split import split_command

BIN = Path(sys.executable).parent
SERVICE = Path(__file__).parents[2] / "examples/truthgraph"


def test_the_dockerfile_is_what_the_command_writes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "truthgraph"
    shutil.copytree(SERVICE, copy, ignore=shutil.ignore_patterns(".*", "docker", "__pycache__"))
    (copy / "docker").mkdir()
    dockerfile_command.main([str(copy), "-o", f"{copy}/docker/api.Dockerfile"], "dockerfile", standalone_mode=False)
    for name in ("api.Dockerfile", "api.Dockerfile.dockerignore"):
        made, kept = (copy / "docker" / name).read_text(), (SERVICE / "docker" / name).read_text()
        assert made == kept, "run: deadweight dockerfile . -o docker/api.Dockerfile --force, in examples/truthgraph"


def test_the_split_is_what_the_command_writes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "truthgraph"
    shutil.copytree(SERVICE, copy, ignore=shutil.ignore_patterns(".*", "docker", "__pycache__"))
    kept = SERVICE / "docker/split"
    split_command.main([str(copy), "--by-extra", "ml", "-o", f"{copy}/docker/split"], "split", standalone_mode=False)
    assert sorted(path.name for path in kept.iterdir()) == sorted(
        path.name for path in (copy / "docker/split").iterdir()
    )
    for path in kept.iterdir():
        made = (copy / "docker/split" / path.name).read_text()
        assert made == path.read_text(), (
            "run: deadweight split . --by-extra ml -o docker/split --force, in examples/truthgraph"
        )


@pytest.mark.parametrize("name", ["api", "split/api-core", "split/ml-inference"])
def test_hadolint_finds_nothing(name: str) -> None:
    done = subprocess.run([BIN / "hadolint", SERVICE / f"docker/{name}.Dockerfile"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


def test_the_compose_file_fits() -> None:
    document = yaml.safe_load((SERVICE / "docker/compose.yaml").read_text())
    services = document["services"]
    text = (SERVICE / "docker/api.Dockerfile").read_text()
    for service in services.values():
        build = service.get("build")
        if build is None:
            name, _, tag = service["image"].partition(":")
            assert (name, tag[:2]) == ("pgvector/pgvector", "0.")
            assert "pg_isready" in service["healthcheck"]["test"]
            continue
        folder = (SERVICE / "docker" / build["context"]).resolve()
        assert (folder / build["dockerfile"]).is_file()
        assert all(f"ARG {name}" in text for name in build["args"])
    assert services["api"]["depends_on"]["database"]["condition"] == "service_healthy"
    assert services["api"]["build"]["args"] == {"VARIANT": "core"}
    assert services["ml"]["profiles"] == ["ml"]
