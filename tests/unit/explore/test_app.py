"""The browser, driven by keys at 80 columns and 24 rows: by Textual's pilot, and in a real terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Coroutine
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pyte
import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from deadweight import Ledger, open_image
from deadweight.cli import main
from deadweight.explore.app import SCROLL_BAR, Explorer, Listing, Note
from deadweight.explore.view import View
from deadweight.plan import write_plan
from deadweight.planning import draw_up
from deadweight.report.hierarchy import Node
from deadweight.report.tree import inspect_tree, plan_tree, side
from deadweight.report.tree_model import Tree
from support.careless import service_image
from support.images import directory, file, make_image, make_tar, write_docker_archive
from support.service import HOSTILE, save, service

DEADWEIGHT = Path(sys.executable).parent / "deadweight"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    with open_image(str(save(tmp_path_factory.mktemp("image")))) as image:
        return inspect_tree(side(Ledger(image)))


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    path = write_docker_archive(tmp_path_factory.mktemp("image") / "x.tar", service_image(), "service:1", style="25")
    with open_image(str(path)) as image:
        ledger = Ledger(image)
        return plan_tree(side(ledger), ledger, draw_up(ledger, all_layers=True))


class Browser:
    """An Explorer that a test drives."""

    def __init__(self, app: Explorer, pilot: Pilot[None]) -> None:
        self.app, self.pilot = app, pilot

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    def names(self) -> list[str]:
        table = self.app.query_one(Listing)
        return [str(table.get_row_at(row)[-1]) for row in range(table.row_count)]

    def marked(self) -> list[str]:
        table = self.app.query_one(Listing)
        rows = [table.get_row_at(row) for row in range(table.row_count)]
        return [str(row[-1]) for row in rows if str(row[0])]

    def rows_in_sight(self) -> int:
        table = self.app.query_one(Listing)
        return table.size.height - table.header_height - table.show_horizontal_scrollbar

    def text(self, selector: str) -> str:
        return str(self.app.query_one(selector, Static).render())


def drive(tree: Tree, steps: Callable[[Browser], Coroutine[Any, Any, None]], size: tuple[int, int] = (80, 24)) -> None:
    """Runs the browser over a tree, and does what the test wants with it."""

    async def run() -> None:
        app = Explorer(View(tree))
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await steps(Browser(app, pilot))

    asyncio.run(run())


def test_into_and_out_again(tree: Tree) -> None:
    async def steps(browser: Browser) -> None:
        top = browser.names()
        assert top[0] == "files of no package"
        assert browser.marked() == top[:1]
        at = top.index("numlib 1.0")
        await browser.press(*["down"] * at)
        assert browser.marked() == ["numlib 1.0"]
        assert "why      webapp -> numlib" in browser.text("#details")
        await browser.press("enter")
        assert "image > numlib 1.0" in browser.text("#head")
        assert browser.names()[0] == "…/lib/python3.11/site-packages/"
        await browser.press("right", "enter")
        assert any(name == "core.py" for name in browser.names())
        await browser.press("left", "backspace", "h", "h")
        assert browser.names() == top
        assert browser.marked() == ["numlib 1.0"]

    drive(tree, steps)


def test_grouping_by_keys(tree: Tree) -> None:
    async def steps(browser: Browser) -> None:
        await browser.press("g")
        assert all(name.startswith("layer ") for name in browser.names())
        await browser.press("g")
        assert {"caches", "tar framing"} <= set(browser.names())
        await browser.press("4")
        assert {"usr/", "app/"} <= set(browser.names())
        await browser.press("1")
        assert "numlib 1.0" in browser.names()

    drive(tree, steps)


def test_finding_goes_there(tree: Tree) -> None:
    async def steps(browser: Browser) -> None:
        await browser.press("slash", *"core.py", "enter")
        assert "1 found for core.py" in browser.text("#head")
        assert browser.names()[0].endswith("/core.py")
        await browser.press("enter")
        assert browser.marked() == ["core.py"]
        assert "__init__.py" in browser.names() or len(browser.names()) >= 2
        await browser.press("slash", *"zzz", "enter")
        assert "0 found" in browser.text("#head")
        assert browser.names() == []
        await browser.press("enter", "escape")
        assert "core.py" in browser.names()
        await browser.press("slash", "q", "escape")
        assert "core.py" in browser.names()  # and q was a letter there

    drive(tree, steps)


def test_help_and_details_are_over_it_until_a_key(tree: Tree) -> None:
    async def steps(browser: Browser) -> None:
        await browser.press("question_mark")
        assert isinstance(browser.app.screen, Note)
        await browser.press("escape")
        assert not isinstance(browser.app.screen, Note)
        await browser.press("d")
        assert isinstance(browser.app.screen, Note)
        await browser.press("enter")
        await browser.press("q")
        assert not browser.app.is_running

    drive(tree, steps)


def test_with_a_plan_what_leaves_and_why(planned: Tree) -> None:
    async def steps(browser: Browser) -> None:
        assert "->" in browser.text("#head")
        await browser.press("s")
        assert "sorted by leaving" in browser.text("#head")
        details = browser.text("#details")
        assert "leaves   " in details
        assert "(policy)" in details
        await browser.press("s")
        assert browser.names() == sorted(browser.names())

    drive(planned, steps)


def test_hostile_names(tmp_path: Path) -> None:
    with open_image(str(save(tmp_path, service(f"x{HOSTILE}y", (), (f"RUN {HOSTILE}", "", ""))))) as image:
        evil = inspect_tree(side(Ledger(image)))

    async def steps(browser: Browser) -> None:
        await browser.press("slash", *"vil", "enter")
        assert any("[bold]" in name and "\\x1b[31m" in name for name in browser.names())
        await browser.press("enter", "d", "escape", "2")
        for name in browser.names():
            assert name.isprintable()

    drive(evil, steps, (120, 40))


@pytest.mark.parametrize("size", [(20, 8), (80, 24), (200, 60)])
def test_any_size(tree: Tree, size: tuple[int, int]) -> None:
    async def steps(browser: Browser) -> None:
        await browser.press("down", "enter", "g")
        await browser.pilot.resize_terminal(100, 30)
        await browser.press("down")
        assert browser.names()

    drive(tree, steps, size)


@pytest.mark.parametrize(
    ("size", "rows", "details"),
    [((80, 24), 12, 8), ((80, 13), 4, 5), ((40, 12), 4, 4), ((40, 6), 2, 0), ((80, 40), 24, 12)],
)
def test_a_small_terminal_has_rows_and_the_way_out(
    planned: Tree, tree: Tree, size: tuple[int, int], rows: int, details: int
) -> None:
    async def steps(browser: Browser) -> None:
        assert browser.rows_in_sight() == rows
        found = browser.app.query_one("#details", Static)
        assert (found.outer_size.height if found.display else 0) == details
        keys = browser.text("#keys")
        assert len(keys) <= size[0] - 2
        for key in ("q quit", "? help", "Enter in"):
            assert key in keys
        assert ("s sort" in keys) == (size[0] == 80)
        table = browser.app.query_one(Listing)
        assert sum(column.get_render_width(table) for column in table.ordered_columns) <= size[0] - SCROLL_BAR
        assert table.ordered_columns[-1].width >= 16
        assert all(str(cell).startswith("  ") for cell in (table.get_row_at(row)[-2] for row in range(table.row_count)))
        first, where = browser.text("#head").split("\n")
        assert len(first) <= size[0] - 2
        assert ("sorted by size" in first) == (size[0] == 80)
        assert first.startswith("service:1  ")
        assert where == "image"

    for each in (planned, tree):
        drive(each, steps, size)


def test_a_directory_and_its_hidden_entries_are_told_apart(tmp_path: Path) -> None:
    layers = [make_tar(directory("app"), file(f"app/{name}", b"x" * 9000)) for name in ("one", "two")]
    with open_image(str(save(tmp_path, make_image(*layers)))) as image:
        tree = inspect_tree(side(Ledger(image)))

    async def steps(browser: Browser) -> None:
        await browser.press("4")
        assert {"app/", "app (hidden entries)"} <= set(browser.names())
        await browser.press("slash", *"app", "enter")
        assert {"/app/", "/app (hidden entries)"} <= set(browser.names())

    drive(tree, steps)


class Terminal:
    """A real terminal of 80 columns and 24 rows, in which a command runs."""

    def __init__(self, *command: str | Path, **environment: str) -> None:
        self.fd, other = pty.openpty()
        ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        env = {**os.environ, "TERM": "xterm-256color", **environment}
        env.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=other, stdout=other, stderr=other, env=env, start_new_session=True
        )
        os.close(other)
        self.screen = pyte.Screen(80, 24)
        self._stream = pyte.ByteStream(self.screen)

    def wait(self, words: str, seconds: float = 90) -> str:
        """The screen, once it has some words."""
        end = time.monotonic() + seconds
        while words not in self.text() and time.monotonic() < end:
            self._read()
        assert words in self.text(), self.text()
        return self.text()

    def text(self) -> str:
        return "\n".join(self.screen.display)

    def press(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def end(self) -> int:
        """The exit status."""
        while self.process.poll() is None and self._read():
            pass
        os.close(self.fd)
        return self.process.wait(30)

    def _read(self) -> bool:
        if not select.select([self.fd], [], [], 0.2)[0]:
            return True
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:  # the other end is closed
            return False
        self._stream.feed(data)
        return bool(data)


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "vt100"}])
def test_in_a_real_terminal(tmp_path: Path, environment: dict[str, str]) -> None:
    image = write_docker_archive(tmp_path / "x.tar", service_image(), "service:1", style="25")
    with open_image(str(image)) as source:
        (tmp_path / "plan.json").write_bytes(write_plan(draw_up(Ledger(source), all_layers=True).plan))
    terminal = Terminal(DEADWEIGHT, "explore", image, "--plan", tmp_path / "plan.json", **environment)
    try:
        screen = terminal.wait("? help")
        assert screen.splitlines()[0].startswith(" service:1")
        assert "leaves" in screen
        assert sum(line.startswith(">") for line in screen.splitlines()) == 1
        terminal.press(b"/gcc\r")
        terminal.wait("found for gcc")
        terminal.press(b"\r")
        terminal.wait("build-tools (policy)")
        terminal.press(b"\x03" if "NO_COLOR" in environment else b"q")
        assert terminal.end() == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()


def test_it_ends_with_its_terminal(tmp_path: Path) -> None:
    """A window that is closed sends a signal only to those whose terminal it is."""
    image = write_docker_archive(tmp_path / "x.tar", service_image(), "service:1", style="25")
    terminal = Terminal(DEADWEIGHT, "explore", image)
    try:
        terminal.wait("? help")
        os.close(terminal.fd)
        assert terminal.process.wait(60) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()


def test_without_a_terminal_one_clear_error(tmp_path: Path) -> None:
    for terminal in ({}, {"TERM": "dumb"}):
        done = subprocess.run(
            [str(DEADWEIGHT), "explore", str(tmp_path / "none.tar")],
            env={**os.environ, **terminal},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.count("\n") == 1
        assert "deadweight inspect" in done.stderr


def test_a_defect_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> list[Node]:
        raise RuntimeError("broken")

    monkeypatch.setattr(View, "children", broken)
    monkeypatch.setattr("deadweight.cli.explore._check_terminal", lambda: None)
    monkeypatch.setattr(Explorer, "run", lambda app: asyncio.run(app.run_async(headless=True)))
    assert main(["explore", str(save(tmp_path))]) == 70
    assert "RuntimeError" in capfd.readouterr().err


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("deadweight.cli.explore._check_terminal", lambda: None)
    monkeypatch.setattr("deadweight.cli.explore.find_spec", lambda _: None)
    assert main(["explore", "/nowhere"]) == 4
    assert "pip install 'deadweight[explore]'" in capfd.readouterr().err
