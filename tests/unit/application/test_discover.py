"""What an image shows of its application: object, port, health check, each by its evidence."""

from __future__ import annotations

from typing import Any

import pytest

from deadweight.application.discover import Discovery, discover
from deadweight.application.table import AppTable
from deadweight.ledger.ledger import Ledger
from deadweight.verify.defaults import default_probes, left_out, modules
from deadweight.verify.spec import HttpProbe, ImportProbe, LibrariesProbe, RoutesProbe, Spec, StartProbe
from support.contexts import SITE, context, distribution
from support.images import Member, directory, file, symlink

FASTAPI = b"from fastapi import FastAPI\napp = FastAPI()\n"
FLASK = b"import flask\nserver = flask.Flask(__name__)\n"
FACTORY = b"from flask import Flask\ndef create_app():\n    app = Flask('x')\n    return app\n"
WSGI = b"from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"
MANAGE = b"import os\ndef main():\n    os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\n"


def ledger_of(cmd: list[str] | None, files: dict[str, bytes] | None = None, *more: Member, **config: Any) -> Ledger:
    """An image with these files below /app, which is its working directory."""
    members = [directory("app"), *(file(f"app/{name}", data) for name, data in (files or {}).items()), *more]
    run = {"Cmd": cmd, "WorkingDir": "/app", "Env": ["PATH=/usr/local/bin:/bin"], **config}
    return context(members, run=run).ledger


def found(cmd: list[str] | None, files: dict[str, bytes] | None = None, *more: Member, **config: Any) -> Discovery:
    return discover(ledger_of(cmd, files, *more, **config))


def shell(code: str) -> list[str]:
    return ["/bin/sh", "-c", code]


@pytest.mark.parametrize(
    ("cmd", "files", "app", "kind", "port"),
    [
        (["uvicorn", "main:app"], {"main.py": FASTAPI}, "main:app", "asgi", 8000),
        (["uvicorn", "--workers", "4", "--port", "4", "a.b:app"], {}, "a.b:app", "asgi", 4),
        (["python", "-m", "uvicorn", "x.y:api", "--port=81"], {}, "x.y:api", "asgi", 81),
        (["/opt/venv/bin/python3.12", "-u", "-m", "uvicorn", "x:api"], {}, "x:api", "asgi", 8000),
        (["uvicorn", "main:make", "--factory"], {}, "main:make", "asgi", 8000),
        (["gunicorn", "-w", "4", "-b", "0.0.0.0:8080", "shop.wsgi"], {}, "shop.wsgi:application", "wsgi", 8080),
        (["gunicorn", "-w4", "-b:82", "-k", "uvicorn.workers.UvicornWorker", "m:app"], {}, "m:app", "asgi", 82),
        (["gunicorn", "shop.wsgi:application"], {"shop/wsgi.py": WSGI}, "shop.wsgi:application", "django", 8000),
        (["gunicorn", "main:create_app()"], {"main.py": FACTORY}, "main:create_app", "wsgi", 8000),
        (["hypercorn", "--bind", "[::]:9000", "main:app"], {}, "main:app", "asgi", 9000),
        (["granian", "--interface", "wsgi", "--port", "90", "main:app"], {}, "main:app", "wsgi", 90),
        (["daphne", "-b", "0.0.0.0", "-p", "8001", "proj.asgi:application"], {}, "proj.asgi:application", "asgi", 8001),
        (["waitress-serve", "--listen=*:8042", "main:app"], {}, "main:app", "wsgi", 8042),
        (["uwsgi", "--http", ":8081", "--master", "--module", "web:app"], {}, "web:app", "wsgi", 8081),
        (["flask", "--app", "web", "run", "-p", "81"], {"web.py": FLASK}, "web:server", "wsgi", 81),
        (["flask", "run"], {"app.py": FACTORY}, "app:create_app", "wsgi", 5000),
        (["fastapi", "run", "app/main.py", "--port", "80"], {"app/main.py": FASTAPI}, "app.main:app", "asgi", 80),
        (["fastapi", "run"], {"main.py": FASTAPI}, "main:app", "asgi", 8000),
        (["python", "manage.py", "runserver", "0.0.0.0:8008"], {"manage.py": MANAGE}, "shop.settings", "django", 8008),
        (
            ["python", "manage.py", "runserver"],
            {"manage.py": MANAGE, "shop/wsgi.py": WSGI},
            *("shop.wsgi:application", "django", 8000),
        ),
        (shell("exec uvicorn main:app --port ${PORT:-8085}"), {}, "main:app", "asgi", 8085),
        (shell("cd /srv && DEBUG=1 uvicorn main:app --port 86 2>&1 | tee log"), {}, "main:app", "asgi", 86),
        (["tini", "--", "gosu", "app", "uvicorn", "main:app"], {}, "main:app", "asgi", 8000),
        (["uv", "run", "--no-sync", "uvicorn", "main:app"], {}, "main:app", "asgi", 8000),
        (["python", "main.py"], {"main.py": FASTAPI}, "main:app", "asgi", 8000),
        (["python", "/app/web.py"], {"web.py": FLASK}, "web:server", "wsgi", 5000),
        (
            ["python", "run.py"],
            {"run.py": b"import uvicorn\nif __name__ == '__main__':\n    uvicorn.run('pkg.web:app', port=8123)\n"},
            *("pkg.web:app", "unknown", 8123),
        ),
        (
            ["python", "-m", "pkg"],
            {
                "pkg/__main__.py": b"import os, uvicorn\nfrom .web import app as it\n"
                b"uvicorn.run(it, port=int(os.environ.get('WEB', '8124')))\n",
                "pkg/web.py": FASTAPI,
            },
            *("pkg.web:app", "asgi", 8124),
        ),
        (["python", "main.py"], {"main.py": FLASK + b"server.run(port=5001)\n"}, "main:server", "wsgi", 5001),
        (["gunicorn"], {"gunicorn.conf.py": b"bind = ':83'\nwsgi_app = 'a:b'\n"}, "a:b", "wsgi", 83),
        (["unknown-server"], {"svc/main.py": FASTAPI, "svc/deep/er.py": FASTAPI}, "svc.main:app", "asgi", 8000),
        (["python", "job.py"], {"job.py": b"print(1)\n"}, "", "unknown", None),
        (["sleep", "infinity"], {}, "", "unknown", None),
        (None, {}, "", "unknown", None),
    ],
)
def test_servers(cmd: list[str] | None, files: dict[str, bytes], app: str, kind: str, port: int | None) -> None:
    seen = found(cmd, files)
    assert (seen.app, seen.kind, seen.port) == (app, kind, port)
    assert bool(seen.app_evidence) == bool(app)
    assert bool(seen.port_evidence) == bool(port)


def test_what_a_factory_makes_comes_before_the_factory() -> None:
    made = FACTORY.replace(b"app = Flask", b"made = Flask") + b"app = create_app()\n"
    scanned = found(None, {"web/main.py": made})
    assert (scanned.app, scanned.kind, scanned.factory) == ("web.main:app", "wsgi", False)
    scanned = found(None, {"web/main.py": FACTORY})
    assert (scanned.app, scanned.kind, scanned.factory) == ("web.main:create_app", "wsgi", True)


def test_factories_are_known_as_such() -> None:
    assert found(["uvicorn", "main:make", "--factory"]).factory
    assert found(["gunicorn", "main:create_app()"]).factory
    assert found(["flask", "run"], {"app.py": FACTORY}).factory
    assert not found(["uvicorn", "main:app"]).factory


def test_where_modules_are_imported_from() -> None:
    assert found(["uvicorn", "main:app", "--app-dir", "/srv/code"]).directory == "/srv/code"
    assert found(["uvicorn", "main:app", "--app-dir", "src"]).directory == "/app/src"
    assert found(["gunicorn", "--chdir=web", "main:app"]).directory == "/app/web"
    assert found(["python", "src/run.py"], {"src/run.py": FASTAPI}).directory == "/app/src"
    assert found(["uvicorn", "main:app"]).directory == "/app"


def test_an_entrypoint_script_is_read() -> None:
    script = b"""#!/bin/sh
# uvicorn wrong:app
set -e
: "${PORT:=7000}"
if [ "$1" = migrate ]; then echo "it's done"; exit; fi
exec uvicorn \\
    svc.main:app --host 0.0.0.0 --port "$PORT"
"""
    seen = found(["serve"], {}, file("entry.sh", script, mode=0o755), Entrypoint=["/entry.sh"])
    assert (seen.app, seen.port) == ("svc.main:app", 7000)
    assert seen.app_evidence.startswith("/entry.sh: ")
    seen = found(
        ["uvicorn", "other:app"],
        {},
        file("entry.sh", b'#!/bin/sh\nexec "$@"\n', mode=0o755),
        symlink("start", "entry.sh"),
        Entrypoint=["/start"],
    )
    assert seen.app == "other:app"


def test_installed_commands_lead_to_their_modules() -> None:
    code = file(f"{SITE}/svc/cli.py", b"from svc.web import app\nimport uvicorn\ndef main():\n    uvicorn.run(app)\n")
    web = file(f"{SITE}/svc/web.py", FASTAPI)
    points = "[console_scripts]\nsvc-serve = svc.cli:main\n"
    dist = distribution("svc", code, web, entry_points=points, url="file:///app")
    seen = found(["svc-serve"], {}, *dist)
    assert (seen.app, seen.kind) == ("svc.web:app", "asgi")


def test_ports_that_others_than_the_command_say() -> None:
    cmd = ["uvicorn", "main:app"]
    check = {"Test": ["CMD-SHELL", "curl -f http://localhost:7777/up || exit 1"]}
    assert found(cmd, Healthcheck=check).port == 7777
    assert found(cmd, ExposedPorts={"9999/tcp": {}}).port == 9999
    assert found(cmd, Env=["PORT=6666"], ExposedPorts={"9999/tcp": {}}).port == 6666
    assert found(cmd, Env=["UVICORN_PORT=5555"], Healthcheck=check).port == 5555
    assert found(["gunicorn", "m:a"], Env=["GUNICORN_CMD_ARGS=--bind=:4444"]).port == 4444
    assert found(["uvicorn", "m:a", "--port", "70000"], ExposedPorts={"nonsense": {}}).port == 8000


@pytest.mark.parametrize(
    ("source", "path"),
    [
        (b"@app.get('/health')\ndef health(): ...\n", "/health"),
        (b"@app.get('/ping')\ndef p(): ...\n@app.route('/healthz')\ndef h(): ...\n", "/healthz"),
        (b"r = APIRouter(prefix='/ops')\n@r.get('/ready')\nasync def h(): ...\n", "/ops/ready"),
        (b"urlpatterns = [path('health/', view)]\n", "/health/"),
        (b"routes = [Route('/livez', live)]\n", "/livez"),
        (b"client.get('/health')\n", "/"),
        (b"@app.get(f'/{health}')\ndef x(): ...\n", "/"),
    ],
)
def test_health_checks_among_the_routes(source: bytes, path: str) -> None:
    seen = found(
        ["uvicorn", "main:app"], {"main.py": source, "tests/test_x.py": b"@app.get('/health')\ndef x(): ...\n"}
    )
    assert seen.health == path
    assert bool(seen.health_evidence) == (path != "/")


def test_healthcheck_comes_before_routes() -> None:
    check = {"Test": ["CMD", "wget", "-q", "http://127.0.0.1:8000/up?x=1", "-O", "-"]}
    seen = found(["uvicorn", "m:a"], {"m.py": b"@app.get('/health')\ndef x(): ...\n"}, Healthcheck=check)
    assert (seen.health, seen.health_evidence) == ("/up?x=1", "HEALTHCHECK")


def test_what_the_specification_says_comes_first() -> None:
    ledger = ledger_of(["uvicorn", "main:app", "--port", "81"])
    seen = discover(ledger, AppTable(wsgi="other:app", port=99, health="/up", directory="src"))
    assert (seen.app, seen.kind, seen.port, seen.health) == ("other:app", "wsgi", 99, "/up")
    assert seen.directory == "/app/src"
    assert discover(ledger).app == "main:app"
    assert discover(ledger_of(["flask", "run"], {"app.py": FACTORY}), AppTable(wsgi="app:create_app")).factory


def test_what_is_a_server() -> None:
    assert found(["uvicorn", "main:app"]).server
    assert found(["anything"], ExposedPorts={"80/tcp": {}}).server
    assert not found(["python", "job.py"], {"job.py": b"print(1)\n"}).server
    assert not found(None, ExposedPorts={"80/tcp": {}}).server


@pytest.mark.parametrize(
    "config",
    [
        {"Cmd": "uvicorn main:app", "Healthcheck": "curl", "ExposedPorts": [8000], "Entrypoint": [7, None]},
        {"Cmd": ["uvicorn", "\x1b[31m:app"], "Healthcheck": {"Test": [1, "http://["]}},
        {"Cmd": shell("exec 'uvicorn ${a:-${b}} \"$(( main:app")},
        {"Cmd": ["gunicorn", "-c"], "Env": ["GUNICORN_CMD_ARGS='", "PORT=abc"]},
        {"Cmd": ["python", "-W"]},
        {"Cmd": ["python", "../../etc/passwd.py"]},
        {"Cmd": ["flask", "--app", "a/b:c:d", "run"]},
        {"Cmd": ["fastapi", "run", "\0.py"]},
        {"Cmd": ["x" * 100_000, "uvicorn"]},
    ],
)
def test_hostile_configurations(config: dict[str, Any]) -> None:
    main = b"app = " + b"(" * 3000 + b"FastAPI" + b")" * 3000
    seen = found(None, {"main.py": main, "x.py": b"\xff\xfeFastAPI", "b-d.py": FASTAPI}, **config)
    assert "\x1b" not in seen.app_evidence + seen.port_evidence + seen.health_evidence
    assert len(seen.app_evidence) < 2000


def test_default_probes() -> None:
    ledger = ledger_of(["uvicorn", "main:app"], {"main.py": FASTAPI}, *distribution("pip", "pip/__init__.py"))
    probes = default_probes(ledger, ledger, Spec())
    assert [probe.name for probe in probes] == [
        *("modules import", "libraries resolve", "application loads", "server starts"),
        "import main: time, memory",
    ]
    given = Spec(probe=[RoutesProbe(), StartProbe(), ImportProbe(), HttpProbe(path="/")])
    left = ["libraries resolve", "import main: time, memory"]
    assert [probe.name for probe in default_probes(ledger, ledger, given)] == left
    other = Spec(probe=[ImportProbe(modules=["main"], time_ratio=3.0), LibrariesProbe()])
    left = ["modules import", "application loads", "server starts"]
    assert [probe.name for probe in default_probes(ledger, ledger, other)] == left
    python = file("usr/local/bin/python3", b"\x7fELF", mode=0o755)
    ledger = ledger_of(["true"], {}, python, *distribution("pip", "pip/__init__.py"))
    assert [probe.name for probe in default_probes(ledger, ledger, Spec())] == [
        *("modules import", "libraries resolve", "pip check", "import pip: time, memory")
    ]


def test_modules_that_are_left_out() -> None:
    before = context(
        distribution("a-b", "a_b/__init__.py", "tests/__init__.py", "docs/conf.py"),
        distribution("setup", "_distutils_hack/__init__.py", "class.py", "fast.cpython-311-x86_64-linux-gnu.so"),
        distribution("leaves", "leaves.py"),
    ).ledger
    after = context(
        distribution("a-b", "a_b/__init__.py", "docs/conf.py"),
        distribution("setup", "_distutils_hack/__init__.py", "class.py", "fast.cpython-311-x86_64-linux-gnu.so"),
    ).ledger
    gone = {f"{SITE}/tests/__init__.py"}
    assert modules(before, after, gone) == ["a_b", "docs", "fast"]
    assert modules(before, after) == ["a_b", "docs", "fast", "tests"]  # nobody declared that it leaves
    assert sorted(left_out(before, after, gone)) == ["_distutils_hack", "class", "tests"]
    assert "a-b" in left_out(before, after, gone)["tests"]
