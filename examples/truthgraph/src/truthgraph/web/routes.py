"""The eleven routes of the service. They are added to the application itself, so that it lists them one by one."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Query, Request, Response

from truthgraph import __version__, verdicts
from truthgraph.errors import DatabaseUnavailable
from truthgraph.inference.interface import Pair
from truthgraph.retrieval import hybrid, vectors
from truthgraph.service import Service
from truthgraph.storage import texts
from truthgraph.storage.tables import Claim, Evidence, StoredText
from truthgraph.web import schemas
from truthgraph.web.limits import check_batch, check_texts

LARGEST = (1 << 31) - 1
"""The largest number that an id can be."""


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Parts = Annotated[Service, Depends(_service)]
ClaimId = Annotated[int, Path(ge=1, le=LARGEST)]


def about() -> schemas.About:
    """What this is, and where its documentation is."""
    return schemas.About(
        name="truthgraph",
        version=__version__,
        description="Checks claims against stored evidence.",
        docs="/docs",
    )


def health(service: Parts, response: Response) -> schemas.Health:
    """200 where requests can be served, 503 where the process is alive and no more. No model is loaded for it."""
    reason = None
    try:
        service.database.check()
    except DatabaseUnavailable as error:
        reason = str(error)
        response.status_code = 503
    return schemas.Health(
        ready=reason is None,
        version=__version__,
        database=schemas.DatabaseState(kind=service.database.engine.dialect.name, reason=reason),
        inference=schemas.InferenceState(
            mode=service.inference.mode, reason=service.inference.reason, circuit=service.inference.circuit
        ),
    )


def create_claim(service: Parts, sent: schemas.NewText) -> schemas.TextAnswer:
    """Store a claim."""
    return _store(service, Claim, sent)


def list_claims(
    service: Parts,
    after: Annotated[int, Query(ge=0, le=LARGEST)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> schemas.ClaimPage:
    """Claims in the order in which they came."""
    with service.database.reading() as session:
        return schemas.ClaimPage.of(texts.claims(session, after, limit + 1), limit)


def get_claim(service: Parts, claim_id: ClaimId) -> schemas.TextAnswer:
    """One claim."""
    with service.database.reading() as session:
        return schemas.TextAnswer.of(texts.get_claim(session, claim_id))


def verify_claim(service: Parts, claim_id: ClaimId) -> schemas.VerdictAnswer:
    """Find the evidence nearest to a claim, judge it, and keep the verdict."""
    return schemas.VerdictAnswer.of(verdicts.verify(service.database, service.inference, service.settings, claim_id))


def get_verdict(service: Parts, claim_id: ClaimId) -> schemas.VerdictAnswer:
    """The latest verdict on a claim."""
    with service.database.reading() as session:
        return schemas.VerdictAnswer.of(texts.latest_verdict(session, claim_id))


def create_evidence(service: Parts, sent: schemas.NewText) -> schemas.TextAnswer:
    """Store a piece of evidence."""
    return _store(service, Evidence, sent)


def embed(service: Parts, sent: schemas.EmbedRequest) -> schemas.EmbedAnswer:
    """A unit vector for each text."""
    check_batch(service.settings, sent.texts)
    check_texts(service.settings, *sent.texts)
    answer = service.inference.embed(sent.texts)
    rows = [vector.tolist() for vector in answer.vectors]
    return schemas.EmbedAnswer(model=answer.model, dimensions=len(rows[0]), vectors=rows)


def search(service: Parts, sent: schemas.SearchRequest) -> schemas.SearchAnswer:
    """Evidence or claims nearest to a text, by words and by meaning."""
    check_texts(service.settings, sent.query)
    table: type[StoredText] = Evidence if sent.kind == "evidence" else Claim
    return schemas.SearchAnswer.of(
        hybrid.search(service.database, service.inference, table, sent.query, sent.limit, service.settings.backfill)
    )


def nli(service: Parts, sent: schemas.NliRequest) -> schemas.NliAnswer:
    """Whether each premise entails its hypothesis, contradicts it, or neither."""
    check_batch(service.settings, sent.pairs)
    check_texts(service.settings, *(text for pair in sent.pairs for text in (pair.premise, pair.hypothesis)))
    answer = service.inference.judge([Pair(pair.premise, pair.hypothesis) for pair in sent.pairs])
    return schemas.NliAnswer(model=answer.model, results=[schemas.NliResult.of(row) for row in answer.rows])


def register(app: FastAPI) -> None:
    """Add all routes to the application."""
    errors = {
        404: "There is no such thing",
        413: "The body is too large",
        422: "The input is bad",
        429: "Too many requests are at work",
        502: "The remote inference service failed",
        503: "The database or inference is not there",
    }
    described: dict[int | str, dict[str, Any]] = {
        status: {"model": schemas.Problem, "description": text} for status, text in errors.items()
    }
    app.add_api_route("/", about, methods=["GET"])
    app.add_api_route("/health", health, methods=["GET"], responses={503: {"model": schemas.Health}})
    app.add_api_route("/claims", create_claim, methods=["POST"], status_code=201, responses=described)
    app.add_api_route("/claims", list_claims, methods=["GET"], responses=described)
    app.add_api_route("/claims/{claim_id}", get_claim, methods=["GET"], responses=described)
    app.add_api_route("/claims/{claim_id}/verify", verify_claim, methods=["POST"], responses=described)
    app.add_api_route("/claims/{claim_id}/verdict", get_verdict, methods=["GET"], responses=described)
    app.add_api_route("/evidence", create_evidence, methods=["POST"], status_code=201, responses=described)
    app.add_api_route("/embed", embed, methods=["POST"], responses=described)
    app.add_api_route("/search", search, methods=["POST"], responses=described)
    app.add_api_route("/nli", nli, methods=["POST"], responses=described)


def _store(service: Service, table: type[StoredText], sent: schemas.NewText) -> schemas.TextAnswer:
    check_texts(service.settings, sent.text)
    row = table(text=sent.text, source=sent.source)
    vectors.store(service.database, service.inference, row)
    return schemas.TextAnswer.of(row)
