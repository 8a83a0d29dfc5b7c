"""What can go wrong, as exceptions that know their HTTP status.

TruthgraphError
├── BadInput              422
├── NotFound              404
├── DatabaseUnavailable   503
├── InferenceUnavailable  503  there is no inference, or it cannot be reached
└── InferenceFailed       502  the remote answers, but not as it should
"""


class TruthgraphError(Exception):
    """Has a message for the client: what went wrong and what to do."""

    status = 500
    code = "internal"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds after which asking again makes sense, where that is known."""


class BadInput(TruthgraphError):
    """The request asks for what it may not."""

    status = 422
    code = "bad_input"


class NotFound(TruthgraphError):
    """There is no such thing."""

    status = 404
    code = "not_found"


class DatabaseUnavailable(TruthgraphError):
    """The database cannot be reached, written or brought to the current schema."""

    status = 503
    code = "database_unavailable"


class InferenceUnavailable(TruthgraphError):
    """No model can be asked, here or elsewhere."""

    status = 503
    code = "inference_unavailable"


class InferenceFailed(TruthgraphError):
    """The remote inference service gave an answer that is none."""

    status = 502
    code = "inference_failed"
