"""Loads: one call to the source per key, whose result is stored and shared by all waiters."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from .._utils.fork import reset_after_fork
from .._utils.log_once import LogOnce
from .._utils.single_flight import SingleFlight
from ..cache.cache import Entry, LoadToken, ProfileCache
from ..cache.expiry import Expiry
from ..cache.sweeper import Sweeper
from ..errors import (
    CircuitOpen,
    ClientClosed,
    ProfileEnrichError,
    RateLimitReached,
    SourceError,
    SourceResponseError,
)
from ..profile import Profile, ProfileKey, Reason, Record, Status
from ..sources.base import Excluded, Found, NotFound, NotModified, ProfileSource
from .background import BackgroundLoop
from .batching import Batch
from .breaker import Breaker, Permit
from .hooks import Observer
from .source_calls import SourceCalls, SourceLoad
from .source_policy import SourcePolicy

__all__ = ["CacheKey", "LoadFactory", "LoadResult", "Loader", "ProfileLoad"]

logger = logging.getLogger("profile_enrich")

CacheKey = tuple[str, str, str]
"""Namespace of the source, type and value of the key: plain strings, whose hashes Python caches."""


class LoadResult:
    """The result of a load: a record, or the reason why there is none."""

    __slots__ = ("reason", "record")

    def __init__(self, record: Record | None, reason: Reason | None) -> None:
        self.record = record
        self.reason = reason


class ProfileLoad(SourceLoad[CacheKey, LoadResult]):
    """The load of one profile: call the source and store the result.

    Args:
        loader: the loader.
        profile_key: the key to load.
        base: the cached entry, for a conditional request; `None` without a cached record.
        permit: the permit of the circuit breaker; `None` until the source is called.
        batch: the batch of the call, if the source supports batches.
    """

    __slots__ = ("digest", "elsewhere", "entry", "loader", "outcome", "permit", "started", "token")

    def __init__(
        self, loader: Loader, profile_key: ProfileKey, base: Entry | None, permit: Permit | None, batch: Batch | None
    ) -> None:
        super().__init__(loader.cache_key(profile_key), loader.deadline)
        self.loader = loader
        self.profile_key = profile_key
        self.base = base
        self.permit: Permit | None = permit
        self.batch = batch
        self.token: LoadToken[CacheKey] = loader.cache.begin(self.key)
        self.digest = profile_key.digest() if loader.observer.hooks else ""
        self.started = time.perf_counter()
        self.outcome = ""
        self.entry: Entry | None = None
        """The stored entry."""
        self.elsewhere = loader.runs_elsewhere()
        """Whether it runs on the background loop."""

    def renew_token(self) -> None:
        """Begin anew for the cache. Call it before anything is read: earlier invalidations do not concern the load."""
        self.loader.cache.end(self.token)
        self.token = self.loader.cache.begin(self.key)

    async def run(self) -> LoadResult:
        """Call the source and store the result."""
        return self.loader.store(self, await self.loader.calls.ask(self))

    def stored(self, entry: Entry) -> None:
        """Note the entry that is about to be stored."""
        self.entry = entry

    def on_complete(self, error: ProfileEnrichError | None) -> None:
        """Report the end to the circuit breaker, the cache and the observer."""
        loader, token = self.loader, self.token
        if self.permit is not None:
            self.permit.end(error)
        loader.note_end(self, error)
        if error is not None and not isinstance(error, ClientClosed):
            now = loader.timer()
            loader.cache.defer(token, until=now + loader.expiry.throttle, error=error)
            if loader.expiry.error_ttl and isinstance(error, SourceError) and self.base is None:
                loader.cache.commit(token, loader.expiry.failed(error, now))
        loader.cache.end(token)
        failure = None if error is None else str(error)
        seconds = time.perf_counter() - self.started
        loader.observer.load(self.digest, error.code if error else self.outcome, seconds, failure)


class LoadFactory(Protocol):
    """A factory of loads that replace `ProfileLoad`."""

    def usable(self, key: CacheKey) -> bool:
        """Return whether it can make a load for this key now."""
        ...

    def new(
        self, loader: Loader, key: ProfileKey, base: Entry | None, permit: Permit | None, batch: Batch | None
    ) -> ProfileLoad:
        """Make a load; without a permit, the load asks `SourceCalls.admit` for one when it needs it."""
        ...


class Loader:
    """Load keys from a source into a cache, with single flight.

    Args:
        source: the source of profiles.
        cache: the cache of results.
        expiry: the times of cached results.
        observer: is notified of each load.
        sweeper: started with the first load on a loop.
        breaker: the circuit breaker.
        policy: retries and limits.
        deadline: the time limit of one load, in seconds.
        timer: the monotonic clock of the cache, in seconds.
        shared: the factory of loads that read the second cache level first, if there is one.
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
        policy: SourcePolicy,
        deadline: float,
        timer: Callable[[], float],
        shared: LoadFactory | None = None,
    ) -> None:
        self._shared = shared
        self._background: set[asyncio.Task[None]] = set()
        self.loads: SingleFlight[ProfileLoad] = SingleFlight()
        self.closed = False
        """Closed, and not used since."""
        self.closing = False
        """Being closed now: no load is started."""
        self.ended = 0
        """How many loads have ended. After a change, a key that was not cached may be."""
        self._elsewhere = BackgroundLoop()
        self._loops_end = False
        """A load was cancelled by the end of its event loop, and none has succeeded since."""
        self.cache = cache
        self.expiry = expiry
        self.observer = observer
        self.deadline = deadline
        self.timer = timer
        self.calls = SourceCalls(source, breaker=breaker, policy=policy, observer=observer, deadline=deadline)
        self._source = source
        self._namespace = source.namespace
        self._sweeper = sweeper
        self._once = LogOnce()
        reset_after_fork(self)

    def cache_key(self, key: ProfileKey) -> CacheKey:
        """Return the cache key, which differs between sources and tenants."""
        return (self._namespace, key.type, key.value)

    # --- starting loads ---------------------------------------------------------------------------------------------

    def find(self, key: ProfileKey) -> ProfileLoad | None:
        """Return the running load of a key that may be joined."""
        load = self.loads.find(self.cache_key(key))
        return load if load is not None and self.cache.may_be_joined(load.token) else None

    def is_under_way(self, load: ProfileLoad) -> bool:
        """Return whether a load runs and its result will be used."""
        return not load.completed and self.cache.is_current(load.token)

    def join(self, key: ProfileKey, base: Entry | None) -> tuple[ProfileLoad, bool]:
        """Return the running load of a key, or start one; and whether it was already running.

        Raises:
            ProfileEnrichError: as `launch`.
        """
        load = self.find(key)
        return (self.launch(key, base), False) if load is None else (load, True)

    def launch(
        self, key: ProfileKey, base: Entry | None, *, yields: bool = False, overdue: bool = False
    ) -> ProfileLoad:
        """Start a load of a key, replacing a running one.

        Args:
            key: the key to load.
            base: its cached entry.
            yields: whether the caller can wait, and leaves part of the rate limit to others.
            overdue: whether to make the call even if the circuit breaker is open, after a long wait.

        Raises:
            ClientClosed: the client is being closed.
            CircuitOpen: the circuit breaker is open.
            RateLimitReached: the rate limit allows no call at the moment.
        """
        if self.closing:
            raise ClientClosed("the ProfileClient is being closed; make lookups before aclose() or inside its lifespan")
        self.open()
        base = base if base is not None and base.record is not None else None
        load = self.loads.start(self._new_load(key, base, yields, overdue))
        self._sweeper.arm()
        return load

    def refresh(self, key: ProfileKey, base: Entry) -> None:
        """Start a background load, unless one is running.

        Raises:
            ProfileEnrichError: as `launch`.
        """
        if self._loops_end:
            self._elsewhere.submit(lambda: self.join(key, base))
        else:
            self.join(key, base)

    def runs_elsewhere(self) -> bool:
        """Return whether the running event loop is the background loop."""
        return self._elsewhere.is_running_here()

    def note_end(self, load: ProfileLoad, error: ProfileEnrichError | None) -> None:
        """Count the load, and detect loops that end before their loads.

        From the second time on, such a load is finished in the background.
        """
        self.ended += 1
        if not isinstance(error, ClientClosed):
            self._loops_end = self._loops_end and load.elsewhere
        elif not self.closing and not load.elsewhere:
            if self._loops_end:
                self._elsewhere.submit(lambda: self.join(load.profile_key, load.base))
            self._loops_end = True

    def open(self) -> None:
        """Open the client again, after it was closed."""
        if self.closed and not self.closing:
            self.closed = False

    def _new_load(self, key: ProfileKey, base: Entry | None, yields: bool, overdue: bool) -> ProfileLoad:
        if self._shared is not None and self._shared.usable(self.cache_key(key)):
            permit, batch = self.calls.admit(yields, overdue) if yields else (None, None)
            return self._shared.new(self, key, base, permit, batch)
        return ProfileLoad(self, key, base, *self.calls.admit(yields, overdue))

    def refresh_soon(self, key: ProfileKey) -> None:
        """Start a refresh of a key that was just served stale."""

        def start() -> None:
            with contextlib.suppress(CircuitOpen, RateLimitReached, ClientClosed):
                self.join(key, self.cache.get(self.cache_key(key), self.timer()))

        asyncio.get_running_loop().call_soon(start)

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the background; `aclose` waits for it."""
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # --- storing the answer -----------------------------------------------------------------------------------------

    def store(self, load: ProfileLoad, result: object) -> LoadResult:
        """Store the source's result, and set the outcome of the load."""
        now, token = self.timer(), load.token
        if isinstance(result, Found) and isinstance(result.record, Record):
            result.record.namespace = self._namespace
            if result.record.truncated and self._once.first("truncated"):
                logger.warning("%s: the vendor truncates the attributes of some profiles", self._source.name)
            if self.expiry.keeps(result.freshness):
                self.keep(load, self.expiry.known(result.record, result.freshness, result.tags, now))
            else:
                self.cache.discard(token)
            load.outcome = "found"
            return LoadResult(result.record, None)
        if isinstance(result, NotModified):
            base = load.base
            if base is None or base.record is None:
                raise SourceResponseError("the source returned 'not modified' for an unconditional request")
            record = base.record.renewed()
            entry = self.expiry.known(record, result.freshness, base.tags, now)
            entry.validators = entry.validators or base.validators
            self.keep(load, entry)
            load.outcome = "not_modified"
            return LoadResult(record, None)
        if isinstance(result, NotFound | Excluded):
            reason = Reason.NOT_FOUND if isinstance(result, NotFound) else Reason.EXCLUDED
            if self.expiry.negative_ttl:
                load.entry = self.expiry.negative(reason, now)
                self.cache.commit(token, load.entry)
            else:
                self.cache.discard(token)
            load.outcome = reason.value
            return LoadResult(None, reason)
        raise SourceResponseError(
            f"the source returned {type(result).__name__}, not Found, NotFound, Excluded or NotModified"
        )

    def keep(self, load: ProfileLoad, entry: Entry) -> None:
        """Store an entry of a known profile."""
        # The profile is made once, here, so that hits do not have to.
        if entry.record is not None:
            entry.record.namespace = self._namespace
        entry.view = Profile(entry.record, status=Status.HIT, key=load.profile_key)
        load.stored(entry)
        self.cache.commit(load.token, entry)

    # --- the end ----------------------------------------------------------------------------------------------------

    async def aclose(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for running loads, and cancel the rest."""
        self._sweeper.stop()
        self._elsewhere.stop()
        await self.loads.aclose(timeout)
        here = asyncio.get_running_loop()
        if background := [task for task in self._background if task.get_loop() is here]:
            await asyncio.wait(background, timeout=timeout)
        await self.calls.aclose()

    def after_fork(self) -> None:
        """Forget the parent's loads, timers and locks, in a forked child."""
        self.loads.forget()
        self.cache.renew_lock()
        self.observer.renew_lock()
        self._sweeper.forget()
        self._background = set()
        self.calls.after_fork()
