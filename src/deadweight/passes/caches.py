"""Caches that package managers and tools fill again when they need them; never those of models.

Of one tool's cache whole trees leave, but for what something else still needs. Of what any program writes to, as /tmp
and /var/log, only regular files: directories stay for whoever writes there next, and links are what logs often are.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache

from deadweight.errors import BadInputError
from deadweight.image.filesystem import Filesystem, Node
from deadweight.ledger.known import known, matcher
from deadweight.ledger.named import named
from deadweight.passes.application import sources
from deadweight.passes.base import Context, Pass, Proposal
from deadweight.passes.commands import commands
from deadweight.passes.imports import source

_ABSOLUTE = re.compile(r"/[^\s\"'`=:;,|&<>(){}$*?\[\]]*")
_SCRATCH = re.compile(rb"[\"'](/(?:tmp|var/tmp|var/log)/[\w.+/-]+)")
_REASONS = (
    ("var/lib/apt/lists/", "apt's package lists"),
    ("var/cache/apt/", "apt's cache"),
    ("var/lib/dpkg/", "dpkg's backups"),
    ("var/backups/", "dpkg's backups"),
    ("var/log/", "logs of the build"),
    ("tmp/", "temporary files"),
    ("var/tmp/", "temporary files"),
    ("var/cache/debconf/", "debconf's backups"),
)
MANY = 1000
"""Paths of a cache: fewer are looked at one by one."""
_PREFIXES = tuple(prefix for prefix, _ in _REASONS)


def propose(context: Context) -> Iterator[Proposal]:
    """Large caches that leave whole; then files of the others, and what of a tool's own is left without them."""
    fs, nodes = context.ledger.fs, context.ledger.fs.nodes
    shields = _Shields(context)
    roots = dict(_roots(fs))
    for root in sorted(roots):
        whole = context.whole(root)
        if len(whole) > MANY and shields.is_free(root, whole):
            del roots[root]
            yield Proposal("remove", root, *_reason_below(root), below=len(whole) - 1)
    found = _candidates(context, roots)
    reasons: dict[str, list[str]] = {}
    for path in sorted(found):
        reason = shields.reason(path, found[path])
        if nodes[path].kind != "file":  # nothing worth a note
            if reason is not None or shields.is_needed(nodes[path]):
                del found[path]
        elif reason is not None:
            reasons.setdefault(reason, []).append(path)
            del found[path]
    for path in _linked_to(context, found):
        if nodes[path].kind == "file":
            reasons.setdefault("a symbolic link from elsewhere leads there", []).append(path)
        del found[path]
    names = context.ledger.names
    for path in sorted(found):
        node = nodes[path]
        if node.source is not None and node.source.sparse and len(names[node.source_layer, node.source.index]) > 1:
            reasons.setdefault("sparse files with other names cannot move", []).append(path)
        elif context.may_change(path):
            why, evidence = _reason(path, found[path])
            yield Proposal("remove", path, why, evidence)
    for reason, paths in sorted(reasons.items()):
        files = "1 file of a cache stays" if len(paths) == 1 else f"{len(paths):,} files of caches stay"
        context.notes.append(f"{files}: {reason} (/{paths[0]})")


# --- what is in a cache --------------------------------------------------------------------------------


def _candidates(context: Context, roots: Iterable[str]) -> dict[str, str]:
    """What is in caches, each path with the directory or pattern that makes it one.

    Regular files; of one tool's cache also directories and symbolic links.
    """
    fs = context.ledger.fs
    patterns = _patterns()
    matches, in_tree = matcher(patterns), matcher(known("caches", "trees"))
    found: dict[str, str] = {}
    for path in named(fs, context.ledger.facts, "caches", matches):
        kind = fs.nodes[path].kind
        if path not in context.gone and (kind == "file" or (kind in ("dir", "symlink") and in_tree(path))):
            found[path] = next(p for p in patterns if fnmatchcase(path, p))
    for root in sorted(roots):
        for node in fs.walk(root):
            if node.entry is not None and node.kind in ("file", "dir", "symlink") and node.path not in context.gone:
                found.setdefault(node.path, root)
    return found


def _patterns() -> list[str]:
    return [p for name in ("trees", "patterns", "scratch") for p in known("caches", name)]


def _roots(fs: Filesystem) -> Iterator[tuple[str, None]]:
    """Directories that are caches: by name below .cache, and by the environment."""
    environment = fs.image.environment
    bases = [f"{home}/.cache" for home in homes(fs)]
    if environment.get("XDG_CACHE_HOME"):
        bases.append(environment["XDG_CACHE_HOME"])
    places = [(base, name) for base in bases for name in known("caches", "below_dot_cache")]
    for place in known("caches", "variables"):
        variable, _, name = place.partition("/")
        if environment.get(variable, "").startswith("/"):
            places.append((environment[variable], name))
    for base, name in places:
        directory = fs.resolve(base)
        if directory is None or directory.kind != "dir":
            continue
        for child in fs.children(directory.path):
            if fnmatchcase(posixpath.basename(child), name) and fs.nodes[child].kind == "dir":
                yield child, None


def homes(fs: Filesystem) -> list[str]:
    """The home directories: those of etc/passwd, root's, and HOME."""
    found = {"/root", fs.image.environment.get("HOME", "/root")}
    try:
        text = fs.read("etc/passwd", 4 << 20).decode("utf-8", "replace")
    except BadInputError:
        text = ""
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) > 5 and fields[5].startswith("/"):
            found.add(fields[5])
    return sorted(posixpath.normpath(home).rstrip("/") for home in found if home.startswith("/"))


def _reason(path: str, root: str) -> tuple[str, str]:
    if path.startswith(_PREFIXES):
        for prefix, why in _REASONS:
            if path.startswith(prefix):
                return why, f"below /{prefix.rstrip('/')}"
    return _reason_below(root)


@cache
def _reason_below(root: str) -> tuple[str, str]:
    if "*" in root:
        root = root.partition("*")[0].rstrip("/")
    # `.cache/uv`: the tool's name; `/opt/uv-cache/archive-v0`: the place.
    base = posixpath.basename(root)
    why = f"{base}'s cache" if base in known("caches", "below_dot_cache") else "a package manager's cache"
    return why, f"below /{root}"


# --- what stays ----------------------------------------------------------------------------------------


class _Shields:
    """What protects files of caches."""

    def __init__(self, context: Context) -> None:
        ledger = context.ledger
        self._ledger = ledger
        fs = ledger.fs
        environment = fs.image.environment
        places = {*known("caches", "places")}
        workdir = str(fs.image.run_config.get("WorkingDir") or "")
        self._loose = dict(_named(fs, [workdir, *(text for name, text in environment.items() if name not in places)]))
        volumes = fs.image.run_config.get("Volumes")
        self._strict = dict(_named(fs, volumes if isinstance(volumes, dict) else {}))
        self._strict.update(_named(fs, commands(ledger).words))
        self._strict.update(dict.fromkeys(commands(ledger).programs))
        self._sites = dict.fromkeys(_environment_of(fs, dist.site) for dist in ledger.distributions)
        self._is_model = matcher(known("caches", "model_directories"))
        self._suffixes = known("caches", "model_suffixes")
        self._scratch = matcher(known("caches", "scratch"))
        self._strict.pop("", None)
        self._passed: dict[str, None] = {}
        for place in (*self._strict, *self._loose, *dict(_named(fs, environment.values()))):
            fs.resolve(place, self._passed)
        self._near_strict, self._near_loose = _Nearest(self._strict), _Nearest(self._loose)
        self._near_sites = _Nearest(self._sites)
        self._named = {*self._strict, *self._loose, *self._sites}
        self._places: dict[tuple[str, str], str | None] = {}
        self._read = {
            place.decode("utf-8", "surrogateescape").strip("/"): path
            for path in sources(context)
            for place in _SCRATCH.findall(source(ledger, path))
        }
        self._near_read = _Nearest(self._read)

    def _of_place(self, path: str, root: str) -> str | None:
        """Why what lies at a path of a cache, or below it, stays for the sake of the place."""
        if self._near_strict(path):
            return "the image's configuration names the place"
        named = self._near_loose(path)
        if named is not None and not _above(named, root):
            return "the image's environment names the place"
        if self._near_sites(path) is not None:
            return "distributions are installed there"
        return None

    def is_free(self, root: str, paths: Sequence[str]) -> bool:
        """Whether there is no reason that any of a cache's `paths` stays, so that it leaves as one thing.

        uv's has every file of every distribution once more. Where there may be a reason each path is looked at.
        """
        fs, below = self._ledger.fs, f"{root}/"

        def is_inside(place: str) -> bool:
            return place == root or place.startswith(below)

        if self._of_place(root, root) is not None or any(map(is_inside, (*self._named, *self._passed))):
            return False
        if any(prefix.startswith(below) for prefix in _PREFIXES) or not self._ledger.is_nobodys(root):
            return False
        starts = [pattern.partition("*")[0] for pattern in _patterns()]
        near = any(start.startswith(below) or below.startswith(start) for start in starts)
        if near and any(map(matcher(_patterns()), paths)):
            return False
        for node in map(fs.nodes.__getitem__, paths):
            source = node.source
            if source is None or source.sparse or node.kind not in ("file", "dir", "symlink"):
                return False
            if node.kind == "dir" and not _can_be_made_again(fs, node):
                return False
        passed: dict[str, None] = {}
        for link in fs.symlinks:
            if not is_inside(link):
                fs.resolve(link, passed)
        return not any(map(is_inside, passed))

    def reason(self, path: str, root: str) -> str | None:
        """Why a file of a cache stays; None when it does not."""
        if path in self._named:
            reason = self._of_place(path, root)
        else:  # what its directory says holds for all of it
            place = path.rpartition("/")[0], root
            if place not in self._places:
                self._places[place] = self._of_place(*place)
            reason = self._places[place]
        if reason is not None:
            return reason
        kind = self._ledger.owner(path).kind
        if kind not in ("system", "application") or (kind == "application" and self._scratch(path)):
            return f"{'the application' if kind == 'application' else 'a package'} has it"
        node = self._ledger.fs.nodes[path]
        if self._scratch(path):
            read = self._near_read(path)
            if read is not None:
                return f"/{self._read[read]} mentions /{read}"
            if path.lower().endswith(self._suffixes) or any(map(self._is_model, path.lower().split("/")[1:-1])):
                return "it may be a model"
            if not _can_be_made_again(self._ledger.fs, node):
                return "its user could not make it again"
        return None

    def is_needed(self, node: Node) -> bool:
        """Whether a directory or link has to stay though what it leads to may leave: for its name, or its owner."""
        if node.path in self._passed:
            return True
        return node.kind == "dir" and node.source is not None and not _can_be_made_again(self._ledger.fs, node)


def _above(named: str, root: str) -> bool:
    """Whether a directory is above the cache itself: what it holds elsewhere says nothing about the cache."""
    place = root.partition("*")[0].rstrip("/")
    return place != named and (place.startswith(named + "/") or not named)


def _named(fs: Filesystem, texts: Iterable[str]) -> Iterator[tuple[str, None]]:
    """Absolute paths in texts, and relative ones that are there below the working directory."""
    workdir = str(fs.image.run_config.get("WorkingDir") or "/")
    for text in texts:
        found = _ABSOLUTE.findall(text) if "/" in text else []
        if text and not text.startswith(("/", "-")) and len(text) < 4096:
            found.append(posixpath.join(workdir, text))
        for path in found:
            place = posixpath.normpath(path).strip("/")
            if path.startswith("/") or place in fs.nodes:
                yield place, None
                node = fs.resolve(place)
                if node is not None:
                    yield node.path, None


class _Nearest:
    """Tells the nearest of some places that is a path or a directory above it; each directory is looked at once."""

    def __init__(self, places: Collection[str]) -> None:
        self._places = places
        self._known: dict[str, str | None] = {"": "" if "" in places else None}

    def __call__(self, path: str) -> str | None:
        above: list[str] = []
        while path not in self._known and path not in self._places:
            above.append(path)
            path = path.rpartition("/")[0]
        found = path if path in self._places else self._known[path]
        self._known.update(dict.fromkeys(above[1:], found))  # of directories: most files are asked for once
        return found


def _environment_of(fs: Filesystem, site: str) -> str:
    """The virtual environment that a site belongs to; itself when there is none."""
    parent = site
    while parent:
        parent = posixpath.dirname(parent)
        if f"{parent}/pyvenv.cfg" in fs.nodes:
            return parent
    return site


def _can_be_made_again(fs: Filesystem, node: Node) -> bool:
    """Whether its user may make a file or directory where it lies: a log made ready for a service is no garbage."""
    parent = fs.nodes[posixpath.dirname(node.path)].source
    assert node.source is not None  # it is a file, or a directory with an entry
    others = 0o022 if node.kind == "dir" else 0o002
    if node.source.uid == 0 and node.source.mode & others & ~(0 if parent is None else parent.mode):
        return False
    if node.source.uid == 0:
        return True
    return parent is not None and (parent.uid == node.source.uid or bool(parent.mode & 0o002))


def _linked_to(context: Context, found: Mapping[str, str]) -> list[str]:
    """Candidates that symbolic links from elsewhere lead to (uv can install by such), or through, or below those."""
    fs = context.ledger.fs
    roots = {root.partition("*")[0].rstrip("/"): None for root in found.values()}
    near_root = _Nearest(roots)
    targets: dict[str, None] = {}
    passed: dict[str, None] = {}
    for path in fs.symlinks:
        if path not in context.gone and near_root(path) is None:
            target = fs.resolve(path, passed)
            if target is not None and near_root(target.path) is not None:
                targets[target.path] = None
    # A link to all of /tmp, say, is there for its name: it protects the directory, but nothing in it.
    for root in roots:
        targets.pop(root, None)
    near_target = _Nearest(targets)
    nodes = fs.nodes
    return [
        path
        for path in sorted(found)
        if (path in passed and nodes[path].kind != "file") or (targets and near_target(path) is not None)
    ]


PASS = Pass(
    name="caches",
    risk="policy",
    order=20,
    summary="caches of package managers and tools, temporary files, logs of the build",
    propose=propose,
)
