"""Authentication to a registry: challenges, and tokens from its token service.

RFC 7235 (challenges), RFC 7617 (basic), the Docker registry's token specification (docs/spec/auth/token and /oauth). A
credential goes to the registry itself (basic) or to the token service that it names, and nowhere else.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import msgspec

from deadweight.decoding import from_json
from deadweight.errors import EnvironmentFailure, shown
from deadweight.image.transports.registry_credentials import Credential, Found

_SCHEME = re.compile(r"(?:^|,)\s*(bearer|basic)(?=[\s,]|$)", re.IGNORECASE)
_PARAMETER = re.compile(r'(?<![A-Za-z_-])([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}")
_HEADER_LIMIT = 8
_LIFE = 60.0
"""Seconds that a token lives whose service does not say."""
_MARGIN = 10.0


@dataclass(frozen=True)
class Challenge:
    """What a registry asks for."""

    bearer: bool
    realm: str
    service: str
    scope: str


class Fetch(Protocol):
    """Makes a request to a token service; gives status and body."""

    def __call__(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        """Raises EnvironmentFailure when there is no answer."""
        ...


class _Token(msgspec.Struct, frozen=True):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


@dataclass
class Authority:
    """What a registry is told about who we are, by scope. Safe to use from several threads."""

    host: str
    plain: Callable[[str], bool]
    """Whether HOST[:PORT] may be sent credentials without TLS: none may on behalf of a registry that speaks TLS."""
    look_up: Callable[[], Found]
    fetch: Fetch
    found: Found | None = field(default=None, repr=False)
    _headers: dict[tuple[str, ...], tuple[str, float]] = field(default_factory=dict, repr=False)
    _secrets: set[str] = field(default_factory=set, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def header(self, scopes: tuple[str, ...]) -> str | None:
        """The Authorization header for these scopes, where one is known and still holds."""
        with self._lock:
            header, until = self._headers.get(scopes) or self._headers.get(()) or (None, 0.0)
        return header if time.monotonic() < until else None

    def answer(self, challenges: Sequence[str], scopes: tuple[str, ...], refused: str | None) -> bool:
        """Gets what the challenges ask for; `refused` is the header that was not enough. False where there is none."""
        with self._lock:
            header, until = self._headers.get(scopes, (None, 0.0))
            if header is not None and header != refused and time.monotonic() < until:
                return True  # another thread has been here
            asked = parse_challenges(challenges)
            if self.found is None:
                self.found = self.look_up()
            credential = self.found.credential
            if credential is not None:
                self._secrets.update(credential.secrets)
            for challenge in sorted(asked, key=lambda c: not c.bearer):
                if challenge.bearer:
                    new, life = self._token(challenge, scopes, credential)
                    self._secrets.add(new)
                    self._headers[scopes] = (f"Bearer {new}", time.monotonic() + life)
                    return f"Bearer {new}" != refused
                if credential is not None and credential.password:
                    value = f"Basic {credential.basic}"
                    self._headers[()] = (value, float("inf"))
                    return value != refused
        return False

    def hidden(self, text: str) -> str:
        """`text` without what must not be shown, whoever wrote it there."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    @property
    def advice(self) -> str:
        """What to do where we are not let in."""
        troubles = self.found.troubles if self.found is not None else ()
        if troubles:
            return "; ".join(troubles)
        if self.found is not None and self.found.credential is not None:
            return "the credentials that docker or podman keep for it are not enough: log in as somebody who may"
        return f"log in first: docker login {self.host}, or podman login"

    def _token(self, challenge: Challenge, scopes: tuple[str, ...], credential: Credential | None) -> tuple[str, float]:
        if credential is not None and credential.bearer:
            return credential.bearer, float("inf")
        self._check_realm(challenge.realm)
        wanted = list(scopes) or challenge.scope.split()
        headers: dict[str, str] = {}
        if credential is not None and credential.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": credential.identity_token}
            form |= {"service": challenge.service, "client_id": "deadweight", "scope": " ".join(wanted)}
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            status, body = self.fetch("POST", challenge.realm, headers, urlencode(form).encode())
        else:
            if credential is not None and credential.password:
                headers["Authorization"] = f"Basic {credential.basic}"
            query = urlencode([("service", challenge.service), *(("scope", scope) for scope in wanted)])
            joint = "&" if urlsplit(challenge.realm).query else "?"
            status, body = self.fetch("GET", f"{challenge.realm}{joint}{query}", headers, None)
        service = f"the token service of {self.host}"
        if status in (400, 401, 403):
            raise EnvironmentFailure(f"{service} refuses (HTTP {status}): {self.advice}")
        if status != 200:
            raise EnvironmentFailure(f"{service} answers HTTP {status}; try again later")
        try:
            got = from_json(body, _Token)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise EnvironmentFailure(f"{service} gives no token: its answer is not as the specification says") from None
        token = got.token or got.access_token or ""
        if not _TOKEN.fullmatch(token):
            raise EnvironmentFailure(f"{service} gives no token that could be sent")
        life = got.expires_in if got.expires_in is not None and got.expires_in > 0 else _LIFE
        return token, max(life - _MARGIN, life / 2)

    def _check_realm(self, realm: str) -> None:
        try:
            parts = urlsplit(realm)
            sound = bool(parts.hostname) and parts.username is None and parts.password is None
        except ValueError:
            sound = False
        if not sound or parts.scheme not in ("https", "http"):
            raise EnvironmentFailure(f"{self.host} names the token service {shown(realm)}, which is no address")
        if parts.scheme == "http" and not self.plain(parts.netloc):
            raise EnvironmentFailure(
                f"{self.host} names a token service without TLS, {shown(f'http://{parts.netloc}')}: nothing was sent "
                "(where both may be spoken to so: --plain-http HOST, for each)"
            )


def parse_challenges(values: Sequence[str]) -> list[Challenge]:
    """The challenges of WWW-Authenticate headers that we can answer."""
    found = []
    for value in values[:_HEADER_LIMIT]:
        text = value[:8192]
        starts = list(_SCHEME.finditer(text))
        for number, match in enumerate(starts):
            end = starts[number + 1].start() if number + 1 < len(starts) else len(text)
            fields = {
                name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
                for name, quoted, plain in _PARAMETER.findall(text[match.end() : end])
            }
            bearer = match[1].lower() == "bearer"
            if not bearer or fields.get("realm"):
                values_of = [fields.get(key, "") for key in ("realm", "service", "scope")]
                found.append(Challenge(bearer, *values_of))
    return found
