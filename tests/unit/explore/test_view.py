"""What the browser shows: every list adds up, and what is said of a node is true."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deadweight import Ledger, open_image
from deadweight.explore.view import GROUPINGS, ORDERS, View
from deadweight.planning import draw_up
from deadweight.report.hierarchy import Node
from deadweight.report.tree import inspect_tree, plan_tree, side
from support.careless import service_image
from support.images import write_docker_archive
from support.service import HOSTILE, save, service


def below(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from below(child)


def at(node: Node, *names: str) -> Node:
    for name in names:
        node = next(child for child in node.children if child.name == name)
    return node


@pytest.fixture(scope="module")
def plain_view(tmp_path_factory: pytest.TempPathFactory) -> View:
    with open_image(str(save(tmp_path_factory.mktemp("image")))) as image:
        return View(inspect_tree(side(Ledger(image))))


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> View:
    path = write_docker_archive(tmp_path_factory.mktemp("image") / "x.tar", service_image(), "service:1", style="25")
    with open_image(str(path)) as image:
        ledger = Ledger(image)
        return View(plan_tree(side(ledger), ledger, draw_up(ledger, all_layers=True)))


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("order", ORDERS)
def test_every_list_adds_up(planned: View, grouping: str, order: str) -> None:
    root = planned.root(grouping)
    assert (root.bytes, root.after) == (planned.tree.bytes, planned.tree.after_bytes)
    for node in below(root):
        listed = planned.children(node, order)  # type: ignore[arg-type]
        if listed:
            assert sum(child.bytes for child in listed) == node.bytes
            assert sum(child.after for child in listed) == node.after


def test_orders(planned: View) -> None:
    root = planned.root("owner")
    sizes = [max(node.bytes, node.after) for node in planned.children(root, "size")]
    leaving = [node.bytes - node.after for node in planned.children(root, "leaving")]
    names = [node.name for node in planned.children(root, "name")]
    assert (sizes, leaving, names) == (sorted(sizes)[::-1], sorted(leaving)[::-1], sorted(names))
    assert leaving[0] > leaving[-1]


def test_of_an_owner_its_reason_and_its_layer(plain_view: View) -> None:
    said = dict(plain_view.details(at(plain_view.root("owner"), "numlib")))
    assert said["owner"] == "python numlib 1.0"
    assert said["why"] == "webapp -> numlib"
    assert said["layer"] == "2 of 3: uv pip install webapp"
    assert "leaves" not in said
    many = dict(plain_view.details(plain_view.root("owner")))
    assert many["owner"].endswith("more")
    assert "why" not in many


def test_of_what_leaves_the_pass_the_risk_and_the_reason(planned: View) -> None:
    gcc = at(planned.root("owner"), "gcc")
    said = dict(planned.details(gcc))
    assert said["leaves"] == f"{gcc.bytes:,} bytes: build-tools (policy) {said['leaves'].split(') ')[-1]}"
    assert said["size"].endswith("; afterwards 0")
    tests = planned.find(planned.root("owner"), "numlib/tests/test_core.py")[0][-1]
    found = dict(planned.details(tests))
    assert found["path"] == "/usr/local/lib/python3.11/dist-packages/numlib/tests/test_core.py"
    assert found["leaves"].startswith(f"{tests.bytes:,} bytes: tests (policy)")
    assert found["reason"].startswith("tests of numlib")
    kept = planned.find(planned.root("owner"), "table.bin")[0][-1]
    assert dict(planned.details(kept))["leaves"] == "nothing"


def test_finding(plain_view: View) -> None:
    root = plain_view.root("owner")
    assert [plain_view.place(line) for line in plain_view.find(root, "NUMLIB/co")] == [
        "/usr/local/lib/python3.11/site-packages/numlib/core.py"
    ]
    lines = plain_view.find(root, "numlib")
    assert [line[-1].name for line in lines if line[-1].kind == "owner"] == ["numlib"]
    # What lies below is no match for its directory's name.
    assert not any(line[-1].name == "core.py" for line in lines)
    sizes = [line[-1].bytes for line in lines]
    assert sizes == sorted(sizes)[::-1]
    assert plain_view.find(root, "nothing of that name") == []
    assert all(line[0] is root and line[-1] in line[-2].children for line in lines)


def test_a_long_way_shows_its_end(plain_view: View) -> None:
    line = plain_view.find(plain_view.root("layer"), "core.py")[0]
    assert plain_view.trail(line, 500).startswith("image > layer 2: uv pip install webapp > ")
    short = plain_view.trail(line, 40)
    assert short.startswith("… > ")
    assert short.endswith("> core.py")
    assert len(short) <= 40


def test_hostile_names_are_harmless(tmp_path: Path) -> None:
    image = service(f"x{HOSTILE}y", (), (f"RUN {HOSTILE}", "", ""))
    with open_image(str(save(tmp_path, image))) as source:
        view = View(inspect_tree(side(Ledger(source))))
    for grouping in GROUPINGS:
        root = view.root(grouping)
        texts = [text for node in below(root) for _, text in view.details(node)]
        texts += [view.label(node) for node in below(root)]
        texts += [view.place(line) + view.trail(line, 80) for line in view.find(root, "")]
        assert all(text.isprintable() for text in texts)
        assert any("[bold]" in text for text in texts)
