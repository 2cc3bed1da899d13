"""Expiry of cache entries: times to live, their limits and jitter."""

from __future__ import annotations

from .._utils.validation import check_number
from ..errors import ConfigurationError, ProfileEnrichError
from ..profile import Reason, Record
from ..sources.freshness import Freshness
from .cache_policy import CachePolicy
from .storage import Entry

__all__ = ["Expiry"]


class Expiry:
    """Make cache entries with their expiry times.

    Args:
        ttl: seconds for which a record is fresh.
        stale_ttl: seconds after `ttl` in which it is served while a refresh runs.
        negative_ttl: seconds for which a missing or excluded profile is cached.
        policy: further times.

    Raises:
        ConfigurationError: a time is negative or not a number, or the times contradict each other.
    """

    __slots__ = ("_max_stale", "_policy", "_stale_ttl", "_ttl", "negative_ttl")

    def __init__(
        self,
        *,
        ttl: float = 60.0,
        stale_ttl: float = 600.0,
        negative_ttl: float = 15.0,
        policy: CachePolicy | None = None,
    ) -> None:
        self._ttl = check_number("ttl", ttl)
        self._stale_ttl = check_number("stale_ttl", stale_ttl)
        self.negative_ttl = check_number("negative_ttl", negative_ttl)
        self._policy = policy or CachePolicy()
        if ttl == 0:
            raise ConfigurationError("ttl must be more than 0 seconds; a lookup without a cache is source.fetch()")
        self._max_stale = stale_ttl if self._policy.max_stale is None else self._policy.max_stale
        if self._max_stale < stale_ttl:
            raise ConfigurationError(f"max_stale ({self._max_stale:g} s) must not be below stale_ttl ({stale_ttl:g} s)")

    @property
    def throttle(self) -> float:
        """The delay of the next refresh after a failed one, in seconds."""
        return self._policy.throttle

    @property
    def error_ttl(self) -> float:
        """How long a failure is cached, in seconds."""
        return self._policy.error_ttl

    def keeps(self, freshness: Freshness) -> bool:
        """Return whether the response may be stored."""
        return not (self._policy.respect_cache_control and freshness.no_store)

    def known(self, record: Record, freshness: Freshness, tags: frozenset[str], now: float) -> Entry:
        """Make the entry of a record.

        An upstream's positive `max-age` replaces `ttl`, within `min_ttl` and `max_ttl`. `max-age=0` is ignored, because
        web frameworks add it to every response by default.
        """
        ttl = self._ttl
        if self._policy.respect_cache_control and freshness.max_age:
            ttl = min(max(freshness.max_age, self._policy.min_ttl), self._policy.max_ttl)
        factor = self._factor()
        return Entry(
            record,
            fresh_until=now + ttl * factor,
            stale_until=now + (ttl + self._stale_ttl) * factor,
            evict_at=now + (ttl + self._max_stale) * factor,
            tags=tags,
            validators=freshness.validators,
        )

    def negative(self, reason: Reason, now: float) -> Entry:
        """Make the entry of a missing or excluded profile."""
        return self._short(self.negative_ttl, now, reason, None)

    def failed(self, error: ProfileEnrichError, now: float) -> Entry:
        """Make the entry of a failure, if `error_ttl` is set."""
        return self._short(self.error_ttl, now, Reason.UNAVAILABLE, error)

    def _short(self, ttl: float, now: float, reason: Reason, error: ProfileEnrichError | None) -> Entry:
        until = now + ttl * self._factor()
        return Entry(None, fresh_until=until, stale_until=until, evict_at=until, reason=reason, error=error)

    def _factor(self) -> float:
        return 1 + self._policy.jitter * (2 * self._policy.rng() - 1)
