"""One call for all who wait for its result."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from .._utils.deadline import Deadline
from ..errors import SourceConnectionError, SourceTimeout

__all__ = ["SharedCall"]

T = TypeVar("T")


class SharedCall(Generic[T]):
    """Runs one call at a time on each loop; whoever asks meanwhile waits for the same one.

    The call is a task of its own, in an empty context: a waiter that is cancelled, or whose deadline passes, ends its
    own wait and nothing else. Nothing is remembered after it ended.

    Args:
        call: given a deadline of its own.
        seconds: that deadline.
    """

    def __init__(self, call: Callable[[Deadline], Coroutine[Any, Any, T]], *, seconds: float = 10.0) -> None:
        self._call = call
        self._seconds = seconds
        self._tasks: dict[asyncio.AbstractEventLoop, asyncio.Task[T]] = {}

    async def result(self, deadline: Deadline) -> T:
        """The result of the call that is under way, or of a new one.

        Raises:
            SourceTimeout: `deadline` passed first; the call goes on for the others.
        """
        loop = asyncio.get_running_loop()
        task = self._tasks.get(loop)
        if task is None:
            task = loop.create_task(self._call(Deadline(self._seconds)), context=contextvars.Context())
            self._tasks[loop] = task
            task.add_done_callback(self._ended)
        await asyncio.wait((task,), timeout=deadline.remaining())
        if not task.done():
            raise SourceTimeout(f"the source gave no whole answer within {deadline.seconds:g} s")
        if task.cancelled():  # by `aclose` or the end of the loop, not by whoever waits here
            raise SourceConnectionError("the source was closed while it was asked")
        return task.result()

    def _ended(self, task: asyncio.Task[T]) -> None:
        self._tasks.pop(task.get_loop(), None)
        if not task.cancelled():
            task.exception()  # seen, even if nobody waits any more

    async def aclose(self) -> None:
        """Ends the call that is under way on the running loop."""
        task = self._tasks.get(asyncio.get_running_loop())
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
