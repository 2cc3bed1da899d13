"""The small application in Starlette."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from profile_enrich import ProfileMiddleware, get_profile

from .stage import PLAIN, AsgiApp, Settings, Stage, seen


def create(stage: Stage, settings: Settings | None) -> AsgiApp:
    """The application, with the middleware installed as Starlette does it."""

    async def read(request: Request) -> Response:
        return JSONResponse(seen(request.state.profile))

    async def get(request: Request) -> Response:
        return JSONResponse(seen(await get_profile(request)))

    def sync(request: Request) -> Response:
        return JSONResponse(seen(request.state.profile))

    async def plain(request: Request) -> Response:
        return PlainTextResponse(PLAIN)

    async def boom(request: Request) -> Response:
        raise stage.error

    async def events(request: Request) -> Response:
        profile = await get_profile(request)
        assert profile.found
        return StreamingResponse(stage.events(profile), media_type="text/event-stream")

    async def talk(websocket: WebSocket) -> None:
        name = seen(await get_profile(websocket))["id"]
        await websocket.accept()
        await websocket.send_text(name)
        await websocket.close()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        stage.journal.append("startup")
        yield
        stage.journal.append("shutdown")

    return Starlette(
        routes=[
            *(Route(f"/{page.__name__}", page) for page in (read, get, sync, plain, boom, events)),
            WebSocketRoute("/ws", talk),
        ],
        lifespan=lifespan,
        middleware=[] if settings is None else [Middleware(ProfileMiddleware, **settings)],
    )
