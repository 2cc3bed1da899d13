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
"""The longest that closing a client may take, in seconds; the garbage collector gets the rest. httpx closes connections
one after another and suspends at each, so closing a pool takes seconds on a busy loop."""

_open_leases: set[Lease[Any]] = set()
"""All open clients of this process. The reference keeps the clients of a transport that is dropped unclosed alive until
they are closed on their loops."""


def _disown() -> None:
    """Drop the parent's clients in a forked child without using, closing or freeing them.

    They must survive the interpreter's shutdown as well, so a module-level reference is not enough: freeing an aiohttp
    session removes its sockets from the epoll instance that the child shares with the parent, and the parent's next
    request on them would hang.
    """
    if _open_leases:
        import ctypes  # takes some milliseconds, only in such a child

        for lease in _open_leases:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(lease))
        _open_leases.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown)


class Lease(Generic[C]):
    """A client of one event loop, with its number of users."""

    __slots__ = ("_keeper", "client", "in_use", "loop", "retired")

    def __init__(self, client: C, loop: asyncio.AbstractEventLoop, keeper: AsyncGenerator[None]) -> None:
        self.client = client
        self.loop = loop
        self.in_use = 0
        self.retired = False
        self._keeper = keeper

    async def close(self) -> None:
        """Close the client. Does nothing if it is already being closed."""
        _open_leases.discard(self)
        with contextlib.suppress(RuntimeError):  # the loop's shutdown is closing the generator at this moment
            await self._keeper.aclose()


class LoopClients(Generic[C]):
    """Open one client per event loop, and close it on that loop.

    Clients are opened by the first `acquire` on a loop. An asynchronous generator ties each client to its loop:
    `loop.shutdown_asyncgens`, which `asyncio.run`, uvicorn and test runners call, closes the client even if `aclose` is
    never called.

    Args:
        open: a function that makes a client; called on the loop.
        close: a function that closes one; called on the same loop.
    """

    def __init__(self, open: Callable[[], C], close: Callable[[C], Awaitable[None]]) -> None:
        self._open = open
        self._close = close
        self._leases: dict[asyncio.AbstractEventLoop, Lease[C]] = {}
        self._retired: set[Lease[C]] = set()
        self._pid = os.getpid()
        weakref.finalize(self, _abandon, self._leases, self._retired, self._pid).atexit = False

    async def acquire(self) -> Lease[C]:
        """Return the running loop's client. Pass it to `release` after use."""
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
        await anext(keeper)  # does not suspend, so no other task can open a second client
        lease = self._leases[loop] = Lease(client, loop, keeper)
        _open_leases.add(lease)
        return lease

    def release(self, lease: Lease[C]) -> None:
        """Release a client. A retired client without users is closed at the next `acquire`.

        It is not closed here, because closing takes time: the caller may be past its deadline or cancelled, and an
        interrupted close would leave connections open.
        """
        lease.in_use -= 1

    def retire(self, lease: Lease[C]) -> None:
        """Retire a client: the next `acquire` opens a new one."""
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
            await asyncio.wait(closing)  # each ends within CLOSE_SECONDS

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
        with contextlib.suppress(Exception):  # broken connections; no caller could handle the error
            async with asyncio.timeout(CLOSE_SECONDS):
                await close(client)


def _close_elsewhere(lease: Lease[Any]) -> None:
    if lease.loop.is_closed():
        _open_leases.discard(lease)
    elif lease.loop.is_running():
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            lease.loop.call_soon_threadsafe(_start_closing, lease)
    # A loop that is open but not running closes its clients at its shutdown.


def _start_closing(lease: Lease[Any]) -> None:
    task = lease.loop.create_task(lease.close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()


def _abandon(leases: dict[asyncio.AbstractEventLoop, Lease[Any]], retired: set[Lease[Any]], pid: int) -> None:
    """Close the clients of a transport that was dropped without `aclose`."""
    if pid == os.getpid():
        for lease in [*leases.values(), *retired]:
            _close_elsewhere(lease)
