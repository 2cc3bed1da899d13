"""The lookup core: source, cache, flights and limits put together."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any

from cachetools import Cache

from .._utils.deadline import Deadline
from .._utils.fork import reset_after_fork
from .._utils.validation import check_int, check_number
from ..cache.cache import ProfileCache
from ..cache.expiry import Expiry
from ..cache.sweeper import Sweeper
from ..errors import ConfigurationError
from ..profile import Profile, ProfileKey, Record, Status
from ..sources.base import BatchSource, ProfileSource
from .blocking import BlockingProfileClient
from .breaker import Breaker
from .change_follower import Follower, FollowingSweeper, check_follows
from .hooks import Health, Hook, Observer, Stats
from .loader import CacheKey, Loader
from .lookup import Lookups
from .rate_limit import RateLimit
from .retry import RetryPolicy
from .waiting import WaitingLookup, run_workers

__all__ = ["ProfileClient"]


class ProfileClient(Lookups):
    """Looks profiles up: from the cache where it can, else from the source, once for all who ask at the same time.

    It opens nothing until the first lookup, belongs to no event loop, and may be made at import time, before a fork and
    outside of any loop.

    Args:
        source: where profiles come from.
        ttl: seconds for which a record is fresh. Default 60.
        stale_ttl: seconds after that in which it is served at once while one refresh runs. Default 600.
        max_stale: seconds after `ttl` for which it may stand in for a source that fails. Default: `stale_ttl`.
        negative_ttl: seconds for which a missing or excluded profile is remembered. Default 15.
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
        breaker: when the source is left alone. Default `Breaker()`: for 5 seconds after 5 failures in a row.
        retry: when a failed call is repeated. Default `RetryPolicy()`: once, for at most a tenth of the calls.
        rate_limit: bounds the calls a second. Default none. A page never waits for it.
        max_in_flight: calls of the source at the same time, at most, on each event loop. Default 100.
        batch_window: seconds in which lookups gather for one call of a source that has batches. Default 0.002.
        cache: a cachetools cache to keep the known profiles in, instead of the built-in one (see `ProfileCache`).
        follow_changes: drop at once what the source says has changed, so that `ttl` can be an hour: for `CensusSource`
            and `AmperitySource` with the `base_url` of an embedded Profile API. Default false. While the feed is lost,
            `ttl` counts as always.
        hooks: called with frozen `LookupDetails`, `LoadDetails` or `BreakerDetails` (see `client.hooks`).
        sweep_every: seconds between two rounds that drop what has expired. Default 10.
        close_timeout: seconds that `aclose` waits for loads under way. Default 2.
        timer: the monotonic clock of the cache, in seconds.
        rng: random numbers in [0, 1), for the jitter.

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
        breaker: Breaker | None = None,
        retry: RetryPolicy | None = None,
        rate_limit: RateLimit | None = None,
        max_in_flight: int = 100,
        batch_window: float = 0.002,
        cache: Cache[Any, Any] | None = None,
        follow_changes: bool = False,
        hooks: Sequence[Hook] = (),
        sweep_every: float = 10.0,
        close_timeout: float = 2.0,
        timer: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] | None = None,
    ) -> None:
        if not isinstance(source, ProfileSource):
            raise ConfigurationError(
                f"source must be a ProfileSource such as CensusSource(...), not {type(source).__name__}"
            )
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
            **({} if rng is None else {"rng": rng}),
        )
        store: ProfileCache[CacheKey] = ProfileCache(
            max_entries=max_entries,
            max_bytes=max_bytes,
            max_entry_bytes=max_entry_bytes,
            max_negative_entries=max_negative_entries,
            store=cache,
            timer=timer,
        )
        observer = Observer(source.name, hooks)
        every = check_number("sweep_every", sweep_every, positive=True)
        self._follower = Follower(check_follows(source), store) if follow_changes else None
        self._sweeper = (
            Sweeper(store, every) if self._follower is None else FollowingSweeper(store, every, self._follower)
        )
        self._breaker = Breaker(timer=timer) if breaker is None else breaker
        self._breaker.on_change = observer.breaker
        loader = Loader(
            source,
            cache=store,
            expiry=expiry,
            observer=observer,
            sweeper=self._sweeper,
            breaker=self._breaker,
            retry=RetryPolicy() if retry is None else retry,
            rate_limit=rate_limit,
            max_in_flight=check_int("max_in_flight", max_in_flight),
            batch_window=check_number("batch_window", batch_window),
            deadline=check_number("deadline", deadline, positive=True),
            timer=timer,
        )
        super().__init__(source.namespace, cache=store, loader=loader, observer=observer, timer=timer)
        self._patience = WaitingLookup(
            self,
            loader=loader,
            breaker=self._breaker,
            batch_size=source.batch_size if isinstance(source, BatchSource) else 1,
            timer=timer,
        )
        self._close_timeout = check_number("close_timeout", close_timeout, positive=True)
        reset_after_fork(self)

    # --- many lookups -----------------------------------------------------------------------------------------------

    async def get_many(
        self, keys: Iterable[str | ProfileKey], *, budget: float | None = None, concurrency: int = 64
    ) -> dict[str | ProfileKey, Profile]:
        """The profiles of many keys, for a page: each looked up once, none waited for beyond the budget.

        What the rate limit or the breaker has no call for is skipped; `lookup_many` waits. One key's failure does not
        fail the others.

        Args:
            keys: primary keys as strings, or `ProfileKey`s; repeated ones count once.
            budget: seconds to wait at most, for all of them together.
            concurrency: calls of the source at the same time, at most. Default 64.

        Returns:
            A profile for each key, in the order of first appearance. `profile.error` says what failed.

        Raises:
            ConfigurationError: `concurrency` is below 1.
        """
        workers = check_int("concurrency", concurrency)
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
            for _ in range(min(workers, len(waiting))):
                group.create_task(work())
        return {key: profile for key, profile in profiles.items() if profile is not None}

    async def lookup_many(
        self, keys: Iterable[str | ProfileKey], *, concurrency: int = 64, retry_timeout: float = 60.0
    ) -> dict[str | ProfileKey, Profile]:
        """The profiles of many keys, for a pipeline: each looked up once, however long the rate limit takes.

        A call that failed in a way that may pass is repeated; one that was refused for the moment (429, the breaker is
        open) waits for its time. One key's failure does not fail the others.

        Args:
            keys: primary keys as strings, or `ProfileKey`s; repeated ones count once.
            concurrency: calls of the source at the same time, at most. Default 64.
            retry_timeout: seconds for which a source that fails is waited for, since it last answered. Default 60;
                with 0 nothing is repeated.

        Returns:
            A profile for each key, in the order of first appearance. `profile.error` says what failed.

        Raises:
            ConfigurationError: an argument makes no sense, or the source is set up wrong.
            SourceAuthError: the vendor refuses the credentials, so that no key can be looked up.
            ClientClosed: the client was closed.
        """
        workers, seconds = check_int("concurrency", concurrency), check_number("retry_timeout", retry_timeout)
        profiles: dict[str | ProfileKey, Profile | None] = dict.fromkeys(keys)
        waiting: list[str | ProfileKey] = []
        for key in profiles:
            profiles[key] = self.lookup_cached(key)
            if profiles[key] is None:
                waiting.append(key)
        rest, size = iter(waiting), self._patience.batch_size

        async def work() -> None:
            while some := list(itertools.islice(rest, size)):
                answers = await self._patience.lookup([ProfileKey.of(key) for key in some], seconds)
                profiles.update(zip(some, answers, strict=True))

        await run_workers(work, min(workers, -(-len(waiting) // size)))
        return {key: profile for key, profile in profiles.items() if profile is not None}

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

    def overlay(self, key: str | ProfileKey, attributes: Mapping[str, object], *, ttl: float = 60.0) -> None:
        """Lays attributes over a profile at once: read-your-writes after a purchase, before the vendor has it.

        They replace the source's attributes of the same names, also in what is loaded meanwhile, and make up the whole
        profile of a key that the source does not know. They show in this process only; `invalidate` removes them.

        Args:
            key: a primary key as a string, or a `ProfileKey`.
            attributes: JSON-like; copied and frozen.
            ttl: seconds after which the source's own word counts again. Default 60.

        Raises:
            InvalidKeyError: the key is not usable.
            ConfigurationError: `ttl` is no positive number.
            ValueError: the attributes are nested deeper than 64 levels.
        """
        question = ProfileKey.of(key)
        until = self._timer() + check_number("ttl", ttl, positive=True)
        self._cache.overlay(self._loader.cache_key(question), Record(attributes, source=self.source.name), until)

    def rekey(self, old: str | ProfileKey, new: str | ProfileKey) -> None:
        """On sign-in, from an anonymous visitor's key to the known one: moves the overlay, and drops the rest of both.

        Nothing of a known person ever moves to another key, so it is safe on devices that people share; call it on
        sign-in only, never on sign-out.

        Raises:
            InvalidKeyError: one of the keys is not usable.
        """
        self._cache.rekey(self._loader.cache_key(ProfileKey.of(old)), self._loader.cache_key(ProfileKey.of(new)))

    # --- state ------------------------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """What was counted since the client was made, and what it holds now. Free of personal data."""
        lookups = dict(self._observer.lookups)
        lookups[Status.HIT] += self._cache.hits
        return Stats(
            lookups=lookups,
            source_calls=self._observer.source_calls,
            source_errors=dict(self._observer.source_errors),
            breaker=self._breaker.state,
            in_flight=self._loader.flights.count,
            entries=self._cache.entries,
            negative_entries=self._cache.negative_entries,
            bytes=self._cache.bytes,
            feed=None if self._follower is None else self._follower.stats(),
        )

    @property
    def transport(self) -> str | None:
        """Which HTTP client the source uses (`aiohttp`, `httpx2`, `httpx`); `None` for a source without HTTP."""
        name: str | None = getattr(self.source, "transport_name", None)
        return name

    def health(self) -> Health:
        """Whether lookups work, for a `/healthz` route: cheap, without a call of the source, free of personal data."""
        return Health(
            ok=self._breaker.state == "closed" and not self._loader.closed,
            closed=self._loader.closed,
            breaker=self._breaker.state,
            last_error=self._observer.last_error,
            feed=None if self._follower is None else self._follower.stats().state,
        )

    def blocking(self) -> BlockingProfileClient:
        """The same client for synchronous code, on an event loop in a thread of its own."""
        return BlockingProfileClient(self)

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
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return  # another kind of loop, such as trio's: no lookup was made on it
        if self._follower is not None:
            await self._follower.aclose()
        await self._loader.aclose(self._close_timeout)
        await self.source.aclose()

    def __repr__(self) -> str:
        state = ", closed" if self._loader.closed else ""
        return f"<ProfileClient of {self.source.name}, {self._cache.entries} entries{state}>"

    def after_fork(self) -> None:
        """In a forked child: lets go of the parent's loads and timers, and keeps the cache. Called by itself."""
        self._loader.after_fork()
        self._patience.after_fork()
        self._cache.renew_lock()
        self._observer.renew_lock()
        self._sweeper.forget()
