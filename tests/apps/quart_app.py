"""The small application in Quart."""

from __future__ import annotations

from typing import Any, cast

from quart import Quart, Response, request, session, websocket
from starlette.requests import HTTPConnection

from profile_enrich import ProfileMiddleware, get_profile

from .stage import PLAIN, AsgiApp, Settings, Stage, seen


def create(stage: Stage, settings: Settings | None, *, propagate: bool = False) -> Quart:
    """The application, with the middleware around `asgi_app`, as Quart documents it."""
    app = Quart(__name__)
    app.secret_key = "secret"
    app.config["PROPAGATE_EXCEPTIONS"] = propagate

    @app.get("/read")
    async def read() -> dict[str, Any]:
        return seen(_state(request)["profile"])

    @app.get("/get")
    async def get() -> dict[str, Any]:
        return seen(await get_profile(_connection(request)))

    @app.get("/sync")
    def sync() -> dict[str, Any]:
        return seen(_state(request)["profile"])

    @app.get("/plain")
    async def plain() -> str:
        return PLAIN

    @app.get("/boom")
    async def boom() -> str:
        raise stage.error

    @app.get("/events")
    async def events() -> Response:
        profile = await get_profile(_connection(request))
        assert profile.found
        return Response(stage.events(profile), mimetype="text/event-stream")

    @app.get("/sign-in")
    async def sign_in() -> str:
        session["user_id"] = "u1"
        return "signed in"

    @app.websocket("/ws")
    async def talk() -> None:
        name = seen(await get_profile(_connection(websocket)))["id"]
        await websocket.accept()
        await websocket.send(name)

    @app.before_serving
    async def startup() -> None:
        stage.journal.append("startup")

    @app.after_serving
    async def shutdown() -> None:
        stage.journal.append("shutdown")

    if settings is not None:
        wrapped: AsgiApp = ProfileMiddleware(cast("Any", app.asgi_app), **settings)
        app.asgi_app = wrapped  # type: ignore[method-assign]  # the way that Quart documents
    return app


def _connection(current: Any) -> HTTPConnection:
    return HTTPConnection(current.scope)


def _state(current: Any) -> dict[str, Any]:
    state: dict[str, Any] = current.scope["state"]
    return state


def session_user(app: Quart) -> Any:
    """An identity function that reads Quart's own session cookie."""

    def identify(connection: HTTPConnection) -> str | None:
        serializer = cast("Any", app.session_interface).get_signing_serializer(app)
        cookie = connection.cookies.get(app.config["SESSION_COOKIE_NAME"])
        return serializer.loads(cookie).get("user_id") if cookie else None

    return identify
