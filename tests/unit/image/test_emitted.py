"""An edit is the same whatever of it is remembered: from the same image, and from others with the same lower layers."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from deadweight.errors import BadInputError, PlanError
from deadweight.image import emitted
from deadweight.image.addition import add_file
from deadweight.image.content import Content
from deadweight.image.edit import Edit, Edited, edit_image
from deadweight.image.emitted import Emitted, Kept, Recalled, emission_key, name_of
from deadweight.image.filesystem import Filesystem
from support.edits import layers, requests
from support.images import file, make_tar
from support.layers import image_of


class Memory:
    """Remembers all, as it is written, which is some time after it was noted, and read."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, str], Emitted] = {}
        self.pieces: dict[tuple[int, str], Kept] = {}
        self.found = 0

    def find_emitted(self, position: int, key: str) -> Emitted | None:
        made = self.known.get((position, key))
        if made is None:
            return None
        self.found += 1
        return msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=Emitted)

    def find_pieces(self, position: int, key: str) -> Kept | None:
        pieces = self.pieces.get((position, key))
        return None if pieces is None else msgspec.msgpack.decode(msgspec.msgpack.encode(pieces), type=Kept)

    def note_emitted(self, position: int, key: str, made: Emitted, pieces: Kept) -> None:
        self.known[position, key] = made
        self.pieces[position, key] = pieces


def whole(edited: Edited) -> Edited:
    """With pieces that were looked up, as the others are."""
    layers = [layer if layer.pieces is None else replace(layer, pieces=tuple(layer.pieces)) for layer in edited.layers]
    return replace(edited, layers=tuple(layers))


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
                assert whole(edit_image(fs, edit, memo=memory)) == expected
                again = whole(edit_image(fs, edit, memo=memory))
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
            edited = whole(edit_image(Filesystem(image), edit, memo=memory))
            assert edited == edit_image(Filesystem(image), edit)
        assert memory.found == times
    with image_of([lower, make_tar(file("app.py", b""))]) as image:
        for other in (replace(edit, remove=["c"]), replace(edit, rewrite={"b": Content((b"else",))})):
            assert whole(edit_image(Filesystem(image), other, memo=memory)) == edit_image(Filesystem(image), other)
        assert memory.found == 1, "another request is another edit"


def test_pieces_are_looked_up_where_somebody_asks_and_worked_out_where_they_are_lost() -> None:
    memory = Memory()
    edit = Edit(remove=["a"])
    with image_of([make_tar(file("a", b"1" * 600), file("b", b"2"))]) as image:
        (first,) = edit_image(Filesystem(image), edit, memo=memory).layers
        found, lost = (edit_image(Filesystem(image), edit, memo=memory).layers[0].pieces for _ in range(2))
        assert isinstance(found, Recalled)
        assert isinstance(lost, Recalled)
        assert found.name == lost.name == name_of([image.layers[0].diff_id], first.pieces or ())
        assert found.sources == [0]
        assert tuple(found) == first.pieces
        memory.pieces.clear()
        assert tuple(lost) == first.pieces


def test_what_is_worked_out_late_is_charged_once() -> None:
    memory = Memory()
    with image_of([make_tar(file("a", b"1" * 600), file("b", b"2"))]) as image:
        fs, edit = Filesystem(image), Edit(remove=["a"])
        expected = add_file(fs, edit_image(fs, edit, memo=memory), {"a"}, "c", b"3")
        memory.pieces.clear()
        assert add_file(fs, edit_image(fs, edit, memo=memory), {"a"}, "c", b"3") == expected


def test_names_that_are_no_utf_8_are_not_remembered() -> None:
    assert emission_key([], "a\udcff") is None
    assert emission_key([], "a") != emission_key([], "b")


def test_steps_are_part_of_what_is_asked() -> None:
    memory = Memory()
    with image_of([make_tar(file("a", b"1" * 600))]) as image:
        for steps in ((700,), (1500,)):
            edit = Edit(rewrite={"a": Content((b"new",))}, steps={"a": steps})
            assert whole(edit_image(Filesystem(image), edit, memo=memory)) == edit_image(Filesystem(image), edit)
