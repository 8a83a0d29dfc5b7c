"""How an image of a recipe runs: environment, health check and labels, whoever builds it."""

from __future__ import annotations

from typing import Final

from deadweight.build.places import APP_LIB, UID, VENV
from deadweight.build.recipe import Recipe

EPOCH: Final = 315_532_800
"""1980-01-01, the time of all files where SOURCE_DATE_EPOCH is not set: zip files know no year before."""
ENVIRONMENT: Final = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
USER_BY_NUMBER: Final = f"{UID}:{UID}"
"""Kubernetes' runAsNonRoot cannot tell who a name is."""
INTERVAL, TIMEOUT, START_PERIOD, RETRIES = 30, 5, 60, 3
"""Of the health check, in seconds."""


def path_entries(recipe: Recipe) -> list[str]:
    """What comes before the base's PATH."""
    return [f"{VENV}/bin", *([f"{APP_LIB}/bin"] if recipe.installable else [])]


def image_labels(recipe: Recipe) -> dict[str, str]:
    """What the image is, as OCI's annotations name it."""
    labels = {"org.opencontainers.image.title": recipe.name}
    if recipe.version:
        labels["org.opencontainers.image.version"] = recipe.version
    return labels


def health_words(recipe: Recipe, port: int, *, curl: bool) -> list[str]:
    """The command of the health check: by curl where it is there, else by Python.

    Where no route for it is known any answer will do, an error too.
    """
    url = f"http://127.0.0.1:{port}{recipe.health or '/'}"
    if curl:
        fail = ["--fail"] if recipe.health else []
        return ["curl", "--silent", "--show-error", "--output", "/dev/null", *fail, url]
    if recipe.health:
        return ["python", "-c", f"import urllib.request as r; r.urlopen('{url}', timeout=4)"]
    code = f"import http.client as h; c = h.HTTPConnection('127.0.0.1', {port}, timeout=4); c.request('GET', '/')"
    return ["python", "-c", f"{code}; c.getresponse()"]
