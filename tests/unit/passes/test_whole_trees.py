"""trees: what is removed of a directory is one cut where it is one statement, and path by path it is the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from deadweight import Ledger, Plan, make_plan, open_image, read_plan, write_plan
from deadweight.apply import rework
from deadweight.errors import PlanError
from deadweight.passes.base import Context, Pass, Proposal
from deadweight.passes.trees import every_path, whole_trees
from support.contexts import SITE, context, distribution
from support.images import Member, directory, file, hardlink, make_image, make_tar, symlink, write_docker_archive
from support.layers import image_of

ONE, TWO = (Pass(name, "policy", 10, name, lambda _: ()) for name in ("one", "two"))
TREE = (
    directory("d"),
    file("d/a", b"a"),
    directory("d/s"),
    file("d/s/b", b"b"),
    symlink("d/s/c", "b"),
    directory("d/empty"),
    file("e", b"e"),
)


def whole(at: Context, *paths: str, keep_layers: tuple[int, ...] = (), other: Proposal | None = None) -> dict[str, int]:
    """What is proposed in the end for the removal of these paths, with how many leave below each."""
    asked = {path: Proposal("remove", path, "why", "evidence") for path in paths}
    if other is not None:
        asked[other.path] = other
    steps = whole_trees(at.ledger, [(ONE, proposal) for proposal in asked.values()], keep_layers)
    assert {each.path for _, each in every_path(at.ledger, steps)} == set(asked)
    return {proposal.path: proposal.below for _, proposal in steps}


def everything(at: Context, *tops: str) -> list[str]:
    return [path for top in tops for path in at.ledger.fs.paths_below(top)]


def test_a_directory_of_which_all_leaves_is_one() -> None:
    at = context(TREE)
    assert whole(at, *everything(at, "d"), "e") == {"d": 5, "e": 0}
    assert whole(at, *everything(at, "d/s"), "d/a") == {"d/s": 2, "d/a": 0}
    assert whole(at, "d/empty", "d") == {"d/empty": 0, "d": 0}


@pytest.mark.parametrize(
    "other",
    [
        Proposal("remove", "d/s/b", "another why", "evidence"),
        Proposal("remove", "d/s/b", "why", "other evidence"),
        Proposal("remove", "d/s/b", "why", "evidence", risk="observed"),
    ],
)
def test_of_all_paths_the_same_is_said(other: Proposal) -> None:
    at = context(TREE)
    apart = dict.fromkeys(everything(at, "d"), 0)
    assert whole(at, *everything(at, "d"), other=other) == apart
    steps = [(ONE, Proposal("remove", path, "why")) for path in everything(at, "d") if path != "d/s/b"]
    assert {p.below for _, p in whole_trees(at.ledger, [*steps, (TWO, Proposal("remove", "d/s/b", "why"))])} == {0}


def test_one_owner_has_all_files() -> None:
    members = [*distribution("a", "ns/a.py"), *distribution("b", "ns/b.py"), directory(f"{SITE}/ns")]
    at = context(members)
    assert set(whole(at, *everything(at, f"{SITE}/ns")).values()) == {0}
    at = context([*distribution("a", "ns/a.py", "ns/x/b.py"), directory(f"{SITE}/ns"), directory(f"{SITE}/ns/x")])
    assert whole(at, *everything(at, f"{SITE}/ns")) == {f"{SITE}/ns": 3}


def test_one_layer_gave_all_names() -> None:
    at = context(TREE, [file("d/s/b", b"new")])
    assert set(whole(at, *everything(at, "d")).values()) == {0}
    assert whole(at, *everything(at, "d/empty"), "d/a") == {"d/empty": 0, "d/a": 0}


def test_what_a_layer_that_stays_links_to_is_looked_at_alone() -> None:
    at = context(TREE, [hardlink("f", "d/s/b")])
    assert whole(at, *everything(at, "d")) == {"d": 5}
    assert set(whole(at, *everything(at, "d"), keep_layers=(1,)).values()) == {0}


# --- plans ---------------------------------------------------------------------------------------------


SERVICE: tuple[Member, ...] = (
    *distribution("lib", "lib/core.py", "lib/tests/test_a.py", "lib/tests/more/test_b.py"),
    directory(f"{SITE}/lib"),
    directory(f"{SITE}/lib/tests"),
    directory(f"{SITE}/lib/tests/more"),
    file("usr/local/bin/python3.11", mode=0o755),
    file("usr/local/lib/python3.11/os.py"),
    directory("opt/d"),
    file("opt/d/x/f"),
)
TESTS = f"{SITE}/lib/tests"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    write_docker_archive(tmp_path / "x.tar", make_image(make_tar(*SERVICE)), "x:1", style="25")
    with open_image(f"docker-archive:{tmp_path / 'x.tar'}") as image:
        yield Ledger(image)


def plan_of(ledger: Ledger, *, each_path: bool = False) -> Plan:
    return make_plan(ledger, all_layers=True, each_path=each_path)


def with_cut(plan: Plan, **fields: object) -> Plan:
    """The plan with another cut in place of that of the tests."""
    cuts = [msgspec.structs.replace(cut, **fields) if cut.path == TESTS else cut for cut in plan.cuts]
    return msgspec.structs.replace(plan, cuts=cuts)


def test_a_plan_comes_to_the_same_either_way(ledger: Ledger) -> None:
    trees, paths = plan_of(ledger), plan_of(ledger, each_path=True)
    (cut,) = (cut for cut in trees.cuts if cut.below)
    assert (cut.path, cut.below) == (TESTS, 3)
    below = [one for one in paths.cuts if f"{one.path}/".startswith(f"{TESTS}/")]
    assert len(below) == 4
    assert cut.before_bytes == sum(one.before_bytes for one in below)
    assert trees.layers == paths.layers
    for plan in (trees, paths):
        assert rework(plan, ledger).plan == plan


def test_a_directory_named_by_hand_leaves(ledger: Ledger) -> None:
    plan = plan_of(ledger)
    for path, below in ((f"{TESTS}/more", 1), (f"{SITE}/lib", 5)):
        worked = rework(with_cut(plan, path=path, below=below), ledger).plan
        assert {cut.path: cut.below for cut in worked.cuts if cut.pass_ == "tests"} == {path: below}
        assert (worked.predicted_bytes < plan.predicted_bytes) is (path == f"{SITE}/lib")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"path": f"{TESTS}/test_a.py"}, "has `below`, and is not the removal of a directory"),
        ({"below": 2}, "says that 2 paths are below it, in the image there are 3"),
        ({"below": 10**30}, "paths are below it, in the image there are 3"),
        ({"path": "opt/d", "below": 2}, "cannot take 'opt/d/x' out, which no layer has an entry for"),
    ],
)
def test_what_is_not_as_a_cut_says_is_an_error(ledger: Ledger, fields: dict[str, object], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        rework(with_cut(plan_of(ledger), **fields), ledger)


def test_what_cannot_leave_with_a_directory_is_an_error(ledger: Ledger) -> None:
    plan = plan_of(ledger)
    cut = next(cut for cut in plan.cuts if cut.below)
    inside = msgspec.structs.replace(cut, path=f"{TESTS}/test_a.py", below=0)
    with pytest.raises(PlanError, match=f"'{TESTS}/test_a.py' is of what leaves with '{TESTS}'"):
        rework(msgspec.structs.replace(plan, cuts=[*plan.cuts, inside]), ledger)


def test_no_fewer_than_none_are_below(ledger: Ledger) -> None:
    written = write_plan(with_cut(plan_of(ledger), below=-3))
    with pytest.raises(PlanError, match="below"):
        read_plan(written)


def test_an_entry_may_be_dropped_by_two_passes() -> None:
    lower = make_tar(directory("d"), file("d/a"), file("d/b"))
    with image_of([lower, make_tar(directory("d"), file("d/b", b"new"))]) as image:
        ledger = Ledger(image)
        plan = plan_of(ledger)
        cut = msgspec.structs.replace(plan.cuts[0], path="d", layer=0, action="drop", below=0)
        twice = msgspec.structs.replace(plan, cuts=[cut, msgspec.structs.replace(cut, pass_="caches")])
        assert rework(twice, ledger).plan.cuts == []
