"""What probes ask of one image: files, configuration, size, and what must be absent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deadweight.application.table import AppTable
from deadweight.errors import EnvironmentFailure
from deadweight.image.transports import open_image
from deadweight.ledger.ledger import Ledger
from deadweight.verify.model import ProbeResult
from deadweight.verify.probes import judge, observe
from deadweight.verify.probes.kinds import kind_of
from deadweight.verify.sandbox import Limits, Sandbox
from deadweight.verify.side import Side
from deadweight.verify.spec import AbsentProbe, ConfigProbe, FileProbe, Probe, SizeProbe, Spec
from deadweight.verify.spec.patterns import SEARCHED, compiled
from deadweight.verify.verification import check
from support.images import (
    Member,
    directory,
    file,
    hardlink,
    make_image,
    make_tar,
    symlink,
    whiteout,
    write_docker_archive,
)
from support.mini import LIB, SITE, mini_image, site

CONFIG = {
    "Env": ["PATH=/opt/bin:/usr/bin:relative", "LANG=C.UTF-8", "EMPTY="],
    "Labels": {"vendor": "ACME", "date": "2024-01-02"},
    "Cmd": ["python3", "-m", "service"],
    "ExposedPorts": {"8000/tcp": {}, "53/udp": {}, "9": {}},
    "Volumes": {"/data": {}},
    "WorkingDir": "/app",
    "User": "1001",
}
MEMBERS = [
    directory("etc", uid=5, gid=6),
    file("etc/passwd", b"root:x:0:0\napp:x:1001:1002\n", uid=5, gid=6),
    file("etc/binary", b"\xff\xfe needle \x00"),
    file("etc/huge", b"first\n" + b"\0" * SEARCHED + b"needle\n"),
    symlink("etc/absolute", "/etc/passwd"),
    symlink("etc/upward", "../../../../etc/passwd"),
    symlink("etc/dangling", "/nowhere"),
    symlink("etc/loop", "loop"),
    symlink("etc-link", "etc"),
    hardlink("etc/second", "etc/passwd"),
    file("usr/bin/gcc-12", b"x", mode=0o755),
    symlink("usr/bin/gcc", "gcc-12"),
    symlink("usr/bin/cc", "/etc/alternatives/cc"),
    symlink("etc/alternatives/cc", "/usr/bin/gcc"),
    symlink("usr/bin/make", "/usr/bin/gone"),
    file("usr/bin/readme", b"x", mode=0o644),
    directory("usr/bin/folder"),
    file("app/relative/tool", b"x", mode=0o711),
    file("app/local", b"x", mode=0o755),
    file("bin/su", b"x", mode=0o4755),
    directory("tmp", 0o1777),
    Member("dev/null", b"3", mode=0o666, device=(1, 3)),
    Member("dev/sda", b"4", mode=0o660, device=(8, 0)),
    file("opt/bin/removed", b"x", mode=0o755),
]


def no_sandbox() -> Sandbox:
    raise EnvironmentFailure("nothing is to be run here")


def side_of(reference: str) -> Side:
    return Side("image", Ledger(open_image(reference)), no_sandbox, Limits(), AppTable())


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    path = tmp_path_factory.mktemp("single") / "image.tar"
    image = make_image(make_tar(*MEMBERS), make_tar(whiteout("opt/bin/removed")), run=CONFIG)
    write_docker_archive(path, image, "single:test", style="25")
    found = side_of(f"docker-archive:{path}")
    with found.ledger.image:
        yield found


def result(side: Side, probe: Probe) -> ProbeResult:
    kind = kind_of(probe)
    return judge(kind, probe, "probe", None, observe(kind, probe, side))


def asked(side: Side, probe: Probe) -> tuple[str, list[str]]:
    found = result(side, probe)
    assert found.ok is (found.outcome == "met")
    return found.outcome, found.details


MET: list[dict[str, Any]] = [
    {"path": "/etc/passwd", "permissions": "-rw-r--r--", "uid": 5, "gid": 6, "contents": ["(?m)^app:"]},
    {"path": "/etc/passwd", "no_contents": ["nobody"]},
    {"path": "/etc/passwd/"},
    {"path": "/etc/absolute", "permissions": "-rw-r--r--", "contents": ["root"]},
    {"path": "/etc/upward", "contents": ["root"]},
    {"path": "/etc-link/passwd", "contents": ["root"], "follow": False},
    {"path": "/etc-link", "follow": False, "permissions": "lrwxrwxrwx"},
    {"path": "/etc-link", "permissions": "drwxr-xr-x", "uid": 5},
    {"path": "/etc/second", "contents": ["root"], "uid": 5},
    {"path": "/etc/dangling", "follow": False},
    {"path": "/etc/dangling", "exists": False},
    {"path": "/etc/loop", "exists": False},
    {"path": "/opt/bin/removed", "exists": False},
    {"path": "/opt/bin/.wh.removed", "exists": False},
    {"path": "/etc/binary", "contents": ["needle"]},
    {"path": "/etc/huge", "contents": ["^first"]},
    {"path": "/bin/su", "permissions": "-rwsr-xr-x", "executable_by": "other"},
    {"path": "/tmp", "permissions": "drwxrwxrwt"},
    {"path": "/dev/null", "permissions": "crw-rw-rw-"},
    {"path": "/dev/sda", "permissions": "brw-rw----"},
    {"path": "/usr", "permissions": "drwxr-xr-x", "uid": 0, "executable_by": "any"},
    {"path": "/", "permissions": "drwxr-xr-x"},
    {"path": "/app/relative/tool", "executable_by": "group"},
    {"path": "${NONE}/etc/$LANG/../passwd", "expand": True, "exists": False},
    {"path": "/etc/${EMPTY}passwd", "expand": True},
]


@pytest.mark.parametrize("fields", MET, ids=[str(fields) for fields in MET])
def test_files_that_are_as_asked(side: Side, fields: dict[str, Any]) -> None:
    assert asked(side, FileProbe(**fields)) == ("met", [])


NOT_MET: list[tuple[dict[str, Any], list[str]]] = [
    ({"path": "/etc/none"}, ["'/etc/none': is not there"]),
    ({"path": "/etc/dangling"}, ["'/etc/dangling': is not there"]),
    ({"path": "/opt/bin/removed"}, ["'/opt/bin/removed': is not there"]),
    ({"path": "/etc/absolute", "exists": False}, ["'/etc/absolute': is there"]),
    ({"path": "/etc/dangling", "exists": False, "follow": False}, ["'/etc/dangling': is there"]),
    (
        {"path": "/etc/passwd", "permissions": "-rw-------", "uid": 0, "gid": 0},
        ["permissions -rw-r--r--, not -rw-------", "owner 5, not 0", "group 6, not 0"],
    ),
    ({"path": "/etc/passwd", "executable_by": "any"}, ["-rw-r--r-- is not executable by any"]),
    ({"path": "/app/relative/tool", "permissions": "-rwxr-xr-x"}, ["permissions -rwx--x--x, not -rwxr-xr-x"]),
    ({"path": "/etc/passwd", "contents": ["root", "nobody"]}, ["'nobody' does not match"]),
    ({"path": "/etc/passwd", "no_contents": ["x", "root:"]}, ["'x' matches", "'root:' matches"]),
    ({"path": "/etc", "contents": ["x"]}, ["is no file but a directory"]),
    ({"path": "/etc/huge", "contents": ["none"], "no_contents": ["first"]}, ["'first' matches"]),
    ({"path": "/etc/huge", "contents": ["none"], "uid": 9}, ["owner 0, not 9"]),
]


@pytest.mark.parametrize(("fields", "wrong"), NOT_MET, ids=[str(fields) for fields, _ in NOT_MET])
def test_files_that_are_not_as_asked(side: Side, fields: dict[str, Any], wrong: list[str]) -> None:
    outcome, details = asked(side, FileProbe(**fields))
    assert outcome == "not met"
    path = f"'{fields['path']}': "
    assert [detail.removeprefix(path) for detail in details] == [text.removeprefix(path) for text in wrong]


@pytest.mark.parametrize("key", ["contents", "no_contents"])
def test_what_lies_behind_what_is_searched_gives_no_answer(side: Side, key: str) -> None:
    patterns: dict[str, Any] = {key: ["needle"]}
    outcome, details = asked(side, FileProbe(path="/etc/huge", **patterns))
    assert outcome == "no answer"
    assert "nothing was found in the first 8,000,000" in details[0]


def test_configuration_as_asked(side: Side) -> None:
    probe = ConfigProbe(
        env={"LANG": "C.UTF-8", "PATH": "^/opt", "EMPTY": ""},
        no_env=["HOME"],
        labels={"vendor": "ACME", "date": r"^\d{4}-"},
        regex=["PATH", "date"],
        cmd=["python3", "-m", "service"],
        entrypoint=[],
        ports=["8000", "8000/tcp", "53/udp", "9/tcp"],
        no_ports=["80", "53/tcp", "8000/udp"],
        volumes=["/data"],
        no_volumes=["/"],
        workdir="/app",
        user="1001",
    )
    assert asked(side, probe) == ("met", [])


NOT_CONFIGURED: list[tuple[dict[str, Any], str]] = [
    ({"env": {"NONE": ""}}, "variable 'NONE': is not set"),
    ({"env": {"LANG": "C"}}, "variable 'LANG': 'C.UTF-8', not 'C'"),
    ({"env": {"LANG": "^D"}, "regex": ["LANG"]}, "variable 'LANG': 'C.UTF-8' does not match '^D'"),
    ({"no_env": ["EMPTY"]}, "variable 'EMPTY': is set"),
    ({"labels": {"vendor": "A"}}, "label 'vendor': 'ACME', not 'A'"),
    ({"cmd": ["python3"]}, "Cmd: ['python3', '-m', 'service'], not ['python3']"),
    ({"cmd": []}, "Cmd: ['python3', '-m', 'service'], not []"),
    ({"entrypoint": ["x"]}, "Entrypoint: [], not ['x']"),
    ({"ports": ["80"]}, "port '80': is not there"),
    ({"no_ports": ["8000"]}, "port '8000': is there"),
    ({"volumes": ["/x"]}, "volume '/x': is not there"),
    ({"no_volumes": ["/data"]}, "volume '/data': is there"),
    ({"workdir": "/"}, "WorkingDir: '/app', not '/'"),
    ({"user": "root"}, "User: '1001', not 'root'"),
]


@pytest.mark.parametrize(("fields", "wrong"), NOT_CONFIGURED, ids=[wrong for _, wrong in NOT_CONFIGURED])
def test_configuration_not_as_asked(side: Side, fields: dict[str, Any], wrong: str) -> None:
    assert asked(side, ConfigProbe(**fields)) == ("not met", [wrong])


def test_a_configuration_of_nonsense(tmp_path: Path) -> None:
    run = {"Env": "x", "Labels": ["a"], "Cmd": "sh\x1b", "ExposedPorts": 3, "Volumes": [], "User": 0, "WorkingDir": ""}
    write_docker_archive(tmp_path / "image.tar", make_image(make_tar(file("a")), run=run), "a:b", style="25")
    hostile = side_of(f"docker-archive:{tmp_path / 'image.tar'}")
    with hostile.ledger.image:
        probe = ConfigProbe(env={"A": "b"}, labels={"a": "b"}, cmd=["x"], ports=["1"], volumes=["/a"], user="me")
        outcome, details = asked(hostile, probe)
    assert outcome == "not met"
    assert details[2] == r"Cmd: ['sh\x1b'], not ['x']"
    assert len(details) == 6


def test_the_size_of_an_image(side: Side) -> None:
    size = side.ledger.image.size
    assert asked(side, SizeProbe(max=str(size))) == ("met", [])
    outcome, details = asked(side, SizeProbe(max=str(size - 1)))
    assert (outcome, details) == ("not met", [f"size: {size:,} bytes, 1 more than {size - 1}"])
    assert asked(side, SizeProbe()) == ("met", [])


def test_a_slim_image_is_not_larger(side: Side) -> None:
    kind = kind_of(SizeProbe())
    seen = observe(kind, SizeProbe(), side)
    smaller, larger = (msgspec.structs.replace(seen, data=seen.data + more) for more in (-1, 1))
    assert judge(kind, SizeProbe(), "size", seen, smaller).ok
    assert judge(kind, SizeProbe(), "size", seen, seen).ok
    found = judge(kind, SizeProbe(), "size", seen, larger)
    assert (found.outcome, found.details) == ("differs", ["size: 1 bytes more than the original"])
    # With a budget it is the budget that counts.
    assert judge(kind, SizeProbe(max="1GB"), "size", seen, larger).ok
    assert judge(kind, SizeProbe(max="1B"), "size", larger, seen).outcome == "not met"


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("gcc", "/usr/bin/gcc"),
        ("cc", "/usr/bin/cc"),
        ("gcc-12", "/usr/bin/gcc-12"),
        ("tool", "/app/relative/tool"),
        ("/bin/su", "/bin/su"),
        ("./local", "/app/local"),
    ],
)
def test_commands_that_are_there(side: Side, command: str, path: str) -> None:
    assert asked(side, AbsentProbe(commands=["g++", command])) == ("not met", [f"{command}: is there: '{path}'"])


def test_commands_that_are_absent(side: Side) -> None:
    # A link to nothing, what cannot be run, a directory, what was removed, what lies outside PATH.
    names = ["g++", "make", "readme", "folder", "removed", "su", "local", "/etc/passwd", "-x", ".."]
    assert asked(side, AbsentProbe(commands=names)) == ("met", [])


def test_the_original_may_have_what_the_slim_image_must_not(side: Side) -> None:
    probe = AbsentProbe(commands=["gcc"])
    kind = kind_of(probe)
    there = observe(kind, probe, side)
    gone = observe(kind, AbsentProbe(commands=["g++"]), side)
    assert judge(kind, probe, "no gcc", there, gone).ok
    assert judge(kind, probe, "no gcc", there, there).outcome == "not met"


def test_modules_without_a_sandbox_give_no_answer(side: Side) -> None:
    assert result(side, AbsentProbe(modules=["pytest"])).outcome == "no answer"


MODULES = site(
    {
        "present": {"present/__init__.py": b"", "present/inner.py": b""},
        "broken": {"broken.py": b"import nothing_of_the_kind\n"},
        "leaves": {"leaves.py": b"raise SystemExit(3)\n"},
        "dies": {"dies.py": b"import os\nos.abort()\n"},
        "prints": {"prints.py": b"print('{}')\n"},
    }
)
MODULES += [
    file(f"{SITE}/leftover/__pycache__/inner.cpython-311.pyc", b"x"),
    file(f"{SITE}/leftover/data.txt", b"x"),
    file(f"{SITE}/namespace/deeper/code.py", b""),
    file("app/own.py", b""),
]


@pytest.mark.skipif(shutil.which("ldd") is None, reason="the image is made of this machine's Python")
def test_modules(tmp_path: Path) -> None:
    there = ["present", "present.inner", "prints", "namespace", "namespace.deeper.code", "own", "os", "_ast"]
    absent = ["pytest", "present.none", "leftover", "leftover.inner", "broken", "leaves", "dies", "deadweight"]
    with open_image(mini_image(tmp_path, MODULES)) as image:
        spec = Spec(probe=[AbsentProbe(modules=absent, commands=["gcc"]), AbsentProbe(modules=[*absent, *there])])
        verdict = check(Ledger(image), spec)
    first, second = verdict.probes
    assert (first.outcome, first.details, first.after) == ("met", [], "absent")
    notes = sorted(note.split(": ")[0] for note in first.notes)
    assert notes == ["broken", "dies", "leaves", "leftover", "leftover.inner"]
    assert any("No module named 'nothing_of_the_kind'" in note for note in first.notes)
    assert any("signal 6" in note for note in first.notes)
    assert "leaves: is there, and does not import: 'SystemExit: 3'" in first.notes
    assert second.outcome == "not met"
    assert [detail.split(": ")[0] for detail in second.details] == there
    assert f"imports, from '/{SITE}/present/__init__.py'" in second.details[0]


def test_an_image_whose_python_answers_nonsense(tmp_path: Path) -> None:
    # The json of its standard library says what the agent writes.
    lies = b"def load(file): return {'modules': [], 'paths': []}\ndef dump(value, file): file.write('{\"a\": 3}')\n"
    with open_image(mini_image(tmp_path, [file(f"{LIB}/json/__init__.py", lies)])) as image:
        verdict = check(Ledger(image), Spec(probe=[AbsentProbe(modules=["pytest"])]))
    assert verdict.probes[0].outcome == "no answer"
    assert "nonsense" in verdict.probes[0].details[0]


def test_regular_expressions_are_limited() -> None:
    assert compiled("[[a]").search("[")  # which later Pythons may read otherwise, and warn of
    with pytest.raises(ValueError, match="10,001 characters"):
        compiled("x" * 10_001)
    with pytest.raises(ValueError, match="no regular expression"):
        compiled("a{99999999999}")
