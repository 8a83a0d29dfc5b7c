"""An edit is the same whatever of it is remembered: from the same image, and from others with the same lower layers."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from deadweight.errors import BadInputError, PlanError
from deadweight.image import emitted
from deadweight.image.content import Content
from deadweight.image.edit import Edit, edit_image
from deadweight.image.emitted import Emitted, emission_key
from deadweight.image.filesystem import Filesystem
from support.edits import layers, requests
from support.images import file, make_tar
from support.layers import image_of


class Memory:
    """Remembers all, as it is written and read."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, str], bytes] = {}
        self.found = 0

    def find_emitted(self, position: int, key: str) -> Emitted | None:
        data = self.known.get((position, key))
        if data is None:
            return None
        self.found += 1
        return msgspec.msgpack.decode(data, type=Emitted)

    def note_emitted(self, position: int, key: str, made: Emitted) -> None:
        self.known[position, key] = msgspec.msgpack.encode(made)


@pytest.fixture(autouse=True, scope="module")
def small_layers_too() -> object:
    """Those of the tests are all small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emitted, "MANY", 0)
        yield


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_is_remembered_changes_nothing(data: st.DataObject) -> None:
    tars = data.draw(layers())
    memory = Memory()
    for _ in range(2):
        with image_of(tars) as image:
            fs = Filesystem(image)
            for _ in range(3):
                edit = data.draw(requests(fs))
                try:
                    expected = edit_image(fs, edit)
                except PlanError:  # a top layer from elsewhere may name a sparse file
                    continue
                assert edit_image(fs, edit, memo=memory) == expected
                again = edit_image(fs, edit, memo=memory)
                assert again == expected
                assert list(again.charges) == list(expected.charges)
        tars = [*tars[:-1], *data.draw(layers())[-1:]] if data.draw(st.booleans()) else tars[:-1]
        if not tars or not _is_sound(tars):
            break
    event(f"found {min(memory.found, 3)}")


def _is_sound(tars: list[bytes]) -> bool:
    try:
        with image_of(tars) as image:
            return bool(Filesystem(image).nodes)
    except BadInputError:
        return False


def test_lower_layers_are_found_where_an_upper_one_is_another() -> None:
    lower = make_tar(file("a", b"1" * 600), file("b", b"2"), file("c", b"3"))
    edit = Edit(remove=["a"], rewrite={"b": Content((b"new",))})
    memory = Memory()
    for code, times in ((b"x = 1\n", 0), (b"x = 2\n", 1)):
        with image_of([lower, make_tar(file("app.py", code))]) as image:
            edited = edit_image(Filesystem(image), edit, memo=memory)
            assert edited == edit_image(Filesystem(image), edit)
        assert memory.found == times
    with image_of([lower, make_tar(file("app.py", b""))]) as image:
        for other in (replace(edit, remove=["c"]), replace(edit, rewrite={"b": Content((b"else",))})):
            assert edit_image(Filesystem(image), other, memo=memory) == edit_image(Filesystem(image), other)
        assert memory.found == 1, "another request is another edit"


def test_names_that_are_no_utf_8_are_not_remembered() -> None:
    assert emission_key([], "a\udcff") is None
    assert emission_key([], "a") != emission_key([], "b")


def test_steps_are_part_of_what_is_asked() -> None:
    memory = Memory()
    with image_of([make_tar(file("a", b"1" * 600))]) as image:
        for steps in ((700,), (1500,)):
            edit = Edit(rewrite={"a": Content((b"new",))}, steps={"a": steps})
            assert edit_image(Filesystem(image), edit, memo=memory) == edit_image(Filesystem(image), edit)
