"""The contract of edits, over generated images and arbitrary requests, against the naive oracle."""

from __future__ import annotations

import tarfile
from contextlib import ExitStack
from dataclasses import replace

import msgspec
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from deadweight.image import leaving
from deadweight.image.addition import CannotAdd, add_file
from deadweight.image.changed import changed_image
from deadweight.image.edit import Edit, Edited, edit_image, layer_chunks, really_removed
from deadweight.image.emitted import Charge
from deadweight.image.filesystem import Filesystem
from deadweight.image.layer import read_entries
from deadweight.image.leaving import Subject
from deadweight.image.model import Image
from support.edits import NAMES, layers, requests
from support.elf import read_from
from support.layers import Seen, image_of, member, merged_view, roots_of, tar_of, without_inodes


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


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_is_plain_without_merging_is_what_merging_says(data: st.DataObject) -> None:
    tars = data.draw(layers())
    with image_of(tars) as image, pytest.MonkeyPatch.context() as patch:
        fs = Filesystem(image)
        edit = data.draw(requests(fs))
        if data.draw(st.booleans()):  # as `shadowed` has it: all that is hidden leaves
            edit = msgspec.structs.replace(edit, drop={key for key in fs.hidden if key[0] not in edit.keep_layers})
        edited = edit_image(fs, edit)
        patch.setattr(leaving, "_nothing_comes_back", lambda *_: False)
        assert edit_image(fs, edit) == edited


def test_a_directory_that_a_layer_that_stays_has_too_does_not_come_back() -> None:
    tars = [tar_of([member("d", kind=tarfile.DIRTYPE)]), tar_of([member("d", kind=tarfile.DIRTYPE)])]
    with image_of(tars) as image:
        edited = edit_image(Filesystem(image), Edit(remove=["d"], keep_layers=[0]))
        assert merged_view(build(image, edited)) == {}


@pytest.mark.parametrize(
    ("tars", "drop"),
    [
        ([tar_of([member("a", b"x")]), tar_of([member("b", b"y")])], (0, 0)),  # it is seen
        # A file is deleted, a directory takes its name, and says so only once something is in it.
        (
            [
                tar_of([member("p", b"x")]),
                tar_of([member(".wh.p")]),
                tar_of([member("p/x", b"y"), member("p", kind=tarfile.DIRTYPE)]),
            ],
            (1, 0),
        ),
    ],
)
def test_what_should_not_have_been_asked_for_is_not_done(tars: list[bytes], drop: tuple[int, int]) -> None:
    with image_of(tars) as image:
        edited = edit_image(Filesystem(image), Edit(drop=[drop]))
        assert merged_view(build(image, edited)) == merged_view(tars)
        assert not edited.charges


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_leaves_as_one_is_charged_as_one(data: st.DataObject) -> None:
    tars = data.draw(layers())
    with image_of(tars) as image:
        fs = Filesystem(image)
        edit = data.draw(requests(fs))
        removed = really_removed(fs, edit)
        assume(removed.isdisjoint({*edit.rewrite, *edit.link, *edit.link.values()}))
        tops = [p for p in removed if fs.children(p) and removed.issuperset(fs.paths_below(p))]
        tops = [p for p in tops if not any(p.startswith(f"{top}/") for top in tops)]
        within = {path: top for top in tops for path in fs.paths_below(top)}
        apart, edited = edit_image(fs, edit), edit_image(fs, msgspec.structs.replace(edit, within=within))
        assert edited.layers == apart.layers
        sums: dict[Subject, Charge] = {}
        for subject, charge in apart.charges.items():
            top = within.get(subject, subject) if isinstance(subject, str) else subject
            one = sums.setdefault(top, Charge())
            one.before, one.after = one.before + charge.before, one.after + charge.after
            one.between = charge.between or one.between
        assert edited.charges == sums


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
