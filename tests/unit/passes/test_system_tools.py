"""system-tools: what installs, logs in and boots leaves with its libraries, but for what anything that stays needs."""

from __future__ import annotations

from typing import Any

import pytest

from deadweight.passes.base import Options
from deadweight.passes.system_tools import PASS
from support.contexts import Dpkg, context, elf, paths
from support.images import Member, file, symlink

LIB = "usr/lib/x86_64-linux-gnu"
UNIT = "usr/lib/systemd/system/dpkg-db-backup.timer"
LEAVE = {"dpkg", "perl-base", "debconf", "util-linux", "libpam-runtime", "bsdutils", "libsystemd0", "libgcrypt20"}
ENABLED = "etc/systemd/system/timers.target.wants/dpkg-db-backup.timer"
WRITTEN = {ENABLED, "var/cache/debconf/templates.dat", "etc/pam.d/common-auth"}


def system(**more: str) -> Dpkg:
    """A base system in little; `more` are packages besides, each with what it depends on."""
    made = Dpkg()
    made.add("libc6", file(f"{LIB}/libc.so.6", elf()), section="libs", auto=False)
    made.add("bash", file("usr/bin/bash", elf(["libc.so.6"])), essential=True, auto=False, depends="libc6")
    made.add("grep", "usr/bin/grep", essential=True, auto=False, depends="dpkg (>= 1) | install-info")
    made.add("ca-certificates", "usr/sbin/update-ca-certificates", auto=False, depends="openssl, debconf | debconf-2.0")
    made.add("dpkg", "usr/bin/dpkg", UNIT, essential=True, auto=False, depends="libc6, tar")
    made.add("tar", "usr/bin/tar", essential=True, auto=False)
    made.add("perl-base", "usr/bin/perl", essential=True, auto=False, depends="dpkg")
    made.add("debconf", file("usr/sbin/dpkg-reconfigure", b"#!/usr/bin/perl\n", mode=0o755), priority="required")
    made.add("util-linux", "usr/bin/setpriv", essential=True, auto=False)
    made.add("libpam-runtime", "usr/sbin/pam-auth-update", priority="required", depends="debconf")
    made.add("bsdutils", file("usr/bin/logger", elf(["libsystemd.so.0"])), essential=True, depends="libsystemd0")
    # As in images that debootstrap made: apt says of no library that another package brought it.
    lib = file(f"{LIB}/libsystemd.so.0", elf(["libgcrypt.so.20"]))
    made.add("libsystemd0", lib, section="libs", auto=False, depends="libgcrypt20")
    made.add("libgcrypt20", file(f"{LIB}/libgcrypt.so.20", elf()), section="libs", auto=False)
    made.add("libz1", file(f"{LIB}/libz.so.1", elf()), section="libs", auto=False)
    for name, depends in more.items():
        made.add(name, f"usr/share/{name}/{name}", auto=False, depends=depends)
    return made


def left(*more: Member, made: Dpkg | None = None, run: Any = None, **options: Any) -> tuple[set[str], set[str]]:
    """The packages that leave, and the files that no package lists."""
    members = [
        *(made or system()).members(),
        symlink(ENABLED, f"/{UNIT}"),
        symlink("etc/systemd/system/other.timer", "/usr/bin/bash"),
        file("var/cache/debconf/templates.dat", b"x"),
        file("etc/pam.d/common-auth", b"x"),
        *more,
    ]
    at = context(members, run=run, options=Options(**options))
    found = set(paths(PASS, at))
    lists = {path for path in found if path.endswith(".list")}
    packages = {path.rpartition("/")[2].removesuffix(".list") for path in lists}
    return packages, {path for path in found if at.ledger.owner(path).kind == "system"}


def test_what_leaves() -> None:
    assert left() == (LEAVE, WRITTEN)


@pytest.mark.parametrize(
    ("more", "stay"),
    [
        (file("app/run", b"#!/usr/bin/perl -w\n", mode=0o755), {"perl-base"}),
        (file("app/main.py", b"subprocess.run(['setpriv', '--reuid', '1'])"), {"util-linux"}),
        (file("opt/lib/x.so", elf(["libgcrypt.so.20"])), {"libgcrypt20"}),
        (symlink("usr/local/bin/log", "/usr/bin/logger"), {"bsdutils", "libsystemd0", "libgcrypt20"}),
    ],
)
def test_what_a_file_needs_stays(more: Member, stay: set[str]) -> None:
    assert left(more)[0] == LEAVE - stay


def test_what_the_image_runs_stays() -> None:
    run = {"Entrypoint": ["/usr/bin/setpriv", "--reuid=1"], "WorkingDir": "/app"}
    assert left(run=run)[0] == LEAVE - {"util-linux"}


def test_what_another_package_needs_stays() -> None:
    assert left(made=system(perl="perl-base, debconf"))[0] == LEAVE - {"perl-base"}
    assert left(made=system(logrotate="bsdutils"))[0] == LEAVE - {"bsdutils", "libsystemd0", "libgcrypt20"}


def test_a_package_that_was_asked_for_stays_whole() -> None:
    gone, written = left(keep=("var/lib/dpkg/info/debconf.list", "var/lib/dpkg/info/dpkg.list"))
    # Perl runs debconf's scripts.
    assert gone == LEAVE - {"debconf", "dpkg", "perl-base"}
    assert written == {"etc/pam.d/common-auth"}


def test_only_who_asks_for_it_gets_it() -> None:
    assert PASS.risk == "observed"
