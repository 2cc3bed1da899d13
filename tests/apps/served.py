"""The application that servers serve: sessions, profiles from a vendor over HTTP, and everything a page can send.

Its environment configures it: `VENDOR_URL`, `TRANSPORT` and `WARM_UP` (a key to look up while the module is imported).
The client is made when the module is imported, as most applications do.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from profile_enrich import CensusSource, ProfileClient, ProfileMiddleware, from_session, get_profile

HERE = Path(__file__)

profiles = ProfileClient(
    CensusSource(
        api_key="secret",
        entity=1,
        base_url=os.environ["VENDOR_URL"],
        transport=os.environ.get("TRANSPORT", "auto"),  # type: ignore[arg-type]  # one of the names, or it refuses
    ),
    ttl=600,
)


async def sign_in(request: Request) -> Response:
    request.session["user_id"] = request.path_params["user"]
    return PlainTextResponse("signed in")


async def sign_out(request: Request) -> Response:
    request.session.clear()
    return PlainTextResponse("signed out")


async def home(request: Request) -> Response:
    profile = request.state.profile
    return JSONResponse({"tier": profile.get("tier"), "found": profile.found, "reason": profile.reason})


async def tier_of(request: Request) -> Response:
    """Return the profile of any key, directly from the client."""
    return PlainTextResponse(str((await profiles.get(request.path_params["key"])).get("tier")))


async def plain(request: Request) -> Response:
    return PlainTextResponse("the same for all", headers={"cache-control": "public, max-age=60"})


async def file(request: Request) -> Response:
    """A file, which some servers send by themselves; a personal one if the profile was read."""
    private = "private" in request.query_params and request.state.profile.found
    return FileResponse(HERE, media_type="text/plain", headers={"x-private": str(private)})


async def early(request: Request) -> Response:
    return Response(status_code=304, headers={"etag": request.state.profile.get("tier", "none")})


async def boom(request: Request) -> Response:
    raise RuntimeError(f"boom for {request.state.profile.get('tier')}")


released = anyio.Event()


async def events(request: Request) -> Response:
    """Server-sent events. The second is sent only after the client has received the first and requested `/release`."""
    tier = (await get_profile(request)).get("tier")

    async def parts() -> AsyncGenerator[str]:
        yield f"data: {tier}\n\n"
        await released.wait()
        yield "data: last\n\n"

    return StreamingResponse(parts(), media_type="text/event-stream")


async def release(request: Request) -> Response:
    released.set()
    return PlainTextResponse("released")


async def block(request: Request) -> Response:
    """Block the whole process until a file exists, so that another worker serves the next connection."""
    limit = time.monotonic() + 10
    Path(request.query_params["began"]).touch()
    while not Path(request.query_params["until"]).exists() and time.monotonic() < limit:
        time.sleep(0.005)
    return PlainTextResponse(str(os.getpid()))


async def about(request: Request) -> Response:
    loop = asyncio.get_running_loop()
    return JSONResponse(
        {"pid": os.getpid(), "parent": os.getppid(), "loop": type(loop).__module__, "transport": profiles.transport}
    )


async def talk(websocket: WebSocket) -> None:
    tier = (await get_profile(websocket)).get("tier", "nobody")
    await websocket.accept()
    await websocket.send_text(tier)
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


ROUTES: list[BaseRoute] = [
    Route("/", home),
    Route("/sign-in/{user}", sign_in),
    Route("/sign-out", sign_out),
    Route("/tier/{key}", tier_of),
    Route("/plain", plain),
    Route("/file", file),
    Route("/304", early),
    Route("/boom", boom),
    Route("/events", events),
    Route("/release", release),
    Route("/block", block),
    Route("/about", about),
    WebSocketRoute("/ws", talk),
]

SESSIONS: Any = Middleware(SessionMiddleware, secret_key="secret")


bare: ASGIApp = Starlette(routes=ROUTES, middleware=[SESSIONS])


class Outermost:
    """Serve `/bare/...` without profiles, and report on standard error how a shutdown left the client."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                sys.stderr.write(f"shut down: {profiles!r}, its tasks: {own_tasks()}\n")
            await send(message)

        if scope["type"] == "lifespan":
            await self.app(scope, receive, tell)
        elif scope["path"].startswith("/bare/"):
            await bare({**scope, "path": scope["path"].removeprefix("/bare")}, receive, send)
        else:
            await self.app(scope, receive, send)


def own_tasks() -> list[str]:
    try:
        return [task.get_name() for task in asyncio.all_tasks() if "profile_enrich" in task.get_name()]
    except RuntimeError:  # another kind of loop
        return []


app: ASGIApp = Outermost(
    Starlette(
        routes=ROUTES,
        middleware=[SESSIONS, Middleware(ProfileMiddleware, client=profiles, identify=from_session(), budget=5)],
    )
)
"""It has no lifespan of its own: the middleware closes the client."""


async def without_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """The same, without lifespan support, as in Django."""
    if scope["type"] == "lifespan":
        raise ValueError("no lifespan here")
    await app(scope, receive, send)


if "WARM_UP" in os.environ:
    # A client that was used before a fork, on a loop that has ended.
    asyncio.run(profiles.get(os.environ["WARM_UP"]))
