"""One image, four renderers: terminal, Markdown, JSON and HTML have the same numbers, and each adds up.

The image is the one of `make demo-small`, as in test_real_image.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.demo import NEEDED, demo_image
from support.markdown import Page
from support.pages import Tables
from support.schemas import checked
from support.service import differences, tables

pytestmark = [pytest.mark.xdist_group("real image"), NEEDED]
DEADWEIGHT = Path(sys.executable).parent / "deadweight"


class Rendered(NamedTuple):
    """What one command wrote."""

    document: dict[str, Any]
    text: str
    markdown: Page
    html: Tables

    def hold(self, whole: int, parts: Sequence[int], *, title: str, html: str | None, column: int = 0) -> None:
        """A table has these parts, the largest first, and this sum: all of them, or the first ones and the others."""
        reader = tables if title in tables(self.text) else differences
        renderers = [reader(self.text)[title], self.markdown.numbers(title)]
        for numbers in renderers:
            *shown, total = numbers
            assert total == sum(shown) == whole
            named = len(shown) if len(shown) == len(parts) else len(shown) - 2
            assert shown[:named] == list(parts[:named])
            assert named > 1
        if html is not None:
            *rows, last = (row[column] for row in self.html.rows[html] if row)
            assert sorted(rows) == sorted(parts)
            assert last == whole


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="deadweight-agree-", dir="/var/tmp") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def image() -> Path:
    return demo_image()


def rendered(folder: Path, *command: object) -> Rendered:
    """Runs the command for all renderers at once."""
    forms = {form: folder / f"report.{form}" for form in ("json", "markdown", "html")}
    words = [word for form, path in forms.items() for word in (f"--{form}", str(path))]
    done = subprocess.run(
        [str(DEADWEIGHT), *map(str, command), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    markdown = forms["markdown"].read_text()
    assert len(markdown.splitlines()) < 60
    document = checked(json.loads(forms["json"].read_bytes()))
    return Rendered(document, done.stdout, Page(markdown), Tables(forms["html"].read_text()))


def test_inspect(folder: Path, image: Path) -> None:
    found = rendered(folder, "inspect", image)
    report = found.document
    assert f"{report['bytes']:,}" in found.text
    assert f"{report['bytes']:,} bytes" in found.markdown.text
    for title, name, html in (("Owners", "owners", None), ("Categories", "categories", "Categories")):
        found.hold(report["bytes"], [line["bytes"] for line in report[name]], title=title, html=html)
    assert sorted(row[1] for row in found.html.rows["Packages"] if row)[:-1] == sorted(
        line["bytes"] for line in report["owners"]
    )
    gpu = [line["bytes"] for line in report["gpu_code"]]
    assert sum(gpu) == tables(found.text)["GPU code by architecture"][-1] == found.markdown.numbers("GPU code")[-1]
    layers = [line["bytes"] for line in report["layers"]]
    assert tables(found.text)["Layers"] == [*layers, report["bytes"]]
    assert found.markdown.numbers("Layers")[:3] == sorted(layers, reverse=True)[:3]
    assert [row[0] for row in found.html.rows["Layers"] if row] == [*layers, report["bytes"]]


def test_a_plan(folder: Path, image: Path) -> None:
    found = rendered(folder, "plan", image, "--gpu", "h100")
    report = found.document
    saved = report["before_bytes"] - report["predicted_bytes"]
    found.hold(saved, [line["bytes"] for line in report["passes"]], title="Saved, by pass", html="Passes")
    found.hold(saved, [line["bytes"] for line in report["owners"]], title="Saved, by owner", html=None)
    differ = sorted((line["before_bytes"] - line["after_bytes"] for line in report["cuts"]), reverse=True)
    assert tables(found.text)["Largest cuts"][:15] == differ[:15]
    assert sum(differ) == saved
    for size in (report["before_bytes"], report["predicted_bytes"], saved):
        assert f"{size:,}" in found.text
        assert f"{size:,}" in found.markdown.text
    assert found.html.numbers("Prediction and result")[:2] == [report["before_bytes"], report["predicted_bytes"]]


def test_what_changed(folder: Path, image: Path) -> None:
    slim = folder / "slim.tar"
    subprocess.run([DEADWEIGHT, "slim", image, "--to", f"docker-archive:{slim}", "--gpu", "h100"], check=True)
    found = rendered(folder, "compare", image, slim)
    before, after = found.document["images"]
    (change,) = found.document["changes"]
    whole = after["bytes"] - before["bytes"]
    for title, name, html in (
        ("What changed", "owners", "Packages that changed"),
        ("Categories", "categories", "Categories"),
    ):
        parts = [line["after_bytes"] - line["before_bytes"] for line in change[name]]
        assert sum(parts) == whole
        assert differences(found.text)[title][-1] == found.markdown.numbers(title)[-1] == whole
        assert sum(differences(found.text)[title][:-1]) == sum(found.markdown.numbers(title)[:-1]) == whole
        assert differences(found.text)[title][:5] == found.markdown.numbers(title)[:4] + parts[4:5]
        rows = [row for row in found.html.rows[html] if row]
        assert rows[-1][:3] == [before["bytes"], after["bytes"], whole]
        assert sum(row[2] for row in rows[:-1]) == whole
    assert f"{whole:+,}" in found.markdown.text
