"""Lookups that wait: for the rate limit, for a source that is being left alone, and for one that fails for a while.

A page is served without its profile when there is no call left; a record of a pipeline waits for its turn. Nothing is
started before its turn comes, so that a page that asks for the same key meanwhile meets no load that stands in a queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from weakref import WeakKeyDictionary

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
from .loader import CacheKey, Loader, LoadResult
from .lookup import Lookups, profile_from, unavailable
from .single_flight import Load

__all__ = ["HOPELESS", "WaitingLookup", "run_workers"]

HOPELESS = (SourceAuthError, ConfigurationError, ClientClosed)
"""What no other key and no later moment makes better: it ends a run."""

LOADS = 3
"""Loads of one key at most, while the source fails otherwise than by asking for time."""

_PASSING = (
    SourceConnectionError,
    SourceUnavailable,
    SourceRateLimited,
    SourceTimeout,
    SourceResponseError,  # such as an answer that was cut short, or a proxy's page
    CircuitOpen,
    RateLimitReached,
)
"""What may go better later. A lookup only reads, so that repeating it is safe."""

_NOT_NOW = (SourceRateLimited, CircuitOpen, RateLimitReached)
"""What asks for time and says nothing of this key: it is bounded in time alone."""

_LEAST = 0.01
"""The shortest sleep between two looks at the source's state, in seconds."""

_LOOK = 0.1
"""The longest that a queue sleeps while the source is left alone: another's try may end that sooner, in seconds."""

_BASE, _CAP = 0.1, 5.0
"""The longest pauses before the second load of a key, and before any, in seconds."""


class _PendingKey:
    """One key's way to an answer."""

    __slots__ = ("key", "loads", "place", "since", "started")

    def __init__(self, place: int, key: ProfileKey, started: float) -> None:
        self.place = place
        self.key = key
        self.started = started
        self.loads = 0
        self.since: float | None = None  # when it first met a failure


class WaitingLookup:
    """The waiting half of a `ProfileClient`.

    Args:
        lookups: decides what the cache answers.
        loader: asks the source.
        breaker: says when a source is left alone.
        batch_size: keys that one call takes; 1 where the source has no batches.
        timer: the monotonic clock of the client, in seconds.
        rng: random numbers in [0, 1).
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
        self._chance = rng
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        # Of the source, not of one key: since when nothing came back, and when that was last felt.
        self._since: float | None = None
        self._felt = 0.0

    async def lookup(self, keys: Sequence[ProfileKey], seconds: float) -> list[Profile]:
        """The profiles of some keys that one call could bring, in their order. None of them is in the cache.

        Args:
            keys: at most `batch_size` different ones.
            seconds: how long a source that fails is waited for, since it last answered. The rate limit is waited for
                however long it takes.

        Returns:
            A profile for each key; `profile.error` says what failed.

        Raises:
            SourceAuthError, ConfigurationError, ClientClosed: no key can be looked up any more.
        """
        profiles: dict[int, Profile] = {}
        rest = [_PendingKey(place, key, time.perf_counter()) for place, key in enumerate(keys)]
        while rest:
            flights: list[tuple[_PendingKey, Load[CacheKey, LoadResult], bool]] = []
            for question in rest:
                boarded = await self._board(question, seconds)
                if isinstance(boarded, Profile):
                    profiles[question.place] = boarded
                else:
                    flights.append((question, *boarded))
            rest = list[_PendingKey]()
            for question, flight, joined in flights:
                profile = await self._landed(question, flight, joined, seconds)
                if profile is None:
                    rest.append(question)
                else:
                    profiles[question.place] = profile
            if rest:
                loads = min(max(each.loads for each in rest), 60)  # a float has no more doublings than a thousand
                await asyncio.sleep(self._chance() * min(_CAP, _BASE * 2.0**loads))
        return [profiles[place] for place in range(len(keys))]

    async def _board(self, question: _PendingKey, seconds: float) -> Profile | tuple[Load[CacheKey, LoadResult], bool]:
        """The load of the key once there is one; or the profile, where that came otherwise or will not come."""
        key = question.key
        queue = self._queue()
        if not queue.locked():
            ready = self._ready(question)
            if ready is not None:
                return ready
            with contextlib.suppress(CircuitOpen, RateLimitReached):
                return self._loader.launch(key, patient=True), False
        async with queue:  # first come, first served; only the first one looks after the time
            while True:
                ready = self._ready(question)
                if ready is not None:
                    return ready
                try:
                    return self._loader.launch(key, patient=True), False
                except RateLimitReached as error:
                    pause = error.retry_after or 0.0
                except CircuitOpen as error:
                    pause = self._breaker.pause()
                    if self._over(question, pause, seconds):
                        return self._lookups.observed(key, unavailable(error, key), question.started)
                    pause = min(max(pause, _LEAST), _LOOK)
                await asyncio.sleep(pause)

    def _ready(self, question: _PendingKey) -> Profile | tuple[Load[CacheKey, LoadResult], bool] | None:
        """What others have brought, or are about to bring."""
        flight = self._loader.find(question.key)
        if flight is not None:
            return flight, True
        profile = self._lookups.from_cache(question.key)
        if profile is None or profile.reason is Reason.UNAVAILABLE:
            return None
        return self._lookups.observed(question.key, profile, question.started)

    async def _landed(
        self, question: _PendingKey, flight: Load[CacheKey, LoadResult], joined: bool, seconds: float
    ) -> Profile | None:
        """The profile; `None` when the load failed and another one may go better."""
        key = question.key
        try:
            answer = await flight.wait(None)
        except HOPELESS:
            raise
        except ProfileEnrichError as error:
            question.loads += 1
            passing = isinstance(error, _PASSING)
            over = passing and self._over(question, self._breaker.pause(), seconds)
            if passing and not over and (isinstance(error, _NOT_NOW) or question.loads < LOADS):
                return None
            profile = self._lookups.stale_fallback(key) or unavailable(error, key)
        else:
            self._since = None
            profile = profile_from(answer, Status.COALESCED if joined else Status.MISS, key)
        return self._lookups.observed(key, profile, question.started)

    def _over(self, question: _PendingKey, pause: float, seconds: float) -> bool:
        """Whether the source was waited for long enough, or will have been after the pause that is due."""
        now = self._timer()
        if self._since is None or now - self._felt > seconds:
            self._since = now
        self._felt = now
        if question.since is None:
            question.since = now
        return now + pause >= min(question.since, self._since) + seconds

    def _queue(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues[loop] = asyncio.Lock()
        return queue

    def after_fork(self) -> None:
        """In a forked child: the queues are the parent's."""
        self._queues = WeakKeyDictionary()


async def run_workers(work: Callable[[], Coroutine[object, object, None]], hands: int) -> None:
    """Runs the same work in so many tasks. The first failure ends them all and is raised as it is, not in a group."""
    tasks = [asyncio.create_task(work(), name="profile_enrich lookups") for _ in range(hands)]
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
