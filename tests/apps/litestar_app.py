"""The small application in Litestar."""

from __future__ import annotations

from typing import Any, cast

from litestar import Litestar, MediaType, Request, WebSocket, get, websocket
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.middleware import DefineMiddleware
from litestar.params import SkipValidation
from litestar.response import Stream
from litestar.types import Scope
from starlette.requests import HTTPConnection

from profile_enrich import Profile, ProfileMiddleware, get_profile

from .stage import PLAIN, AsgiApp, Settings, Stage, seen

ThisProfile = NamedDependency[SkipValidation[Profile]]
AnyRequest = Request[Any, Any, State]
AnyWebSocket = WebSocket[Any, Any, State]


async def provide_profile(scope: Scope) -> Profile:
    """The profile as a dependency of Litestar's."""
    return await get_profile(HTTPConnection(cast("dict[str, Any]", scope)))


def create(stage: Stage, settings: Settings | None, *, own: bool = False, middleware: Any = ()) -> AsgiApp:
    """The application, wrapped in the middleware; with `own`, the middleware is installed as Litestar does it."""

    @get("/read")
    async def read(request: AnyRequest) -> dict[str, Any]:
        return seen(request.state.profile)

    @get("/get", dependencies={"profile": Provide(provide_profile)})
    async def awaited(profile: ThisProfile) -> dict[str, Any]:
        return seen(profile)

    @get("/sync", sync_to_thread=True)
    def sync(request: AnyRequest) -> dict[str, Any]:
        return seen(request.state.profile)

    @get("/plain", media_type=MediaType.TEXT)
    async def plain() -> str:
        return PLAIN

    @get("/boom")
    async def boom() -> None:
        raise stage.error

    @get("/events", dependencies={"profile": Provide(provide_profile)})
    async def events(profile: ThisProfile) -> Stream:
        assert profile.found
        return Stream(stage.events(profile), media_type="text/event-stream")

    @get("/sign-in")
    async def sign_in(request: AnyRequest) -> str:
        request.set_session({"user_id": "u1"})
        return "signed in"

    @websocket("/ws")
    async def talk(socket: AnyWebSocket) -> None:
        name = seen(await provide_profile(socket.scope))["id"]
        await socket.accept()
        await socket.send_text(name)
        await socket.close()

    layers = list(middleware)
    if own and settings is not None:
        layers.append(DefineMiddleware(cast("Any", ProfileMiddleware), **settings))
    app = Litestar(
        [read, awaited, sync, plain, boom, events, sign_in, talk],
        middleware=layers,
        on_startup=[lambda: stage.journal.append("startup")],
        on_shutdown=[lambda: stage.journal.append("shutdown")],
        openapi_config=None,
    )
    if own or settings is None:
        return app
    return ProfileMiddleware(cast("Any", app), **settings)
