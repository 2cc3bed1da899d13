"""Calls of the user's identity and consent functions, with time limits and error handling."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import HTTPConnection

from .._utils.log_once import LogOnce
from .._utils.validation import check_int
from ..errors import ConfigurationError

__all__ = ["BLOCKING", "HANG", "await_within", "call", "in_thread", "is_own_cancellation"]

T = TypeVar("T")

BLOCKING = 0.05
"""Seconds of blocking the event loop after which a synchronous function is logged."""

HANG = 2.0
"""The time limit of an async function without a budget, in seconds."""

logger = logging.getLogger("profile_enrich")

_abandoned: set[asyncio.Future[Any]] = set()


def call(role: str, function: Callable[[HTTPConnection], Any], connection: HTTPConnection, once: LogOnce) -> Any:
    """Call a user's function with a connection, and log once if it blocks its thread for long.

    Args:
        role: the role of the function, such as `"identity"`.
        function: the user's function.
        connection: its argument.
        once: the messages logged so far.

    Returns:
        What it returned; an awaitable is not awaited.
    """
    started = time.perf_counter()
    answer = function(connection)
    took = time.perf_counter() - started
    if took > BLOCKING and once.first("blocking", role):
        logger.warning(
            "the %s function took %.0f ms without awaiting anything; the page waits for it whatever its budget, and on "
            "an event loop all requests do. Make it async, or wrap it: in_thread(function)",
            role,
            1000 * took,
        )
    return answer


async def await_within(answer: Awaitable[T], seconds: float) -> T:
    """Await the result of a user's function, with a time limit.

    It runs in a separate task, so that the limit applies even if it swallows its cancellation, and a `CancelledError`
    that it raises cancels nothing else.

    Raises:
        TimeoutError: it took longer and was cancelled.
        asyncio.CancelledError: the caller was cancelled, or the function raised it (`is_own_cancellation` tells).
    """
    task = asyncio.ensure_future(answer)
    try:
        done, _ = await asyncio.wait((task,), timeout=seconds)
    except asyncio.CancelledError:
        _abandon(task)
        raise
    if not done:
        _abandon(task)
        raise TimeoutError
    return task.result()


def _abandon(task: asyncio.Future[Any]) -> None:
    task.cancel()
    _abandoned.add(task)  # keep a reference, because an unreferenced task may be collected while it runs
    task.add_done_callback(_finish)


def _finish(task: asyncio.Future[Any]) -> None:
    _abandoned.discard(task)
    if not task.cancelled():
        task.exception()  # no caller is left to handle the error


def is_own_cancellation() -> bool:
    """Return whether the current `CancelledError` cancels the running task, and was not just raised in it."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and task.cancelling() > 0


class _InThread:
    """See `in_thread`."""

    __slots__ = ("_function", "_limiter", "_threads", "requires", "vary")

    def __init__(self, function: Callable[[HTTPConnection], Any], threads: int) -> None:
        self._function = function
        self._threads = threads
        self._limiter: anyio.CapacityLimiter | None = None
        self.vary = tuple(getattr(function, "vary", ("Cookie",)))
        self.requires = tuple(getattr(function, "requires", ()))

    async def __call__(self, connection: HTTPConnection) -> Any:
        if self._limiter is None:  # created on a loop, after a fork
            self._limiter = anyio.CapacityLimiter(self._threads)
        return await anyio.to_thread.run_sync(self._function, connection, abandon_on_cancel=True, limiter=self._limiter)

    def __repr__(self) -> str:
        return f"in_thread({self._function!r})"


def in_thread(function: Callable[[HTTPConnection], T], *, threads: int = 8) -> Callable[[HTTPConnection], Awaitable[T]]:
    """Run a blocking identity or consent function in a thread, without blocking other requests.

    A page waits for it within its budget; a slower call finishes in the background.

    Args:
        function: a synchronous function that takes the connection.
        threads: the largest number of concurrent calls of this function. Default 8.

    Returns:
        An async function, for `ProfileMiddleware(identify=...)` or `consent=...`.

    Raises:
        ConfigurationError: the function is async, or `threads` is below 1.
    """
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise ConfigurationError("in_thread takes a synchronous function; an async one does not block")
    return _InThread(function, check_int("threads", threads))
