"""What the HTML report says holds whatever packages are called, wherever it is zoomed to, and on paper."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Browser, Page

from deadweight.cli.main import main
from support.browser import BROWSE, choose, names, opened_page
from support.images import file, make_image, make_tar
from support.service import SITE, distribution, save, service

ODD = ("constructor", "toString", "__proto__", "policy", "lossless", "follows", "stays", "gone", "smaller")
"""Names that every object in JavaScript has, and that the page has words for."""
QUIET = "rgb(188, 194, 200)"  # --quiet of the light theme: what has no colour of its own


def written(folder: Path, *words: str) -> Path:
    """The page of a command."""
    page = folder / "page.html"
    assert main([*words, "--html", str(page)]) == 0
    return page


def legend(page: Page) -> dict[str, str]:
    """The colours by the words of their entries, without sizes."""
    script = """() => [...document.querySelectorAll("#legend li")].map((one) =>
      [one.querySelector("bdi").textContent, one.querySelector(".swatch").style.background])"""
    found: list[tuple[str, str]] = page.evaluate(script)
    assert len(dict(found)) == len(found), found
    return dict(found)


def test_packages_of_any_name_have_their_own_colours(browser: Browser, tmp_path: Path) -> None:
    more = [part for name in ODD for part in distribution(name, {f"{name}.py": b"x" * 90_000})]
    image = save(tmp_path, service(more=tuple(more)))
    slim = ("slim", str(image), "--to", f"docker-archive:{tmp_path}/slim.tar", "--gpu", "sm_90")
    for words in (("inspect", str(image)), slim, ("compare", str(image), f"{tmp_path}/slim.tar")):
        with opened_page(browser, written(tmp_path, *words)) as page:
            choose(page, "package")
            (others,) = (colour for name, colour in legend(page).items() if name == "all others")
            assert others == QUIET
            assert len(set(legend(page).values())) == len(legend(page)) == 11
            choose(page, "packages")
            for name in ODD:
                page.locator("#search").fill(name)
                assert f"/{SITE}/{name}.py" in names(page)
                page.keyboard.press("Enter")
                assert set(legend(page)) == {name}


def test_owners_of_one_name_are_told_apart(browser: Browser, tmp_path: Path) -> None:
    image = save(tmp_path, service(more=tuple(distribution("libc6", {"libc6.py": b"x" * 90_000}))))
    with opened_page(browser, written(tmp_path, "inspect", str(image))) as page:
        choose(page, "package")
        found = legend(page)
        assert {"libc6 1.0 (Python distribution)", "libc6 2.36 (Debian package)"} <= set(found)
        assert len(set(found.values())) == len(found)


def test_legends_of_risks_say_what_they_mean(browser: Browser, tmp_path: Path) -> None:
    slim = ("slim", str(save(tmp_path)), "--to", f"docker-archive:{tmp_path}/slim.tar", "--all-layers")
    with opened_page(browser, written(tmp_path, *slim)) as page:
        choose(page, "risk")
        assert {"stays", "lossless: the running system cannot tell"} <= set(legend(page))


def test_shares_of_what_is_found_are_of_the_image(browser: Browser, tmp_path: Path) -> None:
    image = save(tmp_path)
    with opened_page(browser, written(tmp_path, "inspect", str(image))) as page:
        page.locator("#search").fill("usr/lib/libc.so.6")
        share = page.locator(f"{BROWSE} .share").inner_text()
        assert 0 < float(share.rstrip("%")) < 10
        page.locator("#search").fill("")
        choose(page, "folders")
        page.locator("#contents").get_by_role("button", name="app/").click()
        assert page.locator(f"{BROWSE} .share").first.inner_text() == "100.0%"
        page.locator("#search").fill("usr/lib/libc.so.6")
        assert page.locator(f"{BROWSE} .share").inner_text() == share


def test_what_only_the_new_image_has_is_found_with_its_bytes(browser: Browser, tmp_path: Path) -> None:
    small = save(tmp_path, make_image(make_tar(file("etc/motd", b"m" * 3000))), "small.tar")
    big = save(tmp_path, make_image(make_tar(file("etc/motd", b"m" * 3000), file("opt/new", b"n" * 7000))), "big.tar")
    for words, size in (((small, big), "0 B → 7.00 kB"), ((big, small), "7.00 kB → 0 B")):
        with opened_page(browser, written(tmp_path, "compare", *map(str, words))) as page:
            page.locator("#search").fill("opt/new")
            assert page.locator("#contents-title").inner_text() == f"Found: 1, {size}"
            assert page.locator("#said").inner_text() == f"1 found, {size}"


def test_paper(browser: Browser, tmp_path: Path) -> None:
    more = [
        part for n in range(30) for part in distribution(f"dist{n:02}", {f"dist{n:02}/tests/test_it.py": b"t" * 900})
    ]
    image = save(tmp_path, service(more=tuple(more)))
    slim = ("slim", str(image), "--to", f"docker-archive:{tmp_path}/slim.tar")
    with opened_page(browser, written(tmp_path, *slim), scheme="dark") as page:
        packages = page.locator("table", has=page.locator("caption", has_text="Packages"))
        rows = packages.locator("tbody tr")
        assert rows.nth(14).is_visible()
        assert not rows.nth(15).is_visible()
        assert not page.get_by_text("more rows").first.is_visible()
        printed = page.pdf(print_background=True)
        assert printed.startswith(b"%PDF-")
        assert re.search(rb"/Count [1-9]", printed)
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not page.locator(".controls").first.is_visible()
        # Every row of what the total below adds up; of tables from the tree, how many are not there.
        assert all(row.is_visible() for row in rows.all())
        cuts = page.locator("#cuts tbody").last.locator("tr").count()
        count = int(page.locator("#cuts [role=status]").inner_text().split()[0])
        assert cuts == 25 < count
        assert page.locator("#cuts").get_by_text(f"{count - cuts} more rows, which are not on paper").is_visible()
        page.emulate_media(media="screen")
        page.locator("#cuts").get_by_role("button", name="more of").click()
        page.emulate_media(media="print")
        assert page.locator("#cuts tbody").last.locator("tr").count() == count
        assert not page.locator("#cuts").get_by_text("more rows").is_visible()


def test_paper_says_what_is_left_out_and_what_shares_are_of(browser: Browser, tmp_path: Path) -> None:
    image = save(tmp_path)
    slim = ("slim", str(image), "--to", f"docker-archive:{tmp_path}/slim.tar", "--all-layers")
    with opened_page(browser, written(tmp_path, *slim)) as page:
        chosen, cuts = page.locator("#chosen"), page.locator("#cuts")
        choose(page, "packages")
        choose(page, "risk")
        assert not chosen.is_visible()
        headers = page.locator("#contents th").all_inner_texts()
        assert any(text.startswith("Share before") for text in headers)
        packages = page.locator("table", has=page.locator("caption", has_text="Packages"))
        assert "share after" in packages.locator("thead").inner_text()
        assert "of the image before" in page.locator("#about").inner_text()
        page.emulate_media(media="print")
        assert chosen.inner_text() == "Grouped by packages, coloured by risk. Hatched: what left."
        assert not cuts.get_by_text("Only cuts").is_visible()
        page.emulate_media(media="screen")
        page.locator("#search").fill("usr/<b>")
        cuts.get_by_role("combobox", name="Pass").select_option("shadowed")
        cuts.get_by_role("combobox", name="Risk").select_option("lossless")
        cuts.get_by_label("Path or reason").fill("doc\u202e")
        assert not cuts.get_by_text("Only cuts").is_visible()
        page.emulate_media(media="print")
        assert (
            chosen.inner_text()
            == r"Grouped by packages, coloured by risk. Hatched: what left. Searched for usr/<b>: 0 found."
        )
        said = r"Only cuts of the pass shadowed, of the risk lossless, with doc\u202e in path or reason"
        assert cuts.get_by_text("Only cuts").inner_text() == said
    with opened_page(browser, written(tmp_path, "inspect", str(image))) as page:
        assert any(text == "Share" for text in page.locator("#contents th").all_inner_texts())
        assert "before" not in page.locator("#about").inner_text()


def test_a_plan_without_cuts_has_no_list_of_them(browser: Browser, tmp_path: Path) -> None:
    image = save(tmp_path, make_image(make_tar(file("etc/motd", b"m" * 3000))))
    slim = ("slim", str(image), "--to", f"docker-archive:{tmp_path}/slim.tar")
    with opened_page(browser, written(tmp_path, *slim)) as page:
        assert page.get_by_role("heading", name="Every cut").count() == 0
        assert "Nothing leaves." in page.locator("#cuts").inner_text()
    with opened_page(browser, written(tmp_path, "plan", str(save(tmp_path))), javascript=False) as page:
        assert "The list needs JavaScript" in page.locator("#cuts").inner_text()
