"""CPU builds of distributions that are also built for GPUs: found among pip's sources, and told from the others.

pip is asked what it would install, before anything is downloaded: it knows its own configuration (find-links,
indexes, certificates), and its report has the metadata, which shows whether a wheel is a CPU build. Reference:
https://pip.pypa.io/en/stable/reference/installation-report/.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from lzma import LZMAError
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from deadweight.errors import BadInputError, EnvironmentFailure, UsageError, shown
from deadweight.files.wheels import wheel_name

GPU_BUILT: Final = ("torch", "torchvision", "torchaudio")
"""Distributions that have CPU builds of the same version, for the local label `cpu`."""
ONLY_FOR_GPUS: Final = re.compile(
    r"(?:nvidia-.*|cuda-(?:bindings|pathfinder|toolkit|python|core)|(?:pytorch-)?triton(?:-rocm|-xpu)?)\Z"
)
"""Canonical names of distributions that only a GPU build of torch is likely to need."""
_GPU_LIBRARY: Final = re.compile(
    r"lib(?:torch_(?:cuda|hip|xpu)|c10_(?:cuda|hip|xpu)|cudart|amdhip64|sycl)[^/]*\.so[.\d]*\Z"
)
_GPU_NAMES: Final = (b"libcudart.so", b"libc10_cuda.so", b"libtorch_cuda.so", b"libtorch_hip.so", b"libtorch_xpu.so")
_CODE_LIMIT: Final = 256 << 20
_METADATA_LIMIT: Final = 4 << 20
_NOT_PASSED_ON: Final = frozenset(
    {
        *("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_REQUIREMENT", "PIP_EDITABLE", "PIP_REQUIRE_HASHES"),
        *("PIP_REQUIRE_VIRTUALENV", "PIP_REPORT", "PIP_QUIET", "PIP_VERBOSE", "PIP_LOG", "PIP_NO_BINARY", "PIP_SRC"),
        *("PIP_PLATFORM", "PIP_PYTHON_VERSION", "PIP_ABI", "PIP_IMPLEMENTATION", "PIP_DEST", "PIP_PYTHON"),
    }
)
"""What a user's variables say of where and for what pip installs: that is stated here."""


@dataclass(frozen=True)
class Runs:
    """Where a wheel has to run."""

    python: str
    """As `3.11`."""
    machine: str
    """As `uname -m` says it: x86_64, aarch64."""
    glibc: tuple[int, int] = (2, 28)
    """Of the C library; (0, 0) for musl, for which nobody makes such wheels."""

    def __str__(self) -> str:
        library = ".".join(map(str, self.glibc)) if any(self.glibc) else "none"
        return f"Python {self.python} on {self.machine}, glibc {library}"


@dataclass(frozen=True)
class Sources:
    """Where to look, beside what pip's configuration and variables (PIP_FIND_LINKS, PIP_INDEX_URL, ...) name."""

    find_links: tuple[str, ...] = ()
    """Directories, wheel files, or URLs of pages with links."""
    index_url: str | None = None
    """In place of the configured index."""


@dataclass(frozen=True)
class CpuWheel:
    """A wheel that was found."""

    path: Path
    name: str
    """Canonical."""
    version: str
    """With its local label, as 2.13.0+cpu."""
    sha256: str
    """In hex."""
    source: str
    """Where it came from, a path or a URL, without a password."""
    requires: tuple[str, ...]
    """Its Requires-Dist."""


def find_cpu_wheel(name: str, version: str, runs: Runs, sources: Sources, into: Path) -> CpuWheel:
    """A CPU build of `name` in the public part of `version`; one that has to be downloaded is put in the folder `into`.

    Wheel files and directories of `sources` come first, then what pip finds. Raises BadInputError where there is none,
    saying what was found instead and what to pass; UsageError for a source that is not there.
    """
    name = str(canonicalize_name(name))
    public = Version(version).public
    for path in _local(sources.find_links, name, public, runs):
        if gpu_build(path, runs) is None:
            return read_cpu_wheel(path, name, public, runs)
    found = ""
    for wanted in (f"{name}=={public}+cpu", f"{name}=={public}"):
        try:
            one = _ask(wanted, runs, sources)
        except EnvironmentFailure as error:
            found = str(error)
            continue
        why = _needs_gpu(one.requires, runs)
        if why is not None or _labelled_gpu(one.version):
            found = f"pip finds {_file_name(one.url)}, a GPU build" + (f" (it requires {why})" if why else "")
            continue
        path = one.local or download_wheel(f"{name}=={one.version}", runs, sources, into)
        why = gpu_build(path, runs)
        if why is not None:
            found = f"pip finds {_file_name(one.url)}, a GPU build ({why})"
            continue
        wheel = read_cpu_wheel(path, name, public, runs, source=one.url)
        if one.sha256 and wheel.sha256 != one.sha256:
            raise BadInputError(f"{shown(path.name)} is not what its index says: its sha256 differs")
        return wheel
    raise BadInputError(
        f"no CPU build of {name} {public} was found for {runs}: {found}. Name a wheel file or a folder with one "
        f"({name}-{public}+cpu-...whl) or a page of links by --find-links, or by --index-url an index that has CPU "
        "builds, as PyTorch's own for cpu"
    )


def _file_name(url: str) -> str:
    return shown(url.partition("#")[0].rpartition("/")[2])


def read_cpu_wheel(path: Path, name: str, version: str | None, runs: Runs | None, source: str = "") -> CpuWheel:
    """A wheel file, checked: it is `name`, of the public `version`, runs there, and is no GPU build.

    Raises BadInputError, which says what is wrong with it.
    """
    with _reading(path), path.open("rb") as file, zipfile.ZipFile(file) as archive:
        outside = wheel_name(path.name, archive.namelist())
        metadata = _metadata(archive, f"{outside.info}/METADATA")
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    is_name, _, _, tags = parse_wheel_filename(outside.file)
    if is_name != canonicalize_name(name):
        raise BadInputError(f"{shown(path.name)} is a wheel of {is_name}, not of {name}")
    if version is not None and outside.version.public != Version(version).public:
        raise BadInputError(
            f"{shown(path.name)} is {name} {outside.version}: take the CPU build of {Version(version).public}, "
            "since another version is another program"
        )
    if runs is not None and not runs_there(tags, runs):
        raise BadInputError(f"{shown(path.name)} does not run there: it has to be for {runs}")
    why = gpu_build(path, runs)
    if why is not None:
        raise BadInputError(f"{shown(path.name)} is no CPU build: {why}")
    requires = tuple(str(one) for one in metadata.get("requires_dist", ()))
    return CpuWheel(path, str(is_name), str(outside.version), digest, source or str(path), requires)


def gpu_build(path: Path, runs: Runs | None = None) -> str | None:
    """What shows that a wheel is built for GPUs; None for a CPU build, by its metadata and its files."""
    if _labelled_gpu(path.name.partition("-")[2].partition("-")[0]):
        return f"its version says so, {shown(path.name)}"
    with _reading(path), zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        named = next((one.filename for one in infos if one.filename.count("/") == 1 and _is_metadata(one)), None)
        if named is not None:
            requires = _metadata(archive, named).get("requires_dist", ())
            why = _needs_gpu(requires, runs)
            if why is not None:
                return f"it requires {why}"
        for one in infos:
            if _GPU_LIBRARY.match(one.filename.rpartition("/")[2]):
                return f"it has {shown(one.filename)}"
        if any("/libtorch_cpu." in one.filename for one in infos):
            return None  # torch itself: its libraries would be there
        for one in infos:
            if one.filename.endswith(".so") and _mentions_gpu(archive, one):
                return f"{shown(one.filename)} links CUDA's libraries"
    return None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what reading a wheel meets in one that is damaged, or is none, into a BadInputError."""
    try:
        yield
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, LZMAError, RuntimeError, ValueError, KeyError) as error:
        raise BadInputError(f"{shown(str(path))} is no wheel that can be read: {error}") from None


def _is_metadata(one: zipfile.ZipInfo) -> bool:
    return one.filename.endswith(".dist-info/METADATA")


def _metadata(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    with archive.open(name) as file:
        data = file.read(_METADATA_LIMIT)
    return dict(parse_email(data)[0])


def _mentions_gpu(archive: zipfile.ZipFile, one: zipfile.ZipInfo) -> bool:
    if one.file_size > _CODE_LIMIT:
        return False
    with archive.open(one) as file:
        before = b""
        while chunk := file.read(1 << 20):
            if any(name in before + chunk for name in _GPU_NAMES):
                return True
            before = chunk[-32:]
    return False


def _labelled_gpu(version: str) -> bool:
    """Whether a version's local label names a GPU toolkit: +cu128, +rocm6.3, +xpu."""
    return re.match(r"(?:cu\d|rocm|xpu|hip|gpu)", unquote(version).partition("+")[2].lower()) is not None


def _needs_gpu(requires: Iterable[str], runs: Runs | None) -> str | None:
    """A requirement that only a GPU build has, where it applies on Linux; None where there is none."""
    minor = "11" if runs is None else runs.python.partition(".")[2]
    environment = {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_machine": "x86_64" if runs is None else runs.machine,
        "python_version": f"3.{minor}",
        "python_full_version": f"3.{minor}.99",
        "extra": "",
    }
    for line in requires:
        try:
            one = Requirement(line)
            applies = one.marker is None or one.marker.evaluate({**environment})
        except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName, RecursionError):
            continue
        if applies and ONLY_FOR_GPUS.match(canonicalize_name(one.name)):
            return one.name
    return None


def _local(find_links: Sequence[str], name: str, version: str, runs: Runs) -> Iterator[Path]:
    """Wheels of this version among files and directories, those labelled `cpu` first."""
    fits = frozenset(_tags(runs))
    found = []
    for link in find_links:
        if "://" in link and not link.startswith("file://"):
            continue
        place = Path(unquote(urlsplit(link).path)) if link.startswith("file://") else Path(link)
        if not place.exists():
            raise UsageError(f"--find-links {shown(link)}: there is no such file or directory")
        for path in sorted(place.glob("*.whl")) if place.is_dir() else [place]:
            try:
                is_name, is_version, _, tags = parse_wheel_filename(unquote(path.name))
            except InvalidWheelFilename:
                continue
            if is_name == name and is_version.public == version and tags & fits:
                found.append((is_version.local != "cpu", path))
    yield from (path for _, path in sorted(found))


def runs_there(tags: Collection[Tag], runs: Runs) -> bool:
    """Whether a wheel with these tags runs there."""
    return not frozenset(_tags(runs)).isdisjoint(tags)


def _tags(runs: Runs) -> Iterator[Tag]:
    """The tags of wheels that run there."""
    minor = int(runs.python.partition(".")[2])
    names = _platforms(runs)
    yield from cpython_tags((3, minor), platforms=names)
    yield from compatible_tags((3, minor), platforms=names)


def _platforms(runs: Runs) -> list[str]:
    """Platform tags, the newest first."""
    machine = runs.machine
    minors = range(runs.glibc[1], 16, -1) if runs.glibc[0] == 2 else ()
    names = [f"manylinux_2_{minor}_{machine}" for minor in minors]
    return [*names, *([f"manylinux2014_{machine}"] if names else []), f"linux_{machine}"]


@dataclass(frozen=True)
class _Answer:
    """What pip would install."""

    version: str
    url: str
    """For people: without user and password."""
    local: Path | None
    """The file, where it is on this machine already."""
    sha256: str
    requires: tuple[str, ...]


def _ask(wanted: str, runs: Runs, sources: Sources) -> _Answer:
    """What pip would install. Raises EnvironmentFailure with what it said where it finds nothing."""
    nowhere = os.devnull + "/none"  # pip asks for a target with another platform; it writes nothing in a dry run
    words = ["install", "--dry-run", "--quiet", "--ignore-installed", "--target", nowhere, "--report", "-"]
    report = _pip([*words, *_for(runs), *_from(sources), wanted])
    try:
        (one,) = json.loads(report)["install"]
        info, about = one["download_info"], one["metadata"]
        url, version = str(info["url"]), str(Version(about["version"]))
        digest = info.get("archive_info", {}).get("hashes", {}).get("sha256", "")
        requires = tuple(str(line) for line in about.get("requires_dist", ()))
    except (ValueError, KeyError, TypeError, AttributeError, InvalidVersion):
        raise EnvironmentFailure("pip's report cannot be read: pip 22.2 or newer is needed") from None
    parts = urlsplit(url)
    local = Path(unquote(parts.path)) if parts.scheme == "file" else None
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return _Answer(version, unquote(plain), local, str(digest), requires)


def download_wheel(wanted: str, runs: Runs, sources: Sources, into: Path) -> Path:
    """The wheel that pip finds for a requirement `name==version`, in the folder `into`.

    Raises EnvironmentFailure, with what pip says, where it finds none.
    """
    into.mkdir(parents=True, exist_ok=True)
    before = set(into.glob("*.whl"))
    _pip(["download", "--quiet", "--dest", str(into), *_for(runs), *_from(sources), wanted])
    name = str(canonicalize_name(wanted.partition("==")[0]))
    for path in sorted(set(into.glob("*.whl")) - before) or sorted(before):
        if canonicalize_name(path.name.partition("-")[0]) == name:
            return path
    raise EnvironmentFailure(f"pip downloaded no wheel for {shown(wanted)} to {shown(str(into))}")


def _for(runs: Runs) -> list[str]:
    abi = "cp" + runs.python.replace(".", "")
    words = ["--no-deps", "--only-binary", ":all:", "--python-version", runs.python, "--implementation", "cp"]
    words += [word for name in (abi, "abi3", "none") for word in ("--abi", name)]
    return [*words, *(word for name in _platforms(runs) for word in ("--platform", name))]


def _from(sources: Sources) -> list[str]:
    words = [word for link in sources.find_links for word in ("--find-links", link)]
    return [*words, *(["--index-url", sources.index_url] if sources.index_url is not None else [])]


def _pip(words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Runs pip; gives its standard output. Raises EnvironmentFailure with its last lines."""
    environment = os.environ if environment is None else environment
    passed = {name: value for name, value in environment.items() if name not in _NOT_PASSED_ON}
    passed |= {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    passed |= {"PIP_REQUIRE_VIRTUALENV": "0"}
    try:
        done = subprocess.run(
            [*_program(), *words], env=passed, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise EnvironmentFailure(f"pip cannot be run: {error.strerror or error}") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.decode("utf-8", "replace").splitlines() if "ERROR" in line]
        raise EnvironmentFailure(f"pip says {shown(' '.join(lines[-2:]) or 'nothing', 500)}")
    return done.stdout.decode("utf-8", "replace")


def _program() -> list[str]:
    """pip beside this Python, else that in PATH: what a user configures is the same for both."""
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip") or shutil.which("pip3")
    if found is None:
        raise EnvironmentFailure(
            "pip, which looks through its configured sources, is not on this machine: install it, or name the wheel "
            "file or its folder by --find-links"
        )
    return [found]
