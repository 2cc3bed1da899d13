"""Lookups of pipelines, which wait for the rate limit, the circuit breaker and a failing source.

If no call can be made, a page is served without its profile, but a record of a pipeline waits. A load is started only
when the call can be made, so that a page never joins a queued load.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from weakref import WeakKeyDictionary

from .._utils.fork import reset_after_fork
from ..cache.cache import Entry
from ..errors import (
    CircuitOpen,
    ClientClosed,
    ConfigurationError,
    ProfileEnrichError,
    RateLimitReached,
    SourceAuthError,
    SourceConnectionError,
    SourceRateLimited,
    SourceResponseError,
    SourceTimeout,
    SourceUnavailable,
)
from ..profile import Profile, ProfileKey, Reason, Status
from .breaker import Breaker
from .loader import Loader, ProfileLoad
from .lookup_decision import Lookups, loaded_profile, unavailable

__all__ = ["FATAL_ERRORS", "PipelineLookup", "run_workers"]

FATAL_ERRORS = (SourceAuthError, ConfigurationError, ClientClosed)
"""Errors that affect every key permanently: they end a run."""

MAX_LOADS = 3
"""The largest number of loads of one key, unless the source asks to wait."""

_TRANSIENT = (
    SourceConnectionError,
    SourceUnavailable,
    SourceRateLimited,
    SourceTimeout,
    SourceResponseError,  # such as an incomplete response, or a proxy's page
    CircuitOpen,
    RateLimitReached,
)
"""Errors that may be transient. Lookups are idempotent, so retries are safe."""

_NOT_NOW = (SourceRateLimited, CircuitOpen, RateLimitReached)
"""Errors that ask to wait and do not depend on the key: limited only by time."""

_MIN_SLEEP = 0.01
"""The shortest sleep between checks of the source's state, in seconds."""

_MAX_SLEEP = 0.1
"""The longest sleep of a queue while the circuit breaker is open, in seconds; a trial call may close it sooner."""

_WAIT_INITIAL, _WAIT_MAX = 0.1, 5.0
"""The longest waits before the second load of a key, and before any, in seconds."""


class _PendingKey:
    """One key without a result so far."""

    __slots__ = ("base", "failing_since", "key", "loads", "place", "started")

    def __init__(self, place: int, key: ProfileKey, started: float) -> None:
        self.place = place
        self.key = key
        self.started = started
        self.loads = 0
        self.base: Entry | None = None
        self.failing_since: float | None = None


class PipelineLookup:
    """Look up keys for callers that can wait, such as pipelines.

    Args:
        lookups: the lookup decision.
        loader: the loader of profiles.
        breaker: the circuit breaker.
        batch_size: the keys per call; 1 for a source without batches.
        timer: the monotonic clock of the client, in seconds.
        rng: returns random numbers in [0, 1).
    """

    def __init__(
        self,
        lookups: Lookups,
        *,
        loader: Loader,
        breaker: Breaker,
        batch_size: int,
        timer: Callable[[], float],
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.batch_size = batch_size
        self._lookups = lookups
        self._loader = loader
        self._breaker = breaker
        self._timer = timer
        self._rng = rng
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        # Of the source, not of one key: when it last responded, and when that was last checked.
        self._failing_since: float | None = None
        self._noticed = 0.0
        reset_after_fork(self)

    async def lookup(self, keys: Sequence[ProfileKey], retry_timeout: float) -> list[Profile]:
        """Look up keys that fit into one call.

        Args:
            keys: up to `batch_size` different keys.
            retry_timeout: how long to retry a failing source after its last response, in seconds. The wait for the rate
                limit is not limited.

        Returns:
            A profile for each key, in order; `profile.error` is the error of a failed one.

        Raises:
            SourceAuthError, ConfigurationError, ClientClosed: no key can be looked up.
        """
        profiles: dict[int, Profile] = {}
        rest = [_PendingKey(place, key, time.perf_counter()) for place, key in enumerate(keys)]
        while rest:
            loads: list[tuple[_PendingKey, ProfileLoad, bool]] = []
            for pending in rest:
                acquired = await self._acquire(pending, retry_timeout)
                if isinstance(acquired, Profile):
                    profiles[pending.place] = acquired
                else:
                    loads.append((pending, *acquired))
            rest = list[_PendingKey]()
            for pending, load, joined in loads:
                profile = await self._result(pending, load, joined, retry_timeout)
                if profile is None:
                    rest.append(pending)
                else:
                    profiles[pending.place] = profile
            if rest:
                tried = min(max(each.loads for each in rest), 60)  # a float cannot be doubled more than 1,000 times
                await asyncio.sleep(self._rng() * min(_WAIT_MAX, _WAIT_INITIAL * 2.0**tried))
        return [profiles[place] for place in range(len(keys))]

    async def _acquire(self, pending: _PendingKey, retry_timeout: float) -> Profile | tuple[ProfileLoad, bool]:
        """Wait for the load of the key; or return the profile, if no load is needed or possible."""
        key = pending.key
        queue = self._queue()
        if not queue.locked():
            ready = self._ready(pending)
            if ready is not None:
                return ready
            with contextlib.suppress(CircuitOpen, RateLimitReached):
                return self._loader.launch(key, pending.base, yields=True), False
        async with queue:  # FIFO; only the first one checks the time
            overdue = False
            while True:
                ready = self._ready(pending)
                if ready is not None:
                    return ready
                try:
                    return self._loader.launch(key, pending.base, yields=True, overdue=overdue), False
                except RateLimitReached as error:
                    pause = error.retry_after or 0.0
                except CircuitOpen:
                    # No record fails without a call: after the wait for the breaker, records are tried one at a time.
                    pause = self._breaker.pause()
                    overdue = self._over(pending, pause, retry_timeout)
                    pause = _MAX_SLEEP if overdue else min(max(pause, _MIN_SLEEP), _MAX_SLEEP)
                await asyncio.sleep(pause)

    def _ready(self, pending: _PendingKey) -> Profile | tuple[ProfileLoad, bool] | None:
        """Return the load started by another caller, or its profile."""
        load = self._loader.find(pending.key)
        if load is not None:
            return load, True
        profile, pending.base = self._lookups.decide(pending.key)
        if profile is None or profile.reason is Reason.UNAVAILABLE:
            return None
        return self._lookups.observe(pending.key, profile, pending.started)

    async def _result(
        self, pending: _PendingKey, load: ProfileLoad, joined: bool, retry_timeout: float
    ) -> Profile | None:
        """Return the profile; `None` if the load failed and may be retried."""
        key = pending.key
        try:
            answer = await load.wait(None)
        except FATAL_ERRORS:
            raise
        except CircuitOpen:  # it opened while this load waited, so the key was not looked up
            return None
        except ProfileEnrichError as error:
            pending.loads += 1
            transient = isinstance(error, _TRANSIENT)
            over = transient and self._over(pending, self._breaker.pause(), retry_timeout)
            if transient and not over and (isinstance(error, _NOT_NOW) or pending.loads < MAX_LOADS):
                return None
            profile = self._lookups.stale_fallback(key) or unavailable(error, key)
        else:
            self._failing_since = None
            profile = loaded_profile(answer, Status.COALESCED if joined else Status.MISS, key)
        return self._lookups.observe(key, profile, pending.started)

    def _over(self, pending: _PendingKey, pause: float, retry_timeout: float) -> bool:
        """Return whether the retry timeout is over, or will be after the next pause."""
        now = self._timer()
        if self._failing_since is None or now - self._noticed > retry_timeout:
            self._failing_since = now
        self._noticed = now
        if pending.failing_since is None:
            pending.failing_since = now
        return now + pause >= min(pending.failing_since, self._failing_since) + retry_timeout

    def _queue(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues[loop] = asyncio.Lock()
        return queue

    def after_fork(self) -> None:
        """Forget the queues, in a forked child: they are the parent's."""
        self._queues = WeakKeyDictionary()


async def run_workers(work: Callable[[], Coroutine[object, object, None]], concurrency: int) -> None:
    """Run the same work in several tasks. The first failure cancels all, and is raised unchanged, not in a group."""
    tasks = [asyncio.create_task(work(), name="profile_enrich lookups") for _ in range(concurrency)]
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end
