"""Claims and evidence: stored and read, over both databases; what is refused."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from conftest import MakeClient
from fastapi.testclient import TestClient
from stub import StubInference


def test_a_claim_comes_back_as_it_was_sent(core: TestClient) -> None:
    text = "Die Erde ist rund — 地球 🌍 'quoted' \"twice\" %s"
    created = core.post("/claims", json={"text": f"  {text}\n", "source": "a friend"})
    assert created.status_code == 201
    claim = created.json()
    assert claim["text"] == text
    assert claim["source"] == "a friend"
    assert claim["embedding_model"] is None
    made = datetime.fromisoformat(claim["created_at"])
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=1)
    assert core.get(f"/claims/{claim['id']}").json() == claim
    assert core.get("/claims").json() == {"claims": [claim], "next": None}


def test_claims_are_listed_in_pages(core: TestClient) -> None:
    for number in range(5):
        core.post("/claims", json={"text": f"claim {number}"})
    seen: list[str] = []
    after: int | None = 0
    pages = 0
    while after is not None:
        page = core.get("/claims", params={"after": after, "limit": 2}).json()
        seen += [claim["text"] for claim in page["claims"]]
        after = page["next"]
        pages += 1
    assert seen == [f"claim {number}" for number in range(5)]
    assert pages == 3


def test_a_full_last_page_has_no_next(core: TestClient) -> None:
    for number in range(2):
        core.post("/claims", json={"text": f"claim {number}"})
    assert core.get("/claims", params={"limit": 2}).json()["next"] is None


def test_evidence_is_stored(core: TestClient) -> None:
    created = core.post("/evidence", json={"text": "Water is wet."})
    assert created.status_code == 201
    assert created.json()["id"] == 1
    assert core.get("/claims").json()["claims"] == []


def test_texts_get_their_vector_at_once_where_there_is_inference(client: TestClient, inference: StubInference) -> None:
    assert client.post("/evidence", json={"text": "Water is wet."}).json()["embedding_model"] == "stub"
    assert inference.embedded == ["Water is wet."]


def test_missing_claims(core: TestClient) -> None:
    for method, path in (("GET", "/claims/7"), ("GET", "/claims/7/verdict")):
        answer = core.request(method, path)
        assert answer.status_code == 404
        assert answer.json() == {"error": "not_found", "detail": "there is no claim 7"}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ('{"text": ""}', "body.text: String should have at least 1 character"),
        ('{"text": " \\n "}', "body.text: String should have at least 1 character"),
        ('{"text": 3}', "body.text: Input should be a valid string"),
        ('{"text": "a\\u0000b"}', "body.text: Value error, the character NUL is not allowed"),
        ('{"text": "\\ud800"}', "body.text: "),
        ('{"text": "a", "txet": "b"}', "body.txet: Extra inputs are not permitted"),
        ('{"text": "a", "source": "' + "s" * 501 + '"}', "body.source: String should have at most 500 characters"),
        ("{}", "body.text: Field required"),
        ("[]", "body: "),
        ('{"text": ', "body."),
        ("", "body: Field required"),
    ],
)
@pytest.mark.parametrize("path", ["/claims", "/evidence"])
def test_bad_input_is_refused_with_a_reason(core: TestClient, path: str, body: str, detail: str) -> None:
    answer = core.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["error"] == "bad_input"
    assert answer.json()["detail"].startswith(detail)
    assert core.get("/claims").json()["claims"] == []


@pytest.mark.parametrize(
    "path", ["/claims/0", "/claims/x", "/claims/99999999999", "/claims?limit=0", "/claims?after=x"]
)
def test_bad_numbers_are_refused(core: TestClient, path: str) -> None:
    answer = core.get(path)
    assert answer.status_code == 422
    assert answer.json()["error"] == "bad_input"


def test_many_faults_are_summed_up(make_client: MakeClient, sqlite_url: str) -> None:
    answer = make_client(sqlite_url).post("/embed", json={"texts": [1] * 9})
    assert answer.json()["detail"].endswith("; and 4 more")


def test_clients_that_write_at_once_do_not_hinder_each_other(core: TestClient) -> None:
    statuses: list[int] = []

    def write(writer: int) -> None:
        for number in range(5):
            statuses.append(core.post("/claims", json={"text": f"{writer}.{number}"}).status_code)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert statuses == [201] * 40
    assert len(core.get("/claims").json()["claims"]) == 40
