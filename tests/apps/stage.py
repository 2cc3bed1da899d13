"""Parts of the small application that all frameworks share, and a driver that behaves as servers do.

The pages: `/read` reads the profile from the request, `/get` awaits it, `/sync` reads it in a synchronous handler,
`/plain` does not read it, `/boom` raises, `/events` streams, `/ws` talks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from profile_enrich import Profile

AsgiApp = Callable[..., Any]
"""An ASGI application; each framework has a type of its own for it."""

Settings = dict[str, Any]
"""The arguments of `ProfileMiddleware`."""

Messages = list[MutableMapping[str, Any]]

PLAIN = "the same for all"


def seen(profile: Profile) -> dict[str, Any]:
    """The text of the pages for a profile."""
    return {"id": profile.get("id", "nobody"), "reason": profile.reason}


@dataclass
class Stage:
    """State that a test and its application share."""

    journal: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    error: RuntimeError = field(default_factory=lambda: RuntimeError("boom"))

    async def events(self, profile: Profile) -> AsyncGenerator[str]:
        """A stream whose second part is held back until the test has seen the first one."""
        yield f"data: {profile.get('id', 'nobody')} first\n\n"
        await self.gate.wait()
        yield "data: last\n\n"


@dataclass
class Outcome:
    """The messages that an application sent for one scope, and how it ended."""

    sent: Messages
    error: BaseException | None

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def http_scope(path: str, user: str | None = None, cookies: dict[str, str] | None = None) -> dict[str, Any]:
    """The scope of a GET request."""
    jar = {**({} if user is None else {"user": user}), **(cookies or {})}
    headers = [(b"host", b"shop.example")]
    if jar:
        headers.append((b"cookie", "; ".join(f"{name}={value}" for name, value in jar.items()).encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("shop.example", 80),
    }


async def run_http(app: AsgiApp, scope: dict[str, Any], stage: Stage | None = None, limit: float = 10.0) -> Outcome:
    """Runs one request. As with servers, the client is there until the whole response has been sent.

    Args:
        app: the application.
        scope: of the request.
        stage: its gate is opened when the first part of a body has arrived.
        limit: seconds after which a request that hangs fails the test.
    """
    outcome = Outcome([], None)
    asked = False
    complete = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await complete.wait()
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        outcome.sent.append(message)
        if stage is not None and message.get("body"):
            stage.gate.set()
        if message["type"] == "http.response.body" and not message.get("more_body"):
            complete.set()

    try:
        async with asyncio.timeout(limit):
            await app(scope, receive, send)
    except Exception as error:
        outcome.error = error
    return outcome


@contextlib.asynccontextmanager
async def lifespan_of(app: AsgiApp) -> AsyncGenerator[None]:
    """Starts an application up and shuts it down, as a server does; its failure fails the test."""
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    outgoing: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
    running = asyncio.ensure_future(
        app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, incoming.get, outgoing.put)
    )
    try:
        async with asyncio.timeout(10):
            await incoming.put({"type": "lifespan.startup"})
            assert (await outgoing.get())["type"] == "lifespan.startup.complete"
        yield
        async with asyncio.timeout(10):
            await incoming.put({"type": "lifespan.shutdown"})
            assert (await outgoing.get())["type"] == "lifespan.shutdown.complete"
            await running
    finally:
        running.cancel()


async def run_websocket(app: AsgiApp, user: str | None = None) -> str:
    """Opens a WebSocket at `/ws`, and returns the first text that the application sends on it."""
    scope = {**http_scope("/ws", user), "type": "websocket", "scheme": "ws", "subprotocols": []}
    del scope["method"]
    sent: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
    closing = asyncio.Event()
    connected = False

    async def receive() -> dict[str, Any]:
        nonlocal connected
        if connected:
            await closing.wait()
            return {"type": "websocket.disconnect", "code": 1000}
        connected = True
        return {"type": "websocket.connect"}

    async with asyncio.timeout(10):
        running = asyncio.ensure_future(app(scope, receive, sent.put))
        try:
            assert (await sent.get())["type"] == "websocket.accept"
            text: str = (await sent.get())["text"]
            closing.set()
            await running
        finally:
            running.cancel()
    return text
