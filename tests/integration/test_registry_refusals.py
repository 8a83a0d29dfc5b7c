"""Registries that do not take an image, and what is said of it: the reason that they give, or ours."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from deadweight.errors import EnvironmentFailure
from deadweight.image.output import keep_image
from deadweight.image.reference import parse_destination
from deadweight.image.transports import open_image, write_image
from deadweight.image.transports.registry_settings import Settings, using
from support.images import file, make_image, make_tar, write_docker_archive
from support.registries import PASSWORD, USER, Server, start_registry

pytestmark = pytest.mark.usefixtures("without_logins")


def push(server: Server, place: Path, size: int = 100) -> None:
    archive = write_docker_archive(place / f"{size}.tar", make_image(make_tar(file("data", os.urandom(size)))))
    with using(Settings(tries=2, pause=0.01, chunk=500_000)), open_image(str(archive)) as source:
        write_image(keep_image(source), parse_destination(f"docker://{server.host}/team/app:{size}"))


def test_a_registry_that_calls_itself_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        server = start_registry(stack, password=True, calls_itself="localhost")
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (tmp_path / "auth.json").write_text(json.dumps({"auths": {server.host: {"auth": login}}}))
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
        port = server.host.rpartition(":")[2]
        with pytest.raises(EnvironmentFailure, match=f"{server.host} leads to 'http://localhost:{port}'") as caught:
            push(server, tmp_path)
        assert "is not sent there" in str(caught.value)
        assert "not enough" not in str(caught.value)


def test_a_registry_that_is_read_only(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = start_registry(stack, readonly=True)
        with pytest.raises(EnvironmentFailure, match=r"does not allow it \(HTTP 405\).*is it read-only"):
            push(server, tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_registry_without_space(tmp_path: Path) -> None:
    with ExitStack() as stack:
        small = tmp_path / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], check=True)
        stack.callback(lambda: subprocess.run(["umount", "--lazy", small], check=True))
        server = start_registry(stack, folder=small)
        with pytest.raises(EnvironmentFailure, match=r"HTTP 500.*\(no space left on device\)"):
            push(server, tmp_path, 4_000_000)
