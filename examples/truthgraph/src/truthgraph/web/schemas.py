"""What clients send and get."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from truthgraph.inference.circuit import CircuitState
from truthgraph.inference.interface import Judgement, Label, Mode
from truthgraph.retrieval.hybrid import Found, Hit
from truthgraph.storage.tables import Claim, Finding, StoredText, Verdict


def _storable(text: str) -> str:
    if "\0" in text:  # PostgreSQL stores any character but this one
        raise ValueError("the character NUL is not allowed")
    return text


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_storable)]
Source = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500), AfterValidator(_storable)]
Kind = Literal["evidence", "claims"]


class Sent(BaseModel):
    """Sent by clients: a name that we do not know is an error, and not a wish that is passed over."""

    model_config = ConfigDict(extra="forbid")


class NewText(Sent):
    """A claim or a piece of evidence."""

    text: Text
    source: Source = ""


class EmbedRequest(Sent):
    """Texts to embed."""

    texts: list[Text] = Field(min_length=1)


class PairSent(Sent):
    """Does the premise say that the hypothesis is true?"""

    premise: Text
    hypothesis: Text


class NliRequest(Sent):
    """Pairs to judge."""

    pairs: list[PairSent] = Field(min_length=1)


class SearchRequest(Sent):
    """What to look for."""

    query: Text
    kind: Kind = "evidence"
    limit: int = Field(default=10, ge=1, le=100)


class Problem(BaseModel):
    """Every error has this shape."""

    error: str
    detail: str


class About(BaseModel):
    """What this is."""

    name: str
    version: str
    description: str
    docs: str


class InferenceState(BaseModel):
    """Where inference comes from, and why there is none now."""

    mode: Mode
    reason: str | None
    circuit: CircuitState | None = Field(
        description="whether questions go through to the remote service; null where there is none"
    )


class DatabaseState(BaseModel):
    """Which database, and why it cannot be used."""

    kind: str
    reason: str | None


class Health(BaseModel):
    """`alive` is true in every answer; `ready` says whether requests can be served."""

    alive: Literal[True] = True
    ready: bool
    version: str
    database: DatabaseState
    inference: InferenceState


class TextAnswer(BaseModel):
    """A stored claim or piece of evidence."""

    id: int
    text: str
    source: str
    created_at: datetime
    embedding_model: str | None = Field(description="null until the text has a vector")

    @classmethod
    def of(cls, row: StoredText) -> "TextAnswer":
        """From its row."""
        return cls(
            id=row.id,
            text=row.text,
            source=row.source,
            created_at=row.created_at,
            embedding_model=row.embedding_model,
        )


class ClaimPage(BaseModel):
    """Some claims, and where the next ones begin."""

    claims: list[TextAnswer]
    next: int | None = Field(description="the value of `after` for the next page; null on the last")

    @classmethod
    def of(cls, rows: list[Claim], limit: int) -> "ClaimPage":
        """From one row more than the page has, if there is one."""
        page = rows[:limit]
        return cls(claims=[TextAnswer.of(row) for row in page], next=page[-1].id if len(rows) > limit else None)


class EmbedAnswer(BaseModel):
    """Unit vectors, in the order of the texts."""

    model: str
    dimensions: int
    vectors: list[list[float]]


class Probabilities(BaseModel):
    """They add up to one."""

    entailment: float
    neutral: float
    contradiction: float


class NliResult(BaseModel):
    """The likeliest label and all probabilities."""

    label: Label
    probabilities: Probabilities

    @classmethod
    def of(cls, judgement: Judgement) -> "NliResult":
        """From a judgement."""
        return cls(
            label=judgement.label,
            probabilities=Probabilities(
                entailment=judgement.entailment,
                neutral=judgement.neutral,
                contradiction=judgement.contradiction,
            ),
        )


class NliAnswer(BaseModel):
    """Judgements in the order of the pairs; `model` says what made them."""

    model: str
    results: list[NliResult]


class SearchHit(BaseModel):
    """A text that was found: its fused score, its rank by words and by vector, its cosine similarity to the query."""

    id: int
    text: str
    source: str
    score: float
    word_rank: int | None
    vector_rank: int | None
    similarity: float | None

    @classmethod
    def of(cls, hit: Hit) -> "SearchHit":
        """From a hit."""
        return cls(
            id=hit.row.id,
            text=hit.row.text,
            source=hit.row.source,
            score=hit.score,
            word_rank=hit.word_rank,
            vector_rank=hit.vector_rank,
            similarity=hit.similarity,
        )


class SearchAnswer(BaseModel):
    """What was found, the best first; `reason` says why only words were compared."""

    mode: Literal["hybrid", "words"]
    model: str | None
    reason: str | None
    results: list[SearchHit]

    @classmethod
    def of(cls, found: Found) -> "SearchAnswer":
        """From what a search found."""
        return cls(
            mode="words" if found.model is None else "hybrid",
            model=found.model,
            reason=found.reason,
            results=[SearchHit.of(hit) for hit in found.hits],
        )


class FindingAnswer(BaseModel):
    """What one piece of evidence says about the claim."""

    evidence_id: int
    text: str
    source: str
    relevance: float
    nli: NliResult

    @classmethod
    def of(cls, finding: Finding) -> "FindingAnswer":
        """From its row."""
        return cls(
            evidence_id=finding.evidence_id,
            text=finding.evidence.text,
            source=finding.evidence.source,
            relevance=finding.relevance,
            nli=NliResult.of(Judgement(finding.entailment, finding.neutral, finding.contradiction)),
        )


class Scores(BaseModel):
    """They add up to one."""

    supported: float
    refuted: float
    conflicting: float
    not_enough_evidence: float


class VerdictAnswer(BaseModel):
    """What the evidence says about a claim; `nli_model` says what judged it, null where there was nothing to judge."""

    claim_id: int
    label: Literal["supported", "refuted", "conflicting", "not_enough_evidence"]
    confidence: float
    scores: Scores
    nli_model: str | None
    embedding_model: str
    created_at: datetime
    findings: list[FindingAnswer]

    @classmethod
    def of(cls, verdict: Verdict) -> "VerdictAnswer":
        """From its row."""
        return cls.model_validate(
            {
                "claim_id": verdict.claim_id,
                "label": verdict.label,
                "confidence": verdict.confidence,
                "scores": {name: getattr(verdict, name) for name in Scores.model_fields},
                "nli_model": verdict.nli_model,
                "embedding_model": verdict.embedding_model,
                "created_at": verdict.created_at,
                "findings": [FindingAnswer.of(finding) for finding in verdict.findings],
            }
        )
