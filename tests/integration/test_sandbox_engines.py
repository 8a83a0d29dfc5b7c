"""The same few behaviours of every sandbox: bubblewrap, a Docker engine of our own, and podman."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deadweight.image.filesystem import Filesystem
from deadweight.image.transports import open_image
from deadweight.verify.sandbox import INSIDE, Command, Limits, Options, Ran, Sandbox
from deadweight.verify.sandbox.choose import SANDBOXES, open_sandbox
from deadweight.verify.trees import trees
from support.engines import need, start_docker
from support.images import directory, file
from support.mini import mini_image

pytestmark = pytest.mark.xdist_group("sandbox-engines")
MINUTE = Limits(60)
MEMBERS = [
    directory("home/app/own", uid=1001, gid=1002),
    file("opt/data/kept", b"the image's\n"),
    file("opt/data/other", b"another\n"),
]
CONFIG = {"User": "app", "WorkingDir": "/app/below", "Entrypoint": ["/bin/false"]}


def start_podman(stack: ExitStack) -> str:
    """A podman with a store of its own, and with the limits that a process may raise where it is not all-mighty."""
    need("podman", "runc")
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="deadweight-podman-", dir="/var/tmp"))
    Path(folder, "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\n'
    )
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setenv("CONTAINERS_CONF", f"{folder}/containers.conf")
    command = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
    stack.callback(subprocess.run, [*command, "rmi", "--all", "--force"], check=False, capture_output=True)
    return " ".join(command)


@pytest.fixture(scope="module", params=SANDBOXES)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with ExitStack() as stack:
        if request.param == "docker":
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setenv("DEADWEIGHT_DOCKER", start_docker(stack))
        elif request.param == "podman":
            command = start_podman(stack)
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setenv("DEADWEIGHT_PODMAN", command)
        elif os.geteuid() != 0:
            pytest.skip("root is needed, since the image has a user")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        image = stack.enter_context(open_image(mini_image(folder, MEMBERS, CONFIG)))
        unpack = stack.enter_context(trees())
        yield stack.enter_context(
            open_sandbox(request.param, image, lambda: unpack("image", Filesystem(image), {}), Options())
        )


def run(sandbox: Sandbox, script: str, limits: Limits = MINUTE, **more: object) -> Ran:
    """A shell script in the sandbox."""
    return sandbox.run(Command(("/bin/sh", "-c", script), **more), limits)  # type: ignore[arg-type]


def python(sandbox: Sandbox, code: str, limits: Limits = MINUTE) -> Ran:
    return sandbox.run(Command(("python3", "-c", code)), limits)


def test_user_workdir_environment_and_machine_are_the_images(sandbox: Sandbox) -> None:
    ran = run(sandbox, "id -u; id -g; id -G; pwd; echo $HELLO $LANG $HOME $HOSTNAME $ADDED", env={"ADDED": "a b"})
    lines = ran.stdout.decode().splitlines()
    assert lines[:2] == ["1001", "1002"]
    assert set(lines[2].split()) == {"1002", "44"}
    assert lines[3:] == ["/app/below", "world C.UTF-8 /home/app deadweight a b"]
    assert (ran.status, ran.stderr, ran.ended) == (0, b"", "exited")


def test_another_user_than_root_may_do_nothing_special(sandbox: Sandbox) -> None:
    ran = run(
        sandbox, "while read a b; do case $a in CapPrm:|CapEff:|NoNewPrivs:) echo $b;; esac; done </proc/self/status"
    )
    assert ran.stdout.split() == [b"0" * 16, b"0" * 16, b"1"]
    assert run(sandbox, "echo x > /etc/passwd").status != 0


def test_status_and_input_and_both_outputs(sandbox: Sandbox) -> None:
    text = b"0123456789" * 100_000
    ran = run(sandbox, "cat; echo error >&2; exit 3", stdin=text)
    assert (ran.status, ran.stderr, ran.stdout == text) == (3, b"error\n", True)


def test_what_kills_a_program_is_in_its_status(sandbox: Sandbox) -> None:
    assert (
        python(sandbox, "import subprocess, sys; sys.exit(128 - subprocess.call(['sh', '-c', 'kill -9 $$']))").status
        == 137
    )


@pytest.mark.parametrize(("program", "status"), [("no-such-program", 127), ("/etc/passwd", 126)])
def test_a_program_that_cannot_start(sandbox: Sandbox, program: str, status: int) -> None:
    assert sandbox.run(Command((program,)), Limits(60)).status == status


def test_writes_are_gone_with_the_run(sandbox: Sandbox) -> None:
    assert run(sandbox, "echo x > $HOME/own/new && echo y > /tmp/new && cat $HOME/own/new /tmp/new").stdout == b"x\ny\n"
    assert run(sandbox, "ls $HOME/own /tmp").stdout == b"/home/app/own:\n\n/tmp:\n"


def test_a_hang_is_ended_in_time(sandbox: Sandbox) -> None:
    ran = run(sandbox, "trap '' TERM INT HUP; echo begun; while true; do sleep 1; done", Limits(1.5))
    assert (ran.ended, ran.stdout) == ("timeout", b"begun\n")
    assert 1.5 <= ran.seconds < 15


def test_a_memory_hog_is_ended(sandbox: Sandbox) -> None:
    ran = python(sandbox, "held = b'x' * 400_000_000; print(len(held))", Limits(60, memory=100_000_000))
    assert (ran.ended, ran.stdout) == ("memory", b"")


def test_endless_output_is_bounded(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deadweight.verify.sandbox.limits.OUTPUT_LIMIT", 1_000_000)
    ran = run(sandbox, "while true; do echo 0123456789012345678901234567890123456789; done")
    assert (ran.ended, len(ran.stdout)) == ("output", 1_000_000)


def test_processes_are_limited(sandbox: Sandbox) -> None:
    code = """
import os, time
count = 0
while True:
    try:
        if os.fork() == 0:
            time.sleep(60)
        count += 1
    except OSError:
        break
print(count, flush=True)
os.kill(0, 9)
"""
    ran = python(sandbox, code, Limits(60, processes=30))
    assert ran.ended == "processes" or (ran.ended == "exited" and int(ran.stdout) < 30)


def test_there_is_a_loopback_interface_and_no_other(sandbox: Sandbox) -> None:
    code = """
import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(("localhost", server.getsockname()[1]))
print([name for _, name in socket.if_nameindex()])
"""
    assert python(sandbox, code).stdout == b"['lo']\n"


def test_files_from_outside_are_seen_and_not_written(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "a, folder").mkdir()
    (tmp_path / "a, folder" / "file").write_text("from outside\n")
    binds = {f"{INSIDE}/here": tmp_path / "a, folder"}
    ran = run(sandbox, f"cat {INSIDE}/here/file && echo x > {INSIDE}/here/file", binds=binds)
    assert (ran.stdout, ran.status) == (b"from outside\n", 2)
    assert (tmp_path / "a, folder" / "file").read_text() == "from outside\n"


def test_restored_files_are_there_and_the_rest_is_as_it_was(sandbox: Sandbox, tmp_path: Path) -> None:
    restored = tmp_path / "restored"
    (restored / "opt/data/more").mkdir(parents=True)
    (restored / "opt/data/more/new").write_text("restored\n")
    (restored / "opt/data/kept").write_text("the original's\n")
    (restored / "opt/data/kept").chmod(0o644)
    for folder in (restored, restored / "opt", restored / "opt/data"):
        folder.chmod(0o700)
    folders = "ls -ld / /opt /opt/data"
    ran = run(sandbox, f"cat /opt/data/more/new /opt/data/kept /opt/data/other; {folders}", restored=restored)
    lines = ran.stdout.decode().splitlines()
    assert lines[:3] == ["restored", "the original's", "another"]
    modes = [line[:10] for line in run(sandbox, folders).stdout.decode().splitlines()]
    assert [line[:10] for line in lines[3:]] == modes
    assert "drwx------" not in modes
    assert run(sandbox, "cat /opt/data/kept; ls /opt/data").stdout == b"the image's\nkept\nother\n"
