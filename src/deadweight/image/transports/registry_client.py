"""Requests to one registry: authenticated, redirected, tried again, and bounded. OCI distribution specification 1.1.

Of what a server sends nothing is believed that is not checked: sizes are bounded, redirects get no credentials on
another host, and a message of its own is cut and freed of our secrets before it is shown.
"""

from __future__ import annotations

import email.utils
import random
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import NoReturn

import httpx2

from deadweight.errors import BadInputError, DeadweightError, EnvironmentFailure, UsageError, shown
from deadweight.image.bytes import ByteRange
from deadweight.image.transports.registry_auth import Authority
from deadweight.image.transports.registry_credentials import DOCKER_HUB, find_credential
from deadweight.image.transports.registry_settings import (
    Settings,
    current_settings,
    is_loopback,
    may_be_plain,
    scheme_of,
    tls_context,
)
from deadweight.image.transports.registry_watch import HeadWatch
from deadweight.image.transports.registry_words import words_of

Content = bytes | ByteRange | None
"""What a request sends. A range of a file goes out as a stream, from its beginning each time."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
AGAIN = frozenset({408, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed."""
_REDIRECT_LIMIT = 5
_CHALLENGE_LIMIT = 3
"""How many tokens are asked for on behalf of one request: one may end, or be taken back, on its way."""
_SMALL = 1 << 20
_WAIT_LIMIT = 120.0
_BACKOFF_LIMIT = 30.0


class Cancelled(DeadweightError):
    """The work was given up elsewhere: whoever gave it up says why."""


class NotThere(BadInputError):
    """The registry has no such thing."""


class NoAnswer(Exception):
    """A request that may succeed when it is made again. Never leaves this package's registry modules."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after
        """Seconds that the server wants to be left alone for."""


@dataclass(frozen=True)
class Reply:
    """An answer, read to its end."""

    status: int
    headers: httpx2.Headers
    body: bytes
    url: httpx2.URL
    """Whose answer it is, redirects followed."""


class Patience:
    """Counts tries, and waits between them; progress makes it new."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._failed = 0

    def made_progress(self) -> None:
        """The last try got somewhere, so it does not count."""
        self._failed = 0

    def failed(self, error: NoAnswer, doing: str) -> None:
        """Waits until it is time to try again. Raises EnvironmentFailure when it has been tried often enough."""
        settings = self._registry.settings
        self._failed += 1
        reason = self._registry.authority.hidden(str(error))
        if self._failed >= settings.tries:
            raise EnvironmentFailure(f"cannot {doing}: {reason}, {self._failed} times in a row; try again later")
        pause = min(settings.pause * 2 ** (self._failed - 1), _BACKOFF_LIMIT) * random.uniform(0.8, 1.2)  # noqa: S311
        if error.after is not None:
            if error.after > _WAIT_LIMIT:
                raise EnvironmentFailure(f"cannot {doing}: {reason}; it wants {error.after:,.0f} s to pass first")
            pause = max(error.after, pause)
        if self._registry.cancelled.wait(pause):
            raise Cancelled("stopped")


class Registry:
    """One registry and our connections to it. Safe to use from several threads."""

    def __init__(self, host: str, path: str, settings: Settings | None = None) -> None:
        """`host` is HOST[:PORT] as in image names; `path` the repository, for whose sake credentials are looked up.

        Raises UsageError when that can be no host, or the environment names a proxy that cannot be used.
        """
        self.host = host
        self.settings = settings if settings is not None else current_settings()
        self.cancelled = threading.Event()
        self.resources = ExitStack()
        """What is let go of with the connections."""
        self._reached = False
        try:
            host.encode("idna")
            scheme = scheme_of(host, self.settings)
            self.base = httpx2.URL(f"{scheme}://{'registry-1.docker.io' if host == DOCKER_HUB else host}/v2/")
        except (httpx2.InvalidURL, ValueError):
            raise UsageError(f"{shown(host)} can be no host: write docker://HOST[:PORT]/NAME:TAG") from None
        self.authority = Authority(host, self._may_be_plain, lambda: find_credential(host, path), self._fetch_token)
        self._watch = HeadWatch(2 * self.settings.timeout)
        context = tls_context(host, self.settings)
        try:
            self._client = httpx2.Client(
                verify=context,
                timeout=httpx2.Timeout(self.settings.timeout, connect=20.0, pool=None),
                # A proxy knows another "this machine" than we do.
                trust_env=not is_loopback(host),
                follow_redirects=False,
                headers={"User-Agent": "deadweight", "Accept-Encoding": "identity"},
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=16),
            )
        except (ImportError, ValueError, httpx2.InvalidURL):
            # What it says may have the proxy's password.
            raise UsageError(
                "the environment names a proxy that cannot be used, in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY: only "
                f"http://HOST:PORT and https://HOST:PORT can; or set NO_PROXY={host}"
            ) from None

    def close(self) -> None:
        """Ends the connections."""
        self.cancelled.set()
        self._client.close()
        self.resources.close()

    def begin(
        self,
        method: str,
        url: httpx2.URL | str,
        scopes: tuple[str, ...],
        headers: Mapping[str, str] | None = None,
        content: Content = None,
    ) -> httpx2.Response:
        """One request, authenticated and redirected; its body is unread, and the caller closes it.

        Raises NoAnswer when it may succeed later, EnvironmentFailure when it cannot.
        """
        target = self.base.join(url)
        answered = 0
        for _ in range(_REDIRECT_LIMIT + _CHALLENGE_LIMIT + 1):
            if self.cancelled.is_set():
                raise Cancelled("stopped")
            own = _origin(target) == _origin(self.base)
            authorization = self.authority.header(scopes) if own else None
            sent = {**(headers or {}), **({"Authorization": authorization} if authorization else {})}
            response = self._send(method, target, sent, content)
            if response.status_code == 401 and own and answered < _CHALLENGE_LIMIT:
                challenges = response.headers.get_list("www-authenticate")
                if self.authority.answer(challenges, scopes, authorization):
                    response.close()
                    answered += 1
                    continue
            location = response.headers.get("location")
            moved = response.status_code in (REDIRECTS if method in ("GET", "HEAD") else (307, 308))
            if moved and location:
                response.close()
                target = self.follow(target, location)
                continue
            if response.status_code in AGAIN:
                reason = f"{target.host} answers HTTP {response.status_code}"
                try:
                    with suppress(NoAnswer, DeadweightError):
                        reason += self._said(self._read(response, "read an answer", _SMALL))
                finally:
                    response.close()
                raise NoAnswer(reason, _retry_after(response))
            return response
        raise EnvironmentFailure(f"{self.host} redirects in circles: it is misconfigured")

    def ask(
        self,
        method: str,
        url: httpx2.URL | str,
        scopes: tuple[str, ...],
        doing: str,
        headers: Mapping[str, str] | None = None,
        content: Content = None,
        limit: int = _SMALL,
    ) -> Reply:
        """A request and its whole answer, tried again where that may help. Raises EnvironmentFailure, BadInputError."""
        patience = Patience(self)
        while True:
            try:
                return self.once(method, url, scopes, doing, headers, content, limit)
            except NoAnswer as error:
                patience.failed(error, doing)

    def once(
        self,
        method: str,
        url: httpx2.URL | str,
        scopes: tuple[str, ...],
        doing: str,
        headers: Mapping[str, str] | None = None,
        content: Content = None,
        limit: int = _SMALL,
    ) -> Reply:
        """As `ask`, but one try. Raises NoAnswer as well."""
        response = self.begin(method, url, scopes, headers, content)
        try:
            return Reply(response.status_code, response.headers, self._read(response, doing, limit), response.url)
        finally:
            response.close()

    def give_up(self, url: httpx2.URL, scopes: tuple[str, ...]) -> None:
        """Deletes an upload: a courtesy, for which nobody waits and which may fail."""
        own = _origin(url) == _origin(self.base)
        authorization = self.authority.header(scopes) if own else None
        with suppress(httpx2.HTTPError, OSError, RuntimeError):
            headers = {"Authorization": authorization} if authorization else {}
            with self._client.stream("DELETE", url, headers=headers, timeout=3.0):
                pass  # what it says is not read

    def follow(self, base: httpx2.URL, location: str) -> httpx2.URL:
        """Where a Location header leads. Raises EnvironmentFailure where we do not go."""
        try:
            target = base.join(location[:65536])
        except (httpx2.InvalidURL, ValueError):
            raise EnvironmentFailure(f"{self.host} redirects to what is no address") from None
        if target.scheme not in ("http", "https") or not target.host or target.userinfo:
            raise EnvironmentFailure(f"{self.host} redirects to what is no address")
        if target.scheme == "http" and not self._may_be_plain(target.netloc.decode("ascii", "replace")):
            raise EnvironmentFailure(f"{self.host} redirects to {shown(place(target))}, without TLS: not followed")
        return target

    def _may_be_plain(self, host: str) -> bool:
        """Whether HOST[:PORT] may be sent anything without TLS on behalf of this registry."""
        return self.base.scheme == "http" and may_be_plain(host, self.settings)

    def refuse(self, reply: Reply, doing: str) -> NoReturn:
        """Says what an answer other than the expected one means. Raises EnvironmentFailure or BadInputError."""
        raise self._refusal(reply.status, reply.body, reply.url, doing)

    def refusal(self, response: httpx2.Response, doing: str) -> DeadweightError:
        """What an answer without the bytes that were asked for means."""
        return self._refusal(response.status_code, self._read(response, doing, _SMALL), response.url, doing)

    def _refusal(self, status: int, body: bytes, url: httpx2.URL, doing: str) -> DeadweightError:
        said = self._said(body)
        if status in (401, 403) and _origin(url) != _origin(self.base):
            other = shown(f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}")
            return EnvironmentFailure(
                f"cannot {doing}: {self.host} leads to {other}, which refuses (HTTP {status}){said}. What is known for "
                f"{self.host} is not sent there: if both are one registry, name it by that address, or have it call "
                "itself what it is asked as (http.host, http.relativeurls of Docker's registry)"
            )
        if status == 405:
            return EnvironmentFailure(
                f"cannot {doing}: {self.host} does not allow it (HTTP 405){said}: is it read-only, or a mirror?"
            )
        if status in (401, 403):
            advice = self.authority.advice
            return EnvironmentFailure(f"cannot {doing}: {self.host} refuses (HTTP {status}){said}: {advice}")
        if status == 404:
            return NotThere(f"cannot {doing}: {self.host} has no such thing (HTTP 404){said}")
        return EnvironmentFailure(f"cannot {doing}: {self.host} answers HTTP {status}{said}")

    def reset(self, error: Exception, doing: str) -> NoAnswer:
        """A connection's end as something to try again, or the error that it is."""
        if isinstance(error, httpx2.TimeoutException):
            reason = f"{self.host} says nothing for {self.settings.timeout:g} s"
            if not self._reached:
                raise EnvironmentFailure(f"cannot {doing}: {self.host} cannot be reached") from None
            return NoAnswer(reason)
        if isinstance(error, httpx2.TransportError):
            if _caused_by(error, ssl.SSLCertVerificationError):
                raise EnvironmentFailure(
                    f"cannot {doing}: the certificate of {self.host} is not to be trusted ({_reason(error)}); for an "
                    "authority of your own say --registry-ca FILE, or put it into "
                    f"/etc/docker/certs.d/{self.host}/ca.crt"
                ) from None
            if isinstance(error, (httpx2.ConnectError, httpx2.ProxyError)) and not self._reached:
                raise EnvironmentFailure(
                    f"cannot {doing}: {self.host} cannot be reached ({_reason(error)})"
                    + ("" if self.base.scheme == "http" else f"; without TLS: --plain-http {self.host}")
                ) from None
            return NoAnswer(f"the connection to {self.host} broke off ({_reason(error)})")
        raise EnvironmentFailure(f"cannot {doing}: {_reason(error)}") from None

    def _send(self, method: str, target: httpx2.URL, headers: Mapping[str, str], content: Content) -> httpx2.Response:
        head = self._watch.request()
        try:
            body = content.chunks() if isinstance(content, ByteRange) else content
            request = self._client.build_request(
                method, target, headers=dict(headers), content=body, extensions={"trace": head}
            )
            response = self._client.send(request, stream=True)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError, ValueError, OverflowError) as error:
            if self.cancelled.is_set():
                raise Cancelled("stopped") from None
            if head.late:
                raise NoAnswer(f"{self.host} takes too long over an answer") from None
            raise self.reset(error, f"ask {place(target)}") from None
        self._reached = True
        return response

    def _read(self, response: httpx2.Response, doing: str, limit: int) -> bytes:
        """The body. Raises BadInputError when it is too large, NoAnswer when it breaks off or crawls."""
        parts = []
        size = 0
        end = time.monotonic() + 2 * self.settings.timeout
        try:
            for part in response.iter_raw():
                size += len(part)
                if size > limit:
                    raise BadInputError(f"cannot {doing}: {self.host} sends more than {limit:,} bytes")
                if time.monotonic() > end:
                    raise NoAnswer(f"{self.host} takes too long over an answer")
                parts.append(part)
        except httpx2.HTTPError as error:
            raise self.reset(error, doing) from None
        return b"".join(parts)

    def _fetch_token(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        """A request to the token service. Its redirects are not followed: who knows where they lead."""
        doing = f"get a token for {self.host}"
        patience = Patience(self)
        while True:
            try:
                response = self._send(method, httpx2.URL(url), headers, body)
                try:
                    if response.status_code in AGAIN:
                        raise NoAnswer(f"its token service answers HTTP {response.status_code}", _retry_after(response))
                    return response.status_code, self._read(response, doing, _SMALL)
                finally:
                    response.close()
            except NoAnswer as error:
                patience.failed(error, doing)
            except httpx2.InvalidURL:
                raise EnvironmentFailure(f"cannot {doing}: it names a token service that is no address") from None

    def _said(self, body: bytes) -> str:
        """The registry's own words, where it has some, as they can be shown."""
        words = words_of(body)
        return f": {shown(self.authority.hidden(words))}" if words else ""


def place(url: httpx2.URL) -> str:
    """An address as it can be shown: signed addresses carry their secret in the query."""
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace').rpartition('@')[2]}{url.path}"


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host.lower(), url.port or {"http": 80, "https": 443}.get(url.scheme, 0)


def _retry_after(response: httpx2.Response) -> float | None:
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), 1e9)
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason(error: Exception) -> str:
    return shown(str(error) or type(error).__name__)
