"""The parts of sandboxes that need none: users, paths, control groups, GPUs, and the choice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deadweight.errors import BadInputError, EnvironmentFailure, UsageError
from deadweight.image.filesystem import Filesystem
from deadweight.image.transports import open_image
from deadweight.verify.cleanup import deferred
from deadweight.verify.sandbox import Options
from deadweight.verify.sandbox.cgroups import new_group, parents
from deadweight.verify.sandbox.choose import open_sandbox
from deadweight.verify.sandbox.gpus import DRIVER, driver_libraries, gpu_words
from deadweight.verify.sandbox.paths import Tree
from deadweight.verify.sandbox.users import User, become, find_user
from deadweight.verify.trees import trees
from support.images import Member, directory, file, hardlink, make_image, make_tar, symlink, write_docker_archive


class Stopped(BaseException):
    """What a signal's handler raises."""


def test_signals_wait_and_then_have_their_effect() -> None:
    done: list[str] = []

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # as the command line does: only the first one counts
        raise Stopped

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(Stopped), deferred():  # noqa: PT012  (where in the block it raises is the point)
            signal.raise_signal(signal.SIGUSR1)
            done.append("the rest of the block")
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        signal.signal(signal.SIGUSR1, stop)
        with pytest.raises(Stopped), deferred() as let_through:  # noqa: PT012
            let_through()
            signal.raise_signal(signal.SIGUSR1)
            let_through()
            done.append("never")
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        signal.signal(signal.SIGUSR1, stop)
        with deferred():
            done.append("nothing came")
        assert signal.getsignal(signal.SIGUSR1) is stop
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert done == ["the rest of the block", "nothing came"]


PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# a:b:c:d:e:f:g
broken
app:x:1001:1002::/home/app:
7:x:1003:1003::/:
\xff:x:9:9::/:
"""
GROUP = b"root:x:0:\napp:x:1002:\nvideo:x:44:root,app\nodd:x:many:app\nother:x:50:apple\n"


@pytest.mark.parametrize(
    ("wanted", "user"),
    [
        ("", User(0, 0, (44,), "/root")),
        ("root", User(0, 0, (44,), "/root")),
        ("app", User(1001, 1002, (44,), "/home/app")),
        ("1001", User(1001, 1002, (44,), "/home/app")),
        ("app:video", User(1001, 44, (), "/home/app")),
        ("app:7", User(1001, 7, (), "/home/app")),
        ("5000", User(5000, 0, (), "/")),
        ("5000:video", User(5000, 44, (), "/")),
        ("7", User(1003, 1003, (), "/")),  # a name, although it is a number
        (":video", User(0, 44, (), "/root")),
    ],
)
def test_users_are_found_as_engines_find_them(wanted: str, user: User) -> None:
    assert find_user(wanted, PASSWD, GROUP) == user


@pytest.mark.parametrize(
    "wanted", ["nobody", "app:nobody", "-1", "2147483648", "1e3", "\u0663", "0x10", "app:"[:-1] + " "]
)
def test_users_that_are_none(wanted: str) -> None:
    with pytest.raises(BadInputError, match="is to run as"):
        find_user(wanted, PASSWD, GROUP)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take on groups")
def test_taking_on_a_user_changes_no_environment() -> None:
    """Python itself sets LC_CTYPE in an environment that has no locale (PEP 538)."""
    words = become(User(0, 0, (44,)), lambda name: sys.executable)
    done = subprocess.run([*words, "/usr/bin/env"], env={"A": "b"}, capture_output=True, check=True)
    assert done.stdout == b"A=b\n"


def test_an_image_without_users_has_root() -> None:
    assert find_user("", b"", b"") == User(0, 0, (), "/")


def test_paths_are_resolved_inside(tmp_path: Path) -> None:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    (lower / "real/deep").mkdir(parents=True)
    (lower / "real/file").write_text("lower")
    (upper / "real").mkdir(parents=True)
    (upper / "real/file").write_text("upper")
    for name, target in {
        "absolute": "/real",
        "relative": "real/../real/./deep",
        "out": "../../../etc",
        "chain": "absolute/deep",
        "self": "self",
        "a": "b",
        "b": "/a",
    }.items():
        (lower / name).symlink_to(target)
    (upper / "over").mkdir()
    (lower / "over").symlink_to("/real")
    tree = Tree([upper, lower])
    wanted = {
        "/": "/",
        "": "/",
        "/real//deep/": "/real/deep",
        "/absolute/deep": "/real/deep",
        "/relative/new/er": "/real/deep/new/er",
        "/out/passwd": "/etc/passwd",
        "/chain": "/real/deep",
        "/real/deep/../../..": "/",
        "/nothing/../real": "/real",
        "/over/x": "/over/x",
    }
    assert {path: tree.resolve(path) for path in wanted} == wanted
    for circle in ("/self", "/a/b"):
        with pytest.raises(BadInputError, match="circles"):
            tree.resolve(circle)
    with pytest.raises(BadInputError, match="is no directory in the image"):
        tree.resolve("/real/file/x")
    assert tree.read("/absolute/file", 100) == b"upper"
    assert tree.read("/absolute/file", 3) == b"upp"
    assert tree.read("/self", 100) == tree.read("/none", 100) == tree.read("/real", 100) == b""


def test_a_fifo_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "passwd")
    assert Tree([tmp_path]).read("/passwd", 10) == b""


def test_programs_are_found_by_the_images_path(tmp_path: Path) -> None:
    for name, mode in {"one/python3": 0o644, "two/python3": 0o755}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(mode)
    tree = Tree([tmp_path])
    assert tree.program("python3", {"PATH": "one:/one:/three:/two"}) == "/two/python3"
    assert tree.program("python3", {}) is None


MOUNTS = """\
22 27 0:21 / /proc rw - proc proc rw
29 28 0:25 {root} {at}/memory rw,relatime - cgroup cgroup rw,memory
30 28 0:26 / {at}/pids rw,relatime - cgroup cgroup rw,pids
31 28 0:27 / {at}/unified rw,relatime shared:1 - cgroup2 cgroup2 rw
"""


@pytest.mark.parametrize(
    ("root", "own", "below"),
    [("/", "/a/b", "a/b"), ("/a", "/a/b", "b"), ("/docker/x", "/docker/x", ""), ("/docker/x", "/elsewhere", "")],
)
def test_groups_of_the_first_version(tmp_path: Path, root: str, own: str, below: str) -> None:
    (tmp_path / "memory" / below).mkdir(parents=True)
    (tmp_path / "pids").mkdir()
    (tmp_path / "mounts").write_text(MOUNTS.format(root=root, at=tmp_path))
    (tmp_path / "own").write_text(f"4:memory:{own}\n8:pids:/\n0::/\n")
    found = parents(tmp_path / "mounts", tmp_path / "own")
    assert found == {"memory": tmp_path / "memory" / below, "pids": tmp_path / "pids"}


def test_groups_of_the_second_version_are_made_where_controllers_are_handed_down(tmp_path: Path) -> None:
    (tmp_path / "user/user-1/session").mkdir(parents=True)
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    (tmp_path / "user/cgroup.subtree_control").write_text("memory pids\n")
    (tmp_path / "user/user-1/cgroup.subtree_control").write_text("\n")
    (tmp_path / "mounts").write_text(f"31 28 0:27 / {tmp_path} rw,relatime - cgroup2 cgroup2 rw\n")
    (tmp_path / "own").write_text("0::/user/user-1/session\n")
    found = parents(tmp_path / "mounts", tmp_path / "own")
    assert found == dict.fromkeys(("memory", "pids"), tmp_path / "user")
    (tmp_path / "mounts").write_text("")
    assert parents(tmp_path / "mounts", tmp_path / "own") == {}
    assert parents(tmp_path / "none", tmp_path / "none") == {}


def test_a_group_of_the_second_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files, written to a directory that is none: what the kernel does with them is its own."""
    monkeypatch.setattr(
        "deadweight.verify.sandbox.cgroups.parents", lambda: dict.fromkeys(("memory", "pids"), tmp_path)
    )
    monkeypatch.setattr("deadweight.verify.sandbox.cgroups._remove", lambda folders: None)
    real = Path.mkdir

    def mkdir(path: Path, *arguments: object, **more: object) -> None:
        real(path, exist_ok=True)
        for name in ("memory.max", "memory.swap.max"):
            (path / name).touch()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with new_group(1000, 20) as group:
        folder = group.folders["memory"]
        assert group.folders["pids"] == folder
        assert [(folder / n).read_text() for n in ("memory.max", "memory.swap.max", "pids.max")] == ["1000", "0", "20"]
        assert not group.ran_out_of_memory
        (folder / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
        (folder / "pids.events").write_text("max 3\n")
        (folder / "memory.stat").write_text("anon 300\nfile 1000\nshmem 20\n")
        assert (group.ran_out_of_memory, group.ran_out_of_processes, group.memory) == (True, True, 320)


def test_a_group_is_gone_afterwards() -> None:
    if not parents():
        pytest.skip("no control group can be made here")
    with new_group(10**9, 100) as group:
        folders = list(group.folders.values())
        assert folders
        assert all(folder.is_dir() for folder in folders)
    assert not any(folder.exists() for folder in folders)


CACHE = """\
5 libs found in cache `/etc/ld.so.cache'
\tlibz.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libz.so.1
\tlibnvidia-ml.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1
\tlibnvidia-ml.so.1 (libc6) => /usr/lib/i386-linux-gnu/libnvidia-ml.so.1
\tlibcuda.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcuda.so.1
\tlibcuda.so.1 (libc6,x86-64) => /usr/lib/later/libcuda.so.1
\tlibcudart.so.12 (libc6,x86-64) => /usr/local/cuda/lib64/libcudart.so.12
"""


def test_the_drivers_libraries_are_those_of_the_machine() -> None:
    system = "/usr/lib/x86_64-linux-gnu"
    wanted = {"libcuda.so.1": f"{system}/libcuda.so.1", "libnvidia-ml.so.1": f"{system}/libnvidia-ml.so.1"}
    assert driver_libraries(CACHE) == wanted


def test_gpus_are_passed_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentFailure, match="no NVIDIA GPU"):
        gpu_words({}, "/dev", DRIVER, tmp_path)
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null", "nvidia0.bak"):
        (tmp_path / name).touch()
    monkeypatch.setattr("deadweight.verify.sandbox.gpus._cache", lambda: CACHE)
    words, environment = gpu_words({"LD_LIBRARY_PATH": "/opt/lib", "A": "b"}, "/real/dev", "/real/driver", tmp_path)
    devices = [words[i + 1 : i + 3] for i, word in enumerate(words) if word == "--dev-bind"]
    assert devices == [
        [f"{tmp_path}/{name}", f"/real/dev/{name}"] for name in ("nvidia-uvm", "nvidia0", "nvidia1", "nvidiactl")
    ]
    libraries = [words[i + 2] for i, word in enumerate(words) if word == "--ro-bind"]
    assert sorted(libraries) == ["/real/driver/libcuda.so.1", "/real/driver/libnvidia-ml.so.1"]
    assert environment == {"LD_LIBRARY_PATH": f"/opt/lib:{DRIVER}", "A": "b"}


def small(folder: Path, *layers: list[Member]) -> str:
    path = folder / f"small-{len(list(folder.iterdir()))}.tar"
    write_docker_archive(path, make_image(*(make_tar(*members) for members in layers)), "small:1", style="25")
    return f"docker-archive:{path}"


@pytest.mark.parametrize(("name", "variable"), [("docker", "DEADWEIGHT_DOCKER"), ("podman", "DEADWEIGHT_PODMAN")])
def test_an_engine_that_is_missing_or_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, variable: str
) -> None:
    def never() -> tuple[Path, list[str]]:
        raise AssertionError("an engine needs no tree")

    with open_image(small(tmp_path, [file("a")])) as image:
        monkeypatch.setenv(variable, "/no/such/engine --flag")
        with pytest.raises(EnvironmentFailure, match=f"there is no /no/such/engine.*{variable}"):
            open_sandbox(name, image, never).__enter__()
        monkeypatch.setenv(variable, "sh -c 'echo cannot reach it >&2; exit 1'")
        with pytest.raises(EnvironmentFailure, match="does not work here: 'cannot reach it'"):
            open_sandbox(name, image, never).__enter__()
        with pytest.raises(UsageError, match="no sandbox is called 'lxc': bubblewrap, docker, podman are"):
            open_sandbox("lxc", image, never).__enter__()


def test_bubblewrap_that_may_make_no_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setattr("deadweight.verify.sandbox.bubblewrap.find_bwrap", lambda: str(refusing))
    with open_image(small(tmp_path, [file("a")])) as image:
        message = "cannot make a sandbox: 'bwrap: No permissions.*may not make namespaces.*userns.*docker or podman"
        with pytest.raises(EnvironmentFailure, match=message):
            open_sandbox("bubblewrap", image, lambda: (tmp_path, []), Options()).__enter__()


def test_what_is_equal_is_on_disk_once_and_all_of_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "work"))
    (tmp_path / "work").mkdir()
    members = [
        directory("closed", 0),
        file("closed/in", b"1"),
        file("same", b"same", mode=0),
        hardlink("other-name", "same", mode=0),
        file("changed", b"before"),
        Member("device", b"3", device=(1, 3), mode=0o666),
        symlink("link", "/etc/passwd"),
    ]
    with (
        open_image(small(tmp_path, members)) as one,
        open_image(small(tmp_path, members, [file("changed", b"x")])) as two,
    ):
        with trees() as unpack:
            first, _ = unpack("before", Filesystem(one), {})
            view = Filesystem(two)
            equal = {
                n.inode: str(first / n.path)
                for n in view.nodes.values()
                if n.kind == "file" and n.inode and n.inode[0] == 0
            }
            second, notes = unpack("after", view, equal)
            assert not any("device" in note for note in notes)
            for name in ("same", "other-name"):
                assert (first / name).stat().st_ino == (second / name).stat().st_ino
            assert (first / "changed").stat().st_ino != (second / "changed").stat().st_ino
            assert not (first / "device").exists()
            assert first.parent.stat().st_mode & 0o777 == 0o700
        assert not list((tmp_path / "work").iterdir())


def test_a_tree_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "work"))
    (tmp_path / "work").mkdir()
    members = [file("a", b"1"), file("x" * 300)]
    with open_image(small(tmp_path, members)) as image, trees() as unpack:
        for _ in range(2):  # the second time for the same reason
            with pytest.raises(EnvironmentFailure, match=r"cannot write .*before.*name too long"):
                unpack("before", Filesystem(image), {})
            assert not [path for folder in (tmp_path / "work").iterdir() for path in folder.iterdir()]
    assert not list((tmp_path / "work").iterdir())
