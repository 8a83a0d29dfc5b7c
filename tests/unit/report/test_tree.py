"""The tree of bytes: it adds up on both sides, says of the result what the result says of itself, and groups whole."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from deadweight.apply import build
from deadweight.binary.gpu import Target
from deadweight.image.reference import parse_reference
from deadweight.image.transports import open_image
from deadweight.ledger.account import AccountError
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import Options, Risk
from deadweight.plan import Cut
from deadweight.planning import draw_up
from deadweight.report.hierarchy import Group, Node, grouped
from deadweight.report.inspect import inspect_report
from deadweight.report.text import plain
from deadweight.report.tree import compare_tree, inspect_tree, plan_tree, side
from deadweight.report.tree_cuts import Leaf as TreeLeaf
from deadweight.report.tree_cuts import parts
from deadweight.report.tree_model import Tree, check_tree, full_paths
from support import fatbins, hosts
from support.images import file
from support.service import HOSTILE, SITE, distribution, save, service
from support.weights import model, transformers, weights

Leaf = tuple[str, int, str, str, str, str]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    each = fatbins.fatbin(fatbins.sm(80, size=50_000), fatbins.sm(90, size=40_000))
    library = hosts.build(hosts.LAYOUTS["library"], folder, [each]).read_bytes()
    files = {"gpulib/lib.so": library, "gpulib/tests/test_it.py": b"t" * 5000, "gpulib/one/two/three.py": b"3"}
    more = (*distribution("gpulib", files), file(f"opt/{HOSTILE}/caf\udce9", b"h" * 4000))
    return save(folder, service(more=more))


@pytest.fixture(scope="module")
def two(image: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tree, Tree]:
    """The tree of an image with what a plan makes of it, and that of the image which was built by the same plan."""
    slim = tmp_path_factory.mktemp("slim") / "slim.tar"
    with open_image(str(image)) as source:
        ledger = Ledger(source)
        worked = draw_up(ledger, Options(target=Target((90,))), all_layers=True)
        planned = plan_tree(side(ledger), ledger, worked)
        build(worked, source, parse_reference(f"docker-archive:{slim}"))
    with open_image(str(slim)) as result:
        return planned, inspect_tree(side(Ledger(result)))


def distinct(tree: Tree) -> int:
    """How many leaves there are, whatever cuts took of each."""
    rows = tree.leaves
    return len(set(zip(rows.path, rows.layer, rows.owner, rows.category, rows.code, strict=True)))


def by_pass(tree: Tree) -> dict[str, int]:
    """What left by each pass, and by none."""
    found, rows = Counter[str](), tree.leaves
    for before, after, cut in zip(rows.bytes, rows.after, rows.cut, strict=True):
        found[tree.texts[tree.cuts.pass_[cut]] if cut >= 0 else ""] += before - after
    return {name: amount for name, amount in found.items() if amount}


def leaves(tree: Tree, amounts: list[int]) -> dict[Leaf, int]:
    paths, found = full_paths(tree), Counter[Leaf]()
    rows = tree.leaves
    columns = (rows.path, rows.layer, rows.owner, rows.category, rows.code)
    for path, layer, owner, category, code, amount in zip(*columns, amounts, strict=True):
        who = tree.owners[owner]
        label = tree.codes[code] if code >= 0 else ""
        found[paths[path], layer, who.kind, who.name, tree.categories[category], label] += amount
    return {leaf: amount for leaf, amount in found.items() if amount}


def test_a_tree_is_the_account(image: Path) -> None:
    with open_image(str(image)) as source:
        ledger = Ledger(source)
        tree, report = inspect_tree(side(ledger)), inspect_report(ledger)
    assert tree.bytes == report.bytes == image_bytes(image)
    assert {(o.kind, o.name, o.version): (o.bytes, o.why) for o in tree.owners} == {
        (o.kind, o.name, o.version): (o.bytes, o.why) for o in report.owners
    }
    assert [layer.bytes for layer in tree.layers] == [layer.bytes for layer in report.layers]
    found = leaves(tree, tree.leaves.bytes)
    categories, codes = Counter[str](), Counter[str]()
    for (_, _, _, _, category, code), amount in found.items():
        categories[category] += amount
        codes[code] += amount
    assert categories == {line.name: line.bytes for line in report.categories if line.bytes}
    assert {code: codes[code] for code in codes if code} == {line.arch: line.bytes for line in report.gpu_code}
    assert len(codes) > 3
    assert tree.after_bytes is None
    assert not tree.leaves.after


def image_bytes(path: Path) -> int:
    with open_image(str(path)) as source:
        return source.size


def test_what_is_predicted_of_each_byte_is_what_is_built(two: tuple[Tree, Tree]) -> None:
    planned, built = two
    assert planned.after_bytes == built.bytes < planned.bytes
    assert leaves(planned, planned.leaves.after) == leaves(built, built.leaves.bytes)
    codes = {leaf[5] for leaf in leaves(planned, planned.leaves.after)}
    assert "sm_90" in codes
    assert "sm_80" not in codes


def test_converted_weights_are_read_as_they_will_be(tmp_path: Path) -> None:
    members = model("srv/model", *transformers(), safetensors=weights(rows=6400))
    path, slim = save(tmp_path, service(more=tuple(members))), tmp_path / "slim.tar"
    with open_image(str(path)) as source:
        ledger = Ledger(source)
        worked = draw_up(ledger, Options(weights="fp16"), all_layers=True)
        tree = plan_tree(side(ledger), ledger, worked)
        build(worked, source, parse_reference(f"docker-archive:{slim}"))
    with open_image(str(slim)) as result:
        built = inspect_tree(side(Ledger(result)))
    assert leaves(tree, tree.leaves.after) == leaves(built, built.leaves.bytes)
    assert any(tree.texts[number] == "weights" for number in tree.cuts.pass_)


def test_all_that_left_has_a_cut(two: tuple[Tree, Tree]) -> None:
    tree = two[0]
    rows, paths = tree.leaves, full_paths(tree)
    changed = [n for n in range(len(rows.path)) if rows.bytes[n] != rows.after[n]]
    assert [paths[rows.path[n]] for n in changed if rows.cut[n] < 0 and rows.path[n]] == []
    assert all(rows.cut[n] < 0 for n in range(len(rows.path)) if rows.bytes[n] == rows.after[n])
    of = {
        (paths[rows.path[n]], tree.categories[rows.category[n]]): tree.texts[tree.cuts.pass_[rows.cut[n]]]
        for n in changed
        if rows.cut[n] >= 0
    }
    assert of[f"{SITE}/gpulib/lib.so", "GPU code"] == "gpu-code"
    assert of[f"{SITE}/gpulib/lib.so", "symbols"] == "symbols"
    assert of[f"{SITE}/gpulib/tests/test_it.py", "tests"] == "tests"
    assert of["usr/share/doc/gone", "hidden"] == "shadowed"


def test_passes_take_from_the_tree_what_their_cuts_save(image: Path, two: tuple[Tree, Tree]) -> None:
    with open_image(str(image)) as source:
        plan = draw_up(Ledger(source), Options(target=Target((90,))), all_layers=True).plan
    saved = Counter[str]()
    for cut in plan.cuts:
        saved[cut.pass_] += cut.before_bytes - cut.after_bytes
    assert by_pass(two[0]) == {name: amount for name, amount in saved.items() if amount}
    assert len(by_pass(two[0])) > 5


def test_each_pass_that_rewrote_a_file_has_its_own_bytes() -> None:
    def cut(name: str, risk: Risk, before: int, after: int) -> Cut:
        return Cut(name, "a.so", 0, "rewrite", before, after, risk, name)

    data, code, symbol, framing = (
        TreeLeaf(path, 0, "python", "a", category, label)
        for path, category, label in (
            ("a.so", "data", ""),
            ("a.so", "GPU code", "sm_80"),
            ("a.so", "symbols", ""),
            ("", "tar framing", ""),
        )
    )
    # Padding of 300 bytes came with them; relayout made the host's data 100 larger, then leftovers took 2,000 of it.
    cuts = [
        cut("gpu-code", "target", 9728, 4608),
        cut("leftovers", "lossless", 4608, 2560),
        cut("symbols", "policy", 2560, 1536),
    ]
    old, new = {data: 3000, code: 5200, symbol: 1000, framing: 812}, {data: 1100, framing: 720}
    found = parts(old, new, {}, cuts)
    of = {(part.leaf.category, part.cut): part.bytes - part.after for part in found}
    assert of["data", 1] == 1900
    assert of["symbols", 2] == 1000
    assert sum(amount for (_, number), amount in of.items() if number == 0) == 5120
    for leaf, amount in old.items():
        assert sum(part.bytes for part in found if part.leaf == leaf) == amount
        assert sum(part.after for part in found if part.leaf == leaf) == new.get(leaf, 0)
    for number, each in enumerate(cuts):
        assert (
            sum(part.bytes - part.after for part in found if part.cut == number) == each.before_bytes - each.after_bytes
        )


def test_what_lower_layers_hid_at_a_path_is_part_of_its_cut() -> None:
    """As of a file that COPY brought and chown wrote again, which a pass then removes."""
    hidden = TreeLeaf("app/tests/test_a.py", 1, "hidden", "hidden by later layers", "hidden", "")
    seen = TreeLeaf("app/tests/test_a.py", 2, "application", "application", "tests", "")
    lower, upper = (TreeLeaf("", layer, "framing", "tar framing", "tar framing", "") for layer in (1, 2))
    cuts = [
        Cut("tests", "app/tests/test_a.py", 2, "remove", 3072, 0, "policy", "tests"),
        Cut("metadata", "", 1, "rewrite", 2048, 1024, "lossless", "the end"),
    ]
    old = {hidden: 1536, seen: 700, lower: 2048, upper: 1860}
    found = parts(old, {lower: 1024, upper: 1024}, {}, cuts)
    saved = Counter(dict.fromkeys(range(2), 0))
    for part in found:
        if part.cut >= 0:
            saved[part.cut] += part.bytes - part.after
    assert saved == {0: 3072, 1: 1024}


def test_a_tree_that_does_not_add_up_is_refused(two: tuple[Tree, Tree]) -> None:
    tree = two[0]
    check_tree(tree)
    more = [tree.leaves.after[0] + 1, *tree.leaves.after[1:]]
    moved = [tree.leaves.owner[-1], *tree.leaves.owner[1:]]
    assert moved[0] != tree.leaves.owner[0]
    for wrong in (
        msgspec.structs.replace(tree, bytes=tree.bytes + 1),
        msgspec.structs.replace(tree, leaves=msgspec.structs.replace(tree.leaves, after=more)),
        msgspec.structs.replace(tree, leaves=msgspec.structs.replace(tree.leaves, owner=moved)),
    ):
        with pytest.raises(AccountError, match="does not add up"):
            check_tree(wrong)


@pytest.mark.parametrize("limit", [30, 12])
def test_of_very_many_files_the_smallest_are_their_directories(
    image: Path, two: tuple[Tree, Tree], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deadweight.report.tree.LIMIT", limit)
    with open_image(str(image)) as source:
        ledger = Ledger(source)
        worked = draw_up(ledger, Options(target=Target((90,))), all_layers=True)
        tree = plan_tree(side(ledger), ledger, worked)  # which checks that all adds up
    count = distinct(two[0])
    assert (tree.bytes, tree.after_bytes) == (two[0].bytes, two[0].after_bytes)
    assert tree.folded == count - distinct(tree) > 0
    assert len(tree.cuts.path) == min(limit, len(worked.plan.cuts)) == len(worked.plan.cuts) - tree.cuts_left_out
    assert {(o.kind, o.name, o.bytes, o.after_bytes) for o in tree.owners} == {
        (o.kind, o.name, o.bytes, o.after_bytes) for o in two[0].owners
    }
    root = grouped(tree, ("owner",))
    assert (root.bytes, root.after) == (tree.bytes, tree.after_bytes)
    largest = max(leaves(two[0], two[0].leaves.bytes).items(), key=lambda item: item[1])
    assert leaves(tree, tree.leaves.bytes)[largest[0]] == largest[1]


def test_two_images_have_one_tree(image: Path, tmp_path: Path) -> None:
    other = save(tmp_path, service(more=tuple(distribution("newlib", {"newlib.py": b"n" * 9000}))))
    with open_image(str(image)) as one, open_image(str(other)) as another:
        first, second = Ledger(one), Ledger(another)
        tree = compare_tree(side(first), side(second))
        reports = inspect_report(first), inspect_report(second)
    assert (tree.bytes, tree.after_bytes) == (reports[0].bytes, reports[1].bytes)
    owners = {owner.name: owner for owner in tree.owners}
    assert owners["newlib"].bytes == 0
    assert owners["newlib"].after_bytes == next(o.bytes for o in reports[1].owners if o.name == "newlib")
    assert (owners["gpulib"].after_bytes, owners["gpulib"].after_version) == (0, "")
    assert owners["numlib"].bytes == owners["numlib"].after_bytes
    assert tree.layers == []
    assert tree.after is not None


@pytest.mark.parametrize("by", [(), ("owner",), ("layer", "owner"), ("category",), ("owner", "category")])
def test_groups_are_whole(two: tuple[Tree, Tree], by: tuple[Group, ...]) -> None:
    tree = two[0]
    root = grouped(tree, by)
    assert (root.bytes, root.after) == (tree.bytes, tree.after_bytes)
    seen: list[int] = []

    def walk(node: Node) -> None:
        if node.children:
            assert not node.leaves
            assert node.bytes == sum(child.bytes for child in node.children)
            assert node.after == sum(child.after for child in node.children)
            sizes = [max(child.bytes, child.after) for child in node.children]
            assert sizes == sorted(sizes, reverse=True)
        seen.extend(node.leaves)
        for child in node.children:
            walk(child)

    walk(root)
    assert sorted(seen) == list(range(len(tree.leaves.path)))


def test_files_have_parts_and_lonely_directories_are_one_with_their_own(two: tuple[Tree, Tree]) -> None:
    root = grouped(two[0], ("owner",))
    (gpulib,) = (node for node in root.children if node.name == "gpulib")
    (site,) = gpulib.children
    assert (site.kind, site.name) == ("directory", SITE)
    (package,) = (node for node in site.children if node.name == "gpulib")
    names = {node.name: node for node in package.children}
    assert [node.name for node in names["one/two"].children] == ["three.py"]
    assert names["one/two"].children[0].children == []
    parts = {node.name: node for node in names["lib.so"].children}
    assert {"host code", "GPU code", "symbols"} <= parts.keys()
    assert {node.name for node in parts["GPU code"].children} >= {"sm_80", "sm_90"}
    framing = next(node for node in root.children if node.name == "tar framing")
    assert [(node.kind, node.bytes) for node in framing.children] == [("framing", framing.bytes)]


def test_names_are_valid_text_and_come_to_nothing_when_they_are_shown(two: tuple[Tree, Tree]) -> None:
    names = two[0].paths.names
    assert HOSTILE in names
    assert r"caf\udce9" in names
    assert plain(HOSTILE).isprintable()
    msgspec.json.encode(two[0]).decode()


def test_paths_may_be_as_deep_as_an_image_can_have_them(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 2000)
    with open_image(str(save(tmp_path, service(more=(file(deep, b"deep"),))))) as source:
        tree = inspect_tree(side(Ledger(source)))
    assert deep in full_paths(tree)
    root = grouped(tree, ())
    assert sum(child.bytes for child in root.children) == root.bytes == tree.bytes
