"""A connection to Valkey or Redis that all lookups of an event loop use at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from typing import Any

from .replies import IncompleteReply, Refused, read_reply

__all__ = ["PipelinedClient"]

_NOT_SERVING = ("READONLY", "LOADING", "MASTERDOWN")
"""Refusals of every such command by this server: after a failover, another one may have its address."""


class PipelinedClient:
    """Send commands over one connection, and open a new one after a failure.

    The client of `redis` takes a connection out of a pool for each command, makes a task for each timeout, and awaits
    each line of an answer. Here, `redis` opens the connection (TLS, password, database); then commands are written one
    after another, answers are read in the same order as they arrive, and a timer bounds each.

    Args:
        redis: a client of `redis`, whose settings are used.
        timeout: the timeout of a command, in seconds; connecting may take four times as long.
    """

    def __init__(self, redis: Any, timeout: float) -> None:
        self._redis = redis
        self._timeout = timeout
        self._connection: _PipelinedConnection | None = None

    async def run(self, *words: str | bytes | int) -> Any:
        """Return the answer to a command.

        Raises:
            Exception: the server is not there, slow, or refuses the command.
        """
        if self._connection is None or self._connection.closed:
            self._connection = _PipelinedConnection(self._redis.connection_pool.make_connection(), self._timeout)
        return await self._connection.run(*words)

    async def aclose(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.aclose()


class _PipelinedConnection(asyncio.Protocol):
    """A connection from its opening to its first failure, after which it is `closed`."""

    def __init__(self, connection: Any, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._pending: deque[asyncio.Future[Any]] = deque()
        self._unread = b""
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._streams: asyncio.BaseProtocol | None = None
        self.closed = False
        # A fresh context: the task serves all users.
        self._keeper = self._loop.create_task(self._keep(), context=contextvars.Context())

    async def run(self, *words: str | bytes | int) -> Any:
        if not self._opened.done():
            await asyncio.wait((self._opened,))
        if self.closed or self._transport is None:
            raise ConnectionError("the connection to the shared cache failed")
        answer = self._loop.create_future()
        self._pending.append(answer)
        self._transport.writelines(self._connection.pack_command(*words))
        timer = self._loop.call_later(self._timeout, self._loop.call_soon, self._expire, answer)
        try:
            content = await answer
        finally:
            timer.cancel()
        if isinstance(content, Exception):
            raise content
        return content

    def data_received(self, data: bytes) -> None:
        """Give each complete answer to its command."""
        data = self._unread + data if self._unread else data
        position = 0
        try:
            while position < len(data):
                content, position = read_reply(data, position)
                answer = self._pending.popleft()
                if not answer.done():
                    answer.set_result(content)
                if isinstance(content, Refused) and str(content).startswith(_NOT_SERVING):
                    self._end()
        except IncompleteReply:
            pass
        except Exception:  # noqa: BLE001  # not an answer, or one to no command: no later one can be trusted
            self._end()
        self._unread = data[position:]

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and let the streams of `redis` see it, too: closing them waits for it."""
        if self._streams is not None:
            self._streams.connection_lost(exc)
        self._end()

    def _expire(self, answer: asyncio.Future[Any]) -> None:
        # One turn of the loop after its timer: if the loop stood still, the answer that came meanwhile is read first.
        if not answer.done():
            answer.set_result(TimeoutError("the shared cache is slow"))
            self._end()

    def _end(self) -> None:
        if not self.closed:
            self.closed = True
            self._keeper.cancel()

    async def _keep(self) -> None:
        try:
            with contextlib.suppress(Exception):  # `redis` also fails with errors of its internals
                async with asyncio.timeout(4 * self._timeout):
                    await self._connection.connect()
                self._transport = transport = self._connection._writer.transport
                self._streams = transport.get_protocol()
                transport.set_protocol(self)
                self._opened.set_result(None)
                await self._loop.create_future()  # until it is cancelled
        finally:
            self.closed = True
            for waiting in (self._opened, *self._pending):
                if not waiting.done():
                    waiting.set_result(ConnectionError("the connection to the shared cache failed"))
            if self._transport is not None:
                self._transport.abort()
            with contextlib.suppress(Exception):
                await self._connection.disconnect()

    async def aclose(self) -> None:
        self._end()
        await asyncio.wait((self._keeper,))
