"""deadweight as a process: pipes, signals, and what it leaves behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from support.actions import ROOT
from support.recipes import FASTAPI, project, pyproject, requirements
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


COMMAND = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["deadweight"].partition(":")
AS_COMMAND = f"import sys; from {COMMAND[0]} import {COMMAND[2]} as run; sys.exit(run())"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("how", [["-m", "deadweight"], ["-c", AS_COMMAND]], ids=["module", "command"])
def test_a_signal_while_modules_load(tmp_path: Path, number: signal.Signals, status: int, how: list[str]) -> None:
    (tmp_path / "click.py").write_text(
        "import sys, time\nprint('loading', file=sys.stderr, flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, *how, "passes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(PYTHONPATH=str(tmp_path)),
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"loading\n"
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, b"")
    assert error.decode() == f"deadweight: stopped by {number.name}\n"


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


def shell(command: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a command of bash, to which `deadweight` is this one."""
    text = f'deadweight() {{ "{sys.executable}" -m deadweight "$@"; }}; set -o pipefail; {command}'
    return subprocess.run(
        ["bash", "-c", text, "bash", *arguments], capture_output=True, check=False, env=environment(), timeout=120
    )


def test_what_a_shell_opened_is_written_to_and_not_replaced(image: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("precious\n")
    for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        assert shell('deadweight inspect "$1" --json "$3" >> "$2"', image, str(log), name).stderr == b""
    first, *documents = log.read_text().split("\n", 1)[0], log.read_text().partition("\n")[2]
    assert first == "precious"
    assert documents[0].count('"schema": "deadweight.inspect/1"') == 3
    done = shell('deadweight inspect "$1" --json /dev/fd/7 7>> "$2"', image, str(log))
    assert b"Owners" in done.stdout
    assert log.read_text().count('"schema": "deadweight.inspect/1"') == 4
    assert log.read_text().startswith("precious\n")


def test_a_document_may_go_to_another_process(image: str) -> None:
    done = shell('deadweight inspect "$1" --json /dev/stdout | cat', image)
    assert json.loads(done.stdout)["schema"] == "deadweight.inspect/1"
    done = shell('{ deadweight inspect "$1" --json >(cat >&3) > /dev/null; wait; } 3>&1', image)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["schema"] == "deadweight.inspect/1"


@pytest.mark.parametrize("command", ["init", "dockerfile"])
def test_files_to_own_go_where_a_shell_opened_something(command: str, tmp_path: Path) -> None:
    files = {"src/service/main.py": FASTAPI, "requirements.txt": requirements("fastapi uvicorn")}
    folder = project(tmp_path / "service", files | {"pyproject.toml": pyproject()})
    first, log = str(folder), str(tmp_path / "log")
    plain = shell(f'deadweight {command} "$1" -o -', first)
    assert plain.stdout
    for name in ("/dev/stdout", "/dev/fd/1"):
        done = shell(f'deadweight {command} "$1" -o {name} | cat', first)
        assert (done.returncode, done.stdout, done.stderr) == (0, plain.stdout, plain.stderr)
        assert shell(f'deadweight {command} "$1" -o {name} > "$2"', first, log).stderr == plain.stderr
        assert Path(log).read_bytes() == plain.stdout
    done = shell(f'{{ deadweight {command} "$1" -o >(cat >&3); wait; }} 3>&1', first)
    assert (done.returncode, done.stdout, done.stderr) == (0, plain.stdout, plain.stderr)
    assert sorted(path.name for path in folder.iterdir()) == ["pyproject.toml", "requirements.txt", "src"]


def test_standard_output_has_one_document_by_whatever_name(image: str) -> None:
    done = deadweight("inspect", image, "--json", "-", "--markdown", "/dev/stdout")
    assert done.returncode == 2
    assert b"only one document" in done.stderr


def test_one_document_that_fails_leaves_the_others(image: str, tmp_path: Path) -> None:
    page, slim = tmp_path / "page.html", tmp_path / "slim.tar"
    done = shell('deadweight inspect "$1" --json - --html "$2" | true', image, str(page))
    assert page.read_bytes().endswith(b"</html>\n")
    page.unlink()
    arguments = ("--to", f"docker-archive:{slim}", "--json", "/dev/full", "--html", str(page))
    done = deadweight("slim", image, *arguments)
    assert done.returncode == 4
    assert done.stderr.count(b"No space left") == 1
    assert b"docker-archive:" in done.stdout
    assert slim.exists()
    assert page.read_bytes().endswith(b"</html>\n")


@pytest.mark.parametrize("arguments", [(), ("--json", "-")])
def test_a_closed_standard_output_is_said(image: str, arguments: tuple[str, ...]) -> None:
    done = shell('deadweight inspect "$@" >&-', image, *arguments)
    assert done.returncode == 4
    assert done.stderr.startswith(b"deadweight: error: standard output is closed")
    assert shell("deadweight gpus --help >&-").returncode == 0
