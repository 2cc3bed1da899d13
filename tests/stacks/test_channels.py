"""Django Channels: the user and the session that its middleware puts into the scope."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.stacks import needs

needs("channels", "django")

import django  # noqa: E402
from django.conf import settings  # noqa: E402

if not settings.configured:
    settings.configure(SECRET_KEY="of the tests", DEBUG=False)
    django.setup()

from asgiref.sync import async_to_sync  # noqa: E402
from channels.auth import UserLazyObject  # noqa: E402
from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.middleware import BaseMiddleware  # noqa: E402
from django.core.exceptions import SynchronousOnlyOperation  # noqa: E402
from django.utils.functional import SimpleLazyObject  # noqa: E402
from starlette.requests import HTTPConnection  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from profile_enrich import ProfileClient, ProfileMiddleware, from_user, get_profile, in_thread  # noqa: E402
from tests.helpers import own_records  # noqa: E402


class Customer:
    is_authenticated = True
    pk = "u1"


class Consumer(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        profile = await get_profile(HTTPConnection(self.scope))
        await self.accept()
        await self.send(str(profile.get("first_name", profile.reason)))


class Signed(BaseMiddleware):
    """As `channels.auth.AuthMiddleware`: a lazy user, which is resolved before the application inside is called."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        scope = {**scope, "user": UserLazyObject()}
        scope["user"]._wrapped = Customer()
        return await self.inner(scope, receive, send)


class Lazy(BaseMiddleware):
    """A user that is loaded from a database on first access, as Django's own `request.user`."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        def load() -> Customer:
            async def nothing() -> None: ...

            try:
                async_to_sync(nothing)()  # refuses, as the database does, on a running event loop
            except RuntimeError:
                raise SynchronousOnlyOperation("You cannot call this from an async context") from None
            return Customer()

        return await self.inner({**scope, "user": SimpleLazyObject(load)}, receive, send)


def greeting(app: Any) -> str:
    with TestClient(app).websocket_connect("/") as socket:
        return socket.receive_text()


@pytest.mark.parametrize("attach", ["eager", "lazy"])
def test_A26_the_user_of_channels(attach: Any, client: ProfileClient, caplog: pytest.LogCaptureFixture) -> None:
    def ours(app: Any) -> Any:
        return ProfileMiddleware(app, client=client, identify=from_user("pk"), attach=attach, budget=5.0)

    assert greeting(Signed(ours(Consumer.as_asgi()))) == "Ann-Planted"
    assert own_records(caplog) == []
    outside = ours(Signed(Consumer.as_asgi()))
    assert [greeting(outside), greeting(outside)] == ["anonymous"] * 2
    logged = own_records(caplog)
    assert [record.levelno for record in logged] == [logging.WARNING]
    assert "outside" in logged[0].getMessage()


def test_A26_a_user_that_is_not_resolved_says_what_to_do(
    client: ProfileClient, caplog: pytest.LogCaptureFixture
) -> None:
    def shop(identify: Any) -> Any:
        return Lazy(ProfileMiddleware(Consumer.as_asgi(), client=client, identify=identify, budget=5.0))

    app = shop(from_user("pk"))
    assert [greeting(app), greeting(app)] == ["unavailable"] * 2
    logged = own_records(caplog)
    assert len(logged) == 1
    assert "SynchronousOnlyOperation" in logged[0].getMessage()
    assert "in_thread(" in logged[0].getMessage()
    assert greeting(shop(in_thread(from_user("pk")))) == "Ann-Planted"
