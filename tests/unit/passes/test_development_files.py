"""development-files: what compilers and type checkers read leaves distributions, unless it is read at run time."""

from __future__ import annotations

from typing import Any

from deadweight.passes.base import Options
from deadweight.passes.development_files import PASS
from support.contexts import INTERPRETER, SITE, Dpkg, context, distribution, paths, proposals
from support.images import Member, directory, file

FILES = (
    *("pkg/__init__.py", "pkg/py.typed", "pkg/core.pyi", "pkg/lib/libx.a", "pkg/lib/libx.so", "pkg/include/x.h"),
    *(
        "pkg/include/cuda/std/array",
        "pkg/include/x.inl",
        "pkg/include/LICENSE",
        "pkg/fast.pyx",
        "pkg/fast.pxd",
        "pkg/fast.c",
    ),
    *("pkg/fast.cpython-311-x86_64-linux-gnu.so", "pkg/mod.cpp", "pkg/mod.abi3.so", "pkg/driver.c", "pkg/driver.py"),
    *(
        "pkg/share/cmake/X/XConfig.cmake",
        "pkg/lib/pkgconfig/x.pc",
        "pkg/table.inc",
        "pkg/data.pc",
        "pkg/kernel.cu",
        "pkg/array",
    ),
)
LEAVE = {
    *(
        "pkg/core.pyi",
        "pkg/lib/libx.a",
        "pkg/include/x.h",
        "pkg/include/cuda/std/array",
        "pkg/include/x.inl",
        "pkg/fast.pyx",
    ),
    *("pkg/fast.pxd", "pkg/fast.c", "pkg/mod.cpp", "pkg/share/cmake/X/XConfig.cmake", "pkg/lib/pkgconfig/x.pc"),
}
PKG = (*INTERPRETER, *distribution("pkg", *FILES))


def left(*members: Member, **more: Any) -> set[str]:
    return {p.removeprefix(f"{SITE}/") for p in paths(PASS, context([*PKG, *members], **more))}


def test_what_leaves_and_what_stays() -> None:
    assert left() == LEAVE


def test_protoc_leaves_but_where_it_is_a_command() -> None:
    at = context(
        [
            *INTERPRETER,
            *distribution(
                "pkg", "pkg/bin/protoc", "pkg/bin/protoc-3.13.0.0", "pkg/bin/protocol", file("usr/local/bin/protoc")
            ),
        ]
    )
    assert paths(PASS, at) == [f"{SITE}/pkg/bin/protoc", f"{SITE}/pkg/bin/protoc-3.13.0.0"]


def test_what_only_builds_of_debian_packages_read() -> None:
    dpkg = Dpkg()
    dpkg.add("libz1", "usr/lib/libz.so.1")
    members = [file(f"var/lib/dpkg/info/libz1.{kind}", b"x") for kind in ("symbols", "shlibs", "triggers", "postinst")]
    others = [file("var/lib/app/info/a.symbols", b"x"), file("app/libz1.symbols", b"x")]
    found = paths(PASS, context([*dpkg.members(), *members, *others], run={"WorkingDir": "/app"}))
    assert found == ["var/lib/dpkg/info/libz1.shlibs", "var/lib/dpkg/info/libz1.symbols"]


def test_directories_may_leave_with_their_files() -> None:
    at = context([directory(f"{SITE}/pkg"), directory(f"{SITE}/pkg/include"), *PKG])
    found = {p.path for p in proposals(PASS, at)}
    assert {f"{SITE}/pkg", f"{SITE}/pkg/include"} <= found  # the edit keeps those with something in them
    assert SITE not in found


def test_only_of_distributions() -> None:
    dpkg = Dpkg()
    dpkg.add("libx", "usr/include/x.h", "usr/lib/libx.a")
    loose = (file("app/native/x.h", b"x"), file("usr/local/lib/libx.a", b"x"), file(f"{SITE}/loose/x.pyi", b"x"))
    assert left(*dpkg.members(), *loose, run={"WorkingDir": "/app"}) == LEAVE


def test_perls_headers_for_compiled_modules() -> None:
    dpkg = Dpkg()
    core = "usr/lib/x86_64-linux-gnu/perl/5.36.0/CORE"
    dpkg.add("libperl5.36", f"{core}/perl.h", f"{core}/libperl.so", "usr/lib/perl/x.h")
    found = paths(PASS, context([*PKG, *dpkg.members()]))
    assert {path for path in found if SITE not in path} == {f"{core}/perl.h"}


def test_keep_compile_keeps_all_of_it() -> None:
    at = context(PKG, options=Options(keep_compile=True))
    assert paths(PASS, at) == []
    assert at.notes == ["development files stay: --keep-compile asks for it"]


def test_headers_stay_for_what_compiles_while_running() -> None:
    at = context([*PKG, *distribution("cupy-cuda12x", "cupy/__init__.py")])
    found = {p.removeprefix(f"{SITE}/") for p in paths(PASS, at)}
    assert found == {p for p in LEAVE if "include" not in p}
    assert at.notes == ["headers stay: cupy-cuda12x may read them while running"]
    numba = (f"{SITE}/numba/cuda/cuda_fp16.hpp", f"{SITE}/numba/core.pyi")
    assert left(*distribution("numba", *(file(p, b"x") for p in numba))) == LEAVE | {"numba/core.pyi"}


def test_stubs_stay_where_they_are_read() -> None:
    lazy = file(f"{SITE}/skimage/__init__.py", b"import lazy_loader\nx = lazy_loader.attach_stub(__name__, __file__)\n")
    members = distribution("scikit-image", lazy, "skimage/__init__.pyi", "skimage/other.pyi", "skimage/other.py")
    at = context([*PKG, *members])
    assert {p.removeprefix(f"{SITE}/") for p in paths(PASS, at)} == LEAVE | {"skimage/other.pyi"}
    assert at.notes == [f"type stubs of scikit-image that it reads when imported stay (/{SITE}/skimage/__init__.pyi)"]
    assert left(*distribution("jedi", "jedi/third_party/typeshed/x.pyi")) == LEAVE


def test_nothing_leaves_where_the_application_compiles_unless_the_user_says_so() -> None:
    members = [
        *PKG,
        file("app/main.py", b"model = torch.compile(model)\n"),
        file("app/tests/test_x.py", b"torch.compile"),
    ]
    at = context(members, run={"WorkingDir": "/app"})
    assert not paths(PASS, at)
    assert at.notes == [
        "development files stay: /app/main.py mentions torch.compile (--no-keep-compile removes them all the same)"
    ]
    assert paths(PASS, context(members, run={"WorkingDir": "/app"}, options=Options(keep_compile=False)))


def test_patterns_and_layers_that_stay() -> None:
    assert left(options=Options(keep=("*/pkg/include",))) == {p for p in LEAVE if "include" not in p}
    assert left(keep_layers=[0]) == set()
