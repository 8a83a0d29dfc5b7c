"""The image with a swap done: every file as the new build has it, everything else as it was."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deadweight.image.bytes import ByteRange, PiecedRange
from support.careless import untrue_records
from support.images import file, hardlink, symlink
from support.layers import Seen, merged_view, without_inodes
from support.swapping import (
    MTIME,
    NEW,
    NEW_INFO,
    OLD,
    OLD_INFO,
    SITE,
    Files,
    cpu_wheel,
    gpu_image,
    old_torch,
    saved,
    swapping,
    tars,
)


def swapped_view(folder: Path, old: Files, new: Files) -> tuple[dict[str, Seen], dict[str, Seen]]:
    """The views before and after, by a naive reader."""
    image = gpu_image(torch=old_torch(old))
    with swapping(saved(folder, image), f"torch={cpu_wheel(folder, new)}") as swapped:
        layers = tars(swapped)
        saved_bytes = sum(cut.before_bytes - cut.after_bytes for cut in swapped.cuts)
        assert sum(map(len, image.layers)) - saved_bytes == sum(map(len, layers)) == swapped.ledger.image.size
        assert swapped.ledger.fs.nodes.keys() >= merged_view(layers).keys()
    return merged_view(list(image.layers)), merged_view(layers)


def test_every_file_is_the_new_builds_or_as_it_was(tmp_path: Path) -> None:
    before, after = (without_inodes(view) for view in swapped_view(tmp_path, OLD, NEW))
    mine = {f"{SITE}/{path}": data for path, data in NEW.items()}
    assert {path: after[path].content for path in mine} == mine
    gone = before.keys() - after.keys()
    assert gone == {
        *(f"{SITE}/torch/{name}" for name in ("cuda_only.py", "lib/libtorch_cuda.so")),
        *(f"{SITE}/torch/__pycache__/{name}.cpython-311.pyc" for name in ("cuda_only", "version")),
        *(path for path in before if OLD_INFO in path),
    }
    new = after.keys() - before.keys()
    assert {path for path in new if NEW_INFO not in path} == {
        f"{SITE}/torch/bin",
        f"{SITE}/torch/bin/new",
        f"{SITE}/torch/bin/new/tool",
    }
    for path in new:  # as their neighbours are
        assert (after[path].uid, after[path].mtime) == (7, MTIME)
    rest = before.keys() & after.keys() - mine.keys()
    assert {path: before[path] for path in rest} == {path: after[path] for path in rest}
    kept = before.keys() & mine.keys()
    assert all((before[p].mode, before[p].mtime, before[p].uid) == (after[p].mode, after[p].mtime, 7) for p in kept)


def test_metadata_is_true(tmp_path: Path) -> None:
    _, after = swapped_view(tmp_path, OLD, NEW)
    assert not untrue_records(after)
    info = {path.rpartition("/")[2] for path in after if NEW_INFO in path}
    assert info >= {"METADATA", "RECORD", "INSTALLER", "REQUESTED", "WHEEL", "entry_points.txt"}
    assert "direct_url.json" not in info
    assert after[f"{SITE}/{NEW_INFO}/INSTALLER"].content == b"pip\n"
    record = after[f"{SITE}/{NEW_INFO}/RECORD"].content.decode()
    listed = {line.partition(",")[0] for line in record.splitlines()}
    assert {"../../../bin/torchrun", "torch/__pycache__/same.cpython-311.pyc", f"{NEW_INFO}/REQUESTED"} <= listed
    assert "torch/__pycache__/version.cpython-311.pyc" not in listed


def test_bytecode_that_nobody_lists(tmp_path: Path) -> None:
    """As running a container leaves it: of what changes or leaves it goes too, of all else it stays."""
    folder = f"{SITE}/torch/__pycache__"
    listed = [member for member in old_torch() if "__pycache__" not in member.name]
    names = ("version", "cuda_only", "same")
    members = [*listed, *(file(f"{folder}/{name}.cpython-311.opt-1.pyc", b"bytecode") for name in names)]
    members = [m if m.name != f"{SITE}/{OLD_INFO}/RECORD" else file(m.name, unlisted(m.data)) for m in members]
    with swapping(saved(tmp_path, gpu_image(torch=members)), f"torch={cpu_wheel(tmp_path)}") as swapped:
        view = merged_view(tars(swapped))
    assert {path for path in view if folder in path} == {f"{folder}/same.cpython-311.opt-1.pyc"}


def unlisted(record: bytes) -> bytes:
    return b"".join(line for line in record.splitlines(keepends=True) if b"__pycache__" not in line)


def test_commands_that_the_new_build_does_not_have_leave(tmp_path: Path) -> None:
    wheel = cpu_wheel(tmp_path, entry_points=b"[console_scripts]\nother = torch.other:main\n")
    with swapping(saved(tmp_path, gpu_image()), f"torch={wheel}") as swapped:
        assert "opt/venv/bin/torchrun" not in swapped.ledger.fs.nodes
        assert any("'other'" in note for note in swapped.notes)


def test_a_link_is_replaced_and_what_it_led_to_stays(tmp_path: Path) -> None:
    same = [each for each in old_torch() if not each.name.endswith(("torch/version.py", "libtorch_cpu.so"))]
    cache = "opt/cache/libtorch_cpu.so"
    members = [
        *same,
        symlink(f"{SITE}/torch/version.py", "../elsewhere.py"),
        *(type(m)(cache, data=m.data) for m in old_torch() if m.name.endswith("libtorch_cpu.so")),
        hardlink(f"{SITE}/torch/lib/libtorch_cpu.so", cache),
    ]
    with swapping(saved(tmp_path, gpu_image(torch=members)), f"torch={cpu_wheel(tmp_path)}") as swapped:
        view = merged_view(tars(swapped))
    assert view[f"{SITE}/torch/version.py"].content == NEW["torch/version.py"]
    assert view[f"{SITE}/torch/version.py"].kind == "file"
    assert view[f"{SITE}/torch/lib/libtorch_cpu.so"].content == NEW["torch/lib/libtorch_cpu.so"]
    assert view[cache].content == OLD["torch/lib/libtorch_cpu.so"]


def test_the_same_metadata_directory(tmp_path: Path) -> None:
    """A wheel whose version has no label of its own, for an installed one without."""
    wheel = cpu_wheel(tmp_path, version="2.9.0")
    with swapping(saved(tmp_path, gpu_image()), f"torch={wheel}") as swapped:
        view = merged_view(tars(swapped))
    assert not untrue_records(view)
    names = {path.rpartition("/")[2] for path in view if OLD_INFO in path}
    assert names == {"METADATA", "RECORD", "INSTALLER", "REQUESTED", "WHEEL", "entry_points.txt"}


PATHS = st.sampled_from(["torch/a.py", "torch/b.py", "torch/lib/c.so", "torch/lib/d/e.txt", "torchgen/f.py", "g.py"])
FILES = st.dictionaries(PATHS, st.sampled_from([b"", b"one", b"two" * 400, b"six" * 400]), max_size=6)


@given(FILES, FILES)
@example({"torch/a.py": b"one"}, {})
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_two_builds(old: dict[str, bytes], new: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        before, after = (without_inodes(view) for view in swapped_view(Path(folder), old, new))
    own = {f"{SITE}/{path}" for path in old} | {path for path in before if "__pycache__" in path or OLD_INFO in path}
    expected = {path: seen.content for path, seen in before.items() if path not in own and seen.kind == "file"}
    expected |= {f"{SITE}/{path}": data for path, data in new.items()}
    for path, data in old.items():  # bytecode of what is the same stays
        pyc = f"{SITE}/{Path(path).parent}/__pycache__/{Path(path).stem}.cpython-311.pyc"
        if new.get(path) == data and pyc in before:
            expected[pyc] = before[pyc].content
    found = {p: seen.content for p, seen in after.items() if seen.kind == "file" and NEW_INFO not in p}
    assert found == expected
    assert not untrue_records(after)


@given(st.lists(st.binary(max_size=7), max_size=5), st.integers(0, 40), st.integers(0, 40))
def test_ranges_one_after_the_other_read_as_one(parts: list[bytes], offset: int, length: int) -> None:
    whole = b"".join(parts)
    with tempfile.TemporaryFile() as file:
        file.write(b"#".join(parts))
        file.flush()
        at, pieces = 0, []
        for part in parts:
            pieces.append(ByteRange(file.fileno(), at, len(part)))
            at += len(part) + 1
        pieced = PiecedRange(pieces)
        assert (pieced.size, b"".join(pieced.chunks())) == (len(whole), whole)
        assert pieced.read_at(offset, length) == whole[offset : offset + length]
        assert pieced.raw().read(offset) == whole[:offset]
        if offset + length <= len(whole):
            window = pieced.window(offset, length)
            assert window.read_at(0, length) == whole[offset : offset + length]
            assert window.window(0, length // 2).read_at(0, 9) == whole[offset : offset + length // 2][:9]


@pytest.mark.parametrize("executable", [False, True])
def test_who_may_read_a_new_program_may_run_it(executable: bool, tmp_path: Path) -> None:
    import zipfile

    path = cpu_wheel(tmp_path)
    copy = tmp_path / "copy" / path.name
    copy.parent.mkdir()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for info in old.infolist():
            info.external_attr = (0o100755 if executable else 0o100644) << 16
            new.writestr(info, old.read(info))
    with swapping(saved(tmp_path, gpu_image()), f"torch={copy}") as swapped:
        view = merged_view(tars(swapped))
    assert view[f"{SITE}/torch/bin/new/tool"].mode == (0o755 if executable else 0o644)
