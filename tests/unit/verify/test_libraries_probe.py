"""Every ELF file's libraries resolve as before, as the image's own loader sees it."""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

from deadweight.application.table import AppTable
from deadweight.verify.model import ProbeResult
from deadweight.verify.probes import libraries
from deadweight.verify.spec import LibrariesProbe
from support.elf import gcc
from support.images import Member, file, hardlink
from support.probing import checked, probed

INNER = "int inner(void) { return 1; }\nint second(void) { return 2; }\n"
LESS = "int inner(void) { return 1; }\n"
OUTER = "int inner(void);\nint second(void);\nint outer(void) { return inner() + second(); }\n"
MAIN = "int outer(void);\nint main(void) { return outer() - 3; }\n"
EXTENSION = 'int PyLong_FromLong(long);\nint puts(char *);\nint init(void) { return PyLong_FromLong(puts("")); }\n'
SHARED = ("-shared", "-fPIC")
ORIGIN, NAMED = "-Wl,-rpath,$ORIGIN", "-Wl,-soname,libouter.so"


@functools.cache
def built() -> dict[str, bytes]:
    """Libraries that need each other, and programs."""
    with tempfile.TemporaryDirectory() as name:
        at = Path(name)
        inner = gcc(at, "libinner.so", INNER, *SHARED, "-Wl,-soname,libinner.so")
        (at / "versions").write_text("V1 { inner; };\nV2 { second; } V1;\n")
        versions = ("-Wl,-soname,libinner.so", f"-Wl,--version-script={at}/versions")
        found = {
            "inner": inner.read_bytes(),
            "less": gcc(at, "libless.so", LESS, *SHARED, "-Wl,-soname,libinner.so").read_bytes(),
            "extension": gcc(at, "extension.so", EXTENSION, *SHARED).read_bytes(),
            "object": gcc(at, "object.o", INNER, "-c").read_bytes(),
        }
        outer = gcc(at, "libouter.so", OUTER, *SHARED, str(inner), ORIGIN, NAMED)
        loader = "-Wl,--dynamic-linker=/lib/ld-of-another.so.1"
        found |= {
            "outer": outer.read_bytes(),
            "main": gcc(at, "main", MAIN, str(outer), str(inner), ORIGIN).read_bytes(),
            "foreign": gcc(at, "foreign", MAIN, str(outer), str(inner), ORIGIN, loader).read_bytes(),
            "static": gcc(at, "static", "int main(void) { return 0; }\n", "-static").read_bytes(),
        }
        versioned = gcc(at, "libinner.so", INNER, *SHARED, *versions)
        found["versioned"] = versioned.read_bytes()
        found["needs version"] = gcc(at, "libv.so", OUTER, *SHARED, str(versioned), ORIGIN, NAMED).read_bytes()
        (at / "versions").write_text("V1 { inner; second; };\n")
        found["other version"] = gcc(at, "libinner.so", INNER, *SHARED, *versions).read_bytes()
        return found


def program(path: str, which: str, cut: int | None = None) -> Member:
    return file(path, built()[which][:cut], mode=0o755)


def every(folder: str, inner: str | None, outer: str = "outer") -> list[Member]:
    """A directory with a program and its libraries."""
    found = [program(f"{folder}/main", "main"), program(f"{folder}/libouter.so", outer)]
    return found + ([program(f"{folder}/libinner.so", inner)] if inner else [])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ProbeResult]:
    swapped = built()["outer"][:18] + b"\xb7\0" + built()["outer"][20:]  # e_machine: AArch64
    both = [
        *every("good", "inner"),
        hardlink("good/elsewhere/libouter.so", "good/libouter.so"),
        *every("lacking", None),
        program("lacking/foreign", "foreign"),
        program("extension/x.so", "extension"),
        program("not/static", "static"),
        program("not/object.o", "object"),
        file("not/other.so", swapped),
    ]
    before = [
        *both,
        *every("lost", "inner"),
        *every("less", "inner"),
        *every("version", "versioned", "needs version"),
        *every("damaged", "inner"),
        *every("left", "inner"),
        program("damaged/end.so", "outer"),
    ]
    after = [
        *both,
        *every("lost", None),
        *every("less", "less"),
        *every("version", "other version", "needs version"),
        program("damaged/main", "main"),
        program("damaged/libinner.so", "inner"),
        file("damaged/libouter.so", b"not ELF" + built()["outer"][7:]),
        program("damaged/end.so", "outer", 3000),
        program("new/libouter.so", "outer"),
        program("new/x.so", "extension"),
    ]
    names = ["good", "lacking", "extension", "not", "lost", "less", "version", "damaged", "left", "new"]
    probes = [LibrariesProbe(name=name, paths=[f"/{name}/*"]) for name in names]
    probes += [LibrariesProbe(name="all"), LibrariesProbe(name="must", paths=["lacking/lib*"], must=True)]
    return probed(tmp_path_factory.mktemp("images"), before, after, probes)


def test_what_resolves_is_the_same(results: dict[str, ProbeResult]) -> None:
    assert (results["extension"].outcome, results["extension"].details) == ("same", [])
    assert results["extension"].before == "1 file"


def test_each_name_of_a_file_is_asked_for_itself(results: dict[str, ProbeResult]) -> None:
    assert results["good"].before == "3 files, 1 with something missing"
    assert results["good"].details == [
        "/good/elsewhere/libouter.so: 1 library, libinner.so not found, 2 undefined symbols"
    ]


def test_what_is_missing_in_both_is_shown_and_fails_a_must(results: dict[str, ProbeResult]) -> None:
    assert (results["lacking"].outcome, results["lacking"].ok) == ("fails", True)
    assert results["lacking"].details[0] == "/lacking/foreign: 1 library, /lib/ld-of-another.so.1 not found"
    assert (results["must"].outcome, results["must"].ok) == ("not met", False)


def test_static_and_foreign_files_are_not_asked_about(results: dict[str, ProbeResult]) -> None:
    assert (results["not"].outcome, results["not"].before) == ("same", "0 files")


def test_a_lost_library_is_named_with_all_that_need_it(results: dict[str, ProbeResult]) -> None:
    assert results["lost"].outcome == "differs"
    assert results["lost"].details == [
        "/lost/libouter.so: libinner.so: /lost/libinner.so -> not found",
        "/lost/libouter.so: undefined symbol: inner",
        "/lost/libouter.so: undefined symbol: second",
        "/lost/main: libinner.so: /lost/libinner.so -> not found",
        "/lost/main: undefined symbol: inner (/lost/libouter.so)",
        "/lost/main: undefined symbol: second (/lost/libouter.so)",
    ]


def test_a_lost_symbol_is_named(results: dict[str, ProbeResult]) -> None:
    assert results["less"].details == [
        "/less/libouter.so: undefined symbol: second",
        "/less/main: undefined symbol: second (/less/libouter.so)",
    ]


def test_a_lost_version_is_named(results: dict[str, ProbeResult]) -> None:
    assert results["version"].outcome == "differs"
    details = [text.partition(" (required by")[0] for text in results["version"].details]
    assert details == [
        "/version/libouter.so: undefined symbol: second, version V2",
        "/version/libouter.so: /version/libinner.so: version `V2' not found",
        "/version/main: undefined symbol: second, version V2 (/version/libouter.so)",
        "/version/main: /version/libinner.so: version `V2' not found",
    ]


def test_damaged_files_are_named(results: dict[str, ProbeResult]) -> None:
    details = results["damaged"].details
    assert "/damaged/libouter.so: is no ELF file" in details
    assert any(text.startswith("/damaged/end.so: ") for text in details)
    assert any(text.startswith("/damaged/main: ") and "invalid ELF header" in text for text in details)


def test_files_that_left_are_not_missed(results: dict[str, ProbeResult]) -> None:
    assert (results["left"].outcome, results["left"].before, results["left"].after) == ("same", "2 files", "0 files")


def test_new_files_have_to_load(results: dict[str, ProbeResult]) -> None:
    assert results["new"].details == ["/new/libouter.so: libinner.so: not found"]


def test_all_files_of_an_image_are_asked_about(results: dict[str, ProbeResult]) -> None:
    count = int(results["all"].before.split()[0]) if results["all"].before else 0
    assert count > 60  # Python's own modules, the system's libraries and programs
    assert {text.split("/")[1] for text in results["all"].details} == {"lost", "less", "version", "damaged", "new"}


def test_without_a_python_there_is_no_answer(tmp_path: Path) -> None:
    found = checked(tmp_path, [], [LibrariesProbe(name="all")], app=AppTable(python="no-python"))["all"]
    assert (found.outcome, found.details) == ("no answer", ["there is no 'no-python' in the image"])


def agent() -> ModuleType:
    """The agent's task as a module of this Python's."""
    path = Path(libraries.__file__).parent.parent / "agent" / "libraries.py"
    spec = importlib.util.spec_from_file_location("deadweight_agent_libraries", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_words_of_musl_are_understood() -> None:
    said = (
        "\t/lib/ld-musl-x86_64.so.1 (0x7f0e1c0aa000)\n"
        "\tlibssl.so.3 => /usr/lib/libssl.so.3 (0x7f0e1bf60000)\n"
        "Error loading shared library libpq.so.5: No such file or directory (needed by /app/x.so)\n"
        "Error relocating /app/x.so: PQconnectdb: symbol not found\n"
        "Error relocating /usr/lib/libssl.so.3: other: symbol not found\n"
    )
    assert agent().parsed(said, "/app/x.so") == {
        "libraries": {
            "/lib/ld-musl-x86_64.so.1": "/lib/ld-musl-x86_64.so.1",
            "libssl.so.3": "/usr/lib/libssl.so.3",
            "libpq.so.5": "not found",
        },
        "undefined": ["PQconnectdb", "other (/usr/lib/libssl.so.3)"],
        "errors": [],
    }


def test_many_symbols_are_bounded_and_still_told_apart() -> None:
    bounded = agent().bounded
    one = bounded({f"s{number:06}" for number in range(20_000)})
    two = bounded({f"s{number:06}" for number in range(20_001)} - {"s010000"})
    assert len(one) == len(two) == 5001
    assert one[:-1] == two[:-1]
    assert one[-1] != two[-1]
