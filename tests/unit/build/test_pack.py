"""Layers from files: the same bytes whoever packs them."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from deadweight.build.pack import Item, file_item, pack
from deadweight.errors import BadInputError
from support.images import digest


def packed(items: list[Item], epoch: int = 1000) -> bytes:
    file = io.BytesIO()
    found = pack(items, file, epoch)
    data = file.getvalue()
    assert (found.diff_id, found.size) == (digest(data), len(data))
    return data


def tree(folder: Path, mask: int, order: int) -> list[Item]:
    """The same files, made under another umask, in another order and at another time."""
    before = os.umask(mask)
    try:
        names = ["b.py", "a", "c" * 120, "ünï\n.txt"]
        for name in names[::order]:
            (folder / name).write_bytes(name.encode())
        (folder / "a").chmod(0o711)
        (folder / "link").symlink_to("a")
        os.utime(folder / "b.py", (5, order + 7))
    finally:
        os.umask(before)
    return [Item("x"), *(file_item(path, f"x/{path.name}") for path in folder.iterdir())]


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    data = packed(tree(one, 0o022, 1))
    assert data == packed(tree(two, 0o077, -1))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == ["x", "x/a", "x/b.py", f"x/{'c' * 120}", "x/link", "x/ünï\n.txt"]
    assert {m.mtime for m in members} == {1000}
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}
    assert [m.mode for m in members] == [0o755, 0o755, 0o644, 0o644, 0o777, 0o644]
    assert packed([Item("x")], 1000) != packed([Item("x")], 2000)


def test_directories_come_before_what_is_in_them() -> None:
    items = [Item("a/b", b"1", mode=0o644), Item("a-b", b"2", mode=0o644), Item("a"), Item("a/b0", b"", mode=0o644)]
    with tarfile.open(fileobj=io.BytesIO(packed(items))) as tar:
        assert tar.getnames() == ["a", "a/b", "a/b0", "a-b"]


def test_what_no_layer_can_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".wh.x").touch()
    (tmp_path / "out").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for name, why in ((".wh.x", "deletion"), ("out", "place of this machine"), ("pipe", "neither file")):
        with pytest.raises(BadInputError, match=why):
            file_item(tmp_path / name, f"app/{name}")
