"""Engines that are not there, hang, talk nonsense, refuse, or have containerd's image store."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from deadweight.cli.main import main
from deadweight.errors import BadInputError, EnvironmentFailure, UsageError
from deadweight.image.output import keep_image
from deadweight.image.reference import parse_destination
from deadweight.image.transports import engine_api, engine_http, engine_places, open_image, write_image
from deadweight.image.transports.engine_api import Engine, reach
from deadweight.image.transports.engine_places import Place
from deadweight.image.transports.names import RESULT, result_of
from deadweight.image.transports.rollback import roll_back
from support.fake_engine import Store
from support.images import (
    OCI_INDEX,
    digest,
    docker_archive_members,
    dump,
    file,
    layout_files,
    make_image,
    make_tar,
    put_blob,
    put_manifest,
    simple_image,
    write_docker_archive,
)


@contextmanager
def answering(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[Place]:
    """A socket on which every connection gets `answer`."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield Place("docker", "unix", str(path), said_by="DOCKER_HOST")
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def failure(place: Place) -> str:
    with pytest.raises(EnvironmentFailure) as caught:
        reach(place)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_socket(folder: Path) -> None:
    assert "no such socket; start it (systemctl start docker)" in failure(Place("docker", "unix", f"{folder}/none"))
    podman = failure(Place("podman", "unix", "/run/user/1000/podman/none.sock"))
    assert "systemctl --user start podman.socket" in podman
    assert "CONTAINER_HOST" in podman


def test_nobody_listens(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"{folder}/s")
    assert "nothing listens there" in failure(Place("docker", "unix", f"{folder}/s"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "nothing listens there" in failure(Place("docker", "tcp", host="127.0.0.1", port=port))
    assert "not reached" in failure(Place("docker", "unix", "/" + "x" * 200))


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become somebody else")
def test_no_permission(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/s")
        server.listen()
        folder.chmod(0o755)
        os.chown(f"{folder}/s", 0, 1)
        (folder / "s").chmod(0o660)
        os.seteuid(65534)
        try:
            said = failure(Place("docker", "unix", f"{folder}/s"))
        finally:
            os.seteuid(0)
    assert "permission denied; join its group (sudo usermod -aG daemon $USER" in said


def test_a_hang(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_http, "PATIENCE", 0.2)

    def listen(connection: socket.socket) -> None:
        while connection.recv(9999):
            pass

    with answering(folder / "s", listen) as place:
        assert "has not answered for 0.2 seconds" in failure(place)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
        b"\xff" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK",
        b"HTTP/1.1 400 Bad Request\r\nApi-Version: 1.41\r\n\r\nClient sent an HTTP request to an HTTPS server.",
    ],
)
def test_nonsense(folder: Path, answer: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(9999)
        connection.sendall(answer)

    with answering(folder / "s", talk) as place:
        assert "is no container engine: DOCKER_HOST has to name" in failure(place)


def test_both_are_named_where_neither_answers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.setattr(engine_places, "DOCKER_SOCKET", f"{folder}/docker")
    monkeypatch.setenv("CONTAINER_HOST", f"unix://{folder}/podman")
    assert main(["inspect", "svc:latest"]) == 4
    said = capfd.readouterr().err
    for words in ("no file or directory 'svc:latest'", f"unix://{folder}/docker: there is no such socket", "Podman"):
        assert words in said
    # What is named is not passed over.
    monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/named")
    assert main(["inspect", "svc:latest"]) == 4
    assert "Podman" not in capfd.readouterr().err


def add(store: Store, name: str, style: str = "25") -> str:
    image = simple_image(variant="v1")
    export = make_tar(*docker_archive_members(image, name, style))  # type: ignore[arg-type]
    store.add("sha256:" + "a" * 64, image.config, export, name)
    return image.config_digest


@pytest.mark.parametrize("style", ["25", "old"])
def test_reads_what_docker_25_exports(store: Store, style: str) -> None:
    config = add(store, "svc:latest", style)
    for name in ("svc", "docker-daemon:svc:latest", "sha256:" + "a" * 64):
        with open_image(name) as image:
            assert (image.config_digest, image.tag, len(image.layers)) == (config, "svc:latest", 2)
            for layer in image.layers:
                layer.check()


def test_picks_a_platform_from_what_containerd_exports(store: Store) -> None:
    blobs: dict[str, bytes] = {}
    images = {arch: make_image(make_tar(file("arch", arch.encode())), architecture=arch) for arch in ("amd64", "arm64")}
    manifests = [
        put_manifest(blobs, image, "gzip", platform={"os": "linux", "architecture": arch})
        for arch, image in images.items()
    ]
    index = put_blob(blobs, OCI_INDEX, dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}))
    named = {**index, "annotations": {"io.containerd.image.name": "docker.io/library/svc:latest"}}
    described = [
        {"Config": f"blobs/sha256/{image.config_digest[7:]}", "RepoTags": ["svc:latest"], "Layers": []}
        for image in images.values()
    ]
    files = {**layout_files([named], blobs), "manifest.json": dump(described)}
    export = make_tar(*(file(name, data) for name, data in files.items()))
    store.add(index["digest"], images["amd64"].config, export, "svc:latest")
    for arch, image in images.items():
        with open_image("svc", f"linux/{arch}") as found:
            assert found.config_digest == image.config_digest
            found.layers[0].check()
    with pytest.raises(BadInputError, match="s390x"):
        open_image("svc", "linux/s390x")


def test_loads_into_containerds_store(store: Store, tmp_path: Path) -> None:
    config = add(store, "svc:latest")
    with open_image(f"docker-archive:{write_docker_archive(tmp_path / 'a.tar', simple_image(variant='v1'))}") as image:
        written = write_image(keep_image(image), parse_destination("docker-daemon:svc:2"))
    assert written.config_digest == config
    # All of it: what the store has cannot be told from here.
    assert store.loaded == [["0.tar", "1.tar", "config.json", "manifest.json"]]
    loaded = store.names["svc:2"]
    assert loaded not in (config, "sha256:" + "a" * 64)
    assert store.inspected[loaded]["RootFS"]["Layers"] == simple_image().diff_ids


def test_what_comes_out_differently_gets_no_name(store: Store, tmp_path: Path) -> None:
    store.damage = lambda config: {**config, "rootfs": {"diff_ids": config["rootfs"]["diff_ids"][:1]}}
    with (
        open_image(f"docker-archive:{write_docker_archive(tmp_path / 'a.tar', simple_image())}") as image,
        pytest.raises(EnvironmentFailure, match="the name was not moved"),
    ):
        write_image(keep_image(image), parse_destination("docker-daemon:svc:2"))
    assert "svc:2" not in store.names


def test_rolls_back_by_name_in_containerds_store(store: Store) -> None:
    config = add(store, "svc:latest")
    labels = {"deadweight.source": config, "deadweight.source.name": "svc:latest"}
    layer = make_tar()
    entries = len(make_image(layer).config.get("history", []))
    labels[RESULT] = result_of([digest(layer)], entries)
    slim = make_image(layer, run={"Labels": labels})
    store.add("sha256:" + "b" * 64, slim.config, b"", "svc:slim")
    found = roll_back(parse_destination("docker-daemon:svc:slim"))
    assert (found.original_id, found.slim_name) == ("sha256:" + "a" * 64, "svc:slim-slim")
    assert store.names["svc:slim"] == "sha256:" + "a" * 64
    assert store.names["svc:slim-slim"] == "sha256:" + "b" * 64
    with pytest.raises(UsageError, match="no slim image"):
        roll_back(parse_destination("docker-daemon:svc:slim"))


def test_an_engine_that_breaks_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(connection: socket.socket) -> None:
        asked = connection.recv(9999)
        head = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\n"
        if b"/get" in asked:
            connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
        else:
            body = dump({"Id": "sha256:" + "a" * 64, "Size": 10})
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    with answering(folder / "s", answer) as place:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{place.path}")
        with pytest.raises(EnvironmentFailure, match="broke off in the middle"):
            open_image("svc")


def test_an_engine_that_refuses_early_is_heard(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    big = make_image(make_tar(file("big", bytes(5_000_000))))

    def answer(connection: socket.socket) -> None:
        asked = connection.recv(9999)
        head = b"HTTP/1.1 %s\r\nApi-Version: 1.41\r\nContent-Length: %d\r\n\r\n"
        if b"/load" in asked:
            body = dump({"message": "no space left on device"})
            connection.sendall(head % (b"500 Error", len(body)) + body)
            connection.shutdown(socket.SHUT_RD)
        elif asked.startswith(b"GET /images/") and b"/images/json" not in asked:
            connection.sendall(head % (b"404 Not Found", 0))
        else:
            body = b"[]" if b"/images/json" in asked else b"{}"
            connection.sendall(head % (b"200 OK", len(body)) + body)

    with (
        open_image(f"docker-archive:{write_docker_archive(tmp_path / 'a.tar', big)}") as image,
        answering(folder / "s", answer) as place,
    ):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{place.path}")
        with pytest.raises(EnvironmentFailure, match=r"did not load the image: 'no space left on device' \(HTTP 500\)"):
            write_image(keep_image(image), parse_destination("docker-daemon:svc:2"))


def test_a_report_that_is_nested_without_end() -> None:
    engine = Engine(Place("docker", "unix", "/s"), podman=False)
    with pytest.raises(EnvironmentFailure, match="is no container engine"):
        engine_api._loaded(engine, io.BytesIO(b"[" * 100_000), None)  # type: ignore[arg-type]
