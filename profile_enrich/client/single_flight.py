"""One load a key, shared by all who wait for it, detached from all of them.

A waiter's budget or cancellation ends the wait, never the load: the page goes on, and the load fills the cache for the
next page. A load ends by its own deadline at the latest, and frees its key then.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import threading
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar, cast
from weakref import WeakKeyDictionary

from .._utils.deadline import Deadline
from ..errors import BudgetExceeded, ClientClosed, ConfigurationError, ProfileEnrichError, SourceError, SourceTimeout

__all__ = ["Load", "LoadDeadline", "SingleFlight"]

GRACE = 1.0
"""Seconds past its deadline after which a load that did not end by itself is cancelled."""

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")


class Load(Generic[K, R]):
    """One load under way. It belongs to the loop that it was started on."""

    __slots__ = ("_error", "_loop", "_result", "_waiters", "key", "landed", "token")

    def __init__(self, key: K, token: object, loop: asyncio.AbstractEventLoop) -> None:
        self.key = key
        self.token = token
        """What the starter needs to judge whether the flight may be joined: the cache's token of the load."""
        self.landed = False
        self._loop = loop
        self._result: R | None = None
        self._error: ProfileEnrichError | None = None
        self._waiters: dict[asyncio.Future[bool], None] = {}

    async def wait(self, budget: float | None) -> R:
        """Waits for the load, at most `budget` seconds.

        Raises:
            BudgetExceeded: the budget ran out; the load goes on.
            ProfileEnrichError: the load failed. Each waiter gets an exception object of its own.
        """
        if not self.landed:
            waiter: asyncio.Future[bool] = self._loop.create_future()
            self._waiters[waiter] = None
            timer = None if budget is None else self._loop.call_later(budget, _release, waiter, False)
            try:
                landed = await waiter
            finally:
                self._waiters.pop(waiter, None)
                if timer is not None:
                    timer.cancel()
            if not landed:
                raise BudgetExceeded(f"the profile was not there within the budget of {budget:g} s; the load goes on")
        if self._error is not None:
            # A copy each: one shared object would collect the tracebacks of all its waiters.
            raise copy.copy(self._error)
        return cast("R", self._result)

    def land(self, result: R | None, error: ProfileEnrichError | None) -> None:
        """Hands the outcome to all who wait. The first call counts."""
        if self.landed:
            return
        self.landed = True
        self._result = result
        self._error = error
        for waiter in self._waiters:
            _release(waiter, True)
        self._waiters.clear()


def _release(waiter: asyncio.Future[bool], landed: bool) -> None:
    if not waiter.done():
        waiter.set_result(landed)


class LoadDeadline:
    """The end of a load, once it is lit: at its deadline the key is free, and a moment later the task is cancelled."""

    __slots__ = ("_due", "_last", "_loop", "_overrun", "_seconds", "deadline", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, overrun: Callable[[], None]) -> None:
        self.deadline: Deadline | None = None
        self.task: asyncio.Task[None] | None = None
        self._loop = loop
        self._seconds = seconds
        self._overrun = overrun
        self._due: asyncio.TimerHandle | None = None
        self._last: asyncio.TimerHandle | None = None

    def light(self) -> Deadline:
        """The deadline from now on; a second time, the same."""
        if self.deadline is None:
            self.deadline = Deadline(self._seconds)
            self._due = self._loop.call_later(self._seconds, self._burnt)
        return self.deadline

    def cancel(self) -> None:
        """The load has ended."""
        if self._due is not None:
            self._due.cancel()
        if self._last is not None:
            self._last.cancel()

    def _burnt(self) -> None:
        # Sources end by the deadline by themselves; cancelling is for one that does not.
        if self.task is not None and not self.task.done():
            self._last = self._loop.call_later(GRACE, self.task.cancel)
        self._overrun()


class _LoopState(Generic[K, R]):
    """The flights of one loop."""

    __slots__ = ("by_key", "running")

    def __init__(self) -> None:
        self.by_key: dict[K, Load[K, R]] = {}
        self.running: set[asyncio.Task[None]] = set()


class SingleFlight(Generic[K, R]):
    """The table of loads under way, one for each event loop."""

    def __init__(self) -> None:
        self._towers: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState[K, R]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def find(self, key: K) -> Load[K, R] | None:
        """The flight of a key on the running loop.

        Raises:
            ConfigurationError: there is no running asyncio loop.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError("profile_enrich asks sources from a running asyncio loop only") from None
        tower = self._towers.get(loop)
        return None if tower is None else tower.by_key.get(key)

    def start(
        self,
        key: K,
        work: Callable[[LoadDeadline], Awaitable[R]],
        *,
        seconds: float,
        token: object,
        on_end: Callable[[ProfileEnrichError | None], None],
    ) -> Load[K, R]:
        """Starts a load in a task and a context of its own. It takes the place of an earlier flight of the key.

        Args:
            key: what is loaded.
            work: does it. It lights the fuse that it is given when the source is really asked, and not while it waits
                for its turn.
            seconds: how long it may take from then on. The key is free afterwards, whatever `work` does.
            token: kept on the flight.
            on_end: called once when the flight lands, with its error if it failed, before any waiter goes on.
        """
        loop = asyncio.get_running_loop()
        tower = self._tower(loop)
        flight: Load[K, R] = Load(key, token, loop)
        tower.by_key[key] = flight

        def land(result: R | None, error: ProfileEnrichError | None) -> None:
            if flight.landed:
                return
            if tower.by_key.get(key) is flight:
                del tower.by_key[key]
            on_end(error)
            flight.land(result, error)

        def overrun() -> None:
            land(None, SourceTimeout(f"the source did not answer within {seconds:g} s"))

        fuse = LoadDeadline(loop, seconds, overrun)

        async def fly() -> None:
            result: R | None = None
            error: ProfileEnrichError | None = None
            failure = ""
            try:
                result = await work(fuse)
            except asyncio.CancelledError:
                land(None, ClientClosed("the lookup was ended because the client or its event loop was closed"))
                raise
            except ProfileEnrichError as raised:
                error = raised
            except Exception as raised:  # noqa: BLE001  # whatever a source raises must reach its waiters as our error
                # Its text may quote the key or the answer: only its type is passed on.
                failure = type(raised).__name__
            if failure:
                error = SourceError(f"the source failed with an unexpected {failure}")
            land(result, error)

        # A fresh context: what the user in session left in context variables must not ride on a load that others share.
        task = loop.create_task(fly(), name="profile_enrich flight", context=contextvars.Context())
        fuse.task = task
        tower.running.add(task)

        def done(_: asyncio.Task[None]) -> None:
            fuse.cancel()
            tower.running.discard(task)
            # A task that was cancelled before its first step never ran `fly`.
            land(None, ClientClosed("the lookup was ended because the client or its event loop was closed"))

        task.add_done_callback(done)
        return flight

    @property
    def count(self) -> int:
        """Flights under way, on all loops."""
        return sum(len(tower.by_key) for _, tower in self._all())

    async def aclose(self, retry_timeout: float) -> None:
        """Waits up to `retry_timeout` seconds for this loop's loads, then cancels what is left.

        Loads on other loops are cancelled there.
        """
        here = asyncio.get_running_loop()
        for loop, tower in self._all():
            if loop is here or loop.is_closed():
                continue
            for task in list(tower.running):
                with contextlib.suppress(RuntimeError):  # its thread has closed the loop in this very moment
                    loop.call_soon_threadsafe(task.cancel)
        tower_here = self._towers.get(here)
        if tower_here is None:
            return
        running = {task for task in tower_here.running if task is not asyncio.current_task()}
        if running:
            _, late = await asyncio.wait(running, timeout=retry_timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=GRACE)

    def forget(self) -> None:
        """After a fork: the loops of the parent process do not run here."""
        self._lock = threading.Lock()
        self._towers = WeakKeyDictionary()

    def _all(self) -> list[tuple[asyncio.AbstractEventLoop, _LoopState[K, R]]]:
        with self._lock:  # other threads may be adding their loops
            return list(self._towers.items())

    def _tower(self, loop: asyncio.AbstractEventLoop) -> _LoopState[K, R]:
        tower = self._towers.get(loop)
        if tower is None:
            with self._lock:  # a dictionary that other threads' loops are added to at the same time
                tower = self._towers.setdefault(loop, _LoopState())
        return tower
