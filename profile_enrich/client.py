"""The lookup core: source, cache and flights together. The only place where a lookup is decided."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any

from cachetools import Cache

from ._deadline import Deadline
from ._fork import renew_after_fork
from ._sweeper import Sweeper
from .cache import Entry, ProfileCache
from .errors import ConfigurationError, InvalidKeyError, ProfileEnrichError, SourceError
from .expiry import Expiry
from .flights import Flight
from .hooks import Hook, Observer, Stats
from .loads import Answer, CacheKey, Loader
from .profile import Profile, ProfileKey, Reason, Status
from .sources.base import ProfileSource

__all__ = ["Prefetch", "ProfileClient"]

Prefetch = Flight[CacheKey, Answer]
"""A load that `prefetch` has started."""


class ProfileClient:
    """Looks profiles up: from the cache where it can, else from the source, once for all who ask at the same time.

    It opens nothing until the first lookup, belongs to no event loop, and may be made at import time, before a fork and
    outside of any loop.

    Args:
        source: where profiles come from.
        ttl: seconds for which a record is fresh. Default 60.
        stale_ttl: seconds after that in which it is served at once while one refresh runs. Default 600.
        max_stale: seconds after `ttl` for which it may stand in for a source that fails. Default: `stale_ttl`.
        negative_ttl: seconds for which a missing or withheld profile is remembered. Default 15.
        error_ttl: seconds for which a failure is remembered. Default 0: not beyond the load itself.
        throttle: after a failed refresh, seconds before the next one of that key. Default 5.
        min_ttl: the shortest `ttl` that an upstream's `max-age` can set, in seconds. Default 1.
        max_ttl: the longest, in seconds. Default 3600.
        respect_cache_control: whether upstream `max-age` and `no-store` count. Default true.
        jitter: spreads each entry's times by this fraction up and down. Default 0.1.
        deadline: seconds that one load may take in all; nobody has to wait for it. Default 5.
        max_entries: known profiles kept. Default 50,000.
        max_bytes: roughly the memory they may take, in bytes. Default 256 MiB.
        max_entry_bytes: a larger profile is served but not kept. Default 1 MiB.
        max_negative_entries: unknown keys kept, apart from the known ones. Default 10,000.
        cache: a cachetools cache to keep the known profiles in, instead of the built-in LRU (see `ProfileCache`).
        hooks: called with a frozen `LookupDetails` or `FlightDetails` for each lookup and each call of the source.
        sweep_every: seconds between two rounds that drop what has expired. Default 10.
        close_timeout: seconds that `aclose` waits for loads under way. Default 2.
        timer: the monotonic clock of the cache, in seconds.
        chance: random numbers in [0, 1), for the jitter.

    Raises:
        ConfigurationError: an argument is not usable; the message names it.
    """

    def __init__(
        self,
        source: ProfileSource,
        *,
        ttl: float = 60.0,
        stale_ttl: float = 600.0,
        max_stale: float | None = None,
        negative_ttl: float = 15.0,
        error_ttl: float = 0.0,
        throttle: float = 5.0,
        min_ttl: float = 1.0,
        max_ttl: float = 3600.0,
        respect_cache_control: bool = True,
        jitter: float = 0.1,
        deadline: float = 5.0,
        max_entries: int = 50_000,
        max_bytes: int = 256 * 2**20,
        max_entry_bytes: int = 2**20,
        max_negative_entries: int = 10_000,
        cache: Cache[Any, Any] | None = None,
        hooks: Sequence[Hook] = (),
        sweep_every: float = 10.0,
        close_timeout: float = 2.0,
        timer: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] | None = None,
    ) -> None:
        if not isinstance(source, ProfileSource):
            raise ConfigurationError(
                f"source must be a ProfileSource such as CensusSource(...), not {type(source).__name__}"
            )
        for name, value in (("deadline", deadline), ("sweep_every", sweep_every), ("close_timeout", close_timeout)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigurationError(f"{name} must be a positive number of seconds, not {value!r}")
        self.source = source
        expiry = Expiry(
            ttl=ttl,
            stale_ttl=stale_ttl,
            max_stale=max_stale,
            negative_ttl=negative_ttl,
            error_ttl=error_ttl,
            throttle=throttle,
            min_ttl=min_ttl,
            max_ttl=max_ttl,
            respect_cache_control=respect_cache_control,
            jitter=jitter,
            **({} if chance is None else {"chance": chance}),
        )
        self._cache: ProfileCache[CacheKey] = ProfileCache(
            max_entries=max_entries,
            max_bytes=max_bytes,
            max_entry_bytes=max_entry_bytes,
            max_negative_entries=max_negative_entries,
            store=cache,
            timer=timer,
        )
        self._observer = Observer(source.name, hooks)
        self._sweeper = Sweeper(self._cache, sweep_every)
        self._loader = Loader(
            source,
            cache=self._cache,
            expiry=expiry,
            observer=self._observer,
            sweeper=self._sweeper,
            deadline=deadline,
            timer=timer,
        )
        self._namespace = source.namespace
        self._close_timeout = close_timeout
        self._timer = timer
        renew_after_fork(self)

    # --- lookups ----------------------------------------------------------------------------------------------------

    async def get(self, key: str | ProfileKey, *, budget: float | None = None) -> Profile:
        """The profile of a key. Fails loud.

        Args:
            key: a primary key as a string, or a `ProfileKey`.
            budget: seconds to wait at most; `None` waits for the load, which ends by the client's `deadline`.

        Returns:
            The profile; empty and falsy when the source has none or withholds it (`profile.reason` says which).

        Raises:
            InvalidKeyError: the key cannot be looked up.
            ConfigurationError: the source is set up wrong.
            BudgetExceeded: the budget ran out. The load goes on and fills the cache.
            SourceError: the source failed and nothing stale was at hand; the subclass says how.
            ClientClosed: the client was closed.
        """
        profile = await self.lookup(key, budget=budget)
        if profile.reason is Reason.UNAVAILABLE and profile.error is not None:
            raise profile.error
        return profile

    async def lookup(
        self, key: str | ProfileKey, *, budget: float | None = None, prefetch: Prefetch | None = None
    ) -> Profile:
        """The profile of a key. Never raises (but for the cancellation of the caller).

        Args:
            key: a primary key as a string, or a `ProfileKey`.
            budget: seconds to wait at most; `None` waits for the load, which ends by the client's `deadline`.
            prefetch: what `prefetch` returned for the same key.

        Returns:
            The profile. `status` says how it was answered; with `Reason.UNAVAILABLE`, `error` says why not.
        """
        fresh = self._fresh(key)
        if fresh is not None:
            return fresh
        started = time.perf_counter()
        try:
            question = ProfileKey.of(key)
        except InvalidKeyError as error:
            return self._observed(None, _unavailable(error, None), started)
        profile = self._from_cache(question)
        if profile is None:
            profile = await self._from_source(question, budget, prefetch)
        return self._observed(question, profile, started)

    async def get_many(
        self, keys: Iterable[str | ProfileKey], *, budget: float | None = None, concurrency: int = 64
    ) -> dict[str | ProfileKey, Profile]:
        """The profiles of many keys, each looked up once. One key's failure does not fail the others.

        Args:
            keys: primary keys as strings, or `ProfileKey`s; repeated ones count once.
            budget: seconds to wait at most, for all of them together.
            concurrency: calls of the source at the same time, at most. Default 64.

        Returns:
            A profile for each key, in the order of first appearance. `profile.error` says what failed.

        Raises:
            ConfigurationError: `concurrency` is below 1.
        """
        if concurrency < 1:
            raise ConfigurationError(f"concurrency must be at least 1, not {concurrency}")
        end = None if budget is None else Deadline(budget)
        profiles: dict[str | ProfileKey, Profile | None] = dict.fromkeys(keys)
        waiting: list[str | ProfileKey] = []
        for key in profiles:
            profiles[key] = self.lookup_cached(key)
            if profiles[key] is None:
                waiting.append(key)
        rest = iter(waiting)

        async def work() -> None:
            for key in rest:
                profiles[key] = await self.lookup(key, budget=None if end is None else end.remaining())

        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(waiting))):
                group.create_task(work())
        return {key: profile for key, profile in profiles.items() if profile is not None}

    def lookup_cached(self, key: str | ProfileKey) -> Profile | None:
        """Like `lookup`, but answers only what needs no waiting; `None` means that the source has to be asked.

        A stale answer starts a refresh, so it must be called on the running loop.
        """
        fresh = self._fresh(key)
        if fresh is not None:
            return fresh
        started = time.perf_counter()
        try:
            question = ProfileKey.of(key)
        except InvalidKeyError as error:
            return self._observed(None, _unavailable(error, None), started)
        profile = self._from_cache(question)
        return None if profile is None else self._observed(question, profile, started)

    def skip(self, reason: Reason) -> Profile:
        """The empty profile of a lookup that is not made, because nobody is in session for example. It is counted."""
        return self._observed(None, Profile(reason=reason), time.perf_counter())

    def peek(self, key: str | ProfileKey) -> Profile | None:
        """What the cache holds of a key, fresh or stale; `None` when it holds nothing. It never asks the source.

        It is not counted as a lookup, and works from any thread.

        Raises:
            InvalidKeyError: the key cannot be looked up.
        """
        question = ProfileKey.of(key)
        now = self._timer()
        entry = self._cache.get(self._loader.cache_key(question), now)
        return None if entry is None else _profile_of(entry, question, now)

    def prefetch(self, key: str | ProfileKey) -> Prefetch | None:
        """Starts to load a key unless it is in the cache or on its way. It must be called on the running loop.

        Returns:
            What to hand to the `lookup` that follows, so that it counts as the one that asked; `None` when no load was
            started (also because the key or the client is of no use; the lookup then says so).
        """
        with contextlib.suppress(ProfileEnrichError):
            question = ProfileKey.of(key)
            if self._from_cache(question) is None:
                flight, joined = self._loader.join(question)
                return None if joined else flight
        return None

    async def refresh(self, key: str | ProfileKey, *, budget: float | None = None) -> Profile:
        """Asks the source now, whatever the cache holds, and stores the answer. What is there stays until then.

        Args:
            key: a primary key as a string, or a `ProfileKey`.
            budget: seconds to wait at most; `None` waits for the load, which ends by the client's `deadline`.

        Returns:
            The new profile; empty and falsy when the source has none.

        Raises:
            InvalidKeyError, ConfigurationError, BudgetExceeded, SourceError, ClientClosed: as `get` does. What the
                cache holds stays as it is.
        """
        started = time.perf_counter()
        question = ProfileKey.of(key)
        try:
            answer = await self._loader.launch(question).wait(budget)
        except ProfileEnrichError as error:
            self._observed(question, _unavailable(error, question), started)
            raise
        return self._observed(question, _profile_from(answer, Status.MISS, question), started)

    # --- invalidation -----------------------------------------------------------------------------------------------

    def invalidate(self, *keys: str | ProfileKey, tag: str | None = None) -> None:
        """Drops keys, or all profiles with a tag, at once. Loads under way are not stored. Any thread may call it.

        Raises:
            InvalidKeyError: one of the keys is not usable; none of them was dropped.
        """
        for question in [ProfileKey.of(key) for key in keys]:
            self._cache.invalidate(self._loader.cache_key(question))
        if tag is not None:
            self._cache.invalidate_tag(tag)

    def clear(self) -> None:
        """Drops everything from the cache. Loads that are under way are not stored."""
        self._cache.clear()

    # --- state ------------------------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """What was counted since the client was made, and what it holds now. Free of personal data."""
        lookups = dict(self._observer.lookups)
        lookups[Status.HIT] += self._cache.hits
        return Stats(
            lookups=lookups,
            source_calls=self._observer.source_calls,
            source_errors=dict(self._observer.source_errors),
            in_flight=self._loader.flights.count,
            entries=self._cache.entries,
            negative_entries=self._cache.negative_entries,
            bytes=self._cache.bytes,
        )

    @property
    def transport(self) -> str | None:
        """Which HTTP client the source uses (`aiohttp`, `httpx2`, `httpx`); `None` for a source without HTTP."""
        name: str | None = getattr(self.source, "transport_name", None)
        return name

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None]:
        """For `Starlette(lifespan=client.lifespan)`: closes the client when the app shuts down. Re-entrant later."""
        async with self:
            yield

    async def __aenter__(self) -> ProfileClient:
        self._loader.closed = False
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Takes no more lookups, waits up to `close_timeout` seconds for loads under way, and closes the source.

        Only what this package opened is closed; an HTTP client handed in stays open. A second call does nothing.
        """
        self._loader.closed = True
        self._sweeper.stop()
        await self._loader.flights.aclose(self._close_timeout)
        await self.source.aclose()

    def __repr__(self) -> str:
        state = ", closed" if self._loader.closed else ""
        return f"<ProfileClient of {self.source.name}, {self._cache.entries} entries{state}>"

    # --- how a lookup is decided ------------------------------------------------------------------------------------

    def _fresh(self, key: object) -> Profile | None:
        """The way of most lookups, kept as short as it can be. What is not a plain fresh hit goes the other ways."""
        if self._observer.hooks:
            return None
        if type(key) is str:
            return self._cache.fresh((self._namespace, "id", key), self._timer())
        if type(key) is ProfileKey:
            return self._cache.fresh((self._namespace, key.type, key.value), self._timer())
        return None

    def _from_cache(self, key: ProfileKey) -> Profile | None:
        now = self._timer()
        cache_key = self._loader.cache_key(key)
        entry = self._cache.get(cache_key, now)
        if entry is None:
            return None
        if entry.record is None or now < entry.soft:
            return _profile_of(entry, key, now)
        if now < entry.hard or entry.error is not None:
            # Past its hard expiry it only stands in for a source whose last answer was a failure.
            if now >= entry.retry_at and not self._loader.closed:
                self._loader.join(key)
            return _profile_of(entry, key, now)
        return None

    async def _from_source(self, key: ProfileKey, budget: float | None, own: Prefetch | None) -> Profile:
        try:
            flight, joined = self._loader.join(key)
            answer = await flight.wait(budget)
        except SourceError as error:
            now = self._timer()
            entry = self._cache.get(self._loader.cache_key(key), now)
            if entry is not None and entry.record is not None:
                return _profile_of(entry, key, now)
            return _unavailable(error, key)
        except ProfileEnrichError as error:
            return _unavailable(error, key)
        return _profile_from(answer, Status.COALESCED if joined and flight is not own else Status.MISS, key)

    def _observed(self, key: ProfileKey | None, profile: Profile, started: float) -> Profile:
        observer = self._observer
        observer.count(profile.status)
        if observer.hooks:
            observer.lookup(
                "" if key is None else key.digest(),
                profile.status,
                profile.reason,
                time.perf_counter() - started,
                None if profile.error is None else profile.error.code,
            )
        return profile

    def after_fork(self) -> None:
        """In a forked child: lets go of the parent's loads and timers, and keeps the cache. Called by itself."""
        self._loader.flights.forget()
        self._cache.renew_lock()
        self._observer.renew_lock()
        self._sweeper.forget()


def _profile_of(entry: Entry, key: ProfileKey, now: float) -> Profile:
    if entry.record is not None:
        if now < entry.soft:
            return entry.view or Profile(entry.record, status=Status.HIT, key=key)
        return Profile(entry.record, status=Status.STALE, error=entry.error, key=key)
    if entry.error is not None:
        return _unavailable(copy.copy(entry.error), key)
    return Profile(status=Status.NEGATIVE, reason=entry.reason, key=key)


def _profile_from(answer: Answer, status: Status, key: ProfileKey) -> Profile:
    return Profile(answer.record, status=status, reason=answer.reason, key=key)


def _unavailable(error: ProfileEnrichError, key: ProfileKey | None) -> Profile:
    # BudgetExceeded and the source's own time-out are both a TimeoutError.
    status = Status.TIMEOUT if isinstance(error, TimeoutError) else Status.ERROR
    return Profile(status=status, reason=Reason.UNAVAILABLE, error=error, key=key)
