"""unreferenced: a library leaves when its name is nowhere, and stays wherever anything may ask for it."""

from __future__ import annotations

import pytest

from deadweight.passes import unreferenced
from deadweight.passes.base import Options
from deadweight.passes.unreferenced import PASS
from support.contexts import SITE, context, distribution, elf, paths, proposals
from support.images import Member, file

LIB = f"{SITE}/nvidia/lib"
ALT = f"{LIB}/libnvrtc.alt.so.13"


def library(path: str, *needed: str, tail: bytes = b"") -> Member:
    return file(path, elf(needed, tail=tail + bytes(unreferenced.MINIMUM)))


def image(*members: Member, extra: tuple[Member, ...] = ()) -> list[Member]:
    return [*distribution("nvidia", *members), *extra]


def test_a_library_that_nothing_names_leaves_with_what_only_it_names() -> None:
    at = context(
        image(
            library(ALT, tail=b"\0libnvrtc-builtins.alt.so.13.0\0"),
            library(f"{LIB}/libnvrtc-builtins.alt.so.13.0"),
            library(f"{LIB}/libnvrtc.so.13"),
            library(f"{LIB}/libcublas.so.13", "libnvrtc.so.13"),
            file(f"{SITE}/nvidia/__init__.py", b"ctypes.CDLL('libcublas.so.13')"),
        )
    )
    found = proposals(PASS, at)
    assert [p.path for p in found] == [f"{LIB}/libnvrtc-builtins.alt.so.13.0", ALT]
    assert "none of 3 other files" in found[0].evidence


@pytest.mark.parametrize(
    "mention",
    [
        file("app/main.py", b"load('/x/libnvrtc.alt.so')"),
        file("app/main.py", b"find_library('nvrtc.alt')"),
        file("opt/program", elf(["libnvrtc.alt.so.13"])),
        file("opt/data", b"\xff" * 5 + b"xlibnvrtc.alt.so"),  # what stands before a name may touch it
        file("opt/data", b"." * (unreferenced._CHUNK - 7) + b"libnvrtc.alt.so.13"),  # over the edge of a piece
        file("opt/data", b"." * (unreferenced._CHUNK - 7) + b"=nvrtc.alt="),
    ],
)
def test_any_file_that_names_it_keeps_it(mention: Member) -> None:
    assert paths(PASS, context(image(library(ALT), extra=(mention,)))) == []


def test_what_a_library_needs_that_is_named_without_its_ending_stays_too() -> None:
    at = context(
        image(
            library(ALT, tail=b"\0libnvrtc-builtins.alt.so.13.0\0"),
            library(f"{LIB}/libnvrtc-builtins.alt.so.13.0"),
            extra=(file("app/main.py", b"'nvrtc.alt'"),),
        )
    )
    assert paths(PASS, at) == []


def test_metadata_and_files_that_leave_name_nothing() -> None:
    naming = file("app/tests.py", b"libnvrtc.alt.so.13")
    at = context(image(library(ALT), file(f"{SITE}/nvidia-1.dist-info/License.txt", b"libnvrtc.alt.so"), naming))
    at.gone.add("app/tests.py")
    assert paths(PASS, at) == [ALT]


def test_modules_small_libraries_and_files_of_no_distribution_stay() -> None:
    at = context(
        image(
            library(f"{SITE}/nvidia/_core.cpython-311-x86_64-linux-gnu.so"),
            library(f"{SITE}/nvidia/plugins/libplugin.so"),  # whole directories of plugins are loaded
            file(f"{LIB}/libsmall.so", elf()),
            extra=(library("opt/lib/libown.so"),),
        )
    )
    assert paths(PASS, at) == []


def test_kept_paths_stay() -> None:
    at = context(image(library(ALT)), options=Options(keep=(ALT,)))
    assert paths(PASS, at) == []
