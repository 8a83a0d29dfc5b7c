"""deadweight as a process: pipes, signals, and what it leaves behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.service import save

SLOW = """
import signal, sys, time
if {ignored}:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
import deadweight.apply
from deadweight.cli import main
real = deadweight.apply.layer_chunks
def slow(*arguments):
    for chunk in real(*arguments):
        yield chunk
        print("writing", file=sys.stderr, flush=True)
        time.sleep({pause})
deadweight.apply.layer_chunks = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save(tmp_path_factory.mktemp("image")))


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "COLUMNS", "NO_COLOR", "DEADWEIGHT_DEBUG")}
    return {**kept, "TERM": "xterm-256color", **more}


def deadweight(*arguments: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "deadweight", *arguments], capture_output=True, check=False, env=environment(**more)
    )


def test_json_to_standard_output_is_one_document_and_nothing_else(image: str) -> None:
    done = deadweight("inspect", image, "--json", "-")
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["schema"] == "deadweight.inspect/1"


def test_a_pipe_gets_plain_text_of_80_columns(image: str) -> None:
    done = deadweight("inspect", image)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(("more", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_colours_unless_it_wants_none(image: str, more: dict[str, str], coloured: bool) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as reader:
        process = subprocess.Popen(
            [sys.executable, "-m", "deadweight", "inspect", image],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(**more),
        )
        os.close(theirs)
        seen = b""
        while True:
            try:
                data = reader.read(65536)
            except OSError:  # EIO: the other side has closed
                break
            if not data:
                break
            seen += data
        assert process.wait() == 0
    assert (b"\x1b[1m" in seen or b"\x1b[2m" in seen or b"\x1b[36m" in seen) == coloured
    assert b"Owners" in seen


def test_who_stops_reading_hears_no_complaint(image: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "deadweight", "inspect", image, "--top", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 128 + signal.SIGPIPE


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("transport", ["docker-archive", "oci"])
def test_a_signal_leaves_no_half_output(
    image: str, tmp_path: Path, number: signal.Signals, status: int, transport: str
) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SLOW.format(pause=0.3, ignored=False),
            "slim",
            image,
            "--to",
            f"{transport}:{tmp_path / 'out'}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"writing\n"
    assert list(tmp_path.iterdir()), "it writes somewhere"
    process.send_signal(number)
    time.sleep(0.05)
    process.send_signal(number)  # somebody is impatient: the clean-up goes on
    out, error = process.communicate(timeout=60)
    assert process.returncode == status
    assert out == b""
    assert error.splitlines()[-1].startswith(b"deadweight: stopped")
    assert list(tmp_path.iterdir()) == []


def test_nohup_is_respected(image: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW.format(pause=0.01, ignored=True), "slim", image, "--to", f"oci:{tmp_path / 'out'}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"writing\n"
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "out" / "index.json").exists()


def test_a_full_disk_is_said_to_be_full(image: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "deadweight", "inspect", image, "--json", "-"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            env=environment(),
        )
    assert done.returncode == 4
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr


def test_completion_completes() -> None:
    done = deadweight(_DEADWEIGHT_COMPLETE="bash_complete", COMP_WORDS="deadweight in", COMP_CWORD="1")
    assert done.stdout == b"plain,init\nplain,inspect\n"
    assert done.returncode == 0
