"""prune_tree when something goes wrong: files are whole, RECORD is true, and what is left over is ours to mend."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
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
from deadweight.binary.target_document import IN_DIRECTORY
from deadweight.errors import BadInputError, EnvironmentFailure
from deadweight.files import pool, prepare, replace
from deadweight.files.records import JOURNAL
from deadweight.files.smaller import CheckFailed
from deadweight.prune import prune_tree
from support import elf, hosts
from support.records import records
from support.sites import LAYOUT, add_record, build_libraries, contents, make_site, snapshot, temporary_files

H100 = Target((90,))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_libraries(tmp_path_factory.mktemp("built"))


@pytest.fixture
def site(tmp_path: Path, built: Path) -> Path:
    return make_site(tmp_path, built)


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
    assert (site / IN_DIRECTORY).exists()  # before the first file loses GPU code
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
    with pytest.raises(EnvironmentFailure, match=r"Read-only file system; make it writable"):
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


def test_processes_end_with_the_one_that_is_killed(site: Path, tmp_path: Path) -> None:
    for copy in range(30):
        shutil.copy(site / "one/libgpu.so", site / f"one/{copy}.so")
    script = tmp_path / "script.py"
    script.write_text(SIGNALLED)
    process = subprocess.Popen([sys.executable, str(script), str(site)], start_new_session=True)
    while process.poll() is None and not (site / IN_DIRECTORY).exists():
        time.sleep(0.01)
    process.kill()
    process.wait()
    for _ in range(1000):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.02)
    else:
        pytest.fail("some go on")
    assert len(prune_tree(site, H100).files) > 0
    assert temporary_files(site) == []
    assert records(site)[0] == set()


def test_a_file_that_fails_its_check_stays(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(site)

    def refuse(*_: object) -> None:
        raise CheckFailed("it is not what it should be")

    monkeypatch.setattr(prepare, "check_rewritten", refuse)
    for dry_run in (True, False):
        pruned = prune_tree(site, H100, dry_run=dry_run)
        assert pruned.files == []
        assert {file.reason for file in pruned.left} == {"it is not what it should be"}
    (site / IN_DIRECTORY).unlink()
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
    (site / IN_DIRECTORY).unlink()
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
