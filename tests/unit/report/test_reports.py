"""Reports: every table adds up, in the document and on the terminal, whatever the image's names are."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
from rich.cells import cell_len

from deadweight.apply import apply_plan
from deadweight.binary.gpu import Target, parse_gpus
from deadweight.binary.shrink import CannotShrink, shrink_gpu_code
from deadweight.image.reference import parse_reference
from deadweight.image.transports import open_image
from deadweight.ledger.gpu import savings
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import all_passes
from deadweight.planning import make_plan
from deadweight.report.compare import compare_report
from deadweight.report.inspect import inspect_report
from deadweight.report.model import CompareReport, InspectReport, SlimReport, encode
from deadweight.report.print_compare import print_compare
from deadweight.report.slim import slim_report
from deadweight.report.terminal import command, print_inspect, print_slim, show
from support import fatbins, hosts
from support.images import file
from support.service import HOSTILE, distribution, save, service, tables


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
        return slim_report(plan, ledger, apply_plan(plan, ledger, parse_reference(f"docker-archive:{to}")))


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


@pytest.fixture(scope="module")
def gpu_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    library = hosts.build(hosts.LAYOUTS["library"], folder).read_bytes()
    (folder / "blob").write_bytes(fatbins.fatbin(fatbins.sm(100, size=20_000)))
    more = f'.section .rodata\n.incbin "{folder}/blob"\n'
    raw = hosts.build(hosts.Layout(more=more), folder, [fatbins.fatbin(fatbins.sm(90), fatbins.sm(80))]).read_bytes()
    kernels = {f"numlib/kernels/{number}.cubin": fatbins.cubin(number) for number in (80, 86, 90)}
    files = {"gpulib/lib.so": library, "gpulib/raw.so": raw, f"gpulib/{HOSTILE}.ptx": b"?" * 50, **kernels}
    return save(folder, service(more=tuple(distribution("gpulib", files))))


def test_gpu_code_adds_up_by_architecture_and_by_library(gpu_image: Path) -> None:
    report = inspected(gpu_image)
    document = json.loads(encode(report))
    check_inspect(document)
    (category,) = (each["bytes"] for each in document["categories"] if each["name"] == "GPU code")
    lines = {line["arch"]: line for line in document["gpu_code"]}
    libraries = {line["path"]: line for line in document["gpu_libraries"]}
    assert sum(line["bytes"] for line in lines.values()) == category
    assert sum(line["bytes"] for line in libraries.values()) == category
    for library in libraries.values():
        assert sum(library["by_arch"].values()) == library["bytes"]
    beyond = {line["where"]: (line["files"], line["bytes"]) for line in document["gpu_out_of_reach"]}
    assert beyond == {
        "data": (1, len(fatbins.fatbin(fatbins.sm(100, size=20_000)))),
        "file": (3, sum(len(fatbins.cubin(number)) for number in (80, 86, 90))),
        "unread": (1, 50),
    }
    for each in (lines, libraries):
        assert sum(line["out_of_reach"] for line in each.values()) == sum(size for _, size in beyond.values())
    assert lines["sm_90"]["products"][:3] == ["H20", "H100", "H200"]
    assert lines["sm_90"]["entries"] == 4  # of two fatbins and one of the other library, and the cubin
    assert lines["compute_90"]["products"] == lines["headers"]["products"] == []
    site = "/usr/local/lib/python3.11/site-packages"
    assert libraries[f"{site}/numlib/kernels"]["files"] == 3
    assert libraries[f"{site}/gpulib/raw.so"]["owner"] == "gpulib"
    assert libraries[f"{site}/gpulib/raw.so"]["by_arch"]["sm_100"] == beyond["data"][1] - 16
    assert any("could not be taken apart: neither" in note for note in document["notes"])


def test_gpu_code_on_the_terminal(gpu_image: Path) -> None:
    report = inspected(gpu_image)
    for columns, top in ((80, 3), (80, 1000), (160, 15)):
        text = text_of(report, columns, top)
        found = tables(text)
        check_text(text, columns)
        size = sum(line.bytes for line in report.gpu_code)
        for title in ("GPU code by architecture", "GPU code by library"):
            assert sum(found[title][:-1]) == found[title][-1] == size
    assert "sm_90  H20, H100, H200, ..." in text
    assert "compute_80  PTX, for 8.0 and newer" in text
    assert "lto_80  LTO-IR" in text
    assert "20.1 kB in data of libraries, where only --raw-blobs goes (1 file)" in text
    assert "3 files of GPU code alone" in text
    assert "--gpu sm_90" in text
    assert "--gpu none" in text


def test_what_declaring_a_gpu_would_save_is_what_it_saves(gpu_image: Path) -> None:
    report = inspected(gpu_image)
    assert [line.gpu for line in report.gpu_savings] == ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "none"]
    with open_image(str(gpu_image)) as source:
        ledger = Ledger(source)
        for line in report.gpu_savings:
            for keep_ptx, said in ((True, line.ptx_kept), (False, line.ptx_dropped)):
                saved = 0
                for path, node in ledger.elf_files.items():
                    target = Target(parse_gpus([line.gpu]), keep_ptx)
                    with contextlib.suppress(CannotShrink):
                        saved += node.size - shrink_gpu_code(ledger.reader(path), node.size, target).size
                assert abs(said - saved) <= 2 * 3 * 4096, line  # a few pages of each of the files
                assert said > 0


def test_savings_are_for_files_that_shrink(tmp_path: Path) -> None:
    layout = hosts.LAYOUTS["a reference into a fatbin"]
    refused = hosts.build(layout, tmp_path).read_bytes()
    image = save(tmp_path, service(more=tuple(distribution("gpulib", {"gpulib/lib.so": refused}))))
    report = inspected(image)
    assert report.gpu_code
    assert report.gpu_savings == []
    assert "would save" not in text_of(report)


def test_a_file_for_other_gpus_alone_saves_nothing(tmp_path: Path) -> None:
    each = fatbins.fatbin(fatbins.sm(80, size=50_000), fatbins.sm(90, size=40_000))
    library = hosts.build(hosts.LAYOUTS["library"], tmp_path, [each]).read_bytes()
    other = hosts.build(hosts.LAYOUTS["library"], tmp_path, [fatbins.fatbin(fatbins.sm(75, size=90_000))]).read_bytes()
    files = {"gpulib/lib.so": library, "gpulib/other.so": other}
    report = inspected(save(tmp_path, service(more=tuple(distribution("gpulib", files)))))
    kept = {line.gpu: line.ptx_kept for line in report.gpu_savings}
    assert kept["sm_75"] == pytest.approx(90_000, abs=8192)  # sm_80 and sm_90 are newer, so that file loses them
    assert kept["sm_80"] == pytest.approx(40_000, abs=8192)
    assert kept["none"] == pytest.approx(180_000, abs=8192)


def test_savings_are_less_what_stays_in_the_place_of_fatbins(tmp_path: Path) -> None:
    small = fatbins.fatbin(fatbins.sm(80, size=400))
    library = hosts.build(hosts.LAYOUTS["library"], tmp_path, [small] * 300).read_bytes()
    made = service(more=tuple(distribution("gpulib", {"gpulib/lib.so": library})))
    with open_image(str(save(tmp_path, made))) as source:
        ledger = Ledger(source)
        path, node = next(item for item in ledger.elf_files.items() if item[0].endswith("lib.so"))
        content = shrink_gpu_code(ledger.reader(path), node.size, Target())
        assert savings(ledger)[-1].ptx_kept == pytest.approx(node.size - content.size, abs=8192)


def test_a_narrow_terminal_gets_readable_tables(image: Path) -> None:
    assert text_of(inspected(image), 20) == text_of(inspected(image), 60)


def test_slim_adds_up_and_says_that_what_was_predicted_was_built(image: Path, tmp_path: Path) -> None:
    report = slimmed(image, tmp_path / "out.tar")
    document = json.loads(encode(report))
    assert document["schema"] == "deadweight.report/1"
    assert (document["verdict"]["same"], document["verdict"]["probes"]) == (None, [])
    assert document["predicted_bytes"] == document["after_bytes"] < document["before_bytes"]
    saved = document["before_bytes"] - document["predicted_bytes"]
    assert sum(cut["before_bytes"] - cut["after_bytes"] for cut in document["cuts"]) == saved
    assert sum(one["bytes"] for one in document["passes"]) == saved
    assert sum(one["bytes"] for one in document["owners"]) == saved
    assert sum(one["cuts"] for one in document["owners"]) == len(document["cuts"])
    owners = {one["name"]: one["bytes"] for one in document["owners"]}
    assert owners["numlib"] > 9000  # its tests, and what the copy in uv's cache was
    assert owners["hidden by later layers"] > 30_000
    for name, size in owners.items():
        cuts = [cut for cut in document["cuts"] if cut["owner"] == name]
        assert sum(cut["before_bytes"] - cut["after_bytes"] for cut in cuts) == size
    assert sum(layer["before_bytes"] - layer["after_bytes"] for layer in document["layers"]) == saved
    assert document["compressed_after_bytes"] == document["after_bytes"]
    assert {cut["pass"] for cut in document["cuts"]} >= {"caches", "shadowed"}
    assert document["after"]["digest"] != document["image"]["digest"]
    text = text_of(report)
    found = tables(text)
    assert set(found) == {"Saved, by pass", "Saved, by owner", "Largest cuts"}
    for numbers in found.values():
        assert sum(numbers[:-1]) == numbers[-1] == saved
    assert f"predicted: {report.predicted_bytes:,} = built: {report.after_bytes:,}" in text
    check_text(text, 80)


def test_a_plan_alone_says_that_nothing_is_built(image: Path) -> None:
    with open_image(str(image)) as source:
        ledger = Ledger(source)
        report = slim_report(make_plan(ledger), ledger)
    assert report.after_bytes is None
    assert "nothing is built" in text_of(report)


def test_nothing_to_cut_is_no_table(image: Path) -> None:
    with open_image(str(image)) as source:
        everything = [one.name for one in all_passes()]
        ledger = Ledger(source)
        report = slim_report(make_plan(ledger, skip=everything), ledger)
    assert report.predicted_bytes == report.before_bytes
    assert tables(text_of(report)) == {}


def test_hostile_names_do_nothing_anywhere(hostile: Path, tmp_path: Path) -> None:
    found, slim = inspected(hostile), slimmed(hostile, tmp_path / "out.tar")
    compared = compare_report([found, inspected(tmp_path / "out.tar")])
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
    assert "###" in text
    assert "\\u" not in text
    assert all(line == line.rstrip() for line in text.splitlines())
    out.close()


def test_what_an_encoding_has_no_letters_for_is_escaped_before_it_is_laid_out(tmp_path: Path) -> None:
    name = "\u65e5\u672c" * 30
    made = service(
        more=tuple(file(f"opt/{n}/{name}/{n}", b"x" * 5000) for n in range(3)),
        commands=(f"RUN {name}", "RUN " + "x" * 400),
    )
    report = inspected(save(tmp_path, made))
    for columns in (80, 140):
        raw = io.BytesIO()
        out = io.TextIOWrapper(raw, encoding="ascii")
        show(out, {"COLUMNS": str(columns)}, lambda console: print_inspect(console, report))
        check_text(raw.getvalue().decode("ascii"), columns)
        assert "\\u65e5" in raw.getvalue().decode("ascii")
        assert "\\u2026" not in raw.getvalue().decode("ascii")
        out.close()


@pytest.mark.parametrize(
    ("created_by", "shown"),
    [
        ('/bin/sh -c #(nop)  CMD ["x"]', 'CMD ["x"]'),
        ("RUN /bin/sh -c apt-get   update\t&& x # buildkit", "apt-get update && x"),
        ("RUN |1 A=b /bin/sh -c make", "make"),
        ("RUN |2 A=b c D= /bin/sh -c make # buildkit", "make"),
        ("RUN python -c 1", "RUN python -c 1"),
        ("COPY . . # buildkit", "COPY . ."),
        ("", "(no history)"),
        ("x" * 400, "x" * 149 + "…"),
    ],
)
def test_commands_for_people(created_by: str, shown: str) -> None:
    assert command(created_by) == shown
