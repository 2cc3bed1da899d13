"""How long an answer is kept: the time-to-lives, their bounds and their jitter."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from .._utils.validation import check_number
from ..errors import ConfigurationError, ProfileEnrichError
from ..profile import Reason, Record
from ..sources.freshness import Freshness
from .cache import Entry

__all__ = ["Expiry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """The times of a cache entry, all in seconds.

    Args:
        ttl: how long a record is fresh.
        stale_ttl: how long after that it may be served while a refresh runs.
        max_stale: how long after `ttl` it may stand in for a source that fails; at least `stale_ttl`.
        negative_ttl: how long a missing or excluded profile is remembered.
        error_ttl: how long a failure is remembered; 0 for not at all.
        throttle: after a failed refresh, no other one of that key before so long.
        min_ttl: the shortest `ttl` that an upstream's `max-age` can set.
        max_ttl: the longest.
        jitter: each entry's times are multiplied by a random factor between `1 - jitter` and `1 + jitter`.
        respect_cache_control: whether upstream `max-age` and `no-store` count.
        rng: random numbers in [0, 1).

    Raises:
        ConfigurationError: a time is negative or not a number, or the bounds contradict each other.
    """

    ttl: float = 60.0
    stale_ttl: float = 600.0
    max_stale: float | None = None
    negative_ttl: float = 15.0
    error_ttl: float = 0.0
    throttle: float = 5.0
    min_ttl: float = 1.0
    max_ttl: float = 3600.0
    jitter: float = 0.1
    respect_cache_control: bool = True
    rng: Callable[[], float] = field(default=random.random, repr=False)

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in ("respect_cache_control", "rng") or (item.name == "max_stale" and value is None):
                continue
            check_number(item.name, value)
        if self.ttl == 0:
            raise ConfigurationError("ttl must be more than 0 seconds; a lookup without a cache is source.fetch()")
        if self.jitter >= 1:
            raise ConfigurationError(f"jitter must be a fraction below 1, not {self.jitter!r}")
        if self.max_stale is not None and self.max_stale < self.stale_ttl:
            raise ConfigurationError(
                f"max_stale ({self.max_stale:g} s) must not be below stale_ttl ({self.stale_ttl:g} s)"
            )
        if self.min_ttl > self.max_ttl:
            raise ConfigurationError(f"min_ttl ({self.min_ttl:g} s) must not be above max_ttl ({self.max_ttl:g} s)")

    def keeps(self, freshness: Freshness) -> bool:
        """Whether the answer may be stored at all."""
        return not (self.respect_cache_control and freshness.no_store)

    def known(self, record: Record, freshness: Freshness, tags: frozenset[str], now: float) -> Entry:
        """The entry of a record.

        An upstream's positive `max-age` takes the place of `ttl`, within `min_ttl` and `max_ttl`. `max-age=0` does not:
        web frameworks put it on every answer without meaning it.
        """
        ttl = self.ttl
        if self.respect_cache_control and freshness.max_age:
            ttl = min(max(freshness.max_age, self.min_ttl), self.max_ttl)
        factor = self._factor()
        max_stale = self.stale_ttl if self.max_stale is None else self.max_stale
        return Entry(
            record,
            soft=now + ttl * factor,
            hard=now + (ttl + self.stale_ttl) * factor,
            drop=now + (ttl + max_stale) * factor,
            tags=tags,
            validators=freshness.validators,
        )

    def negative(self, reason: Reason, now: float) -> Entry:
        """The entry of a missing or excluded profile."""
        return self._short(self.negative_ttl, now, reason, None)

    def failed(self, error: ProfileEnrichError, now: float) -> Entry:
        """The entry of a failure, where an `error_ttl` was asked for."""
        return self._short(self.error_ttl, now, Reason.UNAVAILABLE, error)

    def _short(self, ttl: float, now: float, reason: Reason, error: ProfileEnrichError | None) -> Entry:
        until = now + ttl * self._factor()
        return Entry(None, soft=until, hard=until, drop=until, reason=reason, error=error)

    def _factor(self) -> float:
        return 1 + self.jitter * (2 * self.rng() - 1)
