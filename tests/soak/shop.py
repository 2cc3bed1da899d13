"""The shop: one Starlette application for each way to attach, with sessions, over one client."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from profile_enrich import (
    Profile,
    ProfileClient,
    ProfileMiddleware,
    first_of,
    from_session,
    get_profile,
    lookup_details,
)
from profile_enrich.web.invalidation import ProfileInvalidation
from profile_enrich.web.middleware import Attach

from .checker import Checker
from .expected_state import ExpectedState, Sight
from .settings import Settings
from .watch import WHO

__all__ = ["HOOK_SECRET", "MODES", "Shop"]

MODES: tuple[Attach, ...] = ("eager", "prefetch", "lazy")

HOOK_SECRET = "soak-hook-secret-0123456789"

SESSION_SECRET = "soak-session-secret"


class Shop:
    """The ASGI application: the `x-attach` header says which of the three answers."""

    def __init__(self, client: ProfileClient, expected: ExpectedState, settings: Settings, checker: Checker) -> None:
        self._client = client
        self._expected = expected
        self._checker = checker
        self._apps: dict[str, ASGIApp] = {mode: self._build(mode, settings.budget) for mode in MODES}

    def _build(self, mode: Attach, budget: float) -> ASGIApp:
        return Starlette(
            routes=[
                Route("/page", self.page),
                Route("/late", self.late),
                Route("/at-once", self.at_once),
                Route("/sync", self.sync),
                Route("/unread", self.unread),
                Route("/sign-in", self.sign_in, methods=["POST"]),
                Route("/sign-out", self.sign_out, methods=["POST"]),
                Route("/buy", self.buy, methods=["POST"]),
                Route("/hook", ProfileInvalidation(self._client, secret=HOOK_SECRET)),
                WebSocketRoute("/ws", self.socket),
            ],
            middleware=[
                Middleware(SessionMiddleware, secret_key=SESSION_SECRET),
                Middleware(
                    ProfileMiddleware,
                    client=self._client,
                    identify=first_of(from_session("user"), from_session("visitor")),
                    attach=mode,
                    budget=budget,
                    exclude=["/hook"],
                ),
            ],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return  # the client outlives each server here
        headers: dict[bytes, bytes] = dict(scope["headers"])
        WHO.set("a request's own context")
        await self._apps[headers[b"x-attach"].decode()](scope, receive, send)

    # --- pages --------------------------------------------------------------------------------------------------------

    async def page(self, request: Request) -> JSONResponse:
        return JSONResponse(self._seen(await get_profile(request), request))

    async def late(self, request: Request) -> JSONResponse:
        """Read the profile, do something else, and read it again."""
        await asyncio.sleep(0.005)
        profile = await get_profile(request)
        before, found = profile.as_dict(), profile.found
        await asyncio.sleep(0.02)
        again = profile.as_dict()
        self._checker.check(before == again and found == profile.found, "a profile changed during its request")
        return JSONResponse(self._seen(profile, request))

    async def at_once(self, request: Request) -> JSONResponse:
        """Read the profile without waiting for it."""
        return JSONResponse(self._seen(request.state.profile, request))

    def sync(self, request: Request) -> JSONResponse:
        """Runs in a worker thread."""
        return JSONResponse(self._seen(request.state.profile, request))

    async def unread(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse("the same for all")

    async def socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(self._seen(await get_profile(websocket), websocket))
        await websocket.close()

    # --- who is there -------------------------------------------------------------------------------------------------

    async def sign_in(self, request: Request) -> JSONResponse:
        person = request.headers["x-person"]
        visitor = request.session.get("visitor")
        request.session.clear()
        request.session["user"] = person
        if visitor is not None:
            self._expected.rekey(self._client, visitor, person)
        return JSONResponse({})

    async def sign_out(self, request: Request) -> JSONResponse:
        request.session.clear()
        request.session["visitor"] = request.headers["x-visitor"]
        return JSONResponse({})

    async def buy(self, request: Request) -> JSONResponse:
        key = request.session.get("user") or request.session.get("visitor")
        if key is not None:
            self._expected.overlay(self._client, key)
        return JSONResponse(self._seen(await get_profile(request), request))

    # --- what they show -----------------------------------------------------------------------------------------------

    def _seen(self, profile: Profile, connection: HTTPConnection) -> dict[str, Any]:
        sight = Sight.of(profile)
        self._vandalise(profile)
        details = lookup_details(connection)
        return {
            "attributes": sight.attributes,
            "status": sight.status,
            "reason": sight.reason,
            "age": sight.age,
            "at": sight.at,
            "waited": 0.0 if details is None else details.seconds,
            "made_at": time.monotonic(),
        }

    def _vandalise(self, profile: Profile) -> None:
        """Try to change the cached value (L9): directly, and through the copy."""
        attributes: Any = profile.attributes
        try:
            attributes["city"] = "spoilt"
        except TypeError:
            pass
        else:
            self._checker.check(False, "L9: a reader could change a cached profile")
        copied = profile.as_dict()
        copied["city"] = "spoilt"
        if isinstance(copied.get("home"), dict):
            copied["home"]["city"] = "spoilt"
            copied["home"]["lines"].append("spoilt")
