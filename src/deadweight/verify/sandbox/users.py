"""The image's user as a container engine finds it: `USER[:GROUP]`, names or numbers, by /etc/passwd and /etc/group.

As in moby/sys/user (GetExecUser): without a group it is that of /etc/passwd, else 0, and the groups that list the user
come with it; with one there are no others. A number that /etc/passwd does not know is fine, a name is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deadweight.errors import BadInputError, EnvironmentFailure, shown

FILE_LIMIT = 16 << 20
ID_LIMIT = 2**31 - 1
# Takes on the user. The environment is read before Python can have changed it, and what Python ignores is not ignored.
_SWITCH = """\
import os, signal, sys
env = dict(e.split(b"=", 1) for e in open("/proc/self/environ", "rb").read().split(b"\\0") if b"=" in e)
os.setgroups([int(g) for g in sys.argv[3].split(",") if g])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[1]))
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
try:
    os.execvpe(sys.argv[4], sys.argv[4:], env)
except OSError as error:
    sys.stderr.write("%s: %s\\n" % (sys.argv[4], error.strerror))
    sys.stderr.flush()
    os._exit(127 if isinstance(error, (FileNotFoundError, NotADirectoryError)) else 126)
"""


@dataclass(frozen=True)
class User:
    """Whom a program runs as."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    """The further ones."""
    home: str = "/"


def find_user(wanted: str, passwd: bytes, group: bytes) -> User:
    """The user that a configuration's `User` means, root where it is empty.

    Raises BadInputError for a name that the image does not know, or a number that is none.
    """
    name, _, group_name = wanted.partition(":")
    name = name or "0"
    entry = next((line for line in _lines(passwd, 7) if name in (line[0], line[2])), None)
    uid = _number(entry[2] if entry else name, wanted, "user", "/etc/passwd")
    gid = _number(entry[3], wanted, "group", "/etc/passwd") if entry else 0
    home = (entry[5] if entry else "") or "/"
    if group_name:
        known = next((line for line in _lines(group, 4) if group_name in (line[0], line[2])), None)
        return User(uid, _number(known[2] if known else group_name, wanted, "group", "/etc/group"), (), home)
    groups = [line[2] for line in _lines(group, 4) if entry and entry[0] in line[3].split(",")]
    return User(uid, gid, tuple(sorted({int(g) for g in groups if _is_id(g)} - {gid})), home)


def _lines(data: bytes, fields: int) -> list[list[str]]:
    """The lines of a file like passwd(5) that have all their fields."""
    text = data[:FILE_LIMIT].decode("utf-8", "surrogateescape")
    return [words for line in text.split("\n") if len(words := line.split(":")) == fields and not line.startswith("#")]


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= ID_LIMIT


def _number(text: str, wanted: str, what: str, file: str) -> int:
    if not _is_id(text):
        raise BadInputError(f"the image is to run as {shown(wanted)}, and its {file} knows no such {what}")
    return int(text)


def become(user: User, find: Callable[[str], str | None]) -> tuple[str, ...]:
    """The words of the image that take on a user and then start a program: root's, with SETUID and SETGID.

    `find` gives a program of the image by its name. Raises EnvironmentFailure where none of the image can do it.
    """
    groups = ",".join(map(str, user.groups))
    for name in ("python3", "python"):
        if python := find(name):
            return (python, "-I", "-S", "-c", _SWITCH, str(user.uid), str(user.gid), groups)
    if setpriv := find("setpriv"):
        others = ("--groups", groups) if groups else ("--clear-groups",)
        return (setpriv, "--reuid", str(user.uid), "--regid", str(user.gid), *others, "--inh-caps=-all", "--")
    raise EnvironmentFailure(
        f"the image runs as user {user.uid}, and has neither Python nor setpriv to become it; use docker or podman"
    )
