"""Unpacked images: nothing is left behind, not even by a run that was killed outright."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deadweight.verify import trees
from deadweight.verify.sandbox import cgroups

KILLED = """
import sys
from deadweight.verify.trees import trees
with trees():
    print("ready", flush=True)
    sys.stdin.read()
"""


def killed(folder: Path) -> Path:
    """What a run leaves that SIGKILL ended."""
    environment = dict(os.environ, TMPDIR=str(folder))
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        run.stdout.readline()
        (left,) = folder.iterdir()
        (left / "before").mkdir()
        (left / "before/file").write_bytes(b"x")
        run.send_signal(signal.SIGKILL)
    return left


def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = killed(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with trees.trees():
        assert left.exists()  # it might just have begun
    monkeypatch.setattr(trees, "_YOUNG", -1.0)
    with trees.trees():
        assert not left.exists()
        (mine,) = tmp_path.iterdir()
        with trees.trees():
            assert mine.exists()  # somebody has a lock on it
    assert list(tmp_path.iterdir()) == []


def test_groups_of_dead_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    names = (f"deadweight-{child.pid}-ab", f"deadweight-{os.getpid()}-ab", "other")
    dead, mine, other = (tmp_path / name for name in names)
    for folder in (dead, mine, other):
        folder.mkdir()
    monkeypatch.setattr(cgroups, "parents", lambda: {"memory": tmp_path, "pids": tmp_path})
    cgroups._collect.__wrapped__()
    assert not dead.exists()
    assert mine.exists()
    assert other.exists()
