"""HTTP/1.1 server connections on asyncio streams."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable
from urllib.parse import unquote_to_bytes

from .recorder import Call, Recorder

__all__ = ["serve_connection"]

_HEAD_LIMIT = 256 * 1024

Play = Callable[[Call, asyncio.StreamWriter, bool], Awaitable[bool]]


class _Bad(Exception):
    """The request is malformed."""


class _Protocol(asyncio.StreamReaderProtocol):
    """A stream protocol that cancels its connection's task when the peer disconnects."""

    task: asyncio.Task[None] | None = None

    def eof_received(self) -> bool:
        super().eof_received()
        return False  # a half-closed client has disconnected: close our side

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.task is not None:
            self.task.cancel()


async def serve_connection(
    stack: contextlib.AsyncExitStack, recorder: Recorder, play: Play, tls: ssl.SSLContext | None, port: int = 0
) -> int:
    """Listen on 127.0.0.1 until the stack unwinds, and answer every request.

    Args:
        stack: closes the listener, then aborts all connections and waits for their tasks.
        recorder: counts connections and calls.
        play: responds to one request; returns whether to keep the connection open.
        tls: serves HTTPS.
        port: the port; 0 for any free one.

    Returns:
        The port.
    """
    loop = asyncio.get_running_loop()
    alive: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def factory() -> _Protocol:
        reader = asyncio.StreamReader(limit=_HEAD_LIMIT, loop=loop)

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = loop.create_task(_converse(reader, writer, recorder, play))
            protocol.task = task
            alive[task] = writer
            task.add_done_callback(lambda done: alive.pop(done, None))

        protocol = _Protocol(reader, connected, loop=loop)
        return protocol

    async def end_all() -> None:
        # asyncio leaves sockets open that it accepted just before its server is closed: stop accepting first, and wait
        # until the accepted ones have a task.
        for listener in server.sockets:
            loop.remove_reader(listener.fileno())
        for _ in range(3):
            await asyncio.sleep(0)
        server.close()
        tasks = list(alive)
        for writer in list(alive.values()):
            writer.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close their sockets in a separate callback

    server = await loop.create_server(factory, "127.0.0.1", port, ssl=tls, backlog=1024)
    stack.push_async_callback(end_all)
    bound: int = server.sockets[0].getsockname()[1]
    return bound


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, recorder: Recorder, play: Play) -> None:
    number = recorder._opened()
    try:
        # The peer may disconnect at any byte.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while (call := await _read(reader, writer, number)) is not None:
                recorder._began(call)
                try:
                    alive = await play(call, writer, _keeps_alive(call))
                finally:
                    recorder._ended()
                if not alive:
                    break
    finally:
        recorder._closed()
        writer.close()


def _keeps_alive(call: Call) -> bool:
    return "close" not in call.headers.get("connection", "").lower()


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> Call | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, headers = _parse_head(head)
        body = await _read_body(reader, headers)
    except _Bad:
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        return None
    path = unquote_to_bytes(target.partition("?")[0].encode("latin-1")).decode("utf-8", "replace")
    return Call(method, target, path, headers, body, time.monotonic(), number)


def _parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[0].isalpha() or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise _Bad
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise _Bad
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if parts[2] == "HTTP/1.0":
        headers.setdefault("connection", "close")
    return parts[0], parts[1], headers


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        chunks: list[bytes] = []
        while size := _hex((await reader.readuntil(b"\r\n")).partition(b";")[0]):
            chunks.append(await reader.readexactly(size))
            await reader.readexactly(2)
        while (await reader.readuntil(b"\r\n")) != b"\r\n":
            pass  # trailers
        return b"".join(chunks)
    length = headers.get("content-length", "0")
    if not length.isdigit():
        raise _Bad
    return await reader.readexactly(int(length))


def _hex(text: bytes) -> int:
    digits = text.strip()
    if not digits or digits.strip(b"0123456789abcdefABCDEF"):
        raise _Bad
    return int(digits, 16)
