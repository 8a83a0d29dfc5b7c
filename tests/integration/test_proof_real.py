"""The static proof of an image of real programs and libraries: Python, libc, and what they load."""

from __future__ import annotations

import posixpath

import pytest

from deadweight import Plan
from deadweight.binary import elf
from support.careless import library
from support.elf import read_from
from support.images import file
from support.layers import Seen, merged_view
from support.mini import SITE, mini, site
from support.proofs import Slim, changed, differences, flipped, notes, proved, replaced, slimmed

WEIGHTS = "app/weights.bin"
FAST = f"{SITE}/hello/fast.so"


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Slim:
    files = {
        "hello/__init__.py": b"x = 1\n",
        "hello/tests/test_x.py": b"def test(): pass\n",
        "hello/fast.so": library(),
    }
    members = [*site({"hello": files}), file(WEIGHTS, b"\0\0\x80?" * 100_000)]
    return slimmed(tmp_path_factory.mktemp("real"), mini(members, {"Cmd": ["python3"]}))


@pytest.fixture(scope="module")
def view(slim: Slim) -> dict[str, Seen]:
    return merged_view(list(slim.after.layers))


@pytest.fixture(params=["with its plan", "without a plan"])
def plan(request: pytest.FixtureRequest, slim: Slim) -> Plan | None:
    return slim.plan if request.param == "with its plan" else None


def test_the_honest_slim_image_passes(slim: Slim, plan: Plan | None) -> None:
    proof = proved(slim.before, slim.after, plan)
    assert differences(proof) == []
    assert f"{SITE}/hello/tests/test_x.py" in proof.removed
    assert any("rewritten, and loaders cannot tell (symbols)" in note for note in notes(proof))


PLACES = [("libc.so.6", ".text"), ("libm.so.6", ".rodata"), ("sh", ".dynsym"), ("cat", ".data"), ("fast.so", ".text")]


def test_single_bytes_are_caught_by_name(slim: Slim, plan: Plan | None, view: dict[str, Seen]) -> None:
    module = next(path for path in sorted(view) if path.endswith("/json/__init__.py"))
    damage = {WEIGHTS: 399_997, module: len(view[module].content) - 1}
    for base, name in PLACES:
        path = next(each for each in sorted(view) if posixpath.basename(each) == base and view[each].kind == "file")
        data = view[path].content
        section = next(s for s in elf.parse(read_from(data), len(data)).sections if s.name == name)
        damage[path] = section.offset + section.size // 2
    after = slim.after
    for path, at in damage.items():
        after = changed(after, path, flipped(at))
    found = differences(proved(slim.before, after, plan))
    assert [each.partition(": ")[0] for each in found] == [f"'/{path}'" for path in sorted(damage)]
    for path in (WEIGHTS, module):
        assert f"'/{path}': its content differs, from byte {damage[path]:,} on: undeclared" in found


def test_a_library_that_was_exchanged_is_caught(slim: Slim, plan: Plan | None, view: dict[str, Seen]) -> None:
    one, two = (next(path for path in sorted(view) if path.endswith(f"/{base}.so.6")) for base in ("libc", "libm"))
    (found,) = differences(proved(slim.before, changed(slim.after, one, replaced(data=view[two].content)), plan))
    assert found.startswith(f"'/{one}': its content differs")
