"""A shop under uvicorn, in a process of its own: bare, with ours, or with the hand-written middleware.

`GET /` is the page, and greets the customer whose id is in the `x-user` header. `GET /-/fresh?...` starts over: an
empty cache, and another vendor.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from profile_enrich import CensusSource, ProfileClient, ProfileMiddleware, from_header

from ._by_hand import HandWritten
from ._child import say
from ._vendor import KEY

__all__ = ["BARE", "BY_HAND", "BY_HAND_50_MS", "KINDS", "OURS", "TTL"]

BARE = "no profile"
OURS = "profile_enrich, budget 50 ms"
BY_HAND = "hand-written, httpx's timeout (5 s)"
BY_HAND_50_MS = "hand-written, timeout 50 ms"
KINDS = (BARE, OURS, BY_HAND, BY_HAND_50_MS)

TTL = 1.0


async def page(request: Request) -> PlainTextResponse:
    profile = getattr(request.state, "profile", None) or {}
    return PlainTextResponse(f"hello {profile.get('first_name', 'there')}")


def build(kind: str, base_url: str, entity: int) -> tuple[ASGIApp, ProfileClient | None]:
    routes = [Route("/", page)]
    if kind == BARE:
        return Starlette(routes=routes), None
    if kind == OURS:
        client = ProfileClient(CensusSource(KEY, entity=entity, base_url=base_url), ttl=TTL)
        identify = from_header("x-user", trusted=True)
        return Starlette(
            routes=routes, middleware=[Middleware(ProfileMiddleware, client=client, identify=identify, budget=0.05)]
        ), client
    by_hand = Middleware(
        HandWritten,
        url=f"{base_url}/entities/{entity}/record?record_id=",
        headers={"authorization": f"Bearer {KEY}"},
        ttl=TTL,
        timeout=0.05 if kind == BY_HAND_50_MS else 5,
    )
    return Starlette(routes=routes, middleware=[by_hand]), None


class Shop:
    """The application that is served, and replaced by `/-/fresh`."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._app: ASGIApp = Starlette()
        self._client: ProfileClient | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/-/fresh":
            query = Request(scope).query_params
            if self._client is not None:
                await self._client.aclose()
            self._app, self._client = build(self._kind, query["base_url"], int(query["entity"]))
            await PlainTextResponse("fresh")(scope, receive, send)
            return
        await self._app(scope, receive, send)


def serve(kind: str) -> None:
    # With the protocol said: asyncio turns Nagle's delay off only for sockets that name TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            Shop(kind),
            lifespan="off",
            log_level="error",
            access_log=False,
            backlog=1024,
            timeout_keep_alive=600,  # else a visitor who comes back just as it is closed counts as a failed page
        )
    )

    def watch() -> None:
        sys.stdin.read()  # the parent ends it
        server.should_exit = server.force_exit = True

    threading.Thread(target=watch, daemon=True).start()
    logging.basicConfig(handlers=[logging.NullHandler()])
    listener.listen(1024)
    say({"port": listener.getsockname()[1]})
    asyncio.run(server.serve(sockets=[listener]))


if __name__ == "__main__":
    serve(sys.argv[1])
