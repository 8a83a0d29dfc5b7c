"""The application: `uvicorn truthgraph.main:app`. Importing it connects to nothing and loads no model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from anyio import to_thread
from fastapi import FastAPI

from truthgraph import __version__, logs
from truthgraph.errors import DatabaseUnavailable
from truthgraph.inference.interface import Inference
from truthgraph.service import Service
from truthgraph.settings import Settings
from truthgraph.web import errors, routes
from truthgraph.web.access_log import AccessLog
from truthgraph.web.limits import LimitBody, LimitConcurrency

log = structlog.get_logger()


def create_app(settings: Settings | None = None, inference: Inference | None = None) -> FastAPI:
    """An application by these settings, or by the environment's; tests bring an inference of their own."""
    settings = settings or Settings()
    service = Service.of(settings, inference)
    app = FastAPI(
        title="truthgraph",
        version=__version__,
        description="Checks claims against stored evidence.",
        lifespan=_lifespan,
    )
    app.state.service = service
    errors.register(app)
    routes.register(app)
    # The last one added is the outermost.
    app.add_middleware(LimitConcurrency, most=settings.max_concurrency)
    app.add_middleware(LimitBody, most=settings.max_body_bytes)
    app.add_middleware(AccessLog)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    logs.configure(service.settings)
    log.info("starting", version=__version__, inference=service.inference.mode, reason=service.inference.reason)
    try:
        await to_thread.run_sync(service.database.prepare)
    except DatabaseUnavailable as error:
        # Alive, and not ready: /health says so, and every request tries again.
        log.error("not ready", reason=str(error))  # noqa: TRY400  # the reason says all; no trace is needed
    yield
    service.inference.close()
    service.database.close()


app = create_app()
