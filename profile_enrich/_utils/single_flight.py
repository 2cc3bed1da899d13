"""Single flight: one load per key, shared by its waiters and detached from them.

A waiter's budget or cancellation ends only the wait: the load continues and serves later callers. A load ends by its
own deadline at the latest, which also releases its key.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import threading
from collections.abc import Hashable, Iterable
from typing import Any, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

from ..errors import BudgetExceeded, ClientClosed, ConfigurationError, ProfileEnrichError, SourceError, SourceTimeout
from .deadline import Deadline
from .process_stall import StandstillWatch

__all__ = ["GRACE", "Load", "SingleFlight", "cancel_tasks"]

MAX_EXCUSES = 3
"""The largest number of stalls that extend the deadline of one load."""

GRACE = 1.0
"""Seconds after the deadline at which a load that is still running is cancelled."""

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")


class Load(Generic[K, R]):
    """One load of one key, bound to the event loop on which it was started.

    Subclasses implement `run`, and `on_complete` where they need it.

    Args:
        key: the key to load.
        seconds: the time limit of the load, from the start of the deadline in `run`. After that, the key is released
            even if `run` continues.
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
        """The seconds added to the deadline for stalls of this process."""
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
        """Do the work. It calls `start_deadline` at the call to the source, not while waiting for a slot."""
        raise NotImplementedError

    def on_complete(self, error: ProfileEnrichError | None) -> None:
        """Handle the end of the load, once, before any waiter continues; `error` says how it failed."""

    async def wait(self, budget: float | None) -> R:
        """Wait for the load, for up to `budget` seconds.

        Raises:
            BudgetExceeded: the budget ran out; the load continues.
            ProfileEnrichError: the load failed. Each waiter gets its own exception object.
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
            # A copy for each waiter, because a shared object would accumulate all their tracebacks.
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
        """Extend the deadline by the stalls of this process since the last call.

        Returns:
            True if it was extended. The number of extensions is limited.
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
        # A source should end by the deadline; cancellation is for one that does not.
        if self.task is not None and not self.task.done():
            self._cancellation = self._loop.call_later(GRACE, self.task.cancel)
        self.complete(None, SourceTimeout(f"the source did not answer within {self.seconds:g} s"))


def _release(waiter: asyncio.Future[bool], completed: bool) -> None:
    if not waiter.done():
        waiter.set_result(completed)


async def cancel_tasks(tasks: Iterable[asyncio.Task[None]], timeout: float) -> None:
    """Cancel tasks of this and of other event loops, and wait up to `timeout` seconds for their end.

    A task of a loop that does not run at the moment is cancelled when that loop runs again, and not waited for.
    """
    here = asyncio.get_running_loop()
    ending: list[asyncio.Future[Any]] = []
    for task in tasks:
        loop = task.get_loop()
        if loop is here:
            task.cancel()
            ending.append(task)
            continue
        ended = here.create_future()
        with contextlib.suppress(RuntimeError):  # its thread has just closed the loop
            loop.call_soon_threadsafe(_cancel_here, task, ended)
            if loop.is_running():
                ending.append(ended)
    if ending:
        await asyncio.wait(ending, timeout=timeout)


def _cancel_here(task: asyncio.Task[None], ended: asyncio.Future[bool]) -> None:
    def release(_: asyncio.Task[None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop of the one who waits is closed
            ended.get_loop().call_soon_threadsafe(_release, ended, True)

    task.add_done_callback(release)
    task.cancel()


L = TypeVar("L", bound=Load[Any, Any])


class _LoopState(Generic[L]):
    """The loads of one event loop."""

    __slots__ = ("by_key", "running", "watch")

    def __init__(self) -> None:
        self.watch = StandstillWatch()
        self.by_key: dict[Hashable, L] = {}
        self.running: set[asyncio.Task[None]] = set()


class SingleFlight(Generic[L]):
    """The running loads, by event loop and key."""

    def __init__(self) -> None:
        self._states: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState[L]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def find(self, key: Hashable) -> L | None:
        """Return the running load of a key on the running event loop.

        Raises:
            ConfigurationError: no asyncio event loop is running.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError("profile_enrich needs a running asyncio event loop") from None
        state = self._states.get(loop)
        load = None if state is None else state.by_key.get(key)
        return None if load is None or load.completed else load

    def start(self, load: L) -> L:
        """Run a load in a new task and context, replacing an earlier load of its key."""
        loop = asyncio.get_running_loop()
        state = self._state(loop)
        state.by_key[load.key] = load
        load.watch = state.watch
        # A new context, so that context variables of the first request do not reach the shared load.
        task = loop.create_task(_run(load), name="profile_enrich load", context=contextvars.Context())
        load.task = task
        state.running.add(task)

        def done(_: asyncio.Task[None]) -> None:
            load.stop_deadline()
            state.running.discard(task)
            # The task may have been cancelled before its first step.
            load.complete(None, _closed())
            if state.by_key.get(load.key) is load:
                del state.by_key[load.key]

        task.add_done_callback(done)
        return load

    @property
    def count(self) -> int:
        """Return the number of running loads on all event loops."""
        return sum(not load.completed for _, state in self._all() for load in list(state.by_key.values()))

    async def aclose(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for this loop's loads, then cancel the rest.

        Loads on other loops are cancelled there at once.
        """
        here, this = asyncio.get_running_loop(), asyncio.current_task()
        running = [task for _, state in self._all() for task in list(state.running) if task is not this]

        async def finish() -> None:
            own = [task for task in running if task.get_loop() is here]
            if own:
                _, late = await asyncio.wait(own, timeout=timeout)
                await cancel_tasks(late, GRACE)

        await asyncio.gather(finish(), cancel_tasks([task for task in running if task.get_loop() is not here], GRACE))

    def forget(self) -> None:
        """Forget all loads in a forked child, where the parent's loops do not run."""
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
        # Only its type, because its message may quote the key or the response.
        failure = type(raised).__name__
    if failure:
        error = SourceError(f"the source failed with an unexpected {failure}")
    load.complete(result, error)


def _closed() -> ClientClosed:
    return ClientClosed("the lookup was ended because the client or its event loop was closed")
