"""The static proof without a plan, and with passes of others: what may differ in a program or library, and what not."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from deadweight import Ledger, Options
from deadweight.binary.gpu import Target
from deadweight.verify.proof import prove
from deadweight.verify.proof.contents import File
from deadweight.verify.proof.rewrites import undeclared_rewrite
from support.careless import library, package, status
from support.elf import gcc, read_from
from support.images import FixtureImage, directory, file, hardlink, make_image, make_tar
from support.layers import image_of
from support.proofs import changed, differences, edited, notes, opened, proved, slimmed
from support.toys import Toy, marked, passes


@functools.cache
def strip(data: bytes, *options: str) -> bytes:
    """What GNU strip makes of a file."""
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(data)
        subprocess.run(["strip", *options, str(path)], check=True)
        return path.read_bytes()


def rewrite(old: bytes, new: bytes, *names: str, neighbours: tuple[str, ...] = ()) -> str:
    """What was done to a file, as far as loaders cannot tell."""
    members = [file(name, old) for name in (*names, *neighbours)]
    with image_of([make_tar(*members)]) as image:
        one, two = (File(read_from(each), len(each)) for each in (old, new))
        return undeclared_rewrite(Ledger(image), one, two, Target((90,)), names)


def test_what_gnu_strip_takes_away_is_no_difference() -> None:
    assert rewrite(library(), strip(library(), "--strip-debug"), "usr/lib/x.so") == "symbols"


@pytest.mark.parametrize(
    ("names", "neighbours", "reason"),
    [
        (("usr/lib/x.so",), ("usr/lib/x.so.hmac",), "a file with its checksum beside it changed"),
        (("usr/lib/x.so", "usr/lib/ossl-modules/fips.so"), (), "checks its own file changed"),
        (("usr/lib/debug/x.so",), (), "debug information kept apart"),
        (("opt/x.cubin",), (), "an object file"),
    ],
)
def test_files_that_something_depends_on_may_not_change(
    names: tuple[str, ...], neighbours: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        rewrite(library(), strip(library(), "--strip-debug"), *names, neighbours=neighbours)


def test_a_payload_behind_a_program_may_not_change() -> None:
    """As PyInstaller and AppImage have it: no loader maps it."""
    old, new = library() + b"payload" * 100, library() + b"PAYLOAD" * 100
    for one, two in ((old, new), (old, library()), (library(), new), (old, strip(library(), "--strip-debug"))):
        with pytest.raises(ValueError, match="bytes behind its last section"):
            rewrite(one, two, "usr/bin/x")


def test_objects_are_no_programs(tmp_path: Path) -> None:
    """Nothing in them is mapped, so that nothing would be compared."""
    old = gcc(tmp_path, "x.o", "int f(void) { return 1234567; }", "-c").read_bytes()
    new = old.replace((1234567).to_bytes(4, "little"), (1234568).to_bytes(4, "little"))
    assert old != new
    with pytest.raises(ValueError, match="places of sections differ"):
        rewrite(old, new, "usr/lib/x")


def test_sections_of_unknown_use_may_not_change(tmp_path: Path) -> None:
    source = '__asm__(".section .secret,\\"\\"\\n.ascii \\"one\\"\\n.previous"); int f(void) { return 1; }'
    old = gcc(tmp_path, "x.so", source.replace("one", "secret one"), "-shared", "-fPIC").read_bytes()
    with pytest.raises(ValueError, match="a section of unknown use"):
        rewrite(old, old.replace(b"secret one", b"secret two"), "usr/lib/x.so")


def test_an_image_for_an_unknown_machine() -> None:
    stripped = strip(library(), "--strip-debug")
    one, two = (make_image(make_tar(file("x.so", data)), architecture="sparc") for data in (library(), stripped))
    (found,) = differences(proved(one, two))
    assert "the image's architecture is not one that is known here" in found


# --- passes of others ----------------------------------------------------------------------------------


@contextmanager
def installed(*toys: Toy) -> Iterator[None]:
    """Has toys for passes."""
    with passes(*toys), pytest.MonkeyPatch.context() as patch:
        patch.setattr("deadweight.verify.proof.declarations.all_passes", lambda: [toy.one for toy in toys])
        yield


def test_what_other_passes_make_of_a_file_is_made_again(tmp_path: Path) -> None:
    data = marked("one", 9000) + b"between" + marked("two", 9000)
    image = make_image(make_tar(directory("usr"), file("usr/a.lib", data), hardlink("usr/b.lib", "usr/a.lib")))
    with installed(Toy("first", 10, "one", b"1"), Toy("second", 20, "two", b"2")):
        slim = slimmed(tmp_path, image)
        assert differences(proved(slim.before, slim.after, slim.plan)) == []
        after = changed(slim.after, "usr/a.lib", edited(b"between", b"BETWEEN"))
        found = differences(proved(slim.before, after, slim.plan))
        assert found == [
            f"'/usr/{name}.lib': its content differs, from byte 0 on: second makes something else of it, from byte 1 on"
            for name in "ab"
        ]
        found = differences(proved(slim.before, slim.after))
        assert found == [f"'/usr/{name}.lib': its content differs, from byte 0 on: undeclared" for name in "ab"]
    with installed(Toy("first", 10, "one", b"1")), pytest.raises(Exception, match="'second', not installed here"):
        proved(slim.before, slim.after, slim.plan)


def test_files_made_one_are_rewritten_as_one(tmp_path: Path) -> None:
    """A plan makes one file a link to an equal one, whose symbols leave: both change, and one cut says so."""
    more = [directory("usr"), file("usr/a.so", library()), file("usr/b.so", library())]
    slim = slimmed(tmp_path, make_image(make_tar(*more)), Options())
    assert sorted((cut.pass_, cut.path) for cut in slim.plan.cuts if cut.path) == [
        ("duplicates", "usr/b.so"),
        ("symbols", "usr/a.so"),
    ]
    proof = proved(slim.before, slim.after, slim.plan)
    assert differences(proof) == []
    assert "2 files are rewritten, and loaders cannot tell (symbols)" in notes(proof)


def test_files_made_one_have_to_be_equal(tmp_path: Path) -> None:
    """Whatever a plan says: nobody checks that of one that was only handed over."""
    more = [directory("usr"), file("usr/a.so", library()), file("usr/b.so", library())]
    honest = slimmed(tmp_path, make_image(make_tar(*more)), Options())
    damaged = bytearray(library())
    damaged[5000] ^= 1
    other = make_image(make_tar(*more[:2], file("usr/b.so", bytes(damaged))))
    with opened(other) as one, opened(honest.after) as two:
        digest, diff_ids = one.config_digest, other.diff_ids
        image = msgspec.structs.replace(honest.plan.image, digest=digest, diff_ids=diff_ids)
        proof = prove(Ledger(one), Ledger(two), msgspec.structs.replace(honest.plan, image=image))
    (found,) = [each for each in differences(proof) if each.startswith("'/usr/")]
    assert found.startswith("'/usr/b.so': its content differs")
    assert found.endswith("it was not equal to '/usr/a.so', to which it is linked")


def test_sparse_files_are_compared_as_they_are_stored() -> None:
    import io
    import tarfile

    info = tarfile.TarInfo("sparse")
    records = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.name": "sparse",
        "GNU.sparse.size": "100000",
        "GNU.sparse.map": "0,5,50000,5",
    }
    info.size = 10

    def layer(data: bytes, **pax: str) -> bytes:
        info.pax_headers = records | {key.replace("_", "."): value for key, value in pax.items()}
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(info, io.BytesIO(data))
        return out.getvalue()

    base = make_image(layer(b"helloworld"))
    longer = base.layers[0] + bytes(1024)  # so that it is another layer
    assert differences(proved(base, make_image(longer))) == []
    for other in (layer(b"helloWorld"), layer(b"helloworld", GNU_sparse_map="0,5,40000,5")):
        found = differences(proved(base, make_image(other)))
        assert [each for each in found if each.startswith("'/sparse': its content differs")]


def test_hostile_names_are_quoted() -> None:
    one = make_image(make_tar(file("a")))
    two = make_image(make_tar(file("a"), file("\x1b[31mred\n")))
    assert differences(proved(one, two)) == ["'/\\x1b[31mred\\n': it is new, undeclared"]


def test_many_differences_are_counted() -> None:
    one = make_image(make_tar(*(file(f"f{i}", b"one") for i in range(300))))
    two = make_image(make_tar(*(file(f"f{i}", b"two") for i in range(300))))
    found = differences(proved(one, two))
    assert len(found) == 101
    assert found[-1] == "and 200 more differences"


# --- what may be gone without a plan ---------------------------------------------------------------------


def with_zones(*there: str, known: bool) -> FixtureImage:
    """An image with a package of two zones, or what is left of it; `known` to dpkg or not any more."""
    files = {name: name.encode() for name in ("usr/share/zone/Paris", "usr/share/zone/Berlin")}
    stanzas = [*([("zones", "")] if known else []), ("base", "")]
    listed = [m for m in package("zones", files) if m.name not in files and known]
    return make_image(
        make_tar(
            directory("usr"),
            *package("base", {"usr/bin/sh": b"sh"}),
            *listed,
            *(file(name, data) for name, data in files.items() if name in there),
            file("var/lib/dpkg/status", status(*stanzas)),
        )
    )


ZONES = ("usr/share/zone/Paris", "usr/share/zone/Berlin")


def test_a_package_that_is_gone_whole_was_taken_out_on_purpose() -> None:
    assert differences(proved(with_zones(*ZONES, known=True), with_zones(known=False))) == []


def test_a_package_of_which_something_is_left_is_not_gone_whole() -> None:
    found = differences(proved(with_zones(*ZONES, known=True), with_zones(ZONES[1], known=False)))
    assert "'/usr/share/zone/Paris': it is gone, undeclared, and no pass takes it out" in found
