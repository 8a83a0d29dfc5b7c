"""Who we are to a registry: what `docker login` and `podman login` left, and credential helpers.

Files: Docker's config.json (auths, credHelpers, credsStore) and containers-auth.json(5). Helpers: the protocol of
docker-credential-helpers. Nothing found here is ever shown; what keeps it hides it from its repr.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from deadweight.decoding import from_json
from deadweight.errors import shown

DOCKER_HUB = "docker.io"
_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io", DOCKER_HUB)
_FILE_LIMIT = 4 << 20
_HELPER_SECONDS = 60
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_IDENTITY_USER = "<token>"


@dataclass(frozen=True)
class Credential:
    """A user and password, or a token in their place."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """Exchanged for tokens at the registry's token service."""
    bearer: str = field(default="", repr=False)
    """Handed to the registry as it is."""

    @property
    def basic(self) -> str:
        """As basic authentication sends it."""
        return base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown, in any of the forms it is sent in."""
        basic = self.basic if self.password else ""
        return tuple(filter(None, (self.password, self.identity_token, self.bearer, basic)))


class _Auth(msgspec.Struct, frozen=True):
    # Some tools write null where there is nothing.
    auth: str | None = None
    username: str | None = None
    password: str | None = None
    identitytoken: str | None = None
    registrytoken: str | None = None


class _File(msgspec.Struct, frozen=True, rename="camel"):
    auths: dict[str, _Auth | None] | None = None
    cred_helpers: dict[str, str | None] | None = None
    creds_store: str | None = None


class _Helped(msgspec.Struct, frozen=True, rename="pascal"):
    secret: str
    username: str = ""


@dataclass(frozen=True)
class Found:
    """What looking gave: a credential or none, and what went wrong on the way, for the case that one is needed."""

    credential: Credential | None
    troubles: tuple[str, ...] = ()


def find_credential(host: str, path: str, environment: Mapping[str, str] = os.environ) -> Found:
    """What is known for repository `path` of the registry HOST[:PORT]: the first file that has something holds."""
    troubles: list[str] = []
    for file in _files(environment):
        try:
            if not file.is_file():
                continue
            with file.open("rb") as stream:
                data = stream.read(_FILE_LIMIT)
            content = from_json(data, _File)
        except OSError as error:
            troubles.append(f"{shown(str(file))} cannot be read: {error.strerror}")
            continue
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            # msgspec quotes no values, but may name keys: not for showing, either.
            troubles.append(f"{shown(str(file))} is no configuration of docker or podman")
            continue
        credential = _look(content, host, path, file, environment, troubles)
        if credential is not None:
            return Found(credential, tuple(troubles))
    return Found(None, tuple(troubles))


def _files(environment: Mapping[str, str]) -> list[Path]:
    explicit = environment.get("REGISTRY_AUTH_FILE")
    if explicit:
        return [Path(explicit)]
    home = Path(environment.get("HOME") or "~").expanduser()
    docker = environment.get("DOCKER_CONFIG")
    runtime = environment.get("XDG_RUNTIME_DIR")
    configuration = environment.get("XDG_CONFIG_HOME")
    return [
        (Path(docker) if docker else home / ".docker") / "config.json",
        *([Path(runtime) / "containers/auth.json"] if runtime else []),
        (Path(configuration) if configuration else home / ".config") / "containers/auth.json",
    ]


def _look(
    content: _File, host: str, path: str, file: Path, environment: Mapping[str, str], troubles: list[str]
) -> Credential | None:
    keys = _HUB_KEYS if host == DOCKER_HUB else (host,)
    for key in keys:
        helper = (content.cred_helpers or {}).get(key)
        if helper:
            return _ask(helper, key, file, environment, troubles)
    if content.creds_store:
        found = _ask(content.creds_store, keys[0], file, environment, troubles)
        if found is not None:
            return found
    auths = {_key(key): auth for key, auth in (content.auths or {}).items() if auth is not None}
    # containers-auth.json may know a namespace or a repository of its own: the nearest holds.
    parts = path.split("/")
    nested = [f"{host}/{'/'.join(parts[:n])}" for n in range(len(parts), 0, -1)]
    for key in (*nested, *map(_key, keys)):
        credential = _read(auths[key], file, troubles) if key in auths else None
        if credential is not None:
            return credential
    return None


def _key(key: str) -> str:
    """A key as HOST[:PORT][/PATH]: older files have URLs."""
    return re.sub(r"/v[12]/?\Z", "", re.sub(r"\Ahttps?://", "", key)).rstrip("/")


def _read(auth: _Auth, file: Path, troubles: list[str]) -> Credential | None:
    username, password = auth.username or "", auth.password or ""
    if auth.auth:
        try:
            username, _, password = base64.b64decode(auth.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeError):
            troubles.append(f"{shown(str(file))} has an entry that is no base64 of a user and password")
            return None
        password = password.rstrip("\0")
    if not (password or auth.identitytoken or auth.registrytoken):
        return None
    return Credential(username, password, auth.identitytoken or "", auth.registrytoken or "")


def _ask(
    helper: str, server: str, file: Path, environment: Mapping[str, str], troubles: list[str]
) -> Credential | None:
    """What a credential helper knows. What it prints is not shown: it may be the secret."""
    program = f"docker-credential-{helper}"
    if not _HELPER.fullmatch(helper):
        troubles.append(f"{shown(str(file))} names the credential helper {shown(helper)}, which can be no program")
        return None
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            check=False,
            timeout=_HELPER_SECONDS,
            env=dict(environment),
        )
    except FileNotFoundError:
        troubles.append(f"the credential helper {program}, which {shown(str(file))} names, is not in PATH")
        return None
    except (OSError, subprocess.TimeoutExpired):
        troubles.append(f"the credential helper {program} cannot be run, or does not end")
        return None
    if done.returncode != 0:
        if b"credentials not found" not in done.stdout + done.stderr:
            troubles.append(f"the credential helper {program} failed (exit status {done.returncode})")
        return None
    try:
        found = from_json(done.stdout, _Helped)
    except (msgspec.MsgspecError, UnicodeError):
        troubles.append(f"the credential helper {program} gave no credential")
        return None
    if found.username == _IDENTITY_USER:
        return Credential(identity_token=found.secret)
    return Credential(found.username, found.secret)
