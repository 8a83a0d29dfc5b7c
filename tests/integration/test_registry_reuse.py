"""A real registry and what was there before: layers in other repositories, the cache, originals under other tags."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deadweight.cli.main import main
from support.images import FixtureImage, directory, file, make_image, make_tar
from support.registries import Server, no_logins, pushed, raw, requests, start_registry

BASE = make_tar(
    directory("root"), directory("root/.cache"), directory("root/.cache/pip"),
    file("root/.cache/pip/wheel", os.urandom(20_000)), file("usr", os.urandom(50_000)),
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with ExitStack() as stack:
        yield start_registry(stack)


@pytest.fixture(autouse=True)
def _no_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_logins(monkeypatch, tmp_path / "home")


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
