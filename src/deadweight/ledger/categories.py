"""What a file's bytes are for: one category for each file, and several inside an ELF file.

First label wins, and the most specific comes first:

1. `hidden` and `tar framing`, which are not about contents (see account.py);
2. by place and owner: `tests`, then `caches`, then `build tools`. The whole file is that, whatever it is made of,
   since it stays or leaves as a whole;
3. by content: an ELF file splits into `host code`, `GPU code`, `symbols` and `data`;
4. by the name's ending: `GPU code`, `headers`, `static libraries`, `bytecode`, `Python source`;
5. `data`, which takes all that is left.

The lists are known.toml's, so that a category and the pass that is named like it mean the same files.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping

from packaging.utils import canonicalize_name

from deadweight.binary.elf import Label
from deadweight.ledger.known import known, matcher
from deadweight.ledger.ledger import Ledger, Owner

GPU_CODE, HOST_CODE, SYMBOLS, DATA = "GPU code", "host code", "symbols", "data"
PYTHON_SOURCE, BYTECODE, HEADERS, STATIC_LIBRARIES = "Python source", "bytecode", "headers", "static libraries"
TESTS, CACHES, BUILD_TOOLS = "tests", "caches", "build tools"
TAR_FRAMING, HIDDEN_CONTENT = "tar framing", "hidden"

CATEGORIES = (
    *(GPU_CODE, HOST_CODE, SYMBOLS, DATA, PYTHON_SOURCE, BYTECODE, HEADERS, STATIC_LIBRARIES),
    *(TESTS, CACHES, BUILD_TOOLS, TAR_FRAMING, HIDDEN_CONTENT),
)
"""All of them."""

OF_ELF: Mapping[Label, str] = {"host code": HOST_CODE, "gpu code": GPU_CODE, "symbols": SYMBOLS, "data": DATA}
"""Category by the labels of `gpu_code.breakdown`."""

_ENDINGS = {
    **dict.fromkeys((".py", ".pyw", ".pyi", ".pyx", ".pxd", ".pxi"), PYTHON_SOURCE),
    **dict.fromkeys((".pyc", ".pyo"), BYTECODE),
    **dict.fromkeys((".h", ".hh", ".hpp", ".hxx", ".h++", ".cuh", ".inl", ".ipp", ".tcc", ".tpp"), HEADERS),
    **dict.fromkeys((".a", ".la", ".lib"), STATIC_LIBRARIES),
    **dict.fromkeys((".cubin", ".fatbin", ".ptx", ".hsaco"), GPU_CODE),
}
_TEST_DIRECTORIES = frozenset({"test", "tests"})
_PYTHON_KINDS = frozenset({"python", "application"})


def place_category(ledger: Ledger) -> Callable[[str, Owner], str | None]:
    """A function (path, owner) -> `tests`, `caches`, `build tools`, or None where neither place nor owner decides."""
    cached = _is_cache(ledger)
    builds = _is_build_tool(ledger)
    stdlibs = tuple(f"{i.stdlib}/" for i in ledger.interpreters if i.stdlib)

    def category(path: str, owner: Owner) -> str | None:
        if "test" in path and _is_test(path, owner, stdlibs):
            return TESTS
        if cached(path):
            return CACHES
        if builds(path, owner):
            return BUILD_TOOLS
        return None

    return category


def ending_category(path: str) -> str:
    """The category that a file's name tells, `data` where it tells none."""
    base = path[path.rfind("/") + 1 :]
    dot = base.rfind(".")
    found = _ENDINGS.get(base[dot:].lower()) if dot >= 0 else None
    if found is None and ("/include/c++/" in path or path.startswith("usr/include/")):
        return HEADERS  # C++'s own have no ending
    return found or DATA


def _is_test(path: str, owner: Owner, stdlibs: tuple[str, ...]) -> bool:
    """Tests of Python code: `testing` packages are public API (numpy.testing, torch.testing) and do not count."""
    if owner.kind not in _PYTHON_KINDS and "/site-packages/" not in path and "/dist-packages/" not in path:
        return path.startswith(stdlibs) and not _TEST_DIRECTORIES.isdisjoint(path.split("/")[:-1]) if stdlibs else False
    *directories, base = path.split("/")
    return base == "conftest.py" or not _TEST_DIRECTORIES.isdisjoint(directories)


def _is_cache(ledger: Ledger) -> Callable[[str], bool]:
    """Whether a path lies in a cache that its tool fills again; models in caches are data of the application.

    The pass `caches` removes less: it also asks who else refers to a file.
    """
    environment = ledger.image.environment
    patterns = [p for name in ("patterns", "trees", "scratch") for p in known("caches", name)]
    below = known("caches", "below_dot_cache")
    patterns += [f"{home}/.cache/{name}/*" for home in ("root", "home/*") for name in below]
    patterns += [f"{place}/{name}/*" for place in _places(environment, "XDG_CACHE_HOME") for name in below]
    for text in known("caches", "variables"):  # as PIP_CACHE_DIR/http*
        variable, _, name = text.partition("/")
        patterns += [f"{place}/{name}/*" for place in _places(environment, variable)]
    matches = matcher(patterns)
    # Most paths match nothing, and their first letters tell.
    starts = tuple({re.split(r"[*?\[]", pattern, maxsplit=1)[0] for pattern in patterns})
    models = tuple(f"{p}/" for variable in known("caches", "model_variables") for p in _places(environment, variable))
    model_name = matcher(known("caches", "model_directories"))
    suffixes = known("caches", "model_suffixes")
    scratch = matcher(known("caches", "scratch"))

    def is_cache(path: str) -> bool:
        if not path.startswith(starts) or not matches(path) or path.startswith(models):
            return False
        if not scratch(path):
            return True
        return not path.endswith(suffixes) and not any(model_name(part) for part in path.split("/")[:-1])

    return is_cache


def _places(environment: Mapping[str, str], variable: str) -> list[str]:
    """The directory that an environment variable names, if it does, as an image path."""
    value = environment.get(variable, "")
    place = posixpath.normpath(value).strip("/") if value.startswith("/") else ""
    return [place] if place else []


def _is_build_tool(ledger: Ledger) -> Callable[[str, Owner], bool]:
    """Whether a file belongs to a compiler, a package to build against, or an installer."""
    seed = matcher(known("build_tools", "packages"))
    never = matcher(known("build_tools", "not_packages"))
    distribution = matcher(known("build_tools", "distributions"))
    programs = frozenset(known("build_tools", "programs"))
    search = ledger.image.environment.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(":")
    directories = frozenset(place.strip("/") for place in search)
    decided: dict[Owner, bool] = {}

    def of_owner(owner: Owner) -> bool:
        if owner.kind == "debian":
            return seed(owner.name) and not never(owner.name)
        return owner.kind == "python" and distribution(canonicalize_name(owner.name))

    def is_build_tool(path: str, owner: Owner) -> bool:
        known_owner = decided.get(owner)
        if known_owner is None:
            known_owner = decided[owner] = of_owner(owner)
        if known_owner or owner.kind != "system":
            return known_owner
        directory, _, base = path.rpartition("/")
        return base in programs and directory in directories

    return is_build_tool
