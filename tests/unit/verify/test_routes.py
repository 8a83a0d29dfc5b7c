"""Real frameworks' applications load in a sandbox, and their routes are compared by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from deadweight.application.table import AppTable
from deadweight.verify.model import ProbeResult
from deadweight.verify.spec import RoutesProbe
from support.images import Member, file
from support.mini import installed
from support.served import ORACLES, compared, looked_at

pytestmark = pytest.mark.skipif(not ORACLES.is_dir(), reason="there is no .venv-oracles: scripts/setup.sh test")

FRAMEWORKS = (
    *("flask", "werkzeug", "jinja2", "markupsafe", "itsdangerous", "click", "blinker"),
    *("django", "asgiref", "sqlparse", "starlette", "anyio", "idna", "typing-extensions"),
)
FLASK = b"""
import functools, flask
from flask.views import MethodView
def handler(kind): return kind
class Items(MethodView):
    def get(self): ...
    def delete(self): ...
def create_app():
    app = flask.Flask(__name__, static_folder=None)
    @app.get("/claims")
    def claims(): ...
    @app.route("/claims", methods=["POST", "PUT"])
    def add(): ...
    app.add_url_rule("/items/<int:n>", view_func=Items.as_view("items"))
    app.add_url_rule("/partial", "partial", functools.partial(handler, "x"))
    more = flask.Blueprint("more", __name__, url_prefix="/more")
    @more.get("/health")
    def health(): ...
    app.register_blueprint(more)
    return app
"""
STARLETTE = b"""
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
async def index(request): ...
async def talk(websocket): ...
class Endpoint:
    def __init__(self, scope, receive, send): ...
inner = Starlette(routes=[Route("/a", index), Mount("/deeper", routes=[Route("/b", index, methods=["POST"])])])
app = GZipMiddleware(Starlette(routes=[
    Route("/", index), Route("/", index, methods=["PUT"]), Route("/cls", Endpoint), WebSocketRoute("/ws", talk),
    Mount("/inner", inner), Mount("/static", StaticFiles(directory="/tmp")),
    Host("api.example.org", Router([Route("/h", index)])),
]))
"""
SETTINGS = b"SECRET_KEY = 'x'\nROOT_URLCONF = 'shop.urls'\nALLOWED_HOSTS = ['*']\n"
URLS = b"""
from django.urls import include, path, re_path
from django.views import View
def index(request): ...
class Shelf(View): ...
urlpatterns = [path("", index), path("shelf/<int:n>/", Shelf.as_view()),
               path("api/", include([path("a", index), re_path(r"^b$", index)]))]
"""
DJANGO_WSGI = b"""
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""
PLAIN = b"def app(environ, start_response): return []\nnothing = 3\n"
# As FastAPI since 0.13x includes routers: a route that knows the routes below it, with their whole paths.
INCLUDED = b"""
from starlette.routing import Mount, Route, WebSocketRoute
async def index(request): ...
class Context:
    starlette_route = None
    def __init__(self, path, route=None):
        self.path, self.methods, self.endpoint, self.starlette_route = path, {"GET"}, index, route
class Included:
    def effective_route_contexts(self):
        yield Context("/v1/a")
        yield Context("", WebSocketRoute("/v1/ws", index))
        yield Context("", Mount("/v1/sub", routes=[Route("/b", index)]))
class app:
    routes = [Route("/", index), Included()]
"""
FILES = {
    "included.py": INCLUDED,
    "web.py": FLASK,
    "star.py": STARLETTE,
    "shop/settings.py": SETTINGS,
    "shop/urls.py": URLS,
    "shop/wsgi.py": DJANGO_WSGI,
    "plain.py": PLAIN,
    "broken.py": b"import os\nclass Odd(Exception): ...\nraise Odd(f'at 0x{id(os):x}\\x1b[31m')\n",
    "leaves.py": b"import sys\nsys.exit('no DATABASE_URL')\n",
    "crashes.py": b"import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
    "arguments.py": b"import sys\nassert sys.argv == ['app'], sys.argv\ndef app(): ...\n",
    "threads.py": b"import os, threading, time\nif os.fork() == 0: time.sleep(600)\n"
    b"threading.Thread(target=time.sleep, args=(600,)).start()\ndef app(): ...\n",
    "elsewhere/hidden.py": b"import os\nassert os.environ['NEEDED'] == 'yes'\ndef app(): ...\n",
    "hostile.py": b"class Route:\n    path = 'x' * 3000 + '\\n\\udcff'\n    methods = ['GET', 7]\n    endpoint = int\n"
    b"class app:\n    routes = [Route()] * 30000\n",
    "endless.py": b"class app:\n    @property\n    def routes(self): return self\n"
    b"class R:\n    path = '/a'\n    endpoint = None\nr = R(); r.routes = [r]\napp = app(); type(app).routes = [r]\n",
}


def members(**changes: bytes) -> list[Member]:
    files = {**FILES, **{name.replace("__", "/") + ".py": data for name, data in changes.items()}}
    return [file(f"app/{name}", data) for name, data in files.items()]


@pytest.fixture(scope="module")
def frameworks() -> list[Member]:
    # Without most of Django's files, which nothing here needs.
    return [
        one
        for one in installed(*FRAMEWORKS, where=ORACLES)
        if "/django/contrib/" not in one.name and not one.name.endswith((".mo", ".po"))
    ]


APPS = {
    "flask": "web:create_app()",
    "flask by module": "web",
    "starlette": "star:app",
    "django": "shop.wsgi:application",
    "django by settings": "shop.settings",
    "included": "included:app",
    "plain": "plain:app",
    "no application": "plain:nothing",
    "missing": "plain:gone",
    "no module": "gone.away:app",
    "broken": "broken:app",
    "leaves": "leaves:app",
    "crashes": "crashes:app",
    "arguments": "arguments:app",
    "threads": "threads:app",
    "hostile": "hostile:app",
    "endless": "endless:app",
}
COUNTS = {"included": 4, "flask": 5, "starlette": 4, "django": 4}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, frameworks: list[Member]) -> dict[str, ProbeResult]:
    probes = [RoutesProbe(name=name, app=app, count=COUNTS.get(name)) for name, app in APPS.items()]
    probes += [RoutesProbe(name="of the command")]
    cmd = {"Cmd": ["gunicorn", "-b", ":80", "shop.wsgi"]}
    return looked_at(tmp_path_factory.mktemp("images"), [*members(), *frameworks], probes, cmd)


def test_routes_are_counted(results: dict[str, ProbeResult]) -> None:
    for name in ("flask", "flask by module"):
        assert (results[name].outcome, results[name].after) == ("met", "5 routes"), results[name]
    for name in ("django", "django by settings", "of the command"):
        assert (results[name].outcome, results[name].after) == ("met", "4 routes"), results[name]
    assert (results["included"].outcome, results["included"].after) == ("met", "4 routes"), results["included"]
    assert results["starlette"].after == "8 routes"
    assert (results["starlette"].outcome, results["starlette"].details) == ("not met", ["8 routes, 4 are wanted"])


def test_applications_of_no_framework_load(results: dict[str, ProbeResult]) -> None:
    for name in ("plain", "arguments", "threads"):
        assert (results[name].outcome, results[name].after) == ("met", "loads"), results[name]
        assert "routes are not listed" in results[name].notes[0]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no application", "plain:nothing: TypeError: int is no application: it cannot be called"),
        ("missing", "plain:gone: AttributeError: module 'plain' has no attribute 'gone'"),
        ("no module", "gone.away:app: ModuleNotFoundError: No module named 'gone'"),
        ("broken", "broken:app: Odd: at 0x..."),
        ("leaves", "leaves:app: SystemExit: no DATABASE_URL"),
        ("crashes", "crashes:app: ended by signal 11"),
    ],
)
def test_what_does_not_load_says_why(results: dict[str, ProbeResult], name: str, why: str) -> None:
    assert (results[name].outcome, results[name].after) == ("not met", "does not load")
    assert results[name].details == [f"application: {why}"]


def test_hostile_applications_are_bounded(results: dict[str, ProbeResult]) -> None:
    assert results["hostile"].after == "20,000 routes"
    assert results["endless"].outcome == "met"


def test_a_route_that_is_gone_is_named(tmp_path: Path, frameworks: list[Member]) -> None:
    slim = members(
        web=FLASK.replace(b'    @app.get("/claims")\n', b""),
        star=STARLETTE.replace(b', methods=["POST"]', b"").replace(b'Mount("/static"', b'Mount("/files"'),
        shop__urls=URLS.replace(b'path("", index), ', b"").replace(b'"a", index', b'"a", Shelf.as_view()'),
    )
    probes = [RoutesProbe(name=name, app=APPS[name]) for name in ("flask", "starlette", "django", "broken", "leaves")]
    probes.append(RoutesProbe(name="unknown"))
    found = compared(tmp_path, [*members(), *frameworks], [*slim, *frameworks], probes, {"Cmd": ["sleep"]})
    assert found["flask"].details == ["GET /claims: web.create_app.<locals>.claims -> not there"]
    assert (found["flask"].before, found["flask"].after) == ("5 routes", "4 routes")
    assert found["starlette"].details == [
        "POST /inner/deeper/b: star.index -> not there",
        "mount /static: starlette.staticfiles.StaticFiles -> not there",
        "GET /inner/deeper/b: not there -> star.index",
        "mount /files: not there -> starlette.staticfiles.StaticFiles",
    ]
    assert found["django"].details == [
        "any /: shop.urls.index -> not there",
        "any /api/a: shop.urls.index -> shop.urls.Shelf",
    ]
    assert [found[name].outcome for name in ("broken", "leaves")] == ["fails", "fails"]
    assert found["unknown"].outcome == "differs"  # web.py is found among the sources


def test_an_image_without_an_application(tmp_path: Path) -> None:
    found = looked_at(tmp_path, [], [RoutesProbe(name="routes")], {"Cmd": ["sleep", "1"]})
    assert (found["routes"].outcome, found["routes"].ok) == ("no answer", False)
    assert "[app]" in found["routes"].details[0]


def test_the_specification_says_where_modules_are_and_what_they_need(tmp_path: Path) -> None:
    app = AppTable(asgi="hidden:app", directory="elsewhere", env={"NEEDED": "yes"})
    found = looked_at(tmp_path, members(), [RoutesProbe(name="routes")], {"Cmd": ["sleep", "1"]}, app=app)
    assert found["routes"].outcome == "met", found["routes"]
