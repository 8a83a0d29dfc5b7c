"""The service's routes."""

from fastapi import FastAPI
from pydantic import BaseModel, Field

from factcheck_demo import __version__, similarity, store

app = FastAPI(title="factcheck-demo", version=__version__)


class NewClaim(BaseModel):
    """What a client sends to store a claim."""

    text: str = Field(min_length=1, max_length=2000)
    source: str = Field(default="", max_length=200)


class Question(BaseModel):
    """What a client sends to find or embed something."""

    text: str = Field(min_length=1, max_length=2000)
    limit: int = Field(default=5, ge=1, le=100)


@app.get("/health")
def health() -> dict[str, str]:
    """Up, and which version."""
    return {"status": "ok", "version": __version__}


@app.post("/claims", status_code=201)
def add_claim(claim: NewClaim) -> dict[str, int]:
    """Store a claim."""
    return {"id": store.add(claim.text, claim.source)}


@app.get("/claims")
def list_claims() -> list[str]:
    """Every stored claim."""
    return store.texts()


@app.post("/embed")
def embed(question: Question) -> list[float]:
    """The vector of a text."""
    vector: list[float] = similarity.embed([question.text])[0].tolist()
    return vector


@app.post("/check")
def check(question: Question) -> list[tuple[float, str]]:
    """The stored claims most like a text."""
    return similarity.rank(question.text, store.texts())[: question.limit]
