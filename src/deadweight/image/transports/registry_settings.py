"""How registries are reached: which may be spoken to without TLS, and whose certificates are believed.

The files are Docker's and Podman's: certs.d/HOST[:PORT]/ with *.crt (authorities) and *.cert, *.key (our own).
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from deadweight.errors import EnvironmentFailure, UsageError, shown

PLAIN_HTTP = "DEADWEIGHT_PLAIN_HTTP"
REGISTRY_CA = "DEADWEIGHT_REGISTRY_CA"
_CERTIFICATES = ("/etc/docker/certs.d", "/etc/containers/certs.d")
_PROBE_SECONDS = 5.0


@dataclass(frozen=True)
class Settings:
    """What the user asked for."""

    plain_http: frozenset[str] = frozenset()
    """Hosts, with their ports where those are said, that are spoken to without TLS."""
    ca: Path | None = None
    """Certificates of authorities that are believed besides the system's."""
    tries: int = 6
    """How often a request is made before it counts as failed."""
    pause: float = 0.5
    """Seconds before the second try; twice as long before each one after it."""
    timeout: float = 60.0
    """Seconds that a server may say nothing."""
    chunk: int = 16 << 20
    """Bytes of a layer that are sent at a time, and kept until the server has them."""
    parallel: int = 4
    """How many layers are under way at once."""

    def with_more(self, plain_http: frozenset[str], ca: Path | None) -> Settings:
        """These, and what an option says."""
        more = {**vars(self), "plain_http": self.plain_http | plain_http, "ca": ca or self.ca}
        return Settings(**more)


_current: ContextVar[Settings | None] = ContextVar("registry settings", default=None)


def current_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in force: those of `using`, else the environment's."""
    settings = _current.get()
    if settings is not None:
        return settings
    hosts = frozenset(environment.get(PLAIN_HTTP, "").replace(",", " ").split())
    ca = environment.get(REGISTRY_CA)
    return Settings(hosts, Path(ca) if ca else None)


@contextmanager
def using(settings: Settings) -> Iterator[None]:
    """Has these settings in force."""
    token = _current.set(settings)
    try:
        yield
    finally:
        _current.reset(token)


def is_loopback(host: str) -> bool:
    """Whether HOST[:PORT] can only be this machine."""
    name = _split(host)[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def may_be_plain(host: str, settings: Settings) -> bool:
    """Whether HOST[:PORT] may be spoken to without TLS: it was asked for, or no other machine can be."""
    return host in settings.plain_http or is_loopback(host)


def scheme_of(host: str, settings: Settings) -> str:
    """`https`, but `http` where that was asked for, or for a registry on this machine that speaks no TLS."""
    if host in settings.plain_http:
        return "http"
    return "http" if is_loopback(host) and not _speaks_tls(host) else "https"


def tls_context(host: str, settings: Settings, environment: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """The system's authorities (or SSL_CERT_FILE's) and those that were given for this host.

    Raises UsageError when the given file cannot be used, EnvironmentFailure for one of the configured ones.
    """
    context = ssl.create_default_context()
    if settings.ca is not None:
        try:
            context.load_verify_locations(settings.ca)
        except (OSError, ValueError) as error:
            raise UsageError(f"{shown(str(settings.ca))} holds no certificates that can be read: {error}") from None
    home = environment.get("HOME", "")
    configuration = environment.get("XDG_CONFIG_HOME") or f"{home}/.config"
    own = [f"{configuration}/docker/certs.d", f"{configuration}/containers/certs.d", f"{home}/.docker/certs.d"]
    for place in (*_CERTIFICATES, *own):
        folder = Path(place) / host
        try:
            files = sorted(folder.iterdir()) if folder.is_dir() else []
            for file in files:
                if file.suffix == ".crt":
                    context.load_verify_locations(file)
                elif file.suffix == ".cert":
                    context.load_cert_chain(file, file.with_suffix(".key"), _no_password)
        except PermissionError as error:
            if error.filename is not None and Path(os.fsdecode(error.filename)) in (folder, folder.parent):
                continue  # nothing was meant for us there
            raise EnvironmentFailure(f"the certificates in {shown(str(folder))} cannot be read") from None
        except (OSError, ValueError) as error:
            raise EnvironmentFailure(f"the certificates in {shown(str(folder))} cannot be used: {error}") from None
    return context


def _no_password() -> str:
    """OpenSSL would ask on the terminal."""
    raise ValueError("a key is encrypted")


def _split(host: str) -> tuple[str, int | None]:
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        return name, int(port[1:]) if port[1:].isdecimal() else None
    name, _, port = host.partition(":")
    return name, int(port) if port.isdecimal() else None


def _speaks_tls(host: str) -> bool:
    """Whether a server on this machine answers TLS. Nothing is told it but that it is asked."""
    name, port = _split(host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((name, port or 443), _PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=name),
        ):
            return True
    except ssl.SSLError as error:
        # A server that wants a certificate of ours does speak it.
        return "CERTIFICATE" in (error.reason or "")
    except OSError:
        return port is None
