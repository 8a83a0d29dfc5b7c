"""Loads the application as servers do, and lists its routes: FastAPI, Starlette, Flask, Quart, Django."""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

NAMES = ("app", "application", "api", "create_app", "make_app", "get_app")
"""What an application is called where only its module is named; flask and gunicorn look for the first of these."""
FACTORIES = ("create_app", "make_app", "get_app")
ROUTES = 20000
DEPTH = 50


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """Loads `app` in a process of its own, which may crash: the framework and the routes, or the error."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            answer = look(arguments)
        except BaseException as error:  # SystemExit too: a module that ends the program ends a server as well
            answer = {"error": "%s: %s" % (type(error).__name__, error)}
        with os.fdopen(write, "wb") as pipe:
            pipe.write(json.dumps(answer).encode() + b"\n")
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.readline().decode()  # not to the end: processes that the application left may hold the pipe
    status = os.waitpid(pid, 0)[1]
    if not text:
        how = "signal %d" % os.WTERMSIG(status) if os.WIFSIGNALED(status) else "exit status %d" % (status >> 8)
        return {"error": "ended by " + how}
    answer = json.loads(text)
    answer["error"] = answer.get("error", "")[:2000]
    return dict(answer)


def look(arguments: dict[str, Any]) -> dict[str, Any]:
    """The framework's name, and for each route its methods with its path, and where it leads."""
    for path in reversed(arguments["paths"]):
        sys.path.insert(0, path)
    sys.argv[:] = ["app"]
    app = load(arguments["app"], arguments["factory"])
    framework, routes = routes_of(app)
    listed = []
    for route in routes:
        listed.append([str(part)[:2000] for part in route])
        if len(listed) >= ROUTES:
            break
    return {"framework": framework, "routes": listed}


def load(target: str, factory: bool) -> Any:
    """The application object that `module:attribute` names; `attribute` may have dots, or be a call."""
    import importlib

    module_name, _, attribute = target.partition(":")
    module = importlib.import_module(module_name)
    if not attribute:
        if hasattr(module, "ROOT_URLCONF"):  # Django's settings
            return start_django(module_name)
        attribute = next((name for name in NAMES if callable(getattr(module, name, None))), "app")
        factory = factory or attribute in FACTORIES
    called = attribute.endswith("()")
    found = module
    for part in (attribute[:-2] if called else attribute).split("."):
        found = getattr(found, part)
    return found() if called or factory else found  # type: ignore[operator]


def start_django(settings: str) -> Any:
    """Django's own handler for these settings."""
    os.environ["DJANGO_SETTINGS_MODULE"] = settings
    from django.core.wsgi import get_wsgi_application  # type: ignore[import-not-found, unused-ignore]

    return get_wsgi_application()


def routes_of(app: Any) -> tuple[str, Iterator[Any]]:
    """The framework that an application object is of, and its routes. Middleware around it is looked through."""
    for _ in range(DEPTH):
        modules = [kind.__module__.partition(".")[0] for kind in type(app).__mro__]
        if type(app).__module__.startswith("django.core.handlers."):
            return "Django", django_routes()
        if hasattr(app, "url_map") and hasattr(app, "view_functions"):
            return "Quart" if "quart" in modules else "Flask", flask_routes(app)
        if isinstance(getattr(app, "routes", None), (list, tuple)):
            name = next((title for title in ("FastAPI", "Starlette") if title.lower() in modules), type(app).__name__)
            return name, starlette_routes(app.routes, "", 0)
        inner = next(
            (
                value
                for name in ("app", "application", "_app", "wsgi_app")
                if callable(value := getattr(app, name, None))
            ),
            None,
        )
        if inner is None:
            break
        app = inner
    if not callable(app):
        raise TypeError("%s is no application: it cannot be called" % type(app).__name__)
    return "", iter(())


def starlette_routes(routes: Any, prefix: str, depth: int) -> Iterator[Any]:
    """Routes of Starlette and FastAPI, those of mounted applications and included routers among them."""
    for route in routes:
        # FastAPI since 0.13x includes routers when they are asked for: these know their routes' full paths.
        included = getattr(route, "effective_route_contexts", None)
        if callable(included):
            for context in included():
                yield from starlette_route(getattr(context, "starlette_route", None) or context, prefix, depth)
        else:
            yield from starlette_route(route, prefix, depth)


def starlette_route(route: Any, prefix: str, depth: int) -> Iterator[Any]:
    """One route, or those below a mount."""
    path = prefix + str(getattr(route, "path", "") or getattr(route, "host", ""))
    below = getattr(route, "routes", None)
    endpoint = getattr(route, "endpoint", None)
    if endpoint is None and below and depth < DEPTH:
        yield from starlette_routes(below, path, depth + 1)
        return
    methods = getattr(route, "methods", None)
    original = getattr(route, "original_route", route)
    if endpoint is None:
        yield "mount " + (path or "/"), qualified(type(getattr(route, "app", None) or route))
    elif methods:
        yield verbs(methods) + " " + path, qualified(endpoint)
    else:
        websocket = "WebSocket" in type(original).__name__
        yield ("websocket " if websocket else "any ") + path, qualified(endpoint)


def flask_routes(app: Any) -> Iterator[Any]:
    """Routes of Flask and Quart."""
    for rule in app.url_map.iter_rules():
        methods = verbs(rule.methods) if rule.methods else "any"
        methods = "websocket" if getattr(rule, "websocket", False) else methods
        host = getattr(rule, "host", None) or getattr(rule, "subdomain", None)
        place = "%s|%s" % (host, rule.rule) if host else rule.rule
        yield "%s %s" % (methods, place), qualified(app.view_functions.get(rule.endpoint, rule.endpoint))


def django_routes() -> Iterator[Any]:
    """Routes of Django's root URL configuration."""
    from django.urls import get_resolver  # type: ignore[import-not-found, unused-ignore]

    return django_patterns(get_resolver().url_patterns, "/", 0)


def django_patterns(patterns: Any, prefix: str, depth: int) -> Iterator[Any]:
    """Patterns, and those of the URL configurations that they include."""
    for pattern in patterns:
        path = prefix + str(pattern.pattern)
        below = getattr(pattern, "url_patterns", None)
        if below is not None and depth < DEPTH:
            yield from django_patterns(below, path, depth + 1)
        else:
            yield "any " + path, qualified(getattr(pattern, "callback", pattern))


def verbs(methods: Any) -> str:
    """A route's methods, without those that frameworks add by themselves."""
    names = sorted(map(str, methods))
    if "GET" in names:
        names = [name for name in names if name != "HEAD"]
    return ",".join([name for name in names if name != "OPTIONS"] or names)


def qualified(thing: Any) -> str:
    """What a route leads to, by name."""
    thing = getattr(thing, "view_class", thing)  # Django's and Flask's views that are classes
    for _ in range(DEPTH):
        inner = getattr(thing, "func", None)  # functools.partial
        if inner is None or hasattr(thing, "__qualname__"):
            break
        thing = inner
    if isinstance(thing, str):
        return thing
    if not hasattr(thing, "__qualname__"):
        thing = type(thing)
    return "%s.%s" % (thing.__module__, thing.__qualname__)
