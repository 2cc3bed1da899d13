"""The profile is empty outside its request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from profile_enrich import Profile, ProfileMiddleware, Reason, get_profile
from profile_enrich.web.config import Attach
from tests.helpers import ScriptedSource, client_of, own_records
from tests.web.helpers import WHO, ask, read, view

ATTACH: list[Attach] = ["eager", "prefetch", "lazy"]


def shop(page: Any, *outside: Middleware, attach: Attach = "eager", **settings: Any) -> Starlette:
    middleware = [
        *outside,
        Middleware(ProfileMiddleware, client=client_of(ScriptedSource()), identify=WHO, attach=attach),
    ]
    return Starlette(routes=[Route("/", page)], middleware=middleware, **settings)


async def fails(request: Request) -> Response:
    assert (await get_profile(request)).get("id") == "u1"
    raise RuntimeError("boom")


@pytest.mark.parametrize("attach", ATTACH)
async def test_A23_an_error_handler_outside_reads_an_empty_profile(
    attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    async def sorry(request: Request, error: Exception) -> Response:
        body = [view(request.state.profile), view(await get_profile(request))]
        return JSONResponse(body, status_code=500, headers={"cache-control": "public, max-age=60"})

    app = shop(fails, attach=attach, exception_handlers={Exception: sorry})
    for _ in range(2):
        answer = ask(app, raises=False)
        assert answer.json() == [{"id": None, "reason": "sealed"}] * 2
        assert answer.headers["cache-control"] == "public, max-age=60"
    logged = own_records(caplog)
    assert [record.levelname for record in logged] == ["WARNING"]
    assert "ProfileMiddleware(app" in logged[0].getMessage()


async def test_A23_wrapping_from_outside_lets_the_error_handler_read_it() -> None:
    async def sorry(request: Request, error: Exception) -> Response:
        return JSONResponse(view(request.state.profile), status_code=500)

    app = Starlette(routes=[Route("/", fails)], exception_handlers={Exception: sorry})
    answer = ask(ProfileMiddleware(app, client=client_of(ScriptedSource()), identify=WHO), raises=False)
    assert answer.status_code == 500
    assert answer.json()["id"] == "u1"
    assert answer.headers["cache-control"] == "private"


def test_A23_an_exception_that_carries_the_profile_carries_nothing_outside() -> None:
    class OfferError(Exception):
        def __init__(self, profile: Profile) -> None:
            self.profile = profile

    async def page(request: Request) -> Response:
        raise OfferError(request.state.profile)

    async def sorry(request: Request, error: Exception) -> Response:
        assert isinstance(error, OfferError)
        return JSONResponse(view(error.profile), status_code=500)

    app = shop(page, exception_handlers={Exception: sorry})
    assert ask(app, raises=False).json() == {"id": None, "reason": "sealed"}


class Outside:
    """A pure-ASGI middleware that reads the profile during the response, or after the application returned."""

    def __init__(self, app: ASGIApp, when: str, seen: list[Any]) -> None:
        self.app, self.when, self.seen = app, when, seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == self.when:
                self.seen.append(view(scope["state"]["profile"]))
            await send(message)

        await self.app(scope, receive, sending)
        if self.when == "after":
            self.seen.append(view(scope["state"]["profile"]))


@pytest.mark.parametrize("when", ["http.response.start", "http.response.body", "after"])
def test_A23_a_middleware_outside_cannot_put_a_person_on_a_page_that_anybody_may_keep(
    when: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def plain(request: Request) -> Response:
        return PlainTextResponse("the same for all", headers={"cache-control": "public, max-age=60"})

    seen: list[Any] = []
    answer = ask(shop(plain, Middleware(Outside, when=when, seen=seen)))
    assert answer.headers["cache-control"] == "public, max-age=60"
    assert seen[0] == {"id": None, "reason": "sealed"}
    assert "had left the middleware" in caplog.text


@pytest.mark.parametrize("inside", [read, None])
def test_A23_a_middleware_with_call_next_reads_what_the_page_has_read(inside: Any) -> None:
    async def plain(request: Request) -> Response:
        return PlainTextResponse("the same for all", headers={"cache-control": "public, max-age=60"})

    async def banner(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers["x-hello"] = str(request.state.profile.get("id", "nobody"))
        return response

    answer = ask(shop(inside or plain, Middleware(BaseHTTPMiddleware, dispatch=banner)))
    personal = answer.headers["x-hello"] == "u1"
    assert personal == (answer.headers["cache-control"] == "private")
    assert personal == (inside is read)


async def test_A23_a_task_that_goes_on_keeps_a_copy_and_not_the_profile() -> None:
    tasks: list[asyncio.Task[list[Any]]] = []
    ended = asyncio.Event()

    async def page(request: Request) -> Response:
        profile = await get_profile(request)
        copied = profile.detached()

        async def later() -> list[Any]:
            await ended.wait()
            return [profile.get("id"), profile.reason, copied.get("id")]

        tasks.append(asyncio.create_task(later()))
        return PlainTextResponse("ok")

    app = shop(page)
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"x-user", b"u1")]}

    async def send(message: Message) -> None: ...

    await app(scope, lambda: asyncio.sleep(3600, {"type": "http.disconnect"}), send)
    ended.set()
    assert await tasks[0] == [None, Reason.SEALED, "u1"]


def test_A16_what_is_read_after_the_response_is_on_no_page(caplog: pytest.LogCaptureFixture) -> None:
    done: list[Any] = []

    async def page(request: Request) -> Response:
        def in_thread() -> None:
            done.append(request.state.profile.get("id"))

        return PlainTextResponse("ok", background=BackgroundTask(in_thread))

    assert "cache-control" not in ask(shop(page)).headers
    assert done == ["u1"]
    assert own_records(caplog) == []


def test_A16_what_a_fastapi_dependency_reads_after_its_yield_is_on_no_page(caplog: pytest.LogCaptureFixture) -> None:
    from fastapi import Depends, FastAPI

    done: list[Any] = []

    def audited(request: Request) -> Iterator[None]:
        yield
        done.append(request.state.profile.get("id"))

    app = FastAPI(dependencies=[Depends(audited)])

    @app.get("/")
    def page() -> str:
        return "ok"

    app.add_middleware(ProfileMiddleware, client=client_of(ScriptedSource()), identify=WHO)
    assert "cache-control" not in ask(app).headers
    assert done == ["u1"]
    assert own_records(caplog) == []


@pytest.mark.parametrize("around", ["inside", "keeps", "outside"])
def test_A13_a_middleware_that_replaces_a_personal_response_loses_its_headers_unless_it_is_inside(around: str) -> None:
    """A13: headers that an outer middleware discards are not detected; docs/web-developers.md has the remedy."""

    async def shout(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        body = b"".join([part async for part in response.body_iterator])  # type: ignore[attr-defined]
        kept = {name: response.headers[name] for name in ("cache-control", "vary")} if around == "keeps" else None
        return Response(body.upper(), headers=kept)

    if around == "outside":
        app: ASGIApp = Starlette(routes=[Route("/", read)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=shout)])
        app = ProfileMiddleware(app, client=client_of(ScriptedSource()), identify=WHO)
    else:
        app = shop(read, Middleware(BaseHTTPMiddleware, dispatch=shout))
    answer = ask(app)
    assert "U1" in answer.text
    assert answer.headers.get("cache-control") == (None if around == "inside" else "private")
    assert answer.headers.get("vary") == (None if around == "inside" else "x-user")


@pytest.mark.parametrize("attach", ATTACH)
def test_A13_a_profile_that_was_got_before_a_stream_makes_it_private(
    attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    async def page(request: Request) -> Response:
        profile = await get_profile(request)

        def events() -> Iterator[str]:
            yield "data: hello\n\n"
            yield f"data: {profile.get('id')}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    answer = ask(shop(page, attach=attach))
    assert "data: u1" in answer.text
    assert answer.headers["cache-control"] == "private"
    assert answer.headers["vary"] == "x-user"
    assert own_records(caplog) == []
