"""The configuration of an image that is built: the base's, with what the recipe says."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from deadweight.build.base import Base
from deadweight.build.places import APP
from deadweight.build.recipe import Recipe
from deadweight.build.running import (
    ENVIRONMENT,
    INTERVAL,
    RETRIES,
    START_PERIOD,
    TIMEOUT,
    USER_BY_NUMBER,
    health_words,
    image_labels,
    path_entries,
)
from deadweight.image.model import Image
from deadweight.image.transports.names import RESULT, SOURCE, SOURCE_MANIFEST, SOURCE_NAME, result_of


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
    run["User"], run["WorkingDir"] = USER_BY_NUMBER, APP
    if recipe.command:
        run["Cmd"] = list(recipe.command)
        for other in ("Entrypoint", "Healthcheck"):  # the base's, which were for another command
            run.pop(other, None)
    if recipe.port is not None and recipe.command:
        run["ExposedPorts"] = {f"{recipe.port}/tcp": {}}
        run["Healthcheck"] = {
            "Test": ["CMD", *health_words(recipe, recipe.port, curl=curl)],
            "Interval": INTERVAL * 10**9,
            "Timeout": TIMEOUT * 10**9,
            "StartPeriod": START_PERIOD * 10**9,
            "Retries": RETRIES,
        }
    given = run.get("Labels")
    of_base = (SOURCE, SOURCE_NAME, SOURCE_MANIFEST, "deadweight.plan")  # what a slim base was made from
    run["Labels"] = {
        **({k: v for k, v in given.items() if k not in of_base} if isinstance(given, dict) else {}),
        **image_labels(recipe),
        "deadweight.version": version("deadweight"),
        RESULT: result_of(diff_ids, len(config["history"])),
        **labels,
    }
    config["config"] = run
    return json.dumps(config, separators=(",", ":")).encode()


def _environment(image: Image, base: Base, recipe: Recipe) -> dict[str, str]:
    more = {}
    if recipe.python_path:
        given = image.environment.get("PYTHONPATH")
        more["PYTHONPATH"] = ":".join([*recipe.python_path, *([given] if given else [])])
    return {**image.environment, **ENVIRONMENT, **more, "PATH": ":".join([*path_entries(recipe), base.path])}
