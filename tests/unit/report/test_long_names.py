"""Metadata can say anything at any length: no report grows with it, whatever it is rendered as."""

from __future__ import annotations

import base64
import re
import zlib
from pathlib import Path

import pytest

from deadweight.cli.main import main
from deadweight.report.text import LONGEST, bounded
from support.images import file
from support.service import SITE, save, service

LONG = "n" * 100_000
INFO = f"{SITE}/long-1.dist-info"
MORE = (
    file(f"{SITE}/long.py", b"x" * 50_000),
    file(f"{SITE}/long/tests/test_a.py", b"x" * 9000),
    file(
        f"{INFO}/METADATA", f"Metadata-Version: 2.1\nName: {LONG}\nVersion: 1+{LONG}\nRequires-Dist: {LONG}q\n".encode()
    ),
    file(f"{INFO}/RECORD", b"long.py,,\nlong/tests/test_a.py,,\n"),
)


@pytest.mark.parametrize("command", ["inspect", "plan", "compare"])
def test_reports_do_not_grow_with_names(command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = str(save(tmp_path, service(more=MORE, commands=(f"RUN {LONG}", f"RUN {LONG}", "COPY . ."))))
    page, markdown = tmp_path / "page.html", tmp_path / "page.md"
    images = [image, image] if command == "compare" else [image]
    assert main([command, *images, "--html", str(page), "--markdown", str(markdown)]) == 0
    said = capfd.readouterr().out
    assert "nnn" in said or command == "compare"
    assert len(said) < 40_000
    assert max(map(len, said.splitlines())) <= 80
    assert max(map(len, markdown.read_text().splitlines())) < 400
    text = page.read_text()
    packed = re.search('id="tree">([^<]*)<', text)
    assert packed is not None
    tree = zlib.decompress(base64.b64decode(packed[1])).decode()
    for shown in (text, tree):
        assert "nnn" in shown
        assert max(map(len, re.findall("n+", shown))) <= LONGEST


def test_what_is_bounded_is_valid() -> None:
    assert bounded("a" * LONGEST) == "a" * LONGEST
    assert bounded("a" * LONGEST + "b") == "a" * (LONGEST - 1) + "…"
    assert bounded("caf\udce9") == r"caf\udce9"
