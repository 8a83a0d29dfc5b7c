"""What is at a path of the image: seen in the merged view, nothing is run or unpacked."""

from __future__ import annotations

import posixpath
import stat

from deadweight.errors import shown
from deadweight.image.filesystem import Filesystem, Node
from deadweight.sizes import show_size
from deadweight.verify.model import Observation
from deadweight.verify.probes import Kind, nothing_differs
from deadweight.verify.side import NoAnswer, Side
from deadweight.verify.spec import FileProbe
from deadweight.verify.spec.patterns import SEARCHED, compiled, searched
from deadweight.verify.spec.variables import expanded

_TYPES = {"file": stat.S_IFREG, "dir": stat.S_IFDIR, "symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO}
_IMPLIED = 0o755  # what engines give a directory that no layer has an entry of
_EXECUTABLE = {"any": 0o111, "owner": 0o100, "group": 0o010, "other": 0o001}


def observe(probe: FileProbe, side: Side) -> Observation:
    """Looks at the path, and says what of the probe it does not meet."""
    path = expanded(probe.path, side.ledger.image.environment) if probe.expand else probe.path
    node = look(side.fs, path, probe.follow)
    if node is None:
        missing = (f"{shown(path)}: is not there",) if probe.exists else ()
        return Observation("not there", data=missing)
    permissions = permissions_of(node)
    summary = f"{permissions} {owner_of(node)}, {show_size(node.size)}"
    if not probe.exists:
        return Observation(summary, data=(f"{shown(path)}: is there",))
    wrong = list(_metadata(probe, node))
    if probe.contents or probe.no_contents:
        wrong += _contents(probe, side.fs, node, bool(wrong))
    return Observation(summary, data=tuple(f"{shown(path)}: {what}" for what in wrong))


def unmet(probe: FileProbe, seen: Observation) -> list[str]:
    """What it does not meet."""
    return list(seen.data)


def look(fs: Filesystem, path: str, follow: bool) -> Node | None:
    """What is at a path; links on the way are followed inside the image, and one at its end with `follow`."""
    if follow:
        return fs.resolve(path)
    parent, _, base = path.rstrip("/").rpartition("/")
    if base in ("", ".", ".."):
        return fs.resolve(path)
    directory = fs.resolve(parent)
    return None if directory is None else fs.nodes.get(posixpath.join(directory.path, base))


def permissions_of(node: Node) -> str:
    """As `ls -l` writes them."""
    if node.source is None:
        return stat.filemode(stat.S_IFDIR | _IMPLIED)
    if node.source.device is not None:
        kind = stat.S_IFBLK if node.source.device[0] == b"4" else stat.S_IFCHR
    else:
        kind = _TYPES[node.kind]
    return stat.filemode(kind | (node.source.mode & 0o7777))


def owner_of(node: Node) -> str:
    """As `uid:gid`."""
    return "0:0" if node.source is None else f"{node.source.uid}:{node.source.gid}"


def _metadata(probe: FileProbe, node: Node) -> list[str]:
    permissions = permissions_of(node)
    mode = _IMPLIED if node.source is None else node.source.mode
    uid, gid = owner_of(node).split(":")
    wrong = []
    if probe.permissions is not None and probe.permissions != permissions:
        wrong.append(f"permissions {permissions}, not {probe.permissions}")
    if probe.uid is not None and str(probe.uid) != uid:
        wrong.append(f"owner {uid}, not {probe.uid}")
    if probe.gid is not None and str(probe.gid) != gid:
        wrong.append(f"group {gid}, not {probe.gid}")
    if probe.executable_by is not None and not mode & _EXECUTABLE[probe.executable_by]:
        wrong.append(f"{permissions} is not executable by {probe.executable_by}")
    return wrong


def _contents(probe: FileProbe, fs: Filesystem, node: Node, failed: bool) -> list[str]:
    """What the content lacks or has. Raises NoAnswer where that depends on what was not searched."""
    if node.kind != "file":
        return [f"is no file but a {'directory' if node.kind == 'dir' else node.kind}"]
    assert node.source is not None
    if node.source.sparse:
        raise NoAnswer(f"{shown(node.path)} is a sparse file, whose content is not read")
    text = searched(fs.reader(node)(0, min(node.size, SEARCHED)))
    found = {pattern: bool(compiled(pattern).search(text)) for pattern in (*probe.contents, *probe.no_contents)}
    lacks = [f"{shown(pattern)} does not match" for pattern in probe.contents if not found[pattern]]
    has = [f"{shown(pattern)} matches" for pattern in probe.no_contents if found[pattern]]
    behind = node.size > SEARCHED and not all(found.values())
    if behind and not has and not failed:
        raise NoAnswer(f"{shown(node.path)} has {node.size:,} bytes, and nothing was found in the first {SEARCHED:,}")
    return has if behind else lacks + has


KIND = Kind(observe, nothing_differs, unmet, must=lambda _: True)
