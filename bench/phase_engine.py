"""What the phases are built with: a Docker engine and a registry of our own, a base image, and a wheel of this tree.

Nothing here is left running or in the host's own engine: data roots, sockets and processes are this run's.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
HOST_CA = Path("/etc/ssl/certs/ca-certificates.crt")
DEBIAN_CA = Path("/usr/share/ca-certificates/mozilla")
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
SUITE = "bookworm"
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)


def busy(seconds: float = 3.0) -> bool:
    """Whether the machine does other things now, so that what is timed will take too long. Looks for that many seconds.

    Not the load average: that still remembers the build that has just ended.
    """
    before, idle_before = _processor_time()
    time.sleep(seconds)
    after, idle_after = _processor_time()
    return idle_after - idle_before < 0.9 * (after - before)


def _processor_time() -> tuple[int, int]:
    """All time of all processors so far, and what of it they did nothing in or waited for disks: see proc(5)."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields), fields[3] + fields[4]


@dataclass(frozen=True)
class Engine:
    """A Docker engine with BuildKit, and a registry beside it."""

    docker: Sequence[str]
    registry: str
    """As HOST:PORT."""
    wheel: str
    """Where builds get deadweight from: an address on this machine."""
    log: Path
    """Where builds say what they do."""

    def run(self, *words: str) -> str:
        """What a command of docker prints. Raises CalledProcessError; the log has what it said."""
        environment = {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}
        with self.log.open("ab") as log:
            done = subprocess.run(
                [*self.docker, *words], stdout=subprocess.PIPE, stderr=log, check=False, env=environment
            )
            log.write(done.stdout)
        if done.returncode:
            sys.stderr.write("\n".join(self.log.read_text(errors="replace").splitlines()[-25:]) + "\n")
            raise subprocess.CalledProcessError(done.returncode, words)
        return done.stdout.decode().strip()

    def blobs(self, name: str) -> list[int]:
        """The bytes of the blobs that the registry has of truthgraph:`name`, one for each layer."""
        url = f"http://{self.registry}/v2/truthgraph/manifests/{name}"
        request = urllib.request.Request(url, headers={"Accept": MANIFEST})
        with urllib.request.urlopen(request, timeout=60) as answer:
            manifest: dict[str, Any] = json.load(answer)
        return [layer["size"] for layer in manifest["layers"]]


@contextmanager
def engine(work: Path, *, alone: bool = False) -> Iterator[Engine]:
    """Starts everything below `work`, and ends it again; `alone` without a registry and a wheel, which stay empty."""
    with ExitStack() as resources:
        host = "" if alone else resources.enter_context(registry(work))
        wheel = "" if alone else resources.enter_context(_wheel(work))
        docker = resources.enter_context(dockerd(work))
        yield Engine(docker, host, wheel, work / "docker.log")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _client() -> str:
    """A docker that builds with BuildKit: from version 23 on that takes a plugin, which not every one has."""
    for docker in filter(None, ("/usr/bin/docker", shutil.which("docker"))):
        version = subprocess.run([docker, "--version"], capture_output=True, text=True, check=False).stdout
        found = re.search(r"version (\d+)\.", version)
        plugin = subprocess.run([docker, "buildx", "version"], capture_output=True, check=False).returncode == 0
        if found and (int(found[1]) < 23 or plugin):
            return docker
    raise SystemExit("there is no docker that can build: scripts/setup.sh phases")


@contextmanager
def dockerd(work: Path) -> Iterator[Sequence[str]]:
    """A Docker engine below `work`; gives its client's command line, of which the last word is DOCKER_HOST's."""
    host = f"unix://{work}/docker.sock"
    command = ["dockerd", "--data-root", str(work / "docker"), "--exec-root", str(work / "exec"), "--host", host]
    # Builds have the host's network, and containers have none.
    command += ["--pidfile", str(work / "docker.pid"), "--bridge", "none", "--iptables=false", "--ip6tables=false"]
    docker = [_client(), "--host", host]
    with (work / "dockerd.log").open("ab") as log, _process(command, log) as process:
        for _ in range(300):
            if subprocess.run([*docker, "version"], capture_output=True, check=False).returncode == 0:
                break
            if process.poll() is not None:
                raise SystemExit(f"dockerd ended: {work / 'dockerd.log'} says why")
            time.sleep(0.2)
        yield docker


@contextmanager
def registry(work: Path) -> Iterator[str]:
    """Debian's registry, with a configuration of our own: the one it brings wants a file of passwords."""
    address = f"127.0.0.1:{free_port()}"
    data = work / "registry"
    data.mkdir(exist_ok=True)
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(data)}, "delete": {"enabled": True}},
        "http": {"addr": address},
    }
    config = work / "registry.json"  # JSON is YAML
    config.write_text(json.dumps(settings))
    with (work / "registry.log").open("ab") as log, _process(["docker-registry", "serve", str(config)], log):
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{address}/v2/", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address


@contextmanager
def _process(command: Sequence[str], log: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(120)


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def _wheel(work: Path) -> Iterator[str]:
    """A wheel of this tree, served to builds."""
    folder = work / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(pip, check=True)
    (wheel,) = folder.iterdir()
    handler = functools.partial(_Files, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/{wheel.name}"
        finally:
            server.shutdown()


def own_authorities() -> list[str]:
    """Certificates that this machine trusts and Debian does not, of a proxy, say: builds here have to, too."""
    debian = {c for path in DEBIAN_CA.rglob("*.crt") for c in _CERTIFICATE.findall(path.read_text(errors="replace"))}
    known = {"".join(one.split()) for one in debian}
    return [one for one in _CERTIFICATE.findall(HOST_CA.read_text()) if "".join(one.split()) not in known]


def make_base(engine: Engine, work: Path) -> None:
    """debian:bookworm, by mmdebstrap, since no registry has to be reached; with this machine's own authorities."""
    found = subprocess.run([*engine.docker, "image", "inspect", f"debian:{SUITE}"], capture_output=True, check=False)
    if found.returncode == 0:
        return
    place = work / "authorities"
    place.mkdir(exist_ok=True)
    own = own_authorities()
    for number, certificate in enumerate(own):
        (place / f"own-{number}.crt").write_text(certificate)
    archive = work / "base.tar"
    # usr-is-merged in place of usrmerge, which would bring all of Perl: 50 MB that Debian's own images do not have.
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates,usr-is-merged"]
    command += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"]
    command += [f"--customize-hook=copy-in {path} /usr/local/share/ca-certificates" for path in sorted(place.iterdir())]
    command += ['--customize-hook=chroot "$1" update-ca-certificates', SUITE, str(archive)]
    with engine.log.open("ab") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)
    change = ["-c", 'CMD ["bash"]']
    if own:
        change += ["-c", f"ENV SSL_CERT_FILE={HOST_CA} PIP_CERT={HOST_CA}"]
    engine.run("import", *change, str(archive), f"debian:{SUITE}")
    archive.unlink()
