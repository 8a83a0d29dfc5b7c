"""The static proof of metadata: RECORD files and dpkg's database say of a slim image what is true."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from deadweight import Plan
from deadweight.plan import Cut
from deadweight.verify.proof import Proof
from support.careless import SITE, distribution, folders_of, library, urlsafe
from support.careless import status as dpkg_status
from support.images import FixtureImage, Member, directory, file, make_image, make_tar, symlink
from support.proofs import Slim, changed, content, differences, edited, notes, proved, replaced, slimmed

LIST = "var/lib/dpkg/info/tools.list"
SUMS = "var/lib/dpkg/info/tools.md5sums"
STATES = "var/lib/apt/extended_states"
STATUS = "var/lib/dpkg/status"
TOOL = "usr/bin/tool.so"
STALE = f"{SITE}/stale-1.0.dist-info/RECORD"


def fixture() -> FixtureImage:
    """Packages of which a part leaves, a cache and symbols; one of them leaves whole; merged /usr; wrong sums."""
    files = {
        "usr/share/tools/old": b"package" * 500,
        TOOL: library(),
        "usr/lib/changed.so": library() + b"",
        "usr/share/tools/data": b"data",
    }
    listed = ["/.", *(f"/{each}" for each in folders_of(files)), *(f"/{each}" for each in files)]
    listed = [each.replace("/usr/bin/tool.so", "/bin/tool.so") for each in listed]
    sums = {each: hashlib.md5(data).hexdigest() for each, data in files.items()}
    sums["usr/lib/changed.so"] = "0" * 32  # changed after it was installed
    lines = "".join(f"{digest}  {each}\n" for each, digest in sums.items()).replace("usr/bin/", "bin/")
    gcc = {"usr/bin/gcc": b"compiler" * 9000}
    record = "stale/fast.so,sha256=wrong,5\nstale/gone.py,,\nstale/other.py,md5=abc,3\n"
    states = "Package: gcc\nArchitecture: amd64\nAuto-Installed: 1\n\n"
    states += "Package: tools\nArchitecture: amd64\nAuto-Installed: 0\n"
    members = [
        *(directory(each) for each in ["usr", "usr/bin", "usr/lib", "var", "etc"]),
        symlink("bin", "usr/bin"),
        *(file(each, data, mode=0o755) for each, data in (files | gcc).items()),
        file(LIST, ("\n".join(listed) + "\n").encode()),
        file(SUMS, lines.encode()),
        file("var/lib/dpkg/info/gcc.list", b"/.\n/usr\n/usr/bin\n/usr/bin/gcc\n"),
        file("var/lib/dpkg/info/gcc.md5sums", b""),
        file(STATUS, dpkg_status(("tools", ""), ("gcc", "tools"))),
        file(STATES, states.encode()),
        *distribution("stale", "1.0", {"stale/fast.so": library(), "stale/other.py": b"abc"}),
        file("usr/local/bin/python3.11", mode=0o755),
        file("usr/local/lib/python3.11/os.py"),
    ]
    members = [replaced(data=record.encode())(m) if m.name == STALE else m for m in members]  # type: ignore[misc]
    return make_image(make_tar(*members), run={"Env": ["PATH=/usr/bin"]})


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Slim:
    def by_hand(plan: Plan) -> Plan:
        """Has a part of a package leave."""
        cut = Cut("caches", "usr/share/tools/old", 0, "remove", 1024, 0, "policy", "nobody reads it")
        return msgspec.structs.replace(plan, cuts=[*plan.cuts, cut])

    return slimmed(tmp_path_factory.mktemp("metadata"), fixture(), edit=by_hand)


BY_HAND = "'/usr/share/tools/old': it is gone, undeclared, and no pass takes it out"


def lies(proof: Proof) -> list[str]:
    """What is other than it should be, less the part of a package that only this plan takes out."""
    return [each for each in differences(proof) if each != BY_HAND]


@pytest.fixture(params=["with its plan", "without a plan"])
def plan(request: pytest.FixtureRequest, slim: Slim) -> Plan | None:
    return slim.plan if request.param == "with its plan" else None


def test_the_honest_slim_image_passes(slim: Slim, plan: Plan | None) -> None:
    assert {"usr/bin/gcc", "usr/share/tools/old"} <= proved(slim.before, slim.after).removed
    rewritten = [LIST, SUMS, STATES, STATUS, TOOL, "usr/lib/changed.so", f"{SITE}/stale/fast.so"]
    assert all(content(slim.before, path) != content(slim.after, path) for path in rewritten)
    assert content(slim.before, STALE) == content(slim.after, STALE)  # what was not true does not become true
    assert content(slim.after, SUMS).count(b"0" * 32) == 1
    proof = proved(slim.before, slim.after, plan)
    assert lies(proof) == []
    assert "4 metadata files follow from that, and are true" in notes(proof)


def as_it_was(slim: Slim, path: str) -> Callable[[Member], Member]:
    """What the original says, again."""
    return replaced(data=content(slim.before, path))  # type: ignore[return-value]


@pytest.mark.parametrize("path", [LIST, SUMS, STATES, STATUS])
def test_metadata_that_did_not_follow_are_caught(path: str, slim: Slim) -> None:
    """Of a plan's image; where nothing is declared, who slimmed it may not have minded dpkg."""
    after = changed(slim.after, path, as_it_was(slim, path))
    (found,) = lies(proved(slim.before, after, slim.plan))
    assert found.startswith(f"'/{path}': it ")
    assert lies(proved(slim.before, after)) == []


def sum_of(data: bytes) -> bytes:
    return hashlib.md5(data).hexdigest().encode()


def test_single_lies_are_caught(slim: Slim, plan: Plan | None) -> None:
    tool = content(slim.after, TOOL)
    cases: list[tuple[str, Callable[[Member], Member | None], str]] = [
        (LIST, edited(b"/usr/share/tools/data\n", b""), "'/usr/share/tools/data' is missing"),
        (LIST, edited(b"/bin/tool.so\n", b""), "'/bin/tool.so' is missing"),
        (LIST, edited(b"/usr/share\n", b"/usr/share\n/etc/passwd\n"), "is missing, or another one"),
        (LIST, edited(b"/usr/share\n", b"/usr/share/tools/old\n/usr/share\n"), "is missing, or another one"),
        (LIST, lambda m: replaced(data=m.data + b"/more\n")(m), "it has a line that it did not have"),
        (SUMS, edited(sum_of(tool), sum_of(library())), "it has the old sum of '/bin/tool.so'"),
        (SUMS, edited(sum_of(tool), b"1" * 32), "'/bin/tool.so' is missing, or another one"),
        (SUMS, edited(sum_of(b"data"), b"1" * 32), "'/usr/share/tools/data' is missing, or another one"),
        (SUMS, edited(sum_of(b"data") + b"  usr/share/tools/data\n", b""), "'/usr/share/tools/data' is missing"),
        (SUMS, lambda m: replaced(data=m.data + b"1" * 32 + b"  x\n")(m), "it has a line that it did not have"),
        (SUMS, replaced(data=b""), "is missing"),
        (STATES, edited(b"Auto-Installed: 0", b"Auto-Installed: 1"), "stanza of 'tools'"),
        (STATES, replaced(data=b""), "stanza of 'tools' is missing"),
        (STATUS, edited(b"install ok", b"deinstall ok"), "stanza of 'tools'"),
    ]
    for path, change, says in cases:
        found = lies(proved(slim.before, changed(slim.after, path, change), plan))
        assert len(found) == 1, (path, says, found)
        assert found[0].startswith(f"'/{path}': ")
        assert says in found[0]


def test_lines_that_were_wrong_may_stay_or_become_true(slim: Slim, plan: Plan | None) -> None:
    fast = content(slim.after, f"{SITE}/stale/fast.so")
    true = f"{urlsafe(fast)},{len(fast)}".encode()
    after = changed(slim.after, STALE, edited(b"sha256=wrong,5", true))
    found = lies(proved(slim.before, after, plan))
    assert found == []
    after = changed(slim.after, STALE, edited(b"sha256=wrong,5", b"sha256=other,5"))
    (lie,) = lies(proved(slim.before, after, plan))
    assert lie == f"'/{STALE}': what it says of 'stale/fast.so' is not true"


def test_a_package_is_not_forgotten_while_its_files_are_there(slim: Slim) -> None:
    """Its list is gone, so that nothing else tells."""
    after = changed(slim.before, "var/lib/dpkg/info/gcc.list", lambda _: None)
    after = changed(after, STATUS, replaced(data=content(slim.after, STATUS)))
    assert lies(proved(slim.before, after)) == [
        f"'/{STATUS}': it lacks the package 'gcc', whose files are all still there"
    ]


def test_damage_to_a_file_is_no_lie_of_what_tells_of_it(slim: Slim, plan: Plan | None) -> None:
    after = changed(slim.after, "usr/share/tools/data", replaced(data=b"dAta"))
    (found,) = lies(proved(slim.before, after, plan))
    assert found.startswith("'/usr/share/tools/data': its content differs, from byte 1 on")


def test_a_list_of_no_package_is_none(tmp_path: Path) -> None:
    one = make_image(make_tar(file("var/lib/dpkg/info/no.list", b"/.\n")))
    two = make_image(make_tar(file("var/lib/dpkg/info/no.list", b"/\n")))
    assert lies(proved(one, two)) == ["'/var/lib/dpkg/info/no.list': no package has this list"]


def test_stanzas_at_the_end_are_seen() -> None:
    status = dpkg_status(("base", "")) + b"\n"
    one, two = (make_image(make_tar(file(STATUS, data))) for data in (status, status + b"Package: more\n"))
    assert lies(proved(one, two)) == [f"'/{STATUS}': it has a stanza that it did not have"]
