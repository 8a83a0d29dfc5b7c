"""What `make bench` works with: a change of code in an OCI layout, and the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_kit import Bench, change_code
from bench_page import page, ratios

from deadweight.image.transports import open_image
from support.images import file, make_image, make_tar, write_oci

MAIN = "app/src/factcheck_demo/main.py"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """Dependencies between two copies of the code, as in the demo's image."""
    code = make_tar(file(MAIN, b"app = 1\n"))
    image = make_image(code, make_tar(file("site/big", b"x" * 100_000)), code, make_tar(file("etc/x", b"x")))
    return write_oci(tmp_path / "layout", image, "original")


def test_a_change_of_code_makes_the_layers_after_the_dependencies_anew(layout: Path) -> None:
    new = change_code(layout, "changed", "# more\n")
    with open_image(f"oci:{layout}:original") as before, open_image(f"oci:{layout}:changed") as after:
        same = [a.diff_id == b.diff_id for a, b in zip(before.layers, after.layers, strict=True)]
        assert same == [True, True, False, True]
        assert after.layers[2].tar.size == new
        after.layers[2].check()
        (entry,) = after.layers[2].entries
        assert after.layers[2].tar.read_at(entry.data, entry.size) == b"app = 1\n# more\n"


def test_a_layout_without_the_code_is_refused(tmp_path: Path) -> None:
    layout = write_oci(tmp_path / "layout", make_image(make_tar(file("x", b"x"))), "original")
    with pytest.raises(SystemExit, match="no layer"):
        change_code(layout, "changed", "#")


def test_a_row_is_timed_and_its_cache_is_empty_but_for_warm_ones(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "image", tmp_path, (), 2)
    count = ["sh", "-c", 'mkdir -p "$XDG_CACHE_HOME"; echo >>"$XDG_CACHE_HOME/ran"; sleep 0.01']
    bench.run("cold", "cold", count)
    assert (bench.cache / "ran").read_text() == "\n"
    bench.run("warm", "warm", count, warm=True)
    assert (bench.cache / "ran").read_text() == "\n" * 3
    assert bench.rows["cold"].runs == 2
    assert 0.01 <= bench.rows["cold"].seconds < 10


def test_the_page_has_the_rows_and_the_ratios_that_are_there() -> None:
    row = {"megabytes": 10.0, "runs": 1, "sent": None}
    rows = [
        {**row, "name": "save-load", "label": "docker save | docker load", "seconds": 40.0},
        {**row, "name": "engine-slim", "label": "deadweight slim, from the engine", "seconds": 10.0},
        {**row, "name": "push", "label": "deadweight apply, as it is", "seconds": 1.0, "sent": 1234},
    ]
    machine = {
        "cores": 2,
        "processor": "P",
        "memory": 8e9,
        "kernel": "6",
        "load": 0.1,
        "python": "3.11.2 (/usr/bin/python3)",
    }
    text = page({"date": "2026-01-01", "machine": machine, "image": "small", "bytes": 5000, "rows": rows})
    assert ratios({str(one["name"]): one for one in rows}) == [
        ("slim from engine to engine, of `docker save | docker load`", 0.25)
    ]
    assert "| slim from engine to engine, of `docker save \\| docker load` | 0.25 |" in text
    assert "| `docker save \\| docker load` | 40.0 | 10 |" in text
    assert "| `deadweight apply`, as it is | 1.00 | 10 | 1,234 |" in text
    assert "2 cores (P), 8 GB of memory" in text
