"""How a lookup is decided: from the cache where it can be, else from the source."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable

from ..cache.cache import Entry, ProfileCache
from ..errors import CircuitOpen, InvalidKeyError, ProfileEnrichError, RateLimitReached, SourceError
from ..profile import Profile, ProfileKey, Reason, Status
from .hooks import Observer
from .loader import CacheKey, Loader, LoadResult
from .single_flight import Load

__all__ = ["Lookups", "Prefetch", "profile_from", "profile_of", "unavailable"]

Prefetch = Load[CacheKey, LoadResult]
"""A load that `prefetch` has started."""


class Lookups:
    """The asking half of a `ProfileClient`.

    Args:
        namespace: of the source.
        cache: what is known.
        loader: asks the source.
        observer: is told of each lookup.
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
        self._namespace = namespace
        self._cache = cache
        self._loader = loader
        self._observer = observer
        self._timer = timer

    async def get(self, key: str | ProfileKey, *, budget: float | None = None) -> Profile:
        """The profile of a key. Fails loud.

        Args:
            key: a primary key as a string, or a `ProfileKey`.
            budget: seconds to wait at most; `None` waits for the load, which ends by the client's `deadline`.

        Returns:
            The profile; empty and falsy when the source has none or excludes it (`profile.reason` says which).

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
        fresh = self.peek_fresh(key)
        if fresh is not None:
            return fresh
        started = time.perf_counter()
        try:
            question = ProfileKey.of(key)
        except InvalidKeyError as error:
            return self.observed(None, unavailable(error, None), started)
        profile = self.from_cache(question)
        if profile is None:
            profile = await self._from_source(question, budget, prefetch)
        return self.observed(question, profile, started)

    def lookup_cached(self, key: str | ProfileKey) -> Profile | None:
        """Like `lookup`, but answers only what needs no waiting; `None` means that the source has to be asked.

        A stale answer starts a refresh, so it must be called on the running loop.
        """
        fresh = self.peek_fresh(key)
        if fresh is not None:
            return fresh
        started = time.perf_counter()
        try:
            question = ProfileKey.of(key)
        except InvalidKeyError as error:
            return self.observed(None, unavailable(error, None), started)
        profile = self.from_cache(question)
        return None if profile is None else self.observed(question, profile, started)

    def peek(self, key: str | ProfileKey) -> Profile | None:
        """What the cache holds of a key, fresh or stale; `None` when it holds nothing. It never asks the source.

        It is not counted as a lookup, and works from any thread.

        Raises:
            InvalidKeyError: the key cannot be looked up.
        """
        question = ProfileKey.of(key)
        now = self._timer()
        entry = self._cache.get(self._loader.cache_key(question), now)
        return None if entry is None else self._overlaid(question, profile_of(entry, question, now))

    def stale_fallback(self, key: ProfileKey) -> Profile | None:
        """What the cache still holds of a key whose load has failed."""
        now = self._timer()
        entry = self._cache.get(self._loader.cache_key(key), now)
        return None if entry is None or entry.record is None else profile_of(entry, key, now)

    def prefetch(self, key: str | ProfileKey) -> Prefetch | None:
        """Starts to load a key unless it is in the cache or on its way. It must be called on the running loop.

        Returns:
            What to hand to the `lookup` that follows, so that it counts as the one that asked; `None` when no load was
            started (also because the key or the client is of no use; the lookup then says so).
        """
        with contextlib.suppress(ProfileEnrichError):
            question = ProfileKey.of(key)
            if self.from_cache(question) is None:
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
            self.observed(question, unavailable(error, question), started)
            raise
        return self.observed(question, profile_from(answer, Status.MISS, question), started)

    def skip(self, reason: Reason) -> Profile:
        """The empty profile of a lookup that is not made, because nobody is in session for example. It is counted."""
        observer = self._observer
        observer.count(Status.SKIPPED)
        if observer.hooks:
            observer.lookup("", Status.SKIPPED, reason, 0.0, None)
        return _SKIPPED[reason]

    # --- the decision -----------------------------------------------------------------------------------------------

    def peek_fresh(self, key: object) -> Profile | None:
        """A plain fresh hit, counted; `None` for all else. Any thread may call it. Kept as short as it can be."""
        if self._observer.hooks:
            return None
        if type(key) is str:
            return self._cache.fresh((self._namespace, "id", key), self._timer())
        if type(key) is ProfileKey:
            return self._cache.fresh((self._namespace, key.type, key.value), self._timer())
        return None

    def from_cache(self, key: ProfileKey) -> Profile | None:
        """What the cache answers, without the overlay and uncounted; a stale answer starts a refresh."""
        now = self._timer()
        cache_key = self._loader.cache_key(key)
        entry = self._cache.get(cache_key, now)
        if entry is None:
            return None
        if entry.record is None or now < entry.soft:
            return profile_of(entry, key, now)
        if now < entry.hard or entry.error is not None:
            # Past its hard expiry it only stands in for a source whose last answer was a failure.
            if now >= entry.retry_at and not self._loader.closed:
                with contextlib.suppress(CircuitOpen, RateLimitReached):
                    self._loader.join(key)
            return profile_of(entry, key, now)
        return None

    async def _from_source(self, key: ProfileKey, budget: float | None, own: Prefetch | None) -> Profile:
        try:
            flight, joined = self._loader.join(key)
            answer = await flight.wait(budget)
        except SourceError as error:
            return self.stale_fallback(key) or unavailable(error, key)
        except ProfileEnrichError as error:
            return unavailable(error, key)
        return profile_from(answer, Status.COALESCED if joined and flight is not own else Status.MISS, key)

    def _overlaid(self, key: ProfileKey, profile: Profile) -> Profile:
        """The profile with what was laid over it. An excluded or unavailable one stays as it is."""
        facts = profile._facts
        record = facts.record
        if record is None and facts.reason is not Reason.NOT_FOUND:
            return profile
        overlay = self._cache.overlay_of(self._loader.cache_key(key), self._timer())
        if overlay is None:
            return profile
        if record is not None:
            overlay = record.overlaid(overlay.attributes)
        return Profile(overlay, status=facts.status, error=facts.error, key=key)

    def observed(self, key: ProfileKey | None, profile: Profile, started: float) -> Profile:
        """The answer of a lookup that began at `started` (`time.perf_counter`): with its overlay, counted, and told."""
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


_SKIPPED = {reason: Profile(reason=reason) for reason in Reason}


def profile_of(entry: Entry, key: ProfileKey, now: float) -> Profile:
    """The answer that an entry gives at `now`."""
    if entry.record is not None:
        if now < entry.soft:
            return entry.view or Profile(entry.record, status=Status.HIT, key=key)
        return Profile(entry.record, status=Status.STALE, error=entry.error, key=key)
    if entry.error is not None:
        return unavailable(copy.copy(entry.error), key)
    return Profile(status=Status.NEGATIVE, reason=entry.reason, key=key)


def profile_from(answer: LoadResult, status: Status, key: ProfileKey) -> Profile:
    """The answer that a load has brought."""
    return Profile(answer.record, status=status, reason=answer.reason, key=key)


def unavailable(error: ProfileEnrichError, key: ProfileKey | None) -> Profile:
    """The answer when there is none."""
    status = Status.ERROR
    if isinstance(error, TimeoutError):  # the budget's, or the source's own
        status = Status.TIMEOUT
    elif isinstance(error, RateLimitReached):
        status = Status.SKIPPED
    return Profile(status=status, reason=Reason.UNAVAILABLE, error=error, key=key)
