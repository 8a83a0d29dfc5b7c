"""How long the page of a plan takes after the plan is there, and how long until it can be used in Chromium.

    .venv/bin/python bench/page_time.py IMAGE h100

Prints seconds of the processor and of the clock, and milliseconds: with other work on the machine only the first count.
"""

from __future__ import annotations

import gc
import shutil
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from deadweight.binary.gpu import Target, parse_gpus
from deadweight.image.transports import open_image
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import Options
from deadweight.planning import draw_up
from deadweight.report.html.slim import slim_page
from deadweight.report.slim import slim_report
from deadweight.report.tree import plan_tree, side

OPENINGS = 5


def main() -> None:
    image, *gpus = sys.argv[1:]
    gc.set_threshold(1_000_000, 20, 20)  # as the command line has it
    with open_image(image) as source:
        ledger = Ledger(source)
        worked = draw_up(ledger, Options(target=Target(parse_gpus(gpus), keep_ptx=False)))
        processor, clock = time.process_time(), time.perf_counter()
        page = slim_page(slim_report(worked.plan, ledger), plan_tree(side(ledger), ledger, worked))
        processor, clock = time.process_time() - processor, time.perf_counter() - clock
    print(f"rendered after the plan: {processor:.2f} s of the processor, {clock:.2f} s, {len(page):,} bytes")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "page.html"
        path.write_bytes(page)
        program = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        taken = []
        for _ in range(OPENINGS):
            opened = browser.new_page()
            opened.goto(path.as_uri())
            opened.wait_for_function("document.documentElement.dataset.ready", timeout=60_000)
            taken.append(int(opened.evaluate("document.documentElement.dataset.ready")))
            opened.close()
        browser.close()
    print(f"usable in Chromium after {min(taken)} ms at best, {sorted(taken)[OPENINGS // 2]} ms mostly")


if __name__ == "__main__":
    main()
