"""tests: directories of tests leave, but for those that a module outside imports."""

from __future__ import annotations

from typing import Any

import pytest

from deadweight.passes.base import Options
from deadweight.passes.tests import PASS
from support.contexts import INTERPRETER, SITE, Dpkg, context, distribution, elf, paths, proposals
from support.images import Member, directory, file, hardlink

TESTS = (
    *("numpy/__init__.py", "numpy/testing/__init__.py", "numpy/_core/__init__.py", "numpy/_core/tests/__init__.py"),
    *("numpy/_core/tests/_natype.py", "numpy/_core/tests/data/x.csv", "numpy/linalg/tests/test_linalg.py"),
)
NUMPY = (
    *INTERPRETER,
    *distribution("numpy", *TESTS),
    file(f"{SITE}/numpy/_core/tests/__pycache__/_natype.cpython-311.pyc", b"x"),
)
CORE = {
    f"{SITE}/numpy/_core/tests/__init__.py",
    f"{SITE}/numpy/_core/tests/__pycache__/_natype.cpython-311.pyc",
    f"{SITE}/numpy/_core/tests/_natype.py",
    f"{SITE}/numpy/_core/tests/data/x.csv",
}
LINALG = {f"{SITE}/numpy/linalg/tests/test_linalg.py"}


def left(*members: Member, **more: Any) -> set[str]:
    return set(paths(PASS, context([*NUMPY, *members], **more)))


def scipy(code: str, place: str = "scipy/core.py", **more: Any) -> list[Member]:
    return distribution("scipy", file(f"{SITE}/{place}", code.encode()), **more)


def test_whole_directories_leave_and_testing_stays() -> None:
    at = context([directory(f"{SITE}/numpy/_core/tests"), directory(f"{SITE}/numpy/_core"), *NUMPY])
    found = {p.path: p for p in proposals(PASS, at)}
    assert found.keys() == CORE | LINALG | {f"{SITE}/numpy/_core/tests"}
    assert found[f"{SITE}/numpy/_core/tests/data/x.csv"].why == "tests of numpy"
    assert at.notes == []


@pytest.mark.parametrize(
    "code",
    [
        "from numpy._core.tests._natype import pd_NA",
        "from numpy._core.tests import _natype",
        "from numpy._core import tests",
        "from numpy._core import (\n    multiarray,  # a comment\n    tests as t,\n)",
        "from numpy._core import multiarray, \\\n    tests",
        "import numpy._core.tests._natype",
        "import os, numpy._core.tests._natype as n",
        "def f():\n    import sys; import numpy._core.tests",
        "import importlib\nimportlib.import_module('numpy._core.tests._natype')",
        'NAMES = {"x": "numpy._core.tests:thing"}',
        "__import__('numpy._core.tests.' + name.removesuffix('startswith'))",
    ],
)
def test_what_another_distribution_imports_stays(code: str) -> None:
    at = context([*NUMPY, *scipy(code)])
    assert set(paths(PASS, at)) == LINALG
    assert at.notes == [f"/{SITE}/numpy/_core/tests stays: /{SITE}/scipy/core.py imports it"]


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("numpy/_core/x.py", "from .tests import _natype"),
        ("numpy/_core/x.py", "from . import tests"),
        ("numpy/linalg/x.py", "from .._core.tests import _natype"),
        ("numpy/linalg/sub/__init__.py", "from ..._core import tests"),
    ],
)
def test_relative_imports(place: str, code: str) -> None:
    assert left(*distribution("numpy-more", file(f"{SITE}/{place}", code.encode()))) == LINALG


@pytest.mark.parametrize(
    "code",
    [
        "# from numpy._core.tests import x",
        "import numpy.testing",
        "from numpy import test",
        "from numpy._core.testsuite import x",
        '"""Read numpy/_core/tests/x, or from numpy._core.tests import it."""',
        "from .tests import x",
        "from ....numpy._core import tests",
        "import (broken",
        "if name.startswith(('numpy._core.tests.', 'x')) or name.endswith('numpy._core.tests'):\n    pass",
    ],
)
def test_other_mentions_keep_nothing(code: str) -> None:
    assert left(*scipy(code)) == CORE | LINALG


def test_tests_that_staying_tests_import_stay_and_circles_of_tests_leave() -> None:
    chain = (
        *("a/x.py", b"import a.tests.helper"),
        *("a/tests/helper.py", b"from b.tests import more"),
        *("b/tests/more.py", b"from c.sub.tests import x"),
        *("c/sub/tests/x.py", b""),
        *("d/tests/x.py", b"import e.tests"),
        *("e/tests/x.py", b"import d.tests"),
    )
    pairs = [(str(chain[i]), bytes(chain[i + 1])) for i in range(0, len(chain), 2)]  # type: ignore[arg-type]
    at = context([*INTERPRETER, *distribution("all", *(file(f"{SITE}/{name}", code) for name, code in pairs))])
    assert paths(PASS, at) == [f"{SITE}/d/tests/x.py", f"{SITE}/e/tests/x.py"]
    assert len(at.notes) == 3


def test_a_file_that_cannot_be_parsed_keeps_what_it_could_mean() -> None:
    assert left(*scipy("import numpy._core.tests\nprint 'two'\n")) == LINALG
    assert left(*scipy("import numpy._core.tests\n" + "x = 1\n" * 200_000)) == LINALG
    huge = file(f"{SITE}/numpy/_core/big.py", b"from .tests import x\n" + b"x = 1\n" * 200_000)
    assert left(*distribution("numpy-big", huge)) == LINALG


def test_hostile_sources_take_no_time() -> None:
    code = "import x\n" + "'a.tests" * 50_000 + "\n" + '".tests' + ".tests" * 100_000 + "\n" + "import " * 100_000
    assert left(*scipy(code)) == CORE | LINALG


def test_entry_points_and_commands_are_imports() -> None:
    plugin = "[pytest11]\nx = numpy._core.tests._natype:plugin\n"
    assert left(*scipy("", entry_points=plugin)) == LINALG
    assert left(run={"Cmd": ["python3", "-m", "numpy._core.tests._natype"]}) == LINALG
    assert left(run={"Cmd": ["python3", f"/{SITE}/numpy/linalg/tests/test_linalg.py"]}) == CORE


def test_what_leaves_anyway_imports_nothing() -> None:
    at = context([*NUMPY, *scipy("import numpy._core.tests")])
    at.gone.add(f"{SITE}/scipy/core.py")
    assert set(paths(PASS, at)) == CORE | LINALG


def test_the_applications_tests_leave_when_they_are_some() -> None:
    run = {"WorkingDir": "/app"}
    some = (file("app/tests/test_api.py", b"x"), file("app/tests/data.json", b"x"), file("app/main.py", b"x"))
    assert left(*some, run=run) == CORE | LINALG | {"app/tests/test_api.py", "app/tests/data.json"}
    other = (file("app/test/model.bin", b"x"), file("app/pkg/tests/helper.py", b"x"))
    assert left(*other, run=run) == CORE | LINALG
    used = file("app/main.py", b"from tests.helpers import x\n")
    assert left(file("app/tests/test_api.py", b"x"), used, run=run) == CORE | LINALG


@pytest.mark.parametrize(
    ("run", "code", "reason"),
    [
        ({"Entrypoint": ["python3", "-m", "pytest"]}, b"", "the image runs pytest"),
        ({"Cmd": ["check", "tests/data.json"]}, b"", "the image runs tests/data.json"),
        ({"Cmd": ["check", "--all", "/app/tests"]}, b"", "the image runs /app/tests"),
        ({}, b"open('tests/data.json')\n", "/app/main.py mentions tests/"),
    ],
)
def test_the_applications_tests_stay_where_something_runs_or_reads_them(
    run: dict[str, Any], code: bytes, reason: str
) -> None:
    files = (file("app/tests/test_api.py", b"x"), file("app/tests/data.json", b"x"), file("app/main.py", code))
    at = context([*NUMPY, *files], run={"WorkingDir": "/app", **run})
    assert set(paths(PASS, at)) == CORE | LINALG
    assert at.notes == [f"/app/tests stays: {reason}"]


def test_many_that_the_user_keeps_are_one_note() -> None:
    names = [f"m/{letter}/tests/test_x.py" for letter in "abcd"]
    at = context([*INTERPRETER, *distribution("m", *names)], keep_layers=[0])
    assert paths(PASS, at) == []
    assert len(at.notes) == 1
    assert at.notes[0].startswith("4 directories of tests stay: ")


def test_other_places_are_left_alone() -> None:
    dpkg = Dpkg()
    dpkg.add("python3-x", "usr/lib/python3/dist-packages/x/tests/test_x.py")
    members = (
        *dpkg.members(),
        file("usr/local/lib/python3.11/test/test_os.py", b"x"),
        *distribution("torch", "torch/include/c10/test/util/Macros.h", "tests/test_top.py"),
    )
    assert paths(PASS, context([*INTERPRETER, *members])) == []


def test_patterns_and_layers_that_stay() -> None:
    at = context(NUMPY, options=Options(keep=(f"{SITE}/numpy/_core/tests/_natype.py",)))
    assert set(paths(PASS, at)) == LINALG
    assert at.notes == [f"/{SITE}/numpy/_core/tests stays: /{SITE}/numpy/_core/tests/_natype.py is to stay"]
    assert paths(PASS, context(NUMPY, keep_layers=[0])) == []


@pytest.mark.parametrize("word", ["/", ".", "..", "//", "/.."])
def test_a_command_may_name_the_root(word: str) -> None:
    assert left(run={"Cmd": ["serve", word], "WorkingDir": "/"}) == CORE | LINALG


GTEST = b"This program contains tests written using Google Test. You can use the\n"


def test_programs_that_only_test_leave() -> None:
    loader = "/lib64/ld-linux-x86-64.so.2"
    program, other = elf(interpreter=loader, tail=GTEST), elf(interpreter=loader, tail=b"protoc")
    bin_ = f"{SITE}/torch/bin"
    members = [
        *NUMPY,
        *distribution(
            "torch",
            file(f"{bin_}/test_api", bytes(5 << 20) + b"x"),
            file(f"{bin_}/test_jit", program, mode=0o755),
            file(f"{bin_}/test_run", program + b"!", mode=0o755),
            file(f"{bin_}/protoc", other, mode=0o755),
            file(f"{SITE}/torch/lib/libtest.so", elf(tail=GTEST)),
            file(f"{SITE}/torch/notes.txt", GTEST),
        ),
        hardlink(f"{bin_}/again", f"{bin_}/test_jit"),
        file("usr/local/bin/test_own", program + b"?", mode=0o755),
    ]
    at = context(members, run={"Cmd": [f"/{bin_}/test_run"]})
    found = {p.path: p for p in proposals(PASS, at)}
    assert found.keys() - CORE - LINALG == {f"{bin_}/test_jit", f"{bin_}/again"}
    assert found[f"{bin_}/test_jit"].why == "a test program of torch"


@pytest.mark.parametrize("at", [4 << 20, (4 << 20) - 20, (8 << 20) - 1])
def test_the_help_is_found_wherever_it_lies(at: int) -> None:
    head = elf(interpreter="/lib64/ld-linux-x86-64.so.2")
    program = head + bytes(at - len(head)) + GTEST
    members = distribution("torch", file(f"{SITE}/torch/bin/x", program, mode=0o755))
    assert paths(PASS, context([*INTERPRETER, *members])) == [f"{SITE}/torch/bin/x"]
