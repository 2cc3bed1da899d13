"""Identity and consent functions that hang, block, raise or are cancelled, and cancelled waits."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from profile_enrich import ConfigurationError, ProfileMiddleware, get_profile, in_thread, require_profile
from profile_enrich.web import request_lookup
from profile_enrich.web.config import Attach
from tests.helpers import ScriptedSource, client_of, own_records, own_tasks
from tests.web.helpers import WHO, ask, read, view

ATTACH: list[Attach] = ["eager", "prefetch", "lazy"]


def shop(**settings: Any) -> Any:
    source = settings.pop("source", None) or ScriptedSource()
    page = settings.pop("page", read)
    app = Starlette(routes=[Route("/", page)])
    return ProfileMiddleware(app, **{"client": client_of(source), "identify": WHO, **settings})


async def hangs(connection: HTTPConnection) -> Any:
    await asyncio.sleep(3600)


async def hangs_for_good(connection: HTTPConnection) -> Any:
    until = time.monotonic() + 1
    while time.monotonic() < until:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.6)
            return True
    return True


async def cancels(connection: HTTPConnection) -> Any:
    raise asyncio.CancelledError


def cancels_at_once(connection: HTTPConnection) -> Any:
    raise asyncio.CancelledError


async def awaits_what_was_cancelled(connection: HTTPConnection) -> Any:
    task = asyncio.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0)
    task.cancel()
    await task


BROKEN = [hangs, hangs_for_good, cancels, cancels_at_once, awaits_what_was_cancelled]


@pytest.mark.parametrize("attach", ATTACH)
@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("role", ["consent", "identify"])
@pytest.mark.parametrize("budget", [0.05, None])
def test_A31_a_function_that_hangs_or_cancels_counts_as_no_within_its_bound(
    attach: Attach, broken: Any, role: str, budget: float | None,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(request_lookup, "HANG", 0.05)
    source = ScriptedSource()
    app = shop(source=source, attach=attach, budget=budget, **{role: broken})
    for _ in range(2):
        started = time.monotonic()
        answer = ask(app)
        assert answer.status_code == 200
        assert answer.json()["id"] is None
        assert answer.json()["reason"] == ("no_consent" if role == "consent" else "unavailable")
        assert time.monotonic() - started < 10
    assert source.calls == []
    assert len([record for record in own_records(caplog) if "function raised" in record.getMessage()]) == 1


@pytest.mark.long
@pytest.mark.parametrize("attach", ATTACH)
async def test_A31_the_requests_own_cancellation_passes_and_leaves_no_task(attach: Attach) -> None:
    entered = asyncio.Event()

    async def consent(connection: HTTPConnection) -> bool:
        entered.set()
        await asyncio.sleep(3600)
        return True

    app = shop(attach=attach, budget=None, consent=consent)

    async def receive() -> Any:
        await asyncio.sleep(3600)

    async def send(message: Any) -> None: ...

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"x-user", b"u1")]}
    request = asyncio.create_task(app(scope, receive, send))
    await entered.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert own_tasks() == set()


class TestBlocking:
    @pytest.mark.parametrize("role", ["consent", "identify"])
    def test_A31_a_function_that_blocks_the_loop_is_logged_once(
        self, role: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        def slow(connection: HTTPConnection) -> Any:
            time.sleep(0.06)
            return True if role == "consent" else "u1"

        app = shop(**{role: slow})
        for _ in range(3):
            assert ask(app).json()["id"] == "u1"
        logged = [record.getMessage() for record in own_records(caplog)]
        assert len(logged) == 1
        assert f"the {'consent' if role == 'consent' else 'identity'} function took" in logged[0]
        assert "in_thread(" in logged[0]

    @pytest.mark.parametrize("attach", ATTACH)
    async def test_A31_in_a_thread_it_does_not_hold_up_the_loop(self, attach: Attach) -> None:
        release, threads = threading.Event(), set[int]()

        def slow(connection: HTTPConnection) -> str:
            threads.add(threading.get_ident())
            release.wait(30)
            return connection.headers["x-user"]

        page = asyncio.create_task(asyncio.to_thread(ask, shop(identify=in_thread(slow), attach=attach, budget=30)))
        await asyncio.sleep(0.05)
        release.set()
        answer = await page
        assert answer.json()["id"] == "u1"
        assert threading.main_thread().ident not in threads

    def test_A31_a_thread_that_hangs_costs_the_budget(self) -> None:
        release = threading.Event()
        app = shop(identify=in_thread(lambda connection: release.wait(60), threads=1), budget=0.05)
        try:
            assert [ask(app).json()["reason"] for _ in range(3)] == ["unavailable"] * 3
        finally:
            release.set()

    def test_it_says_what_the_function_says_about_headers(self) -> None:
        app = shop(identify=in_thread(WHO), budget=5)
        answer = ask(app)
        assert answer.json()["id"] == "u1"
        assert answer.headers["vary"] == "x-user"
        assert "x-user" in repr(in_thread(WHO))

    @pytest.mark.parametrize(("function", "threads"), [(hangs, 8), ("user", 8), (len, 0), (len, True)])
    def test_A25_it_refuses_what_it_cannot_use(self, function: Any, threads: Any) -> None:
        with pytest.raises(ConfigurationError):
            in_thread(function, threads=threads)


@pytest.mark.parametrize("attach", ["prefetch", "lazy"])
@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_A28_a_cancelled_wait_spoils_nothing(attach: Attach, how: str) -> None:
    source = ScriptedSource(delay=0.5)

    async def page(request: Request) -> Response:
        waiters = [asyncio.create_task(get_profile(request)) for _ in range(3)]
        if how == "timeout":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(get_profile(request), 0.02)
        else:
            await asyncio.sleep(0.02)
            waiters[0].cancel()
        found = [view(await waiter) for waiter in waiters[1:]]
        return JSONResponse([*found, view(await get_profile(request)), view(await require_profile(request))])

    answer = ask(shop(source=source, attach=attach, budget=5, page=page))
    assert answer.json() == [{"id": "u1", "reason": None}] * 4
    assert len(source.calls) == 1


@pytest.mark.parametrize("attach", ["prefetch", "lazy"])
def test_A28_the_budget_is_one_however_often_the_wait_is_cancelled(attach: Attach) -> None:
    async def page(request: Request) -> Response:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(get_profile(request), 0.01)
        return JSONResponse(view(await get_profile(request)))

    started = time.monotonic()
    answer = ask(shop(source=ScriptedSource(delay=60), attach=attach, budget=1.0, page=page))
    assert answer.json()["reason"] == "unavailable"
    assert answer.headers["cache-control"] == "private"
    assert time.monotonic() - started < 20
