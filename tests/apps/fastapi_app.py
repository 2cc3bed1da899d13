"""The small application in FastAPI."""

# No postponed annotations here: FastAPI resolves them against the module, and the pages are made in a function.

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse

from profile_enrich import ProfileMiddleware
from profile_enrich.fastapi import CurrentProfile

from .stage import PLAIN, AsgiApp, Settings, Stage, seen


def create(stage: Stage, settings: Settings | None) -> AsgiApp:
    """The application, with the middleware installed as FastAPI does it."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        stage.journal.append("startup")
        yield
        stage.journal.append("shutdown")

    app = FastAPI(lifespan=lifespan)
    if settings is not None:
        app.add_middleware(ProfileMiddleware, **settings)

    @app.get("/read")
    async def read(request: Request) -> dict[str, Any]:
        return seen(request.state.profile)

    @app.get("/get")
    async def get(profile: CurrentProfile) -> dict[str, Any]:
        return seen(profile)

    @app.get("/sync")
    def sync(request: Request) -> dict[str, Any]:
        return seen(request.state.profile)

    @app.get("/plain", response_class=PlainTextResponse)
    async def plain() -> str:
        return PLAIN

    @app.get("/boom")
    async def boom() -> None:
        raise stage.error

    @app.get("/events")
    async def events(profile: CurrentProfile) -> StreamingResponse:
        assert profile.found
        return StreamingResponse(stage.events(profile), media_type="text/event-stream")

    @app.websocket("/ws")
    async def talk(websocket: WebSocket, profile: CurrentProfile) -> None:
        name = seen(profile)["id"]
        await websocket.accept()
        await websocket.send_text(name)
        await websocket.close()

    return app
