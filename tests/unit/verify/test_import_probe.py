"""Modules import: in both images or in neither, with the same error, and in about the same time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deadweight.verify.model import ProbeResult
from deadweight.verify.spec import ImportProbe, LimitsTable
from support.mini import site
from support.probing import checked, probed

CRASH = b"import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
HANG = b"import time\ntime.sleep(600)\n"
BUSY = b"""
import threading, time, atexit
atexit.register(time.sleep, 600)
threading.Thread(target=time.sleep, args=(600,)).start()
"""
NOISY = b"import sys\nprint('x' * 100_000)\nassert sys.stdin.read() == ''\nassert sys.argv == ['']\n"
VARIES = b"import os\nraise RuntimeError(f'{object()} in process {os.getpid()}')\n"
BYTES = b"raise ValueError('\\udcff\\x1b[31m\\n' * 3)\n"
SLOW = b"import time\ntime.sleep(%s)\n"
LARGE = b"data = b'1' * %d\n"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ProbeResult]:
    same = {
        "good": b"x = 1\n",
        "crash": CRASH,
        "busy": BUSY,
        "noisy": NOISY,
        "varies": VARIES,
        "strange": BYTES,
        "leaves": b"raise SystemExit(3)\n",
        "gone_fast": b"import os\nos._exit(0)\n",
        "forks": b"import os, time\nif os.fork() == 0:\n    time.sleep(600)\n",
    }
    before = {**same, "broken_after": b"x = 1\n", "broken_before": b"import nothing_of_that_name\n"}
    after = {**same, "broken_after": b"import nothing_of_that_name\n", "broken_before": b"x = 1\n"}
    before |= {"slower": SLOW % b"0.1", "larger": LARGE % 10, "other_error": b"1 / 0\n", "hang": b""}
    after |= {"slower": SLOW % b"0.9", "larger": LARGE % 90_000_000, "other_error": b"[][0]\n", "hang": HANG}
    probes = [
        ImportProbe(name="same", modules=list(same)),
        ImportProbe(name="differs", modules=["broken_after", "broken_before", "other_error", "good"]),
        ImportProbe(name="must", modules=["good", "leaves"], must=True),
        ImportProbe(name="hangs", modules=["hang", "good"], timeout=3),
        ImportProbe(name="measured", modules=["slower", "larger", "good"], time_ratio=2, memory_ratio=1.5),
        ImportProbe(name="one", modules=["good"], memory_ratio=1.5),
        ImportProbe(name="roomy", modules=["slower", "larger", "good"], time_ratio=20, memory_ratio=50),
    ]
    files = [{name: {f"{name}.py": code} for name, code in kind.items()} for kind in (before, after)]
    return probed(tmp_path_factory.mktemp("images"), site(files[0]), site(files[1]), probes)


def test_failures_of_every_kind_are_the_same_in_both_and_named(results: dict[str, ProbeResult]) -> None:
    result = results["same"]
    assert (result.outcome, result.ok) == ("fails", True)
    assert result.details == [
        "crash: crashes: SIGSEGV",
        "varies: RuntimeError: <object object at 0x...> in process ...",
        r"strange: ValueError: \udcff\x1b[31m ... \udcff\x1b[31m",
        "leaves: SystemExit: 3",
        "gone_fast: ends its process with exit status 0",
    ]
    assert result.before == result.after == "4 of 9 import"


def test_modules_that_import_in_one_image_only_are_named(results: dict[str, ProbeResult]) -> None:
    result = results["differs"]
    missing = "ModuleNotFoundError: No module named 'nothing_of_that_name'"
    assert (result.outcome, result.ok) == ("differs", False)
    assert result.details == [
        f"broken_after: imports -> {missing}",
        f"broken_before: {missing} -> imports",
        "other_error: ZeroDivisionError: division by zero -> IndexError: list index out of range",
    ]


def test_a_must_fails_where_both_fail(results: dict[str, ProbeResult]) -> None:
    assert (results["must"].outcome, results["must"].details) == ("not met", ["leaves: SystemExit: 3"])


def test_a_module_that_hangs_is_named_and_the_others_have_their_answer(results: dict[str, ProbeResult]) -> None:
    assert results["hangs"].details == ["hang: imports -> is not imported after 1 s"]


def test_what_hangs_in_both_is_no_answer(tmp_path: Path) -> None:
    """It is not known how it would have gone: for one image alone, too, whether it must or not."""
    members = site({"hang": {"hang.py": HANG}, "good": {"good.py": b""}})
    probes = [
        ImportProbe(name="hangs", modules=["hang", "good"], timeout=6),
        ImportProbe(name="must", modules=["hang", "good"], timeout=6, must=True),
    ]
    for found in (probed(tmp_path, members, members, probes), checked(tmp_path, members, probes)):
        for name in ("hangs", "must"):
            assert (found[name].outcome, found[name].ok) == ("no answer", False)
            assert found[name].details == ["hang: is not imported after 2 s"]


def test_python_may_print_when_it_starts(tmp_path: Path) -> None:
    """As a .pth file of a distribution can have it."""
    noise = {"noisy.pth": b"import sys; sys.stdout.write('{\"errors\": {}}')\n", "good.py": b""}
    members = site({"good": noise})
    found = probed(tmp_path, members, members, [ImportProbe(name="import", modules=["good"])])["import"]
    assert (found.outcome, found.details) == ("same", [])


def test_slower_and_larger_imports_are_named(results: dict[str, ProbeResult]) -> None:
    slower, larger = sorted(results["measured"].details, key=len)
    assert slower.startswith("slower: 0.1")
    assert slower.endswith("times as long (at most 2)")
    assert larger.startswith("larger: ")
    assert larger.endswith("times the memory (at most 1.5)")


def test_what_a_single_module_takes_is_shown(results: dict[str, ProbeResult]) -> None:
    assert re.fullmatch(r"0\.\d\d s, [\d.]+ MB", results["one"].after)


def test_what_a_ratio_allows_is_the_same(results: dict[str, ProbeResult]) -> None:
    assert (results["roomy"].outcome, results["roomy"].details) == ("same", [])


def test_no_time_is_no_answer_and_says_where(tmp_path: Path) -> None:
    members = site({f"hang{number}": {f"hang{number}.py": HANG} for number in range(40)})
    names = [f"hang{number}" for number in range(40)]
    limits = LimitsTable(timeout=2)
    found = checked(tmp_path, members, [ImportProbe(name="hang", modules=names)], limits=limits)["hang"]
    assert (found.outcome, found.ok) == ("no answer", False)
    assert "out of time after 2 s, at 'hang" in found.details[0]


def test_without_modules_those_that_the_original_has_are_imported(tmp_path: Path) -> None:
    """But for those of distributions that left as a whole; a module that is lost from one that stays is missed."""
    one = {"kept": {"kept/__init__.py": b"", "lost.py": b""}, "gone": {"gone.py": b""}}
    two = {"kept": {"kept/__init__.py": b"raise KeyError('x')"}}
    found = probed(tmp_path, site(one), site(two), [ImportProbe(name="all")])["all"]
    assert found.details == [
        "kept: imports -> KeyError: 'x'",
        "lost: imports -> ModuleNotFoundError: No module named 'lost'",
    ]
    assert (found.before, found.after) == ("2 import", "0 of 2 import")
