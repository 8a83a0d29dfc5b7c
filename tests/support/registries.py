"""Registries of a test's own: Debian's, with and without passwords and TLS."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.images import FixtureImage, write_oci

USER = "tester"
PASSWORD = "s3cret-pass"
_BCRYPT = "$2b$04$0QH860A1w58lAYX/ppWgdOh6amSdqKYXXy1ROOmMXRenSB6kkT2LK"


def no_logins(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Whoever runs the tests has no logins, authorities or configuration that a test could find; `home` is theirs."""
    monkeypatch.setenv("HOME", str(home))
    for name in (
        "DOCKER_CONFIG",
        "REGISTRY_AUTH_FILE",
        "XDG_RUNTIME_DIR",
        "XDG_CONFIG_HOME",
        "XDG_CACHE_HOME",
        "SSL_CERT_FILE",
    ):
        monkeypatch.delenv(name, raising=False)


@dataclass(frozen=True)
class Server:
    """A registry that runs. `host` is HOST:PORT."""

    host: str
    folder: Path
    ca: Path | None = None

    def blobs(self) -> set[str]:
        """The digests of the blobs that it holds."""
        place = self.folder / "data/docker/registry/v2/blobs/sha256"
        return {f"sha256:{path.name}" for path in place.glob("*/*")} if place.is_dir() else set()

    def links(self, path: str) -> set[str]:
        """The digests of the layers and configurations that a repository has."""
        place = self.folder / f"data/docker/registry/v2/repositories/{path}/_layers/sha256"
        return {f"sha256:{each.name}" for each in place.iterdir()} if place.is_dir() else set()

    def tags(self, path: str) -> set[str]:
        """The tags of a repository."""
        place = self.folder / f"data/docker/registry/v2/repositories/{path}/_manifests/tags"
        return {each.name for each in place.iterdir()} if place.is_dir() else set()

    def uploads(self, path: str) -> list[str]:
        """The uploads of a repository that are neither finished nor given up."""
        place = self.folder / f"data/docker/registry/v2/repositories/{path}/_uploads"
        # Of one that was given up the registry leaves an empty folder behind, and the state of a hash.
        return [each.parent.name for each in place.glob("*/startedat")]

    def log(self) -> str:
        """What it has been asked."""
        return (self.folder / "log").read_text()


def need(*tools: str) -> None:
    """Skips where a tool is missing."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is needed (scripts/setup.sh test)")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def make_ca(folder: Path) -> tuple[Path, Path, Path]:
    """An authority of our own, and a certificate and key for localhost and 127.0.0.1 by it."""
    need("openssl")

    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test authority", "-days", "2")
    run("req", *curve, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    names = ("-extfile", "names", "-CAcreateserial", "-days", "2")
    run("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-out", "server.crt", *names)
    return folder / "ca.crt", folder / "server.crt", folder / "server.key"


def start_registry(
    stack: ExitStack,
    *,
    password: bool = False,
    tls: bool = False,
    calls_itself: str | None = None,
    readonly: bool = False,
    folder: Path | None = None,
) -> Server:
    """Debian's docker-registry on a port of this machine, with an empty store; `stack` ends it.

    `calls_itself` is the host of the addresses that it gives out; `folder` is where its files lie.
    """
    need("docker-registry")
    if folder is None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deadweight-registry-", dir="/var/tmp")))
    settings: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "data")},
            "delete": {"enabled": True},
            "maintenance": {"readonly": {"enabled": readonly}},
        },
    }
    port = free_port()
    http: dict[str, object] = {"addr": f"127.0.0.1:{port}"}
    ca = None
    if tls:
        ca, certificate, key = make_ca(folder)
        http["tls"] = {"certificate": str(certificate), "key": str(key)}
    if password:
        (folder / "htpasswd").write_text(f"{USER}:{_BCRYPT}\n")
        settings["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    if calls_itself is not None:
        http["host"] = f"http://{calls_itself}:{port}"
    settings["http"] = http
    (folder / "config.json").write_text(json.dumps(settings))  # JSON is YAML
    log = stack.enter_context((folder / "log").open("wb"))
    process = subprocess.Popen(["docker-registry", "serve", str(folder / "config.json")], stdout=log, stderr=log)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return Server(f"127.0.0.1:{port}", folder, ca)
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"docker-registry did not start: {(folder / 'log').read_text()[-500:]}")


def skopeo(*arguments: str, status: int = 0) -> str:
    """What skopeo says, which has to end with this status."""
    need("skopeo")
    done = subprocess.run(["skopeo", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done.stdout


def pushed(server: Server, name: str, image: FixtureImage, place: Path, *more: str) -> str:
    """The image in the registry, put there by skopeo; gives the reference."""
    folder = write_oci(place / name.replace("/", "-").replace(":", "-"), image, "v", "gzip")
    skopeo("copy", "-q", "--dest-tls-verify=false", *more, f"oci:{folder}:v", f"docker://{server.host}/{name}")
    return f"docker://{server.host}/{name}"


def raw(reference: str) -> dict[str, Any]:
    """The manifest or index of a reference, as skopeo gets it."""
    found: dict[str, Any] = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", reference))
    return found


def requests(server: Server, method: str, part: str) -> list[str]:
    """The addresses of what we asked of the registry since it began, that have `part` in them."""
    lines = [line for line in server.log().splitlines() if "response completed" in line and "=deadweight" in line]
    fields = [dict(word.partition("=")[::2] for word in line.split()) for line in lines]
    return [
        f["http.request.uri"] for f in fields if f["http.request.method"] == method and part in f["http.request.uri"]
    ]


@contextmanager
def flaky(host: str, cuts: list[tuple[int, int]]) -> Iterator[str]:
    """A way to a registry on which the first connections break off; gives its HOST:PORT.

    `cuts` has for each of these how many bytes of requests and of answers come through.
    """
    name, _, port = host.partition(":")
    left = list(cuts)
    lock = threading.Lock()
    done = threading.Event()

    def pump(source: socket.socket, to: socket.socket, limit: int) -> None:
        with suppress(OSError):
            while limit > 0 and (data := source.recv(min(65536, limit))):
                to.sendall(data)
                limit -= len(data)
        for each in (source, to):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def serve(one: socket.socket) -> None:
        with lock:
            forth, back = left.pop(0) if left else (1 << 60, 1 << 60)
        with one, socket.create_connection((name, int(port))) as other:
            answers = threading.Thread(target=pump, args=(other, one, back), daemon=True)
            answers.start()
            pump(one, other, forth)
            answers.join()

    def accept() -> None:
        while not done.is_set():
            with suppress(OSError):
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            done.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
