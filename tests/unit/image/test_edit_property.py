"""The contract of edits, over generated images and arbitrary requests, against the naive oracle."""

from __future__ import annotations

import tarfile
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from deadweight.image.addition import CannotAdd, add_file
from deadweight.image.changed import changed_image
from deadweight.image.content import Content
from deadweight.image.edit import Edit, Edited, edit_image, layer_chunks, really_removed
from deadweight.image.filesystem import Filesystem
from deadweight.image.layer import read_entries
from deadweight.image.model import Image
from support.elf import read_from
from support.layers import Seen, image_of, member, merged_view, roots_of, tar_of, without_inodes

LONG = "n" * 120
NAMES = ["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "d/e/b", "f", "f/a", f"f/{LONG}", f"f/{LONG}/x"]
SPARSE = {"GNU.sparse.size": "2000", "GNU.sparse.map": "10,5"}
SPARSE_CONTENT = bytes(10) + b"holes" + bytes(1985)
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
        tars.append(tar_of(members))
    return tars


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
    hidden = fs.hidden() + [
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


def blocks(size: int) -> int:
    """What a content takes in a tar."""
    return size + -size % 512


def copies(fs: Filesystem, path: str) -> int:
    """How many entries mean a file, hidden ones too: each of them may come to carry its bytes."""
    return 1 + sum(inode == fs.nodes[path].inode for inode in fs.inodes.values())


def build(image: Image, edited: Edited) -> list[bytes]:
    return [b"".join(layer_chunks(image, layer)) for layer in edited.layers]


def check_unwritten(image: Image, edited: Edited, built: list[bytes]) -> None:
    """The edited image that is not written has the same bytes, and knows its entries as if it had read them."""
    with ExitStack() as resources:
        for layer, tar in zip(changed_image(image, edited, b"", resources).layers, built, strict=True):
            assert b"".join(layer.tar.chunks()) == tar
            assert layer.entries == read_entries(layer.tar, "the layer")


def expected(view: dict[str, Seen], fs: Filesystem, edit: Edit) -> dict[str, Seen]:
    """The contract, by brute force."""
    gone: set[str] = set()
    pinned = {target for link, target in fs.link_targets.items() if link[0] in edit.keep_layers}
    while True:
        more = {
            p
            for p in edit.remove
            if p not in gone
            and fs.nodes[p].key not in pinned
            and not any(q.startswith(p + "/") and q not in gone for q in fs.nodes)
        }
        if not more:
            break
        gone |= more
    by_inode = {fs.nodes[p].inode: c for p, c in edit.rewrite.items()}
    result = {}
    for path, seen in view.items():
        if path in gone:
            continue
        content = by_inode.get(fs.nodes[path].inode)
        if content is not None:
            result[path] = replace(seen, content=content.reader(read_from(seen.content))(0, content.size))
        else:
            result[path] = seen
    return result


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_request_leaves_the_view_less_the_cuts(data: st.DataObject) -> None:
    tars = data.draw(layers())
    with image_of(tars) as image:
        fs = Filesystem(image)
        view = merged_view(tars)
        assert {p for p, n in fs.nodes.items() if n.entry is not None} == set(view)
        edit = data.draw(requests(fs))
        edited = edit_image(fs, edit)
        built = build(image, edited)
        assert without_inodes(merged_view(built)) == without_inodes(expected(view, fs, edit))
        for layer, tar in zip(edited.layers, built, strict=True):
            assert layer.size == len(tar)
            assert layer.position not in edit.keep_layers or tar == tars[layer.position]
            assert layer.pieces is None or tar.endswith(bytes(1024))
        check_unwritten(image, edited, built)
        difference = sum(map(len, tars)) - sum(map(len, built))
        assert difference == sum(c.before - c.after for c in edited.charges.values())
        assert all(min(c.before, c.after, *c.between, 0) == 0 for c in edited.charges.values())
        for path in edit.rewrite.keys() & edited.charges.keys() & merged_view(built).keys():
            steps, charge = edit.steps[path], edited.charges[path]
            assert len(charge.between) == len(steps)
            for size, taken in zip(steps, charge.between, strict=True):
                assert (taken - charge.after) % 512 == 0
                each = blocks(size) - blocks(edit.rewrite[path].size)
                assert taken - charge.after in [each * carriers for carriers in range(1, copies(fs, path) + 1)]
        # Hard links of one layer that stay are still one file, where no name is taken twice.
        new = merged_view(built)
        if any(len({e.name for e in layer.entries}) < len(layer.entries) for layer in image.layers):
            return
        for path in new:
            for other in new:
                one, two = fs.nodes[path], fs.nodes[other]
                if one.inode == two.inode and one.layer == two.layer == one.source_layer:
                    assert new[path].inode == new[other].inode


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(layers())
def test_an_empty_request_changes_nothing(tars: list[bytes]) -> None:
    with image_of(tars) as image:
        edited = edit_image(Filesystem(image), Edit())
        assert build(image, edited) == tars
        assert not edited.charges


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_an_added_file_is_seen_and_nothing_else_differs(data: st.DataObject) -> None:
    tars = data.draw(layers())
    path = data.draw(st.sampled_from([*NAMES, "d/new", "f/new/x", "g/h/i"]))
    with image_of(tars) as image:
        fs = Filesystem(image)
        edit = data.draw(requests(fs))
        removed = really_removed(fs, edit)
        before = edit_image(fs, edit)
        above = roots_of(path)
        reason = ""
        after = before
        try:
            after = add_file(fs, before, removed, path, b"added" * 200)
        except CannotAdd as error:
            reason = str(error)
        if reason:
            event("refused")
            names = [entry.name for entry in image.layers[0].entries]
            simple = len(tars) == 1 and len(set(names)) == len(names) and not removed & set(above)
            free = path not in fs.nodes and all(fs.nodes[p].kind == "dir" for p in above if p in fs.nodes)
            assert not (simple and free) or reason == "no layer changes"
            return
        event("replaced" if path in fs.nodes else "added")
        made = build(image, after)
        view = without_inodes(merged_view(build(image, before)))
        check_unwritten(image, after, made)
        position = max(layer.position for layer in before.layers if layer.pieces is not None)
        mtime = int(max([0, *(e.mtime for e in image.layers[position].entries)]))
        for missing in above:
            if missing not in fs.nodes:
                view[missing] = Seen("dir", 0o755, mtime, 0, b"", "", (), 0)
        view[path] = Seen("file", 0o644, mtime, 0, b"added" * 200, "", (), 0)
        assert without_inodes(merged_view(made)) == view
        assert [layer.size for layer in after.layers] == [len(tar) for tar in made]
        difference = sum(map(len, tars)) - sum(map(len, made))
        assert difference == sum(c.before - c.after for c in after.charges.values())
        assert made[position].endswith(bytes(1024))
        assert position not in edit.keep_layers
        with image_of(made) as again:
            assert path in Filesystem(again).nodes
