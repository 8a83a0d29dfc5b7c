"""Hybrid search, over both databases."""

import pytest
from conftest import MakeClient
from fastapi.testclient import TestClient
from stub import StubInference
from truthgraph.retrieval.fusion import K, reciprocal_rank
from truthgraph.retrieval.words import MOST, words

EVIDENCE = [
    "The car is red.",
    "The automobile stood in the garage.",
    "Bananas are yellow fruit.",
    "Red wine comes from grapes.",
]


def _fill(client: TestClient, path: str = "/evidence") -> None:
    for text in EVIDENCE:
        assert client.post(path, json={"text": text}).status_code == 201


def _found(client: TestClient, query: str, **more: object) -> list[str]:
    answer = client.post("/search", json={"query": query, **more})
    assert answer.status_code == 200, answer.text
    return [hit["text"] for hit in answer.json()["results"]]


def test_vectors_find_what_words_do_not(client: TestClient) -> None:
    _fill(client)
    answer = client.post("/search", json={"query": "car", "limit": 2}).json()
    assert answer["mode"] == "hybrid"
    assert answer["model"] == "stub"
    first, second = answer["results"]
    assert (first["text"], first["word_rank"], first["vector_rank"]) == (EVIDENCE[0], 1, 1)
    assert (second["text"], second["word_rank"], second["vector_rank"]) == (EVIDENCE[1], None, 2)
    assert first["score"] == pytest.approx(2 / (K + 1))
    assert second["score"] == pytest.approx(1 / (K + 2))
    assert first["similarity"] == pytest.approx(0.5, abs=1e-6)  # one of four words


def test_words_lift_what_vectors_rank_lower(client: TestClient) -> None:
    """Both agree on neither's favourite alone: what both have comes before what one has."""
    _fill(client)
    texts = _found(client, "red automobile")
    assert set(texts[:2]) == {EVIDENCE[0], EVIDENCE[1]}
    assert texts.index(EVIDENCE[3]) < texts.index(EVIDENCE[2])


def test_without_inference_words_alone_are_compared(core: TestClient) -> None:
    _fill(core)
    answer = core.post("/search", json={"query": "yellow banana"}).json()
    assert answer["mode"] == "words"
    assert answer["model"] is None
    assert answer["reason"] == "the test has none"
    assert [(hit["text"], hit["similarity"], hit["vector_rank"]) for hit in answer["results"]] == [
        (EVIDENCE[2], None, None)
    ]


def test_claims_are_searched_apart(client: TestClient) -> None:
    _fill(client, "/claims")
    assert _found(client, "yellow") == []
    assert _found(client, "yellow", kind="claims")[0] == EVIDENCE[2]


def test_the_limit_holds(client: TestClient) -> None:
    _fill(client)
    assert len(_found(client, "red", limit=3)) == 3


def test_texts_from_before_inference_get_their_vectors_at_the_next_search(
    make_client: MakeClient, database_url: str
) -> None:
    _fill(make_client(database_url))
    inference = StubInference()
    later = make_client(database_url, inference)
    assert _found(later, "feline automobile", limit=2)[0] == EVIDENCE[1]
    assert inference.embedded == ["feline automobile", *EVIDENCE]
    assert len(_found(later, "car")) == 4
    assert inference.embedded[5:] == ["car"]


def test_one_search_fills_in_no_more_than_is_set(make_client: MakeClient, database_url: str) -> None:
    _fill(make_client(database_url))
    inference = StubInference()
    later = make_client(database_url, inference, backfill=3)
    _found(later, "car")
    assert inference.embedded[1:] == EVIDENCE[:3]
    _found(later, "car")
    assert inference.embedded[5:] == EVIDENCE[3:]


def test_vectors_of_another_model_are_made_anew_and_never_compared(make_client: MakeClient, database_url: str) -> None:
    _fill(make_client(database_url, StubInference("old", width=16)))
    answer = make_client(database_url, StubInference("new", width=32)).post("/search", json={"query": "car"}).json()
    assert answer["model"] == "new"
    assert len(answer["results"]) == 4
    assert all(hit["vector_rank"] for hit in answer["results"])
    blocked = make_client(database_url, StubInference("third", width=32), backfill=0)
    results = blocked.post("/search", json={"query": "car"}).json()["results"]
    assert [(hit["text"], hit["similarity"]) for hit in results] == [(EVIDENCE[0], None)]


def test_a_model_that_changed_its_width_under_its_name_is_passed_over(
    make_client: MakeClient, database_url: str
) -> None:
    _fill(make_client(database_url, StubInference("same", width=16)))
    answer = make_client(database_url, StubInference("same", width=32)).post("/search", json={"query": "car"})
    assert [(hit["text"], hit["similarity"]) for hit in answer.json()["results"]] == [(EVIDENCE[0], None)]


@pytest.mark.parametrize(
    "query",
    [
        '"',
        "'; DROP TABLE evidence; --",
        "car AND",
        "NOT car",
        "NEAR(car red)",
        "car*",
        "text: car",
        "-car",
        "^car {red}",
        "(((",
        "a & | ! b <-> c",
        "or",
        "OR or Or",
        "\\",
        "%",
        "???",
        "the",
        "https://example.com/a?b=c&d=e",
        "naïve café İstanbul straße 地球",
        "x" * 4000,
        "_a_ __",
    ],
)
def test_no_text_is_syntax(core: TestClient, query: str) -> None:
    _fill(core)
    answer = core.post("/search", json={"query": query})
    assert answer.status_code == 200, answer.text
    assert len(_found(core, "car wine banana garage")) == 4


def test_operators_are_words_like_others(core: TestClient) -> None:
    _fill(core)
    assert EVIDENCE[0] in _found(core, "NOT car")
    assert _found(core, "car NOT banana") == _found(core, "car banana")


def test_words() -> None:
    assert words("The car, the CAR and 2 cars!") == ["The", "car", "and", "2", "cars"]
    assert words('"-- ()*') == []
    assert len(words(" ".join(map(str, range(1000))))) == MOST


def test_fusion() -> None:
    assert reciprocal_rank([]) == []
    fused = reciprocal_rank([[1, 2, 3], [3, 4]])
    assert [item for item, _ in fused] == [3, 1, 2, 4]  # 2 and 4 are equal: the lower number first
    assert fused[0][1] == pytest.approx(1 / (K + 3) + 1 / (K + 1))
