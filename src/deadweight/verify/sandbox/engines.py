"""Container engines with Docker's command line: what docker.py and podman.py have in common.

The engine makes the container that it would make anywhere, so user, working directory and mounts are its own doing.
Each run has a container of its own, whose writable layer is what the run writes to; it has a name, and is removed by
it whatever happens. The image is loaded unless the engine has it, and what was loaded is removed at the end.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from deadweight.errors import EnvironmentFailure, shown
from deadweight.image.compression import temporary_folder
from deadweight.image.filesystem import Filesystem
from deadweight.image.model import Image
from deadweight.image.output import keep_image
from deadweight.image.reference import Reference
from deadweight.image.transports import write_image
from deadweight.image.transports.destination import remove_tree, writing
from deadweight.verify.cleanup import deferred
from deadweight.verify.sandbox import CAPABILITIES, HOSTNAME, Command, Limits, Options, Ran
from deadweight.verify.sandbox.cgroups import Group
from deadweight.verify.sandbox.limits import Gauge, attend
from deadweight.verify.sandbox.restored import write_tar

_CALL_SECONDS = 600.0
# conmon, which podman runs containers by, leaves it in the directory that it was called in. Under control groups of
# version 1 that is all that is said of a program that was killed for want of memory.
_OOM = "oom"
_SAID = 1000  # characters of an engine's message
_NEVER_STARTED = ("created", "configured", "initialized")


@dataclass(frozen=True)
class Client:
    """An engine's command line."""

    name: str
    command: tuple[str, ...]
    gpus: tuple[str, ...]
    """What passes the GPUs through."""

    def call(self, *words: str, stdin: IO[bytes] | None = None) -> subprocess.CompletedProcess[bytes]:
        """Runs one of its commands to the end. Raises EnvironmentFailure when it cannot be run."""
        try:
            return subprocess.run(
                [*self.command, *words],
                stdin=stdin or subprocess.DEVNULL,
                capture_output=True,
                check=False,
                start_new_session=True,  # signals of the terminal are for deadweight alone
                timeout=_CALL_SECONDS,
            )
        except FileNotFoundError:
            raise EnvironmentFailure(
                f"there is no {self.command[0]}: install it, name it by {variable(self.name)}, or use bubblewrap"
            ) from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EnvironmentFailure(f"{self.name} does not answer: {error}") from None

    def ask(self, *words: str, stdin: IO[bytes] | None = None) -> str:
        """What it prints. Raises EnvironmentFailure with its own words when it fails."""
        done = self.call(*words, stdin=stdin)
        if done.returncode != 0:
            raise EnvironmentFailure(f"{self.name} {words[0]} failed: {shown(_last_line(done.stderr), _SAID)}")
        return done.stdout.decode("utf-8", "replace").strip()


def variable(name: str) -> str:
    """The environment variable that holds an engine's command line."""
    return f"DEADWEIGHT_{name.upper()}"


def command_line(name: str) -> tuple[str, ...]:
    """The words that call an engine, options that only this machine needs included.

    They are taken from the environment, DEADWEIGHT_DOCKER or DEADWEIGHT_PODMAN, as for a shell.
    """
    return tuple(shlex.split(os.environ.get(variable(name), ""))) or (name,)


def check(engine: Client) -> None:
    """Raises EnvironmentFailure where the engine is missing or does not answer."""
    done = engine.call("version")
    if done.returncode != 0:
        why = shown(_last_line(done.stderr), _SAID)
        raise EnvironmentFailure(f"{engine.name} does not work here: {why}; start its service, or use bubblewrap")


@dataclass
class Engine:
    """Runs programs of an image that an engine has."""

    client: Client
    image: Image
    loaded: str
    """The name or ID of the image in the engine."""
    options: Options
    notes: list[str] = field(default_factory=list)
    _view: Filesystem | None = None

    def run(self, command: Command, limits: Limits) -> Ran:
        """Runs a program in a new container. The peak of memory is not known."""
        name = f"deadweight-{os.getpid()}-{secrets.token_hex(6)}"
        with deferred() as let_signals_through:
            return self._run(name, command, limits, let_signals_through)

    def _run(self, name: str, command: Command, limits: Limits, let_signals_through: Callable[[], None]) -> Ran:
        try:
            self.client.ask("create", "--name", name, *self._words(command, limits))
            if command.restored is not None:
                self._restore(command.restored, name)
            with tempfile.TemporaryDirectory(prefix="deadweight-run-") as folder:
                return self._start(name, command, limits, Path(folder), let_signals_through)
        finally:
            self.client.call("rm", "--force", "--volumes", name)

    def _start(
        self, name: str, command: Command, limits: Limits, folder: Path, let_signals_through: Callable[[], None]
    ) -> Ran:
        start = time.monotonic()
        process = subprocess.Popen(
            [*self.client.command, "start", "--attach", "--interactive", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            start_new_session=True,
        )
        try:
            gauge = Gauge(limits, Group({}))

            def kill() -> None:
                # First whoever reads along: an engine waits for what was written to be read before it calls it dead.
                process.kill()
                self.client.call("kill", name)

            done = attend(process, command.stdin, limits.seconds, gauge.exceeded, kill, let_signals_through)
        finally:
            _end(process)
        seconds = time.monotonic() - start
        state: dict[str, Any] = json.loads(self.client.ask("inspect", "--format", "{{json .State}}", name))
        status = int(state.get("ExitCode", 0))
        ended = done.ended
        if ended == "exited" and (state.get("OOMKilled") or (folder / _OOM).exists()):
            ended = "memory"
        if state.get("Status") in _NEVER_STARTED:
            status = _not_started(self.client.name, status, _last_line(done.stderr))
        return Ran(status, done.stdout, done.stderr, seconds, ended)

    def _words(self, command: Command, limits: Limits) -> list[str]:
        """The options for a new container, the image and the program."""
        words = ["--interactive", "--hostname", HOSTNAME, "--no-healthcheck", "--log-driver", "none"]
        words += ["--network", "host" if self.options.network else "none"]
        words += ["--memory", str(limits.memory), "--memory-swap", str(limits.memory)]
        words += ["--pids-limit", str(limits.processes), "--security-opt", "no-new-privileges", "--cap-drop", "ALL"]
        # Podman hands on to any user what is added.
        root = str(self.image.run_config.get("User") or "").partition(":")[0] in ("", "0", "root")
        for capability in CAPABILITIES if root else ():
            words += ["--cap-add", capability]
        words += self.client.gpus if self.options.gpus else ()
        words += ["--workdir", command.workdir] if command.workdir else []
        for variable_name, value in command.env.items():
            words += ["--env", f"{variable_name}={value}"]
        for inside, outside in command.binds.items():
            # The option is read as a line of CSV.
            parts = ("type=bind", f"src={outside}", f"dst={inside}", "readonly")
            words += ["--mount", ",".join('"' + part.replace('"', '""') + '"' for part in parts)]
        return [*words, "--entrypoint", command.argv[0], self.loaded, *command.argv[1:]]

    def _restore(self, restored: Path, name: str) -> None:
        self._view = view = self._view or Filesystem(self.image)

        def is_dir(path: str) -> bool:
            node = view.nodes.get(path)
            return node is not None and node.kind == "dir"

        with tempfile.TemporaryFile(dir=temporary_folder()) as file:
            write_tar(restored, file, is_dir)
            file.seek(0)
            self.client.ask("cp", "-", f"{name}:/", stdin=file)


def _not_started(engine: str, status: int, said: str) -> int:
    """The exit status of a program that could not be started. Docker has it in the container's state; podman only has
    the words of runc or crun. Raises EnvironmentFailure when it was the container that could not be started.
    """
    if status in (126, 127):
        return status
    words = said.lower()
    if "executable" in words or "exec:" in words:
        if "not found" in words or "no such file" in words:
            return 127
        if "permission denied" in words:
            return 126
    raise EnvironmentFailure(f"{engine} could not start a container: {shown(said, _SAID)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


@contextmanager
def loaded(engine: Client, image: Image, options: Options) -> Iterator[Engine]:
    """The image in an engine. It is loaded where the engine does not have it, and removed again.

    Raises EnvironmentFailure where it cannot be loaded: for want of space, say.
    """
    check(engine)
    known = image.config_digest.removeprefix("sha256:")
    if engine.call("image", "inspect", known).returncode == 0:
        yield Engine(engine, image, known, options)
        return
    name = f"localhost/deadweight-verify:{secrets.token_hex(8)}"
    try:
        _load(engine, image, name)
        yield Engine(engine, image, name, options)
    finally:
        with deferred():
            engine.call("rmi", "--force", name)


def _load(engine: Client, image: Image, name: str) -> None:
    folder = temporary_folder() / f"deadweight-load-{secrets.token_hex(8)}"
    try:
        with writing(folder):
            folder.mkdir(0o700)
        archive = folder / "image.tar"
        write_image(keep_image(image), Reference("docker-archive", archive, name))
        engine.ask("load", "--input", str(archive))
    finally:
        with deferred():
            remove_tree(folder)


def _last_line(text: bytes) -> str:
    return text[-4096:].decode("utf-8", "replace").strip().rpartition("\n")[2] or "it ended without a word"
