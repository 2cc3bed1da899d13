"""Calls to the source: circuit breaker, rate limit, concurrency, batches and retries."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from .._utils.deadline import Deadline
from .._utils.single_flight import Load
from ..cache.cache import Entry
from ..errors import (
    CircuitOpen,
    ClientClosed,
    ProfileEnrichError,
    RateLimitReached,
    SourceConnectionError,
    SourceError,
    SourceTimeout,
)
from ..profile import ProfileKey
from ..sources.base import BatchSource, ProfileSource, SourceResult
from .batching import Batch, Batcher
from .breaker import Breaker, Permit
from .hooks import Observer
from .retry import RetryPolicy
from .source_policy import SourcePolicy

__all__ = ["SourceCalls", "SourceLoad"]

KeyT = TypeVar("KeyT", bound=Hashable)
ResultT = TypeVar("ResultT")


class SourceLoad(Load[KeyT, ResultT]):
    """A load that calls the source for one profile.

    Attributes:
        profile_key: the key of the profile.
        base: the cached entry, for a conditional request; `None` without a cached record.
        batch: the batch of the call, if the source supports batches.
    """

    __slots__ = ("base", "batch", "profile_key")

    profile_key: ProfileKey
    base: Entry | None
    batch: Batch | None


class _Slot:
    """A slot for one concurrent call, held for a `with` block."""

    # A class, because a generator with `asynccontextmanager` would double the cost.
    __slots__ = ("_breaker", "_observer", "_slots")

    def __init__(self, slots: asyncio.Semaphore, breaker: Breaker, observer: Observer) -> None:
        self._slots = slots
        self._breaker = breaker
        self._observer = observer

    async def __aenter__(self) -> None:
        slots = self._slots
        waits = slots.locked()
        await slots.acquire()
        if waits and self._breaker.state == "open":
            slots.release()
            raise CircuitOpen("the source failed several times in a row while this load waited for its turn")
        self._observer.called()

    async def __aexit__(self, *exc: object) -> None:
        self._slots.release()


class SourceCalls:
    """Call a source within the limits of a policy.

    Args:
        source: the source of profiles.
        breaker: the circuit breaker.
        policy: retries and limits.
        observer: is notified of each call.
        deadline: the time limit of a call for several keys, in seconds.
    """

    def __init__(
        self, source: ProfileSource, *, breaker: Breaker, policy: SourcePolicy, observer: Observer, deadline: float
    ) -> None:
        self._source = source
        self._breaker = breaker
        self._observer = observer
        self._deadline = deadline
        self._retry = RetryPolicy() if policy.retry is None else policy.retry
        self._rate_limit = policy.rate_limit
        self._max_in_flight = policy.max_in_flight
        self._batcher: Batcher | None = None
        if isinstance(source, BatchSource) and source.batch_size > 1:  # some sources support batches only if configured
            self._batcher = Batcher(source, policy.batch_window, self._slot)
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    @property
    def rate_limited(self) -> bool:
        """Whether there is a rate limit."""
        return self._rate_limit is not None

    def admit(self, yields: bool = False, overdue: bool = False) -> tuple[Permit, Batch | None]:
        """Return the permit for a call, and its batch if the source supports batches."""
        permit = self._breaker.trial() if overdue else self._breaker.ask()
        if permit is None:
            raise CircuitOpen("the source failed several times in a row; the circuit breaker is open")
        try:
            if self._batcher is not None:
                return permit, self._batcher.reserve(lambda: self._take(yields))
            self._take(yields)
        except RateLimitReached as error:
            permit.end(error)
            raise
        return permit, None

    def _take(self, yields: bool = False) -> None:
        """Take one call from the rate limit."""
        pause = 0.0 if self._rate_limit is None else self._rate_limit.take(yields=yields)
        if pause:
            raise RateLimitReached("the rate limit configured for this source is exhausted", retry_after=pause)

    async def ask(self, load: SourceLoad[Any, Any]) -> SourceResult:
        """Call the source, with retries."""
        self._retry.began()
        attempt = 0
        while True:
            attempt += 1
            excused = load.excused
            try:
                return await self._call(load)
            except SourceError as error:
                if isinstance(error, SourceTimeout | SourceConnectionError):
                    load.excuse_standstill()
                    if load.excused > excused:  # a stall of this process counts neither as a failure nor as a retry
                        attempt -= 1
                        continue
                pause = self._retry.pause(error, attempt, load.start_deadline().remaining())
                if pause is None:
                    raise
                failed = error
            await asyncio.sleep(pause)
            paid = False
            with contextlib.suppress(RateLimitReached):  # a retry counts as a call, too
                if self._batcher is None:
                    self._take()
                else:
                    load.batch = self._batcher.reserve(self._take)
                paid = True
            if not paid:
                raise failed

    async def _call(self, load: SourceLoad[Any, Any]) -> SourceResult:
        if self._batcher is not None and load.batch is not None:
            return await self._batcher.fetch(load.profile_key, load.batch, load)
        validators = None if load.base is None else load.base.validators
        async with self._slot():
            return await self._source.fetch(load.profile_key, deadline=load.start_deadline(), validators=validators)

    async def ask_together(self, keys: Sequence[ProfileKey]) -> Mapping[ProfileKey, SourceResult]:
        """Make one call for several keys, without load, cache and retries.

        Raises:
            CircuitOpen: the circuit breaker is open.
            ProfileEnrichError: the call failed.
        """
        assert isinstance(self._source, BatchSource)  # noqa: S101  # by the caller
        permit = self._breaker.ask()
        if permit is None:
            raise CircuitOpen("the source failed several times in a row; the circuit breaker is open")
        failed: ProfileEnrichError | None = ClientClosed("the lookup was cancelled")
        try:
            async with self._slot():
                answers = await self._source.fetch_many(keys, deadline=Deadline(self._deadline))
            failed = None
        except ProfileEnrichError as error:
            failed = error
            raise
        finally:
            permit.end(failed)
        return answers

    def _slot(self) -> _Slot:
        """Acquire the slot of one call. The wait does not count towards the source's deadline or failures."""
        loop = asyncio.get_running_loop()
        slots = self._slots.get(loop)
        if slots is None:
            slots = self._slots[loop] = asyncio.Semaphore(self._max_in_flight)
        return _Slot(slots, self._breaker, self._observer)

    async def aclose(self) -> None:
        """End the batches under way."""
        if self._batcher is not None:
            await self._batcher.aclose()

    def after_fork(self) -> None:
        """Forget the parent's batches, slots and locks, in a forked child."""
        self._slots = WeakKeyDictionary()
        if self._batcher is not None:
            self._batcher.after_fork()
        self._breaker.after_fork()
        self._retry.after_fork()
        if self._rate_limit is not None:
            self._rate_limit.after_fork()
