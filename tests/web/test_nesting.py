"""Nested middleware, and the request's `state`."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from profile_enrich import ProfileMiddleware, from_header, lookup_details
from profile_enrich.web.config import Attach
from tests.helpers import ScriptedSource, client_of
from tests.web.helpers import WHO, ask, read, view

ATTACH: list[Attach] = ["eager", "prefetch", "lazy"]


class Outer:
    """Records the state before and after the inner application runs."""

    def __init__(self, app: ASGIApp, seen: list[Any]) -> None:
        self.app, self.seen = app, seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope["state"]["profile"].get("id"))
        await self.app(scope, receive, send)
        self.seen.append(scope["state"]["profile"].get("id"))


def nested(inner: dict[str, Any], outer: dict[str, Any], seen: list[Any]) -> Starlette:
    app = Starlette(routes=[Route("/", read)], middleware=[Middleware(ProfileMiddleware, **inner)])
    return Starlette(
        routes=[Mount("/admin", app=Outer(app, seen)), Route("/", read)],
        middleware=[Middleware(ProfileMiddleware, **outer)],
    )


@pytest.mark.parametrize("attach", ATTACH)
def test_A4_an_application_inside_has_its_own_lookup_under_its_own_consent(attach: Attach) -> None:
    seen: list[Any] = []
    shop, staff = ScriptedSource(), ScriptedSource(namespace="staff")
    asked: list[str] = []

    def consent(connection: Any) -> bool:
        asked.append(connection.url.path)
        return bool(connection.headers.get("agreed") == "yes")

    inner = {"client": client_of(staff), "identify": from_header("x-staff", trusted=True), "consent": consent}
    app = nested({**inner, "attach": attach}, {"client": client_of(shop), "identify": WHO}, seen)
    answer = ask(app, "/admin/", x_staff="s1", agreed="yes")
    assert answer.json() == {"id": "s1", "reason": None}
    assert answer.headers["vary"] == "Cookie, x-staff, x-user"
    assert ask(app, "/admin/", x_staff="s1").json() == {"id": None, "reason": "no_consent"}
    assert seen == ["u1", "u1"] * 2, "the outer value is back afterwards"
    assert [key.value for key in shop.calls] == ["u1"]
    assert [key.value for key in staff.calls] == ["s1"]
    assert len(asked) == 2
    assert ask(app, "/").json()["id"] == "u1"


def test_A4_the_outer_value_is_back_after_an_exception() -> None:
    seen: list[Any] = []

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["state"]["profile"].get("id") == "s1"
        raise RuntimeError("boom")

    class Catching(Outer):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            with pytest.raises(RuntimeError, match="boom"):
                await self.app(scope, receive, send)
            seen.append((scope["state"]["profile"].get("id"), lookup_details(Request(scope)) is not None))
            await JSONResponse(None)(scope, receive, send)

    staff = from_header("x-staff", trusted=True)
    inner = ProfileMiddleware(fails, client=client_of(ScriptedSource()), identify=staff)
    app = ProfileMiddleware(Catching(inner, seen), client=client_of(ScriptedSource()), identify=WHO)
    assert ask(app, x_staff="s1").status_code == 200
    assert seen == [("u1", True)]


def test_A4_the_same_configuration_makes_one_lookup() -> None:
    source = ScriptedSource()
    client = client_of(source)
    settings: dict[str, Any] = {"client": client, "exclude": ["/static"]}
    inside = ProfileMiddleware(
        Starlette(routes=[Route("/", read)]), identify=from_header("x-user", trusted=True), **settings
    )
    app = ProfileMiddleware(inside, identify=from_header("x-user", trusted=True), **settings)
    assert ask(app).json()["id"] == "u1"
    assert sum(client.stats().lookups.values()) == 1


def test_A5_middleware_outside_sees_what_handlers_set_on_the_state() -> None:
    seen: list[Any] = []

    async def timed(request: Request, call_next: Any) -> Response:
        request.state.started = 1
        response: Response = await call_next(request)
        seen.append(request.state.user_id)
        return response

    async def page(request: Request) -> Response:
        request.state.user_id = f"handled-{request.state.started}"
        return JSONResponse(view(request.state.profile))

    middleware = [
        Middleware(BaseHTTPMiddleware, dispatch=timed),
        Middleware(ProfileMiddleware, client=client_of(ScriptedSource()), identify=WHO),
    ]
    assert ask(Starlette(routes=[Route("/", page)], middleware=middleware)).json()["id"] == "u1"
    assert seen == ["handled-1"]


async def test_A5_a_state_that_is_the_lifespans_is_copied() -> None:
    """A5: Hypercorn passes the same dictionary to every request; no request sees another's values."""
    shared: dict[str, Any] = {"pool": 1}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            assert scope["state"]["pool"] == 1
            assert scope["state"]["profile"].get("id") == "u1"
            scope["state"]["user_id"] = "u1"

    wrapped = ProfileMiddleware(app, client=client_of(ScriptedSource()), identify=WHO)

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None: ...

    await wrapped({"type": "lifespan", "state": shared}, receive, send)
    for _ in range(2):
        await wrapped({"type": "http", "path": "/", "headers": [(b"x-user", b"u1")], "state": shared}, receive, send)
        assert shared == {"pool": 1}


async def test_A5_a_state_in_which_another_request_is_under_way_is_copied() -> None:
    """A5: neither request sees the other's profile."""
    shared: dict[str, Any] = {}
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        who = scope["state"]["profile"].get("id")
        if who == "u1":
            other = {"type": "http", "path": "/", "headers": [(b"x-user", b"u2")], "state": shared}
            await asyncio.create_task(wrapped(other, receive, send), context=contextvars.Context())
        seen.append((who, scope["state"]["profile"].get("id")))

    wrapped = ProfileMiddleware(app, client=client_of(ScriptedSource()), identify=WHO)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None: ...

    await wrapped({"type": "http", "path": "/", "headers": [(b"x-user", b"u1")], "state": shared}, receive, send)
    assert seen == [("u2", "u2"), ("u1", "u1")]
    assert shared["profile"].reason == "sealed"


@pytest.mark.parametrize(("path", "excluded"), [("/", True), ("/other", False), ("/other/", False)])
def test_A4_excluding_the_root_excludes_the_root_alone(path: str, excluded: bool) -> None:
    app = Starlette(routes=[Route("/", read), Route("/other", read), Route("/other/", read)])
    wrapped = ProfileMiddleware(app, client=client_of(ScriptedSource()), identify=WHO, exclude=["/"])
    assert ask(wrapped, path).json()["reason"] == ("not_looked_up" if excluded else None)
