"""`CachePolicy`: times and limits of a client's cache."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cachetools import Cache, TLRUCache, TTLCache

from .._utils.validation import check_bool, check_int, check_number
from ..errors import ConfigurationError

__all__ = ["CachePolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """Times and limits of a `ProfileClient`'s cache, in addition to `ttl`, `stale_ttl` and `negative_ttl`.

    Times are in seconds.

    Args:
        max_stale: how long after `ttl` a record may be served while the source fails. Default: `stale_ttl`.
        error_ttl: how long a failure is cached. Default 0: not cached.
        throttle: how long a failed refresh delays the next one of its key. Default 5.
        min_ttl: the shortest `ttl` that an upstream's `max-age` can set. Default 1.
        max_ttl: the longest `ttl` that it can set. Default 3600.
        respect_cache_control: whether to use an upstream's `max-age` and `no-store`. Default true.
        jitter: the fraction by which each entry's times vary randomly. Default 0.1.
        max_entry_bytes: the largest cached profile, in bytes; a larger one is served uncached. Default 1 MiB.
        max_negative_entries: the largest number of cached unknown keys. Default 10,000.
        sweep_interval: how often expired entries are removed. Default 10.
        storage: a cachetools cache for the known profiles, such as `LFUCache(maxsize=50_000)`. Its `maxsize` and
            `getsizeof` replace `max_bytes`; each read of it takes a lock. Default: the built-in one.
        rng: returns random numbers in [0, 1) for the jitter. Default `random.random`.

    Raises:
        ConfigurationError: a value is invalid; the message names it.
    """

    max_stale: float | None = None
    error_ttl: float = 0.0
    throttle: float = 5.0
    min_ttl: float = 1.0
    max_ttl: float = 3600.0
    respect_cache_control: bool = True
    jitter: float = 0.1
    max_entry_bytes: int = 2**20
    max_negative_entries: int = 10_000
    sweep_interval: float = 10.0
    storage: Cache[Any, Any] | None = None
    rng: Callable[[], float] = field(default=random.random, repr=False)

    def __post_init__(self) -> None:
        for name in ("error_ttl", "throttle", "min_ttl", "max_ttl", "jitter"):
            check_number(name, getattr(self, name))
        if self.max_stale is not None:
            check_number("max_stale", self.max_stale)
        if self.jitter >= 1:
            raise ConfigurationError(f"jitter must be a fraction below 1, not {self.jitter!r}")
        if self.min_ttl > self.max_ttl:
            raise ConfigurationError(f"min_ttl ({self.min_ttl:g} s) must not be above max_ttl ({self.max_ttl:g} s)")
        check_bool("respect_cache_control", self.respect_cache_control)
        check_int("max_entry_bytes", self.max_entry_bytes)
        check_int("max_negative_entries", self.max_negative_entries)
        check_number("sweep_interval", self.sweep_interval, positive=True)
        if isinstance(self.storage, TTLCache | TLRUCache):
            raise ConfigurationError(
                "storage: TTLCache and TLRUCache drop what could be served stale; use LRUCache, LFUCache or FIFOCache"
            )
        if self.storage is not None and not isinstance(self.storage, Cache):
            raise ConfigurationError("storage must be a cachetools cache such as LRUCache(maxsize=50_000)")
        if not callable(self.rng):
            raise ConfigurationError("rng must be a function that returns random numbers in [0, 1)")
