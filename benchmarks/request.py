"""One request through an ASGI stack, in µs of CPU: what each middleware adds when the profile is in the cache.

The application is called as a server calls it, with a fresh scope each time, and no sockets.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import itsdangerous
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from profile_enrich import MemorySource, ProfileClient, ProfileMiddleware, from_session, get_profile

from ._by_hand import HandWritten
from ._measure import Spread, Stopwatch, interleave
from ._profiles import attributes
from ._table import Table, Verdict, main

BARE = "bare Starlette"
NO_OP = "+ no-op pure ASGI middleware"
NO_OP_SEND = "+ no-op that wraps send"
NO_OP_STATE = "+ no-op that wraps send and sets state; page reads it"
SESSION = "+ SessionMiddleware"
BASE_HTTP = "+ BaseHTTPMiddleware, no-op"
EXCLUDED = "+ ours, excluded path"
UNREAD = "+ ours, hit, not read"
READ = "+ ours, hit, read"
PREFETCH = "+ ours, prefetch, hit, read"
LAZY = "+ ours, lazy, hit, read"
LAZY_UNREAD = "+ ours, lazy, not read"
BY_HAND = "+ hand-written, hit, read"
SESSION_OURS = "+ SessionMiddleware + ours, hit, read"
SESSION_BY_HAND = "+ SessionMiddleware + hand-written, hit, read"

SECRET = "benchmark"


class NoOp:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class NoOpSend(NoOp):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def wrapped(message: Message) -> None:
            await send(message)

        await self.app(scope, receive, wrapped)


class NoOpState(NoOp):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def wrapped(message: Message) -> None:
            await send(message)

        scope["state"] = {**scope["state"], "profile": {"first_name": "Ada"}}
        await self.app(scope, receive, wrapped)


class NoOpBase(HandWritten):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return await call_next(request)


async def plain(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello Ada")


async def reading(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"hello {request.state.profile.get('first_name', 'there')}")


async def awaiting(request: Request) -> PlainTextResponse:
    profile = await get_profile(request)
    return PlainTextResponse(f"hello {profile.get('first_name', 'there')}")


def _stack(page: Any, *middleware: Middleware) -> Starlette:
    return Starlette(routes=[Route("/", page)], middleware=list(middleware))


def _stacks(client: ProfileClient) -> dict[str, Starlette]:
    def ours(identify: Any = lambda connection: "u1", **options: Any) -> Middleware:
        return Middleware(ProfileMiddleware, client=client, identify=identify, **options)

    session = Middleware(SessionMiddleware, secret_key=SECRET)
    by_hand = Middleware(_Filled, url="http://127.0.0.1:9/")
    return {
        BARE: _stack(plain),
        NO_OP: _stack(plain, Middleware(NoOp)),
        NO_OP_SEND: _stack(plain, Middleware(NoOpSend)),
        NO_OP_STATE: _stack(reading, Middleware(NoOpState)),
        SESSION: _stack(plain, session),
        BASE_HTTP: _stack(plain, Middleware(NoOpBase, url="")),
        EXCLUDED: _stack(plain, ours(exclude=["/"])),
        UNREAD: _stack(plain, ours()),
        READ: _stack(reading, ours()),
        PREFETCH: _stack(awaiting, ours(attach="prefetch")),
        LAZY: _stack(awaiting, ours(attach="lazy")),
        LAZY_UNREAD: _stack(plain, ours(attach="lazy")),
        BY_HAND: _stack(reading, by_hand),
        SESSION_OURS: _stack(reading, session, ours(from_session("user_id"))),
        SESSION_BY_HAND: _stack(reading, session, by_hand),
    }


class _Filled(HandWritten):
    """The hand-written one with its cache filled: every request is a hit."""

    def __init__(self, app: ASGIApp, url: str) -> None:
        super().__init__(app, url, ttl=3600)
        self.cache["u1"] = attributes("u1")


def _headers() -> list[tuple[bytes, bytes]]:
    session = base64.b64encode(json.dumps({"user_id": "u1"}).encode())
    cookie = itsdangerous.TimestampSigner(SECRET).sign(session)
    return [(b"host", b"shop.test"), (b"accept", b"text/html"), (b"x-user", b"u1"), (b"cookie", b"session=" + cookie)]


def _scope(headers: Iterable[tuple[bytes, bytes]]) -> Scope:
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 50_000), "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Message) -> None:
    pass


async def _check(app: ASGIApp, headers: list[tuple[bytes, bytes]]) -> None:
    """What is measured must be the page."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(_scope(headers), _receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    if sent[0]["status"] != 200 or body != b"hello Ada":
        raise RuntimeError(f"the page is not as expected: {sent[0]['status']} {body!r}")


async def measure(quick: bool) -> Table:
    requests, rounds = (20, 1) if quick else (3_000, 9)
    client = ProfileClient(MemorySource({"u1": attributes("u1")}), ttl=3600)
    await client.get("u1")
    headers = _headers()

    def contender(app: ASGIApp) -> Callable[[], Awaitable[float]]:
        async def once() -> float:
            await _check(app, headers)
            with Stopwatch(collect=True) as watch:
                for _ in range(requests):
                    await app(_scope(headers), _receive, _send)
            return watch.cpu / requests * 1e6

        return once

    found = await interleave({name: contender(app) for name, app in _stacks(client).items()}, rounds)
    await client.aclose()
    return _table(found)


def _table(found: dict[str, Spread]) -> Table:
    table = Table(
        "One request through the stack",
        ("stack", "CPU µs", "min … max", "over bare µs", "over no-op that wraps send µs"),
    )
    for name, figures in found.items():
        table.add(
            name, figures, figures.range, f"{figures.above(found[BARE]):.1f}", f"{figures.above(found[NO_OP_SEND]):.1f}"
        )
    for name, base in ((UNREAD, NO_OP_SEND), (READ, NO_OP_STATE)):
        more = found[name].above(found[base])
        target = f"{name[2:]}: at most 3 µs more than the no-op that wraps send"
        if base is NO_OP_STATE:
            target += " and sets state"
        table.verdicts.append(Verdict(target, f"{more:.1f} µs", more <= 3))
    ours, other = found[READ].above(found[BARE]), found[BY_HAND].above(found[BARE])
    table.verdicts.append(
        Verdict(
            "hit, read: at most a twentieth of what the hand-written one adds",
            f"{ours:.1f} of {other:.1f} µs, 1/{other / max(ours, 1e-9):.1f}",
            ours <= other / 20,
        )
    )
    table.notes.append(
        "Without SessionMiddleware, our identity function returns the key, and the hand-written middleware reads a "
        "request header. Only ours adds `Vary` and `Cache-Control: private` to pages that read the profile. The "
        "garbage collector is on. Every row includes the cost of the driver (a new scope, under 1 µs)."
    )
    return table


def run(quick: bool) -> list[Table]:
    """One request, in process, with the profile in the cache."""
    return [asyncio.run(measure(quick))]


if __name__ == "__main__":
    main(run)
