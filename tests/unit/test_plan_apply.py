"""Plans and their results: predicted to the byte, honest about metadata, honoured when edited."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deadweight import Image, Ledger, Options, Plan, apply_plan, make_plan, open_image, read_plan, write_plan
from deadweight.apply import rework
from deadweight.errors import BadInputError, DigestError, PlanError, UsageError
from deadweight.image.reference import parse_destination
from deadweight.plan import METADATA, Cut
from support.careless import CACHE, SITE, packages_of, service_image, untrue_md5sums, untrue_records
from support.images import file, hardlink, make_image, make_tar, symlink, write_docker_archive, write_oci
from support.layers import Seen, image_of, member, merged_view, tar_of, without_inodes


@functools.cache
def stored() -> Path:
    """The service's image as a docker-archive."""
    folder = tempfile.mkdtemp(prefix="deadweight-test-")
    atexit.register(shutil.rmtree, folder)
    path = Path(folder) / "image.tar"
    write_docker_archive(path, service_image(), "service:1", style="25")
    return path


@pytest.fixture
def image() -> Iterator[Image]:
    with open_image(f"docker-archive:{stored()}") as opened:
        yield opened


def tars(image: Image) -> list[bytes]:
    return [b"".join(layer.tar.chunks()) for layer in image.layers]


def built(plan: Plan, image: Image, to: Path, **more: Any) -> tuple[Plan, dict[str, Seen], list[bytes]]:
    """Applies a plan; gives the plan as it was worked out, the merged view of the result, and its layers."""
    to.unlink(missing_ok=True)
    applied = apply_plan(plan, Ledger(image), parse_destination(f"docker-archive:{to}"), **more)
    with open_image(f"docker-archive:{to}") as result:
        layers = tars(result)
        for layer in result.layers:
            layer.check()
    assert sum(map(len, layers)) == applied.plan.predicted_bytes
    assert [len(layer) for layer in layers] == [size.predicted_bytes for size in applied.plan.layers]
    return applied.plan, merged_view(layers), layers


def paths(plan: Plan, name: str) -> set[str]:
    return {cut.path for cut in plan.cuts if cut.pass_ == name}


def test_every_pass_finds_what_is_there_for_it(image: Image) -> None:
    plan = make_plan(Ledger(image), all_layers=True, each_path=True)
    assert {"etc/secret", "usr/lib/libbase.txt"} <= paths(plan, "shadowed")
    assert {"var/lib/apt/lists/index", f"{CACHE}/unused.whl"} <= paths(plan, "caches")
    assert {"usr/bin/gcc", "usr/lib/gcc/cc1", "var/lib/dpkg/info/gcc.list"} <= paths(plan, "build-tools")
    assert {f"{SITE}/pytest/__init__.py", f"{SITE}/pluggy/__init__.py"} <= paths(plan, "dev-tools")
    assert f"{SITE}/numlib/tests/test_core.py" in paths(plan, "tests")
    assert f"{SITE}/numlib/tests_used/tests/helper.py" not in paths(plan, "tests")
    assert paths(plan, "development-files") == {f"{SITE}/numlib/include/numlib.h", f"{SITE}/numlib/include"}
    assert paths(plan, "duplicates") == {f"{SITE}/numlib/table_copy.bin"}
    assert paths(plan, "symbols") == {f"{SITE}/numlib/fast.so"}
    assert {f"{SITE}/numlib-2.0.dist-info/RECORD", "var/lib/dpkg/status"} <= paths(plan, METADATA)
    saved = sum(cut.before_bytes - cut.after_bytes for cut in plan.cuts)
    assert plan.before_bytes - saved == plan.predicted_bytes == sum(size.predicted_bytes for size in plan.layers)


def test_the_result_is_the_original_less_the_cuts(image: Image, tmp_path: Path) -> None:
    plan, view, _ = built(make_plan(Ledger(image), all_layers=True), image, tmp_path / "slim.tar")
    hold_to_contract(plan, merged_view(tars(image)), view)
    assert packages_of(view) == {"base"}


def removed_by(plan: Plan, before: Collection[str]) -> set[str]:
    """The paths that cuts name, and those below directories of which a cut says that all leaves."""
    found: set[str] = set()
    for cut in plan.cuts:
        if cut.action == "remove":
            below = {path for path in before if path.startswith(f"{cut.path}/")} if cut.below else set()
            assert len(below) == cut.below
            assert not found & (below | {cut.path}), "a path leaves by one cut"
            found |= below | {cut.path}
    return found


def hold_to_contract(plan: Plan, before: dict[str, Seen], after: dict[str, Seen]) -> None:
    """The result's view is the original's, less removed paths, with declared rewrites; metadata is no less true."""
    removed = removed_by(plan, before)
    rewritten = {cut.path for cut in plan.cuts if cut.action == "rewrite"}
    assert set(after) == set(before) - removed
    inodes = {before[path].inode for path in rewritten if path in before}
    links = {cut.path: cut.to for cut in plan.cuts if cut.action == "link"}
    inodes |= {before[p].inode for p, to in links.items() if to and before[to].inode in inodes}
    same = without_inodes(after)
    for path, seen in without_inodes(before).items():
        if path in after and before[path].inode not in inodes:
            assert same[path] == seen, path
    assert untrue_records(after) <= untrue_records(before)
    assert untrue_md5sums(after) <= untrue_md5sums(before)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_subset_of_a_plan_holds(data: st.DataObject) -> None:
    with open_image(f"docker-archive:{stored()}") as image, tempfile.TemporaryDirectory() as folder:
        plan = make_plan(Ledger(image), all_layers=True, each_path=data.draw(st.booleans()))
        chosen = data.draw(st.sets(st.sampled_from(range(len(plan.cuts)))))
        edited = msgspec.structs.replace(plan, cuts=[cut for i, cut in enumerate(plan.cuts) if i in chosen])
        worked, view, _ = built(edited, image, Path(folder) / "slim.tar")
        wanted = {c.path for c in edited.cuts if c.action == "remove"}
        assert {c.path for c in worked.cuts if c.action == "remove"} <= wanted
        hold_to_contract(worked, merged_view(tars(image)), view)
        files = {c.path for c in edited.cuts if c.action == "remove" and c.path not in view}
        kept = wanted - files
        assert all(merged_view(tars(image))[path].kind == "dir" for path in kept)


def test_a_plan_survives_its_json_and_gives_the_same_layers_twice(image: Image, tmp_path: Path) -> None:
    plan = make_plan(Ledger(image), all_layers=True)
    again = read_plan(write_plan(plan))
    assert again == plan
    assert json.loads(write_plan(plan))["cuts"][0]["pass"] == "shadowed"
    one = built(plan, image, tmp_path / "one.tar")[2]
    two = built(again, image, tmp_path / "two.tar")[2]
    assert one == two
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_an_edited_plan_is_honoured_and_recomputed(image: Image, tmp_path: Path) -> None:
    plan = make_plan(Ledger(image), all_layers=True, each_path=True)
    keep = f"{SITE}/numlib/tests/test_core.py"
    edited = msgspec.structs.replace(plan, cuts=[cut for cut in plan.cuts if cut.path != keep])
    seen: list[tuple[int, bool]] = []
    worked, view, _ = built(
        edited, image, tmp_path / "slim.tar", announce=lambda p, e: seen.append((p.predicted_bytes, e))
    )
    assert keep in view
    assert f"{SITE}/numlib/tests" in view
    assert worked.predicted_bytes > plan.predicted_bytes
    assert seen == [(worked.predicted_bytes, True)]
    assert keep.removeprefix(f"{SITE}/").encode() in view[f"{SITE}/numlib-2.0.dist-info/RECORD"].content


def test_an_empty_plan_keeps_the_image_id(image: Image, tmp_path: Path) -> None:
    plan = make_plan(Ledger(image), all_layers=True)
    empty = msgspec.structs.replace(plan, cuts=[])
    for to in (f"docker-archive:{tmp_path / 'x.tar'}", f"oci:{tmp_path / 'x'}", f"oci-archive:{tmp_path / 'y.tar'}"):
        applied = apply_plan(empty, Ledger(image), parse_destination(to))
        assert applied.written.config_digest == image.config_digest


def test_the_configuration_gains_labels_and_a_note_only(image: Image, tmp_path: Path) -> None:
    applied = apply_plan(
        make_plan(Ledger(image)), Ledger(image), parse_destination(f"docker-archive:{tmp_path / 's.tar'}")
    )
    with open_image(f"docker-archive:{tmp_path / 's.tar'}") as slim:
        new, old = dict(slim.config), dict(image.config)
        labels = new["config"].pop("Labels")
        old["config"] = {k: v for k, v in old["config"].items() if k != "Labels"}
        assert new["config"] == old["config"]
        assert labels["deadweight.source"] == image.config_digest
        assert set(labels) == {"deadweight.source", "deadweight.plan", "deadweight.result", "deadweight.version"}
        assert new["history"][:-1] == old["history"]
        assert new["history"][-1]["empty_layer"] is True
        assert applied.written.config_digest == slim.config_digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["image"].update(digest="sha256:" + "0" * 64), "make a new plan"),
        (lambda p: p["image"].update(diff_ids=[]), "make a new plan"),
        (lambda p: p["cuts"][0].update(path="no/such"), "no such"),
        (lambda p: p["cuts"][-1].update(path="no/such"), ""),
        (lambda p: p["cuts"][0].update({"pass": "magic"}), "not installed"),
        (lambda p: p["cuts"][0].update(layer=17), "no such entry"),
        (lambda p: p["cuts"].append(p["cuts"][0]), "twice"),
        (lambda p: p.update(surprise=1), "surprise"),
        (lambda p: p["cuts"][0].update(surprise=1), "surprise"),
        (lambda p: p.pop("cuts"), "cuts"),
        (lambda p: p["cuts"][0].update(before_bytes="many"), "before_bytes"),
        (lambda p: p.update(kept_layers=[99]), "kept_layers"),
        (lambda p: p.update(schema="deadweight.plan/9"), "schema"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_and_nothing_is_written(
    image: Image, tmp_path: Path, change: Any, message: str
) -> None:
    document = json.loads(write_plan(make_plan(Ledger(image), all_layers=True)))
    change(document)
    if not message:  # derived cuts are worked out anew, whatever the plan says of them
        built(read_plan(json.dumps(document).encode()), image, tmp_path / "slim.tar")
        return
    with pytest.raises(PlanError, match=message):
        built(read_plan(json.dumps(document).encode()), image, tmp_path / "slim.tar")
    assert list(tmp_path.iterdir()) == []


def test_a_cut_that_links_unequal_files_is_refused(image: Image, tmp_path: Path) -> None:
    plan = make_plan(Ledger(image), all_layers=True)
    bad = [msgspec.structs.replace(c, to=f"{SITE}/numlib/core.py") if c.action == "link" else c for c in plan.cuts]
    with pytest.raises(PlanError, match="not equal"):
        built(msgspec.structs.replace(plan, cuts=bad), image, tmp_path / "slim.tar")


def test_cuts_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    upper = make_tar(
        hardlink("opt/fast.so", f"{SITE}/numlib/fast.so", mode=0o755),
        file("opt/one"),
        file("opt/two"),
        symlink("opt/link", "one"),
    )
    full = service_image()
    write_oci(tmp_path / "in", make_image(*full.layers, upper, run=full.config["config"]), "x")
    with open_image(f"oci:{tmp_path / 'in'}") as image:
        ledger = Ledger(image)
        plan = make_plan(ledger, all_layers=True)

        def cut(action: Any, path: str, to: str | None = None, name: str = "duplicates") -> Cut:
            return Cut(name, path, len(full.layers), action, 0, 0, "lossless", "by hand", to=to)

        def worked(*cuts: Cut, **more: Any) -> Plan:
            return rework(msgspec.structs.replace(plan, cuts=list(cuts), **more), ledger).plan

        for cuts, message in (
            ([cut("link", "opt/one", "opt/two"), cut("remove", "opt/one", name="caches")], "only cut"),
            ([cut("link", "opt/one", "opt/one")], "not equal"),
            ([cut("link", "opt/one", "opt/link")], "not equal"),
            ([cut("rewrite", "opt/one")], "does not rewrite"),
        ):
            with pytest.raises(PlanError, match=message):
                worked(*cuts)
        # A name in an upper layer, whose bytes lie in one that stays.
        with pytest.raises(PlanError, match="kept_layers"):
            worked(cut("rewrite", "opt/fast.so", name="symbols"), kept_layers=[2])
        # The file to link to may come later; then it is the one that becomes the link.
        both = worked(cut("link", "opt/one", "opt/two"), cut("link", "opt/two", "opt/one"))
        assert {c.path for c in both.cuts if c.action == "link"} <= {"opt/one", "opt/two"}


def test_an_image_that_names_no_platform_can_be_planned_and_applied(tmp_path: Path) -> None:
    odd = make_image(make_tar(file("var/lib/apt/lists/a", b"x" * 3000)), architecture="", author="\ud800 \u00fc")
    del odd.config["architecture"]
    write_oci(tmp_path / "in", odd, "x")
    with open_image(f"oci:{tmp_path / 'in'}") as image:
        plan = make_plan(Ledger(image))
    assert plan.image.platform == ""
    with open_image(f"oci:{tmp_path / 'in'}", plan.image.platform) as image:
        apply_plan(plan, Ledger(image), parse_destination(f"oci:{tmp_path / 'out'}:x"))
    with open_image(f"oci:{tmp_path / 'out'}") as slim:
        assert slim.config["author"] == "\ud800 \u00fc"
        assert slim.config_bytes.isascii()  # a lone surrogate has no UTF-8, and other tools read this


def test_options_take_things_out(image: Image) -> None:
    ledger = Ledger(image)
    whole = make_plan(ledger, all_layers=True)
    assert not paths(make_plan(ledger, skip=["tests"], all_layers=True), "tests")
    lossless = make_plan(ledger, risk="lossless", all_layers=True)
    assert {cut.pass_ for cut in lossless.cuts} <= {"shadowed", "duplicates", METADATA}
    kept = make_plan(ledger, Options(keep=("*/numlib/tests",)), all_layers=True)
    assert paths(kept, "tests") == set()
    assert whole.predicted_bytes < kept.predicted_bytes
    with pytest.raises(UsageError, match="no pass"):
        make_plan(ledger, skip=["nonsense"])
    removed = make_plan(ledger, Options(remove=("service",)), all_layers=True, each_path=True)
    assert f"{SITE}/service/main.py" in paths(removed, "dev-tools")


def test_layers_that_stay_keep_their_digests(image: Image, tmp_path: Path) -> None:
    plan = make_plan(Ledger(image), keep_layers=2, all_layers=True)
    assert plan.kept_layers == [0, 1]
    assert {cut.layer for cut in plan.cuts} <= {2, 3}
    _, view, layers = built(plan, image, tmp_path / "slim.tar")
    assert layers[:2] == tars(image)[:2]
    hold_to_contract(plan, merged_view(tars(image)), view)


def test_a_base_is_kept_and_one_that_is_not_the_base_is_refused(image: Image, tmp_path: Path) -> None:
    full = service_image()
    write_oci(tmp_path / "base", make_image(*full.layers[:2]), "b", "none")
    write_oci(tmp_path / "other", make_image(full.layers[1]), "b", "none")
    with open_image(f"oci:{tmp_path / 'base'}") as base:
        assert make_plan(Ledger(image), base=base, all_layers=True).kept_layers == [0, 1]
    with open_image(f"oci:{tmp_path / 'other'}") as other, pytest.raises(UsageError, match="not built on"):
        make_plan(Ledger(image), base=other)


def test_a_layer_with_little_to_win_stays_as_it_is() -> None:
    large = tar_of([member("usr/big", b"x" * 3_000_000), member("var/lib/apt/lists/a", b"y" * 2000)])
    with image_of([large, tar_of([member("var/lib/apt/lists/b", b"z" * 2000)])]) as image:
        plan = make_plan(Ledger(image))
        assert plan.kept_layers == [0]
        assert any("layer 1 stays" in note for note in plan.notes)
        assert paths(plan, "caches") == {"var/lib/apt/lists/b"}
        assert paths(make_plan(Ledger(image), all_layers=True), "caches") == {
            "var/lib/apt/lists/a",
            "var/lib/apt/lists/b",
        }


def test_a_file_changed_after_its_installation_is_left_as_found(tmp_path: Path) -> None:
    full = service_image()
    tampered = [layer.replace(b"function_199", b"function_1xx") for layer in full.layers]
    assert tampered[2] != full.layers[2]
    write_oci(tmp_path / "t", make_image(*tampered, run=full.config["config"]), "t", "none")
    with open_image(f"oci:{tmp_path / 't'}") as image:
        before = merged_view(tars(image))
        assert untrue_records(before) == {f"{SITE}/numlib-2.0.dist-info/RECORD: numlib/fast.so"}
        plan, view, _ = built(make_plan(Ledger(image), all_layers=True), image, tmp_path / "slim.tar")
        assert f"{SITE}/numlib/fast.so" in paths(plan, "symbols")
        assert untrue_records(view) == untrue_records(before)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_layers_come_out_compressed_and_equal(image: Image, tmp_path: Path, compression: Any) -> None:
    write_oci(tmp_path / "in", service_image(), "x", compression)
    plain = built(make_plan(Ledger(image), all_layers=True), image, tmp_path / "plain.tar")[2]
    with open_image(f"oci:{tmp_path / 'in'}") as packed:
        plan = make_plan(Ledger(packed), all_layers=True)
        applied = apply_plan(plan, Ledger(packed), parse_destination(f"oci:{tmp_path / 'out'}:x"))
        assert sum(applied.written.stored_sizes) < sum(applied.written.sizes) / 2
    with open_image(f"oci:{tmp_path / 'out'}") as result:
        assert {layer.compression for layer in result.layers} == {compression}
        assert tars(result) == plain


def test_a_damaged_layer_is_found_and_nothing_is_written(tmp_path: Path) -> None:
    data = bytearray(stored().read_bytes())
    at = data.index(b"cc1cc1cc1cc1") + 5000  # content that leaves: it is read all the same
    data[at] ^= 1
    (tmp_path / "in.tar").write_bytes(data)
    out = tmp_path / "out"
    out.mkdir()
    with open_image(f"docker-archive:{tmp_path / 'in.tar'}") as image:
        plan = make_plan(Ledger(image), all_layers=True)
        with pytest.raises(DigestError, match="diff-id"):
            apply_plan(plan, Ledger(image), parse_destination(f"docker-archive:{out / 'slim.tar'}"))
    assert list(out.iterdir()) == []


def test_a_plan_is_sorted_and_each_cut_says_why(image: Image) -> None:
    plan = make_plan(Ledger(image), all_layers=True)
    assert all(cut.why and cut.risk and cut.evidence for cut in plan.cuts)
    assert all(cut.before_bytes >= 0 and cut.after_bytes >= 0 for cut in plan.cuts)
    keys = [(cut.pass_, cut.layer, cut.path) for cut in plan.cuts]
    assert len(set(keys)) == len(keys)
    assert isinstance(plan.cuts[0], Cut)


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    name = b"var/lib/apt/lists/caf\xe9".decode("utf-8", "surrogateescape")
    with image_of([tar_of([member(name, b"x" * 3000), member("a", b"y" * 10)])]) as image:
        plan = make_plan(Ledger(image))
        assert paths(plan, "caches") == {name}
        assert read_plan(write_plan(plan)) == plan
        applied = apply_plan(plan, Ledger(image), parse_destination(f"docker-archive:{tmp_path / 's.tar'}:a:b"))
        assert applied.written.sizes == (1024 + 1024,)


def test_roots_must_be_there(image: Image) -> None:
    with pytest.raises(UsageError, match="nothing-like-it"):
        make_plan(Ledger(image), Options(roots=("nothing-like-it",)))
    assert "pluggy" not in str(paths(make_plan(Ledger(image), Options(roots=("Pluggy",))), "dev-tools"))


def test_where_an_image_lay_does_not_change_the_result(image: Image, tmp_path: Path) -> None:
    write_oci(tmp_path / "elsewhere", service_image(), "x", "gzip")
    digests = set()
    with open_image(f"oci:{tmp_path / 'elsewhere'}") as other:
        for number, source in enumerate((image, other)):
            to = parse_destination(f"docker-archive:{tmp_path / str(number)}")
            digests.add(apply_plan(make_plan(Ledger(source)), Ledger(source), to).written.config_digest)
    assert len(digests) == 1


def test_rubbish_is_no_plan() -> None:
    for data in (b"", b"[]", b"{", b"\xff", b'{"schema": 1}', b"[" * 100_000):
        with pytest.raises(BadInputError):
            read_plan(data)
