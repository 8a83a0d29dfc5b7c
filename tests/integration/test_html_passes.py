"""What the HTML report says of passes: the bytes of the plan, wherever on the page, and whose evidence it is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from deadweight.cli.main import main
from deadweight.sizes import show_size
from support import fatbins, hosts
from support.browser import BROWSE, choose, opened_page
from support.images import file, make_image, make_tar
from support.service import distribution, save, service


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a slim image; its document lies beside it."""
    folder = tmp_path_factory.mktemp("slim")
    made = []
    for size in (50_000, 60_000):
        code = fatbins.fatbin(fatbins.sm(80, size=size), fatbins.sm(90, size=40_000))
        made.append(hosts.build(hosts.LAYOUTS["library"], folder, [code]).read_bytes())
    files = {"gpulib/lib.so": made[0], "gpulib/one.so": made[1], "gpulib/tests/test_it.py": b"t" * 50_000}
    image = save(folder, service(more=tuple(distribution("gpulib", files))))
    words = ("slim", str(image), "--to", f"docker-archive:{folder}/slim.tar", "--gpu", "sm_90", "--drop-ptx")
    page, document = folder / "slim.html", folder / "slim.json"
    assert main([*words, "--all-layers", "--html", str(page), "--json", str(document)]) == 0
    return page


def facts(page: Page) -> dict[str, str]:
    return dict(
        zip(page.locator("#about dt").all_inner_texts(), page.locator("#about dd").all_inner_texts(), strict=True)
    )


def test_the_map_says_of_passes_what_the_table_says(browser: Browser, slim: Path) -> None:
    passes = json.loads(slim.with_suffix(".json").read_text())["passes"]
    with opened_page(browser, slim) as page:
        said = facts(page)
        for line in passes[:4]:
            assert said[f"leaves: {line['pass']} ({line['risk']})"].startswith(f"{show_size(line['bytes'])}: ")
        assert show_size(sum(line["bytes"] for line in passes[4:])) in said["leaves otherwise"]
        choose(page, "risk")
        risks = Counter[str]()
        for line in passes:
            risks[line["risk"]] += line["bytes"]
        legend = page.locator("#legend li").all_inner_texts()
        for risk, amount in risks.items():
            assert any(text.startswith(f"{risk}: ") and text.endswith(f" {show_size(amount)}") for text in legend)
        assert legend[0].startswith("stays") or any(text.startswith("stays ") for text in legend)


def test_evidence_is_of_one_cut(browser: Browser, slim: Path) -> None:
    cuts = [cut for cut in json.loads(slim.with_suffix(".json").read_text())["cuts"] if cut["pass"] == "gpu-code"]
    assert len(cuts) == 2
    assert all(cut["evidence"] for cut in cuts)
    (one,) = (cut for cut in cuts if cut["path"].endswith("one.so"))
    with opened_page(browser, slim) as page:
        whole = facts(page)["leaves: gpu-code (target)"]
        assert not any(cut["evidence"] in whole for cut in cuts)
        page.locator("#search").fill("gpulib/one.so")
        assert page.locator("#hits").inner_text().startswith("1 found")
        page.locator("#search").press("Enter")
        assert f"({one['evidence']})" in facts(page)["leaves: gpu-code (target)"]


def test_a_mailed_page_says_what_was_declared_and_what_colours_mean(browser: Browser, slim: Path) -> None:
    with opened_page(browser, slim) as page:
        assert "for sm_90, PTX dropped" in page.locator(".facts").inner_text()
        assert "lossless target policy" in " ".join(page.locator(".risks").inner_text().split())


def test_rows_are_in_the_order_that_the_header_says(browser: Browser, tmp_path: Path) -> None:
    small = save(tmp_path, make_image(make_tar(file("a", b"m" * 3000), file("b", b"b" * 99))), "small.tar")
    big = save(tmp_path, make_image(make_tar(file("a", b"m" * 3000), file("b", b"b" * 99_000))), "big.tar")
    page = tmp_path / "page.html"
    assert main(["compare", str(small), str(big), "--html", str(page)]) == 0
    with opened_page(browser, page) as opened:
        choose(opened, "folders")
        titles = opened.locator(f"{BROWSE} td:nth-child(2) span").evaluate_all("all => all.map((one) => one.title)")
        before = [int(title.split()[0].replace(",", "")) for title in titles]
        assert before == sorted(before, reverse=True)
        assert opened.locator(f"{BROWSE} td:nth-child(1)").all_inner_texts()[-1] == "b"
        # Growth has a sign wherever it is said.
        assert opened.locator(".hero .big").last.inner_text().startswith("+")
        assert "+98.9 kB" in opened.locator(BROWSE).last.inner_text()
        changed = opened.locator("table", has=opened.locator("caption", has_text="Packages that changed"))
        assert "+" in changed.locator("tfoot").inner_text()
        assert "no package" in changed.locator("tbody").inner_text()


def test_framing_is_one_row(browser: Browser, slim: Path) -> None:
    with opened_page(browser, slim) as page:
        choose(page, "folders")
        assert page.locator(f"{BROWSE} td.name").all_inner_texts().count("tar framing") == 1


def test_headers_are_text_on_paper(browser: Browser, slim: Path) -> None:
    with opened_page(browser, slim) as page:
        buttons = page.locator("th button")
        count, said = buttons.count(), page.locator("thead").all_inner_texts()
        assert count > 10
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert buttons.count() == 0
        assert page.locator("thead").all_inner_texts() == said
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert buttons.count() == count
        page.set_viewport_size({"width": 1300, "height": 900})
        page.emulate_media(media="print")
        # Paper takes the drawing as it is, in any shape: nothing is drawn anew while a page is printed.
        stretched = page.evaluate(
            """() => {
                const canvas = document.querySelector("canvas");
                [canvas.width, canvas.height] = [800, 200];
                return canvas.clientWidth / canvas.clientHeight / 4;
            }"""
        )
        assert 0.97 < stretched < 1.03
        assert "Hatched: what left." in page.locator("#chosen").inner_text()


def test_what_is_no_gpus_code_is_said_to_be(browser: Browser, slim: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    image = slim.parent / "image.tar"
    assert main(["inspect", str(image), "--html", str(page)]) == 0
    with opened_page(browser, page) as opened:
        table = opened.locator("table", has=opened.locator("caption", has_text="GPU code by architecture"))
        assert "headers of fatbins, and padding" in table.inner_text()
