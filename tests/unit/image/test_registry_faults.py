"""A registry that misbehaves loses nothing: what is read is what its digest says, an upload is complete or not there,
errors are one clear line, and secrets go nowhere but where they belong."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from deadweight.errors import BadInputError, DeadweightError, DigestError, EnvironmentFailure, UsageError
from deadweight.image.output import NewImage, OutputLayer, Written, keep_image
from deadweight.image.reference import parse_destination
from deadweight.image.transports import open_image, write_image
from deadweight.image.transports.registry_settings import Settings, using
from support.bad_registry import OCI_MANIFEST, Fault, Handler, Registry, bad_registry
from support.images import (
    FixtureImage,
    descriptor,
    digest,
    dump,
    file,
    make_image,
    make_tar,
    simple_image,
    write_docker_archive,
)
from support.registries import no_logins

FAST = Settings(tries=4, pause=0.01, timeout=3.0, chunk=64 << 10)
USER, PASSWORD = "tester", "pa55-w0rd-that-is-secret"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    no_logins(monkeypatch, tmp_path / "home")
    with using(FAST):
        yield


@pytest.fixture
def registry() -> Iterator[Registry]:
    with bad_registry() as found:
        yield found


def big_image() -> FixtureImage:
    return make_image(make_tar(file("weights", os.urandom(400_000))), make_tar(file("app.py", b"print()\n")))


def log_in(host: str, tmp_path: Path, **auth: str) -> None:
    """What docker login leaves."""
    (tmp_path / "home/.docker").mkdir(parents=True, exist_ok=True)
    config = {"auths": {host: auth or {"auth": BASIC}}}
    (tmp_path / "home/.docker/config.json").write_text(json.dumps(config))


def read(registry: Registry, image: FixtureImage, name: str = "team/app:v1") -> None:
    """Reads an image whole, and holds it to what it is."""
    with open_image(f"docker://{registry.host}/{name}") as found:
        found.fetch()
        assert found.config_digest == image.config_digest
        assert [b"".join(layer.tar.chunks()) for layer in found.layers] == list(image.layers)


def fetch(reference: str) -> None:
    with open_image(reference) as image:
        image.fetch()


def push(registry: Registry, image: FixtureImage, tmp_path: Path, name: str = "team/new:v1") -> Written:
    with open_image(str(write_docker_archive(tmp_path / "a.tar", image))) as source:
        return write_image(keep_image(source), parse_destination(f"docker://{registry.host}/{name}"))


def whole(registry: Registry, tag: str, image: FixtureImage) -> None:
    """The image is there, and everything of it."""
    manifest = json.loads(registry.manifests[tag][1])
    assert registry.blobs[manifest["config"]["digest"]] == image.config_bytes
    for layer in manifest["layers"]:
        assert digest(registry.blobs[layer["digest"]]) == layer["digest"]
        assert len(registry.blobs[layer["digest"]]) == layer["size"]
    assert registry.uploads == {}


def status(code: int, **headers: str) -> Fault:
    return lambda handler: handler.answer(code, b"{}", **headers)


def cut(handler: Handler) -> bool:
    """Half of a blob, and the connection breaks off."""
    blob = handler.registry.blobs[handler.path.rpartition("/")[2]]
    match = re.fullmatch(r"bytes=(\d+)-\d*", handler.headers.get("range", ""))
    start = int(match[1]) if match else 0
    handler.send_response(206 if match else 200)
    handler.send_header("Content-Length", str(len(blob) - start))
    if match:
        handler.send_header("Content-Range", f"bytes {start}-{len(blob) - 1}/{len(blob)}")
    handler.end_headers()
    handler.wfile.write(blob[start : start + (len(blob) - start) // 2])
    return handler.drop()


def largest(registry: Registry) -> str:
    return max(registry.blobs, key=lambda name: len(registry.blobs[name]))


def two_statuses(registry: Registry) -> None:
    registry.once("GET", "/blobs/", status(500))
    registry.once("GET", "/blobs/", status(503))


def cut_without_ranges(registry: Registry) -> None:
    registry.once("GET", largest(registry), cut)
    registry.faults.append(no_ranges)


def no_ranges(handler: Handler) -> bool:
    blob = handler.registry.blobs.get(handler.path.rpartition("/")[2])
    return blob is not None and handler.command == "GET" and handler.answer(200, blob)


def moved(where: str, code: int = 307) -> Fault:
    def fault(handler: Handler) -> bool:
        blob = handler.registry.blobs[handler.path.rpartition("/")[2]]
        handler.registry.once("GET", "/elsewhere", lambda other: other.answer(200, blob))
        return handler.answer(code, b"", Location=where)

    return fault


READING: dict[str, Callable[[Registry], object]] = {
    "dropped midway": lambda r: r.once("GET", largest(r), cut, 3),
    "dropped at once": lambda r: r.once("GET", "/blobs/", Handler.drop, 3),
    "manifest dropped": lambda r: r.once("GET", "/manifests/", Handler.drop, 2),
    "500 and 503": two_statuses,
    "429 with Retry-After": lambda r: r.once("GET", "/manifests/", status(429, Retry_After="0"), 2),
    "429 with a date": lambda r: r.once("GET", "/", status(429, Retry_After="Thu, 01 Jan 2015 00:00:00 GMT"), 2),
    "wrong Content-Type": lambda r: r.manifests.update({"v1": ("text/plain", r.manifests["v1"][1])}),
    "no ranges": cut_without_ranges,
    "redirect within": lambda r: r.once("GET", largest(r), moved(f"http://{r.host}/elsewhere")),
}


@pytest.mark.parametrize("what", READING)
def test_reading_goes_on(registry: Registry, what: str) -> None:
    image = big_image()
    registry.add("v1", image)
    READING[what](registry)
    read(registry, image)


def test_a_broken_layer_is_taken_up_where_it_broke_off(registry: Registry) -> None:
    image = big_image()
    registry.add("v1", image)
    registry.once("GET", largest(registry), cut, 3)
    read(registry, image)
    asked = [one.headers.get("range") for one in registry.asked if largest(registry) in one.path]
    starts = [int(re.findall(r"\d+", each)[0]) if each else 0 for each in asked]
    assert len(starts) == 4
    assert starts[0] == 0 < starts[1] < starts[2] < starts[3]


def lie_about_content(handler: Handler) -> bool:
    blob = bytearray(handler.registry.blobs[handler.path.rpartition("/")[2]])
    blob[len(blob) // 2] ^= 1
    return handler.answer(200, bytes(blob))


def endless(handler: Handler) -> bool:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"10000\r\n" + b"\x1f\x8b" * 0x8000 + b"\r\n")


def other_part(handler: Handler) -> bool:
    if "range" not in handler.headers:
        return cut(handler)
    return handler.answer(206, b"x" * 100, Content_Range="bytes 0-99/100")


def silent(handler: Handler) -> bool:
    time.sleep(6)
    return handler.drop()


REFUSED: dict[str, tuple[Callable[[Registry], object], type[DeadweightError], str]] = {
    "other bytes": (
        lambda r: r.once("GET", largest(r), lie_about_content, 9),
        BadInputError,
        "does not hash|cannot be decompressed",
    ),
    "endless layer": (lambda r: r.once("GET", largest(r), endless, 9), BadInputError, "more comes than the"),
    "endless manifest": (lambda r: r.once("GET", "/manifests/", endless, 9), BadInputError, "sends more than"),
    "short": (
        lambda r: r.once("GET", largest(r), lambda h: h.answer(200, b"\x1f\x8b"), 9),
        EnvironmentFailure,
        r"sends 2 bytes where .* times in a row",
    ),
    "another part": (lambda r: r.once("GET", largest(r), other_part, 9), EnvironmentFailure, "another part"),
    "always 500": (lambda r: r.once("GET", "/blobs/", status(500), 99), EnvironmentFailure, "HTTP 500, 4 times"),
    "a long wait": (lambda r: r.once("GET", "/", status(429, Retry_After="9999")), EnvironmentFailure, "wants 9,999 s"),
    "403": (
        lambda r: r.once("GET", "/", lambda h: h.answer(403, b'{"errors":[{"code":"DENIED","message":"no"}]}')),
        EnvironmentFailure,
        r"refuses \(HTTP 403\): 'DENIED no': log in first",
    ),
    "another digest": (
        lambda r: r.once("GET", "/manifests/", lambda h: h.answer(200, b"{}", Docker_Content_Digest=digest(b"x"))),
        DigestError,
        "as was said",
    ),
    "no manifest": (lambda r: r.put("v1", "text/html", b"<html>"), BadInputError, "no JSON object"),
    "schema 1": (lambda r: r.put("v1", "x", b'{"schemaVersion":1}'), BadInputError, "schema 1"),
    "index and manifest": (
        lambda r: r.put("v1", OCI_MANIFEST, b'{"schemaVersion":2,"manifests":[],"layers":[]}'),
        BadInputError,
        "both an index and a manifest",
    ),
    "said to be an index": (
        lambda r: r.put("v1", "application/vnd.oci.image.index.v1+json", r.manifests["v1"][1]),
        BadInputError,
        "it is refused",
    ),
    "in circles": (
        lambda r: r.faults.append(lambda h: h.answer(302, b"", Location=h.path)),
        EnvironmentFailure,
        "redirects in circles",
    ),
    "to a file": (
        lambda r: r.faults.append(lambda h: h.answer(302, b"", Location="file:///etc/passwd")),
        EnvironmentFailure,
        "no address",
    ),
    "no HTTP": (
        lambda r: r.faults.append(lambda h: h.wfile.write(b"SSH-2.0-x\r\n\r\n") > 0 and h.drop()),
        EnvironmentFailure,
        "broke off",
    ),
    "escapes": (
        lambda r: r.once("GET", "/", lambda h: h.answer(400, b'{"errors":[{"message":"\\u001b[31mred"}]}')),
        EnvironmentFailure,
        r"'\\x1b\[31mred'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_lies_are_refused_in_one_line(registry: Registry, what: str) -> None:
    registry.add("v1", big_image())
    fault, kind, says = REFUSED[what]
    fault(registry)
    with pytest.raises(kind, match=says) as caught:
        fetch(f"docker://{registry.host}/team/app:v1")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_no_room(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """That a manifest claims more than there is room for is said before anything is downloaded."""
    manifest = registry.add("v1", big_image())
    manifest["layers"][0]["size"] = 1 << 50
    registry.put("v1", OCI_MANIFEST, dump(manifest))
    with pytest.raises(EnvironmentFailure, match=r"no space in .*: layers of 1,125,899,9\d\d,\d\d\d,\d\d\d bytes"):
        fetch(f"docker://{registry.host}/team/app:v1")
    assert not any(largest(registry) in path for path in registry.paths("GET"))


def test_a_silent_registry_is_given_up(registry: Registry) -> None:
    registry.add("v1", simple_image())
    registry.once("GET", "/", silent, 99)
    began = time.monotonic()
    with (
        using(Settings(tries=2, pause=0.01, timeout=0.3)),
        pytest.raises(EnvironmentFailure, match=r"cannot be reached|says nothing"),
    ):
        open_image(f"docker://{registry.host}/team/app:v1")
    assert time.monotonic() - began < 5


def trickling(handler: Handler) -> bool:
    """A head without end, a line at a time."""
    with suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(300):
            handler.wfile.write(b"X-%d: x\r\n" % number)
            handler.wfile.flush()
            time.sleep(0.05)
    return handler.drop()


def test_a_head_that_does_not_end_is_given_up(registry: Registry) -> None:
    registry.add("v1", simple_image())
    registry.once("GET", "/manifests/", trickling, 99)
    began = time.monotonic()
    with (
        using(Settings(tries=2, pause=0.01, timeout=0.3)),
        pytest.raises(EnvironmentFailure, match="takes too long over an answer, 2 times in a row"),
    ):
        open_image(f"docker://{registry.host}/team/app:v1")
    assert time.monotonic() - began < 5


def test_a_head_that_does_not_end_costs_others_a_try(registry: Registry) -> None:
    image = big_image()
    registry.add("v1", image)
    registry.once("GET", largest(registry), trickling)
    with using(Settings(tries=4, pause=0.01, timeout=0.5)):
        read(registry, image)


def test_nobody_there() -> None:
    with pytest.raises(EnvironmentFailure, match="cannot be reached"):
        open_image("docker://127.0.0.1:9/team/app:v1")


def dropped_after(handler: Handler) -> bool:
    """Takes half of a chunk, and breaks off."""
    name = handler.path.partition("?")[0].rpartition("/")[2]
    handler.registry.uploads[name] += handler.body[: len(handler.body) // 2]
    return handler.drop()


def answer_lost(handler: Handler) -> bool:
    """Takes all of a chunk, and the answer is lost."""
    name = handler.path.partition("?")[0].rpartition("/")[2]
    handler.registry.uploads[name] += handler.body
    return handler.drop()


def forgets(handler: Handler) -> bool:
    handler.registry.uploads.pop(handler.path.partition("?")[0].rpartition("/")[2], None)
    return False


WRITING: dict[str, Callable[[Registry], object]] = {
    "PATCH dropped midway": lambda r: r.once("PATCH", "/uploads/", dropped_after, 3),
    "PATCH's answer lost": lambda r: r.once("PATCH", "/uploads/", answer_lost, 3),
    "PATCH dropped at once": lambda r: r.once("PATCH", "/uploads/", Handler.drop, 2),
    "PATCH 500": lambda r: r.once("PATCH", "/uploads/", status(500), 2),
    "PATCH 429": lambda r: r.once("PATCH", "/uploads/", status(429, Retry_After="0"), 2),
    "upload forgotten": lambda r: r.once("PATCH", "/uploads/", forgets, 2),
    "upload forgotten at the end": lambda r: r.once("PUT", "/uploads/", forgets),
    "POST dropped": lambda r: r.once("POST", "/uploads/", Handler.drop, 3),
    "PUT of a blob dropped": lambda r: r.once("PUT", "/uploads/", Handler.drop, 2),
    "PUT of a blob 502": lambda r: r.once("PUT", "/uploads/", status(502), 2),
    "HEAD 503": lambda r: r.once("HEAD", "/blobs/", status(503), 2),
    "PUT of the manifest dropped": lambda r: r.once("PUT", "/manifests/", Handler.drop, 2),
    "PUT of the manifest 503": lambda r: r.once("PUT", "/manifests/", status(503), 2),
}


@pytest.mark.parametrize("what", WRITING)
def test_writing_goes_on(registry: Registry, tmp_path: Path, what: str) -> None:
    image = big_image()
    WRITING[what](registry)
    written = push(registry, image, tmp_path)
    whole_but_begun(registry, image, written)


def whole_but_begun(registry: Registry, image: FixtureImage, written: Written) -> None:
    registry.uploads = {name: data for name, data in registry.uploads.items() if data}  # begun twice, never used
    whole(registry, "v1", image)
    assert digest(registry.manifests["v1"][1]) == written.manifest_digest
    read(registry, image, "team/new:v1")


def test_an_upload_is_taken_up_and_not_begun_anew(registry: Registry, tmp_path: Path) -> None:
    image = big_image()
    registry.once("PATCH", "/uploads/", dropped_after, 3)
    push(registry, image, tmp_path)
    sent = sum(len(one.body) for one in registry.asked if one.method == "PATCH")
    assert sent < 400_000 + 4 * 3 * (64 << 10) + 100_000
    assert len({path.partition("?")[0] for path in registry.paths("PATCH")}) == 1


def test_a_registry_that_takes_no_chunks(registry: Registry, tmp_path: Path) -> None:
    """It gets each blob whole; and again from the beginning where that breaks off."""
    image = big_image()
    registry.faults.append(
        lambda h: h.command == "PATCH" and not h.headers["content-range"].startswith("0-") and h.answer(400, b"{}")
    )
    registry.once("PUT", "/uploads/", Handler.drop, 2)
    whole_but_begun(registry, image, push(registry, image, tmp_path))
    assert max(len(one.body) for one in registry.asked if one.method == "PUT") > 400_000


def test_a_registry_that_forgets_every_upload(registry: Registry, tmp_path: Path) -> None:
    for number, image in enumerate((big_image(), make_image())):  # with layers, and with a configuration alone
        registry.faults.clear()
        registry.once("PUT", "/uploads/", forgets, 999)
        with pytest.raises(EnvironmentFailure, match=r"send (layer [12]|a blob) to .* lost the upload, 4 times"):
            push(registry, image, tmp_path, f"team/new:v{number}")
    assert registry.manifests == {}


def test_uploads_that_are_refused_leave_nothing(registry: Registry, tmp_path: Path) -> None:
    registry.add("v1", simple_image())
    before = dict(registry.manifests)
    for method, pattern, says in (
        ("PUT", "/uploads/", "HTTP 400"),
        ("PATCH", "/uploads/", "HTTP 400"),
        ("PUT", "/manifests/", "HTTP 400"),
        ("HEAD", "/blobs/", "HTTP 400"),
    ):
        registry.faults.clear()
        registry.once(method, pattern, status(400), 99)
        with pytest.raises(EnvironmentFailure, match=says):
            push(registry, big_image(), tmp_path, "team/new:v2")
        assert registry.manifests == before
        assert registry.uploads == {}


def test_a_registry_that_lies_about_what_it_got(registry: Registry, tmp_path: Path) -> None:
    lie = digest(b"something else")
    registry.once("PUT", "/uploads/", lambda h: h.answer(201, Docker_Content_Digest=lie))
    with pytest.raises(DigestError, match="says it got"):
        push(registry, simple_image(), tmp_path)
    registry.faults.clear()
    registry.once("PATCH", "/uploads/", lambda h: h.answer(202, Location=h.path, Range="0-99999999"))
    with pytest.raises(EnvironmentFailure, match="says that it has"):
        push(registry, big_image(), tmp_path)
    assert "v1" not in registry.manifests


def test_a_blob_of_another_size_is_not_the_one(registry: Registry, tmp_path: Path) -> None:
    image = simple_image()
    registry.add("v1", image)
    registry.once("HEAD", "/blobs/", lambda h: h.answer(200, b"x" * 7))
    with open_image(f"docker://{registry.host}/team/app:v1") as source, pytest.raises(DigestError, match="7"):
        write_image(keep_image(source), parse_destination(f"docker://{registry.host}/other/app:v1"))


def test_one_layer_fails_and_all_are_given_up(registry: Registry, tmp_path: Path) -> None:
    begun = threading.Event()

    def slow() -> Iterator[bytes]:
        begun.set()
        for _ in range(200):
            yield os.urandom(64 << 10)
            time.sleep(0.01)

    def bad() -> Iterator[bytes]:
        begun.wait(5)
        yield b"x"
        raise BadInputError("broken source")

    new = NewImage((OutputLayer(200 * (64 << 10), slow), OutputLayer(10, bad)), lambda _: b"{}")
    began = time.monotonic()
    with pytest.raises(BadInputError, match="broken source"):
        write_image(new, parse_destination(f"docker://{registry.host}/team/app:v1"))
    assert time.monotonic() - began < 6
    assert registry.manifests == {}
    assert registry.uploads == {}


@pytest.mark.parametrize("tokens", [False, True])
def test_passwords_and_tokens(registry: Registry, tmp_path: Path, tokens: bool) -> None:
    registry.basic, registry.tokens = (USER, PASSWORD), tokens
    image = big_image()
    with pytest.raises(EnvironmentFailure, match=r"log in|refuses"):
        push(registry, image, tmp_path)
    log_in(registry.host, tmp_path)
    push(registry, image, tmp_path)
    whole(registry, "v1", image)
    read(registry, image, "team/new:v1")
    if tokens:
        # One token for what is read and one for what is written, not one a request.
        assert len(registry.issued) <= 3
        given = {one.headers.get("authorization", "") for one in registry.asked if not one.path.startswith("/token")}
        assert not any(BASIC in each for each in given)


def test_a_token_that_expires_is_renewed(registry: Registry, tmp_path: Path) -> None:
    registry.basic, registry.tokens = (USER, PASSWORD), True
    log_in(registry.host, tmp_path)

    def expire(handler: Handler) -> bool:
        handler.registry.issued.clear()
        return False

    for method in ("PATCH", "PUT", "HEAD"):
        registry.once(method, "/", expire)
    image = big_image()
    push(registry, image, tmp_path)
    whole(registry, "v1", image)
    registry.once("GET", largest(registry), expire)
    read(registry, image, "team/new:v1")


def test_identity_tokens(registry: Registry, tmp_path: Path) -> None:
    registry.basic, registry.tokens = (USER, PASSWORD), True
    image = simple_image()
    registry.add("v1", image)
    log_in(registry.host, tmp_path, identitytoken="identity-secret")
    read(registry, image)
    assert "identity-secret" not in "".join(one.path for one in registry.asked)


def test_no_credentials_for_others(registry: Registry, tmp_path: Path) -> None:
    """Redirects of layers, manifests and uploads to another host: it gets the request, and no secret."""
    registry.basic = (USER, PASSWORD)
    log_in(registry.host, tmp_path)
    image = big_image()
    registry.add("v1", image)
    with bad_registry() as other:
        other.blobs, other.manifests = registry.blobs, registry.manifests
        for pattern in (largest(registry), "/manifests/"):
            registry.once("GET", pattern, lambda h: h.answer(307, b"", Location=f"http://{other.host}{h.path}"))
        read(registry, image)
        assert len(other.asked) == 2
        # An upload that the registry places elsewhere.
        registry.faults.append(
            lambda h: (
                h.command == "POST"
                and "authorization" in h.headers
                and other.uploads.update({"u": bytearray()}) is None
                and h.answer(202, Location=f"http://{other.host}/v2/team/new/blobs/uploads/u")
            )
        )
        small = make_image(make_tar(file("one", b"1")))
        with pytest.raises(DeadweightError):
            push(registry, small, tmp_path)  # two blobs at one place: that cannot go well
        assert len(other.asked) > 2
        assert "authorization" not in other.said().lower()
        for secret in (PASSWORD, BASIC):
            assert secret not in other.said()


def test_nothing_goes_elsewhere_without_tls(registry: Registry, tmp_path: Path) -> None:
    """A registry of this machine that is spoken to without TLS names places on others: they get nothing."""
    log_in(registry.host, tmp_path)
    image = simple_image()
    registry.add("v1", image)
    realm = 'Bearer realm="http://token.invalid/t",service="x"'
    registry.once("GET", "/manifests/", lambda h: h.answer(401, WWW_Authenticate=realm))
    with pytest.raises(EnvironmentFailure, match=r"names a token service without TLS, 'http://token.invalid': nothing"):
        open_image(f"docker://{registry.host}/team/app:v1")
    registry.once("GET", "/manifests/", lambda h: h.answer(307, Location="http://layers.invalid/"))
    with pytest.raises(EnvironmentFailure, match="without TLS: not followed"):
        open_image(f"docker://{registry.host}/team/app:v1")
    registry.once("POST", "/uploads/", lambda h: h.answer(202, Location="http://uploads.invalid/u"))
    with pytest.raises(EnvironmentFailure, match="without TLS: not followed"):
        push(registry, image, tmp_path)


@pytest.mark.parametrize("where", ["https://a..b/", "https://127.0.0.1:99999/", "https://[1:2]/", "https://x:y/"])
def test_addresses_that_are_none(registry: Registry, where: str) -> None:
    registry.add("v1", simple_image())
    registry.once("GET", "/manifests/", lambda h: h.answer(307, Location=where), 99)
    with pytest.raises(EnvironmentFailure):
        open_image(f"docker://{registry.host}/team/app:v1")


@pytest.mark.parametrize("host", ["a..b", "[1:2]:5", f"{'a' * 70}.example"])
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(UsageError, match="can be no host"):
        open_image(f"docker://{host}/x:1")


@pytest.mark.parametrize("proxy", ["socks5://me:hunter2@proxy.invalid:1080", "odd://me:hunter2@proxy.invalid"])
def test_proxies_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in ("ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    with pytest.raises(UsageError, match="only http://HOST:PORT") as caught:
        open_image("docker://registry.invalid/x:1")
    assert "hunter2" not in str(caught.value)


def test_an_answer_to_giving_up_is_not_read(registry: Registry, tmp_path: Path) -> None:
    sent = []

    def much(handler: Handler) -> bool:
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        for _ in range(64):
            sent.append(handler.wfile.write(bytes(1 << 20)))
        return True

    registry.once("DELETE", "/uploads/", much, 99)
    registry.once("PUT", "/uploads/", status(403), 99)
    with pytest.raises(EnvironmentFailure):
        push(registry, simple_image(), tmp_path)
    assert registry.paths("DELETE")
    assert len(sent) < 32


def test_an_index_of_too_many(registry: Registry) -> None:
    """Of an index that does not say what its images are for, they are looked at one by one: not without end."""
    registry.add("v1", simple_image())
    real = registry.manifests["v1"][1]
    kind = "application/vnd.oci.image.index.v1+json"
    members = []
    for number in range(20):
        data = real + b" " * ((4 << 20) - len(real) - number)
        registry.put(f"n{number}", OCI_MANIFEST, data)
        members.append(descriptor(OCI_MANIFEST, data))
    registry.put("many", kind, dump({"schemaVersion": 2, "mediaType": kind, "manifests": members}))
    with pytest.raises(BadInputError, match="more images in its index than are looked at; name one as docker://"):
        open_image(f"docker://{registry.host}/team/app:many")


def token_lies() -> list[Any]:
    return [
        pytest.param(lambda h: h.answer(200, b"[]"), "gives no token", id="a list"),
        pytest.param(
            lambda h: h.answer(200, b'{"token":"a\\r\\nX-Bad: 1"}'), "no token that could be sent", id="lines"
        ),
        pytest.param(lambda h: h.answer(200, b'{"token":""}'), "no token that could be sent", id="empty"),
        pytest.param(endless, "sends more than", id="endless"),
        pytest.param(status(500), "HTTP 500, 4 times", id="500"),
        pytest.param(lambda h: h.answer(200, b'{"token":"useless-token"}'), r"refuses \(HTTP 401\)", id="useless"),
        pytest.param(lambda h: h.answer(302, b"", Location="http://127.0.0.1:9/"), "HTTP 302", id="redirect"),
        pytest.param(status(403), r"refuses \(HTTP 403\)", id="403"),
    ]


@pytest.mark.parametrize(("fault", "says"), token_lies())
def test_a_token_service_that_lies(registry: Registry, tmp_path: Path, fault: Fault, says: str) -> None:
    registry.basic, registry.tokens = (USER, PASSWORD), True
    registry.add("v1", simple_image())
    log_in(registry.host, tmp_path)
    registry.once("GET", "^/token", fault, 99)
    with pytest.raises(DeadweightError, match=says) as caught:
        open_image(f"docker://{registry.host}/team/app:v1")
    for secret in (PASSWORD, BASIC, "useless-token"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "challenge",
    [
        'Bearer realm="ftp://x/"',
        'Bearer realm="http://user:pass@127.0.0.1:9/"',
        'Bearer realm="https://[bad/"',
        "Bearer",
        'Negotiate abc, NTLM realm="x"',
        'Bearer realm="' + "x" * 20000,
    ],
)
def test_challenges_that_cannot_be_answered(registry: Registry, tmp_path: Path, challenge: str) -> None:
    log_in(registry.host, tmp_path)
    registry.faults.append(lambda h: h.answer(401, WWW_Authenticate=challenge))
    with pytest.raises(EnvironmentFailure, match=r"no address|refuses"):
        open_image(f"docker://{registry.host}/team/app:v1")
    assert PASSWORD not in registry.said()
    assert BASIC not in registry.said()


def test_a_registry_that_repeats_our_secret(registry: Registry, tmp_path: Path) -> None:
    """Errors that quote the request's headers do not make it to the screen."""
    registry.basic = (USER, PASSWORD)
    log_in(registry.host, tmp_path)
    registry.faults.append(
        lambda h: (
            "authorization" in h.headers
            and h.answer(403, dump({"errors": [{"code": "DENIED", "message": f"no {h.headers['authorization']}!"}]}))
        )
    )
    with pytest.raises(EnvironmentFailure, match=r"no Basic \*\*\*!") as caught:
        open_image(f"docker://{registry.host}/team/app:v1")
    assert BASIC not in str(caught.value)


def test_signed_addresses_are_not_shown(registry: Registry) -> None:
    registry.add("v1", simple_image())
    registry.faults.append(
        lambda h: "/blobs/" in h.path and h.answer(307, b"", Location="http://127.0.0.1:9/b?signature=53cr3t")
    )
    with pytest.raises(EnvironmentFailure) as caught:
        open_image(f"docker://{registry.host}/team/app:v1")
    assert "53cr3t" not in str(caught.value)


def test_mounts_that_are_declined(registry: Registry, tmp_path: Path) -> None:
    """202 instead of 201: the upload that began is used."""
    image = big_image()
    registry.add("v1", image)
    registry.once("HEAD", "/other/", status(404), 9)
    with ExitStack() as stack:
        source = stack.enter_context(open_image(f"docker://{registry.host}/team/app:v1"))
        write_image(keep_image(source), parse_destination(f"docker://{registry.host}/other/app:v2"))
    mounts = [path for path in registry.paths("POST") if "mount=" in path]
    assert len(mounts) == 2
    assert all("from=team/app" in path for path in mounts)
    whole(registry, "v2", image)


def half_then_silent(handler: Handler) -> bool:
    blob = handler.registry.blobs[handler.path.rpartition("/")[2]]
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(blob)))
    handler.end_headers()
    handler.wfile.write(blob[: len(blob) // 2])
    handler.wfile.flush()
    time.sleep(30)
    return handler.drop()


def stopped(arguments: list[str], tmp_path: Path, when: Callable[[], bool]) -> tuple[int, str, float]:
    """Runs deadweight, interrupts it when it is time; gives its status, what it said, and how long it took to end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "deadweight", *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        for _ in range(300):
            if when():
                break
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, said = process.communicate(timeout=30)
        return process.returncode, said, time.monotonic() - began
    finally:
        process.kill()


def test_an_interrupted_download_ends_at_once(registry: Registry, tmp_path: Path) -> None:
    registry.add("v1", big_image())
    registry.once("GET", largest(registry), half_then_silent, 99)
    arguments = ["inspect", f"docker://{registry.host}/team/app:v1"]
    status_, said, took = stopped(
        arguments, tmp_path, lambda: any(largest(registry) in p for p in registry.paths("GET"))
    )
    assert status_ == 130, said
    assert took < 15
    assert said == "deadweight: stopped by SIGINT\n"
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == []


def test_an_interrupted_upload_leaves_nothing(registry: Registry, tmp_path: Path) -> None:
    def slow(handler: Handler) -> bool:
        time.sleep(0.5)
        return False

    archive = write_docker_archive(tmp_path / "a.tar", make_image(make_tar(file("w", os.urandom(40_000_000)))))
    registry.once("PATCH", "/uploads/", slow, 999)
    arguments = ["slim", str(archive), "--to", f"docker://{registry.host}/team/app:v1"]
    status_, said, took = stopped(arguments, tmp_path, lambda: bool(registry.paths("PATCH")))
    assert status_ == 130, said
    assert took < 15
    assert registry.manifests == {}
    assert registry.uploads == {}


def test_an_upload_that_is_lost_is_deleted(registry: Registry, tmp_path: Path) -> None:
    """What the registry still has of it would take room."""
    registry.once("PATCH", "/uploads/", status(500))
    registry.once("GET", "/uploads/", status(404))
    image = big_image()
    push(registry, image, tmp_path)
    whole(registry, "v1", image)


def test_a_refusal_says_what_the_registry_says(registry: Registry, tmp_path: Path) -> None:
    body = dump({"errors": [{"code": "UNKNOWN", "message": "m", "detail": {"Enclosed": {"Err": 28}}}, {}]})
    registry.once("POST", "/uploads/", lambda handler: handler.answer(500, body), 99)
    with pytest.raises(
        EnvironmentFailure, match=r"HTTP 500: 'UNKNOWN m \(no space left on device\)', \d times in a row"
    ):
        push(registry, simple_image(), tmp_path)
