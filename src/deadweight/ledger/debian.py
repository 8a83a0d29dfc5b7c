"""The Debian packages of an image: what dpkg has installed, and which files are theirs.

Formats: deb822(5), dpkg's `/var/lib/dpkg` (status, info/*.list, diversions, status.d as distroless images have it),
apt's extended_states, update-alternatives(1), deb-version(7). Paths are image paths, without a leading `/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from deadweight.errors import BadInputError
from deadweight.image.filesystem import Filesystem
from deadweight.ledger.debian_closure import Closure, removable
from deadweight.ledger.debian_edit import drop_list_lines, drop_stanzas, rewrite_md5sums
from deadweight.ledger.debian_version import satisfies
from deadweight.ledger.listed import Finder, join

__all__ = [
    "Alternative",
    "Candidate",
    "Closure",
    "Package",
    "alternatives",
    "drop_list_lines",
    "drop_stanzas",
    "owner_by_path",
    "read_packages",
    "removable",
    "rewrite_md5sums",
    "written_as",
]

DPKG = "var/lib/dpkg"
STATUS_LIMIT = 64 << 20
LIST_LIMIT = 16 << 20
PACKAGE_LIMIT = 100_000
# Directories of old that are links since /usr was merged: a package that lists `/bin` means the directory.
MERGED = frozenset({"bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32", "var/run", "var/lock"})

_RELATION = re.compile(r"\s*([^\s:(\[<]+)(?::[\w-]+)?\s*(?:\(\s*([<>=]+)\s*([^\s)]+)\s*\))?")
_FIELDS = frozenset(
    {"package", "status", "architecture", "version", "essential", "protected", "important", "priority", "section"}
    | {"depends", "pre-depends", "recommends", "provides", "installed-size", "source", "conffiles"}
)

Relation = tuple[str, str, str]
"""(name, operator, version); operator and version may be empty."""


class Package(msgspec.Struct, frozen=True):
    """A package that dpkg knows."""

    name: str
    architecture: str
    version: str
    essential: bool
    """Essential, Protected or Important: dpkg or apt refuse to remove it."""
    priority: str
    section: str
    installed: bool
    """Whether it is unpacked; otherwise only its configuration is left."""
    depends: tuple[tuple[str, ...], ...]
    """Pre-Depends and Depends: groups of alternatives, as names. Alternatives that are installed in a version that
    does not do are left out, where another one does."""
    recommends: tuple[tuple[str, ...], ...]
    provides: tuple[str, ...]
    installed_size: int
    """As dpkg states it, in bytes."""
    source: str
    auto: bool | None
    """Whether apt installed it only because another package needs it; None when the image does not say."""
    files: tuple[str, ...] = ()
    """What it lists and the view has, where the view has it; no directories."""
    listed_directories: tuple[str, ...] = ()
    info_files: tuple[str, ...] = ()
    """dpkg's own files about it."""
    conffiles: tuple[str, ...] = ()
    written: dict[str, str] = {}
    """For files whose path is another than the one listed (merged /usr, diversions): image path -> as listed."""
    source_version: str = ""
    """Of the source package, where it is not that of the package itself."""


def read_packages(fs: Filesystem, notes: list[str] | None = None) -> list[Package]:
    """Every package of the image, ordered by name and architecture; [] when there is no dpkg.

    A file that cannot be read counts as empty, and leaves a note in `notes`.
    """
    notes = [] if notes is None else notes
    stanzas: list[tuple[dict[str, str], tuple[str, ...] | None]] = []
    status = _text(fs, f"{DPKG}/status", STATUS_LIMIT, notes)
    stanzas += [(fields, None) for fields in read_stanzas(status)]
    for path in sorted(fs.children(f"{DPKG}/status.d")):
        if not path.endswith(".md5sums"):
            about = tuple(p for p in (path, f"{path}.md5sums") if p in fs.nodes)
            stanzas += [(fields, about) for fields in read_stanzas(_text(fs, path, LIST_LIMIT, notes))]
    stanzas = [s for s in stanzas if s[0].get("package")]
    if len(stanzas) > PACKAGE_LIMIT:
        notes.append(f"dpkg's status names more than {PACKAGE_LIMIT:,} packages: the rest was passed over")
        del stanzas[PACKAGE_LIMIT:]
    lists = _Lists(fs, notes)
    have = _versions(fields for fields, own in stanzas if _is_installed(fields, own))
    auto = _auto(fs, notes)
    packages: dict[tuple[str, str], Package] = {}
    for fields, own in stanzas:
        package = _package(fields, own, lists, have, auto)
        packages.setdefault((package.name, package.architecture), package)
    return _without_shared_links(fs, [packages[key] for key in sorted(packages)])


def read_stanzas(text: str) -> Iterator[dict[str, str]]:
    """The stanzas of a deb822 file: the fields that matter here, by lower-case name, lines joined by line ends."""
    for stanza in re.split(r"\n(?:[ \t]*\n)+", text):
        fields: dict[str, list[str]] = {}
        value: list[str] | None = None
        for line in stanza.split("\n"):
            if line[:1] in (" ", "\t"):
                if value is not None:
                    value.append(line.strip())
                continue
            name, colon, first = line.partition(":")
            key = name.lower()
            value = None
            if colon and key in _FIELDS:
                value = fields[key] = [first.strip()]
        if fields:
            yield {key: "\n".join(lines) for key, lines in fields.items()}


def read_relations(text: str) -> list[list[Relation]]:
    """A relation field (deb-control(5)): groups, of which one alternative each must hold."""
    groups = []
    for part in text.replace("\n", " ").split(","):
        matches = (_RELATION.match(alternative) for alternative in part.split("|"))
        group = [(m[1], m[2] or "", m[3] or "") for m in matches if m]
        if group:
            groups.append(group)
    return groups


def _text(fs: Filesystem, path: str, limit: int, notes: list[str]) -> str:
    if path not in fs.nodes:
        return ""
    try:
        return fs.read(path, limit).decode("utf-8", "surrogateescape")
    except BadInputError as error:
        notes.append(f"{error}: counted as empty")
        return ""


def _is_installed(fields: dict[str, str], own: tuple[str, ...] | None) -> bool:
    words = fields.get("status", "").split()
    if not words:
        return own is not None  # distroless states none
    return len(words) == 3 and words[2] not in ("not-installed", "config-files")


def _versions(stanzas: Iterable[dict[str, str]]) -> dict[str, list[str]]:
    """The versions under which each name is there, real or provided; empty for a provided name without one."""
    have: dict[str, list[str]] = {}
    for fields in stanzas:
        have.setdefault(fields["package"], []).append(fields.get("version", ""))
        for group in read_relations(fields.get("provides", "")):
            have.setdefault(group[0][0], []).append(group[0][2])
    return have


def _groups(text: str, have: dict[str, list[str]]) -> tuple[tuple[str, ...], ...]:
    groups = []
    for group in read_relations(text):
        names = [name for name, _, _ in group]
        if len(group) > 1:
            good = [name for name, op, version in group if any(satisfies(v, op, version) for v in have.get(name, ()))]
            names = good or names
        groups.append(tuple(dict.fromkeys(names)))
    return tuple(groups)


def _auto(fs: Filesystem, notes: list[str]) -> dict[str, bool] | None:
    """By package name: what apt's extended_states says; None when it is not there.

    By name alone, as apt writes packages for all architectures under the machine's own.
    """
    path = "var/lib/apt/extended_states"
    if path not in fs.nodes:
        return None
    found: dict[str, bool] = {}
    for match in re.finditer(r"^Package: (\S+)\n((?:[^\n]+\n?)*)", _text(fs, path, LIST_LIMIT, notes), re.MULTILINE):
        is_auto = re.search(r"^Auto-Installed: 1$", match[2], re.MULTILINE) is not None
        found[match[1]] = found.get(match[1], True) and is_auto
    return found


def _package(
    fields: dict[str, str],
    own: tuple[str, ...] | None,
    lists: _Lists,
    have: dict[str, list[str]],
    auto: dict[str, bool] | None,
) -> Package:
    name, architecture = fields["package"], fields.get("architecture", "")
    installed = _is_installed(fields, own)
    info = own if own is not None else lists.info_of(name, architecture)
    files, directories, written = lists.read(name, info)
    size = fields.get("installed-size", "")
    # `path md5 [obsolete] [remove-on-upgrade]`; a path may hold spaces.
    conffiles = (
        re.match(r"/(.+?) \w+(?: obsolete| remove-on-upgrade)*\Z", line)
        for line in fields.get("conffiles", "").split("\n")
    )
    source, _, source_version = fields.get("source", name).partition(" ")
    depends = ", ".join(filter(None, (fields.get("pre-depends"), fields.get("depends"))))
    return Package(
        name=name,
        architecture=architecture,
        version=fields.get("version", ""),
        essential=any(fields.get(f, "").lower() == "yes" for f in ("essential", "protected", "important")),
        priority=fields.get("priority", ""),
        section=fields.get("section", ""),
        installed=installed,
        depends=_groups(depends, have),
        recommends=_groups(fields.get("recommends", ""), have),
        provides=tuple(dict.fromkeys(group[0][0] for group in read_relations(fields.get("provides", "")))),
        installed_size=int(size) * 1024 if size.isascii() and size.isdigit() and len(size) < 15 else 0,
        source=source,
        auto=None if auto is None else auto.get(name, False),
        files=files,
        listed_directories=directories,
        info_files=info,
        conffiles=tuple(match[1] for match in conffiles if match),
        written=written,
        source_version=source_version.strip(" ()"),
    )


class _Lists:
    """Finds and reads the lists of files below info/ and status.d/, with dpkg's diversions."""

    def __init__(self, fs: Filesystem, notes: list[str]) -> None:
        self._fs = fs
        self._notes = notes
        self._finder = Finder(fs)
        self._info: dict[str, list[str]] = {}
        for path in fs.children(f"{DPKG}/info"):
            self._info.setdefault(path.rpartition("/")[2].rpartition(".")[0], []).append(path)
        lines = _text(fs, f"{DPKG}/diversions", LIST_LIMIT, notes).split("\n")
        triples = zip(lines[0::3], lines[1::3], lines[2::3], strict=False)
        self._diverted = {old.lstrip("/"): (new.lstrip("/"), by) for old, new, by in triples}

    def info_of(self, name: str, architecture: str) -> tuple[str, ...]:
        """dpkg's files about a package: `NAME.list`, or `NAME:ARCH.list` where several architectures can be there."""
        return tuple(sorted(self._info.get(f"{name}:{architecture}") or self._info.get(name) or []))

    def read(self, package: str, info: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, str]]:
        """(files, directories, image path -> path as listed where they differ) of a package."""
        path = next((p for p in info if p.endswith(".list")), None)
        names: list[str] = []
        text = ""
        if path is not None:
            text = _text(self._fs, path, LIST_LIMIT, self._notes)
            names = text.split("\n")
        else:
            path = next((p for p in info if p.endswith(".md5sums")), None)
            if path is not None:
                lines = _text(self._fs, path, LIST_LIMIT, self._notes).split("\n")
                names = [line.partition("  ")[2] for line in lines]
        files: dict[str, None] = {}
        directories: dict[str, None] = {}
        written: dict[str, str] = {}
        for name in names:
            listed = name[1:] if name[:1] == "/" and name[1:2] != "." else join("", name.lstrip("/"))
            if not listed:
                continue
            target, by = self._diverted.get(listed, (listed, package))
            node = self._finder.node(listed if by == package else target)
            if node is None:
                continue
            if node.kind == "dir" or (node.kind == "symlink" and self._is_directory(node.path, listed, text)):
                directories[node.path] = None
                continue
            files[node.path] = None
            if node.path != listed:
                written[node.path] = listed
        return tuple(files), tuple(directories), written

    def _is_directory(self, path: str, listed: str, text: str) -> bool:
        """Whether a package means a directory by what is a symbolic link to one now."""
        if listed in MERGED:
            return True
        target = self._fs.resolve(path)
        return target is not None and target.kind == "dir" and f"\n/{listed}/" in text


def _without_shared_links(fs: Filesystem, packages: list[Package]) -> list[Package]:
    """Takes links that several packages list from all of them: only directories can be shared like that."""
    count: dict[str, int] = {}
    for package in packages:
        for path in package.files:
            if fs.nodes[path].kind == "symlink":
                count[path] = count.get(path, 0) + 1
    shared = {
        path
        for path, packages_with in count.items()
        if packages_with > 1 and (node := fs.resolve(path)) is not None and node.kind == "dir"
    }
    if not shared:
        return packages
    return [
        msgspec.structs.replace(
            p,
            files=tuple(f for f in p.files if f not in shared),
            listed_directories=(*p.listed_directories, *(f for f in p.files if f in shared)),
        )
        for p in packages
    ]


def owner_by_path(packages: Iterable[Package]) -> dict[str, str]:
    """The package that each file belongs to; the first by name where several list it (two architectures of one)."""
    owners: dict[str, str] = {}
    for package in sorted(packages, key=lambda p: (p.name, p.architecture)):
        for path in package.files:
            owners.setdefault(path, package.name)
    return owners


def written_as(package: Package, paths: Iterable[str]) -> set[str]:
    """Image paths of a package's files as its .list and .md5sums write them, without the leading `/`."""
    return {package.written.get(path, path) for path in paths}


class Candidate(msgspec.Struct, frozen=True):
    """One of the files that an alternative can stand for; `slaves` are in the alternative's order, "" for none."""

    path: str
    priority: int
    slaves: tuple[str, ...]


class Alternative(msgspec.Struct, frozen=True):
    """A group of update-alternatives(1): `cc`, say, which /usr/bin/cc points to through /etc/alternatives/cc."""

    name: str
    automatic: bool
    admin: str
    """dpkg's file about it."""
    link: str
    slaves: tuple[tuple[str, str], ...]
    """(name, link)"""
    candidates: tuple[Candidate, ...]

    @property
    def links(self) -> tuple[str, ...]:
        """All links that belong to it: the public ones, and those in /etc/alternatives."""
        names = [(self.name, self.link), *self.slaves]
        return tuple(path for name, link in names for path in (link, f"etc/alternatives/{name}"))


def alternatives(fs: Filesystem, notes: list[str] | None = None) -> list[Alternative]:
    """Every group of alternatives, by name. Links are paths of the view; damaged files leave a note."""
    notes = [] if notes is None else notes
    finder = Finder(fs)
    found = []
    for admin in sorted(fs.children(f"{DPKG}/alternatives")):
        try:
            found.append(_alternative(admin, _text(fs, admin, LIST_LIMIT, notes), finder))
        except (ValueError, IndexError):
            notes.append(f"{admin} is no file of update-alternatives: passed over")
    return found


def _alternative(admin: str, text: str, finder: Finder) -> Alternative:
    lines = iter(text.split("\n"))

    def take() -> str:
        line = next(lines, None)
        if line is None:
            raise ValueError("cut short")
        return line

    def located(path: str) -> str:
        node = finder.node(path.lstrip("/"))
        return node.path if node is not None else path.lstrip("/")

    automatic = take() == "auto"
    link = located(take())
    slaves = []
    while name := take():
        slaves.append((name, located(take())))
    candidates = []
    while path := take():
        priority = int(take())
        candidates.append(Candidate(path.lstrip("/"), priority, tuple(take().lstrip("/") for _ in slaves)))
    return Alternative(admin.rpartition("/")[2], automatic, admin, link, tuple(slaves), tuple(candidates))
