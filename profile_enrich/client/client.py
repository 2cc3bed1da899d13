"""`ProfileClient`: profile lookups, composed of cache, loader, lookup decision and policies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence

from .._utils.deadline import Deadline
from .._utils.validation import check_bool, check_int, check_number
from ..cache.cache import ProfileCache
from ..cache.cache_policy import CachePolicy
from ..cache.expiry import Expiry
from ..cache.shared.second_level import SecondLevel
from ..cache.shared.shared_cache import SharedCache
from ..cache.sweeper import Sweeper
from ..errors import ConfigurationError, ProfileEnrichError
from ..profile import Profile, ProfileKey, Reason, Record, Status
from ..sources.base import BatchSource, ProfileSource, WarmUpSource
from .blocking import BlockingProfileClient
from .breaker import Breaker
from .change_follower import Follower, FollowingSweeper, check_follows
from .hooks import Health, Hook, Observer, Stats
from .loader import CacheKey, Loader
from .lookup_decision import Lookups, PendingLookup
from .pipeline_lookup import PipelineLookup, run_workers
from .second_level_load import SharedLoads
from .source_policy import SourcePolicy

__all__ = ["ProfileClient"]

logger = logging.getLogger("profile_enrich")


class ProfileClient:
    """Look up profiles in a cache and, on a miss, in the source, with one call for concurrent lookups of a key.

    It opens no connection before the first lookup and is not bound to an event loop, so it can be made at import time,
    before a fork and outside of any loop.

    Args:
        source: the source of profiles.
        ttl: seconds for which a record is fresh. Default 60.
        stale_ttl: seconds after `ttl` in which a record is served stale while it is refreshed. Default 600.
        negative_ttl: seconds for which a missing or excluded profile is cached. Default 15.
        deadline: the time limit of one load including retries, in seconds. Callers can wait for less. Default 5.
        max_entries: the largest number of cached profiles. Default 50,000.
        max_bytes: the approximate memory of cached profiles, in bytes. Default 256 MiB.
        follow_changes: remove changed profiles immediately, so that `ttl` can be an hour. This needs an embedded
            Profile API as the `base_url` of the source. While the change feed is unavailable, only `ttl` applies.
            Default false.
        shared: a second cache level for all processes: `SharedCache("redis://...", secrets=[...])`. Default none.
        hooks: functions that are called with a `LookupDetails`, `LoadDetails` or `BreakerDetails`.
        cache_policy: further times and limits of the cache. Default `CachePolicy()`.
        source_policy: circuit breaker, retries and limits of calls. Default `SourcePolicy()`.
        timer: the monotonic clock of the cache, in seconds.

    Raises:
        ConfigurationError: an argument is not usable; the message names it.
    """

    def __init__(
        self,
        source: ProfileSource,
        *,
        ttl: float = 60.0,
        stale_ttl: float = 600.0,
        negative_ttl: float = 15.0,
        deadline: float = 5.0,
        max_entries: int = 50_000,
        max_bytes: int = 256 * 2**20,
        follow_changes: bool = False,
        shared: SharedCache | None = None,
        hooks: Sequence[Hook] = (),
        cache_policy: CachePolicy | None = None,
        source_policy: SourcePolicy | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(source, type) or not isinstance(source, ProfileSource):
            given = f"the class {source.__name__}" if isinstance(source, type) else type(source).__name__
            raise ConfigurationError(f"source must be a ProfileSource such as CensusSource(...), not {given}")
        cache_policy = CachePolicy() if cache_policy is None else cache_policy
        if not isinstance(cache_policy, CachePolicy):
            raise ConfigurationError(f"cache_policy must be a CachePolicy(...), not {type(cache_policy).__name__}")
        source_policy = SourcePolicy() if source_policy is None else source_policy
        if not isinstance(source_policy, SourcePolicy):
            raise ConfigurationError(f"source_policy must be a SourcePolicy(...), not {type(source_policy).__name__}")
        self.source = source
        expiry = Expiry(ttl=ttl, stale_ttl=stale_ttl, negative_ttl=negative_ttl, policy=cache_policy)
        self._cache: ProfileCache[CacheKey] = ProfileCache(
            max_entries=max_entries, max_bytes=max_bytes, policy=cache_policy, timer=timer
        )
        self._observer = Observer(source.name, hooks)
        if shared is not None and not isinstance(shared, SharedCache):
            raise ConfigurationError(f"shared must be a SharedCache(...), not {type(shared).__name__}")
        self._shared_cache = shared
        self._shared: SecondLevel | None = None
        if shared is not None:
            self._shared = shared.level(
                source.namespace, cache=self._cache, max_entry_bytes=cache_policy.max_entry_bytes, timer=timer
            )
        self._follower = (
            Follower(check_follows(source), self._cache, self._shared)
            if check_bool("follow_changes", follow_changes)
            else None
        )
        interval = cache_policy.sweep_interval
        self._sweeper = (
            Sweeper(self._cache, interval)
            if self._follower is None
            else FollowingSweeper(self._cache, interval, self._follower)
        )
        self._breaker = Breaker(timer=timer) if source_policy.breaker is None else source_policy.breaker
        self._breaker.on_change = self._observer.breaker
        self._loader = Loader(
            source,
            cache=self._cache,
            expiry=expiry,
            observer=self._observer,
            sweeper=self._sweeper,
            breaker=self._breaker,
            policy=source_policy,
            deadline=check_number("deadline", deadline, positive=True),
            timer=timer,
            shared=None if self._shared is None else SharedLoads(self._shared),
        )
        self._lookups = Lookups(
            source.namespace, cache=self._cache, loader=self._loader, observer=self._observer, timer=timer
        )
        self._waiting = PipelineLookup(
            self._lookups,
            loader=self._loader,
            breaker=self._breaker,
            batch_size=source.batch_size if isinstance(source, BatchSource) else 1,
            timer=timer,
        )
        self._close_timeout = source_policy.close_timeout
        self._warm_up_timeout = source_policy.warm_up_timeout
        self._owners = 0
        self._timer = timer
        for hook in self._observer.hooks:
            if (watch := getattr(hook, "watch", None)) is not None:
                watch(self)

    # --- one lookup -------------------------------------------------------------------------------------------------

    async def get(self, key: str | ProfileKey, *, budget: float | None = None) -> Profile:
        """Return the profile of a key, or raise.

        Args:
            key: a primary key as a string, or a `ProfileKey`.
            budget: the longest wait in seconds; `None` waits for the load, which ends by the client's `deadline`.

        Returns:
            The profile; empty and falsy if it is missing or excluded (see `profile.reason`).

        Raises:
            InvalidKeyError: the key cannot be looked up.
            ConfigurationError: the source is set up wrong.
            BudgetExceeded: the budget ran out. The load continues and fills the cache.
            SourceError: the source failed and the cache held nothing stale; the subclass says how.
            ClientClosed: the client was closed while the caller waited.
        """
        profile = await self.lookup(key, budget=budget)
        if profile.reason is Reason.UNAVAILABLE and profile.error is not None:
            raise profile.error
        return profile

    async def lookup(self, key: str | ProfileKey, *, budget: float | None = None) -> Profile:
        """Return the profile of a key. It never raises, except for cancellation.

        Args:
            key: a primary key as a string, or a `ProfileKey`.
            budget: the longest wait in seconds; `None` waits for the load, which ends by the client's `deadline`.

        Returns:
            The profile. `status` says how it was answered; with `Reason.UNAVAILABLE`, `error` says why not.
        """
        found = self._lookups.find(key)
        return found if isinstance(found, Profile) else await found.wait(budget)

    def find(self, key: str | ProfileKey) -> Profile | PendingLookup:
        """Return a cached profile, or a pending lookup, without waiting.

        Integrations are built on it. A stale profile starts a refresh, so call it on the running event loop. It never
        raises for an invalid key or a failing source.

        Args:
            key: a primary key as a string, or a `ProfileKey`.

        Returns:
            The profile, counted as a lookup; or a `PendingLookup`, whose `wait` loads it from the source. A pending
            lookup is counted when it is waited for.
        """
        return self._lookups.find(key)

    def skip(self, reason: Reason) -> Profile:
        """Count a skipped lookup (nobody is signed in, no consent) and return its empty profile.

        Args:
            reason: why the lookup is skipped.
        """
        return self._lookups.skip(reason)

    def peek(self, key: str | ProfileKey) -> Profile | None:
        """Return the cached profile of a key, fresh or stale, or `None`. It never calls the source.

        It is not counted as a lookup, and is thread-safe.

        Raises:
            InvalidKeyError: the key cannot be looked up.
        """
        return self._lookups.peek(ProfileKey.of(key))

    async def refresh(self, key: str | ProfileKey, *, budget: float | None = None) -> Profile:
        """Load a profile from the source even if it is cached. The cached profile stays until the load succeeds.

        Args:
            key: a primary key as a string, or a `ProfileKey`.
            budget: the longest wait in seconds; `None` waits for the load, which ends by the client's `deadline`.

        Returns:
            The new profile; empty and falsy if the source has none.

        Raises:
            InvalidKeyError, ConfigurationError, BudgetExceeded, SourceError, ClientClosed: as `get` does. What the
                cache holds stays as it is.
        """
        return await self._lookups.refresh(ProfileKey.of(key), budget)

    # --- many lookups -----------------------------------------------------------------------------------------------

    async def get_many(
        self, keys: Iterable[str | ProfileKey], *, budget: float | None = None, concurrency: int = 64
    ) -> dict[str | ProfileKey, Profile]:
        """Look up many keys for a page, within one budget.

        Keys are skipped if the rate limit or the circuit breaker allows no call; `lookup_many` waits. One key's failure
        does not affect the others.

        Args:
            keys: primary keys as strings, or `ProfileKey`s; repeated ones count once.
            budget: the longest wait for all keys together, in seconds.
            concurrency: the largest number of concurrent calls to the source. Default 64.

        Returns:
            A profile for each key, in order of first appearance; `profile.error` is the error of a failed one.

        Raises:
            ConfigurationError: `concurrency` is below 1.
        """
        workers = check_int("concurrency", concurrency)
        end = None if budget is None else Deadline(budget)
        profiles: dict[str | ProfileKey, Profile | None] = dict.fromkeys(keys)
        pending = self._pending(profiles)

        async def work(key: str | ProfileKey, lookup: PendingLookup) -> None:
            profiles[key] = await lookup._result(None if end is None else end.remaining())
            for key, lookup in pending:
                profiles[key] = await lookup.wait(None if end is None else end.remaining())

        async with asyncio.TaskGroup() as group:
            for key, lookup in itertools.islice(pending, workers):
                lookup.start()
                group.create_task(work(key, lookup))
        return {key: profile for key, profile in profiles.items() if profile is not None}

    async def lookup_many(
        self, keys: Iterable[str | ProfileKey], *, concurrency: int = 64, retry_timeout: float = 60.0
    ) -> dict[str | ProfileKey, Profile]:
        """Look up many keys for a pipeline, waiting for the rate limit.

        Transient failures are retried; if calls are temporarily rejected (429, open circuit breaker), it waits. One
        key's failure does not affect the others.

        Args:
            keys: primary keys as strings, or `ProfileKey`s; repeated ones count once.
            concurrency: the largest number of concurrent calls to the source. Default 64.
            retry_timeout: how long to retry a failing source after its last response, in seconds. Default 60; 0 for no
                retries.

        Returns:
            A profile for each key, in order of first appearance; `profile.error` is the error of a failed one.

        Raises:
            ConfigurationError: an argument is not usable, or the source is set up wrong.
            SourceAuthError: the vendor rejects the credentials, so no key can be looked up.
            ClientClosed: the client was closed meanwhile.
        """
        workers, seconds = check_int("concurrency", concurrency), check_number("retry_timeout", retry_timeout)
        profiles: dict[str | ProfileKey, Profile | None] = dict.fromkeys(keys)
        waiting = list(self._pending(profiles))
        rest, size = iter(waiting), self._waiting.batch_size

        async def work() -> None:
            while some := list(itertools.islice(rest, size)):
                answers = await self._waiting.lookup([lookup.key for _, lookup in some], seconds)
                profiles.update(zip((key for key, _ in some), answers, strict=True))

        await run_workers(work, min(workers, -(-len(waiting) // size)))
        return {key: profile for key, profile in profiles.items() if profile is not None}

    def _pending(
        self, profiles: dict[str | ProfileKey, Profile | None]
    ) -> Iterator[tuple[str | ProfileKey, PendingLookup]]:
        """Return the lookups that the cache cannot answer, and answer the others."""
        for key in profiles:
            found = self._lookups.find(key)
            if isinstance(found, Profile):
                profiles[key] = found
            else:
                yield key, found

    # --- invalidation -----------------------------------------------------------------------------------------------

    def invalidate(self, *keys: str | ProfileKey, tag: str | None = None) -> None:
        """Remove keys, or all profiles with a tag. Results of running loads are not stored. It is thread-safe.

        Args:
            keys: primary keys as strings, or `ProfileKey`s.
            tag: a tag set by the source.

        Raises:
            InvalidKeyError: one of the keys is invalid; none was removed.
        """
        questions = [ProfileKey.of(key) for key in keys]
        for question in questions:
            self._cache.invalidate(self._loader.cache_key(question))
        if tag is not None:
            self._cache.invalidate_tag(tag)
        if self._shared is not None:
            self._shared.invalidated(
                [(question.type, question.value) for question in questions], *([] if tag is None else [tag])
            )

    def clear(self) -> None:
        """Remove everything from the cache. Loads under way are not stored."""
        self._cache.clear()
        if self._shared is not None:
            self._shared.cleared()

    async def acknowledged(self, *, timeout: float = 2.0) -> None:
        """Wait until every process with the same `SharedCache` has made the changes that this one made before.

        That is what `invalidate`, `clear`, `overlay` and `rekey` changed. Without a shared cache it returns at once.

        Args:
            timeout: seconds to wait. Default 2.

        Raises:
            SharedCacheUnavailable: not within that time; the changes are repeated in the background until they arrive.
        """
        if self._shared_cache is not None:
            await self._shared_cache.acknowledged(check_number("timeout", timeout, positive=True))

    def overlay(self, key: str | ProfileKey, attributes: Mapping[str, object], *, ttl: float = 60.0) -> None:
        """Overlay attributes on a profile (read-your-writes), e.g. after a purchase that the vendor does not know yet.

        They replace the source's attributes of the same names, also in later loads, and are the whole profile of a key
        that is missing in the source. They are visible in this process and, with `shared`, in every process once
        `acknowledged` returns. `invalidate` removes them.

        Args:
            key: a primary key as a string, or a `ProfileKey`.
            attributes: JSON-like; copied and frozen.
            ttl: how long they are visible, in seconds. Default 60.

        Raises:
            InvalidKeyError: the key is not usable.
            ConfigurationError: `ttl` is no positive number.
            ValueError: the attributes are nested deeper than 64 levels.
        """
        question = ProfileKey.of(key)
        seconds = check_number("ttl", ttl, positive=True)
        record = Record(attributes, source=self.source.name)
        record.namespace = self.source.namespace
        self._cache.overlay(self._loader.cache_key(question), record, self._timer() + seconds)
        if self._shared is not None:
            self._shared.laid_over((question.type, question.value))

    def rekey(self, old: str | ProfileKey, new: str | ProfileKey) -> None:
        """Move an anonymous visitor's overlay to the key of the person who signed in; remove both cached profiles.

        Loaded profiles never move to another key, so it is safe on shared devices. Call it at sign-in, never at
        sign-out.

        Raises:
            InvalidKeyError: one of the keys is not usable.
        """
        before, after = ProfileKey.of(old), ProfileKey.of(new)
        self._cache.rekey(self._loader.cache_key(before), self._loader.cache_key(after))
        if self._shared is not None:
            self._shared.rekeyed((before.type, before.value), (after.type, after.value))

    # --- state ------------------------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Return counters and current sizes. They hold no personal data."""
        lookups = dict(self._observer.lookups)
        lookups[Status.HIT] += self._cache.hits
        return Stats(
            lookups=lookups,
            source_calls=self._observer.source_calls,
            source_errors=dict(self._observer.source_errors),
            breaker=self._breaker.state,
            in_flight=self._loader.loads.count,
            entries=self._cache.entries,
            negative_entries=self._cache.negative_entries,
            bytes=self._cache.bytes,
            feed=None if self._follower is None else self._follower.stats(),
            shared=None if self._shared is None else self._shared.stats(),
        )

    @property
    def transport(self) -> str | None:
        """The HTTP client that the source uses (`aiohttp`, `httpx2`, `httpx`); `None` for a source without HTTP."""
        name: str | None = getattr(self.source, "transport_name", None)
        return name

    def health(self) -> Health:
        """Return the health of lookups, for a `/healthz` route. It makes no call and holds no personal data."""
        return Health(
            ok=self._breaker.state == "closed" and not self._loader.closed,
            closed=self._loader.closed,
            breaker=self._breaker.state,
            last_error=self._observer.last_error,
            feed=None if self._follower is None else self._follower.stats().state,
        )

    def blocking(self) -> BlockingProfileClient:
        """Return this client for synchronous code, on an event loop in a separate thread."""
        # Hooks are called only on the client's loop.
        return BlockingProfileClient(self, _nothing if self._observer.hit_hooks else self._lookups.fresh)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None]:
        """Lifespan for an application: warm up the client at startup and close it at shutdown.

        Use it as `Starlette(lifespan=client.lifespan)`. Applications can share a client: the last one to end closes it.
        It can be entered again.
        """
        async with self:
            await self.warm_up()
            yield

    async def warm_up(self) -> bool:
        """Connect to the source before the first lookup: connection, token, entity or index.

        It takes up to `SourcePolicy.warm_up_timeout` seconds and never raises; a failure is logged. `lifespan` calls
        it, and so does the middleware if the application has a lifespan.

        Returns:
            True if the source is ready or needs no warm-up.
        """
        source, timeout = self.source, self._warm_up_timeout
        if not timeout or not isinstance(source, WarmUpSource):
            return True
        try:
            async with asyncio.timeout(timeout):
                await source.warm_up(deadline=Deadline(timeout))
        except Exception as error:  # noqa: BLE001  # an application starts whatever a source does
            # Other libraries' error messages may quote a secret.
            why = error.message if isinstance(error, ProfileEnrichError) else type(error).__name__
            if type(error) is TimeoutError:
                why = f"not connected within {timeout:g} s, the limit that SourcePolicy(warm_up_timeout=...) sets"
            logger.warning("%s: could not be warmed up (%s); the first lookups will take longer", source.name, why)
            return False
        return True

    async def __aenter__(self) -> ProfileClient:
        self._owners += 1
        self._loader.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._owners = max(0, self._owners - 1)
        if not self._owners:
            await self.aclose()

    async def aclose(self) -> None:
        """Stop lookups, wait up to `close_timeout` seconds for running loads, and close the source.

        An HTTP client that you passed stays open. A second call does nothing, and a later lookup opens the client
        again.
        """
        self._loader.closed = self._loader.closing = True
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._loader.closing = False
            return  # another kind of loop, such as trio's, on which no lookup can run
        if self._follower is not None:
            await self._follower.aclose()
        try:
            await self._loader.aclose(self._close_timeout)
            if self._shared is not None:
                await self._shared.aclose()
            await self.source.aclose()
        finally:
            self._loader.closing = False

    def __repr__(self) -> str:
        state = ", closed" if self._loader.closed else ""
        return f"<ProfileClient of {self.source.name}, {self._cache.entries} entries{state}>"


def _nothing(key: object) -> None:
    """Answer nothing in the calling thread."""
