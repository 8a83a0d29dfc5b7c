"""Whatever of a plan is applied, its result passes; whatever single thing is changed in that afterwards is caught."""

from __future__ import annotations

import functools
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deadweight import Plan
from support.careless import service_image
from support.images import FixtureImage, Member, directory, file, hardlink, make_image, make_tar, symlink, xattr
from support.layers import merged_view
from support.proofs import Slim, added, changed, differences, flipped, proved, replaced, slimmed


def fixture() -> FixtureImage:
    image = service_image()
    more = [
        directory("srv", mode=0o2775, uid=10),
        file("srv/weights.bin", b"\0\0\x80?" * 500, uid=10, pax=xattr("user.tag", b"one")),
        hardlink("srv/again.bin", "srv/weights.bin", uid=10, pax=xattr("user.tag", b"one")),
        symlink("srv/current", "weights.bin"),
    ]
    return make_image(*image.layers, make_tar(*more), run=image.config["config"])


@functools.cache
def slim_without(left_out: frozenset[int]) -> Slim:
    """The image slimmed by its plan without some of the cuts, counted around; it passes as it is."""

    def edit(plan: Plan) -> Plan:
        gone = {number % len(plan.cuts) for number in left_out}
        return msgspec.structs.replace(plan, cuts=[cut for i, cut in enumerate(plan.cuts) if i not in gone])

    with tempfile.TemporaryDirectory() as folder:
        slim = slimmed(Path(folder), fixture(), edit=edit)
    assert differences(proved(slim.before, slim.after, slim.plan)) == []
    assert differences(proved(slim.before, slim.after)) == []
    return slim


def grown(member: Member) -> Member | None:
    return replaced(data=member.data + b"\0")(member)


MUTATIONS: dict[str, Callable[[Member], Member | None]] = {
    "gone": lambda _: None,
    "grown": lambda m: replaced(data=m.data + b"\0")(m),
    "mode": lambda m: replaced(mode=m.mode ^ 0o4)(m),
    "uid": lambda m: replaced(uid=m.uid + 1)(m),
    "gid": lambda m: replaced(gid=m.gid + 1)(m),
    "mtime": lambda m: replaced(mtime=m.mtime + 1)(m),
    "attribute": lambda m: replaced(pax={**m.pax, **xattr("user.more", b"x")})(m),
    "link": lambda m: replaced(linkname=m.linkname + "x")(m),
}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_results_pass_and_single_changes_are_caught(data: st.DataObject) -> None:
    left_out = data.draw(st.sampled_from([(), (0, 7), (3, 11, 19), (5, 6, 8, 9)]), label="cuts left out")
    slim = slim_without(frozenset(left_out))
    view = merged_view(list(slim.after.layers))
    path = data.draw(st.sampled_from(sorted(view)), label="path")
    what = data.draw(st.sampled_from([*MUTATIONS, "flip", "flip", "flip", "flip"]), label="damage")

    def damage(member: Member) -> Member | None:
        assume(what not in ("grown", "flip") or (member.type == tarfile.REGTYPE and member.data))
        assume(what != "link" or member.linkname)
        if what == "flip":
            return flipped(data.draw(st.integers(0, len(member.data) - 1), label="at"))(member)
        return MUTATIONS[what](member)

    after = changed(slim.after, path, damage)
    assume(merged_view_or_none(after) not in (None, view))
    assert differences(proved(slim.before, after, slim.plan))


def merged_view_or_none(image: FixtureImage) -> object:
    """The view; None where a hard link names what is not there any more, which no image may."""
    try:
        return merged_view(list(image.layers))
    except KeyError:
        return None


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(["new", "usr/new", "etc/secret", "srv/more/below", "var/lib/dpkg/status.d/x"]), st.booleans())
def test_additions_are_caught(path: str, with_plan: bool) -> None:
    slim = slim_without(frozenset())
    after = added(slim.after, file(path, b"x"))
    found = differences(proved(slim.before, after, slim.plan if with_plan else None))
    assert f"'/{path}': it is new, undeclared" in found
