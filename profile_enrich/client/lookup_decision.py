"""Lookup decision: serve from the cache (fresh or stale), or load from the source."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable

from ..cache.cache import Entry, ProfileCache
from ..errors import CircuitOpen, InvalidKeyError, ProfileEnrichError, RateLimitReached, SourceError
from ..profile import Profile, ProfileKey, Reason, Status
from .hooks import Observer
from .loader import CacheKey, Loader, LoadResult, ProfileLoad

__all__ = ["Lookups", "PendingLookup", "loaded_profile", "unavailable"]


class PendingLookup:
    """A lookup that needs the source, returned by `ProfileClient.find`.

    It has not started: call `wait`, or `start` and later `wait`. It belongs to one caller.

    Args:
        lookups: the client's lookup decision.
        key: the key.
        base: its cached entry.
        started: the start of the lookup, from `time.perf_counter`.
    """

    __slots__ = ("_base", "_ended", "_joined", "_load", "_lookups", "_started", "key")

    def __init__(self, lookups: Lookups, key: ProfileKey, base: Entry | None, started: float) -> None:
        self.key = key
        """The key of the lookup."""
        self._lookups = lookups
        self._base = base
        self._started = started
        self._ended = lookups.loader.ended
        self._load: ProfileLoad | None = None
        self._joined = False

    def start(self) -> None:
        """Start the load, or join a running one, without waiting. Call it on the running event loop.

        If no load can start (circuit breaker, rate limit, closed client), `wait` reports it.
        """
        if self._is_outdated():
            profile, self._base = self._lookups.decide(self.key)
            if profile is not None:
                return  # `wait` finds it
            self._ended = self._lookups.loader.ended
        with contextlib.suppress(ProfileEnrichError):
            self._load, self._joined = self._lookups.loader.join(self.key, self._base)

    async def wait(self, budget: float | None = None) -> Profile:
        """Wait for the profile. It never raises, except for cancellation.

        Args:
            budget: the longest wait in seconds; `None` waits for the load, which ends by the client's `deadline`.

        Returns:
            The profile. `status` says how it was answered; with `Reason.UNAVAILABLE`, `error` says why not.
        """
        if self._is_outdated():
            found = self._lookups.find(self.key)
            return found if isinstance(found, Profile) else await found.wait(budget)
        if self._load is not None:
            self._started = time.perf_counter()
        return await self._result(budget)

    def _is_outdated(self) -> bool:
        """Return whether the decision must be made again: the load ended, or before one started, any load did."""
        loader = self._lookups.loader
        return loader.ended != self._ended if self._load is None else not loader.is_under_way(self._load)

    async def _result(self, budget: float | None) -> Profile:
        """Return the profile of the load, and start it if necessary."""
        lookups, key = self._lookups, self.key
        try:
            if self._load is None:
                self._load, self._joined = lookups.loader.join(key, self._base)
            answer = await self._load.wait(budget)
            profile = loaded_profile(answer, Status.COALESCED if self._joined else Status.MISS, key)
        except SourceError as error:
            profile = lookups.stale_fallback(key) or unavailable(error, key)
        except ProfileEnrichError as error:
            profile = unavailable(error, key)
        return lookups.observe(key, profile, self._started)


class Lookups:
    """Decide lookups: return a cached profile, or a pending lookup.

    Args:
        namespace: the namespace of the source.
        cache: the cache of profiles.
        loader: the loader of profiles.
        observer: counts each lookup, and calls the hooks.
        timer: the monotonic clock of the cache, in seconds.
    """

    def __init__(
        self,
        namespace: str,
        *,
        cache: ProfileCache[CacheKey],
        loader: Loader,
        observer: Observer,
        timer: Callable[[], float],
    ) -> None:
        self.loader = loader
        self._namespace = namespace
        self._cache = cache
        self._observer = observer
        self._timer = timer

    def find(self, key: str | ProfileKey) -> Profile | PendingLookup:
        """Return a cached profile or a pending lookup; see `ProfileClient.find`."""
        observer = self._observer
        started = time.perf_counter() if observer.hit_hooks else 0.0
        fresh = self.fresh(key)
        if fresh is not None:
            if started and fresh.key is not None:  # the key of the cached view remembers its digest
                observer.lookup(fresh.key.digest(), Status.HIT, None, time.perf_counter() - started, None)
            return fresh
        started = started or time.perf_counter()
        try:
            question = ProfileKey.of(key)
        except InvalidKeyError as error:
            return self.observe(None, unavailable(error, None), started)
        profile, entry = self.decide(question)
        if profile is None:
            return PendingLookup(self, question, entry, started)
        return self.observe(question, profile, started)

    def fresh(self, key: object) -> Profile | None:
        """Return and count a fresh hit, without calling hooks; `None` otherwise.

        It is thread-safe.
        """
        if type(key) is str:
            return self._cache.fresh((self._namespace, "id", key), self._timer())
        if type(key) is ProfileKey:
            return self._cache.fresh((self._namespace, key.type, key.value), self._timer())
        return None

    def decide(self, key: ProfileKey) -> tuple[Profile | None, Entry | None]:
        """Read the cache once and decide whether to serve the entry.

        Returns:
            The profile, without overlay and uncounted, or `None` if the source must be called; and the cached entry.
            For a stale profile, a refresh was started.
        """
        now = self._timer()
        entry = self._cache.get(self.loader.cache_key(key), now)
        if entry is None:
            return None, None
        if entry.record is not None and now >= entry.refresh_at:
            # After `stale_until`, it is served only while the source fails.
            if now >= entry.stale_until and entry.error is None:
                return None, entry
            if now >= entry.retry_at and not self.loader.closed:  # a background refresh does not reopen a closed client
                with contextlib.suppress(CircuitOpen, RateLimitReached):
                    self.loader.refresh(key, entry)
        return _cached_profile(entry, key, now), entry

    def peek(self, key: ProfileKey) -> Profile | None:
        """Return the cached profile of a key with its overlay, uncounted; see `ProfileClient.peek`."""
        now = self._timer()
        entry = self._cache.get(self.loader.cache_key(key), now)
        return None if entry is None else self._overlaid(key, _cached_profile(entry, key, now))

    def stale_fallback(self, key: ProfileKey) -> Profile | None:
        """Return the stale profile of a key whose load has failed, if any."""
        now = self._timer()
        entry = self._cache.get(self.loader.cache_key(key), now)
        return None if entry is None or entry.record is None else _cached_profile(entry, key, now)

    async def refresh(self, key: ProfileKey, budget: float | None) -> Profile:
        """Load a key even if it is cached; see `ProfileClient.refresh`."""
        started = time.perf_counter()
        base = self._cache.get(self.loader.cache_key(key), self._timer())
        try:
            answer = await self.loader.launch(key, base).wait(budget)
        except ProfileEnrichError as error:
            self.observe(key, unavailable(error, key), started)
            raise
        return self.observe(key, loaded_profile(answer, Status.MISS, key), started)

    def skip(self, reason: Reason) -> Profile:
        """Return and count the empty profile of a skipped lookup; see `ProfileClient.skip`."""
        observer = self._observer
        observer.count(Status.SKIPPED)
        if observer.hooks:
            observer.lookup("", Status.SKIPPED, reason, 0.0, None)
        return _SKIPPED[reason]

    def observe(self, key: ProfileKey | None, profile: Profile, started: float) -> Profile:
        """Apply the overlay to a profile, count it and call the hooks; `started` is from `time.perf_counter`."""
        if key is not None:
            profile = self._overlaid(key, profile)
        observer = self._observer
        observer.count(profile.status)
        if observer.hooks:
            observer.lookup(
                "" if key is None else (profile.key or key).digest(),  # the key of a hit remembers its digest
                profile.status,
                profile.reason,
                time.perf_counter() - started,
                None if profile.error is None else profile.error.code,
            )
        return profile

    def _overlaid(self, key: ProfileKey, profile: Profile) -> Profile:
        """Return the profile with its overlay. An excluded or unavailable one has none."""
        facts = profile._facts
        record = facts.record
        if record is None and facts.reason is not Reason.NOT_FOUND:
            return profile
        overlay = self._cache.overlay_of(self.loader.cache_key(key), self._timer())
        if overlay is None:
            return profile
        if record is not None:
            overlay = record.overlaid(overlay.attributes)
        return Profile(overlay, status=facts.status, error=facts.error, key=key)


_SKIPPED = {reason: Profile(reason=reason) for reason in Reason}


def _cached_profile(entry: Entry, key: ProfileKey, now: float) -> Profile:
    """Return the profile of a cached entry at `now`."""
    if entry.record is not None:
        if now < entry.fresh_until:
            return entry.view or Profile(entry.record, status=Status.HIT, key=key)
        return Profile(entry.record, status=Status.STALE, error=entry.error, key=key)
    if entry.error is not None:
        return unavailable(copy.copy(entry.error), key)
    return Profile(status=Status.NEGATIVE, reason=entry.reason, key=key)


def loaded_profile(answer: LoadResult, status: Status, key: ProfileKey) -> Profile:
    """Return the profile of a finished load."""
    return Profile(answer.record, status=status, reason=answer.reason, key=key)


def unavailable(error: ProfileEnrichError, key: ProfileKey | None) -> Profile:
    """Return the empty profile of a lookup that failed."""
    status = Status.ERROR
    if isinstance(error, TimeoutError):  # the budget's, or the source's own
        status = Status.TIMEOUT
    elif isinstance(error, RateLimitReached):
        status = Status.SKIPPED
    return Profile(status=status, reason=Reason.UNAVAILABLE, error=error, key=key)
