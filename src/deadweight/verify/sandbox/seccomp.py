"""A system call filter: programs of an image make no user namespaces.

In one of their own they could mount the cgroups' file system and lift their own limits. A filter in classic BPF, as
seccomp(2) takes it; it sees the flags of unshare and clone, but not those of clone3, which is therefore not there (C
libraries use clone then).
"""

from __future__ import annotations

import errno
import os
import struct

_MACHINES = {"x86_64": (0xC000003E, 272, 56), "aarch64": (0xC00000B7, 97, 220)}
"""AUDIT_ARCH_* of linux/audit.h, and the numbers of unshare and clone."""
_CLONE3 = 435
_CLONE_NEWUSER = 0x10000000
_X32 = 0x40000000  # calls of another kind, which no machine's own programs make
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def no_user_namespaces() -> bytes:
    """The filter for this machine; empty where its calls' numbers are not known here."""
    known = _MACHINES.get(os.uname().machine)
    if known is None:
        return b""
    machine, unshare, clone = known
    program = [
        (_LOAD, 0, 0, 4),  # seccomp_data.arch
        (_EQUAL, 0, 8, machine),  # else: no such call
        (_LOAD, 0, 0, 0),  # seccomp_data.nr
        (_AT_LEAST, 6, 0, _X32),
        (_EQUAL, 5, 0, _CLONE3),
        (_EQUAL, 1, 0, unshare),
        (_EQUAL, 0, 2, clone),
        (_LOAD, 0, 0, 16),  # the low half of the first argument
        (_ANY_BIT, 2, 0, _CLONE_NEWUSER),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
        (_RETURN, 0, 0, _ERROR | errno.EPERM),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in program)
