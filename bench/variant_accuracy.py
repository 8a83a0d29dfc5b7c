"""What a variant answers to the same questions as the original, and how far that is from the original's answers."""

from __future__ import annotations

import base64
import json
import math
import runpy
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phase_shapes import SERVICE
from variant_run import Server

SENTENCES = 64
PAIRS_OF_EACH = 3
CLAIMS = 24
BATCH = 64
"""What the service takes at once."""


def answers(server: Server) -> dict[str, Any]:
    """Vectors, judgements and verdicts on questions that are always the same."""
    pairs = list(runpy.run_path(str(SERVICE / "scripts/templates.py"))["pairs"](PAIRS_OF_EACH, seed=7))
    sentences = sorted({text for pair in pairs for text in (pair.premise, pair.hypothesis)})
    step = len(sentences) // SENTENCES
    vectors = server.ask("/embed", {"texts": sentences[::step][:SENTENCES]})["vectors"]
    judgements: list[dict[str, Any]] = []
    for start in range(0, len(pairs), BATCH):
        asked = [{"premise": pair.premise, "hypothesis": pair.hypothesis} for pair in pairs[start : start + BATCH]]
        judgements += server.ask("/nli", {"pairs": asked})["results"]
    verdicts = []
    chosen = pairs[:: len(pairs) // CLAIMS][:CLAIMS]
    for pair in chosen:
        server.ask("/evidence", {"text": pair.premise})
    for pair in chosen:
        claim = server.ask("/claims", {"text": pair.hypothesis})["id"]
        verdicts.append(server.ask(f"/claims/{claim}/verify", {})["label"])
    return {
        "vectors": [packed(vector) for vector in vectors],
        "labels": [row["label"] for row in judgements],
        "probabilities": [list(row["probabilities"].values()) for row in judgements],
        "right": sum(row["label"] == pair.label for row, pair in zip(judgements, pairs, strict=True)),
        "verdicts": verdicts,
    }


def read(path: Path) -> dict[str, Any]:
    """Answers that `write` wrote."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def write(path: Path, found: dict[str, Any]) -> None:
    """Keeps answers for a later run."""
    path.write_text(json.dumps(found, indent=1) + "\n")


def compared(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The least cosine, the largest differences, and how often labels agree."""
    pairs = [(_unpacked(one), _unpacked(other)) for one, other in zip(before["vectors"], after["vectors"], strict=True)]
    rows = list(zip(before["probabilities"], after["probabilities"], strict=True))
    return {
        "sentences": len(pairs),
        "least_cosine": min(_cosine(one, other) for one, other in pairs),
        "largest_difference": max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True)),
        "judgements": len(rows),
        "judgements_agree": _equal(before["labels"], after["labels"]),
        "largest_probability_difference": max(
            abs(a - b) for one, other in rows for a, b in zip(one, other, strict=True)
        ),
        "judgements_right": after["right"],
        "verdicts": len(before["verdicts"]),
        "verdicts_agree": _equal(before["verdicts"], after["verdicts"]),
    }


def _equal(before: Sequence[str], after: Sequence[str]) -> int:
    return sum(one == other for one, other in zip(before, after, strict=True))


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


def packed(vector: Sequence[float]) -> str:
    """The service's numbers are of single precision, so nothing is lost."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _unpacked(text: str) -> tuple[float, ...]:
    content = base64.b64decode(text)
    return struct.unpack(f"<{len(content) // 4}f", content)
