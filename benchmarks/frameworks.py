"""What the integrations add to a page of their framework, in µs of CPU, when the profile is in the cache.

The application is called as a server calls it, without sockets. Each framework is measured beside itself without the
integration.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any
from wsgiref.util import setup_testing_defaults

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.urls import path
from flask import Flask
from litestar import Litestar, MediaType, get

from profile_enrich import MemorySource, ProfileClient, from_cookie
from profile_enrich.flask import ProfileEnrich, current_profile
from profile_enrich.litestar import CurrentProfile, ProfilePlugin
from profile_enrich.wsgi import WSGIProfileMiddleware, profile_of

from ._measure import Spread, Stopwatch, interleave
from ._profiles import attributes
from ._table import Table, main

HELLO = "hello Ada"
BARE, UNREAD, READ = "without", "installed, not read", "installed, read"

client = ProfileClient(MemorySource({"u1": attributes("u1")}), ttl=3600)


def greeting(profile: Any) -> str:
    return f"hello {profile.get('first_name', 'there')}"


# --- the pages ------------------------------------------------------------------------------------------------------


def plain(request: Any) -> HttpResponse:
    return HttpResponse(HELLO)


def reading(request: Any) -> HttpResponse:
    return HttpResponse(greeting(request.profile))


async def aplain(request: Any) -> HttpResponse:
    return HttpResponse(HELLO)


async def areading(request: Any) -> HttpResponse:
    return HttpResponse(greeting(await request.aprofile()))


urlpatterns = [path("plain", plain), path("read", reading), path("aplain", aplain), path("aread", areading)]


def django_handler(kind: Callable[[], Any], installed: bool) -> Any:
    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=__name__,
            SECRET_KEY="benchmark",
            ALLOWED_HOSTS=["*"],
            PROFILE_ENRICH={"CLIENT": client, "IDENTIFY": from_cookie("who")},
        )
        django.setup(set_prefix=False)
    # A handler reads the setting when it is made.
    settings.MIDDLEWARE = ["profile_enrich.django.DjangoProfileMiddleware"] if installed else []
    return kind()


def flask_app(installed: bool) -> Flask:
    app = Flask(__name__)
    app.add_url_rule("/plain", "plain", lambda: HELLO)
    app.add_url_rule("/read", "read", lambda: greeting(current_profile))
    if installed:
        ProfileEnrich(app, client=client, identify=from_cookie("who"))
    return app


def bare_wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    text = HELLO if environ["PATH_INFO"] == "/plain" else greeting(profile_of(environ))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]


@get("/plain", media_type=MediaType.TEXT)
async def litestar_plain() -> str:
    return HELLO


@get("/read", media_type=MediaType.TEXT)
async def litestar_read(profile: CurrentProfile) -> str:
    return greeting(profile)


def litestar_app(installed: bool) -> Litestar:
    if not installed:
        return Litestar([litestar_plain], openapi_config=None)
    plugin = ProfilePlugin(client=client, identify=from_cookie("who"))
    return Litestar([litestar_plain, litestar_read], plugins=[plugin], openapi_config=None)


# --- the drivers ----------------------------------------------------------------------------------------------------


def ask_wsgi(app: Any, page: str) -> bytes:
    environ: dict[str, Any] = {"PATH_INFO": page, "SCRIPT_NAME": "", "QUERY_STRING": "", "HTTP_COOKIE": "who=u1"}
    setup_testing_defaults(environ)
    result = app(environ, lambda status, headers, exc_info=None: lambda data: None)
    body = b"".join(result)
    close = getattr(result, "close", None)
    if close is not None:
        close()
    return body


async def ask_asgi(app: Any, page: str) -> bytes:
    sent: list[bytes] = []
    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        for message in messages:
            return message
        await asyncio.Event().wait()
        return None

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": page, "raw_path": page.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"shop.test"), (b"cookie", b"who=u1")], "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    await app(scope, receive, send)
    return b"".join(sent)


def wsgi(app: Any, page: str, requests: int) -> Callable[[], Awaitable[float]]:
    def work() -> float:
        with Stopwatch(collect=True) as watch:
            for _ in range(requests):
                body = ask_wsgi(app, page)
        if body != HELLO.encode():
            raise RuntimeError(f"the page is not as expected: {body!r}")
        return watch.cpu / requests * 1e6

    return lambda: asyncio.to_thread(work)  # where servers run synchronous code: no event loop is there


def asgi(app: Any, page: str, requests: int) -> Callable[[], Awaitable[float]]:
    async def work() -> float:
        with Stopwatch(collect=True) as watch:
            for _ in range(requests):
                body = await ask_asgi(app, page)
        if body != HELLO.encode():
            raise RuntimeError(f"the page is not as expected: {body!r}")
        return watch.cpu / requests * 1e6

    return work


async def measure(quick: bool) -> Table:
    requests, rounds = (10, 1) if quick else (200, 5)
    await client.get("u1")
    stacks: dict[str, tuple[Any, Any, str, str, Any]] = {
        "WSGI, no framework": (
            bare_wsgi, WSGIProfileMiddleware(bare_wsgi, client=client, identify=from_cookie("who")), "/plain", "/read",
            wsgi,
        ),
        "Flask": (flask_app(False), flask_app(True), "/plain", "/read", wsgi),
        "Django, WSGI": (
            django_handler(WSGIHandler, False), django_handler(WSGIHandler, True), "/plain", "/read", wsgi,
        ),
        "Django, ASGI": (
            django_handler(ASGIHandler, False), django_handler(ASGIHandler, True), "/aplain", "/aread", asgi,
        ),
        "Litestar": (litestar_app(False), litestar_app(True), "/plain", "/read", asgi),
    }  # fmt: skip
    contenders: dict[str, Callable[[], Awaitable[float]]] = {}
    for name, (bare, installed, page, read, drive) in stacks.items():
        contenders[f"{name}: {BARE}"] = drive(bare, page, requests)
        contenders[f"{name}: {UNREAD}"] = drive(installed, page, requests)
        contenders[f"{name}: {READ}"] = drive(installed, read, requests)
    found = await interleave(contenders, rounds)
    await client.aclose()
    return _table(list(stacks), found)


def _table(names: list[str], found: dict[str, Spread]) -> Table:
    table = Table("A page in other frameworks", ("page", "CPU µs", "min … max", "over without µs", "times without"))
    for name in names:
        base = found[f"{name}: {BARE}"]
        for kind in (BARE, UNREAD, READ):
            figures = found[f"{name}: {kind}"]
            table.add(
                f"{name}: {kind}", figures, figures.range, f"{figures.above(base):.1f}", f"{figures.over(base):.2f}"
            )
    table.notes.append(
        "The profile is in the cache, and the identity comes from a cookie. A page that reads it gets its `Vary` and "
        "`Cache-Control: private`. Django, Flask and WSGI look up where the profile is read; the Litestar plugin "
        f"before the handler. Python {sys.version.split()[0]}, Django {django.__version__}."
    )
    return table


def run(quick: bool) -> list[Table]:
    """Pages of Flask, Django and Litestar, in process, with the profile in the cache."""
    return [asyncio.run(measure(quick))]


if __name__ == "__main__":
    main(run)
