"""Why Debian packages are there: chains from what somebody asked for, or from the base system."""

from __future__ import annotations

from deadweight.ledger.debian import Package
from deadweight.report.reasons import package_reasons


def package(name: str, depends: str = "", *, auto: bool | None = True, **more: object) -> Package:
    fields: dict[str, object] = {
        "architecture": "amd64",
        "version": "1",
        "essential": False,
        "priority": "optional",
        "section": "",
        "installed": True,
        "recommends": (),
        "provides": (),
        "installed_size": 0,
        "source": name,
        **more,
    }
    groups = tuple(tuple(group.split("|")) for group in depends.split())
    return Package(name=name, depends=groups, auto=auto, **fields)  # type: ignore[arg-type]


def test_the_shortest_chain_from_what_was_asked_for() -> None:
    reasons = package_reasons(
        [
            package("build-essential", "gcc make", auto=False),
            package("gcc", "gcc-12 libc6-dev"),
            package("gcc-12", "libisl"),
            package("libisl"),
            package("make"),
            package("libc6-dev"),
        ]
    )
    assert reasons["build-essential"] == "asked for"
    assert reasons["libisl"] == "build-essential -> gcc -> gcc-12 -> libisl"
    assert reasons["make"] == "build-essential -> make"


def test_the_base_system_comes_before_what_was_asked_for() -> None:
    # debootstrap marks nothing as automatic: that libtinfo was asked for would not explain it.
    reasons = package_reasons(
        [
            package("bash", "libtinfo", essential=True, auto=False),
            package("apt", "libc6", priority="important", auto=False),
            package("libtinfo", auto=False),
            package("libc6", auto=False),
            package("curl", "libc6", auto=False),
        ]
    )
    assert reasons == {
        "bash": "essential to Debian",
        "apt": "Debian's base system (priority important)",
        "libtinfo": "bash -> libtinfo",
        "libc6": "apt -> libc6",
        "curl": "asked for",
    }


def test_recommended_virtual_and_alternative_packages_are_followed() -> None:
    reasons = package_reasons(
        [
            package("editor", "awk gone|mailer", auto=False, recommends=(("docs",),)),
            package("mawk", provides=("awk",)),
            package("mailer"),
            package("docs"),
        ]
    )
    assert reasons["mawk"] == "editor -> mawk"
    assert reasons["mailer"] == "editor -> mailer"
    assert reasons["docs"] == "editor -> docs"


def test_where_apt_says_nothing_what_no_package_needs_was_asked_for() -> None:
    reasons = package_reasons([package("a", "b", auto=None), package("b", auto=None), package("c", "c", auto=None)])
    assert reasons == {"a": "no package needs it", "b": "a -> b", "c": "no package needs it"}


def test_circles_end_and_orphans_have_no_reason() -> None:
    assert package_reasons([package("a", "b"), package("b", "a")]) == {}
