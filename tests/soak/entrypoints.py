"""The two entrypoints of the shop: the ASGI application called in process, and sockets to uvicorn."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import uvicorn
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message

from .checker import Checker, frames_of
from .settings import Settings

__all__ = ["AsgiEntrypoint", "Entrypoint", "Reply", "Server", "SocketEntrypoint"]

STEP = 0.1
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete response."""

    status: int
    headers: Headers
    text: str


class Entrypoint(Protocol):
    """Send one request. The reply is `None` if the visitor left before it arrived."""

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", *, leave_after: float | None = None
    ) -> Reply | None: ...

    @property
    def takes_websockets(self) -> bool: ...

    def close(self) -> None: ...


class AsgiEntrypoint:
    """Calls the application. A leaving visitor disconnects, or cancels the request's task."""

    takes_websockets = True

    def __init__(self, app: ASGIApp, settings: Settings, checker: Checker, rng: random.Random) -> None:
        self._app = app
        self._timeout = settings.slowest_page
        self._checker = checker
        self._rng = rng

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", *, leave_after: float | None = None
    ) -> Reply | None:
        websocket = path == "/ws"
        scope: dict[str, Any] = {
            "type": "websocket" if websocket else "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "ws" if websocket else "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "server": ("shop.test", 80),
            "client": ("127.0.0.1", 1),
            **({"subprotocols": []} if websocket else {"method": method}),
        }
        gone = asyncio.Event()
        first: list[Message] = [
            {"type": "websocket.connect"} if websocket else {"type": "http.request", "body": body, "more_body": False}
        ]
        sent: list[Message] = []

        async def receive() -> Message:
            if first:
                return first.pop()
            await gone.wait()
            return {"type": "websocket.disconnect", "code": 1001} if websocket else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)
            if len(sent) % 2:
                await asyncio.sleep(0)  # servers may suspend here

        task = asyncio.ensure_future(self._app(scope, receive, send))
        try:
            if leave_after is None:
                await _await_patiently(task, self._timeout)
            else:
                await asyncio.wait((task,), timeout=leave_after)
            if not task.done() and leave_after is not None:
                gone.set()
                if self._rng.random() < 0.7:
                    await self._cancel(task, path)
                    return None
                await _await_patiently(task, self._timeout)
        finally:
            if not task.done():
                self._checker.check(False, "A11: a page hangs", f"{path}, {self._timeout:g} s")
                task.cancel()
        if not task.done():
            return None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._checker.check(False, "A10: a page raised", f"{path}: {type(error).__name__}, {frames_of(error)}")
        return None if error is not None else _reply(sent, websocket)

    async def _cancel(self, task: asyncio.Future[None], path: str) -> None:
        self._checker.count("left: cancelled")
        taken = task.cancel()
        await _await_patiently(task, self._timeout)
        swallowed = taken and task.done() and not task.cancelled()
        self._checker.check(not swallowed, "L2: a request's cancellation was swallowed", path)

    def close(self) -> None:
        return None


async def _await_patiently(task: asyncio.Future[Any], seconds: float) -> None:
    """Waits in many short steps: a process that gets no processor for seconds loses one of them, and hangs no page."""
    for _ in range(round(seconds / STEP)):
        await asyncio.wait((task,), timeout=STEP)
        if task.done():
            return


def _reply(sent: list[Message], websocket: bool) -> Reply:
    if websocket:
        text = "".join(message["text"] for message in sent if message["type"] == "websocket.send")
        return Reply(200 if text else 500, Headers(), text)
    start = sent[0]
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return Reply(start["status"], Headers(raw=start["headers"]), body.decode())


class SocketEntrypoint:
    """Uses one HTTP/1.1 keep-alive connection to uvicorn. A leaving visitor closes it."""

    takes_websockets = False

    def __init__(self, port: int, settings: Settings, checker: Checker) -> None:
        self._port = port
        self._timeout = settings.slowest_page
        self._checker = checker
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", *, leave_after: float | None = None
    ) -> Reply | None:
        reply = None
        exchange = asyncio.ensure_future(self._exchange(method, path, headers, body))
        try:
            if leave_after is None:
                await _await_patiently(exchange, self._timeout)
            else:
                await asyncio.wait((exchange,), timeout=leave_after)
            if exchange.done():
                reply = exchange.result()
            else:
                hangs = leave_after is None
                self._checker.check(not hangs, "A11: a page hangs", f"{path} over a socket, {self._timeout:g} s")
                self._checker.count("left: broke the connection off")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            self._checker.check(False, "A10: uvicorn broke a connection off", f"{path}: {type(error).__name__}")
        finally:
            if not exchange.done():
                exchange.cancel()
                await asyncio.gather(exchange, return_exceptions=True)
            if reply is None:
                self.close()
        return reply

    async def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        lines = [f"{method} {path} HTTP/1.1", "host: shop.test", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in head[1:-2]]
        found = Headers(raw=[(name.lower().encode(), value.strip().encode()) for name, _, value in pairs])
        content = await reader.readexactly(int(found["content-length"]))
        return Reply(int(head[0].split(" ")[1]), found, content.decode())

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


class Server:
    """uvicorn on its own event loop in its own thread."""

    def __init__(self, app: ASGIApp) -> None:
        config = uvicorn.Config(
            app, port=0, lifespan="off", log_config=None, access_log=False, http="h11", ws="none", loop="asyncio"
        )
        config.timeout_graceful_shutdown = 2
        config.timeout_keep_alive = 60  # a pause between a visitor's requests must not close the connection
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="soak uvicorn", daemon=True)

    def start(self) -> int:
        """Return the port."""
        self._thread.start()
        retry_timeout = time.monotonic() + 20
        while not self._server.started:
            if time.monotonic() > retry_timeout or not self._thread.is_alive():
                raise RuntimeError("uvicorn did not start")
            time.sleep(0.01)
        port: int = self._server.servers[0].sockets[0].getsockname()[1]
        return port

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
