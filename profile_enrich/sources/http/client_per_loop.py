"""One HTTP client per running event loop and process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Generic, TypeVar

__all__ = ["Lease", "LoopClients"]

C = TypeVar("C")

CLOSE_SECONDS = 10.0
"""How long closing a client may take before what is left of it is left to the garbage collector. httpx closes one
connection after the other and suspends at each, so that a pool takes seconds on a loop that is very busy."""

_open_leases: set[Lease[Any]] = set()
"""Every client that is open in this process. Without it, a transport that is dropped unclosed would take its clients
with it in one garbage collection, before they can be closed on their loops."""


def _disown() -> None:
    """In a forked child: the clients that are open are the parent's, so here they are neither used, closed nor freed.

    Not even at the end of the interpreter, which is why a reference in a module would not do: an aiohttp session that
    is freed takes its sockets out of the epoll instance, and that is shared with the parent, whose next request on them
    would wait for ever.
    """
    if _open_leases:
        import ctypes  # some milliseconds, which only such a child has to spend

        for lease in _open_leases:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(lease))
        _open_leases.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown)


class Lease(Generic[C]):
    """A client of one loop, and who uses it."""

    __slots__ = ("_keeper", "client", "in_use", "loop", "retired")

    def __init__(self, client: C, loop: asyncio.AbstractEventLoop, keeper: AsyncGenerator[None]) -> None:
        self.client = client
        self.loop = loop
        self.in_use = 0
        self.retired = False
        self._keeper = keeper

    async def close(self) -> None:
        """Close the client. Harmless when it is being closed already."""
        _open_leases.discard(self)
        with contextlib.suppress(RuntimeError):  # the loop's own shutdown is closing the generator at this moment
            await self._keeper.aclose()


class LoopClients(Generic[C]):
    """Opens a client on each loop that needs one, and closes it there.

    Nothing exists before the first `acquire`. A client is tied to its loop by an asynchronous generator: loops close
    those when they shut down (`loop.shutdown_asyncgens`, which `asyncio.run`, uvicorn and test runners call), so the
    client is closed properly even when nobody calls `aclose`.

    Args:
        open: makes a client; called on the loop.
        close: closes one; called on the same loop.
    """

    def __init__(self, open: Callable[[], C], close: Callable[[C], Awaitable[None]]) -> None:
        self._open = open
        self._close = close
        self._leases: dict[asyncio.AbstractEventLoop, Lease[C]] = {}
        self._retired: set[Lease[C]] = set()
        self._pid = os.getpid()
        weakref.finalize(self, _abandon, self._leases, self._retired, self._pid).atexit = False

    async def acquire(self) -> Lease[C]:
        """The running loop's client; give it back with `release`."""
        loop = asyncio.get_running_loop()
        if self._retired:
            self._close_idle(loop)
        lease = self._leases.get(loop)
        if lease is None or self._pid != os.getpid():
            lease = await self._new(loop)
        lease.in_use += 1
        return lease

    async def _new(self, loop: asyncio.AbstractEventLoop) -> Lease[C]:
        if self._pid != os.getpid():
            self._leases.clear()
            self._retired.clear()
            self._pid = os.getpid()
        for lease in [*self._leases.values(), *self._retired]:
            if lease.loop.is_closed():
                self._forget(lease)
                _open_leases.discard(lease)
        client = self._open()
        keeper = _keep(client, self._close)
        await anext(keeper)  # does not suspend: no other task can open a second client meanwhile
        lease = self._leases[loop] = Lease(client, loop, keeper)
        _open_leases.add(lease)
        return lease

    def release(self, lease: Lease[C]) -> None:
        """Give a client back. A retired one that nobody uses any more is closed at the next `acquire`.

        Not here: closing takes its time, and whoever gives back is past a deadline or cancelled, so that the closing
        would be broken off in the middle, and leave its connections open.
        """
        lease.in_use -= 1

    def retire(self, lease: Lease[C]) -> None:
        """Take a client out of use: the next `acquire` opens a fresh one."""
        if not lease.retired:
            lease.retired = True
            if self._leases.get(lease.loop) is lease:
                del self._leases[lease.loop]
            self._retired.add(lease)

    async def aclose(self) -> None:
        """Close the running loop's clients, and schedule the same on the other running loops."""
        if self._pid != os.getpid():
            return
        here = asyncio.get_running_loop()
        leases = [*self._leases.values(), *self._retired]
        for lease in leases:
            if lease.loop is here:
                self._forget(lease)
                await lease.close()
            else:
                self._forget(lease)
                _close_elsewhere(lease)
        closing = [task for task in _closing if task.get_loop() is here]
        if closing:
            await asyncio.wait(closing)  # each ends by itself within CLOSE_SECONDS

    def _close_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        for lease in list(self._retired):
            if lease.loop is loop and lease.in_use == 0 and self._pid == os.getpid():
                self._retired.discard(lease)
                _start_closing(lease)

    def _forget(self, lease: Lease[C]) -> None:
        lease.retired = True
        self._retired.discard(lease)
        if self._leases.get(lease.loop) is lease:
            del self._leases[lease.loop]


async def _keep(client: C, close: Callable[[C], Awaitable[None]]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # half-broken connections; there is nobody to tell
            async with asyncio.timeout(CLOSE_SECONDS):
                await close(client)


def _close_elsewhere(lease: Lease[Any]) -> None:
    if lease.loop.is_closed():
        _open_leases.discard(lease)
    elif lease.loop.is_running():
        with contextlib.suppress(RuntimeError):  # it was closed since
            lease.loop.call_soon_threadsafe(_start_closing, lease)
    # A loop that is open and stands still closes its clients when it is shut down.


def _start_closing(lease: Lease[Any]) -> None:
    task = lease.loop.create_task(lease.close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()


def _abandon(leases: dict[asyncio.AbstractEventLoop, Lease[Any]], retired: set[Lease[Any]], pid: int) -> None:
    """The transport was dropped without `aclose`."""
    if pid == os.getpid():
        for lease in [*leases.values(), *retired]:
            _close_elsewhere(lease)
