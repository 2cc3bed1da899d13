"""Identities that change during a request or a WebSocket."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from profile_enrich import NotFound, ProfileMiddleware, from_session, from_user, get_profile, refresh_profile
from profile_enrich.web.config import Attach
from tests.helpers import ScriptedSource, client_of, found, own_records
from tests.web.helpers import WHO, view

ATTACH: list[Attach] = ["eager", "prefetch", "lazy"]


def shop(page: Any, client: Any, attach: Attach = "eager", **settings: Any) -> TestClient:
    async def sign_in(request: Request) -> Response:
        request.session["user_id"] = request.path_params["user"]
        return Response()

    middleware = [
        Middleware(SessionMiddleware, secret_key="a secret of the tests"),
        Middleware(ProfileMiddleware, **{"client": client, "identify": from_session(), "attach": attach, **settings}),
    ]
    return TestClient(Starlette(routes=[Route("/", page), Route("/in/{user}", sign_in)], middleware=middleware))


@pytest.mark.parametrize("attach", ATTACH)
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("now", ["u2", None])
def test_A30_a_switch_and_a_sign_out_show_after_a_refresh(attach: Attach, before: bool, now: str | None) -> None:
    async def page(request: Request) -> Response:
        held = await get_profile(request) if before else request.state.profile
        if before:
            assert held.get("id") == "u1"
        if now is None:
            request.session.clear()
        else:
            request.session["user_id"] = now
        fresh = await refresh_profile(request)
        return JSONResponse([view(each) for each in (fresh, held, request.state.profile, await get_profile(request))])

    browser = shop(page, client_of(ScriptedSource()), attach)
    browser.get("/in/u1")
    answer = browser.get("/")
    assert answer.json() == [{"id": now, "reason": None if now else "anonymous"}] * 4
    assert answer.headers["cache-control"] == "private"


def test_A30_the_user_that_a_handler_under_a_mount_has_set_is_looked_up() -> None:
    async def page(request: Request) -> Response:
        request.scope["user"] = SimpleUser("u7")
        return JSONResponse(view(await refresh_profile(request)))

    app = Starlette(routes=[Mount("/shop", routes=[Route("/", page)])])
    wrapped = ProfileMiddleware(app, client=client_of(ScriptedSource()), identify=from_user("display_name"))
    assert TestClient(wrapped).get("/shop/").json()["id"] == "u7"


def test_A30_a_refresh_asks_for_consent_again() -> None:
    async def page(request: Request) -> Response:
        before = view(await get_profile(request))
        request.session["agreed"] = not request.session["agreed"]
        return JSONResponse([before, view(await refresh_profile(request))])

    def agreed(request: Any) -> bool:
        return bool(request.session.setdefault("agreed", True))

    source = ScriptedSource()
    browser = shop(page, client_of(source), consent=agreed)
    browser.get("/in/u1")
    assert [each["reason"] for each in browser.get("/").json()] == [None, "no_consent"]
    assert [each["reason"] for each in browser.get("/").json()] == ["no_consent", None]


@pytest.mark.parametrize("rekey", [True, False])
def test_A30_what_was_laid_over_the_visitors_profile_moves_on_sign_in_where_asked(rekey: bool) -> None:
    client = client_of(ScriptedSource())

    async def page(request: Request) -> Response:
        assert (await get_profile(request)).get("cart") == 3
        request.session["user_id"] = "u1"
        profile = await refresh_profile(request, rekey=rekey)
        return JSONResponse([profile.get("id"), profile.get("cart")])

    browser = shop(page, client)
    browser.get("/in/visitor-9")
    client.overlay("visitor-9", {"cart": 3})
    assert browser.get("/").json() == ["u1", 3 if rekey else None]
    assert (client.peek("visitor-9") is not None) is not rekey


async def test_refreshing_without_the_middleware_is_empty(caplog: pytest.LogCaptureFixture) -> None:
    profile = await refresh_profile(Request({"type": "http", "headers": []}), "nowhere")
    assert profile.reason == "not_looked_up"
    assert "add ProfileMiddleware" in own_records(caplog)[0].getMessage()


class TestWebSockets:
    @pytest.mark.parametrize("attach", ATTACH)
    def test_A30_a_socket_does_not_outlive_the_person(self, attach: Attach) -> None:
        source = ScriptedSource()
        client = client_of(source)

        async def chat(websocket: WebSocket) -> None:
            await websocket.accept()
            async for _ in websocket.iter_text():
                profile = await get_profile(websocket)
                await websocket.send_json([view(profile), view(websocket.state.profile), profile.age is not None])

        app = Starlette(routes=[WebSocketRoute("/", chat)])
        wrapped = ProfileMiddleware(app, client=client, identify=WHO, attach=attach)
        with TestClient(wrapped) as browser, browser.websocket_connect("/", headers={"x-user": "u1"}) as socket:
            for _ in range(3):
                socket.send_text("?")
                assert socket.receive_json() == [{"id": "u1", "reason": None}] * 2 + [True]
            assert len(source.calls) == 1
            source.answer = lambda key: NotFound()  # deleted at the source
            client.invalidate("u1")
            socket.send_text("?")
            assert socket.receive_json() == [{"id": None, "reason": "not_found"}] * 2 + [False]
            source.answer = lambda key: found(id="again")
            client.invalidate("u1")
            socket.send_text("?")
            assert socket.receive_json()[0]["id"] == "again"

    def test_A3_the_first_look_takes_what_was_looked_up_for_accept(self) -> None:
        client = client_of(ScriptedSource())

        async def chat(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.send_json(view(await get_profile(websocket)))
            await websocket.close()

        app = ProfileMiddleware(Starlette(routes=[WebSocketRoute("/", chat)]), client=client, identify=WHO)
        with TestClient(app) as browser, browser.websocket_connect("/", headers={"x-user": "u1"}) as socket:
            assert socket.receive_json()["id"] == "u1"
            assert sum(client.stats().lookups.values()) == 1
