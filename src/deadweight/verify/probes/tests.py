"""The test suite of a distribution has the same results, run from the original's own test files in both images."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from packaging.utils import canonicalize_name

from deadweight.binary.dynamic import interpreter
from deadweight.binary.elf import ElfError, parse
from deadweight.decoding import from_values
from deadweight.errors import BadInputError, shown
from deadweight.image.bytes import CHUNK
from deadweight.image.compression import temporary_folder
from deadweight.image.filesystem import Filesystem
from deadweight.image.transports.destination import remove_tree
from deadweight.ledger.ledger import Ledger
from deadweight.ledger.python import Distribution
from deadweight.passes.tests import NAMES
from deadweight.verify.model import Observation
from deadweight.verify.probes import Kind
from deadweight.verify.sandbox import INSIDE, Command
from deadweight.verify.side import Ended, NoAnswer, Side, last_line
from deadweight.verify.spec import TestsProbe
from deadweight.verify.tools import Python, tools_for

_BAD = ("failed", "error", "crashed")
_DONE = (0, 1)  # pytest's exit status: all passed, some failed
_SAID = {2: "it was interrupted", 3: "an internal error", 4: "a wrong option or path", 5: "no tests are found"}
_TOTAL = 0.95
_VERSION = "import os, sys; print(*sys.version_info[:2], os.uname().machine)"


class _Answer(msgspec.Struct):
    results: dict[str, tuple[str, str]]
    status: int | None
    running: str
    output: str


def observe(probe: TestsProbe, side: Side) -> Observation:
    """Runs pytest inside."""
    original = side.original or side.ledger
    dists = [_distribution(original, name) for name in probe.tests]
    files = [path for dist in dists for path in test_files(dist)]
    root = "/" + posixpath.commonpath([dist.site for dist in dists])
    arguments = [
        *("-c", "/dev/null", f"--rootdir={root}", f"--confcutdir={root}", "-q", "--tb=short", "-p", "no:cacheprovider"),
        *("--import-mode=append", "--continue-on-collection-errors", *probe.arguments, "--"),
        *_selected(probe, original, dists, files),
    ]
    seconds = probe.timeout or side.limits.seconds
    task = {"arguments": arguments, "tools": f"{INSIDE}/tools", "total": seconds * _TOTAL}
    with tools_for(_python(side), probe.tools) as tools, _restored(original, side.fs, files) as restored:
        env = {**side.app.env, "PYTHONDONTWRITEBYTECODE": "1"}
        binds = {f"{INSIDE}/tools": tools}
        found = side.ask("tests", task, probe.timeout, env=env, binds=binds, restored=restored)
    try:
        answer = from_values(found, _Answer)
    except msgspec.ValidationError as error:
        raise NoAnswer(f"the image's Python gave no sound answer: {error}") from None
    return _observation(answer, seconds)


def _observation(answer: _Answer, seconds: float) -> Observation:
    if answer.status is None:
        raise Ended(f"out of time after {seconds:g} s, in {shown(answer.running) if answer.running else 'no test'}")
    counts = Counter(outcome for outcome, _ in answer.results.values())
    if answer.status not in _DONE and not counts["crashed"]:
        errors = [f"{name}: {said}" for name, (outcome, said) in answer.results.items() if outcome == "error"]
        why = _SAID.get(answer.status, f"exit status {answer.status}")
        last = last_line(answer.output.encode("utf-8", "replace"))
        raise NoAnswer("; ".join([f"pytest: {why}", *map(shown, errors[:3] or [last])]))
    facts = {name: outcome for name, (outcome, _) in answer.results.items()}
    failed = tuple(name for name, outcome in facts.items() if outcome in _BAD)
    summary = ", ".join(f"{count:,} {shown(outcome)[1:-1]}" for outcome, count in sorted(counts.items(), key=_order))
    return Observation(summary, facts, failed, data=answer.results)


def _order(counted: tuple[str, int]) -> tuple[bool, bool, str]:
    outcome = counted[0]
    return outcome != "passed", outcome not in _BAD, outcome


# --- what is run ---------------------------------------------------------------------------------------


def _distribution(original: Ledger, name: str) -> Distribution:
    """The installed distribution of a name, the one with most files where there are several. Raises NoAnswer."""
    wanted = canonicalize_name(name)
    found = [dist for dist in original.distributions if dist.name == wanted]
    if not found:
        raise NoAnswer(f"there is no distribution {shown(name)} in the original")
    dist = max(found, key=lambda dist: len(dist.files))
    if not test_files(dist):
        raise NoAnswer(f"{shown(name)} has no test files in the original")
    return dist


def test_files(dist: Distribution) -> list[str]:
    """Those of a distribution's files that are tests, or belong to tests: in order."""
    found = []
    for path in dist.files:
        *folders, base = path[len(dist.site) :].lstrip("/").split("/")
        named = base.endswith(".py") and (
            base.startswith("test_") or base.endswith("_test.py") or base == "conftest.py"
        )
        if (named or any(folder in NAMES for folder in folders)) and not path.endswith(".pyc"):
            found.append(path)
    return sorted(found)


def _selected(
    probe: TestsProbe, original: Ledger, dists: Sequence[Distribution], files: Sequence[str]
) -> Iterator[str]:
    """What pytest is to collect: absolute paths, perhaps with `::name`."""
    if probe.select:
        for text in probe.select:
            yield _place(text, original, dists)
        return
    tops = set()
    for dist in dists:
        for path in test_files(dist):
            below = path[len(dist.site) :].lstrip("/")
            top = below.split("/")[0]
            # A `tests` directory beside the packages belongs to whoever put files there.
            tops.add(path if top in NAMES else posixpath.join(dist.site, top))
    yield from (f"/{top}" for top in sorted(tops) if top in original.fs.nodes and _collected(original, top))


def _collected(original: Ledger, path: str) -> bool:
    base = posixpath.basename(path)
    return original.fs.nodes[path].kind == "dir" or (base.startswith("test_") and base.endswith(".py"))


def _place(text: str, original: Ledger, dists: Sequence[Distribution]) -> str:
    """Where a module or a path of the suite is: `numpy.linalg`, `numpy/linalg/tests/test_linalg.py::test_x`."""
    path, colons, rest = text.partition("::")
    for dist in dists:
        for name in (path, path.replace(".", "/"), path.replace(".", "/") + ".py"):
            place = posixpath.normpath(posixpath.join(dist.site, name.strip("/")))
            if place.startswith(f"{dist.site}/") and place in original.fs.nodes:
                return f"/{place}{colons}{rest}"
    raise NoAnswer(f"there is no module or path {shown(text)} in {', '.join(shown(dist.display) for dist in dists)}")


def _python(side: Side) -> Python:
    """What test tools have to fit."""
    ran = side.run(Command((side.python, "-c", _VERSION)), side.limits.seconds)
    words = ran.stdout[:100].decode("ascii", "replace").split()
    if ran.status or len(words) != 3 or not (words[0] + words[1]).isdecimal() or not words[2].isidentifier():
        raise NoAnswer(f"{side.python} does not run: exit status {ran.status}")
    node = side.fs.resolve(side.python)
    musl = False
    if node is not None and node.kind == "file":
        read = side.fs.reader(node)
        try:
            musl = "ld-musl" in (interpreter(read, parse(read, node.size)) or "")
        except ElfError:
            musl = False
    return Python(f"{words[0]}.{words[1]}", words[2], musl)


@contextmanager
def _restored(original: Ledger, fs: Filesystem, files: Sequence[str]) -> Iterator[Path | None]:
    """A directory with those files that a view lacks, as the original has them; None where it lacks none.

    It is new, and only directories and plain files are made in it, so that no name leads out of it.
    """
    missing = [path for path in files if path not in fs.nodes and original.fs.nodes[path].kind == "file"]
    if not missing:
        yield None
        return
    with TemporaryDirectory(prefix="deadweight-verify-", dir=temporary_folder()) as name:
        folder = Path(name) / "restored"
        folder.mkdir(0o755)
        try:
            for path in missing:
                _restore(original, path, folder)
            yield folder
        finally:
            remove_tree(folder)


def _restore(original: Ledger, path: str, folder: Path) -> None:
    node = original.fs.nodes[path]
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        read = original.fs.reader(node)
    except BadInputError as error:
        raise NoAnswer(f"a test file cannot be restored: {error}") from None
    with place.open("xb") as file:
        for start in range(0, node.size, CHUNK):
            file.write(read(start, min(CHUNK, node.size - start)))
    place.chmod((node.source.mode & 0o111 if node.source is not None else 0) | 0o644)


def differences(probe: TestsProbe, before: Observation, after: Observation) -> list[str]:
    """Tests that come to something else, with what is said of them."""
    nothing = ("not there", "")
    found = []
    for name in [*before.data, *(name for name in after.data if name not in before.data)]:
        one, two = before.data.get(name, nothing), after.data.get(name, nothing)
        if one[0] != two[0]:
            said = two[1] or one[1]
            found.append(shown(f"{name}: {one[0]} -> {two[0]}" + (f" ({said})" if said else ""), 600)[1:-1])
    return found


KIND = Kind(observe, differences)
