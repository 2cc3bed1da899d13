"""The middleware around applications of other frameworks: one contract for all."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import warnings
from typing import Any, ClassVar, cast

import pytest

from profile_enrich import ProfileClient, ProfileMiddleware, from_cookie, from_session
from profile_enrich.web.middleware import Attach
from tests.apps.stage import PLAIN, AsgiApp, Outcome, Stage, http_scope, lifespan_of, run_http, run_websocket
from tests.helpers import ScriptedSource, client_of

ATTACH: list[Attach] = ["eager", "prefetch", "lazy"]
WHO = from_cookie("user")


def needs(module: str, name: str, package: str) -> None:
    pytest.importorskip(module, reason=f"{name} is not installed: pip install {package}")


def settings_of(client: ProfileClient, **more: Any) -> dict[str, Any]:
    return {"client": client, "identify": WHO, "budget": 5.0, **more}


async def ask(app: AsgiApp, path: str, user: str | None = None, **cookies: str) -> Outcome:
    outcome = await run_http(app, http_scope(path, user, cookies))
    assert outcome.error is None
    return outcome


async def id_of(app: AsgiApp, path: str, user: str | None = None, **cookies: str) -> str:
    outcome = await ask(app, path, user, **cookies)
    assert outcome.status == 200
    name: str = json.loads(outcome.body)["id"]
    return name


class Contract:
    """Contract tests for every framework. `create` makes its application, without middleware if settings is `None`."""

    raises: ClassVar[bool] = False
    """Whether the framework lets an application's exception out to the server."""

    def create(self, stage: Stage, settings: dict[str, Any] | None) -> AsgiApp:
        raise NotImplementedError

    @pytest.mark.parametrize("attach", ATTACH)
    async def test_A20_the_profile_of_whoever_is_in_session(self, attach: Attach) -> None:
        """A20: anonymous and two users, many at once, each sees their own."""
        source = ScriptedSource(delay=0.001)
        client = client_of(source)
        app = self.create(Stage(), settings_of(client, attach=attach))
        users: list[str | None] = ["u1", None, "u2"]
        names = await asyncio.gather(*(id_of(app, "/get", users[turn % 3]) for turn in range(30)))
        assert names == ["u1", "nobody", "u2"] * 10
        assert len(source.calls) == 2
        assert [await id_of(app, "/read", user) for user in users] == ["u1", "nobody", "u2"], "now they are hits"
        anonymous = json.loads((await ask(app, "/get")).body)
        assert anonymous == {"id": "nobody", "reason": "anonymous"}
        await client.aclose()

    async def test_A20_a_synchronous_handler_has_it_too(self) -> None:
        """A20: the framework runs the handler in a thread or on the event loop."""
        client = client_of(ScriptedSource())
        app = self.create(Stage(), settings_of(client))
        assert [await id_of(app, "/sync", user) for user in ("u1", None, "u2")] == ["u1", "nobody", "u2"]
        await client.aclose()

    @pytest.mark.parametrize("attach", ATTACH)
    async def test_A20_A13_a_page_that_reads_it_is_private_one_that_does_not_is_untouched(self, attach: Attach) -> None:
        """A20, A13: read ⇒ `Vary` and `Cache-Control`; not read ⇒ the same messages as without the middleware."""
        client = client_of(ScriptedSource())
        app = self.create(Stage(), settings_of(client, attach=attach))
        for user in ("u1", None):
            read = await ask(app, "/get", user)
            assert read.headers["cache-control"] == "private"
            assert [name.strip().lower() for name in read.headers["vary"].split(",")] == ["cookie"]
        wrapped = await ask(app, "/plain", "u1")
        bare = await ask(self.create(Stage(), None), "/plain", "u1")
        assert wrapped.sent == bare.sent
        assert wrapped.body == PLAIN.encode()
        await client.aclose()

    async def test_A20_A2_a_stream_is_not_held_back(self) -> None:
        """A20, A2: the application continues only after the client received the first part."""
        client = client_of(ScriptedSource())
        stage = Stage()
        app = self.create(stage, settings_of(client))
        outcome = await run_http(app, http_scope("/events", "u1"), stage)
        assert outcome.error is None
        assert outcome.body == b"data: u1 first\n\ndata: last\n\n"
        assert outcome.headers["content-type"].startswith("text/event-stream")
        assert outcome.headers["cache-control"] == "private"
        await client.aclose()

    async def test_A20_A6_an_exception_ends_as_it_does_without_the_middleware(self) -> None:
        """A20, A6: the same exception object if the framework propagates it, and the same error page."""
        client = client_of(ScriptedSource())
        stage = Stage()
        wrapped = await run_http(self.create(stage, settings_of(client)), http_scope("/boom", "u1"))
        bare = await run_http(self.create(stage, None), http_scope("/boom", "u1"))
        assert wrapped.sent == bare.sent
        assert wrapped.error is bare.error
        assert wrapped.error is (stage.error if self.raises else None)
        assert wrapped.status == 500
        await client.aclose()


class WebSockets(Contract):
    """Contract tests for frameworks with WebSockets."""

    async def test_A20_A3_a_websocket_has_its_profile_before_accept(self) -> None:
        """A20, A3: also for anonymous visitors."""
        client = client_of(ScriptedSource())
        app = self.create(Stage(), settings_of(client))
        assert [await run_websocket(app, user) for user in ("u1", "u2", None)] == ["u1", "u2", "nobody"]
        await client.aclose()


class Lifespan(Contract):
    """Contract tests for frameworks whose lifespan reaches the middleware."""

    async def test_A20_A8_with_and_without_a_lifespan(self) -> None:
        """A20, A8: pages are served with and without it; the application's shutdown closes the client."""
        source = ScriptedSource()
        stage = Stage()
        app = self.create(stage, settings_of(client_of(source)))
        assert await id_of(app, "/get", "u1") == "u1"
        assert stage.journal == []
        for user in ("u2", "u3"):
            closed = source.closed
            async with lifespan_of(app):
                assert await id_of(app, "/get", user) == user
                assert source.closed == closed
            assert source.closed == closed + 1
        assert stage.journal == ["startup", "shutdown"] * 2


class TestStarlette(WebSockets, Lifespan):
    """A20: Starlette."""

    raises = True

    def create(self, stage: Stage, settings: dict[str, Any] | None) -> AsgiApp:
        from tests.apps import starlette_app

        return starlette_app.create(stage, settings)


class TestFastAPI(WebSockets, Lifespan):
    """A20: FastAPI."""

    raises = True

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        needs("fastapi", "FastAPI", "fastapi")

    def create(self, stage: Stage, settings: dict[str, Any] | None) -> AsgiApp:
        from tests.apps import fastapi_app

        return fastapi_app.create(stage, settings)


class TestLitestar(WebSockets, Lifespan):
    """A20: Litestar, wrapped."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        needs("litestar", "Litestar", "litestar")

    def create(self, stage: Stage, settings: dict[str, Any] | None) -> AsgiApp:
        from tests.apps import litestar_app

        return litestar_app.create(stage, settings)


class TestLitestarOwn(WebSockets):
    """A20: Litestar, installed among its own middlewares. They do not see its lifespan."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        needs("litestar", "Litestar", "litestar")

    def create(self, stage: Stage, settings: dict[str, Any] | None) -> AsgiApp:
        from tests.apps import litestar_app

        return litestar_app.create(stage, settings, own=True)

    async def test_A20_litestar_with_its_own_sessions(self) -> None:
        """A20: installed as a middleware of Litestar's, inside its session middleware, `from_session` works."""
        from litestar.middleware.session.server_side import ServerSideSessionConfig

        from tests.apps import litestar_app

        source = ScriptedSource()
        client = client_of(source)
        app = litestar_app.create(
            Stage(),
            settings_of(client, identify=from_session("user_id")),
            own=True,
            middleware=[ServerSideSessionConfig().middleware],
        )
        async with lifespan_of(app):
            assert await id_of(app, "/get") == "nobody"
            cookie = (await run_http(app, http_scope("/sign-in"))).headers["set-cookie"]
            name, _, value = cookie.partition(";")[0].partition("=")
            assert await id_of(app, "/get", **{name: value}) == "u1"
            assert await id_of(app, "/get") == "nobody"
        await client.aclose()


class TestQuart(WebSockets, Lifespan):
    """A20: Quart."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        needs("quart", "Quart", "quart")

    def create(self, stage: Stage, settings: dict[str, Any] | None) -> AsgiApp:
        from tests.apps import quart_app

        return quart_app.create(stage, settings)

    async def test_A20_A6_quart_that_lets_exceptions_out(self) -> None:
        """A20, A6: the same object, inside the exception group that Quart 0.23 raises."""
        from tests.apps import quart_app

        client = client_of(ScriptedSource())
        stage = Stage()
        plain = (await run_http(quart_app.create(stage, None, propagate=True), http_scope("/boom", "u1"))).error
        app = quart_app.create(stage, settings_of(client), propagate=True)
        error = (await run_http(app, http_scope("/boom", "u1"))).error
        assert type(error) is type(plain)
        assert (error.exceptions[0] if isinstance(error, ExceptionGroup) else error) is stage.error
        await client.aclose()

    async def test_A20_quart_with_its_own_session(self) -> None:
        """A20: an identity function for Quart's session cookie."""
        from tests.apps import quart_app

        client = client_of(ScriptedSource())
        app = quart_app.create(Stage(), None)
        wrapped = ProfileMiddleware(cast("Any", app), client=client, identify=quart_app.session_user(app))
        cookie = (await ask(wrapped, "/sign-in")).headers["set-cookie"]
        name, _, value = cookie.partition(";")[0].partition("=")
        assert await id_of(wrapped, "/get", **{name: value}) == "u1"
        assert await id_of(wrapped, "/get") == "nobody"
        forged = json.loads((await ask(wrapped, "/get", **{name: value[:-2]})).body)
        assert forged == {"id": "nobody", "reason": "unavailable"}
        await client.aclose()


class TestDjango(Contract):
    """A20: Django over ASGI. It speaks HTTP only."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        needs("django", "Django", "django")

    def create(self, stage: Stage, settings: dict[str, Any] | None) -> AsgiApp:
        from tests.apps import django_app

        return django_app.create(stage, settings)

    @pytest.mark.long
    async def test_A20_A6_django_that_lets_exceptions_out(self) -> None:
        """A20, A6: the same object."""
        from tests.apps import django_app

        client = client_of(ScriptedSource())
        stage = Stage()
        app = django_app.create(stage, settings_of(client), propagate=True)
        outcome = await run_http(app, http_scope("/boom", "u1"))
        assert outcome.error is stage.error
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):
            # Django does not close the request's body when it propagates an exception.
            stage.error.__traceback__ = None
            gc.collect()
        await client.aclose()

    @pytest.mark.parametrize("kind", ["lifespan", "websocket"])
    async def test_A20_A1_django_refuses_other_scopes_as_it_does_without(self, kind: str) -> None:
        """A20, A1, A8: servers interpret the refusal as "no lifespan", so it must reach them."""
        client = client_of(ScriptedSource())
        app = self.create(Stage(), settings_of(client))
        outcome = await run_http(app, {**http_scope("/ws", "u1"), "type": kind})
        assert isinstance(outcome.error, ValueError)
        assert outcome.sent == []
        assert await id_of(app, "/get", "u1") == "u1"
        await client.aclose()

    async def test_A20_django_with_its_own_session(self, caplog: pytest.LogCaptureFixture) -> None:
        """A20: an identity function for Django's session."""
        from tests.apps import django_app

        client = client_of(ScriptedSource())
        app = self.create(Stage(), settings_of(client, identify=django_app.session_user))
        cookie = (await ask(app, "/sign-in")).headers["set-cookie"]
        name, _, value = cookie.partition(";")[0].partition("=")
        assert await id_of(app, "/get", **{name: value}) == "u1"
        assert await id_of(app, "/get", **{name: value[:-2]}) == "nobody"
        assert await id_of(app, "/get") == "nobody"
        assert not [record for record in caplog.records if record.name == "profile_enrich"]
        await client.aclose()


@pytest.mark.parametrize("attach", ["prefetch", "lazy"])
async def test_A20_A10_a_synchronous_handler_without_eager_is_told_what_to_do(
    attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    """A20, A10: it cannot await, so the error names the remedy, and no user function as the cause."""
    from tests.apps import starlette_app

    client = client_of(ScriptedSource())
    app = starlette_app.create(Stage(), settings_of(client, attach=attach))
    for _ in range(2):
        assert (await ask(app, "/sync", "u1")).headers["cache-control"] == "private"
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    # A prefetched profile may be cached by then, and is read from the cache.
    assert len(messages) == 1 or (attach == "prefetch" and not messages)
    assert all("read before it was looked up" in message and "sync" in message for message in messages)
    await client.aclose()
