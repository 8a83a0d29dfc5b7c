"""Several passes rewrite one file: each what the ones before it left, computed once, and accounted for by itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deadweight import Image, Ledger, Options, Plan, apply_plan, make_plan, open_image, read_plan, write_plan
from deadweight.apply import rework
from deadweight.binary.gpu import Target
from deadweight.binary.strip import strip_symbols
from deadweight.errors import PlanError
from deadweight.image.content import Content
from deadweight.image.reference import parse_destination
from deadweight.passes.base import Context, Proposal, Rewriting
from deadweight.plan import METADATA, Cut
from support.careless import distribution, package, untrue_md5sums, untrue_records
from support.contexts import context, elf
from support.elf import read_from
from support.images import file, hardlink, make_image, make_tar, write_oci
from support.layers import Seen, merged_view, without_inodes
from support.toys import Toy, marked, passes

GPU = marked("gpu", 9000)
SYM = marked("sym", 3000)
TEXT = b"host code " * 30
BOTH = TEXT + GPU + TEXT + SYM
LIB = "usr/local/lib/python3.11/dist-packages/numlib/fast.lib"


def toys() -> list[Toy]:
    """Three: the second grows what it is given, the third has work only where the first was."""
    return [
        Toy("crop", 75, "gpu", marked("left", 700) + b"kept"),
        Toy("grow", 80, "sym", b"S" * 5000),
        Toy("mend", 85, "left", own_risk="observed"),
    ]


@contextmanager
def image_with(*layers: bytes) -> Iterator[Image]:
    with tempfile.TemporaryDirectory() as folder:
        write_oci(Path(folder) / "in", make_image(*layers), "x", "none")
        with open_image(f"oci:{folder}/in") as image:
            yield image


def layers() -> list[bytes]:
    """Two layers: a wheel and a package that list such files, hard links within and across layers, and copies."""
    lower = make_tar(
        *distribution("numlib", "2.0", {"numlib/fast.lib": BOTH, "numlib/core.py": b"x = 1\n"}),
        hardlink("opt/fast.lib", LIB),
        *package("tool", {"usr/lib/tool.lib": BOTH + b"tool"}),
        file("var/lib/dpkg/status", b"Package: tool\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n"),
        file("srv/gpu.lib", TEXT + GPU),
        file("srv/sym.lib", SYM + TEXT),
        file("srv/none.lib", TEXT),
    )
    upper = make_tar(
        file("opt/one.lib", BOTH * 2),
        file("opt/two.lib", BOTH * 2),
        hardlink("opt/tool.lib", "usr/lib/tool.lib"),
        file("opt/long/" + "n" * 150 + ".lib", GPU + SYM),
    )
    return [lower, upper]


def contents(data: bytes, chosen: Sequence[Toy]) -> bytes:
    """What toys make of a content, one after the other, where there is something for them."""
    for toy in sorted(chosen, key=lambda toy: toy.order):
        data = toy.after(data) or data
    return data


def tars(image: Image) -> list[bytes]:
    return [b"".join(layer.tar.chunks()) for layer in image.layers]


def built(plan: Plan, image: Image) -> tuple[Plan, list[bytes]]:
    """Applies a plan; gives it as it was worked out, and the layers of the result, held to the prediction."""
    with tempfile.TemporaryDirectory() as folder:
        applied = apply_plan(plan, Ledger(image), parse_destination(f"docker-archive:{folder}/out.tar"))
        with open_image(f"docker-archive:{folder}/out.tar") as result:
            made = tars(result)
    assert [len(tar) for tar in made] == [size.predicted_bytes for size in applied.plan.layers]
    assert sum(map(len, made)) == applied.plan.predicted_bytes
    return applied.plan, made


def check_sums(plan: Plan) -> None:
    """The cuts add up, and those of one file go on where the one before ends."""
    saved = sum(cut.before_bytes - cut.after_bytes for cut in plan.cuts)
    assert plan.before_bytes - saved == plan.predicted_bytes
    chains: dict[str, list[Cut]] = {}
    for cut in plan.cuts:
        if cut.action == "rewrite" and cut.pass_ != METADATA:
            chains.setdefault(cut.path, []).append(cut)
    for chain in chains.values():
        assert [cut.before_bytes for cut in chain[1:]] == [cut.after_bytes for cut in chain[:-1]]


def cuts_of(plan: Plan, path: str) -> dict[str, Cut]:
    return {cut.pass_: cut for cut in plan.cuts if cut.path == path}


def test_each_pass_rewrites_what_the_ones_before_it_left() -> None:
    made = toys()
    with passes(*made), image_with(*layers()) as image:
        plan = make_plan(Ledger(image), all_layers=True)
        check_sums(plan)
        found = cuts_of(plan, LIB)
        assert list(found) == ["crop", "grow", "mend"]
        sizes = [len(contents(BOTH, made[:count])) for count in range(4)]
        padded = [512 + size + -size % 512 for size in sizes]
        assert [(c.before_bytes, c.after_bytes) for c in found.values()] == list(pairwise(padded))
        assert [cut.evidence for cut in found.values()] == [f"{a - b:,} bytes less" for a, b in pairwise(sizes)]
        assert [cut.risk for cut in found.values()] == ["target", "target", "observed"]
        assert list(cuts_of(plan, "srv/gpu.lib")) == ["crop", "mend"]
        assert list(cuts_of(plan, "srv/sym.lib")) == ["grow"]
        assert cuts_of(plan, "srv/none.lib") == {}
        worked, result = built(plan, image)
        assert worked.cuts == plan.cuts
        check_view(merged_view(tars(image)), merged_view(result), dict.fromkeys(paths_of(plan), made))


def paths_of(plan: Plan) -> set[str]:
    return {cut.path for cut in plan.cuts if cut.action == "rewrite"}


def check_view(before: dict[str, Seen], after: dict[str, Seen], chosen: Mapping[str, Sequence[Toy]]) -> None:
    """The result is the original, with each file as the toys make it that are chosen for one of its names."""
    made = {before[path].inode: toys for path, toys in chosen.items() if path.endswith(".lib")}
    assert set(before) == set(after)
    seen_after = without_inodes(after)
    for path, seen in without_inodes(before).items():
        if path.endswith(".lib"):
            assert seen_after[path].content == contents(seen.content, made.get(before[path].inode, [])), path
        elif not path.endswith(("RECORD", ".md5sums")):
            assert seen_after[path] == seen, path
    assert untrue_records(after) == untrue_md5sums(after) == set()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_subset_of_a_chain_holds_in_any_order(data: st.DataObject) -> None:
    made = toys()
    with passes(*made, besides=("duplicates",)), image_with(*layers()) as image:
        plan = make_plan(Ledger(image), all_layers=True)
        assert [cut.path for cut in plan.cuts if cut.action == "link"] == ["opt/two.lib"]
        chosen = data.draw(st.lists(st.sampled_from(plan.cuts), unique=True))
        cuts = {(cut.pass_, cut.path) for cut in chosen}
        edited = msgspec.structs.replace(plan, cuts=chosen)
        if any(name == "mend" and ("crop", path) not in cuts for name, path in cuts):
            with pytest.raises(PlanError, match="cannot be rewritten by mend"):
                rework(edited, Ledger(image))
            return
        worked, result = built(edited, image)
        check_sums(worked)
        assert {(c.pass_, c.path) for c in worked.cuts if c.pass_ != METADATA} == {
            pair for pair in cuts if pair[0] != METADATA
        }
        by_path = {path: [toy for toy in made if (toy.name, path) in cuts] for _, path in cuts}
        if ("duplicates", "opt/two.lib") in cuts:
            by_path["opt/two.lib"] = by_path.get("opt/one.lib", [])
        check_view(merged_view(tars(image)), merged_view(result), by_path)


def test_names_of_one_file_are_one_chain_whichever_each_pass_uses() -> None:
    made = toys()
    with passes(*made), image_with(*layers()) as image:
        ledger = Ledger(image)
        plan = make_plan(ledger, all_layers=True)
        by_name = cuts_of(plan, LIB)
        moved = msgspec.structs.replace(by_name["crop"], path="opt/fast.lib")
        worked, result = built(msgspec.structs.replace(plan, cuts=[by_name["grow"], moved]), image)
        check_sums(worked)
        assert {(cut.pass_, cut.path) for cut in worked.cuts if cut.pass_ != METADATA} == {
            ("crop", "opt/fast.lib"),
            ("grow", LIB),
        }
        view = merged_view(result)
        assert view[LIB].content == view["opt/fast.lib"].content == contents(BOTH, made[:2])
        assert untrue_records(view) == set()
        twice = [by_name["crop"], moved]
        with pytest.raises(PlanError, match="are one file, and crop rewrites it twice"):
            rework(msgspec.structs.replace(plan, cuts=twice), ledger)


@pytest.mark.parametrize(
    ("action", "message"), [("remove", "only cut"), ("link", "only cut"), ("rewrite", "only cut"), ("add", "adds")]
)
def test_a_rewrite_goes_with_nothing_else_of_its_path(action: Any, message: str) -> None:
    with passes(*toys()), image_with(*layers()) as image:
        ledger = Ledger(image)
        plan = make_plan(ledger, all_layers=True)
        cut = cuts_of(plan, "opt/one.lib")["crop"]
        other = msgspec.structs.replace(cut, action=action, to="opt/two.lib", pass_="grow")
        if action == "rewrite":  # by the same pass, said to be in another layer
            other = msgspec.structs.replace(cut, layer=0)
        if action == "add":
            cut, other = msgspec.structs.replace(other, path="opt/new"), cuts_of(plan, LIB)["crop"]
        for cuts in ([cut, other], [other, cut]):
            with pytest.raises(PlanError, match=message):
                rework(msgspec.structs.replace(plan, cuts=cuts), ledger)


def test_nothing_is_rewritten_twice_however_often_a_plan_is_worked_out() -> None:
    made = toys()
    small = make_tar(file("var/x", b"x" * 4_000_000), file("var/small.lib", GPU))
    with passes(*made), image_with(*layers(), small) as image:
        ledger = Ledger(image)
        plan = make_plan(ledger)
        assert plan.kept_layers == [2]  # so there was a second round
        rework(plan, ledger)
        again = make_plan(ledger)
        assert again == plan
        for toy in made:
            assert len(toy.calls) == len(set(toy.calls)) > 0
        sizes = dict(made[1].calls)
        assert sizes[LIB] == len(contents(BOTH, made[:1]))


def test_another_target_is_another_task() -> None:
    made = toys()
    with passes(*made), image_with(*layers()) as image:
        ledger = Ledger(image)
        for target in (None, Target((90,)), Target((80,)), Target((90,))):
            make_plan(ledger, Options(target=target))
        assert sum(path == LIB for path, _ in made[0].calls) == 3


def test_contexts_show_what_earlier_passes_left() -> None:
    crop, grow, _ = toys()
    at = context([file("a.lib", BOTH), hardlink("b.lib", "a.lib")])
    assert accepted(crop, at) == ["a.lib"]
    for name in ("a.lib", "b.lib"):
        read, size = at.content(name)
        assert read(0, size) == contents(BOTH, [crop])
    assert accepted(crop, at) == []
    for name in ("a.lib", "b.lib"):  # no pass rewrites a file twice, by whichever name
        assert not at.accept(crop.one, Proposal("rewrite", name, "again"))
    assert accepted(grow, at) == ["a.lib"]
    assert at.content("b.lib")[1] == len(contents(BOTH, [crop, grow]))


def accepted(toy: Toy, at: Context) -> list[str]:
    return [proposal.path for proposal in toy.propose(at) if at.accept(toy.one, proposal)]


@pytest.mark.parametrize("action", ["remove", "link"])
def test_what_is_rewritten_is_neither_removed_nor_linked_by_a_later_pass(action: Any) -> None:
    crop = toys()[0]
    at = context([file("a.lib", BOTH), file("b.lib", BOTH)])
    assert accepted(crop, at) == ["a.lib", "b.lib"]
    assert not at.accept(crop.one, Proposal(action, "a.lib", "why", to="b.lib"))
    at = context([file("a.lib", BOTH), file("b.lib", BOTH)])
    assert at.accept(crop.one, Proposal(action, "a.lib", "why", to="b.lib"))
    assert accepted(crop, at) == ["b.lib"]
    assert not at.accept(crop.one, Proposal("rewrite", "a.lib", "why"))


def test_what_becomes_a_link_is_rewritten_with_what_it_is_linked_to() -> None:
    """By hand: one pass rewrites the file that stays, another one a second name of the file that becomes a link."""
    crop, grow, _ = made = toys()
    layer = make_tar(file("a.lib", BOTH), file("b.lib", BOTH), hardlink("c.lib", "b.lib"))
    with passes(*made), image_with(layer) as image:
        plan = make_plan(Ledger(image), all_layers=True)
        own = cuts_of(plan, "a.lib")
        link = msgspec.structs.replace(own["mend"], path="b.lib", action="link", to="a.lib")
        cuts = [link, msgspec.structs.replace(own["grow"], path="c.lib"), own["crop"]]
        worked, result = built(msgspec.structs.replace(plan, cuts=cuts), image)
        check_sums(worked)
        assert len(worked.cuts) >= 3
        view = merged_view(result)
        assert {view[path].content for path in view} == {contents(BOTH, [crop, grow])}


def test_a_pass_that_proposes_what_it_cannot_do_is_named() -> None:
    at = context([file("a.lib", TEXT)])
    with pytest.raises(PlanError, match=r"'a.lib' cannot be rewritten by crop: no gpu in it"):
        at.accept(toys()[0].one, Proposal("rewrite", "a.lib", "why"))


def test_what_a_leaving_name_carried_is_rewritten_where_the_next_one_carries_it() -> None:
    made = toys()
    with passes(*made), image_with(*layers()) as image:
        ledger = Ledger(image)
        plan = make_plan(ledger, all_layers=True)
        cuts = [
            msgspec.structs.replace(cut, path="opt/tool.lib")
            for cut in plan.cuts
            if cut.path == "usr/lib/tool.lib" and cut.pass_ != METADATA
        ]
        assert len(cuts) == 3
        remove = msgspec.structs.replace(cuts[0], path="usr/lib/tool.lib", action="remove")
        worked, result = built(msgspec.structs.replace(plan, cuts=[remove, *cuts]), image)
        check_sums(worked)
        view = merged_view(result)
        assert "usr/lib/tool.lib" not in view
        assert view["opt/tool.lib"].content == contents(BOTH + b"tool", made)
        assert untrue_md5sums(view) == set()
        taken = 512 + len(BOTH + b"tool")
        assert cuts_of(worked, "opt/tool.lib")["crop"].before_bytes == taken + -taken % 512


def test_each_copy_of_a_file_counts_in_each_step() -> None:
    made = toys()
    lower = make_tar(file("a.lib", BOTH), hardlink("b.lib", "a.lib"))
    upper = make_tar(hardlink("c.lib", "a.lib"))
    with passes(*made), image_with(lower, upper) as image:
        plan = make_plan(Ledger(image), all_layers=True)
        own = [cut for cut in plan.cuts if cut.path == "a.lib"]
        cuts = [msgspec.structs.replace(cut, path="b.lib") for cut in own]
        remove = msgspec.structs.replace(own[0], action="remove")  # then the link above needs a copy of its own
        worked, result = built(msgspec.structs.replace(plan, cuts=[remove, *cuts]), image)
        check_sums(worked)
        sizes = [len(contents(BOTH, made[:count])) for count in range(4)]
        taken = [2 * (512 + size + -size % 512) for size in sizes]
        found = cuts_of(worked, "b.lib").values()
        assert [(c.before_bytes, c.after_bytes) for c in found] == list(pairwise(taken))
        view = merged_view(result)
        assert {path: seen.content for path, seen in view.items()} == dict.fromkeys(
            ("b.lib", "c.lib"), contents(BOTH, made)
        )


class Swap(Toy):
    """Gives what its mark says a wholly new content."""

    def propose(self, context: Context) -> Iterator[Proposal]:
        yield Proposal("rewrite", self.mark, "swapped")

    def rewrite(self, file: Rewriting) -> Content:
        return Content((self.put,))


def test_symbols_leave_what_an_earlier_pass_made() -> None:
    large = elf(["libc.so.6"], symbols=50_000)
    layer = make_tar(file("a.so", elf(symbols=9000)), file("b.so", elf(symbols=9000)))
    with passes(Swap("swap", 75, "a.so", large), besides=("symbols",)), image_with(layer) as image:
        plan = make_plan(Ledger(image), all_layers=True)
        check_sums(plan)
        assert list(cuts_of(plan, "a.so")) == ["swap", "symbols"]
        evidence = {path: cuts_of(plan, path)["symbols"].evidence for path in ("a.so", "b.so")}
        saved = {path: int(text.split()[0].replace(",", "")) for path, text in evidence.items()}
        assert saved["a.so"] > 50_000
        assert 10_000 > saved["b.so"] > 8000
        _, result = built(plan, image)
        stripped = strip_symbols(read_from(large), len(large), 62)
        assert merged_view(result)["a.so"].content == stripped.reader(read_from(large))(0, stripped.size)


def test_metadata_wins_where_a_pass_rewrites_it_too() -> None:
    record = "usr/local/lib/python3.11/dist-packages/numlib-2.0.dist-info/RECORD"
    toy, swap = Toy("crop", 75, "gpu"), Swap("swap", 80, record, b"nonsense")
    with passes(toy, swap), image_with(*layers()) as image:
        plan = make_plan(Ledger(image), all_layers=True)
        assert list(cuts_of(plan, record)) == [METADATA]
        worked, result = built(plan, image)
        assert worked.layers == plan.layers
        assert untrue_records(merged_view(result)) == set()
    with passes(swap), image_with(*layers()) as image:
        plan = make_plan(Ledger(image), all_layers=True)
        assert list(cuts_of(plan, record)) == ["swap"]
        assert merged_view(built(plan, image)[1])[record].content == b"nonsense"


def test_plans_with_chains_survive_their_json() -> None:
    with passes(*toys()), image_with(*layers()) as image:
        plan = make_plan(Ledger(image), all_layers=True)
        assert read_plan(write_plan(plan)) == plan
        assert built(read_plan(write_plan(plan)), image)[0] == plan
