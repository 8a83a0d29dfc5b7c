"""dpkg's packages: on made views, on this machine's own database, and closures against an oracle."""

from __future__ import annotations

import shutil
import subprocess
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadweight.ledger.debian import (
    Package,
    alternatives,
    drop_list_lines,
    drop_stanzas,
    owner_by_path,
    read_packages,
    removable,
    rewrite_md5sums,
    written_as,
)
from deadweight.ledger.debian_version import compare_versions
from support.views import Link, view, view_of_tree

on_debian = pytest.mark.skipif(not Path("/var/lib/dpkg/status").exists(), reason="this machine has no dpkg")

STATUS = """Package: libc6
Status: install ok installed
Priority: optional
Section: libs
Installed-Size: 10
Architecture: amd64
Multi-Arch: same
Source: glibc (2.36-9)
Version: 2.36-9
Depends: libgcc-s1
Description: x
 Package: not-me

Package: dash
Essential: yes
Status: install ok installed
Architecture: all
Version: 1
Pre-Depends: libc6 (>= 2.30)
Depends: debconf (>= 9) | debconf-2.0, awk:any
Provides: sh, posix-sh (= 1.0)
Conffiles:
 /etc/a b 0123456789abcdef0123456789abcdef
 /etc/old 0123456789abcdef0123456789abcdef obsolete

Package: debconf
Status: install ok installed
Architecture: all
Version: 1.5
Provides: debconf-2.0
Protected: yes


Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""


def fixture() -> dict[str, str | bytes | None]:
    info = "var/lib/dpkg/info"
    return {
        "bin": Link("usr/bin"),
        "lib": Link("usr/lib"),
        "usr/bin/dash": "",
        "usr/bin/sh": Link("dash"),
        "usr/bin/sh.distrib": "",
        "usr/lib/libc.so.6": "",
        "usr/share/doc/one": Link("two"),
        "usr/share/doc/two/x": "",
        "var/lib/dpkg/status": STATUS,
        f"{info}/libc6:amd64.list": "/.\n/lib\n/lib/libc.so.6\n/usr\n"
        "/usr/share/doc/two\n/usr/share/doc/one\n/nowhere\n",
        f"{info}/libc6:amd64.md5sums": "0  lib/libc.so.6\n",
        f"{info}/dash.list": "/.\n/bin\n/bin/dash\n/bin/sh\n/usr/share/doc/two/x\n",
        f"{info}/debconf.list": "/.\n/bin/sh\n",
        "var/lib/dpkg/diversions": "/bin/sh\n/bin/sh.distrib\ndash\n",
        "var/lib/apt/extended_states": "Package: debconf\nArchitecture: amd64\nAuto-Installed: 1\n\n"
        "Package: dash\nArchitecture: amd64\nAuto-Installed: 0\n",
    }


def test_packages_are_read_with_their_files() -> None:
    packages = {p.name: p for p in read_packages(view(fixture()))}
    libc, dash, debconf = packages["libc6"], packages["dash"], packages["debconf"]
    assert libc.files == ("usr/lib/libc.so.6", "usr/share/doc/one")
    assert set(libc.listed_directories) == {"lib", "usr", "usr/share/doc/two"}
    assert libc.written == {"usr/lib/libc.so.6": "lib/libc.so.6"}
    assert written_as(libc, libc.files) == {"lib/libc.so.6", "usr/share/doc/one"}
    assert libc.info_files == ("var/lib/dpkg/info/libc6:amd64.list", "var/lib/dpkg/info/libc6:amd64.md5sums")
    assert (libc.source, libc.installed_size, libc.auto, libc.essential) == ("glibc", 10240, False, False)
    assert dash.files == ("usr/bin/dash", "usr/bin/sh", "usr/share/doc/two/x")
    assert dash.essential
    assert debconf.essential  # Protected
    assert (dash.auto, debconf.auto) == (False, True)
    # debconf is there, but not in version 9: only the virtual package does.
    assert dash.depends == (("libc6",), ("debconf-2.0",), ("awk",))
    assert dash.provides == ("sh", "posix-sh")
    assert dash.conffiles == ("etc/a b", "etc/old")
    assert debconf.files == ("usr/bin/sh.distrib",)
    assert not packages["gone"].installed
    owners = owner_by_path(packages.values())
    assert owners["usr/bin/sh"] == "dash"
    assert "bin" not in owners


def test_a_link_that_several_list_is_a_directory_to_them() -> None:
    files: dict[str, str | bytes | None] = {
        "opt/d": Link("e"),
        "opt/e/x": "",
        "var/lib/dpkg/status": "Package: a\nStatus: install ok installed\n\nPackage: b\nStatus: install ok installed\n",
        "var/lib/dpkg/info/a.list": "/opt/d\n",
        "var/lib/dpkg/info/b.list": "/opt/d\n",
    }
    assert [p.files for p in read_packages(view(files))] == [(), ()]


def test_distroless_and_nothing_at_all() -> None:
    fs = view(
        {
            "var/lib/dpkg/status.d/tzdata": "Package: tzdata\nVersion: 2024a\nArchitecture: all\n",
            "var/lib/dpkg/status.d/tzdata.md5sums": "0123  usr/share/zoneinfo/UTC\n",
            "usr/share/zoneinfo/UTC": "",
        }
    )
    (package,) = read_packages(fs)
    assert (package.installed, package.auto, package.files) == (True, None, ("usr/share/zoneinfo/UTC",))
    assert package.info_files == ("var/lib/dpkg/status.d/tzdata", "var/lib/dpkg/status.d/tzdata.md5sums")
    assert read_packages(view({"etc/x": ""})) == []
    notes: list[str] = []
    assert read_packages(view({"var/lib/dpkg/status/x": ""}), notes) == []
    assert len(notes) == 1


def test_alternatives_are_read() -> None:
    admin = "auto\n/bin/cc\ncc.1.gz\n/usr/share/man/cc.1.gz\n\n"
    admin += "/usr/bin/gcc\n20\n/usr/share/man/gcc.1.gz\n/usr/bin/tcc\n10\n\n\n"
    notes: list[str] = []
    found = alternatives(
        view(
            {
                "bin": Link("usr/bin"),
                "usr/bin/cc": Link("/etc/alternatives/cc"),
                "var/lib/dpkg/alternatives/cc": admin,
                "var/lib/dpkg/alternatives/bad": "auto\n/x",
            }
        ),
        notes,
    )
    assert [a.name for a in found] == ["cc"]
    cc = found[0]
    assert cc.automatic
    assert cc.links == ("usr/bin/cc", "etc/alternatives/cc", "usr/share/man/cc.1.gz", "etc/alternatives/cc.1.gz")
    assert [(c.path, c.priority, c.slaves) for c in cc.candidates] == [
        ("usr/bin/gcc", 20, ("usr/share/man/gcc.1.gz",)),
        ("usr/bin/tcc", 10, ("",)),
    ]
    assert len(notes) == 1


def test_stanzas_are_dropped_and_the_rest_stays() -> None:
    raw = STATUS.encode()
    assert drop_stanzas(raw, ()) == raw
    left = drop_stanzas(raw, {("dash", "all"), ("libc6", "i386")})
    assert left == raw[: raw.index(b"Package: dash")] + raw[raw.index(b"Package: debconf") :]
    states = b"\nPackage: dash\nArchitecture: amd64\nAuto-Installed: 1\n\nPackage: x\nArchitecture: amd64\n"
    assert drop_stanzas(states, {("dash", "all")}) == b"\nPackage: x\nArchitecture: amd64\n"
    assert drop_stanzas(states, {("x", "amd64")}) == states[: states.index(b"Package: x")]


def test_lists_and_sums_are_edited_and_the_rest_stays() -> None:
    raw = b"/.\n/bin\n/bin/x\n/usr/y"
    assert drop_list_lines(raw, {"bin/x"}) == b"/.\n/bin\n/usr/y"
    assert drop_list_lines(raw, {"usr/y"}) == b"/.\n/bin\n/bin/x\n"
    sums = b"a" * 32 + b"  bin/x\n" + b"b" * 32 + b"  usr/y\nodd\n"
    assert rewrite_md5sums(sums, {"bin/x"}, {"usr/y": "c" * 32}) == b"c" * 32 + b"  usr/y\nodd\n"


@given(st.binary(max_size=40) | st.text("aP: \n\t/", max_size=40).map(str.encode))
def test_any_bytes_survive_untouched(raw: bytes) -> None:
    assert drop_stanzas(raw, ()) == raw
    assert drop_stanzas(raw, {("zzz", "all")}) == raw
    assert drop_list_lines(raw, ()) == raw
    assert rewrite_md5sums(raw, (), {}) == raw
    read_packages(view({"var/lib/dpkg/status": raw, "var/lib/dpkg/diversions": raw, "var/lib/dpkg/info/a.list": raw}))
    alternatives(view({"var/lib/dpkg/alternatives/a": raw}))


@on_debian
def test_this_machine_agrees_with_dpkg() -> None:
    fs = view_of_tree(Path("/"), "var/lib/dpkg/status", "var/lib/dpkg/info", "var/lib/dpkg/alternatives")
    packages = [p for p in read_packages(fs) if p.installed]
    said = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Architecture} ${Version} ${db:Status-Status}\n"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert sorted(f"{p.name} {p.architecture} {p.version} installed" for p in packages) == sorted(
        line for line in said if line.endswith(" installed")
    )
    assert all(any(f.endswith(".list") for f in p.info_files) for p in packages)
    raw = Path("/var/lib/dpkg/status").read_bytes()
    assert drop_stanzas(raw, ()) == raw
    first = packages[0]
    left = drop_stanzas(raw, {(first.name, first.architecture)})
    assert left.count(b"\nStatus: ") == raw.count(b"\nStatus: ") - 1
    for path in Path("/var/lib/dpkg/info").glob("*.md5sums"):
        sums = path.read_bytes()
        assert rewrite_md5sums(sums, (), {}) == sums
    groups = alternatives(fs)
    assert len(groups) == len(list(Path("/var/lib/dpkg/alternatives").iterdir()))
    assert all(group.candidates for group in groups)


@on_debian
def test_this_machine_would_still_have_its_dependencies() -> None:
    """Whatever leaves, nothing that stays loses a dependency: checked group by group."""
    packages = [
        p
        for p in read_packages(view_of_tree(Path("/"), "var/lib/dpkg/status", "var/lib/apt/extended_states"))
        if p.installed
    ]
    for seeds in ({"gcc", "g++", "make", "build-essential"}, {p.name for p in packages if p.name.endswith("-dev")}):
        closure = removable(packages, seeds)
        assert sound(packages, set(closure.leaving))
        assert not any(p.essential for p in packages if p.name in closure.leaving)


VERSIONS = st.text("0123456789a~.+Z", max_size=5)


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="this machine has no dpkg")
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("1", "2"),
        ("1.0~rc1", "1.0"),
        ("1:0", "9"),
        ("1.10", "1.9"),
        ("1-1", "1-1+b1"),
        ("1.0-1", "1.0-1.1"),
        ("1a", "1+"),
        ("1.0", "1.0-0"),
        ("2.36-9+deb12u13", "2.36-9"),
        ("0012", "12"),
        ("1~~", "1~"),
        ("1.a", "1.~"),
    ],
)
def test_versions_compare_as_dpkg_does(a: str, b: str) -> None:
    for left, right in ((a, b), (b, a), (a, a)):
        said = [
            op
            for op in ("lt", "eq", "gt")
            if subprocess.run(["dpkg", "--compare-versions", left, op, right], check=False).returncode == 0
        ]
        assert said == [("lt", "eq", "gt")[compare_versions(left, right) + 1]]


@given(VERSIONS, VERSIONS, VERSIONS)
def test_versions_are_ordered(a: str, b: str, c: str) -> None:
    assert compare_versions(a, b) == -compare_versions(b, a)
    if compare_versions(a, b) <= 0 and compare_versions(b, c) <= 0:
        assert compare_versions(a, c) <= 0


def package(
    name: str, *depends: tuple[str, ...], recommends: tuple[tuple[str, ...], ...] = (), **more: object
) -> Package:
    base: dict[str, object] = {
        "architecture": "amd64", "version": "1", "essential": False, "priority": "optional", "section": "",
        "installed": True, "provides": (), "installed_size": 0, "source": name, "auto": True,
    }  # fmt: skip
    return Package(name=name, depends=depends, recommends=recommends, **(base | more))  # type: ignore[arg-type]


def satisfied(packages: list[Package], group: tuple[str, ...], without: set[str]) -> bool:
    return any(
        p.name not in without and (p.name in group or set(p.provides) & set(group)) for p in packages if p.installed
    )


def sound(packages: list[Package], leaving: set[str]) -> bool:
    return all(
        satisfied(packages, group, leaving) or not satisfied(packages, group, set())
        for p in packages
        if p.name not in leaving
        for group in p.depends
    )


TOOLCHAIN = [
    package("build-essential", ("gcc",), ("make",), auto=False),
    package("gcc", ("gcc-12",), ("cpp",)),
    package("gcc-12", ("gcc-12-base",), ("libgomp1",), ("libc6",)),
    package("cpp", ("gcc-12-base",)),
    package("make", ("libc6",), recommends=(("ca-certificates",),)),
    package("gcc-12-base"),
    package("libgomp1", ("gcc-12-base",), ("libc6",)),
    package("libgcc-s1", ("gcc-12-base",), essential=True),
    package("libc6", ("libgcc-s1",)),
    package("ca-certificates", ("openssl",)),
    package("openssl", ("libc6",)),
    package("python3-pip", ("python3",), auto=False, recommends=(("build-essential",), ("ca-certificates",))),
    package("python3", ("libc6",), auto=False),
]


def test_the_toolchain_leaves_and_the_system_stays() -> None:
    closure = removable(TOOLCHAIN, {"build-essential", "absent"})
    assert set(closure.leaving) == {"build-essential", "gcc", "gcc-12", "cpp", "make", "libgomp1"}
    assert closure.leaving["libgomp1"] == "only needed by gcc-12"
    assert closure.leaving["build-essential"] == "named"
    assert closure.refused == {}


def test_what_files_need_stays_and_seeds_are_refused_with_a_reason() -> None:
    closure = removable(TOOLCHAIN, {"build-essential", "libgcc-s1", "gcc-12-base", "make"}, keep={"libgomp1", "make"})
    assert closure.refused == {
        "libgcc-s1": "essential: dpkg does not remove it",
        "gcc-12-base": "libgcc-s1 depends on it",
        "make": "a file that stays needs it",
    }
    assert set(closure.leaving) == {"build-essential", "gcc", "gcc-12", "cpp"}


def test_where_apt_says_nothing_the_priority_tells() -> None:
    packages = [
        package("gcc", ("tool",), ("base",), auto=None),
        package("tool", auto=None),
        package("base", auto=None, priority="required"),
    ]
    assert set(removable(packages, {"gcc"}).leaving) == {"gcc", "tool"}


def test_alternatives_and_virtual_packages_hold_only_one() -> None:
    packages = [
        package("app", ("mta",), auto=False),
        package("postfix", provides=("mta",)),
        package("exim", provides=("mta",)),
        package("tool", ("exim",)),
    ]
    assert set(removable(packages, {"tool", "postfix"}).leaving) == {"tool", "postfix"}
    # Either would do: the one that tool needs may not leave alone, and app needs one of the two.
    both = removable(packages, {"exim", "postfix"})
    assert both.refused == {"exim": "tool depends on it"}
    assert set(both.leaving) == {"postfix"}
    assert removable(packages, {"exim", "postfix", "tool"}).refused == {"exim": "app depends on it"}


NAMES = "abcdefg"


@st.composite
def databases(draw: st.DrawFn, choices: bool) -> list[Package]:
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    group = st.lists(st.sampled_from(NAMES + ("vw" if choices else "")), min_size=1, max_size=2 if choices else 1)
    return [
        package(
            name,
            *(tuple(g) for g in draw(st.lists(group, max_size=2))),
            recommends=tuple(tuple(g) for g in draw(st.lists(group, max_size=1))),
            provides=tuple(draw(st.sets(st.sampled_from("vw"), max_size=1))) if choices else (),
            auto=draw(st.sampled_from([True, True, True, False])),
            essential=draw(st.integers(0, 9)) == 0,
        )
        for name in names
    ]


SOME = st.sets(st.sampled_from(NAMES), max_size=3)


@given(databases(choices=True), SOME, SOME)
def test_nothing_that_stays_loses_a_dependency(packages: list[Package], seeds: set[str], keep: set[str]) -> None:
    closure = removable(packages, seeds, keep)
    leaving = set(closure.leaving)
    here = {p.name: p for p in packages}
    assert sound(packages, leaving)
    assert not any(here[name].essential or name in keep for name in leaving)
    assert all(name in seeds or here[name].auto for name in leaving)
    assert set(closure.refused) == (seeds & here.keys()) - leaving
    assert closure == removable(packages[::-1], seeds, keep)


@given(databases(choices=False), SOME, SOME)
def test_without_choices_it_is_the_largest_set_there_is(
    packages: list[Package], seeds: set[str], keep: set[str]
) -> None:
    here = {p.name: p for p in packages}
    wanted = seeds & here.keys()

    def fits(leaving: set[str]) -> bool:
        if not sound(packages, leaving) or any(here[n].essential or n in keep for n in leaving):
            return False
        if any(n not in wanted and not here[n].auto for n in leaving):
            return False
        for p in packages:
            if p.name not in leaving and any(n in leaving and n not in wanted for g in p.recommends for n in g):
                return False
        linked = wanted & leaving
        for _ in packages:
            linked |= {n for m in linked for g in (*here[m].depends, *here[m].recommends) for n in g if n in leaving}
        return linked == leaving

    best: set[str] = set()
    for size in range(len(here) + 1):
        for subset in combinations(sorted(here), size):
            if fits(set(subset)):
                best |= set(subset)
    assert set(removable(packages, seeds, keep).leaving) == best
