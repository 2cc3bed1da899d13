"""The lookup core with its limits: breaker, retries, rate, concurrent calls; overlays, rekeying, health."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from profile_enrich import (
    Breaker,
    BreakerDetails,
    CircuitOpen,
    ConfigurationError,
    Excluded,
    Found,
    InvalidKeyError,
    ProfileKey,
    RateLimit,
    RateLimitReached,
    Reason,
    RetryPolicy,
    SourceConnectionError,
    SourceRateLimited,
    SourceUnavailable,
    Status,
)
from profile_enrich.testing import ManualClock
from tests.helpers import ScriptedSource, Switch, client_of, found, nobody, settle


class TestBreakerInTheClient:
    async def test_L10_an_open_breaker_makes_no_calls_and_pages_wait_for_nothing(self) -> None:
        """L10, A11: while the breaker is open, pages are not delayed."""
        clock, switch = ManualClock(), Switch(SourceConnectionError("down"))
        source = ScriptedSource(switch)
        told: list[Any] = []
        client = client_of(source, breaker=Breaker(3, timer=clock), timer=clock, hooks=[told.append])
        for index in range(20):
            profile = await client.lookup(f"u{index}")
            assert (profile.status, profile.reason) == (Status.ERROR, Reason.UNAVAILABLE)
        assert len(source.calls) == 3
        with pytest.raises(CircuitOpen):
            await client.get("u1")
        assert client.stats().breaker == "open"
        clock.advance(5)
        switch.error = None
        source.gate = asyncio.Event()
        visitors = [asyncio.create_task(client.lookup(f"v{index}")) for index in range(100)]
        await settle()
        source.gate.set()
        profiles = await asyncio.gather(*visitors)
        assert len(source.calls) == 4, "exactly one of a hundred is let through"
        assert [profile.found for profile in profiles].count(True) == 1
        assert (await client.get("u1")).found
        states = [details.state for details in told if isinstance(details, BreakerDetails)]
        assert states == ["open", "half_open", "closed"]

    async def test_L5_with_an_open_breaker_stale_data_is_served_without_waiting(self) -> None:
        """L5: also for keys without a refresh of their own."""
        clock, switch = ManualClock(), Switch()
        source = ScriptedSource(switch)
        client = client_of(source, ttl=60, stale_ttl=100, max_stale=1000, breaker=Breaker(1, timer=clock), timer=clock)
        await client.get_many(["u1", "u2"])
        switch.error = SourceConnectionError("down")
        await client.lookup("u3")
        clock.advance(61)
        client._breaker.failed(client._breaker._generation)
        before = len(source.calls)
        await client.lookup("u4")
        for seconds in (0, 110):
            clock.advance(seconds)
            client._breaker._until = clock() + 1
            assert (await client.get("u1")).is_stale
            assert (await client.get("u2")).is_stale
        assert len(source.calls) <= before + 1

    async def test_L10_a_cancelled_load_frees_the_only_try(self) -> None:
        """L10: a cancellation is neither a success nor a failure."""
        clock = ManualClock()
        switch = Switch(SourceConnectionError("down"))
        source = ScriptedSource(switch)
        client = client_of(source, breaker=Breaker(1, timer=clock), timer=clock, close_timeout=0.01)
        await client.lookup("u1")
        clock.advance(5)
        switch.error, source.gate = None, asyncio.Event()
        trial = asyncio.create_task(client.lookup("u1"))
        await settle()
        await client.aclose()
        await trial
        async with client:
            source.gate = None
            assert (await client.get("u1")).found


class TestRetriesInTheClient:
    async def test_L10_a_call_that_failed_by_chance_is_repeated_within_one_load(self) -> None:
        """L10: retries, within their budget."""
        attempts: list[int] = []

        class Source(ScriptedSource):
            async def fetch(self, key: ProfileKey, **_: Any) -> Found:
                attempts.append(1)
                if len(attempts) % 2 == 0:
                    raise SourceUnavailable("503")
                return found(id=key.value)

        client = client_of(Source(), retry=RetryPolicy(2, ratio=1.0, wait_initial=0.001))
        profiles = await client.get_many([str(index) for index in range(10)], concurrency=1)
        assert all(profile.found for profile in profiles.values())
        stats = client.stats()
        assert stats.source_calls == len(attempts) == 19
        assert stats.source_errors == {}

    async def test_L10_with_the_upstream_down_extra_calls_stay_within_a_tenth(self) -> None:
        """L10: retries stay at or below 10 % of calls."""
        source = ScriptedSource(Switch(SourceUnavailable("503")))
        client = client_of(source, breaker=Breaker(0), retry=RetryPolicy(3, wait_initial=0.0001))
        for index in range(200):
            await client.lookup(f"u{index}")
        assert 200 < len(source.calls) <= 220

    async def test_L10_a_vendor_that_asks_for_a_pause_gets_it(self) -> None:
        """L10: honour `Retry-After`."""
        clock = ManualClock()
        source = ScriptedSource(Switch(SourceRateLimited("429", retry_after=30)))
        client = client_of(source, timer=clock)
        await client.lookup("u1")
        clock.advance(29)
        with pytest.raises(CircuitOpen):
            await client.get("u2")
        assert len(source.calls) == 1


class TestRateInTheClient:
    async def test_L10_the_rate_limit_skips_or_serves_stale_and_never_queues(self) -> None:
        """L10: the client-side rate limit skips or serves stale, it never queues a page."""
        clock = ManualClock()
        source = ScriptedSource()
        client = client_of(source, ttl=60, rate_limit=RateLimit(1, burst=2, timer=clock), timer=clock)
        await client.get("u1")
        await client.get("u2")
        skipped = await client.lookup("u3")
        assert (skipped.status, skipped.reason) == (Status.SKIPPED, Reason.UNAVAILABLE)
        with pytest.raises(RateLimitReached) as raised:
            await client.get("u3")
        assert raised.value.retry_after == 1.0
        clock.advance(0.5)
        assert (await client.get("u1")).status is Status.HIT
        clock.advance(60)
        for _ in range(2):
            await client.get("new")
        assert len(source.calls) == 3
        client._loader.calls._rate_limit._bucket.level = 0.0  # type: ignore[union-attr]
        assert (await client.get("u1")).is_stale
        assert len(source.calls) == 3
        assert client.stats().breaker == "closed"

    async def test_L10_calls_in_flight_are_bounded(self) -> None:
        """L10: concurrent calls per source are bounded; further loads wait for a slot, within the page's budget."""
        running, most = 0, 0

        class Source(ScriptedSource):
            async def fetch(self, key: ProfileKey, **_: Any) -> Found:
                nonlocal running, most
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.002)
                running -= 1
                return found(id=key.value)

        client = client_of(Source(), max_in_flight=7)
        profiles = await asyncio.gather(*(client.get(str(index)) for index in range(50)))
        assert all(profile.found for profile in profiles)
        assert most == 7

    async def test_L10_waiting_for_a_turn_is_no_failure_of_the_source(self) -> None:
        """L10: a load's deadline starts when it leaves the queue, so a long queue is not a source failure."""
        client = client_of(ScriptedSource(delay=0.01), max_in_flight=2, deadline=1.0, retry=RetryPolicy(1))
        profiles = await client.get_many([str(index) for index in range(250)], concurrency=250)
        assert all(profile.found for profile in profiles.values())
        assert client.stats().breaker == "closed"

    async def test_L10_loads_that_wait_for_a_turn_do_not_ask_a_source_that_is_left_alone(self) -> None:
        """L10: an open breaker ends the queued loads without calls."""
        source = ScriptedSource(Switch(SourceConnectionError("down")), delay=0.001)
        client = client_of(source, max_in_flight=1, breaker=Breaker(3), retry=RetryPolicy(1))
        profiles = await client.get_many([str(index) for index in range(50)], concurrency=50)
        assert len(source.calls) == 3
        assert [type(profile.error) for profile in profiles.values()].count(CircuitOpen) == 47

    @pytest.mark.parametrize("value", [0, 1.5, True, None])
    def test_the_bound_must_be_one(self, value: Any) -> None:
        with pytest.raises(ConfigurationError, match="max_in_flight"):
            client_of(ScriptedSource(), max_in_flight=value)


class TestOverlays:
    async def test_what_was_just_written_shows_at_once_and_for_its_time(self) -> None:
        clock, switch = ManualClock(), Switch()
        client = client_of(ScriptedSource(switch), ttl=60, timer=clock)
        await client.get("u1")
        client.overlay("u1", {"version": "mine", "basket": ["milk"]}, ttl=10)
        for profile in (await client.get("u1"), client.peek("u1"), await client.refresh("u1")):
            assert profile is not None
            assert profile.as_dict() == {"id": "u1", "version": "mine", "basket": ["milk"]}
        client.overlay("u1", {"points": 5}, ttl=10)
        assert (await client.get("u1")).as_dict() == {"id": "u1", "version": "mine", "basket": ["milk"], "points": 5}
        assert (await client.get("u2")).as_dict() == {"id": "u2", "version": 1}
        clock.advance(10)
        profile = await client.get("u1")
        assert (profile.as_dict(), profile.status) == ({"id": "u1", "version": 1}, Status.HIT)

    async def test_it_makes_up_an_unknown_profile_but_not_an_excluded_or_unavailable_one(self) -> None:
        source = ScriptedSource(nobody)
        client = client_of(source)
        for key in ("new", "gone", "down"):
            client.overlay(key, {"first_name": "Ann"})
        assert (await client.get("new"))["first_name"] == "Ann"
        assert (await client.get("new")).status is Status.NEGATIVE
        source.answer = lambda _: Excluded()
        assert not await client.get("gone")
        source.answer = Switch(SourceConnectionError("down"))
        assert not await client.lookup("down")

    async def test_an_invalidation_removes_it(self) -> None:
        client = client_of(ScriptedSource())
        client.overlay("u1", {"points": 5})
        client.invalidate("u1")
        assert "points" not in await client.get("u1")
        client.overlay("u1", {"points": 5})
        client.clear()
        assert "points" not in await client.get("u1")

    async def test_L8_overlays_are_dropped_when_their_time_is_over(self) -> None:
        """L8: expired personal data is dropped within a bounded time."""
        clock = ManualClock()
        client = client_of(ScriptedSource(), timer=clock)
        client.overlay("u1", {"points": 5}, ttl=1)
        clock.advance(1)
        client._cache.sweep(10)
        assert len(client._cache._overlays.store) == 0

    @pytest.mark.parametrize("ttl", [0, -1, None])
    def test_its_time_must_be_one(self, ttl: Any) -> None:
        with pytest.raises(ConfigurationError, match="ttl"):
            client_of(ScriptedSource()).overlay("u1", {}, ttl=ttl)


class TestRekeying:
    async def test_on_sign_in_the_overlay_moves_and_the_rest_is_dropped(self) -> None:
        source = ScriptedSource()
        client = client_of(source)
        visitor = ProfileKey("v1", "visitor")
        await client.get("u1")
        await client.get(visitor)
        client.overlay(visitor, {"basket": ["milk"]})
        client.rekey(visitor, "u1")
        assert client.peek(visitor) is None
        signed_in = await client.get("u1")
        assert signed_in.status is Status.MISS
        assert signed_in.as_dict() == {"id": "u1", "basket": ["milk"]}
        assert "basket" not in await client.get(visitor)

    async def test_L9_nothing_of_a_known_person_moves_on_a_shared_device(self) -> None:
        """L9: two people use one device one after the other."""
        client = client_of(ScriptedSource())
        visitor = ProfileKey("v1", "visitor")
        client.overlay("u1", {"secret": "of u1"})
        client.rekey(visitor, "u1")
        client.rekey(visitor, "u2")
        assert (await client.get("u2")).as_dict() == {"id": "u2"}
        assert (await client.get(visitor)).as_dict() == {"id": "v1"}

    async def test_L6_a_load_under_way_does_not_bring_the_old_answer_back(self) -> None:
        """L6: rekeying is an invalidation."""
        source = ScriptedSource()
        source.gate = asyncio.Event()
        client = client_of(source)
        loading = asyncio.create_task(client.get("u1"))
        await settle()
        client.rekey("v1", "u1")
        source.gate.set()
        await loading
        assert client.peek("u1") is None

    def test_bad_keys_are_refused(self) -> None:
        with pytest.raises(InvalidKeyError):
            client_of(ScriptedSource()).rekey("", "u1")


async def test_health_says_whether_lookups_work() -> None:
    clock, switch = ManualClock(), Switch(SourceConnectionError("down"))
    client = client_of(ScriptedSource(switch), breaker=Breaker(1, timer=clock), timer=clock)
    health = client.health()
    assert (health.ok, health.closed, health.breaker, health.last_error) == (True, False, "closed", None)
    await client.lookup("u1")
    health = client.health()
    assert (health.ok, health.breaker, health.last_error) == (False, "open", "source_connection")
    switch.error = None
    clock.advance(5)
    await client.get("u1")
    assert client.health().ok
    await client.aclose()
    assert (client.health().ok, client.health().closed) == (False, True)
