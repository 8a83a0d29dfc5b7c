"""The API of an engine with containerd's image store, which Debian's engine does not have.

Written after moby's daemon/containerd: an image's ID is the digest of its manifest or index, what is exported is an OCI
layout with a manifest.json beside it, and an archive that is loaded gets a manifest of the engine's own.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.images import Json, digest, dump, read_tar


class Store:
    """Images by ID, each with what inspecting and exporting it gives; and names."""

    def __init__(self) -> None:
        self.inspected: dict[str, Json] = {}
        self.exports: dict[str, bytes] = {}
        self.history: dict[str, list[Json]] = {}
        self.names: dict[str, str] = {}
        self.loaded: list[list[str]] = []
        """The members of each archive that was loaded."""
        self.damage: Callable[[Json], Json] = lambda config: config
        """What the engine makes of a configuration that it loads."""

    def add(self, image_id: str, config: Json, export: bytes, name: str) -> None:
        self.inspected[image_id] = {
            "Id": image_id,
            "Size": len(export),
            "Config": config.get("config"),
            "RootFS": {"Type": "layers", "Layers": config["rootfs"]["diff_ids"]},
        }
        self.exports[image_id] = export
        self.history[image_id] = config.get("history") or []
        self.names[name] = image_id

    def find(self, name: str) -> str | None:
        found = self.names.get(name, name)
        return found if found in self.inspected else None

    def tags(self, image_id: str) -> list[str]:
        return [name for name, one in self.names.items() if one == image_id and "@" not in name]

    def digests(self, image_id: str) -> list[str]:
        names = [name for name, one in self.names.items() if one == image_id and "@" in name]
        return [name for name in names if not name.startswith("moby-dangling@")]

    def load(self, archive: bytes) -> str:
        members = dict(read_tar(archive))
        self.loaded.append(list(members))
        described = json.loads(members["manifest.json"])[0]
        config = self.damage(json.loads(members[described["Config"]]))
        assert [digest(members[name]) for name in described["Layers"]] == json.loads(members[described["Config"]])[
            "rootfs"
        ]["diff_ids"]
        image_id = digest(b"a manifest of " + members[described["Config"]])
        self.add(image_id, config, archive, f"moby-dangling@{image_id}")
        return image_id


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    store: Store

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes in the middle is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def address_string(self) -> str:
        return "unix"

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Api-Version", "1.51")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        store, path = self.server.store, unquote(urlsplit(self.path).path)
        if path == "/_ping":
            return self._send(200, b"OK")
        if path == "/info":
            return self._send(200, dump({"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}))
        if path == "/images/json":
            return self._send(200, dump([{"Id": one} for one in store.inspected]))
        name, _, what = path.removeprefix("/images/").rpartition("/")
        found = store.find(name)
        if found is None:
            return self._send(404, dump({"message": f"No such image: {name}"}))
        if what == "json":
            names = {"RepoTags": store.tags(found), "RepoDigests": store.digests(found)}
            return self._send(200, dump({**store.inspected[found], **names}))
        if what == "history":
            return self._send(200, dump(store.history[found][::-1]))
        return self._send(200, store.exports[found])

    def do_POST(self) -> None:
        store, parts = self.server.store, urlsplit(self.path)
        if parts.path == "/images/load":
            image_id = store.load(b"".join(self._chunks()))
            return self._send(200, dump({"stream": f"Loaded image ID: {image_id}\n"}) + b"\r\n")
        query = parse_qs(parts.query)
        store.names[f"{query['repo'][0]}:{query['tag'][0]}"] = unquote(parts.path).split("/")[2]
        return self._send(201, b"")

    def do_DELETE(self) -> None:
        """As engines do: an ID takes its one name with it, and is refused where there are several."""
        store, name = self.server.store, unquote(urlsplit(self.path).path).removeprefix("/images/")
        found = store.find(name)
        if found is None:
            return self._send(404, dump({"message": f"No such image: {name}"}))
        tags = store.tags(found)
        if name == found and len(tags) > 1:
            return self._send(409, dump({"message": "it is referenced in multiple repositories"}))
        for one in tags if name == found else [name]:
            del store.names[one]
        if name == found or not store.tags(found):
            del store.inspected[found]
        return self._send(200, b"[]")

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()


@contextmanager
def fake_engine(socket: Path) -> Iterator[Store]:
    """An engine that listens on `socket`, a short path; gives its store."""
    store = Store()
    with _Server(str(socket), _Handler) as server:
        server.store = store
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield store
        finally:
            server.shutdown()
            thread.join()
