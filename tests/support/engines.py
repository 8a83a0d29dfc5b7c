"""Engines of a test's own, each with its folder, process and socket; and a program that runs in them."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

GREETING = "hello from the image\n"
_C = f'#include <stdio.h>\nint main(void) {{ fputs("{GREETING[:-1]}\\n", stdout); return 0; }}\n'


def need(*tools: str) -> None:
    """Skips where a tool is missing, or root."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"{', '.join(missing) or 'root'} is needed (apt-get install podman docker.io runc)")


def needs(*tools: str) -> pytest.MarkDecorator:
    """The mark of tests that are skipped where one of these tools or root is missing."""
    return pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, tools)),
        reason=f"needs root, {', '.join(tools)}: scripts/setup.sh demo test",
    )


def run(*command: str | Path, **more: Any) -> str:
    """A command's output. Its errors are shown when it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return str(done.stdout)


def building_docker(stack: ExitStack) -> list[str]:
    """The command line of a Docker engine of our own that builds images, without a network."""
    # A client of Docker 23 or later builds by a plugin that need not be here; Debian's has it built in.
    debians = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
    return [debians, "-H", docker_host(stack)]


def start_docker(stack: ExitStack) -> str:
    """A Docker engine of our own, without a network; gives the client's command line."""
    return f"docker -H {docker_host(stack)}"


def docker_host(stack: ExitStack, more: Sequence[str] = ()) -> str:
    """A Docker engine of our own, without a network; gives what DOCKER_HOST is to be. `more` goes to dockerd."""
    need("dockerd", "docker", "runc")
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="deadweight-docker-", dir="/var/tmp"))
    socket = f"unix://{folder}/docker.sock"
    places = ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"]
    offline = ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    log = stack.enter_context(Path(folder, "log").open("wb"))
    # The host's network, where a container had it, stays mounted.
    stack.callback(subprocess.run, ["umount", f"{folder}/exec/netns/default"], check=False, capture_output=True)
    engine = subprocess.Popen(["dockerd", "-H", socket, *places, *offline, *more], stdout=log, stderr=log)
    stack.callback(engine.wait, 60)
    stack.callback(engine.terminate)
    for _ in range(150):
        if subprocess.run(["docker", "-H", socket, "version"], check=False, capture_output=True).returncode == 0:
            return socket
        time.sleep(0.2)
    pytest.fail(f"dockerd did not start: {Path(folder, 'log').read_text()[-500:]}")


def podman_host(stack: ExitStack) -> str:
    """Podman's API with a store of its own; gives what CONTAINER_HOST is to be."""
    need("podman", "runc")
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="deadweight-podman-", dir="/var/tmp"))
    # With the limits that a process may raise where it is not all-mighty.
    Path(folder, "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n'
    )
    environment = {**os.environ, "CONTAINERS_CONF": f"{folder}/containers.conf"}
    command = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
    socket = f"{folder}/podman.sock"
    log = stack.enter_context(Path(folder, "log").open("wb"))
    service = subprocess.Popen(
        [*command, "system", "service", "--time", "0", f"unix://{socket}"], stdout=log, stderr=log, env=environment
    )
    stack.callback(service.wait, 60)
    stack.callback(service.terminate)
    stack.callback(subprocess.run, [*command, "rmi", "--all", "--force"], check=False, capture_output=True)
    for _ in range(150):
        if Path(socket).exists():
            return f"unix://{socket}"
        time.sleep(0.2)
    pytest.fail(f"podman did not start: {Path(folder, 'log').read_text()[-500:]}")


def certificates(folder: Path) -> None:
    """A certificate authority in `folder`, with ca.pem, and cert.pem and key.pem for 127.0.0.1 and for its clients."""
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    request = ["openssl", "req", *key, "-subj", "/CN=deadweight"]
    signed = ["-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2", "-extfile", "extensions"]
    for command in (
        [*request, "-x509", "-days", "2", "-keyout", "ca-key.pem", "-out", "ca.pem"],
        [*request, "-keyout", "key.pem", "-out", "request.pem"],
        ["openssl", "x509", "-req", "-in", "request.pem", *signed, "-out", "cert.pem"],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)


@functools.cache
def greeter() -> bytes:
    """A static program that prints GREETING, so that an image needs nothing else."""
    need("gcc")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "greet.c").write_text(_C)
        command = ["gcc", "-static", "-Os", "-s", "-o", f"{folder}/greet", f"{folder}/greet.c"]
        subprocess.run(command, check=True, capture_output=True)
        return Path(folder, "greet").read_bytes()
