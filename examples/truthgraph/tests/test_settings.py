"""Settings: read from the environment, checked at start."""

import pytest
from pydantic import ValidationError
from truthgraph.settings import Settings


def test_no_environment_is_needed() -> None:
    settings = Settings()
    assert settings.database_url == "sqlite:///truthgraph.db"
    assert settings.ml_url is None


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite:////data/x.db")
    monkeypatch.setenv("TRUTHGRAPH_NLI_MODEL", "some/model")
    monkeypatch.setenv("TRUTHGRAPH_MAX_BATCH", "5")
    settings = Settings()
    assert (settings.database_url, settings.nli_model, settings.max_batch) == ("sqlite:////data/x.db", "some/model", 5)


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "TRUTHGRAPH_ML_URL", "TRUTHGRAPH_NLI_MODEL", "TRUTHGRAPH_MAX_BATCH"):
        monkeypatch.setenv(name, "")
    assert Settings().model_dump() == Settings().model_dump() | {"ml_url": None, "nli_model": None, "max_batch": 64}


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_by_any_of_its_names(scheme: str) -> None:
    settings = Settings(database_url=f"{scheme}://me:p%40ss@db:5433/truth")
    assert settings.database_url == "postgresql+psycopg://me:p%40ss@db:5433/truth"


@pytest.mark.parametrize("url", ["mysql://me:secret@db/x", "me:secret@db", "sqlite://", "sqlite:///:memory:"])
def test_other_databases_are_refused_and_no_password_is_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(ValidationError, match="DATABASE_URL") as raised:
        Settings()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAX_CONCURRENCY", "40"), ("MAX_BODY_BYTES", "0"), ("ML_URL", "nowhere"), ("DEVICE", "tpu"), ("LOG_LEVEL", "x")],
)
def test_values_out_of_range_are_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"TRUTHGRAPH_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()
