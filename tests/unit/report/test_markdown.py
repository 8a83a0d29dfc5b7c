"""Markdown: GitHub's parser reads back the numbers of the report, and nothing that a name can smuggle in."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadweight.apply import apply_plan
from deadweight.image.reference import parse_reference
from deadweight.image.transports import open_image
from deadweight.ledger.ledger import Ledger
from deadweight.planning import make_plan
from deadweight.report.inspect import inspect_report
from deadweight.report.markdown import markdown
from deadweight.report.markdown.text import code, listed, prose, table
from deadweight.report.model import GpuLine, InspectReport, PlatformsReport, SavingLine, SlimReport
from deadweight.report.slim import slim_report
from deadweight.report.text import plain
from deadweight.report.verdict import verify_report
from deadweight.verify.model import ProbeResult, Verdict
from support.images import file
from support.markdown import HOSTILE, OURS, Page
from support.service import save, service

LIMIT = 60


def probe(name: str, outcome: str = "same", details: int = 0, text: str = "28 modules") -> ProbeResult:
    ok = outcome == "same"
    return ProbeResult(name, "import", outcome, ok, False, text, text, 1.0, 1.5, [HOSTILE] * details, [HOSTILE])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> tuple[InspectReport, SlimReport]:
    folder = tmp_path_factory.mktemp("hostile")
    name = HOSTILE.replace("/", "\\")
    more = [file(f"opt/{number}{name}/{name}", b"h" * 40_000) for number in range(40)]
    more += [file(f"var/lib/apt/lists/{name}", b"a" * 600_000), file(f"usr/share/doc/{name}", b"x" * 9000)]
    made = service(f"x{HOSTILE}y", tuple(more), (f"RUN {HOSTILE}", HOSTILE * 20, ""))
    with open_image(str(save(folder, made))) as source:
        ledger = Ledger(source)
        plan = make_plan(ledger, all_layers=True)
        applied = apply_plan(plan, ledger, parse_reference(f"docker-archive:{folder}/out.tar"))
        verdict = Verdict(
            False, [probe(f"{n}{HOSTILE}", "differs" if n % 2 else "same", 50) for n in range(40)], "bubblewrap"
        )
        slim = slim_report(plan, ledger, applied, verdict=verdict)
        return inspect_report(ledger), slim


def check_page(text: str) -> Page:
    """What GitHub makes of it has our elements alone, and nothing that GitHub itself would make something of."""
    page = Page(text)
    assert page.tags <= OURS, page.tags - OURS
    assert page.attributes <= {"align"}
    assert not set(page.outside.replace("<0.1%", "")) & set("@#$<>[]`~*_&\\|\x1b\u202e\u200b"), page.outside
    assert "evil" not in page.outside
    assert "0123456789" not in page.outside
    assert all(line.isprintable() for line in text.split("\n"))
    assert len(text.splitlines()) < LIMIT
    return page


def test_inspect_reads_back_and_adds_up(reports: tuple[InspectReport, SlimReport]) -> None:
    report, _ = reports
    products = [HOSTILE] * 5
    code_lines = [GpuLine(f"sm_{number}", 1000 - number, 0, 1, products) for number in range(40)]
    savings = [SavingLine(f"sm_{number}", 10**9, 10**9, products) for number in range(8)]
    report = msgspec.structs.replace(report, gpu_code=code_lines, gpu_savings=savings, notes=[HOSTILE] * 30)
    page = check_page(markdown(report).decode())
    sums = {"Owners": report.bytes, "Categories": report.bytes, "Layers": report.bytes}
    for heading, total in {**sums, "GPU code": sum(line.bytes for line in code_lines)}.items():
        numbers = page.numbers(heading)
        assert sum(numbers[:-1]) == numbers[-1] == total
    assert f"{report.bytes:,} bytes in 3 layers" in page.text
    assert page.tables["Owners"][1][:1] == [f"{report.owners[0].bytes:,}"]


def test_slim_says_what_differs_first_then_sizes_that_add_up(reports: tuple[InspectReport, SlimReport]) -> None:
    _, report = reports
    page = check_page(markdown(report).decode())
    saved = report.before_bytes - report.predicted_bytes
    for heading in ("Saved, by pass", "Saved, by owner"):
        numbers = page.numbers(heading)
        assert sum(numbers[:-1]) == numbers[-1] == saved
    assert page.headings[1].startswith("❌ The images")
    assert page.text.index("DIFFERS") < page.text.index("Saved, by pass")
    before, predicted, built, less = page.numbers(page.headings[1])
    assert (before, predicted, built, less) == (report.before_bytes, report.predicted_bytes, report.after_bytes, saved)
    assert "built as predicted, to the byte" in page.text
    unbuilt = check_page(markdown(msgspec.structs.replace(report, after=None, after_bytes=None)).decode())
    assert "predicted, not built" in unbuilt.text
    both = check_page(markdown(PlatformsReport(HOSTILE, HOSTILE, HOSTILE, HOSTILE, [report] * 2, [HOSTILE])).decode())
    assert [row[2] for row in next(iter(both.tables.values()))[1:]] == [f"{saved:,}"] * 2
    wrong = check_page(markdown(msgspec.structs.replace(report, after_bytes=1)).decode())
    assert "built NOT as predicted" in wrong.text


def test_an_image_without_bytes_is_not_less(reports: tuple[InspectReport, SlimReport]) -> None:
    nothing = msgspec.structs.replace(reports[1], before_bytes=0, predicted_bytes=0, verdict=Verdict())
    assert markdown(nothing).decode().splitlines()[0] == "### 0 B \u2192 0 B"


def test_a_verdict_begins_with_what_is_wrong(tmp_path: Path) -> None:
    with open_image(str(save(tmp_path))) as image:
        probes = [probe("fine"), probe("broken", "differs", 2, HOSTILE), probe("mute", "no answer", 1)]
        report = verify_report(image, image, "", Verdict(False, probes, "bubblewrap", 3.0, [HOSTILE]))
        alone = verify_report(None, image, "", Verdict(True, [probe("fine")], "bubblewrap", 3.0))
    page = check_page(markdown(report).decode())
    rows = next(iter(page.tables.values()))
    assert [row[1] for row in rows[1:]] == ["broken", "mute", "fine"]
    assert page.headings[0].startswith("❌ The images do NOT behave the same: broken")
    assert page.text.index("broken") < page.text.index("fine")
    assert page.text.count("<script>alert(1)</script>") >= 2
    assert check_page(markdown(alone).decode()).headings == [
        "✅ The images behave the same: 1 probe, 3.0 s in bubblewrap."
    ]


def test_a_probes_name_is_one_piece_wherever_it_stands(tmp_path: Path) -> None:
    command = "run sh -c command -v gcc | grep -q gcc && echo 'gcc is here' > /dev/null"
    broken = msgspec.structs.replace(probe(command, "differs"), notes=["it printed 2 lines"])
    probes = [broken, *(probe(f"run {number}", "differs") for number in range(9)), probe("mute me", "no answer")]
    with open_image(str(save(tmp_path))) as image:
        text = markdown(verify_report(image, image, "", Verdict(False, probes, "bubblewrap"))).decode()
    check_page(text)
    span = f"`{command}`"
    heading = (
        f"NOT behave the same: {span}, `run 0`, `run 1` and 7 more, and there is no answer to `mute me` (11 probes"
    )
    assert heading in text.splitlines()[0]
    assert f"- **{span}**: DIFFERS" in text
    assert f"- {span}: it printed 2 lines" in text
    assert f"| {span} |".replace(" | grep", r" \| grep") in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", "a|b"),
        ("`", r"\x60"),
        ("x\\", "x\\"),
        ("\\|", "\\|"),
        (" a ", "a"),
        ("&amp;", "&amp;"),
        ("a\nb", r"a\nb"),
        ("\x1b\u202e", r"\x1b\u202e"),
        ("", "(empty)"),
        ("<b>", "<b>"),
        ("日本", "日本"),
        ("/usr/local/lib/" + "x" * 50 + "/torch/lib.so", "/usr/…/torch/lib.so"),
    ],
)
def test_a_name_in_a_table_is_shown_as_it_is(text: str, shown: str) -> None:
    page = Page("\n".join(["### t", *table(("number", "name"), [("1", code(text, 40))], 1)]))
    assert page.tables["t"] == [["number", "name"], ["1", shown]]


def test_prose_keeps_words_and_puts_the_rest_into_code() -> None:
    said = "the package libpq5 stays: /usr/lib/x.py opens pq (13 files, 1,234 bytes), and --drop-ptx takes it out."
    shown = "the package libpq5 stays: `/usr/lib/x.py` opens pq (13 files, 1,234 bytes), and `--drop-ptx` takes it out."
    assert prose(said) == shown
    assert prose("python python3 and Python3.") == "python python3 and Python3."
    assert prose("the commit abcdef1 and abcdef12") == "the commit `abcdef1` and `abcdef12`"
    assert prose("1. a") == "`1`. a"
    assert prose("deadbeef01 @you #1") == "`deadbeef01 @you #1`"


ODD = st.text(st.sampled_from("ab1 `|\\<>[]()!*_~&;#@$:./-+=\n\x1b\u202e%é\"'{}^"), max_size=40)


@given(ODD)
def test_whatever_a_name_is_it_is_one_cell_of_code(text: str) -> None:
    page = Page("\n".join(["### t", *table(("number", "name", "last"), [("1", code(text, 200), "x")], 1)]))
    shown = plain(text).replace("`", r"\x60").strip() or "(empty)"
    ((number, name, last),) = page.tables["t"][1:]
    assert (number, name.strip(), last) == ("1", shown, "x")
    assert page.tags <= OURS


@given(ODD, ODD)
def test_whatever_a_sentence_has_in_it_nothing_comes_of_it(one: str, two: str) -> None:
    page = Page("\n".join(listed([f"the package {one} stays: {two} opens it", f"{two} {one}"], 5)))
    assert page.tags <= OURS
    assert not set(page.outside) & set("@#$<>[]`~*_&\\|=")
    assert len(re.findall("opens", page.text)) == 1
