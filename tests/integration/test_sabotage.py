"""Deliberate damage to a slim image, each kind caught by name: what verification is there for.

A small service (Flask, numpy, a C library of its own, weights) is slimmed as a user would, verified, and then damaged
behind the plan's back, one way after the other.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import elf
from support.damage import content, damaged, flipped, replaced
from support.images import Member, directory, file, whiteout
from support.mini import SITE, installed, mini_image, site

ROOT = Path(__file__).parents[2]
DEADWEIGHT = Path(sys.executable).parent / "deadweight"
ORACLES = next(iter(ROOT.glob(".venv-oracles/lib/python3*/site-packages")), Path("missing"))
FLASK = ("flask", "werkzeug", "jinja2", "markupsafe", "itsdangerous", "click", "blinker")

pytestmark = [
    pytest.mark.xdist_group("sabotage"),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("gcc") is None or not ORACLES.is_dir(),
        reason="needs root, gcc and .venv-oracles: scripts/setup.sh test",
    ),
]

SERVICE = b"""
import ctypes, flask, numpy
import lessons

app = flask.Flask(__name__)
lib = ctypes.CDLL("/app/lib/libuser.so")

@app.get("/health")
def health():
    return {"status": "ok"}

@app.get("/answer")
def answer():
    return {"answer": lib.twice_the_answer(), "weight": float(numpy.load("/app/weights.npy")[3])}

@app.get("/claims")
def claims():
    return []
"""
SPEC = """
[app]
wsgi = "service:app"
health = "/health"

[[probe]]
kind = "http"
path = "/answer"

[[probe]]
name = "weights"
kind = "run"
code = '''
import os, numpy
numpy.save(os.environ["DEADWEIGHT_OUT"] + "/weights.npy", numpy.load("/app/weights.npy") * 2)
'''
arrays = true

[[probe]]
name = "own symbols"
kind = "run"
code = "print(b'a_local_name' in open('/app/lib/libanswer.so', 'rb').read())"
"""
WEIGHTS = struct.pack("<1000f", *range(1000))
HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000,), }"
ANSWER = "static int a_local_name(void) { return 42; } int answer(void) { return a_local_name(); }"
USER = "extern int answer(void); int twice_the_answer(void) { return 2 * answer(); }"


def npy(data: bytes) -> bytes:
    """An array file of format 1.0."""
    header = HEADER.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@dataclass(frozen=True)
class Service:
    """The original, its honest slim version, and the plan."""

    folder: Path
    before: str
    after: str
    libraries: dict[str, bytes]

    def verify(self, after: str, *more: str) -> tuple[int, dict[str, Any]]:
        """The exit status and, by name, the probes of a verdict over an image that is said to be the slim one."""
        out = self.folder / f"verdict-{len(list(self.folder.iterdir()))}.json"
        command = [str(DEADWEIGHT), "verify", self.before, after, "--plan", str(self.folder / "plan.json")]
        command += ["--spec", str(self.folder / "deadweight.toml"), "--json", str(out), *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert out.exists(), done.stderr
        return done.returncode, {probe["name"]: probe for probe in json.loads(out.read_text())["verdict"]["probes"]}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("sabotage")
    built = folder / "built"
    built.mkdir()
    elf.gcc(built, "libanswer.so", ANSWER, "-shared", "-fPIC", "-Wl,-soname,libanswer.so")
    elf.gcc(built, "libuser.so", USER, "-shared", "-fPIC", "-L", str(built), "-lanswer", "-Wl,-rpath,/app/lib")
    libraries = {name: (built / name).read_bytes() for name in ("libanswer.so", "libuser.so")}
    members = [
        *installed("numpy"),
        *installed(*FLASK, where=ORACLES),
        *site(
            {"lessons": {"lessons/__init__.py": b"from lessons.deep import WORDS\n", "lessons/deep.py": b"WORDS = 1\n"}}
        ),
        file("app/service.py", SERVICE),
        file("app/weights.npy", npy(WEIGHTS)),
        *(file(f"app/lib/{name}", data, mode=0o755) for name, data in libraries.items()),
        directory("usr/local/lib/gcc"),
    ]
    start = ["python3", "-m", "flask", "--app", "service", "run", "--port", "8000"]
    before = mini_image(folder, members, {"Cmd": start, "ExposedPorts": {"8000/tcp": {}}})
    after = f"docker-archive:{folder / 'slim.tar'}"
    (folder / "deadweight.toml").write_text(SPEC)
    command = [str(DEADWEIGHT), "slim", before, "--to", after, "--plan-out", str(folder / "plan.json")]
    # Symbols of the own libraries are read at run time: this deployment keeps them.
    command += ["--keep", "/app/lib", "--json", str(folder / "slim.json")]
    subprocess.run(command, check=True, capture_output=True)
    yield Service(folder, before, after, libraries)
    shutil.rmtree(folder)


def test_the_honest_slim_image_passes(service: Service) -> None:
    status, probes = service.verify(service.after)
    assert status == 0, probes
    assert {name: probe["outcome"] for name, probe in probes.items()} == dict.fromkeys(probes, "same")
    assert len(probes) >= 9


def numpy_core(service: Service) -> str:
    """The path of numpy's main extension module."""
    with_name = f"{SITE}/numpy/_core/"
    return next(m.name for m in installed("numpy") if m.name.startswith(f"{with_name}_multiarray_umath"))


def openblas() -> str:
    """The path of a library that numpy needs."""
    return next(m.name for m in installed("numpy") if "numpy.libs/" in m.name and "openblas" in m.name)


def a_library_is_gone(service: Service) -> list[Member]:
    return [whiteout(openblas())]


def a_byte_of_code_is_flipped(service: Service) -> list[Member]:
    data = content(service.after, "app/lib/libanswer.so")
    at = data.index(b"\xb8\x2a\x00\x00\x00") + 1  # mov eax, 42
    return [replaced(service.after, "app/lib/libanswer.so", flipped(data, at))]


def a_byte_of_rewritten_code_is_flipped(service: Service) -> list[Member]:
    """In a file that the plan does rewrite: the declared rewrite must not cover it."""
    path = numpy_core(service)
    data = content(service.after, path)
    return [replaced(service.after, path, flipped(data, len(data) // 2))]


def a_module_is_gone(service: Service) -> list[Member]:
    return [whiteout(f"{SITE}/lessons/deep.py")]


def a_route_is_gone(service: Service) -> list[Member]:
    data = SERVICE[: SERVICE.index(b'@app.get("/claims")')]
    return [replaced(service.after, "app/service.py", data)]


def a_weight_is_wrong(service: Service) -> list[Member]:
    data = npy(WEIGHTS)
    return [replaced(service.after, "app/weights.npy", flipped(data, len(data) - 4 * 997 + 1))]


def a_symbol_is_gone(service: Service) -> list[Member]:
    """The dynamic symbol that another library needs has another name."""
    data = service.libraries["libanswer.so"].replace(b"\0answer\0", b"\0Answer\0")
    return [replaced(service.after, "app/lib/libanswer.so", data)]


def a_symbol_table_is_gone(service: Service) -> list[Member]:
    """As `strip` would leave it, where the plan keeps the file."""
    path = service.folder / "stripped.so"
    path.write_bytes(service.libraries["libanswer.so"])
    subprocess.run(["strip", str(path)], check=True)
    return [replaced(service.after, "app/lib/libanswer.so", path.read_bytes())]


def an_import_is_slow(service: Service) -> list[Member]:
    return [replaced(service.after, "app/service.py", b"import time; time.sleep(1.5)\n" + SERVICE)]


Damage = Callable[[Service], list[Member]]
CAUGHT: list[tuple[Damage, dict[str, str]]] = [
    (
        a_library_is_gone,
        {
            "every path": "openblas",
            "libraries resolve": "openblas",
            "modules import": "numpy",
            "application loads": "openblas",
        },
    ),
    (a_byte_of_code_is_flipped, {"every path": "app/lib/libanswer.so", "GET /answer": "84"}),
    (a_byte_of_rewritten_code_is_flipped, {"every path": "_multiarray_umath"}),
    (a_module_is_gone, {"every path": "lessons/deep.py", "modules import": "lessons.deep"}),
    (a_route_is_gone, {"every path": "app/service.py", "application loads": "/claims"}),
    (a_weight_is_wrong, {"every path": "app/weights.npy", "weights": "weights.npy"}),
    (a_symbol_is_gone, {"every path": "app/lib/libanswer.so", "libraries resolve": "answer"}),
    (a_symbol_table_is_gone, {"every path": "app/lib/libanswer.so", "own symbols": "True"}),
    (an_import_is_slow, {"every path": "app/service.py", "import service: time, memory": "service"}),
]


@pytest.mark.parametrize(("damage", "wanted"), CAUGHT, ids=[damage.__name__ for damage, _ in CAUGHT])
def test_damage_is_caught_by_name(service: Service, damage: Damage, wanted: dict[str, str]) -> None:
    after = damaged(service.after, service.folder / f"{damage.__name__}.tar", damage(service))
    status, probes = service.verify(after)
    Path(after.partition(":")[2]).unlink()
    assert status == 1
    for name, word in wanted.items():
        assert not probes[name]["ok"], f"{name} did not notice: {probes[name]}"
        assert any(word in detail for detail in probes[name]["details"]), probes[name]["details"]
