"""Where engines listen, found as their own command lines find it.

Docker: DOCKER_HOST, else the context that DOCKER_CONTEXT or `currentContext` of config.json names, else
/var/run/docker.sock. A context is ~/.docker/contexts/meta/SHA256-OF-NAME/meta.json, with its TLS files in contexts/tls
(docker/cli, cli/context/store). Podman: CONTAINER_HOST, else podman.sock of the user, else of the system.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from deadweight.errors import EnvironmentFailure, shown

Kind = Literal["docker", "podman"]
TITLES: dict[Kind, str] = {"docker": "Docker's engine", "podman": "Podman"}
DOCKER_SOCKET = "/var/run/docker.sock"
PODMAN_SOCKET = "/run/podman/podman.sock"
_DOCUMENT_LIMIT = 1 << 20
_DEFAULT = "default"


@dataclass(frozen=True)
class Tls:
    """What a connection is secured by. Files that are None are not used."""

    ca: Path | None
    certificate: Path | None
    key: Path | None
    verify: bool

    def context(self) -> ssl.SSLContext:
        """Raises EnvironmentFailure where a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key, _no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            files = ", ".join(shown(str(path)) for path in (self.ca, self.certificate, self.key) if path is not None)
            raise EnvironmentFailure(f"cannot use the TLS files {files}: {error}; see DOCKER_CERT_PATH") from None
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True)
class Place:
    """Where an engine listens."""

    kind: Kind
    scheme: Literal["unix", "tcp", "ssh"]
    path: str = ""
    """The socket's, or for ssh the socket's on the other machine; empty where that is the usual one."""
    host: str = ""
    port: int | None = None
    user: str | None = None
    tls: Tls | None = None
    said_by: str = ""
    """What names this place: `DOCKER_HOST`, say; empty where nothing does, and it is the usual one."""

    @property
    def title(self) -> str:
        """For messages."""
        return TITLES[self.kind]

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        user = f"{self.user}@" if self.user else ""
        address = f"{self.scheme}://{user}{host}{port}{self.path}"
        return f"{address} ({self.said_by})" if self.said_by else address


def docker_place(environment: Mapping[str, str]) -> Place:
    """Where Docker's engine listens. Raises EnvironmentFailure where that cannot be made out."""
    host = environment.get("DOCKER_HOST", "")
    folder = _docker_folder(environment)
    if host:
        return _place("docker", host, "DOCKER_HOST", _tls_of_environment(environment, folder))
    name, said_by = environment.get("DOCKER_CONTEXT", ""), "DOCKER_CONTEXT"
    if not name:
        current = _document(folder / "config.json").get("currentContext")
        name, said_by = (current if isinstance(current, str) else ""), str(folder / "config.json")
    if name in ("", _DEFAULT):
        return Place("docker", "unix", DOCKER_SOCKET)
    return _place_of_context(folder, name, said_by)


def podman_place(environment: Mapping[str, str]) -> Place:
    """Where Podman listens: the first socket that is there, or the one that would be."""
    host = environment.get("CONTAINER_HOST", "")
    if host:
        return _place("podman", host, "CONTAINER_HOST", None)
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    usual = [*([f"{runtime}/podman/podman.sock"] if runtime else []), PODMAN_SOCKET]
    there = [path for path in usual if _exists(path)]
    return Place("podman", "unix", (there or usual)[0])


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # a folder into which one may not look: another user's
        return False


def _docker_folder(environment: Mapping[str, str]) -> Path:
    given = environment.get("DOCKER_CONFIG", "")
    return Path(given) if given else Path(environment.get("HOME") or "/") / ".docker"


def _tls_of_environment(environment: Mapping[str, str], folder: Path) -> Tls | None:
    """As Docker's command line: on by DOCKER_TLS or DOCKER_TLS_VERIFY, whatever their values but the empty one."""
    verify = bool(environment.get("DOCKER_TLS_VERIFY"))
    if not verify and not environment.get("DOCKER_TLS"):
        return None
    given = environment.get("DOCKER_CERT_PATH", "")
    files = Path(given) if given else folder
    return Tls(
        files / "ca.pem" if verify else None, _if_there(files / "cert.pem"), _if_there(files / "key.pem"), verify
    )


def _place_of_context(folder: Path, name: str, said_by: str) -> Place:
    key = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    about = f"the Docker context {shown(name)}, which {said_by} names,"
    meta = folder / "contexts/meta" / key / "meta.json"
    if not _exists(str(meta)):
        raise EnvironmentFailure(f"{about} does not exist: `docker context ls` lists those that do")
    endpoints = _document(meta).get("Endpoints")
    endpoint = endpoints.get("docker") if isinstance(endpoints, dict) else None
    host = endpoint.get("Host") if isinstance(endpoint, dict) else None
    if not isinstance(host, str) or not host or not isinstance(endpoint, dict):
        raise EnvironmentFailure(f"{about} names no engine: `docker context inspect {shown(name)}` shows it")
    files = folder / "contexts/tls" / key / "docker"
    ca, certificate, private = (_if_there(files / f"{part}.pem") for part in ("ca", "cert", "key"))
    verify = endpoint.get("SkipTLSVerify") is not True
    tls = Tls(ca, certificate, private, verify) if ca or certificate or not verify else None
    return _place("docker", host, f"the context {shown(name)}", tls)


def _if_there(path: Path) -> Path | None:
    return path if _exists(str(path)) else None


def _place(kind: Kind, address: str, said_by: str, tls: Tls | None) -> Place:
    scheme, separator, rest = address.partition("://")
    if not separator:  # as Docker's command line takes HOST:PORT
        scheme, rest = "tcp", address
    try:
        if scheme == "unix" and rest:
            return Place(kind, "unix", "/" + rest.lstrip("/"), said_by=said_by)
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    plain = host is not None and not host.startswith("-") and host.isprintable()
    if host is None or not plain or (parts.password is not None and scheme == "ssh"):
        raise EnvironmentFailure(
            f"{said_by} is {_shown_address(address)}, which names no engine: unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST"
        )
    if scheme in ("tcp", "http", "https"):
        if scheme == "https" and tls is None:
            tls = Tls(None, None, None, True)
        return Place(kind, "tcp", host=host, port=port or (2376 if tls else 2375), tls=tls, said_by=said_by)
    if scheme == "ssh":
        user = unquote(parts.username) if parts.username else None
        return Place(kind, "ssh", parts.path.rstrip("/"), host, port, user, said_by=said_by)
    raise EnvironmentFailure(
        f"{said_by} is {_shown_address(address)}: deadweight reaches engines by unix://, tcp:// and ssh:// only"
    )


def _shown_address(address: str) -> str:
    """An address for a message, without the user and password before its host."""
    return shown(re.sub(r"\A([\w+.-]*://)?.*@", r"\1", address, flags=re.DOTALL))


def _document(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file. Raises EnvironmentFailure where it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_DOCUMENT_LIMIT)
        value = msgspec.json.decode(data)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EnvironmentFailure(f"cannot read {shown(str(path))}: {reason}") from None
    return value if isinstance(value, dict) else {}


def _no_password() -> str:
    """OpenSSL would ask on the terminal."""
    raise ValueError("the key is encrypted")
