"""Verdicts: how judgements add up, and the way from a claim to its verdict over both databases."""

import itertools

import pytest
from conftest import MakeClient
from fastapi.testclient import TestClient
from stub import StubInference
from truthgraph.inference.interface import Judgement
from truthgraph.verdicts import Outcome, aggregate

FOR = Judgement(entailment=0.9, neutral=0.05, contradiction=0.05)
AGAINST = Judgement(entailment=0.05, neutral=0.05, contradiction=0.9)
NEUTRAL = Judgement(entailment=0.3, neutral=0.5, contradiction=0.2)
VOLATILE = {"created_at"}


def test_no_evidence_is_not_enough() -> None:
    outcome = aggregate([])
    assert outcome == Outcome(supported=0, refuted=0, conflicting=0, not_enough_evidence=1)
    assert (outcome.label, outcome.confidence) == ("not_enough_evidence", 1)


@pytest.mark.parametrize(
    ("judgements", "label"),
    [
        ([FOR], "supported"),
        ([AGAINST], "refuted"),
        ([NEUTRAL, NEUTRAL], "not_enough_evidence"),
        ([FOR, NEUTRAL], "supported"),
        ([FOR, AGAINST], "conflicting"),
        ([FOR, FOR, AGAINST], "conflicting"),
    ],
)
def test_labels(judgements: list[Judgement], label: str) -> None:
    assert aggregate([(0.9, judgement) for judgement in judgements]).label == label


def test_irrelevant_evidence_decides_nothing() -> None:
    assert aggregate([(0.1, FOR), (0.1, FOR)]).label == "not_enough_evidence"


def test_more_evidence_means_more_confidence() -> None:
    one, two = aggregate([(0.8, FOR)]), aggregate([(0.8, FOR), (0.8, FOR)])
    assert one.confidence == pytest.approx(0.72)
    assert two.confidence == pytest.approx(1 - 0.28**2)


def test_the_four_add_up_to_one_in_any_order() -> None:
    findings = [(0.9, FOR), (0.5, AGAINST), (0.7, NEUTRAL), (1.0, FOR)]
    for order in itertools.permutations(findings):
        outcome = aggregate(order)
        assert outcome.supported + outcome.refuted + outcome.conflicting + outcome.not_enough_evidence == pytest.approx(
            1
        )
        assert outcome.label == aggregate(findings).label


def test_of_equals_the_one_that_says_less() -> None:
    assert Outcome(0.25, 0.25, 0.25, 0.25).label == "not_enough_evidence"


def test_labels_of_judgements() -> None:
    assert [judgement.label for judgement in (FOR, NEUTRAL, AGAINST)] == ["entailment", "neutral", "contradiction"]


def test_a_claim_is_verified(client: TestClient, inference: StubInference) -> None:
    for text in ("The moon is made of rock.", "The moon is not made of cheese.", "Bananas grow in Ecuador."):
        client.post("/evidence", json={"text": text, "source": "a book"})
    claim = client.post("/claims", json={"text": "The moon is made of cheese."}).json()["id"]
    assert client.get(f"/claims/{claim}/verdict").status_code == 404

    answer = client.post(f"/claims/{claim}/verify")
    assert answer.status_code == 200, answer.text
    verdict = answer.json()
    assert verdict["claim_id"] == claim
    assert verdict["nli_model"] == "stub: shared words"
    assert verdict["embedding_model"] == "stub"
    assert sum(verdict["scores"].values()) == pytest.approx(1)
    assert verdict["confidence"] == verdict["scores"][verdict["label"]]
    assert [(finding["text"], finding["nli"]["label"]) for finding in verdict["findings"]] == [
        ("The moon is not made of cheese.", "contradiction"),
        ("The moon is made of rock.", "entailment"),  # the stub knows no better
    ]
    assert verdict["findings"][0]["source"] == "a book"
    assert {pair.hypothesis for pair in inference.judged} == {"The moon is made of cheese."}
    assert client.get(f"/claims/{claim}/verdict").json() == verdict


def test_the_latest_verdict_counts(client: TestClient) -> None:
    claim = client.post("/claims", json={"text": "The sky is blue."}).json()["id"]
    first = client.post(f"/claims/{claim}/verify").json()
    assert (first["label"], first["confidence"], first["nli_model"]) == ("not_enough_evidence", 1, None)
    client.post("/evidence", json={"text": "The sky is blue."})
    second = client.post(f"/claims/{claim}/verify").json()
    assert second["label"] == "supported"
    assert client.get(f"/claims/{claim}/verdict").json() == second


def test_verifying_twice_gives_the_same(client: TestClient) -> None:
    client.post("/evidence", json={"text": "The sky is blue."})
    claim = client.post("/claims", json={"text": "The sky is not blue."}).json()["id"]
    first, second = (client.post(f"/claims/{claim}/verify").json() for _ in range(2))
    assert {key: first[key] for key in first.keys() - VOLATILE} == {
        key: second[key] for key in second.keys() - VOLATILE
    }
    assert first["label"] == "refuted"


def test_irrelevant_evidence_is_not_judged(
    make_client: MakeClient, database_url: str, inference: StubInference
) -> None:
    client = make_client(database_url, inference, min_relevance=0.6)
    client.post("/evidence", json={"text": "The sky is very high above us."})
    claim = client.post("/claims", json={"text": "The sky is blue."}).json()["id"]
    assert client.post(f"/claims/{claim}/verify").json()["findings"] == []
    assert inference.judged == []


def test_a_verdict_looks_at_no_more_evidence_than_is_set(make_client: MakeClient, database_url: str) -> None:
    client = make_client(database_url, StubInference(), evidence_per_claim=2)
    for number in range(4):
        client.post("/evidence", json={"text": f"The sky is blue {number}."})
    claim = client.post("/claims", json={"text": "The sky is blue."}).json()["id"]
    assert len(client.post(f"/claims/{claim}/verify").json()["findings"]) == 2


def test_there_is_no_claim(client: TestClient) -> None:
    assert client.post("/claims/9/verify").status_code == 404


def test_a_claim_without_a_verdict_says_how_to_get_one(client: TestClient) -> None:
    claim = client.post("/claims", json={"text": "The sky is blue."}).json()["id"]
    assert f"POST /claims/{claim}/verify" in client.get(f"/claims/{claim}/verdict").json()["detail"]
