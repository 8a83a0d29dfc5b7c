"""build-tools: packages leave whole, with what only they need, and never what a staying file needs."""

from __future__ import annotations

from typing import Any

import pytest

from deadweight.passes.base import Options
from deadweight.passes.build_tools import PASS
from support.contexts import INTERPRETER, SITE, Dpkg, context, distribution, elf, paths, proposals
from support.images import Member, file, hardlink, symlink

LIB = "usr/lib/x86_64-linux-gnu"
GCC = "var/lib/dpkg/alternatives/cc"


def dpkg() -> Dpkg:
    """A compiler with a library of its own, and a little of a base system."""
    made = Dpkg()
    made.add("libc6", file(f"{LIB}/libc.so.6", elf()), auto=False, priority="required")
    made.add("gcc", symlink("usr/bin/gcc", "gcc-12"), depends="gcc-12", auto=False)
    made.add("gcc-12", file("usr/bin/gcc-12", elf(["libisl.so.23", "libc.so.6"])), depends="libisl23, libgomp1, libc6")
    made.add(
        "libisl23",
        symlink(f"{LIB}/libisl.so.23", "libisl.so.23.2"),
        file(f"{LIB}/libisl.so.23.2", elf()),
        depends="libc6",
    )
    made.add("libgomp1", file(f"{LIB}/libgomp.so.1", elf()))
    made.add("make", "usr/bin/make", "usr/share/make/rules", auto=False)
    return made


ALL = {"gcc", "gcc-12", "libisl23", "libgomp1", "make"}


def packages_left(found: list[str]) -> set[str]:
    """The packages whose list of files leaves."""
    return {
        p.rpartition("/")[2].removesuffix(".list")
        for p in found
        if p.startswith("var/lib/dpkg/info/") and p.endswith(".list")
    }


def left(*members: Member, made: Dpkg | None = None, **more: Any) -> set[str]:
    return packages_left(paths(PASS, context([*(made or dpkg()).members(), *members], **more)))


def test_packages_leave_whole_with_what_only_they_need() -> None:
    at = context(dpkg().members())
    found = {p.path: p for p in proposals(PASS, at)}
    files = {p for p in found if at.ledger.fs.nodes[p].kind != "dir"}
    assert files == {
        *("usr/bin/gcc", "usr/bin/gcc-12", "usr/bin/make", "usr/share/make/rules"),
        *(f"{LIB}/libisl.so.23", f"{LIB}/libisl.so.23.2", f"{LIB}/libgomp.so.1"),
        *(f"var/lib/dpkg/info/{name}.{kind}" for name in ALL for kind in ("list", "md5sums")),
    }
    # Directories that a staying package lists, too, are not proposed.
    assert found.keys() - files == {"usr/bin", "usr/share", "usr/share/make"}
    assert found["usr/bin/gcc-12"].why == "builds software"
    assert found[f"{LIB}/libgomp.so.1"].why == "only build tools need it"
    assert found[f"{LIB}/libgomp.so.1"].evidence == (
        "Debian package libgomp1 (only needed by gcc-12); no kept file needs it: DT_NEEDED of 4 ELF files checked"
    )
    assert at.notes == []


@pytest.mark.parametrize(
    "member",
    [
        file(f"{SITE}/x.so", elf(["libgomp.so.1"])),
        file(f"{SITE}/x.so", elf(["libgomp.so.1"], runpath="$ORIGIN/../none")),
        file("app/x", elf(interpreter=f"/{LIB}/libgomp.so.1")),
        symlink("opt/link", f"/{LIB}/libgomp.so.1"),
        file(f"{SITE}/x.py", b"import ctypes\nctypes.CDLL('libgomp.so.1')\n"),
        file(f"{SITE}/x.py", b"import ctypes.util\nctypes.util.find_library('gomp')\n"),
    ],
)
def test_a_library_that_a_staying_file_needs_stays(member: Member) -> None:
    at = context([*dpkg().members(), member])
    assert packages_left(paths(PASS, at)) == ALL - {"libgomp1"}
    assert len(at.notes) == 1
    assert at.notes[0].startswith("the package libgomp1 stays: /")


def test_search_paths() -> None:
    own = elf(["libgomp.so.1"], runpath="$ORIGIN/../pkg.libs")
    bundled = (file(f"{SITE}/pkg/x.so", own), file(f"{SITE}/pkg.libs/libgomp.so.1", elf()))
    assert left(*bundled) == ALL
    extra = Dpkg()
    extra.add("libfoo-dev", file("opt/foo/libfoo.so", elf()), auto=False)
    user = file("app/x", elf(["libfoo.so"]))
    assert left(user, made=extra) == {"libfoo-dev"}
    assert left(user, made=extra, run={"Env": ["LD_LIBRARY_PATH=/opt/foo"]}) == set()
    conf = (
        file("etc/ld.so.conf", b"include /etc/ld.so.conf.d/*.conf\n"),
        file("etc/ld.so.conf.d/foo.conf", b"/opt/foo\n"),
    )
    assert left(user, *conf, made=extra) == set()


def test_keeping_a_package_keeps_what_its_files_need() -> None:
    # The application runs gcc: its library stays by DT_NEEDED, what it depends on by dpkg, and make leaves.
    at = context(dpkg().members(), run={"Cmd": ["gcc", "--version"]})
    assert packages_left(paths(PASS, at)) == {"make"}
    assert "the package gcc stays: the image runs gcc" in at.notes


@pytest.mark.parametrize(
    ("members", "run"),
    [
        ([], {"Healthcheck": {"Test": ["CMD-SHELL", "make -s check || exit 1"]}}),
        ([], {"Entrypoint": ["/usr/bin/make"]}),
        ([file("app/script", b"#!/usr/bin/make -f\n", mode=0o755)], {}),
        ([file("app/script", b"#!/usr/bin/env -S make -f\n", mode=0o755)], {}),
        ([file("app/main.py", b"subprocess.run(['make', 'x'])\n")], {"WorkingDir": "/app"}),
        ([file("run.sh", b"#!/bin/sh\nset -e\nif true; then make x; fi\n", mode=0o755)], {"Cmd": ["/run.sh"]}),
        ([symlink("opt/gnumake", "/usr/bin/make")], {}),
        ([symlink("opt/rules", "/usr/share/make")], {}),
    ],
)
def test_programs_that_something_starts_stay(members: list[Member], run: dict[str, Any]) -> None:
    assert left(*members, run=run) == ALL - {"make"}


def test_a_script_of_a_leaving_package_keeps_nothing() -> None:
    made = dpkg()
    made.add("debhelper", file("usr/bin/dh", b"#!/usr/bin/make -f\n", mode=0o755), auto=False)
    assert left(made=made) == ALL | {"debhelper"}
    assert left(file("opt/plain", b"#!/usr/bin/make -f\n", mode=0o644)) == ALL


def test_modules_of_debians_python_that_something_imports() -> None:
    made = dpkg()
    made.add("python3-dev", depends="python3-distutils", auto=False)
    made.add("python3-distutils", "usr/lib/python3/dist-packages/distutils/__init__.py")
    assert left(made=made) == ALL | {"python3-dev", "python3-distutils"}
    assert left(file(f"{SITE}/old.py", b"from distutils.version import LooseVersion\n"), made=made) == ALL | {
        "python3-dev"
    }


def test_what_a_staying_package_depends_on_stays_and_so_does_the_base_system() -> None:
    made = dpkg()
    made.add("dkms", depends="make", auto=False)
    at = context(made.members())
    assert packages_left(paths(PASS, at)) == ALL - {"make"}
    assert at.notes == ["the package make stays: dkms depends on it"]
    made = dpkg()
    made.add("patch", "usr/bin/patch", priority="important", auto=False)
    made.add("binutils", "usr/bin/ld", essential=True, auto=False)
    assert left(made=made) == ALL


def test_bytecode_and_files_that_staying_packages_list_too() -> None:
    made = dpkg()
    made.add("meson", "usr/lib/python3/dist-packages/mesonbuild/a.py", "usr/share/shared", auto=False)
    made.add("other", "usr/share/shared", auto=False)
    bytecode = "usr/lib/python3/dist-packages/mesonbuild/__pycache__/a.cpython-311.pyc"
    found = paths(PASS, context([*made.members(), file(bytecode, b"x")]))
    assert bytecode in found
    assert "usr/share/shared" not in found


def alternative(*candidates: str) -> tuple[Member, ...]:
    text = "auto\n/usr/bin/cc\ncc.1.gz\n/usr/share/man/man1/cc.1.gz\n\n"
    text += "".join(f"/{candidate}\n{20 - i}\n\n" for i, candidate in enumerate(candidates))
    return (
        file(GCC, text.encode()),
        symlink("etc/alternatives/cc", f"/{candidates[0]}"),
        symlink("usr/bin/cc", "/etc/alternatives/cc"),
        symlink("usr/share/man/man1/cc.1.gz", "/etc/alternatives/cc.1.gz"),
    )


def test_alternatives_leave_when_all_that_they_stand_for_leaves() -> None:
    found = paths(PASS, context([*dpkg().members(), *alternative("usr/bin/gcc")]))
    assert {"usr/bin/cc", "etc/alternatives/cc", GCC, "usr/share/man/man1/cc.1.gz"} <= set(found)
    assert packages_left(found) == ALL


def test_alternatives_with_one_that_stays_keep_what_they_stand_for_now() -> None:
    members = [*dpkg().members(), file("usr/bin/tcc", b"x"), *alternative("usr/bin/gcc", "usr/bin/tcc")]
    at = context(members)
    found = paths(PASS, at)
    assert packages_left(found) == {"make"}
    assert "usr/bin/cc" not in found
    members = [*dpkg().members(), file("usr/bin/tcc", b"x"), *alternative("usr/bin/tcc", "usr/bin/gcc")]
    found = paths(PASS, context(members))
    assert packages_left(found) == ALL
    assert "usr/bin/cc" not in found


def test_a_command_that_goes_through_an_alternative_keeps_its_package() -> None:
    assert left(*alternative("usr/bin/gcc"), run={"Cmd": ["cc", "-v"]}) == {"make"}


def test_a_package_leaves_whole_or_not_at_all() -> None:
    at = context(dpkg().members(), options=Options(keep=("usr/share/make/rules",)))
    assert packages_left(paths(PASS, at)) == ALL - {"make"}
    assert at.notes == ["the package make stays: /usr/share/make/rules is to stay"]
    upper = [file("usr/share/make/rules", b"changed")]
    at = context(dpkg().members(), upper, keep_layers=[1])
    assert packages_left(paths(PASS, at)) == ALL - {"make"}
    assert paths(PASS, context(dpkg().members(), keep_layers=[0])) == []
    made = dpkg()
    made.add("cmake", "usr/bin/cmake", auto=False, listed=False)
    assert left(made=made) == ALL


def test_keep_compile_and_distributions_that_compile_keep_everything() -> None:
    at = context(dpkg().members(), options=Options(keep_compile=True))
    assert proposals(PASS, at) == []
    assert at.notes == ["build tools stay: --keep-compile asks for it"]
    at = context([*dpkg().members(), *INTERPRETER, *distribution("vllm", "vllm/__init__.py")])
    assert proposals(PASS, at) == []
    assert at.notes == ["build tools stay: vllm may compile code while running"]


def test_programs_of_nobody() -> None:
    tools = (file("usr/local/bin/uv", b"x"), hardlink("bin/uvx", "usr/local/bin/uv"), file("usr/local/bin/tool", b"x"))
    run = {"Env": ["PATH=/usr/local/bin:/bin"]}
    assert paths(PASS, context(tools, run=run)) == ["bin/uvx", "usr/local/bin/uv"]
    at = context(tools, run={**run, "Cmd": ["uv", "run", "app"]})
    assert paths(PASS, at) == ["bin/uvx"]
    assert at.notes == ["/usr/local/bin/uv stays: the image runs uv"]
    at = context([*tools, symlink("opt/installer", "/usr/local/bin/uv")], run=run)
    assert paths(PASS, at) == ["bin/uvx"]
    elsewhere = (file("opt/uv-0.9/uv", b"x"), symlink("usr/local/bin/uv", "/opt/uv-0.9/uv"))
    assert paths(PASS, context(elsewhere, run=run)) == ["opt/uv-0.9/uv", "usr/local/bin/uv"]


def test_compilers_that_dpkg_does_not_know_stay_and_are_named() -> None:
    alpine = context([file("usr/bin/gcc", elf(), mode=0o755), file("lib/apk/db/installed", b"P:gcc\n")])
    assert paths(PASS, alpine) == []
    assert alpine.notes == ["/usr/bin/gcc stays, and what belongs to it: only Debian's packages leave as build tools"]
    at = context(dpkg().members())
    assert paths(PASS, at)
    assert at.notes == []
    conda = (file("opt/conda/conda-meta/ninja-1.json"), file("opt/conda/bin/ninja", b"x"), file("usr/bin/ninja", b"x"))
    assert paths(PASS, context(conda, run={"Env": ["PATH=/opt/conda/bin:/usr/bin"]})) == ["usr/bin/ninja"]


def test_many_packages_that_the_user_keeps_are_one_note() -> None:
    at = context(dpkg().members(), keep_layers=[0])
    assert paths(PASS, at) == []
    assert len(at.notes) == 1
    assert at.notes[0].startswith("5 packages of build tools stay: ")


def test_distributions_that_install() -> None:
    uv = distribution("uv", "uv/__init__.py", file("usr/local/bin/uv", elf(), mode=0o755))
    found = paths(PASS, context([*INTERPRETER, *uv]))
    assert "usr/local/bin/uv" in found
    assert f"{SITE}/uv-1.dist-info/METADATA" in found
    at = context([*INTERPRETER, *uv], run={"Entrypoint": ["uv", "run"]})
    assert paths(PASS, at) == []
    assert at.notes == ["uv stays: the image runs uv"]


@pytest.mark.parametrize("value", [f"/{LIB}/libgomp.so.1", f"/x.so:/{LIB}/libgomp.so.1", "libgomp.so.1"])
def test_a_library_that_the_environment_preloads_stays(value: str) -> None:
    assert left(run={"Env": [f"LD_PRELOAD={value}", "CUDA_HOME=/usr/share/make"]}) == ALL - {"libgomp1"}
