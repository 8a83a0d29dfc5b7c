"""prune_tree: files shrink in place, whole or not at all, and everything that is said about them stays true."""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from deadweight import prune
from deadweight.binary import elf as elf_format
from deadweight.binary.gpu import Target
from deadweight.binary.loadcheck import LoadError
from deadweight.errors import BadInputError, EnvironmentFailure, UsageError
from deadweight.files import pool, prepare, replace
from deadweight.files.declared import FILE_NAME
from deadweight.files.records import JOURNAL
from deadweight.files.smaller import CheckFailed
from deadweight.prune import Pruned, prune_tree
from support import elf, hosts
from support.fatbins import assorted
from support.records import records

H100 = Target((90,))
LAYOUT = hosts.LAYOUTS["library"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with GPU code and symbols, one with symbols alone, and one with neither."""
    folder = tmp_path_factory.mktemp("built")
    hosts.build(LAYOUT, folder).rename(folder / "gpu.so")
    (folder / "plain.so").write_bytes(elf.library(folder))
    elf.gcc(folder, "bare.so", "int answer;", "-shared", "-fPIC", "-s")
    return folder


@pytest.fixture
def site(tmp_path: Path, built: Path) -> Path:
    """A site-packages directory with two distributions, in an environment of its own."""
    site = tmp_path / "env/lib/python3.12/site-packages"
    for name, source in {
        "one/libgpu.so": "gpu.so",
        "one/a,b.so": "plain.so",
        "one/bare.so": "bare.so",
        "two/c.so": "plain.so",
    }.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(built / source, site / name)
    (site / "one/__init__.py").write_text("import two\n")
    add_record(site, "one", "one/libgpu.so", "one/a,b.so", "one/bare.so", "one/__init__.py")
    add_record(site, "two", "two/c.so")
    return site


def add_record(site: Path, name: str, *files: str, algorithm: str = "sha256", end: str = "\r\n") -> Path:
    """The RECORD of a distribution; names with commas are quoted."""
    record = site / f"{name}-1.0.dist-info/RECORD"
    record.parent.mkdir(parents=True, exist_ok=True)
    (site / name).mkdir(exist_ok=True)
    (site / name / "x.pyc").write_bytes(b"")
    lines = []
    for each in files:
        data = (site / each).read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).rstrip(b"=").decode()
        listed = f'"{each}"' if "," in each else each
        lines.append(f"{listed},{algorithm}={digest},{len(data)}{end}")
    with record.open("w", newline="") as file:
        file.write("".join(lines) + f"{name}/x.pyc,,{end}{name}-1.0.dist-info/RECORD,,{end}")
    return record


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """All there is to know of every file below a directory."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_mode, content)
    return found


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def temporary_files(root: Path) -> list[str]:
    return [p.name for p in root.rglob(".deadweight-*.tmp")]


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
    assert not (site / FILE_NAME).exists()
    code = prune_tree(other, H100, symbols=False)
    assert [file.path for file in code.files] == ["one/libgpu.so"]
    assert code.symbols_bytes == 0
    # In two steps it comes to the same.
    prune_tree(site, H100)
    prune_tree(other, H100)
    assert contents(site) == contents(other)
    with pytest.raises(UsageError, match="nothing to do"):
        prune_tree(site, None, symbols=False)


def test_without_gpus_all_gpu_code_leaves(site: Path) -> None:
    pruned = prune_tree(site, Target(()))
    assert pruned.gpus == []
    library = site / "one/libgpu.so"
    assert hosts.run(library, LAYOUT) == hosts.expected(library.read_bytes(), LAYOUT)
    assert json.loads((site / FILE_NAME).read_bytes())["gpus"] == []


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


def test_special_files_and_odd_names(site: Path, built: Path) -> None:
    os.mkfifo(site / "pipe.so")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(site / "socket.so"))
        odd = os.fsencode(site) + b"/\xff\n.so"
        shutil.copy(os.fsencode(built / "plain.so"), odd)
        pruned = prune_tree(site, H100)
    assert len(pruned.files) == 4
    assert Path(os.fsdecode(odd)).stat().st_size < (built / "plain.so").stat().st_size


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


# --- what was declared ---------------------------------------------------------------------------------


def test_the_target_is_written_down(site: Path) -> None:
    prune_tree(site, Target((80, 90)))
    document = json.loads((site / FILE_NAME).read_bytes())
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
    assert json.loads((site / FILE_NAME).read_bytes())["gpus"] == ["sm_80", "sm_90"]
    prune_tree(site, Target((90,), keep_ptx=False))
    assert json.loads((site / FILE_NAME).read_bytes())["gpus"] == ["sm_90"]
    prune_tree(site, Target((), keep_ptx=True))
    assert json.loads((site / FILE_NAME).read_bytes())["gpus"] == []
    with pytest.raises(UsageError, match="machines without a GPU alone"):
        prune_tree(site, H100)


def test_what_was_declared_further_down_counts_and_follows(site: Path, tmp_path: Path) -> None:
    prune_tree(site, Target((80, 90)))
    with pytest.raises(UsageError, match="sm_80, sm_90 alone"):
        prune_tree(tmp_path / "env", Target((75,)))
    prune_tree(tmp_path / "env", H100)
    for folder in (site, tmp_path / "env"):
        assert json.loads((folder / FILE_NAME).read_bytes())["gpus"] == ["sm_90"]


def test_raw_blobs_that_left_stay_said(site: Path) -> None:
    prune_tree(site, Target((90,), raw_blobs=True))
    prune_tree(site, H100)
    assert json.loads((site / FILE_NAME).read_bytes())["raw_blobs"] is True


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
    (site / FILE_NAME).write_text(text)
    before = snapshot(site)
    with pytest.raises(BadInputError, match=FILE_NAME):
        prune_tree(site, H100)
    assert snapshot(site) == before


def test_an_unchanged_declaration_is_not_rewritten_for_its_version(site: Path) -> None:
    prune_tree(site, H100)
    path = site / FILE_NAME
    path.write_text(path.read_text().replace('"deadweight":"', '"deadweight":"0'))
    before = snapshot(site)
    prune_tree(site, H100)
    assert snapshot(site) == before


# --- when something goes wrong -------------------------------------------------------------------------


def test_where_there_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("none", "file", "file/below"):
        with pytest.raises(BadInputError, match=name):
            prune_tree(tmp_path / name, H100)


def test_two_runs_at_once_are_one_too_many(site: Path) -> None:
    fd = os.open(site, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(EnvironmentFailure, match="being pruned already"):
            prune_tree(site, H100)
        assert prune_tree(site, H100, dry_run=True).files
    finally:
        os.close(fd)
    assert prune_tree(site, H100).files


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, EnvironmentFailure])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_interrupted_run_leaves_whole_files_and_true_records(
    interruption: type[BaseException], after: int, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(site)
    real = replace.put_in_place
    calls: list[object] = []

    def interrupted(*arguments: object) -> None:
        if len(calls) == after:
            raise interruption
        calls.append(arguments)
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(prune, "put_in_place", interrupted)
    with pytest.raises(interruption):
        prune_tree(site, H100)
    changed = {name for name, data in contents(site).items() if before.get(name) != data}
    assert len([name for name in changed if name.endswith(".so")]) == after
    assert records(site)[0] == set()
    assert not (site / JOURNAL).exists()
    assert temporary_files(site) == []
    assert (site / FILE_NAME).exists()  # before the first file loses GPU code
    monkeypatch.undo()
    prune_tree(site, H100)
    assert records(site) == (set(), 9)


KILLED = """
import os, signal, sys
from deadweight import prune
from deadweight.binary import elf as elf_format
from deadweight.binary.gpu import Target
real = prune.put_in_place
def put(temporary, paths, read):
    if {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(temporary, paths, read)
    if paths[0].endswith({name!r}):
        os.kill(os.getpid(), signal.SIGKILL)
prune.put_in_place = put
prune.prune_tree(sys.argv[1], Target((90,)), workers=1)
"""


@pytest.mark.parametrize("before", [True, False])
def test_what_a_killed_run_left_undone_is_done(before: bool, site: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(site, twin)
    prune_tree(twin, H100)
    script = KILLED.format(before=before, name="a,b.so")
    done = subprocess.run([sys.executable, "-c", script, str(site)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert bool(temporary_files(site)) == before
    assert len(records(site)[0]) == (0 if before else 2)
    # Somebody changes a file meanwhile: that is not ours to bring in line.
    pruned = prune_tree(site, H100)
    assert any("was killed" in note for note in pruned.notes)
    assert contents(site) == contents(twin)
    assert temporary_files(site) == []
    assert prune_tree(site, H100).notes == []


def test_a_journal_speaks_only_for_files_that_are_what_it_says(site: Path) -> None:
    script = KILLED.format(before=False, name="a,b.so")
    subprocess.run([sys.executable, "-c", script, str(site)], check=False)
    wrong = records(site)[0]
    assert len(wrong) == 2
    journal = site / JOURNAL
    journal.write_bytes(journal.read_bytes() + b'{"path": "../x"}\n\xff\n[]\n{"half')
    with (site / "one/libgpu.so").open("ab") as file:
        file.write(b"somebody else's")
    record = site / "one-1.0.dist-info/RECORD"
    line = record.read_bytes().splitlines()[0]
    prune_tree(site, H100)
    assert record.read_bytes().splitlines()[0] == line
    assert records(site)[0] == {name for name in wrong if "libgpu" in name}
    assert not journal.exists()


FULL = """
import resource, sys
from deadweight.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
sys.exit(main(["prune", sys.argv[1], "--gpu", "h100"]))
"""


def test_a_full_disk_is_said_to_be_full(site: Path) -> None:
    before = contents(site)
    done = subprocess.run([sys.executable, "-c", FULL, str(site)], check=False, capture_output=True, text=True)
    assert done.returncode == 4
    assert "no space to replace" in done.stderr
    assert temporary_files(site) == []
    changed = {name for name, data in contents(site).items() if before.get(name) != data}
    assert changed == set()


def test_a_file_system_that_may_not_be_written(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(site)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(prepare, "write_new", refuse)
    with pytest.raises(EnvironmentFailure, match="may not replace"):
        prune_tree(site, H100)
    assert snapshot(site) == before


SIGNALLED = """
import sys
from deadweight.cli import main
from deadweight.files import pool
pool.WORTH_PROCESSES = 0
if __name__ == "__main__":
    sys.exit(main(["prune", sys.argv[1], "--gpu", "h100", "--check-load"]))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_all_processes_and_leaves_nothing_half_written(
    number: signal.Signals, status: int, site: Path, tmp_path: Path
) -> None:
    for copy in range(30):
        shutil.copy(site / "one/libgpu.so", site / f"one/{copy}.so")
    add_record(site, "one", *sorted(f"one/{p.name}" for p in (site / "one").glob("*.so")))
    before = contents(site)
    script = tmp_path / "script.py"
    script.write_text(SIGNALLED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(site)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    inodes = {path: path.stat().st_ino for path in (site / "one").glob("*.so")}
    while process.poll() is None and all(path.stat().st_ino == inode for path, inode in inodes.items()):
        time.sleep(0.01)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, b""), error
    assert error.count(b"\n") == 1
    after = contents(site)
    changed = [name for name in after if after[name] != before.get(name) and name.endswith(".so")]
    assert 0 < len(changed) < 33
    assert records(site)[0] == set()
    assert temporary_files(site) == []
    for path in (site / "one").glob("*.so"):
        if "libgpu" in path.name or path.stem.isdecimal():
            assert hosts.run(path, LAYOUT) == hosts.expected(path.read_bytes(), LAYOUT)
            break


def test_a_file_that_fails_its_check_stays(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(site)

    def refuse(*_: object) -> None:
        raise CheckFailed("it is not what it should be")

    monkeypatch.setattr(prepare, "check_rewritten", refuse)
    for dry_run in (True, False):
        pruned = prune_tree(site, H100, dry_run=dry_run)
        assert pruned.files == []
        assert {file.reason for file in pruned.left} == {"it is not what it should be"}
    (site / FILE_NAME).unlink()
    assert contents(site) == before


def test_what_was_written_is_read_again(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(site)
    real = replace.write_new

    def write(path: str, chunks: Iterable[bytes], like: int) -> None:
        data = bytearray(b"".join(chunks))
        text = elf_format.parse(elf.read_from(bytes(data)), len(data))
        data[next(section.offset for section in text.sections if section.name == ".rodata") + 1] ^= 1
        real(path, [bytes(data)], like)

    monkeypatch.setattr(prepare, "write_new", write)
    pruned = prune_tree(site, H100)
    assert pruned.files == []
    assert {file.path for file in pruned.left} == {"one/libgpu.so", "one/a,b.so", "two/c.so"}
    assert all("did not pass its check" in file.reason for file in pruned.left)
    (site / FILE_NAME).unlink()
    assert contents(site) == before


def test_a_library_that_would_no_longer_load_stays(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[Path, Path]] = []

    def refuse(path: Path, original: Path) -> None:
        loaded.append((path, original))
        assert path.parent == original.parent  # $ORIGIN is the same
        if original.name == "libgpu.so":
            raise LoadError("does not load: so there")

    monkeypatch.setattr(prepare, "check_load", refuse)
    pruned = prune_tree(site, H100, check_load=True)
    assert len(loaded) == 3
    assert [file.path for file in pruned.files] == ["one/a,b.so", "two/c.so"]
    assert [(file.path, file.reason.endswith("so there")) for file in pruned.left] == [("one/libgpu.so", True)]
    assert temporary_files(site) == []


@pytest.mark.parametrize("how", ["larger", "same size", "gone"])
def test_a_file_that_changes_meanwhile_stays(how: str, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = site / "two/c.so"
    real = replace.put_in_place

    def meddle(temporary: str, paths: list[str], read: os.stat_result) -> None:
        if paths == [str(library)]:
            if how == "gone":
                library.unlink()
                library.write_bytes(b"another")
            else:
                data = library.read_bytes()
                library.write_bytes(data + b"!" if how == "larger" else b"!" + data[1:])
        real(temporary, paths, read)

    monkeypatch.setattr(prune, "put_in_place", meddle)
    pruned = prune_tree(site, H100)
    assert len(pruned.files) == 2
    assert [(file.path, file.reason) for file in pruned.left] == [("two/c.so", "it changed while it was read")]
    assert b"!" in library.read_bytes() or library.read_bytes() == b"another"
    assert temporary_files(site) == []


def die(_: object) -> None:
    os.abort()


def test_a_process_that_dies_is_reported(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(pool, "prepare", die)
    with pytest.raises(EnvironmentFailure, match="memory"):
        prune_tree(site, H100, workers=2)
    assert temporary_files(site) == []


def test_libraries_for_other_machines(tmp_path: Path) -> None:
    path = hosts.build_arm64(hosts.ARM64["library"], tmp_path)
    pruned: Pruned = prune_tree(tmp_path, H100, check_load=True)
    assert path.name in [file.path for file in pruned.files if file.gpu_code_bytes > 150_000]


def test_a_record_that_cannot_be_written_is_mended_by_the_next_run(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deadweight.files import records as module

    def refuse(path: str, _: bytes) -> None:
        raise EnvironmentFailure(f"no space to replace {path}")

    monkeypatch.setattr(module, "replace_content", refuse)
    with pytest.raises(EnvironmentFailure, match="RECORD"):
        prune_tree(site, H100)
    assert (site / JOURNAL).exists()
    monkeypatch.undo()
    assert any("brought up to date" in note for note in prune_tree(site, H100).notes)
    assert records(site)[0] == set()
