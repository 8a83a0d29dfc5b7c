"""What a change did to an image: in the document, on a terminal and in Markdown, where it adds up."""

from __future__ import annotations

import io
import json
from pathlib import Path

import msgspec
import pytest

from deadweight.image.transports import open_image
from deadweight.ledger.account import make_account
from deadweight.ledger.ledger import Ledger
from deadweight.report.compare import compare_report, file_sizes
from deadweight.report.inspect import inspect_report
from deadweight.report.markdown import markdown
from deadweight.report.model import CompareReport, GpuLine, InspectReport, OwnerLine, encode
from deadweight.report.print_compare import print_compare
from deadweight.report.terminal import show
from deadweight.sizes import show_size
from support.images import Member, file, hardlink
from support.markdown import HOSTILE, Page
from support.service import differences, distribution, save, service


def inspected(folder: Path, name: str, *more: str) -> InspectReport:
    members = [member for each in more for member in distribution(each, {f"{each}/data": each.encode() * 5000})]
    path = save(folder, service(more=(*members, file("app/log", b"x" * 1000 * len(more)))), name)
    with open_image(str(path)) as image:
        return inspect_report(Ledger(image))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[InspectReport, InspectReport]:
    folder = tmp_path_factory.mktemp("two")
    return inspected(folder, "old.tar", "leaving"), inspected(folder, "new.tar", "coming", "another")


def with_owners(report: InspectReport, *owners: tuple[str, str, str, int]) -> InspectReport:
    """The report with these owners (kind, name, version, bytes) instead of its own."""
    lines = [OwnerLine(name, kind, version, size, 1, "") for kind, name, version, size in owners]
    return msgspec.structs.replace(report, owners=lines, bytes=sum(line.bytes for line in lines))


def text_of(report: CompareReport, top: int = 15, columns: int = 80) -> str:
    out = io.StringIO()
    show(out, {"COLUMNS": str(columns)}, lambda console: print_compare(console, report, top))
    return out.getvalue()


def test_what_came_and_went_adds_up(images: tuple[InspectReport, InspectReport]) -> None:
    before, after = images
    report = compare_report(images)
    (change,) = json.loads(encode(report))["changes"]
    difference = after.bytes - before.bytes
    assert difference != 0
    assert (change["before_bytes"], change["after_bytes"]) == (before.bytes, after.bytes)
    for name in ("owners", "categories"):
        assert sum(line["after_bytes"] - line["before_bytes"] for line in change[name]) == difference
    assert sum(line["before_bytes"] for line in change["categories"]) == before.bytes
    assert sum(line["before_bytes"] for line in change["owners"]) + change["unchanged_bytes"] == before.bytes
    owners = {line["name"]: line for line in change["owners"]}
    assert owners["leaving"]["change"] == "removed"
    assert (owners["coming"]["change"], owners["coming"]["after_version"]) == ("added", "1.0")
    assert owners["application"]["change"] == "grown"
    assert "numlib" not in owners
    assert change["unchanged"] > 2
    first, middle, last = before.layers
    assert (change["shared_layers"], change["shared_bytes"]) == (2, first.bytes + last.bytes)
    assert [layer["layer"] for layer in change["layers_new"]] == [1]
    assert [layer["bytes"] for layer in change["layers_gone"]] == [middle.bytes]


@pytest.mark.parametrize("top", [1, 3, 100])
def test_terminal_and_markdown_have_the_numbers_of_the_document(
    images: tuple[InspectReport, InspectReport], top: int
) -> None:
    report = compare_report(images, 1_000_000)
    difference = images[1].bytes - images[0].bytes
    text, page = text_of(report, top), Page(markdown(report).decode())
    for title, heading in (("What changed", "What changed"), ("Categories", "Categories")):
        for numbers in (differences(text)[title], page.numbers(heading)):
            assert sum(numbers[:-1]) == numbers[-1] == difference
    assert f"{difference:+,}" in text
    assert f"{images[0].bytes:,}" in text
    assert f"{images[0].bytes:,}" in page.text
    assert "2 layers of" in text
    assert "2 layers of" in page.text
    assert "1 removed (" in text


def sized(folder: Path, name: str, *more: Member) -> tuple[InspectReport, dict[str, int]]:
    with open_image(str(save(folder, service(more=more), name))) as image:
        ledger = Ledger(image)
        account = make_account(ledger)
        return inspect_report(ledger, account), file_sizes(account)


@pytest.mark.parametrize("top", [1, 3, 100])
def test_the_largest_files_are_named_and_add_up_with_all_else(tmp_path: Path, top: int) -> None:
    odd = f"app/{HOSTILE}".replace("/", "\\").replace("app\\", "app/")
    old = (
        file("app/log", b"x" * 900_000),
        file("app/up", b"u"),
        file("opt/gone", bytes(40_000)),
        file("opt/same", b"s"),
    )
    new = (
        *(file("app/weights.bin", bytes(5_000_000)), file("app/log", b"x" * 1000), file("app/up", b"u" * 20_001)),
        *(file("opt/same", b"t"), file(odd, b"o" * 3000), hardlink("opt/another", "app/weights.bin")),
        *(file(f"opt/{number:04}", b"n") for number in range(1100)),
        file("etc/motd", bytes(50_000)),  # which the last layer has anew
    )
    (before, old_sizes), (after, new_sizes) = sized(tmp_path, "old.tar", *old), sized(tmp_path, "new.tar", *new)
    report = compare_report([before, after], None, [old_sizes, new_sizes])
    (change,) = report.changes
    assert change.files is not None
    largest = [(one.path, one.change, one.before_bytes, one.after_bytes) for one in change.files.largest]
    assert largest[:4] == [
        ("/app/weights.bin", "added", 0, 5_000_000),
        ("/app/log", "shrunk", 900_000, 1000),
        ("/opt/gone", "removed", 40_000, 0),
        ("/app/up", "grown", 1, 20_001),
    ]
    assert (change.files.count, len(largest)) == (5 + 1100, 1000)
    assert (change.files.before_bytes, change.files.after_bytes) == (940_001, 5_025_101)
    difference = after.bytes - before.bytes
    text = text_of(report, top)
    numbers = differences(text)["Files"]
    assert sum(numbers[:-1]) == numbers[-1] == difference
    assert numbers[0] == 5_000_000
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "+5,000,000 - 5.00 MB /app/weights.bin" in rows
    assert f"others ({1105 - top:,})" in text
    assert ("-899,000 900 kB 1.00 kB /app/log" in rows) == (top > 1)
    written = markdown(report).decode()
    assert "#### Files\n\n- +5,000,000 `/app/weights.bin`, added\n- -899,000 `/app/log`, shrunk\n" in written
    assert f"- {5_025_101 - 940_001 - 5_000_000 + 899_000 + 40_000 - 20_000:+,} in 1,101 more" in written


def test_files_that_outweigh_each_other_are_named_and_a_report_has_none(tmp_path: Path) -> None:
    one = sized(tmp_path, "one.tar", file("app/a", bytes(9000)), file("app/b", bytes(4000)))
    two = sized(tmp_path, "two.tar", file("app/a", bytes(4000)), file("app/b", bytes(9000)))
    report = compare_report([one[0], two[0]], None, [one[1], two[1]])
    assert report.changes[0].owners == []
    assert "-5,000  9.00 kB  4.00 kB  /app/a\n" in text_of(report)
    assert "`/app/b`, grown" in markdown(report).decode()
    three = compare_report([one[0], two[0], one[0]], None, [one[1], two[1], None])
    assert [change.files is None for change in three.changes] == [False, True]
    assert "Files from 1 to 2" in text_of(three)
    assert "Files from 2 to 3" not in text_of(three)


def test_versions_say_how_an_owner_changed(images: tuple[InspectReport, InspectReport]) -> None:
    old = ("python", "up", "1.9", 10), ("python", "down", "2.0", 10), ("python", "build", "2.9+cu128", 10)
    new = ("python", "up", "1.10", 10), ("python", "down", "1.0", 10), ("python", "build", "2.9+cpu", 4)
    debian = ("debian", "deb", "1:1.0-1", 5), ("debian", "deb", "1:1.0-1+b1", 5)
    odd = ("python", "odd", "one", 5), ("python", "odd", "two", 6)
    same = ("python", "same", "1", 7), ("python", "same", "1", 7)
    size = ("system", "bigger", "", 7), ("system", "bigger", "", 9)
    two = ("python", "twice", "1.0", 1), ("python", "twice", "2.0", 3)
    pairs = [debian, odd, same, size]
    before = with_owners(images[0], *old, *(pair[0] for pair in pairs), *two)
    after = with_owners(images[0], *new, *(pair[1] for pair in pairs), two[0])
    (change,) = compare_report([before, after]).changes
    found = {one.name: one.change for one in change.owners}
    assert found == {
        "up": "upgraded",
        "down": "downgraded",
        "build": "changed",
        "deb": "upgraded",
        "odd": "changed",
        "bigger": "grown",
        "twice": "changed",
    }
    assert next(one.before_version for one in change.owners if one.name == "twice") == "1.0, 2.0"
    assert (change.unchanged, change.unchanged_bytes) == (1, 7)
    assert "up 1.9 -> 1.10  (python, upgraded)" in text_of(compare_report([before, after]))


def test_the_same_image_twice_has_no_changes(images: tuple[InspectReport, InspectReport]) -> None:
    report = compare_report([images[0], images[0]])
    (change,) = report.changes
    assert (change.owners, change.layers_new, change.layers_gone) == ([], [], [])
    assert change.shared_bytes == images[0].bytes
    assert "nothing: every owner has the same bytes" in text_of(report)
    assert "Nothing changed" in markdown(report).decode()


def test_the_phase_table_is_against_the_one_before_the_first_and_the_target(
    images: tuple[InspectReport, InspectReport],
) -> None:
    report = compare_report([images[0], images[1], images[0]], images[1].bytes)
    one, two, three = report.images
    assert (one.difference, one.cumulative, one.share) == (0, 0, 1.0)
    assert two.difference == two.cumulative == two.bytes - one.bytes
    assert (three.difference, three.cumulative, three.share) == (-two.difference, 0, 1.0)
    assert [line.gap for line in report.images] == [one.bytes - two.bytes, 0, one.bytes - two.bytes]
    assert [(change.before, change.after) for change in report.changes] == [(0, 1), (1, 2)]
    text = text_of(report)
    assert f"{two.difference:+,}" in text
    assert text.count("reached") == 1 + (one.bytes < two.bytes) * 2
    assert "What changed from 2 to 3" in text
    assert compare_report([images[0]]).changes == []
    assert Page(markdown(compare_report([images[0]])).decode()).numbers(
        f"{show_size(one.bytes)} → {show_size(one.bytes)}: +0 bytes"
    )


def test_of_many_images_the_first_stays_and_it_is_said_how_many_are_left_out(
    images: tuple[InspectReport, InspectReport],
) -> None:
    for count, more in ((12, ""), (15, "3 more")):
        text = markdown(compare_report([images[0], *[images[1]] * (count - 1)])).decode()
        rows = next(iter(Page(text).tables.values()))[1:]
        assert (len(rows), rows[0][3]) == (12 + bool(more), "100.0%")
        assert (rows[1][-1] == more) == bool(more)


def test_names_and_kinds_of_a_hostile_report_are_harmless_in_markdown(
    images: tuple[InspectReport, InspectReport],
) -> None:
    names = [(HOSTILE, f"{number}{HOSTILE}", HOSTILE, 1000 * number) for number in range(30)]
    codes = [GpuLine(f"sm_{number}", number, 0, 1, []) for number in range(30)]
    files = [{f"{number}{HOSTILE}": number for number in range(30)}, {}]
    before = msgspec.structs.replace(with_owners(images[0], *names), gpu_code=codes, notes=[HOSTILE] * 9)
    for some in ([before, images[1]], [before, images[1]] * 10):
        text = markdown(compare_report(some, 10, files * (len(some) // 2))).decode()
        page = Page(text)
        assert not page.tags & {"a", "img", "script", "em"}
        assert not set(page.outside) & set("@#$<>[]`~*_&\\|")
        assert len(text.splitlines()) < 60
