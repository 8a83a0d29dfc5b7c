"""Edited images that are not written: their entries, where tars are not what most are."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from deadweight.image.changed import changed_image
from deadweight.image.edit import Edit, edit_image
from deadweight.image.filesystem import Filesystem
from deadweight.image.layer import read_entries
from support.layers import image_of, member, tar_of

HEADER = tarfile.TarInfo.create_pax_global_header({"comment": "of a commit"})
FILES = [member(name, b"x" * size) for name, size in (("a", 512), ("b", 700), ("c", 512), ("d", 9))]


def plain() -> bytes:
    return tar_of(FILES)


def headed() -> bytes:
    """As `git archive` writes them."""
    return HEADER + tar_of(FILES)


def headed_within() -> bytes:
    out = io.BytesIO()
    for info, data in FILES:
        out.write(HEADER + info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512))
    return out.getvalue() + bytes(1024)


def cut_short() -> bytes:
    """Without the last entry's padding, and without an end, as umoci writes them."""
    return tar_of(FILES).rstrip(b"\0")


@pytest.mark.parametrize("made", [plain, headed, headed_within, cut_short])
@pytest.mark.parametrize("gone", ["", "a", "b", "bc", "abc", "cd", "abcd"])
def test_entries(made: Callable[[], bytes], gone: str) -> None:
    with image_of([made()]) as image, ExitStack() as resources:
        edited = edit_image(Filesystem(image), Edit(remove=list(gone)))
        changed = changed_image(image, edited, b"", resources)
        (layer,) = changed.layers
        assert "".join(entry.name for entry in layer.entries) == "".join(c for c in "abcd" if c not in gone)
        assert layer.entries == read_entries(layer.tar, "the layer")
        # Edited once more.
        again = edit_image(Filesystem(changed), Edit(remove=[layer.entries[0].name] if len(gone) < 3 else []))
        (twice,) = changed_image(changed, again, b"", resources).layers
        assert twice.entries == read_entries(twice.tar, "the layer")
