"""Where engines listen: environment, contexts, and what is wrong with them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from deadweight.errors import EnvironmentFailure
from deadweight.image.transports.engine_places import Place, Tls, docker_place, podman_place


def context(folder: Path, name: str, endpoint: dict[str, Any], tls: tuple[str, ...] = ()) -> None:
    """A context as Docker's command line stores it."""
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts/meta" / key
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    for file in tls:
        (folder / "contexts/tls" / key / "docker").mkdir(parents=True, exist_ok=True)
        (folder / "contexts/tls" / key / "docker" / file).write_text("")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("unix:///run/x.sock", Place("docker", "unix", "/run/x.sock")),
        ("tcp://10.0.0.1", Place("docker", "tcp", host="10.0.0.1", port=2375)),
        ("tcp://[::1]:99", Place("docker", "tcp", host="::1", port=99)),
        ("10.0.0.1:99", Place("docker", "tcp", host="10.0.0.1", port=99)),
        ("ssh://me@host:22", Place("docker", "ssh", host="host", port=22, user="me")),
        ("ssh://host/run/d.sock", Place("docker", "ssh", "/run/d.sock", host="host")),
    ],
)
def test_docker_host(host: str, expected: Place, tmp_path: Path) -> None:
    found = docker_place({"DOCKER_HOST": host, "DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "not-looked-at"})
    assert found == Place(**{**vars(expected), "said_by": "DOCKER_HOST"})
    assert str(found).endswith("(DOCKER_HOST)")


@pytest.mark.parametrize(
    "host",
    [
        "npipe:////./pipe/x",
        "fd://",
        "unix://",
        "tcp://",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://a:b@c",
        "tcp://a:b",
    ],
)
def test_what_names_no_engine(host: str) -> None:
    with pytest.raises(EnvironmentFailure, match="DOCKER_HOST is") as caught:
        docker_place({"DOCKER_HOST": host})
    assert "unix://" in str(caught.value)


def test_tls_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").touch()
    (tmp_path / "key.pem").touch()
    files = {"DOCKER_HOST": "tcp://h", "DOCKER_CERT_PATH": str(tmp_path)}
    assert docker_place(files).tls is None
    checked = docker_place({**files, "DOCKER_TLS_VERIFY": "1"})
    assert checked.tls == Tls(tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem", True)
    assert checked.port == 2376
    assert docker_place({**files, "DOCKER_TLS": "1"}).tls == Tls(
        None, tmp_path / "cert.pem", tmp_path / "key.pem", False
    )


def test_contexts(tmp_path: Path) -> None:
    environment = {"DOCKER_CONFIG": str(tmp_path)}
    assert docker_place(environment) == Place("docker", "unix", "/var/run/docker.sock")
    context(tmp_path, "remote", {"Host": "tcp://h:1", "SkipTLSVerify": False}, ("ca.pem", "cert.pem", "key.pem"))
    context(tmp_path, "désk", {"Host": "unix:///home/me/d.sock", "SkipTLSVerify": False})
    (tmp_path / "config.json").write_text('{"currentContext": "remote", "auths": {}}')
    found = docker_place(environment)
    tls = tmp_path / "contexts/tls" / hashlib.sha256(b"remote").hexdigest() / "docker"
    assert (found.host, found.port) == ("h", 1)
    assert found.tls == Tls(tls / "ca.pem", tls / "cert.pem", tls / "key.pem", True)
    assert docker_place({**environment, "DOCKER_CONTEXT": "désk"}).path == "/home/me/d.sock"
    assert docker_place({**environment, "DOCKER_CONTEXT": "default"}).path == "/var/run/docker.sock"
    assert docker_place({"HOME": str(tmp_path)}).said_by == ""


def test_contexts_that_lead_nowhere(tmp_path: Path) -> None:
    environment = {"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "none"}
    with pytest.raises(EnvironmentFailure, match="'none', which DOCKER_CONTEXT names, does not exist"):
        docker_place(environment)
    context(tmp_path, "none", {})
    with pytest.raises(EnvironmentFailure, match="names no engine"):
        docker_place(environment)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EnvironmentFailure, match=r"cannot read .*config\.json"):
        docker_place({"DOCKER_CONFIG": str(tmp_path)})


def test_podman(tmp_path: Path) -> None:
    assert podman_place({"CONTAINER_HOST": "unix:///p.sock"}) == Place(
        "podman", "unix", "/p.sock", said_by="CONTAINER_HOST"
    )
    mine = tmp_path / "podman/podman.sock"
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    mine.parent.mkdir()
    mine.touch()
    assert podman_place(environment).path == str(mine)
    assert podman_place({}).path == "/run/podman/podman.sock"


@pytest.mark.parametrize(
    "host",
    [
        "ssh://me:hunter2@host",
        "npipe://me:hunter2@host/x",
        "tcp://me:hunter2@host:x",
        "me:hunter2@",
        "ssh://me:hun/ter2@h",
    ],
)
def test_a_password_in_an_address_is_not_repeated(host: str) -> None:
    for name, find in (("DOCKER_HOST", docker_place), ("CONTAINER_HOST", podman_place)):
        with pytest.raises(EnvironmentFailure, match=f"{name} is") as caught:
            find({name: host})
        assert "ter2" not in str(caught.value)
        assert "hun" not in str(caught.value)
