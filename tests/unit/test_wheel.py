"""slim_wheel: a smaller wheel that says what it is, and that installers take for what it says."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from deadweight import wheel as module
from deadweight.binary.gpu import Target
from deadweight.errors import BadInputError, EnvironmentFailure, UsageError
from deadweight.files import archive
from deadweight.files import smaller as smaller_module
from deadweight.files.smaller import CheckFailed
from deadweight.files.wheels import labelled
from deadweight.wheel import slim_wheel
from support import elf, hosts
from support.records import records
from support.wheels import DATA, INFO, NAME, make_wheel

H100 = Target((90,))
LAYOUT = hosts.LAYOUTS["library"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return hosts.build(LAYOUT, tmp_path_factory.mktemp("built")).read_bytes()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return elf.library(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def contents(library: bytes, plain: bytes) -> dict[str, bytes]:
    """A wheel's members but for its metadata, in their order."""
    return {
        "gpu_thing/__init__.py": b"__version__ = '2.9.0'\n",
        "gpu_thing/libgpu.so": library,
        "gpu_thing/a,b.so": plain,
        "gpu_thing/empty": b"",
        f"{DATA}/scripts/tool": b"#!python\nprint(42)\n",
        f"{DATA}/data/share/x,y": b"a name with a comma",
        f"{DATA}/platlib/more.so": plain,
    }


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        return {name: file.read(name) for name in file.namelist()}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def test_a_smaller_wheel_with_a_label(tmp_path: Path, index: Path, contents: dict[str, bytes]) -> None:
    path = make_wheel(tmp_path, contents)
    seen: list[tuple[str, int, int]] = []
    found = slim_wheel(path, H100, index, progress=lambda *step: seen.append(step))
    assert found.version == "2.9.0+sm90"
    assert found.wheel == str(index / "gpu_thing-2.9.0+sm90-py3-none-any.whl")
    assert [p.name for p in index.iterdir()] == [Path(found.wheel).name]
    old, new = members(path), members(Path(found.wheel))
    name = {one: one.replace("gpu_thing-2.9.0.", "gpu_thing-2.9.0+sm90.") for one in old}
    assert list(new) == list(name.values())
    changed = {one for one in old if old[one] != new[name[one]]}
    libraries = {"gpu_thing/libgpu.so", "gpu_thing/a,b.so", f"{DATA}/platlib/more.so"}
    assert changed == {*libraries, f"{INFO}/METADATA", f"{INFO}/RECORD"}
    metadata = new["gpu_thing-2.9.0+sm90.dist-info/METADATA"]
    assert metadata == old[f"{INFO}/METADATA"].replace(b"Version: 2.9.0\n", b"Version: 2.9.0+sm90\n")
    assert {file.path for file in found.files} == libraries
    for file in found.files:
        assert (file.before_bytes, file.after_bytes) == (len(old[file.path]), len(new[name[file.path]]))
        assert file.before_bytes - file.after_bytes == file.gpu_code_bytes + file.symbols_bytes
    assert (found.before_bytes, found.after_bytes) == (path.stat().st_size, Path(found.wheel).stat().st_size)
    assert found.installed_before_bytes == sum(map(len, old.values()))
    assert found.installed_after_bytes == found.installed_before_bytes - found.gpu_code_bytes - found.symbols_bytes
    assert (found.left, found.notes) == ([], [])
    assert [step[0] for step in seen if step[1] == step[2]] == ["reading", "writing"]


def test_what_patchelf_left_behind_leaves(tmp_path: Path, index: Path, contents: dict[str, bytes]) -> None:
    patched = elf.patched_library(tmp_path)
    path = make_wheel(tmp_path, {**contents, "gpu_thing/a,b.so": patched})
    found = slim_wheel(path, H100, index)
    assert found.wheel is not None
    file = next(file for file in found.files if file.path == "gpu_thing/a,b.so")
    assert file.leftovers_bytes == found.leftovers_bytes > 40_000
    assert len(patched) - file.after_bytes == file.leftovers_bytes + file.symbols_bytes
    gone = found.gpu_code_bytes + found.symbols_bytes + found.leftovers_bytes
    assert found.installed_after_bytes == found.installed_before_bytes - gone
    with zipfile.ZipFile(found.wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert records(tmp_path / "unpacked") == (set(), 10)
    assert elf.answer_of_library(tmp_path / "unpacked/gpu_thing/a,b.so") == 42
    (tmp_path / "again").mkdir()
    assert slim_wheel(Path(found.wheel), H100, tmp_path / "again").wheel is None


def test_record_is_true_and_else_the_same(tmp_path: Path, index: Path, contents: dict[str, bytes]) -> None:
    path = make_wheel(tmp_path, contents)
    found = slim_wheel(path, H100, index)
    assert found.wheel is not None
    with zipfile.ZipFile(found.wheel) as file:
        file.extractall(tmp_path / "unpacked")
    assert records(tmp_path / "unpacked") == (set(), 10)
    record = (tmp_path / "unpacked/gpu_thing-2.9.0+sm90.dist-info/RECORD").read_text()
    before = members(path)[f"{INFO}/RECORD"].decode().replace("gpu_thing-2.9.0.", "gpu_thing-2.9.0+sm90.")
    same = [one == other for one, other in zip(before.splitlines(), record.splitlines(), strict=True)]
    assert same == [False, True, True, False, False, True, True, True, False, True]
    assert '\n"gpu_thing/a,b.so",sha256=' in record
    assert record.endswith("gpu_thing-2.9.0+sm90.dist-info/RECORD,,\n")


def test_how_members_are_stored_stays(tmp_path: Path, index: Path, contents: dict[str, bytes]) -> None:
    path = make_wheel(tmp_path, {**contents, "gpu_thing/folder/": b"", "gpu_thing/ü.txt": b"u"})
    found = slim_wheel(path, H100, index)
    assert found.wheel is not None
    with zipfile.ZipFile(path) as one, zipfile.ZipFile(found.wheel) as two:
        assert two.comment == b"of the archive"
        for old, new in zip(one.infolist(), two.infolist(), strict=True):
            for field in ("external_attr", "date_time", "compress_type", "create_system", "extra", "comment"):
                assert getattr(new, field) == getattr(old, field), (old.filename, field)
            if (old.CRC, old.file_size) == (new.CRC, new.file_size):
                assert new.compress_size == old.compress_size
    if shutil.which("unzip"):
        done = subprocess.run(["unzip", "-t", found.wheel], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout


def test_two_runs_give_the_same_bytes(tmp_path: Path, index: Path, contents: dict[str, bytes]) -> None:
    path = make_wheel(tmp_path, contents)
    first = slim_wheel(path, H100, index).wheel
    assert first is not None
    data = Path(first).read_bytes()
    assert slim_wheel(path, H100, index, force=True).wheel == first
    assert Path(first).read_bytes() == data


def test_nothing_to_drop_is_no_wheel(tmp_path: Path, index: Path, contents: dict[str, bytes]) -> None:
    path = make_wheel(tmp_path, {"gpu_thing/__init__.py": b""})
    found = slim_wheel(path, H100, index)
    assert found.wheel is None
    assert found.before_bytes == found.after_bytes
    assert list(index.iterdir()) == []
    # Nor is there after it was done once.
    full = tmp_path / "full"
    full.mkdir()
    slim = slim_wheel(make_wheel(full, contents), H100, index).wheel
    assert slim is not None
    (tmp_path / "again").mkdir()
    assert slim_wheel(Path(slim), H100, tmp_path / "again").wheel is None


def test_symbols_can_stay(tmp_path: Path, index: Path, contents: dict[str, bytes]) -> None:
    found = slim_wheel(make_wheel(tmp_path, contents), H100, index, symbols=False)
    assert [file.path for file in found.files] == ["gpu_thing/libgpu.so"]
    assert found.symbols_bytes == 0


def test_the_same_version(tmp_path: Path, index: Path, contents: dict[str, bytes]) -> None:
    path = make_wheel(tmp_path, contents)
    found = slim_wheel(path, H100, index, same_version=True)
    assert found.wheel == str(index / NAME)
    old, new = members(path), members(Path(found.wheel))
    assert list(old) == list(new)
    assert old[f"{INFO}/METADATA"] == new[f"{INFO}/METADATA"]
    with pytest.raises(UsageError, match="never changes"):
        slim_wheel(path, H100, tmp_path, same_version=True, force=True)


def test_signatures_are_left_out(tmp_path: Path, index: Path, contents: dict[str, bytes]) -> None:
    path = make_wheel(tmp_path, {**contents, f"{INFO}/RECORD.jws": b"signed", f"{INFO}/RECORD.p7s": b"signed"})
    found = slim_wheel(path, H100, index)
    assert found.wheel is not None
    assert not [name for name in members(Path(found.wheel)) if name.endswith(("jws", "p7s"))]
    assert b"jws" not in members(Path(found.wheel))["gpu_thing-2.9.0+sm90.dist-info/RECORD"]
    assert len(found.notes) == 2


def test_what_stays_has_its_reason(tmp_path: Path, index: Path, library: bytes, plain: bytes) -> None:
    held = {"gpu_thing/x.o": library, "gpu_thing/libk.so": plain, "gpu_thing/libk.so.hmac": b"0"}
    found = slim_wheel(make_wheel(tmp_path, {**held, "gpu_thing/damaged.so": library[:5000]}), H100, index)
    assert found.wheel is None
    assert [file.path for file in found.left] == ["gpu_thing/x.o", "gpu_thing/libk.so", "gpu_thing/damaged.so"]


# --- versions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "gpus", "expected"),
    [
        ("2.9.0", (90,), "2.9.0+sm90"),
        ("2.9.0", (80, 90), "2.9.0+sm80.sm90"),
        ("2.9.0", (), "2.9.0+nogpu"),
        ("2.9.0+cu128", (90,), "2.9.0+cu128.sm90"),
        ("2.9.0+cu128.sm90", (90,), "2.9.0+cu128.sm90"),
        ("2.9.0+cu128.sm80.sm90", (90,), "2.9.0+cu128.sm90"),
        ("2.9.0+sm80.sm90", (), "2.9.0+nogpu"),
        ("1!2.0rc1.post2.dev3", (120,), "1!2.0rc1.post2.dev3+sm120"),
    ],
)
def test_labels(version: str, gpus: tuple[int, ...], expected: str) -> None:
    new = labelled(Version(version), gpus)
    assert str(new) == expected
    public = Version(version).public
    assert new in SpecifierSet(f"=={public},>={public},<={public}", prereleases=True)


def test_a_wheel_without_gpu_code_is_said_to_be_one() -> None:
    with pytest.raises(UsageError, match="says that the wheel's GPU code is gone: take the original wheel"):
        labelled(Version("2.9.0+nogpu"), (90,))


@pytest.mark.parametrize("version", ["2.9.0+sm80.sm86", "2.9.0+nogpu", "2.9.0+cu128.sm120"])
def test_code_that_an_earlier_run_removed_does_not_come_back(version: str) -> None:
    with pytest.raises(UsageError, match="original wheel"):
        labelled(Version(version), (90,))


def test_names_as_others_write_them(tmp_path: Path, index: Path, contents: dict[str, bytes]) -> None:
    info = "GPU.Thing-2.9.0+cu128.dist-info"
    path = make_wheel(
        tmp_path,
        {name: data for name, data in contents.items() if DATA not in name},
        name="gpu_thing-2.9.0%2Bcu128-1-py2.py3-none-any.whl",
        info=info,
        metadata="Metadata-Version: 2.1\r\nname: GPU.Thing\r\nversion:  2.9+cu128 \r\n\r\nVersion: 7\r\n",
    )
    with pytest.raises(BadInputError, match="METADATA is of another version"):
        slim_wheel(
            make_wheel(tmp_path, contents, metadata="Metadata-Version: 2.1\nName: gpu-thing\nVersion: 3\n"), H100, index
        )
    found = slim_wheel(path, H100, index)
    assert found.wheel == str(index / "gpu_thing-2.9.0+cu128.sm90-1-py2.py3-none-any.whl")
    new = members(Path(found.wheel))
    metadata = new["GPU.Thing-2.9.0+cu128.sm90.dist-info/METADATA"]
    assert metadata.endswith(b"version:  2.9.0+cu128.sm90 \r\n\r\nVersion: 7\r\n")


# --- what is no sound wheel ----------------------------------------------------------------------------


def rezip(path: Path, edit: Callable[[list[tuple[zipfile.ZipInfo, bytes]]], None]) -> None:
    """Writes a wheel anew with other members."""
    with zipfile.ZipFile(path) as file:
        pairs = [(info, file.read(info)) for info in file.infolist()]
    edit(pairs)
    path.unlink()
    with zipfile.ZipFile(path, "w") as file:
        for info, data in pairs:
            file.writestr(info, data)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a\\..\\b", "C:/x", "c:x", "", "a/./b"],
)
def test_members_that_lead_elsewhere_are_refused(name: str, tmp_path: Path, index: Path) -> None:
    path = make_wheel(tmp_path, {"gpu_thing/__init__.py": b""})
    rezip(path, lambda pairs: pairs.append((zipfile.ZipInfo(name), b"")))
    with pytest.raises(BadInputError, match="a name that no wheel should have"):
        slim_wheel(path, H100, index)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["gpu_thing/__init__.py", "gpu_thing/__init__.py/", f"{INFO}/RECORD"])
def test_two_members_of_one_name_are_refused(name: str, tmp_path: Path, index: Path) -> None:
    path = make_wheel(tmp_path, {"gpu_thing/__init__.py": b""})
    rezip(path, lambda pairs: pairs.append((zipfile.ZipInfo(name), b"")))
    with pytest.raises(BadInputError, match="two members"):
        slim_wheel(path, H100, index)


def test_members_that_would_become_one_are_refused(tmp_path: Path, index: Path, contents: dict[str, bytes]) -> None:
    path = make_wheel(tmp_path, {**contents, "gpu_thing-2.9.0+sm90.data/scripts/tool": b""})
    with pytest.raises(BadInputError, match="two members"):
        slim_wheel(path, H100, index)
    assert list(index.iterdir()) == []


def damaged(data: bytes, what: str) -> bytes:
    """A wheel's bytes with something wrong."""
    at = data.index(b"PK\3\4")
    directory = data.index(b"PK\1\2")
    if what == "cut":
        return data[: len(data) // 2]
    if what == "encrypted":
        return data[: directory + 8] + b"\1\0" + data[directory + 10 :]
    if what == "method":
        return data[: directory + 10] + b"\14\0" + data[directory + 12 :]
    if what == "name":
        return data[: at + 30] + b"!" + data[at + 31 :]
    if what == "size":
        return data[: directory + 20] + struct.pack("<I", 1 << 30) + data[directory + 24 :]
    if what == "content":
        middle = data.index(b"first.so") + 3000
        return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
    return b"no zip file"


@pytest.mark.parametrize("what", ["cut", "encrypted", "method", "name", "size", "content", "else"])
def test_damaged_archives_are_refused(what: str, tmp_path: Path, index: Path, contents: dict[str, bytes]) -> None:
    path = make_wheel(tmp_path, {"first.so": contents["gpu_thing/libgpu.so"], **contents})
    data = path.read_bytes()
    path.write_bytes(damaged(data, what))
    with pytest.raises(BadInputError):
        slim_wheel(path, H100, index)
    assert list(index.iterdir()) == []


def test_members_that_overlap_are_refused(tmp_path: Path, index: Path) -> None:
    inner = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 5, 0) + b"inner"  # an empty file
    path = make_wheel(tmp_path, {"gpu_thing/__init__.py": b""})
    rezip(path, lambda pairs: pairs.extend([(zipfile.ZipInfo("outer"), inner), (zipfile.ZipInfo("inner"), b"")]))
    data = path.read_bytes()
    entry = data.rindex(b"PK\1\2")
    assert data[entry + 46 :].startswith(b"inner")
    path.write_bytes(data[: entry + 42] + struct.pack("<I", data.index(inner)) + data[entry + 46 :])
    with zipfile.ZipFile(path) as file:  # not read: newer zipfile modules refuse it too
        outer, last = file.infolist()[-2:]
        begins = outer.header_offset + 30 + len("outer")
        assert (last.header_offset, data[begins : begins + outer.file_size]) == (begins, inner)
    with pytest.raises(BadInputError, match="overlap"):
        slim_wheel(path, H100, index)


class Pipe:
    """A file that cannot be sought in, so that sizes follow the contents of members."""

    def __init__(self, file: BinaryIO) -> None:
        self.write, self.flush = file.write, file.flush


def test_members_with_their_sizes_behind_them(tmp_path: Path, index: Path, contents: dict[str, bytes]) -> None:
    path = make_wheel(tmp_path, contents)
    (tmp_path / "piped").mkdir()
    piped = tmp_path / "piped" / NAME
    with zipfile.ZipFile(path) as source, piped.open("wb") as file, zipfile.ZipFile(Pipe(file), "w") as target:  # type: ignore[call-overload]
        for info in source.infolist():
            target.writestr(info, source.read(info))
    with zipfile.ZipFile(piped) as written:
        assert all(info.flag_bits & 8 for info in written.infolist())
    found = slim_wheel(piped, H100, index)
    assert found.wheel is not None
    with zipfile.ZipFile(found.wheel) as written:
        assert not any(info.flag_bits & 8 for info in written.infolist())
    new = members(Path(found.wheel))
    slim_wheel(path, H100, index, force=True)
    assert new == members(Path(found.wheel))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpu_thing-2.9.0.zip", "no name of a wheel"),
        ("gpu_thing-2.9.0.whl", "no name of a wheel"),
        ("other-2.9.0-py3-none-any.whl", "of something else"),
        ("gpu_thing-2.9.1-py3-none-any.whl", "of something else"),
    ],
)
def test_names_that_fit_nothing_are_refused(name: str, said: str, tmp_path: Path, index: Path) -> None:
    path = make_wheel(tmp_path, {"gpu_thing/__init__.py": b""}, name=name)
    with pytest.raises(BadInputError, match=said):
        slim_wheel(path, H100, index)


@pytest.mark.parametrize("lost", ["METADATA", "RECORD", "dist-info", "second"])
def test_missing_metadata_is_refused(lost: str, tmp_path: Path, index: Path) -> None:
    path = make_wheel(tmp_path, {"gpu_thing/__init__.py": b""})

    def edit(pairs: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
        if lost == "second":
            pairs.append((zipfile.ZipInfo("other-1.dist-info/METADATA"), b""))
        else:
            pairs[:] = [pair for pair in pairs if lost not in pair[0].filename]

    rezip(path, edit)
    with pytest.raises(BadInputError, match=r"dist-info"):
        slim_wheel(path, H100, index)


@pytest.mark.parametrize(
    "edit", [lambda text: text.replace("sha256=", "sha256=A", 1), lambda t: re.sub(r",\d+\n", ",1\n", t)]
)
def test_a_record_that_is_not_true_is_refused(
    edit: Callable[[str], str], tmp_path: Path, index: Path, contents: dict[str, bytes]
) -> None:
    path = make_wheel(tmp_path, contents, edit_record=edit)
    with pytest.raises(BadInputError, match="RECORD says"):
        slim_wheel(path, H100, index)
    assert list(index.iterdir()) == []


# --- destinations --------------------------------------------------------------------------------------


def test_wheels_are_not_replaced_unless_forced(tmp_path: Path, index: Path, contents: dict[str, bytes]) -> None:
    path = make_wheel(tmp_path, contents)
    there = index / "gpu_thing-2.9.0+sm90-py3-none-any.whl"
    there.write_bytes(b"mine")
    with pytest.raises(UsageError, match="--force"):
        slim_wheel(path, H100, index)
    assert there.read_bytes() == b"mine"
    assert slim_wheel(path, H100, index, force=True).wheel == str(there)
    with pytest.raises(UsageError, match="create it first"):
        slim_wheel(path, H100, tmp_path / "none")
    with pytest.raises(BadInputError, match="cannot read"):
        slim_wheel(tmp_path / "no-1-py3-none-any.whl", H100, index)


@pytest.mark.parametrize("where", ["contents", "archive"])
def test_nothing_stays_where_there_is_no_space(
    where: str, tmp_path: Path, index: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_wheel(tmp_path, contents)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_shrink" if where == "contents" else "_verify", full)
    with pytest.raises(EnvironmentFailure, match="no space"):
        slim_wheel(path, H100, index)
    assert list(index.iterdir()) == []


def test_what_fails_its_check_stays(
    tmp_path: Path, index: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_wheel(tmp_path, contents)
    real = smaller_module.check_rewritten

    def refuse(read: object, smaller: object, *rest: object) -> None:
        if smaller.gpu_code:  # type: ignore[attr-defined]
            raise CheckFailed("it is not what it should be")
        real(read, smaller, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "check_rewritten", refuse)
    found = slim_wheel(path, H100, index)
    assert found.wheel is not None
    assert [(file.path, file.reason) for file in found.left] == [("gpu_thing/libgpu.so", "it is not what it should be")]
    assert members(Path(found.wheel))["gpu_thing/libgpu.so"] == contents["gpu_thing/libgpu.so"]


def test_what_was_written_is_read_again(
    tmp_path: Path, index: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_wheel(tmp_path, contents)
    real = archive.write_archive

    def write(file: object, new: list[archive.NewMember], comment: bytes) -> None:
        swapped = [m._replace(content=lambda: [b"\0" * 7]) if m.content and "libgpu" in m.name else m for m in new]
        real(file, swapped, comment)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "write_archive", write)
    with pytest.raises(EnvironmentFailure, match="something else"):
        slim_wheel(path, H100, index)
    assert list(index.iterdir()) == []


@pytest.mark.parametrize(("most32", "most16"), [(1, 0xFFFF), (1000, 0xFFFF), (100_000, 0xFFFF), (0xFFFFFFFF, 3)])
def test_large_archives(
    most32: int, most16: int, tmp_path: Path, index: Path, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the limits of the old format lowered, archives are written as those beyond 4 GiB or 65,535 members."""
    path = make_wheel(tmp_path, contents)
    ordinary = slim_wheel(path, H100, index).wheel
    assert ordinary is not None
    monkeypatch.setattr(archive, "_MOST32", most32)
    monkeypatch.setattr(archive, "_MOST16", most16)
    (tmp_path / "large").mkdir()
    large = slim_wheel(path, H100, tmp_path / "large").wheel
    assert large is not None
    assert b"PK\6\7" in Path(large).read_bytes()
    with zipfile.ZipFile(large) as file:
        extended = [info for info in file.infolist() if info.extra.startswith(b"\1\0")]
        assert bool(extended) == (most32 < 0xFFFFFFFF)
    assert members(Path(large)) == members(Path(ordinary))
    if shutil.which("unzip"):
        done = subprocess.run(["unzip", "-t", large], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout
    monkeypatch.undo()
    again = tmp_path / "again"
    again.mkdir()
    # Members of such an archive are copied with sizes as they are.
    Path(large).rename(tmp_path / "large" / NAME.replace("2.9.0", "2.9.0+sm90"))
    assert slim_wheel(tmp_path / "large" / NAME.replace("2.9.0", "2.9.0+sm90"), Target(()), again).wheel


# --- installers ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
    return folder


CHECK = """
import ctypes, importlib.metadata, json, pathlib, gpu_thing
folder = pathlib.Path(gpu_thing.__file__).parent
library = ctypes.CDLL(str(folder / "libgpu.so"))
library.gpu_checksum.restype = ctypes.c_long
print(json.dumps([importlib.metadata.version("gpu-thing"), library.gpu_checksum(), library.answer(), str(folder)]))
"""


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_installers_take_it(
    installer: str, environment: Path, tmp_path: Path, index: Path, contents: dict[str, bytes]
) -> None:
    python = str(environment / "bin/python")
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if installer == "pip":
        install = [python, "-m", "pip", "install", "--disable-pip-version-check", "--force-reinstall"]
    elif uv is None:
        pytest.skip("there is no uv")
    else:  # without its cache, in which another wheel of this name and version may be
        install = [uv, "pip", "install", "--no-cache", "--reinstall", "--python", python]
    install += ["--no-index", "--find-links", str(index)]
    found = slim_wheel(make_wheel(tmp_path, contents), H100, index)
    assert found.wheel is not None
    assert subprocess.run([*install, "gpu-thing===2.9.0"], check=False, capture_output=True).returncode != 0
    done = subprocess.run([*install, "gpu-thing==2.9.0"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(subprocess.run([python, "-c", CHECK], check=True, capture_output=True).stdout)
    version, checksum, answer, folder = told
    new = members(Path(found.wheel))["gpu_thing/libgpu.so"]
    assert (version, checksum, answer) == ("2.9.0+sm90", *hosts.expected(new, LAYOUT))
    wrong, lines = records(Path(folder).parent)
    assert not [each for each in wrong if "gpu_thing" in each]
    assert lines > 9
    assert subprocess.run([environment / "bin/tool"], check=True, capture_output=True, text=True).stdout == "42\n"


@pytest.mark.slow
def test_a_real_wheel(environment: Path, tmp_path: Path, index: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(tmp_path)]
    subprocess.run([*command, "nvidia-curand-cu12==10.3.9.90"], check=True)
    (path,) = tmp_path.glob("*.whl")
    found = slim_wheel(path, Target((90,), keep_ptx=False), index)
    assert found.installed_before_bytes > 130_000_000
    assert found.installed_after_bytes < 60_000_000
    python = str(environment / "bin/python")
    install = [python, "-m", "pip", "install", "-q", "--no-index", "--find-links", str(index)]
    subprocess.run([*install, "nvidia-curand-cu12==10.3.9.90"], check=True)
    load = "import ctypes, nvidia.curand.lib as lib; ctypes.CDLL(lib.__path__[0] + '/libcurand.so.10')"
    subprocess.run([python, "-c", load], check=True)
    site = next((environment / "lib").glob("python3*/site-packages"))
    assert not [each for each in records(site)[0] if "curand" in each]
