"""Single flight: one load a key, shared by all its waiters and detached from them.

A waiter's budget or cancellation ends the wait, never the load: the load goes on and serves later callers. A load
ends by its own deadline at the latest, and its key is free from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import threading
from collections.abc import Hashable
from typing import Any, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

from ..errors import BudgetExceeded, ClientClosed, ConfigurationError, ProfileEnrichError, SourceError, SourceTimeout
from .deadline import Deadline
from .process_stall import StandstillWatch

__all__ = ["Load", "SingleFlight"]

MAX_EXCUSES = 3
"""Standstills that extend the deadline of one load."""

GRACE = 1.0
"""Seconds past its deadline after which a load that did not end by itself is cancelled."""

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")


class Load(Generic[K, R]):
    """One load of one key. It belongs to the event loop that it was started on.

    Subclasses implement `run`, and `on_complete` where they need it.

    Args:
        key: what is loaded.
        seconds: how long the load may take from the moment at which `run` starts its deadline. The key is free then,
            whatever `run` does.
    """

    __slots__ = ("_cancellation", "_deadline", "_error", "_excuses", "_expiry", "_loop", "_result", "_stood_still",
                 "_waiters", "completed", "excused", "key", "seconds", "task", "watch")  # fmt: skip

    def __init__(self, key: K, seconds: float) -> None:
        self.key = key
        self.seconds = seconds
        self.completed = False
        self.task: asyncio.Task[None] | None = None
        self.watch: StandstillWatch | None = None
        self.excused = 0.0
        """Seconds that were added to the deadline for standstills of this process."""
        self._excuses = 0
        self._stood_still = 0.0
        self._loop = asyncio.get_running_loop()
        self._deadline: Deadline | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._cancellation: asyncio.TimerHandle | None = None
        self._result: R | None = None
        self._error: ProfileEnrichError | None = None
        self._waiters: dict[asyncio.Future[bool], None] = {}

    async def run(self) -> R:
        """Do the work. It calls `start_deadline` when the source is called, not while it waits for its turn."""
        raise NotImplementedError

    def on_complete(self, error: ProfileEnrichError | None) -> None:
        """Handle the end of the load, once, before any waiter continues; `error` says how it failed."""

    async def wait(self, budget: float | None) -> R:
        """Wait for the load, at most `budget` seconds.

        Raises:
            BudgetExceeded: the budget ran out; the load goes on.
            ProfileEnrichError: the load failed. Each waiter gets an exception object of its own.
        """
        if not self.completed:
            waiter: asyncio.Future[bool] = self._loop.create_future()
            self._waiters[waiter] = None
            timer = None if budget is None else self._loop.call_later(budget, _release, waiter, False)
            try:
                completed = await waiter
            finally:
                self._waiters.pop(waiter, None)
                if timer is not None:
                    timer.cancel()
            if not completed:
                raise BudgetExceeded(f"the profile was not there within the budget of {budget:g} s; the load goes on")
        if self._error is not None:
            # A copy for each waiter: one shared object would collect the tracebacks of all of them.
            raise copy.copy(self._error)
        return cast("R", self._result)

    def complete(self, result: R | None, error: ProfileEnrichError | None) -> None:
        """End the load and release its waiters. Only the first call counts."""
        if self.completed:
            return
        self.completed = True
        self._result = result
        self._error = error
        self.on_complete(error)
        for waiter in self._waiters:
            _release(waiter, True)
        self._waiters.clear()

    def start_deadline(self) -> Deadline:
        """Return the deadline, which the first call starts."""
        if self._deadline is None:
            self._deadline = Deadline(self.seconds)
            self._expiry = self._loop.call_later(self.seconds, self._expired)
            if self.watch is not None:
                self._stood_still = self.watch.start()
        return self._deadline

    def excuse_standstill(self) -> bool:
        """Extend the deadline by the time for which this process stood still since the last call.

        Returns:
            Whether it did. A loop that stands still again and again is not excused for ever.
        """
        if self.watch is None or self._deadline is None or self._excuses == MAX_EXCUSES:
            return False
        now = self.watch.seconds()
        lost, self._stood_still = now - self._stood_still, now
        if lost <= 0.0:
            return False
        self._excuses += 1
        self.excused += lost
        self._deadline.extend(lost)
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = self._loop.call_later(self._deadline.remaining(), self._expired)
        return True

    def stop_deadline(self) -> None:
        """Stop the timers: the task has ended."""
        if self._expiry is not None:
            self._expiry.cancel()
            if self.watch is not None:
                self.watch.stop()
                self.watch = None
        if self._cancellation is not None:
            self._cancellation.cancel()

    def _expired(self) -> None:
        if self.excuse_standstill():
            return
        # A source ends by the deadline by itself; cancelling is for one that does not.
        if self.task is not None and not self.task.done():
            self._cancellation = self._loop.call_later(GRACE, self.task.cancel)
        self.complete(None, SourceTimeout(f"the source did not answer within {self.seconds:g} s"))


def _release(waiter: asyncio.Future[bool], completed: bool) -> None:
    if not waiter.done():
        waiter.set_result(completed)


L = TypeVar("L", bound=Load[Any, Any])


class _LoopState(Generic[L]):
    """The loads of one event loop."""

    __slots__ = ("by_key", "running", "watch")

    def __init__(self) -> None:
        self.watch = StandstillWatch()
        self.by_key: dict[Hashable, L] = {}
        self.running: set[asyncio.Task[None]] = set()


class SingleFlight(Generic[L]):
    """The loads under way, by event loop and key."""

    def __init__(self) -> None:
        self._states: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState[L]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def find(self, key: Hashable) -> L | None:
        """Return the load of a key that is under way on the running loop.

        Raises:
            ConfigurationError: no asyncio event loop is running.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError("profile_enrich asks sources from a running asyncio loop only") from None
        state = self._states.get(loop)
        load = None if state is None else state.by_key.get(key)
        return None if load is None or load.completed else load

    def start(self, load: L) -> L:
        """Run a load in a task and a context of its own, in the place of an earlier load of its key."""
        loop = asyncio.get_running_loop()
        state = self._state(loop)
        state.by_key[load.key] = load
        load.watch = state.watch
        # A fresh context: context variables of the request that started the load must not reach a load that is shared.
        task = loop.create_task(_run(load), name="profile_enrich load", context=contextvars.Context())
        load.task = task
        state.running.add(task)

        def done(_: asyncio.Task[None]) -> None:
            load.stop_deadline()
            state.running.discard(task)
            # A task that was cancelled before its first step never ran.
            load.complete(None, _closed())
            if state.by_key.get(load.key) is load:
                del state.by_key[load.key]

        task.add_done_callback(done)
        return load

    @property
    def count(self) -> int:
        """How many loads are under way, on all event loops."""
        return sum(not load.completed for _, state in self._all() for load in list(state.by_key.values()))

    async def aclose(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for this loop's loads, then cancel the rest.

        Loads on other loops are cancelled there.
        """
        here = asyncio.get_running_loop()
        for loop, state in self._all():
            if loop is here or loop.is_closed():
                continue
            for task in list(state.running):
                with contextlib.suppress(RuntimeError):  # its thread has closed the loop in this very moment
                    loop.call_soon_threadsafe(task.cancel)
        state_here = self._states.get(here)
        if state_here is None:
            return
        running = {task for task in state_here.running if task is not asyncio.current_task()}
        if running:
            _, late = await asyncio.wait(running, timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=GRACE)

    def forget(self) -> None:
        """Forget all loads, in a forked child: the parent's loops do not run there."""
        self._lock = threading.Lock()
        self._states = WeakKeyDictionary()

    def _all(self) -> list[tuple[asyncio.AbstractEventLoop, _LoopState[L]]]:
        with self._lock:  # other threads may be adding their loops
            return list(self._states.items())

    def _state(self, loop: asyncio.AbstractEventLoop) -> _LoopState[L]:
        state = self._states.get(loop)
        if state is None:
            with self._lock:  # other threads may be adding their loops
                state = self._states.setdefault(loop, _LoopState())
        return state


async def _run(load: Load[Any, Any]) -> None:
    result: object = None
    error: ProfileEnrichError | None = None
    failure = ""
    try:
        result = await load.run()
    except asyncio.CancelledError:
        load.complete(None, _closed())
        raise
    except ProfileEnrichError as raised:
        error = raised
    except Exception as raised:  # noqa: BLE001  # whatever a source raises must reach its waiters as our error
        # Its text may quote the key or the answer: only its type is passed on.
        failure = type(raised).__name__
    if failure:
        error = SourceError(f"the source failed with an unexpected {failure}")
    load.complete(result, error)


def _closed() -> ClientClosed:
    return ClientClosed("the lookup was ended because the client or its event loop was closed")
