"""The digest of a base image, by asking its registry, or the engine that pulled it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence

from deadweight.errors import DeadweightError, EnvironmentFailure, UsageError, shown
from deadweight.image.reference import split_name

DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
TIMEOUT = 120.0
Ask = Callable[[str, Mapping[str, str]], Iterator[str]]


def pinned(image: str, digest: str | None = None, environment: Mapping[str, str] | None = None) -> str:
    """The image by its tag and digest; one that is named by a digest already stays as it is.

    Without a digest its registry is asked, then `docker buildx`, then the Docker engine for what it pulled. Raises
    UsageError for what is no digest, and EnvironmentFailure where nobody could tell.
    """
    if "@" in image:
        return image
    if digest is not None:
        if not DIGEST.match(digest):
            raise UsageError(f"{shown(digest)} is no digest: give sha256: and 64 hexadecimal digits, or --pin alone")
        return f"{image}@{digest}"
    environment = os.environ if environment is None else environment
    tried: list[str] = []
    asks: tuple[tuple[str, Ask], ...] = (("its registry", _registry), ("docker buildx", _buildx), ("docker", _engine))
    for name, ask in asks:
        try:
            found = next((one for one in ask(image, environment) if DIGEST.match(one)), None)
        except _NoAnswerError as error:
            tried.append(f"{name}: {error}")
            continue
        if found is not None:
            return f"{image}@{found}"
        tried.append(f"{name}: it knows no digest of it")
    raise EnvironmentFailure(
        f"nobody could tell the digest of {image} ({'; '.join(tried)}): pull the image, or give it as --pin=sha256:..."
    )


class _NoAnswerError(Exception):
    """Why a program could not tell."""


def _registry(image: str, _: Mapping[str, str]) -> Iterator[str]:
    from deadweight.image.transports.registry import Repository  # noqa: PLC0415
    from deadweight.image.transports.registry_client import Registry  # noqa: PLC0415

    name = split_name(image)
    if name is None:
        raise _NoAnswerError("that is no image's name")
    try:
        registry = Registry(name.host, name.path)
        try:
            yield Repository(registry, name.path).named(name)[0].digest
        finally:
            registry.close()
    except DeadweightError as error:
        raise _NoAnswerError(str(error)) from None


def _buildx(image: str, environment: Mapping[str, str]) -> Iterator[str]:
    command = [*_docker(environment), "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
    yield _output(command, environment).decode("utf-8", "replace").strip()


def _engine(image: str, environment: Mapping[str, str]) -> Iterator[str]:
    """The digest of what the engine pulled, which may be older than what its registry has."""
    output = _output(
        [*_docker(environment), "image", "inspect", "--format", "{{json .RepoDigests}}", image], environment
    )
    try:
        found = json.loads(output)
    except ValueError:
        raise _NoAnswerError("it answers in no known way") from None
    name = image.rpartition(":")[0] if ":" in image.rpartition("/")[2] else image
    for one in found if isinstance(found, list) else ():
        place, _, digest = str(one).partition("@")
        if place.removeprefix("docker.io/").removeprefix("library/") == name.removeprefix("docker.io/").removeprefix(
            "library/"
        ):
            yield digest


def _docker(environment: Mapping[str, str]) -> list[str]:
    return shlex.split(environment.get("DEADWEIGHT_DOCKER", "")) or ["docker"]


def _output(command: Sequence[str], environment: Mapping[str, str]) -> bytes:
    if shutil.which(command[0], path=environment.get("PATH")) is None:
        raise _NoAnswerError("not installed")
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=TIMEOUT, env=dict(environment)
        )
    except subprocess.TimeoutExpired:
        raise _NoAnswerError(f"no answer in {TIMEOUT:.0f} s") from None
    if done.returncode != 0 or not done.stdout.strip():
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise _NoAnswerError(shown(lines[-1], 300)[1:-1] if lines else f"exit status {done.returncode}")
    return done.stdout
