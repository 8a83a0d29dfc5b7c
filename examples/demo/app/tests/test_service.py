"""The service's own tests; they lie in the image because the Dockerfile copies everything."""

from factcheck_demo.main import app
from fastapi.testclient import TestClient

client = TestClient(app)


def test_health() -> None:
    assert client.get("/health").json()["status"] == "ok"


def test_the_most_similar_claim_comes_first() -> None:
    for text in ("the moon is made of cheese", "water boils at 100 degrees"):
        assert client.post("/claims", json={"text": text}).status_code == 201
    answer = client.post("/check", json={"text": "is the moon cheese", "limit": 1}).json()
    assert [text for _, text in answer] == ["the moon is made of cheese"]
