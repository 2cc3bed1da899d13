"""A connection to Valkey or Redis that all lookups of an event loop use at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
from collections import deque
from typing import Any

from ..._utils.optional_import import engine

__all__ = ["PipelinedClient"]


class PipelinedClient:
    """Send commands over one connection, and open a new one after a failure.

    The client of `redis` takes a connection out of a pool for each command, and makes a task for each timeout. Here,
    commands are written one after another, one task reads the answers in the same order, and a timer bounds each.

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


class _PipelinedConnection:
    """A connection from its opening to its first failure, after which it is `closed`."""

    def __init__(self, connection: Any, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._refusal = engine("redis.exceptions", "the shared cache", "redis").ResponseError
        self._pending: deque[asyncio.Future[Any]] = deque()
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.create_future()
        self.closed = False
        # A fresh context: the task serves all users.
        self._reader = self._loop.create_task(self._read(), context=contextvars.Context())

    async def run(self, *words: str | bytes | int) -> Any:
        if not self._opened.done():
            await asyncio.wait((self._opened,))
        # Without a check, sending would connect anew, and the first answers there would be given to older commands.
        if self.closed or not self._connection.is_connected:
            raise ConnectionError("the connection to the shared cache failed")
        packed = self._connection.pack_command(*words)
        answer = self._loop.create_future()
        self._pending.append(answer)
        timer = self._loop.call_later(self._timeout, self._loop.call_soon, self._expire, answer)
        try:
            await self._connection.send_packed_command(packed, check_health=False)
            content = await answer
        finally:
            timer.cancel()
        if isinstance(content, Exception):
            raise content
        return content

    def _expire(self, answer: asyncio.Future[Any]) -> None:
        # One turn of the loop after its timer: if the loop stood still, the answer that came meanwhile is read first.
        if not answer.done():
            answer.set_result(TimeoutError("the shared cache is slow"))
            self.closed = True
            self._reader.cancel()

    async def _read(self) -> None:
        try:
            with contextlib.suppress(Exception):  # `redis` also fails with errors of its internals
                async with asyncio.timeout(4 * self._timeout):
                    await self._connection.connect()
                self._opened.set_result(None)
                while True:
                    content = await self._answer()
                    answer = self._pending.popleft()
                    if not answer.done():
                        answer.set_result(content)
        finally:
            self.closed = True
            for waiting in (self._opened, *self._pending):
                if not waiting.done():
                    waiting.set_result(ConnectionError("the connection to the shared cache failed"))
            with contextlib.suppress(Exception):
                await self._connection.disconnect()

    async def _answer(self) -> Any:
        try:
            return await self._connection.read_response(timeout=math.inf)
        except self._refusal as error:
            return error

    async def aclose(self) -> None:
        self.closed = True
        self._reader.cancel()
        await asyncio.wait((self._reader,))
