"""The small application in Django, without a project: settings and pages in one module."""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from starlette.requests import HTTPConnection

from profile_enrich import ProfileMiddleware, get_profile

from .django_settings import configure
from .stage import PLAIN, AsgiApp, Settings, Stage, seen

configure()

_stage = Stage()


async def read(request: Any) -> Any:
    return JsonResponse(seen(request.scope["state"]["profile"]))


async def get(request: Any) -> Any:
    return JsonResponse(seen(await get_profile(HTTPConnection(request.scope))))


def sync(request: Any) -> Any:
    return JsonResponse(seen(request.scope["state"]["profile"]))


async def plain(request: Any) -> Any:
    return HttpResponse(PLAIN, content_type="text/plain")


async def boom(request: Any) -> Any:
    raise _stage.error


async def events(request: Any) -> Any:
    profile = await get_profile(HTTPConnection(request.scope))
    assert profile.found
    return StreamingHttpResponse(_stage.events(profile), content_type="text/event-stream")


async def sign_in(request: Any) -> Any:
    await request.session.aset("user_id", "u1")
    return HttpResponse("signed in")


urlpatterns = [
    path("read", read),
    path("get", get),
    path("sync", sync),
    path("plain", plain),
    path("boom", boom),
    path("events", events),
    path("sign-in", sign_in),
]


def create(stage: Stage, settings: Settings | None, *, propagate: bool = False) -> AsgiApp:
    """The application, wrapped in the middleware. Django has one application per process: the last stage is used."""
    global _stage
    _stage = stage
    django_settings.DEBUG_PROPAGATE_EXCEPTIONS = propagate
    app = get_asgi_application()
    return app if settings is None else ProfileMiddleware(app, **settings)


def session_user(connection: HTTPConnection) -> Any:
    """An identity function that reads Django's own session, here in a signed cookie."""
    from django.contrib.sessions.backends.signed_cookies import SessionStore

    cookie = connection.cookies.get(django_settings.SESSION_COOKIE_NAME)
    return SessionStore(cookie).get("user_id") if cookie else None
