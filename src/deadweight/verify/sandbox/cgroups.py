"""Control groups of their own for runs: limits on memory and processes that hold for all of a run's processes together.

Version 1 has a hierarchy for each controller, and a child of this process's own group is made in each. In version 2
only groups that hand controllers down can have limited children, so the child is that of the nearest group above this
process that does (cgroups(7); kernel documentation, cgroup-v1/memory.rst and cgroup-v2.rst). Where neither can be
written, as by most ordinary users, a run has no group, and limits.py watches its processes instead.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Controller = Literal["memory", "pids"]
CONTROLLERS: tuple[Controller, ...] = ("memory", "pids")
REMOVAL_SECONDS = 10.0
_UNLIMITED_SWAP = ("memory.memsw.limit_in_bytes", "memory.swap.max")


@dataclass
class Group:
    """The control groups of one run: none, one, or one for each controller."""

    folders: Mapping[Controller, Path]

    def add(self, pid: int) -> None:
        """Puts a process into it; its children are then born there. Raises OSError."""
        for folder in dict.fromkeys(self.folders.values()):
            (folder / "cgroup.procs").write_text(str(pid))

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether the kernel ended a process of it for want of memory."""
        return any(self._count("memory", name, "oom_kill") > 0 for name in ("memory.events", "memory.oom_control"))

    @property
    def ran_out_of_processes(self) -> bool:
        """Whether a process of it could not start another one."""
        return self._count("pids", "pids.events", "max") > 0

    @property
    def memory(self) -> int | None:
        """Bytes in use that cannot be had again by reading a file: of processes, and of files in memory."""
        if "memory" not in self.folders:
            return None
        statistics = _counters(self.folders["memory"] / "memory.stat")
        own = statistics.get("total_rss", statistics.get("anon"))
        return None if own is None else own + statistics.get("total_shmem", statistics.get("shmem", 0))

    def _count(self, controller: Controller, name: str, counter: str) -> int:
        folder = self.folders.get(controller)
        return 0 if folder is None else _counters(folder / name).get(counter, 0)


@contextmanager
def new_group(memory: int, processes: int) -> Iterator[Group]:
    """A group that may take so many bytes and have so many processes and threads, with what controllers there are.

    At the end everything in it is killed, and it is removed. Signals are to be deferred meanwhile.
    """
    _collect()
    name = f"deadweight-{os.getpid()}-{secrets.token_hex(4)}"
    places = {controller: parent / name for controller, parent in parents().items()}
    folders: dict[Controller, Path] = {}
    try:
        for controller, folder in places.items():
            with suppress(OSError):
                folder.mkdir(exist_ok=True)  # the same for both controllers in version 2
                _limit(folder, controller, memory, processes)
                folders[controller] = folder
        yield Group(folders)
    finally:
        _remove(set(places.values()))


def parents(
    mounts: Path = Path("/proc/self/mountinfo"), own: Path = Path("/proc/self/cgroup")
) -> dict[Controller, Path]:
    """The group in which one for a run can be made, for each controller that there is."""
    try:
        mounted = [line.split() for line in mounts.read_text().splitlines()]
        groups = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return {}
    found: dict[Controller, Path] = {}
    second: dict[Controller, Path] = {}
    for words in mounted:
        # 36 35 98:0 ROOT MOUNTPOINT OPTIONS [TAG...] - TYPE SOURCE SUPEROPTIONS (proc_pid_mountinfo(5))
        kind, options = words[words.index("-") + 1], words[-1].split(",")
        root, mountpoint = words[3], Path(words[4])
        if kind == "cgroup2":
            path = next((g[2] for g in groups if g[0] == "0"), "/")
            second = _handed_down(_below(mountpoint, root, path), mountpoint)
        for controller in CONTROLLERS:
            if kind == "cgroup" and controller in options:
                path = next((g[2] for g in groups if controller in g[1].split(",")), "/")
                found[controller] = _below(mountpoint, root, path)
    return {controller: folder for controller, folder in {**second, **found}.items() if os.access(folder, os.W_OK)}


def _handed_down(own: Path, mountpoint: Path) -> dict[Controller, Path]:
    """The nearest group of version 2 that hands controllers down: one for all, since a process is in one group only."""
    for folder in (own, *own.parents):
        if folder.is_relative_to(mountpoint):
            handed: list[Controller] = [c for c in CONTROLLERS if c in _words(folder / "cgroup.subtree_control")]
            if handed:
                return dict.fromkeys(handed, folder)
    return {}


def _below(mountpoint: Path, root: str, path: str) -> Path:
    """Where a group's folder is. In a container the mount often shows only the part of the hierarchy below `root`."""
    relative = os.path.relpath(path, root)
    return mountpoint if relative.startswith("..") else mountpoint / relative


def _limit(folder: Path, controller: Controller, memory: int, processes: int) -> None:
    if controller == "pids":
        (folder / "pids.max").write_text(str(processes))
        return
    first = folder / "memory.max"
    (first if first.exists() else folder / "memory.limit_in_bytes").write_text(str(memory))
    # What is swapped out counts as well; a kernel without swap accounting has no such file.
    for name, value in zip(_UNLIMITED_SWAP, (memory, 0), strict=True):
        with suppress(OSError):
            if (folder / name).exists():
                (folder / name).write_text(str(value))


@cache
def _collect() -> None:
    """Removes the groups of runs that were killed outright, once for this process: those that nothing is in."""
    for parent in set(parents().values()):
        for folder in parent.glob("deadweight-*-*"):
            pid = folder.name.split("-")[1]
            if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
                with suppress(OSError):  # something is in it: another PID namespace's, say
                    folder.rmdir()


def _remove(folders: set[Path]) -> None:
    """Kills what is in groups and removes them. A group can be removed once its last process is gone."""
    until = time.monotonic() + REMOVAL_SECONDS
    while folders and time.monotonic() < until:
        for folder in list(folders):
            for pid in _words(folder / "cgroup.procs"):
                with suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)
            with suppress(OSError):
                folder.rmdir()
            if not folder.exists():
                folders.discard(folder)
        if folders:
            time.sleep(0.01)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _counters(path: Path) -> dict[str, int]:
    """A file of lines `name number`."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdecimal()}
