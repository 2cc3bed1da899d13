"""`ProfileClient`: looks profiles up, composed of cache, loader, lookups and their policies."""

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
from .second_level_load import SharedLoads
from .source_policy import SourcePolicy
from .waiting_lookup import WaitingLookup, run_workers

__all__ = ["ProfileClient"]

logger = logging.getLogger("profile_enrich")


class ProfileClient:
    """Looks profiles up: in its cache, else from the source, once for all callers that ask at the same time.

    It opens nothing until the first lookup, belongs to no event loop, and may be made at import time, before a fork and
    outside of any loop.

    Args:
        source: where profiles come from.
        ttl: seconds for which a record is fresh. Default 60.
        stale_ttl: seconds after that in which it is served at once while one refresh runs. Default 600.
        negative_ttl: seconds for which a missing or excluded profile is remembered. Default 15.
        deadline: seconds that one load may take in all; no caller has to wait for it. Default 5.
        max_entries: known profiles kept. Default 50,000.
        max_bytes: roughly the memory they may take, in bytes. Default 256 MiB.
        follow_changes: remove at once what the source reports as changed, so that `ttl` can be an hour: for
            `CensusSource` and `AmperitySource` with the `base_url` of an embedded Profile API. Default false. While the
            change feed is lost, `ttl` alone counts.
        shared: a second cache level for all processes: `SharedCache("redis://...", secrets=[...])`. Default none.
        hooks: functions that are called with frozen `LookupDetails`, `LoadDetails` or `BreakerDetails`.
        cache_policy: the other times and bounds of the cache. Default `CachePolicy()`.
        source_policy: circuit breaker, retries and limits of the calls. Default `SourcePolicy()`.
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
        if not isinstance(source, ProfileSource):
            raise ConfigurationError(
                f"source must be a ProfileSource such as CensusSource(...), not {type(source).__name__}"
            )
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
        self._waiting = WaitingLookup(
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

    # --- one lookup -------------------------------------------------------------------------------------------------

    async def get(self, key: str | ProfileKey, *, budget: float | None = None) -> Profile:
        """Return the profile of a key, or raise.

        Args:
            key: a primary key as a string, or a `ProfileKey`.
            budget: seconds to wait at most; `None` waits for the load, which ends by the client's `deadline`.

        Returns:
            The profile; empty and falsy when the source has none or excludes it (`profile.reason` says which).

        Raises:
            InvalidKeyError: the key cannot be looked up.
            ConfigurationError: the source is set up wrong.
            BudgetExceeded: the budget ran out. The load goes on and fills the cache.
            SourceError: the source failed and the cache held nothing stale; the subclass says how.
            ClientClosed: the client was closed while the caller waited.
        """
        profile = await self.lookup(key, budget=budget)
        if profile.reason is Reason.UNAVAILABLE and profile.error is not None:
            raise profile.error
        return profile

    async def lookup(self, key: str | ProfileKey, *, budget: float | None = None) -> Profile:
        """Return the profile of a key. It never raises (but for the cancellation of the caller).

        Args:
            key: a primary key as a string, or a `ProfileKey`.
            budget: seconds to wait at most; `None` waits for the load, which ends by the client's `deadline`.

        Returns:
            The profile. `status` says how it was answered; with `Reason.UNAVAILABLE`, `error` says why not.
        """
        found = self._lookups.find(key)
        return found if isinstance(found, Profile) else await found.wait(budget)

    def find(self, key: str | ProfileKey) -> Profile | PendingLookup:
        """Answer a lookup from the cache, or return what is pending, without waiting.

        It is what integrations are built on. A stale answer starts a refresh, so it must be called on the running event
        loop. It never raises for a key or a source that fails.

        Args:
            key: a primary key as a string, or a `ProfileKey`.

        Returns:
            The profile, counted as a lookup; or a `PendingLookup`, whose `wait` asks the source. A pending lookup that
            is never waited for is not counted.
        """
        return self._lookups.find(key)

    def skip(self, reason: Reason) -> Profile:
        """Return the empty profile of a lookup that is not made (nobody is signed in, no consent), and count it.

        Args:
            reason: why it is not made.
        """
        return self._lookups.skip(reason)

    def peek(self, key: str | ProfileKey) -> Profile | None:
        """Return what the cache holds of a key, fresh or stale; `None` when it holds nothing. It never asks the source.

        It is not counted as a lookup, and works from any thread.

        Raises:
            InvalidKeyError: the key cannot be looked up.
        """
        return self._lookups.peek(ProfileKey.of(key))

    async def refresh(self, key: str | ProfileKey, *, budget: float | None = None) -> Profile:
        """Ask the source now, whatever the cache holds, and store the answer. What is cached stays until then.

        Args:
            key: a primary key as a string, or a `ProfileKey`.
            budget: seconds to wait at most; `None` waits for the load, which ends by the client's `deadline`.

        Returns:
            The new profile; empty and falsy when the source has none.

        Raises:
            InvalidKeyError, ConfigurationError, BudgetExceeded, SourceError, ClientClosed: as `get` does. What the
                cache holds stays as it is.
        """
        return await self._lookups.refresh(ProfileKey.of(key), budget)

    # --- many lookups -----------------------------------------------------------------------------------------------

    async def get_many(
        self, keys: Iterable[str | ProfileKey], *, budget: float | None = None, concurrency: int = 64
    ) -> dict[str | ProfileKey, Profile]:
        """Look up many keys, for a page: each once, and none beyond the budget.

        Keys for which the rate limit or the circuit breaker allows no call are skipped; `lookup_many` waits. One key's
        failure does not fail the others.

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
        """Look up many keys, for a pipeline: each once, however long the rate limit takes.

        A call that failed in a way that may pass is repeated; one that was refused for the moment (429, the circuit
        breaker is open) waits for its time. One key's failure does not fail the others.

        Args:
            keys: primary keys as strings, or `ProfileKey`s; repeated ones count once.
            concurrency: calls of the source at the same time, at most. Default 64.
            retry_timeout: seconds for which a failing source is waited for, since it last answered. Default 60; with 0
                nothing is repeated.

        Returns:
            A profile for each key, in the order of first appearance. `profile.error` says what failed.

        Raises:
            ConfigurationError: an argument is not usable, or the source is set up wrong.
            SourceAuthError: the vendor refuses the credentials, so that no key can be looked up.
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
        """The lookups that the cache cannot answer. Those that it can are answered on the way."""
        for key in profiles:
            found = self._lookups.find(key)
            if isinstance(found, Profile):
                profiles[key] = found
            else:
                yield key, found

    # --- invalidation -----------------------------------------------------------------------------------------------

    def invalidate(self, *keys: str | ProfileKey, tag: str | None = None) -> None:
        """Remove keys, or all profiles with a tag, at once. Loads under way are not stored. Any thread may call it.

        Args:
            keys: primary keys as strings, or `ProfileKey`s.
            tag: a tag that the source gave to records.

        Raises:
            InvalidKeyError: one of the keys is not usable; none of them was removed.
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
        """Lay attributes over a profile at once (read-your-writes), e.g. after a purchase unknown to the vendor.

        They replace the source's attributes of the same names, also in what is loaded meanwhile, and are the whole
        profile of a key that the source does not know. They are visible in this process, and with
        `shared` in every process once they are `acknowledged`; `invalidate` removes them.

        Args:
            key: a primary key as a string, or a `ProfileKey`.
            attributes: JSON-like; copied and frozen.
            ttl: seconds for which they are visible. Default 60.

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
        """Move the overlay of an anonymous visitor's key to that of the person who signed in; remove the rest of both.

        No loaded profile ever moves to another key, so it is safe on shared devices. Call it on sign-in only, never on
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
        """Return what was counted since the client was made, and what it holds now. It holds no personal data."""
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
        """Return whether lookups work, for a `/healthz` route: no call of the source, no personal data."""
        return Health(
            ok=self._breaker.state == "closed" and not self._loader.closed,
            closed=self._loader.closed,
            breaker=self._breaker.state,
            last_error=self._observer.last_error,
            feed=None if self._follower is None else self._follower.stats().state,
        )

    def blocking(self) -> BlockingProfileClient:
        """Return the same client for synchronous code, on an event loop in a thread of its own."""
        # Hooks are called on the loop of the client only.
        return BlockingProfileClient(self, _nothing if self._observer.hooks else self._lookups.fresh)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None]:
        """Warm the client up at the start of an application and close it at the end.

        `Starlette(lifespan=client.lifespan)`. Applications that share a client may enter it several times: the last one
        to end closes it. It can be entered again.
        """
        async with self:
            await self.warm_up()
            yield

    async def warm_up(self) -> bool:
        """Connect to the source before the first visitor comes: connection, token, entity or index.

        It takes at most `SourcePolicy.warm_up_timeout` seconds and never raises; a failure is logged. `lifespan` calls
        it, and so does the middleware where an application has a lifespan.

        Returns:
            Whether the source is ready. True for a source that has nothing to prepare.
        """
        source, timeout = self.source, self._warm_up_timeout
        if not timeout or not isinstance(source, WarmUpSource):
            return True
        try:
            async with asyncio.timeout(timeout):
                await source.warm_up(deadline=Deadline(timeout))
        except Exception as error:  # noqa: BLE001  # an application starts whatever a source does
            # The text of another library's error may quote a secret.
            why = error.message if isinstance(error, ProfileEnrichError) else type(error).__name__
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
        """Stop lookups, wait up to `close_timeout` seconds for loads under way, and close the source.

        Only what this package opened is closed; an HTTP client handed in stays open. A second call does nothing, and a
        later lookup opens the client again.
        """
        self._loader.closed = self._loader.closing = True
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._loader.closing = False
            return  # another kind of loop, such as trio's: no lookup was made on it
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
