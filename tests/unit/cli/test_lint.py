"""`deadweight lint`: what is taken for what, what is said, and the exit statuses."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from deadweight.cli import main
from support.images import file, make_image, make_tar, write_docker_archive
from support.linting import GOOD, REPORT
from support.service import HOSTILE, save, service


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["lint", *arguments])
    return status, *capfd.readouterr()


def document(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    _, out, err = run(capfd, *arguments, "--json", "-")
    assert err == ""
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def test_people(capfd: pytest.CaptureFixture[str]) -> None:
    path = str(REPORT / "phase-2.Dockerfile")
    status, out, err = run(capfd, path)
    assert (status, err) == (1, "")
    lines = out.splitlines()
    assert f"{path}:19: error: hidden-failure: 2>/dev/null and || true hide whether it worked: strip" in lines
    assert "unknown: give --image" in out
    assert out.count("instead") == 6  # each rule explains itself once
    assert "4 errors and 2 warnings; 3 findings of unknown bytes" in out.replace("\n", " ")


def test_programs(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = str(REPORT / "original.Dockerfile")
    found = document(capfd, path)
    assert (found["schema"], found["target"], found["image"], found["errors"]) == ("deadweight.lint/1", path, None, 5)
    first = found["findings"][0]
    assert (first["rule"], first["severity"], first["line"], first["file"]) == (
        "compilers-in-runtime",
        "error",
        6,
        path,
    )
    assert first["instruction"].startswith("RUN apt-get update && apt-get install -y build-essential")
    assert (first["bytes"], first["weighs"], first["layer"], found["bytes"]) == (None, True, None, 0)
    status, out, _ = run(capfd, path, "--json", str(tmp_path / "x.json"))
    assert status == 1
    assert "compilers-in-runtime" in out
    assert json.loads((tmp_path / "x.json").read_text()) == found


def test_an_image(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    image = save(tmp_path, service(commands=("RUN apt-get install -y curl", "RUN b", "COPY . .")))
    found = document(capfd, f"docker-archive:{image}")
    assert found["image"]["digest"].startswith("sha256:")
    cache = next(one for one in found["findings"] if one["rule"] == "cache-left-in-layer")
    assert (cache["file"], cache["line"], cache["layer"]) == (f"docker-archive:{image}#history", 1, 0)
    assert cache["bytes"] == sum(path["bytes"] for path in cache["paths"]) == 512 + 500_224
    assert found["bytes"] >= cache["bytes"]
    assert document(capfd, str(image))["findings"][0]["rule"] == found["findings"][0]["rule"]  # a bare path, too


def test_statuses(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text("FROM python:3.12-slim\n")
    assert run(capfd, str(path))[0] == 0  # a warning alone
    assert run(capfd, str(path), "--strict")[0] == 1
    assert run(capfd, str(path), "--strict", "--skip", "runs-as-root")[0] == 0
    assert run(capfd, str(path), "--strict", "--only", "tests-copied")[0] == 0
    assert run(capfd, *map(str, GOOD[:1]), "--strict")[:2] == (0, f"{GOOD[0]}: nothing found\n")
    path.write_text("FROM x\nCMD uvicorn x:y --reload\n")
    assert run(capfd, str(path))[0] == 1
    for text, message in (
        ("FRO x\n", "line 1: there is no instruction 'FRO'"),
        ("", "no FROM"),
        ("FROM x\nRUN <<E\n", "line 2: the heredoc"),
    ):
        path.write_text(text)
        status, out, err = run(capfd, str(path))
        assert (status, out) == (3, "")
        assert message in err
    assert run(capfd, str(tmp_path / "no.Dockerfile"))[0] == 3
    assert run(capfd, str(tmp_path / "nothing"))[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say which Dockerfile or image"),
        (("x", "--skip", "nothing"), "there is no rule 'nothing'"),
        (("x", "--only", HOSTILE), "there is no rule"),
        (
            (str(REPORT / "phase-2.Dockerfile"), "--target", "none"),
            "no stage 'none'; there are: base, deps-stage, runtime",
        ),
    ],
)
def test_usage(capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    status, out, err = run(capfd, *arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_options_of_dockerfiles_with_an_image(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = run(capfd, str(save(tmp_path)), "--target", "x")
    assert status == 2
    assert "go with a Dockerfile" in err


def test_list(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capfd, "--list")
    assert status == 0
    assert "hidden-failure" in out


def test_standard_input(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(b"FROM x\nCMD uvicorn x:y --reload\n")

    monkeypatch.setattr("sys.stdin", Stdin)
    status, out, _ = run(capfd, "-", "--only", "reload-in-production")
    assert status == 1
    assert out.startswith("-:2: error: reload-in-production: CMD says --reload\n")


def test_terminal_escapes_stay_where_they_are(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    evil = HOSTILE.replace("\n", "")
    path.write_text(
        f"FROM x{evil} AS y\nARG DEV=true\nRUN pip install pytest {evil} && strip '{evil}' || true\n"
        f"COPY {evil} tests{evil} tests /x\nRUN chown -R a '/x{evil}' && useradd e\nUSER root{evil}\n"
        f'CMD ["sh", "-c", "uvicorn --reload {evil}"]\n# deadweight ignore={evil}\n'
    )
    image = make_image(
        make_tar(file("var/lib/apt/lists/" + HOSTILE, b"x" * 200_000)),
        commands=[f"RUN pip install pytest {HOSTILE} || true # buildkit"],
    )
    archive = write_docker_archive(tmp_path / "image.tar", image)
    for arguments in ((str(path),), (str(archive),), (str(path), "--image", str(archive))):
        for more in ((), ("--json", "-")):
            status, out, err = run(capfd, *arguments, *more)
            assert (status, err) == (1, "")
            assert not any(odd in out for odd in "\x1b\x9b\x07\u202e")
