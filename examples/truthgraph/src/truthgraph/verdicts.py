"""Verdicts: what the stored evidence says about a claim."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from truthgraph.inference.interface import Inference, Judgement, Pair
from truthgraph.retrieval.hybrid import search_with_vectors
from truthgraph.settings import Settings
from truthgraph.storage import texts
from truthgraph.storage.database import Database
from truthgraph.storage.tables import Evidence, Finding, Verdict


@dataclass(frozen=True)
class Outcome:
    """Four probabilities that add up to one."""

    supported: float
    refuted: float
    conflicting: float
    not_enough_evidence: float

    @property
    def label(self) -> str:
        """The likeliest; of equals the one that says less."""
        scores = asdict(self)
        return max(reversed(scores), key=lambda name: scores[name])

    @property
    def confidence(self) -> float:
        """The likeliest one's probability."""
        return float(max(asdict(self).values()))


def aggregate(findings: Sequence[tuple[float, Judgement]]) -> Outcome:
    """What judgements of several pieces of evidence say together, each with its relevance from 0 to 1.

    Evidence whose likeliest label is entailment speaks for the claim, with relevance times probability as its chance
    to be right; contradiction against it in the same way; neutral evidence says nothing. `speaks for` holds if any
    such piece is right, taken as independent (noisy-or), `speaks against` likewise, and the four ways in which both
    can fall out are the outcome.
    """
    wrong_for = wrong_against = 1.0
    for relevance, judgement in findings:
        if judgement.label == "entailment":
            wrong_for *= 1 - relevance * judgement.entailment
        elif judgement.label == "contradiction":
            wrong_against *= 1 - relevance * judgement.contradiction
    speaks_for, speaks_against = 1 - wrong_for, 1 - wrong_against
    return Outcome(
        supported=speaks_for * wrong_against,
        refuted=wrong_for * speaks_against,
        conflicting=speaks_for * speaks_against,
        not_enough_evidence=wrong_for * wrong_against,
    )


def verify(database: Database, inference: Inference, settings: Settings, claim_id: int) -> Verdict:
    """Find evidence for a claim, judge it, and store the verdict."""
    with database.reading() as session:
        claim = texts.get_claim(session, claim_id)
    hits, embedding_model = search_with_vectors(
        database, inference, Evidence, claim.text, settings.evidence_per_claim, settings.backfill
    )
    relevant = [
        (hit.row, min(hit.similarity, 1.0))
        for hit in hits
        if hit.similarity is not None and hit.similarity >= settings.min_relevance
    ]
    nli_model, judgements = None, list[Judgement]()
    if relevant:
        answer = inference.judge([Pair(premise=row.text, hypothesis=claim.text) for row, _ in relevant])
        nli_model, judgements = answer.model, answer.rows
    relevances = [relevance for _, relevance in relevant]
    outcome = aggregate(list(zip(relevances, judgements, strict=True)))
    verdict = Verdict(
        claim_id=claim_id,
        label=outcome.label,
        confidence=outcome.confidence,
        **asdict(outcome),
        nli_model=nli_model,
        embedding_model=embedding_model,
        findings=[
            Finding(position=position, evidence_id=row.id, relevance=relevance, **asdict(judgement))
            for position, ((row, relevance), judgement) in enumerate(zip(relevant, judgements, strict=True), start=1)
        ],
    )
    with database.writing() as session:
        session.add(verdict)
    with database.reading() as session:
        return texts.latest_verdict(session, claim_id)
