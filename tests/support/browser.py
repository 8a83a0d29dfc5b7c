"""Pages in a real browser: Debian's chromium, driven by Playwright; nothing that a page asks for is let through.

`scripts/setup.sh test` installs it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

AXE = files("axe_playwright_python") / "axe.min.js"
BROWSE = "#contents tbody tr"
"""The rows of what the treemap shows."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser. Fails the test where it is missing: nothing else can judge."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("there is no chromium: run scripts/setup.sh test")
    with sync_playwright() as playwright:
        # The tests' own pages need no sandbox, and as root there is none.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened_page(
    browser: Browser,
    path: Path,
    *,
    width: int = 1280,
    scheme: Literal["light", "dark"] = "light",
    javascript: bool = True,
) -> Iterator[Page]:
    """The page of a file, ready. Afterwards: it has asked for nothing but itself, and had nothing to complain about."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=javascript
    )
    asked: list[str] = []
    said: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) == 1:
            route.continue_()
        else:
            route.abort()

    context.route("**/*", answer)
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    try:
        page.goto(path.as_uri())
        if javascript:
            page.wait_for_function("document.documentElement.dataset.ready", timeout=60_000)
        yield page
        assert not said, said
        assert asked == [path.as_uri()], asked
    finally:
        context.close()


def choose(page: Page, what: str) -> None:
    """Takes a grouping or a colouring of the treemap."""
    page.get_by_role("radio", name=what, exact=True).check()


def names(page: Page, rows: str = BROWSE) -> list[str]:
    """The names in a table's rows, as they are shown."""
    return page.locator(f"{rows} td.name").all_inner_texts()


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with a page as it is now, all of its rules asked."""
    if not page.evaluate("typeof axe === 'object'"):
        # The page's policy runs no script but its own; a debugger may.
        page.evaluate(AXE.read_text("utf-8"))
    found: list[dict[str, Any]] = page.evaluate("axe.run().then((result) => result.violations)")
    return [f"{one['id']}: {node['html'][:200]} {node['failureSummary']}" for one in found for node in one["nodes"]]
