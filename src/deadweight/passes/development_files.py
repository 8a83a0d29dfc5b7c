"""What compilers, linkers and type checkers read in Python distributions, and the interpreter never does."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from packaging.utils import canonicalize_name

from deadweight.ledger.known import known, matcher
from deadweight.ledger.named import named
from deadweight.passes.base import Context, Pass, Proposal
from deadweight.passes.compiling import compiles, installed
from deadweight.passes.imports import source

STATIC, HEADERS, STUBS = "static libraries", "C and C++ headers", "type stubs"
CYTHON, GENERATED, CMAKE = "Cython sources", "C sources of compiled modules", "CMake and pkg-config files"
PROTOC, SHLIBDEPS = "compilers of protocol buffers", "dpkg's lists of libraries' symbols"
_EVIDENCE = {
    STATIC: "only linkers read them",
    HEADERS: "only compilers read them, and nothing that is installed is known to compile while running",
    STUBS: "only type checkers and editors read them",
    CYTHON: "only Cython reads them",
    GENERATED: "only compilers read them, and what they made is there",
    CMAKE: "only builds read them",
    SHLIBDEPS: "only dpkg-shlibdeps reads them, when packages are built",
    PROTOC: "only builds run them, and they are in no directory of commands",
}
_BY_SUFFIX = {
    **dict.fromkeys((".a", ".la"), STATIC),
    **dict.fromkeys((".h", ".hpp", ".hh", ".hxx", ".h++", ".cuh", ".tcc", ".tpp", ".ipp"), HEADERS),
    ".pyi": STUBS,
    **dict.fromkeys((".pyx", ".pxd", ".pxi"), CYTHON),
    ".cmake": CMAKE,
}
_IN_INCLUDE = frozenset({".inl", ".inc", ".def", ".modulemap", ""})
# What torch's build for CPUs brings in torch/bin; in a directory of PATH it would be somebody's command.
_PROTOC = re.compile(r".+/(?:site|dist)-packages/.+/bin/protoc(?:-[\d.]+)?")
_SHLIBDEPS = re.compile(r"var/lib/dpkg/info/[^/]+\.(?:symbols|shlibs)")
_C = frozenset({".c", ".cpp", ".cc", ".cxx"})


def propose(context: Context) -> Iterator[Proposal]:
    """Files, and directories that may be empty then, ordered by path."""
    reason = compiles(context)
    if reason is not None:
        context.notes.append(f"development files stay: {reason}")
        return
    users = installed(context, "headers")
    if users:
        context.notes.append(f"headers stay: {', '.join(users)} may read them while running")
    stay = {HEADERS} if users else set()
    header_owners, stub_owners = _owners("headers"), _owners("stubs")
    sites = tuple(sorted({f"{dist.site}/" for dist in context.ledger.distributions}, key=len, reverse=True))
    removals: dict[str, Proposal] = {}
    done: set[str] = set()  # directories whose parents were looked at
    stubs_stay: dict[str, str] = {}
    fs = context.ledger.fs
    for path in named(fs, context.ledger.facts, "development-files", _may_be_one):
        if path in context.gone:
            continue
        kind = _kind(context, path)
        if kind is None or kind in stay or fs.nodes[path].kind not in ("file", "symlink"):
            continue
        if not context.may_change(path):
            continue
        owner = context.ledger.owner(path)
        if owner.kind == "debian" and (kind == SHLIBDEPS or (kind == HEADERS and _is_embedding(path))):
            removals[path] = Proposal("remove", path, kind, _EVIDENCE[kind])
        if owner.kind != "python":
            continue
        if (kind == HEADERS and header_owners(owner.name)) or (kind == STUBS and stub_owners(owner.name)):
            continue
        if kind == STUBS and _is_read(context, path):
            stubs_stay.setdefault(owner.name, path)
            continue
        removals[path] = Proposal("remove", path, kind, _EVIDENCE[kind])
        directory = path.rpartition("/")[0]
        if directory in done:
            continue
        done.add(directory)
        for parent in _parents(sites, path):
            if parent not in removals and context.may_change(parent):
                removals[parent] = Proposal("remove", parent, kind, _EVIDENCE[kind])
    for name, path in sorted(stubs_stay.items()):
        context.notes.append(f"type stubs of {name} that it reads when imported stay (/{path})")
    for path in sorted(removals):
        yield removals[path]


def _owners(section: str) -> Callable[[str], bool]:
    """Tells whether a distribution is one that reads its own files of this kind; each is looked at once."""
    reads = matcher(known(section, "read_by_their_own"))
    return cache(lambda name: reads(str(canonicalize_name(name))))


def _is_embedding(path: str) -> bool:
    """Whether a header is one of those that Debian has in packages of libraries: Perl's own, for compiled modules."""
    return "/CORE/" in path and "/perl/" in path and path.startswith("usr/lib/")


def _may_be_one(path: str) -> bool:
    return _kind(None, path) is not None


def _kind(context: Context | None, path: str) -> str | None:
    """What kind of development file a path is, by its name and its neighbours'; None when it is none.

    Without a context, what it may be where it has the neighbours for it.
    """
    base = path.rpartition("/")[2]
    stem, dot, end = base.rpartition(".")
    suffix = dot + end if stem.strip(".") else ""
    kind = _BY_SUFFIX.get(suffix)
    if kind is not None:
        return kind
    if suffix in _IN_INCLUDE and "/include/" in path and not path.endswith(("/LICENSE", "/NOTICE")):
        return HEADERS
    if suffix in _C and (context is None or _is_compiled(context, path.removesuffix(suffix))):
        return GENERATED
    if suffix == ".pc" and "/pkgconfig/" in path:
        return CMAKE
    if "/bin/protoc" in path and _PROTOC.fullmatch(path):
        return PROTOC
    if _SHLIBDEPS.fullmatch(path):
        return SHLIBDEPS
    if path.endswith((".cmake.in", "/CMakeLists.txt")):
        return CMAKE
    return None


def _is_compiled(context: Context, stem: str) -> bool:
    """Whether a C file's module is there, compiled, or what Cython made it from."""
    nodes = context.ledger.fs.nodes
    if f"{stem}.pyx" in nodes:
        return True
    beside = context.ledger.fs.children(posixpath.dirname(stem))
    return any(child.startswith(f"{stem}.") and child.endswith(".so") for child in beside)


def _is_read(context: Context, path: str) -> bool:
    """Whether the module beside a stub reads it when it is imported (lazy_loader.attach_stub)."""
    module = f"{path[:-4]}.py"
    if module not in context.ledger.fs.nodes:
        return False
    data = source(context.ledger, module)
    return any(name.encode() in data for name in known("stubs", "readers"))


def _parents(sites: Sequence[str], path: str) -> Iterator[str]:
    """The directories between a path and its site."""
    site = next((site for site in sites if path.startswith(site)), None)
    parent = posixpath.dirname(path)
    while site is not None and len(parent) > len(site):
        yield parent
        parent = posixpath.dirname(parent)


PASS = Pass(
    name="development-files",
    risk="policy",
    order=60,
    summary="static libraries, headers, type stubs, Cython sources, CMake files and protoc of Python distributions",
    propose=propose,
)
