"""`deadweight dockerfile`."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deadweight.build import pin
from deadweight.build.pin import pinned
from deadweight.cli.dockerfile import dockerfile_command
from deadweight.errors import BadInputError, EnvironmentFailure, UsageError
from support.recipes import FASTAPI, project, pyproject, requirements

DIGEST = "sha256:" + "1" * 64


def dockerfile(*arguments: str | Path) -> None:
    dockerfile_command.main(list(map(str, arguments)), "deadweight dockerfile", standalone_mode=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {"src/service/main.py": FASTAPI, "requirements.txt": requirements("fastapi uvicorn")}
    return project(tmp_path / "service", files | {"pyproject.toml": pyproject(extras={"dev": "pytest"})})


def test_to_standard_output(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dockerfile(folder)
    out, err = capfd.readouterr()
    assert out.startswith("# The image of service.")
    assert out.endswith('CMD ["uvicorn", "service.main:app", "--host", "0.0.0.0", "--port", "8000"]\n')
    assert "deadweight: the application is service.main:app" in err
    assert "--dockerignore FILE writes one" in err


def test_here_with_what_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    dockerfile(
        "--gpu", "h100,l4", "--drop-ptx", "--package", "tini", "--no-package", "libpq5", "--base", "debian:trixie"
    )
    out = capfd.readouterr().out
    assert "\nARG GPU=sm_89,sm_90\n" in out
    assert "--drop-ptx}" in out
    assert "FROM debian:trixie AS base" in out
    assert "        tini \\\n" in out
    assert "libpq5" not in out
    dockerfile("--gpu", "none", "--dockerignore", ".dockerignore")
    assert "\nARG GPU=none\n" in capfd.readouterr().out
    assert ".git\n" in Path(".dockerignore").read_text()


def test_to_files(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "docker").mkdir()
    target = folder / "docker/api.Dockerfile"
    ignored = folder / "docker/api.Dockerfile.dockerignore"
    dockerfile(folder, "-o", target)
    assert capfd.readouterr().out == ""
    assert "#   docker build -f docker/api.Dockerfile -t service .\n" in target.read_text()
    assert ".git\n" in ignored.read_text()
    with pytest.raises(UsageError, match=r"is there already.*--force"):
        dockerfile(folder, "-o", target)
    target.unlink()
    ignored.write_text("mine\n")
    dockerfile(folder, "-o", target)
    assert ignored.read_text() == "mine\n"
    dockerfile(folder, "-o", target, "--force")
    assert ".git\n" in ignored.read_text()
    with pytest.raises(UsageError, match="there is no directory"):
        dockerfile(folder, "-o", folder / "missing/Dockerfile")


def test_what_cannot_be_meant(folder: Path) -> None:
    for arguments in (["--extra", "dev", "--no-extras"], ["--drop-ptx"], ["--base", "a b"], ["--package", "a;b"]):
        with pytest.raises(UsageError):
            dockerfile(folder, *arguments)
    with pytest.raises(UsageError, match="is no digest"):
        dockerfile(folder, "--pin=latest")
    with pytest.raises(BadInputError, match="no extra 'ml'"):
        dockerfile(folder, "--extra", "ml")
    with pytest.raises(BadInputError, match="there is no directory"):
        dockerfile(folder / "missing")


def test_the_base_by_its_digest(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dockerfile(folder, f"--pin={DIGEST}")
    assert f"FROM python:3.14-slim-bookworm@{DIGEST} AS base" in capfd.readouterr().out
    dockerfile(folder, "--pin", "--base", f"python:3.12@{DIGEST}")
    assert f"FROM python:3.12@{DIGEST} AS base" in capfd.readouterr().out


class Registry(http.server.BaseHTTPRequestHandler):
    """As much of a registry as tells the manifest of one image."""

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": DIGEST,
                    "size": 2,
                    "platform": {"os": "linux", "architecture": "amd64"},
                }
            ],
        }
    ).encode()

    def do_GET(self) -> None:
        there = self.path in ("/v2/", "/v2/team/base/manifests/1")
        body = self.manifest if "manifests" in self.path and there else b"{}"
        self.send_response(200 if there else 404)
        self.send_header("Content-Type", "application/vnd.oci.image.index.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_registry_tells_the_digest(registry: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    expected = "sha256:" + hashlib.sha256(Registry.manifest).hexdigest()
    dockerfile(folder, "--pin", "--base", f"{registry}/team/base:1")
    assert f"FROM {registry}/team/base:1@{expected} AS base" in capfd.readouterr().out
    with pytest.raises(
        EnvironmentFailure, match=r"nobody could tell the digest .*its registry: .*has no such thing.*--pin=sha256"
    ):
        dockerfile(folder, "--pin", "--base", f"{registry}/team/base:2", "-o", folder / "Dockerfile")
    assert not (folder / "Dockerfile").exists()


def program(place: Path, name: str, text: str) -> None:
    place.mkdir(exist_ok=True)
    (place / name).write_text(f"#!/bin/sh\n{text}\n")
    (place / name).chmod(0o755)


def test_an_engine_tells_the_digest_of_what_it_pulled(registry: str, tmp_path: Path) -> None:
    place = tmp_path / "bin"
    environment = {"PATH": str(place)}
    mine = f"{registry}/python:3.12"
    with pytest.raises(EnvironmentFailure, match=r"its registry: .*404.*; docker buildx: not installed"):
        pinned(mine, None, environment)
    told = f'["example.org/python@sha256:{"2" * 64}", "{registry}/python@{DIGEST}"]'
    program(place, "docker", f"""test "$1" = image || {{ echo no buildx >&2; exit 1; }}; echo '{told}'""")
    assert pinned(mine, None, environment) == f"{mine}@{DIGEST}"
    program(place, "docker", f"""test "$1" = buildx && echo {DIGEST}""")
    assert pinned(mine, None, environment) == f"{mine}@{DIGEST}"
    program(place, "docker", "echo nonsense")
    with pytest.raises(EnvironmentFailure, match="it knows no digest of it; docker: it answers in no known way"):
        pinned(mine, None, environment)


def test_an_engine_shortens_names(tmp_path: Path) -> None:
    program(tmp_path / "bin", "docker", f"""echo '["docker.io/library/python@{DIGEST}"]'""")
    assert list(pin._engine("python:3.12", {"PATH": str(tmp_path / "bin")})) == [DIGEST]
