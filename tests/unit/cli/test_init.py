"""`deadweight init`."""

from __future__ import annotations

from pathlib import Path

import pytest

from deadweight.cli.init import init_command
from deadweight.errors import DeadweightError, UsageError
from deadweight.verify.spec.reading import read_spec
from support.images import directory, file, make_image, make_tar, write_docker_archive, write_oci

MAIN = b"from fastapi import FastAPI\napp = FastAPI()\n"


def init(*arguments: str | Path) -> None:
    init_command.main(list(map(str, arguments)), "deadweight init", standalone_mode=False)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    run = {"Cmd": ["uvicorn", "main:app"], "WorkingDir": "/app"}
    image = make_image(make_tar(directory("app"), file("app/main.py", MAIN)), run=run)
    write_docker_archive(tmp_path / "image.tar", image, "x:latest", style="25")
    write_oci(tmp_path / "layout", image, tag="latest")
    return tmp_path / "image.tar"


def test_an_image(archive: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    init(archive, "-o", tmp_path / "deadweight.toml")
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(
        f"deadweight: {tmp_path / 'deadweight.toml'}: application main:app, port 8000; no health check"
    )
    assert read_spec(tmp_path / "deadweight.toml").app.asgi == "main:app"


def test_to_standard_output(archive: Path, capfd: pytest.CaptureFixture[str]) -> None:
    init(archive.parent / "layout", "-o", "-")
    out, err = capfd.readouterr()
    assert 'asgi = "main:app"' in out
    assert err.startswith("deadweight: application main:app")


def test_a_project_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "main.py").write_bytes(MAIN)
    monkeypatch.chdir(tmp_path)
    init()
    assert "there is no Dockerfile" in capfd.readouterr().err
    assert read_spec("deadweight.toml").app.asgi == "main:app"


def test_nothing_is_overwritten_unasked(archive: Path, tmp_path: Path) -> None:
    target = tmp_path / "spec.toml"
    target.write_text("precious")
    with pytest.raises(UsageError, match=r"is there already.*--force"):
        init(archive, "-o", target)
    assert target.read_text() == "precious"
    init(archive, "-o", target, "--force")
    assert read_spec(target).app.asgi == "main:app"
    before = archive.read_bytes()
    with pytest.raises(UsageError, match="an input"):
        init(archive, "-o", archive, "--force")
    assert archive.read_bytes() == before


def test_what_is_neither_image_nor_project(tmp_path: Path) -> None:
    with pytest.raises(DeadweightError, match="no file or directory"):
        init(tmp_path / "missing", "-o", tmp_path / "x.toml")
    assert not (tmp_path / "x.toml").exists()
