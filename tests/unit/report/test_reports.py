"""Reports: every table adds up, in the document and on the terminal, whatever the image's names are."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.cells import cell_len

from deadweight.apply import apply_plan
from deadweight.image.reference import parse_reference
from deadweight.image.transports import open_image
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import all_passes
from deadweight.plan import make_plan
from deadweight.report.compare import compare_report, phase
from deadweight.report.inspect import inspect_report
from deadweight.report.model import CompareReport, InspectReport, SlimReport, encode
from deadweight.report.slim import slim_report
from deadweight.report.terminal import command, print_compare, print_inspect, print_slim, show
from support.images import file
from support.service import HOSTILE, save, service, tables


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    more = (
        file(f"opt/{HOSTILE}/{HOSTILE}", b"h" * 40_000),
        file("opt/caf\udce9", b"u" * 40_000),
        file(f"var/lib/apt/lists/{HOSTILE}", b"a" * 600_000),
    )
    made = service(f"x{HOSTILE}y", more, (f"RUN {HOSTILE}", f"/bin/sh -c #(nop) {HOSTILE * 20}", ""))
    return save(tmp_path_factory.mktemp("hostile"), made)


def inspected(path: Path) -> InspectReport:
    with open_image(str(path)) as source:
        return inspect_report(Ledger(source))


def slimmed(path: Path, to: Path) -> SlimReport:
    with open_image(str(path)) as source:
        ledger = Ledger(source)
        plan = make_plan(ledger, all_layers=True)
        return slim_report(plan, source, apply_plan(plan, ledger, parse_reference(f"docker-archive:{to}")))


class Terminal(io.StringIO):
    """What a terminal would get."""

    def isatty(self) -> bool:
        return True


def text_of(
    report: InspectReport | SlimReport | CompareReport, columns: int = 80, top: int = 15, out: io.StringIO | None = None
) -> str:
    out = io.StringIO() if out is None else out
    environment = {"COLUMNS": str(columns)}
    if isinstance(report, InspectReport):
        show(out, environment, lambda console: print_inspect(console, report, top))
    elif isinstance(report, SlimReport):
        show(out, environment, lambda console: print_slim(console, report, top))
    else:
        show(out, environment, lambda console: print_compare(console, report))
    return out.getvalue()


def check_inspect(document: dict[str, object]) -> None:
    def total(name: str) -> int:
        lines = document[name]
        assert isinstance(lines, list)
        return sum(line["bytes"] for line in lines)

    assert total("layers") == total("owners") == total("categories") == document["bytes"]
    layers = document["layers"]
    assert isinstance(layers, list)
    for layer in layers:
        assert sum(part["bytes"] for part in layer["owners"]) == layer["bytes"]
    assert total("hidden") == document["hidden_bytes"]


def check_text(text: str, columns: int) -> None:
    for line in text.splitlines():
        assert line.isprintable(), line
        assert cell_len(line) <= columns, line


def test_inspect_adds_up_in_its_document_and_names_what_it_must(image: Path) -> None:
    report = inspected(image)
    document = json.loads(encode(report))
    check_inspect(document)
    assert document["schema"] == "deadweight.inspect/1"
    assert document["image"]["digest"].startswith("sha256:")
    assert document["image"]["platform"] == "linux/amd64"
    assert document["image"]["tag"] == "service:1"
    assert document["gpu_code"] == []
    assert document["layers"][0]["created_by"] == "ADD rootfs.tar /"
    assert sum(layer["hidden_bytes"] for layer in document["layers"]) == document["hidden_bytes"] > 30_000
    assert document["unchecked"] == [layer["diff_id"] for layer in document["layers"]]
    owners = {owner["name"]: owner for owner in document["owners"]}
    assert owners["numlib"]["why"] == "webapp -> numlib"
    assert owners["numlib"]["bytes"] > 18_000 + 9000  # core.py is carried by uv's cache
    assert owners["gcc-12"]["why"] == "gcc -> gcc-12"
    assert owners["files of no package"]["bytes"] == sum(place["bytes"] for place in document["unlisted"])
    assert owners["application"]["kind"] == "application"
    categories = {category["name"]: category["bytes"] for category in document["categories"]}
    assert categories["tests"] == 9000
    assert categories["caches"] == 500_000
    assert categories["build tools"] == 60_004 + len(b"/usr/lib/gcc/cc1\n")  # and dpkg's list of it
    assert categories["hidden"] == document["hidden_bytes"]


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("top", [1, 3, 15, 1000])
def test_every_table_of_inspect_adds_up_on_the_terminal(image: Path, columns: int, top: int) -> None:
    report = inspected(image)
    text = text_of(report, columns, top)
    found = tables(text)
    assert len(found) == 5
    for title in ("Layers", "Owners", "Categories"):
        assert found[title][-1] == report.bytes
    for title, numbers in found.items():
        assert sum(numbers[:-1]) == numbers[-1] > 0, title
    check_text(text, columns)
    assert "others (" in text or top > 3
    assert "webapp -> numlib" in text or top < 15


def test_a_narrow_terminal_gets_readable_tables(image: Path) -> None:
    assert text_of(inspected(image), 20) == text_of(inspected(image), 60)


def test_slim_adds_up_and_says_that_what_was_predicted_was_built(image: Path, tmp_path: Path) -> None:
    report = slimmed(image, tmp_path / "out.tar")
    document = json.loads(encode(report))
    assert document["schema"] == "deadweight.report/1"
    assert document["verdict"] == {"same": None, "probes": []}
    assert document["predicted_bytes"] == document["after_bytes"] < document["before_bytes"]
    saved = document["before_bytes"] - document["predicted_bytes"]
    assert sum(cut["before_bytes"] - cut["after_bytes"] for cut in document["cuts"]) == saved
    assert sum(one["bytes"] for one in document["passes"]) == saved
    assert sum(layer["before_bytes"] - layer["after_bytes"] for layer in document["layers"]) == saved
    assert document["compressed_after_bytes"] == document["after_bytes"]
    assert {cut["pass"] for cut in document["cuts"]} >= {"caches", "shadowed"}
    assert document["after"]["digest"] != document["image"]["digest"]
    text = text_of(report)
    found = tables(text)
    assert set(found) == {"Saved, by pass", "Largest cuts"}
    for numbers in found.values():
        assert sum(numbers[:-1]) == numbers[-1] == saved
    assert f"predicted: {report.predicted_bytes:,} = built: {report.after_bytes:,}" in text
    check_text(text, 80)


def test_a_plan_alone_says_that_nothing_is_built(image: Path) -> None:
    with open_image(str(image)) as source:
        report = slim_report(make_plan(Ledger(source)), source)
    assert report.after_bytes is None
    assert "nothing is built" in text_of(report)


def test_nothing_to_cut_is_no_table(image: Path) -> None:
    with open_image(str(image)) as source:
        everything = [one.name for one in all_passes()]
        report = slim_report(make_plan(Ledger(source), skip=everything), source)
    assert report.predicted_bytes == report.before_bytes
    assert tables(text_of(report)) == {}


def test_hostile_names_do_nothing_anywhere(hostile: Path, tmp_path: Path) -> None:
    found, slim = inspected(hostile), slimmed(hostile, tmp_path / "out.tar")
    with open_image(str(hostile)) as source:
        compared = compare_report([phase(source)])
    for report in (found, slim, compared):
        for columns in (80, 200):
            text = text_of(report, columns, 1000)
            check_text(text, columns)
        document = encode(report).decode("utf-8", "strict")
        assert all(line.isprintable() for line in document.split("\n"))
        json.loads(document)
        escapes = text_of(report, 80, 1000, Terminal())
        assert "\x1b[31m" not in escapes
        assert "\u202e" not in escapes
    text = text_of(found, 200, 1000)
    assert r"/opt/e\x1b[31mvil\n\u202e[bold]\x9b\x07" in text
    assert any("caf" in place.path or place.path == "/opt" for place in found.unlisted)
    for numbers in tables(text).values():
        assert sum(numbers[:-1]) == numbers[-1]
    assert json.loads(encode(found))["layers"][0]["created_by"] == f"RUN {HOSTILE}"


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_on_terminals_unless_unwanted(
    image: Path, environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    report = inspected(image)
    terminal, pipe = Terminal(), io.StringIO()
    full = {"TERM": "xterm-256color", **environment}
    show(terminal, full, lambda console: print_inspect(console, report))
    show(pipe, full, lambda console: print_inspect(console, report))
    assert ("\x1b[" in terminal.getvalue()) == coloured
    assert "\x1b" not in pipe.getvalue()


def test_no_line_ends_in_spaces_and_narrow_encodings_do(image: Path) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    report = inspected(image)
    show(out, {}, lambda console: print_inspect(console, report))
    text = raw.getvalue().decode("ascii")
    assert "####" in text
    assert all(line == line.rstrip() for line in text.splitlines())
    out.close()


def test_compare_is_against_the_one_before_the_first_and_the_target(image: Path, tmp_path: Path) -> None:
    slimmed(image, tmp_path / "slim.tar")
    paths = [image, tmp_path / "slim.tar", image]
    phases = []
    for path in paths:
        with open_image(str(path)) as source:
            phases.append(phase(source))
    report = compare_report(phases, phases[1].bytes)
    one, two, three = report.images
    assert (one.difference, one.cumulative, one.share) == (0, 0, 1.0)
    assert two.difference == two.cumulative == two.bytes - one.bytes < 0
    assert (three.difference, three.cumulative, three.share) == (-two.difference, 0, 1.0)
    assert [line.gap for line in report.images] == [one.bytes - two.bytes, 0, one.bytes - two.bytes]
    text = text_of(report)
    assert f"{two.difference:+,}" in text
    assert text.count("reached") == 1
    check_text(text, 80)
    assert json.loads(encode(report))["schema"] == "deadweight.compare/1"


@pytest.mark.parametrize(
    ("created_by", "shown"),
    [
        ('/bin/sh -c #(nop)  CMD ["x"]', 'CMD ["x"]'),
        ("RUN /bin/sh -c apt-get   update\t&& x # buildkit", "apt-get update && x # buildkit"),
        ("RUN |1 A=b /bin/sh -c make", "RUN |1 A=b make"),
        ("", "(no history)"),
        ("x" * 400, "x" * 149 + "…"),
    ],
)
def test_commands_for_people(created_by: str, shown: str) -> None:
    assert command(created_by) == shown
