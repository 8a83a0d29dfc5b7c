"""The configuration of an image that is built: the base's, with what the recipe says."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from deadweight.build.base import Base
from deadweight.build.places import APP, APP_LIB, USER, VENV
from deadweight.build.recipe import Recipe
from deadweight.image.model import Image


def make_config(
    image: Image,
    base: Base,
    recipe: Recipe,
    made_by: Sequence[str],
    diff_ids: Sequence[str],
    labels: Mapping[str, str],
    epoch: int,
    *,
    curl: bool,
) -> bytes:
    """The configuration's bytes. `made_by` says what made each layer that the base does not have.

    With `curl` the health check is asked by curl, else by Python.
    """
    moment = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    config: dict[str, Any] = copy.deepcopy(image.config)
    config["created"] = moment
    config["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
    history = config.get("history")
    history = history if isinstance(history, list) else []
    config["history"] = [*history, *({"created": moment, "created_by": line} for line in made_by)]
    run = copy.deepcopy(image.run_config)
    run["Env"] = [f"{name}={value}" for name, value in _environment(image, base, recipe).items()]
    run["User"], run["WorkingDir"] = USER, APP
    if recipe.command:
        run["Cmd"] = list(recipe.command)
        run.pop("Entrypoint", None)  # the base's, which was for another command
    if recipe.port is not None:
        run["ExposedPorts"] = {f"{recipe.port}/tcp": {}}
        run["Healthcheck"] = {
            "Test": _check(recipe.port, recipe.health, curl=curl),
            "Interval": 30 * 10**9,
            "Timeout": 5 * 10**9,
            "StartPeriod": 60 * 10**9,
            "Retries": 3,
        }
    given = run.get("Labels")
    run["Labels"] = {
        **(given if isinstance(given, dict) else {}),
        "deadweight.version": version("deadweight"),
        **labels,
    }
    config["config"] = run
    return json.dumps(config, separators=(",", ":")).encode()


def _environment(image: Image, base: Base, recipe: Recipe) -> dict[str, str]:
    path = [f"{APP_LIB}/bin"] if recipe.installable else []
    return {
        **image.environment,
        "PATH": ":".join([*path, f"{VENV}/bin", base.path]),
        "PYTHONPATH": ":".join(recipe.python_path),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _check(port: int, health: str, *, curl: bool) -> list[str]:
    url = f"http://127.0.0.1:{port}{health or '/'}"
    if curl:
        return ["CMD", "curl", "-sS" if not health else "-fsS", "-o", "/dev/null", url]
    if health:
        return ["CMD", "python", "-c", f"import urllib.request as r; r.urlopen({url!r}, timeout=4)"]
    # Any answer counts, an error too.
    asked = f"h = c.HTTPConnection('127.0.0.1', {port}, timeout=4); h.request('GET', '/'); h.getresponse()"
    return ["CMD", "python", "-c", f"import http.client as c; {asked}"]
