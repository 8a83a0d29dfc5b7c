"""Lists the files of the torch stack that this Python imports, as one JSON document on standard output.

Run by the Python in question, on the standard library alone. The stack is torch, what services of this kind have beside
it, and all that these need; also every NVIDIA distribution, since some are opened by name without being a requirement.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

ROOTS = (
    "torch",
    "torchvision",
    "torchaudio",
    "transformers",
    "sentence-transformers",
    "scikit-learn",
    "scipy",
    "numpy",
)
GPU_NAMES = re.compile(r"(nvidia|cuda|triton|pytorch-triton)(-|$)")


def plain(name: str) -> str:
    """A distribution's name as packages are compared by (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(roots: list[str]) -> dict[str, metadata.Distribution]:
    """The installed distributions among the roots and what they need, by name.

    Markers are not evaluated: what is installed though another platform needs it does no harm here. Of extras, those of
    a distribution that is asked for with any are followed (torch asks for cuda-toolkit[cublas,cudnn]).
    """
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, bool]] = set()
    wanted = [(plain(root), False) for root in roots]
    while wanted:
        name, extras = wanted.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for requirement in found[name].requires or ():
            head, _, marker = requirement.partition(";")
            match = re.match(r"\s*([A-Za-z0-9._-]+)\s*(\[)?", head)
            if match and (extras or not re.search(r"\bextra\b", marker)):
                wanted.append((plain(match[1]), match[2] is not None))
    return found


def files_of(name: str, distribution: metadata.Distribution) -> list[str]:
    """A distribution's files beside its metadata, relative to where it is installed, with their byte code."""
    base = Path(str(distribution.locate_file("")))
    listed = distribution.files
    if listed is None:  # Debian's own packages: no RECORD
        tops = (distribution.read_text("top_level.txt") or name.replace("-", "_")).split()
        paths = [path for top in tops for path in (base / top, *base.glob(f"{top}.*"))]
        inside = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
        return [str(file.relative_to(base)) for file in inside if file.is_file()]
    found = {str(file) for file in listed if ".." not in file.parts and not file.is_absolute()}
    for file in [name for name in found if name.endswith(".py")]:
        path = Path(file)
        found.add(str(path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"))
    return [file for file in sorted(found) if (base / file).is_file()]


def main() -> None:
    installed = {plain(name) for d in metadata.distributions() if (name := d.metadata["Name"])}
    if "torch" not in installed:
        print(json.dumps({"error": f"{sys.executable} has no torch"}))
        return
    found = closure([*ROOTS, *(name for name in installed if GPU_NAMES.match(name))])
    files = {
        f"{base}\0{file}": [base, file]
        for name, distribution in sorted(found.items())
        for base in [str(Path(str(distribution.locate_file(""))).absolute())]
        for file in files_of(name, distribution)
    }
    document = {
        "python": platform.python_version(),
        "executable": sys.executable,
        "paths": list(dict.fromkeys(base for base, _ in files.values())),
        "distributions": {name: distribution.version for name, distribution in sorted(found.items())},
        "files": list(files.values()),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
