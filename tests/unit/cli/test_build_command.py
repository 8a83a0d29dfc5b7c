"""`deadweight build`: what is refused before anything is done, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from deadweight.cli import main
from support.images import make_image, make_tar, write_oci
from support.projects import project


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a project, and a base without a Python."""
    project(tmp_path / "svc")
    write_oci(tmp_path / "base", make_image(make_tar()))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("DEADWEIGHT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["svc", "--base", "oci:base"], 2, "--to"),
        (["svc", "--to", "oci:out"], 2, "--base"),
        (["svc", "--base", "oci:base", "--to", "out.tar"], 2, "transport"),
        (["svc", "--base", "python:3.12", "--to", "oci:out"], 4, "no such socket"),
        (["svc", "--base", "debian:", "--to", "oci:out"], 2, "no suite"),
        (["svc", "--base", "debian:../x", "--to", "oci:out"], 2, "no suite"),
        (["svc", "--base", "debian:bookworm", "--to", "oci:out", "--mirror", "x y"], 2, "no mirror"),
        (["svc", "--base", "debian:bookworm", "--to", "oci:out", "--package", "-x"], 2, "no Debian package"),
        (["svc", "--base", "debian:bookworm", "--to", "oci:out", "--platform", "linux/s390x"], 2, "linux/s390x"),
        (["svc", "--base", "oci:base", "--to", "oci:out", "--drop-ptx"], 2, "--drop-ptx"),
        (["svc", "--base", "oci:base", "--to", "oci:out", "--gpu", "h1000"], 2, "h1000"),
        (["svc", "--base", "oci:base", "--to", "oci:out", "--find-links", "x"], 2, "--variant cpu"),
        (["svc", "--base", "oci:base", "--to", "oci:out", "--variant", "cpu", "--gpu", "h100"], 2, "no GPU"),
        (["svc", "--base", "oci:base", "--to", "oci:out", "--cache", "c", "--no-cache"], 2, "--no-cache"),
        (["svc", "--base", "oci:base", "--to", "oci:out", "--extra", "more", "--no-extras"], 2, "--no-extras"),
        (["svc", "--base", "oci:base", "--to", "oci:out", "--extra", "none"], 3, "no extra 'none'"),
        (["svc", "--base", "oci:base", "--to", "oci:out"], 3, "no python3"),
        (["svc", "--base", "oci:none", "--to", "oci:out"], 3, "none"),
        (["empty", "--base", "oci:base", "--to", "oci:out"], 3, "no Python project"),
        (["svc", "--base", "oci:base", "--to", "docker-archive:svc/pyproject.toml"], 2, "exists"),
        (["svc", "--base", "oci:base", "--to", "oci:svc"], 2, "neither empty nor an OCI layout"),
    ],
)
def test_what_is_refused(
    folder: Path, arguments: list[str], status: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", *arguments]) == status
    assert said in capfd.readouterr().err
    assert not (folder / "out").exists()
    assert not list((folder / "cache").rglob("layers/*"))


def test_help_has_examples(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--help"]) == 0
    text = capfd.readouterr().out
    assert "Examples:\n" in text
    assert max(map(len, text.splitlines())) <= 80


def test_without_mmdebstrap_it_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("deadweight.build.debian.shutil.which", lambda name, **_: None)
    assert main(["build", "svc", "--base", "debian:bookworm", "--to", "oci:out"]) == 4
    assert "apt-get install mmdebstrap" in capfd.readouterr().err


def test_a_bootstrap_that_fails_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake = folder / "mmdebstrap"
    fake.write_text("#!/bin/sh\necho some of a tar\nprintf 'E: \\033[31mno suite\\n' >&2\nexit 25\n")
    fake.chmod(0o755)
    monkeypatch.setattr("deadweight.build.debian.shutil.which", lambda name, **_: str(fake))
    assert main(["build", "svc", "--base", "debian:nowhere", "--to", "oci:out"]) == 4
    said = capfd.readouterr().err
    assert "E: no suite" in said
    assert "\x1b" not in said
    assert not list((folder / "cache/blobs").iterdir())
    assert not list((folder / "cache/work").iterdir())
