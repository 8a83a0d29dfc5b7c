"""The ways to an engine: TLS with certificates of both sides, ssh, contexts; and podman's storage by skopeo."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from deadweight.cli.main import main
from deadweight.errors import EnvironmentFailure, UsageError
from deadweight.image.output import keep_image
from deadweight.image.reference import parse_destination
from deadweight.image.transports import open_image, write_image
from support.engines import certificates, docker_host, need
from support.images import FixtureImage, directory, file, make_image, make_tar, write_docker_archive

pytestmark = pytest.mark.xdist_group("engine-images")


@dataclass(frozen=True)
class Ways:
    """An engine that listens on a socket and, with TLS, on a port; and an image that it has."""

    socket: str
    port: int
    certificates: Path
    image: FixtureImage


def fixture_image() -> FixtureImage:
    return make_image(make_tar(directory("tmp"), file("tmp/x", b"x" * 9000), file("app", b"1\n")))


@pytest.fixture(scope="module")
def ways() -> Iterator[Ways]:
    need("openssl", "docker", "dockerd")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deadweight-tls-")))
        certificates(folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        tls = ["--tlsverify", "--tlscacert", "ca.pem", "--tlscert", "cert.pem", "--tlskey", "key.pem"]
        tls = [str(folder / word) if word.endswith(".pem") else word for word in tls]
        host = docker_host(stack, ["-H", f"tcp://127.0.0.1:{port}", *tls])
        image = fixture_image()
        archive = write_docker_archive(folder / "svc.tar", image, "svc:latest")
        subprocess.run(["docker", "-H", host, "load", "-i", str(archive)], check=True, capture_output=True)
        yield Ways(host.removeprefix("unix://"), port, folder, image)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


def reads_and_writes(ways: Ways, name: str) -> None:
    with open_image("docker-daemon:svc:latest") as image:
        assert image.config_digest == ways.image.config_digest
        written = write_image(keep_image(image), parse_destination(f"docker-daemon:{name}"))
    asked = subprocess.run(
        ["docker", "-H", f"unix://{ways.socket}", "image", "inspect", "--format", "{{.Id}}", name],
        check=True,
        capture_output=True,
        text=True,
    )
    assert asked.stdout.strip() == written.config_digest


def test_tls(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{ways.port}")
    with pytest.raises(EnvironmentFailure, match="no container engine"):
        open_image("svc:latest")  # without TLS
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    with pytest.raises(EnvironmentFailure, match="cannot use the TLS files"):
        open_image("svc:latest")  # none in the configuration's folder
    monkeypatch.setenv("DOCKER_CERT_PATH", str(ways.certificates))
    reads_and_writes(ways, "svc:tls")
    monkeypatch.setenv("DOCKER_HOST", f"tcp://localhost:{ways.port}")
    with pytest.raises(EnvironmentFailure, match="TLS failed"):
        open_image("svc:latest")  # the certificate is for 127.0.0.1


def test_an_authority_that_is_not_trusted(ways: Ways, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificates(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{ways.port}")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with pytest.raises(EnvironmentFailure, match="TLS failed"):
        open_image("svc:latest")


def test_a_context_that_dockers_client_made(ways: Ways, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
    endpoint = ",".join(
        [f"host=tcp://127.0.0.1:{ways.port}", *(f"{key}={ways.certificates / name}" for key, name in files.items())]
    )
    docker = ["docker", "context"]
    subprocess.run([*docker, "create", "remote", "--docker", endpoint], check=True, capture_output=True)
    subprocess.run([*docker, "use", "remote"], check=True, capture_output=True)
    assert (tmp_path / "contexts/meta" / hashlib.sha256(b"remote").hexdigest()).is_dir()
    reads_and_writes(ways, "svc:context")
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    monkeypatch.setattr("deadweight.image.transports.engine_places.DOCKER_SOCKET", "/nowhere/docker.sock")
    with pytest.raises(EnvironmentFailure, match="at unix:///nowhere"):
        open_image("docker-daemon:svc:latest")


def fake_ssh(folder: Path, script: str) -> None:
    """What stands for the other machine: this one."""
    (folder / "ssh").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "ssh").chmod(0o755)


def test_ssh(ways: Ways, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    fake_ssh(tmp_path, f'echo "$@" >>{tmp_path}/log; while [ "$1" != -- ]; do shift; done; shift 2; exec "$@"')
    monkeypatch.setenv("DOCKER_HOST", f"ssh://me@elsewhere:2222{ways.socket}")
    reads_and_writes(ways, "svc:ssh")
    first = (tmp_path / "log").read_text().splitlines()[0]
    assert first.endswith(f"-T -l me -p 2222 -- elsewhere docker --host unix://{ways.socket} system dial-stdio")


def test_ssh_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@elsewhere")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFailure, match="no ssh on this machine"):
        open_image("svc:latest")
    fake_ssh(tmp_path, "echo ssh: Could not resolve hostname elsewhere >&2; exit 255")
    with pytest.raises(EnvironmentFailure) as caught:
        open_image("svc:latest")
    assert "ssh://me@elsewhere" in str(caught.value)
    assert "'ssh: Could not resolve hostname elsewhere'" in str(caught.value)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[str]:
    """A storage of our own, with localhost/svc:latest, in skopeo's words."""
    need("skopeo")
    with tempfile.TemporaryDirectory(prefix="deadweight-storage-", dir="/var/tmp") as folder:
        place = f"containers-storage:[vfs@{folder}/root+{folder}/run]"
        archive = write_docker_archive(tmp_path / "svc.tar", fixture_image(), "svc:latest")
        to = f"{place}localhost/svc:latest"
        subprocess.run(
            ["skopeo", "copy", "--insecure-policy", f"docker-archive:{archive}", to], check=True, capture_output=True
        )
        yield place


def stored_id(place: str) -> str:
    """The ID of an image in a storage, by skopeo."""
    done = subprocess.run(["skopeo", "inspect", "--config", "--raw", place], check=True, capture_output=True)
    return "sha256:" + hashlib.sha256(done.stdout).hexdigest()


def test_storage(storage: str, capfd: pytest.CaptureFixture[str]) -> None:
    original = f"{storage}localhost/svc:latest"
    assert stored_id(original) == fixture_image().config_digest
    with open_image(original) as image:
        assert (image.config_digest, image.reference) == (fixture_image().config_digest, original)
        for layer in image.layers:
            layer.check()
    assert main(["slim", original, "--tag", "svc:slim", "--json", "-"]) == 0
    report = json.loads(capfd.readouterr().out)
    made = f"{storage}localhost/svc:slim"
    assert stored_id(made) == report["after"]["digest"] != fixture_image().config_digest
    assert report["after_bytes"] == report["predicted_bytes"]
    assert main(["slim", original, "--to", original]) == 2
    assert "the original, which is never overwritten" in capfd.readouterr().err
    assert main(["slim", original, "--to", original, "--replace"]) == 0
    assert stored_id(original) == stored_id(made)
    assert stored_id(f"{original}-original") == fixture_image().config_digest
    assert main(["rollback", original]) == 0
    assert stored_id(original) == fixture_image().config_digest
    assert stored_id(f"{original}-slim") == stored_id(made)


def labels(place: str) -> dict[str, str]:
    done = subprocess.run(["skopeo", "inspect", "--config", place], check=True, capture_output=True)
    return dict(json.loads(done.stdout)["config"]["Labels"])


def test_short_names_of_the_storage_are_podmans(storage: str) -> None:
    own = fixture_image().config_digest
    assert main(["slim", f"{storage}svc:latest", "--tag", "svc:1"]) == 0
    assert main(["slim", f"{storage}svc", "--to", f"{storage}svc:2"]) == 0
    made = stored_id(f"{storage}localhost/svc:1")
    assert stored_id(f"{storage}localhost/svc:2") == made
    assert labels(f"{storage}localhost/svc:1")["deadweight.source.name"] == "localhost/svc:latest"
    assert main(["inspect", f"{storage}svc:1"]) == 0
    assert main(["rollback", f"{storage}svc:1"]) == 0
    assert stored_id(f"{storage}localhost/svc:1") == own
    # And docker.io's where there is none of localhost, which keeps its name, too.
    there = f"{storage}docker.io/library/app:1"
    subprocess.run(
        ["skopeo", "copy", "--insecure-policy", f"{storage}localhost/svc:latest", there],
        check=True,
        capture_output=True,
    )
    assert main(["slim", f"{storage}app:1", "--to", f"{storage}app:1"]) == 2
    assert main(["slim", f"{storage}app:1", "--to", f"{storage}app:1", "--replace"]) == 0
    assert stored_id(there) == stored_id(f"{storage}localhost/app:1-original") == own
    assert labels(f"{storage}localhost/app:1")["deadweight.source.name"] == "docker.io/library/app:1"


def test_a_stored_image_keeps_the_name_that_it_has(storage: str) -> None:
    for _ in range(2):
        assert main(["slim", f"{storage}svc", "--to", f"{storage}svc", "--replace"]) == 0
        assert main(["rollback", f"{storage}svc"]) == 0
    names = json.loads((Path(storage.partition("@")[2].partition("+")[0]) / "vfs-images/images.json").read_text())
    assert {name for one in names for name in one.get("names") or []} == {
        "localhost/svc:latest", "localhost/svc:latest-original", "localhost/svc:latest-slim"
    }  # fmt: skip


def test_a_stored_image_by_its_id(storage: str, capfd: pytest.CaptureFixture[str]) -> None:
    own = fixture_image().config_digest
    for number, name in enumerate((own[7:19], own[7:])):
        assert main(["slim", f"{storage}{name}", "--tag", f"svc:{number}"]) == 0
        said = labels(f"{storage}localhost/svc:{number}")
        assert said["deadweight.source"] == own
        assert "deadweight.source.name" not in said
    assert main(["rollback", f"{storage}svc:0"]) == 0
    assert stored_id(f"{storage}localhost/svc:0") == own
    assert main(["rollback", f"{storage}{own[7:19]}"]) == 2
    assert "NAME:TAG" in capfd.readouterr().err


def test_storage_without_the_image_or_skopeo(storage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no image"):
        open_image(f"{storage}localhost/none:1")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(EnvironmentFailure, match="apt-get install skopeo"):
        open_image(f"{storage}localhost/svc:latest")
    monkeypatch.undo()
    assert not list(Path("/var/tmp").glob("deadweight-skopeo-*"))
