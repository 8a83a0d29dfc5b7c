"""A Docker engine of a test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest


def need(*tools: str) -> None:
    """Skips where a tool is missing, or root."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"{', '.join(missing) or 'root'} is needed (apt-get install podman docker.io runc)")


def start_docker(stack: ExitStack) -> str:
    """A Docker engine of our own, without a network; gives the client's command line."""
    need("dockerd", "docker", "runc")
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="deadweight-docker-", dir="/var/tmp"))
    socket = f"unix://{folder}/docker.sock"
    places = ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"]
    offline = ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    log = stack.enter_context(Path(folder, "log").open("wb"))
    engine = subprocess.Popen(["dockerd", "-H", socket, *places, *offline], stdout=log, stderr=log)
    stack.callback(engine.wait, 60)
    stack.callback(engine.terminate)
    for _ in range(150):
        if subprocess.run(["docker", "-H", socket, "version"], check=False, capture_output=True).returncode == 0:
            return f"docker -H {socket}"
        time.sleep(0.2)
    pytest.fail(f"dockerd did not start: {Path(folder, 'log').read_text()[-500:]}")
