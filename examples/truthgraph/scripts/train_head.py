"""Train the bundled head: python scripts/train_head.py (needs the extra `ml`; takes some minutes on two cores).

It embeds pairs made from templates, fits a multinomial logistic regression, measures it on frames of templates that it
has not seen, and writes src/truthgraph/inference/head.json. Two runs on one machine write the same bytes.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from templates import FRAMES, LabelledPair, pairs
from truthgraph.inference.head import features
from truthgraph.inference.interface import LABELS
from truthgraph.inference.local import LocalInference
from truthgraph.settings import DEFAULT_EMBEDDING_MODEL, Settings
from truthgraph.storage.types import Vector

HEAD = Path(__file__).parents[1] / "src/truthgraph/inference/head.json"
STRENGTHS = (3e-4, 1e-3, 3e-3)
"""Of regularisation: the one is taken that does best on unseen frames."""


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=200, help="pairs of each label for each frame")
    parser.add_argument("--out", type=Path, default=HEAD)
    arguments = parser.parse_args()

    made = list(dict.fromkeys(pairs(arguments.each)))
    rows, labels, frames = _features(made), _labels(made), np.array([pair.frame for pair in made])
    accuracies = {strength: _on_unseen_frames(rows, labels, frames, strength) for strength in STRENGTHS}
    strength = max(accuracies, key=lambda one: accuracies[one])
    for one, accuracy in accuracies.items():
        print(f"C={one:g}: {accuracy:.3f} of the pairs of unseen frames are right")
    weights, intercepts = _fit(rows, labels, strength)

    content = {
        "description": (
            f"truthgraph head: logistic regression over embeddings of {DEFAULT_EMBEDDING_MODEL}, "
            f"trained on {len(made)} templated pairs; not an NLI model"
        ),
        "embedding_model": DEFAULT_EMBEDDING_MODEL,
        "pairs": len(made),
        "frames": len(FRAMES),
        "accuracy_on_unseen_frames": round(accuracies[strength], 3),
        "labels": LABELS,
        "intercepts": _rounded(intercepts),
        "weights": [_rounded(row) for row in weights],
    }
    arguments.out.write_text(json.dumps(content) + "\n", "utf-8")
    print(f"{arguments.out}: {len(made)} pairs, C={strength:g}")


def _features(made: list[LabelledPair]) -> Any:
    """The head's features of each pair; every sentence is embedded once."""
    inference = LocalInference(Settings(device="cpu"))
    sentences = sorted({text for pair in made for text in (pair.premise, pair.hypothesis)})
    vectors: dict[str, Vector] = dict(zip(sentences, inference.embed(sentences).vectors, strict=True))
    return features([vectors[pair.premise] for pair in made], [vectors[pair.hypothesis] for pair in made])


def _labels(made: list[LabelledPair]) -> Any:
    numbers: dict[str, int] = {label: number for number, label in enumerate(LABELS)}
    return np.array([numbers[pair.label] for pair in made])


def _on_unseen_frames(rows: Any, labels: Any, frames: Any, strength: float) -> float:
    """How many pairs are right when each frame in turn is left out of the training and asked for."""
    right = 0
    for frame in np.unique(frames):
        left_out = frames == frame
        weights, intercepts = _fit(rows[~left_out], labels[~left_out], strength)
        right += int(np.sum(np.argmax(rows[left_out] @ weights.T + intercepts, axis=1) == labels[left_out]))
    return right / len(labels)


def _fit(rows: Any, labels: Any, strength: float) -> tuple[Any, Any]:
    """Weights and intercepts for the features as they are; inside, they are brought to one scale."""
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    model = LogisticRegression(C=strength, max_iter=2000).fit((rows - mean) / scale, labels)
    weights = model.coef_ / scale
    return weights, model.intercept_ - weights @ mean


def _rounded(row: Any) -> list[float]:
    return [float(f"{value:.6g}") for value in row]


if __name__ == "__main__":
    main()
