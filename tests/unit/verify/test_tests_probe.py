"""The test suite of a distribution, run from the original's test files in both images."""

from __future__ import annotations

import os
from importlib.metadata import distribution
from pathlib import Path

import pytest

from deadweight.errors import BadInputError
from deadweight.verify import spec
from deadweight.verify.model import ProbeResult
from deadweight.verify.side import NoAnswer
from deadweight.verify.tools import READY, Python, tools_for
from support.mini import site
from support.probing import checked, probed

CONFTEST = b"import pytest\n@pytest.fixture\ndef number():\n    return 4\n"
TESTS = b"""
import os, pathlib, sys, pytest, toy
def test_doubles(number):
    assert toy.double(number) == 8
@pytest.mark.parametrize("n", [0, 1])
def test_small(n):
    assert toy.double(n) == 2 * n
def test_has_its_data():
    assert (pathlib.Path(__file__).parent / "data" / "x.txt").read_text() == "data"
@pytest.mark.skip
def test_skipped():
    pass
@pytest.mark.xfail(strict=True)
def test_expected():
    assert False
def test_says_nothing_of_temporary_places():
    assert not sys.dont_write_bytecode or os.environ["PYTHONDONTWRITEBYTECODE"]
"""
BROKEN = b"""
import toy
def test_always_fails():
    assert toy.double(1) == 3
def test_errs(nothing_of_that_name):
    pass
"""
CRASHES = b"""
import os, toy
def test_a_first():
    pass
def test_b_crash():
    if toy.double(1) != 2:
        os.abort()
def test_c_last():
    pass
"""
HANGS = b"import time\ndef test_hangs():\n    time.sleep(600)\n"
NEEDS = b"import a_module_that_left\ndef test_needs():\n    pass\n"
GOOD = b"def double(x):\n    return 2 * x\n"
WRONG = b"def double(x):\n    return 2 * x if x != 1 else 5\n"


def toy(code: bytes, *, tests: bool) -> dict[str, dict[str, bytes]]:
    files = {"toy/__init__.py": code}
    if tests:
        files |= {
            "toy/conftest.py": CONFTEST,
            "toy/tests/__init__.py": b"",
            "toy/tests/test_toy.py": TESTS,
            "toy/tests/data/x.txt": b"data",
            "toy/sub/tests/test_broken.py": BROKEN,
            "toy/sub/tests/test_crashes.py": CRASHES,
            "toy/test_hangs.py": HANGS,
        }
    return {"toy": files, "other": {"other/__init__.py": b""}}


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> str:
    """pytest and what it needs, as they are installed here: read by tests as `pip install --target` has it."""
    folder = tmp_path_factory.mktemp("tools")
    folder.chmod(0o755)
    for name in ("pytest", "pluggy", "iniconfig", "packaging", "pygments"):
        for entry in distribution(name).files or ():
            source = Path(str(distribution(name).locate_file(entry)))
            if ".." not in entry.parts and source.suffix != ".pyc":
                (folder / entry).parent.mkdir(parents=True, exist_ok=True)
                (folder / entry).write_bytes(source.read_bytes())
    return str(folder)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, tools: str) -> dict[str, ProbeResult]:
    main = ["toy/tests/test_toy.py"]
    probes = [
        spec.TestsProbe(name="whole", tests=["Toy"], select=["toy.tests"]),
        spec.TestsProbe(
            name="module", tests=["toy"], select=["toy.tests.test_toy"], arguments=["-k", "doubles or skipped"]
        ),
        spec.TestsProbe(name="one", tests=["toy"], select=["toy/tests/test_toy.py::test_doubles"], must=True),
        spec.TestsProbe(name="broken", tests=["toy"], select=["toy/sub/tests/test_broken.py"]),
        spec.TestsProbe(name="broken must", tests=["toy"], select=["toy/sub/tests/test_broken.py"], must=True),
        spec.TestsProbe(name="crashes", tests=["toy"], select=["toy.sub.tests.test_crashes"]),
        spec.TestsProbe(name="hangs", tests=["toy"], select=["toy/test_hangs.py"], timeout=10),
        spec.TestsProbe(name="no distribution", tests=["nothing-of-that-name"]),
        spec.TestsProbe(name="no tests", tests=["other"]),
        spec.TestsProbe(name="no module", tests=["toy"], select=["toy.nothing"]),
        spec.TestsProbe(name="outside", tests=["toy"], select=["../../../../../etc/passwd"]),
        spec.TestsProbe(name="none selected", tests=["toy"], select=main, arguments=["-k", "nothing_of_that_name"]),
        spec.TestsProbe(name="wrong option", tests=["toy"], select=main, arguments=["--no-such-option"]),
    ]
    before = [*site(toy(GOOD, tests=True)), *site({"needs": {"needs/test_needs.py": NEEDS}})]
    after = site(toy(WRONG, tests=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(READY, tools)
        images, limits = tmp_path_factory.mktemp("images"), spec.LimitsTable(timeout=60)
        return probed(images, before, after, probes, {"User": "app"}, limits=limits)


def test_a_wrong_result_is_caught_with_the_tests_name(results: dict[str, ProbeResult]) -> None:
    result = results["whole"]
    assert (result.outcome, result.ok) == ("differs", False)
    assert result.details == ["toy/tests/test_toy.py::test_small[1]: passed -> failed (assert 5 == (2 * 1))"]
    assert result.before == "5 passed, 1 skipped, 1 xfailed"
    assert result.after == "4 passed, 1 failed, 1 skipped, 1 xfailed"


def test_what_is_not_touched_is_the_same_from_restored_files(results: dict[str, ProbeResult]) -> None:
    assert (results["module"].outcome, results["module"].after) == ("same", "1 passed, 1 skipped")
    assert (results["one"].outcome, results["one"].after) == ("same", "1 passed")


def test_a_suite_that_fails_in_both_is_no_difference_but_fails_a_must(results: dict[str, ProbeResult]) -> None:
    failing = [
        "toy/sub/tests/test_broken.py::test_always_fails: failed",
        "toy/sub/tests/test_broken.py::test_errs: error",
    ]
    assert (results["broken"].outcome, results["broken"].ok, results["broken"].details) == ("fails", True, failing)
    assert (results["broken must"].outcome, results["broken must"].details) == ("not met", failing)


def test_a_crash_is_the_outcome_of_the_test_it_happened_in(results: dict[str, ProbeResult]) -> None:
    assert results["crashes"].details == [
        "toy/sub/tests/test_crashes.py::test_b_crash: passed -> crashed (signal 6)",
        "toy/sub/tests/test_crashes.py::test_c_last: passed -> not there",
    ]


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("hangs", "out of time after 10 s, in 'toy/test_hangs.py::test_hangs'"),
        ("no distribution", "there is no distribution 'nothing-of-that-name' in the original"),
        ("no tests", "'other' has no test files in the original"),
        ("no module", "there is no module or path 'toy.nothing' in 'toy'"),
        ("outside", "there is no module or path '../../../../../etc/passwd' in 'toy'"),
        ("none selected", "pytest: no tests are found; '7 deselected in "),
        ("wrong option", "pytest: a wrong option or path; "),
    ],
)
def test_what_gives_no_answer_says_why(results: dict[str, ProbeResult], name: str, detail: str) -> None:
    assert (results[name].outcome, results[name].ok) == ("no answer", False)
    assert results[name].details[0].startswith(detail)


def test_one_image_has_to_pass_its_own_tests(tmp_path: Path, tools: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(READY, tools)
    probes = [spec.TestsProbe(name="good", tests=["toy"], select=["toy.tests"])]
    assert checked(tmp_path, site(toy(GOOD, tests=True)), probes)["good"].outcome == "met"
    assert checked(tmp_path, site(toy(WRONG, tests=True)), probes)["good"].outcome == "not met"


def test_a_whole_distribution_is_selected_without_words(
    tmp_path: Path, tools: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(READY, tools)
    files = {
        "pkg/__init__.py": b"",
        "pkg/deep/test_a.py": b"def test_a(): pass\n",
        "test_top.py": b"def test_t(): pass\n",
    }
    files["tests/test_beside.py"] = b"def test_b(): pass\n"
    others = {"else": {"tests/test_of_another.py": b"def test_x(): assert 0\n", "pkg2/test_x.py": b"assert 0\n"}}
    one = [*site({"pkg": files, **others})]
    two = site({"pkg": {"pkg/__init__.py": b""}})
    found = probed(tmp_path, one, two, [spec.TestsProbe(name="all", tests=["pkg"])])["all"]
    assert (found.outcome, found.before, found.after) == ("same", "3 passed", "3 passed")


def test_an_error_in_collection_is_named(tmp_path: Path, tools: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(READY, tools)
    one = site({"needs": {"needs/test_needs.py": NEEDS}, "lost": {"a_module_that_left.py": b""}})
    two = site({"needs": {"needs/test_needs.py": NEEDS}})
    found = probed(tmp_path, one, two, [spec.TestsProbe(name="needs", tests=["needs"])])["needs"]
    assert found.ok is False
    assert any("needs/test_needs.py" in text and "a_module_that_left" in text for text in found.details)


PYTHON = Python("3.11", "x86_64", musl=False)


def test_tools_are_requirements_and_no_options() -> None:
    with (
        pytest.raises(BadInputError, match=r"'--index-url=http://127\.0\.0\.1' is no requirement"),
        tools_for(PYTHON, ["--index-url=http://127.0.0.1"]),
    ):
        pass


def test_tools_that_cannot_be_had_are_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(NoAnswer, match="the test tools cannot be had: "), tools_for(PYTHON, ["pytest"]):
        pass
    monkeypatch.setenv(READY, os.devnull)
    with pytest.raises(NoAnswer, match="which is no directory"), tools_for(PYTHON, ["pytest"]):
        pass
