"""prune_tree: files shrink in place, whole or not at all, and everything that is said about them stays true."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from deadweight.binary.gpu import Target
from deadweight.binary.target_document import IN_DIRECTORY
from deadweight.errors import BadInputError, UsageError
from deadweight.files import pool
from deadweight.prune import Pruned, prune_tree
from support import elf, hosts
from support.fatbins import assorted, fatbin, sm
from support.records import records
from support.sites import LAYOUT, add_record, build_libraries, contents, make_site, snapshot, temporary_files

H100 = Target((90,))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_libraries(tmp_path_factory.mktemp("built"))


@pytest.fixture
def site(tmp_path: Path, built: Path) -> Path:
    return make_site(tmp_path, built)


def test_libraries_shrink_and_work_as_before(site: Path) -> None:
    before = contents(site)
    seen: list[tuple[str, int, int]] = []
    pruned = prune_tree(site, H100, check_load=True, progress=lambda *step: seen.append(step))
    after = contents(site)
    assert [file.path for file in pruned.files] == ["one/libgpu.so", "one/a,b.so", "two/c.so"]
    for file in pruned.files:
        assert (file.before_bytes, file.after_bytes) == (len(before[file.path]), len(after[file.path]))
        assert file.before_bytes - file.after_bytes == file.gpu_code_bytes + file.symbols_bytes
        assert file.symbols_bytes > 4096
        assert (file.gpu_code_bytes > 200_000) == (file.path == "one/libgpu.so")
    assert [file.distribution for file in pruned.files] == ["one", "one", "two"]
    assert pruned.before_bytes == sum(map(len, before.values()))
    assert pruned.after_bytes == pruned.before_bytes - pruned.gpu_code_bytes - pruned.symbols_bytes
    library = site / "one/libgpu.so"
    assert hosts.run(library, LAYOUT) == hosts.expected(library.read_bytes(), LAYOUT)
    assert elf.answer_of_library(site / "two/c.so") == 42
    assert after["one/bare.so"] == before["one/bare.so"]
    assert (pruned.left, pruned.notes) == ([], [])
    assert records(site) == (set(), 9)
    assert seen[-1] == ("pruning", seen[-1][2], seen[-1][2])
    assert temporary_files(site) == []


def test_a_second_run_changes_nothing(site: Path) -> None:
    prune_tree(site, H100)
    before = snapshot(site)
    again = prune_tree(site, H100)
    assert snapshot(site) == before
    assert (again.files, again.before_bytes) == ([], again.after_bytes)


def test_a_dry_run_says_the_same_and_writes_nothing(site: Path) -> None:
    before = snapshot(site)
    dry = prune_tree(site, H100, dry_run=True, check_load=True)
    assert snapshot(site) == before
    real = prune_tree(site, H100)
    assert (dry.files, dry.left, dry.before_bytes, dry.after_bytes) == (
        real.files,
        real.left,
        real.before_bytes,
        real.after_bytes,
    )


def test_several_processes_do_the_same(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    shutil.copytree(site, other)
    one = prune_tree(site, H100, workers=1)
    monkeypatch.setattr(pool, "WORTH_PROCESSES", 0)
    two = prune_tree(other, H100, workers=2)
    assert contents(site) == contents(other)
    assert one.files == two.files


def test_symbols_alone_or_gpu_code_alone(site: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(site, other)
    symbols = prune_tree(site, None)
    assert (symbols.gpu_code_bytes, symbols.gpus) == (0, None)
    assert len(symbols.files) == 3
    assert not (site / IN_DIRECTORY).exists()
    code = prune_tree(other, H100, symbols=False)
    assert [file.path for file in code.files] == ["one/libgpu.so"]
    assert code.symbols_bytes == 0
    # In two steps it comes to the same.
    prune_tree(site, H100)
    prune_tree(other, H100)
    assert contents(site) == contents(other)


@pytest.mark.parametrize("symbols", [True, False])
def test_what_patchelf_left_behind_leaves(site: Path, tmp_path: Path, symbols: bool) -> None:
    patched = site / "one/a,b.so"
    patched.write_bytes(elf.patched_library(tmp_path))
    add_record(site, "one", "one/libgpu.so", "one/a,b.so", "one/bare.so", "one/__init__.py")
    before = patched.stat().st_size
    dry = prune_tree(site, None, symbols=symbols, dry_run=True)
    pruned = prune_tree(site, None, symbols=symbols, check_load=True)
    assert (dry.files, dry.after_bytes) == (pruned.files, pruned.after_bytes)
    found = {file.path: file for file in pruned.files}
    assert len(found) == (3 if symbols else 1)
    file = found["one/a,b.so"]
    assert file.leftovers_bytes > 40_000
    assert (file.symbols_bytes > 0) == symbols == (b".symtab" not in patched.read_bytes())
    assert (file.before_bytes, file.after_bytes) == (before, patched.stat().st_size)
    assert before - file.after_bytes == file.leftovers_bytes + file.symbols_bytes
    assert (pruned.leftovers_bytes, pruned.left) == (file.leftovers_bytes, [])
    assert pruned.after_bytes == pruned.before_bytes - pruned.leftovers_bytes - pruned.symbols_bytes
    assert elf.answer_of_library(patched) == 42
    assert records(site) == (set(), 9)
    now = snapshot(site)
    assert prune_tree(site, None, symbols=symbols).files == []
    assert snapshot(site) == now


def test_without_gpus_all_gpu_code_leaves(site: Path) -> None:
    pruned = prune_tree(site, Target(()))
    assert pruned.gpus == []
    library = site / "one/libgpu.so"
    assert hosts.run(library, LAYOUT) == hosts.expected(library.read_bytes(), LAYOUT)
    assert json.loads((site / IN_DIRECTORY).read_bytes())["gpus"] == []


def test_metadata_of_files_stay(site: Path) -> None:
    library = site / "two/c.so"
    library.chmod(0o2751)
    if os.geteuid() == 0:
        os.chown(library, 1234, 4321)
        library.chmod(0o2751)
    os.utime(library, ns=(10**18 + 7, 10**18 + 9))
    try:
        os.setxattr(library, "user.note", b"kept")
    except OSError:
        pytest.skip("a file system without extended attributes")
    before = library.stat()
    prune_tree(site, H100)
    after = library.stat()
    assert after.st_ino != before.st_ino
    for field in ("st_mode", "st_uid", "st_gid", "st_mtime_ns"):
        assert getattr(after, field) == getattr(before, field), field
    assert os.getxattr(library, "user.note") == b"kept"


def test_the_bits_of_an_owner_that_cannot_be_kept_go(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / "two/c.so").chmod(0o6755)

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "fchown", refuse)
    prune_tree(site, H100)
    assert (site / "two/c.so").stat().st_mode & 0o7777 == 0o755


def test_libraries_for_other_machines(tmp_path: Path) -> None:
    path = hosts.build_arm64(hosts.ARM64["library"], tmp_path)
    pruned: Pruned = prune_tree(tmp_path, H100, check_load=True)
    assert path.name in [file.path for file in pruned.files if file.gpu_code_bytes > 150_000]


# --- RECORD --------------------------------------------------------------------------------------------


def test_only_the_lines_of_changed_files_change(site: Path) -> None:
    record = site / "one-1.0.dist-info/RECORD"
    before = record.read_bytes().split(b"\r\n")
    mode = record.stat().st_mode
    prune_tree(site, H100)
    after = record.read_bytes().split(b"\r\n")
    assert [b == a for b, a in zip(before, after, strict=True)] == [False, False, True, True, True, True, True]
    assert after[1].startswith(b'"one/a,b.so",sha256=')
    assert record.stat().st_mode == mode


def test_what_lies_outside_the_site_or_the_directory(site: Path, tmp_path: Path) -> None:
    env = tmp_path / "env"
    (env / "bin").mkdir()
    (env / "lib64").symlink_to("lib")
    shutil.copy(site / "two/c.so", env / "bin/tool")
    shutil.copy(site / "two/c.so", tmp_path / "elsewhere.so")
    linked = "../../../lib64/python3.12/site-packages/two/c.so"
    record = add_record(site, "three", "../../../bin/tool", linked, "../../../../elsewhere.so")
    assert records(env)[0] == set()
    inside = prune_tree(site, H100)
    # The environment's bin is no part of site-packages: the line of the tool stays as it is, and is true.
    assert records(env)[0] == set()
    assert [file.path for file in inside.files].count("two/c.so") == 1
    pruned = prune_tree(env, H100)
    assert [file.path for file in pruned.files] == ["bin/tool"]
    assert records(env)[0] == set()
    assert record.read_bytes().count(f",{(env / 'bin/tool').stat().st_size}\r\n".encode()) == 2
    assert (tmp_path / "elsewhere.so").read_bytes() != (env / "bin/tool").read_bytes()


@pytest.mark.parametrize("wrong", ["hash", "size", "both"])
def test_a_line_that_did_not_match_is_not_made_to(wrong: str, site: Path) -> None:
    record = site / "two-1.0.dist-info/RECORD"
    text = record.read_text()
    if wrong == "both":
        with (site / "two/c.so").open("ab") as file:
            file.write(bytes(8))  # as by a tool that pads
    else:
        size = str((site / "two/c.so").stat().st_size)
        record.write_text(text.replace(*(("sha256=", "sha256=A") if wrong == "hash" else (f",{size}", f",{size}1")), 1))
    before = record.read_bytes()
    pruned = prune_tree(site, H100)
    assert record.read_bytes() == before
    assert pruned.notes == ["1 file did not match RECORD before, so it stays as it is there: two/c.so"]
    assert prune_tree(site, H100).notes == []


def test_other_hashes_and_missing_fields(site: Path) -> None:
    add_record(site, "two", "two/c.so", algorithm="sha512", end="\n")
    assert b"sha512=" in (site / "two-1.0.dist-info/RECORD").read_bytes()
    prune_tree(site, H100)
    assert records(site)[0] == set()
    assert b"two/c.so,sha256=" in (site / "two-1.0.dist-info/RECORD").read_bytes()


def test_odd_lines(site: Path) -> None:
    (site / "four-1.dist-info").mkdir()
    record = site / "four-1.dist-info/RECORD"
    size = (site / "two/c.so").stat().st_size
    record.write_text(
        f'two/c.so,,\n./two/../two/c.so,,{size}\n\ntwo/c.so\n/two/c.so,,\n\0,,\n../../../../../../..,,\n"'
    )
    before = record.read_text()
    prune_tree(site, H100)
    assert record.read_text() == before.replace(str(size), str((site / "two/c.so").stat().st_size))


def test_a_directory_inside_a_site_is_said_to_be_one(site: Path) -> None:
    pruned = prune_tree(site / "one", H100)
    assert len(pruned.notes) == 1
    assert pruned.notes[0].endswith(f"prune {site}")
    assert pruned.files[0].distribution == ""


# --- links and special files ---------------------------------------------------------------------------


def test_hard_links_inside_stay_together(site: Path) -> None:
    (site / "deep").mkdir()
    library = site / "two/c.so"
    others = [site / "deep/d.so", site / "e.so"]
    for other in others:
        other.hardlink_to(library)
    old = library.stat().st_ino
    pruned = prune_tree(site, H100)
    assert {path.stat().st_ino for path in (library, *others)} != {old}
    assert len({path.stat().st_ino for path in (library, *others)}) == 1
    assert library.stat().st_nlink == 3
    assert next(file for file in pruned.files if file.path == "two/c.so" or "two/c.so" in file.links)
    assert sum(1 + len(file.links) for file in pruned.files) == 5
    assert pruned.before_bytes - pruned.after_bytes == sum(f.before_bytes - f.after_bytes for f in pruned.files)
    assert records(site)[0] == set()
    before = snapshot(site)
    prune_tree(site, H100)
    assert snapshot(site) == before


def test_a_cache_with_the_same_inodes_is_never_written_through(site: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for number, path in enumerate(site.rglob("*")):
        if path.is_file():
            (cache / f"{number}-{path.name}").hardlink_to(path)
    before = contents(cache)
    library, twin = site / "two/c.so", site / "twin.so"
    twin.hardlink_to(library)
    pruned = prune_tree(site, H100)
    assert contents(cache) == before
    assert library.stat().st_ino == twin.stat().st_ino
    assert library.stat().st_nlink == 2
    assert any("names outside the directory" in note for note in pruned.notes)
    assert records(site)[0] == set()


def test_symbolic_links_are_not_followed(site: Path, tmp_path: Path, built: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(built, cache)
    (site / "five").mkdir()
    (site / "five/gpu.so").symlink_to(cache / "gpu.so")
    (site / "six").symlink_to(cache)
    (site / "seven.so").symlink_to("one/libgpu.so")
    (site / "loop").symlink_to("loop")
    before = snapshot(cache)
    shortcut = tmp_path / "shortcut"
    shortcut.symlink_to(site)
    pruned = prune_tree(shortcut, H100)
    assert snapshot(cache) == before
    assert pruned.directory == str(site)
    assert len(pruned.files) == 3
    assert (site / "five/gpu.so").is_symlink()
    (note,) = pruned.notes
    assert note.startswith("2 symbolic links out of the directory not followed")
    assert "--link-mode copy" in note
    assert note.endswith("five/gpu.so, six")


def test_special_files_and_odd_names(site: Path, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(site / "pipe.so")
    monkeypatch.chdir(site)  # a socket's whole path may be too long for it
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.so")
        odd = os.fsencode(site) + b"/\xff\n.so"
        shutil.copy(os.fsencode(built / "plain.so"), odd)
        pruned = prune_tree(site, H100)
    assert len(pruned.files) == 4
    assert Path(os.fsdecode(odd)).stat().st_size < (built / "plain.so").stat().st_size


def test_where_everything_is_a_link_nothing_is_declared(tmp_path: Path, built: Path) -> None:
    (tmp_path / "gpu.so").symlink_to(built / "gpu.so")
    assert len(prune_tree(tmp_path, H100).notes) == 1
    assert not (tmp_path / IN_DIRECTORY).exists()


@pytest.mark.parametrize(
    ("name", "beside", "reason"),
    [
        ("x.o", "", "an object file, which its symbols belong to"),
        ("lib/modules/x.so", "", "a kernel module"),
        ("libx.so.1.2", ".libx.so.1.hmac", "a file with its checksum beside it"),
    ],
)
def test_what_depends_on_its_bytes_stays(name: str, beside: str, reason: str, tmp_path: Path, built: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(built / "gpu.so", path)
    if beside:
        (path.parent / beside).write_text("0")
    (tmp_path / "zz.so").hardlink_to(path)
    pruned = prune_tree(tmp_path, H100)
    assert pruned.files == []
    assert [(file.path, file.what, file.reason) for file in pruned.left] == [(name, "file", reason)]


def test_what_cannot_be_done_is_said(tmp_path: Path, built: Path) -> None:
    (tmp_path / "damaged.so").write_bytes((built / "gpu.so").read_bytes()[:5000])
    (tmp_path / "text.so").write_text("no program" * 100)
    cubin = bytearray((built / "bare.so").read_bytes())
    cubin[18:20] = (190).to_bytes(2, "little")
    (tmp_path / "kernel").write_bytes(cubin)
    pruned = prune_tree(tmp_path, H100)
    assert [(file.path, file.what) for file in pruned.left] == [("damaged.so", "file"), ("kernel", "file")]
    assert pruned.left[0].bytes == 5000
    # A file with nothing for the GPU keeps its GPU code, and loses its symbols.
    newer = tmp_path / "newer"
    newer.mkdir()
    path = hosts.build(LAYOUT, newer, [assorted()[6]])
    pruned = prune_tree(path.parent, H100)
    assert [(file.what, file.reason) for file in pruned.left if file.path == path.name] == [
        ("gpu code", "nothing in it for sm_90")
    ]
    assert [file.gpu_code_bytes for file in pruned.files if file.path == path.name] == [0]


def test_gpus_that_find_nothing_are_named(tmp_path: Path) -> None:
    path = hosts.build(LAYOUT, tmp_path, [fatbin(sm(70), sm(80)), fatbin(sm(80), sm(86))])
    said = f"nothing in it for sm_60, before or after: {path.name}"
    assert said in prune_tree(tmp_path, Target((60, 80)), dry_run=True).notes
    assert said not in prune_tree(tmp_path, Target((80,)), dry_run=True).notes


# --- what was declared ---------------------------------------------------------------------------------


def test_the_target_is_written_down(site: Path) -> None:
    prune_tree(site, Target((80, 90)))
    document = json.loads((site / IN_DIRECTORY).read_bytes())
    assert document.pop("deadweight")
    assert document == {
        "schema": "deadweight.target/1",
        "gpus": ["sm_80", "sm_90"],
        "keep_ptx": True,
        "raw_blobs": False,
    }


def test_a_later_run_may_only_narrow_it_down(site: Path) -> None:
    prune_tree(site, Target((80, 90), keep_ptx=False))
    for target, said in (
        (Target((75, 90), keep_ptx=False), "sm_80, sm_90 alone"),
        (H100, "--drop-ptx"),
    ):
        before = snapshot(site)
        with pytest.raises(UsageError, match=said):
            prune_tree(site, target)
        assert snapshot(site) == before
    prune_tree(site, None)
    assert json.loads((site / IN_DIRECTORY).read_bytes())["gpus"] == ["sm_80", "sm_90"]
    prune_tree(site, Target((90,), keep_ptx=False))
    assert json.loads((site / IN_DIRECTORY).read_bytes())["gpus"] == ["sm_90"]
    prune_tree(site, Target((), keep_ptx=True))
    assert json.loads((site / IN_DIRECTORY).read_bytes())["gpus"] == []
    with pytest.raises(UsageError, match="machines without a GPU alone"):
        prune_tree(site, H100)


def test_what_was_declared_further_down_counts_and_follows(site: Path, tmp_path: Path) -> None:
    prune_tree(site, Target((80, 90)))
    with pytest.raises(UsageError, match="sm_80, sm_90 alone"):
        prune_tree(tmp_path / "env", Target((75,)))
    prune_tree(tmp_path / "env", H100)
    for folder in (site, tmp_path / "env"):
        assert json.loads((folder / IN_DIRECTORY).read_bytes())["gpus"] == ["sm_90"]


def test_raw_blobs_that_left_stay_said(site: Path) -> None:
    prune_tree(site, Target((90,), raw_blobs=True))
    prune_tree(site, H100)
    assert json.loads((site / IN_DIRECTORY).read_bytes())["raw_blobs"] is True


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema": "deadweight.target/1"}',
        '{"schema": "x/9", "gpus": [], "keep_ptx": true, "raw_blobs": true, "deadweight": "1"}',
        '{"schema": "deadweight.target/1", "gpus": ["h1"], "keep_ptx": true, "raw_blobs": true, "deadweight": "1"}',
    ],
)
def test_a_damaged_declaration_is_refused(text: str, site: Path) -> None:
    (site / IN_DIRECTORY).write_text(text)
    before = snapshot(site)
    with pytest.raises(BadInputError, match=IN_DIRECTORY):
        prune_tree(site, H100)
    assert snapshot(site) == before


def test_an_unchanged_declaration_is_not_rewritten_for_its_version(site: Path) -> None:
    prune_tree(site, H100)
    path = site / IN_DIRECTORY
    path.write_text(path.read_text().replace('"deadweight":"', '"deadweight":"0'))
    before = snapshot(site)
    prune_tree(site, H100)
    assert snapshot(site) == before
