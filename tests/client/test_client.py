"""The lookup core: tests for each line of its contract."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import threading
from typing import Any

import pytest

from profile_enrich import (
    AmperitySource,
    BudgetExceeded,
    CensusSource,
    ClientClosed,
    ClientCredentials,
    ConfigurationError,
    Excluded,
    Found,
    InvalidKeyError,
    LookupDetails,
    MemorySource,
    NotModified,
    PendingLookup,
    Profile,
    ProfileClient,
    ProfileKey,
    Reason,
    Record,
    SourceConnectionError,
    SourceError,
    SourceResponseError,
    SourceTimeout,
    Status,
)
from profile_enrich.cache.cache import ProfileCache
from profile_enrich.client.hooks import Details
from profile_enrich.sources.freshness import Freshness, Validators
from profile_enrich.testing import ManualClock, VendorServer, faults
from tests.helpers import ScriptedSource, Switch, client_of, found, nobody, own_records, own_tasks, settle, until


def is_immediate(client: ProfileClient, key: str) -> Profile | None:
    """Run a lookup without an event loop; return `None` if it suspends."""
    lookup = client.lookup(key)
    try:
        lookup.send(None)
    except StopIteration as end:
        profile: Profile = end.value
        return profile
    lookup.close()
    return None


class TestOneLoad:
    async def test_L1_ten_thousand_gets_of_a_cold_key_make_one_call(self) -> None:
        """L1: 10,000 concurrent gets of one cold key make exactly 1 upstream call."""
        source = ScriptedSource(delay=0.01)
        client = client_of(source)
        profiles = await asyncio.gather(*(client.get("u1") for _ in range(10_000)))
        assert len(source.calls) == 1
        assert all(profile["id"] == "u1" for profile in profiles)
        lookups = client.stats().lookups
        assert (lookups[Status.MISS], lookups[Status.COALESCED]) == (1, 9_999)

    async def test_L1_with_a_failing_upstream_also_one_and_all_get_the_error(self) -> None:
        """L1: with a failing upstream also 1, every waiter gets the error, and no error outlives its load."""
        switch = Switch(SourceConnectionError("down"))
        source = ScriptedSource(switch, delay=0.01)
        client = client_of(source)
        outcomes = await asyncio.gather(*(client.get("u1") for _ in range(10_000)), return_exceptions=True)
        assert len(source.calls) == 1
        assert {type(outcome) for outcome in outcomes} == {SourceConnectionError}
        switch.error = None
        assert (await client.get("u1"))["id"] == "u1"
        assert len(source.calls) == 2

    async def test_L1_an_error_is_remembered_only_where_that_was_asked_for(self) -> None:
        """L1: … unless an error TTL is configured."""
        clock = ManualClock()
        source = ScriptedSource(Switch(SourceConnectionError("down")))
        client = client_of(source, error_ttl=2.0, timer=clock)
        for _ in range(3):
            with pytest.raises(SourceConnectionError):
                await client.get("u1")
        assert len(source.calls) == 1
        clock.advance(2.0)
        with pytest.raises(SourceConnectionError):
            await client.get("u1")
        assert len(source.calls) == 2


class TestCancelling:
    @pytest.mark.parametrize("victims", [[0], [50], list(range(99)), list(range(100))])
    async def test_L2_cancelled_callers_never_cancel_the_load(self, victims: list[int]) -> None:
        """L2: cancelling the first waiter, any waiter or all waiters never cancels the load; others get the result."""
        source = ScriptedSource()
        source.gate = asyncio.Event()
        client = client_of(source)
        callers = [asyncio.create_task(client.get("u1")) for _ in range(100)]
        await settle()
        for index in victims:
            callers[index].cancel()
        await settle()
        source.gate.set()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        assert source.cancelled == 0
        assert len(source.calls) == 1
        for index, outcome in enumerate(outcomes):
            expected = asyncio.CancelledError if index in victims else Profile
            assert isinstance(outcome, expected)
        await settle()
        assert (await client.get("u1")).status is Status.HIT


class TestSlowUpstream:
    async def test_L3_callers_with_a_small_budget_share_one_load_and_later_ones_hit(self) -> None:
        """L3: successive callers with a small budget against a slow upstream make 1 load; later callers hit."""
        source = ScriptedSource()
        source.gate = asyncio.Event()
        client = client_of(source, deadline=60.0)
        statuses = [(await client.lookup("u1", budget=0.02)).status for _ in range(9)]
        assert statuses == [Status.TIMEOUT] * 9
        source.gate.set()
        await settle()
        assert (await client.lookup("u1", budget=0.02)).status is Status.HIT
        assert len(source.calls) == 1

    async def test_L3_a_budget_that_runs_out_is_said(self) -> None:
        """L3: `get` raises `BudgetExceeded`, `lookup` says `timeout`."""
        source = ScriptedSource()
        source.gate = asyncio.Event()
        client = client_of(source)
        with pytest.raises(BudgetExceeded):
            await client.get("u1", budget=0.0)
        profile = await client.lookup("u1", budget=0.001)
        assert (profile.status, profile.reason) == (Status.TIMEOUT, Reason.UNAVAILABLE)
        assert isinstance(profile.error, BudgetExceeded)
        source.gate.set()
        await settle()

    async def test_L3_a_hung_upstream_frees_its_key_by_the_deadline(self) -> None:
        """L3: a load of a hung upstream releases its key at the load's deadline."""
        source = ScriptedSource()
        gate = source.gate = asyncio.Event()
        client = client_of(source, deadline=0.02)
        with pytest.raises(SourceTimeout):
            await client.get("u1")
        assert client.stats().in_flight == 0
        source.gate = None
        assert (await client.get("u1")).status is Status.MISS
        gate.set()
        await settle()
        assert (await client.get("u1")).status is Status.HIT


class TestStale:
    async def test_L4_stale_is_served_without_waiting_and_one_refresh_starts(self) -> None:
        """L4: between `fresh_until` and `stale_until` a get returns at once and starts at most 1 refresh."""
        clock, switch = ManualClock(), Switch()
        source = ScriptedSource(switch)
        client = client_of(source, ttl=60, stale_ttl=600, timer=clock)
        await client.get("u1")
        clock.advance(60)
        switch.version = 2
        source.gate = asyncio.Event()
        for _ in range(100):
            profile = is_immediate(client, "u1")
            assert profile is not None
            assert (profile.status, profile["version"]) == (Status.STALE, 1)
        await settle()
        assert len(source.calls) == 2
        source.gate.set()
        await settle()
        fresh = await client.get("u1")
        assert (fresh.status, fresh["version"]) == (Status.HIT, 2)

    async def test_L4_a_fresh_hit_does_not_suspend(self) -> None:
        """L4: a hit needs no event loop."""
        client = client_of(ScriptedSource())
        await client.get("u1")
        profile = is_immediate(client, "u1")
        assert profile is not None
        assert profile.status is Status.HIT

    async def test_L4_after_the_hard_expiry_stale_data_is_not_served(self) -> None:
        """L4: after `stale_until` stale data is never served …"""
        clock, switch = ManualClock(), Switch()
        client = client_of(ScriptedSource(switch), ttl=60, stale_ttl=600, max_stale=6000, timer=clock)
        await client.get("u1")
        clock.advance(660)
        assert is_immediate(client, "u1") is None
        switch.version = 2
        assert (await client.get("u1"))["version"] == 2

    async def test_L4_a_hung_upstream_after_the_hard_expiry_serves_nothing_stale(self) -> None:
        """L4: … except if the upstream failed; an exceeded budget is not a failure."""
        clock = ManualClock()
        source = ScriptedSource()
        client = client_of(source, ttl=60, stale_ttl=600, max_stale=6000, timer=clock)
        await client.get("u1")
        clock.advance(660)
        source.gate = asyncio.Event()
        assert (await client.lookup("u1", budget=0.001)).status is Status.TIMEOUT
        source.gate.set()
        await settle()

    async def test_L5_while_the_upstream_is_down_calls_are_throttled_and_stale_is_served(self) -> None:
        """L5: at most 1 call per key and throttle period, stale data marked `is_stale`, until `max_stale` passes."""
        clock, switch = ManualClock(), Switch()
        source = ScriptedSource(switch)
        client = client_of(source, ttl=60, stale_ttl=100, max_stale=1000, throttle=5, timer=clock)
        await client.get("u1")
        switch.error = SourceConnectionError("down")
        clock.advance(60)
        calls_before = len(source.calls)
        for second in range(1, 1000):
            for _ in range(10):
                profile = await client.get("u1")
                assert profile.is_stale
                assert profile["version"] == 1
                await settle()
            clock.advance(1)
            assert len(source.calls) - calls_before <= second // 5 + 2
        clock.advance(1)
        with pytest.raises(SourceError):
            await client.get("u1")

    async def test_L5_stale_data_says_why_and_recovers(self) -> None:
        """L5: a stale profile has the error of the failed refresh, until a refresh succeeds."""
        clock, switch = ManualClock(), Switch()
        client = client_of(ScriptedSource(switch), ttl=60, stale_ttl=100, throttle=5, timer=clock)
        await client.get("u1")
        clock.advance(60)
        switch.error = SourceConnectionError("down")
        await client.get("u1")
        await settle()
        stale = await client.get("u1")
        assert isinstance(stale.error, SourceConnectionError)
        switch.error, switch.version = None, 2
        clock.advance(5)
        await client.get("u1")
        await settle()
        fresh = await client.get("u1")
        assert (fresh.status, fresh["version"], fresh.error) == (Status.HIT, 2, None)

    async def test_L5_a_caller_who_waited_for_a_failure_gets_stale_data(self) -> None:
        """L5: after `stale_until`, the first caller waits; if the upstream fails, the stale record is served."""
        clock, switch = ManualClock(), Switch()
        client = client_of(ScriptedSource(switch), ttl=60, stale_ttl=100, max_stale=1000, timer=clock)
        await client.get("u1")
        clock.advance(200)
        switch.error = SourceConnectionError("down")
        profile = await client.get("u1")
        assert profile.is_stale
        assert profile["version"] == 1


class TestInvalidation:
    async def test_L6_invalidating_during_a_flight_wins(self) -> None:
        """L6: after `invalidate(key)` during a load, no later get sees that load's result."""
        switch = Switch()
        source = ScriptedSource(switch)
        source.gate = asyncio.Event()
        client = client_of(source)
        before = asyncio.create_task(client.get("u1"))
        await settle()
        client.invalidate("u1")
        after = asyncio.create_task(client.get("u1"))
        await settle()
        assert len(source.calls) == 2, "the later get must not join the superseded load"
        source.gate.set()
        await asyncio.gather(before, after)
        assert (await client.get("u1")).status is Status.HIT

    @pytest.mark.parametrize("how", ["key", "tag", "clear"])
    async def test_L6_a_superseded_flight_never_touches_the_cache(self, how: str) -> None:
        """L6: … by key, by tag or by clear; a superseded load never changes the newer entry."""
        versions = iter([1, 2])
        gates = [asyncio.Event(), asyncio.Event()]

        class Source(ScriptedSource):
            async def fetch(self, key: ProfileKey, **_: Any) -> Found:
                version = next(versions)
                self.calls.append(key)
                await gates[version - 1].wait()
                return Found(Record({"version": version}), tags=frozenset({"gold"}))

        client = client_of(Source())
        older = asyncio.create_task(client.get("u1"))
        await settle()
        {"key": lambda: client.invalidate("u1"), "tag": lambda: client.invalidate(tag="gold"), "clear": client.clear}[
            how
        ]()
        if how == "tag":
            # The tags of a running load are not known yet: later lookups can join it, but its result is not stored.
            gates[0].set()
            await older
            assert client.peek("u1") is None
            gates[1].set()
            assert (await client.get("u1"))["version"] == 2
            return
        newer = asyncio.create_task(client.get("u1"))
        await settle()
        gates[1].set()
        assert (await newer)["version"] == 2
        gates[0].set()
        assert (await older)["version"] == 1, "a lookup from before the invalidation may return the older value"
        assert (await client.get("u1"))["version"] == 2

    async def test_L6_a_superseded_failure_leaves_the_newer_entry_alone(self) -> None:
        """L6: successful or failed."""
        gate = asyncio.Event()
        attempts: list[int] = []

        class Source(ScriptedSource):
            async def fetch(self, key: ProfileKey, **_: Any) -> Found:
                attempts.append(1)
                if len(attempts) == 1:
                    await gate.wait()
                    raise SourceConnectionError("down")
                return found(version=2)

        client = client_of(Source())
        older = asyncio.create_task(client.lookup("u1"))
        await settle()
        client.invalidate("u1")
        assert (await client.get("u1"))["version"] == 2
        gate.set()
        await older
        profile = await client.get("u1")
        assert (profile.status, profile.error) == (Status.HIT, None)

    async def test_refresh_asks_now_and_keeps_what_is_there_until_then(self) -> None:
        switch = Switch()
        source = ScriptedSource(switch)
        client = client_of(source)
        await client.get("u1")
        switch.version = 2
        source.gate = asyncio.Event()
        refresh = asyncio.create_task(client.refresh("u1"))
        await settle()
        assert (await client.get("u1"))["version"] == 1
        source.gate.set()
        assert (await refresh)["version"] == 2
        assert (await client.get("u1"))["version"] == 2
        switch.error = SourceConnectionError("down")
        with pytest.raises(SourceConnectionError):
            await client.refresh("u1")
        assert (await client.get("u1"))["version"] == 2


class TestAnswers:
    async def test_L7_not_found_is_cached_under_its_own_ttl(self) -> None:
        """L7: NotFound is cached under its own TTL."""
        clock = ManualClock()
        source = ScriptedSource(nobody)
        client = client_of(source, ttl=60, negative_ttl=15, timer=clock)
        first = await client.get("u1")
        assert (first.found, first.status, first.reason) == (False, Status.MISS, Reason.NOT_FOUND)
        again = await client.get("u1")
        assert (again.status, again.reason) == (Status.NEGATIVE, Reason.NOT_FOUND)
        clock.advance(15)
        await client.get("u1")
        assert len(source.calls) == 2

    async def test_L7_an_excluded_profile_is_cached_as_a_missing_one_and_attaches_nothing(self) -> None:
        """L7: Excluded is cached as NotFound; attributes are never attached."""
        source = ScriptedSource(lambda _: Excluded())
        client = client_of(source)
        for status in (Status.MISS, Status.NEGATIVE):
            profile = await client.get("u1")
            assert (dict(profile), profile.status, profile.reason) == ({}, status, Reason.EXCLUDED)

    async def test_L7_a_negative_ttl_of_nothing_keeps_nothing(self) -> None:
        """L7: its own TTL may be 0."""
        source = ScriptedSource(nobody)
        client = client_of(source, negative_ttl=0)
        for _ in range(2):
            await client.get("u1")
        assert len(source.calls) == 2

    async def test_L7_no_store_is_served_and_not_kept(self) -> None:
        """L7: `no-store` is not stored, and removes an older copy."""
        freshness = Freshness()
        source = ScriptedSource(lambda key: Found(Record({"a": 1}), freshness))
        client = client_of(source)
        await client.get("u1")
        freshness = Freshness(no_store=True)
        assert (await client.refresh("u1"))["a"] == 1
        assert client.peek("u1") is None

    async def test_L7_304_renews_without_replacing(self) -> None:
        """L7: `304` renews without replacing."""
        clock = ManualClock()
        validators = Validators(etag='"v1"')
        answers: list[Any] = [Found(Record({"a": 1}), Freshness(validators=validators)), NotModified(), NotModified()]
        source = ScriptedSource(lambda _: answers.pop(0))
        client = client_of(source, ttl=60, timer=clock)
        first = await client.get("u1")
        for _ in range(2):
            clock.advance(60)
            await client.get("u1")
            await settle()
            renewed = await client.get("u1")
            assert renewed.status is Status.HIT
            assert renewed.attributes is first.attributes
        assert source.validators == [None, validators, validators]

    async def test_an_unasked_304_is_an_error(self) -> None:
        client = client_of(ScriptedSource(lambda _: NotModified()))
        with pytest.raises(SourceResponseError, match="unconditional request"):
            await client.get("u1")

    @pytest.mark.parametrize("nonsense", [None, {"tier": "gold"}, "alice", Found(None)])  # type: ignore[arg-type]
    async def test_A10_nonsense_from_a_source_is_an_error_that_names_its_type(self, nonsense: Any) -> None:
        """A10: for any error of the source."""
        client = client_of(ScriptedSource(lambda _: nonsense))
        with pytest.raises(SourceResponseError, match=f"returned {type(nonsense).__name__}"):
            await client.get("u1")

    async def test_a_truncated_record_is_cached_and_said_once(self, caplog: pytest.LogCaptureFixture) -> None:
        source = ScriptedSource(lambda _: Found(Record({"a": 1}, truncated=True)))
        client = client_of(source)
        assert (await client.get("u1")).truncated
        assert (await client.get("u2")).truncated
        assert (await client.get("u1")).status is Status.HIT
        assert [record.getMessage() for record in own_records(caplog)] == [
            "scripted: the vendor truncates the attributes of some profiles"
        ]


class TestBounds:
    async def test_L8_an_oversize_profile_is_served_and_not_kept(self) -> None:
        """L8: an oversize value is served, not stored."""
        client = client_of(ScriptedSource(lambda _: found(big="x" * 100_000)), max_entry_bytes=10_000)
        assert len((await client.get("u1"))["big"]) == 100_000
        assert client.stats().entries == 0

    async def test_L8_expired_profiles_go_although_nobody_asks(self) -> None:
        """L8: expired personal data is dropped within a bounded time even if nothing is written."""
        clock = ManualClock()
        client = client_of(ScriptedSource(), ttl=1, stale_ttl=1, sweep_interval=0.01, timer=clock)
        await client.get_many([f"u{index}" for index in range(700)])
        assert client.stats().entries == 700
        clock.advance(2)
        await until(lambda: not client.stats().entries)
        await client.aclose()

    async def test_L8_the_sweeper_keeps_no_client_alive(self) -> None:
        """L8: bounded also in clients."""
        client = client_of(ScriptedSource(), sweep_interval=0.01)
        await client.get("u1")
        import weakref

        gone = weakref.ref(client)
        del client

        def collected() -> bool:
            gc.collect()
            return gone() is None

        await until(collected)


class TestIsolation:
    async def test_L9_two_sources_or_tenants_share_no_entry(self) -> None:
        """L9: keys hold source, tenant/scope and id."""
        clients = [client_of(ScriptedSource(namespace=name)) for name in ("vendor|acme", "vendor|globex")]
        shared = clients[0]._cache
        clients[1]._cache = shared
        clients[1]._loader.cache = shared
        clients[1]._lookups._cache = shared
        await clients[0].get("u1")
        assert clients[1].peek("u1") is None
        assert (await clients[0].get(ProfileKey("u1", "email"))).status is Status.MISS

    async def test_L9_a_caller_cannot_change_what_others_see(self) -> None:
        """L9: a caller cannot change the cached value."""
        client = client_of(ScriptedSource(lambda _: found(tags=["a"], address={"city": "Oslo"})))
        mine = await client.get("u1")
        with pytest.raises(TypeError):
            mine["address"]["city"] = "Bergen"
        mine.as_dict()["tags"].append("b")
        assert (await client.get("u1")).as_dict() == {"tags": ["a"], "address": {"city": "Oslo"}}

    async def test_L9_loads_run_in_a_fresh_context(self) -> None:
        """L9: loads run in a fresh `contextvars.Context`."""
        user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
        user.set("alice")
        source = ScriptedSource()
        await client_of(source).get("u1")
        assert all(user not in context for context in source.contexts)

    def test_L9_one_client_serves_many_loops_one_after_the_other(self) -> None:
        """L9: a test client opens a new loop for each request."""
        source = ScriptedSource(delay=0.001)
        client = client_of(source)

        async def ask(key: str) -> Status:
            return (await client.get(key)).status

        assert [asyncio.run(ask(key)) for key in ("a", "b", "a")] == [Status.MISS, Status.MISS, Status.HIT]

    def test_L9_one_client_serves_many_loops_at_once(self) -> None:
        """L9: safe under threads and across event loops."""
        source = ScriptedSource(delay=0.001)
        client = client_of(source, max_entries=20)
        wrong: list[object] = []

        async def ask() -> None:
            for round_ in range(50):
                keys = [f"u{(round_ * 7 + index) % 40}" for index in range(20)]
                for key, profile in (await client.get_many(keys)).items():
                    if profile["id"] != key:
                        wrong.append((key, profile))
                client.invalidate(keys[0])

        threads = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert client.stats().in_flight == 0


class TestVisible:
    async def test_L11_each_lookup_is_counted_and_told_once(self) -> None:
        """L11: each get reports one status with its duration; hooks see them all, never attribute values."""
        told: list[Any] = []
        clock, switch = ManualClock(), Switch()
        source = ScriptedSource(switch)
        client = client_of(source, ttl=60, timer=clock, hooks=[told.append])
        await asyncio.gather(client.get("u1"), client.get("u1"))
        await client.get("u1")
        clock.advance(60)
        await client.get("u1")
        await settle()
        switch.error = SourceConnectionError("down")
        await client.lookup("u2")
        source.gate = asyncio.Event()
        await client.lookup("u3", budget=0.0)
        source.gate.set()
        await settle()
        client.skip(Reason.ANONYMOUS)
        source.answer = nobody
        await client.get("u4")
        await client.get("u4")
        stats = client.stats()
        assert stats.lookups == {
            Status.HIT: 1,
            Status.STALE: 1,
            Status.NEGATIVE: 1,
            Status.MISS: 2,
            Status.COALESCED: 1,
            Status.TIMEOUT: 1,
            Status.ERROR: 1,
            Status.SKIPPED: 1,
        }
        lookups = [details for details in told if type(details).__name__ == "LookupDetails"]
        flights = [details for details in told if type(details).__name__ == "LoadDetails"]
        assert len(lookups) == stats.total == 9
        assert len(flights) == stats.source_calls == 5
        assert stats.source_errors == {"source_connection": 2}
        assert [details.outcome for details in flights].count("found") == 2
        assert all(details.seconds >= 0 for details in [*lookups, *flights])
        assert "u1" not in repr(told)

    async def test_L11_a_hook_can_leave_fresh_hits_to_the_counters(self) -> None:
        """L11: with `hits = False` a hook gets all other events, and `watch` passes it the client with the counters."""

        class Metrics:
            hits = False

            def __init__(self) -> None:
                self.clients: list[ProfileClient] = []
                self.statuses: list[Status] = []

            def watch(self, client: ProfileClient) -> None:
                self.clients.append(client)

            def __call__(self, details: Details) -> None:
                if isinstance(details, LookupDetails):
                    self.statuses.append(details.status)

        metrics = Metrics()
        clock = ManualClock()
        client = client_of(ScriptedSource(), hooks=[metrics], timer=clock, ttl=60)
        for _ in range(3):
            await client.lookup("u1")
        clock.advance(61)
        await client.lookup("u1")
        assert metrics.clients == [client]
        assert metrics.statuses == [Status.MISS, Status.STALE]
        assert client.stats().lookups[Status.HIT] == 2

    async def test_L11_a_broken_hook_disturbs_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        """L11: hooks cannot change results."""

        def broken(_: object) -> None:
            raise ValueError("alice@example.com")

        client = client_of(ScriptedSource(), hooks=[broken])
        for _ in range(3):
            assert await client.get("u1")
        assert len(own_records(caplog)) == 1
        assert "ValueError" in caplog.text
        assert "alice" not in caplog.text

    async def test_A18_failures_are_logged_once_in_a_while_and_without_keys(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A18: no personal data in logs, at any level."""
        caplog.set_level(0)
        client = client_of(ScriptedSource(Switch(SourceConnectionError("no connection"))))
        for index in range(20):
            await client.lookup(f"alice{index}@example.com")
        assert [record.getMessage() for record in own_records(caplog)] == [
            "scripted: no connection [source_connection]; pages are served without fresh profiles",
            "scripted: circuit breaker opened; pages are served without new profiles",
        ]
        assert "alice" not in caplog.text


class TestClosing:
    async def test_L14_closing_leaves_nothing_behind(self) -> None:
        """L14: closing stops new refreshes, waits a bounded time, leaves no task; the in-flight table is empty."""
        source = ScriptedSource()
        client = client_of(source, close_timeout=0.02)
        await client.get("u1")
        source.gate = asyncio.Event()
        hung = asyncio.create_task(client.lookup("u2"))
        await settle()
        await client.aclose()
        assert (await hung).status is Status.ERROR
        await settle()
        assert client.stats().in_flight == 0
        assert own_tasks() == set()
        assert source.closed == 1
        await client.aclose()
        assert "closed" in repr(client)

    async def test_L14_a_load_that_ends_in_time_is_waited_for(self) -> None:
        """L14: waits a bounded time for loads."""
        client = client_of(ScriptedSource(delay=0.02))
        waiting = asyncio.create_task(client.get("u1"))
        await settle()
        await client.aclose()
        assert (await waiting)["id"] == "u1"

    async def test_L14_after_closing_the_cache_still_answers_and_the_source_is_not_asked(self) -> None:
        """L14: stops new refreshes."""
        clock = ManualClock()
        source = ScriptedSource()
        client = client_of(source, ttl=60, timer=clock)
        await client.get("u1")
        await client.aclose()
        clock.advance(60)
        assert (await client.get("u1")).is_stale
        await settle()
        assert len(source.calls) == 1
        assert client.health().closed

    async def test_A29_a_closed_client_that_is_used_again_opens_again(self) -> None:
        """A29: shutdown of one application keeps a client that another uses; also after a restart."""
        source = ScriptedSource()
        client = client_of(source)
        for number in range(3):
            assert (await client.get(f"u{number}")).status is Status.MISS
            assert not client.health().closed
            await client.aclose()
            assert (client.health().closed, source.closed) == (True, number + 1)

    async def test_A29_the_last_owner_closes_the_client(self) -> None:
        """A29: a client counts its owners."""
        source = ScriptedSource()
        client = client_of(source)
        async with client.lifespan():
            async with client.lifespan(), client:
                await client.get("u1")
            assert source.closed == 0
            assert (await client.get("u2")).status is Status.MISS
        assert source.closed == 1

    async def test_A29_while_it_is_being_closed_no_load_is_started(self) -> None:
        """A29, L14: closing completes even while lookups continue."""
        source = ScriptedSource()
        source.gate = asyncio.Event()
        client = client_of(source, close_timeout=0.05)
        hung = asyncio.create_task(client.lookup("u1"))
        await settle()
        closing = asyncio.create_task(client.aclose())
        await settle()
        with pytest.raises(ClientClosed):
            await client.get("u2")
        await closing
        assert (await hung).status is Status.ERROR
        assert len(source.calls) == 1

    async def test_A8_a_lifespan_can_be_entered_again(self) -> None:
        """A8: a client outlives the application that uses it."""
        client = client_of(ScriptedSource())
        for key in ("u1", "u2"):
            async with client.lifespan(object()):
                assert (await client.get(key)).status is Status.MISS

    async def test_L14_the_in_flight_table_is_empty_after_success_error_and_cancellation(self) -> None:
        """L14: … after success, error and cancellation."""
        switch = Switch()
        client = client_of(ScriptedSource(switch))
        await client.get("u1")
        switch.error = SourceConnectionError("down")
        await client.lookup("u2")
        caller = asyncio.create_task(client.get("u3"))
        await settle(1)
        caller.cancel()
        await settle()
        assert client.stats().in_flight == 0
        assert client._cache._loads == {}


class TestManyAndPeek:
    async def test_get_many_looks_each_key_up_once(self) -> None:
        source = ScriptedSource(delay=0.001)
        client = client_of(source)
        await client.get("b")
        profiles = await client.get_many(["a", "b", "a", ProfileKey("c")], concurrency=2)
        assert [str(key) if isinstance(key, str) else "key" for key in profiles] == ["a", "b", "key"]
        assert [profile.status for profile in profiles.values()] == [Status.MISS, Status.HIT, Status.MISS]
        assert len(source.calls) == 3

    async def test_get_many_is_bounded_in_calls_and_in_time(self) -> None:
        running, most = 0, 0

        class Source(ScriptedSource):
            async def fetch(self, key: ProfileKey, **_: Any) -> Found:
                nonlocal running, most
                running += 1
                most = max(most, running)
                await asyncio.sleep(30 if key.value == "hangs" else 0.005)
                running -= 1
                return found(id=key.value)

        client = client_of(Source())
        await client.get_many([str(index) for index in range(50)], concurrency=7)
        assert most == 7
        profiles = await client.get_many(["x", "hangs", "y"], concurrency=1, budget=2.0)
        assert [profile.status for profile in profiles.values()] == [Status.MISS, Status.TIMEOUT, Status.TIMEOUT]
        with pytest.raises(ConfigurationError, match="concurrency"):
            await client.get_many(["a"], concurrency=0)
        client._close_timeout = 0.01
        await client.aclose()

    async def test_one_bad_key_does_not_fail_the_others(self) -> None:
        client = client_of(ScriptedSource())
        profiles = await client.get_many(["a", ""])
        assert profiles["a"].found
        assert isinstance(profiles[""].error, InvalidKeyError)

    async def test_peek_asks_nobody(self) -> None:
        clock, source = ManualClock(), ScriptedSource()
        client = client_of(source, ttl=60, timer=clock)
        assert client.peek("u1") is None
        await client.get("u1")
        peeked = client.peek("u1")
        assert peeked is not None
        assert peeked.status is Status.HIT
        clock.advance(60)
        peeked = client.peek("u1")
        assert peeked is not None
        assert peeked.is_stale
        await settle()
        assert len(source.calls) == 1
        assert client.stats().total == 1

    async def test_a_pending_lookup_starts_a_load_that_others_join(self) -> None:
        source = ScriptedSource(delay=0.001)
        client = client_of(source)
        pending = client.find("u1")
        assert isinstance(pending, PendingLookup)
        pending.start()
        profiles = await asyncio.gather(pending.wait(), client.lookup("u1"))
        assert [profile.status for profile in profiles] == [Status.MISS, Status.COALESCED]
        found = client.find("u1")
        assert isinstance(found, Profile)
        assert found.status is Status.HIT
        assert len(source.calls) == 1
        unusable = client.find("")
        assert isinstance(unusable, Profile)
        assert unusable.status is Status.ERROR

    async def test_L6_a_load_that_was_started_early_is_not_used_after_an_invalidation(self) -> None:
        """L6: no later get sees that load's result, also not through a pending lookup."""
        switch = Switch()
        client = client_of(ScriptedSource(switch))
        pending = client.find("u1")
        assert isinstance(pending, PendingLookup)
        pending.start()
        await settle()
        switch.version = 2
        client.invalidate("u1")
        assert (await pending.wait())["version"] == 2

    @pytest.mark.parametrize("early", [False, True])
    async def test_L1_a_pending_lookup_uses_what_another_loaded_meanwhile(self, early: bool) -> None:
        """L1: one call, also if another load starts and ends between the decision and the wait."""
        source = ScriptedSource()
        client = client_of(source)
        waiting = [client.find("u1") for _ in range(3)]
        assert (await client.lookup("u1")).found
        for pending in waiting:
            assert isinstance(pending, PendingLookup)
            if early:
                pending.start()
            profile = await pending.wait()
            assert (profile["id"], profile.status) == ("u1", Status.HIT)
        assert len(source.calls) == 1
        assert client.stats().total == 4

    async def test_one_decision_a_lookup(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every kind of lookup reads the cache once for a fresh hit, and at most twice for a cold miss."""
        client = client_of(ScriptedSource())
        reads: list[str] = []
        for name in ("get", "fresh"):
            original = getattr(ProfileCache, name)

            def counted(self: object, *args: object, name: str = name, original: Any = original) -> object:
                reads.append(name)
                return original(self, *args)

            monkeypatch.setattr(ProfileCache, name, counted)
        await client.get("u1")
        assert reads == ["fresh", "get"]
        await client.get_many(["u2"])
        pending = client.find("u3")
        assert isinstance(pending, PendingLookup)
        pending.start()
        await pending.wait()
        assert reads == ["fresh", "get"] * 3
        reads.clear()
        for key in ("u1", "u2", "u3"):
            await client.get(key)
        assert reads == ["fresh"] * 3


class TestBadInput:
    @pytest.mark.parametrize("key", ["", None, 7, b"a", "x" * 4096, "\ud800"])
    async def test_a_bad_key_is_refused_before_any_call(self, key: Any) -> None:
        source = ScriptedSource()
        client = client_of(source)
        with pytest.raises(InvalidKeyError):
            await client.get(key)
        with pytest.raises(InvalidKeyError):
            await client.refresh(key)
        with pytest.raises(InvalidKeyError):
            client.invalidate(key)
        profile = await client.lookup(key)
        assert (profile.status, profile.reason) == (Status.ERROR, Reason.UNAVAILABLE)
        assert source.calls == []

    async def test_errors_of_other_kinds_reach_the_caller_as_ours(self) -> None:
        client = client_of(ScriptedSource(Switch(RuntimeError("alice@example.com"))))
        with pytest.raises(SourceError, match="unexpected RuntimeError") as raised:
            await client.get("u1")
        assert "alice" not in repr(copy.copy(raised.value))

    async def test_a_configuration_error_is_raised_as_such(self) -> None:
        client = client_of(ScriptedSource(Switch(ConfigurationError("no such entity"))))
        with pytest.raises(ConfigurationError, match="no such entity"):
            await client.get("u1")

    @pytest.mark.parametrize(
        ("setting", "name"),
        [({"deadline": 0}, "deadline"), ({"deadline": None}, "deadline"), ({"sweep_interval": -1}, "sweep_interval")],
    )
    def test_bad_settings_are_refused_by_name(self, setting: dict[str, Any], name: str) -> None:
        with pytest.raises(ConfigurationError, match=name):
            client_of(ScriptedSource(), **setting)

    def test_a_source_must_be_one(self) -> None:
        with pytest.raises(ConfigurationError, match="source must be a ProfileSource"):
            ProfileClient("https://example.com")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="not the class MemorySource"):
            ProfileClient(MemorySource)  # type: ignore[arg-type]

    def test_A9_nothing_exists_before_the_first_lookup(self) -> None:
        """A9: nothing bound to a loop or a socket exists before a fork."""
        client = client_of(ScriptedSource())
        assert client.transport is None
        assert client.stats().total == 0
        assert repr(client) == "<ProfileClient of scripted, 0 entries>"


class TestWarmUp:
    async def test_the_lifespan_connects_before_the_first_visitor(self) -> None:
        with VendorServer({"u1": {"tier": "gold"}}, key=None) as vendor:
            source = CensusSource("secret", entity="Users", base_url=vendor.base_url)
            client = client_of(source)
            async with client.lifespan():
                assert [call.path for call in vendor.calls] == ["/api/v1/entities"]
                assert (await client.get("u1", budget=5.0)).found
            assert len(vendor.calls) == 2

    async def test_a_source_that_fails_or_hangs_starts_the_application_all_the_same(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with VendorServer({"u1": {"tier": "gold"}}, key=None) as vendor:
            for fault in (faults.ServerError(), faults.Hang()):
                vendor.always(fault)
                client = client_of(
                    CensusSource("secret", entity="Users", base_url=vendor.base_url), warm_up_timeout=2.0
                )
                assert await client.warm_up() is False
                vendor.release()
                vendor.heal()
                async with client.lifespan():
                    assert (await client.get("u1")).found
        assert len([record for record in caplog.records if "could not be warmed up" in record.message]) == 2

    async def test_it_can_be_turned_off(self) -> None:
        with VendorServer({"u1": {"tier": "gold"}}, key=None) as vendor:
            source = CensusSource("secret", entity="Users", base_url=vendor.base_url)
            async with client_of(source, warm_up_timeout=0).lifespan():
                assert vendor.call_count == 0

    async def test_amperity_fetches_its_token_and_its_index(self) -> None:
        with VendorServer({"u1": {"tier": "gold"}}, key=None) as vendor:
            token = ClientCredentials(vendor.token_url, "client", "client-secret", "acme")
            source = AmperitySource(index="Users", tenant="acme", token=token, base_url=vendor.amperity_url)
            async with client_of(source).lifespan():
                assert ["token" in call.path for call in vendor.calls] == [True, False]
