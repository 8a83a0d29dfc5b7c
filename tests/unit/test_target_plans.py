"""Plans with a target, and the images that they give: labels, a small file, and everything else as it was."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deadweight import Image, Ledger, Options, Plan, apply_plan, make_plan, open_image, read_plan, write_plan
from deadweight.apply import rework
from deadweight.binary.gpu import Target
from deadweight.binary.target_document import IN_IMAGE
from deadweight.errors import PlanError, UsageError
from deadweight.image.reference import parse_destination
from deadweight.plan import METADATA, Cut
from deadweight.report.slim import slim_report
from support.images import Member, directory, file, make_image, make_tar, symlink, whiteout, write_oci
from support.layers import Seen, merged_view, without_inodes
from support.toys import Toy, marked, passes

HOPPER = Options(target=Target((90,)))
LIBRARY = b"host" * 100 + marked("gpu", 9000)
USR = [directory("usr", mode=0o700), directory("usr/share", mode=0o711)]


class Opened:
    """An image in a folder, with toy passes: one named gpu-code, and one that rewrites other files."""

    def __init__(self, folder: Path, *layers: list[Member], run: dict[str, Any] | None = None) -> None:
        write_oci(folder / "in", make_image(*(make_tar(*members) for members in layers), run=run), "x", "none")
        self.folder, self.reference = folder, f"oci:{folder}/in"

    def slim(
        self, options: Options = HOPPER, change: Any = None, **settings: Any
    ) -> tuple[Plan, dict[str, Seen], dict[str, str]]:
        """The plan as it was worked out, the view of the result and its labels; the result is the next input."""
        to = self.folder / "out.tar"
        to.unlink(missing_ok=True)
        with passes(Toy("gpu-code", 75, "gpu"), Toy("other", 80, "sym")), open_image(self.reference) as image:
            plan = make_plan(Ledger(image), options, **{"all_layers": True, **settings})
            if change is not None:
                plan = change(plan)
            before = merged_view(tars(image))
            applied = apply_plan(plan, Ledger(image), parse_destination(f"docker-archive:{to}"))
        with open_image(f"docker-archive:{to}") as result:
            made = tars(result)
            labels = dict(result.run_config.get("Labels") or {})
        check(applied.plan, before, made)
        self.reference = f"docker-archive:{to.rename(self.folder / 'next.tar')}"
        return applied.plan, merged_view(made), labels


def tars(image: Image) -> list[bytes]:
    return [b"".join(layer.tar.chunks()) for layer in image.layers]


def check(plan: Plan, before: dict[str, Seen], made: list[bytes]) -> None:
    """The prediction holds, and the view is the original's but for what the cuts name."""
    assert [len(tar) for tar in made] == [size.predicted_bytes for size in plan.layers]
    saved = sum(cut.before_bytes - cut.after_bytes for cut in plan.cuts)
    assert plan.before_bytes - saved == plan.predicted_bytes == sum(map(len, made))
    after = merged_view(made)
    named = {cut.path for cut in plan.cuts}
    added = {cut.path for cut in plan.cuts if cut.action == "add"}
    above = {str(parent) for path in added for parent in Path(path).parents}
    new = set(after) - set(before)
    assert new <= added | above
    assert set(before) - set(after) == set()
    one, two = without_inodes(before), without_inodes(after)
    assert all(one[path] == two[path] for path in before if path not in named)


def cut_of(plan: Plan, path: str = IN_IMAGE) -> Cut | None:
    found = [cut for cut in plan.cuts if cut.path == path]
    assert len(found) < 2
    return found[0] if found else None


def document(view: dict[str, Seen]) -> dict[str, Any]:
    seen = view[IN_IMAGE]
    assert (seen.kind, seen.mode, seen.uid) == ("file", 0o644, 0)
    found = json.loads(seen.content)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    return Opened(tmp_path, [*USR, file("a.lib", LIBRARY)], [file("b.txt")])


@pytest.mark.parametrize(
    ("target", "gpus", "ptx"),
    [
        (Target((90,)), "sm_90", "kept"),
        (Target((80, 90), keep_ptx=False), "sm_80,sm_90", "dropped"),
        (Target(), "none", "dropped"),
    ],
)
def test_an_image_says_what_it_is_for(opened: Opened, target: Target, gpus: str, ptx: str) -> None:
    plan, view, labels = opened.slim(Options(target=target))
    assert (labels["deadweight.gpus"], labels["deadweight.ptx"]) == (gpus, ptx)
    found = document(view)
    assert found.pop("deadweight") == plan.deadweight
    assert found == {
        "schema": "deadweight.target/1",
        "gpus": [] if gpus == "none" else gpus.split(","),
        "keep_ptx": ptx == "kept",
        "raw_blobs": False,
    }
    cut = cut_of(plan)
    assert cut is not None
    assert (cut.pass_, cut.action, cut.layer, cut.before_bytes) == (METADATA, "add", 0, 0)
    assert cut.after_bytes == 512 + 512 + 512  # the directory, the file and its content
    assert cut.evidence == "1 changed, such as /a.lib"
    assert (view["usr"].mode, view["usr/share"].mode, view["usr/share/deadweight"].mode) == (0o700, 0o711, 0o755)
    assert view[IN_IMAGE].mtime == 1_700_000_000


def test_the_same_every_time_and_from_a_saved_plan(opened: Opened) -> None:
    reference = opened.reference
    results = []
    for change in (None, lambda plan: read_plan(write_plan(plan))):
        opened.reference = reference
        opened.slim(change=change)
        results.append((opened.folder / "next.tar").read_bytes())
    assert results[0] == results[1]


def test_nothing_is_said_where_nothing_was_done(opened: Opened) -> None:
    for options, more in (
        (Options(), {}),  # the toy does its work without a target too
        (HOPPER, {"skip": ["gpu-code"]}),
        (HOPPER, {"risk": "lossless"}),
        (Options(target=Target((90,)), keep=("a.lib",)), {}),
    ):
        plan, view, labels = opened.slim(options, **more)
        assert IN_IMAGE not in view
        assert not {"deadweight.gpus", "deadweight.ptx"} & labels.keys()
        assert plan.target == ({} if options.target is None else {**plan.target, "gpus": ["sm_90"]})
        left_out = any("GPU code stays as it is: the pass gpu-code was left out" in note for note in plan.notes)
        assert left_out == bool(more)
        opened = Opened(opened.folder / "again", [*USR, file("a.lib", LIBRARY)])


def test_taking_the_cut_out_by_hand_takes_what_follows_out(opened: Opened) -> None:
    def without_gpu_code(plan: Plan) -> Plan:
        return msgspec.structs.replace(plan, cuts=[cut for cut in plan.cuts if cut.pass_ != "gpu-code"])

    plan, view, labels = opened.slim(change=without_gpu_code)
    assert IN_IMAGE not in view
    assert "deadweight.gpus" not in labels
    assert plan.cuts == []


def test_blobs_that_are_asked_for_by_hand_are_of_their_own_risk(opened: Opened) -> None:
    def with_blobs(plan: Plan) -> Plan:
        return msgspec.structs.replace(plan, target={**plan.target, "raw_blobs": True})

    plan, _, _ = opened.slim(change=with_blobs)
    assert {cut.risk for cut in plan.cuts if cut.pass_ == "gpu-code"} == {"observed"}


def test_it_goes_into_the_last_layer_that_changes(tmp_path: Path) -> None:
    layers = [[*USR, file("a.lib", LIBRARY)], [file("c.lib", marked("sym", 9999))], [file("d.lib", marked("sym", 999))]]
    one = Opened(tmp_path / "one", *layers)
    cut = cut_of(one.slim()[0])
    assert cut is not None
    assert cut.layer == 2
    two = Opened(tmp_path / "two", *layers[:2], [*layers[2], file("large", b"x" * 9_000_000)])
    plan, view, _ = two.slim(all_layers=False)  # the third layer is not worth it, so nothing goes there
    assert plan.kept_layers == [2]
    cut = cut_of(plan)
    assert cut is not None
    assert cut.layer == 1
    assert IN_IMAGE in view


def test_an_image_that_is_slimmed_again_says_it_anew(tmp_path: Path) -> None:
    files = [file(f"{name}.lib", LIBRARY) for name in "abc"]
    image = Opened(tmp_path, [*USR, *files], run={"Labels": {"own": "label"}})
    image.slim(Options(target=Target((80, 90)), keep=("b.lib", "c.lib")))
    with pytest.raises(UsageError, match="sm_80, sm_90 alone was kept"):
        image.slim(Options(target=Target((90, 100))))  # for sm_100 some was dropped the first time
    plan, view, labels = image.slim(Options(target=Target((90,)), keep=("c.lib",)))
    cut = cut_of(plan)
    assert cut is not None
    assert (cut.action, cut.pass_) == ("rewrite", METADATA)
    assert document(view)["gpus"] == ["sm_90"]
    assert (labels["deadweight.gpus"], labels["own"]) == ("sm_90", "label")
    plan, view, labels = image.slim(Options(target=Target((90,))))
    assert cut_of(plan) is None  # it says so already
    assert labels["deadweight.gpus"] == "sm_90"
    with pytest.raises(UsageError, match="slim the original"):
        image.slim(Options(target=Target((80,))))


def test_over_one_in_a_layer_that_stays(tmp_path: Path) -> None:
    old = (
        b'{"schema":"deadweight.target/1","deadweight":"0","gpus":["sm_80","sm_90"],"keep_ptx":true,"raw_blobs":false}'
    )
    layers = [[*USR, directory("usr/share/deadweight"), file(IN_IMAGE, old)], [file("a.lib", LIBRARY)]]
    plan, view, _ = Opened(tmp_path / "one", *layers).slim(keep_layers=1)
    cut = cut_of(plan)
    assert cut is not None
    assert (cut.action, cut.layer, cut.after_bytes) == ("add", 1, 1024)
    assert document(view)["gpus"] == ["sm_90"]
    plan, view, labels = Opened(tmp_path / "two", *layers[::-1]).slim(
        change=lambda plan: msgspec.structs.replace(plan, kept_layers=[1])
    )
    assert document(view)["gpus"] == ["sm_80", "sm_90"]
    assert labels["deadweight.gpus"] == "sm_90"
    assert any("is not added: layer 2" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("layers", "note"),
    [
        ([[symlink("usr", "opt"), file("a.lib", LIBRARY)]], "/usr is a symlink and no directory"),
        ([[directory("usr"), symlink("usr/share", "/x"), file("a.lib", LIBRARY)]], "/usr/share is a symlink"),
        ([[*USR, symlink(IN_IMAGE, "/a.lib"), file("a.lib", LIBRARY)]], "something else is there"),
        ([[*USR, directory(IN_IMAGE), file("a.lib", LIBRARY)]], "something else is there"),
        ([[file("usr/share/x"), file("a.lib", LIBRARY)], [whiteout("usr/share/x"), whiteout("usr/share")]], "layer 2"),
    ],
)
def test_where_it_cannot_be_the_plan_says_so(tmp_path: Path, layers: list[list[Member]], note: str) -> None:
    image = Opened(tmp_path, *layers)
    plan, _, labels = image.slim()
    assert cut_of(plan) is None
    assert [text for text in plan.notes if f"/{IN_IMAGE}, which says" in text and note in text]
    assert len(plan.notes) == len(set(plan.notes))
    assert labels["deadweight.gpus"] == "sm_90"


def test_no_usr_at_all(tmp_path: Path) -> None:
    plan, view, _ = Opened(tmp_path, [file("a.lib", LIBRARY)]).slim()
    cut = cut_of(plan)
    assert cut is not None
    assert cut.after_bytes == 3 * 512 + 1024
    assert document(view)["gpus"] == ["sm_90"]


HOSTILE: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["gpus", "keep_ptx", "raw_blobs", "recompress", "encoder", "other"])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ledger, dict[str, Any]]]:
    image = Opened(tmp_path_factory.mktemp("image"), [*USR, file("a.lib", LIBRARY)])
    with passes(Toy("gpu-code", 75, "gpu")), open_image(image.reference) as source:
        ledger = Ledger(source)
        yield ledger, json.loads(write_plan(make_plan(ledger, HOPPER)))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(change=st.dictionaries(FIELDS, HOSTILE, max_size=3) | HOSTILE)
def test_hostile_targets_are_refused_or_mean_what_they_say(shared: tuple[Ledger, dict[str, Any]], change: Any) -> None:
    ledger, plan = shared
    target = {**plan["target"], **change} if isinstance(change, dict) else change
    with contextlib.suppress(PlanError):
        worked = rework(read_plan(json.dumps({**plan, "target": target}).encode()), ledger)
        assert worked.plan.target == {} or {k: target[k] for k in worked.plan.target} == worked.plan.target


def test_a_plan_of_another_encoder_is_refused(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deadweight.binary.recompress.encoder", lambda: "lz4 1")
    with open_image(opened.reference) as image, passes(Toy("gpu-code", 75, "gpu")):
        ledger = Ledger(image)
        plan = make_plan(ledger, Options(target=Target((90,), recompress=True)))
        assert plan.target["encoder"] == "lz4 1"
        assert rework(read_plan(write_plan(plan)), ledger).plan == plan
        monkeypatch.setattr("deadweight.binary.recompress.encoder", lambda: "lz4 2")
        with pytest.raises(PlanError, match="the plan's encoder is 'lz4 1', here it is 'lz4 2'"):
            rework(plan, ledger)


def test_cuts_that_add_files_are_nobody_elses(opened: Opened) -> None:
    with open_image(opened.reference) as image, passes(Toy("gpu-code", 75, "gpu")):
        ledger = Ledger(image)
        plan = make_plan(ledger, HOPPER)
        bad = [msgspec.structs.replace(cut, pass_="gpu-code") for cut in plan.cuts if cut.action == "add"]
        assert len(bad) == 1
        with pytest.raises(PlanError, match="adds a file, which only follows"):
            rework(msgspec.structs.replace(plan, cuts=bad), ledger)


def test_options_in_a_plan_do_not_say_the_target_twice(opened: Opened) -> None:
    plan, _, _ = opened.slim()
    assert plan.target == {"gpus": ["sm_90"], "keep_ptx": True, "raw_blobs": False, "recompress": False}
    assert "target" not in plan.options


def test_the_report_of_an_edited_plan_is_about_its_new_target(tmp_path: Path) -> None:
    opened = Opened(tmp_path, [*USR, file("a.lib", LIBRARY)])
    with passes(Toy("gpu-code", 75, "gpu")), open_image(opened.reference) as image:
        ledger = Ledger(image)
        plan = make_plan(ledger, HOPPER, all_layers=True)
        assert any("newer than sm_90 may run it" in note for note in slim_report(plan, ledger).notes)
        edited = msgspec.structs.replace(plan, target={**plan.target, "gpus": ["sm_80"], "keep_ptx": False})
        notes = slim_report(edited, ledger).notes
        assert any(note.startswith("PTX leaves that sm_80 does not need") for note in notes)
        assert not any("sm_90" in note for note in notes)
        uncut = msgspec.structs.replace(plan, cuts=[])
        assert slim_report(uncut, ledger).notes == []
