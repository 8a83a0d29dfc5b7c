"""The HTML report in a real browser: zoom, search, order, access, paper, and names that would like to be more."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from playwright.sync_api import Browser, Page

from deadweight.cli.main import main
from deadweight.image.transports import open_image
from deadweight.ledger.ledger import Ledger
from deadweight.planning import draw_up
from deadweight.report import terminal
from deadweight.report.html.sections import asset
from deadweight.report.html.slim import slim_page
from deadweight.report.slim import slim_report
from deadweight.report.text import plain
from deadweight.report.tree import plan_tree, side
from deadweight.sizes import show_size
from deadweight.verify.model import ProbeResult, verdict_of
from support import fatbins, hosts
from support.browser import BROWSE, choose, names, opened_page, violations
from support.images import Member, file, make_image, make_tar
from support.service import HOSTILE, SITE, distribution, save, service

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
HEBREW = "שלום"
Scheme = Literal["light", "dark"]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    each = fatbins.fatbin(fatbins.sm(80, size=50_000), fatbins.sm(90, size=40_000))
    library = hosts.build(hosts.LAYOUTS["library"], folder, [each]).read_bytes()
    files = {"gpulib/lib.so": library, "gpulib/tests/test_it.py": b"t" * 50_000}
    more: tuple[Member, ...] = (
        *distribution("gpulib", files),
        *(file(f"opt/many/{number:02}.bin", bytes(1000 + number)) for number in range(40)),
        file(f"opt/{HOSTILE}/{HOSTILE}", b"h" * 40_000),
        file(f"opt/{SCRIPT.replace('/', '')}", b"s" * 50_000),
        file(f"opt/{HEBREW}.bin", b"w" * 30_000),
        file("opt/caf\udce9", b"u" * 40_000),
        file(f"opt/{'d/' * 1500}deep", b"d" * 30_000),
        file(f"var/lib/apt/lists/{HOSTILE}", b"a" * 600_000),
    )
    commands = (f"RUN {HOSTILE}{SCRIPT}", "RUN pip install gpulib", "COPY . .")
    return save(folder, service(f"x{SCRIPT}{HOSTILE}y", more, commands))


@pytest.fixture(scope="module")
def pages(image: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages by command, as the command line writes them, and the documents that belong to them."""
    folder = tmp_path_factory.mktemp("pages")
    slim = ("slim", str(image), "--to", f"docker-archive:{folder}/slim.tar", "--gpu", "sm_90", "--all-layers")
    compare = ("compare", str(image), f"{folder}/slim.tar")
    for name, *words in (("inspect", "inspect", str(image)), ("slim", *slim), ("compare", *compare)):
        assert main([*words, "--html", f"{folder}/{name}.html", "--json", f"{folder}/{name}.json"]) == 0
    return {path.name: path for path in folder.iterdir()}


def bytes_of(page: Page, caption: str, column: int = 1) -> list[int]:
    """The exact bytes of a column of a table of the document, the total last."""
    script = """([caption, column]) => {
      const table = [...document.querySelectorAll("table")].find((one) => one.caption.textContent === caption);
      return [...table.querySelectorAll("tbody tr, tfoot tr")].map((row) => Number(row.cells[column].dataset.v));
    }"""
    found: list[int] = page.evaluate(script, [caption, column])
    return found


def test_numbers_are_the_reports_and_add_up(browser: Browser, pages: dict[str, Path]) -> None:
    report = json.loads(pages["inspect.json"].read_text())
    with opened_page(browser, pages["inspect.html"]) as page:
        tables = {
            "Packages": (2, report["owners"]),
            "Categories": (1, report["categories"]),
            "Layers": (1, report["layers"]),
            "GPU code by architecture": (1, report["gpu_code"]),
        }
        for caption, (column, lines) in tables.items():
            *found, total = bytes_of(page, caption, column)
            assert sorted(found) == sorted(line["bytes"] for line in lines), caption
            assert sum(found) == total
        assert bytes_of(page, "Packages", 2)[-1] == report["bytes"]
        exact = [
            int(text.split()[0].replace(",", ""))
            for text in page.locator(f"{BROWSE} td.n span[title]").evaluate_all("all => all.map((one) => one.title)")
        ]
        assert sum(exact) == report["bytes"]
        assert show_size(report["bytes"]) in page.locator(".hero").inner_text()


def test_what_left_is_the_plans(browser: Browser, pages: dict[str, Path]) -> None:
    report = json.loads(pages["slim.json"].read_text())
    with opened_page(browser, pages["slim.html"]) as page:
        *found, total = bytes_of(page, "Passes", 2)
        assert found == [line["bytes"] for line in report["passes"]]
        assert sum(found) == total == report["before_bytes"] - report["after_bytes"]
        assert bytes_of(page, "Prediction and result") == [
            report["before_bytes"],
            report["predicted_bytes"],
            report["after_bytes"],
        ]
        assert "Built as predicted, to the byte" in page.locator(".pills").inner_text()
        assert page.locator("#cuts [role=status]").inner_text() == (
            f"{len(report['cuts'])} cuts, {show_size(report['before_bytes'] - report['after_bytes'])}"
        )
        before, after = (
            sum(
                int(text.split()[0].replace(",", ""))
                for text in page.locator(f"{BROWSE} td:nth-child({column}) span").evaluate_all(
                    "all => all.map((one) => one.title)"
                )
            )
            for column in (2, 3)
        )
        assert (before, after) == (report["before_bytes"], report["after_bytes"])


def test_changes_are_those_between_two_images(browser: Browser, pages: dict[str, Path]) -> None:
    (change,) = json.loads(pages["compare.json"].read_text())["changes"]
    with opened_page(browser, pages["compare.html"]) as page:
        for column, field in ((4, "before_bytes"), (5, "after_bytes")):
            *found, total = bytes_of(page, "Packages that changed", column)
            assert sorted(found[:-1]) == sorted(line[field] for line in change["owners"])
            assert sum(found) == total == change[field]
        choose(page, "change")
        assert page.locator("#legend li").all_inner_texts()[0].startswith("gone")
        choose(page, "packages")
        assert page.get_by_role("radio", name="layers").count() == 0


def test_zooming_by_keys_by_mouse_and_by_the_table(browser: Browser, pages: dict[str, Path]) -> None:
    with opened_page(browser, pages["inspect.html"]) as page:
        crumbs = page.locator("#crumbs li")
        choose(page, "packages")
        assert crumbs.all_inner_texts() == ["Image"]
        page.locator("#canvas").focus()
        page.keyboard.press("ArrowRight")
        first = page.locator("#said").inner_text().split(":")[0]
        page.keyboard.press("ArrowRight")
        assert page.locator("#said").inner_text().split(":")[0] != first
        page.keyboard.press("ArrowLeft")
        assert page.locator("#said").inner_text().split(":")[0] == first
        page.keyboard.press("Enter")
        assert crumbs.all_inner_texts()[:2] == ["Image", first]
        assert page.locator("#contents-title").inner_text() == f"Contents of {crumbs.all_inner_texts()[-1]}"
        page.keyboard.press("Escape")
        assert crumbs.all_inner_texts() == ["Image"]
        assert page.locator("#canvas").evaluate("one => one === document.activeElement")
        page.get_by_role("button", name="gpulib").first.click()
        assert crumbs.all_inner_texts() == ["Image", "gpulib", SITE]  # past what holds nothing else
        page.locator("#contents").get_by_role("button", name="gpulib/").click()
        page.locator("#contents").get_by_role("button", name="lib.so").click()
        assert crumbs.all_inner_texts() == ["Image", "gpulib", SITE, "gpulib", "lib.so"]
        assert {"GPU code", "host code"} <= set(names(page))
        page.locator("#contents").get_by_role("button", name="GPU code").click()
        assert {"sm_80", "sm_90"} <= set(names(page))
        page.locator("#crumbs").get_by_role("button", name="Image").click()
        page.locator("#canvas").click(position={"x": 30, "y": 200})
        assert crumbs.count() > 1


def test_search(browser: Browser, pages: dict[str, Path]) -> None:
    with opened_page(browser, pages["inspect.html"]) as page:
        blank = page.locator("canvas").screenshot()
        page.keyboard.press("/")
        page.keyboard.type("LIB.so")
        assert page.locator("#search").input_value() == "LIB.so"
        assert names(page) == [f"/{SITE}/gpulib/lib.so"]
        assert page.locator("canvas").screenshot() != blank
        page.keyboard.press("Enter")
        assert page.locator("#crumbs [aria-current]").inner_text() == "lib.so"
        page.keyboard.press("/")
        page.locator("#search").fill("gpulib/tests/")
        assert names(page) == [f"/{SITE}/gpulib/tests"]
        page.locator("#search").fill("no such thing")
        assert page.locator("#contents").inner_text() == "Nothing has such a name."
        page.keyboard.press("Escape")
        assert page.locator("#search").input_value() == ""
        assert page.locator("#contents-title").inner_text().startswith("Contents of")


def test_sorting_and_showing_more(browser: Browser, pages: dict[str, Path]) -> None:
    with opened_page(browser, pages["inspect.html"]) as page:
        column = page.locator("table", has=page.locator("caption", has_text=re.compile("^Packages$")))
        size, kind = (column.get_by_role("button", name=name) for name in ("size", "kind"))
        sizes = [int(text.replace(",", "")) for text in column.locator("tbody td.exact").all_inner_texts()]
        assert sizes == sorted(sizes, reverse=True)
        size.click()
        sizes = [int(text.replace(",", "")) for text in column.locator("tbody td.exact").all_inner_texts()]
        assert sizes == sorted(sizes)
        assert column.locator("th[aria-sort=ascending]").inner_text().startswith("size")
        size.click()
        shown = [int(text.replace(",", "")) for text in column.locator("tbody td.exact").all_inner_texts()]
        assert shown == sorted(sizes, reverse=True)
        kind.click()
        kinds = column.locator("tbody td:nth-child(2)").all_inner_texts()
        assert kinds == sorted(kinds, key=str.lower)
        choose(page, "folders")
        page.locator("#contents").get_by_role("button", name="opt/").click()
        page.locator("#contents").get_by_role("button", name="many/").click()
        assert page.locator(BROWSE).count() == 25
        page.get_by_role("button", name="Show 15 more of 15").click()
        assert page.locator(BROWSE).count() == 40
        page.locator("#contents").get_by_role("button", name="Name").click()
        assert names(page) == [f"{number:02}.bin" for number in range(40)]
        page.locator("#contents").get_by_role("button", name="Name").click()
        assert names(page) == [f"{number:02}.bin" for number in reversed(range(40))]


def test_cuts_are_filtered_and_lead_to_their_files(browser: Browser, pages: dict[str, Path]) -> None:
    report = json.loads(pages["slim.json"].read_text())
    with opened_page(browser, pages["slim.html"]) as page:
        cuts = page.locator("#cuts")
        cuts.get_by_role("combobox", name="Pass").select_option("gpu-code")
        assert names(page, "#cuts tbody tr") == [f"/{SITE}/gpulib/lib.so"]
        left = next(line["bytes"] for line in report["passes"] if line["pass"] == "gpu-code")
        assert cuts.locator("[role=status]").inner_text() == f"1 cut, {show_size(left)}"
        cuts.get_by_role("button", name="lib.so").click()
        assert page.locator("#crumbs [aria-current]").inner_text() == "lib.so"
        about = page.locator("#about").inner_text()
        assert "leaves: gpu-code (target)" in about
        assert "GPU code for GPUs that were not declared" in about
        cuts.get_by_role("combobox", name="Pass").select_option("")
        cuts.get_by_role("combobox", name="Risk").select_option("lossless")
        risks = cuts.locator("table").last.locator("tbody .risk").all_inner_texts()
        assert set(risks) == {"lossless"}
        cuts.get_by_label("Path or reason").fill("usr/share/doc")
        assert "/usr/share/doc/gone" in names(page, "#cuts tbody tr")
        assert all("/usr/share/doc/" in name for name in names(page, "#cuts tbody tr"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("command", ["inspect", "slim", "compare"])
def test_accessibility_in_every_view(browser: Browser, pages: dict[str, Path], command: str, scheme: Scheme) -> None:
    with opened_page(browser, pages[f"{command}.html"], scheme=scheme) as page:
        assert violations(page) == []
        choose(page, "packages")
        choose(page, "package")
        page.locator("#canvas").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.locator("#canvas").hover(position={"x": 60, "y": 100})
        assert violations(page) == []
        page.locator("#search").fill("lib")
        assert violations(page) == []
        page.set_viewport_size({"width": 380, "height": 800})
        assert violations(page) == []


def test_light_and_dark(browser: Browser, pages: dict[str, Path]) -> None:
    seen: dict[tuple[str, bool], tuple[str, bytes]] = {}
    script = "() => getComputedStyle(document.body).backgroundColor"
    for scheme in ("light", "dark"):
        with opened_page(browser, pages["slim.html"], scheme=scheme) as page:
            seen[scheme, False] = (page.evaluate(script), page.locator("canvas").screenshot())
            page.get_by_role("button", name="Switch to").click()
            seen[scheme, True] = (page.evaluate(script), page.locator("canvas").screenshot())
    assert seen["light", False] == seen["dark", True]
    assert seen["dark", False] == seen["light", True]
    assert all(one != other for one, other in zip(seen["light", False], seen["dark", False], strict=True))


@pytest.mark.parametrize("width", [380, 900, 1600])
def test_no_page_is_wider_than_the_window(browser: Browser, pages: dict[str, Path], width: int) -> None:
    for command in ("inspect", "slim", "compare"):
        with opened_page(browser, pages[f"{command}.html"], width=width) as page:
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.locator("canvas").bounding_box()["height"] >= 300  # type: ignore[index]


def test_hostile_names_are_text(browser: Browser, pages: dict[str, Path]) -> None:
    for command in ("inspect", "slim", "compare"):
        with opened_page(browser, pages[f"{command}.html"]) as page:
            assert page.locator("script").count() == 3
            assert page.locator("img").count() == 0
            text = page.locator("body").inner_text()
            assert plain(SCRIPT) in text
            for odd in ("\x1b", "\u202e", "\x9b", "\x07"):
                assert odd not in page.content()
            choose(page, "folders")
            page.locator("#contents").get_by_role("button", name="opt/").click()
            shown = names(page)
            assert SCRIPT.replace("/", "") in shown
            assert f"{HEBREW}.bin" in shown
            assert r"caf\udce9" in shown
            page.locator("#search").fill(HOSTILE[-6:])
            assert any(plain(HOSTILE) in name for name in names(page))
            assert page.evaluate(
                "[...document.querySelectorAll('#contents td.name')].every((one) => one.querySelector('bdi'))"
            )


def test_javascripts_words_are_pythons(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    odd = [
        chr(code)
        for code in (*range(0x250), 0x5D0, 0x61C, 0x200B, 0x2028, 0x202E, 0x2066, 0x3000, 0xFEFF, 0xE001, 0x1F600)
    ]
    made = [
        "/bin/sh -c #(nop) ADD file:x in / ",
        'RUN |1 EXTRA=ml /bin/sh -c pip install "x[${EXTRA}]" # buildkit',
        "/bin/sh -c apt-get\tupdate",
        "COPY . . # buildkit",
        "",
    ]
    odd += ["\U000e0041", "ab\ncd", HOSTILE]
    sizes = [0, 1, 999, 1000, 9994, 9996, 99949, 99951, 999_499, 999_500, 10**9 - 1, 8_354_191_360, 10**15, -1234]
    probe = tmp_path / "probe.html"
    probe.write_text(
        f"<!doctype html><meta charset=utf-8><script>{asset('data.js')}\n"
        f"const odd = {json.dumps(odd)}, sizes = {sizes}, made = {json.dumps(made)};\n"
        "const said = [odd.map(plain), sizes.map(showSize), made.map(commandOf)];\n"
        "document.documentElement.dataset.ready = JSON.stringify(said);</script>"
    )
    with opened_page(browser, probe) as page:
        texts, shown, commands = json.loads(page.evaluate("document.documentElement.dataset.ready"))
    assert texts == [plain(text) for text in odd]
    assert shown == [show_size(size) for size in sizes]
    assert commands == [terminal.command(text) for text in made]


def test_nothing_but_its_own_scripts_runs(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    text = pages["inspect.html"].read_text()
    for hole in ("<script>document.title = 'broken'</script>", "<p onclick='1' style='color: red'>"):
        changed = tmp_path / "changed.html"
        changed.write_text(text.replace("<main", f"{hole}<main"))
        with pytest.raises(AssertionError, match="Content Security Policy"), opened_page(browser, changed) as page:
            assert page.title() == "deadweight: where every byte is"


def test_without_javascript_the_tables_are_there(browser: Browser, pages: dict[str, Path]) -> None:
    report = json.loads(pages["inspect.json"].read_text())
    with opened_page(browser, pages["inspect.html"], javascript=False) as page:
        text = page.locator("body").inner_text()
        assert "needs JavaScript" in text
        assert all(f"{line['bytes']:,}" in text for line in report["owners"])
        assert not page.locator("#canvas").is_visible()


def test_a_verdict_is_shown_with_what_differs_first(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    probes = [
        ProbeResult("imports", "import", "same", True, False, "9 modules", "9 modules", 1.0, 1.0),
        ProbeResult(SCRIPT, "run", "differs", False, False, "exit 0", HOSTILE, 1.0, 1.0, ["stdout: <b>"]),
    ]
    with open_image(str(pages["slim.tar"])) as source:
        ledger = Ledger(source)
        worked = draw_up(ledger)
        report = slim_report(worked.plan, ledger)
        tree = plan_tree(side(ledger), ledger, worked)
    report = msgspec.structs.replace(report, verdict=verdict_of(probes, "bubblewrap", 4.0, ["a note"]))
    written = tmp_path / "verdict.html"
    written.write_bytes(slim_page(report, tree))
    with opened_page(browser, written) as page:
        assert page.locator(".pill.bad").inner_text() == "Does not behave the same"
        table = page.locator("table", has=page.locator("caption", has_text="Probes"))
        assert table.locator("tbody th").all_inner_texts() == [plain(SCRIPT), "imports"]
        assert "DIFFERS" in table.inner_text()
        assert violations(page) == []


def test_an_image_of_nothing(browser: Browser, tmp_path: Path) -> None:
    empty, full = save(tmp_path, make_image(make_tar())), save(tmp_path, name="full.tar")
    page_of = f"{tmp_path}/page.html"
    for words in (["inspect", str(empty)], ["compare", str(empty), str(full)], ["compare", str(full), str(empty)]):
        assert main([*words, "--html", page_of]) == 0
        with opened_page(browser, Path(page_of)) as page:
            assert page.locator("#crumbs").inner_text() == "Image"
            assert violations(page) == []


def test_of_very_many_files_the_smallest_are_their_directories(
    browser: Browser, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deadweight.report.tree.LIMIT", 40)
    assert main(["inspect", str(image), "--html", f"{tmp_path}/page.html"]) == 0
    with opened_page(browser, tmp_path / "page.html") as page:
        assert "smallest parts of files are shown with the directories" in page.locator("main").inner_text()
        choose(page, "folders")
        titles = page.locator(f"{BROWSE} td.n span[title]").evaluate_all("all => all.map((one) => one.title)")
        assert sum(int(title.split()[0].replace(",", "")) for title in titles) == image_bytes(image)


def image_bytes(path: Path) -> int:
    with open_image(str(path)) as source:
        return source.size


def test_one_image_is_not_compared(image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(image), "--html", f"{tmp_path}/page.html"]) == 2
    assert "name two or more" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_thousands_of_files(browser: Browser, tmp_path: Path) -> None:
    more = tuple(file(f"{SITE}/big/{n % 97}/{n % 1009}/module_{n:05}.py", b"x" * (n % 300 + 1)) for n in range(24_000))
    image = save(tmp_path, service(more=more))
    assert main(["inspect", str(image), "--html", f"{tmp_path}/big.html"]) == 0
    assert (tmp_path / "big.html").stat().st_size < 2_000_000
    with opened_page(browser, tmp_path / "big.html") as page:
        # One second is the aim, on a machine that does nothing else.
        assert int(page.evaluate("document.documentElement.dataset.ready")) < 10_000
        page.locator("#search").fill("module_23999")
        assert len(names(page)) == 1
