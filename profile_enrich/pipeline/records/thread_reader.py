"""An input that may keep one waiting, read in a thread of its own, so that the event loop does not wait with it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from typing import Generic, TypeVar

__all__ = ["aside"]

R = TypeVar("R")


class _Thread(Generic[R]):
    """Reads ahead, at most so many."""

    def __init__(self, rows: Iterable[R], ahead: int) -> None:
        self.read: deque[R] = deque()
        self.ended = False
        self.error: BaseException | None = None
        self.room = threading.Semaphore(ahead)
        self.stopped = False
        self._rows = rows
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        # A daemon: a read that never returns must not hold up the end of the process.
        threading.Thread(target=self._run, name="profile_enrich input", daemon=True).start()

    async def more(self) -> None:
        """Until there is something in `read`, or the end."""
        self._waiter = self._loop.create_future()
        # Asked after the waiter is there: what the thread adds from now on wakes it.
        if not self.read and not self.ended:
            await self._waiter
        self._waiter = None

    def _run(self) -> None:
        try:
            for row in self._rows:
                self.room.acquire()
                if self.stopped:
                    return
                self.read.append(row)
                self._tell()
        except BaseException as error:  # noqa: BLE001  # raised where the rows are read
            self.error = error
        finally:
            self.ended = True
            self._tell()

    def _tell(self) -> None:
        if self._waiter is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def aside(rows: Iterable[R], *, ahead: int = 1024) -> AsyncGenerator[R]:
    """The same rows, without holding up the event loop while the next one is not there yet.

    Args:
        rows: iterated over in a thread.
        ahead: rows read before they are asked for, at most.

    Raises:
        Exception: what the rows raise, after the rows before it.
    """
    thread = _Thread(rows, ahead)
    try:
        while True:
            while thread.read:
                thread.room.release()
                yield thread.read.popleft()
            if thread.ended and not thread.read:
                break
            await thread.more()
        if thread.error is not None:
            raise thread.error
    finally:
        thread.stopped = True
        thread.room.release()
