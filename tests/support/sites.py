"""Site-packages directories on disk, with libraries that have GPU code and symbols."""

from __future__ import annotations

import base64
import hashlib
import shutil
from pathlib import Path

from support import elf, hosts

LAYOUT = hosts.LAYOUTS["library"]


def build_libraries(folder: Path) -> Path:
    """A library with GPU code and symbols, one with symbols alone, and one with neither, in `folder`."""
    hosts.build(LAYOUT, folder).rename(folder / "gpu.so")
    (folder / "plain.so").write_bytes(elf.library(folder))
    elf.gcc(folder, "bare.so", "int answer;", "-shared", "-fPIC", "-s")
    return folder


def make_site(root: Path, built: Path) -> Path:
    """A site-packages directory with two distributions, in an environment of its own."""
    site = root / "env/lib/python3.12/site-packages"
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
