"""The image's own server: started once, asked, ended; what it answers is compared by its values' paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from deadweight.application.table import AppTable
from deadweight.verify.model import ProbeResult
from deadweight.verify.probes.http import ignored, json_differences
from deadweight.verify.probes.start import quoted, said_last, stable
from deadweight.verify.spec import HttpProbe, Probe, StartProbe
from support.images import Member, file
from support.served import compared, looked_at

# A server of the standard library. It says %(word)s, counts what was posted, and prints more than a pipe holds.
SERVER = b"""
import http.server, json, os, sys, time
posted = []
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        status, kind, body = 200, "application/json", b""
        if self.path == "/health":
            body = json.dumps({"status": "ok"})
        elif self.path == "/words":
            items = [{"score": SCORE, "t": time.time()}]
            body = json.dumps({"word": "WORD", "request_id": os.urandom(4).hex(), "items": items})
        elif self.path == "/posted":
            body = json.dumps(posted)
        elif self.path == "/text":
            kind, body = "text/plain", "one line\\nthe word is WORD\\nat " + str(time.time())
        elif self.path == "/bytes":
            kind, body = "application/octet-stream", b"\\xff\\x00WORD"
        elif self.path == "/moved":
            status = 302
        elif self.path == "/large":
            kind, body = "text/plain", b"x" * (20 << 20) + b"WORD"
        elif self.path == "/medium":
            kind, body = "text/plain", b"x" * (5 << 20) + b"WORD"
        elif self.path == "/slow":
            time.sleep(60)
        elif self.path == "/env":
            body = json.dumps([os.environ.get("HELLO"), os.environ.get("EXTRA"), os.getcwd(), os.environ.get("SET")])
        elif self.path == "/die":
            os._exit(3)
        elif self.path == "/cut":
            self.send_response(200); self.send_header("Content-Length", "100"); self.end_headers()
            self.wfile.write(b"short"); self.close_connection = True
            return
        elif self.path == "/deep":
            body = "[" * 100000 + "]" * 100000
        else:
            status, body = 404, b"{}"
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 302:
            self.send_header("Location", "/WORD")
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        posted.append([self.headers["content-type"], json.loads(self.rfile.read(int(self.headers["content-length"])))])
        self.send_response(201); self.send_header("Content-Length", "0"); self.end_headers()
print("x" * 300_000, flush=True)
print(open("/proc/self/status").read()[:50], file=sys.stderr)
time.sleep(0.2)
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8000"))), Handler).serve_forever()
"""
REQUESTS = [
    HttpProbe(name="health", path="/health", status=200),
    HttpProbe(name="words", path="/words"),
    HttpProbe(name="near", path="/words", ignore=["request_id", "items.t", "word"], tolerance=0.2),
    HttpProbe(name="regex", path="/words", ignore=[".*id", r"items\[0\]\.t", "items.score", "word"]),
    HttpProbe(name="nothing posted", path="/posted"),
    HttpProbe(name="post", path="/posted", method="POST", json={"a": [1, None]}, status=201),
    HttpProbe(name="post text", path="/posted", method="POST", body="7", headers={"Content-Type": "text/x"}),
    HttpProbe(name="posted", path="/posted"),
    HttpProbe(name="text", path="/text", ignore=["at .*"]),
    HttpProbe(name="bytes", path="/bytes"),
    HttpProbe(name="moved", path="/moved"),
    HttpProbe(name="large", path="/large"),
    *(HttpProbe(name=f"medium {n}", path="/medium") for n in range(3)),
    HttpProbe(name="missing", path="/nothing here"),
    HttpProbe(name="wanted", path="/nothing", status=200),
    HttpProbe(name="slow", path="/slow", timeout=0.5),
    HttpProbe(name="env", path="/env"),
    HttpProbe(name="cut", path="/cut"),
    HttpProbe(name="deep", path="/deep"),
]


def server(word: str = "one", score: float = 0.5) -> list[Member]:
    code = SERVER.replace(b"WORD", word.encode()).replace(b"SCORE", str(score).encode())
    return [file("app/server.py", code)]


CONFIG: dict[str, Any] = {
    "Entrypoint": ["python3"],
    "Cmd": ["server.py"],
    "Healthcheck": {"Test": ["CMD-SHELL", "curl -f http://localhost:8000/health"]},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ProbeResult]:
    folder = tmp_path_factory.mktemp("images")
    probes: list[Probe] = [StartProbe(name="start", timeout=60), *REQUESTS]
    return compared(folder, server(), server("two", 0.6), probes, CONFIG, app=AppTable(env={"SET": "by app"}))


def test_the_server_starts(results: dict[str, ProbeResult]) -> None:
    start = results["start"]
    assert (start.outcome, start.kind) == ("same", "start")
    assert start.before is not None
    assert start.before.startswith("up in ")
    assert start.after.endswith(" s, HTTP 200")


def test_one_run_answers_all_requests_in_order(results: dict[str, ProbeResult]) -> None:
    assert results["nothing posted"].after == "HTTP 200, 2 bytes"
    assert (
        results["posted"].after == f"HTTP 200, {len('[[`application/json`, {`a`: [1, null]}], [`text/x`, 7]]')} bytes"
    )
    assert results["post"].outcome == results["post text"].outcome == "same"


def test_json_is_compared_by_values(results: dict[str, ProbeResult]) -> None:
    words = results["words"]
    assert (words.outcome, words.ok) == ("differs", False)
    assert words.details[0] == 'body.word: "one" -> "two"'
    assert words.details[2] == "body.items[0].score: 0.5 -> 0.6"
    assert [line.partition(":")[0] for line in words.details] == [
        *("body.word", "body.request_id", "body.items[0].score", "body.items[0].t")
    ]
    assert results["near"].outcome == results["regex"].outcome == "same"
    assert results["deep"].outcome == "same"  # too deep to be parsed: byte for byte


def test_other_bodies_are_compared_byte_for_byte(results: dict[str, ProbeResult]) -> None:
    assert results["text"].details == ["body differs, first in line 2:", "-the word is one", "+the word is two"]
    assert results["bytes"].details == ["body: 5 bytes -> 5 bytes, which are not the same"]
    assert results["large"].outcome == "differs"
    # Bodies are kept as far as there is room for them, and told apart by their digests behind.
    assert results["medium 0"].details[0].startswith("body differs, first in line 1")
    assert results["medium 1"].details == ["body: 5,242,883 bytes -> 5,242,883 bytes, which are not the same"]
    assert results["moved"].details == ["location: /one -> /two"]  # no redirect is followed


def test_failures(results: dict[str, ProbeResult]) -> None:
    assert (results["missing"].outcome, results["missing"].ok) == ("fails", True)
    assert (results["wanted"].outcome, results["wanted"].ok) == ("not met", False)
    assert results["wanted"].details == ["status: 404, 200 is wanted"]
    assert (results["slow"].outcome, results["slow"].ok) == ("no answer", False)
    assert results["slow"].details == ["no response within 0.5 s"]
    assert results["cut"].details == ["response: ValueError: the body ends 95 bytes early"]


def test_the_environment_is_the_images_and_the_specifications(results: dict[str, ProbeResult]) -> None:
    assert results["env"].after == f"HTTP 200, {len('[`world`, null, `/app`, `by app`]')} bytes"


SCRIPTS = {
    "late.py": b"""
import http.server, time
start = time.time()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if time.time() < start + 1 else 404); self.end_headers()
http.server.HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
""",
    "six.py": b"""
import http.server, socket
class Server(http.server.HTTPServer):
    address_family = socket.AF_INET6
Server(("::1", 8000), http.server.SimpleHTTPRequestHandler).serve_forever()
""",
    "raises.py": b"""
import os, datetime
print(datetime.datetime.now(), "starting", os.getpid())
print(f"lock 0x{id(os):x}")
raise ConnectionError(f"no database at 10.0.0.1, pid {os.getpid()}, after 0.{os.getpid()} s")
""",
    "deaf.py": b"""
import http.server, signal, os
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    while True:
        signal.pause()
http.server.HTTPServer(("127.0.0.1", 8000), http.server.SimpleHTTPRequestHandler).serve_forever()
""",
    "noisy.py": b"""
import os, threading, http.server
threading.Thread(target=lambda: [os.write(1, b"y" * 65536) for _ in range(20000)], daemon=True).start()
http.server.HTTPServer(("127.0.0.1", 8000), http.server.SimpleHTTPRequestHandler).serve_forever()
""",
    "mute.py": b"import time\nprint('waiting for the database', flush=True)\ntime.sleep(600)\n",
    "killed.py": b"import os\nos.kill(os.getpid(), 11)\n",
    "not_http.py": b"""
import socket
server = socket.create_server(("127.0.0.1", 8000))
while True:
    peer, _ = server.accept()
    peer.sendall(b"220 smtp ready\\r\\n"); peer.close()
""",
    "whoami.py": b"""
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if os.getuid() == 1001 and os.getcwd() == "/app" else 418); self.end_headers()
http.server.HTTPServer(("0.0.0.0", int(os.environ["ELSEWHERE"])), Handler).serve_forever()
""",
}


def python(name: str, **more: Any) -> StartProbe:
    return StartProbe(name=name, command=["python3", f"{name}.py"], **more)


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ProbeResult]:
    probes: list[Probe] = [
        StartProbe(name="whoami", status=200),  # the first, which requests go to
        python("late"),
        msgspec.structs.replace(python("late", status=200, timeout=4), name="never 200"),
        python("six"),
        python("raises"),
        python("deaf"),
        python("noisy", timeout=20),
        python("mute", timeout=4),
        python("killed"),
        msgspec.structs.replace(python("not_http", path="/", timeout=3), name="http wanted"),
        python("not_http"),
        StartProbe(name="no program", command=["not-there", "x"]),
        StartProbe(name="shell", command=["sh", "-c", "exit $((40 + 2))"]),
        StartProbe(name="background", command=["sh", "-c", "sleep 100 & echo started"]),
        HttpProbe(name="request", path="/", status=200),
    ]
    config = {
        "Entrypoint": ["/entry.sh"],
        "Cmd": ["python3", "whoami.py"],
        "User": "app",
        "ExposedPorts": {"8000/tcp": {}},
    }
    members = [file(f"app/{name}", code) for name, code in SCRIPTS.items()]
    members.append(file("entry.sh", b'#!/bin/sh\nexport ELSEWHERE=9123\nexec "$@"\n', mode=0o755))
    return looked_at(tmp_path_factory.mktemp("images"), members, probes, config)


def test_servers_that_come_up(starts: dict[str, ProbeResult]) -> None:
    for name, status in (("six", 200), ("noisy", 200), ("late", 404), ("deaf", 200)):
        assert starts[name].outcome == "met", starts[name]
        assert starts[name].after.endswith(f"HTTP {status}")
    assert float(starts["late"].after.split()[2]) >= 1


def test_the_images_own_entrypoint_under_its_user_on_whatever_port(starts: dict[str, ProbeResult]) -> None:
    assert starts["whoami"].outcome == "met", starts["whoami"]
    assert starts["request"].after == "HTTP 200, 0 bytes"


def test_a_server_of_another_protocol_listens(starts: dict[str, ProbeResult]) -> None:
    assert starts["not_http"].outcome == "met", starts["not_http"]
    assert starts["not_http"].after.endswith("it listens, but speaks no HTTP")


def test_servers_that_end(starts: dict[str, ProbeResult]) -> None:
    said = "starts: ended by itself, exit status 1: ConnectionError: no database at 10.0.0.1, pid N, after N s"
    assert starts["raises"].details == [said]
    assert starts["killed"].details == ["starts: ended by itself, signal 11: without a word"]
    assert starts["shell"].details == ["starts: ended by itself, exit status 42: without a word"]
    assert starts["background"].details == ["starts: ended by itself, exit status 0: started"]
    assert starts["no program"].details == ["starts: not-there: No such file or directory"]
    assert {starts[name].outcome for name in ("raises", "killed", "shell", "background", "no program")} == {"not met"}


def test_servers_that_never_answer_are_no_pass(starts: dict[str, ProbeResult]) -> None:
    assert starts["mute"].outcome == starts["http wanted"].outcome == "no answer"
    assert starts["mute"].details == ["not up within 3.2 s: waiting for the database"]
    assert starts["never 200"].outcome == "not met"
    assert starts["never 200"].details[1] == "health check, GET /: HTTP 404, 200 is wanted"


def test_a_server_that_ends_in_one_image_only(tmp_path: Path) -> None:
    broken = [file("app/server.py", b"import gone_with_a_pass\n")]
    probes: list[Probe] = [StartProbe(name="start"), HttpProbe(name="health", path="/health")]
    results = compared(tmp_path, server(), broken, probes, CONFIG)
    why = "ended by itself, exit status 1: ModuleNotFoundError: No module named 'gone_with_a_pass'"
    assert results["start"].details == [
        f"starts: yes -> {why}",
        "health check, GET /health: HTTP 200 -> not there",
        "port: 8000 -> not there",
    ]
    assert results["health"].outcome == "differs"
    assert results["health"].details[-1] == f"server: not there -> {why}"


def test_a_server_that_does_not_stay_up(tmp_path: Path) -> None:
    probes: list[Probe] = [
        StartProbe(name="start"),
        HttpProbe(name="die", path="/die"),
        HttpProbe(name="then", path="/health"),
    ]
    results = looked_at(tmp_path, server(), probes, CONFIG)
    for name, fact in (("start", "starts"), ("die", "response"), ("then", "response")):
        assert results[name].details[0].startswith(f"{fact}: ended by itself after it was up, exit status 3: ")


def test_nothing_to_start(tmp_path: Path) -> None:
    results = looked_at(tmp_path, [], [StartProbe(name="start")], {"Cmd": None})
    assert (results["start"].outcome, results["start"].ok) == ("no answer", False)
    assert "neither ENTRYPOINT nor CMD" in results["start"].details[0]


@pytest.mark.parametrize(
    ("one", "two", "tolerance", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, 0, []),
        ({"a": 1}, {"a": True}, 0, ["body.a: 1 -> true"]),
        ({"a": 1}, {}, 0, ["body.a: 1 -> not there"]),
        ([1, 2], [1], 0, ["body: 2 values -> 1 values"]),
        ([1.0], [1.0000001], 0, ["body[0]: 1.0 -> 1.0000001"]),
        ([1.0, 1e9], [1.0000001, 1e9 + 1], 1e-6, []),
        ([float("nan")], [float("nan")], 0, []),
        ([float("inf")], [1.0], 1e-3, ["body[0]: Infinity -> 1.0"]),
        ([10**400], [10**400 + 1], 1e-3, [f"body[0]: {'1' + '0' * 59}... -> {'1' + '0' * 59}..."]),
        (None, {}, 0, ["body: null -> {}"]),
        ({"\x1b[31m": 1}, {"\x1b[31m": 2}, 0, ["body.\\u001b[31m: 1 -> 2"]),
        ("x" * 100, "y", 0, [f'body: "{"x" * 59}... -> "y"']),
    ],
)
def test_json_differences(one: Any, two: Any, tolerance: float, expected: list[str]) -> None:
    assert list(json_differences(one, two, ignored([]), tolerance)) == expected


def test_keys_to_ignore() -> None:
    one = {"a": {"b": 1, "c": [{"d": 2, "e": 3}, {"d": 4}]}, "b": 5, "time_x": 1}
    two = {"a": {"b": 9, "c": [{"d": 9, "e": 9}, {"d": 9}]}, "b": 9, "time_x": 2}

    def different(*patterns: str) -> list[str]:
        return [line.partition(":")[0] for line in json_differences(one, two, ignored(list(patterns)), 0)]

    assert different("a") == ["body.b", "body.time_x"]
    assert different("a.b", "time_.*") == ["body.a.c[0].d", "body.a.c[0].e", "body.a.c[1].d", "body.b"]
    assert different("a.c.d", "b", "time_x", "a.b") == ["body.a.c[0].e"]
    assert different(r"a\.c\[1\]\..*", ".*b", "time_x") == ["body.a.c[0].d", "body.a.c[0].e"]
    assert different("d", "c", "time") == [
        *("body.a.b", "body.a.c[0].d", "body.a.c[0].e", "body.a.c[1].d", "body.b", "body.time_x")
    ]


def test_logs_say_the_same_in_two_runs() -> None:
    one = "2026-01-02 03:04:05,678 [17] worker (pid:8) <object at 0x7f00> in 0.35s at /tmp/tmpab12/x \x1b[31mred\x1b[0m"
    two = "2026-02-03 13:14:15,001 [18] worker (pid:9) <object at 0x7e11> in 1.2s at /tmp/tmpcd34/x \x1b[31mred\x1b[0m"
    assert stable(one) == stable(two)
    assert "red" in stable(one)
    log = "Traceback (most recent call last):\n  File x\nsqlalchemy.exc.OperationalError: no host\n\nERROR: Exiting.\n"
    assert said_last(log) == "sqlalchemy.exc.OperationalError: no host"
    assert said_last("a\nb\n\n") == "b"
    assert said_last("") == "without a word"


def test_paths_of_requests() -> None:
    assert quoted("a b?x=ä&y=%20") == "/a%20b?x=%C3%A4&y=%20"
    assert quoted("/x\r\nHost: evil") == "/x%0D%0AHost:%20evil"
