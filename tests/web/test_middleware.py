"""The ASGI middleware: tests for each line of its contract."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from profile_enrich import (
    ConfigurationError,
    Profile,
    ProfileClient,
    ProfileMiddleware,
    SourceConnectionError,
    Status,
    from_cookie,
    from_header,
    from_session,
    get_profile,
    honour_gpc,
    lookup_details,
)
from profile_enrich.web.middleware import Attach
from tests.helpers import ScriptedSource, Switch, client_of, found, own_records, settle

WHO = from_cookie("user")
ATTACH: list[Attach] = ["eager", "prefetch", "lazy"]


async def read(request: Request) -> Response:
    profile = await get_profile(request)
    return JSONResponse({"id": profile.get("id", "nobody"), "status": profile.status, "reason": profile.reason})


async def ignore(request: Request) -> Response:
    return PlainTextResponse("the same for all")


ROUTES = [Route("/", read), Route("/plain", ignore), Route("/static/app.css", read), Route("/statics", read)]


def app_of(client: ProfileClient, *, routes: Iterable[Any] = ROUTES, **settings: Any) -> Starlette:
    middleware = [Middleware(ProfileMiddleware, client=client, **{"identify": WHO, **settings})]
    return Starlette(routes=list(routes), middleware=middleware)


def ask(app: ASGIApp, path: str = "/", user: str | None = "u1", **kwargs: Any) -> Any:
    cookies = {} if user is None else {"cookie": f"user={user}"}
    return TestClient(app, raise_server_exceptions=True).get(path, headers={**cookies, **kwargs})


async def drive(app: ASGIApp, scope: dict[str, Any], *messages: Message) -> list[Message]:
    """Runs one scope through an application, as a server does."""
    sent: list[Message] = []
    incoming = iter([*messages, {"type": "http.disconnect"}])

    async def receive() -> Message:
        return next(incoming)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def http_scope(path: str = "/", user: str | None = "u1", **extra: Any) -> dict[str, Any]:
    headers = [] if user is None else [(b"cookie", f"user={user}".encode())]
    return {"type": "http", "method": "GET", "path": path, "headers": headers, "query_string": b"", **extra}


async def no_receive() -> Message:
    raise AssertionError("nothing here reads the request's body")


@pytest.mark.parametrize("attach", ATTACH)
async def test_L1_requests_that_arrive_as_a_load_ends_make_no_second_call(attach: Attach) -> None:
    """L1: a request that decides to wait just as the load ends gets the load's result."""
    source = ScriptedSource()
    app = app_of(client_of(source), attach=attach)

    async def visit(turns: int) -> list[Message]:
        await settle(turns)
        return await drive(app, http_scope())

    pages = await asyncio.gather(*(visit(turns) for turns in range(40)))
    assert all(b'"id":"u1"' in page[1]["body"] for page in pages)
    assert len(source.calls) == 1


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """A plain ASGI application that reads the profile."""
    name = scope["state"]["profile"].get("id", "nobody")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": name.encode()})


class TestAttaching:
    @pytest.mark.parametrize("attach", ATTACH)
    def test_whoever_is_in_session_their_profile_is_on_the_request(self, attach: Attach) -> None:
        source = ScriptedSource()
        app = app_of(client_of(source), attach=attach)
        assert ask(app).json()["id"] == "u1"
        assert ask(app, user="u2").json()["id"] == "u2"
        assert ask(app).json() == {"id": "u1", "status": "hit", "reason": None}
        assert ask(app, user=None).json() == {"id": "nobody", "status": "skipped", "reason": "anonymous"}
        assert len(source.calls) == 2

    @pytest.mark.parametrize("attach", ATTACH)
    async def test_a_hit_never_suspends(self, attach: Attach) -> None:
        """A fresh or stale hit never suspends in any of the three ways."""
        client = client_of(ScriptedSource())
        await client.get("u1")
        app = ProfileMiddleware(bare, client=client, identify=WHO, attach=attach)
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        run = app(http_scope(), no_receive, send)
        with pytest.raises(StopIteration):
            run.send(None)
        assert sent[1]["body"] == b"u1"

    async def test_prefetch_starts_with_the_request_and_lazy_does_not(self) -> None:
        calls: dict[str, int] = {}

        for attach in ATTACH:
            source = ScriptedSource(delay=0.001)

            async def app(scope: Scope, receive: Receive, send: Send, source: ScriptedSource = source) -> None:
                await settle()
                calls[scope["state"]["attach"]] = len(source.calls)

            await drive(
                ProfileMiddleware(app, client=client_of(source), identify=WHO, attach=attach),
                http_scope(state={"attach": attach}),
            )
        assert calls == {"eager": 1, "prefetch": 1, "lazy": 0}

    async def test_a_prefetched_profile_read_too_early_is_empty_and_says_how_to_wait(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def page(request: Request) -> Response:
            early = request.state.profile.found
            late = (await get_profile(request)).found
            return JSONResponse([early, late, request.state.profile.found])

        app = app_of(client_of(ScriptedSource(delay=0.001)), routes=[Route("/", page)], attach="lazy")
        for user in ("u1", "u2"):
            assert ask(app, user=user).json() == [False, True, True]
        (record,) = own_records(caplog)  # once for each endpoint
        assert "await get_profile(request)" in record.getMessage()

    @pytest.mark.parametrize("attach", ["prefetch", "lazy"])
    def test_read_without_awaiting_the_cache_answers(self, attach: Attach) -> None:
        async def page(request: Request) -> Response:
            profile = request.state.profile
            return JSONResponse([profile.get("id"), profile.status, profile.reason])

        client = client_of(ScriptedSource())
        asyncio.run(client.get("u1"))
        app = app_of(client, routes=[Route("/", page)], attach=attach)
        assert ask(app).json() == ["u1", "hit", None]
        assert ask(app, user=None).json() == [None, "skipped", "anonymous"]

    async def test_several_who_await_share_one_lookup(self) -> None:
        source = ScriptedSource(delay=0.005)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            connection = HTTPConnection(scope)
            profiles = await asyncio.gather(*(get_profile(connection) for _ in range(10)))
            assert all(profile is scope["state"]["profile"] for profile in profiles)

        client = client_of(source)
        await drive(ProfileMiddleware(app, client=client, identify=WHO, attach="lazy"), http_scope())
        assert client.stats().total == 1

    def test_two_profiles_on_one_request_under_names_of_their_own(self) -> None:
        async def page(request: Request) -> Response:
            return JSONResponse([request.state.profile["id"], request.state.account["id"]])

        people, accounts = client_of(ScriptedSource()), client_of(ScriptedSource())
        app = Starlette(
            routes=[Route("/", page)],
            middleware=[
                Middleware(ProfileMiddleware, client=people, identify=WHO),
                Middleware(
                    ProfileMiddleware,
                    client=accounts,
                    identify=from_header("X-Account", trusted=True),
                    attribute="account",
                ),
            ],
        )
        response = ask(app, **{"X-Account": "a1"})
        assert response.json() == ["u1", "a1"]
        assert response.headers["vary"] == "X-Account, Cookie"


class TestScopes:
    @pytest.mark.parametrize("kind", ["lifespan", "something.new"])
    async def test_A1_other_scopes_pass_untouched(self, kind: str) -> None:
        """A1: only `http` and `websocket` scopes are handled; any other type passes through untouched."""
        seen: list[Scope] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope)
            await send({"type": "custom", "value": 1})

        scope = {"type": kind}
        sent = await drive(ProfileMiddleware(app, client=client_of(ScriptedSource()), identify=WHO), scope)
        assert seen[0] is scope
        assert scope == {"type": kind}
        assert sent == [{"type": "custom", "value": 1}]

    @pytest.mark.parametrize(
        "start",
        [
            {"type": "http.response.start", "status": 200},
            {"type": "http.response.start", "status": 200, "headers": ((b"x-a", b"1"),)},
            {"type": "http.response.start", "status": 200, "headers": iter([(b"x-a", b"1")])},
        ],
    )
    async def test_A2_a_start_without_headers_or_with_a_tuple_works(
        self, start: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A2: a start without `headers`, or with a tuple or an iterator, works; also in the cache check."""
        monkeypatch.setitem(sys.modules, "django.middleware.cache", sys)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["state"]["profile"]["id"] == "u1"
            await send(start)

        sent = await drive(ProfileMiddleware(app, client=client_of(ScriptedSource()), identify=WHO), http_scope())
        headers = sent[0]["headers"]
        assert [name for name, _ in headers] == ([b"x-a"] if "headers" in start else []) + [b"cache-control", b"vary"]

    async def test_A2_only_the_start_is_touched_and_nothing_is_held_back(self) -> None:
        """A2: body, trailers, early hints, pathsend, debug pass unchanged and unbuffered."""
        messages: list[Message] = [
            {"type": "http.response.early_hint", "links": [b"</a.css>"]},
            {"type": "http.response.debug", "info": {}},
            {"type": "http.response.start", "status": 200, "headers": [], "trailers": True},
            {"type": "http.response.body", "body": b"1", "more_body": True},
            {"type": "http.response.body", "body": b"2"},
            {"type": "http.response.trailers", "headers": [(b"vary", b"x")]},
            {"type": "http.response.pathsend", "path": "/x"},
            {"type": "http.response.zerocopysend", "file": 1},
        ]
        sent: list[Message] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["state"]["profile"].found
            for index, message in enumerate(messages):
                await send(message)
                assert len(sent) == index + 1

        async def send(message: Message) -> None:
            sent.append(message)

        middleware = ProfileMiddleware(app, client=client_of(ScriptedSource()), identify=WHO)
        await middleware(http_scope(), no_receive, send)
        for index, message in enumerate(messages):
            if index != 2:
                assert sent[index] is message
        assert messages[2]["headers"] == [], "the application's own message is not changed"

    def test_A2_server_sent_events_stream(self) -> None:
        """A2: SSE streams."""

        async def page(request: Request) -> Response:
            name = request.state.profile["id"]

            async def events() -> Any:
                for number in range(3):
                    yield f"data: {name} {number}\n\n"

            return StreamingResponse(events(), media_type="text/event-stream")

        response = ask(app_of(client_of(ScriptedSource()), routes=[Route("/", page)]))
        assert response.text.count("data: u1") == 3
        assert response.headers["cache-control"] == "private"

    @pytest.mark.parametrize("attach", ATTACH)
    def test_A3_a_websocket_has_its_profile_before_accept(self, attach: Attach) -> None:
        """A3: a WebSocket has its profile before `accept`."""

        async def talk(websocket: WebSocket) -> None:
            profile = await get_profile(websocket)
            assert websocket.state.profile is profile
            name = profile["id"]
            await websocket.accept()
            await websocket.send_text(name)
            await websocket.close()

        app = app_of(client_of(ScriptedSource()), routes=[WebSocketRoute("/", talk)], attach=attach)
        with TestClient(app).websocket_connect("/", headers={"cookie": "user=u1"}) as websocket:
            assert websocket.receive_text() == "u1"

    def test_A4_installed_twice_makes_one_lookup(self) -> None:
        """A4: installed twice, one lookup is made."""
        client = client_of(ScriptedSource())
        middleware = [Middleware(ProfileMiddleware, client=client, identify=WHO)] * 2
        app = Starlette(routes=ROUTES, middleware=middleware)
        response = ask(app)
        assert response.json()["id"] == "u1"
        assert response.headers["vary"] == "Cookie"
        assert client.stats().total == 1

    @pytest.mark.parametrize(
        ("path", "status"),
        [("/static/app.css", "skipped"), ("/statics", "miss"), ("/", "miss")],
    )
    @pytest.mark.parametrize("where", ["top", "mounted", "root_path", "inside"])
    def test_A4_excluded_paths_are_those_of_the_application_underneath(
        self, path: str, status: str, where: str
    ) -> None:
        """A4: under `Mount`, and with `root_path`, exclusion paths follow the documented path."""
        source = ScriptedSource()
        app: ASGIApp = app_of(client_of(source), exclude=["/static/"])
        options: dict[str, Any] = {}
        if where == "mounted":
            app, path = Starlette(routes=[Mount("/shop", app)]), "/shop" + path
        elif where == "inside":
            middleware = Middleware(ProfileMiddleware, client=client_of(source), identify=WHO, exclude=["/static"])
            app, path = Starlette(routes=[Mount("/shop", routes=ROUTES, middleware=[middleware])]), "/shop" + path
        elif where == "root_path":
            options["root_path"] = "/proxy"
        answer = TestClient(app, **options).get(path, headers={"cookie": "user=u1"})
        assert answer.json()["status"] == status
        assert len(source.calls) == (status == "miss")
        assert ("vary" in answer.headers) is (status == "miss")

    async def test_A4_a_root_path_that_only_looks_like_one(self) -> None:
        """A4: complete segments are compared."""
        app = ProfileMiddleware(bare, client=client_of(ScriptedSource()), identify=WHO, exclude=["/static"])
        for path, root, body in [
            ("/shopping/static", "/shop", b"u1"),
            ("/shop/static/x", "/shop", b"nobody"),
            ("/shop", "/shop", b"u1"),
            ("/static", "", b"nobody"),
        ]:
            sent = await drive(app, http_scope(path, root_path=root))
            assert sent[1]["body"] == body, (path, root)

    async def test_A5_a_missing_state_works_and_a_shared_one_leaks_nothing(self) -> None:
        """A5: nothing leaks when a server shares one `state` dictionary between requests; it is always overwritten."""
        app = ProfileMiddleware(bare, client=client_of(ScriptedSource()), identify=WHO)
        assert (await drive(app, http_scope()))[1]["body"] == b"u1"
        shared: dict[str, Any] = {"pool": 1, "profile": "left over"}
        for user, body in (("u1", b"u1"), (None, b"nobody"), ("u2", b"u2")):
            assert (await drive(app, http_scope(user=user, state=shared)))[1]["body"] == body
            assert shared == {"pool": 1, "profile": "left over"}

    async def test_A5_the_applications_own_state_is_still_there(self) -> None:
        """A5: `state` is copied, not replaced."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["state"]["pool"] == 1

        await drive(
            ProfileMiddleware(app, client=client_of(ScriptedSource()), identify=WHO), http_scope(state={"pool": 1})
        )

    def test_A6_nothing_of_a_request_stays_on_the_middleware(self) -> None:
        """A6: no per-request attribute on the middleware instance."""
        middleware = ProfileMiddleware(bare, client=client_of(ScriptedSource()), identify=WHO)
        before = dict(vars(middleware))
        asyncio.run(drive(middleware, http_scope()))
        assert vars(middleware) == before

    async def test_A6_an_exception_of_the_application_is_the_same_object_and_not_repeated(self) -> None:
        """A6: app exceptions propagate as the same object: no wrapping, no retry."""
        error = RuntimeError("boom")
        calls = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            calls.append(1)
            assert scope["state"]["profile"].found
            raise error

        with pytest.raises(RuntimeError) as raised:
            await drive(ProfileMiddleware(app, client=client_of(ScriptedSource()), identify=WHO), http_scope())
        assert raised.value is error
        assert error.__cause__ is None
        assert calls == [1]

    def test_A7_it_is_pure_asgi(self) -> None:
        """A7: no `BaseHTTPMiddleware`."""
        assert not issubclass(ProfileMiddleware, BaseHTTPMiddleware)


class TestLifecycle:
    def test_A8_with_and_without_a_lifespan(self) -> None:
        """A8: works with lifespan, without, and with a test client used without `with`."""
        source = ScriptedSource()
        client = client_of(source)
        app = Starlette(
            routes=ROUTES,
            middleware=[Middleware(ProfileMiddleware, client=client, identify=WHO)],
            lifespan=client.lifespan,
        )
        assert ask(app).json()["id"] == "u1"
        with TestClient(app) as browser:
            assert browser.get("/", headers={"cookie": "user=u2"}).json()["id"] == "u2"
        assert source.closed == 1, "its own lifespan and the middleware are two owners"
        with TestClient(app) as browser:
            assert browser.get("/", headers={"cookie": "user=u3"}).json()["id"] == "u3"

    def test_A8_the_middleware_alone_closes_what_it_opened(self) -> None:
        """A8: the middleware uses the lifespan only to open and close the client."""
        source = ScriptedSource()
        app = app_of(client_of(source))
        with TestClient(app) as browser:
            assert browser.get("/", headers={"cookie": "user=u1"}).json()["id"] == "u1"
            assert source.closed == 0
        assert source.closed == 1

    def test_A8_under_mount_there_is_no_lifespan_and_it_works(self) -> None:
        """A8: under `Mount` it never sees lifespan."""
        source = ScriptedSource()
        with TestClient(Starlette(routes=[Mount("/shop", app_of(client_of(source)))])) as browser:
            assert browser.get("/shop/", headers={"cookie": "user=u1"}).json()["id"] == "u1"
        assert source.closed == 0

    def test_A8_a_failing_startup_fails_as_it_did(self) -> None:
        """A8: when the startup of the app fails."""
        source = ScriptedSource()

        @contextlib.asynccontextmanager
        async def lifespan(app: object) -> AsyncGenerator[None]:
            if source.closed == 0:
                raise RuntimeError("no database")
            yield

        app = Starlette(
            routes=ROUTES,
            middleware=[Middleware(ProfileMiddleware, client=client_of(source), identify=WHO)],
            lifespan=lifespan,
        )
        with pytest.raises(RuntimeError, match="no database"), TestClient(app):
            raise AssertionError("unreachable")
        assert source.closed == 1


PERSONAL = "alice@example.com"


def boom(_: HTTPConnection) -> str:
    raise ValueError(PERSONAL)


async def boom_later(_: HTTPConnection) -> str:
    raise ValueError(PERSONAL)


async def hang(_: HTTPConnection) -> str:
    await asyncio.Event().wait()
    return "u1"


class TestFailingOpen:
    @pytest.mark.parametrize("attach", ATTACH)
    @pytest.mark.parametrize(
        ("identify", "status", "reason"),
        [
            (boom, "error", "unavailable"),
            (boom_later, "error", "unavailable"),
            (hang, "timeout", "unavailable"),
            (lambda _: {"id": "u1"}, "error", "unavailable"),
            (lambda _: b"u1", "error", "unavailable"),
            (lambda _: "x" * 5000, "error", "unavailable"),
            (lambda _: True, "error", "unavailable"),
            (lambda _: "", "skipped", "anonymous"),
            (lambda _: None, "skipped", "anonymous"),
        ],
    )
    def test_A10_whatever_the_identity_function_does_the_page_is_served(
        self, attach: Attach, identify: Any, status: str, reason: str
    ) -> None:
        """A10: if it raises, hangs or returns an invalid value, the page is served anonymously."""
        app = app_of(
            client_of(ScriptedSource()), identify=identify, attach=attach, budget=0.02 if identify is hang else 10.0
        )
        response = ask(app)
        assert response.status_code == 200
        assert response.json() == {"id": "nobody", "status": status, "reason": reason}

    def test_A10_a_whole_number_is_a_key(self) -> None:
        """A10: sessions often hold numbers."""
        assert ask(app_of(client_of(ScriptedSource()), identify=lambda _: 478060)).json()["id"] == "478060"

    @pytest.mark.parametrize("attach", ATTACH)
    @pytest.mark.parametrize("error", [SourceConnectionError("down"), RuntimeError("alice@example.com")])
    def test_A10_whatever_the_source_raises_the_page_is_served(self, attach: Attach, error: Exception) -> None:
        """A10: for any error of the source."""
        response = ask(app_of(client_of(ScriptedSource(Switch(error))), attach=attach))
        assert response.json() == {"id": "nobody", "status": "error", "reason": "unavailable"}

    def test_A10_whatever_the_cache_does_the_page_is_served(self, caplog: pytest.LogCaptureFixture) -> None:
        """A10: … or the cache."""
        client = client_of(ScriptedSource())

        def broken(*_: object) -> None:
            raise RuntimeError(PERSONAL)

        client._cache.get = broken  # type: ignore[method-assign, assignment]
        app = app_of(client)
        for _ in range(2):
            assert ask(app).json()["status"] == "error"
        assert len(own_records(caplog)) == 1
        assert "alice" not in caplog.text

    def test_A10_bugs_in_user_functions_are_logged_once_with_their_place_and_without_personal_data(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A10: bugs in user callables are logged once per kind, with traceback, without personal data."""
        app = app_of(client_of(ScriptedSource()), identify=boom)
        for _ in range(3):
            ask(app)
        assert len(own_records(caplog)) == 1
        assert "raised ValueError" in caplog.text
        assert "in boom" in caplog.text
        assert PERSONAL not in caplog.text

    @pytest.mark.parametrize("attach", ["eager", "lazy"])
    def test_A11_a_hung_upstream_delays_a_page_by_the_budget_at_most(self, attach: Attach) -> None:
        """A11: with the upstream hung, a page is delayed by the budget at most."""
        source = ScriptedSource(delay=30)
        app = app_of(client_of(source, close_timeout=0.01), attach=attach, budget=0.05)
        started = time.perf_counter()
        with TestClient(app) as browser:
            browser.get("/plain")
            started = time.perf_counter()
            response = browser.get("/", headers={"cookie": "user=u1"})
            waited = time.perf_counter() - started
        assert response.json()["status"] == "timeout"
        assert 0.04 < waited < 15

    def test_A12_outside_of_the_session_middleware_it_says_how_to_order_them(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A12: installed outside `SessionMiddleware`, it warns once, says how to order them, never answers 500."""
        app = Starlette(
            routes=ROUTES,
            middleware=[
                Middleware(ProfileMiddleware, client=client_of(ScriptedSource()), identify=from_session()),
                Middleware(SessionMiddleware, secret_key="secret"),
            ],
        )
        for _ in range(3):
            assert ask(app).status_code == 200
        assert len(own_records(caplog)) == 1
        assert "put SessionMiddleware before it" in caplog.text

    @pytest.mark.parametrize("attach", ATTACH)
    def test_A10_on_another_event_loop_it_says_so_and_serves_the_page(
        self, attach: Attach, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A10: asyncio is the supported loop; a page on another one is served anonymous."""

        async def page(scope: Scope, receive: Receive, send: Send) -> None:
            reason = (await get_profile(HTTPConnection(scope))).reason or ""
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": reason.encode()})

        app = ProfileMiddleware(page, client=client_of(ScriptedSource()), identify=WHO, attach=attach)
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        for _ in range(2):
            with pytest.raises(StopIteration):  # driven by hand: there is no asyncio loop
                app(http_scope(), no_receive, send).send(None)
        assert sent[1]["body"] == b"unavailable"
        assert [record.levelno for record in own_records(caplog)] == [logging.ERROR]
        assert "asyncio only" in caplog.text


class TestHttpCaching:
    @pytest.mark.parametrize("attach", ATTACH)
    @pytest.mark.parametrize("user", ["u1", None])
    def test_A13_a_page_that_reads_the_profile_is_private(self, attach: Attach, user: str | None) -> None:
        """A13: profile read ⇒ `Vary` and `Cache-Control: private`; reading an anonymous profile counts as reading."""
        response = ask(app_of(client_of(ScriptedSource()), attach=attach), user=user)
        assert response.headers["vary"] == "Cookie"
        assert response.headers["cache-control"] == "private"

    @pytest.mark.parametrize("attach", ATTACH)
    async def test_A13_a_page_that_does_not_is_byte_identical(self, attach: Attach) -> None:
        """A13: not read ⇒ the response is byte-identical to the one without the middleware."""
        plain = Starlette(routes=ROUTES)
        app = ProfileMiddleware(plain, client=client_of(ScriptedSource()), identify=WHO, attach=attach)
        assert await drive(app, http_scope("/plain")) == await drive(plain, http_scope("/plain"))

    def test_A13_vary_names_the_header_that_the_identity_came_from(self) -> None:
        """A13: … or the header that identity came from."""
        app = app_of(client_of(ScriptedSource()), identify=from_header("X-User", trusted=True))
        assert ask(app, **{"X-User": "u1"}).headers["vary"] == "X-User"
        app = app_of(client_of(ScriptedSource()), identify=lambda _: "u1", vary_on=["Authorization"])
        assert ask(app).headers["vary"] == "Authorization"

    @pytest.mark.parametrize("status", [200, 304, 404, 500])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_A14_every_kind_of_response_gets_the_same_headers(self, status: int, method: str) -> None:
        """A14: 304, HEAD and errors get the same headers."""

        async def page(request: Request) -> Response:
            assert request.state.profile.found
            return Response(status_code=status, headers={"Cache-Control": "max-age=60", "Vary": "Accept"})

        app = app_of(client_of(ScriptedSource()), routes=[Route("/", page)])
        response = TestClient(app).request(method, "/", headers={"cookie": "user=u1"})
        assert response.status_code == status
        assert response.headers["cache-control"] == "private, max-age=60"
        assert response.headers["vary"] == "Accept, Cookie"

    def test_A14_a_page_that_invited_shared_caches_is_made_private_with_a_warning(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A14: `public`/`s-maxage` on a personalised response becomes `private`, with a warning."""

        async def page(request: Request) -> Response:
            return PlainTextResponse(request.state.profile["id"], headers={"Cache-Control": "public, s-maxage=600"})

        app = app_of(client_of(ScriptedSource()), routes=[Route("/", page)])
        for _ in range(2):
            assert ask(app).headers["cache-control"] == "private"
        assert len(own_records(caplog)) == 1
        assert "page" in caplog.text
        assert "u1" not in caplog.text

    @pytest.mark.parametrize("attach", ATTACH)
    @pytest.mark.parametrize("own", [False, True])
    def test_A15_finding_the_identity_does_not_mark_the_session_reading_the_profile_does(
        self, attach: Attach, own: bool
    ) -> None:
        """A15: peeking at the session to find the identity does not mark the session as accessed; reading does."""

        async def sign_in(request: Request) -> Response:
            request.session["user_id"] = "u1"
            return PlainTextResponse("")

        def by_session(connection: HTTPConnection) -> Any:
            return connection.session.get("user_id")

        accessed: dict[str, bool] = {}

        def watching(page: Callable[[Request], Any]) -> Any:
            async def watched(request: Request) -> Response:
                response: Response = await page(request)
                accessed[request.url.path] = request.scope["session"].accessed
                return response

            return watched

        app = Starlette(
            routes=[Route("/in", sign_in), Route("/plain", watching(ignore)), Route("/", watching(read))],
            middleware=[
                Middleware(SessionMiddleware, secret_key="secret"),
                Middleware(
                    ProfileMiddleware,
                    client=client_of(ScriptedSource()),
                    identify=by_session if own else from_session(),
                    attach=attach,
                ),
            ],
        )
        browser = TestClient(app)
        browser.get("/in")
        plain = browser.get("/plain")
        assert "vary" not in plain.headers
        assert "cache-control" not in plain.headers
        page = browser.get("/")
        assert page.json()["id"] == "u1"
        assert page.headers["vary"] == "Cookie", "once, although two middlewares request it"
        assert accessed == {"/plain": False, "/": True}

    def test_A15_a_session_that_the_identity_function_changed_stays_changed(self) -> None:
        """A15: peeking leaves the session unchanged."""

        def visitor(connection: HTTPConnection) -> str:
            return str(connection.session.setdefault("visitor", "v1"))

        app = Starlette(
            routes=ROUTES,
            middleware=[
                Middleware(SessionMiddleware, secret_key="secret"),
                Middleware(ProfileMiddleware, client=client_of(ScriptedSource()), identify=visitor),
            ],
        )
        assert "session=" in TestClient(app).get("/plain").headers["set-cookie"]

    def test_A16_a_profile_first_read_after_the_start_is_logged_with_the_remedy(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A16: a first read of the profile after the headers were sent is logged with the remedy."""

        async def page(request: Request) -> Response:
            async def body() -> Any:
                yield "hello "
                yield request.state.profile["id"]

            return StreamingResponse(body())

        app = app_of(client_of(ScriptedSource()), routes=[Route("/", page)])
        for _ in range(2):
            response = ask(app)
            assert response.text == "hello u1"
            assert "vary" not in response.headers
        assert len(own_records(caplog)) == 1
        assert "read the profile before the first byte is sent" in caplog.text
        assert "u1" not in caplog.text


async def agrees(_: HTTPConnection) -> bool:
    return True


async def hangs(_: HTTPConnection) -> bool:
    await asyncio.Event().wait()
    return True


class TestConsent:
    @pytest.mark.parametrize("attach", ATTACH)
    @pytest.mark.parametrize("consent", [lambda _: False, lambda _: None, lambda _: "yes", lambda _: 1, boom, hangs])
    def test_A17_without_a_yes_there_is_no_lookup_and_no_reading_of_the_cache(
        self, attach: Attach, consent: Any
    ) -> None:
        """A17: denied ⇒ no upstream call or cache read, an anonymous profile with the reason; an error means denied."""
        source = ScriptedSource()
        client = client_of(source)
        asyncio.run(client.get("u1"))
        app = app_of(client, attach=attach, consent=consent, budget=0.02)
        response = ask(app)
        assert response.json() == {"id": "nobody", "status": "skipped", "reason": "no_consent"}
        assert len(source.calls) == 1
        assert client.stats().lookups[Status.HIT] == 0

    @pytest.mark.parametrize("attach", ATTACH)
    @pytest.mark.parametrize("consent", [lambda _: True, agrees])
    def test_A17_with_a_yes_there_is(self, attach: Attach, consent: Any) -> None:
        """A17: any callable can decide."""
        assert ask(app_of(client_of(ScriptedSource()), attach=attach, consent=consent)).json()["id"] == "u1"

    @pytest.mark.parametrize("attach", ATTACH)
    def test_A17_a_profile_read_too_early_needs_consent_too(self, attach: Attach) -> None:
        """A17: consent is decided before the lookup, however the profile is reached."""

        async def page(request: Request) -> Response:
            return JSONResponse([request.state.profile.found, request.state.profile.reason])

        client = client_of(ScriptedSource())
        asyncio.run(client.get("u1"))
        app = app_of(client, routes=[Route("/", page)], attach=attach, consent=lambda _: False)
        assert ask(app).json() == [False, "no_consent"]

    @pytest.mark.parametrize(("header", "found"), [("1", False), (" 1 ", False), ("0", True), (None, True)])
    def test_A17_global_privacy_control_is_honoured(self, header: str | None, found: bool) -> None:
        """A17: `Sec-GPC: 1` can decide; the response varies by it."""
        app = app_of(client_of(ScriptedSource()), consent=honour_gpc())
        response = ask(app, **({} if header is None else {"Sec-GPC": header}))
        assert (response.json()["id"] == "u1") is found
        assert response.headers["vary"] == "Sec-GPC, Cookie"


class TestServerTiming:
    def test_A19_it_is_off_by_default_and_tells_status_and_time_only(self) -> None:
        """A19: `Server-Timing` is off by default."""
        assert "server-timing" not in ask(app_of(client_of(ScriptedSource()))).headers
        response = ask(app_of(client_of(ScriptedSource()), server_timing=True), path="/plain")
        assert re.fullmatch(r'profile;desc="miss";dur=\d+\.\d\d', response.headers["server-timing"])
        assert "vary" not in response.headers


class TestSettings:
    @pytest.mark.parametrize(
        ("setting", "name"),
        [
            ({"attach": "sometimes"}, "attach"),
            ({"attach": None}, "attach"),
        ],
    )
    def test_bad_settings_are_refused_by_name(self, setting: dict[str, Any], name: str) -> None:
        good: dict[str, Any] = {"client": client_of(ScriptedSource()), "identify": WHO}
        with pytest.raises(ConfigurationError, match=name):
            ProfileMiddleware(bare, **{**good, **setting})

    def test_without_a_budget_a_page_waits_for_the_load(self) -> None:
        app = app_of(client_of(ScriptedSource(delay=0.08)), budget=None)
        assert ask(app).json()["status"] == "miss"

    def test_lookup_details_are_no_reading(self) -> None:
        async def page(request: Request) -> Response:
            details = lookup_details(request)
            assert details is not None
            return JSONResponse([details.status, details.reason, details.seconds >= 0, details.age is not None])

        response = ask(app_of(client_of(ScriptedSource()), routes=[Route("/", page)]))
        assert response.json() == [Status.MISS, None, True, True]
        assert "vary" not in response.headers
        assert ask(Starlette(routes=[Route("/", lambda r: PlainTextResponse(str(lookup_details(r))))])).text == "None"

    @pytest.mark.long
    @pytest.mark.parametrize("attach", ATTACH)
    async def test_L9_no_request_sees_anothers_attributes(self, attach: Attach) -> None:
        """L9: with many concurrent users and cancellations, each user sees only their own profile."""
        source = ScriptedSource(lambda key: found(id=key.value), delay=0.002)
        client = client_of(source, max_entries=20)
        wrong: list[str] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            profile: Profile = await get_profile(HTTPConnection(scope))
            if profile.get("id", scope["who"]) != scope["who"]:
                wrong.append(scope["who"])

        middleware = ProfileMiddleware(app, client=client, identify=WHO, attach=attach, budget=5.0)

        async def visit(index: int) -> None:
            user = f"u{index % 50}"
            task = asyncio.create_task(drive(middleware, http_scope(user=user, who=user, state={})))
            if index % 3 == 0:
                await settle(index % 5)
                task.cancel()
            elif index % 7 == 0:
                client.invalidate(user)
            await asyncio.gather(task, return_exceptions=True)

        for _ in range(4):
            await asyncio.gather(*(visit(index) for index in range(300)))
        assert wrong == []
        lookups = client.stats().lookups
        assert lookups[Status.MISS]
        assert lookups[Status.COALESCED]
        await client.aclose()
