"""symbols: ELF files shrink, once for all their names, unless something depends on their bytes."""

from __future__ import annotations

import pytest

from deadweight.passes.base import Options
from deadweight.passes.symbols import PASS
from support.contexts import context, elf, paths, proposals
from support.images import Member, file, hardlink

LIBRARY = elf(["libc.so.6"], symbols=9000)


def test_symbols_leave_and_the_rest_stays_as_it_is() -> None:
    at = context(
        [file("usr/lib/a.so", LIBRARY), file("usr/lib/small.so", elf(symbols=100)), file("usr/x", b"text" * 99)]
    )
    assert paths(PASS, at) == ["usr/lib/a.so"]
    read, size = at.content("usr/lib/a.so")
    new = read(0, len(LIBRARY))
    assert len(new) == size < len(LIBRARY) - 8000
    assert b"libc.so.6" in new
    assert at.notes == []  # "nothing to strip" is no news


def test_one_name_stands_for_all_and_it_is_one_that_stays() -> None:
    members = [
        file("root/.cache/a.so", LIBRARY),
        hardlink("usr/lib/a.so", "root/.cache/a.so"),
        hardlink("usr/lib/b.so", "usr/lib/a.so"),
    ]
    assert paths(PASS, context(members)) == ["root/.cache/a.so"]
    at = context(members)
    at.gone.add("root/.cache/a.so")
    assert paths(PASS, at) == ["usr/lib/a.so"]
    at = context(members)
    at.gone.update(("root/.cache/a.so", "usr/lib/a.so", "usr/lib/b.so"))
    assert paths(PASS, at) == []
    # One of the names is to stay as it is, so the file is.
    assert paths(PASS, context(members, options=Options(keep=("usr/lib/b.so",)))) == []


def test_what_becomes_a_link_is_left_to_the_file_it_is_linked_to() -> None:
    at = context([file("usr/lib/a.so", LIBRARY), file("usr/lib/b.so", LIBRARY)])
    at.linked.add("usr/lib/b.so")
    assert paths(PASS, at) == ["usr/lib/a.so"]


@pytest.mark.parametrize(
    ("members", "note"),
    [
        ([file("usr/lib/libx.so.1.2", LIBRARY), file("usr/lib/.libx.so.1.hmac")], "a file with its checksum beside it"),
        ([file("usr/lib/libx.so.1", LIBRARY), file("usr/lib/libx.so.1.hmac")], "a file with its checksum beside it"),
        (
            [file("usr/lib/libsoftokn3.so", LIBRARY), file("usr/lib/libsoftokn3.chk")],
            "a file with its checksum beside it",
        ),
        ([file("usr/lib/x86/ossl-modules/fips.so", LIBRARY)], "a library that checks its own file"),
        ([file("lib/modules/6.1/x.so", LIBRARY)], "a kernel module"),
        ([file("usr/lib/debug/x.so", LIBRARY)], "debug information kept apart from its program"),
        ([file("usr/x.cubin", LIBRARY)], "an object file, which its symbols belong to"),
        ([file("usr/bin/app", LIBRARY + b"appended" * 9)], "bytes behind its last section"),
    ],
)
def test_files_that_are_not_what_they_seem_stay(members: list[Member], note: str) -> None:
    at = context(members)
    assert paths(PASS, at) == []
    assert at.notes == [f"1 ELF file keeps its symbols: {note}"]


def test_reasons_are_counted() -> None:
    at = context([file(f"usr/{name}.cubin", LIBRARY + name.encode()) for name in "abc"])
    assert proposals(PASS, at) == []
    assert at.notes == ["3 ELF files keep their symbols: an object file, which its symbols belong to"]


def test_files_of_other_machines_stay() -> None:
    at = context([file("usr/a.so", elf(symbols=9000, machine=183))])
    assert paths(PASS, at) == []
    assert len(at.notes) == 1
    assert paths(PASS, context([file("usr/a.so", elf(symbols=9000, machine=183))], architecture="arm64")) == [
        "usr/a.so"
    ]
    at = context([file("usr/a.so", LIBRARY)], architecture="pdp11")
    assert paths(PASS, at) == []
    assert "architecture" in at.notes[0]


def test_layers_that_stay() -> None:
    assert paths(PASS, context([file("usr/a.so", LIBRARY)], keep_layers=[0])) == []
    # The name in the upper layer is to stay as it is, so the bytes below are.
    assert paths(PASS, context([file("usr/a.so", LIBRARY)], [hardlink("usr/b.so", "usr/a.so")], keep_layers=[1])) == []
