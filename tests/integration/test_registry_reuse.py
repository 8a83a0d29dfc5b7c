"""A real registry and what was there before: layers in other repositories, the cache, originals under other tags."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from deadweight.cli.main import main
from support.engines import docker_host, run
from support.images import FixtureImage, directory, file, make_image, make_tar, write_docker_archive
from support.registries import Server, pushed, raw, requests

BASE = make_tar(
    directory("root"), directory("root/.cache"), directory("root/.cache/pip"),
    file("root/.cache/pip/wheel", os.urandom(20_000)), file("usr", os.urandom(50_000)),
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("without_logins")


def service(code: bytes) -> FixtureImage:
    """Two layers, of which the lower one loses a pip cache."""
    return make_image(BASE, make_tar(file("app.py", code)))


def slim(source: str, to: str, *more: str) -> int:
    return main(["slim", source, "--to", to, "--all-layers", *more])


def test_rewritten_layers_are_mounted_from_where_they_were_sent(server: Server, tmp_path: Path) -> None:
    one = pushed(server, "mounts/one:1", service(b"1"), tmp_path)
    other = pushed(server, "mounts/other:1", service(b"2"), tmp_path)
    assert slim(one, f"docker://{server.host}/mounts/one:slim") == 0
    assert slim(other, f"docker://{server.host}/mounts/other:slim") == 0
    layers = [raw(f"docker://{server.host}/mounts/{name}:slim")["layers"] for name in ("one", "other")]
    assert layers[0][0] == layers[1][0] != raw(other)["layers"][0]
    mounts = requests(server, "POST", "/mounts/other/blobs/uploads/?mount=")
    assert len(mounts) == 1
    assert "from=mounts/one" in mounts[0]
    assert len(requests(server, "PUT", "/mounts/other/blobs/uploads/")) == 1, "the configuration, and no layer"
    assert server.uploads("mounts/other") == []


def engine_slim(server: Server, name: str, place: Path, image: FixtureImage) -> str:
    """A slim image that does not know under which tag of the repository its original is."""
    archive = write_docker_archive(place / "a.tar", image, "svc:latest")
    to = f"docker://{server.host}/{name}"
    assert slim(str(archive), to) == 0
    return to


def test_the_original_is_found_under_any_tag(server: Server, tmp_path: Path) -> None:
    image = service(b"3")
    for number in range(3):
        pushed(server, f"roll/svc:0.{number}", service(b"old%d" % number), tmp_path)
    original = pushed(server, "roll/svc:1.4", image, tmp_path)
    to = engine_slim(server, "roll/svc:1.4-slim", tmp_path, image)
    before = len(requests(server, "GET", "/roll/svc/manifests/0."))
    assert main(["rollback", to]) == 0
    assert raw(to) == raw(original)
    assert len(requests(server, "GET", "/roll/svc/manifests/0.")) == before, "the tag most like it is looked at first"


def test_an_original_that_is_elsewhere(server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = service(b"4")
    to = engine_slim(server, "lost/svc:1.4-slim", tmp_path, image)
    assert main(["rollback", to]) == 3
    name = f"{server.host}/lost/svc"
    said = capfd.readouterr().err
    assert f"was not found in {name}: none of its 1 tags leads to it" in said
    assert "no longer" not in said
    # And what it says helps.
    original = pushed(server, "lost/svc:1.4-slim-original", image, tmp_path)
    assert f"give it the tag '{name}:1.4-slim-original'" in said
    assert main(["rollback", to]) == 0
    assert raw(to) == raw(original)


@pytest.mark.parametrize("source", ["as it was pushed", "in another repository"])
def test_layers_that_an_engine_pushed_are_not_sent_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """An engine keeps them plain: its digests of manifests lead to what they were packed as."""
    app = make_tar(directory("root/.cache/pip"), file("root/.cache/pip/wheel", os.urandom(2000)))
    archive = write_docker_archive(tmp_path / "a.tar", make_image(make_tar(file("base", b"b" * 90_000)), app), "a:1")
    name = f"{server.host}/engine-{source.replace(' ', '-')}/app"
    with ExitStack() as stack:
        host = docker_host(stack)
        monkeypatch.setenv("DOCKER_HOST", host)
        run("docker", "-H", host, "load", "-i", archive)
        run("docker", "-H", host, "tag", "a:1", f"{name}:1")
        run("docker", "-H", host, "push", f"{name}:1")
        there = name if source == "as it was pushed" else f"{name}-slim"
        assert slim(f"docker-daemon:{name}:1", f"docker://{there}:1-slim") == 0
    before, after = (raw(f"docker://{one}")["layers"] for one in (f"{name}:1", f"{there}:1-slim"))
    assert before[0]["digest"] == after[0]["digest"]
    assert before[1]["digest"] != after[1]["digest"]
    path = there.partition("/")[2]
    assert len(requests(server, "PUT", f"/{path}/blobs/uploads/")) == 2, "the other layer, and the configuration"
    archive.unlink()
