"""bubblewrap: what a program sees, what it cannot do, and that nothing of it stays."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deadweight.errors import BadInputError, EnvironmentFailure
from deadweight.image.filesystem import Filesystem
from deadweight.image.transports import open_image
from deadweight.verify.sandbox import INSIDE, Command, Limits, Options, Ran
from deadweight.verify.sandbox.bubblewrap import Bubblewrap
from deadweight.verify.sandbox.cgroups import parents
from deadweight.verify.trees import trees
from support.images import Member, directory, file, symlink
from support.mini import mini_image

MINUTE = Limits(60)
OLD_BWRAP = "/usr/bin/bwrap"


@contextmanager
def opened(
    folder: Path, members: Sequence[Member] = (), config: dict[str, Any] | None = None, options: Options | None = None
) -> Iterator[Bubblewrap]:
    """A sandbox for a small image."""
    with open_image(mini_image(folder, members, config)) as image, trees() as unpack:
        root, _ = unpack("image", Filesystem(image), {})
        try:
            box = Bubblewrap(image, root, options or Options())
        except EnvironmentFailure as error:
            pytest.skip(f"no sandbox here: {error}")
        yield box


@pytest.fixture(scope="module")
def box() -> Iterator[Bubblewrap]:
    """One for all tests that need nothing special: runs do not change it."""
    members = [file("opt/data/kept", b"as it was\n"), directory("opt/data")]
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder), members, {"WorkingDir": "/srv/new"}) as found:
        yield found


def shell(box: Bubblewrap, script: str, limits: Limits = MINUTE, **more: Any) -> Ran:
    return box.run(Command(("/bin/sh", "-c", script), **more), limits)


def python(box: Bubblewrap, code: str, limits: Limits = MINUTE, **more: Any) -> Ran:
    return box.run(Command(("python3", "-c", code), **more), limits)


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """What can be seen of a tree: kinds, modes, owners, sizes, times and contents."""
    found: dict[str, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        small = path.is_file() and not path.is_symlink() and status.st_size < 10_000
        content = path.read_bytes() if small else b""
        found[str(path)] = (*status[:2], *status[3:7], status.st_mtime_ns, status.st_ctime_ns, content)
    return found


def processes_with(mark: str) -> list[int]:
    """Processes that have `mark` on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_for(wanted: Any, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < until, "it did not come to that in time"
        time.sleep(0.02)


def test_the_environment_is_the_images(box: Bubblewrap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_HOST", "1")
    ran = python(box, "import os, json; print(json.dumps(dict(os.environ)))", env={"HELLO": "tests", "NEW": "a=b\nc"})
    import json

    found = json.loads(ran.stdout)
    assert found == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HELLO": "tests",
        "NEW": "a=b\nc",
        "HOME": "/root",
        "HOSTNAME": "deadweight",
        "PWD": "/srv/new",  # bwrap's own, as a shell sets it
    }


def test_nothing_of_the_host_is_seen(box: Bubblewrap) -> None:
    here = Path(__file__)
    seen = shell(box, f"ls -a / /root {here} {sys.prefix}; cat /etc/hostname /proc/sys/kernel/hostname").stdout.decode()
    top = set(seen.split("/root:")[0].split()) - {"/:", ".", ".."}
    assert top == {
        "app",
        "bin",
        "dev",
        "etc",
        "home",
        "lib",
        "lib64",
        "opt",
        "proc",
        "root",
        "srv",
        "sys",
        "tmp",
        "usr",
    }
    assert here.name not in seen
    assert seen.endswith("deadweight\ndeadweight\n")
    assert python(box, "import os; print(len([p for p in os.listdir('/proc') if p.isdigit()]))").stdout == b"2\n"


def test_the_tree_and_other_runs_see_no_write(box: Bubblewrap) -> None:
    before = listing(box.root)
    code = """
import os, shutil
open("/opt/data/kept", "a").write("more")
os.chmod("/opt/data", 0o700)
os.setxattr("/etc/passwd", "user.mark", b"1")
os.unlink("/etc/group")
shutil.rmtree("/home")
os.utime("/usr/local", (1, 1))
open("/new", "w").close()
open("/dev/shm/new", "w").close()
open("/tmp/new", "w").close()
"""
    assert python(box, code).status == 0
    assert listing(box.root) == before
    assert (
        shell(box, "cat /opt/data/kept; ls /tmp /dev/shm /home").stdout
        == b"as it was\n/dev/shm:\n\n/home:\napp\n\n/tmp:\n"
    )


def test_there_is_no_network_unless_it_is_asked_for(box: Bubblewrap, tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5); print('reached')"
        assert b"ConnectionRefusedError" in python(box, code).stderr
        with opened(tmp_path, options=Options(network=True)) as other:
            assert python(other, code).stdout == b"reached\n"


def test_root_has_what_engines_give_and_no_more(box: Bubblewrap) -> None:
    code = """
import os, socket
kept = [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapPrm", "NoNewPrivs"))]
print(*kept)
def write(path):
    with open(path, "r+") as file:
        file.write(file.read())
tries = [
    lambda: os.mknod("/tmp/null", 0o20666, os.makedev(1, 3)),
    lambda: os.chroot("/tmp"),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    lambda: write("/proc/sys/kernel/hostname"),
    lambda: write("/proc/sys/kernel/core_pattern"),
    lambda: write("/proc/sys/vm/swappiness"),
    lambda: open("/proc/sysrq-trigger", "w"),
    lambda: open("/proc/kcore", "rb").read(1)[0],
    lambda: os.mkdir("/sys/devices/system/new"),
]
for attempt in tries:
    try:
        attempt()
        print("done")
    except (OSError, IndexError):
        print("no")
"""
    lines = python(box, code).stdout.decode().splitlines()
    wanted = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 10))  # capability.h
    assert lines[0].split() == [f"{wanted:016x}"] * 2 + ["1"]
    assert lines[1:] == ["no"] * 9


USERS = [
    ("app", b"1001 1002 1002 44 /home/app"),
    ("1001", b"1001 1002 1002 44 /home/app"),
    ("app:video", b"1001 44 44 /home/app"),
    ("1001:7", b"1001 7 7 /home/app"),
    ("4321", b"4321 0 0 /"),
    ("4321:99", b"4321 99 99 /"),
    ("0:44", b"0 44 44 /root"),
]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
@pytest.mark.parametrize(("user", "wanted"), USERS)
def test_the_images_user(box: Bubblewrap, tmp_path: Path, user: str, wanted: bytes) -> None:
    config = {"User": user, "Env": ["PATH=/usr/local/bin:/bin", "LC_CTYPE=C", "ODD=a b"]}
    with open_image(mini_image(tmp_path, (), config)) as image:
        other = Bubblewrap(image, box.root)
    ran = shell(
        other, "echo $(id -u) $(id -g) $(id -G) $HOME; echo $LC_CTYPE $ODD; ls /proc/1 >/dev/null && kill -0 $$"
    )
    assert ran.stdout.splitlines() == [wanted, b"C a b"]
    status = shell(
        other, "while read a b; do case $a in CapEff:|CapPrm:|SigIgn:) echo $b;; esac; done </proc/self/status"
    )
    if not user.startswith("0"):
        # SIGPIPE is not ignored, although the Python that took on the user ignores it.
        ignored, *capabilities = status.stdout.split()
        assert capabilities == [b"0" * 16] * 2
        assert not int(ignored, 16) & 1 << signal.SIGPIPE - 1
    assert other.run(Command(("no-such-program",)), MINUTE).status == 127
    assert other.run(Command(("/etc/passwd",)), MINUTE).status == 126


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
def test_a_user_that_nothing_can_take_on_is_no_pass(tmp_path: Path) -> None:
    whiteout = file("usr/local/bin/.wh.python3", b"")
    with (
        opened(tmp_path, [whiteout], {"User": "app"}) as found,
        pytest.raises(EnvironmentFailure, match="runs as user 1001, and has neither Python nor setpriv"),
    ):
        shell(found, "true")


def test_a_user_that_the_image_does_not_know(tmp_path: Path) -> None:
    with (
        opened(tmp_path, (), {"User": "nobody-knows"}) as found,
        pytest.raises(BadInputError, match="is to run as 'nobody-knows'"),
    ):
        shell(found, "true")


@pytest.mark.parametrize("option", ["--bind", "--unshare-all"])
def test_zero_bytes_in_the_configuration_make_no_options(tmp_path: Path, option: str) -> None:
    with (
        opened(tmp_path, (), {"Env": [f"A=x\0{option}\0/\0/mnt"]}) as found,
        pytest.raises(BadInputError, match="zero byte"),
    ):
        shell(found, "ls /mnt")


def test_links_of_the_image_lead_nowhere_outside(tmp_path: Path) -> None:
    """bwrap makes mount points while the host is at /oldroot, and the image at /newroot."""
    host = tmp_path / "host"
    host.mkdir()
    links = [symlink(name, f"/oldroot{host}") for name in ("tmp", "dev", "proc", "sys", "way")]
    links += [symlink(name, f"/oldroot{host}/{name}") for name in ("etc/hosts", "etc/hostname")]
    up = symlink("up", f"../../../oldroot{host}/up")
    (tmp_path / "bound").write_text("bound\n")
    binds = {f"{INSIDE}/file": tmp_path / "bound", "/up/other": tmp_path / "bound"}
    with opened(tmp_path, [*links, up], {"WorkingDir": "/way/in"}) as found:
        ran = shell(found, f"cat {INSIDE}/file /up/other; pwd; echo x > /tmp/new", binds=binds)
        assert ran.stdout.decode() == f"bound\nbound\n/oldroot{host}/in\n"
    assert not list(host.iterdir())


def test_a_root_with_any_name(box: Bubblewrap, tmp_path: Path) -> None:
    odd = tmp_path / "a:b,c \\d=e"
    shutil.copytree(box.root, odd, symlinks=True)
    assert shell(Bubblewrap(box.image, odd), "cat /opt/data/kept").stdout == b"as it was\n"


def test_a_fork_bomb_is_ended(box: Bubblewrap) -> None:
    mark = secrets.token_hex(8)
    code = f"import os  # {mark}\nwhile True:\n  try: os.fork()\n  except OSError: pass\n"
    ran = python(box, code, Limits(30, processes=40))
    assert ran.ended == "processes"
    assert not processes_with(mark)


def test_memory_of_all_processes_counts_together(box: Bubblewrap) -> None:
    code = """
import os, time
for _ in range(4):
    if os.fork() == 0:
        held = b"x" * 60_000_000
        time.sleep(30)
        os._exit(0)
time.sleep(30)
"""
    ran = python(box, code, Limits(40, memory=150_000_000))
    assert ran.ended == "memory"
    assert ran.seconds < 20


def test_files_in_memory_count_too(box: Bubblewrap) -> None:
    if "memory" not in parents():
        pytest.skip("there is no memory controller that this user may use")
    code = "file = open('/tmp/large', 'wb')\nfor _ in range(300): file.write(bytes(1_000_000))\nprint('done')"
    assert python(box, code, Limits(60, memory=100_000_000)).ended == "memory"


def test_the_peak_of_memory_is_told(box: Bubblewrap) -> None:
    ran = python(box, "import time; held = b'x' * 80_000_000; time.sleep(0.5)")
    assert ran.memory is not None
    assert 80_000_000 < ran.memory < 120_000_000


@pytest.mark.parametrize("group", [True, False])
def test_limits_hold_without_control_groups(box: Bubblewrap, monkeypatch: pytest.MonkeyPatch, group: bool) -> None:
    if not group:
        monkeypatch.setattr("deadweight.verify.sandbox.cgroups.parents", dict)
    hog = python(box, "import time; held = b'x' * 300_000_000; time.sleep(30)", Limits(20, memory=100_000_000))
    assert hog.ended == "memory"
    many = "import os, time\nfor _ in range(60):\n  if os.fork() == 0: time.sleep(30); os._exit(0)\ntime.sleep(30)"
    assert python(box, many, Limits(20, processes=30)).ended == "processes"
    few = python(box, many.replace("60", "10").replace("30", "0.3"), Limits(20, processes=30))
    assert (few.ended, few.status) == ("exited", 0)


def test_what_a_program_leaves_running_is_dead_when_it_ends(box: Bubblewrap) -> None:
    mark = f"3600.{secrets.randbelow(10**9)}"
    code = f"""
import os, signal, time
if os.fork() == 0:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "{mark}"])
    os._exit(0)
time.sleep(0.3)
print("started")
"""
    ran = python(box, code, Limits(20))
    assert (ran.ended, ran.stdout) == ("exited", b"started\n")
    assert ran.seconds < 10
    assert not processes_with(mark)


def test_both_outputs_and_input_at_once(box: Bubblewrap) -> None:
    code = """
import sys
data = sys.stdin.buffer.read()
for start in range(0, len(data), 10_000):
    sys.stdout.buffer.write(data[start:start + 10_000]); sys.stderr.buffer.write(data[start:start + 10_000])
"""
    data = os.urandom(3_000_000)
    ran = python(box, code, stdin=data)
    assert ran.stdout == data
    assert ran.stderr == data
    assert shell(box, "exec true", stdin=data).status == 0  # it reads nothing


def test_an_interrupt_leaves_nothing(box: Bubblewrap) -> None:
    mark = f"3600.{secrets.randbelow(10**9)}"

    class Interrupted(BaseException):
        pass

    def stop(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.7)
        with pytest.raises(Interrupted):
            shell(box, f"sleep {mark} & sleep {mark}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not processes_with(mark)
    assert not own_groups(os.getpid())


def test_an_interrupt_at_any_moment_of_the_start_leaves_nothing(box: Bubblewrap) -> None:
    mark = f"3600.{secrets.randbelow(10**9)}"

    class Interrupted(BaseException):
        pass

    def stop(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, stop)
    try:
        for moment in range(1, 61):
            signal.setitimer(signal.ITIMER_REAL, moment * 0.0003)
            with pytest.raises(Interrupted):
                shell(box, f"sleep {mark}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    wait_for(lambda: not processes_with(mark))
    assert not own_groups(os.getpid())


def own_groups(pid: int) -> list[Path]:
    """Control groups that a process has made for runs."""
    return [path for folder in parents().values() for path in folder.glob(f"deadweight-{pid}-*")]


RUNNING = """
import signal, sys
from deadweight.cli.main import Stopped
from deadweight.image.filesystem import Filesystem
from deadweight.image.transports import open_image
from deadweight.verify.sandbox import Command, Limits
from deadweight.verify.sandbox.bubblewrap import Bubblewrap
from deadweight.verify.trees import trees
def stop(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped(number)
signal.signal(signal.SIGTERM, stop)
with open_image(sys.argv[1]) as image, trees() as unpack:
    box = Bubblewrap(image, unpack("image", Filesystem(image), {})[0])
    if len(sys.argv) > 3:
        box.program = sys.argv[3]
        box._try()
    box.run(Command(("/bin/sh", "-c", "trap '' TERM; sleep " + sys.argv[2] + " & sleep " + sys.argv[2])), Limits(60))
"""


@pytest.mark.parametrize("program", [None, OLD_BWRAP])
def test_a_signal_leaves_no_process_no_file_and_no_group(tmp_path: Path, program: str | None) -> None:
    if program and not Path(program).exists():
        pytest.skip("the system has no bubblewrap of its own")
    mark = f"3600.{secrets.randbelow(10**9)}"
    (tmp_path / "temporary").mkdir()
    command = [sys.executable, "-c", RUNNING, mini_image(tmp_path), mark, *filter(None, [program])]
    env = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE) as process:
        wait_for(lambda: len(processes_with(f"sleep\0{mark}")) == 2 or process.poll() is not None)
        assert list((tmp_path / "temporary").iterdir())
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert b"Stopped" in process.stderr.read()
    assert not processes_with(mark)
    assert not list((tmp_path / "temporary").iterdir())
    assert not own_groups(process.pid)


def test_without_overlay_the_small_directories_are_copies(tmp_path: Path) -> None:
    if not Path(OLD_BWRAP).exists():
        pytest.skip("the system has no bubblewrap of its own")
    members = [directory("app"), file("app/code.py", b"x = 1\n"), file("opt/data/kept", b"as it was\n")]
    with opened(tmp_path, members) as found:
        found.program = OLD_BWRAP
        found._try()
        if found.overlay:
            pytest.skip("the system's bubblewrap has overlays")
        before = listing(found.root)
        assert any("read-only" in note for note in found.notes)
        ran = shell(found, "pwd; echo x >> code.py; echo y > /tmp/new; echo z > $HOME/new; cat code.py; cat /etc/hosts")
        assert ran.stdout.startswith(b"/app\nx = 1\nx\n127.0.0.1\tlocalhost\n")
        assert ran.stderr == b""
        assert shell(found, "echo x > /opt/data/kept").status != 0
        assert listing(found.root) == before
        assert shell(found, "cat code.py; ls /tmp").stdout == b"x = 1\n"
        with pytest.raises(EnvironmentFailure, match="no overlay"):
            shell(found, "true", restored=tmp_path)


ORDINARY = """
import os, sys
from deadweight.image.filesystem import Filesystem
from deadweight.image.transports import open_image
from deadweight.verify.sandbox import Command, Limits
from deadweight.verify.sandbox.bubblewrap import Bubblewrap
from deadweight.verify.trees import trees
assert os.geteuid() != 0
with open_image(sys.argv[1]) as image, trees() as unpack:
    view = Filesystem(image)
    first, _ = unpack("first", view, {})
    equal = {node.inode: str(first / node.path) for node in view.nodes.values() if node.kind == "file"}
    root, notes = unpack("second", view, equal)
    assert os.stat(first / "etc/passwd").st_ino == os.stat(root / "etc/passwd").st_ino
    box = Bubblewrap(image, root)
    script = "id -u; id -g; echo $HOME; echo x > /app/new; cat /app/new; ls /"
    ran = box.run(Command(("/bin/sh", "-c", script)), Limits(60))
    assert not (root / "app/new").exists()
    print(ran.status, ran.stdout, ran.stderr, box.notes)
"""


def test_as_an_ordinary_user(tmp_path: Path) -> None:
    hidden = [file("opt/closed/file", b"x", mode=0), directory("opt/closed", 0), file("opt/secret", b"y", mode=0)]
    reference = mini_image(tmp_path, hidden, {"User": "app"})
    as_user: list[str] = []
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    if os.geteuid() == 0:
        as_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        environment.pop("TMPDIR")
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is needed to be somebody else (apt-get install util-linux)")
        # Folders of pytest's are closed to others, and so may be root's Python.
        reference = f"docker-archive:{shutil.copy(reference.partition(':')[2], '/var/tmp/')}"
    try:
        if subprocess.run([*as_user, sys.executable, "-c", "import deadweight"], check=False).returncode != 0:
            pytest.skip("another user cannot run this Python")
        command = [*as_user, sys.executable, "-c", ORDINARY, reference]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/")
    finally:
        if as_user:
            Path(reference.partition(":")[2]).unlink()
    if "may not make namespaces" in done.stderr:
        pytest.skip("ordinary users may not make namespaces here")
    assert done.stdout.startswith("0 b'1001\\n1002\\n/home/app\\nx\\napp\\nbin\\n"), done.stdout + done.stderr


def test_no_program_makes_a_user_namespace(box: Bubblewrap) -> None:
    """In one it could mount the cgroups and lift its own limits; threads and processes are made as ever."""
    code = """
import ctypes, os, subprocess, threading
libc = ctypes.CDLL(None, use_errno=True)
print(libc.unshare(0x10000000), ctypes.get_errno())
print(libc.syscall(56 if os.uname().machine == "x86_64" else 220, 0x10000000 | 17, 0, 0, 0, 0), ctypes.get_errno())
thread = threading.Thread(target=print, args=("thread",))
thread.start()
thread.join()
print(subprocess.run(["/bin/true"]).returncode)
"""
    ran = box.run(Command(("python3", "-c", code)), MINUTE)
    assert ran.stdout.splitlines() == [b"-1 1", b"-1 1", b"thread", b"0"]
