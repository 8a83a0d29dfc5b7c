"""`--sbom`: which documents go where, and what is refused before any work is done."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from deadweight.cli import main
from deadweight.cli.main import cli
from deadweight.sbom import libraries
from support.careless import service_image
from support.images import file, make_image, make_tar, write_docker_archive
from support.sboms import check, purls


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("image") / "image.tar"
    return str(write_docker_archive(path, service_image(), "service:1", style="25"))


def test_of_an_image(image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.json"
    assert main(["inspect", image, "--sbom", f"cyclonedx={file}", "--sbom", "spdx"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert purls("spdx", check("spdx", out.encode())) == purls("cyclonedx", check("cyclonedx", file.read_bytes()))
    assert main(["inspect", image, "--sbom", f"spdx={file}"]) == 0
    assert "Owners" in capfd.readouterr().out
    assert file.read_bytes() == out.encode()


def test_of_a_slim_image_by_slim_and_by_apply(image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan, one, two = (str(tmp_path / name) for name in ("plan.json", "one.json", "two.json"))
    to = f"docker-archive:{tmp_path / 'slim.tar'}:service:slim"
    assert main(["slim", image, "--to", to, "--all-layers", "--plan-out", plan, "--sbom", f"cyclonedx={one}"]) == 0
    assert main(["apply", plan, "--to", to, "--force", "--sbom", f"cyclonedx={two}"]) == 0
    assert Path(one).read_bytes() == Path(two).read_bytes()
    image_component = json.loads(Path(one).read_bytes())["metadata"]["component"]
    assert image_component["name"] == "service:slim"
    assert [each["name"] for each in image_component["pedigree"]["ancestors"][0]["components"]] == [
        *("gcc", "pluggy", "pytest")
    ]
    capfd.readouterr()


def test_too_many_components_are_refused_before_anything_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stanzas = (f"Package: p{i}\nStatus: install ok installed\nVersion: 1\n\n" for i in range(5001))
    image = make_image(make_tar(file("var/lib/dpkg/status", "".join(stanzas).encode())))
    path = str(write_docker_archive(tmp_path / "image.tar", image, "x:1", style="25"))
    plan, slim = str(tmp_path / "plan.json"), tmp_path / "slim.tar"
    assert main(["plan", path, "-o", plan]) == 0
    for command in (["slim", path], ["apply", plan]):
        assert main([*command, "--to", f"docker-archive:{slim}", "--sbom", f"spdx={tmp_path / 'x.json'}"]) == 3
        assert "5,001 packages" in capfd.readouterr().err
        assert not slim.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sbom", "swid=x"), "cyclonedx and spdx"),
        (("--sbom", "cyclonedx="), "name a file"),
        (("--sbom", "spdx=a", "--sbom", "spdx=b"), "twice"),
        (("--sbom", "spdx", "--json", "-"), "only one document"),
        (("--sbom", "spdx=/nowhere/at/all"), "no directory"),
    ],
)
def test_what_cannot_be_meant(
    image: str, arguments: tuple[str, ...], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", image, *arguments]) == 2
    assert message in capfd.readouterr().err


@pytest.mark.parametrize(
    "document", [("--sbom", "spdx"), ("--html", "-"), ("--html", "/dev/stdout"), ("--html", "/dev/null")]
)
def test_every_platform_has_files(document: tuple[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["docker://localhost:1/x:1", "--to", "docker://localhost:1/x:2", "--all-platforms"]
    assert main(["slim", *arguments, *document]) == 2
    assert f"{document[0]}" in (said := capfd.readouterr().err)
    assert "a file for each image" in said


@pytest.mark.parametrize(("form", "module"), [("cyclonedx", "cyclonedx"), ("spdx", "spdx_tools")])
def test_a_missing_library_is_named_at_once(
    form: str, module: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None if name == module else find_spec(name))
    assert main(["inspect", "/nowhere", "--sbom", form]) == 4
    assert "pip install 'deadweight[sbom]'" in capfd.readouterr().err


def test_completion() -> None:
    complete = ShellComplete(cli, {}, "deadweight", "_DEADWEIGHT_COMPLETE")
    assert [one.value for one in complete.get_completions(["inspect", "--sbom"], "")] == ["cyclonedx=", "spdx="]
    assert [one.value for one in complete.get_completions(["inspect", "--sbom"], "s")] == ["spdx="]
    (files,) = complete.get_completions(["inspect", "--sbom"], "spdx=out")
    assert (files.type, files.value) == ("file", "out")
