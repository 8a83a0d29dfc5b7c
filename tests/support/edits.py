"""Generated images and requests to edit them: what the contract of edits is tested with."""

from __future__ import annotations

import io
import tarfile
from typing import Any

from hypothesis import strategies as st

from deadweight.image.content import Content
from deadweight.image.edit import Edit
from deadweight.image.filesystem import Filesystem
from support.layers import Seen, Tar, member, merged_view, roots_of, tar_of

LONG = "n" * 120
NAMES = ["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "d/e/b", "f", "f/a", f"f/{LONG}", f"f/{LONG}/x"]
SPARSE = {"GNU.sparse.size": "2000", "GNU.sparse.map": "10,5"}
SPARSE_CONTENT = bytes(10) + b"holes" + bytes(1985)
GLOBAL = tarfile.TarInfo.create_pax_global_header({"comment": "of a commit"})
CONTENTS = [b"", b"one", b"two" * 300, b"x" * 512]


@st.composite
def layers(draw: st.DrawFn) -> list[bytes]:
    """Valid layers: every entry fits the state that the oracle sees at that point."""
    tars: list[bytes] = []
    for _ in range(draw(st.integers(1, 4))):
        members: list[tuple[tarfile.TarInfo, bytes]] = []
        lower = merged_view(tars)
        for name in draw(st.lists(st.sampled_from(NAMES), max_size=3, unique=True)):
            if any(p == name or p.startswith(name + "/") for p in lower):
                head, _, base = name.rpartition("/")
                opaque = lower.get(name, Seen("", 0, 0, 0, b"", "", (), 0)).kind == "dir" and draw(st.booleans())
                white = f"{name}/.wh..wh..opq" if opaque else f"{head}/.wh.{base}".strip("/")
                members.append(member(white))
        for _ in range(draw(st.integers(0, 7))):
            view = merged_view([*tars, tar_of(members)])
            name = draw(st.sampled_from(NAMES))
            if any(view[p].kind != "dir" for p in roots_of(name) if p in view):
                continue
            if any(p not in view and any(q in lower and lower[q].kind != "dir" for q in [p]) for p in roots_of(name)):
                continue
            meta: dict[str, Any] = {
                "mtime": draw(st.sampled_from([0, 7, 1.5])),
                "uid": draw(st.sampled_from([0, 9])),
            }
            if draw(st.integers(0, 5)) == 0:
                meta["pax_headers"] = {"SCHILY.xattr.user.x": draw(st.sampled_from(["1", "ü"]))}
            kind = draw(st.sampled_from(["file", "file", "dir", "symlink", "link", "link", "sparse"]))
            if kind == "sparse":
                members.append(member(name, b"holes", pax_headers=SPARSE))
            elif kind == "file":
                members.append(member(name, draw(st.sampled_from(CONTENTS)), **meta))
            elif kind == "dir":
                members.append(member(name, kind=tarfile.DIRTYPE, **meta))
            elif kind == "symlink":
                members.append(
                    member(name, kind=tarfile.SYMTYPE, link="../" + draw(st.sampled_from(["q", LONG])), **meta)
                )
            else:
                files = sorted(
                    p
                    for p, s in view.items()
                    if s.kind != "dir" and s.content != SPARSE_CONTENT and not f"{p}/".startswith(f"{name}/")
                )
                if files:
                    members.append(member(name, kind=tarfile.LNKTYPE, link=draw(st.sampled_from(files))))
        headed = draw(st.sets(st.integers(0, len(members) - 1), max_size=2)) if members else set()
        tars.append(with_globals(tar_of(members), headed))
    return tars


def with_globals(tar: bytes, headed: set[int]) -> bytes:
    """The tar with a pax global header before some of its entries, as `git archive` and joined tars have them."""
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
        starts = [info.offset for info in archive.getmembers()]
    for number in sorted(headed, reverse=True):
        tar = tar[: starts[number]] + GLOBAL + tar[starts[number] :]
    return Tar(tar)


def is_sparse(fs: Filesystem, path: str) -> bool:
    source = fs.nodes[path].source
    return source is not None and source.sparse


@st.composite
def requests(draw: st.DrawFn, fs: Filesystem) -> Edit:
    paths = sorted(p for p, n in fs.nodes.items() if p and n.entry is not None)
    keep = draw(st.sets(st.integers(0, len(fs.image.layers) - 1), max_size=1))

    def editable(path: str) -> bool:
        node = fs.nodes[path]
        return node.layer not in keep and node.source_layer not in keep

    remove = draw(st.sets(st.sampled_from(paths))) if paths else set()
    remove = {p for p in remove if editable(p)}
    hidden = fs.hidden + [
        (layer.position, e.index) for layer in fs.image.layers for e in layer.entries if e.whiteout is not None
    ]
    drop = draw(st.sets(st.sampled_from(hidden))) if hidden else set()
    files = [p for p in paths if fs.nodes[p].kind == "file" and editable(p) and not is_sparse(fs, p)]
    chosen = draw(st.sets(st.sampled_from(files), max_size=3)) if files else set()
    by_inode = {fs.nodes[p].inode: p for p in sorted(chosen)}
    rewrite = {p: Content((b"new", (0, min(2, fs.nodes[p].size)))) for p in by_inode.values()}
    link: dict[str, str] = {}
    for path in files:
        for other in files:
            a, b = fs.nodes[path], fs.nodes[other]
            assert a.source
            assert b.source
            same = (a.source.mode, a.source.mtime, a.source.uid, a.source.xattrs, a.source_layer, a.layer) == (
                b.source.mode, b.source.mtime, b.source.uid, b.source.xattrs, b.source_layer, b.layer
            )  # fmt: skip
            untouched = a.inode not in by_inode and b.inode not in by_inode
            if a.inode != b.inode and same and untouched and fs.read(path) == fs.read(other) and draw(st.booleans()):
                link.setdefault(path, other)
                break
    steps = {path: draw(st.lists(st.integers(0, 3000), max_size=2)) for path in rewrite}
    return Edit(remove, rewrite, link, {k for k in drop if k[0] not in keep}, keep, steps)
