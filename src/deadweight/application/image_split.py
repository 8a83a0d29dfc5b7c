"""An image as two services: which distributions only inference needs, which the core needs, and which both."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from deadweight.application.discover import discover
from deadweight.application.import_graph import Code, ImportCheck, check_imports
from deadweight.application.import_sites import read_module
from deadweight.application.material import material_of
from deadweight.errors import UsageError, shown
from deadweight.ledger.account import make_account
from deadweight.ledger.ledger import Ledger
from deadweight.ledger.requirements import Graph, is_application
from deadweight.passes.application import is_test, sources
from deadweight.passes.base import Context
from deadweight.passes.commands import commands
from deadweight.passes.imports import parse, source

FRAMEWORKS = frozenset(
    {"torch", "tensorflow", "tensorflow-cpu", "jax", "jaxlib", "flax", "keras", "onnxruntime", "onnxruntime-gpu"}
    | {
        "transformers",
        "sentence-transformers",
        "vllm",
        "paddlepaddle",
        "mxnet",
        "spacy",
        "fasttext",
        "llama-cpp-python",
    }
    | {"xgboost", "lightgbm", "catboost", "openvino", "ctranslate2", "diffusers", "gensim", "ultralytics"}
)
"""Distributions that do inference, where nobody says which."""


@dataclass(frozen=True)
class ImageSplit:
    """What an image's distributions are for. Names are canonical; bytes are those of the image's layers."""

    named: tuple[str, ...]
    """What was taken for inference."""
    by: str
    """Who said so."""
    ml: dict[str, int]
    """Only inference needs these; with their bytes, the largest first."""
    core: dict[str, int]
    """Only the core needs these."""
    both: dict[str, int]
    other: dict[str, int]
    """Nothing that was looked at needs these: they stay in the core."""
    bytes: int
    """Of the image."""
    check: ImportCheck | None
    """Whether the application imports what only inference needs; None where no application was found."""

    @property
    def core_bytes(self) -> int:
        """What the image would come to without what only inference needs."""
        return self.bytes - sum(self.ml.values())


def split_image(ledger: Ledger, names: Collection[str], extra: str | None, entry: str | None = None) -> ImageSplit:
    """Splits an image by distributions that only inference needs, by an extra of the application, or by what is known.

    Raises UsageError for what is not installed, for an extra that nothing asks for, and where nothing is known.
    """
    graph = ledger.graph
    found, by = _named(graph, names, extra)
    module = entry or discover(ledger).app.partition(":")[0]
    own = {d.name for d in ledger.distributions if is_application(d) or module.partition(".")[0] in d.top_level}
    code = _code(ledger, own)
    if entry is not None and entry not in code.paths:
        raise UsageError(f"the image's application has no module {shown(entry)}: name another by --entry")
    core = _reach(graph, _core_seeds(ledger, code, own, found), found)
    ml = _reach(graph, found, ()) - core
    both = core & _reach(graph, found, ())
    sizes = _sizes(ledger)
    ordered = sorted(graph.distributions, key=lambda name: (-sizes.get(name, 0), name))

    def part(wanted: Collection[str]) -> dict[str, int]:
        return {name: sizes.get(name, 0) for name in ordered if name in wanted}

    other = graph.distributions.keys() - core - ml - both
    check = _check(ledger, code, module, ml) if module in code.paths else None
    total = sum(layer.size for layer in ledger.image.layers)
    return ImageSplit(tuple(sorted(found)), by, part(ml), part(core - both), part(both), part(other), total, check)


def _named(graph: Graph, names: Collection[str], extra: str | None) -> tuple[set[str], str]:
    """The distributions that begin the inference part, and who says so."""
    extras: dict[str, set[str]] = {}
    for source_name in graph.roots:
        for edge in graph.edges[source_name]:
            if edge.extra:
                extras.setdefault(edge.extra, set()).add(edge.target)
    if names:
        wanted = {str(canonicalize_name(name)) for name in names}
        for name in sorted(wanted - graph.distributions.keys()):
            raise UsageError(f"--by {shown(name)}: no such distribution is installed in the image")
        return wanted, "--by"
    if extra is not None:
        if extra not in extras:
            there = ", ".join(sorted(extras)) or "none"
            raise UsageError(f"no application in the image has the extra {shown(extra)} installed; there are: {there}")
        return extras[extra], f"the extra {extra}"
    fitting = {name: found for name, found in extras.items() if found & FRAMEWORKS}
    if fitting:
        first = min(fitting, key=lambda name: (-len(fitting[name]), name))
        return fitting[first], f"the extra {first}"
    known = FRAMEWORKS & graph.distributions.keys()
    if not known:
        raise UsageError("nothing that is known to do inference is installed: name distributions by --by")
    return set(known), "known frameworks"


def _core_seeds(ledger: Ledger, code: Code, own: Collection[str], named: Collection[str]) -> set[str]:
    """What the core itself needs: by the application's metadata, by what it imports at once, by what the image runs."""
    graph = ledger.graph
    by_module: dict[str, set[str]] = {}
    for dist in ledger.distributions:
        for module in dist.top_level:
            by_module.setdefault(module, set()).add(dist.name)
    files = {path: dist.name for dist in ledger.distributions for path in dist.files}
    found: set[str] = set()
    for name in own:
        found |= {name, *(edge.target for edge in graph.edges[name] if not edge.extra)}
    for path in commands(ledger).programs:
        found |= {files[path]} if path in files else set()
    for module in commands(ledger).modules:
        found |= by_module.get(module.partition(".")[0], set())
    if not own:  # code that no metadata speaks for
        found |= {name for module in _imported(code) for name in by_module.get(module, ())}
    return found - set(named)


def _imported(code: Code) -> set[str]:
    """Top-level modules that the application's files import at once."""
    found = set()
    for name, path in code.paths.items():
        tree = parse(code.read(path) or b"")
        if tree is not None:
            sites = read_module(tree, name, path.endswith("/__init__.py")).sites
            found |= {site.target.partition(".")[0] for site in sites if site.when == "import" and not site.scope}
    return found


def _reach(graph: Graph, start: Iterable[str], without: Collection[str]) -> set[str]:
    """What distributions need, by requirements that hold: hard ones, and extras that somebody asks for."""
    seen = set(start)
    todo = list(seen)
    while todo:
        for edge in graph.edges[todo.pop()]:
            if edge.kind != "inferred" and edge.target not in seen and edge.target not in without:
                seen.add(edge.target)
                todo.append(edge.target)
    return seen


def _sizes(ledger: Ledger) -> dict[str, int]:
    by_owner = make_account(ledger).by_owner
    found: dict[str, int] = {}
    for owner, size in by_owner.items():
        if owner.kind == "python":
            name = str(canonicalize_name(owner.name))
            found[name] = found.get(name, 0) + size
    return found


def _code(ledger: Ledger, own: Collection[str]) -> Code:
    """The application's own modules in the image: of the distributions that it is, and of nobody."""
    material = material_of(ledger)
    paths: dict[str, str] = {}
    roots = {path: dist.site for dist in ledger.distributions if dist.name in own for path in dist.files}
    for path in dict.fromkeys([*roots, *sources(Context(ledger))]):
        if not path.endswith(".py") or is_test(path):
            continue
        site = roots.get(path)
        name = material.sources.module(path)
        if site is not None and path.startswith(f"{site}/"):
            name = path[len(site) + 1 :].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if name and all(part.isidentifier() for part in name.split(".")):
            paths.setdefault(name, path)

    def read(path: str) -> bytes | None:
        node = ledger.fs.nodes[path]
        return source(ledger, path) or (b"" if node.kind == "file" and node.size == 0 else None)

    return Code(paths, read)


def _check(ledger: Ledger, code: Code, entry: str, ml: Collection[str]) -> ImportCheck:
    forbidden: dict[str, str] = {}
    known: dict[str, str] = {}
    for dist in ledger.distributions:
        modules: Mapping[str, str] = dict.fromkeys(dist.top_level, dist.name)
        (forbidden if dist.name in ml else known).update(modules)
    forbidden = {module: name for module, name in forbidden.items() if module not in known}
    return check_imports(code, entry, forbidden, known)
