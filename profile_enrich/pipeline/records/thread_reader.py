"""Reading of a blocking input in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from typing import Generic, TypeVar

__all__ = ["iterate_in_thread"]

R = TypeVar("R")


class _Thread(Generic[R]):
    """A thread that reads ahead, up to a limit."""

    def __init__(self, rows: Iterable[R], ahead: int) -> None:
        self.read: deque[R] = deque()
        self.ended = False
        self.error: BaseException | None = None
        self.free_slots = threading.Semaphore(ahead)
        self.stopped = False
        self._rows = rows
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        # A daemon, so that a hanging read does not delay the end of the process.
        threading.Thread(target=self._run, name="profile_enrich input", daemon=True).start()

    async def more(self) -> None:
        """Wait until `read` holds a row, or the input has ended."""
        self._waiter = self._loop.create_future()
        # Checked after the waiter is set, because the thread wakes it from then on.
        if not self.read and not self.ended:
            await self._waiter
        self._waiter = None

    def _run(self) -> None:
        try:
            for row in self._rows:
                self.free_slots.acquire()
                if self.stopped:
                    return
                self.read.append(row)
                self._notify()
        except BaseException as error:  # noqa: BLE001  # raised where the rows are read
            self.error = error
        finally:
            self.ended = True
            self._notify()

    def _notify(self) -> None:
        if self._waiter is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def iterate_in_thread(rows: Iterable[R], *, ahead: int = 1024) -> AsyncGenerator[R]:
    """Iterate over rows in a thread, without blocking the event loop.

    Args:
        rows: the rows, read in a thread.
        ahead: the largest number of rows to read ahead.

    Raises:
        Exception: an exception of the rows, raised after the rows before it.
    """
    thread = _Thread(rows, ahead)
    try:
        while True:
            while thread.read:
                thread.free_slots.release()
                yield thread.read.popleft()
            if thread.ended and not thread.read:
                break
            await thread.more()
        if thread.error is not None:
            raise thread.error
    finally:
        thread.stopped = True
        thread.free_slots.release()
