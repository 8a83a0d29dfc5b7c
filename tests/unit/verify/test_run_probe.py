"""Commands and scripts do the same: exit status, output, arrays."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from deadweight.application.table import AppTable
from deadweight.errors import BadInputError
from deadweight.verify.model import ProbeResult
from deadweight.verify.outputs import output_difference, same_line
from deadweight.verify.spec import LimitsTable, RunProbe
from support.images import Member, file
from support.mini import site
from support.probing import checked, probed

OUT = "import os, shutil\nshutil.copytree('/data', os.environ['DEADWEIGHT_OUT'], dirs_exist_ok=True)\n"
SCRIPT = """
import sys, answer, shared
ours = [path for path in sys.path if ".deadweight" in path]
print(answer.value, shared.value, sys.argv[1:], ours, __name__, __file__)
"""


def saved(array: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(array))
    return stream.getvalue()


def members(which: str, value: str, weights: list[float]) -> list[Member]:
    archive = io.BytesIO()
    np.savez(archive, same=np.arange(3), weights=np.array(weights))
    return [
        *site({"answer": {"answer.py": f"value = {value}\n".encode()}}),
        file("app/sub/shared.py", b"value = 'shared'\n"),
        file("etc/which", which.encode()),
        file("etc/only", b"") if which == "before" else file("etc/other", b""),
        file("data/a.npy", saved([1.0, 2.0])),
        file("data/below/b.npz", archive.getvalue()),
        file("many/b.txt", b"".join(b"line %d\n" % n for n in range(40)) + which.encode() + b"\x1b[31m\n"),
    ]


PROBES = [
    RunProbe(name="same", command=["cat", "/data/a.npy"], must=True),
    RunProbe(name="line", command="echo $HELLO; cat; pwd", stdin="typed\n"),
    RunProbe(name="output", command=["cat", "/many/b.txt"]),
    RunProbe(name="ignored", command=["cat", "/many/b.txt"], ignore=["before|after"]),
    RunProbe(name="exit", command="test -e /etc/only || { echo lost >&2; exit 7; }"),
    RunProbe(name="fails", command="echo no >&2; exit 3"),
    RunProbe(name="must", command="echo no >&2; exit 3", must=True),
    RunProbe(name="status", command="exit 3", status=3),
    RunProbe(name="killed", command="kill -9 $$", status=137),
    RunProbe(name="matches", command="echo yes; echo err >&2", output=["^y.s"], no_output=["no"], error=["err"]),
    RunProbe(name="matches not", command="echo yes", output=["^no"], no_output=["e"], error=["x"], no_error=["^$"]),
    RunProbe(name="script", script="work.py"),
    RunProbe(name="code", code="import answer\nprint('value is', answer.value, 'in all')"),
    RunProbe(name="near", code="import answer\nprint('value is', answer.value, 'in all')", tolerance=0.01),
    RunProbe(name="arrays", code=OUT, arrays=True),
    RunProbe(name="near arrays", code=OUT, arrays=True, tolerance=0.5),
    RunProbe(name="no arrays", code="pass", arrays=True),
    RunProbe(
        name="lost array",
        code=OUT + "if os.path.exists('/etc/other'): os.remove(os.environ['DEADWEIGHT_OUT'] + '/a.npy')",
        arrays=True,
    ),
    RunProbe(
        name="many bytes",
        code="import os\nwith open(os.environ['DEADWEIGHT_OUT'] + '/x.npy', 'wb') as f: f.truncate(41_000_000)",
        arrays=True,
    ),
    RunProbe(name="setup", command="cat /tmp/x", setup=[["sh", "-c", "echo made > /tmp/x"]], output=["made"]),
    RunProbe(name="setup fails", command="true", setup=[["true"], ["sh", "-c", "echo bad >&2; exit 9"]], must=True),
    RunProbe(name="teardown fails", command="true", teardown=[["no-such-program"]], must=True),
    RunProbe(
        name="expanded",
        command=["sh", "-c", "echo ${HELLO}-$X; env"],
        env={"X": "y${HELLO}"},
        expand=True,
        output=["^world-\n(?:.*\n)*X=yworld\n"],
    ),
    RunProbe(name="not expanded", command=["sh", "-c", "echo $X"], env={"X": "y${HELLO}"}, output=["^y\\${HELLO}\n"]),
    RunProbe(name="hangs", command="exec sleep 600", timeout=0.5),
    RunProbe(name="one hangs", command="test -e /etc/only || exec sleep 600", timeout=1),
    RunProbe(name="nothing", command=["no-such-program"], must=True),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ProbeResult]:
    folder = tmp_path_factory.mktemp("spec")
    (folder / "work.py").write_text(SCRIPT)
    (folder / "work.py").chmod(0o600)
    before, after = members("before", "0.5", [0.25, 1.0]), members("after", "0.501", [0.25, 1.25])
    app = AppTable(directory="sub", env={"ALSO": "set"})
    images = tmp_path_factory.mktemp("images")
    user = {"User": "app"}
    limits = LimitsTable(timeout=60)
    return probed(images, before, after, PROBES, user, app=app, folder=str(folder), limits=limits)


@pytest.mark.parametrize(
    ("name", "outcome", "details"),
    [
        ("same", "same", []),
        ("line", "same", []),
        ("ignored", "same", []),
        ("output", "differs", ["standard output differs, first in line 41:", r"-before\x1b[31m", r"+after\x1b[31m"]),
        ("exit", "differs", ["exit status: 0 -> 7: lost"]),
        ("fails", "fails", ["exit status: 3: no"]),
        ("must", "not met", ["exit status: 3: no"]),
        ("status", "same", []),
        ("killed", "same", []),
        ("matches", "same", []),
        (
            "matches not",
            "not met",
            [
                "standard output does not match '^no': yes",
                "standard output matches 'e': e",
                "standard error does not match 'x': nothing",
                "standard error matches '^$': ",
            ],
        ),
        ("near", "same", []),
        (
            "code",
            "differs",
            ["standard output differs, first in line 1:", "-value is 0.5 in all", "+value is 0.501 in all"],
        ),
        (
            "arrays",
            "differs",
            ["below/b.npz:weights: at [1]: 1.0 -> 1.25; 1 of 2 values differ, the most by 0.25"],
        ),
        ("near arrays", "same", []),
        ("no arrays", "no answer", ["it leaves no .npy or .npz file in the directory that DEADWEIGHT_OUT names"]),
        ("setup", "same", []),
        ("setup fails", "not met", ["setup 2: exit status 9, bad"]),
        ("expanded", "same", []),
        ("not expanded", "same", []),
        ("hangs", "no answer", ["out of time after 0.5 s"]),
    ],
)
def test_each_has_its_outcome(results: dict[str, ProbeResult], name: str, outcome: str, details: list[str]) -> None:
    result = results[name]
    assert (result.outcome, result.details) == (outcome, details)
    assert result.ok is (outcome in ("same", "fails"))


def test_summaries_say_what_was_printed(results: dict[str, ProbeResult]) -> None:
    assert results["line"].after == "exit 0, 17 bytes"
    assert results["code"].before == "value is 0.5 in all"
    assert results["exit"].after == "exit 7, lost"
    assert results["arrays"].after == "exit 0, 3 arrays"


def test_a_script_has_the_application_in_its_path_and_not_itself(results: dict[str, ProbeResult]) -> None:
    result = results["script"]
    assert result.details[1:] == [
        "-0.5 shared [] [] __main__ /tmp/.deadweight/script/work.py",
        "+0.501 shared [] [] __main__ /tmp/.deadweight/script/work.py",
    ]


def test_an_array_that_is_lost_is_named(results: dict[str, ProbeResult]) -> None:
    assert "a.npy: there -> not there" in results["lost array"].details


def test_more_arrays_than_can_be_compared_are_no_answer(results: dict[str, ProbeResult]) -> None:
    assert results["many bytes"].outcome == "no answer"
    assert "41,000,000 bytes of arrays" in results["many bytes"].details[0]


def test_one_that_hangs_in_one_image_differs(results: dict[str, ProbeResult]) -> None:
    assert results["one hangs"].details == ["exit 0, 0 bytes -> out of time after 1 s"]


def test_what_is_not_there_fails(results: dict[str, ProbeResult]) -> None:
    assert results["nothing"].details[0].startswith("exit status: 127")
    assert results["teardown fails"].details[0].startswith("teardown 1: exit status 127, no-such-program: ")


def test_one_image_is_asked_for_success(tmp_path: Path) -> None:
    probes = [RunProbe(name="good", command="true"), RunProbe(name="bad", command="false")]
    found = checked(tmp_path, [], probes)
    assert (found["good"].outcome, found["bad"].outcome) == ("met", "not met")


def test_a_script_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"the script 'nowhere\.py' cannot be read"):
        checked(tmp_path, [], [RunProbe(name="x", script="nowhere.py")], folder=str(tmp_path))


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("loss 0.1234", "loss 0.1235", True),
        ("loss 0.12", "loss 0.14", False),
        ("[1.0, -2e3, nan]", "[1.001, -2001, NaN]", True),
        ("[1.0, inf]", "[1.0, -inf]", False),
        ("1e400", "2e400", False),
        ("100 rows", "100.5 rows", True),
        ("1 row", "1 column", False),
        ("torch 2.9.0", "torch 2.9.1", False),
        ("torch 2.9.0", "torch 2.9001.0", False),
        ("10px", "10.001px", False),
        ("id a1e5", "id a1e6", False),
        ("0x10", "0x11", False),
        ("a 1 b", "a 1 b 2", False),
        ("x-1", "x-1.001", True),
    ],
)
def test_numbers_in_text_may_be_near(one: str, two: str, same: bool) -> None:
    assert same_line(one, two, 0.01) is same
    assert not same_line(one, two, 0.0)


def test_differences_of_outputs_are_short_and_exact() -> None:
    one = "".join(f"line {number}\n" for number in range(100_000))
    assert output_difference("it", one, one, 0.0) == []
    assert output_difference("it", one, one[:-1], 0.0) == ["it differs, first in line 100,001:", "-"]
    long = "x" * 1000
    assert [len(line) for line in output_difference("it", long + "a", long + "b", 0.0)[1:]] == [164, 164]
    assert len(output_difference("it", one, one.replace("line", "lime"), 0.0)) == 11
    assert output_difference("it", "a\udcff", "a\udcfe", 0.0) == [
        "it differs, first in line 1:",
        r"-a\udcff",
        r"+a\udcfe",
    ]
