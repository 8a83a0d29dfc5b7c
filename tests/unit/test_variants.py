"""bench/variants.py: how answers are compared, and the page that is written from records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import phase_engine
import pytest
from variant_accuracy import compared, packed
from variant_page import WHAT, page
from variant_shapes import variants

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "docs/evidence/variants"


def _answers(*vectors: list[float], labels: str = "en", probability: float = 0.5) -> dict[str, Any]:
    return {
        "vectors": [packed(vector) for vector in vectors],
        "labels": list(labels),
        "probabilities": [[probability, 0.25, 0.25]] * len(labels),
        "right": 1,
        "verdicts": list(labels),
    }


def test_answers_that_are_the_same() -> None:
    found = compared(_answers([0.6, 0.8], [1.0, 0.0]), _answers([0.6, 0.8], [1.0, 0.0]))
    assert found["least_cosine"] == pytest.approx(1)
    assert (found["largest_difference"], found["largest_probability_difference"]) == (0, 0)
    assert (found["sentences"], found["judgements"], found["judgements_agree"], found["verdicts_agree"]) == (2, 2, 2, 2)


def test_the_worst_of_all_counts() -> None:
    before = _answers([0.6, 0.8], [1.0, 0.0], labels="enc")
    after = _answers([0.6, 0.8], [0.8, 0.6], labels="een", probability=0.25)
    found = compared(before, after)
    assert found["least_cosine"] == pytest.approx(0.8)
    assert found["largest_difference"] == pytest.approx(0.6)
    assert found["largest_probability_difference"] == 0.25
    assert (found["judgements_agree"], found["verdicts_agree"]) == (1, 1)


def test_numbers_of_single_precision_are_kept_to_the_bit() -> None:
    one = 0.10000000149011612  # the float nearest to 0.1
    assert compared(_answers([one, 1.0]), _answers([one, 1.0]))["largest_difference"] == 0
    assert compared(_answers([one, 1.0]), _answers([one + 2**-27, 1.0]))["largest_difference"] == 2**-27


def _record(name: str, size: int, milliseconds: float, difference: float) -> dict[str, Any]:
    times = {"count": 200, "p50_ms": milliseconds, "p95_ms": milliseconds * 2}
    return {
        "name": name,
        "command": f"make {name}",
        "bytes": size,
        "compressed": {"gzip": size // 2, "zstd": size // 3},
        "model_bytes": 90_000_000 if size > 3_970_000_000 else 45_000_000 if size > 3_000_000_000 else 1_000_000,
        "owners": [{"name": "torch 2.13.0", "bytes": size // 2}],
        "busy": name == "int8",
        "start_seconds": [3.0, 1.0, 2.0],
        "first_answer_seconds": 7.0,
        "peak_bytes": size // 4,
        "latency": {"embed": times, "nli": times, "verify": times},
        "accuracy": {
            "sentences": 64,
            "least_cosine": 1 - difference,
            "largest_difference": difference,
            "largest_probability_difference": difference,
            "judgements": 126,
            "judgements_agree": 126,
            "judgements_right": 100,
            "verdicts": 24,
            "verdicts_agree": 24 if difference < 0.1 else 20,
        },
    }


def test_the_page_says_what_was_measured() -> None:
    sizes = {
        "phase-2": (8_000_000_000, 10.0, 0.0),
        "sm_90": (4_000_000_000, 10.2, 0.0),
        "cpu-slim": (900_000_001, 10.0, 1e-7),
        "cpu-build": (800_000_000, 5.1, 1e-7),
        "api-core": (150_000_000, 12.0, 0.0),
        "ml-inference": (3_900_000_000, 10.0, 0.0),
        "fp16": (3_960_000_000, 30.0, 1e-3),
        "int8": (3_000_000_000, 9.9, 0.2),
    }
    text = page({name: _record(name, *figures) for name, figures in sizes.items()})
    assert "| **sm_90**: for one GPU | 4,000,000,000 | 2.00 GB | 1.33 GB | 2.00 s | 7.0 s | 10.2 / 20.4 ms |" in text
    assert "2.00 s (busy)" in next(line for line in text.splitlines() if line.startswith("| **int8**"))
    assert "50 % smaller than phase-2; its answers are phase-2's to the last bit" in text
    assert "on a CPU it is 2.0 times as fast" in " ".join(text.split())
    assert "On a CPU it is 2.9 times as slow" in " ".join(text.split())
    assert "20 of 24 verdicts are the same" in text
    assert "**fp16**: the model has 45.0 MB in place of 90.0 MB" in text
    assert "1.1% of the image: it pays where models are large" in " ".join(text.split())
    assert "longer than from ml-inference itself" in text
    assert "2.0 ms longer" in " ".join(text.split())
    assert "- cpu-slim at most 900.0 MB: 900.0 MB, missed by 1 bytes." in text
    assert "- api-core at most 200.0 MB: 150.0 MB, met." in text
    assert "50.0 MB larger than sm_90" in " ".join(text.split())
    assert "$" not in text


def test_every_image_has_its_place_on_the_page() -> None:
    assert [tag for variant in variants().values() for tag in variant.tags] == list(WHAT)


@pytest.mark.skipif(
    not (ROOT / "docs/variants.md").exists(), reason="not every variant was measured yet: make variants"
)
def test_the_page_is_written_from_the_records() -> None:
    records = {name: json.loads((RECORDS / f"{name}.json").read_text()) for name in WHAT}
    kept = (ROOT / "docs/variants.md").read_text()
    assert page(records) == kept, "run: make variants"


@pytest.mark.parametrize(("idle", "others"), [(600, False), (560, False), (500, True), (0, True)])
def test_a_machine_is_busy_where_its_processors_are(idle: int, others: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two processors for three seconds, in hundredths.
    readings = iter([(10_000, 4_000), (10_600, 4_000 + idle)])
    monkeypatch.setattr(phase_engine, "_processor_time", lambda: next(readings))
    assert phase_engine.busy(0) is others


def test_processors_times_are_read() -> None:
    whole, idle = phase_engine._processor_time()
    assert 0 < idle <= whole
