"""The static proof: honest slim images pass, and every kind of damage is caught, by the name of the path."""

from __future__ import annotations

import dataclasses
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deadweight import Ledger, Plan, make_plan
from deadweight.errors import DigestError, PlanError
from deadweight.image.model import build_image
from deadweight.verify.proof import prove
from support.careless import SITE, library, service_image, urlsafe
from support.images import FixtureImage, Member, directory, file, hardlink, make_image, make_tar, opaque, symlink, xattr
from support.layers import member, tar_of
from support.proofs import (
    Change,
    Slim,
    added,
    changed,
    content,
    differences,
    edited,
    flipped,
    notes,
    opened,
    proved,
    replaced,
    slimmed,
)

INFO = f"{SITE}/numlib-2.0.dist-info"
RECORD = f"{INFO}/RECORD"
FAST = f"{SITE}/numlib/fast.so"
CORE = f"{SITE}/numlib/core.py"
STATUS = "var/lib/dpkg/status"


def fixture() -> FixtureImage:
    """The careless service, with what else a container can see: attributes, a fifo, a device, an own directory."""
    image = service_image()
    more = [
        directory("srv/data", mode=0o2775, uid=10, gid=20),
        file("srv/data/weights.bin", b"\0\0\x80?" * 5000, uid=10, gid=20),
        file("srv/data/tagged", b"tagged", pax=xattr("user.tag", b"one")),
        hardlink("srv/data/again.bin", "srv/data/weights.bin", uid=10, gid=20),
        file("srv/implied/by/this", b"x"),
        symlink("srv/current", "data"),
    ]
    return make_image(*image.layers, make_tar(*more), run=image.config["config"])


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Slim:
    return slimmed(tmp_path_factory.mktemp("proof"), fixture())


@pytest.fixture(params=["with its plan", "without a plan"])
def plan(request: pytest.FixtureRequest, slim: Slim) -> Plan | None:
    return slim.plan if request.param == "with its plan" else None


def test_the_honest_slim_image_passes(slim: Slim, plan: Plan | None) -> None:
    proof = proved(slim.before, slim.after, plan)
    assert differences(proof) == []
    assert [(result.name, result.kind, result.outcome) for result in proof.results] == [
        ("every path", "files", "same" if plan is not None else "undeclared"),
        ("configuration", "config", "same"),
    ]
    assert {cut.path for cut in slim.plan.cuts if cut.action == "remove"} < proof.removed
    assert {"usr/lib/gcc", "var/lib/apt/lists"} < proof.removed  # directories of no entry: they need no cut
    assert proof.declared == (proof.removed if plan is not None else frozenset())
    said = "\n".join(notes(proof))
    assert "1 file is rewritten, and loaders cannot tell (symbols)" in said
    assert "metadata files follow from that, and are true" in said
    assert ("undeclared" in said) == (plan is None)


def test_an_image_is_equal_to_itself(slim: Slim) -> None:
    proof = proved(slim.before, slim.before)
    assert differences(proof) == []
    assert proof.removed == frozenset()


def test_files_that_are_equal_in_all_can_be_shared(slim: Slim) -> None:
    after = changed(slim.after, "srv/data/weights.bin", replaced(mode=0o600))
    after = changed(after, "srv/data/again.bin", replaced(mode=0o600))
    proof = proved(slim.before, after, slim.plan)
    shared = set(proof.equal.values())
    assert CORE in shared
    assert f"{SITE}/numlib/table.bin" in shared
    assert not {FAST, RECORD, STATUS, "srv/data/weights.bin", "srv/data/again.bin"} & shared
    with opened(after) as image:
        for (layer, index), path in proof.equal.items():
            entry = image.layers[layer].entries[index]
            data = image.layers[layer].tar.read_at(entry.data, entry.stored)
            assert data == content(slim.before, path)


def line_of(name: str, change: Callable[[bytes], bytes]) -> Change:
    """Changes the line that says something of a file, in a RECORD or one of dpkg's lists."""

    def changing(member: Member) -> Member | None:
        match = re.search(rb"^.*" + re.escape(name).encode() + rb"(,.*)?\n", member.data, re.MULTILINE)
        assert match is not None
        return edited(match[0], change(match[0]))(member)

    return changing


def stanza_of(package: str, change: Callable[[bytes], bytes]) -> Change:
    """Changes the stanza of a package."""

    def changing(member: Member) -> Member | None:
        match = re.search(rb"Package: " + package.encode() + rb"\n(.+\n)*\n?", member.data)
        assert match is not None
        return edited(match[0], change(match[0]))(member)

    return changing


def gone(_: Member) -> None:
    """Takes an entry out."""


OLD_LINE = f"numlib/fast.so,{urlsafe(library())},{len(library())}\n".encode()
WRONG = urlsafe(b"something else").encode()
DAMAGE: dict[str, tuple[str, Change, str]] = {
    "a changed script": (CORE, edited(b"x = 1", b"x = 2"), "content differs, from byte 47 on: undeclared"),
    "a wrong weight": ("srv/data/weights.bin", edited(b"\0\0\x80?", b"\0\0\0?"), "content differs, from byte 2 on"),
    "a file cut short": (CORE, lambda m: replaced(data=m.data[:-1])(m), "content differs"),
    "a file that grew": (CORE, lambda m: replaced(data=m.data + b"\n")(m), "content differs"),
    "another mode": ("usr/bin/sh", replaced(mode=0o4755), "its mode was 755, now it is 4755"),
    "a directory's mode": ("srv/data", replaced(mode=0o777), "its mode was 2775, now it is 777"),
    "another uid": ("app/run.py", replaced(uid=1000), "its uid was 0, now it is 1000"),
    "another gid": ("app/run.py", replaced(gid=7), "its gid was 0, now it is 7"),
    "another mtime": ("app/run.py", replaced(mtime=1), "its mtime was 1700000000"),
    "another attribute": ("srv/data/tagged", replaced(pax=xattr("user.tag", b"two")), "SCHILY.xattr.user.tag"),
    "no attributes": ("srv/data/tagged", replaced(pax={}), "SCHILY.xattr.user.tag"),
    "a capability": (
        "usr/bin/sh",
        replaced(pax=xattr("security.capability", b"x")),
        "SCHILY.xattr.security.capability",
    ),
    "a link that leads elsewhere": (
        "app/link",
        replaced(linkname="/etc"),
        "'/usr/lib/libbase.txt', now it leads to '/etc'",
    ),
    "a link in a file's place": (
        "app/run.py",
        replaced(type=tarfile.SYMTYPE, data=b"", linkname="/app/link"),
        "it was a file, now it is a symlink",
    ),
    "a hard link to another file": ("srv/data/again.bin", replaced(linkname="srv/data/tagged"), "content differs"),
    "a hard link that says another mode": ("srv/data/again.bin", replaced(mode=0o4755), "its hard link says other"),
    "a directory without its entry": ("srv/data", gone, "a directory that had an entry of its own has none"),
    "a wrong hash": (
        RECORD,
        line_of("numlib/fast.so", lambda old: re.sub(rb"sha256=[^,]+", WRONG, old)),
        "'numlib/fast.so'",
    ),
    "a wrong size": (RECORD, line_of("numlib/fast.so", lambda old: re.sub(rb"\d+\n", b"1\n", old)), "'numlib/fast.so'"),
    "a hash of a file that is as it was": (
        RECORD,
        line_of("numlib/core.py", lambda old: re.sub(rb"sha256=[^,]+", WRONG, old)),
        "'numlib/core.py'",
    ),
    "the old hash": (RECORD, line_of("numlib/fast.so", lambda _: OLD_LINE), "it has the old hash of 'numlib/fast.so'"),
    "a lost line": (RECORD, line_of("numlib/core.py", lambda old: b""), "'numlib/core.py' is missing"),
    "the lost line of what was rewritten": (RECORD, line_of("numlib/fast.so", lambda old: b""), "'numlib/fast.so'"),
    "the lost last line": (RECORD, line_of("dist-info/RECORD", lambda old: b""), "RECORD' is missing"),
    "a line too many": (
        RECORD,
        lambda m: replaced(data=m.data + b"more.py,,\n")(m),
        "it lists 'more.py', which it did not",
    ),
    "a kept package": (STATUS, stanza_of("base", lambda old: b""), "stanza of 'base' is missing"),
    "a changed stanza": (STATUS, stanza_of("base", lambda old: old.replace(b"1.0", b"9.9")), "stanza of 'base'"),
    "a package too many": (STATUS, lambda m: replaced(data=m.data + b"\nPackage: more\n")(m), "stanza"),
    "a package that left": (
        STATUS,
        lambda m: replaced(data=m.data + b"\nPackage: gcc\nArchitecture: amd64\n")(m),
        "stanza",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_caught_by_name(damage: str, slim: Slim, plan: Plan | None) -> None:
    path, change, says = DAMAGE[damage]
    found = differences(proved(slim.before, changed(slim.after, path, change), plan))
    assert any(each.startswith(f"'/{path}': ") and says in each for each in found), found
    # Nothing else is blamed, but for other names of the same file.
    others = {"srv/data/weights.bin", "srv/data/again.bin"} if path.startswith("srv/data/") else set()
    assert all(each.startswith(tuple(f"'/{name}': " for name in (path, *others))) for each in found), found


@pytest.mark.parametrize(
    ("one", "two", "says"),
    [
        ({"uname": "root"}, {"uname": "app"}, "its owner was 'root:', now it is 'app:'"),
        ({"gname": "root"}, {"gname": "app"}, "its owner was ':root', now it is ':app'"),
        ({"type": tarfile.CHRTYPE, "devmajor": 1}, {"type": tarfile.CHRTYPE, "devmajor": 2}, "it is another device"),
        ({"type": tarfile.CHRTYPE, "devminor": 1}, {"type": tarfile.CHRTYPE, "devminor": 2}, "it is another device"),
        ({"type": tarfile.CHRTYPE}, {"type": tarfile.BLKTYPE}, "it is another device"),
        ({"type": tarfile.FIFOTYPE}, {"type": tarfile.CHRTYPE}, "it was a fifo, now it is a device"),
        ({"mtime": 1.25}, {"mtime": 1.5}, "its mtime was 1.25, now it is 1.5"),
    ],
)
def test_rarer_metadata_are_held(one: dict[str, Any], two: dict[str, Any], says: str) -> None:
    before, after = (make_image(tar_of([member("x", **fields)])) for fields in (one, two))
    assert differences(proved(before, after)) == [f"'/x': {says}"]


def test_a_hard_link_to_another_file_of_a_shared_layer_is_caught() -> None:
    shared = make_tar(file("a", b"one"), file("b", b"two"))
    one, two = (make_image(shared, make_tar(hardlink("link", target))) for target in "ab")
    (found,) = differences(proved(one, two))
    assert found.startswith("'/link': its content differs, from byte 0 on")


def test_something_new_is_caught(slim: Slim, plan: Plan | None) -> None:
    after = added(slim.after, file("app/more.py", b"import os\n"), directory("app/empty"))
    proof = proved(slim.before, after, plan)
    assert differences(proof) == ["'/app/empty': it is new, undeclared", "'/app/more.py': it is new, undeclared"]
    same = "paths are the same in content and metadata"
    counts = [
        next(n for n in notes(each) if n.endswith(same)) for each in (proof, proved(slim.before, slim.after, plan))
    ]
    assert counts[0] == counts[1]


def test_what_was_deleted_and_comes_back_is_new(slim: Slim, plan: Plan | None) -> None:
    after = added(slim.after, file("etc/secret", b"do not come back"))
    assert differences(proved(slim.before, after, plan)) == ["'/etc/secret': it is new, undeclared"]


def test_a_document_of_a_target_has_to_be_declared(slim: Slim) -> None:
    after = added(slim.after, file("usr/share/deadweight/target.json", b"{}"))
    found = differences(proved(slim.before, after, slim.plan))
    assert "'/usr/share/deadweight/target.json': it is new, undeclared" in found


@pytest.mark.parametrize("path", ["app/run.py", CORE, "usr/lib/libbase.txt", RECORD, "app/link"])
def test_what_is_gone_undeclared_is_caught(path: str, slim: Slim) -> None:
    after = changed(slim.after, path, gone)
    if path == "usr/lib/libbase.txt":  # it hid nothing any more
        assert path not in proved(slim.before, slim.after).removed
    found = differences(proved(slim.before, after, slim.plan))
    assert f"'/{path}': it is gone, undeclared" in found
    proof = proved(slim.before, after)
    assert path in proof.removed
    assert f"'/{path}': it is gone, undeclared, and no pass takes it out" in differences(proof)


def test_without_a_plan_what_passes_take_may_be_gone(slim: Slim) -> None:
    """And no more: of what lies in one directory, what a pass takes, and what it does not."""
    after = changed(changed(slim.before, "usr/bin/gcc", gone), "app/run.py", gone)
    assert differences(proved(slim.before, after)) == [
        "'/app/run.py': it is gone, undeclared, and no pass takes it out"
    ]


def test_a_whole_directory_that_is_hidden_is_caught(slim: Slim) -> None:
    layer = len(slim.after.layers)
    after = make_image(*slim.after.layers, make_tar(opaque("srv")), run=slim.after.config["config"])
    found = differences(proved(slim.before, after, slim.plan))
    assert layer == len(slim.before.layers)
    assert "'/srv/data/weights.bin': it is gone, undeclared" in found
    assert not any("/srv/implied" in each and "by/this" not in each for each in found)  # they have no entries


def test_cuts_that_were_not_made_are_noted(slim: Slim) -> None:
    """Less left than was declared: no difference, but said; and what follows from it is as true as it was."""
    proof = proved(slim.before, slim.before, slim.plan)
    assert differences(proof) == []
    assert any(note.startswith("declared to leave, and still there: ") for note in notes(proof))
    assert not proof.declared


# --- plans ---------------------------------------------------------------------------------------------


def without_cut(plan: Plan, path: str) -> Plan:
    assert any(cut.path == path for cut in plan.cuts)
    return msgspec.structs.replace(plan, cuts=[cut for cut in plan.cuts if cut.path != path])


def each_path(slim: Slim) -> Plan:
    """The plan by which it was slimmed, with a cut for each path."""
    with opened(slim.before) as image:
        plan = make_plan(Ledger(image), all_layers=True, each_path=True)
    assert len(plan.cuts) > len(slim.plan.cuts)
    return plan


def test_a_directory_that_leaves_whole_takes_all_in_it_and_no_more(slim: Slim) -> None:
    cut = next(cut for cut in slim.plan.cuts if cut.below and cut.path.endswith("numlib/include"))
    assert differences(proved(slim.before, slim.after, slim.plan)) == []
    plan = without_cut(slim.plan, cut.path)
    assert differences(proved(slim.before, slim.after, plan)) == [
        f"'/{path}': it is gone, undeclared" for path in (cut.path, f"{cut.path}/numlib.h")
    ]
    alone = msgspec.structs.replace(plan, cuts=[*plan.cuts, msgspec.structs.replace(cut, below=0)])
    assert differences(proved(slim.before, slim.after, alone))[0] == f"'/{cut.path}/numlib.h': it is gone, undeclared"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (FAST, "undeclared"),
        ("usr/bin/gcc", "it is gone, undeclared"),
        (f"{SITE}/numlib/include", "it is gone, undeclared"),
    ],
)
def test_every_change_has_to_be_in_the_plan(path: str, says: str, slim: Slim) -> None:
    (found,) = differences(proved(slim.before, slim.after, without_cut(each_path(slim), path)))
    assert found.startswith(f"'/{path}': ")
    assert found.endswith(says)


def test_a_directory_s_cut_is_not_one_of_what_is_in_it(slim: Slim) -> None:
    plan = without_cut(each_path(slim), f"{SITE}/numlib/include/numlib.h")
    assert differences(proved(slim.before, slim.after, plan)) == [
        f"'/{SITE}/numlib/include/numlib.h': it is gone, undeclared"
    ]


def test_metadata_cuts_cover_metadata_alone(slim: Slim) -> None:
    cut = next(cut for cut in slim.plan.cuts if cut.path == RECORD)
    plan = msgspec.structs.replace(slim.plan, cuts=[*slim.plan.cuts, msgspec.structs.replace(cut, path=CORE)])
    after = changed(slim.after, CORE, edited(b"x = 1", b"x = 2"))
    found = differences(proved(slim.before, after, plan))
    assert any(each.startswith(f"'/{CORE}': its content differs") for each in found)


def test_a_declared_rewrite_is_of_these_bytes(slim: Slim) -> None:
    """Also where no loader looks: what symbols left behind the last segment."""
    size = len(content(slim.after, FAST))
    after = changed(slim.after, FAST, flipped(size - 20))
    found = differences(proved(slim.before, after, slim.plan))
    assert any(each.startswith(f"'/{FAST}': its content differs") for each in found), found


@pytest.mark.parametrize(("each_path", "name"), [(True, "tests/test_core.py"), (False, "tests")])
def test_a_plan_edited_by_hand_holds(tmp_path: Path, each_path: bool, name: str) -> None:
    def edit(plan: Plan) -> Plan:
        return without_cut(plan, f"{SITE}/numlib/{name}")

    slim = slimmed(tmp_path, fixture(), edit=edit, each_path=each_path)
    assert differences(proved(slim.before, slim.after, slim.plan)) == []
    assert differences(proved(slim.before, slim.after)) == []


def test_a_plan_is_for_one_image(slim: Slim) -> None:
    other = make_image(*slim.before.layers, run={"Cmd": ["other"]})
    with pytest.raises(PlanError, match="the plan is for the image"):
        proved(other, slim.after, slim.plan)
    image = msgspec.structs.replace(slim.plan.image, diff_ids=slim.plan.image.diff_ids[::-1])
    with pytest.raises(PlanError, match="diff-ids"):
        proved(slim.before, slim.after, msgspec.structs.replace(slim.plan, image=image))


@pytest.mark.parametrize("side", ["before", "after"])
def test_layers_that_are_not_their_diff_ids_are_refused(side: str, slim: Slim) -> None:
    """Both images' copies are read: the names and headers of a shared layer alone prove nothing."""
    images = {"before": slim.before, "after": slim.after}
    layers = list(images[side].layers)
    shared = len(layers) - 1
    assert slim.before.diff_ids[shared] == slim.after.diff_ids[shared]
    assert b"\0\0\x80?" in layers[shared]
    layers[shared] = layers[shared].replace(b"\0\0\x80?", b"\0\0\0?", 1)
    images[side] = dataclasses.replace(images[side], layers=tuple(layers))
    with (
        opened(images["before"]) as one,
        opened(images["after"]) as two,
        pytest.raises(DigestError, match="does not hash to its diff-id"),
    ):
        prove(Ledger(one), Ledger(two), slim.plan)


def test_one_blob_in_the_place_of_two_layers_is_refused() -> None:
    """Archives may name one file for several layers: its digest is that of the first, and not of the second."""
    first, second = make_tar(file("a", b"one")), make_tar(file("a", b"two"))
    honest = make_image(first, second)
    with opened(honest) as one, opened(dataclasses.replace(honest, layers=(first, first))) as two:
        blob = two.layers[0].tar
        twice = build_image("twice", two.config_bytes, [(blob, None), (blob, None)], two.resources)
        with pytest.raises(DigestError, match="does not hash to its diff-id"):
            prove(Ledger(one), Ledger(twice))
