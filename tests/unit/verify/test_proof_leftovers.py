"""The static proof knows the pass leftovers: declared or not, with symbols or without; nothing else passes."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import msgspec
import pytest

from deadweight import Plan
from support.careless import SITE, distribution
from support.elf import LIBRARY, library, like_patchelf, patched_library
from support.images import FixtureImage, make_image, make_tar
from support.proofs import changed, content, differences, edited, proved, slimmed

LIB = f"{SITE}/fast.libs/libfixture.so"
NAMES = "".join(f"int name{'x' * 90}{n}(void) {{ return {n}; }}\n" for n in range(500))


@functools.cache
def moved() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return like_patchelf(library(Path(folder), source=LIBRARY + NAMES))


@pytest.fixture
def image() -> FixtureImage:
    wheel = distribution("fast", "1", {"fast/__init__.py": b"", "fast.libs/libfixture.so": moved()})
    return make_image(make_tar(*wheel))


@pytest.mark.parametrize("left_out", ["", "symbols"])
def test_what_it_makes_is_proved(image: FixtureImage, tmp_path: Path, left_out: str) -> None:
    def edit(plan: Plan) -> Plan:
        return msgspec.structs.replace(plan, cuts=[cut for cut in plan.cuts if cut.pass_ != left_out])

    _, plan, after = slimmed(tmp_path, image, edit=edit)
    assert {cut.pass_ for cut in plan.cuts if cut.path == LIB} == {"leftovers", "symbols"} - {left_out}
    assert len(content(after, LIB)) < len(moved()) - 40_000
    assert differences(proved(image, after, plan)) == []
    assert differences(proved(image, after)) == []


def test_of_a_slim_image_nothing_more_leaves(tmp_path: Path) -> None:
    """What was left behind goes before symbols, which then leave as far as ever."""
    patched = patched_library(tmp_path)
    image = make_image(
        make_tar(*distribution("fast", "1", {"fast/__init__.py": b"", "fast.libs/libfixture.so": patched}))
    )
    _, plan, after = slimmed(tmp_path, image)
    assert [cut.pass_ for cut in plan.cuts if cut.path == LIB] == ["leftovers", "symbols"]
    again = tmp_path / "again"
    again.mkdir()
    assert slimmed(again, after).plan.cuts == []
    assert differences(proved(image, after)) == []


@pytest.mark.parametrize("declared", [True, False])
def test_other_bytes_are_a_difference(image: FixtureImage, tmp_path: Path, declared: bool) -> None:
    _, plan, after = slimmed(tmp_path, image)
    bad = changed(after, LIB, edited(b"alpha", b"omega"))
    assert differences(proved(image, bad, plan if declared else None)) != []
