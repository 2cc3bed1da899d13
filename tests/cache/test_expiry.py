"""Expiry times of results."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_enrich import ConfigurationError, Reason, Record, SourceTimeout
from profile_enrich.cache.cache_policy import CachePolicy
from profile_enrich.cache.expiry import Expiry
from profile_enrich.sources.freshness import Freshness

RECORD = Record({"a": 1})
NO_TAGS: frozenset[str] = frozenset()


def expiry_of(ttl: float = 60, stale_ttl: float = 600, negative_ttl: float = 15, **policy: Any) -> Expiry:
    return Expiry(ttl=ttl, stale_ttl=stale_ttl, negative_ttl=negative_ttl, policy=CachePolicy(**policy))


def test_times_follow_each_other() -> None:
    entry = expiry_of(ttl=60, stale_ttl=600, max_stale=3600, jitter=0).known(RECORD, Freshness(), NO_TAGS, 1000.0)
    assert (entry.fresh_until, entry.stale_until, entry.evict_at) == (1060.0, 1660.0, 4660.0)
    entry = expiry_of(ttl=60, stale_ttl=600, jitter=0).known(RECORD, Freshness(), NO_TAGS, 1000.0)
    assert entry.evict_at == entry.stale_until


def test_short_ones() -> None:
    expiry = expiry_of(negative_ttl=15, error_ttl=2, jitter=0)
    negative = expiry.negative(Reason.NOT_FOUND, 0.0)
    assert (negative.fresh_until, negative.evict_at, negative.reason) == (15.0, 15.0, Reason.NOT_FOUND)
    failed = expiry.failed(SourceTimeout(), 0.0)
    assert (failed.evict_at, type(failed.error)) == (2.0, SourceTimeout)


@pytest.mark.parametrize(
    ("max_age", "ttl"), [(None, 60.0), (0, 60.0), (5, 5.0), (0.5, 1.0), (120, 120.0), (10**9, 3600.0)]
)
def test_L7_an_upstream_max_age_sets_the_ttl_within_bounds(max_age: float | None, ttl: float) -> None:
    """L7: an upstream `Cache-Control: max-age` sets the TTL within configured bounds."""
    expiry = expiry_of(ttl=60, min_ttl=1, max_ttl=3600, jitter=0)
    assert expiry.known(RECORD, Freshness(max_age=max_age), NO_TAGS, 0.0).fresh_until == ttl
    deaf = expiry_of(ttl=60, respect_cache_control=False, jitter=0)
    assert deaf.known(RECORD, Freshness(max_age=max_age), NO_TAGS, 0.0).fresh_until == 60.0


def test_L7_no_store_is_not_kept() -> None:
    """L7: `no-store` is not stored."""
    assert expiry_of().keeps(Freshness())
    assert not expiry_of().keeps(Freshness(no_store=True))
    assert expiry_of(respect_cache_control=False).keeps(Freshness(no_store=True))


@given(st.floats(0, 0.999999))
def test_L8_jitter_stays_within_a_tenth(rng: float) -> None:
    """L8: jitter (±10 %)."""
    entry = expiry_of(ttl=100, stale_ttl=100, rng=lambda: rng).known(RECORD, Freshness(), NO_TAGS, 0.0)
    assert 90.0 <= entry.fresh_until <= 110.0
    assert entry.stale_until == pytest.approx(2 * entry.fresh_until)


def test_L8_jitter_spreads_what_was_loaded_together() -> None:
    """L8: jitter spreads the expiry of entries that were loaded together."""
    expiry = expiry_of(ttl=100)
    ends = [expiry.known(RECORD, Freshness(), NO_TAGS, 0.0).fresh_until for _ in range(1000)]
    assert len({round(end) for end in ends}) > 15
    assert min(ends) < 92
    assert max(ends) > 108


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"ttl": -1}, "ttl"),
        ({"ttl": 0}, "ttl"),
        ({"ttl": True}, "ttl"),
        ({"ttl": "60"}, "ttl"),
        ({"stale_ttl": float("inf")}, "stale_ttl"),
        ({"negative_ttl": float("nan")}, "negative_ttl"),
        ({"jitter": 1}, "jitter"),
        ({"stale_ttl": 60, "max_stale": 30}, "max_stale"),
        ({"min_ttl": 10, "max_ttl": 5}, "min_ttl"),
    ],
)
def test_refuses_times_that_make_no_sense(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        expiry_of(**setting)
