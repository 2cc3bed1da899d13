"""One load: asks the source, judges the answer, stores it, and shares it with all who wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import cast
from weakref import WeakKeyDictionary

from ..cache.cache import Entry, LoadToken, ProfileCache
from ..cache.expiry import Expiry
from ..cache.sweeper import Sweeper
from ..errors import CircuitOpen, ClientClosed, ProfileEnrichError, RateLimitReached, SourceError, SourceResponseError
from ..profile import Profile, ProfileKey, Reason, Record, Status
from ..sources.base import BatchSource, Excluded, Found, NotFound, NotModified, ProfileSource, SourceResult
from ..sources.freshness import Validators
from .batching import Batch, Batcher
from .breaker import Breaker, Permit
from .hooks import Observer
from .rate_limit import RateLimit
from .retry import RetryPolicy
from .single_flight import Load, LoadDeadline, SingleFlight

__all__ = ["CacheKey", "LoadResult", "Loader"]

logger = logging.getLogger("profile_enrich")

CacheKey = tuple[str, str, str]
"""Namespace of the source, type and value of the key: plain strings, whose hashes Python remembers."""


class LoadResult:
    """What a flight brings to its waiters: a record, or the reason why there is none."""

    __slots__ = ("reason", "record")

    def __init__(self, record: Record | None, reason: Reason | None) -> None:
        self.record = record
        self.reason = reason


class _Turn:
    """One place among the calls that may be made at the same time; taken for the time of a `with` block."""

    # A class: a generator under `asynccontextmanager` costs as much as all the rest of this.
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


class Loader:
    """Loads keys from a source into a cache, each key once at a time.

    Args:
        source: where profiles come from.
        cache: where answers are kept.
        expiry: how long they are kept.
        observer: is told of each load.
        sweeper: is started with the first load on a loop.
        breaker: decides whether a call may be made.
        retry: decides whether a failed one is repeated.
        rate_limit: bounds the calls a second, where one was set.
        max_in_flight: calls at the same time, at most, on each event loop.
        batch_window: seconds in which lookups gather for one call of a source that has a batch endpoint.
        deadline: seconds that one load may take.
        timer: the monotonic clock of the cache, in seconds.
    """

    def __init__(
        self,
        source: ProfileSource,
        *,
        cache: ProfileCache[CacheKey],
        expiry: Expiry,
        observer: Observer,
        sweeper: Sweeper,
        breaker: Breaker,
        retry: RetryPolicy,
        rate_limit: RateLimit | None,
        max_in_flight: int,
        batch_window: float,
        deadline: float,
        timer: Callable[[], float],
    ) -> None:
        self.flights: SingleFlight[CacheKey, LoadResult] = SingleFlight()
        self.closed = False
        self._source = source
        self._namespace = source.namespace
        self._cache = cache
        self._expiry = expiry
        self._observer = observer
        self._sweeper = sweeper
        self._breaker = breaker
        self._retry = retry
        self._rate_limit = rate_limit
        self._max_in_flight = max_in_flight
        self._batcher: Batcher | None = None
        if isinstance(source, BatchSource) and source.batch_size > 1:  # some can only when they were told to
            self._batcher = Batcher(source, batch_window, self._slot)
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
        self._deadline = deadline
        self._timer = timer
        self._said_truncated = False

    def cache_key(self, key: ProfileKey) -> CacheKey:
        """The key under which the answer is kept: no two sources or tenants share one."""
        return (self._namespace, key.type, key.value)

    def find(self, key: ProfileKey) -> Load[CacheKey, LoadResult] | None:
        """The load of a key that is under way and may be joined."""
        flight = self.flights.find(self.cache_key(key))
        if flight is not None and self._cache.is_current(cast("LoadToken[CacheKey]", flight.token)):
            return flight
        return None

    def join(self, key: ProfileKey) -> tuple[Load[CacheKey, LoadResult], bool]:
        """The load of a key that is under way, or a new one; and whether it was under way."""
        flight = self.find(key)
        return (self.launch(key), False) if flight is None else (flight, True)

    def launch(self, key: ProfileKey, *, patient: bool = False) -> Load[CacheKey, LoadResult]:
        """Starts a load of a key, in the place of one that is under way.

        Args:
            key: what to load.
            patient: the caller waits when there is no call left, and leaves some to those who do not.

        Raises:
            ClientClosed: the client was closed.
            CircuitOpen: the source is being left alone.
            RateLimitReached: there is no call left for the moment.
        """
        if self.closed:
            raise ClientClosed("the ProfileClient is closed; make lookups before aclose() or inside its lifespan")
        cache_key = self.cache_key(key)
        base = self._cache.get(cache_key, self._timer())
        if base is not None and base.record is None:
            base = None
        permit, batch = self._admit(patient)
        load = self._cache.begin(cache_key)
        observer = self._observer
        digest = key.digest() if observer.hooks else ""
        started = time.perf_counter()
        outcome = ""

        async def work(fuse: LoadDeadline) -> LoadResult:
            nonlocal outcome
            result = await self._ask(key, batch, fuse, None if base is None else base.validators)
            answer, outcome = self._settle(key, load, base, result)
            return answer

        def on_end(error: ProfileEnrichError | None) -> None:
            permit.end(error)
            if error is not None and not isinstance(error, ClientClosed):
                now = self._timer()
                self._cache.defer(load, until=now + self._expiry.throttle, error=error)
                if self._expiry.error_ttl and isinstance(error, SourceError) and base is None:
                    self._cache.commit(load, self._expiry.failed(error, now))
            self._cache.end(load)
            failure = None if error is None else str(error)
            observer.flight(digest, error.code if error else outcome, time.perf_counter() - started, failure)

        flight = self.flights.start(cache_key, work, seconds=self._deadline, token=load, on_end=on_end)
        self._sweeper.arm()
        return flight

    def _admit(self, patient: bool) -> tuple[Permit, Batch | None]:
        """The right to make a call now, and the batch that it is made in, where the source has batches."""
        permit = self._breaker.ask()
        if permit is None:
            raise CircuitOpen("the source failed several times in a row and is left alone for a moment")
        try:
            if self._batcher is not None:
                return permit, self._batcher.reserve(lambda: self._pay(patient))
            self._pay(patient)
        except RateLimitReached as error:
            permit.end(error)
            raise
        return permit, None

    def _pay(self, patient: bool = False) -> None:
        """Takes one call from the rate limit."""
        pause = 0.0 if self._rate_limit is None else self._rate_limit.take(patient=patient)
        if pause:
            raise RateLimitReached("the rate limit set for this source is used up for the moment", retry_after=pause)

    async def _ask(
        self, key: ProfileKey, batch: Batch | None, fuse: LoadDeadline, validators: Validators | None
    ) -> SourceResult:
        """Calls the source, and once more where that is polite and may help."""
        self._retry.began()
        attempt = 0
        while True:
            attempt += 1
            try:
                if self._batcher is not None and batch is not None:
                    return await self._batcher.fetch(key, batch, fuse)
                async with self._slot():
                    return await self._source.fetch(key, deadline=fuse.light(), validators=validators)
            except SourceError as error:
                pause = self._retry.pause(error, attempt, fuse.light().remaining())
                if pause is None:
                    raise
                failed = error
            await asyncio.sleep(pause)
            paid = False
            with contextlib.suppress(RateLimitReached):  # a repeated call is a call, too
                if self._batcher is None:
                    self._pay()
                else:
                    batch = self._batcher.reserve(self._pay)
                paid = True
            if not paid:
                raise failed

    def _slot(self) -> _Turn:
        """The turn to make one call. Waiting for it counts neither as the source's time nor as its failure."""
        loop = asyncio.get_running_loop()
        slots = self._slots.get(loop)
        if slots is None:
            slots = self._slots[loop] = asyncio.Semaphore(self._max_in_flight)
        return _Turn(slots, self._breaker, self._observer)

    async def aclose(self, retry_timeout: float) -> None:
        """Waits up to `retry_timeout` seconds for the loads under way, and ends what is left."""
        self.closed = True
        self._sweeper.stop()
        await self.flights.aclose(retry_timeout)
        if self._batcher is not None:
            await self._batcher.aclose()

    def after_fork(self) -> None:
        """In a forked child: the loads and slots are the parent's."""
        self.flights.forget()
        self._slots = WeakKeyDictionary()
        if self._batcher is not None:
            self._batcher.after_fork()
        self._breaker.after_fork()
        self._retry.after_fork()
        if self._rate_limit is not None:
            self._rate_limit.after_fork()

    def _settle(
        self, key: ProfileKey, load: LoadToken[CacheKey], base: Entry | None, result: object
    ) -> tuple[LoadResult, str]:
        """Stores what the source said. Returns what its waiters get, and the outcome in one word."""
        now = self._timer()
        if isinstance(result, Found) and isinstance(result.record, Record):
            if result.record.truncated and not self._said_truncated:
                self._said_truncated = True
                logger.warning("%s: the vendor cuts attributes off some profiles", self._source.name)
            if self._expiry.keeps(result.freshness):
                self._keep(key, load, self._expiry.known(result.record, result.freshness, result.tags, now))
            else:
                self._cache.discard(load)
            return LoadResult(result.record, None), "found"
        if isinstance(result, NotModified):
            if base is None or base.record is None:
                raise SourceResponseError("the source said 'not modified' to a question that was not conditional")
            record = base.record.renewed()
            entry = self._expiry.known(record, result.freshness, base.tags, now)
            entry.validators = entry.validators or base.validators
            self._keep(key, load, entry)
            return LoadResult(record, None), "not_modified"
        if isinstance(result, NotFound | Excluded):
            reason = Reason.NOT_FOUND if isinstance(result, NotFound) else Reason.EXCLUDED
            if self._expiry.negative_ttl:
                self._cache.commit(load, self._expiry.negative(reason, now))
            else:
                self._cache.discard(load)
            return LoadResult(None, reason), reason.value
        raise SourceResponseError(
            f"the source returned {type(result).__name__}, not Found, NotFound, Excluded or NotModified"
        )

    def _keep(self, key: ProfileKey, load: LoadToken[CacheKey], entry: Entry) -> None:
        # Made once here, so that a hit has nothing left to make.
        entry.view = Profile(entry.record, status=Status.HIT, key=key)
        self._cache.commit(load, entry)
