"""A registry that misbehaves as it is told to, and writes down all that it is asked.

A small one of its own, of the distribution specification, in this process: blobs, manifests, uploads with status and
ranges, mounts, basic authentication and a token service. A fault is a function that is given each request; it answers
the request itself and says True, or leaves it to the registry.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.images import FixtureImage, compress, descriptor, digest, dump

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass
class Asked:
    """A request, as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Fault = Callable[["Handler"], bool]


@dataclass
class Registry:
    """What the registry holds and does."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    sent: list[tuple[str, int]] = field(default_factory=list)
    """The path of each answer, and the bytes of its body."""
    faults: list[Fault] = field(default_factory=list)
    basic: tuple[str, str] | None = None
    """The user and password that are asked for."""
    tokens: bool = False
    """Whether a token service is what asks for them."""
    issued: set[str] = field(default_factory=set)
    port: int = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def add(self, tag: str, image: FixtureImage, **more: Any) -> dict[str, Any]:
        """Puts an image there, its layers gzip; gives the manifest."""
        layers = [compress(layer, "gzip") for layer in image.layers]
        for blob in (*layers, image.config_bytes):
            self.blobs[digest(blob)] = blob
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, image.config_bytes),
            "layers": [descriptor(OCI_LAYER, layer) for layer in layers],
            **more,
        }
        self.put(tag, OCI_MANIFEST, dump(manifest))
        return manifest

    def put(self, tag: str, media_type: str, data: bytes) -> None:
        """A manifest by its tag and digest."""
        for name in (tag, digest(data)):
            self.manifests[name] = (media_type, data)

    def once(self, method: str, pattern: str, fault: Fault, times: int = 1) -> None:
        """Has a fault answer the first requests that fit."""
        left = [times]
        lock = threading.Lock()

        def first(handler: Handler) -> bool:
            if handler.command != method or not re.search(pattern, handler.path):
                return False
            with lock:
                if not left[0]:
                    return False
                left[0] -= 1
            return fault(handler)

        self.faults.append(first)

    def paths(self, method: str) -> list[str]:
        return [one.path for one in self.asked if one.method == method]

    def said(self) -> str:
        """All that this server was told, headers and bodies, as text."""
        return "\n".join(f"{one.path} {one.headers} {one.body!r}" for one in self.asked)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    @property
    def registry(self) -> Registry:
        return self.server.registry

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def answer(self, status: int, body: bytes = b"", **headers: str) -> bool:
        """Answers; underscores in names of headers are hyphens."""
        self.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(body)), **named}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.registry.sent.append((self.path, len(body)))
            self.wfile.write(body)
        return True

    def drop(self) -> bool:
        """Breaks the connection off."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True
        return True

    def handle_any(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        self.body = self.rfile.read(length)
        asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, self.body)
        self.registry.asked.append(asked)
        if any(fault(self) for fault in list(self.registry.faults)):
            return
        url = urlsplit(self.path)
        if url.path == "/token":
            self._token(parse_qs(url.query))
        elif self._let_in(url.path):
            self._serve(url.path, parse_qs(url.query))

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815  (http.server's names)

    def _let_in(self, path: str) -> bool:
        registry = self.registry
        if registry.basic is None:
            return True
        given = self.headers.get("authorization", "")
        if registry.tokens:
            if given.removeprefix("Bearer ") in registry.issued:
                return True
            name = path.removeprefix("/v2/").split("/blobs/")[0].split("/manifests/")[0]
            challenge = f'Bearer realm="http://{registry.host}/token",service="test",scope="repository:{name}:pull"'
        else:
            if given == "Basic " + _encoded(registry.basic):
                return True
            challenge = 'Basic realm="test"'
        self.answer(401, dump({"errors": [{"code": "UNAUTHORIZED"}]}), WWW_Authenticate=challenge)
        return False

    def _token(self, query: dict[str, list[str]]) -> None:
        assert self.registry.basic is not None
        given = self.headers.get("authorization", "")
        form = parse_qs(self.body.decode())
        known = given == "Basic " + _encoded(self.registry.basic) or form.get("refresh_token") == ["identity-secret"]
        if not known:
            self.answer(401)
            return
        assert query.get("scope") or form.get("scope")
        token = "token-" + secrets.token_hex(8)
        self.registry.issued.add(token)
        self.answer(200, dump({"token": token, "expires_in": 300}))

    def _serve(self, path: str, query: dict[str, list[str]]) -> None:
        registry = self.registry
        if match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path):
            self._manifest(match[2])
        elif match := re.fullmatch(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})", path):
            blob = registry.blobs.get(match[2])
            if blob is None:
                self.answer(404, dump({"errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown"}]}))
            else:
                self.send_blob(blob)
        elif match := re.fullmatch(r"/v2/(.+)/blobs/uploads/", path):
            name = secrets.token_hex(4)
            registry.uploads[name] = bytearray()
            self.answer(202, Location=f"/v2/{match[1]}/blobs/uploads/{name}?state=x")
        elif match := re.fullmatch(r"/v2/(.+)/blobs/uploads/(\w+)", path):
            self._upload(match[2], query)
        else:
            self.answer(404)

    def send_blob(self, blob: bytes) -> None:
        """A blob, or the part that is asked for."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if match is None:
            self.answer(200, blob)
            return
        start, end = int(match[1]), min(int(match[2] or len(blob)), len(blob) - 1)
        self.answer(206, blob[start : end + 1], Content_Range=f"bytes {start}-{end}/{len(blob)}")

    def _manifest(self, name: str) -> None:
        if self.command == "PUT":
            self.registry.put(name, self.headers["content-type"], self.body)
            self.answer(201, Docker_Content_Digest=digest(self.body))
            return
        found = self.registry.manifests.get(name)
        if found is None:
            self.answer(404, dump({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}))
            return
        self.answer(200, found[1], Content_Type=found[0], Docker_Content_Digest=digest(found[1]))

    def _upload(self, name: str, query: dict[str, list[str]]) -> None:
        registry = self.registry
        data = registry.uploads.get(name)
        if data is None:
            self.answer(404, dump({"errors": [{"code": "BLOB_UPLOAD_UNKNOWN", "message": "unknown"}]}))
            return
        if self.command == "DELETE":
            del registry.uploads[name]
            self.answer(204)
            return
        if self.command == "GET":
            self.answer(204, Location=self.path, Range=f"0-{max(0, len(data) - 1)}")
            return
        if self.command == "PATCH":
            start = int(self.headers.get("content-range", "0-").partition("-")[0])
            if start != len(data):
                self.answer(416, Range=f"0-{max(0, len(data) - 1)}")
                return
        data += self.body
        if self.command == "PATCH":
            self.answer(202, Location=self.path, Range=f"0-{len(data) - 1}")
            return
        stated = query["digest"][0]
        got = "sha256:" + hashlib.sha256(data).hexdigest()
        if got != stated:
            self.answer(400, dump({"errors": [{"code": "DIGEST_INVALID", "message": "digests differ"}]}))
            return
        registry.blobs[got] = bytes(data)
        del registry.uploads[name]
        self.answer(201, Docker_Content_Digest=got)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    registry: Registry

    def handle_error(self, *_: object) -> None:
        """Says nothing."""


def _encoded(pair: tuple[str, str]) -> str:
    return base64.b64encode(":".join(pair).encode()).decode()


@contextmanager
def bad_registry() -> Iterator[Registry]:
    """A registry on a port of this machine."""
    server = _Server(("127.0.0.1", 0), Handler)
    server.registry = Registry(port=server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
